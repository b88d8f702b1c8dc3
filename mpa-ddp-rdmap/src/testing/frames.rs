//! FPDUs made by hand, good and bad.

use zerocopy::byteorder::network_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use crate::framing::crc32c;
use crate::wire::*;
use crate::*;

/// A ULPDU under construction; every field can be bent.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) ulpdu: Vec<u8>,
}

/// A tagged segment.
pub(crate) fn tagged(opcode: RdmapOpcode, last: bool, stag: Stag, offset: u64, payload: &[u8]) -> Frame {
    let header = TaggedHeader {
        ddp: DdpControl::new(true, last),
        rdmap: RdmapControl::new(opcode),
        stag: U32::new(stag.0),
        offset: U64::new(offset),
    };
    Frame { ulpdu: [header.as_bytes(), payload].concat() }
}

/// An untagged segment on `queue`.
pub(crate) fn untagged(
    opcode: RdmapOpcode,
    last: bool,
    queue: u32,
    message: u32,
    offset: u32,
    payload: &[u8],
) -> Frame {
    let header = UntaggedHeader {
        ddp: DdpControl::new(false, last),
        rdmap: RdmapControl::new(opcode),
        invalidate: U32::new(0),
        queue: U32::new(queue),
        message: U32::new(message),
        offset: U32::new(offset),
    };
    Frame { ulpdu: [header.as_bytes(), payload].concat() }
}

/// A Send in one segment.
pub(crate) fn send(message: u32, payload: &[u8]) -> Frame {
    untagged(RdmapOpcode::SEND, true, 0, message, 0, payload)
}

/// A Read Request.
pub(crate) fn read_request(message: u32, sink: RemoteAddress, source: RemoteAddress, length: u32) -> Frame {
    let header = crate::terminate::read_request_header(sink, source, length);
    untagged(RdmapOpcode::READ_REQUEST, true, 1, message, 0, header.as_bytes())
}

/// An Atomic Request for FetchAdd of 1.
pub(crate) fn fetch_add(message: u32, code: u32, target: RemoteAddress) -> Frame {
    let header = AtomicRequestHeader {
        operation: U32::new(code),
        request: U32::new(77),
        stag: U32::new(target.stag.0),
        offset: U64::new(target.offset.0),
        add_or_swap: U64::new(1),
        add_or_swap_mask: U64::new(0),
        compare: U64::new(0),
        compare_mask: U64::new(u64::MAX),
    };
    untagged(RdmapOpcode::ATOMIC_REQUEST, true, 1, message, 0, header.as_bytes())
}

/// An Atomic Response.
pub(crate) fn atomic_response(message: u32, request: u32, original: u64) -> Frame {
    let header = AtomicResponseHeader { request: U32::new(request), original: U64::new(original) };
    untagged(RdmapOpcode::ATOMIC_RESPONSE, true, 3, message, 0, header.as_bytes())
}

impl Frame {
    /// With the byte at `index` changed.
    pub(crate) fn with(mut self, index: usize, value: u8) -> Self {
        self.ulpdu[index] = value;
        self
    }

    /// That invalidates `stag`.
    pub(crate) fn invalidating(mut self, stag: Stag) -> Self {
        self.ulpdu[2..6].copy_from_slice(&stag.0.to_be_bytes());
        self
    }

    /// As an FPDU with a valid CRC.
    pub(crate) fn fpdu(&self) -> Vec<u8> {
        let mut bytes = (self.ulpdu.len() as u16).to_be_bytes().to_vec();
        bytes.extend(&self.ulpdu);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let crc = crc32c(&bytes);
        bytes.extend(crc.to_le_bytes());
        bytes
    }
}

/// What an FPDU of ours is, read back: header and payload.
pub(crate) fn untagged_of(fpdu: &[u8]) -> (UntaggedHeader, Vec<u8>) {
    let length = usize::from(u16::from_be_bytes([fpdu[0], fpdu[1]]));
    let (header, payload) = UntaggedHeader::read_from_prefix(&fpdu[2..2 + length]).unwrap();
    (header, payload.to_vec())
}

/// Likewise, tagged.
pub(crate) fn tagged_of(fpdu: &[u8]) -> (TaggedHeader, Vec<u8>) {
    let length = usize::from(u16::from_be_bytes([fpdu[0], fpdu[1]]));
    let (header, payload) = TaggedHeader::read_from_prefix(&fpdu[2..2 + length]).unwrap();
    (header, payload.to_vec())
}

/// Opcode of an FPDU.
pub(crate) fn opcode_of(fpdu: &[u8]) -> RdmapOpcode {
    RdmapControl(fpdu[3]).opcode()
}

/// Whether an FPDU is the last of its message.
pub(crate) fn is_last(fpdu: &[u8]) -> bool {
    DdpControl(fpdu[2]).is_last()
}
