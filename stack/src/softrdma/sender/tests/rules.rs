//! Scripted exchanges, one a rule.

use std::ops::Range;
use std::time::Duration;

use crate::softrdma::config::CongestionControl;
use crate::softrdma::sender::{Acknowledged, Established, Sender, SenderConfig, TimeoutOutcome, Transmission};
use crate::time::Instant;

const SEGMENT: u64 = 1000;
const ROUND_TRIP: Duration = Duration::from_millis(10);
const LEAST: Duration = Duration::from_millis(1);

/// A sender whose peer and clock are a test. Places are counted in segments.
struct Script {
    sender: Sender,
    now: Instant,
    window: u64,
}

impl Script {
    fn new(sack: bool) -> Self {
        Self::with(CongestionControl::Reno, sack)
    }

    fn with(congestion_control: CongestionControl, sack: bool) -> Self {
        let now = Instant::from_nanoseconds(1_000_000_000);
        let config = SenderConfig {
            congestion_control,
            min_retransmission_timeout: LEAST,
            user_timeout: Duration::from_secs(75),
        };
        let window = 1000;
        let established = Established {
            segment_size: SEGMENT as usize,
            window_bytes: window * SEGMENT,
            sack,
            first_round_trip: Some(ROUND_TRIP),
        };
        Self { sender: Sender::new(&config, now, established), now, window }
    }

    /// With a window of so many segments, all of them on their way, in congestion avoidance.
    fn filled(sack: bool, segments: u64) -> Self {
        let mut script = Self::new(sack);
        script.sender.window.set(segments * SEGMENT, segments * SEGMENT);
        assert_eq!(script.send_all(), (0..segments).map(new).collect::<Vec<_>>());
        script
    }

    fn wait(&mut self, duration: Duration) {
        self.now = self.now + duration;
    }

    /// Sends what may be sent, at most so many segments.
    fn send(&mut self, most: usize) -> Vec<Sent> {
        let mut sent = Vec::new();
        while sent.len() < most
            && let Some(transmission) = self.sender.poll_segment(self.now)
        {
            match transmission {
                Transmission::New { room } => {
                    let start = self.sender.next_offset();
                    self.sender.sent_new(start, room as u32, self.now);
                    sent.push(new(start / SEGMENT));
                }
                Transmission::Retransmit { start, length } => {
                    self.sender.sent_again(start, length, self.now);
                    sent.push(again(start / SEGMENT));
                }
            }
            self.sender.check();
        }
        sent
    }

    fn send_all(&mut self) -> Vec<Sent> {
        self.send(usize::MAX)
    }

    /// Sends what may be sent of what was sent before: there is nothing new.
    fn send_old(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        loop {
            match self.sender.poll_segment(self.now) {
                Some(Transmission::Retransmit { start, length }) => {
                    self.sender.sent_again(start, length, self.now);
                    sent.push(again(start / SEGMENT));
                }
                Some(Transmission::New { .. }) if self.sender.handle_drained(self.now) => {}
                Some(Transmission::New { .. }) | None => return sent,
            }
        }
    }

    fn acknowledge(&mut self, through: u64) {
        self.report(through, None, None);
    }

    fn sack(&mut self, through: u64, block: Range<u64>) {
        self.report(through, Some(block), None);
    }

    fn report(&mut self, through: u64, block: Option<Range<u64>>, duplicate: Option<Range<u64>>) {
        let bytes = |range: Range<u64>| range.start * SEGMENT..range.end * SEGMENT;
        let sack: Vec<Range<u64>> = block.map(bytes).into_iter().collect();
        let acknowledged = Acknowledged {
            through: through * SEGMENT,
            // Where it stays whatever arrives, so that duplicates are duplicates.
            window_end: self.window * SEGMENT,
            sack: &sack,
            duplicate: duplicate.map(bytes),
            carries_data: false,
        };
        self.sender.handle_acknowledgement(self.now, &acknowledged);
        self.sender.check();
    }

    /// Waits for the next deadline; how long that was, and what came of it.
    fn expire(&mut self) -> (Duration, TimeoutOutcome) {
        let at = self.sender.next_deadline().expect("a deadline");
        let waited = at.saturating_since(self.now);
        self.now = self.now.max(at);
        (waited, self.sender.handle_timeout(self.now))
    }

