//! DDP segments, checked as far as it can be done without looking at the connection (RFC 5041 §7.1, RFC 5040 §7.2).

use zerocopy::FromBytes;

use crate::error::{OffendingSegment, ProtocolError, Violation};
use crate::lent::Run;
use crate::terminate::DdpHeader;
use crate::types::{MessageOffset, MessageSequenceNumber, QueueNumber, Stag, TaggedOffset};
use crate::wire::{DDP_VERSION, DdpControl, RDMAP_VERSION, RdmapControl, RdmapOpcode, TaggedHeader, UntaggedHeader};

/// A segment whose versions, opcode, tagged flag and queue fit each other.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Segment<'p, 'b> {
    Tagged(TaggedSegment<'p, 'b>),
    Untagged(UntaggedSegment<'p, 'b>),
}

/// A segment for a tagged buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TaggedSegment<'p, 'b> {
    pub(crate) header: TaggedHeader,
    /// A Read Response; else a Write.
    pub(crate) is_response: bool,
    pub(crate) last: bool,
    pub(crate) stag: Stag,
    pub(crate) offset: TaggedOffset,
    pub(crate) payload: Run<'p, 'b>,
}

/// A segment for an untagged queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UntaggedSegment<'p, 'b> {
    pub(crate) header: UntaggedHeader,
    pub(crate) opcode: RdmapOpcode,
    pub(crate) last: bool,
    pub(crate) queue: QueueNumber,
    pub(crate) message: MessageSequenceNumber,
    pub(crate) offset: MessageOffset,
    pub(crate) payload: Run<'p, 'b>,
}

impl<'p, 'b> Segment<'p, 'b> {
    /// Reads a ULPDU.
    #[inline(always)]
    pub(crate) fn parse(ulpdu: Run<'p, 'b>) -> Result<Self, ProtocolError> {
        if ulpdu.front().is_some_and(|[control]| DdpControl(control).is_tagged()) {
            TaggedSegment::parse(ulpdu).map(Self::Tagged)
        } else {
            UntaggedSegment::parse(ulpdu).map(Self::Untagged)
        }
    }
}

/// The header at the front of `ulpdu`.
fn header<H: FromBytes, const N: usize>(ulpdu: &Run) -> Result<H, ProtocolError> {
    let found = ulpdu.front::<N>().and_then(|bytes| H::read_from_bytes(&bytes).ok());
    found.ok_or_else(|| {
        let length = ulpdu.len() as u16;
        Violation::TooShort { length }.in_segment(OffendingSegment { length, header: None, read_request: None })
    })
}

impl<'p, 'b> TaggedSegment<'p, 'b> {
    fn parse(ulpdu: Run<'p, 'b>) -> Result<Self, ProtocolError> {
        const LENGTH: usize = size_of::<TaggedHeader>();
        let header = header::<TaggedHeader, LENGTH>(&ulpdu)?;
        let segment = Self {
            header,
            is_response: header.rdmap.opcode() == RdmapOpcode::READ_RESPONSE,
            last: header.ddp.is_last(),
            stag: Stag(header.stag.get()),
            offset: TaggedOffset(header.offset.get()),
            payload: ulpdu.from(LENGTH),
        };
        // RFC 5041 §4.1.
        if header.ddp.version() != DDP_VERSION {
            return Err(segment.error(Violation::TaggedVersion(header.ddp.version())));
        }
        check_version(header.rdmap).map_err(|violation| segment.error(violation))?;
        // RFC 5040 §4.1 figure 4: these two are the tagged messages.
        if !segment.is_response && header.rdmap.opcode() != RdmapOpcode::WRITE {
            return Err(segment.error(Violation::Opcode(header.rdmap.opcode())));
        }
        Ok(segment)
    }

    /// `violation`, in this segment.
    pub(crate) fn error(&self, violation: Violation) -> ProtocolError {
        violation.in_segment(OffendingSegment {
            length: (size_of::<TaggedHeader>() + self.payload.len()) as u16,
            header: Some(DdpHeader::Tagged(self.header)),
            read_request: None,
        })
    }
}

