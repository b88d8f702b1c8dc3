//! The send queue: requests from posting to completion.

use super::places::{Place, Places};
use crate::memory::{Access, AccessError, AtomicOperation, Memory};
use crate::terminate::Blamed;
use crate::types::MessageSequenceNumber;
use crate::work::{Completion, Opcode, Operation, Payload, RemoteAddress, Segment, SendRequest, Status, Upper};

/// Requests in order of posting. Each has a position, counted from the first request ever.
#[derive(Debug)]
pub(super) struct SendQueue {
    entries: Places<Entry>,
    /// Position of the front.
    first: u64,
    /// Position of the request that is being cut into FPDUs; those before it are committed whole.
    current: u64,
    /// A request completed with an error: those behind it complete by [`Self::flush`].
    failed: bool,
}

/// A request and how far it is.
#[derive(Debug, Default)]
pub(super) struct Entry {
    request: SendRequest,
    /// Bytes of payload, of a Read, or of an atomic.
    length: u32,
    begun: bool,
    /// Bytes committed: of payload, or asked for by Read Requests.
    committed: u32,
    /// Whether that is all there is to commit of the payload (there may be no byte at all).
    placed: bool,
    /// Next sink of a Read.
    sink: usize,
    /// Number of the message, or of its first Read Request, and how many there are.
    message: MessageSequenceNumber,
    messages: u32,
    /// Stream offset behind the last FPDU, once that is committed.
    end: Option<u64>,
    answers_due: u32,
    failure: Option<Status>,
}

impl SendQueue {
    pub(super) fn new(depth: u32) -> Self {
        Self { entries: Places::new(depth as usize), first: 0, current: 0, failed: false }
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.is_full()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes over a request; there is room.
    #[inline]
    pub(super) fn push(&mut self, request: &mut SendRequest, length: u32) {
        self.entries.push_back().begin_anew(request, length);
    }

    /// The request at `position`, while it is not complete.
    pub(super) fn get(&self, position: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(position.checked_sub(self.first)?).ok()?)
    }

