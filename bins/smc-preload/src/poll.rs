//! poll and select with connections of ours among the descriptors.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use libc::{POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, pollfd};
use rustix::io::Errno;
use softrdma_smc::back::Source;

use crate::epoll::Epoll;
use crate::readiness;
use crate::socket::{Mode, Socket, flag};
use crate::table::{self, Entry};
use crate::wait;

/// Told without being asked for.
const ALWAYS: i16 = POLLERR | POLLHUP | POLLNVAL;

/// Who waits for room looks again from time to time: the connection may have become TCP again, of which no byte tells.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Something of ours among the descriptors.
enum Ours {
    Socket(Arc<Socket>),
    Epoll(Arc<Epoll>),
}

impl Ours {
    fn of(fd: RawFd) -> Option<Self> {
        match table::entry(fd)?.as_ref() {
            Entry::Socket(socket) if matches!(socket.mode(), Mode::Prepared | Mode::Ring) => {
                Some(Self::Socket(socket.clone()))
            }
            Entry::Socket(_) => None,
            Entry::Epoll(epoll) => {
                epoll.watch();
                Some(Self::Epoll(epoll.clone()))
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

    /// What the kernel is asked for in its place.
    fn asked(&self, wanted: i16) -> i16 {
        match self {
            Self::Socket(socket) if socket.is_returning() || socket.has_peer_gone_back() => {
                let room = if socket.has_returned() { wanted & (POLLOUT | libc::POLLWRNORM) } else { 0 };
                let marked = socket.source() == Some(Source::TcpAgain);
                // Behind the mark, with the ring not read yet, bytes of the program's stay there.
                let may_wait = marked || !socket.has_flag(flag::MARKED);
                room | if marked { wanted } else { POLLPRI } | if may_wait { POLLIN } else { 0 }
            }
            _ => POLLIN | POLLPRI,
        }
    }

    /// Whether nobody wakes who waits for this.
    fn must_be_looked_for(&self, wanted: i16) -> bool {
        matches!(self, Self::Socket(_)) && wanted & POLLOUT != 0
    }

    fn set_asleep(&self, is_asleep: bool) {
        if let Self::Socket(socket) = self {
            if is_asleep { socket.fall_asleep() } else { socket.wake_up() }
        }
    }

    fn take_doorbells(&self, fd: RawFd) {
        if let Self::Socket(socket) = self
            && let Some((connection, _)) = socket.rings()
        {
            wait::take_doorbells(socket, connection, fd);
        }
    }
}

/// Whether any of `descriptors` may be ours, which costs a look each.
pub(crate) fn concerns_us(descriptors: &[pollfd]) -> bool {
    descriptors.iter().any(|descriptor| table::is_known(descriptor.fd))
}

/// `poll`: `ask` asks the kernel.
pub(crate) fn poll(
    descriptors: &mut [pollfd],
    timeout: Option<Duration>,
    mut ask: impl FnMut(&mut [pollfd], Option<Duration>) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let budget = AtomicU32::new(0);
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    // What the kernel is asked: for ours, only whether it has doorbells or an end.
    let mut asked: Vec<pollfd> = descriptors.to_vec();
    loop {
        let ours: Vec<Option<Ours>> = descriptors.iter().map(|descriptor| Ours::of(descriptor.fd)).collect();
        if ours.iter().all(Option::is_none) {
            // Nothing of ours is on its way yet. While the kernel waits that may change: its doorbells wake it.
            let found = ask(descriptors, left(deadline))?;
            let has_changed = descriptors.iter().any(|descriptor| Ours::of(descriptor.fd).is_some());
            if found == 0 || !has_changed {
                return Ok(found);
            }
            continue;
        }
        for (asked, (given, ours)) in asked.iter_mut().zip(descriptors.iter().zip(&ours)) {
            let events = ours.as_ref().map_or(given.events, |ours| ours.asked(given.events));
            *asked = pollfd { events, ..*given };
        }
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
        if wait::spin(&budget, || pending(descriptors)) {
            continue;
        }
        let looks_again = descriptors
            .iter()
            .zip(&ours)
            .any(|(descriptor, ours)| ours.as_ref().is_some_and(|ours| ours.must_be_looked_for(descriptor.events)));
        let time = left(deadline);
        let time = if looks_again { Some(time.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN)) } else { time };
        ours.iter().flatten().for_each(|ours| ours.set_asleep(true));
        let result = if pending(descriptors) { Ok(0) } else { ask(&mut asked, time) };
        ours.iter().flatten().for_each(|ours| ours.set_asleep(false));
        result?;
        let found = report(descriptors, &asked, &ours);
        if found > 0 {
            return Ok(found);
        }
    }
}

fn left(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
}

/// Writes down what there is, of the kernel's and of ours: how many descriptors have something.
fn report(descriptors: &mut [pollfd], asked: &[pollfd], ours: &[Option<Ours>]) -> usize {
    for (descriptor, (asked, ours)) in descriptors.iter_mut().zip(asked.iter().zip(ours)) {
        descriptor.revents = match ours {
            None => asked.revents,
            Some(ours) => {
                if asked.revents != 0 {
                    ours.take_doorbells(descriptor.fd);
                }
                ours.events(descriptor.fd, descriptor.events)
            }
        };
    }
    descriptors.iter().filter(|descriptor| descriptor.revents != 0).count()
}
