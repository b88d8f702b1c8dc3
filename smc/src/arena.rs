//! The memory between two processes: the rings of all connections that one of them, the acceptor, has accepted from the other,
//! the connector, and who waits for which.
//!
//! ```text
//! header            magic, id, geometry
//! sleepers          an end, a waiter: a word of its own cache line, not 0 while that waiter sleeps
//! summary, ready    an end: a bit a connection (and one for 64 of those) that something happened to
//! control           a connection, an end: three cache lines, see [`control`]
//! buffers           a connection, an end: SMC-D's DMB, CDC message first; what that end receives
//! ```
//!
//! Indices are given out by the acceptor, out of memory of its own. What stands in here is the peer's as much as ours: nothing
//! read here is used before it is checked, and what a bad peer can reach are the connections between these two processes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

use crate::shared_memory::{AttachError, PAGE, Region};

/// Waiters (epoll instances) that an end can have: more share the last.
pub const WAITERS: usize = 64;

/// Most connections that one arena has room for.
pub const MAX_CAPACITY: u32 = 65_536;

/// Bytes of a ring, least and most: RFC 7609 §4.4.2 gives sizes in a four-bit code, Linux takes codes 0 to 5.
pub const RING_BYTES: std::ops::RangeInclusive<u32> = 16_384..=524_288;

const MAGIC: u64 = u64::from_be_bytes(*b"SRDMAsmc");
const LINE: usize = 64;
/// Cache lines of a connection's control block, an end.
const CONTROL_LINES: usize = 3;
const CONTROL: usize = 2 * CONTROL_LINES * LINE;

/// How large an arena is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Connections.
    pub capacity: u32,
    /// Bytes that each of their two rings holds: a power of two in [`RING_BYTES`].
    pub ring_bytes: u32,
}

impl Geometry {
    /// Whether an arena can be so large.
    pub fn is_valid(self) -> bool {
        (1..=MAX_CAPACITY).contains(&self.capacity)
            && self.ring_bytes.is_power_of_two()
            && RING_BYTES.contains(&self.ring_bytes)
    }

    fn summary_words(self) -> usize {
        self.ready_words().div_ceil(64)
    }

    fn ready_words(self) -> usize {
        (self.capacity as usize).div_ceil(64)
    }

    /// Bytes from one buffer to the next: the CDC message takes the beginning of a page.
    fn stride(self) -> usize {
        self.ring_bytes as usize + PAGE
    }

    fn layout(self) -> Layout {
        let mut end = PAGE;
        let mut take = |bytes: usize| {
            let start = end;
            end += bytes.next_multiple_of(PAGE);
            start
        };
        let sleepers = take(2 * WAITERS * LINE);
        let summary = [take(8 * self.summary_words()), take(8 * self.summary_words())];
        let ready = [take(8 * self.ready_words()), take(8 * self.ready_words())];
        let control = take(CONTROL * self.capacity as usize);
        let buffers = take(2 * self.stride() * self.capacity as usize);
        Layout { sleepers, summary, ready, control, buffers, length: end }
    }
}

/// Where things are, in bytes from the beginning.
#[derive(Debug)]
struct Layout {
    sleepers: usize,
    summary: [usize; 2],
    ready: [usize; 2],
    control: usize,
    buffers: usize,
    length: usize,
}

/// The two ends of an arena, and of every connection in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Whose connections were accepted.
    Acceptor = 0,
    /// Whose connections connected.
    Connector = 1,
}

impl Side {
    /// The other one.
    pub const fn peer(self) -> Self {
        match self {
            Self::Acceptor => Self::Connector,
            Self::Connector => Self::Acceptor,
        }
    }
}

/// Why there is no arena, or no connection in it.
#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    /// No arena is so small or so large.
    #[error("an arena of {} connections with rings of {} bytes: 1 to {MAX_CAPACITY}, and a power of two from {} to {}",
        .0.capacity, .0.ring_bytes, RING_BYTES.start(), RING_BYTES.end())]
    Geometry(Geometry),
    /// It could not be mapped.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// It could not be made.
    #[error("making an arena: {0}")]
    Create(#[from] io::Error),
    /// What stands in it is not what was announced.
    #[error("the memory is not the arena that was announced")]
    Foreign,
    /// All its connections are in use.
    #[error("all {0} connections of the arena are in use")]
    Full(u32),
    /// The peer names a connection that it was not given.
    #[error("token {0:#x} names no connection that waits for its other end")]
    Token(u64),
}

