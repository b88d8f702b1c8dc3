//! The receiving side of one connection: what is expected, what is held, what is announced to the peer.

use std::collections::VecDeque;
use std::ops::Range;

use super::reassembly::{Piece, Reassembly};
use super::segment::SequenceSpace;
use super::shared::{Announcement, Owed, Report, SackBlocks};
use crate::port::Packet;
use crate::stream::{Abort, Sink};

/// Parts that are lent in one call.
const MOST_PARTS: usize = 64;
/// Pieces that are held for a layer above that leaves them; more are copied together.
const MOST_HELD: usize = 64;

/// One direction of a connection, from the peer to us.
pub(super) struct Receiver<K> {
    pub(super) space: SequenceSpace,
    /// Everything before has arrived.
    next: u64,
    /// Everything before was consumed by the layer above.
    consumed: u64,
    /// Everything before was offered to the layer above.
    offered: u64,
    /// In order, not consumed.
    held: VecDeque<Piece<K>>,
    behind_gaps: Reassembly<K>,
    /// Where the pieces are that arrived behind gaps, the latest first: RFC 2018 §4 wants them reported in this order.
    latest: [u64; SackBlocks::MOST],
    /// What arrived a second time, until it was reported (RFC 2883).
    duplicate: Option<Range<u64>>,
    /// Bytes that may arrive ahead of what was consumed.
    window: u64,
    /// Everything before this was welcome once: it stays welcome (RFC 9293 §3.8.6: a window does not shrink).
    edge: u64,
    /// Where the stream ends, once the FIN told.
    end: Option<u64>,
    /// The FIN is in sequence.
    has_ended: bool,
    /// The layer above wants no more: what arrives is thrown away.
    is_deaf: bool,
    /// RFC 7323 §4.3: TS.Recent; `None` without timestamps.
    pub(super) recent_timestamp: Option<u32>,
    /// Bytes of payload in the peer's largest segment, as far as we know.
    pub(super) segment_size: usize,
}

/// What became of a segment's payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Accepted {
    /// The acknowledgement that it asks for.
    pub(super) owed: Owed,
    /// There is more to offer, or the stream has ended.
    pub(super) is_news: bool,
    /// Packets held more than before.
    pub(super) held: isize,
}

/// What is left of a segment that the layer above was offered as it arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passed {
    /// Bytes.
    pub(super) left: usize,
    /// Where in the packet.
    at: usize,
    /// Where in the stream.
    start: u64,
}

/// What an offer came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Offered {
    /// Bytes that were offered for the first time.
    pub(super) new_bytes: u64,
    /// Bytes that had to be copied.
    pub(super) copied_bytes: u64,
    /// Packets held more than before.
    pub(super) held: isize,
}

impl<K: Packet> Receiver<K> {
    /// A receiver of a stream whose SYN had sequence number `initial`.
    pub(super) const fn new(initial: u32, window: usize, recent_timestamp: Option<u32>) -> Self {
        Self {
            space: SequenceSpace::new(initial),
            next: 0,
            consumed: 0,
            offered: 0,
            held: VecDeque::new(),
            behind_gaps: Reassembly::new(),
            latest: [u64::MAX; SackBlocks::MOST],
            duplicate: None,
            window: window as u64,
            edge: window as u64,
            end: None,
            has_ended: false,
            is_deaf: false,
            recent_timestamp,
            segment_size: 536,
        }
    }

    /// Whether the peer's last byte and its FIN are here and all bytes were consumed.
    pub(super) fn is_drained(&self) -> bool {
        self.has_ended && self.held.is_empty()
    }

    /// The sequence number expected next. RFC 9293 §3.4: the FIN takes one.
    #[inline]
    pub(super) const fn next_sequence(&self) -> u32 {
        self.space.sequence(self.next + self.has_ended as u64)
    }

    /// RFC 9293 §3.10.7.4, first: whether a segment that begins at `sequence` and takes `length` numbers lies in the window,
    /// in part at least.
    #[inline]
    pub(super) fn is_acceptable(&self, sequence: u32, length: u32) -> bool {
        let start = self.space.offset(sequence, self.next);
        let next = (self.next + u64::from(self.has_ended)) as i64;
        let edge = self.edge.max(next as u64) as i64;
        match (length, edge > next) {
            (0, false) => start == next,
            (0, true) => (next..edge).contains(&start),
            // RFC 9293 §3.10.7.4: with a closed window only what has arrived already may come again, for its ACK.
            (_, false) => false,
            (length, true) => start < edge && start + i64::from(length) > next,
        }
    }