    /// Waits until the retransmission timeout, whatever comes before.
    fn time_out(&mut self) {
        let before = self.sender.timeouts;
        while self.sender.timeouts == before {
            self.expire();
            if self.sender.timeouts == before {
                self.send_old();
            }
        }
    }

    fn cwnd(&self) -> u64 {
        self.sender.window.bytes() / SEGMENT
    }
}

/// What was sent: the number of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    New(u64),
    Again(u64),
}

const fn new(number: u64) -> Sent {
    Sent::New(number)
}

const fn again(number: u64) -> Sent {
    Sent::Again(number)
}

#[test]
fn rfc_6928_2_ten_segments_leave_at_first() {
    assert_eq!(Script::new(true).send_all().len(), 10);
}

#[test]
fn rfc_8985_6_2_step_5_three_segments_behind_a_gap_are_a_loss_where_nothing_was_overtaken() {
    let mut script = Script::filled(true, 10);
    script.wait(ROUND_TRIP);
    script.sack(0, 1..2);
    script.sack(0, 1..3);
    assert!(script.send_old().is_empty(), "two may be reordering");
    script.sack(0, 1..4);
    assert_eq!(script.send_old(), [again(0)]);
}

#[test]
fn rfc_8985_6_2_step_5_one_segment_behind_a_gap_is_a_loss_when_the_reordering_window_has_passed() {
    let mut script = Script::filled(true, 10);
    script.wait(ROUND_TRIP);
    script.sack(0, 9..10);
    assert!(script.send_old().is_empty());
    let (waited, outcome) = script.expire();
    assert_eq!(waited, ROUND_TRIP / 4, "a quarter of the shortest round trip");
    assert_eq!(outcome, TimeoutOutcome::RetransmitDue);
    assert_eq!(script.send(1), [again(0)]);
}

#[test]
fn rfc_8985_6_2_step_3_once_segments_were_overtaken_three_behind_a_gap_are_no_loss_yet() {
    let mut script = Script::filled(true, 10);
    script.wait(ROUND_TRIP);
    script.sack(0, 1..2);
    script.acknowledge(2);
    script.sack(2, 3..9);
    assert!(script.send_old().is_empty(), "segment 2 may be late as segment 0 was");
    script.expire();
    assert_eq!(script.send_old(), [again(2)]);
}

#[test]
fn rfc_8985_6_2_step_5_a_lost_retransmission_is_found() {
    let mut script = Script::filled(true, 10);
    script.wait(ROUND_TRIP);
    script.sack(0, 1..10);
    assert_eq!(script.send(2), [again(0), new(10)]);
    script.wait(ROUND_TRIP);
    script.sack(0, 1..11);
    assert_eq!(script.send(1), [again(0)], "what left behind it has arrived");
}

#[test]
fn rfc_8985_6_2_step_2_a_copy_that_is_acknowledged_too_soon_is_no_evidence() {
    let mut script = Script::filled(true, 10);
    script.wait(ROUND_TRIP);
    script.sack(0, 1..4);
    assert_eq!(script.send(1), [again(0)]);
    script.wait(ROUND_TRIP / 100);
    script.acknowledge(4);
    assert_eq!(script.sender.segments.lost_bytes(), 0, "the original has arrived, nothing else is late");
}

#[test]
fn rfc_8985_6_3_after_a_timeout_only_what_is_overdue_is_lost() {
    let mut script = Script::new(true);
    script.send(2);
    let timeout = script.sender.timeout_at.expect("armed");
    script.now = Instant::from_nanoseconds(timeout.as_nanoseconds() - 1_000_000);
    script.sender.probe_at = None;
    script.send(1);
    script.sender.probe_at = None;
    script.expire();
    assert_eq!(script.sender.segments.lost_bytes(), 2 * SEGMENT, "the third left a moment ago");
    // RFC 6298 §5.4: and the first leaves now, though the window is full of the third.
    assert_eq!(script.send(1), [again(0)]);
}

#[test]
fn rfc_8985_7_2_a_probe_is_due_after_two_round_trips_and_later_for_a_lone_segment() {
    let mut script = Script::new(true);
    script.sender.round_trip.measure(Duration::from_millis(30), script.now);
    let smoothed = script.sender.round_trip.smoothed();
    script.send(1);
    assert_eq!(script.sender.probe_at, Some(script.now + smoothed * 2 + LEAST), "the peer may delay");
    script.send(1);
    assert_eq!(script.sender.probe_at, Some(script.now + smoothed * 2));
}

