//! Loss by time (RFC 8985): what left before something that has arrived is late.

use std::time::Duration;

use super::DUPLICATES;
use super::scoreboard::InFlight;
use crate::time::Instant;

/// RFC 8985 §6.2 step 4: a widened window lasts for so many recoveries.
const PERSISTENCE: u32 = 16;

/// The state of RFC 8985 §5.2, but for the scoreboard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rack {
    /// When the latest-sent segment left that has arrived, and where it ended.
    latest: Option<(Instant, u64)>,
    /// How long the latest-sent segment took of those that the last acknowledgement brought.
    round_trip: Duration,
    /// No round trip of the acknowledgement at hand was taken yet.
    is_fresh: bool,
    /// The shortest round trip of late.
    shortest: Duration,
    /// RFC 8985 §6.2 step 3: everything that is known to have arrived ends here or before.
    forward: u64,
    has_reordering: bool,
    /// RFC 8985 §6.2 step 4: the window in quarters of the shortest round trip.
    multiplier: u32,
    persistence: u32,
    /// Until everything before has arrived, further duplicates are of the same round.
    duplicate_round: Option<u64>,
}

impl Default for Rack {
    fn default() -> Self {
        Self {
            latest: None,
            round_trip: Duration::ZERO,
            is_fresh: false,
            shortest: Duration::ZERO,
            forward: 0,
            has_reordering: false,
            multiplier: 1,
            persistence: 0,
            duplicate_round: None,
        }
    }
}

impl Rack {
    pub(super) const fn latest(&self) -> Option<(Instant, u64)> {
        self.latest
    }

    /// An acknowledgement has come.
    #[inline]
    pub(super) const fn begin(&mut self) {
        self.is_fresh = true;
    }

    /// RFC 8985 §6.2 step 1.
    pub(super) const fn set_shortest(&mut self, shortest: Duration) {
        self.shortest = shortest;
    }

    /// A segment has arrived: in the order of the stream for each acknowledgement.
    #[inline]
    pub(super) fn note_delivered(&mut self, segment: &InFlight, now: Instant) {
        // RFC 8985 §6.2 step 3: what left once and arrives behind what is higher was overtaken.
        if segment.end() > self.forward {
            self.forward = segment.end();
        } else if segment.end() < self.forward && !segment.is_repeated {
            self.has_reordering = true;
        }
        let round_trip = now.saturating_since(segment.sent);
        // RFC 8985 §6.2 step 2: a copy that is acknowledged sooner than a round trip can take was not what arrived.
        if segment.is_repeated && round_trip < self.shortest {
            return;
        }
        if self.is_fresh || round_trip < self.round_trip {
            self.round_trip = round_trip;
            self.is_fresh = false;
        }
        let this = (segment.sent, segment.end());
        if self.latest.is_none_or(|latest| latest < this) {
            self.latest = Some(this);
        }
    }

    /// Something was overtaken.
    pub(super) const fn note_reordering(&mut self) {
        self.has_reordering = true;
    }

    /// RFC 8985 §6.2 step 4: the peer reported a duplicate: perhaps we were too impatient. Each round of them makes the
    /// window a quarter wider.
    pub(super) fn note_duplicate(&mut self, acknowledged: u64, next: u64) {
        if self.duplicate_round.is_some_and(|round| acknowledged >= round) {
            self.duplicate_round = None;
        }
        if self.duplicate_round.is_none() {
            self.duplicate_round = Some(next);
            self.multiplier = self.multiplier.saturating_add(1);
            self.persistence = PERSISTENCE;
        }
    }

    /// RFC 8985 §6.2 step 4: a recovery went by without a duplicate.
    pub(super) const fn note_recovered(&mut self) {
        self.persistence = self.persistence.saturating_sub(1);
        if self.persistence == 0 {
            self.multiplier = 1;
        }
    }

    /// RFC 8985 §6.2 step 5: how long after it left a segment is lost that was overtaken.
    pub(super) fn patience(&self, is_recovering: bool, sacked_segments: usize, smoothed: Duration) -> Duration {
        self.round_trip + self.reordering_window(is_recovering, sacked_segments, smoothed)
    }

    /// RFC 8985 §6.2 step 4.
    pub(super) fn reordering_window(&self, is_recovering: bool, sacked: usize, smoothed: Duration) -> Duration {
        if !self.has_reordering && (is_recovering || sacked >= DUPLICATES as usize) {
            return Duration::ZERO;
        }
        (self.shortest / 4).saturating_mul(self.multiplier).min(smoothed)
    }
}
