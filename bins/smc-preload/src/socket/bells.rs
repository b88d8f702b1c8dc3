//! Who is told that something has happened: the peer, by a doorbell if it sleeps, and those here who watch or sleep.

use std::os::fd::RawFd;
use std::sync::Weak;
use std::sync::atomic::{Ordering, fence};

use softrdma_smc::arena::WAITERS;
use softrdma_smc::back::{self, MARK};
use softrdma_smc::statistics;

use super::{Sleeping, Socket, flag, word};
use crate::abi::kernel::{self, Stream};
use crate::epoll::{Epoll, Registration};
use crate::fork;
use crate::lock::Lock;

/// Doorbells that are taken at a time: a peer that rings for ever holds up nobody.
const MOST_BELLS: usize = 65_536;

impl Socket {
    /// Tells the peer that something has changed for it, with a doorbell if it sleeps. As long as we send over TCP a doorbell
    /// would be one of the program's bytes: the peer is told with the switch.
    #[inline]
    pub(crate) fn notify(&self) {
        fence(Ordering::SeqCst);
        self.notify_unlocked();
    }

    /// The same, right after [`Self::lock_sending`]'s lock was given back: a barrier.
    #[inline]
    pub(crate) fn notify_unlocked(&self) {
        if self.has_switched()
            && let Some(connection) = self.connection.get()
            && connection.notify_behind_barrier()
        {
            self.ring_doorbell();
        }
    }

    #[cold]
    pub(super) fn ring_doorbell(&self) {
        // With the lock held: a number that is closed meanwhile may become another connection's.
        if let Some(fd) = self.descriptors().first()
            && self.ring(*fd)
        {
            self.show(statistics::Entry::doorbell_rung);
        }
    }

    /// Wakes whoever sleeps at the other end: whether a doorbell is on its way. If the stream is full of doorbells, nobody
    /// sleeps there.
    pub(crate) fn ring(&self, fd: RawFd) -> bool {
        let _lock = Lock::take(&self.words()[word::BELL_LOCK], fork::owner());
        if !self.uses_ring() {
            return false;
        }
        let Some(connection) = self.connection.get() else {
            return false;
        };
        let is_rung = kernel::send_at_once(fd, &[back::BELL]) == Ok(1);
        if is_rung {
            connection.count_bell();
        }
        is_rung
    }

    /// Takes doorbells off the stream, and the mark behind the last of them. The end of TCP, if it lies behind them, is seen only by
    /// who `wants_end`. To be called with the receiving locked, and only if nothing else can be in the stream.
    pub(crate) fn take_doorbells(&self, fd: RawFd, wants_end: bool) -> Stream {
        let mut had_doorbells = false;
        let Some(connection) = self.connection.get() else {
            return Stream::Open { had_doorbells };
        };
        let taken_word = &self.words()[word::BELLS_TAKEN];
        let (mut bytes, mut left) = ([0; 256], MOST_BELLS);
        while left > 0 && !self.has_flag(flag::MARKED | flag::RECALLED) {
            let limit = back::doorbells(connection, taken_word.load(Ordering::SeqCst)).min(bytes.len());
            let taken = match kernel::receive_at_once(fd, &mut bytes[..limit], false) {
                Ok(None) => break,
                Ok(Some(0)) => return Stream::Ended,
                Ok(Some(taken)) => taken,
                Err(_) => return Stream::Reset,
            };
            had_doorbells = true;
            left = left.saturating_sub(taken);
            if bytes[taken - 1] == MARK {
                self.set_flag(flag::MARKED);
            }
            let all = taken_word.fetch_add(taken as u64, Ordering::SeqCst) + taken as u64;
            if !wants_end && !connection.has_peer_gone_back() && connection.peer_bells() <= all {
                break;
            }
        }
        Stream::Open { had_doorbells }
    }

    /// Something has happened to it that only we know of: whoever watches it looks.
    pub(crate) fn wake_watchers(&self) {
        for watcher in self.watchers().iter().filter_map(Weak::upgrade) {
            watcher.take_over();
        }
    }

    /// The kernel knows again whether there is room to send.
    pub(crate) fn ask_for_room(&self) {
        for watcher in self.watchers().iter().filter_map(Weak::upgrade) {
            watcher.ask_for_room();
        }
    }

    /// The kernel knows again what there is: it is asked for what those want who watch, and told of those who do no more.
    pub(crate) fn give_back_watchers(&self) {
        self.watchers().retain(|watcher| {
            watcher.upgrade().is_some_and(|watcher| {
                watcher.give_back();
                !watcher.is_removed()
            })
        });
    }

    /// A doorbell was taken off the stream, which may have been for others too: those who sleep in other instances than `own`.
    pub(crate) fn pass_on_doorbell(&self, own: Option<&Epoll>) {
        for watcher in self.watchers().iter().filter_map(Weak::upgrade) {
            watcher.wake_others(own);
        }
    }

    /// A thread is about to sleep until something happens to the connection; it is awake when the result is dropped.
    ///
    /// Whoever takes doorbells for all looks for sleepers with the receiving locked: from here on he leaves them, and what those
    /// told of that he has taken is there for the last look of this thread.
    pub(crate) fn fall_asleep(&self) -> Sleeping<'_> {
        let lock = self.lock_receiving();
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        drop(lock);
        if let Some(connection) = self.connection.get() {
            connection.fall_asleep();
        }
        Sleeping(self)
    }

    /// A thread is awake; others may sleep still, or be in the kernel since before there were rings.
    pub(super) fn wake_up(&self) {
        let is_last = self.sleepers.fetch_sub(1, Ordering::SeqCst) == 1;
        let Some(connection) = self.connection.get() else {
            return;
        };
        // Those of other processes are in no count of ours: better a doorbell too many.
        if is_last && !self.is_receiving_over_tcp() && !self.has_flag(flag::SHARED) {
            connection.wake_up(|| self.sleepers.load(Ordering::SeqCst) > 0);
        } else {
            connection.fall_asleep();
        }
    }

    /// Tells the peer whom to wake for us. The watchers have changed, or the connection is new.
    ///
    /// In the memory with the peer the names of waiters are those of the process that has got the connection, and so
    /// are the words that say who sleeps. One that has inherited it is woken by the kernel alone, hence by a doorbell
    /// for everything.
    pub(crate) fn tell_waiter(&self) {
        let Some(connection) = self.connection.get() else {
            return;
        };
        if self.is_inherited() {
            self.set_flag(flag::WATCHED_APART);
            fence(Ordering::SeqCst);
        }
        connection.set_waiter(self.waiter(&self.watchers()));
        // Another process may have said so meanwhile, which what we have just said must not undo.
        fence(Ordering::SeqCst);
        if self.has_flag(flag::WATCHED_APART) {
            connection.set_waiter(Some(WAITERS));
        }
    }

    /// Tells the peer how much of what TCP carries has come to the program, for when this process has died.
    pub(super) fn tell_received(&self) {
        if let Some(connection) = self.connection.get() {
            connection.note_tcp_received(self.received());
        }
    }

    pub(super) fn waiter(&self, watchers: &[Weak<Registration>]) -> Option<usize> {
        if self.has_flag(flag::SIGNALS | flag::WATCHED_APART) {
            return Some(WAITERS);
        }
        let mut waiters = watchers.iter().filter_map(Weak::upgrade).map(|watcher| watcher.waiter());
        let first = waiters.next()?;
        Some(if waiters.all(|waiter| waiter == first) { first } else { WAITERS })
    }
}
