use std::time::Duration;

use super::*;

const SEGMENT: usize = 1000;
const ROUND_TRIP: Duration = Duration::from_millis(10);

/// A full window, and what arrives in it.
struct Flow {
    window: Window,
    now: Instant,
    arrived: u64,
}

impl Flow {
    fn new(control: CongestionControl) -> Self {
        Self { window: Window::new(control, SEGMENT), now: Instant::from_nanoseconds(1), arrived: 0 }
    }

    /// In congestion avoidance, so many segments wide.
    fn avoiding(control: CongestionControl, segments: u64) -> Self {
        let mut flow = Self::new(control);
        let bytes = segments * SEGMENT as u64;
        flow.window.set(bytes, bytes);
        flow
    }

    fn segments(&self) -> u64 {
        self.window.bytes() / SEGMENT as u64
    }

    /// A whole window arrives, segment by segment.
    fn round(&mut self, took: Duration) {
        self.now = self.now + took;
        let next = self.arrived + 2 * self.window.bytes();
        for _ in 0..self.segments() {
            self.arrive(took, next, 1);
        }
    }

    fn arrive(&mut self, took: Duration, next: u64, segments: u64) {
        self.arrived += segments * SEGMENT as u64;
        self.window.note_full();
        self.window.handle_arrival(&Arrival {
            now: self.now,
            delivered: segments * SEGMENT as u64,
            acknowledged: self.arrived,
            next,
            sample: Some(took),
            round_trip: took,
        });
    }

    fn lose(&mut self) {
        self.window.handle_loss(false);
        self.window.arrive();
    }
}

#[test]
fn rfc_5681_3_1_reno_grows_by_a_segment_each_round_trip_and_halves() {
    let mut flow = Flow::avoiding(CongestionControl::Reno, 100);
    (0..10).for_each(|_| flow.round(ROUND_TRIP));
    assert_eq!(flow.segments(), 110);
    flow.lose();
    assert_eq!(flow.segments(), 55);
}

#[test]
fn rfc_5681_3_1_no_window_falls_below_two_segments_but_after_a_timeout() {
    for control in CongestionControl::ALL {
        let mut flow = Flow::avoiding(control, 2);
        flow.lose();
        assert_eq!(flow.segments(), 2, "{control}");
        flow.window.handle_timeout(true);
        assert_eq!(flow.segments(), 1, "{control}");
    }
}

#[test]
fn rfc_9438_4_2_cubic_is_back_after_k_and_nearly_flat_there() {
    let mut flow = Flow::avoiding(CongestionControl::Cubic, 1000);
    flow.lose();
    assert_eq!(flow.segments(), 700);
    // K = (1000 * 0.3 / 0.4)^(1/3) = 9.09 s.
    let at = |flow: &mut Flow, seconds: f64| {
        let until = Instant::from_nanoseconds(1) + Duration::from_secs_f64(seconds);
        while flow.now < until {
            flow.round(Duration::from_millis(100));
        }
        flow.segments()
    };
    let middle = at(&mut flow, 4.5);
    assert!((950..=970).contains(&middle), "most of it in half of the time: {middle}");
    let plateau = at(&mut flow, 9.1);
    assert!((995..=1003).contains(&plateau), "{plateau}");
    assert!(at(&mut flow, 13.6) > 1030, "then it looks for more");
}

#[test]
fn rfc_9438_4_3_on_short_paths_cubic_is_no_slower_than_reno() {
    let took = Duration::from_micros(100);
    let mut cubic = Flow::avoiding(CongestionControl::Cubic, 100);
    cubic.lose();
    assert_eq!(cubic.segments(), 70);
    (0..57).for_each(|_| cubic.round(took));
    // 0.53 segments each round trip until it is back.
    assert!((99..=101).contains(&cubic.segments()), "{}", cubic.segments());
    (0..20).for_each(|_| cubic.round(took));
    assert!((118..=122).contains(&cubic.segments()), "then as Reno: {}", cubic.segments());
}

#[test]
fn rfc_9438_4_7_who_is_reduced_before_its_plateau_makes_room() {
    let plateau = |first: u64| {
        let mut flow = Flow::avoiding(CongestionControl::Cubic, first);
        flow.lose();
        flow.window.set(500 * SEGMENT as u64, 500 * SEGMENT as u64);
        flow.lose();
        for _ in 0..120 {
            flow.round(Duration::from_millis(50));
        }
        flow.segments()
    };
    let (alone, late) = (plateau(400), plateau(1000));
    assert!(late < alone * 9 / 10, "{late} and {alone}");
}

#[test]
fn rfc_9438_4_8_after_a_timeout_the_plateau_is_where_avoidance_begins() {
    let mut flow = Flow::avoiding(CongestionControl::Cubic, 1000);
    flow.window.handle_timeout(true);
    assert_eq!((flow.segments(), flow.window.threshold()), (1, 700 * SEGMENT as u64));
    while flow.segments() < 700 {
        flow.round(ROUND_TRIP);
    }
    let begin = flow.segments();
    (0..100).for_each(|_| flow.round(ROUND_TRIP));
    assert!(flow.segments() - begin < 60, "flat for a second, no jump to 1000: {}", flow.segments());
}

