//! RFC 9293 §3.10.7.4, RFC 5961, RFC 7323, RFC 2018, RFC 2883: which segments of a connection count, and how they are
//! acknowledged.

use std::time::Duration;

use super::script::{FULL, Script, plain, seg};
use crate::softrdma::SoftrdmaConfig;
use crate::softrdma::shared::SackBlocks;
use crate::stream::{Engine, ResetReason, StreamEvent};

fn is_reset(script: &Script) -> bool {
    script.has(|event| matches!(event, StreamEvent::Reset { reason: ResetReason::ByPeer, .. }))
}

#[test]
fn rfc_9293_3_10_7_4_bytes_in_order_are_delivered_and_acknowledged() {
    let mut script = Script::connected();
    script.send(seg("A", 1, 1).data(b"hello "));
    script.expect("A", 1, 7, 0);
    script.send(seg("A", 7, 1).data(b"world"));
    script.expect("A", 1, 12, 0);
    assert_eq!(script.above.received, b"hello world");
}

#[test]
fn rfc_9293_3_10_7_4_what_overlaps_is_trimmed_on_both_sides() {
    let config = SoftrdmaConfig { receive_window_bytes: 16 << 10, ..plain() };
    let (mut script, _) = Script::connected_with(config, seg("S", 0, 0));
    script.send(seg("A", 1, 1).data(b"0123456789"));
    script.send(seg("A", 6, 1).data(b"56789abcde"));
    assert_eq!(script.above.received, b"0123456789abcde");
    script.drain();
    // Behind the window's end nothing counts, though the segment begins inside.
    script.above.appetite = 0;
    let length = 1000;
    let mut seq = 16;
    while seq + length < 16 + (16 << 10) {
        script.send(seg("A", seq, 1).data(&[7; 1000]));
        seq += length;
    }
    script.send(seg("A", seq, 1).data(&[8; 1000]));
    let last = script.sent().pop().expect("an acknowledgement");
    // The edge moves by whole segments: the fifteen bytes that were taken have not moved it.
    assert_eq!((last.ack, last.window), (1 + (16 << 10), 0));
}

#[test]
fn rfc_9293_3_10_7_4_a_segment_outside_the_window_is_answered_and_not_delivered() {
    let mut script = Script::connected();
    for seq in [1 + 0x10000, 0x4000_0000, 0x8000_0001, 0xffff_0000] {
        script.send(seg("A", seq, 1).data(b"junk"));
        script.expect("A", 1, 1, 0);
    }
    assert!(script.above.received.is_empty());
}

#[test]
fn rfc_9293_3_10_7_4_a_keep_alive_probe_is_answered() {
    let mut script = Script::connected();
    script.send(seg("A", 0, 1));
    script.expect("A", 1, 1, 0);
    script.send(seg("A", 0, 1).data(b"?"));
    script.expect("A", 1, 1, 0);
    assert!(script.above.received.is_empty());
}

#[test]
fn rfc_9293_3_10_7_4_acknowledgements_count_though_our_window_is_closed() {
    let mut script = Script::connected();
    script.above.appetite = 0;
    for part in 0..45 {
        script.send(seg("A", 1 + part * FULL as u32, 1).data(&[1; FULL]));
    }
    let end = script.sent().last().expect("an acknowledgement").ack;
    script.write(100);
    let sent = script.one();
    assert_eq!((sent.payload.len(), sent.window), (100, 0));
    script.send(seg("A", end, 101));
    assert_eq!(script.above.source.acknowledged, 100);
}

#[test]
fn rfc_5961_3_a_reset_needs_the_very_number_that_is_expected() {
    let mut script = Script::connected();
    script.send(seg("R", 1 + 0x10000, 0));
    script.send(seg("R", 0, 0));
    script.nothing();
    script.send(seg("R", 2, 0));
    script.expect("A", 1, 1, 0);
    assert!(!is_reset(&script));
    script.send(seg("R", 1, 0));
    assert!(is_reset(&script));
    script.nothing();
    assert_eq!(script.engine.statistics().connections, 0);
}

