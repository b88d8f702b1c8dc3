//! A TCP connection of the program's, and how far it has come on its way into shared memory.

mod bells;
mod holding;
mod switch;

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use softrdma_smc::arena::Connection;
use softrdma_smc::descriptors::Private;
use softrdma_smc::names::Announcement;
use softrdma_smc::ring::{Progress, Rings, state};
use softrdma_smc::statistics;
use softrdma_smc::wire::clc::DeclineReason;

use crate::abi::kernel;
use crate::capture::Captured;
use crate::course::{self, Course};
use crate::epoll::Registration;
use crate::fork;
use crate::lock::Lock;
use crate::shared_words::{SharedWords, WORDS};
use crate::show;
use crate::spin::{Pace, Spin};
use crate::table::{self, Entry};
use crate::upgrade;

/// What the words of a connection are; the first counts its holders.
mod word {
    pub(super) const MODE: usize = 1;
    /// How many threads are sending over TCP just now; at the top, where sending goes.
    pub(super) const SEND_GATE: usize = 2;
    pub(super) const SENT: usize = 3;
    pub(super) const RECEIVED: usize = 4;
    pub(super) const TRANSFERS: usize = 5;
    /// How many threads are receiving over TCP just now.
    pub(super) const READERS: usize = 6;
    pub(super) const FLAGS: usize = 7;
    pub(super) const SEND_LOCK: usize = 8;
    pub(super) const RECEIVE_LOCK: usize = 9;
    pub(super) const PROGRESS: usize = 10;
    /// Held while a doorbell is rung, and when no more are to be.
    pub(super) const BELL_LOCK: usize = 16;
    /// How many doorbells were taken.
    pub(super) const BELLS_TAKEN: usize = 17;
    /// How far the bytes are that the peer has asked to be sent over TCP once more.
    pub(super) const ANSWER: usize = 18;
}

/// Sending goes into the ring as soon as the peer knows from which byte on.
const SWITCHING: u64 = 1 << 32;
/// Sending goes into the ring.
const SWITCHED: u64 = 1 << 33;
/// Nothing goes into the ring any more, and no doorbells are rung.
const RETURNING: u64 = 1 << 34;
/// Sending goes over TCP for good.
const RETURNED: u64 = 1 << 35;

/// How long a close waits for those who have the connection just now, so that the peer hears of it before TCP ends.
const PATIENCE: Duration = Duration::from_millis(2);

/// Where a connection is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u64)]
pub(crate) enum Mode {
    /// Not connected, or somebody else's business.
    Idle = 0,
    /// Over TCP, for now.
    Undecided = 1,
    /// The peer may begin to send through the ring.
    Prepared = 2,
    /// So may we.
    Ring = 3,
    /// Over TCP, for good.
    Plain = 4,
}

/// What has happened to a connection, in bits.
pub(crate) mod flag {
    /// The program's calls do not wait.
    pub(crate) const NONBLOCKING: u64 = 1;
    /// The program receives no more.
    pub(crate) const RECEIVING_SHUT: u64 = 2;
    /// The program sends no more.
    pub(crate) const SENDING_SHUT: u64 = 4;
    /// TCP has come to its end.
    pub(crate) const TCP_ENDED: u64 = 8;
    /// TCP was reset.
    pub(crate) const TCP_RESET: u64 = 16;
    /// The program was told of the reset.
    pub(crate) const RESET_TOLD: u64 = 32;
    /// Something was sent to a peer that had closed.
    pub(crate) const SENT_TO_CLOSED: u64 = 64;
    /// The peer has broken the rules.
    pub(crate) const VIOLATED: u64 = 128;
    /// TCP has come to its end, behind bytes that are not read yet.
    pub(crate) const HUNG_UP: u64 = 8192;
    /// TCP was reset, behind bytes that are not read yet.
    pub(crate) const CUT_OFF: u64 = 16_384;
    /// The program wants a signal whenever something happens (O_ASYNC): the kernel sends it, with a doorbell.
    pub(crate) const SIGNALS: u64 = 4096;
    /// The program wants an abort for a close.
    pub(crate) const ABRUPT: u64 = 1024;
    /// The peer was told that this end is closed.
    pub(crate) const GOODBYE_SAID: u64 = 2048;
    /// The program wants its small segments sent at once, as far as it knows.
    pub(crate) const NO_DELAY: u64 = 256;
    /// It was counted why the connection stays TCP.
    pub(crate) const FALLBACK_TOLD: u64 = 32_768;
    /// The program holds its segments back, as far as it knows.
    pub(crate) const CORKED: u64 = 512;
    /// TCP's next byte is the program's: the mark behind the doorbells was taken.
    pub(crate) const MARKED: u64 = 65_536;
    /// The peer has taken back what was in the ring: TCP has all that is to be received.
    pub(crate) const RECALLED: u64 = 131_072;
    /// Processes use it that have it from a parent: nobody knows by himself whether others sleep.
    pub(crate) const SHARED: u64 = 262_144;
    /// Such a process watches it in an epoll instance, which the peer cannot know by name.
    pub(crate) const WATCHED_APART: u64 = 524_288;
}

