//! What a peer can do wrong.

use crate::memory::AccessError;
use crate::terminate::DdpHeader;
use crate::types::{MessageOffset, MessageSequenceNumber, QueueNumber, Stag, TaggedOffset};
use crate::wire::{RdmapOpcode, ReadRequestHeader};

/// The connection cannot go on. [`ProtocolError::terminate`] says what to tell the peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{violation}")]
pub struct ProtocolError {
    /// What happened.
    pub violation: Violation,
    /// The DDP segment in which it happened, if there is one.
    pub segment: Option<OffendingSegment>,
}

/// A segment that ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffendingSegment {
    /// Its length in bytes, DDP header included.
    pub length: u16,
    /// Its DDP header; `None` if it is too short to hold one.
    pub header: Option<DdpHeader>,
    /// If it is a Read Request: its RDMAP header, advanced to where answering stopped.
    pub read_request: Option<ReadRequestHeader>,
}

/// What ended the connection: each variant is a row of the table in [`crate::terminate`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// MPA: the stream ended inside an FPDU.
    #[error("the stream ended inside an FPDU")]
    StreamEnded,
    /// MPA: an FPDU, or a message of several, was begun and, for too long, not continued.
    #[error("a message was begun, and after {bytes} bytes of an FPDU nothing followed in time")]
    Unfinished {
        /// Bytes of the FPDU that are there; 0: the message stopped between two.
        bytes: u32,
    },
    /// MPA: the CRC does not hold.
    #[error("CRC of an FPDU is {found:#010x}, its bytes give {computed:#010x}")]
    Crc {
        /// Computed over what arrived.
        computed: u32,
        /// Carried in the FPDU.
        found: u32,
    },
    /// The ULPDU cannot hold its own header.
    #[error("ULPDU of {length} bytes is too short for its DDP header")]
    TooShort {
        /// Length of the ULPDU.
        length: u16,
    },
    /// DDP: version of a tagged segment.
    #[error("DDP version {0} in a tagged segment; 1 is spoken here")]
    TaggedVersion(u8),
    /// DDP: version of an untagged segment.
    #[error("DDP version {0} in an untagged segment; 1 is spoken here")]
    UntaggedVersion(u8),
    /// RDMAP: version.
    #[error("RDMAP version {0}; 1 is spoken here")]
    RdmapVersion(u8),
    /// RDMAP: this opcode is unknown, or not allowed in this place.
    #[error("RDMAP opcode {} is not expected here", .0.0)]
    Opcode(RdmapOpcode),
    /// DDP: a Write may not be placed.
    #[error("RDMA Write refused: {0}")]
    WriteAccess(AccessError),
    /// DDP: no such queue.
    #[error("untagged queue {} does not exist", .0.0)]
    Queue(QueueNumber),
    /// DDP: a message found no receive in time.
    #[error("no receive is posted for message {}", .0.0)]
    NoReceive(MessageSequenceNumber),
    /// DDP: more Read Requests and atomics at a time than agreed on.
    #[error("more than {limit} RDMA Reads and atomics are outstanding")]
    TooManyReads {
        /// The limit (IRD).
        limit: u16,
    },
    /// DDP: wrong message sequence number.
    #[error("message {} on queue {}, expected {}", .found.0, .queue.0, .expected.0)]
    Sequence {
        /// The queue.
        queue: QueueNumber,
        /// The number due.
        expected: MessageSequenceNumber,
        /// The number that came.
        found: MessageSequenceNumber,
    },
    /// DDP: a segment does not continue its message.
    #[error("segment at message offset {}, expected {}", .found.0, .expected.0)]
    Offset {
        /// The offset due.
        expected: MessageOffset,
        /// The offset that came.
        found: MessageOffset,
    },
    /// DDP: message longer than its buffer.
    #[error("message of at least {length} bytes for a buffer of {capacity}")]
    TooLong {
        /// Bytes of the message so far.
        length: u64,
        /// Bytes in the buffer.
        capacity: u64,
    },
    /// RDMAP: a message of fixed length has another.
    #[error("RDMAP opcode {} with {length} bytes, expected {expected} in one segment", .opcode.0)]
    MessageLength {
        /// Its kind.
        opcode: RdmapOpcode,
        /// Bytes it has.
        length: u32,
        /// Bytes it must have.
        expected: u32,
    },
    /// RDMAP: the source of a Read may not be read.
    #[error("RDMA Read refused: {0}")]
    ReadAccess(AccessError),
    /// RDMAP: the target of an atomic may not be accessed.
    #[error("atomic refused: {0}")]
    AtomicAccess(AccessError),
    /// RDMAP: the target of an atomic is not aligned.
    #[error("atomic at offset {:#x}, which is no multiple of 8", .0.0)]
    AtomicMisaligned(TaggedOffset),
    /// RDMAP: unknown atomic operation.
    #[error("atomic operation code {0} is unknown")]
    AtomicOperation(u32),
    /// RDMAP: a tag may not be invalidated.
    #[error("invalidation refused: {0}")]
    Invalidate(AccessError),
    /// A Read response for another buffer than the one asked for.
    #[error("RDMA Read response for tag {found:?}, expected {expected:?}")]
    ResponseStag {
        /// Our sink.
        expected: Stag,
        /// Where the response goes.
        found: Stag,
    },
    /// A Read response that does not continue where the last segment ended.
    #[error("RDMA Read response at offset {found:?}, expected {expected:?}")]
    ResponseOffset {
        /// The offset due.
        expected: TaggedOffset,
        /// The offset that came.
        found: TaggedOffset,
    },
    /// A Read response longer than asked for.
    #[error("RDMA Read response of at least {length} bytes, {asked} were asked for")]
    ResponseTooLong {
        /// Bytes so far.
        length: u64,
        /// Bytes asked for.
        asked: u32,
    },
    /// A Read response that is marked as ended, or not, against what was asked for.
    #[error("RDMA Read response ends wrongly after {length} bytes, {asked} were asked for")]
    ResponseTooShort {
        /// Bytes so far.
        length: u64,
        /// Bytes asked for.
        asked: u32,
    },
    /// An atomic response to another request than the oldest.
    #[error("response to atomic {found}, expected one to {expected}")]
    AtomicResponse {
        /// Identifier of the oldest atomic.
        expected: u32,
        /// Identifier that came.
        found: u32,
    },
    /// A TERMINATE that is shorter than it says.
    #[error("TERMINATE of {length} bytes is shorter than its control bits say")]
    MalformedTerminate {
        /// Its length.
        length: u32,
    },
    /// Memory of ours that a request of ours names cannot be accessed: our own fault.
    #[error("local memory refused: {0}")]
    LocalMemory(AccessError),
}

impl Violation {
    /// This violation in `segment`.
    pub(crate) fn in_segment(self, segment: OffendingSegment) -> ProtocolError {
        ProtocolError { violation: self, segment: Some(segment) }
    }

    /// This violation, outside any segment.
    pub(crate) fn alone(self) -> ProtocolError {
        ProtocolError { violation: self, segment: None }
    }
}
