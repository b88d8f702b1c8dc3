//! The bytes of an FPDU.

use zerocopy::byteorder::network_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes};

use super::queue::SendQueue;
use super::records::{Body, Content};
use crate::framing::{CRC_FIELD, LENGTH_FIELD, Markers, crc32c, fpdu_length};
use crate::memory::{Access, AccessError, AtomicOperation, Memory};
use crate::terminate::DdpHeader;
use crate::types::TaggedOffset;
use crate::wire::{ATOMIC_COMPARE_SWAP, ATOMIC_FETCH_ADD, AtomicRequestHeader, DDP_VERSION};
use crate::work::{Operation, Payload};

/// Makes FPDUs from what was committed.
pub(super) struct Encoder<'a, M: ?Sized> {
    pub(super) queue: &'a SendQueue,
    pub(super) crc: bool,
    pub(super) markers: Option<Markers>,
    pub(super) memory: &'a M,
}

impl<M: Memory + ?Sized> Encoder<'_, M> {
    /// Bytes in the stream of an FPDU that begins at `start` and whose ULPDU has `ulpdu` bytes.
    pub(super) fn length(markers: Option<Markers>, start: u64, ulpdu: usize) -> usize {
        let plain = fpdu_length(ulpdu);
        markers.map_or(plain, |markers| markers.length(start, plain))
    }

    /// Writes the FPDU that begins at `start` into `out`, which is as long as it. On an error `out` holds no FPDU.
    pub(super) fn encode(&self, content: &Content, start: u64, out: &mut [u8]) -> Result<(), AccessError> {
        let Some(markers) = self.markers else {
            self.encode_plain(content, out)?;
            self.append_crc(out);
            return Ok(());
        };
        // Peers that require markers are rare; this way they cost a buffer, and the others nothing.
        let mut plain = vec![0; fpdu_length(content.length())];
        self.encode_plain(content, &mut plain)?;
        markers.insert(start, &plain, out, self.crc);
        Ok(())
    }

    /// Writes an FPDU that every peer refuses, in place of one that cannot be made any more: of version 0 of DDP, without
    /// payload, CRC valid.
    pub(super) fn poison(&self, content: &Content, start: u64, out: &mut [u8]) {
        let mut plain = vec![0; fpdu_length(content.length())];
        write_header(content, &mut plain);
        plain[LENGTH_FIELD] &= !DDP_VERSION;
        match self.markers {
            Some(markers) => markers.insert(start, &plain, out, self.crc),
            None => {
                out.copy_from_slice(&plain);
                self.append_crc(out);
            }
        }
    }

    /// All but the CRC.
    #[inline(always)]
    fn encode_plain(&self, content: &Content, out: &mut [u8]) -> Result<(), AccessError> {
        let header_end = write_header(content, out);
        let body_end = header_end + content.body.length();
        self.write_body(&content.body, &mut out[header_end..body_end])?;
        out[body_end..].fill(0);
        Ok(())
    }

    /// RFC 5044 §4.4: over all before it; zeros where it is not used.
    #[inline(always)]
    fn append_crc(&self, fpdu: &mut [u8]) {
        if self.crc {
            let (covered, field) = fpdu.split_at_mut(fpdu.len() - CRC_FIELD);
            field.copy_from_slice(&crc32c(covered).to_le_bytes());
        }
    }

    #[inline(always)]
    fn write_body(&self, body: &Body, out: &mut [u8]) -> Result<(), AccessError> {
        match body {
            Body::Empty => {}
            Body::Payload { request, from, .. } => return self.write_payload(*request, *from, out),
            Body::Response { source, .. } => {
                if !out.is_empty() {
                    return self.memory.fetch(source.stag, source.offset, out, Access::RemoteRead);
                }
            }
            Body::ReadRequest(header) => out.copy_from_slice(header.as_bytes()),
            Body::AtomicRequest(request) => out.copy_from_slice(self.atomic_header(*request).as_bytes()),
            Body::AtomicResponse(header) => out.copy_from_slice(header.as_bytes()),
            Body::Immediate(data) => out.copy_from_slice(data),
            Body::Terminate { bytes, .. } => out.copy_from_slice(&bytes[..out.len()]),
        }
        Ok(())
    }

    /// RFC 7306 §5.2.1 figure 5: what an operation does not use is zero, its mask all ones.
    fn atomic_header(&self, request: u64) -> AtomicRequestHeader {
        let entry = self.queue.get(request).expect("a request lives as long as its FPDUs");
        let Operation::Atomic { target, operation, .. } = entry.request().operation else {
            unreachable!("the request is an atomic")
        };
        let (code, value, mask, compare, compare_mask) = match operation {
            AtomicOperation::FetchAdd { add, mask } => (ATOMIC_FETCH_ADD, add, mask, 0, u64::MAX),
            AtomicOperation::CompareSwap { compare, compare_mask, swap, swap_mask } => {
                (ATOMIC_COMPARE_SWAP, swap, swap_mask, compare, compare_mask)
            }
        };
        AtomicRequestHeader {
            operation: U32::new(code),
            request: U32::new(entry.message().0),
            stag: U32::new(target.stag.0),
            offset: U64::new(target.offset.0),
            add_or_swap: U64::new(value),
            add_or_swap_mask: U64::new(mask),
            compare: U64::new(compare),
            compare_mask: U64::new(compare_mask),
        }
    }

    /// Gathers payload bytes `from` on of the request at position `request`.
    fn write_payload(&self, request: u64, from: u32, out: &mut [u8]) -> Result<(), AccessError> {
        let entry = self.queue.get(request).expect("a request lives as long as its FPDUs");
        let (Operation::Send { payload, .. } | Operation::Write { payload, .. }) = &entry.request().operation else {
            unreachable!("only Sends and Writes have payload")
        };
        let list = match payload {
            Payload::Inline(bytes) => {
                out.copy_from_slice(&bytes[from as usize..from as usize + out.len()]);
                return Ok(());
            }
            Payload::Segments(list) => list,
        };
        let (mut skip, mut left) = (u64::from(from), out);
        for segment in list.as_slice() {
            if left.is_empty() {
                break;
            }
            let room = u64::from(segment.length);
            if skip >= room {
                skip -= room;
                continue;
            }
            let (piece, rest) = left.split_at_mut(((room - skip) as usize).min(left.len()));
            let offset = TaggedOffset(segment.offset.0.wrapping_add(skip));
            self.memory.fetch(segment.stag, offset, piece, Access::LocalRead)?;
            (skip, left) = (0, rest);
        }
        Ok(())
    }
}

/// Writes length field and DDP header, and tells where they end.
#[inline(always)]
fn write_header(content: &Content, out: &mut [u8]) -> usize {
    out[..LENGTH_FIELD].copy_from_slice(&(content.length() as u16).to_be_bytes());
    // Each of a length that the compiler knows.
    match &content.header {
        DdpHeader::Tagged(header) => put(header, out),
        DdpHeader::Untagged(header) => put(header, out),
    }
}

/// Writes a header behind the length field, and tells where it ends.
#[inline]
fn put<H: IntoBytes + Immutable>(header: &H, out: &mut [u8]) -> usize {
    let end = LENGTH_FIELD + size_of::<H>();
    out[LENGTH_FIELD..end].copy_from_slice(header.as_bytes());
    end
}