/// Which end of a connection a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Role {
    Connector = 1,
    Acceptor = 2,
}

impl Role {
    /// As the tools call it.
    pub(crate) const fn shown(self) -> statistics::Role {
        match self {
            Self::Connector => statistics::Role::Client,
            Self::Acceptor => statistics::Role::Server,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Socket {
    words: SharedWords,
    key: u64,
    role: AtomicU8,
    connection: OnceLock<Connection>,
    descriptors: Mutex<Vec<RawFd>>,
    watchers: Mutex<Vec<Weak<Registration>>>,
    /// How long it has been worth spinning.
    pub(crate) spin: Spin,
    pub(crate) pace: Pace,
    /// What the tools see of it.
    entry: OnceLock<statistics::Entry>,
    /// That a process listens at its port, and has SMC: it holds as long as the listener does, or a connection accepted there.
    announcement: OnceLock<Arc<Announcement>>,
    /// In milliseconds, see [`Self::may_announce_again`].
    tried_to_announce_at: AtomicU64,
    /// How far it has come, as the tools see it.
    pub(crate) course: Course,
    /// It is written down.
    pub(crate) captured: OnceLock<Arc<Captured>>,
    /// Why it stays TCP, if it was decided before it was connected; 0 if not.
    pub(crate) plain_because: AtomicU32,
    /// Without rings it is not used.
    is_required: AtomicBool,
    /// Keeps TCP open until everything is sent that the peer has asked for once more.
    pub(crate) kept: Mutex<Option<Private>>,
    /// The kernel's number of it, once it may have rings.
    number: AtomicU64,
    /// How often the program was refused room, or was told that there is none.
    pub(crate) refusals: AtomicU32,
    /// Threads that sleep until something happens to it.
    pub(crate) sleepers: AtomicU32,
    /// This process has it from its parent.
    is_inherited: AtomicBool,
    /// How much had been sent through the ring when it was last looked at for memory, and when that was last given back.
    looked_at: AtomicU64,
    given_back_at: AtomicU64,
    /// Bytes of ring memory that it counts for.
    room: AtomicU64,
}

/// What came of looking for memory that could be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tidied {
    /// There is none.
    Nothing,
    /// There may be some the next time.
    Later,
    /// It was given back.
    GivenBack,
}

/// A thread of ours sleeps, or has been cancelled while it did, until this is dropped.
#[derive(Debug)]
pub(crate) struct Sleeping<'a>(&'a Socket);

impl Drop for Sleeping<'_> {
    fn drop(&mut self) {
        self.0.wake_up();
    }
}

/// A thread receives over TCP until this is dropped.
#[derive(Debug)]
pub(crate) struct TcpReceiving<'a>(&'a Socket);

impl Drop for TcpReceiving<'_> {
    fn drop(&mut self) {
        self.0.words()[word::READERS].fetch_sub(1, Ordering::SeqCst);
    }
}

impl Socket {
    /// A socket that is connected to nothing yet.
    pub(crate) fn new() -> Option<Arc<Self>> {
        static KEYS: AtomicU64 = AtomicU64::new(1);
        Some(Arc::new(Self {
            words: SharedWords::new()?,
            key: KEYS.fetch_add(1, Ordering::Relaxed),
            role: AtomicU8::new(0),
            connection: OnceLock::new(),
            descriptors: Mutex::default(),
            watchers: Mutex::default(),
            spin: Spin::new(),
            pace: Pace::new(),
            entry: OnceLock::new(),
            announcement: OnceLock::new(),
            tried_to_announce_at: AtomicU64::new(0),
            course: Course::default(),
            captured: OnceLock::new(),
            plain_because: AtomicU32::new(0),
            is_required: AtomicBool::new(false),
            kept: Mutex::default(),
            number: AtomicU64::new(0),
            refusals: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
            is_inherited: AtomicBool::new(false),
            looked_at: AtomicU64::new(0),
            given_back_at: AtomicU64::new(0),
            room: AtomicU64::new(0),
        }))
    }

