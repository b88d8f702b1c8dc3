//! epoll instances that watch connections of ours.
//!
//! The kernel's instance stays what the program made it. Sockets of ours are registered there with a token instead of the program's
//! data; once such a socket sends through its ring, the kernel is only asked for edges, which are doorbells and the end of the
//! stream, and what is ready is known here: a list of registrations that may have something to report, looked through when
//! the program asks. Level-triggered ones stay in it until they have nothing; edge-triggered ones leave it when reported.

mod inheritance;
mod outside;
mod registration;
mod waiting;

use std::collections::HashMap;
use std::ffi::c_int;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use libc::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLERR, EPOLLET, EPOLLEXCLUSIVE, EPOLLHUP, EPOLLIN};
use libc::{EPOLLPRI, EPOLLRDHUP, epoll_event};
use rustix::io::Errno;
use softrdma_smc::arena::WAITERS;

use crate::abi::kernel;
use crate::readiness::{self, READABLE, WRITABLE};
use crate::socket::Socket;
use crate::spin::Spin;
use crate::table::{self, Entry};

use self::outside::Once;
pub(crate) use self::outside::control_foreign;
pub(crate) use self::waiting::Deadline;

/// What the kernel tells without being asked.
const ALWAYS: u32 = (EPOLLERR | EPOLLHUP) as u32;
/// What the kernel is asked for about a socket that sends through its ring.
const EDGES: u32 = (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET) as u32;
/// What may stand beside EPOLLEXCLUSIVE: with one instance woken of several we have nothing to do, but we keep its rules.
const WITH_EXCLUSIVE: u32 = READABLE | WRITABLE | ALWAYS | (EPOLLEXCLUSIVE | EPOLLET | libc::EPOLLWAKEUP) as u32;
/// How long events of ours may keep us from asking the kernel for its own.
pub(crate) const KERNEL_PATIENCE: Duration = Duration::from_micros(20);

/// The upper half of our tokens: no pointer of a program's and no small number looks like it.
static TOKENS: LazyLock<u64> = LazyLock::new(|| (rand::random::<u64>() | 1 << 63) & !u64::from(u32::MAX));

/// An epoll instance.
#[derive(Debug)]
pub(crate) struct Epoll {
    /// By which the kernel knows it: one, or copies of it.
    descriptors: Mutex<Vec<RawFd>>,
    /// What peers know it by.
    waiter: usize,
    registrations: Mutex<Registrations>,
    ready: Mutex<Vec<Arc<Registration>>>,
    ready_count: AtomicUsize,
    /// What the kernel tells once, and how much of it was taken by who looked from outside.
    once: Mutex<Once>,
    taken_count: AtomicUsize,
    sleepers: AtomicUsize,
    /// It is watched itself: its watchers sleep where no peer can know of.
    is_watched: AtomicBool,
    /// Something in it is ready or not by what is known here: worth spinning for.
    has_ours: AtomicBool,
    /// There was no room for events of the kernel's last time.
    was_full: AtomicBool,
    spin: Spin,
    /// When the kernel was asked last, and whether it had anything for the program.
    last_asked_ns: AtomicU64,
    is_kernel_busy: AtomicBool,
    /// This process has it from its parent, and has not used it yet.
    is_inherited: AtomicBool,
    /// What [`Self::collect`] works on, kept for its memory.
    batch: Mutex<Vec<Arc<Registration>>>,
}

/// What is registered in an instance.
#[derive(Debug, Default)]
struct Registrations {
    /// By the number in the token that the kernel has. It tells of what is registered under a descriptor's number for as
    /// long as any copy of the descriptor lives: the number may be another's by then.
    all: HashMap<u32, Arc<Registration>>,
    /// By the descriptor that the program knows each by.
    by_fd: HashMap<RawFd, Arc<Registration>>,
    last: u32,
}

