//! The locks of a socket while the process forks.

use std::os::fd::RawFd;
use std::sync::{MutexGuard, Weak};

use softrdma_smc::descriptors::Private;

use super::Socket;
use crate::abi::held::Lockable;
use crate::epoll::Registration;
use crate::fork;

/// Those that could be had, see [`fork::lock`].
pub(crate) struct Guards<'a> {
    _watchers: Option<MutexGuard<'a, Vec<Weak<Registration>>>>,
    descriptors: Option<MutexGuard<'a, Vec<RawFd>>>,
    _kept: Option<MutexGuard<'a, Option<Private>>>,
}

impl Guards<'_> {
    /// Whether the last descriptor of it is being closed just now: a child has none.
    pub(crate) fn is_closed(&self) -> bool {
        self.descriptors.as_ref().is_some_and(|descriptors| descriptors.is_empty())
    }
}

impl Lockable for Socket {
    type Guards<'a> = Guards<'a>;

    fn lock_all(&self) -> Guards<'_> {
        // In this order everybody takes them.
        Guards {
            _watchers: fork::lock(&self.watchers),
            descriptors: fork::lock(&self.descriptors),
            _kept: fork::lock(&self.kept),
        }
    }
}