    fn words(&self) -> &[AtomicU64; WORDS] {
        self.words.get()
    }

    /// What the exchange calls it.
    pub(crate) const fn key(&self) -> u64 {
        self.key
    }

    pub(crate) fn mode(&self) -> Mode {
        match self.words()[word::MODE].load(Ordering::Acquire) {
            1 => Mode::Undecided,
            2 => Mode::Prepared,
            3 => Mode::Ring,
            4 => Mode::Plain,
            _ => Mode::Idle,
        }
    }

    fn change_mode(&self, from: Mode, to: Mode) -> bool {
        let word = &self.words()[word::MODE];
        word.compare_exchange(from as u64, to as u64, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Whether its bytes go over TCP for good.
    pub(crate) fn is_plain(&self) -> bool {
        self.mode() == Mode::Plain
    }

    /// The tools see it there.
    pub(crate) fn set_entry(&self, entry: statistics::Entry) {
        let _ = self.entry.set(entry);
    }

    /// Shows something of it to the tools.
    #[inline]
    pub(crate) fn show(&self, with: impl FnOnce(&statistics::Entry)) {
        if let Some(entry) = self.entry.get() {
            with(entry);
        }
    }

    /// It listens, or was accepted, where `announcement` says so.
    pub(crate) fn keep(&self, announcement: Arc<Announcement>) {
        let _ = self.announcement.set(announcement);
    }

    /// What says that a process listens there.
    pub(crate) fn announcement(&self) -> Option<Arc<Announcement>> {
        self.announcement.get().cloned()
    }

    /// Whether it was long ago that somebody else said so in its place: asking costs some system calls.
    pub(crate) fn may_announce_again(&self) -> bool {
        const EVERY_MS: u64 = 100;
        static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
        // 0 is long before it.
        let now = BEGINNING.elapsed().as_millis() as u64 + EVERY_MS;
        let tried_at = self.tried_to_announce_at.load(Ordering::Relaxed);
        let try_now =
            || self.tried_to_announce_at.compare_exchange(tried_at, now, Ordering::Relaxed, Ordering::Relaxed);
        now.saturating_sub(tried_at) >= EVERY_MS && try_now().is_ok()
    }

    /// It is of no use without rings.
    pub(crate) fn require(&self) {
        self.is_required.store(true, Ordering::Release);
    }

    pub(crate) fn is_required(&self) -> bool {
        self.is_required.load(Ordering::Acquire)
    }

    /// It is being connected, or was accepted.
    pub(crate) fn begin(&self, role: Role) {
        self.role.store(role as u8, Ordering::Release);
        self.change_mode(Mode::Idle, Mode::Undecided);
    }

    pub(crate) fn role(&self) -> Role {
        if self.role.load(Ordering::Acquire) == Role::Connector as u8 { Role::Connector } else { Role::Acceptor }
    }

    /// Whether it was ever connected.
    pub(crate) fn has_begun(&self) -> bool {
        self.role.load(Ordering::Acquire) != 0
    }

    /// Decides that its bytes go over TCP for good, if nothing else is decided yet: whether they do.
    pub(crate) fn stay_plain(&self) -> bool {
        let is_new = [Mode::Undecided, Mode::Idle].into_iter().any(|mode| self.change_mode(mode, Mode::Plain));
        if is_new {
            upgrade::withdraw(self);
            self.let_through();
        }
        self.mode() == Mode::Plain
    }

    /// The peer has declined: it has not sent through the ring, and will not.
    pub(crate) fn give_up_rings(&self) -> bool {
        if self.change_mode(Mode::Prepared, Mode::Plain) {
            self.let_through();
            self.give_back_watchers();
        }
        self.stay_plain()
    }

    /// It had rings, and is TCP again for good: whether that is new.
    pub(crate) fn become_plain(&self) -> bool {
        let is_new = [Mode::Ring, Mode::Prepared].into_iter().any(|mode| self.change_mode(mode, Mode::Plain));
        if is_new {
            self.let_through();
        }
        is_new
    }

    fn let_through(&self) {
        if self.is_required() {
            // Its calls are to fail.
            return;
        }
        for fd in self.descriptors().iter() {
            table::let_through(*fd, self);
        }
    }

    pub(crate) fn descriptors(&self) -> MutexGuard<'_, Vec<RawFd>> {
        self.descriptors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn watchers(&self) -> MutexGuard<'_, Vec<Weak<Registration>>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A descriptor of it, any.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        self.descriptors().first().copied()
    }

    /// `fd` is it as well.
    pub(crate) fn add_descriptor(self: &Arc<Self>, fd: RawFd) {
        self.descriptors().push(fd);
        table::insert(fd, Entry::Socket(self.clone()));
    }

    pub(crate) fn has_flag(&self, flag: u64) -> bool {
        self.words()[word::FLAGS].load(Ordering::Acquire) & flag != 0
    }

    /// Sets it: whether it was not set before.
    pub(crate) fn set_flag(&self, flag: u64) -> bool {
        self.words()[word::FLAGS].fetch_or(flag, Ordering::AcqRel) & flag == 0
    }

    /// TCP has no more bytes: the peer has closed or died, unless we asked for no more ourselves.
    pub(crate) fn note_tcp_end(&self) {
        if !self.has_flag(flag::RECEIVING_SHUT) {
            self.note(flag::TCP_ENDED);
        }
    }

    /// TCP says what it says once: whoever hears it tells all who wait.
    pub(crate) fn note(&self, end: u64) {
        if !self.set_flag(end) {
            return;
        }
        self.wake_watchers();
        self.probe_if_ended();
    }

    /// One who has closed only one direction before it sent through the ring reads on; one who has died answers with a reset.
    pub(crate) fn probe_if_ended(&self) {
        if self.has_flag(flag::TCP_ENDED | flag::HUNG_UP) && self.peer_switch().is_none() {
            self.probe();
        }
    }

    /// Finds out whether the peer lives, which has nothing more to send: if not, TCP will be reset.
    pub(crate) fn probe(&self) {
        if self.uses_ring()
            && let Some(fd) = self.descriptors().first()
        {
            self.ring(*fd);
        }
    }

    /// How many bytes the peer has sent over TCP, if the rest comes through the ring.
    pub(crate) fn peer_switch(&self) -> Option<u64> {
        self.connection.get()?.peer_switch()
    }

    /// Whether the program has all of its bytes that TCP has carried: what comes there is doorbells.
    pub(crate) fn is_behind_switch(&self) -> bool {
        self.peer_switch().is_some_and(|switch| self.received() >= switch)
    }

    /// Whether nothing more comes from TCP.
    pub(crate) fn has_tcp_ended(&self) -> bool {
        let is_rest_known = || self.is_behind_switch() && !self.has_peer_gone_back();
        self.has_flag(flag::TCP_ENDED) || self.has_flag(flag::HUNG_UP) && is_rest_known()
    }

    pub(crate) fn clear_flag(&self, flag: u64) {
        self.words()[word::FLAGS].fetch_and(!flag, Ordering::AcqRel);
    }

    /// Its rings, once it has some.
    #[inline]
    pub(crate) fn rings(&self) -> Option<(&Connection, Rings<'_>)> {
        let connection = self.connection.get()?;
        let progress = self.words()[word::PROGRESS..].first_chunk().map(Progress::new)?;
        Some((connection, Rings::new(connection, progress)))
    }

    /// Whether it can have rings: only one process may have the connection while it gets them.
    pub(crate) fn may_upgrade(&self) -> bool {
        self.mode() == Mode::Undecided && self.words.holders() == 1
    }

    /// From now on the peer may send through the ring.
    pub(crate) fn prepare(self: &Arc<Self>, connection: Connection) -> bool {
        if !self.may_upgrade() || self.connection.set(connection).is_err() {
            return false;
        }
        // Its peer knows it as this process's from the beginning.
        self.is_inherited.store(false, Ordering::Relaxed);
        if let Some((connection, rings)) = self.rings() {
            rings.begin();
            let number = self.descriptor().and_then(kernel::socket_number);
            self.number.store(number.unwrap_or(0), Ordering::Release);
            // Some thread may be asleep in the kernel already, which nobody could be told of.
            connection.fall_asleep();
            show::join_arena(connection);
            self.count_room(show::LEAST_ROOM);
            course::begin(self);
        }
        upgrade::know(self);
        self.tell_waiter();
        self.tell_received();
        self.remember_options();
        let is_prepared = self.change_mode(Mode::Undecided, Mode::Prepared);
        if is_prepared {
            // Who sleeps in the kernel for it wakes up, and from then on sleeps where the peer knows of.
            self.wake_watchers();
        }
        is_prepared
    }

    /// What the program has asked for: from now on it is told what is remembered.
    fn remember_options(&self) {
        let Some(fd) = self.descriptor() else {
            return;
        };
        for (option, flag) in [(libc::TCP_NODELAY, flag::NO_DELAY), (libc::TCP_CORK, flag::CORKED)] {
            if kernel::option(fd, libc::IPPROTO_TCP, option) == Some(1) {
                self.set_flag(flag);
            }
        }
    }

    /// What the kernel calls it, whatever its descriptors; 0 if that is not known.
    pub(crate) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// Whether receiving goes over TCP alone, one call of which is counted until the result is dropped.
    pub(crate) fn begin_tcp_receiving(&self) -> Option<TcpReceiving<'_>> {
        if matches!(self.mode(), Mode::Prepared | Mode::Ring) {
            return None;
        }
        let others = self.words()[word::READERS].fetch_add(1, Ordering::SeqCst);
        let receiving = TcpReceiving(self);
        let is_alone = others == 0 || upgrade::leave_to_tcp(self, DeclineReason::SEVERAL_READERS);
        (self.mode() < Mode::Prepared && is_alone || self.is_plain()).then_some(receiving)
    }