/// See the module.
#[derive(Debug)]
pub struct Arena {
    region: Region,
    layout: Layout,
    geometry: Geometry,
    id: u64,
    side: Side,
    /// The acceptor's book of indices.
    indices: Mutex<Indices>,
}

#[derive(Debug, Default)]
struct Indices {
    /// Given out so far; higher ones are as new.
    used: u32,
    /// Where the search for released ones goes on.
    next: u32,
}

impl Arena {
    /// A new arena, of which this process is the acceptor, and what the connector needs to attach to it.
    pub fn create(geometry: Geometry, id: u64) -> Result<(Self, OwnedFd), ArenaError> {
        if !geometry.is_valid() {
            return Err(ArenaError::Geometry(geometry));
        }
        let layout = geometry.layout();
        let (region, memory) = Region::create("softrdma-smc-arena", layout.length)?;
        for (at, value) in header(geometry, id).into_iter().enumerate() {
            region.word(8 * at).store(value, Ordering::Release);
        }
        Ok((Self { region, layout, geometry, id, side: Side::Acceptor, indices: Mutex::default() }, memory))
    }

    /// The arena that the acceptor has announced as such, for the connector.
    pub fn attach(memory: impl AsFd, geometry: Geometry, id: u64) -> Result<Self, ArenaError> {
        if !geometry.is_valid() {
            return Err(ArenaError::Geometry(geometry));
        }
        let layout = geometry.layout();
        let region = Region::attach(memory, layout.length)?;
        let said = header(geometry, id);
        if (0..said.len()).any(|at| region.word(8 * at).load(Ordering::Acquire) != said[at]) {
            return Err(ArenaError::Foreign);
        }
        Ok(Self { region, layout, geometry, id, side: Side::Connector, indices: Mutex::default() })
    }

    /// What both ends call it.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// How large it is.
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Which end this process is.
    pub const fn side(&self) -> Side {
        self.side
    }

    /// A connection that nobody uses, for the acceptor; `random` makes its tokens hard to guess.
    pub fn claim(self: &Arc<Self>, random: u64) -> Result<Connection, ArenaError> {
        let index = self.free_index().ok_or(ArenaError::Full(self.geometry.capacity))?;
        let tokens = [Side::Acceptor, Side::Connector].map(|side| token(index, side, random));
        for side in [Side::Acceptor, Side::Connector] {
            for word in self.control::<24>(index, side) {
                word.store(0, Ordering::Relaxed);
            }
            for word in self.region.words::<4>(self.buffer(index, side)) {
                word.store(0, Ordering::Relaxed);
            }
            self.control::<24>(index, side)[control::TOKEN].store(tokens[side as usize], Ordering::Release);
        }
        Ok(Connection::new(self, index, tokens))
    }

    /// The connection that the acceptor calls `peer_token`, for the connector.
    pub fn join(self: &Arc<Self>, peer_token: u64) -> Result<Connection, ArenaError> {
        let index = (peer_token >> 1) as u32 & (MAX_CAPACITY - 1);
        let unknown = ArenaError::Token(peer_token);
        if index >= self.geometry.capacity || peer_token & 1 != Side::Acceptor as u64 {
            return Err(unknown);
        }
        let tokens = [Side::Acceptor, Side::Connector]
            .map(|side| self.control::<24>(index, side)[control::TOKEN].load(Ordering::Acquire));
        let mine = &self.control::<24>(index, Side::Connector)[control::JOINED];
        if tokens[0] != peer_token || tokens[1] == 0 || mine.swap(1, Ordering::AcqRel) != 0 {
            return Err(unknown);
        }
        Ok(Connection::new(self, index, tokens))
    }

