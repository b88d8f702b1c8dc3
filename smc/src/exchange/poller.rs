//! What the service's thread sleeps in.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::{Errno, read, write};

use crate::descriptors::Private;

/// Events that one wait brings, at most.
const EVENTS: usize = 64;
/// Stands for the descriptor that wakes the thread.
pub(super) const WAKE: u64 = 0;
/// Stands for the names by which other processes call this one.
pub(super) const HOME: u64 = 1;

/// What happened to what is watched.
pub(super) type Ready = Vec<u64>;

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// Something to read, and whether the peer has hung up.
    Readable,
    /// Only whether the peer has hung up.
    HangUp,
    /// Room to send, once.
    Room,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Self::Readable => EventFlags::IN,
            Self::HangUp => EventFlags::RDHUP,
            Self::Room => EventFlags::OUT | EventFlags::ONESHOT,
        }
    }
}

/// An epoll instance, level-triggered, and a descriptor in it by which others wake who sleeps in it.
#[derive(Debug)]
pub(super) struct Poller {
    /// The sleeping thread has it too.
    epoll: Arc<Private>,
    wake: Arc<Private>,
}

impl Poller {
    pub(super) fn new() -> std::io::Result<Self> {
        let epoll = Private::keep(epoll::create(CreateFlags::CLOEXEC)?)?;
        let wake = Private::keep(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        Ok(Self { epoll: Arc::new(epoll), wake: Arc::new(wake) })
    }

    /// Wakes the thread.
    pub(super) fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.wake))
    }

    /// Where the thread sleeps.
    pub(super) fn bed(&self) -> Bed {
        Bed(Arc::clone(&self.epoll))
    }

    /// The thread is awake.
    pub(super) fn clear_wake(&self) {
        let _ = read(&*self.wake, &mut [0; 8][..]);
    }

    pub(super) fn add(&self, descriptor: impl AsFd, id: u64, interest: Interest) -> Result<(), Errno> {
        epoll::add(&*self.epoll, descriptor, EventData::new_u64(id), interest.flags())
    }

    pub(super) fn modify(&self, descriptor: impl AsFd, id: u64, interest: Interest) -> Result<(), Errno> {
        epoll::modify(&*self.epoll, descriptor, EventData::new_u64(id), interest.flags())
    }

    /// Must be done before a descriptor is closed: as long as another process has it too, the epoll instance has it.
    pub(super) fn remove(&self, descriptor: impl AsFd) {
        let _ = epoll::delete(&*self.epoll, descriptor);
    }

    /// Closes all in a child of fork, in which the thread that sleeps does not exist.
    pub(super) fn close_in_child(self) {
        match Arc::try_unwrap(self.epoll) {
            Ok(epoll) => drop(epoll),
            Err(shared) => {
                shared.close_in_child();
                // The other one is on the stack of a thread that is gone: this one must not become the last.
                std::mem::forget(shared);
            }
        }
    }
}

/// See [`Poller::waker`].
#[derive(Clone, Debug)]
pub(super) struct Waker(Arc<Private>);

impl Waker {
    pub(super) fn wake(&self) {
        let _ = write(&*self.0, &1u64.to_ne_bytes());
    }
}

/// See [`Poller::bed`].
pub(super) struct Bed(Arc<Private>);

impl Bed {
    /// Sleeps until something happens, or for `limit`.
    pub(super) fn sleep(&self, limit: Option<Duration>, ready: &mut Ready) -> Result<(), Errno> {
        ready.clear();
        // A limit that is too long for the kernel's type is none.
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let mut events = [const { MaybeUninit::<Event>::uninit() }; EVENTS];
        match epoll::wait(&*self.0, &mut events, limit.as_ref()) {
            Ok((events, _)) => ready.extend(events.iter().map(|event| event.data.u64())),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
