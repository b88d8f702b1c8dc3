//! Completion queues: where requests end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use softrdma_mpa_ddp_rdmap::{Completion, Opcode, Stag, Status};

use crate::arming::Arming;
use crate::completion_channel::{ChannelShared, CompletionChannel, EventCounts};
use crate::resources::{DeviceSide, LimitReached, Place};

/// The end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkCompletion {
    /// The request's name, as it was given when posting.
    pub id: u64,
    /// How it ended.
    pub status: Status,
    /// What it was; of failed requests too.
    pub opcode: Opcode,
    /// Bytes received, read or sent; meaningful only with success.
    pub length: u32,
    /// Number of the queue pair it was posted to.
    pub queue_pair: u32,
    /// Immediate data that came with it.
    pub immediate: Option<[u8; 8]>,
    /// Tag of ours that the peer invalidated with the message.
    pub invalidated: Option<Stag>,
    /// The peer asked for a solicited event.
    pub solicited: bool,
}

impl Default for WorkCompletion {
    /// A place to poll into.
    fn default() -> Self {
        Self {
            id: 0,
            status: Status::Success,
            opcode: Opcode::Send,
            length: 0,
            queue_pair: 0,
            immediate: None,
            invalidated: None,
            solicited: false,
        }
    }
}

/// Why a completion queue could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateCompletionQueueError {
    /// As many as there may be.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// Larger than the device allows, or empty.
    #[error(
        "a completion queue of {capacity} entries is not possible: 1 to {limit} (`limits.max_completion_queue_entries`)"
    )]
    Capacity {
        /// What was asked for.
        capacity: usize,
        /// The device's limit.
        limit: u32,
    },
}

/// A completion did not fit: the queue is broken, as verbs has it. The owner reports it as an asynchronous event
/// and fails the queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "completion queue {number} of {capacity} entries overran: a completion is lost; make it as large as all requests that complete there"
)]
pub struct Overrun {
    /// Which queue.
    pub number: u32,
    /// What it holds.
    pub capacity: usize,
    /// The first lost completion of this queue: the one to report.
    pub first: bool,
}

/// A bounded queue of completions. Clones name the same one.
#[derive(Clone)]
pub struct CompletionQueue(Arc<Handle>);

struct Handle {
    shared: Arc<CompletionQueueShared>,
    device: Arc<dyn DeviceSide>,
    channel: Option<CompletionChannel>,
    _place: Place,
}

impl CompletionQueue {
    /// A queue of `capacity` entries on `device`; its events go to `channel`.
    pub(crate) fn new(
        device: Arc<dyn DeviceSide>,
        capacity: usize,
        channel: Option<&CompletionChannel>,
    ) -> Result<Self, CreateCompletionQueueError> {
        let limit = device.limits().max_completion_queue_entries;
        if capacity == 0 || capacity > limit as usize {
            return Err(CreateCompletionQueueError::Capacity { capacity, limit });
        }
        let place = device.resources().completion_queues.take()?;
        let shared = CompletionQueueShared::new(place.number(), capacity, channel.map(CompletionChannel::shared));
        Ok(Self(Arc::new(Handle { shared: Arc::new(shared), device, channel: channel.cloned(), _place: place })))
    }

    /// Moves completions into `out`, oldest first, and tells how many. Where the application drives the device (c2, c3), this
    /// is where it does so.
    #[inline]
    pub fn poll(&self, out: &mut [WorkCompletion]) -> usize {
        let count = self.0.shared.take(out);
        if count > 0 || out.is_empty() {
            return count;
        }
        self.0.device.progress();
        self.0.shared.take(out)
    }

    /// The oldest completion. As [`Self::poll`].
    pub fn poll_one(&self) -> Option<WorkCompletion> {
        self.0.shared.entries.pop().or_else(|| {
            self.0.device.progress();
            self.0.shared.entries.pop()
        })
    }

    /// Asks for one event on the channel when the next completion comes, or the next that is solicited or failed. Without a
    /// channel it does nothing.
    ///
    /// No event is lost if the queue is polled empty after arming and before waiting: a completion from before the arming
    /// is found there, one from after it gives the event.
    pub fn arm(&self, solicited_only: bool) {
        if let Some(notice) = &self.0.shared.notice {
            notice.arming.arm(solicited_only);
        }
    }

    pub(crate) fn device(&self) -> &Arc<dyn DeviceSide> {
        &self.0.device
    }

    /// Tells it apart from the others of its device; events name it.
    pub fn id(&self) -> CompletionQueueId {
        CompletionQueueId(self.0.shared.number)
    }

