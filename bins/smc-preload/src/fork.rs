//! Children: of `fork`, which have a copy of everything and share the connections; and of `vfork`, which run in our memory until
//! they call exec and must change nothing of it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::lock;
use crate::readiness;
use crate::shared_words;
use crate::table::{self, Entry};
use crate::upgrade;

/// The process that the tables are of.
static PROCESS: AtomicU64 = AtomicU64::new(0);
/// What it locks with.
static OWNER: AtomicU64 = AtomicU64::new(0);

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

/// A child will have every connection too.
pub(crate) fn before() {
    upgrade::before_fork();
    table::each(|fd, entry| {
        if let Entry::Socket(socket) = entry
            && socket.descriptor() == Some(fd)
        {
            socket.add_holder();
        }
    });
}

pub(crate) fn after_in_parent() {
    upgrade::after_fork_in_parent();
}

pub(crate) fn after_in_child() {
    begin();
    table::each(|_, entry| match entry {
        Entry::Socket(socket) => socket.inherit(),
        Entry::Epoll(epoll) => epoll.inherit(),
    });
    shared_words::begin_anew();
    readiness::begin_anew();
    upgrade::after_fork_in_child();
    table::begin_anew();
}
