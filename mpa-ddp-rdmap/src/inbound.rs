//! The receiving half: from lent bytes of the stream to placed payload and completions.
//!
//! Every FPDU is verified whole, then its payload is copied once, from the lent bytes to registered memory. Nothing is
//! placed and nothing completes before the CRC holds (RFC 5044 §4.4).

mod receive;
mod requests;
mod responses;

use std::collections::VecDeque;

use crate::error::{OffendingSegment, ProtocolError, Violation};
use crate::framing::{CRC_FIELD, LENGTH_FIELD, crc32c, crc32c_of, fpdu_length};
use crate::lent::Run;
use crate::limits::Limits;
use crate::memory::{Access, Memory};
use crate::negotiated::{Negotiated, Role, RtrKind};
use crate::segment::{Segment, TaggedSegment, UntaggedSegment};
use crate::statistics::InboundStatistics;
use crate::terminate::{MAX_TERMINATE_LENGTH, Terminate, TerminateReceived};
use crate::types::{MessageOffset, MessageSequenceNumber};
use crate::wire::RdmapOpcode;
use crate::work::{Status, ToInbound, ToOutbound, Upper};

use receive::Receiving;
use responses::Expected;

/// Untagged queues that RDMAP uses (RFC 5040 §4.1, RFC 7306 §4.1).
const QUEUES: usize = 4;

/// The receiving half of a connection.
#[derive(Debug)]
pub struct Inbound {
    crc: bool,
    state: State,
    /// The first FPDU is still to come, and a responder's other half waits for it.
    tell_ready: bool,
    /// The first FPDU may be a zero-length Send that takes no receive (RFC 6581 §9.2).
    first_may_be_rtr: bool,
    /// The FPDU at the front was offered before and its CRC held: it waits for a receive.
    front_verified: bool,
    waiting: Option<OffendingSegment>,
    /// Bytes offered and not consumed.
    leftover: usize,
    /// Number of the next (or unfinished) message of each queue.
    messages: [MessageSequenceNumber; QUEUES],
    receiving: Option<Receiving>,
    /// A segment of a Write came, and not its last.
    is_writing: bool,
    /// Length of the unfinished Write, and of the one directly before the next message on the Send queue.
    write_length: u32,
    preceding_write: u32,
    /// Requests of the peer whose response is not committed yet, and the most there may be.
    answering: u16,
    ird: u16,
    /// Requests of ours that the peer has not answered, oldest first.
    expected: VecDeque<Expected>,
    peer_terminated: Option<TerminateReceived>,
    statistics: InboundStatistics,
}

/// A place inside an FPDU or a message. See [`Inbound::unfinished`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    fpdus: u64,
    bytes: usize,
}

/// Whether what arrives is still looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// After an error or a TERMINATE: the rest of the stream is dropped (RFC 5041 §7.1, RFC 5044 §8).
    Closed,
}

/// What became of an FPDU.
enum Taken {
    Consumed,
    /// It stays where it is until a receive is posted.
    NoReceive,
}

impl Inbound {
    /// The receiving half of a connection whose handshake ended with `negotiated`.
    pub fn new(negotiated: &Negotiated, limits: &Limits) -> Self {
        let responder = negotiated.role == Role::Responder;
        let ird = negotiated.ird.min(limits.receive_read_requests);
        // RFC 6581 §9.2: a Read as ready-to-receive message takes a slot even where no others were agreed on.
        let rtr_slot = u16::from(responder && negotiated.rtr == Some(RtrKind::Read));
        Self {
            crc: negotiated.crc,
            state: State::Open,
            tell_ready: responder,
            first_may_be_rtr: responder && negotiated.rtr == Some(RtrKind::Send),
            front_verified: false,
            waiting: None,
            leftover: 0,
            messages: [MessageSequenceNumber(1); QUEUES],
            receiving: None,
            is_writing: false,
            write_length: 0,
            preceding_write: 0,
            answering: 0,
            ird: ird.max(rtr_slot),
            expected: VecDeque::new(),
            peer_terminated: None,
            statistics: InboundStatistics::default(),
        }
    }

    /// Takes whole FPDUs from the front of `parts`, which are cut anywhere, and tells how many bytes they had. What is left
    /// must be offered again, with what follows it; the caller must be able to offer [`crate::MAX_RECEIVED_FPDU`] bytes. After
    /// an error everything is taken and ignored.
    ///
    /// All that the other half told before the peer could have answered must have been given to [`Self::handle`] before.
    pub fn handle_bytes<M: Memory + ?Sized, U: Upper + ?Sized>(
        &mut self,
        parts: &[&[u8]],
        memory: &M,
        upper: &mut U,
    ) -> Result<usize, ProtocolError> {
        let mut run = Run::new(parts);
        let offered = run.len();
        while self.state == State::Open {
            let Some(ulpdu_length) = whole_fpdu(&run) else {
                self.leftover = run.len();
                return Ok(offered - run.len());
            };
            let length = fpdu_length(ulpdu_length);
            let taken = self
                .verify(&run.to(length), upper)
                .and_then(|()| self.handle_ulpdu(run.from(LENGTH_FIELD).to(ulpdu_length), memory, upper));
            match taken {
                Ok(Taken::Consumed) => {
                    self.front_verified = false;
                    self.waiting = None;
                    self.statistics.fpdus += 1;
                    run = run.from(length);
                }
                Ok(Taken::NoReceive) => {
                    self.leftover = 0;
                    return Ok(offered - run.len());
                }
                Err(error) => {
                    self.state = State::Closed;
                    self.end_receive(Status::Flushed, memory, upper);
                    return Err(error);
                }
            }
        }
        self.leftover = 0;
        Ok(offered)
    }

