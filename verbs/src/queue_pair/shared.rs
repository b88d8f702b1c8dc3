//! The part of a queue pair that both the application's threads and the host's work on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use softrdma_mpa_ddp_rdmap::{
    AtomicOperation, Completion, Opcode, Operation, ReceiveRequest, SegmentList, SendRequest, Status,
};

use super::{PostError, QueuePairState, StateError};
use crate::completion_queue::CompletionQueueShared;
use crate::memory::DomainMemory;
use crate::receive_queue::ReceiveQueue;

/// No endpoint.
const NOWHERE: u32 = u32::MAX;

/// What a queue pair is made from, in the host's terms.
pub(crate) struct QueuePairSettings {
    pub(crate) number: u32,
    pub(crate) memory: DomainMemory,
    pub(crate) send_completions: Arc<CompletionQueueShared>,
    pub(crate) receive_completions: Arc<CompletionQueueShared>,
    pub(crate) receives: Arc<ReceiveQueue>,
    /// The receive queue belongs to several queue pairs.
    pub(crate) receives_shared: bool,
    pub(crate) max_send: u32,
    pub(crate) signal_all: bool,
}

/// See the module. Whoever is inside the turn calls what takes or completes; anybody calls what posts.
#[derive(Debug)]
pub(crate) struct QueuePairShared {
    number: u32,
    memory: DomainMemory,
    send_completions: Arc<CompletionQueueShared>,
    receive_completions: Arc<CompletionQueueShared>,
    receives: Arc<ReceiveQueue>,
    receives_shared: bool,
    /// The application has no handle to it any more.
    is_dropped: AtomicBool,
    send_queue: ArrayQueue<SendRequest>,
    max_send: u32,
    /// Send requests admitted ever. What of them is not among [`Self::sends_completed`] is outstanding.
    sends_admitted: AtomicU64,
    signal_all: bool,
    state: AtomicU8,
    /// In the device's queue of doorbells.
    rung: AtomicBool,
    endpoint: AtomicU32,
    /// Agreed ORD; [`NOWHERE`] before a connection.
    ord: AtomicU32,
    /// Number of the completion queue that overran; [`NOWHERE`] if none did.
    overrun: AtomicU32,
    /// Written by whoever is inside the turn only.
    sends_completed: AtomicU64,
    receives_completed: AtomicU64,
}

