//! epoll instances that watch connections of ours.
//!
//! The kernel's instance stays what the program made it. Sockets of ours are registered there with a token instead of the program's
//! data; once such a socket sends through its ring, the kernel is only asked for edges, which are doorbells and the end of the
//! stream, and what is ready is known here: a list of registrations that may have something to report, looked through when
//! the program asks. Level-triggered ones stay in it until they have nothing; edge-triggered ones leave it when reported.

use std::collections::HashMap;
use std::ffi::c_int;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use libc::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLERR, EPOLLET, EPOLLEXCLUSIVE, EPOLLHUP, EPOLLIN};
use libc::{EPOLLONESHOT, EPOLLPRI, EPOLLRDHUP, epoll_event};
use rustix::io::Errno;
use softrdma_smc::arena::WAITERS;

use crate::abi::kernel;
use crate::fork;
use crate::readiness::{self, READABLE, WRITABLE};
use crate::socket::{Mode, Socket};
use crate::table::{self, Entry};
use crate::wait;

/// What the kernel tells without being asked.
const ALWAYS: u32 = (EPOLLERR | EPOLLHUP) as u32;
/// What the kernel is asked for about a socket that sends through its ring.
const EDGES: u32 = (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET) as u32;
/// What may stand beside EPOLLEXCLUSIVE: with one instance woken of several we have nothing to do, but we keep its rules.
const WITH_EXCLUSIVE: u32 = READABLE | WRITABLE | ALWAYS | (EPOLLEXCLUSIVE | EPOLLET | libc::EPOLLWAKEUP) as u32;
/// How long events of ours may keep us from asking the kernel for its own.
const KERNEL_PATIENCE: Duration = Duration::from_micros(20);

/// The upper half of our tokens: no pointer of a program's and no small number looks like it.
static TOKENS: LazyLock<u64> = LazyLock::new(|| (rand::random::<u64>() | 1 << 63) & !u64::from(u32::MAX));

/// An epoll instance.
#[derive(Debug)]
pub(crate) struct Epoll {
    /// By which the kernel knows it: one, or copies of it.
    descriptors: Mutex<Vec<RawFd>>,
    /// What peers know it by.
    waiter: usize,
    registrations: Mutex<HashMap<RawFd, Arc<Registration>>>,
    ready: Mutex<Vec<Arc<Registration>>>,
    ready_count: AtomicUsize,
    /// Events of the kernel's that were taken while somebody looked from outside.
    kept: Mutex<Vec<epoll_event>>,
    sleepers: AtomicUsize,
    /// It is watched itself: its watchers sleep where no peer can know of.
    is_watched: AtomicBool,
    /// Something in it is ready or not by what is known here: worth spinning for.
    has_ours: AtomicBool,
    /// There was no room for events of the kernel's last time.
    was_full: AtomicBool,
    spin_ns: AtomicU32,
}

/// A socket in an epoll instance.
#[derive(Debug)]
pub(crate) struct Registration {
    epoll: Weak<Epoll>,
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
        kept: Mutex::default(),
        sleepers: AtomicUsize::new(0),
        is_watched: AtomicBool::new(false),
        has_ours: AtomicBool::new(false),
        was_full: AtomicBool::new(false),
        spin_ns: AtomicU32::new(0),
    });
    table::insert(fd, Arc::new(Entry::Epoll(epoll.clone())));
    epoll
}

