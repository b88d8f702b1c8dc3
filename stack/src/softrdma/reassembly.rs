//! Received segments that wait: behind a gap, or for the layer above to take them. They stay in the packets they came in.

use std::collections::VecDeque;

use super::segment::slices;
use crate::port::Packet;

/// Packets that one connection may keep behind gaps: more are dropped, and sent again. As many as are on their way at 5 Gbit/s and
/// 10 ms, in Ethernet's frames; all connections together keep no more than the engine is told.
pub(super) const MOST_BEHIND_GAPS: usize = 4096;

/// Room that is kept when the last gap is filled.
const KEPT_ROOM: usize = 64;

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
    /// Where pieces follow each other without a gap, in order.
    stretches: VecDeque<(u64, u64)>,
}

impl<K: Packet> Reassembly<K> {
    pub(super) const fn new() -> Self {
        Self { pieces: VecDeque::new(), stretches: VecDeque::new() }
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
        // What arrives is mostly the latest.
        let place = match self.pieces.back() {
            Some(last) if last.start > piece.start => self.pieces.partition_point(|other| other.start <= piece.start),
            _ => self.pieces.len(),
        };
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
        self.extend_stretches(piece.start, piece.end());
        self.pieces.insert(place, piece);
        1
    }

    /// The bytes from `start` to `end` are here now, of which none was.
    fn extend_stretches(&mut self, start: u64, end: u64) {
        let place = self.stretches.partition_point(|stretch| stretch.0 <= start);
        let continues = place.checked_sub(1).filter(|before| self.stretches[*before].1 == start);
        let is_continued = self.stretches.get(place).is_some_and(|after| after.0 == end);
        match (continues, is_continued) {
            (Some(before), false) => self.stretches[before].1 = end,
            (None, true) => self.stretches[place].0 = start,
            (None, false) => self.stretches.insert(place, (start, end)),
            (Some(before), true) => {
                self.stretches[before].1 = self.stretches[place].1;
                self.stretches.remove(place);
            }
        }
    }

    /// The first piece, if the stream has reached it: what is not yet in the stream, or nothing of it.
    pub(super) fn take_next(&mut self, next: u64) -> Option<Piece<K>> {
        if self.pieces.front()?.start > next {
            return None;
        }
        let mut piece = self.pieces.pop_front()?;
        if let Some(stretch) = self.stretches.front_mut() {
            stretch.0 = piece.end();
            if stretch.0 >= stretch.1 {
                self.stretches.pop_front();
            }
        }
        if self.pieces.is_empty() {
            self.give_room_back();
        }
        let passed = next.saturating_sub(piece.start).min(piece.length as u64);
        piece.advance(passed as usize);
        Some(piece)
    }

    /// The stretches that have arrived, in order.
    pub(super) fn stretches(&self) -> impl Iterator<Item = (u64, u64)> {
        self.stretches.iter().copied()
    }

    /// The stretch that holds the byte at `offset`.
    pub(super) fn stretch_around(&self, offset: u64) -> Option<(u64, u64)> {
        let place = self.stretches.partition_point(|stretch| stretch.0 <= offset).checked_sub(1)?;
        Some(self.stretches[place]).filter(|stretch| offset < stretch.1)
    }

    /// Forgets everything; how many packets were held.
    pub(super) fn clear(&mut self) -> usize {
        let held = self.pieces.len();
        self.pieces.clear();
        self.stretches.clear();
        self.give_room_back();
        held
    }

    fn give_room_back(&mut self) {
        self.pieces.shrink_to(KEPT_ROOM);
        self.stretches.shrink_to(KEPT_ROOM);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory_port::MemoryPacket;

    /// Stretches as the pieces say.
    fn joined(reassembly: &Reassembly<MemoryPacket>) -> Vec<(u64, u64)> {
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for piece in &reassembly.pieces {
            match joined.last_mut() {
                Some(last) if last.1 == piece.start => last.1 = piece.end(),
                _ => joined.push((piece.start, piece.end())),
            }
        }
        joined
    }

    proptest! {
        #[test]
        fn stretches_are_what_the_pieces_cover(arrivals in prop::collection::vec((1..200_u64, 1..20_usize, 0..3_u64), 1..80)) {
            let mut reassembly = Reassembly::new();
            let (mut here, mut next) = (std::collections::BTreeSet::new(), 0);
            for (start, length, moves) in arrivals {
                let piece = Piece::copied(vec![0; length], start);
                // What is new of it in one stretch, as far as it is behind what was delivered.
                if start > next && reassembly.insert(piece) == 1 {
                    here.extend(joined(&reassembly).into_iter().flat_map(|(start, end)| start..end));
                }
                next += moves;
                while let Some(piece) = reassembly.take_next(next) {
                    next = next.max(piece.end());
                    here.retain(|offset| *offset >= next);
                }
                let stretches: Vec<_> = reassembly.stretches().collect();
                prop_assert_eq!(&stretches, &joined(&reassembly));
                for offset in 0..240 {
                    let around = reassembly.stretch_around(offset);
                    prop_assert_eq!(around.is_some(), here.contains(&offset), "byte {}", offset);
                    prop_assert!(around.is_none_or(|(start, end)| (start..end).contains(&offset)));
                }
            }
        }
    }
}
