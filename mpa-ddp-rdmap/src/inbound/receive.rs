//! Messages that take a receive: Sends and Immediate Data (RFC 5040 §5.3, RFC 7306 §6).

use super::{Inbound, Taken};
use crate::error::{ProtocolError, Violation};
use crate::lent::Run;
use crate::memory::{Access, AccessError, Memory};
use crate::segment::UntaggedSegment;
use crate::types::{Stag, TaggedOffset};
use crate::wire::{IMMEDIATE_LENGTH, RdmapOpcode};
use crate::work::{Completion, Opcode, ReceiveRequest, Status, Upper};

/// A receive that a message is being placed into.
#[derive(Debug)]
pub(super) struct Receiving {
    request: ReceiveRequest,
    capacity: u64,
    received: u32,
    /// Opcode of the first segment: the others repeat it (RFC 5041 §4.3).
    opcode: RdmapOpcode,
}

impl Receiving {
    /// Bytes placed so far: the next segment's offset.
    pub(super) fn received(&self) -> u32 {
        self.received
    }

    /// Places `payload` behind what is there.
    fn place<M: Memory + ?Sized>(&self, payload: Run, memory: &M) -> Result<(), AccessError> {
        let mut skip = u64::from(self.received);
        let mut left = payload;
        for piece in self.request.segments.as_slice() {
            if left.len() == 0 {
                break;
            }
            let room = u64::from(piece.length);
            if skip >= room {
                skip -= room;
                continue;
            }
            let count = ((room - skip) as usize).min(left.len());
            let offset = piece.offset.0.checked_add(skip).ok_or(AccessError::Wrap(piece.offset))?;
            left.to(count).place(memory, piece.stag, TaggedOffset(offset), Access::LocalWrite)?;
            left = left.from(count);
            skip = 0;
        }
        Ok(())
    }
}

impl Inbound {
    pub(super) fn handle_send<M: Memory + ?Sized, U: Upper + ?Sized>(
        &mut self,
        segment: &UntaggedSegment,
        memory: &M,
        upper: &mut U,
    ) -> Result<Taken, ProtocolError> {
        let length = segment.payload.len();
        if std::mem::take(&mut self.first_may_be_rtr) && length == 0 && segment.last {
            self.finish_message(segment);
            return Ok(Taken::Consumed);
        }
        if self.receiving.is_none() && !self.begin_receive(segment, memory, upper)? {
            return Ok(self.wait_for_receive(segment));
        }
        let Some(receiving) = &mut self.receiving else { return Ok(Taken::NoReceive) };
        if receiving.opcode != segment.opcode {
            return Err(segment.error(Violation::Opcode(segment.opcode)));
        }
        // RFC 5041 §7.1 check 4; RFC 5041 §5.2: a message is shorter than 2^32.
        let (end, capacity) =
            (u64::from(receiving.received) + length as u64, receiving.capacity.min(u64::from(u32::MAX)));
        if end > capacity {
            self.end_receive(Status::LocalLength, memory, upper);
            return Err(segment.error(Violation::TooLong { length: end, capacity }));
        }
        if let Err(error) = receiving.place(segment.payload, memory) {
            self.end_receive(Status::LocalProtection, memory, upper);
            return Err(segment.error(Violation::LocalMemory(error)));
        }
        receiving.received = end as u32;
        self.statistics.placed_bytes += length as u64;
        if segment.last {
            self.deliver_send(segment, memory, upper)?;
        }
        Ok(Taken::Consumed)
    }

    /// Takes the receive for a new message; `false` if there is none. One whose memory was given up since it was posted ends
    /// here, before it holds anything: a message without a byte touches none.
    fn begin_receive<M: Memory + ?Sized, U: Upper + ?Sized>(
        &mut self,
        segment: &UntaggedSegment,
        memory: &M,
        upper: &mut U,
    ) -> Result<bool, ProtocolError> {
        let Some(request) = upper.take_receive() else { return Ok(false) };
        let pieces = request.segments.as_slice();
        if segment.payload.len() > 0 || !segment.last {
            for piece in pieces {
                let checked =
                    memory.check_beginning(piece.stag, piece.offset, u64::from(piece.length), Access::LocalWrite);
                if let Err(error) = checked {
                    upper.complete_receive(ended(request.id, Status::LocalProtection, 0));
                    return Err(segment.error(Violation::LocalMemory(error)));
                }
            }
        }
        pieces.iter().for_each(|piece| memory.hold(piece.stag));
        let capacity = request.segments.length();
        self.receiving = Some(Receiving { request, capacity, received: 0, opcode: segment.opcode });
        Ok(true)
    }