impl<'p, 'b> UntaggedSegment<'p, 'b> {
    fn parse(ulpdu: Run<'p, 'b>) -> Result<Self, ProtocolError> {
        const LENGTH: usize = size_of::<UntaggedHeader>();
        let header = header::<UntaggedHeader, LENGTH>(&ulpdu)?;
        let segment = Self {
            header,
            opcode: header.rdmap.opcode(),
            last: header.ddp.is_last(),
            queue: QueueNumber(header.queue.get()),
            message: MessageSequenceNumber(header.message.get()),
            offset: MessageOffset(header.offset.get()),
            payload: ulpdu.from(LENGTH),
        };
        // RFC 5041 §4.1.
        if header.ddp.version() != DDP_VERSION {
            return Err(segment.error(Violation::UntaggedVersion(header.ddp.version())));
        }
        check_version(header.rdmap).map_err(|violation| segment.error(violation))?;
        let Some(queue) = queue_of(segment.opcode) else {
            return Err(segment.error(Violation::Opcode(segment.opcode)));
        };
        // RFC 5041 §7.1 check 1; RFC 7306 §4.1 has queue 3.
        if segment.queue > QueueNumber::ATOMIC_RESPONSE {
            return Err(segment.error(Violation::Queue(segment.queue)));
        }
        // RFC 5040 §4.1 figure 4, RFC 7306 §4.1 figure 2: each message has its queue.
        if segment.queue != queue {
            return Err(segment.error(Violation::Opcode(segment.opcode)));
        }
        Ok(segment)
    }

    /// `violation`, in this segment.
    pub(crate) fn error(&self, violation: Violation) -> ProtocolError {
        violation.in_segment(self.offending())
    }

    /// What a TERMINATE tells of this segment.
    pub(crate) fn offending(&self) -> OffendingSegment {
        OffendingSegment {
            length: (size_of::<UntaggedHeader>() + self.payload.len()) as u16,
            header: Some(DdpHeader::Untagged(self.header)),
            read_request: None,
        }
    }

    /// The message's header, for messages that are one header in one segment.
    pub(crate) fn read_message<H: FromBytes, const N: usize>(&self) -> Result<H, ProtocolError> {
        let mut bytes = [0; N];
        if self.last
            && self.payload.len() == N
            && self.payload.peek(&mut bytes)
            && let Ok(header) = H::read_from_bytes(&bytes)
        {
            return Ok(header);
        }
        if self.payload.len() > N {
            // RFC 5041 §7.1 check 4: the buffers of these queues are as long as the one message they hold.
            return Err(self.error(Violation::TooLong { length: self.payload.len() as u64, capacity: N as u64 }));
        }
        let (opcode, length, expected) = (self.opcode, self.payload.len() as u32, N as u32);
        Err(self.error(Violation::MessageLength { opcode, length, expected }))
    }
}

/// RFC 5040 §4.1: we speak MPA of the IETF, which goes with RDMAP version 1.
fn check_version(control: RdmapControl) -> Result<(), Violation> {
    if control.version() == RDMAP_VERSION { Ok(()) } else { Err(Violation::RdmapVersion(control.version())) }
}

/// The queue of an untagged message.
fn queue_of(opcode: RdmapOpcode) -> Option<QueueNumber> {
    match opcode {
        RdmapOpcode::SEND
        | RdmapOpcode::SEND_INVALIDATE
        | RdmapOpcode::SEND_SOLICITED
        | RdmapOpcode::SEND_SOLICITED_INVALIDATE
        | RdmapOpcode::IMMEDIATE
        | RdmapOpcode::IMMEDIATE_SOLICITED => Some(QueueNumber::SEND),
        RdmapOpcode::READ_REQUEST | RdmapOpcode::ATOMIC_REQUEST => Some(QueueNumber::READ_REQUEST),
        RdmapOpcode::TERMINATE => Some(QueueNumber::TERMINATE),
        RdmapOpcode::ATOMIC_RESPONSE => Some(QueueNumber::ATOMIC_RESPONSE),
        _ => None,
    }
}
