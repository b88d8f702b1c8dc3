//! Where sending goes: over TCP, through the ring, and over TCP again; and where receiving finds what comes next.

use std::sync::atomic::Ordering;

use softrdma_smc::arena::Connection;
use softrdma_smc::back::{self, Answer};
use softrdma_smc::ring::state;

use super::{Mode, RETURNED, RETURNING, SWITCHED, SWITCHING, Socket, flag, word};
use crate::abi::kernel;
use crate::fork;
use crate::lock::Lock;

impl Socket {
    /// From now on we may send through the ring.
    pub(crate) fn establish(&self) {
        if !self.change_mode(Mode::Prepared, Mode::Ring) {
            return;
        }
        if let Some(&fd) = self.descriptors().first() {
            // Doorbells are single bytes: they wait for nothing.
            kernel::set_option(fd, libc::IPPROTO_TCP, libc::TCP_CORK, 0);
            kernel::set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
        }
        self.try_switch();
    }

    /// Whether calls for it go over TCP just now, one of which is counted until [`Self::end_tcp_sending`].
    pub(crate) fn begin_tcp_sending(&self) -> bool {
        let gate = &self.words()[word::SEND_GATE];
        if gate.load(Ordering::Acquire) & SWITCHED != 0 {
            return false;
        }
        if gate.fetch_add(1, Ordering::SeqCst) & (SWITCHING | SWITCHED) == 0 {
            return true;
        }
        gate.fetch_sub(1, Ordering::SeqCst);
        // Nobody may send through the ring before the peer knows that somebody does.
        while gate.load(Ordering::Acquire) & SWITCHED == 0 {
            std::thread::yield_now();
        }
        false
    }

    /// A call that sent `sent` bytes over TCP is over.
    pub(crate) fn end_tcp_sending(&self, sent: usize) {
        self.words()[word::SENT].fetch_add(sent as u64, Ordering::SeqCst);
        self.words()[word::SEND_GATE].fetch_sub(1, Ordering::SeqCst);
        if self.mode() == Mode::Ring {
            self.try_switch();
        }
    }

    /// Moves sending into the ring, if nobody sends over TCP just now.
    pub(super) fn try_switch(&self) {
        let gate = &self.words()[word::SEND_GATE];
        if gate.compare_exchange(0, SWITCHING, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return;
        }
        let Some((connection, rings)) = self.rings() else {
            return;
        };
        let mut watchers = self.watchers();
        if self.has_flag(flag::SENDING_SHUT) {
            rings.say(state::SENDING_DONE);
        }
        connection.switch_sending(self.words()[word::SENT].load(Ordering::SeqCst));
        gate.fetch_or(SWITCHED, Ordering::SeqCst);
        watchers.retain(|watcher| watcher.upgrade().is_some_and(|watcher| watcher.take_over()));
        drop(watchers);
        self.notify();
        self.probe_if_ended();
    }

    /// Whether sending goes into the ring.
    pub(crate) fn has_switched(&self) -> bool {
        self.words()[word::SEND_GATE].load(Ordering::Acquire) & SWITCHED != 0
    }

    /// Sending goes over TCP, and will: whether it has never gone anywhere else.
    pub(crate) fn stay_sending_over_tcp(&self) -> bool {
        let stay = |gate: u64| (gate & (SWITCHING | SWITCHED) == 0).then_some(gate | RETURNED);
        let gate = &self.words()[word::SEND_GATE];
        loop {
            if gate.fetch_update(Ordering::SeqCst, Ordering::SeqCst, stay).is_ok() {
                return true;
            }
            if gate.load(Ordering::SeqCst) & SWITCHED != 0 {
                return false;
            }
            std::thread::yield_now();
        }
    }

    /// From now on nothing goes into the ring, and no doorbell is rung. To be called with the sending locked.
    pub(crate) fn stop_using_ring(&self) {
        let lock = Lock::take(&self.words()[word::BELL_LOCK], fork::owner());
        self.words()[word::SEND_GATE].fetch_or(RETURNING, Ordering::SeqCst);
        drop(lock);
    }

    /// Sending goes over TCP again.
    pub(crate) fn send_over_tcp_again(&self) {
        self.words()[word::SEND_GATE].fetch_or(RETURNING | RETURNED, Ordering::SeqCst);
    }

    /// Whether nothing goes into the ring any more.
    #[inline]
    pub(crate) fn is_returning(&self) -> bool {
        self.words()[word::SEND_GATE].load(Ordering::Acquire) & RETURNING != 0
    }

    /// Whether sending goes over TCP for good, again or still.
    pub(crate) fn has_returned(&self) -> bool {
        self.words()[word::SEND_GATE].load(Ordering::Acquire) & RETURNED != 0
    }

    /// Whether what this end sends goes into the ring, and doorbells tell of it: not before it has switched, nor once it returns.
    #[inline]
    pub(crate) fn uses_ring(&self) -> bool {
        self.words()[word::SEND_GATE].load(Ordering::Acquire) & (SWITCHED | RETURNING | RETURNED) == SWITCHED
    }

    /// How far the bytes are that the peer wants over TCP.
    pub(crate) fn answer(&self) -> Option<Answer<'_>> {
        self.words()[word::ANSWER..].first_chunk().map(Answer::new)
    }

    /// Whether the peer sends over TCP again.
    #[inline]
    pub(crate) fn has_peer_gone_back(&self) -> bool {
        self.connection.get().is_some_and(Connection::has_peer_gone_back) || self.has_flag(flag::RECALLED)
    }

    /// Where the next byte to be received is.
    pub(crate) fn source(&self) -> Option<back::Source> {
        if self.has_flag(flag::RECALLED) {
            return Some(back::Source::TcpAgain);
        }
        self.rings().map(|(_, rings)| back::source(&rings, self.received(), self.has_flag(flag::MARKED)))
    }
}
