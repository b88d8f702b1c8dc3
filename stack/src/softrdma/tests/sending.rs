//! RFC 9293 §3.8, RFC 5681, RFC 6298, RFC 6928: what is sent when.

use std::time::Duration;

use super::script::{FULL, Script, byte, plain, seg};
use crate::softrdma::SoftrdmaConfig;
use crate::stream::{Engine, ResetReason, StreamEvent};

fn lengths(sent: &[super::script::Seg]) -> Vec<usize> {
    sent.iter().map(|sent| sent.payload.len()).collect()
}

#[test]
fn rfc_6928_ten_segments_leave_before_the_first_acknowledgement() {
    let mut script = Script::connected();
    script.write(100_000);
    assert_eq!(lengths(&script.sent()), [FULL; 10]);
    // RFC 5681 §3.1: slow start, a segment more for each that arrived.
    script.send(seg("A", 1, 1 + 2 * FULL as u32));
    assert_eq!(lengths(&script.sent()), [FULL; 4]);
}

#[test]
fn rfc_9293_3_7_1_a_peer_that_does_not_say_gets_segments_of_536_bytes() {
    let mut syn = seg("S", 0, 0);
    syn.mss = None;
    let (mut script, _) = Script::connected_with(plain(), syn);
    script.write(1072);
    assert_eq!(lengths(&script.sent()), [536, 536]);
}

#[test]
fn rfc_6691_2_timestamps_are_taken_from_the_segments() {
    let config = SoftrdmaConfig { timestamps: true, ..plain() };
    let (mut script, _) = Script::connected_with(config, seg("S", 0, 0).ts(1, 0));
    script.write(3000);
    assert_eq!(lengths(&script.sent())[..2], [FULL - 12; 2]);
}

#[test]
fn records_travel_whole_each_in_a_segment_of_its_own() {
    let mut script = Script::connected();
    script.above.source.record = 1000;
    script.write(3000);
    assert_eq!(lengths(&script.sent()), [1000; 3]);
}

#[test]
fn rfc_6298_5_the_oldest_segment_is_sent_again_with_growing_patience() {
    let mut script = Script::connected();
    script.write(100);
    let first = script.expect("A", 1, 1, 100);
    let start = script.now;
    let mut times = Vec::new();
    while times.len() < 5 {
        script.pass(Duration::from_micros(100));
        for again in script.drain() {
            assert!(again.is("A", 1, 1, 100) && again.payload == first.payload, "{again:?}");
            times.push(script.now.saturating_since(start));
        }
        assert!(script.now.saturating_since(start) < Duration::from_secs(60), "{times:?}");
    }
    // Without a good measurement patience may begin with a probe; behind it each wait is twice as long.
    let waits: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for pair in waits[1..].windows(2) {
        let ratio = pair[1].as_secs_f64() / pair[0].as_secs_f64();
        assert!((1.8..2.2).contains(&ratio), "{waits:?}");
    }
}

#[test]
fn what_is_sent_again_has_the_same_bytes_however_it_was_cut() {
    let mut script = Script::connected_with_sack();
    script.write(5 * FULL as u64);
    script.sent();
    // The third is missing.
    let third = 1 + 2 * FULL as u32;
    for count in 3..5 {
        script.send(seg("A", 1, third).sack(&[(third + FULL as u32, 1 + (count + 1) * FULL as u32)]));
    }
    script.pass(Duration::from_millis(2));
    let again = script.drain();
    let copy = again.iter().find(|sent| sent.seq == third).expect("the third again");
    let expected: Vec<u8> = (0..copy.payload.len() as u64).map(|at| byte(2 * FULL as u64 + at)).collect();
    assert_eq!(copy.payload, expected);
    script.send(seg("A", 1, 1 + 5 * FULL as u32));
    assert_eq!(script.above.source.acknowledged, 5 * FULL as u64);
}

