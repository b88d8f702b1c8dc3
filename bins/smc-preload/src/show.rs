//! What the tools see of this process.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use softrdma_smc::arena::{Arena, Connection, Side};
use softrdma_smc::descriptors::Private;
use softrdma_smc::statistics::{
    ArenaDescription, ArenaEntry, Counter, Inheritance, Link, Mode, Page, Reasons, Role, SocketDescription, State,
};
use softrdma_smc::wire::Gid;
use softrdma_smc::wire::clc::DeclineReason;

use crate::abi::kernel;
use crate::fork;
use crate::socket::{Socket, flag};

static PAGE: OnceLock<Arc<Page>> = OnceLock::new();
/// By which readers find the page.
static MEMORY: Mutex<Option<Private>> = Mutex::new(None);
/// The arenas that are listed.
static ARENAS: Mutex<Vec<ListedArena>> = Mutex::new(Vec::new());

/// Whether what becomes of connections is said where errors go.
static IS_VERBOSE: AtomicBool = AtomicBool::new(false);

/// Bytes of ring memory in use, and allowed.
static RING_MEMORY: AtomicU64 = AtomicU64::new(0);
static RING_MEMORY_LIMIT: AtomicU64 = AtomicU64::new(0);

/// An arena is there as long as somebody else has it, or a connection is in it.
struct ListedArena {
    arena: Weak<Arena>,
    connections: u32,
    entry: ArenaEntry,
}

fn arenas() -> MutexGuard<'static, Vec<ListedArena>> {
    ARENAS.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn begin(program: &str, ring_memory_limit: u64, is_verbose: bool) {
    IS_VERBOSE.store(is_verbose, Ordering::Relaxed);
    RING_MEMORY_LIMIT.store(ring_memory_limit, Ordering::Relaxed);
    if let Ok((page, memory)) = Page::create(program) {
        page.counters().set(Counter::RingMemoryLimit, ring_memory_limit);
        *MEMORY.lock().unwrap_or_else(PoisonError::into_inner) = Private::keep(memory).ok();
        let _ = PAGE.set(page);
    }
}

/// What is kept while the process forks: the parent's page as it was, and what no other thread may have meanwhile.
pub(crate) struct Forking {
    inheritance: Inheritance,
    _arenas: MutexGuard<'static, Vec<ListedArena>>,
}

pub(crate) fn before_fork() -> Forking {
    let arenas = arenas();
    Forking { inheritance: PAGE.get().map(|page| page.inheritance()).unwrap_or_default(), _arenas: arenas }
}

/// In a child: a page of its own.
pub(crate) fn begin_anew(forking: Forking) {
    let Forking { inheritance, _arenas: arenas } = forking;
    if let Some(page) = PAGE.get() {
        let memory = page.renew_in_child(&inheritance).and_then(Private::keep).ok();
        *MEMORY.lock().unwrap_or_else(PoisonError::into_inner) = memory;
    }
    drop(arenas);
    forget_gone_arenas();
}

/// The process ends: what a child has counted is its parent's.
pub(crate) fn end() {
    if let Some(page) = PAGE.get()
        && fork::is_own_process()
    {
        page.end();
    }
}

/// A connection has begun.
pub(crate) fn open(socket: &Arc<Socket>, fd: RawFd) {
    if let Some(page) = PAGE.get() {
        page.counters().count(Counter::ConnectionsSeen);
        list(page, socket, fd, State::Active, None);
    }
}

/// A socket listens at `address`, and says so.
pub(crate) fn listen(socket: &Arc<Socket>, fd: RawFd, address: SocketAddr) {
    if let Some(page) = PAGE.get() {
        list(page, socket, fd, State::Listen, Some(address));
    }
}

fn list(page: &Arc<Page>, socket: &Arc<Socket>, fd: RawFd, state: State, local: Option<SocketAddr>) {
    let description = SocketDescription {
        descriptor: fd,
        role: socket.role().shown(),
        state,
        local,
        user: rustix::process::geteuid().as_raw(),
        ..SocketDescription::default()
    };
    if let Some(entry) = page.open_entry(&description) {
        socket.set_entry(entry);
    }
}

/// What this process is called by its peers, once it is.
pub(crate) fn set_gid(gid: Gid) {
    if let Some(page) = PAGE.get() {
        page.set_gid(gid.0);
    }
}

/// What it was joined to.
pub(crate) fn link(connection: &Connection, peer: Gid) -> Link {
    let ring = connection.arena().geometry().ring_bytes;
    Link {
        arena: connection.arena().id(),
        index: connection.index(),
        own_token: connection.own_token(),
        peer_token: connection.peer_token(),
        peer_gid: peer.0,
        send_ring: ring,
        receive_ring: ring,
    }
}

/// A connection in `arena` is about to be had, by this process and `peer`.
pub(crate) fn list_arena(arena: &Arc<Arena>, own: Gid, peer: Gid) {
    let Some(page) = PAGE.get() else {
        return;
    };
    let mut all = arenas();
    if all.iter().any(|listed| is(listed, arena)) {
        return;
    }
    // First contacts that came to nothing.
    retain_arenas(&mut all, |listed| listed.arena.strong_count() > 0);
    let role = if arena.side() == Side::Acceptor { Role::Server } else { Role::Client };
    let description = ArenaDescription {
        id: arena.id(),
        role,
        own_gid: own.0,
        peer_gid: peer.0,
        peer_process: 0,
        capacity: arena.geometry().capacity,
        ring_bytes: arena.geometry().ring_bytes,
    };
    if let Some(entry) = page.open_arena(&description) {
        all.push(ListedArena { arena: Arc::downgrade(arena), connections: 0, entry });
        page.counters().set(Counter::Arenas, all.len() as u64);
    }
}

