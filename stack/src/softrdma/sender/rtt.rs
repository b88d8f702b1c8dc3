//! How long a round trip takes, and how long to wait for one (RFC 6298).

use std::time::Duration;

use crate::time::Instant;

/// RFC 6298 §2.1: before the first measurement.
const INITIAL: Duration = Duration::from_secs(1);
/// RFC 6298 §2.5.
const LONGEST: Duration = Duration::from_secs(60);
/// RFC 6298 §5.5: the timeout is doubled so often at most.
const MOST_BACKOFF: u32 = 16;
/// RFC 8985 §6.2 step 1: the shortest round trip is forgotten after one to two of these, so that a longer path is noticed.
const SHORTEST_PERIOD: Duration = Duration::from_secs(10);

/// The estimate of a connection's round-trip time.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoundTrip {
    smoothed: Duration,
    variation: Duration,
    /// The shortest of this period and of the one before.
    shortest: [Duration; 2],
    period_since: Instant,
    is_measured: bool,
    least: Duration,
    backoff: u32,
}

impl RoundTrip {
    /// `least`: the shortest timeout; how late a peer and both hosts may be over and above the network.
    pub(super) const fn new(least: Duration) -> Self {
        Self {
            smoothed: Duration::ZERO,
            variation: Duration::ZERO,
            shortest: [Duration::MAX; 2],
            period_since: Instant::ZERO,
            is_measured: false,
            least,
            backoff: 0,
        }
    }

    /// RFC 6298 §2.2 and §2.3.
    #[inline]
    pub(super) fn measure(&mut self, sample: Duration, now: Instant) {
        if self.is_measured {
            self.variation = (self.variation * 3 + self.smoothed.abs_diff(sample)) / 4;
            self.smoothed = (self.smoothed * 7 + sample) / 8;
        } else {
            self.is_measured = true;
            self.smoothed = sample;
            self.variation = sample / 2;
        }
        // RFC 6298 §5 and §3 (Karn): a timeout stays backed off until a segment that left once has been measured.
        self.backoff = 0;
        if now.saturating_since(self.period_since) >= SHORTEST_PERIOD {
            self.period_since = now;
            self.shortest = [Duration::MAX, self.shortest[0]];
        }
        self.shortest[0] = self.shortest[0].min(sample);
    }

    pub(super) const fn smoothed(&self) -> Duration {
        self.smoothed
    }

    /// RFC 8985 §6.2 step 1; zero before the first measurement.
    pub(super) fn shortest(&self) -> Duration {
        if self.is_measured { self.shortest[0].min(self.shortest[1]) } else { Duration::ZERO }
    }

    /// RFC 6298 §5.5.
    pub(super) fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(MOST_BACKOFF);
    }

    /// RFC 6298 §2: the retransmission timeout, backed off. The least one (§2.4) is not compared with the whole but added to
    /// what a round trip takes: on a long and steady path four variations are next to nothing, and every hiccup of a host would
    /// look like a loss.
    #[inline]
    pub(super) fn timeout(&self) -> Duration {
        let timeout = if self.is_measured {
            self.smoothed + (self.variation * 4).max(self.least)
        } else {
            INITIAL.max(self.least)
        };
        if self.backoff == 0 {
            return timeout.min(LONGEST);
        }
        timeout.saturating_mul(1 << self.backoff).min(LONGEST)
    }

    /// RFC 8985 §7.2: two round trips, but no less than hosts may be late; `is_alone`: one segment is in flight, whose
    /// acknowledgement the peer may delay.
    #[inline]
    pub(super) fn probe_timeout(&self, is_alone: bool) -> Duration {
        if !self.is_measured {
            return INITIAL;
        }
        let timeout = (self.smoothed * 2).max(self.least / 2);
        if is_alone { timeout + self.least } else { timeout }
    }
}
