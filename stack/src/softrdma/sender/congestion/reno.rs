//! Reno (RFC 5681).

use std::time::Duration;

use super::{Algorithm, Growth};

/// A segment more each round trip, half of it after a loss.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reno {
    /// RFC 3465 §2.1: bytes that have arrived since the window grew last.
    counted: u64,
}

impl Reno {
    pub(super) const fn new() -> Self {
        Self { counted: 0 }
    }
}

impl Algorithm for Reno {
    fn grow(&mut self, growth: &Growth) -> u64 {
        self.counted += growth.delivered;
        if self.counted < growth.window {
            return growth.window;
        }
        self.counted -= growth.window;
        growth.window + growth.segment
    }

    fn reduce(&mut self, window: u64, segment: u64, _is_timeout: bool) -> u64 {
        self.counted = 0;
        (window / 2).max(2 * segment)
    }

    fn handle_pause(&mut self, _pause: Duration) {}

    fn restart(&mut self) {
        self.counted = 0;
    }
}