#[test]
fn rfc_5961_4_a_syn_never_resets_but_is_challenged() {
    let mut script = Script::connected();
    for seq in [1, 2, 0, 0x7000_0000] {
        script.send(seg("S", seq, 0));
        script.expect("A", 1, 1, 0);
    }
    // The peer that did forget us answers the challenge with a reset, which is believed.
    script.send(seg("R", 1, 0));
    assert!(is_reset(&script));
}

#[test]
fn rfc_5961_5_acknowledgements_of_what_was_never_sent_or_long_ago_are_challenged_and_their_bytes_dropped() {
    let mut script = Script::connected();
    for ack in [2, 0x4000_0000, 1u32.wrapping_sub(0x20000)] {
        script.send(seg("A", 1, ack).data(b"evil"));
        script.expect("A", 1, 1, 0);
    }
    assert!(script.above.received.is_empty());
    // A little too old is only late.
    script.send(seg("A", 1, 1u32.wrapping_sub(1000)).data(b"good"));
    assert_eq!(script.above.received, b"good");
}

#[test]
fn rfc_5961_5_a_stranger_outside_the_window_cannot_have_an_acknowledgement_believed() {
    let mut script = Script::connected();
    script.write(500);
    script.expect("A", 1, 1, 500);
    for seq in [0x2000_0000, 0x9000_0000, 1u32.wrapping_sub(0x10001)] {
        script.send(seg("A", seq, 501));
        script.send(seg("A", seq, 501).data(b"x"));
    }
    assert_eq!(script.above.source.acknowledged, 0);
    // What lies just before the window comes from the peer.
    script.send(seg("A", 0, 501));
    assert_eq!(script.above.source.acknowledged, 500);
}

#[test]
fn rfc_5961_7_challenges_are_limited_for_each_connection() {
    let mut script = Script::connected();
    let mut answers = 0;
    for _ in 0..1000 {
        script.send(seg("S", 1, 0));
        answers += script.drain().len();
    }
    assert_eq!(answers, 10);
    script.pass(Duration::from_millis(101));
    script.send(seg("S", 1, 0));
    script.expect("A", 1, 1, 0);
}

#[test]
fn rfc_7323_5_3_an_old_timestamp_is_an_old_segment() {
    let config = SoftrdmaConfig { timestamps: true, ..plain() };
    let (mut script, answer) = Script::connected_with(config, seg("S", 0, 0).ts(1000, 0));
    let (clock, echo) = answer.timestamps.expect("timestamps");
    assert_eq!(echo, 1000);
    script.send(seg("A", 1, 1).ts(1010, clock).data(b"new"));
    assert_eq!(script.one().timestamps.expect("timestamps").1, 1010);
    script.send(seg("A", 4, 1).ts(1009, clock).data(b"old"));
    script.expect("A", 1, 4, 0);
    // RFC 7323 §3.2: one without timestamps is dropped.
    script.send(seg("A", 4, 1).data(b"bare"));
    script.nothing();
    assert_eq!(script.above.received, b"new");
    // Half the clock's circle further everything is new again.
    script.send(seg("A", 4, 1).ts(1010 + 0x7fff_ffff, clock).data(b"far"));
    assert_eq!(script.above.received, b"newfar");
}

#[test]
fn rfc_7323_4_3_the_echoed_timestamp_is_that_of_the_oldest_segment_not_acknowledged() {
    let config = SoftrdmaConfig { timestamps: true, ..plain() };
    let (mut script, answer) = Script::connected_with(config, seg("S", 0, 0).sackable().ts(1000, 0));
    let clock = answer.timestamps.expect("timestamps").0;
    script.send(seg("A", 1, 1).ts(1001, clock).data(b"ab"));
    assert_eq!(script.one().timestamps.expect("timestamps").1, 1001);
    // Behind a gap: its timestamp is not echoed.
    script.send(seg("A", 5, 1).ts(1002, clock).data(b"ef"));
    assert_eq!(script.one().timestamps.expect("timestamps").1, 1001);
    script.send(seg("A", 3, 1).ts(1003, clock).data(b"cd"));
    let last = script.one();
    assert_eq!((last.ack, last.timestamps.expect("timestamps").1), (7, 1003));
    assert_eq!(script.above.received, b"abcdef");
}