/// `epoll_ctl`, if `fd` is something of ours; nothing if the kernel's will do.
pub(crate) fn control(
    epoll_fd: RawFd,
    operation: c_int,
    fd: RawFd,
    event: Option<(u32, u64)>,
) -> Option<Result<(), Errno>> {
    let target = match table::entry(fd)?.as_ref() {
        Entry::Socket(socket) if socket.is_plain() && table::epoll(epoll_fd).is_none() => return None,
        Entry::Socket(socket) => Target::Socket(socket.clone()),
        Entry::Epoll(epoll) => {
            epoll.is_watched.store(true, Ordering::SeqCst);
            epoll.tell_waiters();
            Target::Epoll(Arc::downgrade(epoll))
        }
    };
    Some(match (operation, event) {
        (EPOLL_CTL_ADD, Some((events, data))) => instance(epoll_fd).add(fd, target, events, data),
        (EPOLL_CTL_MOD, Some((events, data))) => table::epoll(epoll_fd)?.change(fd, events, data)?,
        (EPOLL_CTL_DEL, _) => {
            let removed = kernel::epoll_control(epoll_fd, EPOLL_CTL_DEL, fd, 0, 0);
            if let Some(epoll) = table::epoll(epoll_fd) {
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

    fn registrations(&self) -> MutexGuard<'_, HashMap<RawFd, Arc<Registration>>> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ready(&self) -> MutexGuard<'_, Vec<Arc<Registration>>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(self: &Arc<Self>, fd: RawFd, target: Target, events: u32, data: u64) -> Result<(), Errno> {
        if events & EPOLLEXCLUSIVE as u32 != 0 && events & !WITH_EXCLUSIVE != 0 {
            return Err(Errno::INVAL);
        }
        let registration = Arc::new(Registration {
            epoll: Arc::downgrade(self),
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
            self.enter(&registration, || {
                kernel::epoll_control(self.fd(), EPOLL_CTL_ADD, fd, EDGES, *TOKENS | fd as u64)
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

    /// Knows `registration` from before the kernel does, which may have events of it at once.
    fn enter(&self, registration: &Arc<Registration>, register: impl Fn() -> Result<(), Errno>) -> Result<(), Errno> {
        let before = self.registrations().insert(registration.fd, registration.clone());
        register().inspect_err(|_| {
            let mut registrations = self.registrations();
            match before {
                Some(before) => registrations.insert(registration.fd, before),
                None => registrations.remove(&registration.fd),
            };
        })
    }

    fn change(&self, fd: RawFd, events: u32, data: u64) -> Option<Result<(), Errno>> {
        let registration = self.registrations().get(&fd)?.clone();
        if (registration.interest.load(Ordering::Acquire) | events) & EPOLLEXCLUSIVE as u32 != 0 {
            return Some(Err(Errno::INVAL));
        }
        registration.data.store(data, Ordering::Release);
        registration.interest.store(events, Ordering::Release);
        registration.is_spent.store(false, Ordering::Release);
        registration.is_fresh.store(true, Ordering::Release);
        if let Target::Socket(socket) = &registration.target {
            let watchers = socket.watchers();
            let changed = registration.register(EPOLL_CTL_MOD);
            drop(watchers);
            if changed.is_err() {
                return Some(changed);
            }
        }
        registration.queue_if_ours();
        Some(Ok(()))
    }

    /// `fd` is watched no more, or closed.
    pub(crate) fn forget(&self, fd: RawFd) {
        let removed = self.registrations().remove(&fd);
        if let Some(removed) = removed {
            removed.is_removed.store(true, Ordering::Release);
            if let Target::Socket(socket) = &removed.target {
                socket.watchers().retain(|watcher| !std::ptr::eq(watcher.as_ptr(), Arc::as_ptr(&removed)));
                socket.tell_waiter();
            }
        }
    }

    fn tell_waiters(&self) {
        let all: Vec<_> = self.registrations().values().cloned().collect();
        for registration in all {
            if let Target::Socket(socket) = &registration.target {
                socket.tell_waiter();
            }
        }
    }

    /// Whether it has anything to report, for those who watch it.
    pub(crate) fn has_events(self: &Arc<Self>) -> bool {
        if kernel::poll(self.fd(), libc::POLLIN, 0).is_ok_and(|found| found != 0) {
            self.take_kernel_events();
        }
        readiness::distribute();
        let ready: Vec<_> = self.ready().clone();
        !self.kept().is_empty() || ready.iter().any(|registration| registration.has_events())
    }

    /// Sorts the kernel's events: doorbells are taken note of, the program's are kept until it asks.
    fn take_kernel_events(self: &Arc<Self>) {
        let mut events = [epoll_event { events: 0, u64: 0 }; 16];
        let found = kernel::epoll_look(self.fd(), &mut events);
        let kept: Vec<_> = events[..found].iter().filter_map(|event| self.translate(*event)).collect();
        self.kept().extend(kept);
    }

    fn kept(&self) -> MutexGuard<'_, Vec<epoll_event>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The program's own event for one of the kernel's; none if it was only for us.
    fn translate(&self, event: epoll_event) -> Option<epoll_event> {
        let Some(registration) = self.registration_of(event.u64) else {
            return Some(event);
        };
        if registration.has_rings() {
            registration.take_note();
            return None;
        }
        // Its connection has become TCP again, and the kernel was not asked yet for what the program wants; or the event was
        // reported already, and not asked for since.
        if registration.give_back() || registration.is_spent.load(Ordering::Acquire) {
            return None;
        }
        if registration.interest.load(Ordering::Acquire) & EPOLLONESHOT as u32 != 0 {
            registration.is_spent.store(true, Ordering::Release);
        }
        Some(epoll_event { events: event.events, u64: registration.data.load(Ordering::Acquire) })
    }

    /// Whoever watches it sleeps where no peer knows of: they are to wake always.
    pub(crate) fn watch(&self) {
        if !self.is_watched.swap(true, Ordering::SeqCst) {
            self.tell_waiters();
        }
    }

    /// `epoll_wait`: `ask` asks the kernel, with room for events and milliseconds to wait.
    pub(crate) fn wait(
        self: &Arc<Self>,
        events: &mut [epoll_event],
        timeout: Option<Duration>,
        mut ask: impl FnMut(&mut [epoll_event], Option<Duration>) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        if !self.has_ours.load(Ordering::SeqCst) {
            // Nothing of ours has ever been ready: the kernel's call it is. What changes meanwhile wakes it.
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            let asked = ask(events, timeout);
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
            let (asked, found) = asked.map(|asked| (asked, self.translate_all(&mut events[..asked])))?;
            if found > 0 || asked == 0 {
                return Ok(found);
            }
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut last_asked = None::<Instant>;
        loop {
            // After a full house of ours it is the kernel's turn.
            let is_kernels_turn = self.was_full.swap(false, Ordering::AcqRel);
            let mut found = if is_kernels_turn { self.ask_kernel(events, Some(Duration::ZERO), &mut ask)? } else { 0 };
            found += self.collect(&mut events[found..]);
            let is_full = found == events.len();
            self.was_full.store(is_full && !is_kernels_turn, Ordering::Release);
            if !is_full && (found == 0 || last_asked.is_none_or(|asked| asked.elapsed() > KERNEL_PATIENCE)) {
                found += self.ask_kernel(&mut events[found..], Some(Duration::ZERO), &mut ask)?;
                last_asked = Some(Instant::now());
                if found == 0 {
                    // Its doorbells may have told us of something.
                    found = self.collect(events);
                }
            }
            if found > 0 {
                return Ok(found);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(0);
            }
            if self.has_ours.load(Ordering::Acquire) && wait::spin(&self.spin_ns, || self.is_pending()) {
                continue;
            }
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            readiness::set_asleep(self.waiter, true);
            let result = if self.is_pending() { Ok(0) } else { self.ask_kernel(events, left, &mut ask) };
            readiness::set_asleep(self.waiter, self.sleepers.fetch_sub(1, Ordering::SeqCst) > 1);
            found = result?;
            if found > 0 {
                return Ok(found);
            }
        }
    }

    fn is_pending(&self) -> bool {
        self.ready_count.load(Ordering::Acquire) > 0 || readiness::is_pending()
    }

    /// Events of ours: how many.
    fn collect(self: &Arc<Self>, events: &mut [epoll_event]) -> usize {
        readiness::distribute();
        if self.ready_count.load(Ordering::Acquire) == 0 {
            return 0;
        }
        let mut ready = self.ready();
        let mut queued = std::mem::take(&mut *ready);
        self.ready_count.store(0, Ordering::Release);
        drop(ready);
        let mut found = 0;
        let (mut unseen, mut reported) = (Vec::new(), Vec::new());
        for registration in queued.drain(..) {
            if found == events.len() {
                unseen.push(registration);
                continue;
            }
            registration.is_queued.store(false, Ordering::Release);
            let happened = registration.events();
            if happened == 0 {
                continue;
            }
            events[found] = epoll_event { events: happened, u64: registration.data.load(Ordering::Acquire) };
            found += 1;
            if registration.stays_ready_after_report() && !registration.is_queued.swap(true, Ordering::AcqRel) {
                reported.push(registration);
            }
        }
        let mut ready = self.ready();
        // The reported ones last, so that all get their turn.
        ready.extend(unseen.into_iter().chain(reported));
        self.ready_count.store(ready.len(), Ordering::Release);
        drop(ready);
        found
    }

    /// Events of the kernel's own; doorbells among them are taken note of.
    fn ask_kernel(
        self: &Arc<Self>,
        events: &mut [epoll_event],
        timeout: Option<Duration>,
        ask: &mut impl FnMut(&mut [epoll_event], Option<Duration>) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        let kept: Vec<_> = {
            let mut kept = self.kept();
            let count = kept.len().min(events.len());
            kept.drain(..count).collect()
        };
        if !kept.is_empty() {
            events[..kept.len()].copy_from_slice(&kept);
            return Ok(kept.len());
        }
        let mut asked = ask(events, timeout)?;
        loop {
            let found = self.translate_all(&mut events[..asked]);
            if found > 0 || asked < events.len() {
                return Ok(found);
            }
            // All of them were for us alone, and edges: others may wait behind them.
            asked = ask(events, Some(Duration::ZERO))?;
        }
    }

    /// The same events as the program knows them, at the beginning: how many.
    pub(crate) fn translate_all(&self, events: &mut [epoll_event]) -> usize {
        let mut found = 0;
        for at in 0..events.len() {
            if let Some(event) = self.translate(events[at]) {
                events[found] = event;
                found += 1;
            }
        }
        found
    }

    fn registration_of(&self, token: u64) -> Option<Arc<Registration>> {
        let is_ours = token & !u64::from(u32::MAX) == *TOKENS;
        is_ours.then(|| self.registrations().get(&(token as u32 as RawFd)).cloned()).flatten()
    }
}

impl Registration {
    /// What peers know its epoll instance by.
    pub(crate) fn waiter(&self) -> usize {
        self.epoll
            .upgrade()
            .map_or(WAITERS, |epoll| if epoll.is_watched.load(Ordering::SeqCst) { WAITERS } else { epoll.waiter })
    }

    /// Whether its readiness is known here and not in the kernel.
    fn has_rings(&self) -> bool {
        match &self.target {
            Target::Socket(socket) => matches!(socket.mode(), Mode::Prepared | Mode::Ring),
            Target::Epoll(_) => true,
        }
    }

    /// Asks the kernel for what is wanted of it.
    fn register(&self, operation: c_int) -> Result<(), Errno> {
        let epoll = self.epoll.upgrade().ok_or(Errno::BADF)?;
        let wanted = match &self.target {
            Target::Socket(socket) if !socket.has_switched() || socket.is_plain() => {
                self.is_ours.store(false, Ordering::Release);
                self.interest.load(Ordering::Acquire) & !(EPOLLEXCLUSIVE as u32)
            }
            // Its peer has left: sending goes over TCP.
            Target::Socket(socket) if socket.is_returning() => EDGES | WRITABLE,
            // With writability, which TCP has: so that somebody who sleeps in the kernel wakes up and looks.
            // Whoever has slept there since before anything of ours was in it is in no count.
            _ if self.note_ours() && (operation == EPOLL_CTL_ADD || epoll.sleepers.load(Ordering::SeqCst) > 0) => {
                EDGES | WRITABLE
            }
            _ => EDGES,
        };
        kernel::epoll_control(epoll.fd(), operation, self.fd, wanted, *TOKENS | self.fd as u64)
    }

    fn note_ours(&self) -> bool {
        self.is_ours.store(true, Ordering::Release);
        true
    }

    /// Its socket is TCP again: the kernel is asked for what the program wants. Whether it was not yet.
    pub(crate) fn give_back(&self) -> bool {
        let (Target::Socket(socket), Some(epoll)) = (&self.target, self.epoll.upgrade()) else {
            return false;
        };
        // A child that has our memory only has other descriptors by now: whoever gets the next event does it.
        if !socket.is_plain() || !fork::is_own_process() || !self.is_ours.swap(false, Ordering::AcqRel) {
            return false;
        }
        let interest = self.interest.load(Ordering::Acquire) & !(EPOLLEXCLUSIVE as u32);
        let wanted = if self.is_spent.load(Ordering::Acquire) { EPOLLONESHOT as u32 } else { interest };
        let _ = kernel::epoll_control(epoll.fd(), EPOLL_CTL_MOD, self.fd, wanted, *TOKENS | self.fd as u64);
        true
    }

    /// Its socket sends over TCP again: the kernel says when there is room.
    pub(crate) fn ask_for_room(&self) {
        if let Some(epoll) = self.epoll.upgrade()
            && fork::is_own_process()
        {
            let wanted = EDGES | WRITABLE;
            let _ = kernel::epoll_control(epoll.fd(), EPOLL_CTL_MOD, self.fd, wanted, *TOKENS | self.fd as u64);
        }
    }

    /// Its socket sends through the ring from now on: whether it is still of use.
    pub(crate) fn take_over(self: &Arc<Self>) -> bool {
        if let Some(epoll) = self.epoll.upgrade() {
            // With writability, so that somebody who sleeps in the kernel wakes up and looks.
            let once = EDGES | self.interest.load(Ordering::Acquire) & WRITABLE;
            self.is_ours.store(true, Ordering::Release);
            let _ = kernel::epoll_control(epoll.fd(), EPOLL_CTL_MOD, self.fd, once, *TOKENS | self.fd as u64);
        }
        self.queue();
        !self.is_removed.load(Ordering::Acquire)
    }

    fn queue_if_ours(self: &Arc<Self>) {
        if self.has_rings() {
            self.queue();
        }
    }

    /// Something may have happened to it.
    pub(crate) fn queue(self: &Arc<Self>) {
        if let Some(epoll) = self.epoll.upgrade()
            && !self.is_queued.swap(true, Ordering::AcqRel)
        {
            epoll.has_ours.store(true, Ordering::Release);
            let mut ready = epoll.ready();
            ready.push(self.clone());
            epoll.ready_count.store(ready.len(), Ordering::Release);
        }
    }

    /// The kernel has woken us for it.
    fn take_note(self: &Arc<Self>) {
        if let Target::Socket(socket) = &self.target
            && let Some((connection, _)) = socket.rings()
        {
            wait::take_doorbells(socket, connection, self.fd);
            let is_tcps = socket.has_peer_gone_back() || socket.is_returning();
            if is_tcps || connection.peer_switch().is_none_or(|switch| socket.received() < switch) {
                self.is_fresh.store(true, Ordering::Release);
            }
        }
        self.queue();
    }

    /// Whether there is something to report, which stays to be reported.
    fn has_events(&self) -> bool {
        let was = (self.is_fresh.load(Ordering::Acquire), self.seen.load(Ordering::Acquire));
        let refusals = self.refusals.load(Ordering::Acquire);
        let has_events = self.events() != 0;
        if has_events {
            self.is_fresh.fetch_or(was.0, Ordering::AcqRel);
            self.seen.store(was.1, Ordering::Release);
            self.refusals.store(refusals, Ordering::Release);
        }
        has_events
    }

    /// What there is to report, as news.
    fn events(&self) -> u32 {
        if self.is_removed.load(Ordering::Acquire) || self.is_spent.load(Ordering::Acquire) {
            return 0;
        }
        let interest = self.interest.load(Ordering::Acquire);
        match &self.target {
            Target::Socket(socket) if self.has_rings() => self.socket_events(socket, interest),
            Target::Socket(_) => {
                self.give_back();
                0
            }
            Target::Epoll(inner) => {
                let has_events = inner.upgrade().is_some_and(|inner| inner.has_events());
                if has_events { interest & EPOLLIN as u32 } else { 0 }
            }
        }
    }

    fn socket_events(&self, socket: &Socket, interest: u32) -> u32 {
        let mark = readiness::mark(socket);
        let events = readiness::events(socket, self.fd, interest);
        let refusals = socket.refusals.load(Ordering::Acquire);
        let has_got_room = events & WRITABLE != 0 && self.refusals.swap(refusals, Ordering::AcqRel) != refusals;
        let is_edge = self.is_fresh.swap(false, Ordering::AcqRel)
            | (self.seen.swap(mark, Ordering::AcqRel) != mark)
            | has_got_room;
        if is_edge || interest & EPOLLET as u32 == 0 { events & (interest | ALWAYS) } else { 0 }
    }

    /// Whether it is looked at again although nothing new has happened. One that is spent is not reported again either.
    fn stays_ready_after_report(&self) -> bool {
        let interest = self.interest.load(Ordering::Acquire);
        if interest & EPOLLONESHOT as u32 != 0 {
            self.is_spent.store(true, Ordering::Release);
            return false;
        }
        interest & EPOLLET as u32 == 0
    }
}

/// A descriptor is closed that instances may be watching.
pub(crate) fn forget(socket: &Socket, fd: RawFd) {
    let watching: Vec<_> = socket.watchers().iter().filter_map(Weak::upgrade).collect();
    for registration in watching.into_iter().filter(|registration| registration.fd == fd) {
        // The kernel keeps what is registered as long as a copy of the descriptor lives; so do we.
        if socket.descriptors().len() <= 1
            && let Some(epoll) = registration.epoll.upgrade()
        {
            epoll.forget(fd);
        }
    }
}
