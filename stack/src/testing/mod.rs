//! An engine for tests.
//!
//! [`pair`] makes two engines with a wire in memory between them. The wire loses nothing; the engines do everything that
//! [`Engine`] allows and that a one-copy engine will do, chosen by seed:
//!
//! - received bytes are lent in several slices, cut anywhere;
//! - sources write any unacknowledged range again, and panic when it differs from what they wrote first;
//! - bytes are acknowledged late, and not at the boundaries of records;
//! - room is refused, or is small;
//! - nothing leaves before [`Engine::flush`], and bytes that a sink left are not offered again unasked.
//!
//! With both engines in one thread, driven in one order, a run is determined by its seed. Every panic names the seed.

mod engine;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use self::engine::PairEngine;
use self::wire::Wire;
#[cfg(doc)]
use crate::stream::Engine;

/// How the engines of a [`pair`] behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairConfig {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// See [`Engine::segment_size`].
    pub segment_size: usize,
    /// Unacknowledged bytes of a stream, at most.
    pub window_bytes: usize,
    /// Bytes of a stream that wait for their sink, at most; further ones stay on the wire.
    pub receive_bytes: usize,
    /// Connections of each engine, at most.
    pub max_connections: usize,
    /// Listeners of each engine, at most.
    pub max_listeners: usize,
    /// Whether to panic when a range that is written again differs. Off for applications that change a buffer while it
    /// is being sent.
    pub checks_rewrites: bool,
    /// How long bytes may lie unconsumed after the peer ended its direction; then the stream is reset.
    pub truncation_timeout: Duration,
}

impl PairConfig {
    /// Settings for most tests.
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            segment_size: 1_440,
            window_bytes: 64 << 10,
            receive_bytes: 128 << 10,
            max_connections: 1_024,
            max_listeners: 16,
            checks_rewrites: true,
            truncation_timeout: Duration::from_secs(30),
        }
    }
}

/// Two engines that reach each other, at 192.0.2.1 and 192.0.2.2 (RFC 5737 §3).
pub fn pair(config: PairConfig) -> (PairEngine, PairEngine) {
    pair_of([config; 2])
}

/// As [`pair`], with settings for each of the two.
pub fn pair_of(configs: [PairConfig; 2]) -> (PairEngine, PairEngine) {
    let wire = Arc::new(Mutex::new(Wire::default()));
    let [first, second] = configs;
    (PairEngine::new(first, 0, Arc::clone(&wire)), PairEngine::new(second, 1, wire))
}
