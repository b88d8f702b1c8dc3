//! Descriptors of this library in somebody else's program: out of its way, and known, so that it cannot close them by accident.
//!
//! Programs count on getting the lowest free number, close "all" descriptors, and put others in the place of those they know.
//! So ours are moved up, near the limit, and stand in a set that whoever intercepts `close` and its kin can ask without a lock.

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Resource, getrlimit};

/// Numbers that can be private; a process with more descriptors in use has no room for ours.
const NUMBERS: usize = 1 << 20;

/// Where private numbers begin at most, however high the limit. The kernel's table reaches up to the highest number in use,
/// and every fork copies it.
const HIGHEST_BASE: u64 = 8192;

/// A bit for each number.
static PRIVATE: [AtomicU64; NUMBERS / 64] = [const { AtomicU64::new(0) }; NUMBERS / 64];

/// Words of [`PRIVATE`] in which a bit was ever set.
static WORDS: AtomicUsize = AtomicUsize::new(0);

/// A descriptor of the library. Not inherited by programs that are executed.
#[derive(Debug)]
pub struct Private(OwnedFd);

impl Private {
    /// Moves `descriptor` to a high number, three quarters up to the process's limit. Fails if there is none left.
    pub fn keep(descriptor: OwnedFd) -> io::Result<Self> {
        let moved = fcntl_dupfd_cloexec(&descriptor, base())?;
        let (word, bit) = place(moved.as_raw_fd()).ok_or(Errno::MFILE)?;
        WORDS.fetch_max(word + 1, Ordering::Relaxed);
        PRIVATE[word].fetch_or(bit, Ordering::Release);
        Ok(Self(moved))
    }

    /// Closes the number, though a thread still has `self` on its stack: for a child of fork, in which that thread does not exist.
    /// `self` must not be used or dropped afterwards.
    pub(crate) fn close_in_child(&self) {
        self.forget();
        let _ = nix::unistd::close(self.0.as_raw_fd());
    }

    fn forget(&self) {
        if let Some((word, bit)) = place(self.0.as_raw_fd()) {
            PRIVATE[word].fetch_and(!bit, Ordering::Release);
        }
    }
}

impl AsFd for Private {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Private {
    /// Out of the set first, then closed: the close is one that may be intercepted, and once it has happened the number may be the
    /// program's.
    fn drop(&mut self) {
        self.forget();
    }
}

/// Whether `descriptor` is the library's: a program has nothing to close there.
#[inline]
pub fn is_private(descriptor: RawFd) -> bool {
    place(descriptor).is_some_and(|(word, bit)| PRIVATE[word].load(Ordering::Acquire) & bit != 0)
}

/// The library's descriptor with the lowest number from `descriptor` on: a range is closed around them.
pub fn next_private(descriptor: RawFd) -> Option<RawFd> {
    let start = usize::try_from(descriptor).unwrap_or(0);
    let end = WORDS.load(Ordering::Relaxed);
    (start / 64..end).find_map(|word| {
        let is_first = word == start / 64;
        let mask = if is_first { u64::MAX << (start % 64) } else { u64::MAX };
        let bits = PRIVATE[word].load(Ordering::Acquire) & mask;
        (bits != 0).then(|| (64 * word) as RawFd + bits.trailing_zeros() as RawFd)
    })
}

/// Where the bit of `descriptor` stands.
#[inline]
fn place(descriptor: RawFd) -> Option<(usize, u64)> {
    let number = usize::try_from(descriptor).ok().filter(|&number| number < NUMBERS)?;
    Some((number / 64, 1 << (number % 64)))
}

/// The lowest number that a private descriptor may get now. The limit may change while a program runs.
fn base() -> RawFd {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    (limit - limit / 4).min(HIGHEST_BASE) as RawFd
}
