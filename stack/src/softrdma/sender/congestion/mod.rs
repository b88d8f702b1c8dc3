//! How much may be on its way: slow start (RFC 5681, RFC 9406), then what an [`Algorithm`] makes of it.

mod cubic;
mod reno;
mod slow_start;

use std::time::Duration;

use crate::softrdma::config::CongestionControl;
use crate::time::Instant;
use cubic::Cubic;
use reno::Reno;
use slow_start::SlowStart;

/// RFC 6928 §2: segments of the initial window. Its bound in bytes, written for the internet, is left out: who carries larger
/// segments than Ethernet's is on a network of its own.
const INITIAL_SEGMENTS: u64 = 10;
/// RFC 3465 §2.3: segments that one acknowledgement adds at most in a slow start, and in one that follows a timeout: then
/// acknowledgements cover much that arrived long before.
const RESTART_SEGMENTS: u64 = 2;
const AFTER_TIMEOUT_SEGMENTS: u64 = 1;
/// Larger than any window that TCP can announce.
const LARGEST: u64 = 1 << 31;

/// A way to find out how much the network takes, once slow start is over. Windows are in bytes.
pub(super) trait Algorithm {
    /// The window after an acknowledgement.
    fn grow(&mut self, growth: &Growth) -> u64;

    /// What the window is to be after a loss. `is_timeout`: found by the timeout.
    fn reduce(&mut self, window: u64, segment: u64, is_timeout: bool) -> u64;

    /// The window was not needed for `pause`.
    fn handle_pause(&mut self, pause: Duration);

    /// The window was set anew.
    fn restart(&mut self);
}

/// An acknowledgement that the window may grow by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth {
    pub(super) now: Instant,
    pub(super) window: u64,
    pub(super) segment: u64,
    /// Bytes that have arrived.
    pub(super) delivered: u64,
    pub(super) round_trip: Duration,
}

/// The algorithms, without an allocation.
#[derive(Clone, Copy, Debug)]
enum Choice {
    Reno(Reno),
    Cubic(Cubic),
}

impl Choice {
    const fn new(control: CongestionControl) -> Self {
        match control {
            CongestionControl::Reno => Self::Reno(Reno::new()),
            CongestionControl::Cubic => Self::Cubic(Cubic::new()),
        }
    }

    #[inline]
    fn get_mut(&mut self) -> &mut dyn Algorithm {
        match self {
            Self::Reno(reno) => reno,
            Self::Cubic(cubic) => cubic,
        }
    }
}

/// What an acknowledgement says about the window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) now: Instant,
    /// Bytes that have arrived.
    pub(super) delivered: u64,
    /// Everything before has arrived.
    pub(super) acknowledged: u64,
    /// Everything sent ends here.
    pub(super) next: u64,
    pub(super) sample: Option<Duration>,
    pub(super) round_trip: Duration,
}

/// A congestion window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    algorithm: Choice,
    segment: u64,
    bytes: u64,
    threshold: u64,
    slow_start: SlowStart,
    /// Slow start follows a timeout.
    is_after_timeout: bool,
    /// The window, and not the application, has held back since the last growth.
    is_full: bool,
    /// When it grew last, and whether it has been larger than needed since.
    grown_at: Instant,
    is_spare: bool,
}

impl Window {
    pub(super) const fn new(control: CongestionControl, segment_size: usize) -> Self {
        let segment = segment_size as u64;
        Self {
            algorithm: Choice::new(control),
            segment,
            bytes: INITIAL_SEGMENTS * segment,
            threshold: u64::MAX,
            slow_start: SlowStart::new(),
            is_after_timeout: false,
            is_full: false,
            grown_at: Instant::ZERO,
            is_spare: false,
        }
    }

    #[inline]
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) const fn threshold(&self) -> u64 {
        self.threshold
    }

    /// Something waits for room.
    #[inline]
    pub(super) const fn note_full(&mut self) {
        self.is_full = true;
    }

    /// The network took something.
    #[inline]
    pub(super) fn handle_arrival(&mut self, arrival: &Arrival) {
        // RFC 7661, RFC 9438 §5.8: a window that the application does not fill says nothing about the network.
        if !self.is_full || self.bytes >= LARGEST {
            self.is_spare = true;
            return;
        }
        self.is_full = false;
        if std::mem::take(&mut self.is_spare) {
            self.algorithm.get_mut().handle_pause(arrival.now.saturating_since(self.grown_at));
        }
        self.grown_at = arrival.now;
        if self.bytes >= self.threshold {
            let Arrival { now, delivered, round_trip, .. } = *arrival;
            let growth = Growth { now, window: self.bytes, segment: self.segment, delivered, round_trip };
            self.bytes = self.algorithm.get_mut().grow(&growth);
        } else if self.threshold == u64::MAX {
            // RFC 9406 §4.2: in the first slow start only.
            self.bytes += self.slow_start.growth(arrival, self.segment);
            if self.slow_start.is_over() {
                self.threshold = self.bytes;
            }
        } else {
            // RFC 5681 §3.1. Counted is what has arrived with this acknowledgement, not all that it covers.
            let most = if self.is_after_timeout { AFTER_TIMEOUT_SEGMENTS } else { RESTART_SEGMENTS };
            self.bytes += arrival.delivered.min(most * self.segment);
        }
    }

    /// A loss was found, for the first time in this flight: what the window is to be when it is repaired. `is_timeout`: by a
    /// timeout.
    pub(super) fn handle_loss(&mut self, is_timeout: bool) -> u64 {
        self.threshold = self.algorithm.get_mut().reduce(self.bytes, self.segment, is_timeout);
        self.is_spare = false;
        self.threshold
    }

    /// The loss is repaired. RFC 9937 §6: the window is what it was to be.
    pub(super) const fn arrive(&mut self) {
        self.is_after_timeout = false;
        self.bytes = self.threshold;
    }

    /// RFC 5681 §3.1: after a timeout one segment is sent. The threshold falls with the first timeout of a segment only.
    pub(super) fn handle_timeout(&mut self, is_first: bool) {
        if is_first {
            self.handle_loss(true);
        }
        self.is_spare = false;
        self.is_after_timeout = true;
        self.bytes = self.segment;
    }

    pub(super) fn limit_to(&mut self, segments: u64) {
        self.bytes = self.bytes.min(segments * self.segment);
    }

    /// There was no loss: the window is as before (RFC 9438 §4.9), except that no more than an initial window leaves at once
    /// (RFC 4015 §3.4); what is missing comes back in slow start. `pipe`: bytes on their way.
    pub(super) fn restore(&mut self, prior: Self, pipe: u64) {
        let bytes = prior.bytes.min(pipe + INITIAL_SEGMENTS * self.segment).max(self.bytes);
        *self = prior;
        self.threshold = if bytes < prior.bytes { self.threshold.max(prior.bytes) } else { self.threshold };
        self.bytes = bytes;
    }

    /// RFC 5681 §4.1: what was learnt before a long rest may not hold any more.
    pub(super) fn restart_after_idle(&mut self) {
        let initial = INITIAL_SEGMENTS * self.segment;
        if self.bytes > initial {
            self.is_after_timeout = false;
            self.threshold = self.threshold.max(self.bytes * 3 / 4);
            self.bytes = initial;
            self.algorithm.get_mut().restart();
        }
    }
}

#[cfg(test)]
impl Window {
    /// A window of so many bytes, in congestion avoidance from `threshold` on.
    pub(super) const fn set(&mut self, bytes: u64, threshold: u64) {
        self.bytes = bytes;
        self.threshold = threshold;
    }
}

#[cfg(test)]
mod tests;