    /// Bytes that may arrive ahead of what was consumed.
    pub(super) const fn window(&self) -> i64 {
        self.window as i64
    }

    /// Bytes that may arrive behind the one expected next.
    pub(super) const fn room(&self) -> i64 {
        self.edge as i64 - self.next as i64
    }

    /// Packets that are kept behind gaps.
    pub(super) fn held_behind_gaps(&self) -> usize {
        self.behind_gaps.len()
    }

    /// How far `sequence` is from the one expected next.
    pub(super) const fn distance(&self, sequence: u32) -> i32 {
        sequence.wrapping_sub(self.next_sequence()) as i32
    }

    /// Takes the payload of an acceptable segment: `length` bytes at byte `at` of `packet`, and the FIN behind them. `may_hold`
    /// allows to keep it behind a gap.
    pub(super) fn accept(
        &mut self,
        packet: K,
        at: usize,
        sequence: u32,
        length: usize,
        fin: bool,
        may_hold: bool,
    ) -> Accepted {
        let begin = self.space.offset(sequence, self.next);
        let old = (self.next as i64 - begin).clamp(0, length as i64) as usize;
        if fin {
            self.note_end(begin + length as i64);
        }
        let mut accepted = Accepted::default();
        if old > 0 {
            self.duplicate = Some(begin.max(0) as u64..(begin + old as i64).max(0) as u64);
            accepted.owed = Owed::Pure;
        }
        // Not before the next one expected, unless nothing of it is new.
        let start = (begin + old as i64).max(0) as u64;
        let most = self.end.unwrap_or(u64::MAX).min(self.edge).saturating_sub(start);
        let length = (length - old).min(usize::try_from(most).unwrap_or(usize::MAX));
        if length > 0 {
            let piece = Piece::new(packet, at + old, start, length);
            if start == self.next {
                self.append(piece, &mut accepted);
            } else {
                self.keep(piece, may_hold, &mut accepted);
            }
        }
        if !self.has_ended && self.end == Some(self.next) {
            self.has_ended = true;
            accepted.is_news = true;
            accepted.owed = accepted.owed.max(Owed::Now);
        } else if fin && !self.has_ended {
            accepted.owed = Owed::Pure;
        }
        accepted
    }

    /// Whether a segment with `length` bytes from `sequence` on continues the stream right where the layer above waits for it:
    /// then [`Self::pass`] takes it.
    #[inline]
    pub(super) fn is_awaited(&self, sequence: u32, length: usize) -> bool {
        let is_plain = self.held.is_empty() && self.behind_gaps.is_empty() && self.end.is_none() && !self.is_deaf;
        is_plain && sequence == self.space.sequence(self.next) && self.next + length as u64 <= self.edge
    }

    /// Offers the payload of an awaited segment to `sink` where it lies: `bytes`, at byte `at` of its packet. Tells what was left, for
    /// [`Self::hold_rest`].
    #[inline(always)]
    pub(super) fn pass(&mut self, at: usize, bytes: &[u8], sink: &mut impl Sink) -> Passed {
        let length = bytes.len();
        let start = self.next;
        self.next += length as u64;
        self.offered = self.next;
        let Ok(taken) = sink.handle_bytes(&[bytes]) else {
            self.is_deaf = true;
            self.consumed = self.next;
            return Passed { left: 0, at, start };
        };
        let taken = taken.min(length);
        self.consumed += taken as u64;
        Passed { left: length - taken, at: at + taken, start: start + taken as u64 }
    }

    /// Holds what the layer above left of a packet.
    pub(super) fn hold_rest(&mut self, packet: K, passed: &Passed) {
        self.held.push_back(Piece::new(packet, passed.at, passed.start, passed.left));
    }

    /// RFC 9293 §3.10.7.4, eighth: the FIN tells where the stream ends. A second FIN elsewhere is not believed.
    fn note_end(&mut self, end: i64) {
        if self.end.is_none() && end >= self.next as i64 && end as u64 <= self.edge {
            self.end = Some(end as u64);
        }
    }

    #[inline]
    fn append(&mut self, piece: Piece<K>, accepted: &mut Accepted) {
        self.next += piece.length as u64;
        self.hold(piece, accepted);
        accepted.owed = accepted.owed.max(Owed::Soon);
        if self.behind_gaps.is_empty() {
            return;
        }
        // RFC 5681 §4.2: a segment that fills a gap is acknowledged at once.
        accepted.owed = accepted.owed.max(Owed::Pure);
        while let Some(piece) = self.behind_gaps.take_next(self.next) {
            accepted.held -= 1;
            if piece.length > 0 {
                self.next += piece.length as u64;
                self.hold(piece, accepted);
            }
        }
    }

