//! How a connection that has been moved becomes TCP again, live: for what only TCP can do (another program, another process,
//! urgent data).
//!
//! Behind the switch TCP carries doorbells, bytes of value 0 ([`BELL`]). A byte of value 1, the [`MARK`], is the last of them: what
//! follows it is the program's again. Each end sends one mark, once, and no doorbell behind it. Which bytes of the ring come in
//! front of what follows the mark is known in one of two ways:
//!
//! - The sender *goes back* ([`go_back`]): it sends nothing into the ring any more, says so in its control words, and sends the
//!   mark. The reader reads the ring to its end, then TCP behind the mark. So it can as long as it has this library.
//! - The reader *recalls* ([`Recall`]), because soon it will have only TCP: the sender is to send over TCP what the reader has
//!   not read, then goes on there.
//!
//! An end that leaves does both: it recalls what the other has sent, and goes back with what it sends itself. From then on it
//! has nothing but TCP. The other end ([`Answer`]) needs its rings until it has sent again what it was asked to, and has read
//! what the one that left had put into its ring.
//!
//! # A recall
//!
//! ```text
//!       reader, which leaves                          sender
//!   ASKED, and a word to a home of the sender's
//!                                                 puts nothing into the ring any more,
//!                                                 ACCEPTED, mark
//!   takes what is left of TCP, up to the mark;
//!   FOR GOOD (or GIVEN), and which bytes
//!                                                 sends those over TCP (TAKEN),
//!                                                 then what its program sends
//! ```
//!
//! The state is one word of the reader's that both change by compare and exchange, so that an end which has waited long enough can
//! take its question back, or learns that it was answered. Before the answer nothing has changed for either. The bytes are
//! sent from the ring's memory, which stays with the sender: the reader may vanish as soon as it has said FOR GOOD.
//!
//! A reader that had not read all that TCP brought before the switch has to give those bytes back, too: it puts them, with those
//! of the ring behind them, into the ring anew, in as many pieces as it takes (GIVEN, TAKEN).
//!
//! A sender that has never sent into the ring accepts, stays with TCP, and sends no mark.
//!
//! All that the peer writes is checked: it can make us send bytes of the ring once more, over its own connection, and nothing
//! else.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use crate::arena::Connection;
use crate::ring::Rings;
use crate::shared_memory::Target;

/// A byte that only wakes.
pub const BELL: u8 = 0;
/// The last byte that is not the program's.
pub const MARK: u8 = 1;

/// Bytes that are sent again at a time.
const CHUNK: usize = 16_384;

/// Pieces of 4 KiB that a reader takes out of TCP in one step, so that a peer which sends for ever does not keep it there.
const DRAINED_AT_ONCE: usize = 256;
/// More than any TCP has in its buffers.
const BACKLOG: usize = 1 << 28;

/// TCP, which never waits here.
pub trait Stream {
    /// Sends as much as has room: 0 if nothing has.
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Errno>;

    /// Looks at what there is, or takes it: `None` if there is nothing, 0 bytes at the end.
    fn receive(&mut self, bytes: &mut [u8], is_peek: bool) -> Result<Option<usize>, Errno>;
}

/// The value of the word that a recall goes by.
mod recall {
    pub(super) const NONE: u64 = 0;
    pub(super) const ASKED: u64 = 1;
    pub(super) const ACCEPTED: u64 = 2;
    /// There are bytes to be sent; others will follow.
    pub(super) const GIVEN: u64 = 3;
    /// They were sent.
    pub(super) const TAKEN: u64 = 4;
    /// There are bytes to be sent, the last ones.
    pub(super) const FOR_GOOD: u64 = 5;
}

fn change(word: &AtomicU64, from: u64, to: u64) -> bool {
    word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}

/// Why an end cannot leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackError {
    /// TCP has ended before the mark, or failed.
    #[error("TCP ended before the connection was there again")]
    Ended,
    /// The peer has written what cannot be.
    #[error("the peer does not keep to the rules")]
    Violated,
}

/// What a step has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is nothing more to do.
    Done,
    /// It goes on when the peer has done something.
    Peer,
    /// It goes on when TCP has brought something, or has room.
    Tcp,
}

/// A reader's recall, see the module.
#[derive(Debug, Default)]
pub struct Recall {
    stage: Stage,
    /// What was received already and goes back to the sender, behind the first `given` bytes.
    backlog: Vec<u8>,
    given: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    New,
    Asked,
    /// So many bytes of the program's come over TCP before the doorbells.
    Drains(u64),
    Gives,
    Done,
}

