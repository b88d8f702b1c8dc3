//! Asynchronous events: what happens to objects by themselves.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::events::EventQueue;

/// Something that no completion tells of. Taken from [`crate::Device::try_get_async_event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsyncEvent {
    /// A connection ended because a rule was broken; the queue pair is in the error state.
    QueuePairFatal {
        /// The queue pair.
        number: u32,
    },
    /// A connection on a shared receive queue is over, and takes no more receives from it.
    LastReceiveReached {
        /// The queue pair.
        number: u32,
    },
    /// A completion did not fit; the queue pair was failed.
    CompletionQueueOverrun {
        /// The completion queue.
        queue: u32,
        /// The queue pair whose completion is lost.
        queue_pair: u32,
    },
    /// A shared receive queue has fewer receives than the limit that was armed.
    ReceiveLimitReached {
        /// The shared receive queue.
        shared_receive_queue: u32,
    },
    /// More happened than there was room for (`limits.max_async_events`): what came between the event before this one and the
    /// one behind it is lost. Objects know how they stand all the same: [`crate::QueuePair::state`], completions.
    EventsLost,
}

/// The asynchronous events of a device that nobody took yet. Peers cause them, so there are no more than a limit; that some
/// were lost is an event itself.
#[derive(Debug)]
pub(crate) struct AsyncEvents {
    queue: EventQueue<AsyncEvent>,
    limit: usize,
    lost: AtomicU64,
}

impl AsyncEvents {
    /// Room for `limit` events, and one more that says that others were lost.
    pub(crate) fn new(limit: usize) -> std::io::Result<Self> {
        Ok(Self { queue: EventQueue::new()?, limit: limit.max(1), lost: AtomicU64::new(0) })
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.queue.descriptor()
    }

    pub(crate) fn push(&self, event: AsyncEvent) {
        if !self.queue.push_within(self.limit, event, AsyncEvent::EventsLost) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(?event, limit = self.limit, "an asynchronous event is lost: nobody takes them");
        }
    }

    pub(crate) fn try_get(&self) -> Option<AsyncEvent> {
        self.queue.try_get()
    }

    /// Events that found no room.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
