//! Looking for what is waited for before sleeping, for as long as that has been worth it.
//!
//! What comes while somebody looks costs nanoseconds, a sleep and the doorbell that ends it cost tens of microseconds. So one look
//! in vain is cheap beside a sleep that was not needed; but a look at something that seldom comes wastes the processor. Hence:
//! once it was worth it, the whole time that the policy allows is spent; each time it was not, half of the last; and after
//! that only little, but for every [`PROBE`]th wait, which finds out whether things have changed.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::upgrade;

/// Looks between two looks at the clock.
const LOOKS: u32 = 32;
/// The same of looks that are system calls.
const CALLS: u32 = 4;
/// Looks that are few: what is waited for comes all the time.
const FEW: u32 = 4;
/// Most pauses before the first look.
const LULL: u32 = 16;
/// The least time that is spun.
const LEAST: Duration = Duration::from_micros(2);
/// One wait of so many takes the whole time, whatever came of the last.
const PROBE: u32 = 32;
/// After so long, others are let run between looks.
const ALONE: Duration = Duration::from_micros(5);
/// Letting others run took so long because there were some, who may have done what is waited for.
const SHARED: Duration = Duration::from_micros(5);
/// It took so long because somebody wants all of the processor.
const CROWDED: Duration = Duration::from_micros(200);
/// After that, so many waits go without a probe, and each time twice as many.
const CROWDED_WAITS: std::ops::RangeInclusive<u32> = 64..=16_384;

/// What one waiter has learned.
#[derive(Debug, Default)]
pub(crate) struct Spin {
    budget_ns: AtomicU32,
    /// Waits until the next probe.
    until_probe: AtomicU32,
    /// Waits that go without a probe the next time that somebody wants the processor; 0 as long as nobody did.
    crowded_waits: AtomicU32,
    /// Pauses before the first look. Each look takes the cache line from whoever is writing: one that comes a little later finds
    /// more, and costs the same.
    lull: AtomicU32,
}

impl Spin {
    pub(crate) const fn new() -> Self {
        Self {
            budget_ns: AtomicU32::new(0),
            until_probe: AtomicU32::new(0),
            crowded_waits: AtomicU32::new(0),
            lull: AtomicU32::new(0),
        }
    }

    fn budget(&self, most: Duration) -> Duration {
        let left = self.until_probe.load(Ordering::Relaxed);
        if left == 0 {
            self.until_probe.store(PROBE - 1, Ordering::Relaxed);
            return most;
        }
        self.until_probe.store(left - 1, Ordering::Relaxed);
        Duration::from_nanos(self.budget_ns.load(Ordering::Relaxed).into()).clamp(LEAST.min(most), most)
    }

    fn was_worth_it(&self, most: Duration, looks: u32) {
        if self.until_probe.load(Ordering::Relaxed) < PROBE {
            self.budget_ns.store(most.as_nanos() as u32, Ordering::Relaxed);
            self.crowded_waits.store(0, Ordering::Relaxed);
        }
        let lull = self.lull.load(Ordering::Relaxed);
        let next = if looks <= FEW { (2 * lull).clamp(2, LULL) } else { lull / 4 };
        if next != lull {
            self.lull.store(next, Ordering::Relaxed);
        }
    }

    fn was_in_vain(&self, budget: Duration) {
        self.lull.store(0, Ordering::Relaxed);
        let last = self.budget_ns.load(Ordering::Relaxed);
        // A probe that has found nothing makes no wait after it longer.
        self.budget_ns.store(last.min((budget / 2).as_nanos() as u32), Ordering::Relaxed);
    }

    /// Others want the processor: who sleeps is woken sooner than who spins gets another turn.
    fn is_crowded(&self) {
        let last = self.crowded_waits.load(Ordering::Relaxed);
        let waits = (2 * last).clamp(*CROWDED_WAITS.start(), *CROWDED_WAITS.end());
        self.crowded_waits.store(waits, Ordering::Relaxed);
        self.until_probe.store(waits, Ordering::Relaxed);
        self.budget_ns.store(0, Ordering::Relaxed);
    }

    /// Spins until `is_over`: whether it is. Between its looks, as often as the clock is looked at, `look_aside` may look
    /// for something else that ends the wait, by itself of no worth; no time for it means that it must.
    pub(crate) fn until(&self, is_over: impl FnMut() -> bool, look_aside: impl FnMut(Option<Instant>) -> bool) -> bool {
        self.spin(LOOKS, is_over, look_aside)
    }

    /// The same where each look is a system call.
    pub(crate) fn until_called(&self, is_over: impl FnMut() -> bool) -> bool {
        self.spin(CALLS, is_over, |_| false)
    }

    fn spin(
        &self,
        at_a_time: u32,
        mut is_over: impl FnMut() -> bool,
        mut look_aside: impl FnMut(Option<Instant>) -> bool,
    ) -> bool {
        let most = upgrade::spin_limit();
        let budget = self.budget(most);
        for _ in 0..self.lull.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
        let started = Instant::now();
        let mut looks = 0_u32;
        loop {
            for _ in 0..at_a_time {
                looks = looks.saturating_add(1);
                if is_over() {
                    self.was_worth_it(most, looks);
                    return true;
                }
                std::hint::spin_loop();
            }
            let now = Instant::now();
            let elapsed = now - started;
            if elapsed >= budget {
                self.was_in_vain(budget);
                return false;
            }
            if look_aside(Some(now)) {
                return true;
            }
            if elapsed >= ALONE {
                std::thread::yield_now();
                let lost = now.elapsed();
                if lost > SHARED && (is_over() || look_aside(None)) {
                    return true;
                }
                if lost > CROWDED {
                    self.is_crowded();
                    return false;
                }
            }
        }
    }
}

/// Reads in a row from which on it is a stream that is read.
const STREAM: u32 = 16;
/// Pauses of a reader that has caught up with a stream.
const PACE: u32 = 12;
/// Bytes that a reader wants at most who is worth pacing: more cost more than the look for them.
const SMALL: usize = 1024;

/// Lets a stream of small messages get ahead of its reader by a few. One that takes each message as it comes takes the writer's cache
/// line away each time, and both wait for it. Who sends in between, or asks whether there is something, wants every one at once.
#[derive(Debug, Default)]
pub(crate) struct Pace(AtomicU32);

impl Pace {
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// It is no stream that is read, and nothing else.
    #[inline]
    pub(crate) fn reset(&self) {
        if self.0.load(Ordering::Relaxed) != 0 {
            self.0.store(0, Ordering::Relaxed);
        }
    }

    /// A reader wants `wanted` bytes, and may know that there are so many.
    #[inline]
    pub(crate) fn read(&self, wanted: usize, has_enough: impl FnOnce() -> bool) {
        let reads = self.0.load(Ordering::Relaxed);
        if reads < STREAM {
            self.0.store(reads + 1, Ordering::Relaxed);
        } else if wanted <= SMALL && !has_enough() {
            for _ in 0..PACE {
                std::hint::spin_loop();
            }
        }
    }
}
