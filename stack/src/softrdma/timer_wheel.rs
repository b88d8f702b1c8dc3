//! One deadline for each flow, set, moved and cleared in constant time.
//!
//! A hashed hierarchical wheel: level 0 has slots of [`TICK`], each further level slots as long as all of the level before.
//! A flow hangs in a list of the slot of its deadline; lists are linked through an array indexed by flow, so nothing is
//! allocated and nothing stale is left behind.

use crate::time::Instant;

/// Nanoseconds of a tick, as a power of two: about 16 us.
const TICK: u32 = 14;
/// Slots of a level, as a power of two.
const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 6;
const NONE: u32 = u32::MAX;
/// The slot number of a flow without a deadline.
const UNSET: u16 = u16::MAX;

/// Deadlines by flow.
pub(super) struct TimerWheel {
    /// The first flow of each slot.
    heads: [u32; SLOTS * LEVELS],
    /// Slots in use, a bit for each.
    used: [u64; LEVELS],
    nodes: Vec<Node>,
    /// Ticks that have passed.
    now: u64,
}

#[derive(Clone, Copy)]
struct Node {
    previous: u32,
    next: u32,
    slot: u16,
    at: Instant,
}

const IDLE: Node = Node { previous: NONE, next: NONE, slot: UNSET, at: Instant::ZERO };

impl TimerWheel {
    pub(super) fn new(now: Instant) -> Self {
        Self { heads: [NONE; SLOTS * LEVELS], used: [0; LEVELS], nodes: Vec::new(), now: tick(now) }
    }

    /// Sets, moves or clears the deadline of `flow`.
    pub(super) fn set(&mut self, flow: u32, at: Option<Instant>) {
        let index = flow as usize;
        if index >= self.nodes.len() {
            if at.is_none() {
                return;
            }
            self.nodes.resize(index + 1, IDLE);
        }
        let Some(at) = at else { return self.unlink(flow) };
        let slot = self.slot(at);
        if self.nodes[index].slot != slot {
            self.unlink(flow);
            self.link(flow, slot);
        }
        self.nodes[index].at = at;
    }

    /// Whether `flow` has a deadline that is not later than `at`.
    #[inline]
    pub(super) fn is_due_by(&self, flow: u32, at: Option<Instant>) -> bool {
        let node = self.nodes.get(flow as usize).filter(|node| node.slot != UNSET);
        matches!((node, at), (Some(node), Some(at)) if node.at <= at)
    }

    /// Appends to `expired` the flows whose deadlines have passed by `now`, at most so many that it has `limit` entries;
    /// they have no deadline any more.
    pub(super) fn expire(&mut self, now: Instant, expired: &mut Vec<u32>, limit: usize) {
        let target = tick(now);
        loop {
            // The current slot of level 0 may hold deadlines of this very tick.
            let slot = (self.now & (SLOTS as u64 - 1)) as usize;
            let mut flow = self.heads[slot];
            while flow != NONE && expired.len() < limit {
                let Node { next, at, .. } = self.nodes[flow as usize];
                if at <= now {
                    self.unlink(flow);
                    expired.push(flow);
                }
                flow = next;
            }
            if self.now >= target || expired.len() >= limit {
                return;
            }
            self.advance(target);
        }
    }

    /// A time not later than the earliest deadline, and later than `now` unless that deadline is due within the tick.
    pub(super) fn next(&self) -> Option<Instant> {
        let level = self.used.iter().position(|used| *used != 0)?;
        if level == 0 {
            // In this slot and its successors, the earliest first: look at the deadlines themselves.
            let slot = self.first_used(0);
            let mut flow = self.heads[slot];
            let mut earliest = Instant::from_nanoseconds(u64::MAX);
            while flow != NONE {
                earliest = earliest.min(self.nodes[flow as usize].at);
                flow = self.nodes[flow as usize].next;
            }
            return Some(earliest);
        }
        // The beginning of its slot: then its flows come down a level.
        let shift = BITS * level as u32;
        let slot = self.first_used(level) - level * SLOTS;
        let here = self.now >> shift;
        let distance = (slot as u64).wrapping_sub(here) & (SLOTS as u64 - 1);
        let distance = if distance == 0 { SLOTS as u64 } else { distance };
        Some(Instant::from_nanoseconds((here + distance) << shift << TICK))
    }

    /// The first slot in use of `level`, counted from the current one.
    fn first_used(&self, level: usize) -> usize {
        let here = (self.now >> (BITS * level as u32)) as u32 & (SLOTS as u32 - 1);
        // On level 0 the current slot counts; above it is empty, or it belongs to the next turn of the wheel.
        let from = if level == 0 { here } else { (here + 1) & (SLOTS as u32 - 1) };
        let distance = self.used[level].rotate_right(from).trailing_zeros();
        level * SLOTS + ((from + distance) as usize & (SLOTS - 1))
    }

