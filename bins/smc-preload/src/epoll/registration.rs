//! A socket in an instance: what the kernel is asked for, and what there is to report.

use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use libc::{EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLET, EPOLLEXCLUSIVE, EPOLLIN, EPOLLONESHOT};
use rustix::io::Errno;
use softrdma_smc::arena::{Arena, WAITERS};

use super::{ALWAYS, EDGES, Epoll, Registration, TOKENS, Target};
use crate::abi::kernel;
use crate::fork;
use crate::readiness::{self, WRITABLE};
use crate::socket::{Mode, Socket};
use crate::wait;

impl Registration {
    /// What peers know its epoll instance by.
    pub(crate) fn waiter(&self) -> usize {
        self.epoll
            .upgrade()
            .map_or(WAITERS, |epoll| if epoll.is_watched.load(Ordering::SeqCst) { WAITERS } else { epoll.waiter })
    }

    /// Whether its readiness is known here and not in the kernel.
    pub(super) fn has_rings(&self) -> bool {
        match &self.target {
            Target::Socket(socket) => matches!(socket.mode(), Mode::Prepared | Mode::Ring),
            Target::Epoll(_) => true,
        }
    }

    /// Asks the kernel for what is wanted of it.
    pub(super) fn register(&self, operation: c_int) -> Result<(), Errno> {
        let epoll = self.epoll.upgrade().ok_or(Errno::BADF)?;
        let wanted = match &self.target {
            Target::Socket(_) if !self.has_rings() => {
                self.is_ours.store(false, Ordering::Release);
                self.interest.load(Ordering::Acquire) & !(EPOLLEXCLUSIVE as u32)
            }
            // With writability, which TCP has: so that somebody who sleeps in the kernel wakes up and looks. Whoever has slept there
            // since before anything of ours was in it is in no count. What is sent over TCP, still or again, needs it anyway.
            _ => {
                epoll.begin_with_ours();
                self.is_ours.store(true, Ordering::Release);
                EDGES | WRITABLE
            }
        };
        self.ask(&epoll, operation, wanted)
    }

    /// Asks the kernel for `wanted`. A number that was closed while the connection goes on under others may be anybody's by now: what
    /// the kernel knows under it stays as it is.
    pub(super) fn ask(&self, epoll: &Epoll, operation: c_int, wanted: u32) -> Result<(), Errno> {
        // Locked until the kernel has answered: so long nobody closes it.
        let descriptors = match &self.target {
            Target::Socket(socket) => Some(socket.descriptors()),
            Target::Epoll(_) => None,
        };
        if descriptors.as_ref().is_some_and(|descriptors| !descriptors.contains(&self.fd)) {
            return Err(Errno::NOENT);
        }
        kernel::epoll_control(epoll.fd(), operation, self.fd, wanted, self.token())
    }

    /// What the kernel has for the program's data.
    pub(super) fn token(&self) -> u64 {
        *TOKENS | u64::from(self.number)
    }

    /// Whether changing it in the kernel wakes somebody who sleeps there: it is a connection, by a number that is still its own.
    pub(super) fn can_wake(&self) -> bool {
        let Target::Socket(socket) = &self.target else { return false };
        let is_open = || socket.descriptors().contains(&self.fd);
        !self.is_removed() && socket.has_switched() && !socket.is_plain() && is_open()
    }

    /// Somebody who sleeps in the kernel, in its instance or in what watches that, has not seen that it was queued.
    pub(super) fn wake_sleepers(&self) {
        // Who falls asleep counts himself first and then looks at what is queued.
        fence(Ordering::SeqCst);
        let is_ours = matches!(&self.target, Target::Socket(socket) if socket.has_switched() && !socket.is_plain());
        let sleeps =
            |epoll: &Epoll| epoll.sleepers.load(Ordering::SeqCst) > 0 || epoll.is_watched.load(Ordering::SeqCst);
        if is_ours && self.epoll.upgrade().is_some_and(|epoll| sleeps(&epoll)) {
            let _ = self.register(EPOLL_CTL_MOD);
        }
    }

    /// The program wants `events` from now on.
    pub(super) fn renew(&self, events: u32, data: u64) {
        self.data.store(data, Ordering::Release);
        self.interest.store(events, Ordering::Release);
        self.is_spent.store(false, Ordering::Release);
        self.is_fresh.store(true, Ordering::Release);
    }

