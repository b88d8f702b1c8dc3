//! Which of many connections can be read or written, and who wants to know.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use libc::{EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLRDNORM, EPOLLWRNORM, POLLIN, POLLOUT};
use softrdma_smc::arena::{Arena, Connection};
use softrdma_smc::back::Source;
use softrdma_smc::ring::{Rings, state};

use crate::abi::kernel;
use crate::course;
use crate::epoll::Epoll;
use crate::socket::{Socket, Tidied, flag};
use crate::transfer;

/// The events there are for readable and writable.
pub(crate) const READABLE: u32 = (EPOLLIN | EPOLLRDNORM) as u32;
pub(crate) const WRITABLE: u32 = (EPOLLOUT | EPOLLWRNORM) as u32;

/// The events of a socket that has rings, as epoll names them; poll's bits are the same. `wanted` says what the caller will wait for.
pub(crate) fn events(socket: &Socket, fd: RawFd, wanted: u32) -> u32 {
    let Some((connection, rings)) = socket.rings() else {
        return 0;
    };
    socket.pace.reset();
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
        if is_writable || events & EPOLLHUP as u32 != 0 || transfer::has_vanished(socket) {
            events |= WRITABLE;
        }
    } else if kernel::poll(fd, POLLOUT, 0).is_ok_and(|found| found & POLLOUT != 0) {
        events |= WRITABLE;
    }
    events
}

/// Changes whenever something happened that a reader would want to hear of.
pub(crate) fn mark(socket: &Socket) -> u64 {
    let flags = [
        flag::TCP_ENDED,
        flag::TCP_RESET,
        flag::HUNG_UP,
        flag::CUT_OFF,
        flag::RECEIVING_SHUT,
        flag::SENDING_SHUT,
        flag::SENT_TO_CLOSED,
    ];
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
    if is_readable(socket, connection, rings, fd) {
        events |= READABLE;
    }
    let peer = rings.peer_state();
    let has_peer_ended = peer & (state::SENDING_DONE | state::CLOSED | state::ABORTED) != 0
        || socket.has_flag(flag::TCP_ENDED | flag::TCP_RESET | flag::HUNG_UP | flag::RECEIVING_SHUT);
    if has_peer_ended {
        course::look(socket, rings);
        events |= READABLE | EPOLLRDHUP as u32;
        if socket.has_flag(flag::SENDING_SHUT) || peer & state::ABORTED != 0 {
            events |= EPOLLHUP as u32;
        }
    }
    if transfer::was_reset(socket, rings) || transfer::has_sent_to_closed(socket, rings) {
        events |= READABLE | (EPOLLRDHUP | EPOLLHUP) as u32;
        if !socket.has_flag(flag::RESET_TOLD) {
            events |= EPOLLERR as u32;
        }
    }
    events
}

fn is_readable(socket: &Socket, connection: &Connection, rings: &Rings<'_>, fd: RawFd) -> bool {
    let mut has_bytes = false;
    // Honest peers switch once.
    for _ in 0..2 {
        let switch = connection.peer_switch();
        if switch.is_some_and(|switch| socket.received() >= switch) {
            return rings.readable().map_or(true, |there| there > 0);
        }
        has_bytes = kernel::poll(fd, POLLIN, 0).is_ok_and(|found| found & POLLIN != 0);
        // One that has switched meanwhile may have rung: then it is no byte of the program's.
        if !has_bytes || connection.peer_switch() == switch {
            break;
        }
    }
    has_bytes
}

/// An arena that this process has connections in, and which socket each of them is.
struct Known {
    arena: Arc<Arena>,
    sockets: Mutex<Vec<Weak<Socket>>>,
}

/// Read all the time by whoever spins, without a lock: a child of a process that forks meanwhile would find it locked
/// for ever.
static KNOWN: ArcSwapOption<Vec<Arc<Known>>> = ArcSwapOption::const_empty();
/// How many there are: while there is none, nobody needs to look.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// `socket` has got `connection`.
pub(crate) fn register(connection: &Connection, socket: &Arc<Socket>) {
    let arena = connection.arena();
    let mut known = Arc::new(Known { arena: arena.clone(), sockets: Mutex::default() });
    change(|all| {
        if let Some(found) = all.iter().find(|known| Arc::ptr_eq(&known.arena, arena)) {
            known = found.clone();
        } else {
            all.push(known.clone());
        }
    });
    let mut sockets = known.sockets.lock().unwrap_or_else(PoisonError::into_inner);
    let index = connection.index() as usize;
    if sockets.len() <= index {
        sockets.resize_with(index + 1, Weak::new);
    }
    sockets[index] = Arc::downgrade(socket);
}

