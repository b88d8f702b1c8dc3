//! Which descriptor is which.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;

use crate::epoll::Epoll;
use crate::socket::Socket;
use crate::upgrade;

/// Descriptors beyond it are left alone.
const DESCRIPTORS: usize = 1 << 20;

/// One byte a descriptor, so that those that are not ours cost one look. Pages of it exist once they are touched.
static KINDS: [AtomicU8; DESCRIPTORS] = [const { AtomicU8::new(NOT_OURS) }; DESCRIPTORS];
static ENTRIES: [ArcSwapOption<Entry>; DESCRIPTORS] = [const { ArcSwapOption::const_empty() }; DESCRIPTORS];

/// The highest descriptor that ever was something.
static HIGHEST: AtomicUsize = AtomicUsize::new(0);

const NOT_OURS: u8 = 0;
const SOCKET: u8 = 1;
const EPOLL: u8 = 2;
/// A socket that stays TCP for good: its calls go through, but it is known when it is closed or watched.
const PLAIN_SOCKET: u8 = 3;
/// A socket that this process has from its parent, and has not used yet.
const INHERITED_SOCKET: u8 = 4;

/// What a descriptor is.
#[derive(Debug)]
pub(crate) enum Entry {
    Socket(Arc<Socket>),
    Epoll(Arc<Epoll>),
}

fn kind(fd: RawFd) -> u8 {
    usize::try_from(fd).ok().and_then(|at| KINDS.get(at)).map_or(NOT_OURS, |kind| kind.load(Ordering::Acquire))
}

/// Whether `fd` means anything to us.
#[inline]
pub(crate) fn is_known(fd: RawFd) -> bool {
    kind(fd) != NOT_OURS
}

/// The socket that `fd` is, unless its bytes go over TCP for good.
#[inline]
pub(crate) fn active_socket(fd: RawFd) -> Option<Arc<Socket>> {
    match kind(fd) {
        SOCKET => socket(fd),
        INHERITED_SOCKET => adopt(fd),
        _ => None,
    }
}

/// This process begins to use what it has inherited.
#[cold]
fn adopt(fd: RawFd) -> Option<Arc<Socket>> {
    let socket = socket(fd)?;
    KINDS[fd as usize].store(SOCKET, Ordering::Release);
    upgrade::adopt(&socket);
    Some(socket)
}

/// In a child: nothing was used here yet.
pub(crate) fn begin_anew() {
    for kind in &KINDS[..=HIGHEST.load(Ordering::Acquire)] {
        let _ = kind.compare_exchange(SOCKET, INHERITED_SOCKET, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// The socket that `fd` is.
#[inline]
pub(crate) fn socket(fd: RawFd) -> Option<Arc<Socket>> {
    match entry(fd)?.as_ref() {
        Entry::Socket(socket) => Some(socket.clone()),
        Entry::Epoll(_) => None,
    }
}

/// The epoll instance that `fd` is, if it watches anything of ours.
#[inline]
pub(crate) fn epoll(fd: RawFd) -> Option<Arc<Epoll>> {
    if kind(fd) != EPOLL {
        return None;
    }
    match entry(fd)?.as_ref() {
        Entry::Epoll(epoll) => Some(epoll.clone()),
        Entry::Socket(_) => None,
    }
}

/// What `fd` is.
pub(crate) fn entry(fd: RawFd) -> Option<Arc<Entry>> {
    if kind(fd) == NOT_OURS {
        return None;
    }
    ENTRIES.get(usize::try_from(fd).ok()?)?.load_full()
}

/// From now on `fd` is `entry`.
pub(crate) fn insert(fd: RawFd, entry: Arc<Entry>) {
    let Some(at) = usize::try_from(fd).ok().filter(|at| *at < DESCRIPTORS) else {
        return;
    };
    let kind = match entry.as_ref() {
        Entry::Socket(socket) if socket.is_plain() => PLAIN_SOCKET,
        Entry::Socket(_) => SOCKET,
        Entry::Epoll(_) => EPOLL,
    };
    HIGHEST.fetch_max(at, Ordering::AcqRel);
    ENTRIES[at].store(Some(entry));
    KINDS[at].store(kind, Ordering::Release);
}

/// From now on the calls on `fd`, if it is `socket`, go straight to the kernel.
pub(crate) fn let_through(fd: RawFd, socket: &Socket) {
    if self::socket(fd).is_some_and(|known| std::ptr::eq(known.as_ref(), socket)) {
        KINDS[fd as usize].store(PLAIN_SOCKET, Ordering::Release);
    }
}

/// `fd` means nothing any more: what it was.
pub(crate) fn remove(fd: RawFd) -> Option<Arc<Entry>> {
    if kind(fd) == NOT_OURS {
        return None;
    }
    KINDS[fd as usize].store(NOT_OURS, Ordering::Release);
    ENTRIES[fd as usize].swap(None)
}

/// All descriptors that are something, up to the highest that ever was.
pub(crate) fn each(mut with: impl FnMut(RawFd, &Entry)) {
    for at in 0..=HIGHEST.load(Ordering::Acquire) {
        if KINDS[at].load(Ordering::Acquire) != NOT_OURS
            && let Some(entry) = ENTRIES[at].load_full()
        {
            with(at as RawFd, &entry);
        }
    }
}
