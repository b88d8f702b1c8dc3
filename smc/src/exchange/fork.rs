//! What a fork does to the service: the parent's goes on, the child begins anew.
//!
//! The child has a copy of every descriptor and none of the threads. The copies are closed there, which changes nothing for the
//! parent: a socket hangs up when its last copy is closed. What the parent is agreeing on is the parent's; connections that were
//! handed to the [`Host`](super::Host) are the host's to care for.

use std::sync::MutexGuard;

use super::service::{Desk, Shared};
use super::worker::Worker;

/// A process that is about to fork, and then one of the two that have come of it. See
/// [`Service::before_fork`](super::Service::before_fork).
#[must_use = "the service stands still until this is dropped"]
pub struct Fork<'a> {
    worker: MutexGuard<'a, Option<Worker>>,
    desk: MutexGuard<'a, Desk>,
}

impl<'a> Fork<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        let worker = shared.worker();
        Self { worker, desk: shared.desk() }
    }

    /// In the parent, and when there was no fork after all: everything goes on.
    pub fn after_fork_in_parent(self) {}

    /// In the child: the parent's descriptors are closed. The service calls itself by another name, and starts a thread again,
    /// when next needed. No more is heard of what was under way; it is under way in the parent.
    pub fn after_fork_in_child(mut self) {
        if let Some(running) = self.desk.running.take() {
            // There is no such thread here, to wait for or to let go.
            std::mem::forget(running.thread);
        }
        self.desk.commands.clear();
        if let Some(worker) = self.worker.take() {
            worker.close_in_child();
        }
    }
}
