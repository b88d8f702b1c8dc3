//! Which descriptor is which.

use std::ops::Deref;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use arc_swap::{ArcSwapOption, Guard};

use crate::epoll::Epoll;
use crate::socket::Socket;
use crate::upgrade;

/// Descriptors beyond it are left alone.
const DESCRIPTORS: usize = 1 << 20;

/// One byte a descriptor, so that those that are not ours cost one look. Pages of it exist once they are touched.
static KINDS: [AtomicU8; DESCRIPTORS] = [const { AtomicU8::new(NOT_OURS) }; DESCRIPTORS];
static SOCKETS: [ArcSwapOption<Socket>; DESCRIPTORS] = [const { ArcSwapOption::const_empty() }; DESCRIPTORS];
static EPOLLS: [ArcSwapOption<Epoll>; DESCRIPTORS] = [const { ArcSwapOption::const_empty() }; DESCRIPTORS];

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
#[derive(Clone, Debug)]
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

/// Whether calls on `fd` may be ours to answer: it is no stranger, and no socket that stays TCP for good.
#[inline]
pub(crate) fn is_active(fd: RawFd) -> bool {
    !matches!(kind(fd), NOT_OURS | PLAIN_SOCKET)
}

/// A socket that is in use: for less than counting it would cost.
pub(crate) struct Active(Guard<Option<Arc<Socket>>>);

impl Deref for Active {
    type Target = Arc<Socket>;

    #[inline]
    fn deref(&self) -> &Arc<Socket> {
        self.0.as_ref().expect("made for a socket")
    }
}

/// The socket that `fd` is, unless its bytes go over TCP for good.
#[inline]
pub(crate) fn active_socket(fd: RawFd) -> Option<Active> {
    if !matches!(kind(fd), SOCKET | INHERITED_SOCKET) {
        return None;
    }
    begin_to_use(fd);
    let guard = SOCKETS[fd as usize].load();
    guard.is_some().then(|| Active(guard))
}

/// This process uses `fd`, which it may have inherited.
#[inline]
fn begin_to_use(fd: RawFd) {
    if kind(fd) == INHERITED_SOCKET {
        adopt(fd);
    }
}

#[cold]
fn adopt(fd: RawFd) {
    if let Some(socket) = socket(fd) {
        // Before others take it for adopted, who may fall asleep at once.
        upgrade::adopt(&socket);
        let _ = KINDS[fd as usize].compare_exchange(INHERITED_SOCKET, SOCKET, Ordering::AcqRel, Ordering::Relaxed);
    }
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
    if matches!(kind(fd), SOCKET | PLAIN_SOCKET | INHERITED_SOCKET) { SOCKETS[fd as usize].load_full() } else { None }
}

/// The epoll instance that `fd` is, if it watches anything of ours.
#[inline]
pub(crate) fn epoll(fd: RawFd) -> Option<Arc<Epoll>> {
    if kind(fd) == EPOLL { EPOLLS[fd as usize].load_full() } else { None }
}

/// What `fd` is, for who is going to wait for it.
pub(crate) fn used_entry(fd: RawFd) -> Option<Entry> {
    begin_to_use(fd);
    entry(fd)
}

/// What `fd` is.
pub(crate) fn entry(fd: RawFd) -> Option<Entry> {
    match kind(fd) {
        SOCKET | PLAIN_SOCKET | INHERITED_SOCKET => SOCKETS[fd as usize].load_full().map(Entry::Socket),
        EPOLL => EPOLLS[fd as usize].load_full().map(Entry::Epoll),
        _ => None,
    }
}

/// From now on `fd` is `entry`.
pub(crate) fn insert(fd: RawFd, entry: Entry) {
    let Some(at) = usize::try_from(fd).ok().filter(|at| *at < DESCRIPTORS) else {
        return;
    };
    HIGHEST.fetch_max(at, Ordering::AcqRel);
    let (kind, socket, epoll) = match entry {
        Entry::Socket(socket) => {
            let kind = match socket.is_inherited() {
                _ if socket.is_plain() && !socket.is_required() => PLAIN_SOCKET,
                // A copy of one that was perhaps not used yet; a second adoption does no harm.
                true => INHERITED_SOCKET,
                false => SOCKET,
            };
            (kind, Some(socket), None)
        }
        Entry::Epoll(epoll) => (EPOLL, None, Some(epoll)),
    };
    SOCKETS[at].store(socket);
    EPOLLS[at].store(epoll);
    KINDS[at].store(kind, Ordering::Release);
}

/// From now on the calls on `fd`, if it is `socket`, go straight to the kernel.
pub(crate) fn let_through(fd: RawFd, socket: &Socket) {
    if self::socket(fd).is_some_and(|known| std::ptr::eq(known.as_ref(), socket)) {
        KINDS[fd as usize].store(PLAIN_SOCKET, Ordering::Release);
    }
}

/// `fd` means nothing any more: what it was.
pub(crate) fn remove(fd: RawFd) -> Option<Entry> {
    let was = kind(fd);
    if was == NOT_OURS {
        return None;
    }
    KINDS[fd as usize].store(NOT_OURS, Ordering::Release);
    match was {
        EPOLL => EPOLLS[fd as usize].swap(None).map(Entry::Epoll),
        _ => SOCKETS[fd as usize].swap(None).map(Entry::Socket),
    }
}

/// All descriptors that are something, up to the highest that ever was.
pub(crate) fn each(mut with: impl FnMut(RawFd, &Entry)) {
    for fd in 0..=HIGHEST.load(Ordering::Acquire) as RawFd {
        if let Some(entry) = entry(fd) {
            with(fd, &entry);
        }
    }
}