    fn free_index(&self) -> Option<u32> {
        let mut indices = self.indices.lock().unwrap_or_else(PoisonError::into_inner);
        // Some are looked at for one that both ends have left, before memory is touched that never was; all, if none is left.
        let looks = if indices.used < self.geometry.capacity { indices.used.min(64) } else { indices.used };
        for _ in 0..looks {
            let index = indices.next % indices.used;
            indices.next = indices.next.wrapping_add(1);
            let is_left = |side| self.control::<24>(index, side)[control::RELEASED].load(Ordering::Acquire) != 0;
            if is_left(Side::Acceptor) && is_left(Side::Connector) {
                return Some(index);
            }
        }
        let index = indices.used;
        (index < self.geometry.capacity).then(|| {
            indices.used += 1;
            index
        })
    }

    fn control<const N: usize>(&self, index: u32, side: Side) -> &[AtomicU64; N] {
        const { assert!(8 * N <= CONTROL_LINES * LINE) }
        self.region.words(self.layout.control + CONTROL * index as usize + CONTROL_LINES * LINE * side as usize)
    }

    fn buffer(&self, index: u32, side: Side) -> usize {
        self.layout.buffers + self.geometry.stride() * (2 * index as usize + side as usize)
    }

    /// Not 0 while `waiter` of `side` sleeps.
    fn sleeper(&self, side: Side, waiter: usize) -> &AtomicU64 {
        self.region.word(self.layout.sleepers + LINE * (side as usize * WAITERS + waiter % WAITERS))
    }

    /// Says that our `waiter` is about to sleep. It must look at everything once more before it does.
    pub fn fall_asleep(&self, waiter: usize) {
        if waiter < WAITERS {
            Sleeper(self.sleeper(self.side, waiter)).fall_asleep();
        }
    }

    /// Whether our `waiter` has said so since the peer looked last.
    pub fn is_asleep(&self, waiter: usize) -> bool {
        fence(Ordering::SeqCst);
        waiter < WAITERS && self.sleeper(self.side, waiter).load(Ordering::Relaxed) != 0
    }

    /// Our `waiter` is awake, unless `is_anybody_asleep` by its name.
    pub fn wake_up(&self, waiter: usize, is_anybody_asleep: impl FnOnce() -> bool) {
        if waiter < WAITERS {
            Sleeper(self.sleeper(self.side, waiter)).wake_up(is_anybody_asleep);
        }
    }

    /// Whether something happened to a connection, as far as can be told by a glance.
    #[inline]
    pub fn has_ready(&self) -> bool {
        let start = self.layout.summary[self.side as usize];
        (0..self.geometry.summary_words()).any(|at| self.region.word(start + 8 * at).load(Ordering::Acquire) != 0)
    }

    /// Takes the connections that something happened to since the last time, at most all that there are.
    pub fn take_ready(&self, mut each: impl FnMut(u32)) {
        let (summary, ready) = (self.layout.summary[self.side as usize], self.layout.ready[self.side as usize]);
        for at in 0..self.geometry.summary_words() {
            let word = self.region.word(summary + 8 * at);
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            for group in bits(word.swap(0, Ordering::AcqRel)).map(|bit| 64 * at + bit) {
                if group >= self.geometry.ready_words() {
                    continue;
                }
                for bit in bits(self.region.word(ready + 8 * group).swap(0, Ordering::AcqRel)) {
                    let index = (64 * group + bit) as u32;
                    if index < self.geometry.capacity {
                        each(index);
                    }
                }
            }
        }
    }

    fn mark_ready(&self, side: Side, index: usize) {
        let at = 8 * (index / 64);
        self.region.word(self.layout.ready[side as usize] + at).fetch_or(1 << (index % 64), Ordering::SeqCst);
        let group = index / 64;
        let word = self.region.word(self.layout.summary[side as usize] + 8 * (group / 64));
        word.fetch_or(1 << (group % 64), Ordering::SeqCst);
    }
}

fn header(geometry: Geometry, id: u64) -> [u64; 4] {
    [MAGIC, id, geometry.capacity.into(), geometry.ring_bytes.into()]
}