#[test]
fn rfc_8985_7_2_a_probe_is_due_no_later_than_the_timeout() {
    let mut script = Script::new(true);
    for _ in 0..100 {
        script.sender.round_trip.measure(ROUND_TRIP, script.now);
    }
    script.send(2);
    assert_eq!(script.sender.probe_at, script.sender.timeout_at);
    assert_eq!(script.expire(), (ROUND_TRIP + LEAST, TimeoutOutcome::RetransmitDue));
    assert_eq!((script.send_old(), script.sender.timeouts), (vec![again(1)], 0), "it takes the timeout's place");
}

#[test]
fn rfc_8985_7_3_a_probe_is_new_data_though_the_window_is_full() {
    let mut script = Script::filled(true, 10);
    script.expire();
    assert_eq!(script.send_all(), [new(10)]);
}

#[test]
fn rfc_8985_7_3_a_probe_is_the_last_segment_if_there_is_nothing_new_or_no_room() {
    let mut script = Script::filled(true, 10);
    script.expire();
    assert_eq!(script.send_old(), [again(9)]);
    let mut script = Script::filled(true, 10);
    script.window = 10;
    script.wait(ROUND_TRIP);
    script.acknowledge(1);
    script.expire();
    assert_eq!(script.send_all(), [again(9)]);
}

#[test]
fn rfc_8985_7_3_there_is_one_probe_until_a_round_trip_was_measured() {
    let mut script = Script::filled(true, 10);
    script.expire();
    assert_eq!(script.send_old(), [again(9)]);
    script.expire();
    assert_eq!(script.sender.timeouts, 1, "the timeout is next");
}

#[test]
fn rfc_8985_7_4_1_a_probe_shows_what_is_missing_before_it() {
    let mut script = Script::filled(true, 10);
    script.wait(ROUND_TRIP);
    script.acknowledge(5);
    script.expire();
    assert_eq!(script.send_old(), [again(9)]);
    script.wait(ROUND_TRIP);
    script.sack(5, 9..10);
    assert_eq!(script.send_old()[0], again(5));
    assert_eq!(script.sender.timeouts, 0);
}

#[test]
fn rfc_8985_7_4_2_a_loss_that_the_probe_repaired_counts() {
    let mut script = Script::filled(true, 10);
    script.wait(ROUND_TRIP);
    script.acknowledge(9);
    script.expire();
    assert_eq!(script.send_old(), [again(9)]);
    let before = script.cwnd();
    script.wait(ROUND_TRIP);
    script.acknowledge(10);
    script.send(1);
    script.wait(ROUND_TRIP);
    script.acknowledge(11);
    assert_eq!(script.cwnd(), before / 2);
}

#[test]
fn rfc_8985_7_4_2_a_probe_that_arrived_twice_repaired_nothing() {
    let mut script = Script::filled(true, 10);
    script.wait(ROUND_TRIP);
    script.acknowledge(9);
    script.expire();
    assert_eq!(script.send_old(), [again(9)]);
    let before = script.cwnd();
    script.wait(ROUND_TRIP);
    script.acknowledge(10);
    script.report(10, None, Some(9..10));
    script.send(1);
    script.wait(ROUND_TRIP);
    script.acknowledge(11);
    assert_eq!(script.cwnd(), before);
}

#[test]
fn rfc_9937_6_a_single_loss_spreads_the_reduction_over_a_round_trip() {
    let mut script = Script::filled(true, 20);
    script.wait(ROUND_TRIP);
    let mut sent = Vec::new();
    for number in 2..=20 {
        script.sack(0, 1..number);
        let now = script.send_all();
        assert!(now.len() <= 2, "no burst: {now:?}");
        sent.extend(now);
    }
    // Two new ones before the loss is found, then the lost one and about every second time a new one.
    assert_eq!(sent[..3], [new(20), new(21), again(0)]);
    assert_eq!(script.sender.pipe(), 10 * SEGMENT, "where the window is to be");
    script.wait(ROUND_TRIP);
    script.acknowledge(22);
    assert_eq!(script.cwnd(), 10);
}