#[test]
fn rfc_7323_2_windows_are_scaled_once_both_sides_said_so() {
    let config = SoftrdmaConfig { receive_window_bytes: 1 << 20, ..plain() };
    let (mut script, answer) = Script::connected_with(config, seg("S", 0, 0).scale(3));
    let scale = answer.scale.expect("a scale");
    assert_eq!(answer.window, 0xffff);
    script.send(seg("A", 1, 1).window(0x1000).data(b"x"));
    let sent = script.one();
    assert!((usize::from(sent.window) << scale).abs_diff(1 << 20) <= 1 << scale, "{}", sent.window);
    // Ours: 0x1000 with a scale of 3 is 32 KiB, more than the initial congestion window.
    script.write(100_000);
    let bytes: usize = script.sent().iter().map(|sent| sent.payload.len()).sum();
    assert_eq!(bytes, 10 * FULL);
}

#[test]
fn rfc_7323_2_2_without_the_peers_scale_windows_are_what_sixteen_bits_say() {
    let config = SoftrdmaConfig { receive_window_bytes: 1 << 20, ..plain() };
    let (mut script, answer) = Script::connected_with(config, seg("S", 0, 0));
    assert_eq!(answer.scale, None);
    for part in 0..2 {
        script.send(seg("A", 1 + part * FULL as u32, 1).data(&[0; FULL]));
    }
    assert_eq!(script.one().window, 0xffff);
}

#[test]
fn rfc_2018_4_blocks_behind_gaps_are_reported_the_latest_first() {
    let mut script = Script::connected_with_sack();
    script.send(seg("A", 11, 1).data(&[2; 10]));
    assert_eq!(script.expect("A", 1, 1, 0).sack, [(11, 21)]);
    script.send(seg("A", 31, 1).data(&[4; 10]));
    assert_eq!(script.expect("A", 1, 1, 0).sack, [(31, 41), (11, 21)]);
    script.send(seg("A", 51, 1).data(&[6; 10]));
    assert_eq!(script.expect("A", 1, 1, 0).sack, [(51, 61), (31, 41), (11, 21)]);
    script.send(seg("A", 21, 1).data(&[3; 10]));
    assert_eq!(script.expect("A", 1, 1, 0).sack, [(11, 41), (51, 61)]);
    script.send(seg("A", 1, 1).data(&[1; 10]));
    assert_eq!(script.expect("A", 1, 41, 0).sack, [(51, 61)]);
    script.send(seg("A", 41, 1).data(&[5; 10]));
    assert_eq!(script.expect("A", 1, 61, 0).sack, []);
    let expected: Vec<u8> = (1..=6).flat_map(|value| [value; 10]).collect();
    assert_eq!(script.above.received, expected);
}

#[test]
fn rfc_2018_2_without_permission_no_block_is_reported() {
    let mut script = Script::connected();
    script.send(seg("A", 11, 1).data(&[2; 10]));
    assert_eq!(script.expect("A", 1, 1, 0).sack, []);
}

#[test]
fn rfc_2883_4_what_arrived_twice_is_reported_once() {
    let mut script = Script::connected_with_sack();
    script.send(seg("A", 1, 1).data(&[1; 10]));
    script.expect("A", 1, 11, 0);
    script.send(seg("A", 1, 1).data(&[1; 10]));
    assert_eq!(script.expect("A", 1, 11, 0).sack, [(1, 11)]);
    script.send(seg("A", 11, 1).data(&[1; 10]));
    assert_eq!(script.expect("A", 1, 21, 0).sack, []);
}

#[test]
fn rfc_5681_4_2_a_segment_behind_a_gap_is_acknowledged_at_once_each_by_itself() {
    let mut script = Script::connected_with_sack();
    for part in 1..5 {
        script.send(seg("A", 1 + part * 10, 1).data(&[0; 10]));
        let sent = script.drain();
        assert_eq!(sent.len(), 1, "{sent:?}");
    }
}

#[test]
fn rfc_1122_4_2_3_2_data_carries_the_acknowledgement_if_it_comes_soon() {
    let mut script = Script::connected();
    script.send(seg("A", 1, 1).data(b"request"));
    script.write(8);
    let sent = script.sent();
    assert!(sent.len() == 1 && sent[0].is("A", 1, 8, 8), "{sent:?}");
}

