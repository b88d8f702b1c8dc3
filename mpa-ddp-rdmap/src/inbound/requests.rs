//! Requests of the peer that are answered: Reads and atomics (RFC 5040 §5.2.1, RFC 7306 §5).

use super::Inbound;
use crate::error::{ProtocolError, Violation};
use crate::memory::{Access, AccessError, AtomicOperation, Memory};
use crate::segment::UntaggedSegment;
use crate::types::{Stag, TaggedOffset};
use crate::wire::{ATOMIC_COMPARE_SWAP, ATOMIC_FETCH_ADD, AtomicRequestHeader, ReadRequestHeader};
use crate::work::{RemoteAddress, ToOutbound, Upper};

impl Inbound {
    pub(super) fn handle_read_request<M: Memory + ?Sized, U: Upper + ?Sized>(
        &mut self,
        segment: &UntaggedSegment,
        memory: &M,
        upper: &mut U,
    ) -> Result<(), ProtocolError> {
        let header = segment.read_message::<ReadRequestHeader, { size_of::<ReadRequestHeader>() }>()?;
        self.take_slot(segment)?;
        let sink = address(header.sink_stag.get(), header.sink_offset.get());
        let source = address(header.source_stag.get(), header.source_offset.get());
        let length = header.length.get();
        // RFC 5040 §5.2.1: the source of an empty Read is not looked at.
        if length > 0
            && let Err(error) = memory.check(source.stag, source.offset, u64::from(length), Access::RemoteRead)
        {
            let mut offending = segment.offending();
            offending.read_request = Some(header);
            return Err(Violation::ReadAccess(error).in_segment(offending));
        }
        self.statistics.messages.read_requests += 1;
        upper.tell_outbound(ToOutbound::ReadRequest { sink, source, length });
        Ok(())
    }

    pub(super) fn handle_atomic_request<M: Memory + ?Sized, U: Upper + ?Sized>(
        &mut self,
        segment: &UntaggedSegment,
        memory: &M,
        upper: &mut U,
    ) -> Result<(), ProtocolError> {
        let header = segment.read_message::<AtomicRequestHeader, { size_of::<AtomicRequestHeader>() }>()?;
        // RFC 7306 §5.2: atomics share the slots of Reads.
        self.take_slot(segment)?;
        let operation = match header.operation.get() & 0xf {
            ATOMIC_FETCH_ADD => {
                AtomicOperation::FetchAdd { add: header.add_or_swap.get(), mask: header.add_or_swap_mask.get() }
            }
            ATOMIC_COMPARE_SWAP => AtomicOperation::CompareSwap {
                compare: header.compare.get(),
                compare_mask: header.compare_mask.get(),
                swap: header.add_or_swap.get(),
                swap_mask: header.add_or_swap_mask.get(),
            },
            other => return Err(segment.error(Violation::AtomicOperation(other))),
        };
        let target = address(header.stag.get(), header.offset.get());
        // RFC 7306 §5.1: never performed on an address that is not aligned.
        if !target.offset.0.is_multiple_of(8) {
            return Err(segment.error(Violation::AtomicMisaligned(target.offset)));
        }
        let original = memory.execute(target.stag, target.offset, operation).map_err(|error| {
            segment.error(match error {
                AccessError::Misaligned(offset) => Violation::AtomicMisaligned(offset),
                other => Violation::AtomicAccess(other),
            })
        })?;
        self.statistics.messages.atomic_requests += 1;
        upper.tell_outbound(ToOutbound::AtomicResult { request: header.request.get(), original });
        Ok(())
    }

    /// RFC 5040 §5.2.2: the queue of Read Requests is as long as was agreed on; beyond, there is no buffer.
    fn take_slot(&mut self, segment: &UntaggedSegment) -> Result<(), ProtocolError> {
        if self.answering >= self.ird {
            return Err(segment.error(Violation::TooManyReads { limit: self.ird }));
        }
        self.answering += 1;
        Ok(())
    }
}

fn address(stag: u32, offset: u64) -> RemoteAddress {
    RemoteAddress { stag: Stag(stag), offset: TaggedOffset(offset) }
}