#[test]
fn rfc_9937_6_after_heavy_loss_a_segment_leaves_for_each_that_arrives_and_one_more_while_all_goes_well() {
    let mut script = Script::filled(true, 20);
    script.wait(ROUND_TRIP);
    let sent = |script: &mut Script, number: u64| {
        script.sack(0, 15..number);
        script.send_all().len()
    };
    // Fifteen of twenty are missing. The first retransmissions are conserved packets.
    let counts: Vec<usize> = (16..=20).map(|number| sent(&mut script, number)).collect();
    assert_eq!(counts, [1, 1, 1, 1, 1]);
    script.wait(ROUND_TRIP);
    script.sack(1, 15..22);
    assert!(script.send_all().len() >= 2, "the first has arrived: slow start");
}

#[test]
fn rfc_6675_4_the_end_is_rescued_once_when_nothing_else_is_left() {
    let mut script = Script::filled(true, 10);
    script.wait(ROUND_TRIP);
    script.sack(0, 1..4);
    assert_eq!(script.send_old(), [again(0)]);
    // Segments 4 to 9 are lost behind everything that could show it.
    script.wait(ROUND_TRIP - Duration::from_millis(1));
    script.sender.rack.set_shortest(ROUND_TRIP);
    script.acknowledge(4);
    assert_eq!(script.send_old(), [again(9)], "the acknowledgement was too early to prove anything");
    assert!(script.send_old().is_empty(), "once");
}

#[test]
fn rfc_3042_2_the_first_duplicates_let_a_new_segment_out_each() {
    let mut script = Script::filled(false, 10);
    script.wait(ROUND_TRIP);
    script.acknowledge(0);
    assert_eq!(script.send_all(), [new(10)]);
    script.acknowledge(0);
    assert_eq!(script.send_all(), [new(11)]);
}

#[test]
fn rfc_6582_3_2_partial_acknowledgements_show_one_loss_each() {
    let mut script = Script::filled(false, 10);
    script.wait(ROUND_TRIP);
    (0..3).for_each(|_| script.acknowledge(0));
    assert_eq!(script.send(1), [again(0)]);
    (0..4).for_each(|_| script.acknowledge(0));
    script.wait(ROUND_TRIP);
    script.acknowledge(4);
    assert_eq!(script.send(1), [again(4)]);
    script.wait(ROUND_TRIP);
    script.acknowledge(script.sender.next_offset() / SEGMENT);
    assert!(script.sender.recovery.is_none());
    assert_eq!(script.cwnd(), 5, "one reduction for both");
}

#[test]
fn rfc_6582_3_2_duplicates_of_what_was_repaired_are_no_new_loss() {
    let mut script = Script::filled(false, 10);
    script.wait(ROUND_TRIP);
    (0..3).for_each(|_| script.acknowledge(0));
    script.send_old();
    script.wait(ROUND_TRIP);
    let end = script.sender.next_offset() / SEGMENT;
    script.acknowledge(end);
    script.send_all();
    let before = script.sender.retransmitted_segments();
    (0..3).for_each(|_| script.acknowledge(end));
    script.send_all();
    assert_eq!(script.sender.retransmitted_segments(), before);
}

#[test]
fn rfc_6582_3_2_only_the_first_partial_acknowledgement_restarts_the_timer() {
    let mut script = Script::filled(false, 10);
    script.wait(ROUND_TRIP);
    (0..3).for_each(|_| script.acknowledge(0));
    script.send(1);
    script.wait(ROUND_TRIP / 2);
    script.acknowledge(2);
    let first = script.sender.timeout_at;
    script.wait(ROUND_TRIP / 4);
    script.acknowledge(4);
    assert_eq!(script.sender.timeout_at, first);
}

#[test]
fn rfc_5682_3_1_a_timeout_is_taken_back_when_what_left_before_it_arrives_by_itself() {
    let mut script = Script::filled(true, 20);
    script.time_out();
    assert_eq!((script.send_all(), script.cwnd()), (vec![again(0)], 1));
    // The acknowledgements were only late.
    script.wait(ROUND_TRIP);
    script.acknowledge(1);
    assert_eq!(script.send_all(), [new(20), new(21)], "new data is tried");
    script.acknowledge(2);
    assert!(script.sender.recovery.is_none());
    assert_eq!(script.sender.window.threshold(), 20 * SEGMENT);
    assert_eq!(script.cwnd(), 20);
    assert_eq!(script.sender.segments.lost_bytes(), 0, "nothing else is sent again");
}

