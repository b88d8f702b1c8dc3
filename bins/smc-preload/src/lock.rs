//! A lock in a shared word, for sections that only copy. Whoever waits spins, then lets others run; if the owner's process has
//! died meanwhile (a child that was killed), the lock is taken over.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Pid, getpid, test_kill_process};

/// How often a waiter looks before it lets others run.
const SPINS: u32 = 200;
/// How often it lets others run before it asks whether the owner lives.
const YIELDS: u32 = 10_000;

/// Unlocked: 0; locked: the process that did.
pub(crate) struct Lock<'a>(&'a AtomicU64);

impl<'a> Lock<'a> {
    /// Takes it.
    #[inline]
    pub(crate) fn take(word: &'a AtomicU64, owner: u64) -> Self {
        if word.compare_exchange(0, owner, Ordering::Acquire, Ordering::Relaxed).is_err() {
            wait(word, owner);
        }
        Self(word)
    }
}

impl Drop for Lock<'_> {
    #[inline]
    fn drop(&mut self) {
        // A full barrier, which whoever tells the peer afterwards need not pay a second time.
        self.0.swap(0, Ordering::SeqCst);
    }
}

#[cold]
fn wait(word: &AtomicU64, owner: u64) {
    for round in 0_u32.. {
        if word.load(Ordering::Relaxed) == 0
            && word.compare_exchange(0, owner, Ordering::Acquire, Ordering::Relaxed).is_ok()
        {
            return;
        }
        if round < SPINS {
            std::hint::spin_loop();
            continue;
        }
        std::thread::yield_now();
        if round % YIELDS == YIELDS - 1 && take_over(word, owner) {
            return;
        }
    }
}

fn take_over(word: &AtomicU64, owner: u64) -> bool {
    let held_by = word.load(Ordering::Relaxed);
    let is_alive = Pid::from_raw(held_by as i32).is_none_or(|pid| test_kill_process(pid).is_ok());
    !is_alive && word.compare_exchange(held_by, owner, Ordering::Acquire, Ordering::Relaxed).is_ok()
}

/// What this process locks with.
pub(crate) fn owner() -> u64 {
    u64::from(getpid().as_raw_nonzero().get().unsigned_abs())
}
