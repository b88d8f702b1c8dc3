//! What a line is told.

use std::time::Duration;

/// Bits on the medium for each frame beside its own bytes: preamble, frame check sequence and the gap to the next frame
/// (IEEE 802.3 §3.1.1, §4.4.2).
pub(super) const OVERHEAD_BITS: u64 = (8 + 4 + 12) * 8;

/// How one direction of a wire behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Bits a second on the medium, with what Ethernet adds to each frame; `None`: frames take no time.
    pub rate: Option<u64>,
    /// Bytes that may wait for the medium, the frame under way included. A frame that would exceed it is dropped.
    pub queue_bytes: u64,
    /// From the last bit of a frame on this side to the last bit on the other.
    pub delay: Duration,
    /// What happens to IP packets.
    pub trouble: Trouble,
}

/// Probabilities, each for every IP packet that has left the queue. Other frames (ARP) meet no trouble: a lost one costs a
/// second in any host, which would drown what is to be measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Trouble {
    /// It is lost.
    pub loss: f64,
    /// It is lost, and so are those after it, [`Self::burst_frames`] together.
    pub burst: f64,
    /// Length of a burst.
    pub burst_frames: u32,
    /// It is held back for a time between zero and [`Self::reorder_delay`], while others pass.
    pub reorder: f64,
    /// Longest time that it is held back.
    pub reorder_delay: Duration,
    /// It arrives twice.
    pub duplicate: f64,
    /// One of its bits is turned, behind the Ethernet header.
    pub corrupt: f64,
}

/// Why settings make no line.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SettingsError {
    /// A probability is none.
    #[error("the probability of {what} is {value}; give 0 to 1, as 0.01 for one frame in a hundred")]
    Probability {
        /// Of what.
        what: &'static str,
        /// What was given.
        value: f64,
    },
    /// Too slow for anything.
    #[error("a rate of {0} bit/s; give 1000 at least")]
    Rate(u64),
    /// A burst of nothing.
    #[error("bursts of no frames; give 1 at least")]
    EmptyBurst,
}

impl Settings {
    /// Checks that they make sense.
    pub fn validate(&self) -> Result<(), SettingsError> {
        const LEAST_RATE: u64 = 1000;
        let Trouble { loss, burst, burst_frames, reorder, duplicate, corrupt, .. } = self.trouble;
        let probabilities = [
            ("loss", loss),
            ("a burst", burst),
            ("reordering", reorder),
            ("duplication", duplicate),
            ("corruption", corrupt),
        ];
        for (what, value) in probabilities {
            if !(0.0..=1.0).contains(&value) {
                return Err(SettingsError::Probability { what, value });
            }
        }
        match self.rate {
            Some(rate) if rate < LEAST_RATE => Err(SettingsError::Rate(rate)),
            _ if burst > 0.0 && burst_frames == 0 => Err(SettingsError::EmptyBurst),
            _ => Ok(()),
        }
    }

    /// Nanoseconds that a frame of `length` bytes takes on the medium.
    pub(super) fn transmission(&self, length: usize) -> u64 {
        let bits = length as u64 * 8 + OVERHEAD_BITS;
        self.rate.map_or(0, |rate| (bits * 1_000_000_000).div_ceil(rate))
    }

    /// Bytes that the medium carries in so many nanoseconds.
    pub(super) fn carried(&self, nanoseconds: u64) -> u64 {
        let bits = u128::from(self.rate.unwrap_or(0)) * u128::from(nanoseconds) / 1_000_000_000;
        (bits / 8) as u64
    }
}