impl Registrations {
    /// A number that none of them has.
    fn new_number(&mut self) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if !self.all.contains_key(&self.last) {
                return self.last;
            }
        }
    }

    /// Knows `registration` from now on: which had its descriptor before.
    fn insert(&mut self, registration: &Arc<Registration>) -> Option<Arc<Registration>> {
        self.all.insert(registration.number, registration.clone());
        self.by_fd.insert(registration.fd, registration.clone())
    }

    fn remove(&mut self, registration: &Arc<Registration>) {
        self.all.remove(&registration.number);
        self.remove_descriptor(registration);
    }

    /// The descriptor that `registration` was made with is closed.
    fn remove_descriptor(&mut self, registration: &Arc<Registration>) {
        if self.by_fd.get(&registration.fd).is_some_and(|known| Arc::ptr_eq(known, registration)) {
            self.by_fd.remove(&registration.fd);
        }
    }
}

/// A thread of ours sleeps in the kernel, or has been cancelled while it did, until this is dropped.
struct Sleeping<'a>(&'a Epoll);

impl Drop for Sleeping<'_> {
    fn drop(&mut self) {
        let epoll = self.0;
        if epoll.sleepers.fetch_sub(1, Ordering::SeqCst) > 1 {
            // The peer takes them for awake, too.
            readiness::fall_asleep(epoll.waiter);
        } else {
            readiness::wake_up(epoll.waiter, || epoll.sleepers.load(Ordering::SeqCst) > 0);
        }
    }
}

/// A socket in an epoll instance.
#[derive(Debug)]
pub(crate) struct Registration {
    epoll: Weak<Epoll>,
    /// By which the kernel's events tell of it.
    number: u32,
    fd: RawFd,
    target: Target,
    data: AtomicU64,
    interest: AtomicU32,
    /// Reported, with EPOLLONESHOT, and not changed since.
    is_spent: AtomicBool,
    /// Something is new to it, whatever the peer's words say.
    is_fresh: AtomicBool,
    /// What the peer's words were when it was reported last.
    seen: AtomicU64,
    /// How often the program had been refused room when it was reported writable last.
    refusals: AtomicU32,
    is_queued: AtomicBool,
    is_removed: AtomicBool,
    /// The kernel was asked for edges only.
    is_ours: AtomicBool,
}

#[derive(Debug)]
enum Target {
    Socket(Arc<Socket>),
    Epoll(Weak<Epoll>),
}

/// The instance that `fd` is; from now on it is known as one.
pub(crate) fn instance(fd: RawFd) -> Arc<Epoll> {
    static WAITER: AtomicUsize = AtomicUsize::new(0);
    if let Some(epoll) = table::epoll(fd) {
        return epoll;
    }
    let waiter = WAITER.fetch_add(1, Ordering::Relaxed).min(WAITERS);
    let epoll = Arc::new(Epoll {
        descriptors: Mutex::new(vec![fd]),
        waiter,
        registrations: Mutex::default(),
        ready: Mutex::default(),
        ready_count: AtomicUsize::new(0),
        once: Mutex::default(),
        taken_count: AtomicUsize::new(0),
        sleepers: AtomicUsize::new(0),
        is_watched: AtomicBool::new(false),
        has_ours: AtomicBool::new(false),
        was_full: AtomicBool::new(false),
        spin: Spin::new(),
        last_asked_ns: AtomicU64::new(0),
        is_kernel_busy: AtomicBool::new(true),
        is_inherited: AtomicBool::new(false),
        batch: Mutex::default(),
    });
    table::insert(fd, Entry::Epoll(epoll.clone()));
    epoll
}

