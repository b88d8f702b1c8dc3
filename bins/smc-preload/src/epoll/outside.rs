//! An instance that is looked at from outside: by poll and select, and as a part of another.
//!
//! The kernel's instance cannot be asked whether there is something for the program among its events: doorbells make it
//! readable as well. Somebody has to take them. What the kernel tells of as long as it is there it tells again to whoever
//! waits; what it tells once it is asked to tell again, at the latest when somebody waits.

use std::collections::HashMap;
use std::ffi::c_int;
use std::os::fd::RawFd;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, MutexGuard, PoisonError, Weak};

use libc::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLET, EPOLLEXCLUSIVE, EPOLLONESHOT, POLLIN, epoll_event};
use smallvec::SmallVec;

use super::{Epoll, Registration, Target, is_token};
use crate::abi::kernel;
use crate::readiness;
use crate::table;

/// What is told of once, and not as long as it is there.
const ONCE: u32 = (EPOLLET | EPOLLONESHOT) as u32;
/// Events that are taken at a time.
const AT_ONCE: usize = 16;

/// What the kernel tells once.
#[derive(Debug, Default)]
pub(super) struct Once {
    /// Descriptors that are nothing of ours: the events that the program wants of them so, and its data. One that was
    /// closed since may stand here until its number is somebody else's in the instance.
    foreign: HashMap<RawFd, (u32, u64)>,
    /// What was told to who looked from outside, and not to the program yet.
    taken: Vec<Taken>,
}

#[derive(Debug)]
enum Taken {
    Foreign(RawFd),
    /// A connection that is TCP, and may be closed since.
    Socket(Weak<Registration>),
}

impl Once {
    /// The program has registered `fd`, or has removed it.
    fn note(&mut self, fd: RawFd, event: Option<(u32, u64)>) {
        // The kernel has looked anew.
        self.taken.retain(|taken| !matches!(taken, Taken::Foreign(known) if *known == fd));
        match event {
            Some((events, data)) if events & ONCE != 0 => {
                self.foreign.insert(fd, (events, data));
            }
            _ => {
                self.foreign.remove(&fd);
            }
        }
    }

    /// An event with `data` was taken that is nothing of ours.
    fn take_foreign(&mut self, data: u64) {
        let fds = self.foreign.iter().filter(|(_, known)| known.1 == data).map(|(fd, _)| *fd);
        for fd in fds {
            if !self.taken.iter().any(|taken| matches!(taken, Taken::Foreign(known) if *known == fd)) {
                self.taken.push(Taken::Foreign(fd));
            }
        }
    }

    fn take_socket(&mut self, registration: &Arc<Registration>) {
        let address = Arc::as_ptr(registration);
        let is_known = |taken: &Taken| matches!(taken, Taken::Socket(known) if std::ptr::eq(known.as_ptr(), address));
        if registration.interest.load(Ordering::Acquire) & ONCE != 0 && !self.taken.iter().any(is_known) {
            self.taken.push(Taken::Socket(Arc::downgrade(registration)));
        }
    }

    /// Whether `taken` is there still.
    fn is_ready(&self, taken: &Taken) -> bool {
        let (fd, events) = match taken {
            Taken::Foreign(fd) => match self.foreign.get(fd) {
                Some((events, _)) => (*fd, *events),
                None => return false,
            },
            Taken::Socket(registration) => match registration.upgrade().filter(|it| it.is_told_by_kernel()) {
                Some(registration) => (registration.fd, registration.interest.load(Ordering::Acquire)),
                None => return false,
            },
        };
        // The bits are the same in both.
        kernel::poll(fd, events as i16, 0).is_ok_and(|found| found as u16 & !(libc::POLLNVAL as u16) != 0)
    }

    /// The kernel looks anew, and tells once more what is there. Not of a connection, which is returned: that needs a lock of its own,
    /// which comes before this one.
    fn hand_back(&mut self, epoll: RawFd, taken: &Taken) -> Option<Arc<Registration>> {
        match taken {
            Taken::Foreign(fd) => {
                let &(events, data) = self.foreign.get(fd)?;
                let is_known = if events & EPOLLEXCLUSIVE as u32 == 0 {
                    kernel::epoll_control(epoll, EPOLL_CTL_MOD, *fd, events, data)
                } else {
                    // Those are not to be changed.
                    kernel::epoll_control(epoll, EPOLL_CTL_DEL, *fd, 0, 0)
                        .and_then(|()| kernel::epoll_control(epoll, EPOLL_CTL_ADD, *fd, events, data))
                };
                if is_known.is_err() {
                    // It is closed, and its number may be anybody's.
                    self.foreign.remove(fd);
                }
                None
            }
            Taken::Socket(registration) => registration.upgrade(),
        }
    }
}

/// The same for connections.
fn hand_back_connections(connections: impl IntoIterator<Item = Arc<Registration>>) {
    for registration in connections {
        let Target::Socket(socket) = &registration.target else { continue };
        // With the watchers locked it does not change over to its ring meanwhile, of which we know ourselves.
        let _watchers = socket.watchers();
        if registration.is_told_by_kernel() {
            let _ = registration.register(EPOLL_CTL_MOD);
        }
    }
}

