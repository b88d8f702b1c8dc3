//! One direction of a wire: what is on its way, in order of arrival, and the dice.

use std::collections::VecDeque;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::pool::Buffer;
use super::{Impairments, MemoryPacket, REORDER_DEPTH, WireStatistics};
use crate::port::ReceivedChecksum;
use crate::sequential::checksum;

/// Frames and bytes that went in and came out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub(super) taken_packets: u64,
    pub(super) taken_bytes: u64,
    pub(super) delivered_packets: u64,
    pub(super) delivered_bytes: u64,
}

/// One direction of a wire. Times are nanoseconds of the wire's clock.
#[derive(Debug)]
pub(super) struct Lane {
    impairments: Impairments,
    random: SmallRng,
    in_flight: VecDeque<InFlight>,
    /// When the last frame so far has left the sender, at the configured rate.
    busy_until: u64,
    pub(super) traffic: Traffic,
    pub(super) statistics: WireStatistics,
}

#[derive(Debug)]
struct InFlight {
    arrival: u64,
    buffer: Buffer,
}

impl Lane {
    pub(super) fn new(seed: u64, impairments: Impairments) -> Self {
        Self {
            impairments,
            random: SmallRng::seed_from_u64(seed),
            in_flight: VecDeque::new(),
            busy_until: 0,
            traffic: Traffic::default(),
            statistics: WireStatistics::default(),
        }
    }

    /// Frames that fit onto the lane now.
    pub(super) fn room(&self) -> usize {
        self.impairments.in_flight_frames.saturating_sub(self.in_flight.len())
    }

    /// Frames on their way.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn next_arrival(&self) -> Option<u64> {
        self.in_flight.front().map(|first| first.arrival)
    }

    /// Takes a frame from the sender at `now`.
    pub(super) fn carry(&mut self, now: u64, mut buffer: Buffer, link_up: bool) {
        self.traffic.taken_packets += 1;
        self.traffic.taken_bytes += buffer.bytes().len() as u64;
        let left = self.serialise(now, buffer.bytes().len());
        if !link_up || self.happens(self.impairments.loss) {
            self.statistics.lost += 1;
            return;
        }
        if buffer.bytes().len() > self.impairments.corrupt_longer_than && self.happens(self.impairments.corrupt) {
            self.statistics.corrupted += 1;
            let bit = self.random.random_range(0..buffer.bytes().len() * 8);
            buffer.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
        }
        if self.happens(self.impairments.duplicate)
            && let Some(copy) = buffer.duplicate()
        {
            self.statistics.duplicated += 1;
            self.send_off(left, copy);
        }
        self.send_off(left, buffer);
    }

    /// Takes the first frame that has arrived by `now`.
    pub(super) fn deliver(&mut self, now: u64) -> Option<MemoryPacket> {
        self.next_arrival().filter(|arrival| *arrival <= now)?;
        let InFlight { buffer, .. } = self.in_flight.pop_front()?;
        let length = buffer.bytes().len();
        self.traffic.delivered_packets += 1;
        self.traffic.delivered_bytes += length as u64;
        let mut cuts = [length; 2];
        if self.happens(self.impairments.cut) {
            cuts = [self.random.random_range(0..=length), self.random.random_range(0..=length)];
            cuts.sort_unstable();
        }
        let checksum = if self.impairments.checksum_offload {
            checksum::verdict(buffer.bytes())
        } else {
            ReceivedChecksum::Unknown
        };
        Some(MemoryPacket { buffer, cuts, checksum })
    }

    /// When a frame of `length` bytes handed over at `now` has left the sender.
    fn serialise(&mut self, now: u64, length: usize) -> u64 {
        if let Some(rate) = self.impairments.rate_bits_per_second {
            let nanoseconds = (length as u128 * 8 * 1_000_000_000).div_ceil(u128::from(rate.max(1)));
            self.busy_until = self.busy_until.max(now).saturating_add(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
            self.busy_until
        } else {
            now
        }
    }

    fn send_off(&mut self, left: u64, buffer: Buffer) {
        let jitter = match self.impairments.jitter.as_nanos() as u64 {
            0 => 0,
            most => self.random.random_range(0..=most),
        };
        let mut arrival = left + self.impairments.delay.as_nanos() as u64 + jitter;
        let mut position = self.in_flight.len();
        while position > 0 && self.in_flight[position - 1].arrival > arrival {
            position -= 1;
        }
        if position > 0 && self.happens(self.impairments.reorder) {
            self.statistics.reordered += 1;
            position -= self.random.random_range(1..=REORDER_DEPTH.min(position));
            arrival = self.in_flight[position].arrival;
        }
        self.in_flight.insert(position, InFlight { arrival, buffer });
    }

    fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.random.random_bool(probability.min(1.0))
    }
}