    /// A message from the other half.
    pub fn handle(&mut self, message: ToInbound) {
        match message {
            ToInbound::Read { sink } => self.expected.push_back(Expected::read(sink)),
            ToInbound::Atomic { request, sink, .. } => self.expected.push_back(Expected::Atomic { request, sink }),
            ToInbound::Responded => {
                debug_assert!(self.answering > 0, "more responses than requests");
                self.answering = self.answering.saturating_sub(1);
            }
        }
    }

    /// The peer closed its direction. An error if that cuts an FPDU or a message off.
    pub fn handle_end_of_stream(&mut self) -> Result<(), ProtocolError> {
        let cut = self.leftover > 0 || self.is_inside_message();
        if self.state == State::Open && cut {
            self.state = State::Closed;
            // RFC 5044 §8 code 1.
            return Err(Violation::StreamEnded.alone());
        }
        Ok(())
    }

    /// The connection is gone: a receive whose message did not arrive whole completes [`Status::Flushed`]. Receives that were
    /// not taken from [`Upper::take_receive`] are the caller's affair.
    pub fn flush<M: Memory + ?Sized, U: Upper + ?Sized>(&mut self, memory: &M, upper: &mut U) {
        self.state = State::Closed;
        self.waiting = None;
        self.end_receive(Status::Flushed, memory, upper);
        self.expected.clear();
    }

    /// Whether the next FPDU is one for which no receive is posted. It stays unconsumed until bytes are offered again with a
    /// receive posted, or [`Self::give_up_waiting`].
    pub fn is_waiting_for_receive(&self) -> bool {
        self.waiting.is_some()
    }

    /// No receive was posted in time for the message that waits (iWARP has no way to tell a peer to wait).
    pub fn give_up_waiting(&mut self) -> ProtocolError {
        self.state = State::Closed;
        let segment = self.waiting.take();
        ProtocolError { violation: Violation::NoReceive(self.messages[0]), segment }
    }

    /// How far the peer has got with an FPDU or a message that it began and has not finished; `None` if it has begun none, or
    /// if it is us that it waits for. Found equal twice, nothing arrived in between.
    pub fn unfinished(&self) -> Option<Unfinished> {
        let is_begun = self.leftover > 0 || (self.is_inside_message() && self.waiting.is_none());
        let is_unfinished = self.state == State::Open && is_begun;
        is_unfinished.then_some(Unfinished { fpdus: self.statistics.fpdus, bytes: self.leftover })
    }

    /// The peer did not finish its FPDU, or its message, in time.
    pub fn give_up_unfinished(&mut self) -> ProtocolError {
        self.state = State::Closed;
        Violation::Unfinished { bytes: self.leftover as u32 }.alone()
    }

    /// Whether a segment of a message came, and not its last.
    fn is_inside_message(&self) -> bool {
        let is_answered_in_part = self.expected.front().is_some_and(Expected::is_begun);
        self.receiving.is_some() || self.is_writing || is_answered_in_part
    }

    /// The TERMINATE that the peer sent, if it did.
    pub fn peer_terminated(&self) -> Option<&TerminateReceived> {
        self.peer_terminated.as_ref()
    }

    /// Counters.
    pub fn statistics(&self) -> InboundStatistics {
        self.statistics
    }

    /// Checks the CRC of the FPDU at the front, once, though it may be offered several times.
    fn verify<U: Upper + ?Sized>(&mut self, fpdu: &Run, upper: &mut U) -> Result<(), ProtocolError> {
        if self.front_verified {
            return Ok(());
        }
        if self.crc {
            let covered = fpdu.to(fpdu.len() - CRC_FIELD);
            let computed = covered.contiguous().map_or_else(|| crc32c_of(covered.slices()), crc32c);
            let found = u32::from_le_bytes(fpdu.from(covered.len()).front::<CRC_FIELD>().unwrap_or_default());
            // RFC 5044 §4.4.
            if computed != found {
                self.statistics.crc_errors += 1;
                return Err(Violation::Crc { computed, found }.alone());
            }
        }
        self.front_verified = true;
        // RFC 5044 §7.1.2 rule 4: a responder may send once it has received and validated an FPDU.
        if std::mem::take(&mut self.tell_ready) {
            upper.tell_outbound(ToOutbound::PeerReady);
        }
        Ok(())
    }