impl QueuePairShared {
    pub(crate) fn new(settings: QueuePairSettings) -> Self {
        Self {
            number: settings.number,
            memory: settings.memory,
            send_completions: settings.send_completions,
            receive_completions: settings.receive_completions,
            receives: settings.receives,
            receives_shared: settings.receives_shared,
            is_dropped: AtomicBool::new(false),
            send_queue: ArrayQueue::new(settings.max_send.max(1) as usize),
            max_send: settings.max_send.max(1),
            sends_admitted: AtomicU64::new(0),
            signal_all: settings.signal_all,
            state: AtomicU8::new(QueuePairState::Reset as u8),
            rung: AtomicBool::new(false),
            endpoint: AtomicU32::new(NOWHERE),
            ord: AtomicU32::new(NOWHERE),
            overrun: AtomicU32::new(NOWHERE),
            sends_completed: AtomicU64::new(0),
            receives_completed: AtomicU64::new(0),
        }
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn memory(&self) -> &DomainMemory {
        &self.memory
    }

    pub(crate) fn max_send(&self) -> u32 {
        self.max_send
    }

    pub(crate) fn ord(&self) -> Option<u32> {
        let ord = self.ord.load(Ordering::Relaxed);
        (ord != NOWHERE).then_some(ord)
    }

    pub(crate) fn set_ord(&self, ord: u16) {
        self.ord.store(u32::from(ord), Ordering::Relaxed);
    }

    /// Send requests posted and not completed, and requests completed: sends, receives.
    pub(crate) fn counters(&self) -> (u32, u64, u64) {
        // Completed first: it never is more than what was admitted before.
        let completed = self.sends_completed.load(Ordering::Acquire);
        let outstanding = self.sends_admitted.load(Ordering::Relaxed).saturating_sub(completed);
        (outstanding.min(u64::from(self.max_send)) as u32, completed, self.receives_completed.load(Ordering::Relaxed))
    }

    // --- states ---

    pub(crate) fn state(&self) -> QueuePairState {
        match self.state.load(Ordering::Acquire) {
            0 => QueuePairState::Reset,
            1 => QueuePairState::Init,
            2 => QueuePairState::ReadyToReceive,
            3 => QueuePairState::ReadyToSend,
            _ => QueuePairState::Error,
        }
    }

    fn enter(&self, state: QueuePairState) {
        self.state.store(state as u8, Ordering::Release);
    }

    pub(crate) fn enter_init(&self) -> Result<(), StateError> {
        match self.state() {
            QueuePairState::Reset => self.enter(QueuePairState::Init),
            QueuePairState::Init => {}
            from => return Err(StateError { number: self.number, from, to: QueuePairState::Init }),
        }
        Ok(())
    }

    pub(crate) fn enter_reset(&self) -> Result<(), StateError> {
        if self.endpoint().is_some() {
            let from = self.state();
            return Err(StateError { number: self.number, from, to: QueuePairState::Reset });
        }
        // What another thread posted in error is flushed before it could be taken for the next connection's.
        self.flush();
        self.ord.store(NOWHERE, Ordering::Relaxed);
        self.enter(QueuePairState::Reset);
        Ok(())
    }

    pub(crate) fn is_connectable(&self) -> bool {
        self.state() == QueuePairState::Init
    }

    pub(crate) fn enter_ready_to_receive(&self) {
        self.enter(QueuePairState::ReadyToReceive);
    }

    pub(crate) fn enter_ready_to_send(&self) {
        self.enter(QueuePairState::ReadyToSend);
    }

    pub(crate) fn enter_error(&self) {
        self.enter(QueuePairState::Error);
    }

    pub(crate) fn endpoint(&self) -> Option<u32> {
        let slot = self.endpoint.load(Ordering::Relaxed);
        (slot != NOWHERE).then_some(slot)
    }

    pub(crate) fn set_endpoint(&self, slot: Option<u32>) {
        self.endpoint.store(slot.unwrap_or(NOWHERE), Ordering::Relaxed);
    }

    // --- sends ---

    /// Admits a request: there is room for it until it completes. [`Self::queue_send`] follows, or somebody who takes it to its
    /// connection.
    #[inline]
    pub(super) fn admit_send(&self, request: &mut SendRequest) -> Result<(), PostError> {
        match self.state() {
            QueuePairState::ReadyToSend | QueuePairState::Error => {}
            state => return Err(PostError::State { number: self.number, state }),
        }
        // In this order: what others post and complete between the two steps makes room, and must not look like the opposite.
        let admitted = self.sends_admitted.fetch_add(1, Ordering::AcqRel);
        if admitted.saturating_sub(self.sends_completed.load(Ordering::Acquire)) >= u64::from(self.max_send) {
            self.sends_admitted.fetch_sub(1, Ordering::AcqRel);
            return Err(PostError::Full { depth: self.max_send });
        }
        request.signaled |= self.signal_all;
        Ok(())
    }

    /// Queues a request that was admitted. `true`: the caller has to put the queue pair into the queue of doorbells.
    pub(crate) fn queue_send(&self, request: SendRequest) -> bool {
        if let Err(request) = self.send_queue.push(request) {
            unreachable!("request {} was admitted and finds no room", request.id);
        }
        self.ring()
    }

    /// Marks the queue pair as rung; `false` if it was already.
    pub(super) fn ring(&self) -> bool {
        !self.rung.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn clear_doorbell(&self) {
        // A swap, not a store: it acquires what the ringer queued before.
        self.rung.swap(false, Ordering::AcqRel);
    }

    /// Whether [`Self::take_send`] would give something.
    #[inline]
    pub(crate) fn has_send(&self) -> bool {
        !self.send_queue.is_empty()
    }

    pub(crate) fn take_send(&self) -> Option<SendRequest> {
        self.send_queue.pop()
    }

    pub(crate) fn complete_send(&self, completion: Completion) {
        // One writer, so not one step. Release: who admits another request into the place sees it free.
        self.sends_completed.store(self.sends_completed.load(Ordering::Relaxed) + 1, Ordering::Release);
        if completion.signaled || completion.status != Status::Success {
            self.push_completion(&self.send_completions, completion);
        }
    }

    /// Completes a request that the protocol refused.
    pub(crate) fn fail_send(&self, id: u64) {
        self.complete_send(unfinished(id, Status::LocalOperation, Opcode::Send));
    }

    // --- receives ---

    pub(super) fn push_receive(&self, id: u64, segments: SegmentList) -> Result<(), PostError> {
        if self.receives_shared {
            return Err(PostError::SharedReceiveQueue { number: self.number });
        }
        if self.state() == QueuePairState::Reset {
            return Err(PostError::State { number: self.number, state: QueuePairState::Reset });
        }
        self.receives
            .post(ReceiveRequest { id, segments })
            .map_err(|_| PostError::Full { depth: self.receives.capacity() as u32 })
    }

    pub(crate) fn take_receive(&self) -> Option<ReceiveRequest> {
        if self.leaves_receives() { None } else { self.receives.take() }
    }

    pub(crate) fn has_receive(&self) -> bool {
        !self.leaves_receives() && !self.receives.is_empty()
    }

    /// A queue pair that was dropped may still have to send what was posted before; receives that are not its own serve the
    /// other queue pairs.
    fn leaves_receives(&self) -> bool {
        self.receives_shared && self.is_dropped.load(Ordering::Relaxed)
    }

    /// The last handle is dropped.
    pub(super) fn handle_dropped(&self) {
        self.is_dropped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn complete_receive(&self, completion: Completion) {
        self.receives_completed.store(self.receives_completed.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.push_completion(&self.receive_completions, completion);
    }

    fn push_completion(&self, queue: &CompletionQueueShared, completion: Completion) {
        if let Err(overrun) = queue.push(self.number, completion) {
            tracing::error!(queue_pair = self.number, %overrun, "the queue pair is failed");
            self.overrun.store(overrun.number, Ordering::Relaxed);
        }
    }

    /// The completion queue that overran since the last call.
    pub(crate) fn take_overrun(&self) -> Option<u32> {
        if self.overrun.load(Ordering::Relaxed) == NOWHERE {
            return None;
        }
        Some(self.overrun.swap(NOWHERE, Ordering::Relaxed))
    }

    /// Whether [`Self::take_overrun`] or [`Self::take_limit_reached`] would give something: for who may not take it.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.overrun.load(Ordering::Relaxed) != NOWHERE || (self.receives_shared && self.receives.has_limit_reached())
    }

    pub(crate) fn shares_receives(&self) -> bool {
        self.receives_shared
    }

    /// The number of the shared receive queue if it fell below its armed limit.
    pub(crate) fn take_limit_reached(&self) -> Option<u32> {
        (self.receives_shared && self.receives.take_limit_reached()).then(|| self.receives.number())
    }

    // --- the end ---

    /// Everything that is still queued completes as flushed, sends first, each queue in order.
    pub(crate) fn flush(&self) {
        self.enter_error();
        self.flush_sends();
        if self.receives_shared {
            return; // They serve the other queue pairs.
        }
        while let Some(request) = self.receives.take() {
            self.complete_receive(unfinished(request.id, Status::Flushed, Opcode::Receive));
        }
    }

    fn flush_sends(&self) {
        while let Some(request) = self.take_send() {
            self.complete_send(unfinished(request.id, Status::Flushed, opcode_of(&request.operation)));
        }
    }

    /// What is posted to a queue pair without a connection is flushed at once. One that is not in error any more was just reset
    /// while somebody posted: nothing of that may come to the next connection.
    pub(crate) fn flush_unconnected(&self) {
        match self.state() {
            QueuePairState::Error => self.flush(),
            QueuePairState::Reset | QueuePairState::Init => self.flush_sends(),
            QueuePairState::ReadyToReceive | QueuePairState::ReadyToSend => {}
        }
    }
}

fn unfinished(id: u64, status: Status, opcode: Opcode) -> Completion {
    Completion { id, status, opcode, length: 0, immediate: None, invalidated: None, solicited: false, signaled: true }
}

/// What a request's completion is called.
fn opcode_of(operation: &Operation) -> Opcode {
    match operation {
        Operation::Send { .. } | Operation::Immediate { .. } => Opcode::Send,
        Operation::Write { .. } => Opcode::Write,
        Operation::Read { .. } => Opcode::Read,
        Operation::Atomic { operation: AtomicOperation::CompareSwap { .. }, .. } => Opcode::CompareSwap,
        Operation::Atomic { operation: AtomicOperation::FetchAdd { .. }, .. } => Opcode::FetchAdd,
        Operation::LocalInvalidate { .. } => Opcode::LocalInvalidate,
    }
}
