//! poll and select with connections of ours among the descriptors.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libc::{POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, POLLRDBAND, POLLWRNORM, pollfd};
use rustix::io::Errno;
use smallvec::SmallVec;
use softrdma_smc::back::Source;

use crate::epoll::{Epoll, KERNEL_PATIENCE};
use crate::readiness;
use crate::socket::{Mode, Sleeping, Socket, flag};
use crate::spin::Spin;
use crate::table::{self, Entry};
use crate::wait;

/// Told without being asked for.
const ALWAYS: i16 = POLLERR | POLLHUP | POLLNVAL;

/// What is asked of TCP for room, and for urgent data.
const ROOM: i16 = POLLOUT | POLLWRNORM;
const URGENT: i16 = POLLPRI | POLLRDBAND;

/// Who waits for room looks again from time to time: the connection may become TCP again, of which no byte tells.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// As many as most calls have are kept without a visit to the allocator.
type Few<T> = SmallVec<[T; 8]>;

/// Something of ours among the descriptors.
enum Ours {
    Socket(Arc<Socket>),
    Epoll(Arc<Epoll>),
}

impl Ours {
    fn of(fd: RawFd) -> Option<Self> {
        match table::used_entry(fd)? {
            Entry::Socket(socket) if matches!(socket.mode(), Mode::Prepared | Mode::Ring) => Some(Self::Socket(socket)),
            Entry::Socket(_) => None,
            Entry::Epoll(epoll) => {
                epoll.watch();
                Some(Self::Epoll(epoll))
            }
        }
    }

    fn events(&self, fd: RawFd, wanted: i16) -> i16 {
        match self {
            // The bits below 16 are the same in both.
            Self::Socket(socket) => readiness::events(socket, fd, wanted as u32) as i16 & (wanted | ALWAYS),
            Self::Epoll(epoll) => {
                if epoll.has_events() {
                    wanted & POLLIN
                } else {
                    0
                }
            }
        }
    }

    /// What the kernel is asked for: doorbells and the end, and what TCP still does itself, or again.
    fn asked(&self, wanted: i16) -> i16 {
        match self {
            Self::Socket(socket) if socket.is_returning() || socket.has_peer_gone_back() => {
                let reading = match socket.source() {
                    Some(Source::TcpAgain) => wanted & !ROOM,
                    Some(Source::Ring | Source::Mark) if !socket.has_flag(flag::MARKED) => POLLIN | wanted & URGENT,
                    // Behind the mark, with the ring not read yet, bytes of the program's stay there.
                    Some(Source::Ring | Source::Mark) => wanted & URGENT,
                    _ => wanted & (POLLIN | URGENT),
                };
                reading | if socket.has_returned() { wanted & ROOM } else { 0 }
            }
            Self::Socket(socket) => {
                let reading = if socket.is_behind_switch() || socket.has_tcp_ended() { 0 } else { wanted & POLLIN };
                let writing = if socket.has_switched() { 0 } else { wanted & POLLOUT };
                wait::bell(socket) | reading | writing | wanted & URGENT
            }
            Self::Epoll(_) => POLLIN,
        }
    }

    /// How long one may sleep who wants `wanted`, if that does not matter. No byte tells who waits for room that the connection has
    /// become TCP again, if the peer has never sent another way.
    fn slice(&self, wanted: i16) -> Option<Duration> {
        match self {
            Self::Socket(socket) if wanted & POLLOUT != 0 && !socket.has_returned() => {
                Some(wait::slice(socket).map_or(LOOK_AGAIN, |slice| slice.min(LOOK_AGAIN)))
            }
            Self::Socket(socket) if wanted & POLLIN == 0 || wanted & POLLOUT != 0 => wait::slice(socket),
            Self::Socket(_) | Self::Epoll(_) => None,
        }
    }

    fn take_note(&self, fd: RawFd, happened: i16) {
        if let Self::Socket(socket) = self {
            wait::take_note(socket, fd, happened, None);
        }
    }

    fn look_for_life(&self, fd: RawFd) {
        if let Self::Socket(socket) = self {
            wait::look_for_life(socket, fd);
        }
    }

    fn fall_asleep(&self) -> Option<Sleeping<'_>> {
        match self {
            Self::Socket(socket) => Some(socket.fall_asleep()),
            Self::Epoll(_) => None,
        }
    }
}

/// A socket that may get its rings while the kernel is asked for bytes. Who does not ask for them is woken by no doorbell, and would
/// leave it to those who are.
fn undecided(descriptor: &pollfd) -> Option<Arc<Socket>> {
    let wants_bytes = descriptor.events & POLLIN != 0;
    table::socket(descriptor.fd).filter(|socket| wants_bytes && socket.mode() == Mode::Undecided)
}