/// `epoll_ctl`, if `fd` is something of ours; nothing if the kernel's will do.
pub(crate) fn control(
    epoll_fd: RawFd,
    operation: c_int,
    fd: RawFd,
    event: Option<(u32, u64)>,
) -> Option<Result<(), Errno>> {
    let target = match table::used_entry(fd)? {
        Entry::Socket(socket) if socket.is_plain() && table::epoll(epoll_fd).is_none() => return None,
        Entry::Socket(socket) => Target::Socket(socket),
        Entry::Epoll(epoll) => {
            epoll.begin_use();
            epoll.is_watched.store(true, Ordering::SeqCst);
            epoll.tell_waiters();
            Target::Epoll(Arc::downgrade(&epoll))
        }
    };
    Some(match (operation, event) {
        (EPOLL_CTL_ADD, Some((events, data))) => instance(epoll_fd).add(fd, target, events, data),
        (EPOLL_CTL_MOD, Some((events, data))) => table::epoll(epoll_fd)?.change(fd, events, data)?,
        (EPOLL_CTL_DEL, _) => {
            if let Target::Socket(socket) = &target
                && let Some(parked) = table::epoll(epoll_fd).and_then(|epoll| epoll.park(fd, socket))
            {
                return Some(parked);
            }
            let removed = kernel::epoll_control(epoll_fd, EPOLL_CTL_DEL, fd, 0, 0);
            if let Some(epoll) = table::epoll(epoll_fd).filter(|_| removed.is_ok()) {
                epoll.forget(fd);
            }
            removed
        }
        _ => return None,
    })
}

impl Epoll {
    fn descriptors(&self) -> MutexGuard<'_, Vec<RawFd>> {
        self.descriptors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A descriptor of it; none once all are closed.
    fn fd(&self) -> RawFd {
        self.descriptors().first().copied().unwrap_or(-1)
    }

    /// `fd` is it as well.
    pub(crate) fn add_descriptor(&self, fd: RawFd) {
        self.descriptors().push(fd);
    }

    /// `fd` is it no more.
    pub(crate) fn remove_descriptor(&self, fd: RawFd) {
        self.descriptors().retain(|known| *known != fd);
    }

    fn registrations(&self) -> MutexGuard<'_, Registrations> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ready(&self) -> MutexGuard<'_, Vec<Arc<Registration>>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(self: &Arc<Self>, fd: RawFd, target: Target, events: u32, data: u64) -> Result<(), Errno> {
        if events & EPOLLEXCLUSIVE as u32 != 0 && events & !WITH_EXCLUSIVE != 0 {
            return Err(Errno::INVAL);
        }
        if let Target::Socket(socket) = &target {
            self.unpark_elsewhere(socket);
            if let Some(revived) = self.revive(fd, socket, events, data) {
                return revived;
            }
        }
        self.forget_foreign(fd);
        let registration = Arc::new(Registration {
            epoll: Arc::downgrade(self),
            number: self.registrations().new_number(),
            fd,
            target,
            data: AtomicU64::new(data),
            interest: AtomicU32::new(events),
            is_spent: AtomicBool::new(false),
            is_fresh: AtomicBool::new(true),
            seen: AtomicU64::new(0),
            refusals: AtomicU32::new(0),
            is_queued: AtomicBool::new(false),
            is_removed: AtomicBool::new(false),
            is_ours: AtomicBool::new(false),
        });
        let Target::Socket(socket) = &registration.target else {
            self.has_ours.store(true, Ordering::SeqCst);
            self.enter(&registration, || {
                kernel::epoll_control(self.fd(), EPOLL_CTL_ADD, fd, EDGES, registration.token())
            })?;
            registration.queue();
            return Ok(());
        };
        // With the watchers locked the socket does not change over to its ring meanwhile.
        let mut watchers = socket.watchers();
        self.enter(&registration, || registration.register(EPOLL_CTL_ADD))?;
        watchers.retain(|watcher| watcher.strong_count() > 0);
        watchers.push(Arc::downgrade(&registration));
        drop(watchers);
        socket.tell_waiter();
        registration.queue_if_ours();
        Ok(())
    }

