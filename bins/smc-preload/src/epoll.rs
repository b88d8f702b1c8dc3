//! epoll instances that watch connections of ours.
//!
//! The kernel's instance stays what the program made it. Sockets of ours are registered there with a token instead of the program's
//! data; once such a socket sends through its ring, the kernel is only asked for edges, which are doorbells and the end of the
//! stream, and what is ready is known here: a list of registrations that may have something to report, looked through when
//! the program asks. Level-triggered ones stay in it until they have nothing; edge-triggered ones leave it when reported.

use std::collections::HashMap;
use std::ffi::c_int;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use libc::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLERR, EPOLLET, EPOLLEXCLUSIVE, EPOLLHUP, EPOLLIN};
use libc::{EPOLLONESHOT, EPOLLPRI, EPOLLRDHUP, epoll_event};
use rustix::io::Errno;
use softrdma_smc::arena::{Arena, WAITERS};

use crate::abi::kernel;
use crate::fork;
use crate::readiness::{self, READABLE, WRITABLE};
use crate::socket::{Mode, Socket};
use crate::spin::Spin;
use crate::table::{self, Entry};
use crate::wait;

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
    spin: Spin,
    /// When the kernel was asked last, and whether it had anything for the program.
    last_asked_ns: AtomicU64,
    is_kernel_busy: AtomicBool,
    /// What [`Self::collect`] works on, kept for its memory.
    batch: Mutex<Vec<Arc<Registration>>>,
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
        spin: Spin::new(),
        last_asked_ns: AtomicU64::new(0),
        is_kernel_busy: AtomicBool::new(true),
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
    let target = match table::entry(fd)? {
        Entry::Socket(socket) if socket.is_plain() && table::epoll(epoll_fd).is_none() => return None,
        Entry::Socket(socket) => Target::Socket(socket),
        Entry::Epoll(epoll) => {
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
        if let Target::Socket(socket) = &target {
            self.unpark_elsewhere(socket);
            if let Some(revived) = self.revive(fd, socket, events, data) {
                return revived;
            }
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

    /// The registration of `socket` under `fd`. While the result lives it is neither taken over nor given back.
    fn known<'a>(&self, fd: RawFd, socket: &'a Socket) -> Option<(Arc<Registration>, Watchers<'a>)> {
        let watchers = socket.watchers();
        let registration = self.registrations().get(&fd)?.clone();
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
        if !socket.uses_ring() {
            // It is on its way back to TCP, or there, where the kernel has to know.
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
        let is_elsewhere =
            |parked: &Arc<Registration>| parked.is_removed() && !std::ptr::eq(parked.epoll.as_ptr(), self);
        let parked: Vec<_> = socket.watchers().iter().filter_map(Weak::upgrade).filter(is_elsewhere).collect();
        for parked in parked {
            if let Some(epoll) = parked.epoll.upgrade() {
                let _ = kernel::epoll_control(epoll.fd(), EPOLL_CTL_DEL, parked.fd, 0, 0);
                epoll.forget(parked.fd);
            }
        }
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

    /// `fd` is watched no more, or closed.
    pub(crate) fn forget(&self, fd: RawFd) {
        let removed = self.registrations().remove(&fd);
        if let Some(removed) = removed {
            removed.is_removed.store(true, Ordering::Release);
            self.unqueue(&removed);
            if let Target::Socket(socket) = &removed.target {
                socket.watchers().retain(|watcher| !std::ptr::eq(watcher.as_ptr(), Arc::as_ptr(&removed)));
                socket.tell_waiter();
            }
        }
    }

    /// The socket of `registration` is closed; its number may be another's already.
    fn forget_registration(&self, registration: &Arc<Registration>) {
        registration.is_removed.store(true, Ordering::Release);
        let mut registrations = self.registrations();
        if registrations.get(&registration.fd).is_some_and(|known| Arc::ptr_eq(known, registration)) {
            registrations.remove(&registration.fd);
        }
        drop(registrations);
        self.unqueue(registration);
    }

    /// Nothing is left to report of `registration`, nor is it to keep its socket.
    fn unqueue(&self, registration: &Arc<Registration>) {
        let mut ready = self.ready();
        ready.retain(|queued| !Arc::ptr_eq(queued, registration));
        self.ready_count.store(ready.len(), Ordering::Release);
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
        if !self.kept().is_empty() {
            return true;
        }
        let has_kernels =
            kernel::poll(self.fd(), libc::POLLIN, 0).is_ok_and(|found| found != 0) && self.take_kernel_events();
        readiness::distribute(Some(self));
        let ready: Vec<_> = self.ready().clone();
        has_kernels || ready.iter().any(|registration| registration.has_events())
    }

    /// Sorts the kernel's events: doorbells are taken note of, the program's are kept until it asks, unless the kernel will say them
    /// again. Whether there are any of the program's.
    fn take_kernel_events(self: &Arc<Self>) -> bool {
        let mut events = [epoll_event { events: 0, u64: 0 }; 16];
        let found = kernel::epoll_look(self.fd(), &mut events);
        let is_said_again = |event: &epoll_event| {
            let registration = self.registration_of(event.u64);
            registration.is_some_and(|it| it.interest.load(Ordering::Acquire) & (EPOLLET | EPOLLONESHOT) as u32 == 0)
        };
        let mut has_any = false;
        for event in &events[..found] {
            let is_said_again = is_said_again(event);
            if let Some(event) = self.translate(*event) {
                has_any = true;
                if !is_said_again {
                    self.kept().push(event);
                    self.is_kernel_busy.store(true, Ordering::Relaxed);
                }
            }
        }
        has_any
    }

    fn kept(&self) -> MutexGuard<'_, Vec<epoll_event>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
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
        // Its connection has become TCP again, and the kernel was not asked yet for what the program wants; or the event was
        // reported already, and not asked for since.
        if registration.give_back() || registration.is_removed() || registration.is_spent.load(Ordering::Acquire) {
            return None;
        }
        registration.note_told(event.events);
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
            let sleeping = self.fall_asleep();
            let asked = ask(events, timeout);
            drop(sleeping);
            let (asked, found) = asked.map(|asked| (asked, self.translate_all(&mut events[..asked])))?;
            if found > 0 || asked == 0 {
                return Ok(found);
            }
        }
        let mut deadline = Deadline::of(timeout);
        loop {
            let found = self.look(events, deadline.is_immediate(), &mut ask)?;
            if found > 0 || deadline.has_passed() {
                return Ok(found);
            }
            if self.has_ours.load(Ordering::Acquire) {
                match self.spin(events, &mut ask)? {
                    Spun::Ours => continue,
                    Spun::Kernels(found) => return Ok(found),
                    Spun::InVain => {}
                }
            }
            let found = self.sleep(events, deadline.left(), &mut ask)?;
            if found > 0 {
                return Ok(found);
            }
        }
    }

    /// What there is, without waiting. The kernel is asked when it is its turn, and when it `must` be.
    fn look(self: &Arc<Self>, events: &mut [epoll_event], must: bool, ask: &mut Ask<'_>) -> Result<usize, Errno> {
        // After a full house of ours it is the kernel's turn.
        let is_kernels_turn = self.was_full.swap(false, Ordering::AcqRel);
        let mut found = if is_kernels_turn { self.ask_kernel(events, Some(Duration::ZERO), ask)? } else { 0 };
        found += self.collect(&mut events[found..]);
        let is_full = found == events.len();
        self.was_full.store(is_full && !is_kernels_turn, Ordering::Release);
        let is_due =
            found == 0 && (must || self.is_kernel_busy.load(Ordering::Relaxed)) || self.is_kernel_due(now_ns());
        if !is_full && is_due {
            found += self.ask_kernel(&mut events[found..], Some(Duration::ZERO), ask)?;
            if found == 0 {
                // Its doorbells may have told us of something.
                found = self.collect(events);
            }
        }
        Ok(found)
    }

    fn is_kernel_due(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.last_asked_ns.load(Ordering::Relaxed)) > KERNEL_PATIENCE.as_nanos() as u64
    }

    fn spin(self: &Arc<Self>, events: &mut [epoll_event], ask: &mut Ask<'_>) -> Result<Spun, Errno> {
        let mut asked = Ok(0);
        let is_over = self.spin.until(
            || self.is_pending(),
            |now| {
                if now.is_none_or(|now| self.is_kernel_due(nanoseconds(now))) {
                    asked = self.ask_kernel(events, Some(Duration::ZERO), ask);
                }
                asked != Ok(0)
            },
        );
        Ok(match asked? {
            0 if is_over => Spun::Ours,
            0 => Spun::InVain,
            found => Spun::Kernels(found),
        })
    }

    fn sleep(
        self: &Arc<Self>,
        events: &mut [epoll_event],
        limit: Option<Duration>,
        ask: &mut Ask<'_>,
    ) -> Result<usize, Errno> {
        let sleeping = self.fall_asleep();
        readiness::fall_asleep(self.waiter);
        let result = if self.is_pending() { Ok(0) } else { self.ask_kernel(events, limit, ask) };
        drop(sleeping);
        result
    }

    /// The registration that an event of the kernel's is about, if it is one of ours.
    fn registration_of(&self, data: u64) -> Option<Arc<Registration>> {
        is_token(data).then(|| self.registrations().get(&(data as u32 as RawFd)).cloned()).flatten()
    }

    fn fall_asleep(&self) -> Sleeping<'_> {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        Sleeping(self)
    }

    /// In a child: the threads that sleep are the parent's.
    pub(crate) fn forget_sleepers(&self) {
        self.sleepers.store(0, Ordering::SeqCst);
    }

    fn is_pending(&self) -> bool {
        self.ready_count.load(Ordering::Acquire) > 0 || readiness::is_pending()
    }

    /// Events of ours: how many.
    fn collect(self: &Arc<Self>, events: &mut [epoll_event]) -> usize {
        readiness::distribute(Some(self));
        if self.ready_count.load(Ordering::Acquire) == 0 {
            return 0;
        }
        // Another thread that is just collecting has what there was; what comes meanwhile is for the next to ask.
        let mut own = Vec::new();
        let mut batch = self.batch.try_lock().ok();
        let batch = batch.as_deref_mut().unwrap_or(&mut own);
        {
            let mut ready = self.ready();
            std::mem::swap(batch, &mut *ready);
            self.ready_count.store(0, Ordering::Release);
        }
        let (mut found, mut looked_at, mut kept) = (0, 0, 0);
        while found < events.len() && looked_at < batch.len() {
            let registration = &batch[looked_at];
            registration.is_queued.store(false, Ordering::Release);
            let happened = registration.events();
            if happened != 0 {
                events[found] = epoll_event { events: happened, u64: registration.data.load(Ordering::Acquire) };
                found += 1;
                if registration.stays_ready_after_report() && !registration.is_queued.swap(true, Ordering::AcqRel) {
                    batch.swap(kept, looked_at);
                    kept += 1;
                }
            }
            looked_at += 1;
        }
        if let Some(next) = batch.get(looked_at).filter(|_| self.sleepers.load(Ordering::SeqCst) > 0) {
            // There is no room for it here: somebody else wakes up for it.
            next.take_over();
        }
        let mut ready = self.ready();
        // The reported ones last, so that all get their turn.
        ready.extend(batch.drain(looked_at..));
        ready.extend(batch.drain(..kept));
        self.ready_count.store(ready.len(), Ordering::Release);
        drop(ready);
        batch.clear();
        found
    }

    /// Events of the kernel's own; doorbells among them are taken note of.
    fn ask_kernel(
        self: &Arc<Self>,
        events: &mut [epoll_event],
        timeout: Option<Duration>,
        ask: &mut Ask<'_>,
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
        self.last_asked_ns.store(now_ns(), Ordering::Relaxed);
        loop {
            let found = self.translate_all(&mut events[..asked]);
            if found > 0 || asked < events.len() {
                self.is_kernel_busy.store(found > 0, Ordering::Relaxed);
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
}

type Watchers<'a> = MutexGuard<'a, Vec<Weak<Registration>>>;

/// Whether it is one of ours, and not a program's data.
fn is_token(data: u64) -> bool {
    data & !u64::from(u32::MAX) == *TOKENS
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
            Target::Socket(_) if !self.has_rings() => {
                self.is_ours.store(false, Ordering::Release);
                self.interest.load(Ordering::Acquire) & !(EPOLLEXCLUSIVE as u32)
            }
            // With writability, which TCP has: so that somebody who sleeps in the kernel wakes up and looks. Whoever has slept there
            // since before anything of ours was in it is in no count. What is sent over TCP, still or again, needs it anyway.
            _ => {
                self.is_ours.store(true, Ordering::Release);
                EDGES | WRITABLE
            }
        };
        self.ask(&epoll, operation, wanted)
    }

    /// Asks the kernel for `wanted`. A number that was closed while the connection goes on under others may be anybody's by now: what
    /// the kernel knows under it stays as it is.
    fn ask(&self, epoll: &Epoll, operation: c_int, wanted: u32) -> Result<(), Errno> {
        let descriptors = match &self.target {
            Target::Socket(socket) => Some(socket.descriptors()),
            Target::Epoll(_) => None,
        };
        if descriptors.is_some_and(|descriptors| !descriptors.contains(&self.fd)) {
            return Err(Errno::NOENT);
        }
        kernel::epoll_control(epoll.fd(), operation, self.fd, wanted, *TOKENS | self.fd as u64)
    }

    /// Somebody who sleeps in the kernel has not seen that it was queued.
    fn wake_sleepers(&self) {
        // Who falls asleep counts himself first and then looks at what is queued.
        fence(Ordering::SeqCst);
        let is_ours = matches!(&self.target, Target::Socket(socket) if socket.has_switched() && !socket.is_plain());
        if is_ours && self.epoll.upgrade().is_some_and(|epoll| epoll.sleepers.load(Ordering::SeqCst) > 0) {
            let _ = self.register(EPOLL_CTL_MOD);
        }
    }

    /// The program wants `events` from now on.
    fn renew(&self, events: u32, data: u64) {
        self.data.store(data, Ordering::Release);
        self.interest.store(events, Ordering::Release);
        self.is_spent.store(false, Ordering::Release);
        self.is_fresh.store(true, Ordering::Release);
    }

    /// Whether the program does not watch for it any more: only the kernel does.
    pub(crate) fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::Acquire)
    }

    /// Its socket is TCP for good: the kernel is asked for what the program wants, or for nothing if that is nothing. Whether it
    /// was not yet.
    pub(crate) fn give_back(self: &Arc<Self>) -> bool {
        let (Target::Socket(socket), Some(epoll)) = (&self.target, self.epoll.upgrade()) else {
            return false;
        };
        // A child that has our memory only has other descriptors by now: whoever gets the next event does it.
        if !socket.is_plain() || !fork::is_own_process() || !self.is_ours.swap(false, Ordering::AcqRel) {
            return false;
        }
        if self.is_removed() {
            self.unpark(&epoll);
            return true;
        }
        let interest = self.interest.load(Ordering::Acquire) & !(EPOLLEXCLUSIVE as u32);
        let wanted = if self.is_spent.load(Ordering::Acquire) { EPOLLONESHOT as u32 } else { interest };
        let _ = self.ask(&epoll, EPOLL_CTL_MOD, wanted);
        true
    }

    /// The program has removed it, and now the kernel hears of that.
    fn unpark(self: &Arc<Self>, epoll: &Epoll) {
        let _ = self.ask(epoll, EPOLL_CTL_DEL, 0);
        epoll.forget_registration(self);
    }

    /// Its socket sends over TCP again: the kernel says when there is room.
    pub(crate) fn ask_for_room(&self) {
        if fork::is_own_process() && !self.is_removed() && self.has_rings() {
            let _ = self.register(EPOLL_CTL_MOD);
        }
    }

    /// What is known of it is known here from now on, or has changed: whether it is still of use.
    pub(crate) fn take_over(self: &Arc<Self>) -> bool {
        if self.is_removed.load(Ordering::Acquire) {
            return false;
        }
        if let Some(epoll) = self.epoll.upgrade() {
            // With writability, so that somebody who sleeps in the kernel wakes up and looks.
            self.is_ours.store(true, Ordering::Release);
            let _ = self.ask(&epoll, EPOLL_CTL_MOD, EDGES | WRITABLE);
            // It may have become TCP again meanwhile.
            self.give_back();
        }
        self.queue();
        !self.is_removed.load(Ordering::Acquire)
    }

    /// The program gets these `events` from the kernel.
    fn note_told(&self, events: u32) {
        if self.interest.load(Ordering::Acquire) & EPOLLONESHOT as u32 != 0 {
            self.is_spent.store(true, Ordering::Release);
        }
        self.is_fresh.store(false, Ordering::Release);
        if let Target::Socket(socket) = &self.target
            && events & WRITABLE != 0
        {
            self.refusals.store(socket.refusals.load(Ordering::Acquire), Ordering::Release);
        }
    }

    fn is_in(&self, epoll: Option<&Epoll>) -> bool {
        epoll.is_some_and(|epoll| std::ptr::eq(self.epoll.as_ptr(), epoll))
    }

    /// Wakes those who sleep in its instance, if that is not `own`, and may have slept on while somebody else took their doorbell.
    pub(crate) fn wake_others(self: &Arc<Self>, own: Option<&Epoll>) {
        if !self.is_in(own) && self.epoll.upgrade().is_some_and(|epoll| epoll.sleepers.load(Ordering::SeqCst) > 0) {
            self.take_over();
        }
    }

    /// Wakes somebody who fell asleep after the peer had found him awake, and before he could see what we have queued.
    pub(crate) fn wake_who_just_fell_asleep(self: &Arc<Self>, arena: &Arena, own: Option<&Epoll>) {
        let waiter = self.waiter();
        if !self.is_in(own) && waiter < WAITERS && arena.is_asleep(waiter) {
            self.take_over();
        }
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

    /// The kernel has woken us for it with these `events`.
    fn take_note(self: &Arc<Self>, events: u32) {
        if let Target::Socket(socket) = &self.target {
            // The bits are the same in both.
            wait::take_note(socket, self.fd, events as i16, self.epoll.upgrade().as_deref());
            let is_tcps = socket.has_peer_gone_back() || socket.is_returning();
            if is_tcps || !socket.is_behind_switch() && events & !WRITABLE != 0 {
                self.is_fresh.store(true, Ordering::Release);
            }
        }
        self.queue();
    }

    /// Whether there is something to report, which stays to be reported.
    fn has_events(self: &Arc<Self>) -> bool {
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
    fn events(self: &Arc<Self>) -> u32 {
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

/// What asks the kernel, with room for events and a time to wait.
type Ask<'a> = dyn FnMut(&mut [epoll_event], Option<Duration>) -> Result<usize, Errno> + 'a;

/// What ended a spin.
enum Spun {
    /// Something of ours is ready.
    Ours,
    /// So many events of the kernel's.
    Kernels(usize),
    /// Time.
    InVain,
}

/// How long a call may wait. The clock is asked only once it does.
struct Deadline {
    timeout: Option<Duration>,
    at: Option<Instant>,
}

impl Deadline {
    const fn of(timeout: Option<Duration>) -> Self {
        Self { timeout, at: None }
    }

    fn is_immediate(&self) -> bool {
        self.timeout == Some(Duration::ZERO)
    }

    /// What is left of it; nothing if there is none.
    fn left(&mut self) -> Option<Duration> {
        let timeout = self.timeout?;
        let now = Instant::now();
        if self.at.is_none() {
            self.at = Some(now.checked_add(timeout)?);
        }
        self.at.map(|at| at.saturating_duration_since(now))
    }

    fn has_passed(&mut self) -> bool {
        self.is_immediate() || self.left() == Some(Duration::ZERO)
    }
}

/// A time in nanoseconds since some time of this process.
fn nanoseconds(now: Instant) -> u64 {
    static BEGINNING: OnceLock<Instant> = OnceLock::new();
    let since = now.saturating_duration_since(*BEGINNING.get_or_init(|| now));
    // 0 is long before it.
    (since + 2 * KERNEL_PATIENCE).as_nanos() as u64
}

fn now_ns() -> u64 {
    nanoseconds(Instant::now())
}

/// A descriptor is closed that instances may be watching.
pub(crate) fn forget(socket: &Socket, fd: RawFd) {
    // The kernel keeps what is registered as long as a copy of the descriptor lives; so do we.
    if socket.descriptors().iter().any(|known| *known != fd) {
        return;
    }
    let watching: Vec<_> = socket.watchers().drain(..).filter_map(|watcher| watcher.upgrade()).collect();
    for registration in watching {
        if let Some(epoll) = registration.epoll.upgrade() {
            epoll.forget_registration(&registration);
        }
    }
}