    #[inline]
    fn hold(&mut self, piece: Piece<K>, accepted: &mut Accepted) {
        if self.is_deaf {
            self.consumed = self.next;
            return;
        }
        self.held.push_back(piece);
        accepted.held += 1;
        accepted.is_news = true;
    }

    fn keep(&mut self, piece: Piece<K>, may_hold: bool, accepted: &mut Accepted) {
        // RFC 5681 §4.2: what is out of order is acknowledged at once.
        accepted.owed = Owed::Pure;
        let range = piece.start..piece.end();
        if may_hold {
            let held = self.behind_gaps.insert(piece);
            accepted.held += held as isize;
            if held > 0 {
                self.latest.rotate_right(1);
                self.latest[0] = range.start;
            } else if !self.behind_gaps.is_full() {
                self.duplicate = Some(range);
            }
        }
    }

    /// Offers everything that is held to `sink`, as long as it takes all of it. `Err`: it cannot go on.
    pub(super) fn offer(&mut self, sink: &mut dyn Sink, outcome: &mut Offered) -> Result<(), Abort> {
        while !self.held.is_empty() {
            let (lent, taken) = match self.lend(sink) {
                Ok(result) => result,
                Err(abort) => {
                    self.turn_deaf(outcome);
                    return Err(abort);
                }
            };
            let end = self.consumed + lent as u64;
            outcome.new_bytes += end.saturating_sub(self.offered);
            self.offered = self.offered.max(end);
            self.consume(taken.min(lent), outcome);
            let is_all_lent = end == self.next;
            if taken >= lent && !is_all_lent {
                continue;
            }
            if taken == 0 && !is_all_lent {
                // It may be waiting for what does not fit into one call: fewer, longer parts.
                self.copy_together(outcome);
                continue;
            }
            if taken < lent && !is_all_lent {
                continue;
            }
            break;
        }
        if self.held.len() > MOST_HELD {
            self.copy_together(outcome);
        }
        Ok(())
    }

    /// Lends what fits into one call; how much it was and how much of it was taken.
    #[inline]
    fn lend(&self, sink: &mut dyn Sink) -> Result<(usize, usize), Abort> {
        const FEW: usize = 4;
        if self.held.len() == 1 {
            let mut parts: [&[u8]; FEW] = [&[]; FEW];
            if let Some((count, length)) = self.gather(&mut parts) {
                return Ok((length, sink.handle_bytes(&parts[..count])?));
            }
        }
        let mut parts: [&[u8]; MOST_PARTS] = [&[]; MOST_PARTS];
        let (mut count, mut length) = (0, 0);
        for piece in &self.held {
            let before = (count, length);
            let mut fits = true;
            piece.for_each_part(|part| {
                if let Some(place) = parts.get_mut(count) {
                    *place = part;
                    count += 1;
                    length += part.len();
                } else {
                    fits = false;
                }
            });
            if !fits {
                // Part of a piece may be lent too, unless it is not the first.
                if before.0 > 0 {
                    (count, length) = before;
                }
                break;
            }
        }
        Ok((length, sink.handle_bytes(&parts[..count])?))
    }

    /// Writes the parts of the first piece into `parts`; `None` if they do not fit.
    fn gather<'a>(&'a self, parts: &mut [&'a [u8]]) -> Option<(usize, usize)> {
        let (mut count, mut length, mut fits) = (0, 0, true);
        self.held.front()?.for_each_part(|part| match parts.get_mut(count) {
            Some(place) => {
                *place = part;
                count += 1;
                length += part.len();
            }
            None => fits = false,
        });
        fits.then_some((count, length))
    }

    fn consume(&mut self, count: usize, outcome: &mut Offered) {
        let mut left = count;
        self.consumed += count as u64;
        while left > 0
            && let Some(piece) = self.held.front_mut()
        {
            if piece.length > left {
                piece.advance(left);
                return;
            }
            left -= piece.length;
            outcome.held -= isize::from(piece.holds_packet());
            self.held.pop_front();
        }
    }

