//! A mailbox between two threads: what one leaves, the other finds, in order.
//!
//! Messages lie in a ring that was allocated once. If the reader is so late that the ring is full, the writer goes on in a
//! list of its own making behind a lock that is held for one message at a time, and returns to the ring once the reader
//! has emptied the list: so order is kept, nobody waits for room, and nothing is lost. The protocol bounds the list: no
//! connection has more on its way than it can have in flight.

use std::collections::VecDeque;
#[cfg(not(loom))]
use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

#[cfg(not(loom))]
use crossbeam_queue::ArrayQueue;
#[cfg(loom)]
use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering},
};
#[cfg(loom)]
use loom_tests::ArrayQueue;

/// A queue with one writer and one reader at a time, see the [module](self).
#[derive(Debug)]
pub struct Mailbox<T> {
    ring: ArrayQueue<T>,
    /// Newer than everything in the ring.
    overflow: Mutex<VecDeque<T>>,
    /// Whether there is anything in the list. Raised by the writer, lowered by the reader, both with the lock.
    has_overflown: AtomicBool,
}

impl<T> Mailbox<T> {
    /// Room for `capacity` messages without the list.
    pub fn new(capacity: usize) -> Self {
        Self {
            ring: ArrayQueue::new(capacity),
            overflow: Mutex::new(VecDeque::new()),
            has_overflown: AtomicBool::new(false),
        }
    }

    /// Leaves a message behind all others.
    #[inline]
    pub fn push(&self, message: T) {
        if self.has_overflown.load(Ordering::Acquire) {
            return self.push_behind(message);
        }
        if let Err(message) = self.ring.push(message) {
            self.push_behind(message);
        }
    }

    /// The oldest message.
    #[inline]
    pub fn pop(&self) -> Option<T> {
        // Looked at first: taking from an empty ring costs a full fence, and most polls find nothing.
        let message = if self.ring.is_empty() { None } else { self.ring.pop() };
        match message {
            None if self.has_overflown.load(Ordering::Acquire) => self.pop_behind(),
            message => message,
        }
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty() && !self.has_overflown.load(Ordering::Acquire)
    }

    /// Whether three quarters of the ring are taken, or more: what can be done without is better not left now.
    #[inline]
    pub fn is_crowded(&self) -> bool {
        self.ring.len() >= self.ring.capacity() / 4 * 3
    }

    #[cold]
    fn push_behind(&self, message: T) {
        let mut overflow = self.overflow();
        // The list may have been emptied since we looked. Then the ring may have room, and is in front of the list all the same.
        if overflow.is_empty() {
            match self.ring.push(message) {
                Ok(()) => {}
                Err(message) => {
                    overflow.push_back(message);
                    self.has_overflown.store(true, Ordering::Release);
                }
            }
        } else {
            overflow.push_back(message);
        }
    }

    #[cold]
    fn pop_behind(&self) -> Option<T> {
        let mut overflow = self.overflow();
        // Since we looked, the writer may have filled the ring and gone on here. While there is a list it leaves the ring alone.
        if let Some(message) = self.ring.pop() {
            return Some(message);
        }
        let message = overflow.pop_front();
        if overflow.is_empty() {
            self.has_overflown.store(false, Ordering::Release);
        }
        message
    }

    #[cfg(not(loom))]
    fn overflow(&self) -> MutexGuard<'_, VecDeque<T>> {
        // A push or pop does not panic half-way.
        self.overflow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(loom)]
    fn overflow(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.overflow.lock().expect("no model panics with the lock")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn messages_come_out_in_order_across_a_full_ring() {
        let mailbox = Mailbox::new(4);
        let mut next = 0;
        for round in 0..50_u32 {
            for number in 0..round {
                mailbox.push((round, number));
            }
            let mut count = 0;
            while let Some(message) = mailbox.pop() {
                assert_eq!(message, (round, count));
                count += 1;
            }
            assert!(mailbox.is_empty());
            next += count;
        }
        assert_eq!(next, 50 * 49 / 2);
    }

    #[test]
    fn messages_come_out_in_order_on_another_thread() {
        const MESSAGES: u32 = 200_000;
        let mailbox = Arc::new(Mailbox::new(8));
        let writer = {
            let mailbox = mailbox.clone();
            std::thread::spawn(move || (0..MESSAGES).for_each(|number| mailbox.push(number)))
        };
        for expected in 0..MESSAGES {
            loop {
                if let Some(number) = mailbox.pop() {
                    assert_eq!(number, expected);
                    break;
                }
                std::thread::yield_now();
            }
        }
        writer.join().unwrap();
        assert!(mailbox.is_empty());
    }
}

#[cfg(loom)]
mod loom_tests {
    use std::collections::VecDeque;

    use loom::sync::Mutex;

    /// What the model stands on instead of the lock-free ring, which its authors have checked.
    #[derive(Debug)]
    pub(super) struct ArrayQueue<T>(Mutex<VecDeque<T>>, usize);

    impl<T> ArrayQueue<T> {
        pub(super) fn new(capacity: usize) -> Self {
            Self(Mutex::new(VecDeque::new()), capacity)
        }

        pub(super) fn push(&self, message: T) -> Result<(), T> {
            let mut messages = self.0.lock().expect("no model panics with the lock");
            if messages.len() == self.1 {
                return Err(message);
            }
            messages.push_back(message);
            Ok(())
        }

        pub(super) fn pop(&self) -> Option<T> {
            self.0.lock().expect("no model panics with the lock").pop_front()
        }

        pub(super) fn is_empty(&self) -> bool {
            self.0.lock().expect("no model panics with the lock").is_empty()
        }

        pub(super) fn len(&self) -> usize {
            self.0.lock().expect("no model panics with the lock").len()
        }

        pub(super) fn capacity(&self) -> usize {
            self.1
        }
    }

    #[cfg(test)]
    #[test]
    fn order_is_kept_and_nothing_is_lost() {
        loom::model(|| {
            let mailbox = loom::sync::Arc::new(super::Mailbox::new(1));
            let writer = {
                let mailbox = mailbox.clone();
                loom::thread::spawn(move || (0..3).for_each(|number| mailbox.push(number)))
            };
            let mut found = Vec::new();
            found.extend(mailbox.pop());
            found.extend(mailbox.pop());
            writer.join().unwrap();
            while let Some(number) = mailbox.pop() {
                found.push(number);
            }
            assert_eq!(found, [0, 1, 2]);
        });
    }
}
