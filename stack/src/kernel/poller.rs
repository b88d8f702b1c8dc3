//! Readiness of sockets, from epoll.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll::{self, CreateFlags, EventData};
use rustix::event::{EventfdFlags, Timespec, eventfd};

pub(super) use rustix::event::epoll::EventFlags;

use crate::table::Name;

/// Events that one wait brings, at most.
const EVENTS_PER_WAIT: usize = 64;
/// Set in the index of a token that names a listener.
const LISTENER: u64 = 1 << 31;
/// The token of the wake-up descriptor.
const WAKE: u64 = u64::MAX;

/// Whom an event is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Stream(Name),
    Listener(Name),
}

/// An epoll instance, level-triggered, and a descriptor in it that makes it readable when work was left by a call other
/// than `poll`.
pub(super) struct Poller {
    epoll: Arc<OwnedFd>,
    wake: OwnedFd,
    is_signalled: bool,
    events: Vec<(u64, EventFlags)>,
    next: usize,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        Ok(Self {
            epoll: Arc::new(epoll),
            wake,
            is_signalled: false,
            events: Vec::with_capacity(EVENTS_PER_WAIT),
            next: 0,
        })
    }

    /// The descriptor that is readable while any event waits.
    pub(super) fn descriptor(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.epoll)
    }

    pub(super) fn add(&self, socket: impl AsFd, target: Target, interest: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&*self.epoll, socket, EventData::new_u64(token(target)), interest)?)
    }

    pub(super) fn modify(&self, socket: impl AsFd, target: Target, interest: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&*self.epoll, socket, EventData::new_u64(token(target)), interest)?)
    }

    pub(super) fn delete(&self, socket: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&*self.epoll, socket)?)
    }

    /// Whether events of an earlier wait are still to be taken.
    pub(super) fn has_events(&self) -> bool {
        self.next < self.events.len()
    }

    /// Looks for events without waiting, and tells how many there are. Events not yet taken come first: a new wait would
    /// start again with those sockets that were served last.
    pub(super) fn refill(&mut self) -> usize {
        if !self.has_events() {
            self.events.clear();
            self.next = 0;
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let mut space = [const { MaybeUninit::uninit() }; EVENTS_PER_WAIT];
            // A failing wait (EINTR) is a wait that brought nothing; the next poll asks again.
            if let Ok((events, _)) = epoll::wait(&*self.epoll, &mut space, Some(&at_once)) {
                self.events.extend(events.iter().map(|event| (event.data.u64(), event.flags)));
            }
        }
        self.events.len() - self.next
    }

    /// The next event of the last wait.
    pub(super) fn next_event(&mut self) -> Option<(Target, EventFlags)> {
        loop {
            let (token, flags) = *self.events.get(self.next)?;
            self.next += 1;
            if token != WAKE {
                return Some((target(token), flags));
            }
        }
    }

    /// Makes the descriptor readable until [`Self::quiet`].
    pub(super) fn signal(&mut self) {
        if !self.is_signalled {
            // Cannot fail: the counter is below its limit, as it is written once between two reads.
            self.is_signalled = rustix::io::write(&self.wake, &1u64.to_ne_bytes()).is_ok();
        }
    }

    /// Ends what [`Self::signal`] began.
    pub(super) fn quiet(&mut self) {
        if self.is_signalled {
            let mut count = [0; 8];
            self.is_signalled = rustix::io::read(&self.wake, &mut count).is_err();
        }
    }
}

const fn token(target: Target) -> u64 {
    match target {
        Target::Stream(name) => ((name.generation as u64) << 32) | name.index as u64,
        Target::Listener(name) => ((name.generation as u64) << 32) | name.index as u64 | LISTENER,
    }
}

const fn target(token: u64) -> Target {
    let name = Name { index: (token & (LISTENER - 1)) as u32, generation: (token >> 32) as u32 };
    if token & LISTENER == 0 { Target::Stream(name) } else { Target::Listener(name) }
}