    /// Whether a call that began to receive over TCP before there were rings is still at it.
    pub(crate) fn is_receiving_over_tcp(&self) -> bool {
        self.words()[word::READERS].load(Ordering::SeqCst) != 0
    }

    /// Of `count` bytes that TCP has brought, how many are the program's; the others are doorbells.
    pub(crate) fn count_received(&self, count: usize, is_peek: bool) -> usize {
        let received = self.received();
        let limit = self.connection.get().and_then(Connection::peer_switch);
        let kept = limit.map_or(count as u64, |limit| limit.saturating_sub(received).min(count as u64));
        if !is_peek {
            self.words()[word::RECEIVED].fetch_add(kept, Ordering::SeqCst);
            self.tell_received();
            self.words()[word::BELLS_TAKEN].fetch_add(count as u64 - kept, Ordering::SeqCst);
        }
        kept as usize
    }

    /// Bytes of the program's that TCP has brought.
    #[inline]
    pub(crate) fn received(&self) -> u64 {
        self.words()[word::RECEIVED].load(Ordering::Acquire)
    }

    /// Another transfer over TCP is done: how many there were.
    pub(crate) fn count_transfer(&self) -> u64 {
        self.words()[word::TRANSFERS].fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn lock_sending(&self) -> Lock<'_> {
        Lock::take(&self.words()[word::SEND_LOCK], fork::owner())
    }

