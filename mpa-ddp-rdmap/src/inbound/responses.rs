//! Answers to requests of ours: Read Responses and Atomic Responses (RFC 5040 §5.2.2, RFC 7306 §5.2.2).

use super::Inbound;
use crate::error::{ProtocolError, Violation};
use crate::memory::{Access, Memory};
use crate::segment::{TaggedSegment, UntaggedSegment};
use crate::types::TaggedOffset;
use crate::wire::{AtomicResponseHeader, RdmapOpcode};
use crate::work::{Segment, Status, ToOutbound, Upper};

/// An answer that the peer owes us.
#[derive(Debug)]
pub(super) enum Expected {
    Read { sink: Segment, received: u32 },
    Atomic { request: u32, sink: Segment },
}

impl Expected {
    pub(super) fn read(sink: Segment) -> Self {
        Self::Read { sink, received: 0 }
    }

    /// A part of the answer is there.
    pub(super) fn is_begun(&self) -> bool {
        matches!(self, Self::Read { received: 1.., .. })
    }
}

impl Inbound {
    /// A response goes where we asked for it, in order, all of it, and nowhere else: it is the answer to a request of ours,
    /// so its buffer needs to allow local writing only.
    pub(super) fn handle_read_response<M: Memory + ?Sized, U: Upper + ?Sized>(
        &mut self,
        segment: &TaggedSegment,
        memory: &M,
        upper: &mut U,
    ) -> Result<(), ProtocolError> {
        let Some(Expected::Read { sink, received }) = self.expected.front_mut() else {
            return Err(segment.error(Violation::Opcode(RdmapOpcode::READ_RESPONSE)));
        };
        let length = segment.payload.len();
        let end = u64::from(*received) + length as u64;
        let asked = sink.length;
        // RFC 5041 §5.2: tag and offset of an empty segment are not looked at.
        if length > 0 {
            if segment.stag != sink.stag {
                let (expected, found) = (sink.stag, segment.stag);
                return Err(segment.error(Violation::ResponseStag { expected, found }));
            }
            let due = TaggedOffset(sink.offset.0.wrapping_add(u64::from(*received)));
            if segment.offset != due {
                let (expected, found) = (due, segment.offset);
                return Err(segment.error(Violation::ResponseOffset { expected, found }));
            }
        }
        if end > u64::from(asked) {
            return Err(segment.error(Violation::ResponseTooLong { length: end, asked }));
        }
        if segment.last != (end == u64::from(asked)) {
            return Err(segment.error(Violation::ResponseTooShort { length: end, asked }));
        }
        if length > 0
            && let Err(error) = segment.payload.place(memory, segment.stag, segment.offset, Access::LocalWrite)
        {
            upper.tell_outbound(ToOutbound::Answered { status: Status::LocalProtection });
            return Err(segment.error(Violation::LocalMemory(error)));
        }
        *received = end as u32;
        self.statistics.placed_bytes += length as u64;
        if segment.last {
            self.expected.pop_front();
            self.statistics.messages.read_responses += 1;
            upper.tell_outbound(ToOutbound::Answered { status: Status::Success });
        }
        Ok(())
    }

    pub(super) fn handle_atomic_response<M: Memory + ?Sized, U: Upper + ?Sized>(
        &mut self,
        segment: &UntaggedSegment,
        memory: &M,
        upper: &mut U,
    ) -> Result<(), ProtocolError> {
        let header = segment.read_message::<AtomicResponseHeader, { size_of::<AtomicResponseHeader>() }>()?;
        let Some(&Expected::Atomic { request, sink }) = self.expected.front() else {
            return Err(segment.error(Violation::Opcode(RdmapOpcode::ATOMIC_RESPONSE)));
        };
        let found = header.request.get();
        if found != request {
            return Err(segment.error(Violation::AtomicResponse { expected: request, found }));
        }
        // RFC 7306 §5.1.1: on the wire big-endian, in memory as the host has it.
        let original = header.original.get().to_ne_bytes();
        if let Err(error) = memory.place(sink.stag, sink.offset, &[&original], Access::LocalWrite) {
            upper.tell_outbound(ToOutbound::Answered { status: Status::LocalProtection });
            return Err(segment.error(Violation::LocalMemory(error)));
        }
        self.statistics.placed_bytes += original.len() as u64;
        self.expected.pop_front();
        self.statistics.messages.atomic_responses += 1;
        upper.tell_outbound(ToOutbound::Answered { status: Status::Success });
        Ok(())
    }
}