/// Whether any of `descriptors` may be ours, which costs a look each.
pub(crate) fn concerns_us(descriptors: &[pollfd]) -> bool {
    descriptors.iter().any(|descriptor| table::is_active(descriptor.fd))
}

thread_local! {
    /// How long it has been worth spinning in this thread: a call has no place of its own to remember that.
    static SPIN: Spin = const { Spin::new() };
}

/// `poll`: `ask` asks the kernel.
pub(crate) fn poll(
    descriptors: &mut [pollfd],
    timeout: Option<Duration>,
    mut ask: impl FnMut(&mut [pollfd], Option<Duration>) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    // What the kernel is asked: for ours, only whether it has doorbells or an end.
    let mut asked: Few<pollfd> = SmallVec::from_slice(descriptors);
    loop {
        let undecided: Few<_> = descriptors.iter().filter_map(undecided).collect();
        let ours: Few<Option<Ours>> = descriptors.iter().map(|descriptor| Ours::of(descriptor.fd)).collect();
        if ours.iter().all(Option::is_none) {
            // Nothing of ours is on its way yet. While the kernel waits that may change: its doorbells wake it.
            let sleeping: Few<_> = undecided.iter().map(|socket| socket.fall_asleep()).collect();
            let found = ask(descriptors, left(deadline));
            drop(sleeping);
            let found = found?;
            let has_changed = descriptors.iter().any(|descriptor| Ours::of(descriptor.fd).is_some());
            if found == 0 || !has_changed {
                return Ok(found);
            }
            continue;
        }
        let given = || descriptors.iter().zip(&ours);
        for (asked, (given, ours)) in asked.iter_mut().zip(given()) {
            *asked = pollfd { events: ours.as_ref().map_or(given.events, |ours| ours.asked(given.events)), ..*given };
        }
        let slice = given().filter_map(|(given, ours)| ours.as_ref()?.slice(given.events)).min();
        let pending = |descriptors: &[pollfd]| {
            descriptors.iter().zip(&ours).any(|(descriptor, ours)| {
                ours.as_ref().is_some_and(|ours| ours.events(descriptor.fd, descriptor.events) != 0)
            })
        };
        ask(&mut asked, Some(Duration::ZERO))?;
        let found = report(descriptors, &asked, &ours);
        if found > 0 || left(deadline) == Some(Duration::ZERO) {
            return Ok(found);
        }
        // Others than ours are the kernel's to tell of.
        let mut asked_last = Instant::now();
        let has_others = ours.iter().any(Option::is_none);
        let look_aside = |now: Option<Instant>| {
            let is_due = has_others && now.is_none_or(|now| now - asked_last > KERNEL_PATIENCE);
            is_due && {
                asked_last = now.unwrap_or(asked_last);
                ask(&mut asked, Some(Duration::ZERO)) != Ok(0)
            }
        };
        if SPIN.with(|spin| spin.until(|| pending(descriptors), look_aside)) {
            continue;
        }
        let mut sleeping: Few<_> = undecided.iter().map(|socket| socket.fall_asleep()).collect();
        let heard = ours.iter().zip(&asked).filter(|(_, asked)| asked.events & POLLIN != 0);
        sleeping.extend(heard.filter_map(|(ours, _)| ours.as_ref()?.fall_asleep()));
        let time = left(deadline).map_or(slice, |left| Some(slice.map_or(left, |slice| slice.min(left))));
        let result = if pending(descriptors) { Ok(0) } else { ask(&mut asked, time) };
        drop(sleeping);
        result?;
        let found = report(descriptors, &asked, &ours);
        if found > 0 {
            return Ok(found);
        }
        if slice.is_some() {
            look_for_life(descriptors, &ours);
        }
    }
}

fn look_for_life(descriptors: &[pollfd], ours: &[Option<Ours>]) {
    for (given, ours) in descriptors.iter().zip(ours) {
        if let Some(ours) = ours {
            ours.look_for_life(given.fd);
        }
    }
}

fn left(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
}

/// Writes down what there is, of the kernel's and of ours: how many descriptors have something.
fn report(descriptors: &mut [pollfd], asked: &[pollfd], ours: &[Option<Ours>]) -> usize {
    for (descriptor, (asked, ours)) in descriptors.iter_mut().zip(asked.iter().zip(ours)) {
        // One that has become ours since the kernel was asked may have been told of for a doorbell.
        let has_become = if ours.is_none() && asked.revents != 0 { Ours::of(descriptor.fd) } else { None };
        descriptor.revents = match ours.as_ref().or(has_become.as_ref()) {
            None => asked.revents,
            Some(ours) => {
                if asked.revents != 0 {
                    ours.take_note(descriptor.fd, asked.revents);
                }
                ours.events(descriptor.fd, descriptor.events)
            }
        };
    }
    descriptors.iter().filter(|descriptor| descriptor.revents != 0).count()
}
