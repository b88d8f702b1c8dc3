//! Completion channels: a descriptor that becomes readable when an armed completion queue gets an entry.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::completion_queue::CompletionQueueId;

/// Events of completion queues, with a descriptor to wait on. Clones name the same one.
///
/// The descriptor is readable exactly while there are events to take. The application polls it, may set `O_NONBLOCK`
/// on it, and never reads it: it takes events with [`Self::try_get_event`].
#[derive(Clone, Debug)]
pub struct CompletionChannel(Arc<ChannelShared>);

impl CompletionChannel {
    pub(crate) fn new() -> std::io::Result<Self> {
        // Blocking, as programs expect of a fresh channel; it is read only when it is readable. As a semaphore its count
        // is the number of events.
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::SEMAPHORE)?;
        Ok(Self(Arc::new(ChannelShared { descriptor, pending: Mutex::default() })))
    }

    /// Takes the oldest event: which queue it is about. It has to be acknowledged there one day
    /// ([`crate::completion_queue::CompletionQueue::acknowledge_events`]).
    pub fn try_get_event(&self) -> Option<CompletionQueueId> {
        self.0.take()
    }

    /// As [`Self::try_get_event`], but waits for an event, at most `timeout` if there is one.
    pub fn get_event(&self, timeout: Option<Duration>) -> Option<CompletionQueueId> {
        let begin = Instant::now();
        loop {
            if let Some(event) = self.try_get_event() {
                return Some(event);
            }
            let left = match timeout.map(|timeout| timeout.checked_sub(begin.elapsed())) {
                Some(None) => return None,
                Some(left) => left,
                None => None,
            };
            self.0.wait(left);
        }
    }

    pub(crate) fn shared(&self) -> &Arc<ChannelShared> {
        &self.0
    }
}

impl AsFd for CompletionChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.descriptor.as_fd()
    }
}

impl PartialEq for CompletionChannel {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for CompletionChannel {}

/// The part of a channel that completion queues notify.
#[derive(Debug)]
pub(crate) struct ChannelShared {
    descriptor: OwnedFd,
    /// Queues with an event that was not taken, each at most once: so there are never more than queues. The descriptor's count
    /// is changed under the same lock and is its length.
    pending: Mutex<VecDeque<Arc<EventCounts>>>,
}

impl ChannelShared {
    /// An armed queue got an entry. A second event of a queue before the first was taken would tell nothing new.
    pub(crate) fn notify(&self, queue: &Arc<EventCounts>) {
        let mut pending = lock(&self.pending);
        let mut state = lock(&queue.state);
        if state.is_pending || state.is_withdrawn {
            return;
        }
        state.is_pending = true;
        drop(state);
        pending.push_back(queue.clone());
        // It cannot fail: the counter holds 2^64 - 2.
        let _ = rustix::io::write(&self.descriptor, &1_u64.to_ne_bytes());
    }

    fn take(&self) -> Option<CompletionQueueId> {
        let mut pending = lock(&self.pending);
        let queue = pending.pop_front()?;
        self.count_down();
        let mut state = lock(&queue.state);
        state.is_pending = false;
        state.unacknowledged += 1;
        Some(queue.id)
    }

    /// Takes back an event that nobody took; no other comes.
    pub(crate) fn withdraw(&self, queue: &Arc<EventCounts>) {
        let mut pending = lock(&self.pending);
        let mut state = lock(&queue.state);
        state.is_withdrawn = true;
        if std::mem::take(&mut state.is_pending) {
            pending.retain(|other| !Arc::ptr_eq(other, queue));
            self.count_down();
        }
    }

    /// Takes one off the descriptor's count. Should the application have read the descriptor after all, this must not block.
    fn count_down(&self) {
        if self.wait(Some(Duration::ZERO)) {
            let _ = rustix::io::read(&self.descriptor, &mut [0; 8]);
        }
    }

    /// Whether the descriptor is readable, after at most `timeout`. Signals end it early.
    fn wait(&self, timeout: Option<Duration>) -> bool {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let mut polled = [PollFd::new(&self.descriptor, PollFlags::IN)];
        matches!(poll(&mut polled, timeout.as_ref()), Ok(1..))
    }
}

/// The events of one completion queue.
#[derive(Debug)]
pub(crate) struct EventCounts {
    id: CompletionQueueId,
    state: Mutex<EventState>,
    acknowledged: Condvar,
}

#[derive(Debug, Default)]
struct EventState {
    is_pending: bool,
    is_withdrawn: bool,
    unacknowledged: u32,
}

impl EventCounts {
    pub(crate) fn new(id: CompletionQueueId) -> Self {
        Self { id, state: Mutex::default(), acknowledged: Condvar::new() }
    }

    pub(crate) fn acknowledge(&self, count: u32) {
        let mut state = lock(&self.state);
        // More than were taken is a mistake of the application's that must not disturb the count for ever.
        state.unacknowledged = state.unacknowledged.saturating_sub(count);
        drop(state);
        self.acknowledged.notify_all();
    }

    pub(crate) fn unacknowledged(&self) -> u32 {
        lock(&self.state).unacknowledged
    }

    pub(crate) fn wait(&self) {
        let mut state = lock(&self.state);
        while state.unacknowledged > 0 {
            state = self.acknowledged.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
