//! How bytes get through the two rings of a connection, with the CDC messages of SMC-D as they stand at the beginning of
//! each buffer: what an end has sent and consumed stands in the buffer that the *other* end receives in.
//!
//! A word of the peer's is loaded once and checked against what it said before: cursors only go forward, and never by more than
//! there is. Everything else ends the connection ([`Violation`]). Our own place is kept where the peer cannot reach it
//! ([`Progress`]).

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::arena::Connection;
use crate::shared_memory::{Source, Target};

/// Bytes of a CDC message at the beginning of a buffer; the ring lies behind it.
const CDC_BYTES: usize = 32;
/// Bytes beyond the last that are fetched for the next call: a small message or two.
const AHEAD: usize = 256;
/// Where a CDC message has the cursor of its sender as producer, and as consumer.
const PRODUCER: usize = 8;
const CONSUMER: usize = 16;

/// The flags of a producer: RFC 7609 appendix A.4.
mod flags {
    pub(super) const WRITER_BLOCKED: u8 = 0x80;
}

/// What an end says about itself: RFC 7609 appendix A.4, connection state flags.
pub mod state {
    /// It will send no more.
    pub const SENDING_DONE: u8 = 0x80;
    /// It has closed.
    pub const CLOSED: u8 = 0x40;
    /// It has closed, and something that was sent to it is lost.
    pub const ABORTED: u8 = 0x20;
}

/// The peer wrote a cursor that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer's cursor cannot be: it went back, or further than there is")]
pub struct Violation;

/// Words of a [`Progress`].
pub const PROGRESS: usize = 6;

/// How far one end has come, in words that only processes of its own program have mapped.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a>(&'a [AtomicU64; PROGRESS]);

impl<'a> Progress<'a> {
    /// In these words: all 0 for a new connection.
    pub const fn new(words: &'a [AtomicU64; PROGRESS]) -> Self {
        Self(words)
    }

    /// Bytes put into the ring.
    #[inline]
    pub fn produced(self) -> u64 {
        self.0[0].load(Ordering::Relaxed)
    }

    /// Bytes that the peer has said it took out of it.
    #[inline]
    pub fn acknowledged(self) -> u64 {
        self.0[1].load(Ordering::Relaxed)
    }

    /// Bytes taken out of the other ring.
    #[inline]
    pub fn consumed(self) -> u64 {
        self.0[2].load(Ordering::Relaxed)
    }

    /// Bytes that the peer knows of.
    #[inline]
    pub fn announced(self) -> u64 {
        self.0[3].load(Ordering::Relaxed)
    }

    /// Bytes that the other end is known to have put in.
    #[inline]
    fn seen(self) -> u64 {
        self.0[4].load(Ordering::Relaxed)
    }

    /// What this end has said about itself, see [`state`].
    #[inline]
    fn said(self) -> u8 {
        self.0[5].load(Ordering::Relaxed) as u8
    }
}

/// The value of a word: a cursor, and what stands behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CursorWord {
    wrap: u16,
    count: u32,
    flags: u8,
    state: u8,
}

impl CursorWord {
    fn at(position: u64, size: u32, flags: u8, state: u8) -> Self {
        Self { wrap: (position / u64::from(size)) as u16, count: (position % u64::from(size)) as u32, flags, state }
    }

    /// Big-endian fields, in order.
    fn to_word(self) -> u64 {
        let value = u64::from(self.wrap) << 48
            | u64::from(self.count) << 16
            | u64::from(self.flags) << 8
            | u64::from(self.state);
        value.to_be()
    }

    fn from_word(word: u64) -> Self {
        let value = u64::from_be(word);
        Self { wrap: (value >> 48) as u16, count: (value >> 16) as u32, flags: (value >> 8) as u8, state: value as u8 }
    }

    /// How far it is ahead of `position`: RFC 7609 §4.5.1's difference of cursors, or nothing that a ring of `size` can have.
    fn ahead_of(self, position: u64, size: u32) -> Result<u64, Violation> {
        let size = u64::from(size);
        let (wrap, count) = ((position / size) as u16, position % size);
        let new = u64::from(self.count);
        let ahead = match self.wrap.wrapping_sub(wrap) {
            0 => new.checked_sub(count),
            1 => Some(size - count + new),
            _ => None,
        };
        ahead.filter(|ahead| new < size && *ahead <= size).ok_or(Violation)
    }
}

/// The two rings of a connection, as one end sees them. One thread at a time sends, one receives; others may look.
#[derive(Clone, Copy, Debug)]
pub struct Rings<'a> {
    connection: &'a Connection,
    progress: Progress<'a>,
}

