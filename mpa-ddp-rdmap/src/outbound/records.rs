//! FPDUs that are committed and not acknowledged.

use std::collections::VecDeque;

use super::encode::Encoder;
use crate::limits::{MAX_RETAINED_BYTES, MAX_UNACKNOWLEDGED_RECORDS};
use crate::memory::{AccessError, Memory};
use crate::record::Record;
use crate::statistics::OutboundStatistics;
use crate::terminate::{DdpHeader, MAX_TERMINATE_LENGTH};
use crate::types::Stag;
use crate::wire::{AtomicRequestHeader, AtomicResponseHeader, IMMEDIATE_LENGTH, ReadRequestHeader};
use crate::work::RemoteAddress;

/// Records that there is room for from the beginning. An idle connection needs no more; the room grows with what a
/// connection has unacknowledged at a time, and stays with it.
const FIRST_RECORDS: usize = 8;

/// What an FPDU is made of: enough to make it again.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) header: DdpHeader,
    pub(super) body: Body,
}

/// What follows the DDP header.
#[derive(Debug)]
pub(super) enum Body {
    Empty,
    /// Bytes `from` on of the payload of the request at this position.
    Payload {
        request: u64,
        from: u32,
        length: u32,
    },
    /// Bytes of the source of a Read of the peer.
    Response {
        source: RemoteAddress,
        length: u32,
    },
    ReadRequest(ReadRequestHeader),
    /// The Atomic Request of the request at this position.
    AtomicRequest(u64),
    AtomicResponse(AtomicResponseHeader),
    Immediate([u8; IMMEDIATE_LENGTH]),
    Terminate {
        bytes: Box<[u8; MAX_TERMINATE_LENGTH]>,
        length: u8,
    },
}

impl Content {
    /// Bytes of the ULPDU.
    pub(super) fn length(&self) -> usize {
        let header = match &self.header {
            DdpHeader::Tagged(header) => size_of_val(header),
            DdpHeader::Untagged(header) => size_of_val(header),
        };
        header + self.body.length()
    }
}

impl Body {
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Payload { length, .. } | Self::Response { length, .. } => *length as usize,
            Self::Terminate { length, .. } => usize::from(*length),
            Self::Empty => 0,
            Self::ReadRequest(header) => size_of_val(header),
            Self::AtomicRequest(_) => size_of::<AtomicRequestHeader>(),
            Self::AtomicResponse(header) => size_of_val(header),
            Self::Immediate(data) => data.len(),
        }
    }

    /// The request whose memory is sent.
    fn request(&self) -> Option<u64> {
        match self {
            Self::Payload { request, .. } => Some(*request),
            _ => None,
        }
    }

    /// The region of ours that a response is read from.
    fn response_source(&self) -> Option<Stag> {
        match self {
            Self::Response { source, length: 1.. } => Some(source.stag),
            _ => None,
        }
    }
}

/// A committed FPDU could not be made, because memory it refers to cannot be accessed any more.
#[derive(Debug)]
pub(super) struct Unwritable {
    /// The request to which that memory belongs; `None` if it belongs to a request of the peer.
    pub(super) request: Option<u64>,
}

/// An FPDU in the stream.
#[derive(Debug)]
struct Committed {
    record: Record,
    content: Content,
    /// Its bytes, if they must not be made a second time.
    kept: Option<Vec<u8>>,
    written: bool,
    /// Whether the source of a response is held for it.
    holds: bool,
}

/// The unacknowledged end of the stream.
#[derive(Debug)]
pub(super) struct Records {
    ring: VecDeque<Committed>,
    /// Stream offset of the next FPDU.
    end: u64,
    acknowledged: u64,
    /// Bytes in [`Committed::kept`].
    retained: usize,
    /// Buffers for reuse, and the bytes they hold: no more than may be retained.
    spare: Vec<Vec<u8>>,
    spare_bytes: usize,
}