/// `epoll_ctl` of something that is not ours, which `ask` asks the kernel for. Once that has worked, `event` is what the
/// program wants.
pub(crate) fn control_foreign(
    epoll: RawFd,
    fd: RawFd,
    ask: impl FnOnce() -> c_int,
    event: impl FnOnce() -> Option<(u32, u64)>,
) -> c_int {
    let Some(epoll) = table::epoll(epoll) else {
        return ask();
    };
    // Nobody who hands something back meanwhile may overwrite it.
    let mut once = epoll.once();
    let result = ask();
    if result == 0 {
        once.note(fd, event());
        epoll.count_taken(&once);
    }
    result
}

impl Epoll {
    fn once(&self) -> MutexGuard<'_, Once> {
        self.once.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_taken(&self, once: &Once) {
        self.taken_count.store(once.taken.len(), Ordering::SeqCst);
    }

    /// `fd` is something of ours now.
    pub(super) fn forget_foreign(&self, fd: RawFd) {
        let mut once = self.once();
        once.note(fd, None);
        self.count_taken(&once);
    }

    /// Whether it has anything to report, for those who watch it.
    pub(crate) fn has_events(self: &Arc<Self>) -> bool {
        self.begin_use();
        let is_readable = || kernel::poll(self.fd(), POLLIN, 0).is_ok_and(|found| found != 0);
        if !self.has_ours.load(Ordering::SeqCst) {
            // All that the kernel tells is for the program.
            return is_readable();
        }
        readiness::distribute(Some(self));
        let has_ours = || {
            let ready: Vec<_> = self.ready().clone();
            ready.iter().any(|registration| registration.has_events())
        };
        // A doorbell that is taken may be for something of ours.
        has_ours() || self.has_taken() || is_readable() && (self.take_kernel_events() || has_ours())
    }

    /// Whether there is still something of what was taken.
    fn has_taken(&self) -> bool {
        if self.taken_count.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let mut once = self.once();
        let mut connections = SmallVec::<[_; AT_ONCE]>::new();
        for taken in std::mem::take(&mut once.taken) {
            if once.is_ready(&taken) {
                once.taken.push(taken);
            } else {
                // The kernel tells when it is there again.
                connections.extend(once.hand_back(self.fd(), &taken));
            }
        }
        self.count_taken(&once);
        let has_any = !once.taken.is_empty();
        drop(once);
        hand_back_connections(connections);
        has_any
    }

    /// Somebody waits, and is to be told by the kernel.
    pub(super) fn hand_back_taken(&self) {
        if self.taken_count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut once = self.once();
        let taken = std::mem::take(&mut once.taken);
        let connections: SmallVec<[_; AT_ONCE]> =
            taken.iter().filter_map(|taken| once.hand_back(self.fd(), taken)).collect();
        self.count_taken(&once);
        drop(once);
        hand_back_connections(connections);
    }

    /// The kernel has told of `connections` that are TCP. Whether there is one that the program is to hear of.
    fn take_connections(&self, mut connections: SmallVec<[Arc<Registration>; AT_ONCE]>) -> bool {
        // Needs locks that come before the one of what was taken.
        connections.retain(|registration| !registration.is_told_in_vain());
        if connections.is_empty() {
            return false;
        }
        let mut once = self.once();
        connections.iter().for_each(|registration| once.take_socket(registration));
        self.count_taken(&once);
        true
    }

    /// Takes the kernel's events: of the doorbells among them note is taken. Whether there are any of the program's.
    fn take_kernel_events(self: &Arc<Self>) -> bool {
        // Doorbells are told once, so that none comes twice.
        let most = self.registrations().all.len() / AT_ONCE;
        for _ in 0..=most {
            let mut events = [epoll_event { events: 0, u64: 0 }; AT_ONCE];
            let (mut doorbells, mut connections) = (SmallVec::<[_; AT_ONCE]>::new(), SmallVec::<[_; AT_ONCE]>::new());
            let mut has_any = false;
            let mut once = self.once();
            let found = kernel::epoll_look(self.fd(), &mut events);
            for event in &events[..found] {
                if !is_token(event.u64) {
                    once.take_foreign(event.u64);
                    has_any = true;
                } else if let Some(registration) = self.registration_of(event.u64) {
                    if registration.has_rings() {
                        doorbells.push((registration, event.events));
                    } else {
                        connections.push(registration);
                    }
                }
            }
            self.count_taken(&once);
            drop(once);
            has_any |= self.take_connections(connections);
            for (registration, events) in doorbells {
                registration.take_note(events);
            }
            // Who falls asleep counts himself first and then looks for what was taken.
            fence(Ordering::SeqCst);
            if self.sleepers.load(Ordering::SeqCst) > 0 {
                self.hand_back_taken();
            }
            self.wake_another();
            if has_any {
                self.is_kernel_busy.store(true, Ordering::Relaxed);
            }
            if has_any || found < AT_ONCE {
                return has_any;
            }
        }
        false
    }
}