    /// Moves to the next tick at which something may be due, at most to `target`.
    fn advance(&mut self, target: u64) {
        // Nothing happens before the lowest level in use turns to its next slot.
        let step = match self.used.iter().position(|used| *used != 0) {
            None => target,
            Some(0) => self.now + 1,
            Some(level) => {
                let shift = BITS * level as u32;
                target.min(((self.now >> shift) + 1) << shift)
            }
        };
        self.now = step;
        for level in 1..LEVELS {
            let below = BITS * level as u32;
            if self.now & ((1 << below) - 1) != 0 {
                return;
            }
            let slot = level * SLOTS + ((self.now >> below) as usize & (SLOTS - 1));
            let mut flow = self.heads[slot];
            while flow != NONE {
                let Node { next, at, .. } = self.nodes[flow as usize];
                self.unlink(flow);
                let place = self.slot(at);
                self.link(flow, place);
                self.nodes[flow as usize].at = at;
                flow = next;
            }
        }
    }

    /// The slot for `at`.
    fn slot(&self, at: Instant) -> u16 {
        let at = tick(at).max(self.now);
        let distance = (at ^ self.now).checked_ilog2().unwrap_or(0) / BITS;
        let level = (distance as usize).min(LEVELS - 1);
        let shift = BITS * level as u32;
        let place = if distance as usize >= LEVELS {
            // In the next turn of the top level. Beyond that: in its last slot, from where it is hung again.
            ((self.now >> shift) + ((at >> shift) - (self.now >> shift)).min(SLOTS as u64 - 1)) as usize & (SLOTS - 1)
        } else {
            (at >> shift) as usize & (SLOTS - 1)
        };
        (level * SLOTS + place) as u16
    }

    fn link(&mut self, flow: u32, slot: u16) {
        let head = self.heads[usize::from(slot)];
        let node = &mut self.nodes[flow as usize];
        (node.previous, node.next, node.slot) = (NONE, head, slot);
        if head != NONE {
            self.nodes[head as usize].previous = flow;
        }
        self.heads[usize::from(slot)] = flow;
        self.used[usize::from(slot) / SLOTS] |= 1 << (usize::from(slot) % SLOTS);
    }

    fn unlink(&mut self, flow: u32) {
        let Node { previous, next, slot, .. } = self.nodes[flow as usize];
        if slot == UNSET {
            return;
        }
        match previous {
            NONE => self.heads[usize::from(slot)] = next,
            previous => self.nodes[previous as usize].next = next,
        }
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        if self.heads[usize::from(slot)] == NONE {
            self.used[usize::from(slot) / SLOTS] &= !(1 << (usize::from(slot) % SLOTS));
        }
        self.nodes[flow as usize].slot = UNSET;
    }
}

const fn tick(at: Instant) -> u64 {
    at.as_nanoseconds() >> TICK
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// The wheel against a sorted map, over random deadlines from microseconds to days.
    #[test]
    fn deadlines_expire_when_their_time_has_come_and_not_before() {
        for seed in 0..20 {
            let mut random = SmallRng::seed_from_u64(seed);
            let mut now = Instant::from_nanoseconds(random.random_range(0..1 << 50));
            let mut wheel = TimerWheel::new(now);
            let mut model: BTreeMap<u32, Instant> = BTreeMap::new();
            for _ in 0..5_000 {
                let flow = random.random_range(0..50);
                if random.random_bool(0.7) {
                    let span = 1_u64 << random.random_range(8..50);
                    let at = now + Duration::from_nanos(random.random_range(0..span));
                    wheel.set(flow, Some(at));
                    model.insert(flow, at);
                } else {
                    wheel.set(flow, None);
                    model.remove(&flow);
                }
                if random.random_bool(0.5) {
                    let earliest = model.values().min().copied();
                    let next = wheel.next();
                    assert_eq!(next.is_some(), earliest.is_some(), "seed {seed}");
                    if let (Some(next), Some(earliest)) = (next, earliest) {
                        assert!(next <= earliest, "seed {seed}: {next:?} is later than {earliest:?}");
                    }
                    let span = 1_u64 << random.random_range(8..40);
                    now = match next {
                        Some(next) if random.random_bool(0.5) => now.max(next),
                        _ => now + Duration::from_nanos(random.random_range(0..span)),
                    };
                    let mut expired = Vec::new();
                    wheel.expire(now, &mut expired, usize::MAX);
                    expired.sort_unstable();
                    let due: Vec<u32> = model.iter().filter(|(_, at)| **at <= now).map(|(flow, _)| *flow).collect();
                    assert_eq!(expired, due, "seed {seed}");
                    model.retain(|_, at| *at > now);
                }
            }
        }
    }

    #[test]
    fn a_limit_leaves_the_rest_for_the_next_call() {
        let mut wheel = TimerWheel::new(Instant::ZERO);
        (0..100).for_each(|flow| wheel.set(flow, Some(Instant::from_nanoseconds(1_000_000 * u64::from(flow % 3)))));
        let mut expired = Vec::new();
        for rounds in 1..=4 {
            wheel.expire(Instant::from_nanoseconds(10_000_000), &mut expired, 30 * rounds);
            assert_eq!(expired.len(), (30 * rounds).min(100));
        }
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn a_jump_over_days_costs_few_steps() {
        let mut wheel = TimerWheel::new(Instant::ZERO);
        wheel.set(7, Some(Instant::from_nanoseconds(86_400_000_000_000 * 7)));
        let mut steps = 0;
        let mut expired = Vec::new();
        while let Some(next) = wheel.next() {
            wheel.expire(next, &mut expired, 1);
            steps += 1;
        }
        assert!(expired == [7] && steps <= 2 * LEVELS, "{steps} steps");
    }
}
