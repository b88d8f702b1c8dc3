//! Asynchronous events: what happens to objects by themselves.

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
}