    fn get_mut(&mut self, position: u64) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(position.checked_sub(self.first)?).ok()?)
    }

    /// The request that is next to put something into the stream.
    pub(super) fn current(&self) -> Option<&Entry> {
        self.get(self.current)
    }

    /// Position of and access to that request.
    pub(super) fn current_mut(&mut self) -> Option<(u64, &mut Entry)> {
        let position = self.current;
        self.get_mut(position).map(|entry| (position, entry))
    }

    /// The current request's last FPDU is committed and ends at `end`.
    #[inline(always)]
    pub(super) fn finish_current(&mut self, end: u64) {
        let position = self.current;
        if let Some(entry) = self.get_mut(position) {
            entry.end = Some(end);
            self.current += 1;
        }
    }

    /// Whether a local invalidation is next to complete.
    pub(super) fn front_is_invalidation(&self) -> bool {
        !self.failed
            && matches!(self.entries.front(), Some(entry) if matches!(entry.request.operation, Operation::LocalInvalidate { .. }))
    }

    /// One answer arrived for the request at `position`.
    pub(super) fn answered(&mut self, position: u64, status: Status) {
        let Some(entry) = self.get_mut(position) else { return };
        entry.answers_due -= 1;
        if status != Status::Success {
            entry.failure = Some(status);
        }
    }

    /// The request at `position` ends with `status`, when it does.
    pub(super) fn fail(&mut self, position: u64, status: Status) {
        if let Some(entry) = self.get_mut(position) {
            entry.failure = Some(status);
        }
    }

    /// The request that `blamed` names, if it is still here, ends with `status`.
    pub(super) fn blame(&mut self, blamed: Blamed, status: Status) {
        let entry = self.entries.iter_mut().find(|entry| match blamed {
            Blamed::Unknown => false,
            Blamed::Send(message) => entry.sends() && entry.has_message(message),
            Blamed::ReadRequest(message) => !entry.sends() && entry.has_message(message),
            Blamed::Write(address) => entry.writes_to(address),
        });
        if let Some(entry) = entry {
            entry.failure = Some(status);
        }
    }

    /// Completes what is done, in order: everything of it is acknowledged up to `through`, and answered. An error means that
    /// a local invalidation failed or a request could not begin.
    pub(super) fn complete<M: Memory + ?Sized, U: Upper + ?Sized>(
        &mut self,
        through: u64,
        memory: &M,
        upper: &mut U,
    ) -> Result<(), Failed> {
        while !self.failed
            && let Some(entry) = self.entries.front_mut()
        {
            if let Operation::LocalInvalidate { stag } = entry.request.operation
                && entry.failure.is_none()
            {
                // All earlier requests are complete: nothing refers to the region any more on their behalf.
                match memory.invalidate(stag, false) {
                    Ok(()) => entry.end = Some(0),
                    Err(_) => entry.failure = Some(Status::LocalProtection),
                }
                self.current = self.current.max(self.first + 1);
            }
            if !entry.is_done(through) {
                return Ok(());
            }
            if let Operation::Read { invalidate: Some(stag), .. } = entry.request.operation
                && entry.failure.is_none()
                && memory.invalidate(stag, false).is_err()
            {
                entry.failure = Some(Status::LocalProtection);
            }
            let status = entry.failure.unwrap_or(Status::Success);
            self.failed = status != Status::Success;
            self.pop(status, memory, upper);
        }
        if !self.failed {
            return Ok(());
        }
        // What had not begun when the error came has no FPDU that could still be asked for.
        while self.entries.front().is_some_and(|entry| !entry.begun) {
            self.pop(Status::Flushed, memory, upper);
        }
        Err(Failed)
    }

    /// Completes everything, in order.
    pub(super) fn flush<M: Memory + ?Sized, U: Upper + ?Sized>(&mut self, through: u64, memory: &M, upper: &mut U) {
        while let Some(entry) = self.entries.front() {
            let done = !self.failed && entry.is_done(through);
            let status = entry.failure.unwrap_or(if done { Status::Success } else { Status::Flushed });
            self.failed |= status != Status::Success;
            self.pop(status, memory, upper);
        }
        self.failed = true;
    }

    /// Completes the front.
    fn pop<M: Memory + ?Sized, U: Upper + ?Sized>(&mut self, status: Status, memory: &M, upper: &mut U) {
        let Some(entry) = self.entries.front() else { return };
        if entry.begun {
            entry.segments().iter().for_each(|segment| memory.release(segment.stag));
        }
        let completion = entry.completion(status);
        self.entries.pop_front();
        self.first += 1;
        self.current = self.current.max(self.first);
        upper.complete_send(completion);
    }
}

/// A request completed with an error that is not the peer's doing.
#[derive(Debug)]
pub(super) struct Failed;

impl Place for Entry {
    fn vacate(&mut self) {
        self.request.drop_inline();
    }
}

impl Entry {
    /// Becomes a new request. Done field by field: an entry is large, and most of it stays as it is.
    #[inline]
    fn begin_anew(&mut self, request: &mut SendRequest, length: u32) {
        self.request.take_over(request);
        self.length = length;
        (self.begun, self.placed, self.failure) = (false, false, None);
        (self.committed, self.sink, self.answers_due, self.end) = (0, 0, 0, None);
        (self.message, self.messages) = (MessageSequenceNumber(0), 0);
    }

    pub(super) fn request(&self) -> &SendRequest {
        &self.request
    }

    pub(super) fn is_begun(&self) -> bool {
        self.begun
    }

    /// Whether all payload is committed.
    pub(super) fn is_fully_placed(&self) -> bool {
        self.placed
    }

    pub(super) fn committed(&self) -> u32 {
        self.committed
    }

    pub(super) fn remaining(&self) -> u32 {
        self.length - self.committed
    }

    pub(super) fn message(&self) -> MessageSequenceNumber {
        self.message
    }

