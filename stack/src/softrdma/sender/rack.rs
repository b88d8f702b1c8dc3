//! Loss by time (RFC 8985): what left before something that has arrived is late.

use std::time::Duration;

use super::scoreboard::InFlight;
use crate::time::Instant;

/// The state of RFC 8985 §5.2.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rack {
    /// When the latest-sent segment left that has arrived, and where it ended.
    latest: Option<(Instant, u64)>,
    shortest: Duration,
}

impl Rack {
    pub(super) const fn latest(&self) -> Option<(Instant, u64)> {
        self.latest
    }

    /// RFC 8985 §6.2 step 1.
    pub(super) const fn set_shortest(&mut self, shortest: Duration) {
        self.shortest = shortest;
    }

    /// RFC 8985 §6.2 step 2.
    #[inline]
    pub(super) fn note_delivered(&mut self, segment: &InFlight, now: Instant) {
        // A copy that is acknowledged sooner than a round trip can take was not what arrived.
        if segment.is_repeated && now.saturating_since(segment.sent) < self.shortest {
            return;
        }
        let this = (segment.sent, segment.end());
        if self.latest.is_none_or(|latest| latest < this) {
            self.latest = Some(this);
        }
    }
}
