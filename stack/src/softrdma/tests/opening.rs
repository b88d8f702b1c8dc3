//! RFC 9293 §3.5 and §3.10.7.1 to §3.10.7.3: how connections begin; RFC 6298, RFC 6528, RFC 4987 as far as they say how.

use std::collections::HashSet;
use std::time::Duration;

use super::script::{FULL, PEER_PORT, Script, plain, seg};
use crate::softrdma::SoftrdmaConfig;
use crate::stream::{Engine, ResetReason, StreamEvent};

#[test]
fn rfc_9293_3_5_figure_6_a_connection_is_taken_in_three_steps() {
    let mut script = Script::listening(plain());
    script.send(seg("S", 0, 0));
    let answer = script.expect("SA", 0, 1, 0);
    assert_eq!(answer.mss, Some(FULL as u16));
    assert!(!script.is_incoming());
    script.send(seg("A", 1, 1));
    assert!(script.is_incoming());
    script.nothing();
}

#[test]
fn rfc_9293_3_5_figure_6_a_connection_is_made_in_three_steps() {
    let (mut script, syn) = Script::connecting(plain());
    assert_eq!((syn.mss, syn.sack_permitted), (Some(FULL as u16), true));
    script.send(seg("SA", 0, 1));
    script.expect("A", 1, 1, 0);
    assert!(script.has(|event| matches!(event, StreamEvent::Connected { .. })));
}

#[test]
fn rfc_9293_3_5_figure_7_both_sides_connect_to_each_other() {
    let (mut script, _) = Script::connecting(plain());
    script.send(seg("S", 0, 0));
    script.expect("SA", 0, 1, 0);
    script.send(seg("A", 1, 1));
    assert!(script.has(|event| matches!(event, StreamEvent::Connected { .. })));
    script.send(seg("A", 1, 1).data(b"hello"));
    assert_eq!(script.above.received, b"hello");
}

#[test]
fn rfc_9293_3_5_figure_8_an_old_syn_is_found_out_by_the_reset_of_its_answer() {
    let mut script = Script::listening(plain());
    script.send(seg("S", 90_000, 0));
    let answer = script.expect("SA", 0, 90_001, 0);
    script.send(seg("R", 90_001, answer.seq));
    script.nothing();
    script.send(seg("S", 0, 0));
    script.expect("SA", 0, 1, 0);
    script.send(seg("A", 1, 1));
    assert!(script.is_incoming());
}

#[test]
fn rfc_9293_3_10_7_1_what_belongs_to_no_connection_is_reset_so_that_its_sender_believes_it() {
    let mut script = Script::new(plain());
    script.send(seg("S", 0, 0));
    let mut answers = script.sent();
    // The question for our Ethernet address comes from the engine's answer, which is held until then.
    if answers.is_empty() {
        script.send(seg("S", 0, 0));
        answers = script.sent();
    }
    assert!(answers[0].flags == "RA" && answers[0].ack == 1, "{answers:?}");
    let raw = answers[0].seq.wrapping_add(script.initial);
    assert_eq!(raw, 0);
    script.send(seg("A", 5, 77).data(b"abc"));
    script.expect("R", 77, 0, 0);
    script.send(seg("SF", 5, 0).data(b"abc"));
    let answer = script.one();
    assert_eq!((answer.flags.as_str(), answer.ack), ("RA", 10));
    script.send(seg("R", 5, 0));
    script.send(seg("RA", 5, 77));
    script.nothing();
}

#[test]
fn rfc_9293_3_10_7_2_a_listener_resets_acknowledgements_and_ignores_resets() {
    let mut script = Script::listening(plain());
    script.send(seg("R", 0, 0));
    script.nothing();
    script.send(seg("A", 0, 1234));
    script.expect("R", 1234, 0, 0);
    script.send(seg("SA", 0, 1234));
    script.expect("R", 1234, 0, 0);
    assert!(script.above.events.is_empty());
}

#[test]
fn rfc_9293_3_10_7_3_only_an_acknowledgement_of_the_syn_counts_before_the_connection() {
    let (mut script, _) = Script::connecting(plain());
    for wrong in [0, 2, 0x8000_0000] {
        script.send(seg("SA", 0, wrong));
        script.expect("R", wrong, 0, 0);
        script.send(seg("RA", 0, wrong));
        script.nothing();
    }
    // A reset without acknowledgement could be from anybody.
    script.send(seg("R", 0, 0));
    script.send(seg("F", 0, 0));
    script.nothing();
    assert!(script.above.events.is_empty());
    script.send(seg("RA", 0, 1));
    let refused =
        |event: &StreamEvent| matches!(event, StreamEvent::ConnectFailed { reason: ResetReason::Refused, .. });
    assert!(script.has(refused), "{:?}", script.above.events);
    script.nothing();
}

#[test]
fn rfc_9293_3_10_7_4_while_half_open_a_wrong_acknowledgement_is_reset_and_a_repeated_syn_answered() {
    let mut script = Script::listening(plain());
    script.send(seg("S", 0, 0));
    script.expect("SA", 0, 1, 0);
    script.send(seg("S", 0, 0));
    script.expect("SA", 0, 1, 0);
    script.send(seg("A", 1, 5000));
    script.expect("R", 5000, 0, 0);
    script.send(seg("A", 1, 1));
    assert!(script.is_incoming());
}