    fn handle_ulpdu<M: Memory + ?Sized, U: Upper + ?Sized>(
        &mut self,
        ulpdu: Run,
        memory: &M,
        upper: &mut U,
    ) -> Result<Taken, ProtocolError> {
        match Segment::parse(ulpdu)? {
            Segment::Tagged(segment) => {
                self.first_may_be_rtr = false;
                if segment.is_response {
                    self.handle_read_response(&segment, memory, upper)?;
                } else {
                    self.handle_write(&segment, memory)?;
                }
                Ok(Taken::Consumed)
            }
            Segment::Untagged(segment) => self.handle_untagged(&segment, memory, upper),
        }
    }

    fn handle_write<M: Memory + ?Sized>(&mut self, segment: &TaggedSegment, memory: &M) -> Result<(), ProtocolError> {
        let length = segment.payload.len();
        // RFC 5041 §5.2: tag and offset of an empty segment are not looked at.
        if length > 0 {
            segment
                .payload
                .place(memory, segment.stag, segment.offset, Access::RemoteWrite)
                .map_err(|error| segment.error(Violation::WriteAccess(error)))?;
            self.statistics.placed_bytes += length as u64;
        }
        self.is_writing = !segment.last;
        self.write_length = self.write_length.saturating_add(length as u32);
        if segment.last {
            self.preceding_write = std::mem::take(&mut self.write_length);
            self.statistics.messages.writes += 1;
        }
        Ok(())
    }

    fn handle_untagged<M: Memory + ?Sized, U: Upper + ?Sized>(
        &mut self,
        segment: &UntaggedSegment,
        memory: &M,
        upper: &mut U,
    ) -> Result<Taken, ProtocolError> {
        let expected = self.messages[segment.queue.0 as usize];
        // RFC 5041 §7.1 check 5: MSNs follow each other, and TCP keeps their order.
        if segment.message != expected {
            let (queue, found) = (segment.queue, segment.message);
            return Err(segment.error(Violation::Sequence { queue, expected, found }));
        }
        let is_send = segment.queue.0 == 0;
        let expected = if is_send { self.receiving.as_ref().map_or(0, Receiving::received) } else { 0 };
        // RFC 5041 §7.1 check 3: likewise offsets.
        if segment.offset.0 != expected {
            let (expected, found) = (MessageOffset(expected), segment.offset);
            return Err(segment.error(Violation::Offset { expected, found }));
        }
        match segment.opcode {
            RdmapOpcode::READ_REQUEST => self.handle_read_request(segment, memory, upper)?,
            RdmapOpcode::ATOMIC_REQUEST => self.handle_atomic_request(segment, memory, upper)?,
            RdmapOpcode::ATOMIC_RESPONSE => self.handle_atomic_response(segment, memory, upper)?,
            RdmapOpcode::TERMINATE => self.handle_terminate(segment, upper)?,
            RdmapOpcode::IMMEDIATE | RdmapOpcode::IMMEDIATE_SOLICITED => {
                return self.handle_immediate(segment, upper);
            }
            _ => return self.handle_send(segment, memory, upper),
        }
        self.finish_message(segment);
        Ok(Taken::Consumed)
    }

    /// The message on this queue is complete; RFC 5041 §4.3: numbers wrap.
    fn finish_message(&mut self, segment: &UntaggedSegment) {
        let number = &mut self.messages[segment.queue.0 as usize];
        number.0 = number.0.wrapping_add(1);
        self.first_may_be_rtr = false;
    }

    /// RFC 5040 §5.4: the peer says nothing more after this.
    fn handle_terminate<U: Upper + ?Sized>(
        &mut self,
        segment: &UntaggedSegment,
        upper: &mut U,
    ) -> Result<(), ProtocolError> {
        let mut bytes = [0; MAX_TERMINATE_LENGTH];
        let length = segment.payload.len();
        let known = length.min(MAX_TERMINATE_LENGTH);
        segment.payload.peek(&mut bytes[..known]);
        let Some(terminate) = Terminate::parse(&bytes[..known]) else {
            return Err(segment.error(Violation::MalformedTerminate { length: length as u32 }));
        };
        let received = TerminateReceived { terminate };
        upper.tell_outbound(ToOutbound::PeerTerminated { status: received.status(), blamed: received.blamed() });
        self.peer_terminated = Some(received);
        self.state = State::Closed;
        self.statistics.messages.terminates += 1;
        Ok(())
    }
}

/// Length of the ULPDU at the front of `run`, if its FPDU is there whole.
fn whole_fpdu(run: &Run) -> Option<usize> {
    let length = usize::from(u16::from_be_bytes(run.front::<LENGTH_FIELD>()?));
    (run.len() >= fpdu_length(length)).then_some(length)
}