#[test]
fn rfc_9438_5_8_the_curve_waits_for_an_application_that_does_not_need_it() {
    let mut flow = Flow::avoiding(CongestionControl::Cubic, 1000);
    flow.lose();
    (0..10).for_each(|_| flow.round(ROUND_TRIP));
    let before = flow.segments();
    // For an hour a segment now and then.
    for _ in 0..3600 {
        flow.now = flow.now + Duration::from_secs(1);
        let arrival = Arrival {
            now: flow.now,
            delivered: SEGMENT as u64,
            acknowledged: 0,
            next: 0,
            sample: None,
            round_trip: ROUND_TRIP,
        };
        flow.window.handle_arrival(&arrival);
    }
    flow.round(ROUND_TRIP);
    flow.round(ROUND_TRIP);
    assert!(flow.segments() < before + 20, "{} and {before}", flow.segments());
}

#[test]
fn rfc_9438_4_9_what_was_no_loss_leaves_no_trace() {
    for control in CongestionControl::ALL {
        let mut flow = Flow::avoiding(control, 100);
        flow.lose();
        (0..5).for_each(|_| flow.round(ROUND_TRIP));
        let mut other = flow.window;
        let prior = flow.window;
        other.handle_loss(false);
        other.arrive();
        other.restore(prior, prior.bytes());
        let mut undone = Flow { window: other, ..flow };
        for _ in 0..50 {
            flow.round(ROUND_TRIP);
            undone.round(ROUND_TRIP);
        }
        assert_eq!(flow.window.bytes(), undone.window.bytes(), "{control}");
    }
}

#[test]
fn rfc_4015_3_4_a_window_that_comes_back_lets_no_burst_out() {
    let prior = Flow::avoiding(CongestionControl::Cubic, 1000).window;
    let mut window = prior;
    window.handle_timeout(true);
    window.restore(prior, 50 * SEGMENT as u64);
    assert_eq!((window.bytes(), window.threshold()), (60 * SEGMENT as u64, 1000 * SEGMENT as u64));
}

#[test]
fn rfc_9406_4_2_slow_start_ends_when_round_trips_grow_and_stay_longer() {
    let mut flow = Flow::new(CongestionControl::Cubic);
    (0..3).for_each(|_| flow.round(ROUND_TRIP));
    assert_eq!(flow.segments(), 80, "twice as much each round trip");
    // The queue fills: 4 ms are enough.
    flow.round(ROUND_TRIP + Duration::from_millis(4));
    assert!(flow.segments() < 160, "a quarter of that from here on");
    (0..4).for_each(|_| flow.round(ROUND_TRIP + Duration::from_millis(5)));
    flow.round(ROUND_TRIP + Duration::from_millis(5));
    assert_ne!(flow.window.threshold(), u64::MAX, "over after five rounds, without a loss");
}

#[test]
fn rfc_9406_4_2_slow_start_goes_on_when_round_trips_are_short_again() {
    let mut flow = Flow::new(CongestionControl::Cubic);
    (0..3).for_each(|_| flow.round(ROUND_TRIP));
    flow.round(ROUND_TRIP + Duration::from_millis(4));
    flow.round(ROUND_TRIP);
    let before = flow.segments();
    flow.round(ROUND_TRIP);
    assert_eq!(flow.segments(), 2 * before);
    assert_eq!(flow.window.threshold(), u64::MAX);
}

#[test]
fn rfc_9406_4_2_one_acknowledgement_adds_eight_segments_at_most() {
    let mut flow = Flow::new(CongestionControl::Reno);
    flow.arrive(ROUND_TRIP, 1 << 20, 10);
    assert_eq!(flow.segments(), 18);
}

#[test]
fn rfc_3465_2_3_after_a_timeout_one_acknowledgement_adds_one_segment_at_most() {
    let mut flow = Flow::avoiding(CongestionControl::Reno, 100);
    flow.window.handle_timeout(true);
    for segments in 2..=5 {
        flow.arrive(ROUND_TRIP, 1 << 20, 10);
        assert_eq!(flow.segments(), segments);
    }
}

#[test]
fn rfc_3465_2_3_after_a_rest_one_acknowledgement_adds_two_segments_at_most() {
    for after_timeout in [false, true] {
        let mut flow = Flow::avoiding(CongestionControl::Reno, 100);
        if after_timeout {
            // Over when the window has grown back.
            flow.window.handle_timeout(true);
            while flow.segments() < 50 {
                flow.arrive(ROUND_TRIP, 1 << 20, 10);
            }
        }
        flow.window.restart_after_idle();
        flow.arrive(ROUND_TRIP, 1 << 20, 10);
        assert_eq!(flow.segments(), 12);
    }
}