fn is(listed: &ListedArena, arena: &Arc<Arena>) -> bool {
    std::ptr::eq(listed.arena.as_ptr(), Arc::as_ptr(arena))
}

/// Arenas that nobody has any more leave the list.
pub(crate) fn forget_gone_arenas() {
    retain_arenas(&mut arenas(), |listed| listed.arena.strong_count() > 0);
}

fn retain_arenas(all: &mut Vec<ListedArena>, is_there: impl FnMut(&ListedArena) -> bool) {
    let before = all.len();
    all.retain(is_there);
    if all.len() != before
        && let Some(page) = PAGE.get()
    {
        page.counters().set(Counter::Arenas, all.len() as u64);
    }
}

/// It stays TCP. It is said once of each connection.
pub(crate) fn fall_back(socket: &Socket, reason: DeclineReason, by_peer: bool) {
    if !socket.has_begun() || !socket.set_flag(flag::FALLBACK_TOLD) {
        return;
    }
    let code = reason.0;
    let reasons = if by_peer { Reasons { own: 0, peer: code } } else { Reasons { own: code, peer: 0 } };
    socket.show(|entry| entry.fall_back(reasons));
    count_fallback(socket.role().shown(), reason, by_peer);
    say(socket, || format!("stays TCP: {}{reason}", if by_peer { "the peer says: " } else { "" }));
}

/// It has its rings.
pub(crate) fn accelerate(socket: &Socket, link: &Link) {
    socket.show(|entry| entry.accelerate(Mode::SmcD, link));
    say(socket, || "goes through shared memory".to_owned());
}

/// Says what has become of a connection, if somebody wants to know.
fn say(socket: &Socket, what: impl FnOnce() -> String) {
    if IS_VERBOSE.load(Ordering::Relaxed) {
        let ends = socket.descriptor().and_then(kernel::ends);
        let ends = ends.map_or_else(|| "a connection".to_owned(), |(local, peer)| format!("{local} with {peer}"));
        kernel::complain(&format!("{}[{}]: {ends} {}", kernel::program_name(), std::process::id(), what()));
    }
}

/// A connection that nothing is known about otherwise stays TCP.
pub(crate) fn pass_by(role: Role, reason: DeclineReason) {
    if let Some(page) = PAGE.get() {
        page.counters().count(Counter::ConnectionsSeen);
        count_fallback(role, reason, false);
    }
}

fn count_fallback(role: Role, reason: DeclineReason, by_peer: bool) {
    let Some(page) = PAGE.get() else {
        return;
    };
    page.counters().fall_back(role, reason.0, by_peer);
    let is_spoilt = matches!(reason, DeclineReason::SYNCHRONIZATION | DeclineReason::CONFIRM_LINK_TIMEOUT);
    if is_spoilt && !by_peer {
        page.counters().count(match role {
            Role::Client => Counter::HandshakeErrorsAsClient,
            Role::Server => Counter::HandshakeErrorsAsServer,
        });
    }
}

/// It was moved, and is TCP again: that it was moved stays counted, and no fallback is.
pub(crate) fn go_back(socket: &Socket, reasons: Reasons) {
    socket.set_flag(flag::FALLBACK_TOLD);
    socket.show(|entry| entry.fall_back(reasons));
    say(socket, || match reasons.own {
        0 => "is TCP again: the peer needs it".to_owned(),
        own => format!("is TCP again: {}", DeclineReason(own)),
    });
}

/// What a connection counts for that has sent little: pages come as they are filled.
pub(crate) const LEAST_ROOM: u64 = 16_384;

/// Whether there is room for one more connection.
pub(crate) fn has_room() -> bool {
    RING_MEMORY.load(Ordering::Relaxed) + LEAST_ROOM <= RING_MEMORY_LIMIT.load(Ordering::Relaxed)
}

/// A connection that has counted for `before` bytes of ring memory counts for `now` of them. Each end counts the ring that it fills.
pub(crate) fn count_room(before: u64, now: u64) {
    if before == now {
        return;
    }
    let change = |memory: u64| Some((memory + now).saturating_sub(before));
    let _ = RING_MEMORY.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    if let Some(page) = PAGE.get() {
        page.counters().set(Counter::RingMemory, RING_MEMORY.load(Ordering::Relaxed));
    }
}

/// A connection has its rings.
pub(crate) fn join_arena(connection: &Connection) {
    if let Some(listed) = arenas().iter_mut().find(|listed| is(listed, connection.arena())) {
        listed.connections += 1;
        listed.entry.connection_added();
    }
}

/// A connection has given them back.
pub(crate) fn leave_arena(connection: &Connection) {
    let mut all = arenas();
    if let Some(listed) = all.iter_mut().find(|listed| is(listed, connection.arena())) {
        listed.connections = listed.connections.saturating_sub(1);
        listed.entry.connection_removed();
    }
    // Nobody but this connection has it, and those who look for news in it: the other process is gone.
    retain_arenas(&mut all, |listed| {
        !is(listed, connection.arena()) || listed.connections > 0 || listed.arena.strong_count() > 2
    });
}

/// A peer has broken the rules.
pub(crate) fn count_violation() {
    if let Some(page) = PAGE.get() {
        page.counters().count(Counter::Violations);
    }
}

/// Urgent data was sent or received.
pub(crate) fn count_urgent() {
    if let Some(page) = PAGE.get() {
        page.counters().count(Counter::Urgent);
    }
}
