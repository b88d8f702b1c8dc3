//! CUBIC (RFC 9438).

use std::time::Duration;

use super::{Algorithm, Growth};
use crate::time::Instant;

/// RFC 9438 §4.6.
const BETA: f64 = 0.7;
/// RFC 9438 §5.
const C: f64 = 0.4;
/// RFC 9438 §4.3: with this growth and [`BETA`] a flow takes what a Reno flow takes.
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// A window that grows by the time since the last loss, slowly near where the loss was. Windows are in segments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cubic {
    /// W_max: the plateau.
    most: f64,
    /// cwnd_prior: the window before the last reduction.
    prior: f64,
    /// When the present growth began.
    epoch: Option<Instant>,
    /// K: how long it takes from there to the plateau.
    plateau_seconds: f64,
    /// W_est: what Reno would have.
    friendly: f64,
    /// Less than a byte, so that slow growth is not lost in rounding.
    fraction: f64,
    is_after_timeout: bool,
}

impl Cubic {
    pub(super) const fn new() -> Self {
        Self {
            most: 0.0,
            prior: 0.0,
            epoch: None,
            plateau_seconds: 0.0,
            friendly: 0.0,
            fraction: 0.0,
            is_after_timeout: false,
        }
    }

    fn begin(&mut self, now: Instant, window: f64) -> Instant {
        // RFC 9438 §4.8: after a timeout, and where there was no loss yet, the plateau is here.
        if std::mem::take(&mut self.is_after_timeout) || self.most < window {
            self.most = window;
        }
        self.plateau_seconds = ((self.most - window) / C).cbrt();
        self.friendly = window;
        self.epoch = Some(now);
        now
    }
}

impl Algorithm for Cubic {
    fn grow(&mut self, growth: &Growth) -> u64 {
        let segment = growth.segment as f64;
        let window = (growth.window as f64 + self.fraction) / segment;
        let epoch = match self.epoch {
            Some(epoch) => epoch,
            None => self.begin(growth.now, window),
        };
        // RFC 9438 §4.2: where the curve will be in a round trip.
        let elapsed = growth.now.saturating_since(epoch) + growth.round_trip;
        let distance = elapsed.as_secs_f64() - self.plateau_seconds;
        let curve = C * distance * distance * distance + self.most;
        let target = curve.clamp(window, 1.5 * window);
        let arrived = growth.delivered as f64 / segment;
        // RFC 9438 §4.3: no slower than Reno.
        let alpha = if self.friendly < self.prior { ALPHA } else { 1.0 };
        self.friendly += alpha * arrived / window;
        // RFC 9438 §4.4 and §4.5.
        let grown = (window + (target - window) * arrived / window).max(self.friendly) * segment;
        self.fraction = grown.fract();
        grown as u64
    }

    fn reduce(&mut self, window: u64, segment: u64, is_timeout: bool) -> u64 {
        let segments = window as f64 / segment as f64;
        // RFC 9438 §4.7: who was reduced before reaching its last plateau makes room for others.
        self.most = if segments < self.most { segments * (1.0 + BETA) / 2.0 } else { segments };
        self.prior = segments;
        self.epoch = None;
        self.fraction = 0.0;
        self.is_after_timeout = is_timeout;
        ((window as f64 * BETA) as u64).max(2 * segment)
    }

    fn handle_pause(&mut self, pause: Duration) {
        // RFC 9438 §5.8: the curve does not run on while nobody follows it.
        self.epoch = self.epoch.map(|epoch| epoch + pause);
    }

    fn restart(&mut self) {
        self.epoch = None;
        self.fraction = 0.0;
    }
}
