//! Received segments that wait: behind a gap, or for the layer above to take them. They stay in the packets they came in.

use std::collections::VecDeque;

use super::segment::slices;
use crate::port::Packet;

/// Packets that one connection may keep behind gaps: more are dropped, and sent again.
pub(super) const MOST_BEHIND_GAPS: usize = 512;

/// Bytes of the stream, where they arrived.
pub(super) struct Piece<K> {
    /// Offset of the first byte in the stream.
    pub(super) start: u64,
    /// How many.
    pub(super) length: usize,
    store: Store<K>,
    /// Where the first byte is in `store`.
    at: usize,
}

enum Store<K> {
    Packet(K),
    /// Many small packets that were copied into one buffer.
    Copied(Vec<u8>),
}

impl<K: Packet> Piece<K> {
    /// `length` bytes at byte `at` of `packet`, which belong at `start` of the stream.
    pub(super) const fn new(packet: K, at: usize, start: u64, length: usize) -> Self {
        Self { start, length, store: Store::Packet(packet), at }
    }

    pub(super) const fn copied(bytes: Vec<u8>, start: u64) -> Self {
        Self { start, length: bytes.len(), store: Store::Copied(bytes), at: 0 }
    }

    pub(super) const fn end(&self) -> u64 {
        self.start + self.length as u64
    }

    /// Whether it holds one of the port's packets.
    pub(super) const fn holds_packet(&self) -> bool {
        matches!(self.store, Store::Packet(_))
    }

    /// Shows its bytes to `each`, in order.
    #[inline]
    pub(super) fn for_each_part<'a>(&'a self, mut each: impl FnMut(&'a [u8])) {
        match &self.store {
            Store::Packet(packet) => slices(packet.parts(), self.at, self.length).for_each(each),
            Store::Copied(bytes) => each(&bytes[self.at..self.at + self.length]),
        }
    }

    /// Drops `count` bytes from its front.
    pub(super) const fn advance(&mut self, count: usize) {
        self.start += count as u64;
        self.at += count;
        self.length -= count;
    }

    /// Drops all but its first `length` bytes.
    pub(super) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// The buffer of a copied piece, from its first byte on.
    pub(super) fn into_copied(mut self) -> Option<Vec<u8>> {
        match &mut self.store {
            Store::Packet(_) => None,
            Store::Copied(bytes) => {
                bytes.truncate(self.at + self.length);
                bytes.drain(..self.at);
                Some(std::mem::take(bytes))
            }
        }
    }
}

/// Pieces behind gaps: sorted, none overlapping another.
pub(super) struct Reassembly<K> {
    pieces: VecDeque<Piece<K>>,
}

impl<K: Packet> Reassembly<K> {
    pub(super) const fn new() -> Self {
        Self { pieces: VecDeque::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Packets that are kept.
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether nothing more is kept.
    pub(super) fn is_full(&self) -> bool {
        self.pieces.len() >= MOST_BEHIND_GAPS
    }

    /// Keeps of `piece` what is new, if that is in one stretch; how many packets more are held. What arrived first stays: a
    /// retransmission that differs changes nothing.
    pub(super) fn insert(&mut self, mut piece: Piece<K>) -> usize {
        // From behind: what arrives is mostly the latest.
        let mut place = self.pieces.len();
        while place > 0 && self.pieces[place - 1].start > piece.start {
            place -= 1;
        }
        if let Some(before) = place.checked_sub(1).map(|before| &self.pieces[before]) {
            let overlap = before.end().saturating_sub(piece.start).min(piece.length as u64);
            piece.advance(overlap as usize);
        }
        if let Some(after) = self.pieces.get(place) {
            piece.truncate(after.start.saturating_sub(piece.start) as usize);
        }
        if piece.length == 0 || self.is_full() {
            return 0;
        }
        self.pieces.insert(place, piece);
        1
    }

    /// The first piece, if the stream has reached it: what is not yet in the stream, or nothing of it.
    pub(super) fn take_next(&mut self, next: u64) -> Option<Piece<K>> {
        if self.pieces.front()?.start > next {
            return None;
        }
        let mut piece = self.pieces.pop_front()?;
        let passed = next.saturating_sub(piece.start).min(piece.length as u64);
        piece.advance(passed as usize);
        Some(piece)
    }

    /// The stretches that have arrived, in order.
    pub(super) fn stretches(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut pieces = self.pieces.iter().peekable();
        std::iter::from_fn(move || {
            let first = pieces.next()?;
            let mut end = first.end();
            while let Some(more) = pieces.next_if(|piece| piece.start == end) {
                end = more.end();
            }
            Some((first.start, end))
        })
    }

    /// Forgets everything; how many packets were held.
    pub(super) fn clear(&mut self) -> usize {
        let held = self.pieces.len();
        self.pieces.clear();
        held
    }
}