#[test]
fn rfc_9293_3_8_6_1_a_closed_window_is_probed_ever_more_rarely_and_opens_again() {
    let mut script = Script::connected();
    script.send(seg("A", 1, 1).window(0));
    script.write(100);
    script.nothing();
    let start = script.now;
    let mut times = Vec::new();
    while times.len() < 5 {
        script.pass(Duration::from_millis(1));
        for probe in script.drain() {
            assert!(probe.payload.len() <= 1, "{probe:?}");
            times.push(script.now.saturating_since(start));
            script.send(seg("A", 1, 1).window(0));
        }
        assert!(script.now.saturating_since(start) < Duration::from_secs(100), "{times:?}");
    }
    let waits: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits[3] > waits[0] * 3, "{waits:?}");
    // A window of less than a segment is used once it has not grown for a while.
    script.send(seg("A", 1, 1).window(1000));
    script.pass(Duration::from_millis(1100));
    let sent = script.drain();
    assert!(sent[0].is("A", 1, 1, 100), "{sent:?}");
}

#[test]
fn rfc_9293_3_8_6_1_a_peer_that_answers_probes_may_keep_its_window_closed_for_ever() {
    let config =
        SoftrdmaConfig { keep_alive_interval: Duration::from_secs(1), user_timeout: Duration::from_secs(5), ..plain() };
    let (mut script, _) = Script::connected_with(config, seg("S", 0, 0));
    script.send(seg("A", 1, 1).window(0));
    script.write(100);
    for _ in 0..600 {
        script.pass(Duration::from_millis(100));
        if !script.drain().is_empty() {
            script.send(seg("A", 1, 1).window(0));
        }
    }
    assert!(!script.has(|event| matches!(event, StreamEvent::Reset { .. })), "{:?}", script.above.events);
}

#[test]
fn rfc_9293_3_8_6_1_a_peer_that_shrinks_its_window_over_what_is_in_flight_may_keep_it_closed_for_ever() {
    let full = FULL as u32;
    for (acknowledged, window) in [(1, 0), (1, 50), (1 + full, 0)] {
        let config = SoftrdmaConfig {
            keep_alive_interval: Duration::from_secs(1),
            user_timeout: Duration::from_secs(5),
            ..plain()
        };
        let (mut script, _) = Script::connected_with(config, seg("S", 0, 0));
        script.write(2 * u64::from(full));
        assert_eq!(lengths(&script.sent()), [FULL, FULL]);
        // Each word of the peer has a byte with it, so that it is newer than the one before.
        script.send(seg("A", 1, 1).data(b"x"));
        let mut seq = 2;
        let mut probes = 0;
        for _ in 0..600 {
            script.pass(Duration::from_millis(100));
            let has_probed = script.drain().iter().any(|sent| !sent.payload.is_empty());
            if seq == 2 || has_probed {
                probes += u32::from(has_probed);
                script.send(seg("A", seq, acknowledged).window(window).data(b"x"));
                seq += 1;
            }
        }
        let is_reset = |event: &StreamEvent| matches!(event, StreamEvent::Reset { .. });
        assert!(!script.has(is_reset), "{acknowledged}, window {window}: {:?}", script.above.events);
        // Ever more seldom, but several in the time after which silence means death.
        assert!((40..80).contains(&probes), "{probes} probes in a minute");
        script.drain();
        script.send(seg("A", seq, acknowledged));
        script.pass(Duration::from_millis(10));
        let again = script.drain();
        assert!(again.iter().any(|again| again.is("A", acknowledged, seq, FULL)), "window {window}, opened: {again:?}");
        script.send(seg("A", seq, 1 + 2 * full));
        assert_eq!(script.above.source.acknowledged, 2 * u64::from(full));
    }
}

#[test]
fn rfc_9293_3_8_3_a_peer_that_shrinks_its_window_and_falls_silent_is_given_up_at_its_time() {
    let config =
        SoftrdmaConfig { keep_alive_interval: Duration::from_secs(1), user_timeout: Duration::from_secs(5), ..plain() };
    let (mut script, _) = Script::connected_with(config, seg("S", 0, 0));
    script.write(100);
    script.expect("A", 1, 1, 100);
    for _ in 0..200 {
        script.send(seg("A", 1, 1).window(0));
        script.pass(Duration::from_millis(100));
    }
    let timed_out = |event: &StreamEvent| matches!(event, StreamEvent::Reset { reason: ResetReason::TimedOut, .. });
    script.pass(Duration::from_millis(4800));
    assert!(!script.has(timed_out), "{:?}", script.above.events);
    script.pass(Duration::from_millis(1500));
    assert!(script.has(timed_out), "{:?}", script.above.events);
}

