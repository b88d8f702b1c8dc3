//! RFC 4987 §3.6: a listener whose backlog is full answers without keeping anything, and knows its answers again.

use std::time::Duration;

use super::script::{FULL, Script, Seg, plain, seg};
use crate::softrdma::SoftrdmaConfig;
use crate::stream::{Engine, StreamEvent};

/// A listener with room for four half-open connections, all taken by peers who never confirm.
fn flooded(config: SoftrdmaConfig) -> Script {
    let mut script = Script::new(config);
    script.listen(4);
    for port in 10_000..10_004 {
        script.send(seg("S", 0, 0).port(port));
    }
    script.drain();
    script
}

/// What `syn` is answered with.
fn answer_to(script: &mut Script, syn: Seg) -> Seg {
    let port = syn.port;
    script.send(syn);
    script.drain().into_iter().find(|answer| answer.port == port).expect("an answer")
}

fn incoming(script: &Script) -> usize {
    script.streams().len()
}

#[test]
fn rfc_4987_3_6_the_answer_that_comes_back_makes_a_connection_and_its_bytes_count() {
    let mut script = flooded(plain());
    let answer = answer_to(&mut script, seg("S", 0, 0));
    assert!(answer.is("SA", 0, 1, 0), "{answer:?}");
    assert_eq!(answer.mss, Some(FULL as u16));
    assert_eq!(script.engine.statistics().connections, 4, "nothing is kept");
    script.send(seg("A", 1, 1).data(b"first words"));
    assert_eq!(incoming(&script), 1);
    assert_eq!(script.above.received, b"first words");
    script.expect("A", 1, 12, 0);
    script.write(3000);
    assert_eq!(script.sent().iter().map(|sent| sent.payload.len()).collect::<Vec<_>>(), [FULL, FULL, 80]);
    let statistics = script.engine.statistics();
    assert_eq!((statistics.stateless_answers, statistics.connections), (1, 5));
}

#[test]
fn rfc_4987_3_6_without_timestamps_the_segment_size_is_kept_and_nothing_else_is_offered() {
    for config in [plain(), SoftrdmaConfig { timestamps: true, ..plain() }] {
        let mut script = flooded(config);
        let mut syn = seg("S", 0, 0).sackable().scale(7);
        syn.mss = Some(1300);
        let answer = answer_to(&mut script, syn);
        assert_eq!((answer.scale, answer.sack_permitted, answer.timestamps), (None, false, None));
        script.send(seg("A", 1, 1).window(2000));
        script.write(10_000);
        // The largest size that a cookie can say and the peer takes; and its window is not scaled.
        assert_eq!(script.sent().iter().map(|sent| sent.payload.len()).collect::<Vec<_>>(), [1220]);
        script.send(seg("A", 11, 1).window(2000).data(b"behind a gap"));
        assert!(script.one().sack.is_empty());
    }
    // Nor to a peer that has timestamps if we have none.
    let mut script = flooded(plain());
    let answer = answer_to(&mut script, seg("S", 0, 0).sackable().scale(7).ts(100, 0));
    assert_eq!((answer.scale, answer.sack_permitted, answer.timestamps), (None, false, None));
}

#[test]
fn rfc_4987_3_6_with_timestamps_scaling_and_selective_acknowledgements_are_kept() {
    let mut script = flooded(SoftrdmaConfig { timestamps: true, receive_window_bytes: 1 << 20, ..plain() });
    let answer = answer_to(&mut script, seg("S", 0, 0).sackable().scale(7).ts(100, 0));
    let (clock, echo) = answer.timestamps.expect("timestamps");
    assert!(answer.scale.is_some() && answer.sack_permitted && echo == 100, "{answer:?}");
    script.pass(Duration::from_millis(3));
    script.send(seg("A", 1, 1).window(32).ts(103, clock));
    assert_eq!(incoming(&script), 1);
    script.write(100_000);
    let sent = script.sent();
    assert_eq!(sent.iter().map(|sent| sent.payload.len()).collect::<Vec<_>>(), [FULL - 12; 2], "a window of 4096");
    for sent in sent {
        let (value, echo) = sent.timestamps.expect("timestamps");
        assert!(echo == 103 && value.wrapping_sub(clock) < 100, "time goes on where the answer said it was");
        assert_eq!(usize::from(sent.window) << answer.scale.unwrap_or(0), 1 << 20);
    }
    script.send(seg("A", 11, 1).window(32).ts(104, clock).data(b"behind a gap"));
    assert_eq!(script.one().sack, [(11, 23)]);
}

