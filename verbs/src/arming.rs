//! Whether somebody waits for a completion queue's next entry.
//!
//! Two sides, each of which does two things in order:
//!
//! ```text
//! who waits                          who completes
//! 1. arm                             1. put the entry into the queue
//! 2. look into the queue             2. look whether it is armed, and disarm: then notify
//! 3. empty? wait for notice
//! ```
//!
//! Between 1 and 2 there is a sequentially consistent fence on either side. So if the waiter's look misses the entry, the
//! completer's look sees the arming: no entry is added unseen and unnotified. Disarming is one step, so an arming
//! gives one notice however many entries come. Unarmed, nothing is ever notified.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU8, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU8, Ordering, fence};

const UNARMED: u8 = 0;
const FOR_SOLICITED: u8 = 1;
const FOR_ANY: u8 = 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct Arming(AtomicU8);

impl Default for Arming {
    fn default() -> Self {
        Self(AtomicU8::new(UNARMED))
    }
}

impl Arming {
    /// The next entry shall be notified, or the next solicited one. Already armed for any, it stays so. The caller looks
    /// into the queue afterwards, before it waits.
    pub(crate) fn arm(&self, solicited_only: bool) {
        self.0.fetch_max(if solicited_only { FOR_SOLICITED } else { FOR_ANY }, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// An entry was put into the queue. `true`: the caller notifies, once.
    #[inline]
    pub(crate) fn is_due(&self, solicited: bool) -> bool {
        fence(Ordering::SeqCst);
        let mut armed = self.0.load(Ordering::Relaxed);
        loop {
            if armed == UNARMED || (armed == FOR_SOLICITED && !solicited) {
                return false;
            }
            match self.0.compare_exchange_weak(armed, UNARMED, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => armed = now,
            }
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;