#[test]
fn rfc_5682_3_1_a_timeout_was_real_when_new_data_overtakes_the_old() {
    let mut script = Script::filled(true, 20);
    script.time_out();
    script.send_all();
    script.wait(ROUND_TRIP);
    script.acknowledge(1);
    assert_eq!(script.send_all(), [new(20), new(21)]);
    script.wait(ROUND_TRIP);
    script.sack(1, 20..21);
    assert!(script.cwnd() <= 3 + 1);
    assert_eq!(script.send(1), [again(1)]);
}

#[test]
fn rfc_5682_3_1_without_new_data_old_is_sent_in_slow_start() {
    let mut script = Script::filled(true, 20);
    script.time_out();
    script.send_all();
    script.wait(ROUND_TRIP);
    script.acknowledge(1);
    assert_eq!(script.send_old(), [again(1), again(2)]);
}

#[test]
fn rfc_5681_3_1_the_window_grows_while_what_was_lost_before_a_timeout_is_sent_again() {
    let mut script = Script::filled(true, 40);
    script.time_out();
    assert_eq!(script.send_old().len(), 1);
    let mut arrived = 0;
    let mut sent = 1;
    for round in 1..=4 {
        script.wait(ROUND_TRIP);
        let counts = std::mem::take(&mut sent);
        for _ in 0..counts {
            arrived += 1;
            script.acknowledge(arrived);
            sent += script.send_old().len();
        }
        assert_eq!(sent, 1 << round, "twice as many each round trip");
    }
}

#[test]
fn rfc_5681_3_1_a_second_timeout_of_a_segment_leaves_the_threshold() {
    let mut script = Script::filled(true, 20);
    script.time_out();
    script.send_old();
    assert_eq!((script.cwnd(), script.sender.window.threshold()), (1, 10 * SEGMENT));
    script.time_out();
    assert_eq!((script.cwnd(), script.sender.window.threshold()), (1, 10 * SEGMENT));
}

#[test]
fn rfc_5681_4_3_a_timeout_while_a_loss_is_repaired_is_a_second_loss() {
    let mut script = Script::filled(true, 40);
    script.wait(ROUND_TRIP);
    script.sack(0, 1..4);
    assert_eq!(script.send(1), [again(0)]);
    script.time_out();
    assert_eq!((script.cwnd(), script.sender.window.threshold()), (1, 10 * SEGMENT));
}

#[test]
fn rfc_8985_9_1_a_copy_that_arrives_shows_what_was_lost_behind_it() {
    let mut script = Script::filled(true, 3);
    script.wait(ROUND_TRIP);
    script.sack(0, 1..2);
    script.expire();
    assert_eq!(script.send_old(), [again(0)], "segment 2 is lost as well, but nothing says so");
    script.wait(ROUND_TRIP);
    script.acknowledge(2);
    assert_eq!(script.send_old(), [again(2)]);
    assert_eq!(script.sender.timeouts, 0);
}

#[test]
fn rfc_5681_4_1_after_a_rest_an_initial_window_leaves() {
    let mut script = Script::filled(true, 40);
    script.wait(ROUND_TRIP);
    script.acknowledge(40);
    script.wait(Duration::from_secs(1));
    assert_eq!(script.send_all().len(), 10);
}

#[test]
fn rfc_7661_a_window_that_is_not_filled_does_not_grow() {
    let mut script = Script::new(true);
    for number in 1..100 {
        script.send(1);
        script.wait(ROUND_TRIP);
        script.acknowledge(number);
    }
    assert_eq!(script.cwnd(), 10);
}

#[test]
fn rfc_3708_a_reduction_is_taken_back_when_everything_that_left_again_arrived_twice() {
    let mut script = Script::filled(true, 20);
    script.wait(ROUND_TRIP);
    script.sack(0, 1..4);
    assert_eq!(script.send(1), [again(0)]);
    // The original was late, the copy arrives as well.
    script.acknowledge(20);
    assert_eq!(script.cwnd(), 10);
    script.send_all();
    script.report(20, None, Some(0..1));
    assert_eq!(script.cwnd(), 20);
    // RFC 8985 §6.2: from now on segments are waited for.
    script.wait(ROUND_TRIP);
    script.sack(20, 21..25);
    assert_eq!(script.sender.segments.lost_bytes(), 0);
}