    /// The registration of `socket` under `fd`. While the result lives it is neither taken over nor given back.
    fn known<'a>(&self, fd: RawFd, socket: &'a Socket) -> Option<(Arc<Registration>, Watchers<'a>)> {
        let watchers = socket.watchers();
        let registration = self.registrations().by_fd.get(&fd)?.clone();
        let is_same = matches!(&registration.target, Target::Socket(known) if std::ptr::eq(known.as_ref(), socket));
        is_same.then_some((registration, watchers))
    }

    /// Watches `socket` no more. The kernel need not know: of a socket that sends through its ring it has doorbells to tell, which
    /// are for us. Programs that watch for one thing at a time come back soon.
    fn park(&self, fd: RawFd, socket: &Socket) -> Option<Result<(), Errno>> {
        let (registration, _watchers) = self.known(fd, socket)?;
        if registration.is_removed() {
            return Some(Err(Errno::NOENT));
        }
        socket.uses_ring().then(|| {
            registration.is_removed.store(true, Ordering::Release);
            Ok(())
        })
    }

    /// Watches `socket` again.
    fn revive(&self, fd: RawFd, socket: &Socket, events: u32, data: u64) -> Option<Result<(), Errno>> {
        let (registration, watchers) = self.known(fd, socket)?;
        if !registration.is_removed() {
            return socket.uses_ring().then_some(Err(Errno::EXIST));
        }
        if !socket.uses_ring() || socket.is_shared() {
            // It is on its way back to TCP, or there, where the kernel has to know. Or another process has it as well, and
            // perhaps this very instance, where it may have closed it.
            registration.unpark(self);
            return None;
        }
        registration.renew(events, data);
        registration.is_removed.store(false, Ordering::Release);
        drop(watchers);
        registration.queue();
        registration.wake_sleepers();
        Some(Ok(()))
    }

    /// An instance that does not watch `socket` any more need not be woken for it.
    fn unpark_elsewhere(&self, socket: &Socket) {
        // With the watchers locked none of them is revived meanwhile.
        let watchers = socket.watchers();
        let is_parked = |registration: &Arc<Registration>| registration.is_removed() && !registration.is_of_parent();
        for parked in watchers.iter().filter_map(Weak::upgrade).filter(is_parked) {
            if let Some(epoll) = parked.epoll.upgrade().filter(|epoll| !std::ptr::eq(epoll.as_ref(), self)) {
                parked.unpark(&epoll);
            }
        }
    }

    /// Knows `registration` from before the kernel does, which may have events of it at once.
    fn enter(&self, registration: &Arc<Registration>, register: impl Fn() -> Result<(), Errno>) -> Result<(), Errno> {
        let before = self.registrations().insert(registration);
        let result = register();
        let mut registrations = self.registrations();
        match (&result, before) {
            (Ok(()), Some(before)) if matches!(before.target, Target::Epoll(_)) => {
                // Nobody says when an instance is closed.
                registrations.all.remove(&before.number);
            }
            (Ok(()), _) => {}
            (Err(_), before) => {
                registrations.remove(registration);
                if let Some(before) = before {
                    registrations.by_fd.insert(before.fd, before);
                }
            }
        }
        result
    }

    fn change(&self, fd: RawFd, events: u32, data: u64) -> Option<Result<(), Errno>> {
        let registration = self.registrations().by_fd.get(&fd)?.clone();
        if (registration.interest.load(Ordering::Acquire) | events) & EPOLLEXCLUSIVE as u32 != 0 {
            return Some(Err(Errno::INVAL));
        }
        if registration.is_removed.load(Ordering::Acquire) {
            return Some(Err(Errno::NOENT));
        }
        registration.renew(events, data);
        if let Target::Socket(socket) = &registration.target {
            let watchers = socket.watchers();
            // Otherwise the kernel knows all it needs to.
            let changed = if socket.uses_ring() { Ok(()) } else { registration.register(EPOLL_CTL_MOD) };
            drop(watchers);
            if changed.is_err() {
                return Some(changed);
            }
        }
        registration.queue_if_ours();
        registration.wake_sleepers();
        Some(Ok(()))
    }

    /// `fd` is watched no more.
    fn forget(&self, fd: RawFd) {
        let removed = self.registrations().by_fd.get(&fd).cloned();
        if let Some(removed) = removed {
            self.forget_registration(&removed);
            if let Target::Socket(socket) = &removed.target {
                socket.watchers().retain(|watcher| !std::ptr::eq(watcher.as_ptr(), Arc::as_ptr(&removed)));
                socket.tell_waiter();
            }
        }
    }

    /// `registration` is of no use any more; its descriptor may be another's already.
    fn forget_registration(&self, registration: &Arc<Registration>) {
        registration.is_removed.store(true, Ordering::Release);
        self.registrations().remove(registration);
        self.unqueue(registration);
    }

    /// Nothing is left to report of `registration`, nor is it to keep its socket.
    fn unqueue(&self, registration: &Arc<Registration>) {
        let mut ready = self.ready();
        ready.retain(|queued| !Arc::ptr_eq(queued, registration));
        self.ready_count.store(ready.len(), Ordering::Release);
    }

    fn tell_waiters(&self) {
        let all: Vec<_> = self.registrations().all.values().cloned().collect();
        for registration in all {
            if let Target::Socket(socket) = &registration.target {
                socket.tell_waiter();
            }
        }
    }

    /// The program's own event for one of the kernel's; none if it was only for us.
    fn translate(&self, event: epoll_event) -> Option<epoll_event> {
        if !is_token(event.u64) {
            return Some(event);
        }
        // One that is removed meanwhile is of no interest any more.
        let registration = self.registration_of(event.u64)?;
        if registration.has_rings() {
            registration.take_note(event.events);
            return None;
        }
        if registration.is_told_in_vain() || !registration.note_told(event.events) {
            return None;
        }
        Some(epoll_event { events: event.events, u64: registration.data.load(Ordering::Acquire) })
    }

    /// Whoever watches it sleeps where no peer knows of: they are to wake always.
    pub(crate) fn watch(&self) {
        self.begin_use();
        if !self.is_watched.swap(true, Ordering::SeqCst) {
            self.tell_waiters();
        }
    }

    /// The registration that an event of the kernel's is about, if it is one of ours.
    fn registration_of(&self, data: u64) -> Option<Arc<Registration>> {
        is_token(data).then(|| self.registrations().all.get(&(data as u32)).cloned()).flatten()
    }

    fn fall_asleep(&self) -> Sleeping<'_> {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        Sleeping(self)
    }

    /// The same events as the program knows them, at the beginning: how many.
    fn translate_all(&self, events: &mut [epoll_event]) -> usize {
        let mut found = 0;
        for at in 0..events.len() {
            if let Some(event) = self.translate(events[at]) {
                events[found] = event;
                found += 1;
            }
        }
        found
    }
}

type Watchers<'a> = MutexGuard<'a, Vec<Weak<Registration>>>;

/// Whether it is one of ours, and not a program's data.
fn is_token(data: u64) -> bool {
    data & !u64::from(u32::MAX) == *TOKENS
}

/// A descriptor is about to be closed that instances may be watching.
pub(crate) fn forget(socket: &Socket, fd: RawFd) {
    // The kernel keeps what is registered as long as a copy of the descriptor lives; so do we.
    let is_last = socket.descriptors().iter().all(|known| *known == fd);
    let lives_on = !is_last || socket.is_shared();
    let mut watchers = socket.watchers();
    watchers.retain(|watcher| {
        let Some(registration) = watcher.upgrade() else { return false };
        let Some(epoll) = registration.epoll.upgrade() else { return false };
        if registration.fd == fd && registration.is_removed() && lives_on && !registration.is_of_parent() {
            // The kernel believes that the program watches it, and can be told otherwise as long as the number is its.
            registration.unpark(&epoll);
        } else if is_last {
            epoll.forget_registration(&registration);
        } else {
            if registration.fd == fd {
                epoll.registrations().remove_descriptor(&registration);
            }
            return true;
        }
        false
    });
}