#[test]
fn rfc_9293_3_10_7_4_bytes_that_come_with_the_last_step_count() {
    let mut script = Script::listening(plain());
    script.send(seg("S", 0, 0));
    script.expect("SA", 0, 1, 0);
    script.send(seg("A", 1, 1).data(b"first words"));
    assert_eq!(script.above.received, b"first words");
    script.expect("A", 1, 12, 0);
}

#[test]
fn rfc_6298_2_1_a_syn_is_repeated_after_one_second_then_two() {
    let (mut script, _) = Script::connecting(plain());
    script.pass(Duration::from_millis(990));
    script.nothing();
    script.pass(Duration::from_millis(20));
    script.expect("S", 0, 0, 0);
    script.pass(Duration::from_millis(1980));
    script.nothing();
    script.pass(Duration::from_millis(20));
    script.expect("S", 0, 0, 0);
}

#[test]
fn a_connection_that_nobody_answers_fails_at_its_time() {
    let config = SoftrdmaConfig { connect_timeout: Duration::from_secs(5), ..plain() };
    let (mut script, _) = Script::connecting(config);
    script.pass(Duration::from_millis(4900));
    assert!(script.above.events.is_empty());
    script.pass(Duration::from_millis(200));
    let timed_out =
        |event: &StreamEvent| matches!(event, StreamEvent::ConnectFailed { reason: ResetReason::TimedOut, .. });
    assert!(script.has(timed_out), "{:?}", script.above.events);
}

#[test]
fn a_half_open_connection_is_forgotten_at_its_time() {
    let config = SoftrdmaConfig { half_open_timeout: Duration::from_secs(3), ..plain() };
    let mut script = Script::listening(config);
    script.send(seg("S", 0, 0));
    script.expect("SA", 0, 1, 0);
    assert_eq!(script.engine.statistics().connections, 1);
    script.pass(Duration::from_secs(4));
    assert_eq!(script.engine.statistics().connections, 0);
    assert!(script.above.events.is_empty());
}

#[test]
fn rfc_6528_initial_numbers_differ_by_connection_and_follow_a_clock_for_the_same_one() {
    let mut script = Script::listening(SoftrdmaConfig { max_backlog: 128, ..plain() });
    let mut initials = HashSet::new();
    for port in 0..10 {
        script.send(seg("S", 0, 0).port(PEER_PORT + port));
        script.one();
        initials.insert(script.initial);
    }
    assert_eq!(initials.len(), 10);
    script.send(seg("S", 0, 0).port(9999));
    script.one();
    let before = script.initial;
    script.send(seg("R", 1, 0).port(9999));
    script.drain();
    script.pass(Duration::from_millis(400));
    script.drain();
    script.send(seg("S", 0, 0).port(9999));
    script.one();
    // 4 us a number.
    let elapsed = script.initial.wrapping_sub(before);
    assert!((100_000..100_100).contains(&elapsed), "{elapsed}");
}

#[test]
fn rfc_4987_3_6_under_a_flood_of_syns_a_good_peer_gets_in() {
    let mut script = Script::new(plain());
    script.listen(16);
    for port in 0..1000 {
        script.send(seg("S", 0, 0).port(10_000 + port));
        if port % 100 == 50 {
            // A peer that means it, a round trip of five strangers' SYNs away.
            let own = 20_000 + port;
            script.drain();
            script.send(seg("S", 0, 0).port(own));
            let answer = script.drain().into_iter().find(|answer| answer.port == own).expect("an answer");
            let initial = script.initial;
            for other in 0..5 {
                script.send(seg("S", 0, 0).port(30_000 + port * 10 + other));
            }
            script.drain();
            script.initial = initial;
            script.send(seg("A", 1, answer.seq + 1).port(own));
        }
        assert!(script.engine.statistics().connections <= 16 + 10);
    }
    let incoming = script.above.events.iter().filter(|event| matches!(event, StreamEvent::Incoming { .. })).count();
    assert_eq!(incoming, 10);
    let statistics = script.engine.statistics();
    assert!(statistics.stateless_answers > 900 && statistics.refused_connections == 0, "{statistics:?}");
}

#[test]
fn more_unknown_neighbours_than_are_remembered_are_not_asked_without_end() {
    const COUNT: u32 = 5000;
    let addresses = vec![([10, 0, 0, 2].into(), 8)];
    let mut script = Script::new(SoftrdmaConfig { max_connections: 10_000, addresses, ..plain() });
    let take = |script: &mut Script| {
        let mut frames = Vec::new();
        while crate::port::ReceiveQueue::receive(&mut script.receive, &mut frames) > 0 {}
        frames.len()
    };
    for number in 0..COUNT {
        let [_, high, middle, low] = number.to_be_bytes();
        let remote = std::net::SocketAddr::new([10, 1 + high, middle, low].into(), 5000);
        script.engine.connect(script.now, remote, None).expect("a connection");
        script.engine.flush(script.now);
        take(&mut script);
    }
    let mut frames = 0;
    for _ in 0..50 {
        script.engine.poll(script.now, &mut script.above);
        script.engine.flush(script.now);
        frames += take(&mut script);
    }
    assert!(script.engine.next_deadline(script.now).is_some_and(|at| at > script.now), "due at once for ever");
    assert!(frames <= COUNT as usize, "{frames} frames at one moment");
}
