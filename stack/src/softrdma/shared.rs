//! What the two halves share: everything that one of them knows and the other needs, and nothing else.
//!
//! - For each flow a [`SharedFlow`]: what the receive half announces, stamped into every segment that leaves, and how far the
//!   send half is, which received segments are judged by. Plain numbers, each pair in one word, so a reader never sees
//!   halves of two states; one that is a little late sees an older state of the connection, as if the packets had crossed
//!   on the wire. What must not be late is written before the packet leaves ([`SharedFlow::set_next`]).
//! - [`ToSend`] and [`ToReceive`]: messages, in order. In an engine of one piece they lie in a list; between two threads in a
//!   [`Mailbox`].
//!
//! Flows are named by their slots, the same in both halves; a name that is old finds nothing.

#[cfg(all(test, loom))]
mod loom_tests;

use std::collections::VecDeque;
use std::sync::Arc;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::receiver::Receiver;
use super::tuple::Tuple;
use crate::mailbox::Mailbox;
use crate::stream::HalvesMail;
use crate::table::Name;
use crate::time::Instant;

/// The blocks of a SACK option (RFC 2018 §3), as sequence numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SackBlocks {
    blocks: [(u32, u32); Self::MOST],
    count: u8,
}

impl SackBlocks {
    /// Those that reach beyond `next`, and the first in any case if `keeps_first`.
    pub(super) fn beyond(&self, next: u32, keeps_first: bool) -> Self {
        let mut kept = Self::default();
        for (index, &(left, right)) in self.as_slice().iter().enumerate() {
            if (index == 0 && keeps_first) || (right.wrapping_sub(next) as i32) > 0 {
                kept.push(left, right);
            }
        }
        kept
    }

    /// RFC 2018 §3: 40 bytes of options hold four blocks.
    pub(super) const MOST: usize = 4;

    /// Adds a block if there is room.
    pub(super) fn push(&mut self, left: u32, right: u32) {
        if let Some(place) = self.blocks.get_mut(usize::from(self.count)) {
            *place = (left, right);
            self.count += 1;
        }
    }

    pub(super) fn as_slice(&self) -> &[(u32, u32)] {
        &self.blocks[..usize::from(self.count)]
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Those that fit beside timestamps, or without.
    pub(super) fn fitting(&self, timestamps: bool) -> &[(u32, u32)] {
        let most = if timestamps { Self::MOST - 1 } else { Self::MOST };
        &self.blocks[..usize::from(self.count).min(most)]
    }
}

/// What every segment that leaves says about the other direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Announcement {
    /// The sequence number that is expected next.
    pub(super) next: u32,
    /// Behind the last sequence number that is welcome.
    pub(super) edge: u32,
}