#[test]
fn an_acknowledgement_waits_for_data_where_data_came_before_and_hardly_where_it_did_not() {
    let mut script = Script::connected();
    let mut next = 1;
    let mut waited = |script: &mut Script, length: usize| {
        script.send(seg("A", next, 1).data(&vec![0; length]));
        next += length as u32;
        let begun = script.now;
        let mut sent = script.drain();
        while sent.is_empty() {
            script.pass(Duration::from_nanos(50));
            sent = script.drain();
        }
        assert_eq!(sent[0].ack, next);
        script.now.saturating_since(begun)
    };
    assert!(waited(&mut script, 2) >= Duration::from_micros(5));
    assert!(waited(&mut script, 2) < Duration::from_micros(1));
    assert!(waited(&mut script, 2) < Duration::from_micros(1));
    // Who sends so much has more to send.
    assert!(waited(&mut script, FULL) >= Duration::from_micros(5));
    // Now there is some.
    let next = 7 + FULL as u32;
    script.send(seg("A", next, 1).data(b"ab"));
    script.pass(Duration::from_nanos(50));
    script.write(1);
    assert!(script.one().is("A", 1, next + 2, 1));
    script.send(seg("A", next + 2, 2).data(b"ab"));
    let begun = script.now;
    while script.drain().is_empty() {
        script.pass(Duration::from_nanos(50));
    }
    assert!(script.now.saturating_since(begun) >= Duration::from_micros(5));
}

#[test]
fn rfc_1122_4_2_3_2_of_a_long_stream_at_least_every_second_full_segment_is_acknowledged() {
    let mut script = Script::connected();
    let mut acknowledged = 0;
    for part in 0..20 {
        script.send(seg("A", 1 + part * FULL as u32, 1).data(&[0; FULL]));
        acknowledged += script.drain().len();
    }
    assert!(acknowledged >= 9, "{acknowledged}");
}

#[test]
fn rfc_9293_3_10_7_4_an_old_window_does_not_take_the_place_of_a_newer_one() {
    let mut script = Script::connected();
    script.write(500);
    script.expect("A", 1, 1, 500);
    script.send(seg("A", 1, 1).data(b"0123456789"));
    script.sent();
    script.send(seg("A", 11, 501).window(0x8000));
    // Comes late: it was said before the bytes.
    script.send(seg("A", 1, 501).window(0));
    script.write(100);
    let sent = script.sent();
    assert!(sent.iter().any(|sent| sent.payload.len() == 100), "{sent:?}");
}

#[test]
fn what_a_peer_says_at_the_very_end_of_our_window_counts() {
    let mut script = Script::connected_with_sack();
    let end = 1 + 0xffff;
    // All but the first segment has arrived.
    let mut seq = 1 + FULL as u32;
    while seq < end {
        let length = (end - seq).min(FULL as u32);
        script.send(seg("A", seq, 1).data(&vec![1; length as usize]));
        seq += length;
    }
    script.sent();
    script.write(100);
    script.sent();
    script.send(seg("A", end, 101));
    assert_eq!(script.above.source.acknowledged, 100);
}

#[test]
fn rfc_2883_4_blocks_that_have_been_acknowledged_since_are_left_out() {
    let mut blocks = SackBlocks::default();
    for block in [(10, 20), (30, 40), (0xffff_fff0, 5)] {
        blocks.push(block.0, block.1);
    }
    assert_eq!(blocks.beyond(25, false).as_slice(), [(30, 40)]);
    assert_eq!(blocks.beyond(25, true).as_slice(), [(10, 20), (30, 40)]);
    assert_eq!(blocks.beyond(0xffff_fff0, false).as_slice().len(), 3);
}

#[test]
fn nobody_keeps_more_behind_gaps_than_is_left_for_others() {
    let config = SoftrdmaConfig { max_held_packets: 64, ..plain() };
    let (mut script, _) = Script::connected_with(config, seg("S", 0, 0).sackable());
    for at in (3..3000u32).step_by(2) {
        script.send(seg("A", at, 1).data(&[at as u8]));
    }
    script.drain();
    assert_eq!(script.engine.receive.held_packets(), 32);
}
