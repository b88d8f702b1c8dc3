//! Children: of `fork`, which have a copy of everything and share the connections; and of `vfork`, which run in our
//! memory until they call exec and must change nothing of it.
//!
//! A child of `fork` has none of the other threads: a lock that one of them holds at that moment is never given back
//! there. So the thread that forks holds all that a child may need, from before the fork until after it. It takes them
//! in the order in which everybody does who holds several:
//!
//! 1. the service's (its worker's, its desk's), the connections that are on their way, those that have arrived:
//!    [`upgrade`];
//! 2. of each socket: `watchers`, `descriptors`, `kept`. Nobody holds locks of two sockets;
//! 3. of each epoll instance: `once`, `ready`, `registrations`, `descriptors`. Whoever holds a socket's may take one of
//!    these, and nobody the other way round;
//! 4. the list of arenas: [`show`]. It is needed where the last owner of a socket lets go of it, whatever else is held
//!    there.
//!
//! What is not among them: the list of arenas that is looked through for news is read without a lock, so a child gets
//! an empty one whoever was reading ([`readiness`]); the words of a connection are shared with the child, and whoever
//! has locked them runs on in the parent; the batch of an epoll instance is only tried.
//!
//! A signal handler may fork while its own thread holds one of them, and would wait for ever. Of those from 2. on,
//! which are many and held often, each is waited for only so long ([`PATIENCE`]); a child then lacks that one, and
//! hangs if it needs it. While they are held no signal comes. The service's are waited for, so the service's thread
//! should not wait for what an interrupted thread may hold: when it tidies up, it does not.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crate::abi::held::{Held, Lockable};
use crate::abi::kernel::{self, Signals};
use crate::epoll::Epoll;
use crate::lock;
use crate::readiness;
use crate::shared_words;
use crate::show;
use crate::socket::Socket;
use crate::table::{self, Entry};
use crate::upgrade;

/// The process that the tables are of.
static PROCESS: AtomicU64 = AtomicU64::new(0);
/// What it locks with.
static OWNER: AtomicU64 = AtomicU64::new(0);

/// How long one lock is waited for, which are held for a system call at most: longer only by a thread that does not get
/// on.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often others are let run before the clock is looked at.
const YIELDS: u32 = 64;

thread_local! {
    /// Between the two sides of a fork.
    static FORKING: RefCell<Option<Forking>> = const { RefCell::new(None) };
}

/// What no other thread may have while the process forks.
struct Forking {
    page: show::Forking,
    /// By their addresses, as the instances are.
    sockets: Vec<Held<Socket>>,
    epolls: Vec<Held<Epoll>>,
    signals: Signals,
}

/// This is a process of its own.
pub(crate) fn begin() {
    PROCESS.store(lock::process(), Ordering::Relaxed);
    OWNER.store(lock::owner(), Ordering::Relaxed);
}

/// What the process locks with.
#[inline]
pub(crate) fn owner() -> u64 {
    OWNER.load(Ordering::Relaxed)
}

/// Whether this is not a child that only borrows our memory.
pub(crate) fn is_own_process() -> bool {
    PROCESS.load(Ordering::Relaxed) == lock::process()
}

/// Locks `mutex` for a fork, unless it cannot be had.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    let mut started = None::<Instant>;
    for round in 0_u32.. {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(PoisonError::into_inner(poisoned)),
            Err(TryLockError::WouldBlock) if round % YIELDS == YIELDS - 1 => {
                if started.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                    break;
                }
                kernel::pause(Duration::from_micros(50));
            }
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    None
}

/// A child will have every connection too.
pub(crate) fn before() {
    upgrade::before_fork();
    let signals = kernel::block_signals();
    let (mut sockets, mut epolls) = (Vec::new(), Vec::new());
    table::each(|_, entry| match entry {
        Entry::Socket(socket) => sockets.push(socket.clone()),
        Entry::Epoll(epoll) => epolls.push(epoll.clone()),
    });
    let mut sockets = hold(sockets);
    sockets.retain(|socket| !socket.guards().is_closed());
    sockets.iter().for_each(|socket| socket.owner().add_holder());
    let epolls = hold(epolls);
    let forking = Forking { page: show::before_fork(), sockets, epolls, signals };
    FORKING.with(|kept| *kept.borrow_mut() = Some(forking));
}

/// Holds the locks of all, each once, however many descriptors it has.
fn hold<T: Lockable>(mut all: Vec<Arc<T>>) -> Vec<Held<T>> {
    all.sort_unstable_by_key(Arc::as_ptr);
    all.dedup_by(|one, other| Arc::ptr_eq(one, other));
    all.into_iter().map(Held::new).collect()
}

pub(crate) fn after_in_parent() {
    let Some(forking) = FORKING.with(|kept| kept.borrow_mut().take()) else {
        return;
    };
    // The other way round; sockets that were closed meanwhile are dropped here.
    drop(forking.page);
    upgrade::after_fork_in_parent();
    drop((forking.epolls, forking.sockets));
    kernel::restore_signals(&forking.signals);
}

pub(crate) fn after_in_child() {
    begin();
    let Some(Forking { page, mut sockets, epolls, signals }) = FORKING.with(|kept| kept.borrow_mut().take()) else {
        return;
    };
    shared_words::begin_anew();
    readiness::begin_anew();
    leave_to_parent(&mut sockets);
    sockets.iter().for_each(|socket| socket.owner().inherit());
    epolls.iter().for_each(|epoll| epoll.owner().inherit());
    let returning = upgrade::after_fork_in_child();
    show::begin_anew(page);
    drop((epolls, sockets));
    table::begin_anew();
    for socket in returning {
        socket.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
    kernel::restore_signals(&signals);
}

/// What other threads were just opening or closing when their process forked is the parent's alone: they have not done
/// all of it, and here they never will.
fn leave_to_parent(sockets: &mut Vec<Held<Socket>>) {
    let mut is_there = vec![false; sockets.len()];
    let mut opening = Vec::new();
    table::each(|fd, entry| {
        if let Entry::Socket(socket) = entry {
            let address = Arc::as_ptr(socket);
            match sockets.binary_search_by_key(&address, |held| Arc::as_ptr(held.owner())) {
                Ok(at) => is_there[at] = true,
                Err(_) => opening.push(fd),
            }
        }
    });
    // Neither is dropped: that would take it from the parent.
    for fd in opening {
        std::mem::forget(table::remove(fd));
    }
    let mut is_there = is_there.into_iter();
    sockets.retain(|socket| {
        let is_ours = is_there.next() == Some(true);
        if !is_ours {
            socket.owner().remove_holder();
            std::mem::forget(socket.owner().clone());
        }
        is_ours
    });
}