    pub(crate) fn lock_receiving(&self) -> Lock<'_> {
        Lock::take(&self.words()[word::RECEIVE_LOCK], fork::owner())
    }

    /// Gives back the memory of a ring that was filled once, and is empty and unused since it was last looked at.
    pub(crate) fn tidy(&self) -> Tidied {
        let Some((connection, rings)) = self.rings() else {
            return Tidied::Nothing;
        };
        let sent = rings.sent();
        let filled = sent - self.given_back_at.load(Ordering::Relaxed).min(sent);
        self.count_room(filled.clamp(show::LEAST_ROOM, u64::from(connection.arena().geometry().ring_bytes)));
        if self.given_back_at.load(Ordering::Relaxed) == sent {
            return Tidied::Nothing;
        }
        if self.looked_at.swap(sent, Ordering::Relaxed) != sent {
            return Tidied::Later;
        }
        let lock = Lock::try_take(&self.words()[word::SEND_LOCK], fork::owner());
        if lock.is_none() || rings.sent() != sent {
            return Tidied::Later;
        }
        if self.is_returning() {
            // What is in it may have to be read once more, or was put there by its reader.
            return Tidied::Nothing;
        }
        if !rings.give_back() {
            return Tidied::Later;
        }
        self.given_back_at.store(sent, Ordering::Relaxed);
        self.count_room(show::LEAST_ROOM);
        Tidied::GivenBack
    }

    /// Its ring counts for `bytes` of memory from now on.
    fn count_room(&self, bytes: u64) {
        show::count_room(self.room.swap(bytes, Ordering::Relaxed), bytes);
    }

    /// The peer has written what cannot be: the connection ends, for it too.
    pub(crate) fn punish(&self) -> Errno {
        if self.set_flag(flag::VIOLATED) {
            show::count_violation();
            if let Some((_, rings)) = self.rings() {
                rings.say(state::ABORTED | state::CLOSED);
            }
            self.notify();
            if let Some((_, rings)) = self.rings() {
                course::look(self, &rings);
            }
        }
        Errno::CONNRESET
    }

    /// The program has closed `fd`, which was it: says to the peer what the kernel would, if it was the last, and nobody
    /// uses it just now.
    pub(crate) fn remove_descriptor(self: &Arc<Self>, fd: RawFd) {
        let mut descriptors = self.descriptors();
        descriptors.retain(|known| *known != fd);
        let is_last = descriptors.is_empty();
        if let Some(&other) = descriptors.first() {
            self.show(|entry| entry.set_descriptor(other));
        }
        drop(descriptors);
        if !is_last {
            return;
        }
        upgrade::withdraw(self);
        if self.rings().is_none() {
            return;
        }
        // RFC 9293 §3.10.4 has an abort beside the close; this is how a program asks for it.
        if kernel::lingers_not(fd) {
            self.set_flag(flag::ABRUPT);
        }
        if !self.is_plain() && self.words.holders() == 1 && self.is_behind_switch() {
            // Left in TCP they would make a reset of the close. Another process that has it may be waiting for them.
            let lock = self.lock_receiving();
            let _ = self.take_doorbells(fd, false);
            drop(lock);
        }
        self.let_peer_end_first(fd);
        // But for the one in the table, which is just being removed, each is of a thread that uses it; our own have it for moments.
        let started = Instant::now();
        while Arc::strong_count(self) > 1 && started.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
        if Arc::strong_count(self) == 1 && self.words.holders() == 1 && self.say_goodbye() {
            self.ring(fd);
        }
    }

    /// A peer that has closed says so in memory before its TCP ends. Who ends TCP first keeps the port busy for a minute
    /// (RFC 9293 §3.10.7.4, TIME-WAIT), which is to be the peer's, as it would be without us: a server may want its port again.
    fn let_peer_end_first(&self, fd: RawFd) {
        const WITHIN_MS: i32 = 10;
        let has_peer_closed = self.rings().is_some_and(|(_, rings)| rings.peer_state() & state::CLOSED != 0);
        if has_peer_closed && !self.is_plain() && !self.has_flag(flag::TCP_ENDED | flag::HUNG_UP | flag::ABRUPT) {
            let _ = kernel::poll(fd, libc::POLLRDHUP, WITHIN_MS);
        }
    }

    /// Tells the peer that this end is closed: whether it must be woken.
    fn say_goodbye(&self) -> bool {
        let Some((connection, rings)) = self.rings() else {
            return false;
        };
        // Where TCP carries the stream again, its end does.
        if self.is_plain() || self.is_returning() || !self.set_flag(flag::GOODBYE_SAID) {
            return false;
        }
        let is_tcp_read = connection.peer_switch().is_none_or(|switch| self.received() >= switch);
        let is_read = is_tcp_read && rings.readable() == Ok(0) && !self.has_flag(flag::ABRUPT);
        // RFC 9293 §3.10.4: who closes with data unread says so.
        rings.say(state::CLOSED | if is_read { state::SENDING_DONE } else { state::ABORTED });
        course::close(self, &rings, is_read);
        self.has_switched() && connection.notify()
    }

    /// Whether other processes have it as well.
    pub(crate) fn is_shared(&self) -> bool {
        self.words.holders() > 1
    }

    /// A child has it too.
    pub(crate) fn add_holder(&self) {
        self.words.add_holder();
    }

    /// The child that was counted has not got it.
    pub(crate) fn remove_holder(&self) {
        self.words.leave();
    }

    /// In a child: the threads that sleep are the parent's, and so is what the peer knows them by.
    pub(crate) fn inherit(&self) {
        self.sleepers.store(0, Ordering::SeqCst);
        self.is_inherited.store(true, Ordering::Relaxed);
    }

    /// Whether this process has it from its parent.
    pub(crate) fn is_inherited(&self) -> bool {
        self.is_inherited.load(Ordering::Relaxed)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let is_last = self.words.holders() == 1;
        if is_last {
            // Somebody was still using it when it was closed. The end of TCP wakes the peer.
            self.say_goodbye();
            if self.mode() == Mode::Undecided {
                show::fall_back(self, DeclineReason::SHORT, false);
            }
        }
        let was_last = self.words.leave();
        if let Some(connection) = self.connection.take() {
            show::leave_arena(&connection);
            self.count_room(0);
            if !was_last {
                connection.leave();
            }
        }
    }
}
