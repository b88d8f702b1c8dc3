//! RFC 9293 §3.1, RFC 7323 §2, RFC 2018 §2: what a SYN may say.

use super::script::{FULL, Script, plain, seg};
use crate::softrdma::SoftrdmaConfig;

#[test]
fn options_are_offered_only_to_whom_asked() {
    let with = SoftrdmaConfig { timestamps: true, ..plain() };
    let mut script = Script::listening(with);
    script.send(seg("S", 0, 0));
    let answer = script.one();
    assert_eq!((answer.scale, answer.sack_permitted, answer.timestamps), (None, false, None));
    script.send(seg("S", 0, 0).sackable().scale(1).ts(5, 0).port(4001));
    let answer = script.one();
    assert!(answer.scale.is_some() && answer.sack_permitted);
    assert_eq!(answer.timestamps.expect("timestamps").1, 5);
}

#[test]
fn rfc_7323_2_3_a_scale_beyond_fourteen_counts_as_fourteen() {
    let (mut script, _) = Script::connected_with(plain(), seg("S", 0, 0).scale(200));
    script.send(seg("A", 1, 1).window(1));
    script.write(100_000);
    // One times 2^14.
    let bytes: usize = script.sent().iter().map(|sent| sent.payload.len()).sum();
    assert!((10 * FULL..=16_384).contains(&bytes), "{bytes}");
}

#[test]
fn a_peer_that_asks_for_tiny_segments_gets_small_ones() {
    let mut syn = seg("S", 0, 0);
    syn.mss = Some(1);
    let (mut script, _) = Script::connected_with(plain(), syn);
    script.write(1000);
    let sent = script.sent();
    assert!(sent.iter().all(|sent| sent.payload.len() >= 100), "{}", sent.len());
}

#[test]
fn a_peer_that_takes_larger_segments_gets_what_our_mtu_allows() {
    let mut syn = seg("S", 0, 0);
    syn.mss = Some(9000);
    let (mut script, _) = Script::connected_with(plain(), syn);
    script.write(3000);
    assert_eq!(script.sent()[0].payload.len(), FULL);
}
