//! A lock in a shared word, for sections that only copy. Whoever waits spins, then lets others run; if the owner's process has
//! died meanwhile (a child that was killed), the lock is taken over.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Pid, getpid, test_kill_process};

/// How often a waiter looks before it lets others run.
const SPINS: u32 = 200;
/// How often it lets others run before it asks whether the owner lives.
const YIELDS: u32 = 10_000;

/// Unlocked: 0; locked: the [`owner`] that did.
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

    /// Takes it if nobody has it.
    pub(crate) fn try_take(word: &'a AtomicU64, owner: u64) -> Option<Self> {
        word.compare_exchange(0, owner, Ordering::Acquire, Ordering::Relaxed).ok().map(|_| Self(word))
    }
}

impl Drop for Lock<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

impl Lock<'_> {
    /// Gives it back with a full barrier, which whoever tells the peer afterwards need not pay a second time.
    #[inline]
    pub(crate) fn release(self) {
        self.0.swap(0, Ordering::SeqCst);
        std::mem::forget(self);
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
    held_by != 0
        && !is_alive(held_by)
        && word.compare_exchange(held_by, owner, Ordering::Acquire, Ordering::Relaxed).is_ok()
}

/// Whether the process that calls itself `owner` runs still. One that has died is told from another one that has got its number by
/// when it began, and is none any more from then on, even before its parent has heard of it.
fn is_alive(owner: u64) -> bool {
    let number = owner as u32 as i32;
    match (status(&number.to_string()), status("self")) {
        (Some((state, began)), _) => !matches!(state, b'Z' | b'X') && began == (owner >> 32) as u32,
        // There is no /proc to ask.
        (None, None) => Pid::from_raw(number).is_none_or(|pid| test_kill_process(pid).is_ok()),
        (None, Some(_)) => false,
    }
}

/// The state of a process, and when it began, in so many bits as there is room for.
fn status(process: &str) -> Option<(u8, u32)> {
    let text = std::fs::read(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may be anything.
    let behind_name = text.iter().rposition(|byte| *byte == b')')? + 1;
    let mut fields = text[behind_name..].split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    let state = *fields.next()?.first()?;
    let began = std::str::from_utf8(fields.nth(18)?).ok()?.parse::<u64>().ok()?;
    Some((state, began as u32))
}

/// The number of this process.
pub(crate) fn process() -> u64 {
    u64::from(getpid().as_raw_nonzero().get().unsigned_abs())
}

/// What this process locks with: its number, and when it began.
pub(crate) fn owner() -> u64 {
    process() | u64::from(status("self").map_or(0, |(_, began)| began)) << 32
}
