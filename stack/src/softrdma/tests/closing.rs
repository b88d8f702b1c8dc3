//! RFC 9293 §3.6: how connections end.

use std::time::Duration;

use super::script::{Script, plain, seg};
use crate::softrdma::SoftrdmaConfig;
use crate::stream::{Engine, ResetReason, StreamEvent};

fn is_closed(script: &Script) -> bool {
    script.has(|event| matches!(event, StreamEvent::Closed { .. }))
}

fn has_peer_closed(script: &Script) -> bool {
    script.has(|event| matches!(event, StreamEvent::PeerClosed { .. }))
}

#[test]
fn rfc_9293_3_6_figure_12_our_close_first() {
    let mut script = Script::connected();
    script.close();
    script.expect("FA", 1, 1, 0);
    script.send(seg("A", 1, 2));
    script.nothing();
    // The other direction goes on.
    script.send(seg("A", 1, 2).data(b"still here"));
    script.expect("A", 2, 11, 0);
    assert_eq!(script.above.received, b"still here");
    script.send(seg("FA", 11, 2));
    script.expect("A", 2, 12, 0);
    assert!(has_peer_closed(&script) && is_closed(&script));
    assert_eq!(script.engine.statistics().connections, 0);
}

#[test]
fn rfc_9293_3_6_the_peers_close_first_and_we_may_still_send() {
    let mut script = Script::connected();
    script.send(seg("FA", 1, 1).data(b"bye"));
    script.expect("A", 1, 5, 0);
    assert_eq!(script.above.received, b"bye");
    assert!(has_peer_closed(&script) && !is_closed(&script));
    script.write(10);
    script.expect("A", 1, 5, 10);
    script.send(seg("A", 5, 11));
    script.close();
    script.expect("FA", 11, 5, 0);
    script.send(seg("A", 5, 12));
    assert!(is_closed(&script));
}

#[test]
fn rfc_9293_3_6_figure_13_both_close_at_once() {
    let mut script = Script::connected();
    script.close();
    script.expect("FA", 1, 1, 0);
    script.send(seg("FA", 1, 1));
    script.expect("A", 2, 2, 0);
    assert!(!is_closed(&script));
    script.send(seg("A", 2, 2));
    assert!(is_closed(&script));
}

#[test]
fn rfc_9293_3_6_the_fin_is_behind_all_bytes_and_is_sent_again_if_lost() {
    let mut script = Script::connected();
    script.write(20);
    script.close();
    let sent = script.sent();
    let last = sent.last().expect("a FIN");
    assert!(last.flags == "FA" && last.seq + last.payload.len() as u32 == 21, "{sent:?}");
    script.send(seg("A", 1, 21));
    script.drain();
    script.pass(Duration::from_millis(1100));
    let again = script.drain();
    assert!(again.iter().any(|sent| sent.is("FA", 21, 1, 0)), "{again:?}");
}

#[test]
fn rfc_9293_3_6_1_in_time_wait_a_repeated_fin_is_acknowledged_again() {
    let mut script = Script::connected();
    script.close();
    script.drain();
    script.send(seg("FA", 1, 2));
    script.expect("A", 2, 2, 0);
    script.pass(Duration::from_millis(100));
    script.send(seg("FA", 1, 2));
    script.expect("A", 2, 2, 0);
    // RFC 1337: a reset does not end TIME-WAIT early.
    script.send(seg("R", 2, 0));
    script.nothing();
    script.send(seg("FA", 1, 2));
    script.expect("A", 2, 2, 0);
}

#[test]
fn rfc_9293_3_6_1_time_wait_ends() {
    let config = SoftrdmaConfig { time_wait: Duration::from_secs(2), ..plain() };
    let (mut script, _) = Script::connected_with(config, seg("S", 0, 0));
    script.close();
    script.drain();
    script.send(seg("FA", 1, 2));
    script.drain();
    script.pass(Duration::from_secs(3));
    script.send(seg("FA", 1, 2));
    script.expect("R", 2, 0, 0);
}

