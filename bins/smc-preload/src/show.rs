//! What the tools see of this process.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use softrdma_smc::arena::Connection;
use softrdma_smc::descriptors::Private;
use softrdma_smc::statistics::{Counter, Link, Page, Reasons, SocketDescription, State};
use softrdma_smc::wire::Gid;
use softrdma_smc::wire::clc::DeclineReason;

use crate::socket::Socket;

static PAGE: OnceLock<Arc<Page>> = OnceLock::new();
/// By which readers find the page.
static MEMORY: Mutex<Option<Private>> = Mutex::new(None);

/// Bytes of ring memory in use, and allowed.
static RING_MEMORY: AtomicU64 = AtomicU64::new(0);
static RING_MEMORY_LIMIT: AtomicU64 = AtomicU64::new(0);

pub(crate) fn begin(program: &str, ring_memory_limit: u64) {
    RING_MEMORY_LIMIT.store(ring_memory_limit, Ordering::Relaxed);
    if let Ok((page, memory)) = Page::create(program) {
        page.counters().set(Counter::RingMemoryLimit, ring_memory_limit);
        *MEMORY.lock().unwrap_or_else(PoisonError::into_inner) = Private::keep(memory).ok();
        let _ = PAGE.set(page);
    }
}

/// In a child: a page of its own.
pub(crate) fn begin_anew() {
    if let Some(page) = PAGE.get() {
        let memory = page.renew_in_child().and_then(Private::keep).ok();
        *MEMORY.lock().unwrap_or_else(PoisonError::into_inner) = memory;
    }
}

/// A connection has begun.
pub(crate) fn open(socket: &Arc<Socket>, fd: RawFd) {
    let Some(page) = PAGE.get() else {
        return;
    };
    page.counters().count(Counter::ConnectionsSeen);
    let description = SocketDescription {
        descriptor: fd,
        role: socket.role().shown(),
        state: State::Active,
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

/// It stays TCP.
pub(crate) fn fall_back(socket: &Socket, reason: DeclineReason, by_peer: bool) {
    let code = reason.0;
    let reasons = if by_peer { Reasons { own: 0, peer: code } } else { Reasons { own: code, peer: 0 } };
    socket.show(|entry| entry.fall_back(reasons));
    if let Some(page) = PAGE.get() {
        page.counters().fall_back(socket.role().shown(), code, by_peer);
    }
}

/// It is TCP again.
pub(crate) fn go_back(socket: &Socket) {
    socket.show(|entry| entry.fall_back(Reasons::default()));
}

/// Whether two more rings may be had.
pub(crate) fn has_room_for(ring_bytes: u32) -> bool {
    let limit = RING_MEMORY_LIMIT.load(Ordering::Relaxed);
    RING_MEMORY.load(Ordering::Relaxed) + 2 * u64::from(ring_bytes) <= limit
}

/// A connection has its rings.
pub(crate) fn take_room(connection: &Connection) {
    change_room(|memory| memory.wrapping_add(rings(connection)));
}

/// A connection has given them back.
pub(crate) fn give_room(connection: &Connection) {
    change_room(|memory| memory.saturating_sub(rings(connection)));
}

fn rings(connection: &Connection) -> u64 {
    2 * u64::from(connection.arena().geometry().ring_bytes)
}

fn change_room(change: impl Fn(u64) -> u64) {
    let _ = RING_MEMORY.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |memory| Some(change(memory)));
    if let Some(page) = PAGE.get() {
        page.counters().set(Counter::RingMemory, RING_MEMORY.load(Ordering::Relaxed));
    }
}

/// A peer has broken the rules.
pub(crate) fn count_violation() {
    if let Some(page) = PAGE.get() {
        page.counters().count(Counter::Violations);
    }
}
