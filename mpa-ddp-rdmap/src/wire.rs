//! Headers as they travel, in network byte order: DDP (RFC 5041 §4), RDMAP (RFC 5040 §4, RFC 7306 §5, §6).
//!
//! Reserved fields are zero on transmit and not looked at on receive. Values that mean nothing to us are kept.

use zerocopy::byteorder::network_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The DDP version of RFC 5041 §4.1.
pub const DDP_VERSION: u8 = 1;

/// The RDMAP version of RFC 5040 §4.1.
pub const RDMAP_VERSION: u8 = 1;

/// Bytes of Immediate Data (RFC 7306 §6.2).
pub const IMMEDIATE_LENGTH: usize = 8;

/// First byte of a DDP header: tagged flag, last flag, reserved, version (RFC 5041 §4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct DdpControl(pub u8);

impl DdpControl {
    const TAGGED: u8 = 0x80;
    const LAST: u8 = 0x40;

    /// The control byte of a segment of ours.
    pub const fn new(tagged: bool, last: bool) -> Self {
        Self(if tagged { Self::TAGGED } else { 0 } | if last { Self::LAST } else { 0 } | DDP_VERSION)
    }

    /// Whether the payload goes to a tagged buffer.
    pub const fn is_tagged(self) -> bool {
        self.0 & Self::TAGGED != 0
    }

    /// Whether this is the last segment of its message.
    pub const fn is_last(self) -> bool {
        self.0 & Self::LAST != 0
    }

    /// Version of DDP.
    pub const fn version(self) -> u8 {
        self.0 & 0x03
    }
}

/// Second byte of a DDP header, which RDMAP fills: version, reserved, opcode (RFC 5040 §4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct RdmapControl(pub u8);

impl RdmapControl {
    /// The control byte of a message of ours.
    pub const fn new(opcode: RdmapOpcode) -> Self {
        Self(RDMAP_VERSION << 6 | opcode.0)
    }

    /// Version of RDMAP.
    pub const fn version(self) -> u8 {
        self.0 >> 6
    }

    /// Kind of message.
    pub const fn opcode(self) -> RdmapOpcode {
        RdmapOpcode(self.0 & 0x0f)
    }
}

/// Kind of an RDMAP message, four bits (RFC 5040 §4.1 figure 4, RFC 7306 §4.1 figure 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RdmapOpcode(pub u8);

impl RdmapOpcode {
    /// RDMA Write.
    pub const WRITE: Self = Self(0);
    /// RDMA Read Request.
    pub const READ_REQUEST: Self = Self(1);
    /// RDMA Read Response.
    pub const READ_RESPONSE: Self = Self(2);
    /// Send.
    pub const SEND: Self = Self(3);
    /// Send with Invalidate.
    pub const SEND_INVALIDATE: Self = Self(4);
    /// Send with Solicited Event.
    pub const SEND_SOLICITED: Self = Self(5);
    /// Send with Solicited Event and Invalidate.
    pub const SEND_SOLICITED_INVALIDATE: Self = Self(6);
    /// Terminate.
    pub const TERMINATE: Self = Self(7);
    /// Immediate Data.
    pub const IMMEDIATE: Self = Self(8);
    /// Immediate Data with Solicited Event.
    pub const IMMEDIATE_SOLICITED: Self = Self(9);
    /// Atomic Request.
    pub const ATOMIC_REQUEST: Self = Self(10);
    /// Atomic Response.
    pub const ATOMIC_RESPONSE: Self = Self(11);
}

/// Header of a tagged DDP segment (RFC 5041 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TaggedHeader {
    /// Tagged, last, version.
    pub ddp: DdpControl,
    /// Version, opcode.
    pub rdmap: RdmapControl,
    /// The peer's tag.
    pub stag: U32,
    /// Where in that buffer this segment's payload goes.
    pub offset: U64,
}

/// Header of an untagged DDP segment (RFC 5041 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct UntaggedHeader {
    /// Tagged, last, version.
    pub ddp: DdpControl,
    /// Version, opcode.
    pub rdmap: RdmapControl,
    /// Tag to invalidate, for the Sends that do (RFC 5040 §4.1).
    pub invalidate: U32,
    /// Queue number.
    pub queue: U32,
    /// Message sequence number.
    pub message: U32,
    /// Message offset.
    pub offset: U32,
}

/// Read Request header (RFC 5040 §4.4), also what a Terminate tells of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ReadRequestHeader {
    /// Tag of the requester's buffer.
    pub sink_stag: U32,
    /// Offset in it.
    pub sink_offset: U64,
    /// Bytes to read.
    pub length: U32,
    /// Tag of the responder's buffer.
    pub source_stag: U32,
    /// Offset in it.
    pub source_offset: U64,
}

/// Atomic Request header (RFC 7306 §5.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AtomicRequestHeader {
    /// Operation code in the low four bits.
    pub operation: U32,
    /// Request identifier, reflected in the response.
    pub request: U32,
    /// Tag of the responder's buffer.
    pub stag: U32,
    /// Offset in it.
    pub offset: U64,
    /// Addend, or new value.
    pub add_or_swap: U64,
    /// Mask of it.
    pub add_or_swap_mask: U64,
    /// Expected value.
    pub compare: U64,
    /// Mask of it.
    pub compare_mask: U64,
}

/// Atomic Response header (RFC 7306 §5.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AtomicResponseHeader {
    /// Identifier of the request.
    pub request: U32,
    /// The value before the operation.
    pub original: U64,
}

/// FetchAdd (RFC 7306 §5.2.1 figure 5).
pub const ATOMIC_FETCH_ADD: u32 = 0;

/// CmpSwap (RFC 7306 §5.2.1 figure 5).
pub const ATOMIC_COMPARE_SWAP: u32 = 2;

const _: () = assert!(size_of::<TaggedHeader>() == 14);
const _: () = assert!(size_of::<UntaggedHeader>() == 18);
const _: () = assert!(size_of::<ReadRequestHeader>() == 28);
const _: () = assert!(size_of::<AtomicRequestHeader>() == 52);
const _: () = assert!(size_of::<AtomicResponseHeader>() == 12);
