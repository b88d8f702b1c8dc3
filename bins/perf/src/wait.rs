//! Waiting with a bound, without burning a CPU that the other side needs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// Tries without a pause.
const SPINS: u32 = 32;

/// How long a wait yields the CPU between tries before it naps: longer than a round trip of any fabric that is not stuck.
const YIELD_TIME: Duration = Duration::from_micros(300);

/// A nap between tries.
const NAP: Duration = Duration::from_micros(50);

/// A yield that takes longer gave the CPU to somebody who had work for it. Yielding on a busy machine means to queue behind
/// everybody; who naps is let in again soon.
const CONTENTION: Duration = Duration::from_micros(300);

/// Pauses that nap at once after contention was seen, before a yield is tried again.
const WARY_PAUSES: u32 = 1000;

/// Pauses left that nap because of contention, over all waits of the process.
static WARY: AtomicU32 = AtomicU32::new(0);

/// How the threads of a process wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Longest wait.
    pub(crate) limit: Duration,
    /// Spins instead of sleeping, and yields now and then only.
    pub(crate) busy_poll: bool,
    /// Yields instead of sleeping: polling is what drives the stack (c2).
    pub(crate) drives: bool,
}

impl Patience {
    /// A wait that begins now.
    pub(crate) fn begin(&self) -> Wait {
        Wait { patience: *self, tries: 0, since: None }
    }

    /// Tries until there is a result. `what` names it if there is none in time.
    pub(crate) fn until<T, W: std::fmt::Display>(
        &self,
        what: impl FnOnce() -> W,
        mut attempt: impl FnMut() -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        let mut wait = self.begin();
        loop {
            if let Some(result) = attempt()? {
                return Ok(result);
            }
            if wait.pause() {
                return Err(Failure::Timeout { what: what().to_string(), limit: self.limit });
            }
        }
    }
}

/// One wait: spins, then yields, then naps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    patience: Patience,
    tries: u32,
    since: Option<Instant>,
}

impl Wait {
    /// Something happened: the wait begins anew.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
        self.since = None;
    }

    /// Pauses after a try in vain. `true`: the limit is reached.
    pub(crate) fn pause(&mut self) -> bool {
        // From the end on as behind the spins: the clock is looked at now and then, however many tries there were.
        self.tries = self.tries.checked_add(1).unwrap_or(SPINS + 1);
        let spins = if self.patience.busy_poll { !self.tries.is_multiple_of(4096) } else { self.tries <= SPINS };
        if spins {
            // Who has the CPU to itself tries again at once: the processor's pause may last as long as a fifth of a message's way.
            if !self.patience.busy_poll {
                std::hint::spin_loop();
            }
            return false;
        }
        let now = Instant::now();
        let waited = now - *self.since.get_or_insert(now);
        if waited >= self.patience.limit {
            return true;
        }
        let is_wary = WARY.load(Ordering::Relaxed) > 0;
        if self.patience.busy_poll || !is_wary && (self.patience.drives || waited < YIELD_TIME) {
            std::thread::yield_now();
            if now.elapsed() > CONTENTION {
                WARY.store(WARY_PAUSES, Ordering::Relaxed);
            }
        } else {
            let _ = WARY.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            std::thread::sleep(NAP);
        }
        false
    }

    /// Whether this wait has lasted so long that looking at rare things costs nothing.
    pub(crate) fn is_idle(&self) -> bool {
        self.tries > SPINS && self.tries.is_multiple_of(256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { limit: Duration::from_millis(20), busy_poll: false, drives: false };

    #[test]
    fn a_wait_in_vain_ends_and_names_what_was_waited_for() {
        for patience in [PATIENCE, Patience { busy_poll: true, ..PATIENCE }, Patience { drives: true, ..PATIENCE }] {
            let begun = Instant::now();
            let failure = patience.until(|| "answer to everything", || Ok(None::<()>)).unwrap_err();
            assert!(failure.to_string().contains("answer to everything"), "{failure}");
            assert!(begun.elapsed() >= patience.limit);
            assert!(begun.elapsed() < Duration::from_secs(5));
        }
    }

    #[test]
    fn a_result_ends_the_wait() {
        let mut tries = 0;
        let result = PATIENCE.until(
            || "three",
            || {
                tries += 1;
                Ok((tries == 3).then_some(tries))
            },
        );
        assert_eq!(result.unwrap(), 3);
    }
}
