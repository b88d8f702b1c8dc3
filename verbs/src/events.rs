//! Queues of events with a descriptor that an application can poll.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// Events in order. The descriptor is readable exactly while there are any.
#[derive(Debug)]
pub(crate) struct EventQueue<T> {
    // A semaphore: its count is the number of events, so a reader takes one off for each.
    descriptor: OwnedFd,
    events: Mutex<VecDeque<T>>,
}

impl<T> EventQueue<T> {
    pub(crate) fn new() -> std::io::Result<Self> {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE)?;
        Ok(Self { descriptor, events: Mutex::new(VecDeque::new()) })
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    pub(crate) fn push(&self, event: T) {
        let mut events = self.lock();
        events.push_back(event);
        // Under the lock, so that count and queue agree. A full counter cannot happen: it holds 2^64 - 2.
        let _ = rustix::io::write(&self.descriptor, &1_u64.to_ne_bytes());
    }

    /// As [`Self::push`] while there are less than `limit` events. Otherwise `event` is lost, which `mark` says, once where
    /// several are lost one after another. Tells whether it was not lost.
    pub(crate) fn push_within(&self, limit: usize, event: T, mark: T) -> bool
    where
        T: PartialEq,
    {
        let mut events = self.lock();
        let has_room = events.len() < limit;
        if has_room || events.back() != Some(&mark) {
            events.push_back(if has_room { event } else { mark });
            let _ = rustix::io::write(&self.descriptor, &1_u64.to_ne_bytes());
        }
        has_room
    }

    pub(crate) fn try_get(&self) -> Option<T> {
        let mut events = self.lock();
        let event = events.pop_front()?;
        let _ = rustix::io::read(&self.descriptor, &mut [0; 8]);
        Some(event)
    }

    /// Takes back the oldest event that `is_wanted` says yes to, if nobody took it. Looks at all that there are.
    pub(crate) fn withdraw(&self, is_wanted: impl Fn(&T) -> bool) -> Option<T> {
        let mut events = self.lock();
        let position = events.iter().position(is_wanted)?;
        let _ = rustix::io::read(&self.descriptor, &mut [0; 8]);
        events.remove(position)
    }

    /// Waits until `deadline` for an event.
    pub(crate) fn get(&self, deadline: Deadline) -> Option<T> {
        loop {
            if let Some(event) = self.try_get() {
                return Some(event);
            }
            wait_readable([self.descriptor.as_fd()], deadline.left()?);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<T>> {
        self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// When waiting ends; `None`: never, or later than a clock can say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    pub(crate) fn after(timeout: Duration) -> Self {
        Self(Instant::now().checked_add(timeout))
    }

    /// How long to wait, as [`wait_readable`] takes it; `None`: no longer.
    fn left(self) -> Option<Option<Duration>> {
        match self.0 {
            None => Some(None),
            Some(deadline) => deadline.checked_duration_since(Instant::now()).map(Some),
        }
    }
}

/// Sleeps until one of `descriptors` is readable or `timeout` has passed; whether one is. Signals end it early.
pub(crate) fn wait_readable<const N: usize>(descriptors: [BorrowedFd<'_>; N], timeout: Option<Duration>) -> bool {
    let mut polled = descriptors.map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN));
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    poll(&mut polled, timeout.as_ref()).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_readable(queue: &EventQueue<u32>) -> bool {
        let mut polled = [PollFd::from_borrowed_fd(queue.descriptor(), PollFlags::IN)];
        poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn the_descriptor_is_readable_exactly_while_there_are_events() {
        let queue = EventQueue::new().unwrap();
        assert!(!is_readable(&queue));
        queue.push(1);
        queue.push(2);
        assert!(is_readable(&queue));
        assert_eq!(queue.try_get(), Some(1));
        assert!(is_readable(&queue));
        assert_eq!(queue.get(Deadline::after(Duration::from_secs(1))), Some(2));
        assert!(!is_readable(&queue));
        assert_eq!(queue.get(Deadline::after(Duration::from_millis(1))), None);
        (1..=3).for_each(|event| queue.push(event));
        assert_eq!(queue.withdraw(|&event| event == 2), Some(2));
        assert_eq!(queue.withdraw(|&event| event == 2), None);
        assert_eq!((queue.try_get(), queue.try_get()), (Some(1), Some(3)));
        assert!(!is_readable(&queue));
    }
}
