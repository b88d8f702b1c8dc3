//! Waiting with a bound, without burning a CPU that the other side needs.

use std::time::{Duration, Instant};

use crate::failure::Failure;

/// Tries without a pause.
const SPINS: u32 = 32;

/// Tries that yield the CPU, before the first nap. On an idle machine this is about a millisecond.
const YIELDS: u32 = 2000;

/// A nap between tries after that.
const NAP: Duration = Duration::from_micros(50);

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
        self.tries = self.tries.saturating_add(1);
        if self.tries <= SPINS {
            std::hint::spin_loop();
            return false;
        }
        if self.patience.busy_poll {
            std::hint::spin_loop();
            if !self.tries.is_multiple_of(4096) {
                return false;
            }
        }
        std::thread::yield_now();
        if self.tries > SPINS + YIELDS && !self.patience.busy_poll && !self.patience.drives {
            std::thread::sleep(NAP);
        }
        // The clock is read now and then; a nap makes that cheap.
        if !self.tries.is_multiple_of(64) && self.tries < SPINS + YIELDS {
            return false;
        }
        self.since.get_or_insert_with(Instant::now).elapsed() >= self.patience.limit
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