    /// Completions it holds.
    pub fn capacity(&self) -> usize {
        self.0.shared.entries.capacity()
    }

    /// Completions in it.
    pub fn length(&self) -> usize {
        self.0.shared.entries.len()
    }

    /// The channel of its events.
    pub fn channel(&self) -> Option<&CompletionChannel> {
        self.0.channel.as_ref()
    }

    /// Completions that did not fit. More than 0: the queue is broken, and an asynchronous event said so.
    pub fn lost(&self) -> u64 {
        self.0.shared.lost.load(Ordering::Relaxed)
    }

    /// Tells that `count` events of this queue, taken from its channel, are done with.
    pub fn acknowledge_events(&self, count: u32) {
        if let Some(notice) = &self.0.shared.notice {
            notice.events.acknowledge(count);
        }
    }

    /// Events taken from the channel and not acknowledged.
    pub fn unacknowledged_events(&self) -> u32 {
        self.0.shared.notice.as_ref().map_or(0, |notice| notice.events.unacknowledged())
    }

    /// Ends this queue's events: none comes any more, those not yet taken from the channel are withdrawn. Then waits until all
    /// that were taken are acknowledged. For who frees what events refer to, such as the C interface.
    pub fn wait_for_acknowledgements(&self) {
        if let Some(notice) = &self.0.shared.notice {
            notice.channel.withdraw(&notice.events);
            notice.events.wait();
        }
    }

    /// Handles to this queue, those in queue pairs included: more than one means that it is in use.
    pub fn users(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    pub(crate) fn shared(&self) -> &Arc<CompletionQueueShared> {
        &self.0.shared
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(notice) = &self.shared.notice {
            notice.channel.withdraw(&notice.events);
        }
    }
}

impl PartialEq for CompletionQueue {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for CompletionQueue {}

impl std::fmt::Debug for CompletionQueue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("CompletionQueue")
            .field("number", &self.0.shared.number)
            .field("capacity", &self.capacity())
            .field("length", &self.length())
            .finish()
    }
}

/// Names a completion queue of a device. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CompletionQueueId(pub u32);

/// The part of a completion queue that queue pairs complete into.
#[derive(Debug)]
pub(crate) struct CompletionQueueShared {
    number: u32,
    entries: ArrayQueue<WorkCompletion>,
    notice: Option<Notice>,
    is_overrun: AtomicBool,
    lost: AtomicU64,
}

#[derive(Debug)]
struct Notice {
    arming: Arming,
    events: Arc<EventCounts>,
    channel: Arc<ChannelShared>,
}

impl CompletionQueueShared {
    fn new(number: u32, capacity: usize, channel: Option<&Arc<ChannelShared>>) -> Self {
        let notice = channel.map(|channel| Notice {
            arming: Arming::default(),
            events: Arc::new(EventCounts::new(CompletionQueueId(number))),
            channel: channel.clone(),
        });
        let entries = ArrayQueue::new(capacity);
        Self { number, entries, notice, is_overrun: AtomicBool::new(false), lost: AtomicU64::new(0) }
    }

    /// Adds the end of a request of queue pair `queue_pair`. From any thread; no system call unless somebody waits.
    #[inline]
    pub(crate) fn push(&self, queue_pair: u32, completion: Completion) -> Result<(), Overrun> {
        let Completion { id, status, opcode, length, immediate, invalidated, solicited, signaled: _ } = completion;
        let entry = WorkCompletion { id, status, opcode, length, queue_pair, immediate, invalidated, solicited };
        let pushed = self.entries.push(entry).is_ok();
        if let Some(notice) = &self.notice
            && notice.arming.is_due(solicited || status != Status::Success || !pushed)
        {
            notice.channel.notify(&notice.events);
        }
        if pushed { Ok(()) } else { Err(self.overrun()) }
    }

    #[cold]
    fn overrun(&self) -> Overrun {
        self.lost.fetch_add(1, Ordering::Relaxed);
        let first = !self.is_overrun.swap(true, Ordering::AcqRel);
        Overrun { number: self.number, capacity: self.entries.capacity(), first }
    }

    #[inline]
    fn take(&self, out: &mut [WorkCompletion]) -> usize {
        // Two loads tell that there is nothing; a pop would need a fence for it.
        let ready = self.entries.len().min(out.len());
        let mut count = 0;
        for place in &mut out[..ready] {
            let Some(entry) = self.entries.pop() else { break };
            *place = entry;
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests;