/// What both halves know of a flow. The first part is written by the receive half, the second by the send half; each is
/// in cache lines of its own.
#[derive(Debug, Default)]
pub(super) struct SharedFlow {
    received: Received,
    sent: Sent,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Received {
    /// [`Announcement`]: `next` below, `edge` above.
    announcement: AtomicU64,
    /// RFC 7323 §4.3: the timestamp to echo.
    recent_timestamp: AtomicU32,
    /// When the last good segment arrived, in nanoseconds.
    heard: AtomicU64,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Sent {
    /// The oldest unacknowledged sequence number below, the next one to be sent above.
    in_flight: AtomicU64,
    /// [`Announcement`] as the peer was told it last.
    told: AtomicU64,
    /// The largest window that the peer ever announced, in bytes.
    largest_window: AtomicU32,
}

impl SharedFlow {
    /// What is announced to the peer from now on. By the receive half.
    #[inline]
    pub(super) fn announce(&self, announcement: Announcement, recent_timestamp: u32) {
        // A segment with a new acknowledgement echoes no older timestamp than the one that came with what it acknowledges.
        self.received.recent_timestamp.store(recent_timestamp, Ordering::Relaxed);
        self.received.announcement.store(announcement.pack(), Ordering::Release);
    }

    #[inline]
    pub(super) fn announcement(&self) -> Announcement {
        Announcement::unpack(self.received.announcement.load(Ordering::Acquire))
    }

    #[inline]
    pub(super) fn recent_timestamp(&self) -> u32 {
        self.received.recent_timestamp.load(Ordering::Relaxed)
    }

    /// A good segment arrived.
    #[inline]
    pub(super) fn set_heard(&self, now: Instant) {
        self.received.heard.store(now.as_nanoseconds(), Ordering::Relaxed);
    }

    pub(super) fn heard(&self) -> Instant {
        Instant::from_nanoseconds(self.received.heard.load(Ordering::Relaxed))
    }

    /// The oldest sequence number in flight, and the next one to be sent.
    #[inline]
    pub(super) fn in_flight(&self) -> (u32, u32) {
        unpack(self.sent.in_flight.load(Ordering::Acquire))
    }

    /// Both ends of what is in flight. By the send half, as the following.
    pub(super) fn set_in_flight(&self, oldest: u32, next: u32) {
        self.sent.in_flight.store(pack(oldest, next), Ordering::Release);
    }

    /// The next sequence number is `next` from now on: said before the segment in front of it leaves, so that whoever sees it
    /// acknowledged has heard of it.
    #[inline]
    pub(super) fn set_next(&self, next: u32) {
        let (oldest, before) = unpack(self.sent.in_flight.load(Ordering::Relaxed));
        if (next.wrapping_sub(before) as i32) > 0 {
            self.set_in_flight(oldest, next);
        }
    }

    #[inline]
    pub(super) fn set_oldest(&self, oldest: u32) {
        let (_, next) = unpack(self.sent.in_flight.load(Ordering::Relaxed));
        self.set_in_flight(oldest, next);
    }

    /// What the peer was told last.
    #[inline]
    pub(super) fn told(&self) -> Announcement {
        Announcement::unpack(self.sent.told.load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn set_told(&self, announcement: Announcement) {
        self.sent.told.store(announcement.pack(), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn largest_window(&self) -> u32 {
        self.sent.largest_window.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn note_window(&self, window: u32) {
        if window > self.largest_window() {
            self.sent.largest_window.store(window, Ordering::Relaxed);
        }
    }
}

impl Announcement {
    const fn pack(self) -> u64 {
        pack(self.next, self.edge)
    }

    const fn unpack(word: u64) -> Self {
        let (next, edge) = unpack(word);
        Self { next, edge }
    }
}

const fn pack(low: u32, high: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

const fn unpack(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

/// Counters of the receive half, read by the other.
#[derive(Debug, Default)]
pub(super) struct ReceiveCounters {
    pub(super) bytes: AtomicU64,
    pub(super) copied_bytes: AtomicU64,
    pub(super) malformed: AtomicU64,
    /// Packets of no connection that were dropped because too many waited to be looked at.
    pub(super) dropped_strays: AtomicU64,
}

/// Adds to a counter that no other thread writes.
#[inline]
pub(super) fn add(counter: &AtomicU64, value: u64) {
    counter.store(counter.load(Ordering::Relaxed) + value, Ordering::Relaxed);
}

/// What a counter counted.
pub(super) fn counted(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// How much of a hurry an acknowledgement is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owed {
    /// None is owed.
    #[default]
    Nothing,
    /// It may wait a moment for data that carries it.
    Soon,
    /// It leaves with the next flush, if nothing carries it before.
    Now,
    /// A packet of its own has to leave: duplicate acknowledgements and selective ones count by the packet.
    Pure,
}

/// What a received segment said about our direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acknowledgement {
    pub(super) sequence: u32,
    /// Where the segment begins that said it: which of two windows is the newer one.
    pub(super) said_at: u32,
    /// As on the wire, not scaled.
    pub(super) window: u16,
    pub(super) sack: SackBlocks,
    pub(super) carries_data: bool,
}

/// What a selective acknowledgement says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Report {
    /// What arrived behind a gap, the latest first; in front of them what arrived twice (RFC 2883).
    pub(super) blocks: SackBlocks,
    /// The first block is of what arrived twice: it is said once.
    pub(super) has_duplicate: bool,
}

impl Report {
    /// What is left to report once the duplicate was.
    pub(super) fn without_duplicate(self) -> Self {
        if !self.has_duplicate {
            return self;
        }
        let mut blocks = SackBlocks::default();
        for &(left, right) in &self.blocks.as_slice()[1..] {
            blocks.push(left, right);
        }
        Self { blocks, has_duplicate: false }
    }
}

/// From the receive half to the send half. `K`: a packet.
pub(super) enum ToSend<K> {
    /// A segment acknowledged something, or moved the window.
    Acknowledged(Name, Acknowledgement),
    /// An acknowledgement is owed.
    Owed(Name, Owed, Report),
    /// The peer's FIN was reported to the layer above, behind all bytes.
    Ended(Name, PeerEnd),
    /// The peer reset the connection. The receive half has forgotten it.
    Reset(Name),
    /// A good packet of no connection that the receive half knows, or none of TCP.
    Stray(K),
}

/// The other direction when it has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerEnd {
    /// Behind the FIN.
    pub(super) next: u32,
    pub(super) recent_timestamp: Option<u32>,
}

/// From the send half to the receive half.
pub(super) enum ToReceive<K> {
    /// A handshake is done: segments of the connection are the receive half's from now on.
    Install(Box<Installed<K>>),
    /// A stray of a connection that was installed meanwhile.
    Packet(K),
    /// The connection is over.
    Remove(Name),
}

/// A connection as the receive half gets it.
pub(super) struct Installed<K> {
    pub(super) name: Name,
    pub(super) tuple: Tuple,
    pub(super) receiver: Receiver<K>,
    pub(super) shared: Arc<SharedFlow>,
}

/// Where messages are left, in order.
pub(super) enum Outbox<T> {
    /// One thread drives both halves.
    Here(VecDeque<T>),
    /// Each half has a thread.
    Shared(Arc<Mailbox<T>>),
}

impl<T> Outbox<T> {
    pub(super) const fn new() -> Self {
        Self::Here(VecDeque::new())
    }

    #[inline]
    pub(super) fn push(&mut self, message: T) {
        match self {
            Self::Here(messages) => messages.push_back(message),
            Self::Shared(mailbox) => mailbox.push(message),
        }
    }

    /// The reader is far behind. Never so where one thread drives both halves: it reads after every burst.
    pub(super) fn is_crowded(&self) -> bool {
        match self {
            Self::Here(_) => false,
            Self::Shared(mailbox) => mailbox.is_crowded(),
        }
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        match self {
            Self::Here(messages) => messages.pop_front(),
            Self::Shared(mailbox) => mailbox.pop(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Here(messages) => messages.is_empty(),
            Self::Shared(mailbox) => mailbox.is_empty(),
        }
    }

    /// The same messages for two threads.
    pub(super) fn share(&mut self, capacity: usize) -> Arc<Mailbox<T>> {
        let mailbox = Arc::new(Mailbox::new(capacity));
        while let Some(message) = self.pop() {
            mailbox.push(message);
        }
        *self = Self::Shared(mailbox.clone());
        mailbox
    }
}

/// Both mailboxes, for whoever drives the halves.
pub(super) struct Mail<K> {
    pub(super) to_send: Arc<Mailbox<ToSend<K>>>,
    pub(super) to_receive: Arc<Mailbox<ToReceive<K>>>,
}

impl<K: Send> HalvesMail for Mail<K> {
    fn is_for_receive(&self) -> bool {
        !self.to_receive.is_empty()
    }

    fn is_for_send(&self) -> bool {
        !self.to_send.is_empty()
    }
}