    /// Whether the program does not watch for it any more: only the kernel does.
    pub(crate) fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::Acquire)
    }

    /// Its socket is TCP for good: the kernel is asked for what the program wants, or for nothing if that is nothing. Whether it
    /// was not yet.
    pub(crate) fn give_back(self: &Arc<Self>) -> bool {
        let (Target::Socket(socket), Some(epoll)) = (&self.target, self.epoll.upgrade()) else {
            return false;
        };
        // A child that has our memory only has other descriptors by now: whoever gets the next event does it.
        if !socket.is_plain()
            || !fork::is_own_process()
            || self.is_of_parent()
            || !self.is_ours.swap(false, Ordering::AcqRel)
        {
            return false;
        }
        if self.is_removed() {
            self.unpark(&epoll);
            return true;
        }
        let interest = self.interest.load(Ordering::Acquire) & !(EPOLLEXCLUSIVE as u32);
        let wanted = if self.is_spent.load(Ordering::Acquire) { EPOLLONESHOT as u32 } else { interest };
        let _ = self.ask(&epoll, EPOLL_CTL_MOD, wanted);
        true
    }

    /// Whether what the kernel tells of it, though it is TCP, is not for the program: the kernel was not asked yet for
    /// what the program wants; or the program has removed it, or was told already and has not asked since.
    pub(super) fn is_told_in_vain(self: &Arc<Self>) -> bool {
        self.give_back() || self.is_removed() || self.is_spent.load(Ordering::Acquire)
    }

    /// Whether it is the kernel that has to tell of it.
    pub(super) fn is_told_by_kernel(&self) -> bool {
        !self.has_rings() && !self.is_removed() && !self.is_spent.load(Ordering::Acquire)
    }

    /// The program has removed it, and now the kernel hears of that.
    pub(super) fn unpark(self: &Arc<Self>, epoll: &Epoll) {
        let _ = self.ask(epoll, EPOLL_CTL_DEL, 0);
        epoll.forget_registration(self);
    }

    /// Its socket sends over TCP again: the kernel says when there is room.
    pub(crate) fn ask_for_room(&self) {
        if fork::is_own_process() && !self.is_removed() && self.has_rings() {
            let _ = self.register(EPOLL_CTL_MOD);
        }
    }

    /// What is known of it is known here from now on, or has changed: whether it is still of use.
    pub(crate) fn take_over(self: &Arc<Self>) -> bool {
        if self.is_removed.load(Ordering::Acquire) {
            return false;
        }
        if let Some(epoll) = self.epoll.upgrade() {
            // With writability, so that somebody who sleeps in the kernel wakes up and looks, and then knows that there is
            // more to it than what the kernel says.
            epoll.begin_with_ours();
            self.is_ours.store(true, Ordering::Release);
            if !self.is_of_parent() {
                // The parent may have registered it anew since.
                let _ = self.ask(&epoll, EPOLL_CTL_MOD, EDGES | WRITABLE);
            }
            // It may have become TCP again meanwhile.
            self.give_back();
        }
        self.queue();
        !self.is_removed.load(Ordering::Acquire)
    }

    /// The program is about to be told of it: whether it is to be. What it wants once is one thread's alone, whoever else
    /// has found it ready at the same time.
    pub(super) fn claim(&self) -> bool {
        let is_once = self.interest.load(Ordering::Acquire) & EPOLLONESHOT as u32 != 0;
        !is_once || !self.is_spent.swap(true, Ordering::AcqRel)
    }

    /// The program gets these `events` from the kernel, unless another thread was told.
    pub(super) fn note_told(&self, events: u32) -> bool {
        if !self.claim() {
            return false;
        }
        self.is_fresh.store(false, Ordering::Release);
        if let Target::Socket(socket) = &self.target
            && events & WRITABLE != 0
        {
            self.refusals.store(socket.refusals.load(Ordering::Acquire), Ordering::Release);
        }
        true
    }

    pub(super) fn is_in(&self, epoll: Option<&Epoll>) -> bool {
        epoll.is_some_and(|epoll| std::ptr::eq(self.epoll.as_ptr(), epoll))
    }

    /// Wakes those who sleep in its instance, if that is not `own`, and may have slept on while somebody else took their doorbell.
    pub(crate) fn wake_others(self: &Arc<Self>, own: Option<&Epoll>) {
        if !self.is_in(own) && self.epoll.upgrade().is_some_and(|epoll| epoll.sleepers.load(Ordering::SeqCst) > 0) {
            self.take_over();
        }
    }

    /// Wakes somebody who fell asleep after the peer had found him awake, and before he could see what we have queued.
    pub(crate) fn wake_who_just_fell_asleep(self: &Arc<Self>, arena: &Arena, own: Option<&Epoll>) {
        let waiter = self.waiter();
        if !self.is_in(own) && waiter < WAITERS && arena.is_asleep(waiter) {
            self.take_over();
        }
    }

    pub(super) fn queue_if_ours(self: &Arc<Self>) {
        if self.has_rings() {
            self.queue();
        }
    }

    /// Something may have happened to it.
    pub(crate) fn queue(self: &Arc<Self>) {
        if let Some(epoll) = self.epoll.upgrade()
            && !self.is_queued.swap(true, Ordering::AcqRel)
        {
            epoll.has_ours.store(true, Ordering::Release);
            let mut ready = epoll.ready();
            ready.push(self.clone());
            epoll.ready_count.store(ready.len(), Ordering::Release);
        }
    }

    /// The kernel has woken us for it with these `events`.
    pub(super) fn take_note(self: &Arc<Self>, events: u32) {
        if let Target::Socket(socket) = &self.target {
            // The bits are the same in both.
            wait::take_note(socket, self.fd, events as i16, self.epoll.upgrade().as_deref());
            let is_tcps = socket.has_peer_gone_back() || socket.is_returning();
            if is_tcps || !socket.is_behind_switch() && events & !WRITABLE != 0 {
                self.is_fresh.store(true, Ordering::Release);
            }
        }
        self.queue();
    }

    /// Whether there is something to report, which stays to be reported.
    pub(super) fn has_events(self: &Arc<Self>) -> bool {
        let was = (self.is_fresh.load(Ordering::Acquire), self.seen.load(Ordering::Acquire));
        let refusals = self.refusals.load(Ordering::Acquire);
        let has_events = self.events() != 0;
        if has_events {
            self.is_fresh.fetch_or(was.0, Ordering::AcqRel);
            self.seen.store(was.1, Ordering::Release);
            self.refusals.store(refusals, Ordering::Release);
            // Somebody else may have found nothing new meanwhile, and left it out.
            self.queue();
        }
        has_events
    }

    /// What there is to report, as news.
    pub(super) fn events(self: &Arc<Self>) -> u32 {
        if self.is_removed.load(Ordering::Acquire) || self.is_spent.load(Ordering::Acquire) {
            return 0;
        }
        let interest = self.interest.load(Ordering::Acquire);
        match &self.target {
            Target::Socket(socket) if self.has_rings() => self.socket_events(socket, interest),
            Target::Socket(_) => {
                self.give_back();
                0
            }
            Target::Epoll(inner) => {
                let has_events = inner.upgrade().is_some_and(|inner| inner.has_events());
                if has_events { interest & EPOLLIN as u32 } else { 0 }
            }
        }
    }

    pub(super) fn socket_events(&self, socket: &Socket, interest: u32) -> u32 {
        // Before looking: what is new after it is for the next to look, who may be another thread.
        let was_fresh = self.is_fresh.swap(false, Ordering::AcqRel);
        let mark = readiness::mark(socket);
        let events = readiness::events(socket, self.fd, interest);
        let refusals = socket.refusals.load(Ordering::Acquire);
        let has_got_room = events & WRITABLE != 0 && self.refusals.swap(refusals, Ordering::AcqRel) != refusals;
        let is_edge = was_fresh | (self.seen.swap(mark, Ordering::AcqRel) != mark) | has_got_room;
        if is_edge || interest & EPOLLET as u32 == 0 { events & (interest | ALWAYS) } else { 0 }
    }

    /// Whether it is looked at again although nothing new has happened. One that is spent is not reported again either.
    pub(super) fn stays_ready_after_report(&self) -> bool {
        self.interest.load(Ordering::Acquire) & (EPOLLET | EPOLLONESHOT) as u32 == 0
    }
}