#[test]
fn rfc_9293_3_6_1_a_new_syn_beyond_the_old_numbers_takes_the_place_of_time_wait() {
    let mut script = Script::connected();
    script.close();
    script.drain();
    script.send(seg("FA", 1, 2));
    script.drain();
    // An old one does not.
    script.send(seg("S", 0, 0));
    script.expect("A", 2, 2, 0);
    script.send(seg("S", 100_000, 0));
    let answer = script.one();
    assert_eq!((answer.flags.as_str(), answer.ack), ("SA", 100_001));
}

#[test]
fn rfc_9293_3_10_5_an_abort_resets_the_peer() {
    let mut script = Script::connected();
    let stream = script.stream();
    script.engine.abort(script.now, stream);
    let sent = script.one();
    assert!(sent.flags.starts_with('R') && sent.seq == 1, "{sent:?}");
    assert_eq!(script.engine.statistics().connections, 0);
    // And whoever goes on sending is reset again.
    script.send(seg("A", 1, 1).data(b"x"));
    script.expect("R", 1, 0, 0);
}

#[test]
fn rfc_9293_3_10_5_an_abort_when_both_have_said_their_last_sends_nothing() {
    // LAST-ACK, then CLOSING.
    for is_peer_first in [true, false] {
        let mut script = Script::connected();
        if is_peer_first {
            script.send(seg("FA", 1, 1));
        }
        script.close();
        script.drain();
        if !is_peer_first {
            script.send(seg("FA", 1, 1));
        }
        script.drain();
        assert!(has_peer_closed(&script) && !is_closed(&script));
        let stream = script.stream();
        script.engine.abort(script.now, stream);
        script.nothing();
        assert_eq!(script.engine.statistics().connections, 0);
    }
}

#[test]
fn rfc_9293_3_10_5_an_abort_resets_a_peer_that_has_ended_and_one_that_has_not_yet() {
    // CLOSE-WAIT, then FIN-WAIT-2.
    for is_peer_first in [true, false] {
        let mut script = Script::connected();
        if is_peer_first {
            script.send(seg("FA", 1, 1));
        } else {
            script.close();
            script.drain();
            script.send(seg("A", 1, 2));
        }
        script.drain();
        let stream = script.stream();
        script.engine.abort(script.now, stream);
        let sent = script.one();
        assert!(sent.flags.starts_with('R') && sent.seq == if is_peer_first { 1 } else { 2 }, "{sent:?}");
    }
}

#[test]
fn rfc_9293_3_10_7_4_a_fin_behind_a_gap_waits_for_what_is_missing() {
    let mut script = Script::connected();
    script.send(seg("FA", 4, 1).data(b"def"));
    script.expect("A", 1, 1, 0);
    assert!(!has_peer_closed(&script));
    script.send(seg("A", 1, 1).data(b"abc"));
    script.expect("A", 1, 8, 0);
    assert!(has_peer_closed(&script));
    assert_eq!(script.above.received, b"abcdef");
}

#[test]
fn rfc_9293_3_10_7_4_bytes_behind_a_fin_do_not_exist() {
    let mut script = Script::connected();
    script.send(seg("FA", 1, 1).data(b"end"));
    script.drain();
    script.send(seg("A", 5, 1).data(b"more"));
    script.drain();
    script.send(seg("A", 4, 1).data(b"less"));
    script.drain();
    assert_eq!(script.above.received, b"end");
    assert!(has_peer_closed(&script));
}

#[test]
fn resets_in_each_state_end_the_connection_once() {
    let closing = |script: &mut Script| {
        script.close();
        script.drain();
    };
    let steps: [&dyn Fn(&mut Script) -> u32; 4] = [
        &|_| 1,
        &|script| {
            closing(script);
            1
        },
        &|script| {
            closing(script);
            script.send(seg("A", 1, 2));
            1
        },
        &|script| {
            script.send(seg("FA", 1, 1));
            closing(script);
            2
        },
    ];
    for (index, step) in steps.iter().enumerate() {
        let mut script = Script::connected();
        let expected = step(&mut script);
        script.send(seg("R", expected, 0));
        let ends = script.above.events.iter().filter(|event| {
            matches!(event, StreamEvent::Reset { reason: ResetReason::ByPeer, .. } | StreamEvent::Closed { .. })
        });
        assert_eq!(ends.count(), 1, "state {index}: {:?}", script.above.events);
        assert_eq!(script.engine.statistics().connections, 0, "state {index}");
    }
}