fn token(index: u32, side: Side, random: u64) -> u64 {
    let scattered = random.rotate_left(side as u32 * 29).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (scattered | 1 << 63) & !((u64::from(MAX_CAPACITY) << 1) - 1) | u64::from(index) << 1 | side as u64
}

fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
        word &= word - 1;
        Some(bit)
    })
}

/// A word that is not 0 while somebody sleeps. Everybody who falls asleep writes another value, so that who wakes up does not take
/// another's back.
struct Sleeper<'a>(&'a AtomicU64);

impl Sleeper<'_> {
    fn fall_asleep(&self) {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed) << 1 | 1;
        self.0.store(number, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    fn wake_up(&self, is_anybody_asleep: impl FnOnce() -> bool) {
        let said = self.0.load(Ordering::SeqCst);
        if said != 0 && !is_anybody_asleep() {
            let _ = self.0.compare_exchange(said, 0, Ordering::SeqCst, Ordering::Relaxed);
        }
    }
}

/// The words of a connection's control block, an end: those that the end itself writes.
pub mod control {
    /// Bytes sent over TCP before everything went into the ring, plus one; 0 before.
    pub const SWITCH: usize = 0;
    /// What the end is called; written by the acceptor.
    pub const TOKEN: usize = 1;
    /// The connector has joined, or may not join any more.
    pub const JOINED: usize = 2;
    /// The end will not touch the connection again.
    pub const RELEASED: usize = 3;
    /// GIDs of processes that have the end: whom the peer asks to take its bytes back. 0 for none.
    pub const HOMES: std::ops::Range<usize> = 4..8;
    /// The end sleeps until something happens to the connection. (A cache line of its own from here on.)
    pub const ASLEEP: usize = 8;
    /// The waiter that the end has for the connection, plus one; 0 for none, [`MANY`] for several.
    pub const WAITER: usize = 9;
    /// The end waits for room to send.
    pub const WANTS_ROOM: usize = 10;
    /// Doorbells that the end has rung, counted behind each.
    pub const BELLS: usize = 11;
    /// How far it is with taking back what the peer has sent and this end has not read: see [`back`](crate::back). The peer
    /// changes it, too.
    pub const RECALL: usize = 12;
    /// Which bytes of the ring the peer is to send once more, over TCP: where they begin.
    pub const RECALL_FROM: usize = 13;
    /// Where they end.
    pub const RECALL_TO: usize = 14;
    /// Where in the ring the end has gone back to TCP, plus one; 0 before.
    pub const BACK: usize = 15;
    /// How many bytes the end has taken out of its ring, to the byte. The peer looks only when the end has died: a word of
    /// a cache line of its own costs the end nothing.
    pub const CONSUMED: usize = 16;
    /// How many of the peer's bytes the end has taken from TCP.
    pub const TCP_RECEIVED: usize = 17;
    /// Several waiters: the peer wakes always.
    pub const MANY: u64 = u64::MAX;
}

/// One connection, as one end has it. Dropped, it may be given out again once the other end has left it too.
#[derive(Debug)]
pub struct Connection {
    arena: Arc<Arena>,
    index: u32,
    tokens: [u64; 2],
    /// A child of fork has it too: whoever leaves last releases.
    is_kept: bool,
}

impl Connection {
    fn new(arena: &Arc<Arena>, index: u32, tokens: [u64; 2]) -> Self {
        Self { arena: arena.clone(), index, tokens, is_kept: false }
    }

    /// Where it is.
    pub const fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// Which of the arena's it is.
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// What our end is called: SMC-D's token of the buffer that we receive in.
    pub fn own_token(&self) -> u64 {
        self.tokens[self.arena.side as usize]
    }

    /// What the peer's end is called.
    pub fn peer_token(&self) -> u64 {
        self.tokens[self.arena.side.peer() as usize]
    }

    /// Forgets it in this process; another one that inherited it has it still.
    pub fn leave(mut self) {
        self.is_kept = true;
    }

    pub(crate) fn region(&self) -> &Region {
        &self.arena.region
    }

    pub(crate) fn ring_bytes(&self) -> u32 {
        self.arena.geometry.ring_bytes
    }