impl Recall {
    /// Goes as far as can be gone now. `received` bytes of the program's were taken out of TCP before. Nobody may be receiving.
    pub fn step(&mut self, rings: &Rings<'_>, stream: &mut impl Stream, received: u64) -> Result<Step, BackError> {
        let connection = rings.connection();
        let word = connection.recall(true);
        loop {
            match self.stage {
                Stage::New => {
                    if !change(word, recall::NONE, recall::ASKED) {
                        return Err(BackError::Violated);
                    }
                    self.stage = Stage::Asked;
                }
                Stage::Asked => match word.load(Ordering::SeqCst) {
                    recall::ASKED => return Ok(Step::Peer),
                    recall::ACCEPTED => {
                        self.stage = match connection.peer_switch() {
                            Some(switch) => Stage::Drains(switch.saturating_sub(received)),
                            None => Stage::Done,
                        };
                    }
                    _ => return Err(BackError::Violated),
                },
                Stage::Drains(rest) => match self.drain(rest, stream)? {
                    Some(rest) => {
                        self.stage = Stage::Drains(rest);
                        return Ok(Step::Tcp);
                    }
                    None => {
                        self.stage = Stage::Gives;
                        if let Some(step) = self.begin_to_give(rings)? {
                            return Ok(step);
                        }
                    }
                },
                Stage::Gives => match word.load(Ordering::SeqCst) {
                    recall::TAKEN => self.give(rings),
                    recall::GIVEN => return Ok(Step::Peer),
                    _ => return Err(BackError::Violated),
                },
                Stage::Done => return Ok(Step::Done),
            }
        }
    }

    /// Takes the question back: whether that was in time.
    pub fn cancel(&mut self, connection: &Connection) -> bool {
        self.stage == Stage::New
            || self.stage == Stage::Asked && change(connection.recall(true), recall::ASKED, recall::NONE)
    }

    /// Takes the rest of the program's bytes, and what is not the program's up to the mark; the rest that is still to come.
    fn drain(&mut self, mut rest: u64, stream: &mut impl Stream) -> Result<Option<u64>, BackError> {
        let mut bytes = [0; 4096];
        for _ in 0..DRAINED_AT_ONCE {
            let there = match stream.receive(&mut bytes, true) {
                Ok(None) => return Ok(Some(rest)),
                Ok(Some(0)) | Err(_) => return Err(BackError::Ended),
                Ok(Some(there)) => there,
            };
            let programs = rest.min(there as u64) as usize;
            let bells = bytes[programs..there].iter().take_while(|byte| **byte == BELL).count();
            let has_mark = bytes[..there].get(programs + bells).is_some();
            self.backlog.extend_from_slice(&bytes[..programs]);
            rest -= programs as u64;
            take_exactly(stream, programs + bells + usize::from(has_mark))?;
            if has_mark {
                return Ok(None);
            }
            if self.backlog.len() > BACKLOG {
                return Err(BackError::Violated);
            }
        }
        Ok(Some(rest))
    }

    /// With TCP empty the bytes in the ring stay where they are; otherwise they come behind TCP's.
    fn begin_to_give(&mut self, rings: &Rings<'_>) -> Result<Option<Step>, BackError> {
        let end = rings.end_of_readable().map_err(|_| BackError::Violated)?;
        if self.backlog.is_empty() {
            self.publish(rings.connection(), rings.begin_of_readable(), end, recall::FOR_GOOD);
            self.stage = Stage::Done;
            return Ok(Some(Step::Done));
        }
        let mut rest = vec![0; (end - rings.begin_of_readable()) as usize];
        let (taken, _) = rings.receive(&[Target::new(&mut rest)], 0).map_err(|_| BackError::Violated)?;
        self.backlog.extend_from_slice(&rest[..taken]);
        self.give(rings);
        Ok(None)
    }

    fn give(&mut self, rings: &Rings<'_>) {
        let (left, capacity) = (&self.backlog[self.given..], rings.capacity() as usize);
        // The last piece is a whole ring: what is in front of it came out of TCP, and fits in there again.
        let piece = &left[..match left.len() % capacity {
            0 => capacity.min(left.len()),
            odd => odd,
        }];
        let (from, length) = (rings.begin_of_readable(), piece.len());
        rings.put_back(from, piece);
        self.given += length;
        let is_last = self.given == self.backlog.len();
        self.stage = if is_last { Stage::Done } else { Stage::Gives };
        let state = if is_last { recall::FOR_GOOD } else { recall::GIVEN };
        self.publish(rings.connection(), from, from + length as u64, state);
    }

    fn publish(&self, connection: &Connection, from: u64, to: u64, state: u64) {
        for (word, value) in connection.recall_range(true).into_iter().zip([from, to]) {
            word.store(value, Ordering::SeqCst);
        }
        connection.recall(true).store(state, Ordering::SeqCst);
    }
}

fn take_exactly(stream: &mut impl Stream, mut length: usize) -> Result<(), BackError> {
    let mut bytes = [0; 4096];
    while length > 0 {
        match stream.receive(&mut bytes[..length], false) {
            Ok(Some(taken)) if taken > 0 => length -= taken,
            _ => return Err(BackError::Ended),
        }
    }
    Ok(())
}

/// A sender that goes back by itself: what it has put into the ring stays there, and `answer` sends the mark alone. From then on
/// nothing may go into the ring, and no doorbell be rung. One that has never sent into the ring sends no mark. The
/// connection is the peer's from now on: dropped here, it is not given back.
pub fn go_back(rings: &Rings<'_>, answer: Answer<'_>) {
    answer.become_more(Answer::SENDING | Answer::LAST);
    rings.connection().go_back(rings.end_of_sent());
}

