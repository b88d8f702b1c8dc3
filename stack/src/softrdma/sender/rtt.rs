//! How long a round trip takes, and how long to wait for one (RFC 6298).

use std::time::Duration;

/// RFC 6298 §2.1: before the first measurement.
const INITIAL: Duration = Duration::from_secs(1);
/// RFC 6298 §2.5.
const LONGEST: Duration = Duration::from_secs(60);

/// The estimate of a connection's round-trip time.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoundTrip {
    smoothed: Duration,
    variation: Duration,
    latest: Duration,
    shortest: Duration,
    is_measured: bool,
    least: Duration,
    backoff: u32,
}

impl RoundTrip {
    pub(super) const fn new(least: Duration) -> Self {
        Self {
            smoothed: Duration::ZERO,
            variation: Duration::ZERO,
            latest: Duration::ZERO,
            shortest: Duration::ZERO,
            is_measured: false,
            least,
            backoff: 0,
        }
    }

    /// RFC 6298 §2.2 and §2.3.
    pub(super) fn measure(&mut self, sample: Duration) {
        self.latest = sample;
        if self.is_measured {
            self.variation = (self.variation * 3 + self.smoothed.abs_diff(sample)) / 4;
            self.smoothed = (self.smoothed * 7 + sample) / 8;
            self.shortest = self.shortest.min(sample);
        } else {
            self.is_measured = true;
            self.smoothed = sample;
            self.variation = sample / 2;
            self.shortest = sample;
        }
    }

    pub(super) const fn smoothed(&self) -> Duration {
        self.smoothed
    }

    pub(super) const fn latest(&self) -> Duration {
        self.latest
    }

    pub(super) const fn shortest(&self) -> Duration {
        self.shortest
    }

    pub(super) const fn back_off(&mut self) {
        self.backoff += 1;
    }

    pub(super) const fn reset_backoff(&mut self) {
        self.backoff = 0;
    }

    /// The retransmission timeout, backed off.
    pub(super) const fn timeout(&self) -> Duration {
        let nanoseconds = if self.is_measured {
            let estimate = self.smoothed.as_nanos() as u64 + 4 * self.variation.as_nanos() as u64;
            let least = self.least.as_nanos() as u64;
            if estimate > least { estimate } else { least }
        } else {
            INITIAL.as_nanos() as u64
        };
        let shift = if self.backoff < 16 { self.backoff } else { 16 };
        let longest = LONGEST.as_nanos() as u64;
        let backed_off = nanoseconds << shift;
        Duration::from_nanos(if backed_off < longest { backed_off } else { longest })
    }

    /// RFC 8985 §7.2: two round trips, and time for an acknowledgement that is delayed.
    pub(super) fn probe_timeout(&self) -> Duration {
        if self.is_measured { (self.smoothed * 2).max(self.least / 2) } else { INITIAL }
    }
}