impl<'a> Rings<'a> {
    /// Those of `connection`, where `progress` says.
    pub const fn new(connection: &'a Connection, progress: Progress<'a>) -> Self {
        Self { connection, progress }
    }

    /// The connection that they are of.
    pub(crate) const fn connection(&self) -> &'a Connection {
        self.connection
    }

    fn size(&self) -> u32 {
        self.connection.ring_bytes()
    }

    /// Says what the first byte of every CDC message says; both ends do before anything is sent.
    pub fn begin(&self) {
        self.connection
            .region()
            .word(self.connection.peer_buffer())
            .store(u64::from_ne_bytes([0xfe, 0, 0, 0, 0, 0, 0, 0]), Ordering::Relaxed);
    }

    /// Bytes that the peer has not taken yet.
    #[inline]
    pub fn in_flight(&self) -> Result<u64, Violation> {
        let word = self.connection.region().word(self.connection.own_buffer() + CONSUMER).load(Ordering::Acquire);
        let known = self.progress.acknowledged();
        let acknowledged = known + CursorWord::from_word(word).ahead_of(known, self.size())?;
        let in_flight = self.progress.produced().checked_sub(acknowledged).ok_or(Violation)?;
        if acknowledged != known {
            self.progress.0[1].fetch_max(acknowledged, Ordering::Relaxed);
        }
        Ok(in_flight)
    }

    /// How far the ring that we send into is filled by us, and emptied by the peer as far as it has said; since it began.
    #[inline]
    pub fn sending(&self) -> (u64, u64) {
        (self.progress.produced(), self.progress.acknowledged())
    }

    /// How far the ring that we receive from is emptied.
    #[inline]
    pub fn consumed(&self) -> u64 {
        self.progress.consumed()
    }

    /// The flags that we last showed the peer, then those that it last showed us: of the producer, and of the connection.
    pub fn flags(&self) -> [(u8, u8); 2] {
        let ours = self.connection.region().word(self.connection.peer_buffer() + PRODUCER).load(Ordering::Relaxed);
        [CursorWord::from_word(ours), self.peer_word()].map(|word| (word.flags, word.state))
    }

    /// Copies the bytes that were sent last back out of the ring, before more are sent: where they stand in the stream.
    pub fn look_back(&self, bytes: &mut [u8]) -> u64 {
        let start = self.progress.produced().saturating_sub(bytes.len() as u64);
        let length = bytes.len().min(self.size() as usize);
        self.read_sent(start, &mut bytes[..length]);
        start
    }

    /// Whether a peer that has died left bytes unread: it acknowledges late, but knows to the byte what it took.
    pub fn has_lost(&self) -> bool {
        self.unread_by_peer() > 0 || self.connection.has_peer_missed_tcp()
    }

    /// Bytes that the peer says it has not taken yet, to the byte.
    pub fn unread_by_peer(&self) -> u64 {
        self.progress.produced().saturating_sub(self.connection.peer_consumed())
    }

    /// Bytes that fit in.
    #[inline]
    pub fn room(&self) -> Result<usize, Violation> {
        Ok((u64::from(self.size()) - self.in_flight()?.min(self.size().into())) as usize)
    }

    /// Whether a writer that was refused should be told that it may write: enough fits in to be worth it.
    #[inline]
    pub fn is_writable(&self) -> Result<bool, Violation> {
        Ok(self.room()? >= self.worthwhile())
    }

    /// The room that a writer is told of, half of the ring: one that does not wait then gets its usual block in as a whole, as it does
    /// with the kernel's buffers, which are larger.
    fn worthwhile(&self) -> usize {
        self.size() as usize / 2
    }

    /// Puts as much of `parts`, `skip` bytes left out at their beginning, into the ring as fits: how much. Up to half of the ring it
    /// is all or nothing. If not all of it fits, the
    /// peer is told that somebody waits. Whoever called then says so with [`Connection::notify`].
    #[inline]
    pub fn send(&self, parts: &[Source<'_>], skip: usize) -> Result<usize, Violation> {
        let total = parts.iter().map(Source::length).sum::<usize>() - skip;
        let mut room = self.known_room();
        if room < total {
            room = self.room()?;
        }
        // In one piece, if it may fit at all: two writers, or two readers, do not tear it, and a program that does not wait is
        // rarely told of half a block, for which many are not prepared.
        let length = if room < total && total <= self.worthwhile() { 0 } else { room.min(total) };
        self.put(parts, skip, length);
        let next = (self.progress.produced() as usize + length) % self.size() as usize;
        self.connection
            .region()
            .prefetch_to_write(self.connection.peer_buffer() + CDC_BYTES + next, AHEAD.min(room - length));
        let flags = if length < total { flags::WRITER_BLOCKED } else { 0 };
        let produced = self.progress.produced() + length as u64;
        self.progress.0[0].store(produced, Ordering::Relaxed);
        // What was said before is said again, and not looked up: the peer's reading has taken the line away.
        self.publish(CursorWord::at(produced, self.size(), flags, self.progress.said()));
        Ok(length)
    }

    /// What fits in as far as is known without another look.
    fn known_room(&self) -> usize {
        let in_flight = self.progress.produced().saturating_sub(self.progress.acknowledged());
        (u64::from(self.size()) - in_flight.min(self.size().into())) as usize
    }

    fn put(&self, parts: &[Source<'_>], mut skip: usize, mut length: usize) {
        let ring = self.connection.peer_buffer() + CDC_BYTES;
        let size = self.size() as usize;
        let mut at = (self.progress.produced() % size as u64) as usize;
        for part in parts {
            let from = skip.min(part.length());
            skip -= from;
            let taken = (part.length() - from).min(length);
            // In two pieces where the ring begins anew.
            let first = taken.min(size - at);
            self.connection.region().copy_from(ring + at, part, from, first);
            if taken > first {
                self.connection.region().copy_from(ring, part, from + first, taken - first);
            }
            at = (at + taken) % size;
            length -= taken;
            if length == 0 {
                break;
            }
        }
    }

    fn publish(&self, cursor: CursorWord) {
        let word = self.connection.region().word(self.connection.peer_buffer() + PRODUCER);
        word.store(cursor.to_word(), Ordering::Release);
    }

    /// Bytes sent so far: as long as they stay the same, nobody sends.
    #[inline]
    pub fn sent(&self) -> u64 {
        self.progress.produced()
    }

    /// Gives the memory of the ring that we send into back to the system, if nothing is in it: whether it was given. Nobody may be
    /// sending. It comes again, a page at a time, when something is sent.
    pub fn give_back(&self) -> bool {
        let is_empty = self.unread_by_peer() == 0;
        if is_empty {
            self.connection.discard_peer_ring();
        }
        is_empty
    }

    /// Says `states` about ourselves. Nobody may be sending.
    pub fn say(&self, states: u8) {
        let said = self.progress.0[5].fetch_or(states.into(), Ordering::Relaxed) as u8 | states;
        let cursor = CursorWord::at(self.progress.produced(), self.size(), 0, said);
        self.publish(cursor);
    }

    fn peer_word(&self) -> CursorWord {
        let word = self.connection.region().word(self.connection.own_buffer() + PRODUCER).load(Ordering::Acquire);
        CursorWord::from_word(word)
    }

    /// What the peer says about itself, see [`state`]. What it sent before it said so is in the ring.
    #[inline]
    pub fn peer_state(&self) -> u8 {
        self.peer_word().state
    }

    /// Bytes that can be received.
    #[inline]
    pub fn readable(&self) -> Result<usize, Violation> {
        Ok(self.peer_word().ahead_of(self.progress.consumed(), self.size())? as usize)
    }

    /// Whether so many bytes are known to be there, without a look at what the peer says.
    #[inline]
    pub fn has_seen(&self, bytes: usize) -> bool {
        self.progress.seen().saturating_sub(self.progress.consumed()) >= bytes as u64
    }

    /// Takes what there is into `parts`, `skip` bytes left out at their beginning: how much. Whether the peer must be told of the
    /// room ([`Connection::notify`]) is the second value.
    #[inline]
    pub fn receive(&self, parts: &[Target<'_>], skip: usize) -> Result<(usize, bool), Violation> {
        // The cache line of the peer's word is only fetched when what was seen of it last does not suffice: a reader that is
        // slower than the writer lets it write in peace.
        let mut readable = self.progress.seen().saturating_sub(self.progress.consumed()) as usize;
        if readable < parts.iter().map(Target::length).sum::<usize>() - skip {
            readable = self.readable()?;
            self.progress.0[4].store(self.progress.consumed() + readable as u64, Ordering::Relaxed);
        }
        let length = self.get(parts, skip, readable);
        let next = (self.progress.consumed() as usize + length) % self.size() as usize;
        self.connection
            .region()
            .prefetch_to_read(self.connection.own_buffer() + CDC_BYTES + next, AHEAD.min(readable - length));
        Ok((length, self.consume(length, readable)))
    }

    /// As [`Self::receive`], but leaves the bytes where they are.
    pub fn peek(&self, parts: &[Target<'_>], skip: usize) -> Result<usize, Violation> {
        let readable = self.readable()?;
        Ok(self.get(parts, skip, readable))
    }

    /// As [`Self::receive`], but throws away at most `length` bytes.
    pub fn skip(&self, length: usize) -> Result<(usize, bool), Violation> {
        let readable = self.readable()?;
        let length = length.min(readable);
        Ok((length, self.consume(length, readable)))
    }

    /// Changes whenever the peer has sent, or said something about itself.
    #[inline]
    pub fn peer_mark(&self) -> u64 {
        self.connection.region().word(self.connection.own_buffer() + PRODUCER).load(Ordering::Acquire)
    }

    fn get(&self, parts: &[Target<'_>], mut skip: usize, available: usize) -> usize {
        let ring = self.connection.own_buffer() + CDC_BYTES;
        let size = self.size() as usize;
        let mut at = (self.progress.consumed() % size as u64) as usize;
        let mut left = available;
        for part in parts {
            let to = skip.min(part.length());
            skip -= to;
            let taken = (part.length() - to).min(left);
            let first = taken.min(size - at);
            self.connection.region().copy_to(ring + at, part, to, first);
            if taken > first {
                self.connection.region().copy_to(ring, part, to + first, taken - first);
            }
            at = (at + taken) % size;
            left -= taken;
            if left == 0 {
                break;
            }
        }
        available - left
    }

    /// Where the peer's next byte will stand in the ring that we receive in.
    pub(crate) fn end_of_readable(&self) -> Result<u64, Violation> {
        Ok(self.progress.consumed() + self.readable()? as u64)
    }

    /// Where the next byte that is received stands.
    pub(crate) fn begin_of_readable(&self) -> u64 {
        self.progress.consumed()
    }

    /// Where the next byte that is sent will stand.
    pub(crate) fn end_of_sent(&self) -> u64 {
        self.progress.produced()
    }

    /// Puts `bytes`, which were received already, into the ring that we receive in, at `position`. The peer has stopped to
    /// send there.
    pub(crate) fn put_back(&self, position: u64, bytes: &[u8]) {
        let size = self.size() as usize;
        let at = (position % size as u64) as usize;
        let first = bytes.len().min(size - at);
        let ring = self.connection.own_buffer() + CDC_BYTES;
        self.connection.region().copy_in(ring + at, &bytes[..first]);
        self.connection.region().copy_in(ring, &bytes[first..]);
    }

    /// What stands at `position` of the ring that we send into.
    pub(crate) fn read_sent(&self, position: u64, bytes: &mut [u8]) {
        let size = self.size() as usize;
        let at = (position % size as u64) as usize;
        let (length, first) = (bytes.len(), bytes.len().min(size - at));
        let ring = self.connection.peer_buffer() + CDC_BYTES;
        let target = Target::new(bytes);
        self.connection.region().copy_to(ring + at, &target, 0, first);
        self.connection.region().copy_to(ring, &target, first, length - first);
    }

    /// Bytes that a ring holds.
    pub(crate) fn capacity(&self) -> u64 {
        self.size().into()
    }

    /// `length` of `readable` bytes are taken. Whether the peer must be told.
    #[inline]
    fn consume(&self, length: usize, readable: usize) -> bool {
        let consumed = self.progress.consumed() + length as u64;
        self.progress.0[2].store(consumed, Ordering::Relaxed);
        self.connection.note_consumed(consumed);
        // When it matters: RFC 7609 §4.5.1 leaves that to us, Linux does so from a tenth of the buffer and 2 KiB on.
        let is_due = consumed - self.progress.announced() >= u64::from(self.size() / 10).max(2048);
        is_due && self.acknowledge(consumed, readable - length)
    }

    /// Tells the peer how much was taken. A writer that waits is woken when there is room for more than crumbs; as the last tenth is
    /// told of when all is taken, one that waits for half is never forgotten.
    fn acknowledge(&self, consumed: u64, left: usize) -> bool {
        let cursor = CursorWord::at(consumed, self.size(), 0, 0);
        self.connection
            .region()
            .word(self.connection.peer_buffer() + CONSUMER)
            .store(cursor.to_word(), Ordering::Release);
        self.progress.0[3].store(consumed, Ordering::Relaxed);
        // A writer that finds the ring full says so, and then looks once more itself.
        fence(Ordering::SeqCst);
        let is_waited_for = self.peer_word().flags & flags::WRITER_BLOCKED != 0 || self.connection.peer_wants_room();
        is_waited_for && self.size() as usize - left >= self.worthwhile()
    }
}

#[cfg(test)]
mod tests;
