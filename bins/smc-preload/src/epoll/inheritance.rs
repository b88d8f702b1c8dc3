//! An instance that a child has from its parent.
//!
//! The kernel's is the same in both. What is known here is a copy from the moment of the fork: what happened to the
//! connections since then was told to the parent, and what one of its threads was just looking through may be in no
//! list of the child's.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use super::outside::Once;
use super::{Epoll, Registration, Registrations, Target};
use crate::abi::held::Lockable;
use crate::fork;
use crate::upgrade;

/// Its locks while the process forks, as far as they could be had, see [`fork::lock`].
pub(crate) struct Guards<'a> {
    _once: Option<MutexGuard<'a, Once>>,
    _ready: Option<MutexGuard<'a, Vec<Arc<Registration>>>>,
    _registrations: Option<MutexGuard<'a, Registrations>>,
    _descriptors: Option<MutexGuard<'a, Vec<RawFd>>>,
}

impl Lockable for Epoll {
    type Guards<'a> = Guards<'a>;

    fn lock_all(&self) -> Guards<'_> {
        // In this order everybody takes them.
        Guards {
            _once: fork::lock(&self.once),
            _ready: fork::lock(&self.ready),
            _registrations: fork::lock(&self.registrations),
            _descriptors: fork::lock(&self.descriptors),
        }
    }
}

impl Epoll {
    /// In a child: the threads that sleep are the parent's. Most children never use what they inherit.
    pub(crate) fn inherit(&self) {
        self.sleepers.store(0, Ordering::SeqCst);
        self.is_inherited.store(true, Ordering::Release);
    }

    /// Somebody here asks what there is in it.
    #[inline]
    pub(super) fn begin_use(&self) {
        if self.is_inherited.load(Ordering::Acquire) {
            self.adopt();
        }
    }

    #[cold]
    fn adopt(&self) {
        let all: Vec<_> = self.registrations().all.values().cloned().collect();
        for registration in all {
            match &registration.target {
                Target::Socket(socket) if socket.is_inherited() => {
                    upgrade::adopt(socket);
                    socket.tell_waiter();
                }
                Target::Socket(_) => {}
                Target::Epoll(inner) => {
                    if let Some(inner) = inner.upgrade() {
                        inner.begin_use();
                    }
                }
            }
        }
        self.look_at_all();
    }

    /// Queues everything, once the peers wake this process for it.
    fn look_at_all(&self) {
        let mut ready = self.ready();
        if !self.is_inherited.load(Ordering::Acquire) {
            // Another thread has come before us.
            return;
        }
        ready.clear();
        let mut registrations = self.registrations();
        // What parent and child register from now on may be in the same instance of the kernel's.
        registrations.last = registrations.last.wrapping_add(std::process::id() << 10);
        for registration in registrations.all.values() {
            let is_ours = registration.has_rings();
            registration.is_queued.store(is_ours, Ordering::Release);
            if is_ours {
                ready.push(registration.clone());
            }
        }
        if !ready.is_empty() {
            self.has_ours.store(true, Ordering::Release);
        }
        self.ready_count.store(ready.len(), Ordering::Release);
        self.is_inherited.store(false, Ordering::Release);
    }
}

impl Registration {
    /// Whether its instance is the parent's, as far as this process has shown.
    pub(super) fn is_of_parent(self: &Arc<Self>) -> bool {
        self.epoll.upgrade().is_some_and(|epoll| epoll.is_inherited.load(Ordering::Acquire))
    }
}
