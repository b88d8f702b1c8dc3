//! How long a round trip takes, and how long to wait for one (RFC 6298).

use std::time::Duration;

use crate::time::Instant;

/// RFC 6298 §2.1: before the first measurement.
const INITIAL: u64 = 1_000_000_000;
/// RFC 6298 §2.5.
const LONGEST: u64 = 60_000_000_000;
/// RFC 6298 §5.5: the timeout is doubled so often at most.
const MOST_BACKOFF: u32 = 16;
/// RFC 8985 §6.2 step 1: the shortest round trip is forgotten after one to two of these, so that a longer path is noticed.
const SHORTEST_PERIOD: Duration = Duration::from_secs(10);

/// The estimate of a connection's round-trip time. In nanoseconds: it is asked for with every segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoundTrip {
    smoothed: u64,
    variation: u64,
    /// The shortest of this period and of the one before.
    shortest: [u64; 2],
    period_since: Instant,
    is_measured: bool,
    least: u64,
    backoff: u32,
}

impl RoundTrip {
    /// `least`: the shortest timeout; how late a peer and both hosts may be over and above the network.
    pub(super) fn new(least: Duration) -> Self {
        Self {
            smoothed: 0,
            variation: 0,
            shortest: [u64::MAX; 2],
            period_since: Instant::ZERO,
            is_measured: false,
            least: nanoseconds(least).min(LONGEST),
            backoff: 0,
        }
    }

    /// RFC 6298 §2.2 and §2.3.
    #[inline]
    pub(super) fn measure(&mut self, sample: Duration, now: Instant) {
        // RFC 6298 §2.5: no longer than the longest timeout, so that nothing here overflows.
        let sample = nanoseconds(sample).min(LONGEST);
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
            self.shortest = [u64::MAX, self.shortest[0]];
        }
        self.shortest[0] = self.shortest[0].min(sample);
    }

    pub(super) const fn smoothed(&self) -> Duration {
        Duration::from_nanos(self.smoothed)
    }

    /// RFC 8985 §6.2 step 1; zero before the first measurement.
    pub(super) fn shortest(&self) -> Duration {
        let shortest = if self.is_measured { self.shortest[0].min(self.shortest[1]) } else { 0 };
        Duration::from_nanos(shortest)
    }

    /// RFC 6298 §5.5.
    pub(super) fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(MOST_BACKOFF);
    }

    /// Timeouts were not for want of acknowledgements.
    pub(super) fn forget_backoff(&mut self) {
        self.backoff = 0;
    }

    /// The retransmission timeout.
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_nanos(self.timeout_nanoseconds())
    }

    /// The retransmission timeout of a segment that left once.
    pub(super) fn first_timeout(&self) -> Duration {
        Duration::from_nanos(self.first_nanoseconds().min(LONGEST))
    }

    /// When a timer fires that starts at `now`.
    #[inline]
    pub(super) fn timeout_at(&self, now: Instant) -> Instant {
        Instant::from_nanoseconds(now.as_nanoseconds().saturating_add(self.timeout_nanoseconds()))
    }

    /// RFC 6298 §2: the retransmission timeout, backed off. The least one (§2.4) is not compared with the whole but added to
    /// what a round trip takes: on a long and steady path four variations are next to nothing, and every hiccup of a host would
    /// look like a loss.
    #[inline]
    fn timeout_nanoseconds(&self) -> u64 {
        self.first_nanoseconds().saturating_mul(1 << self.backoff).min(LONGEST)
    }

    #[inline]
    fn first_nanoseconds(&self) -> u64 {
        if self.is_measured { self.smoothed + (self.variation * 4).max(self.least) } else { INITIAL.max(self.least) }
    }

    /// RFC 8985 §7.2: two round trips, but no less than hosts may be late; `is_alone`: one segment is in flight, whose
    /// acknowledgement the peer may delay.
    #[inline]
    pub(super) fn probe_at(&self, now: Instant, is_alone: bool) -> Instant {
        let timeout = if self.is_measured {
            (self.smoothed * 2).max(self.least / 2) + if is_alone { self.least } else { 0 }
        } else {
            INITIAL
        };
        Instant::from_nanoseconds(now.as_nanoseconds().saturating_add(timeout))
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