/// Arenas that nobody else has any more are let go.
pub(crate) fn forget_gone_arenas() {
    change(|_| {});
}

/// Changes the list, and takes out of it what is gone. Only the service's thread ever does.
fn change(mut with: impl FnMut(&mut Vec<Arc<Known>>)) {
    KNOWN.rcu(|all| {
        let mut all = all.as_deref().cloned().unwrap_or_default();
        all.retain(|known| Arc::strong_count(&known.arena) > 1);
        with(&mut all);
        Some(Arc::new(all))
    });
    COUNT.store(with_known(<[_]>::len), Ordering::Release);
}

/// Whether anything may have happened to any connection.
pub(crate) fn is_pending() -> bool {
    COUNT.load(Ordering::Acquire) > 0 && with_known(|all| all.iter().any(|known| known.arena.has_ready()))
}

/// Hands what has happened to those who watch. Those in other instances than `own` are woken, if the peer has not.
pub(crate) fn distribute(own: Option<&Epoll>) {
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
                        watcher.wake_who_just_fell_asleep(&known.arena, own);
                    }
                }
            });
        }
    });
}

/// Says to all peers that our `waiter` is about to sleep.
pub(crate) fn fall_asleep(waiter: usize) {
    if COUNT.load(Ordering::Acquire) > 0 {
        with_known(|all| all.iter().for_each(|known| known.arena.fall_asleep(waiter)));
    }
}

/// Says to all peers that our `waiter` is awake, unless `is_anybody_asleep` by its name.
pub(crate) fn wake_up(waiter: usize, is_anybody_asleep: impl Fn() -> bool) {
    if COUNT.load(Ordering::Acquire) > 0 {
        with_known(|all| all.iter().for_each(|known| known.arena.wake_up(waiter, &is_anybody_asleep)));
    }
}

/// How long after something was given back, or may be soon, is looked again.
const TIDY_SOON: Duration = Duration::from_secs(1);
/// How long is waited at most between two looks that find nothing.
const TIDY_SELDOM: Duration = Duration::from_secs(64);
/// Rings that are given back at a time: what is done here holds up whoever forks.
const TIDIED_AT_ONCE: usize = 256;

/// Gives back ring memory that is not used; how long until the next look. `None`: there are no connections.
pub(crate) fn tidy() -> Option<Duration> {
    static PAUSE_S: AtomicU64 = AtomicU64::new(0);
    let all: Vec<_> = with_known(<[_]>::to_vec);
    let (mut has_any, mut has_more, mut given_back) = (false, false, 0);
    for known in all {
        // Not waited for: a thread that has it may be waiting for this one, to fork in a handler of a signal.
        let Ok(sockets) = known.sockets.try_lock().map(|sockets| sockets.clone()) else {
            (has_any, has_more) = (true, true);
            continue;
        };
        for socket in sockets.iter().filter_map(Weak::upgrade) {
            has_any = true;
            match socket.tidy() {
                Tidied::Nothing => {}
                Tidied::Later => has_more = true,
                Tidied::GivenBack => given_back += 1,
            }
            if given_back == TIDIED_AT_ONCE {
                return Some(Duration::from_millis(10));
            }
        }
    }
    let last = Duration::from_secs(PAUSE_S.load(Ordering::Relaxed));
    let is_busy = has_more || given_back > 0;
    let pause = if is_busy { TIDY_SOON } else { (last * 2).clamp(TIDY_SOON, TIDY_SELDOM) };
    PAUSE_S.store(pause.as_secs(), Ordering::Relaxed);
    has_any.then_some(pause)
}

fn with_known<R>(with: impl FnOnce(&[Arc<Known>]) -> R) -> R {
    with(KNOWN.load().as_deref().map_or(&[], Vec::as_slice))
}

/// In a child: what its parent watches is the parent's to be told of.
pub(crate) fn begin_anew() {
    COUNT.store(0, Ordering::Release);
    KNOWN.store(None);
}