#[test]
fn rfc_9293_3_8_6_2_1_a_window_that_opens_by_crumbs_is_not_filled_with_crumbs() {
    let mut script = Script::connected();
    script.write(65_535);
    script.drain();
    // Everything that was sent arrives; of the window ten bytes are left.
    script.send(seg("A", 1, 1 + 10 * FULL as u32).window(10));
    script.nothing();
    script.send(seg("A", 1, 1 + 10 * FULL as u32).window(FULL as u16));
    assert_eq!(lengths(&script.sent()), [FULL]);
}

#[test]
fn rfc_9293_3_8_6_2_2_our_window_opens_by_whole_segments_only() {
    let config = SoftrdmaConfig { receive_window_bytes: 32 << 10, ..plain() };
    let (mut script, _) = Script::connected_with(config, seg("S", 0, 0));
    script.above.appetite = 0;
    let mut seq = 1;
    while seq < 1 + (32 << 10) {
        let length = (1 + (32 << 10) - seq).min(FULL as u32);
        script.send(seg("A", seq, 1).data(&vec![3; length as usize]));
        seq += length;
    }
    script.drain();
    let stream = script.stream();
    // A hundred bytes at a time leave the window closed, until there is room that is worth a word.
    let mut windows = Vec::new();
    for _ in 0..200 {
        script.above.appetite = 100;
        script.engine.resume(stream);
        windows.extend(script.sent().iter().map(|sent| sent.window));
    }
    assert!(!windows.is_empty() && windows.len() < 40, "{windows:?}");
    assert!(windows.iter().all(|window| *window == 0 || usize::from(*window) >= FULL), "{windows:?}");
}

#[test]
fn rfc_9293_3_8_6_a_window_that_shrinks_breaks_nothing() {
    let mut script = Script::connected();
    script.write(20 * FULL as u64);
    assert_eq!(script.sent().len(), 10);
    script.send(seg("A", 1, 1 + FULL as u32).window(100));
    script.nothing();
    script.pass(Duration::from_millis(50));
    script.drain();
    script.send(seg("A", 1, 1 + 10 * FULL as u32).window(0xffff));
    assert!(!script.sent().is_empty());
    assert_eq!(script.above.source.acknowledged, 10 * FULL as u64);
}

#[test]
fn rfc_9293_3_8_4_a_silent_peer_is_probed_and_given_up() {
    let config = SoftrdmaConfig {
        keep_alive_interval: Duration::from_secs(2),
        user_timeout: Duration::from_secs(10),
        ..plain()
    };
    let (mut script, _) = Script::connected_with(config, seg("S", 0, 0));
    script.pass(Duration::from_millis(1900));
    script.nothing();
    script.pass(Duration::from_millis(200));
    let probe = script.one();
    assert!(probe.is("A", 0, 1, 0), "{probe:?}");
    script.send(seg("A", 1, 1));
    script.pass(Duration::from_secs(9));
    assert!(!script.drain().is_empty());
    assert!(!script.has(|event| matches!(event, StreamEvent::Reset { .. })));
    script.pass(Duration::from_secs(6));
    let timed_out = |event: &StreamEvent| matches!(event, StreamEvent::Reset { reason: ResetReason::TimedOut, .. });
    assert!(script.has(timed_out), "{:?}", script.above.events);
    assert!(script.drain().iter().any(|sent| sent.flags.contains('R')));
}

#[test]
fn rfc_9293_3_8_3_a_peer_that_acknowledges_nothing_is_given_up_at_its_time() {
    let config =
        SoftrdmaConfig { keep_alive_interval: Duration::from_secs(1), user_timeout: Duration::from_secs(3), ..plain() };
    let (mut script, _) = Script::connected_with(config, seg("S", 0, 0));
    script.write(100);
    script.pass(Duration::from_millis(2900));
    assert!(!script.has(|event| matches!(event, StreamEvent::Reset { .. })));
    script.pass(Duration::from_secs(3));
    let timed_out = |event: &StreamEvent| matches!(event, StreamEvent::Reset { reason: ResetReason::TimedOut, .. });
    assert!(script.has(timed_out), "{:?}", script.above.events);
    assert_eq!(script.engine.statistics().connections, 0);
}