    /// Where the buffer begins that our end receives in.
    pub(crate) fn own_buffer(&self) -> usize {
        self.arena.buffer(self.index, self.arena.side)
    }

    pub(crate) fn peer_buffer(&self) -> usize {
        self.arena.buffer(self.index, self.arena.side.peer())
    }

    fn own(&self) -> &[AtomicU64; 24] {
        self.arena.control(self.index, self.arena.side)
    }

    fn peer(&self) -> &[AtomicU64; 24] {
        self.arena.control(self.index, self.arena.side.peer())
    }

    /// From now on all that we send is in the ring; `sent` bytes went over TCP before.
    pub fn switch_sending(&self, sent: u64) {
        self.own()[control::SWITCH].store(sent.wrapping_add(1), Ordering::SeqCst);
    }

    /// How many bytes the peer has sent over TCP, if the rest comes through the ring.
    #[inline]
    pub fn peer_switch(&self) -> Option<u64> {
        self.peer()[control::SWITCH].load(Ordering::Acquire).checked_sub(1)
    }

    /// This process, which calls itself `gid`, has our end: the peer may ask it to take bytes back.
    pub fn add_home(&self, gid: u64) {
        let homes = &self.own()[control::HOMES];
        let is_known = homes.iter().any(|home| home.load(Ordering::Acquire) == gid);
        let take = |home: &AtomicU64| home.compare_exchange(0, gid, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        if !is_known && !homes.iter().any(take) {
            // The first stays: whoever has the connection from the beginning has it longest.
            homes[homes.len() - 1].store(gid, Ordering::SeqCst);
        }
    }

    /// The processes that have the peer's end, as it says.
    pub fn peer_homes(&self) -> impl Iterator<Item = u64> {
        self.peer()[control::HOMES].iter().map(|home| home.load(Ordering::Acquire)).filter(|gid| *gid != 0)
    }

    /// Another doorbell of ours is on its way.
    pub fn count_bell(&self) {
        self.own()[control::BELLS].fetch_add(1, Ordering::SeqCst);
    }

    /// Doorbells of the peer's that are certainly on their way, or were.
    pub fn peer_bells(&self) -> u64 {
        self.peer()[control::BELLS].load(Ordering::Acquire)
    }

    /// From `position` in the ring on we send over TCP again, behind the mark.
    pub(crate) fn go_back(&self, position: u64) {
        self.own()[control::BACK].store(position.wrapping_add(1), Ordering::SeqCst);
    }

    /// Whether the peer sends over TCP again, behind the mark and behind all that it has put into the ring.
    #[inline]
    pub fn has_peer_gone_back(&self) -> bool {
        self.peer()[control::BACK].load(Ordering::Acquire) != 0
    }

    /// How far it is with the bytes that `side` takes back.
    pub(crate) fn recall(&self, is_ours: bool) -> &AtomicU64 {
        let words = if is_ours { self.own() } else { self.peer() };
        &words[control::RECALL]
    }

    /// The bytes of the ring that go over TCP once more.
    pub(crate) fn recall_range(&self, is_ours: bool) -> [&AtomicU64; 2] {
        let words = if is_ours { self.own() } else { self.peer() };
        [&words[control::RECALL_FROM], &words[control::RECALL_TO]]
    }

    /// Says which of our waiters is told when something happens: `None` for none, a number from [`WAITERS`] on for several.
    pub fn set_waiter(&self, waiter: Option<usize>) {
        let value = match waiter {
            None => 0,
            Some(waiter) if waiter < WAITERS => waiter as u64 + 1,
            Some(_) => control::MANY,
        };
        self.own()[control::WAITER].store(value, Ordering::SeqCst);
    }

    /// Says that a thread of ours is about to sleep for this connection alone. It must look once more before it does.
    pub fn fall_asleep(&self) {
        Sleeper(&self.own()[control::ASLEEP]).fall_asleep();
    }

    /// Nobody sleeps for this connection alone, unless `is_anybody_asleep`.
    pub fn wake_up(&self, is_anybody_asleep: impl FnOnce() -> bool) {
        Sleeper(&self.own()[control::ASLEEP]).wake_up(is_anybody_asleep);
    }

    /// Says whether somebody waits for room to send. Who begins to must look once more afterwards.
    pub fn want_room(&self, wants: bool) {
        self.own()[control::WANTS_ROOM].store(wants.into(), Ordering::SeqCst);
    }

    /// Whether the peer has said so.
    #[inline]
    pub(crate) fn peer_wants_room(&self) -> bool {
        self.peer()[control::WANTS_ROOM].load(Ordering::Relaxed) != 0
    }

    /// Says how many bytes we have taken out of our ring so far.
    #[inline]
    pub(crate) fn note_consumed(&self, consumed: u64) {
        self.own()[control::CONSUMED].store(consumed, Ordering::Release);
    }

    /// Says how many of the peer's bytes we have taken from TCP so far.
    pub fn note_tcp_received(&self, received: u64) {
        self.own()[control::TCP_RECEIVED].store(received, Ordering::Release);
    }

    /// Whether the peer has not taken from TCP all that we sent there before we changed over to the ring.
    pub(crate) fn has_peer_missed_tcp(&self) -> bool {
        let switch = self.own()[control::SWITCH].load(Ordering::Acquire).checked_sub(1);
        switch.is_some_and(|switch| self.peer()[control::TCP_RECEIVED].load(Ordering::Acquire) < switch)
    }

    /// How many bytes the peer says it has taken out of its ring.
    pub(crate) fn peer_consumed(&self) -> u64 {
        self.peer()[control::CONSUMED].load(Ordering::Acquire)
    }

    /// Tells the peer that something happened: what it reads next, words and bytes, was stored before. Whether it must be
    /// woken by a doorbell; that is asked once for each sleep.
    #[inline]
    #[must_use]
    pub fn notify(&self) -> bool {
        fence(Ordering::SeqCst);
        self.notify_behind_barrier()
    }

    /// The same, behind a full barrier of the caller's.
    #[inline]
    #[must_use]
    pub fn notify_behind_barrier(&self) -> bool {
        let peer = self.peer();
        let mut is_asleep =
            peer[control::ASLEEP].load(Ordering::Relaxed) != 0 && peer[control::ASLEEP].swap(0, Ordering::AcqRel) != 0;
        let waiter = peer[control::WAITER].load(Ordering::Relaxed);
        if waiter != 0 {
            is_asleep |= self.notify_waiter(waiter);
        }
        is_asleep
    }

    fn notify_waiter(&self, waiter: u64) -> bool {
        let side = self.arena.side.peer();
        self.arena.mark_ready(side, self.index as usize);
        if waiter == control::MANY {
            return true;
        }
        let sleeper = self.arena.sleeper(side, waiter as usize - 1);
        sleeper.load(Ordering::SeqCst) != 0 && sleeper.swap(0, Ordering::AcqRel) != 0
    }

    /// Gives the memory of the ring that we send into back to the system, all but its first page. Nothing may be in it, nor may
    /// anybody be sending: then nobody looks at what is given back, whose bytes are all ours to write.
    pub(crate) fn discard_peer_ring(&self) {
        self.region().discard(self.peer_buffer() + PAGE..self.peer_buffer() + self.arena.geometry.stride());
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Who has gone back has left the connection to the peer, which may need all of it still.
        if self.is_kept || self.own()[control::BACK].load(Ordering::Acquire) != 0 {
            return;
        }
        self.set_waiter(None);
        self.wake_up(|| false);
        self.region().discard(self.own_buffer()..self.own_buffer() + self.arena.geometry.stride());
        let is_acceptor = self.arena.side == Side::Acceptor;
        // A connector that has not come yet is kept out, and leaves nothing behind that would have to be released.
        if is_acceptor && self.peer()[control::JOINED].swap(1, Ordering::AcqRel) == 0 {
            self.peer()[control::RELEASED].store(1, Ordering::SeqCst);
        }
        self.own()[control::RELEASED].store(1, Ordering::SeqCst);
        if self.has_peer_gone_back() {
            self.region().discard(self.peer_buffer()..self.peer_buffer() + self.arena.geometry.stride());
            self.peer()[control::RELEASED].store(1, Ordering::SeqCst);
        }
    }
}
