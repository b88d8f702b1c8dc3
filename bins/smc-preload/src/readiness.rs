//! Which of many connections can be read or written, and who wants to know.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use libc::{EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLRDNORM, EPOLLWRNORM, POLLIN, POLLOUT};
use softrdma_smc::arena::{Arena, Connection};
use softrdma_smc::back::Source;
use softrdma_smc::ring::{Rings, state};

use crate::abi::kernel;
use crate::socket::{Socket, flag};
use crate::transfer;

/// The events there are for readable and writable.
pub(crate) const READABLE: u32 = (EPOLLIN | EPOLLRDNORM) as u32;
pub(crate) const WRITABLE: u32 = (EPOLLOUT | EPOLLWRNORM) as u32;

/// The events of a socket that has rings, as epoll names them; poll's bits are the same. `wanted` says what the caller will wait for.
pub(crate) fn events(socket: &Socket, fd: RawFd, wanted: u32) -> u32 {
    let Some((connection, rings)) = socket.rings() else {
        return 0;
    };
    let mut events = reading_events(socket, connection, &rings, fd);
    if socket.is_returning() {
        if socket.has_returned() && kernel::poll(fd, POLLOUT, 0).is_ok_and(|found| found & POLLOUT != 0) {
            events |= WRITABLE;
        }
    } else if socket.has_switched() {
        let mut is_writable = rings.is_writable().unwrap_or(true);
        if !is_writable && wanted & WRITABLE != 0 {
            socket.refusals.fetch_add(1, Ordering::AcqRel);
            connection.want_room(true);
            is_writable = rings.is_writable().unwrap_or(true);
        }
        if is_writable || events & EPOLLHUP as u32 != 0 {
            events |= WRITABLE;
        }
    } else if kernel::poll(fd, POLLOUT, 0).is_ok_and(|found| found & POLLOUT != 0) {
        events |= WRITABLE;
    }
    events
}

/// Changes whenever something happened that a reader would want to hear of.
pub(crate) fn mark(socket: &Socket) -> u64 {
    let flags = [flag::TCP_ENDED, flag::TCP_RESET, flag::RECEIVING_SHUT, flag::SENDING_SHUT, flag::SENT_TO_CLOSED];
    let flags = flags.into_iter().filter(|flag| socket.has_flag(*flag)).fold(0, |all, flag| all | flag);
    socket.rings().map_or(0, |(_, rings)| rings.peer_mark()) ^ flags.rotate_left(40)
}

fn reading_events(socket: &Socket, connection: &Connection, rings: &Rings<'_>, fd: RawFd) -> u32 {
    let mut events = 0;
    if socket.has_peer_gone_back() {
        // TCP has the rest, and its end.
        let wanted = READABLE as i16 | libc::POLLPRI | libc::POLLRDBAND | libc::POLLRDHUP;
        let found = kernel::poll(fd, wanted, 0).map_or(0, |found| u32::from(found as u16));
        if socket.source() == Some(Source::TcpAgain) {
            return found;
        }
        events = found & (libc::EPOLLPRI | libc::EPOLLRDBAND) as u32;
    }
    let switch = connection.peer_switch();
    let is_readable = match switch {
        Some(switch) if socket.received() >= switch => rings.readable().map_or(true, |there| there > 0),
        _ => kernel::poll(fd, POLLIN, 0).is_ok_and(|found| found & POLLIN != 0),
    };
    if is_readable {
        events |= READABLE;
    }
    let peer = rings.peer_state();
    let has_peer_ended = peer & (state::SENDING_DONE | state::CLOSED | state::ABORTED) != 0
        || socket.has_flag(flag::TCP_ENDED | flag::TCP_RESET | flag::RECEIVING_SHUT);
    if has_peer_ended {
        events |= READABLE | EPOLLRDHUP as u32;
        if socket.has_flag(flag::SENDING_SHUT) || peer & state::ABORTED != 0 {
            events |= EPOLLHUP as u32;
        }
    }
    if transfer::was_reset(socket, rings) || socket.has_flag(flag::SENT_TO_CLOSED) {
        events |= READABLE | (EPOLLRDHUP | EPOLLHUP) as u32;
        if !socket.has_flag(flag::RESET_TOLD) {
            events |= EPOLLERR as u32;
        }
    }
    events
}

/// An arena that this process has connections in, and which socket each of them is.
struct Known {
    arena: Arc<Arena>,
    sockets: Mutex<Vec<Weak<Socket>>>,
}

static KNOWN: RwLock<Vec<Arc<Known>>> = RwLock::new(Vec::new());
/// How many there are: while there is none, nobody needs to look.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// `socket` has got `connection`.
pub(crate) fn register(connection: &Connection, socket: &Arc<Socket>) {
    let arena = connection.arena();
    let known = {
        let mut all = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| Arc::strong_count(&known.arena) > 1);
        let found = all.iter().find(|known| Arc::ptr_eq(&known.arena, arena)).cloned();
        found.unwrap_or_else(|| {
            let new = Arc::new(Known { arena: arena.clone(), sockets: Mutex::default() });
            all.push(new.clone());
            COUNT.store(all.len(), Ordering::Release);
            new
        })
    };
    let mut sockets = known.sockets.lock().unwrap_or_else(PoisonError::into_inner);
    let index = connection.index() as usize;
    if sockets.len() <= index {
        sockets.resize_with(index + 1, Weak::new);
    }
    sockets[index] = Arc::downgrade(socket);
}

/// Whether anything may have happened to any connection.
pub(crate) fn is_pending() -> bool {
    COUNT.load(Ordering::Acquire) > 0 && with_known(|all| all.iter().any(|known| known.arena.has_ready()))
}

/// Hands what has happened to those who watch.
pub(crate) fn distribute() {
    if COUNT.load(Ordering::Acquire) == 0 {
        return;
    }
    with_known(|all| {
        for known in all.iter().filter(|known| known.arena.has_ready()) {
            let sockets = known.sockets.lock().unwrap_or_else(PoisonError::into_inner);
            known.arena.take_ready(|index| {
                if let Some(socket) = sockets.get(index as usize).and_then(Weak::upgrade) {
                    for watcher in socket.watchers().iter().filter_map(Weak::upgrade) {
                        watcher.queue();
                    }
                }
            });
        }
    });
}

/// Says to all peers that our `waiter` is about to sleep, or is awake.
pub(crate) fn set_asleep(waiter: usize, is_asleep: bool) {
    if COUNT.load(Ordering::Acquire) > 0 {
        with_known(|all| {
            for known in all {
                if is_asleep { known.arena.fall_asleep(waiter) } else { known.arena.wake_up(waiter) }
            }
        });
    }
}

fn with_known<R>(with: impl FnOnce(&[Arc<Known>]) -> R) -> R {
    with(&KNOWN.read().unwrap_or_else(PoisonError::into_inner))
}

/// In a child: what its parent watches is the parent's to be told of.
pub(crate) fn begin_anew() {
    KNOWN.write().unwrap_or_else(PoisonError::into_inner).clear();
    COUNT.store(0, Ordering::Release);
}
