//! Who keeps packets behind gaps, and who has kept them for too long: a gap that nobody fills must not take the room of those
//! that are being repaired.

use std::collections::VecDeque;
use std::time::Duration;

use super::receive_half::ReceiveHalf;
use crate::port::Port;
use crate::table::Name;
use crate::time::Instant;

/// A gap is repaired within a few of the shortest timeouts, or it is not being repaired.
const TIMEOUTS: u32 = 10;

/// Connections with gaps, by when those began.
#[derive(Debug)]
pub(super) struct Gaps {
    /// The oldest first, among some that are filled.
    order: VecDeque<(Name, Instant)>,
    /// How long a gap may last while room is short.
    patience: Duration,
}

impl Gaps {
    pub(super) const fn new() -> Self {
        Self { order: VecDeque::new(), patience: Duration::ZERO }
    }

    pub(super) const fn set_shortest_timeout(&mut self, timeout: Duration) {
        self.patience = timeout.saturating_mul(TIMEOUTS);
    }
}

impl<P: Port> ReceiveHalf<P> {
    /// The connection keeps something behind a gap now that was not there before.
    #[cold]
    pub(super) fn note_gap(&mut self, name: Name, now: Instant) {
        if self.gaps.order.len() >= 2 * self.max_held_packets {
            let mut order = std::mem::take(&mut self.gaps.order);
            order.retain(|&(name, since)| self.has_gap(name, since));
            self.gaps.order = order;
        }
        self.gaps.order.push_back((name, now));
    }

    /// Room is short: the packets behind the oldest gap are dropped, if that has lasted for too long. RFC 2018 §8: what was
    /// reported and is not acknowledged may be dropped for want of room; its sender has kept it.
    #[cold]
    pub(super) fn relieve(&mut self, now: Instant) {
        while let Some(&(name, since)) = self.gaps.order.front() {
            let has_gap = self.has_gap(name, since);
            if has_gap && now.saturating_since(since) < self.gaps.patience {
                return;
            }
            self.gaps.order.pop_front();
            if has_gap {
                self.held_packets -= self.drop_gap(name);
                return;
            }
        }
    }
}