impl Records {
    pub(super) fn new(start: u64) -> Self {
        Self {
            ring: VecDeque::with_capacity(FIRST_RECORDS),
            end: start,
            acknowledged: start,
            retained: 0,
            spare: Vec::new(),
            spare_bytes: 0,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.ring.len() >= MAX_UNACKNOWLEDGED_RECORDS
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub(super) fn retained(&self) -> usize {
        self.retained
    }

    /// Appends an FPDU of `length` bytes.
    pub(super) fn push(&mut self, content: Content, length: u32) -> Record {
        self.append(content, length, None, false)
    }

    /// Appends a response whose source is fetched again when it is written: the source is held until then.
    pub(super) fn push_held<M: Memory + ?Sized>(&mut self, content: Content, length: u32, memory: &M) -> Record {
        let source = content.body.response_source();
        source.into_iter().for_each(|stag| memory.hold(stag));
        self.append(content, length, None, source.is_some())
    }

    /// Appends a response whose bytes are made now, once: its source may be gone when they are sent again.
    pub(super) fn push_kept<M: Memory + ?Sized>(
        &mut self,
        content: Content,
        length: u32,
        encoder: &Encoder<M>,
    ) -> Result<Record, AccessError> {
        let mut bytes = self.take_buffer(length);
        if let Err(error) = encoder.encode(&content, self.end, &mut bytes) {
            self.give_buffer(bytes);
            return Err(error);
        }
        self.retained += bytes.len();
        Ok(self.append(content, length, Some(bytes), false))
    }

    #[inline(always)]
    fn append(&mut self, content: Content, length: u32, kept: Option<Vec<u8>>, holds: bool) -> Record {
        let record = Record { start: self.end, length };
        self.end = record.end();
        self.ring.push_back(Committed { record, content, kept, written: false, holds });
        record
    }

    fn take_buffer(&mut self, length: u32) -> Vec<u8> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        self.spare_bytes -= buffer.capacity();
        buffer.clear();
        buffer.resize(length as usize, 0);
        buffer
    }

    /// Writes the bytes from `start` on into `out`.
    pub(super) fn write<M: Memory + ?Sized>(
        &mut self,
        start: u64,
        out: &mut [u8],
        encoder: &Encoder<M>,
        statistics: &mut OutboundStatistics,
    ) -> Result<(), Unwritable> {
        assert!(
            start >= self.acknowledged && start + out.len() as u64 <= self.end,
            "bytes {start}..{} asked for, committed and unacknowledged are {}..{}",
            start + out.len() as u64,
            self.acknowledged,
            self.end
        );
        let mut index = self.index_of(start);
        let mut skip = start.saturating_sub(self.ring.get(index).map_or(start, |first| first.record.start)) as usize;
        let mut left = out;
        let mut result = Ok(());
        while !left.is_empty() {
            let count = (self.ring[index].record.length as usize - skip).min(left.len());
            let (piece, rest) = left.split_at_mut(count);
            if self.write_piece(index, skip, piece, encoder, statistics).is_err() {
                result = result.and(Err(Unwritable { request: self.ring[index].content.body.request() }));
            }
            (left, skip, index) = (rest, 0, index + 1);
        }
        result
    }

    /// The record that holds the byte at `offset`; usually the last one.
    fn index_of(&self, offset: u64) -> usize {
        match self.ring.back() {
            Some(last) if last.record.start <= offset => self.ring.len() - 1,
            _ => self.ring.partition_point(|committed| committed.record.end() <= offset),
        }
    }

    /// Writes some bytes of one record. A record that is not written whole is made once and kept: pieces made at different times
    /// from memory that changes in between would not fit together, nor their CRC.
    #[inline(always)]
    fn write_piece<M: Memory + ?Sized>(
        &mut self,
        index: usize,
        skip: usize,
        out: &mut [u8],
        encoder: &Encoder<M>,
        statistics: &mut OutboundStatistics,
    ) -> Result<(), AccessError> {
        let Record { start, length } = self.ring[index].record;
        let whole = out.len() == length as usize;
        if std::mem::replace(&mut self.ring[index].written, true) || !whole {
            statistics.rewritten_fpdus += 1;
        }
        let mut result = Ok(());
        if !whole && self.ring[index].kept.is_none() {
            let mut bytes = self.take_buffer(length);
            result = encoder.encode(&self.ring[index].content, start, &mut bytes);
            if result.is_err() {
                encoder.poison(&self.ring[index].content, start, &mut bytes);
            }
            self.retained += bytes.len();
            self.ring[index].kept = Some(bytes);
        }
        let committed = &self.ring[index];
        match &committed.kept {
            Some(bytes) => out.copy_from_slice(&bytes[skip..skip + out.len()]),
            None => {
                result = encoder.encode(&committed.content, start, out);
                if result.is_err() {
                    encoder.poison(&committed.content, start, out);
                }
            }
        }
        result
    }

    /// Everything before `through` has arrived.
    pub(super) fn acknowledge<M: Memory + ?Sized>(&mut self, through: u64, memory: &M) {
        assert!(through <= self.end, "acknowledged through {through}, committed through {}", self.end);
        self.acknowledged = self.acknowledged.max(through);
        while self.ring.front().is_some_and(|front| front.record.end() <= through) {
            self.drop_front(memory);
        }
    }

    /// Nothing asks for bytes any more.
    pub(super) fn drop_all<M: Memory + ?Sized>(&mut self, memory: &M) {
        while !self.ring.is_empty() {
            self.drop_front(memory);
        }
    }

    fn drop_front<M: Memory + ?Sized>(&mut self, memory: &M) {
        let Some(front) = self.ring.pop_front() else { return };
        if self.ring.is_empty() {
            // From the beginning again: few places that stay in the cache, not one after the other.
            self.ring.clear();
        }
        if front.holds {
            front.content.body.response_source().into_iter().for_each(|stag| memory.release(stag));
        }
        if let Some(bytes) = front.kept {
            self.retained -= bytes.len();
            self.give_buffer(bytes);
        }
    }

    fn give_buffer(&mut self, buffer: Vec<u8>) {
        if self.spare_bytes + buffer.capacity() <= MAX_RETAINED_BYTES {
            self.spare_bytes += buffer.capacity();
            self.spare.push(buffer);
        }
    }
}