#[test]
fn rfc_3708_the_proof_may_come_when_the_next_recovery_has_begun() {
    let mut script = Script::filled(true, 40);
    script.wait(ROUND_TRIP);
    script.sack(0, 1..4);
    assert_eq!(script.send(1), [again(0)]);
    script.acknowledge(40);
    assert_eq!(script.cwnd(), 20);
    assert_eq!(script.send_all().len(), 20);
    script.wait(ROUND_TRIP);
    script.sack(40, 41..44);
    assert_eq!(script.send(1), [again(40)]);
    script.report(40, Some(41..44), Some(0..1));
    let end = script.sender.next_offset() / SEGMENT;
    script.wait(ROUND_TRIP);
    script.acknowledge(end);
    assert_eq!(script.cwnd(), 20, "half of forty, not of twenty");
}

#[test]
fn rfc_3708_what_the_network_repeats_proves_nothing() {
    let mut script = Script::filled(true, 20);
    script.wait(ROUND_TRIP);
    script.sack(0, 1..4);
    assert_eq!(script.send(1), [again(0)]);
    script.report(0, Some(1..4), Some(2..3));
    script.acknowledge(20);
    script.report(20, None, Some(5..6));
    assert_eq!(script.cwnd(), 10);
}

#[test]
fn rfc_2018_8_a_peer_that_drops_what_it_reported_gets_it_again() {
    let mut script = Script::filled(true, 4);
    script.wait(ROUND_TRIP);
    script.sack(0, 0..4);
    script.time_out();
    for number in 0..4 {
        assert_eq!(script.send_old()[0], again(number));
        script.wait(ROUND_TRIP);
        script.acknowledge(number + 1);
        if number == 0 {
            // Two at a time from here on.
            assert_eq!(script.send_old(), [again(1), again(2)]);
            script.wait(ROUND_TRIP);
            script.acknowledge(3);
            assert_eq!(script.send_old(), [again(3)]);
            return;
        }
    }
}

#[test]
fn rfc_6298_5_a_timeout_stays_backed_off_until_a_segment_that_left_once_is_acknowledged() {
    let mut script = Script::new(false);
    script.send(1);
    let first = script.sender.round_trip.timeout();
    script.time_out();
    script.send_old();
    assert_eq!(script.sender.round_trip.timeout(), first * 2);
    script.wait(ROUND_TRIP);
    script.acknowledge(1);
    assert_eq!(script.sender.round_trip.timeout(), first * 2, "nobody knows which copy it was");
    script.send(1);
    script.wait(ROUND_TRIP);
    script.acknowledge(2);
    assert!(script.sender.round_trip.timeout() <= first);
}

#[test]
fn rfc_6298_5_no_segment_leaves_again_less_than_a_timeout_after_it_left() {
    let mut script = Script::new(true);
    for _ in 0..100 {
        script.sender.round_trip.measure(ROUND_TRIP, script.now);
    }
    script.send(10);
    script.sender.probe_at = None;
    script.wait(ROUND_TRIP);
    script.sack(0, 9..10);
    // Round trips have become twice as long since the timer was set.
    for _ in 0..100 {
        script.sender.round_trip.measure(ROUND_TRIP * 2, script.now);
    }
    script.sender.reordering_deadline = None;
    let (_, outcome) = script.expire();
    assert_eq!((outcome, script.sender.timeouts), (TimeoutOutcome::Nothing, 0));
    script.expire();
    assert_eq!(script.sender.timeouts, 1);
}

#[test]
fn rfc_6298_3_a_gap_that_a_copy_filled_is_no_round_trip() {
    let mut script = Script::filled(true, 10);
    script.wait(ROUND_TRIP);
    script.sack(0, 1..4);
    assert_eq!(script.send(1), [again(0)]);
    let before = script.sender.round_trip.smoothed();
    script.wait(ROUND_TRIP * 50);
    // All acknowledgements in between were lost.
    script.acknowledge(10);
    assert_eq!(script.sender.round_trip.smoothed(), before);
}

#[test]
fn rfc_9293_3_10_7_4_what_was_never_sent_is_not_acknowledged() {
    let mut script = Script::filled(true, 10);
    script.acknowledge(11);
    assert_eq!(script.sender.acknowledged(), 0);
}
