//! How much may be on its way: Reno (RFC 5681) and CUBIC (RFC 9438).

use std::time::Duration;

use crate::softrdma::config::CongestionControl;
use crate::time::Instant;

/// RFC 6928: segments of the initial window.
const INITIAL_SEGMENTS: u64 = 10;
/// RFC 9438 §4.6.
const BETA: f64 = 0.7;
/// RFC 9438 §5.
const C: f64 = 0.4;
/// Larger than any window that TCP can announce.
const LARGEST: u64 = 1 << 31;

/// A congestion window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    algorithm: CongestionControl,
    segment: u64,
    bytes: u64,
    threshold: u64,
    /// The window, and not the application, has held back since the last growth.
    is_full: bool,
    /// RFC 9438 §4.1: the window before the last reduction, in segments; since when CUBIC grows; how long it takes to get back
    /// there.
    most: f64,
    epoch: Option<Instant>,
    recovery_seconds: f64,
    /// RFC 9438 §4.3: what Reno would have.
    friendly: f64,
}

impl Window {
    pub(super) const fn new(algorithm: CongestionControl, segment_size: usize) -> Self {
        let segment = segment_size as u64;
        Self {
            algorithm,
            segment,
            bytes: INITIAL_SEGMENTS * segment,
            threshold: u64::MAX,
            is_full: false,
            most: 0.0,
            epoch: None,
            recovery_seconds: 0.0,
            friendly: 0.0,
        }
    }

    #[inline]
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Something waits for room.
    pub(super) const fn note_full(&mut self) {
        self.is_full = true;
    }

    /// `newly` bytes were acknowledged.
    #[inline]
    pub(super) fn handle_acknowledged(&mut self, now: Instant, newly: u64, round_trip: Duration) {
        // RFC 9438 §5.8: a window that the application does not fill says nothing about the network.
        if !self.is_full || self.bytes >= LARGEST {
            return;
        }
        if self.bytes < self.threshold {
            self.bytes += newly;
            self.is_full = false;
            return;
        }
        match self.algorithm {
            CongestionControl::Reno => self.bytes += (self.segment * newly / self.bytes).max(1),
            CongestionControl::Cubic => self.grow_cubic(now, newly, round_trip),
        }
        self.is_full = false;
    }

    /// RFC 9438 §4.2 to §4.5.
    fn grow_cubic(&mut self, now: Instant, newly: u64, round_trip: Duration) {
        let window = self.bytes as f64 / self.segment as f64;
        let epoch = *self.epoch.get_or_insert_with(|| {
            self.recovery_seconds = ((self.most - window).max(0.0) / C).cbrt();
            self.most = self.most.max(window);
            self.friendly = window;
            now
        });
        let elapsed = now.saturating_since(epoch) + round_trip;
        let distance = elapsed.as_secs_f64() - self.recovery_seconds;
        let target = (C * distance.powi(3) + self.most).clamp(window, 1.5 * window);
        let acknowledged = newly as f64 / self.segment as f64;
        let alpha = if self.friendly < self.most { 3.0 * (1.0 - BETA) / (1.0 + BETA) } else { 1.0 };
        self.friendly += alpha * acknowledged / window;
        let grown = (window + (target - window) * acknowledged / window).max(self.friendly);
        self.bytes = self.bytes.max((grown * self.segment as f64) as u64);
    }

    /// A loss was found: once for all that was in flight.
    pub(super) fn handle_loss(&mut self, _now: Instant) {
        self.reduce();
        self.bytes = self.threshold;
    }

    /// RFC 5681 §3.1: after a timeout one segment is sent.
    pub(super) fn handle_timeout(&mut self, _now: Instant) {
        self.reduce();
        self.bytes = self.segment;
    }

    fn reduce(&mut self) {
        let window = self.bytes as f64 / self.segment as f64;
        // RFC 9438 §4.7: who was reduced before reaching its last maximum makes room for others.
        self.most = if window < self.most { window * (1.0 + BETA) / 2.0 } else { window };
        self.epoch = None;
        let factor = match self.algorithm {
            CongestionControl::Reno => 0.5,
            CongestionControl::Cubic => BETA,
        };
        self.threshold = ((self.bytes as f64 * factor) as u64).max(2 * self.segment);
    }

    /// RFC 5681 §4.1: what was learnt before a long rest may not hold any more.
    pub(super) fn restart_after_idle(&mut self) {
        let initial = INITIAL_SEGMENTS * self.segment;
        if self.bytes > initial {
            self.threshold = self.threshold.max(self.bytes * 3 / 4);
            self.bytes = initial;
            self.epoch = None;
        }
    }
}
