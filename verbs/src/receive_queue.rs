//! Receive queues: buffers for messages that come, of one queue pair or shared by several.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crossbeam_queue::ArrayQueue;
use softrdma_mpa_ddp_rdmap::work::MAX_SEGMENTS;
use softrdma_mpa_ddp_rdmap::{ReceiveRequest, Segment, SegmentList};

use crate::asynchronous::AsyncEvent;
use crate::protection_domain::ProtectionDomain;
use crate::resources::{LimitReached, Place};

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the receive queue holds {capacity} requests and all are posted; wait for completions, or make it larger")]
pub struct Full {
    /// What it holds.
    pub capacity: usize,
}

/// Receive requests in order. Anybody posts; the receive halves of the queue pairs that use it take. Nobody waits.
#[derive(Debug)]
pub(crate) struct ReceiveQueue {
    requests: ArrayQueue<ReceiveRequest>,
    /// What the application knows it by, if it is shared.
    number: u32,
    /// Fewer requests than this are an event; 0: not armed.
    limit: AtomicU32,
    limit_reached: AtomicBool,
}

impl ReceiveQueue {
    /// A queue of `capacity` requests, at least one.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            requests: ArrayQueue::new(capacity.max(1)),
            number: 0,
            limit: AtomicU32::new(0),
            limit_reached: AtomicBool::new(false),
        }
    }

    /// One that several queue pairs take from.
    fn shared(capacity: usize, number: u32) -> Self {
        Self { number, ..Self::new(capacity) }
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn post(&self, request: ReceiveRequest) -> Result<(), Full> {
        self.requests.push(request).map_err(|_| Full { capacity: self.capacity() })
    }

    #[inline]
    pub(crate) fn take(&self) -> Option<ReceiveRequest> {
        let request = self.requests.pop()?;
        if self.limit.load(Ordering::Relaxed) != 0 {
            self.compare_with_limit();
        }
        Some(request)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(crate) fn length(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.requests.capacity()
    }

    /// Arms the event: once, when fewer than `limit` requests are posted. 0 disarms.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::SeqCst);
        // As verbs has it, the event comes at once if there are fewer already.
        self.compare_with_limit();
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Whether the armed limit was reached since the last call. To be asked by who takes, and by who arms.
    #[inline]
    pub(crate) fn take_limit_reached(&self) -> bool {
        self.limit_reached.load(Ordering::Relaxed) && self.limit_reached.swap(false, Ordering::AcqRel)
    }

    #[inline]
    pub(crate) fn has_limit_reached(&self) -> bool {
        self.limit_reached.load(Ordering::Relaxed)
    }

    #[cold]
    fn compare_with_limit(&self) {
        let limit = self.limit.load(Ordering::SeqCst);
        if limit == 0 || self.requests.len() >= limit as usize {
            return;
        }
        // Whoever disarms it tells; so it is told once.
        if self.limit.compare_exchange(limit, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.limit_reached.store(true, Ordering::Release);
        }
    }
}

/// Why a shared receive queue could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateReceiveQueueError {
    /// As many as there may be.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// Larger than the device allows, or empty.
    #[error("a receive queue of {capacity} requests is not possible: 1 to {limit} (`limits.max_receive_requests`)")]
    Capacity {
        /// What was asked for.
        capacity: usize,
        /// The device's limit.
        limit: u32,
    },
}

/// Why a receive was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostReceiveError {
    /// No room.
    #[error(transparent)]
    Full(#[from] Full),
    /// Too many pieces of memory.
    #[error("{count} segments exceed the {MAX_SEGMENTS} of one request")]
    TooManySegments {
        /// How many were given.
        count: usize,
    },
}

/// A receive queue that several queue pairs of one protection domain take from. Clones name the same one.
#[derive(Clone, Debug)]
pub struct SharedReceiveQueue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Arc<ReceiveQueue>,
    place: Place,
    domain: ProtectionDomain,
}

impl ProtectionDomain {
    /// A queue of `capacity` receives for several queue pairs.
    pub fn create_shared_receive_queue(&self, capacity: usize) -> Result<SharedReceiveQueue, CreateReceiveQueueError> {
        let limit = self.device().limits().max_receive_requests;
        if capacity == 0 || capacity > limit as usize {
            return Err(CreateReceiveQueueError::Capacity { capacity, limit });
        }
        let place = self.device().resources().shared_receive_queues.take()?;
        let queue = Arc::new(ReceiveQueue::shared(capacity, place.number()));
        Ok(SharedReceiveQueue(Arc::new(Shared { queue, place, domain: self.clone() })))
    }
}

impl SharedReceiveQueue {
    /// Posts a receive: some message of one of the queue pairs goes to `segments`.
    pub fn post_receive(&self, id: u64, segments: &[Segment]) -> Result<(), PostReceiveError> {
        let count = segments.len();
        let segments = SegmentList::new(segments).ok_or(PostReceiveError::TooManySegments { count })?;
        self.0.queue.post(ReceiveRequest { id, segments })?;
        self.0.domain.device().receive_posted();
        Ok(())
    }

    /// Arms an asynchronous event: it comes once, when fewer than `limit` receives are posted, at once if there are fewer
    /// already. 0 disarms.
    pub fn arm_limit(&self, limit: u32) {
        self.0.queue.set_limit(limit);
        // Nobody who takes need ever come to tell.
        if self.0.queue.take_limit_reached() {
            self.0.domain.device().announce(AsyncEvent::ReceiveLimitReached { shared_receive_queue: self.number() });
        }
    }

    /// The armed limit; 0 if there is none, or its event came.
    pub fn limit(&self) -> u32 {
        self.0.queue.limit()
    }

    /// Receives that are posted and not taken.
    pub fn length(&self) -> usize {
        self.0.queue.length()
    }

    /// Receives it holds.
    pub fn capacity(&self) -> usize {
        self.0.queue.capacity()
    }

    /// Tells it apart from the others of its device.
    pub fn number(&self) -> u32 {
        self.0.place.number()
    }

    /// The domain whose queue pairs may use it.
    pub fn protection_domain(&self) -> &ProtectionDomain {
        &self.0.domain
    }

    pub(crate) fn queue(&self) -> &Arc<ReceiveQueue> {
        &self.0.queue
    }
}

impl PartialEq for SharedReceiveQueue {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SharedReceiveQueue {}

#[cfg(test)]
mod tests;