    /// RFC 5041 §7.1 check 2 allows to recover by means of the lower layer: the stream stands still until a receive is posted.
    fn wait_for_receive(&mut self, segment: &UntaggedSegment) -> Taken {
        if self.waiting.replace(segment.offending()).is_none() {
            self.statistics.receive_waits += 1;
        }
        Taken::NoReceive
    }

    /// The message is placed whole: invalidates what it says, and completes the receive.
    fn deliver_send<M: Memory + ?Sized, U: Upper + ?Sized>(
        &mut self,
        segment: &UntaggedSegment,
        memory: &M,
        upper: &mut U,
    ) -> Result<(), ProtocolError> {
        let (solicited, invalidates) = match segment.opcode {
            RdmapOpcode::SEND_INVALIDATE => (false, true),
            RdmapOpcode::SEND_SOLICITED => (true, false),
            RdmapOpcode::SEND_SOLICITED_INVALIDATE => (true, true),
            _ => (false, false),
        };
        let invalidated = invalidates.then(|| Stag(segment.header.invalidate.get()));
        // RFC 5040 §5.3: the tag is invalidated before the message is delivered.
        if let Some(stag) = invalidated
            && let Err(error) = memory.invalidate(stag, true)
        {
            self.end_receive(Status::RemoteInvalidRequest, memory, upper);
            // RFC 5040 §5.3: a tag of another stream "cannot be invalidated".
            let error = match error {
                AccessError::WrongProtectionDomain(stag) => AccessError::CannotInvalidate(stag),
                other => other,
            };
            return Err(segment.error(Violation::Invalidate(error)));
        }
        if let Some(receiving) = self.receiving.take() {
            receiving.request.segments.as_slice().iter().for_each(|piece| memory.release(piece.stag));
            upper.complete_receive(Completion {
                id: receiving.request.id,
                status: Status::Success,
                opcode: Opcode::Receive,
                length: receiving.received,
                immediate: None,
                invalidated,
                solicited,
                signaled: true,
            });
        }
        self.statistics.messages.sends += 1;
        self.preceding_write = 0;
        self.finish_message(segment);
        Ok(())
    }

    pub(super) fn handle_immediate<U: Upper + ?Sized>(
        &mut self,
        segment: &UntaggedSegment,
        upper: &mut U,
    ) -> Result<Taken, ProtocolError> {
        if self.receiving.is_some() {
            return Err(segment.error(Violation::Opcode(segment.opcode)));
        }
        // RFC 7306 §6.3: exactly eight bytes.
        let mut immediate = [0; IMMEDIATE_LENGTH];
        let length = segment.payload.len();
        if !segment.last || length != IMMEDIATE_LENGTH || !segment.payload.peek(&mut immediate) {
            let (opcode, expected) = (segment.opcode, IMMEDIATE_LENGTH as u32);
            return Err(segment.error(Violation::MessageLength { opcode, length: length as u32, expected }));
        }
        let Some(request) = upper.take_receive() else { return Ok(self.wait_for_receive(segment)) };
        upper.complete_receive(Completion {
            id: request.id,
            status: Status::Success,
            opcode: Opcode::ReceiveImmediate,
            length: std::mem::take(&mut self.preceding_write),
            immediate: Some(immediate),
            invalidated: None,
            solicited: segment.opcode == RdmapOpcode::IMMEDIATE_SOLICITED,
            signaled: true,
        });
        self.statistics.messages.immediates += 1;
        self.finish_message(segment);
        Ok(Taken::Consumed)
    }

    /// Completes the receive of an unfinished message, if there is one.
    pub(super) fn end_receive<M: Memory + ?Sized, U: Upper + ?Sized>(
        &mut self,
        status: Status,
        memory: &M,
        upper: &mut U,
    ) {
        let Some(receiving) = self.receiving.take() else { return };
        receiving.request.segments.as_slice().iter().for_each(|piece| memory.release(piece.stag));
        upper.complete_receive(ended(receiving.request.id, status, receiving.received));
    }
}

/// The completion of a receive that got no whole message.
fn ended(id: u64, status: Status, length: u32) -> Completion {
    Completion {
        id,
        status,
        opcode: Opcode::Receive,
        length,
        immediate: None,
        invalidated: None,
        solicited: false,
        signaled: true,
    }
}