#[test]
fn rfc_4987_3_6_what_is_no_cookie_or_an_old_one_is_reset() {
    let mut script = flooded(plain());
    answer_to(&mut script, seg("S", 0, 0));
    for wrong in [0, 2, 0x0100_0001, 0x0800_0001, 0x8000_0001] {
        script.send(seg("A", 1, wrong));
        script.expect("R", wrong, 0, 0);
    }
    script.send(seg("A", 2, 1));
    script.expect("R", 1, 0, 0);
    script.send(seg("A", 1, 1).port(9999));
    script.expect("R", 1, 0, 0);
    script.pass(Duration::from_secs(129));
    script.drain();
    script.send(seg("A", 1, 1));
    script.expect("R", 1, 0, 0);
    assert!(script.above.events.is_empty());
    assert_eq!(script.engine.statistics().connections, 0, "those that never confirmed are gone as well");
}

#[test]
fn rfc_4987_a_a_right_number_is_believed_behind_a_flood_only() {
    let numbers = |script: &mut Script| {
        answer_to(script, seg("S", 0, 0));
        script.initial
    };
    let initial = numbers(&mut flooded(plain()));
    // The same engine without a flood: whoever knows the number all the same gets nothing by it.
    let mut script = Script::listening(plain());
    script.initial = initial;
    script.send(seg("A", 1, 1));
    script.expect("R", 1, 0, 0);
    assert!(script.above.events.is_empty());
}

#[test]
fn rfc_4987_3_6_a_flood_does_not_drive_out_who_is_about_to_confirm() {
    let mut script = Script::listening(plain());
    let answer = answer_to(&mut script, seg("S", 0, 0));
    let initial = script.initial;
    for port in 10_000..30_000 {
        script.send(seg("S", 0, 0).port(port));
        script.drain();
    }
    script.initial = initial;
    script.send(seg("A", 1, answer.seq + 1));
    assert_eq!(incoming(&script), 1);
    assert_eq!(script.engine.statistics().connections, 16);
}

#[test]
fn half_open_connections_leave_most_of_the_free_places_to_those_that_confirm() {
    let mut script = Script::new(SoftrdmaConfig { max_connections: 30, ..plain() });
    script.listen(128);
    for port in 10_000..11_000 {
        script.send(seg("S", 0, 0).port(port));
        script.drain();
    }
    let taken = script.engine.statistics().connections;
    assert!(taken <= 11, "{taken} of 30");
    for port in 20_000..20_040 {
        let answer = answer_to(&mut script, seg("S", 0, 0).port(port));
        if answer.flags == "SA" {
            script.send(seg("A", 1, 1).port(port));
        }
    }
    assert_eq!(incoming(&script) as u64, 30 - taken);
    // The table is full: what comes now is refused as ever.
    let statistics = script.engine.statistics();
    assert_eq!((statistics.connections, statistics.refused_connections), (30, 40 - (30 - taken)));
    script.pass(Duration::from_secs(11));
    assert_eq!(script.engine.statistics().connections, 30 - taken);
    script.drain();
    assert!(!script.has(|event| matches!(event, StreamEvent::Reset { .. })));
}

#[test]
fn a_cookie_for_a_listener_that_has_gone_is_reset() {
    let mut script = flooded(plain());
    let listener = {
        let local = (std::net::Ipv4Addr::new(10, 0, 0, 2), 8).into();
        script.engine.listen(script.now, local, 1).expect("a listener")
    };
    script.local_port = 8;
    script.send(seg("S", 0, 0).port(10_000));
    let answer = answer_to(&mut script, seg("S", 0, 0));
    assert!(answer.is("SA", 0, 1, 0), "{answer:?}");
    script.engine.close_listener(script.now, listener);
    script.send(seg("A", 1, 1));
    assert!(script.drain().iter().any(|sent| sent.is("R", 1, 0, 0)));
    assert!(script.above.events.is_empty());
}

#[test]
fn a_cookie_is_good_though_the_same_syn_has_found_a_place_since() {
    let mut script = flooded(plain());
    assert!(answer_to(&mut script, seg("S", 0, 0)).is("SA", 0, 1, 0));
    let cookie = script.initial;
    // Somebody of the flood makes room, and the SYN comes again before the first answer has arrived.
    script.send(seg("R", 1, 0).port(10_000));
    script.drain();
    answer_to(&mut script, seg("S", 0, 0));
    assert_ne!(script.initial, cookie, "a place, and no cookie");
    script.initial = cookie;
    script.send(seg("A", 1, 1).data(b"hello"));
    let sent = script.drain();
    assert!(!sent.iter().any(|sent| sent.flags.contains('R')), "a good peer is reset: {sent:?}");
    assert_eq!((incoming(&script), &script.above.received[..]), (1, &b"hello"[..]));
}