/// Whether the peer has asked for its bytes, and was not answered.
#[inline]
pub fn is_asked(connection: &Connection) -> bool {
    connection.recall(false).load(Ordering::SeqCst) == recall::ASKED
}

/// Accepts a recall: whether it still stands. Nobody may be sending into the ring, and nobody may from now on.
pub fn accept(connection: &Connection) -> bool {
    change(connection.recall(false), recall::ASKED, recall::ACCEPTED)
}

/// How far a sender is that was asked for its bytes, in words that all processes have which may be sending: 0 at the beginning.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a>(&'a [AtomicU64; 3]);

impl<'a> Answer<'a> {
    const MARKED: u64 = 1;
    const SENDING: u64 = 2;
    const LAST: u64 = 4;
    const DONE: u64 = 8;

    /// In these words.
    pub const fn new(words: &'a [AtomicU64; 3]) -> Self {
        Self(words)
    }

    fn is(self, state: u64) -> bool {
        self.0[0].load(Ordering::Acquire) & state != 0
    }

    fn become_more(self, state: u64) {
        self.0[0].fetch_or(state, Ordering::AcqRel);
    }

    /// Sends the mark, and again over TCP what the peer asks for, as far as there is room. One thread at a time.
    pub fn step(self, rings: &Rings<'_>, stream: &mut impl Stream) -> Result<Step, Errno> {
        if self.is(Self::DONE) {
            return Ok(Step::Done);
        }
        if !self.is(Self::MARKED) {
            if stream.send(&[MARK])? == 0 {
                return Ok(Step::Tcp);
            }
            self.become_more(Self::MARKED);
        }
        loop {
            if !self.is(Self::SENDING) && !self.begin_piece(rings)? {
                return Ok(Step::Peer);
            }
            if !self.send_piece(rings, stream)? {
                return Ok(Step::Tcp);
            }
            if self.is(Self::LAST) {
                self.become_more(Self::DONE);
                return Ok(Step::Done);
            }
            self.0[0].fetch_and(!Self::SENDING, Ordering::AcqRel);
            if !change(rings.connection().recall(false), recall::GIVEN, recall::TAKEN) {
                return Err(Errno::CONNRESET);
            }
        }
    }

    fn begin_piece(self, rings: &Rings<'_>) -> Result<bool, Errno> {
        let state = rings.connection().recall(false).load(Ordering::SeqCst);
        if state != recall::GIVEN && state != recall::FOR_GOOD {
            return Ok(false);
        }
        let [from, to] = rings.connection().recall_range(false).map(|word| word.load(Ordering::SeqCst));
        let is_piece = |length| length <= rings.capacity() && (length > 0 || state == recall::FOR_GOOD);
        if !to.checked_sub(from).is_some_and(is_piece) {
            return Err(Errno::CONNRESET);
        }
        self.0[1].store(from, Ordering::Relaxed);
        self.0[2].store(to, Ordering::Relaxed);
        self.become_more(if state == recall::FOR_GOOD { Self::SENDING | Self::LAST } else { Self::SENDING });
        Ok(true)
    }

    fn send_piece(self, rings: &Rings<'_>, stream: &mut impl Stream) -> Result<bool, Errno> {
        let to = self.0[2].load(Ordering::Relaxed);
        let mut bytes = [0; CHUNK];
        loop {
            let from = self.0[1].load(Ordering::Relaxed);
            let length = (to - from).min(CHUNK as u64) as usize;
            if length == 0 {
                return Ok(true);
            }
            rings.read_sent(from, &mut bytes[..length]);
            let sent = stream.send(&bytes[..length])?;
            if sent == 0 {
                return Ok(false);
            }
            self.0[1].store(from + sent as u64, Ordering::Relaxed);
        }
    }
}

/// How many bytes may be taken out of TCP at a time while it carries doorbells, if `taken` were already. At least one: it
/// is a doorbell or the mark; all others are known to be doorbells.
pub fn doorbells(connection: &Connection, taken: u64) -> usize {
    connection.peer_bells().saturating_sub(taken).clamp(1, 4096) as usize
}

/// Where a reader's next byte comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// TCP, and at most so many of them.
    Tcp(u64),
    /// The ring.
    Ring,
    /// TCP, but the mark has to be taken first.
    Mark,
    /// TCP, without an end.
    TcpAgain,
}

/// Where the next byte comes from for a reader that has taken `received` bytes of the program's out of TCP before the mark, and
/// has or has not taken that.
pub fn source(rings: &Rings<'_>, received: u64, is_marked: bool) -> Source {
    let connection = rings.connection();
    match connection.peer_switch() {
        None if connection.has_peer_gone_back() => Source::TcpAgain,
        None => Source::Tcp(u64::MAX),
        Some(switch) if received < switch => Source::Tcp(switch - received),
        // It says so behind its last byte in the ring, which is looked for afterwards.
        Some(_) if !connection.has_peer_gone_back() || rings.readable() != Ok(0) => Source::Ring,
        Some(_) if is_marked => Source::TcpAgain,
        Some(_) => Source::Mark,
    }
}