    /// Leaves the queue: its memory is held from now on, if it may be accessed at all.
    #[inline(always)]
    pub(super) fn begin<M: Memory + ?Sized>(&mut self, memory: &M) -> Result<(), AccessError> {
        let access = match self.request.operation {
            Operation::Read { .. } | Operation::Atomic { .. } => Access::LocalWrite,
            _ => Access::LocalRead,
        };
        for segment in self.segments() {
            memory.check_beginning(segment.stag, segment.offset, u64::from(segment.length), access)?;
        }
        self.segments().iter().for_each(|segment| memory.hold(segment.stag));
        self.begun = true;
        Ok(())
    }

    /// It cannot begin.
    pub(super) fn fail(&mut self, status: Status) {
        self.failure = Some(status);
    }

    /// The message that it is has this number.
    pub(super) fn set_message(&mut self, message: MessageSequenceNumber) {
        self.message = message;
        self.messages = 1;
    }

    /// `bytes` more of the payload are committed.
    pub(super) fn advance(&mut self, bytes: u32) {
        self.committed += bytes;
        self.placed = self.committed == self.length;
    }

    /// The next piece to ask for, of a Read: where it goes, and where in the source it begins. Empty sinks are passed over
    /// unless there are only such.
    pub(super) fn next_sink(&self) -> (usize, Segment) {
        let Operation::Read { sinks, .. } = &self.request.operation else { return (0, Segment::default()) };
        let sinks = sinks.as_slice();
        let next = (self.sink..sinks.len()).find(|&index| sinks[index].length > 0);
        match next {
            Some(index) => (index, sinks[index]),
            None => (sinks.len(), Segment { length: 0, ..sinks.first().copied().unwrap_or_default() }),
        }
    }

    /// The Read Request for the sink at `index` is committed, as `message`.
    pub(super) fn asked(&mut self, index: usize, length: u32, message: MessageSequenceNumber) {
        if self.messages == 0 {
            self.message = message;
        }
        self.messages += 1;
        self.answers_due += 1;
        self.sink = index + 1;
        self.advance(length);
    }

    /// Registered memory it refers to.
    #[inline(always)]
    fn segments(&self) -> &[Segment] {
        match &self.request.operation {
            Operation::Send { payload: Payload::Segments(list), .. }
            | Operation::Write { payload: Payload::Segments(list), .. } => list.as_slice(),
            Operation::Read { sinks, .. } => sinks.as_slice(),
            Operation::Atomic { sink, .. } => std::slice::from_ref(sink),
            _ => &[],
        }
    }

    #[inline(always)]
    fn is_done(&self, through: u64) -> bool {
        (self.answers_due == 0 && self.end.is_some_and(|end| end <= through)) || (self.failure.is_some() && !self.begun)
    }

    fn sends(&self) -> bool {
        !matches!(self.request.operation, Operation::Read { .. } | Operation::Atomic { .. })
    }

    fn has_message(&self, message: MessageSequenceNumber) -> bool {
        message.0.wrapping_sub(self.message.0) < self.messages
    }

    fn writes_to(&self, address: RemoteAddress) -> bool {
        let Operation::Write { target, .. } = self.request.operation else { return false };
        self.begun
            && target.stag == address.stag
            && address.offset.0.wrapping_sub(target.offset.0) < u64::from(self.length.max(1))
    }

    fn completion(&self, status: Status) -> Completion {
        Completion {
            id: self.request.id,
            status,
            opcode: self.opcode(),
            length: self.length,
            immediate: None,
            invalidated: None,
            solicited: false,
            signaled: self.request.signaled,
        }
    }

    fn opcode(&self) -> Opcode {
        match self.request.operation {
            Operation::Send { .. } | Operation::Immediate { .. } => Opcode::Send,
            Operation::Write { .. } => Opcode::Write,
            Operation::Read { .. } => Opcode::Read,
            Operation::Atomic { operation: AtomicOperation::FetchAdd { .. }, .. } => Opcode::FetchAdd,
            Operation::Atomic { operation: AtomicOperation::CompareSwap { .. }, .. } => Opcode::CompareSwap,
            Operation::LocalInvalidate { .. } => Opcode::LocalInvalidate,
        }
    }
}