    /// Copies all that is held into one buffer, so that no packets are kept and one part holds everything.
    pub(super) fn copy_together(&mut self, outcome: &mut Offered) {
        let Some(first) = self.held.pop_front() else { return };
        let start = first.start;
        outcome.held -= isize::from(first.holds_packet());
        let mut bytes = Vec::new();
        let mut append = |piece: &Piece<K>, bytes: &mut Vec<u8>| {
            piece.for_each_part(|part| bytes.extend_from_slice(part));
            outcome.copied_bytes += piece.length as u64;
        };
        if first.holds_packet() {
            append(&first, &mut bytes);
        } else if let Some(copied) = first.into_copied() {
            bytes = copied;
        }
        for piece in self.held.drain(..) {
            append(&piece, &mut bytes);
            outcome.held -= isize::from(piece.holds_packet());
        }
        self.held.push_back(Piece::copied(bytes, start));
    }

    /// The layer above wants nothing any more.
    fn turn_deaf(&mut self, outcome: &mut Offered) {
        self.is_deaf = true;
        self.consume((self.next - self.consumed) as usize, outcome);
        self.held.clear();
        self.consumed = self.next;
    }

    /// Drops what is kept behind gaps; how many packets that were.
    pub(super) fn drop_behind_gaps(&mut self) -> usize {
        self.latest = [u64::MAX; SackBlocks::MOST];
        self.behind_gaps.clear()
    }

    /// Whether anything is held for the layer above.
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Forgets all packets; how many there were.
    pub(super) fn clear(&mut self) -> usize {
        let held = self.held.iter().filter(|piece| piece.holds_packet()).count();
        self.held.clear();
        held + self.behind_gaps.clear()
    }

    /// What is announced to the peer from now on.
    #[inline]
    pub(super) fn announcement(&mut self) -> Announcement {
        self.move_edge();
        Announcement { next: self.next_sequence(), edge: self.space.sequence(self.edge) }
    }

    /// The same, and what is reported beside it. Announcing reports what arrived twice, once.
    pub(super) fn announce(&mut self) -> (Announcement, Report) {
        let announcement = self.announcement();
        let mut report = Report::default();
        if let Some(duplicate) = self.duplicate.take() {
            report.has_duplicate = true;
            report.blocks.push(self.space.sequence(duplicate.start), self.space.sequence(duplicate.end));
        }
        if !self.behind_gaps.is_empty() {
            self.report_stretches(&mut report.blocks);
        }
        (announcement, report)
    }

    /// RFC 2018 §4: the stretch with what arrived last comes first, then those that were reported first before; behind them
    /// whatever there is room for.
    fn report_stretches(&self, sack: &mut SackBlocks) {
        let mut reported = [(0, 0); SackBlocks::MOST];
        let mut count = 0;
        // Those of which something came last, then the first ones: however many there are, few are looked at.
        let recent = self.latest.iter().filter_map(|latest| self.behind_gaps.stretch_around(*latest));
        for stretch in recent.chain(self.behind_gaps.stretches().take(2 * SackBlocks::MOST)) {
            if count < reported.len() && !reported[..count].contains(&stretch) {
                reported[count] = stretch;
                count += 1;
                sack.push(self.space.sequence(stretch.0), self.space.sequence(stretch.1));
            }
        }
    }

    /// RFC 9293 §3.8.6.2.2: the window's edge moves on by what is worth a segment, or half the window.
    fn move_edge(&mut self) {
        let edge = self.consumed + self.window;
        if edge >= self.edge + (self.window / 2).min(self.segment_size as u64) {
            self.edge = edge;
        }
    }

    /// The acknowledgement that is owed for what arrived in order since the peer was told `acknowledged`, and for a window
    /// that it believes to end at `announced_edge`.
    pub(super) fn owed(&self, acknowledged: u32, announced_edge: u32) -> Owed {
        let news = self.next_sequence().wrapping_sub(acknowledged);
        let edge = self.space.sequence(self.edge.max(self.consumed + self.window));
        let growth = edge.wrapping_sub(announced_edge);
        let believed = announced_edge.wrapping_sub(self.next_sequence()) as i32;
        let worth = (self.window / 2).min(2 * self.segment_size as u64) as u32;
        // RFC 9293 §3.8.6.2.2: a window that was small is announced once it is worth a segment or two.
        if believed < (self.window / 2).min(i32::MAX as u64) as i32 && growth >= worth {
            return Owed::Now;
        }
        match news {
            0 => Owed::Nothing,
            // RFC 5681 §4.2: at least every second full-sized segment.
            news if news as usize >= 2 * self.segment_size => Owed::Now,
            _ => Owed::Soon,
        }
    }
}
