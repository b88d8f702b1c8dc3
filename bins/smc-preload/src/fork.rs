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

/// Its number.
#[inline]
pub(crate) fn process() -> u64 {
    match PROCESS.load(Ordering::Relaxed) {
        0 => {
            PROCESS.store(lock::owner(), Ordering::Relaxed);
            lock::owner()
        }
        process => process,
    }
}

/// Whether this is not a child that only borrows our memory.
pub(crate) fn is_own_process() -> bool {
    process() == lock::owner()
}

/// A child will have every connection too.
pub(crate) fn before() {
    process();
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
    PROCESS.store(lock::owner(), Ordering::Relaxed);
    shared_words::begin_anew();
    readiness::begin_anew();
    upgrade::after_fork_in_child();
    table::begin_anew();
}
