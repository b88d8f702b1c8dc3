//! From sockets to the sink.

use rustix::io::Errno;

use super::buffer::Ring;
use super::connection::{Connection, Receiving, Sending};
use super::{KernelEngine, Turn, socket};
use crate::stream::{EngineStatistics, StreamEvent, Streams};
use crate::table::Name;
use crate::time::Instant;

/// What one read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Bytes.
    Some,
    /// Nothing, or nothing that there is room for.
    Nothing,
    /// The stream is no more, or there is nothing more to read from it.
    Over,
}

/// Sockets that brought bytes lately. A read that finds nothing costs no more than asking epoll, and one that finds
/// something saves asking: on a busy stream that is half of the system calls of receiving.
#[derive(Default)]
pub(super) struct Recent {
    sockets: Vec<(Name, u32)>,
    polls_since_wait: u32,
    /// Polls that may go by without asking epoll; doubles while epoll has nothing new to say.
    patience: u32,
    last_wait: Instant,
}

impl Recent {
    /// Sockets read without asking, at most.
    pub(super) const MOST: usize = 4;
    /// Reads in a row that find nothing, after which a socket is left to epoll.
    const MISSES: u32 = 1_000;
    /// Polls after which epoll is asked in any case: nothing starves.
    const MOST_PATIENCE: u32 = 64;
    /// Time after which epoll is asked in any case, for applications that poll rarely.
    const NANOSECONDS_PER_WAIT: u64 = 20_000;

    pub(super) fn clear(&mut self) {
        self.sockets.clear();
    }

    /// `name` brought bytes, as epoll said.
    pub(super) fn note(&mut self, name: Name) {
        if self.sockets.iter().any(|(known, _)| *known == name) {
            return;
        }
        self.patience = 0;
        if self.sockets.len() < Self::MOST {
            self.sockets.push((name, 0));
        } else if let Some(longest_idle) = self.sockets.iter_mut().max_by_key(|(_, misses)| *misses) {
            *longest_idle = (name, 0);
        }
    }

    /// Something happened that only epoll tells.
    pub(super) fn lose_patience(&mut self) {
        self.patience = 0;
    }

    /// Whether it is time to ask epoll.
    pub(super) fn is_wait_due(&mut self, now: Instant) -> bool {
        self.polls_since_wait += 1;
        let is_due = self.sockets.is_empty()
            || self.polls_since_wait > self.patience
            || (now - self.last_wait).as_nanos() as u64 >= Self::NANOSECONDS_PER_WAIT;
        if is_due {
            self.polls_since_wait = 0;
            self.patience = (2 * self.patience + 1).min(Self::MOST_PATIENCE);
            self.last_wait = now;
        }
        is_due
    }
}

impl KernelEngine {
    pub(super) fn receive_recent(&mut self, turn: &mut Turn<'_>) {
        let mut position = 0;
        while position < self.recent.sockets.len() {
            let (name, misses) = self.recent.sockets[position];
            let misses = match self.receive(turn, name) {
                Read::Some => 0,
                Read::Nothing => misses + 1,
                Read::Over => Recent::MISSES,
            };
            // The sink cannot reach the engine, so the list is as it was.
            if misses >= Recent::MISSES {
                self.recent.sockets.swap_remove(position);
            } else {
                self.recent.sockets[position].1 = misses;
                position += 1;
            }
        }
    }

    /// Reads once from `name` and offers what is there.
    pub(super) fn receive(&mut self, turn: &mut Turn<'_>, name: Name) -> Read {
        let ring_bytes = self.rings.size();
        let Some(connection) = self.connections.get_mut(name) else { return Read::Over };
        if !connection.wants_read(ring_bytes) {
            return Read::Over;
        }
        let mut ring = match connection.ring.take() {
            Some(ring) if ring.capacity() >= ring_bytes => ring,
            small => self.enlarge(small),
        };
        let Some(connection) = self.connections.get_mut(name) else { return Read::Over };
        let before = ring.len();
        let outcome = socket::read(&connection.socket, &mut ring);
        let (read, failure) = match outcome {
            Ok(0) => {
                connection.receiving = Receiving::Ended;
                (Read::Over, None)
            }
            Ok(count) => {
                turn.activity.received += 1;
                turn.budget = turn.budget.saturating_sub(count);
                offer(connection, name, &mut ring, turn.streams, &mut self.statistics, before);
                (Read::Some, None)
            }
            Err(Errno::AGAIN | Errno::INTR) => (Read::Nothing, None),
            Err(errno) => (Read::Over, Some(socket::reset_reason(errno))),
        };
        self.keep(name, ring);
        match failure {
            Some(reason) => self.fail(turn, name, reason),
            None if read == Read::Nothing => {}
            None => self.settle(turn, name),
        }
        read
    }

    /// Offers what `name` holds, though nothing came.
    pub(super) fn offer_again(&mut self, turn: &mut Turn<'_>, name: Name) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        let Some(mut ring) = connection.ring.take() else { return };
        let held = ring.len();
        offer(connection, name, &mut ring, turn.streams, &mut self.statistics, held);
        let is_moving = ring.len() < held;
        self.keep(name, ring);
        if is_moving {
            self.recent.note(name);
        }
    }

    /// Puts `ring` back where it belongs: to the connection, or to the pool when it is empty.
    pub(super) fn keep(&mut self, name: Name, ring: Ring) {
        if ring.is_empty() {
            return self.rings.give(ring.into_bytes());
        }
        let Some(connection) = self.connections.get_mut(name) else { return self.rings.give(ring.into_bytes()) };
        let is_new_holder = ring.is_lent() && !connection.is_ring_holder;
        connection.ring = Some(ring);
        if is_new_holder {
            connection.is_ring_holder = true;
            let connections = &mut self.connections;
            self.rings
                .handle_kept(name, |holder| connections.get_mut(*holder).is_some_and(Connection::renew_ring_hold));
        }
    }

    /// A ring of full size that begins with what `small` holds.
    fn enlarge(&mut self, small: Option<Ring>) -> Ring {
        if self.rings.is_exhausted() {
            self.reclaim_ring();
        }
        let buffer = self.rings.take();
        match small {
            None => Ring::new(buffer),
            Some(small) => {
                self.statistics.receive_copied_bytes += small.len() as u64;
                Ring::copied(buffer, &small)
            }
        }
    }

    /// Takes a ring from the connection that has kept its own the longest.
    fn reclaim_ring(&mut self) {
        while let Some(name) = self.rings.oldest_holder() {
            let Some(connection) = self.connections.get_mut(name) else { continue };
            connection.is_ring_holder = false;
            if let Some(ring) = connection.ring.take_if(|ring| ring.is_lent()) {
                self.statistics.receive_copied_bytes += ring.len() as u64;
                connection.ring = Some(ring.shrunk());
                return self.rings.give(ring.into_bytes());
            }
        }
    }

    /// Draws the consequences of whatever just happened to `name`: reports the end of the stream, asks epoll for what is
    /// of interest now, sets the deadline.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_>, name: Name) {
        let ring_bytes = self.rings.size();
        let Some(connection) = self.connections.get_mut(name) else { return };
        if connection.receiving == Receiving::Ended {
            if connection.failure.is_some() {
                return self.finish_failed(turn, name);
            }
            if !connection.has_unconsumed() {
                connection.receiving = Receiving::Reported;
                turn.report(StreamEvent::PeerClosed { stream: name.into() });
            }
        }
        if connection.receiving == Receiving::Reported && connection.sending == Sending::Shut {
            self.forget(name);
            return turn.report(StreamEvent::Closed { stream: name.into() });
        }
        let (is_truncated, is_closing) =
            (connection.receiving == Receiving::Ended, connection.sending != Sending::Open);
        let wanted = connection.wanted_interest(ring_bytes);
        if connection.interest != Some(wanted) {
            self.watch(name, wanted);
        }
        if is_truncated && !is_closing {
            self.set_deadline_once(name, turn.now + self.config.truncation_timeout);
        } else if !is_closing {
            self.set_deadline(name, None);
        }
    }
}

/// Shows the sink what `ring` holds, `known` bytes of it not for the first time.
fn offer(
    connection: &mut Connection,
    name: Name,
    ring: &mut Ring,
    streams: &mut dyn Streams,
    statistics: &mut EngineStatistics,
    known: usize,
) {
    if connection.is_discarding {
        return ring.consume(ring.len());
    }
    statistics.received_bytes += (ring.len() - known) as u64;
    let parts = ring.parts();
    let parts = if parts[1].is_empty() { &parts[..1] } else { &parts[..] };
    match streams.handle_bytes(name.into(), parts) {
        Ok(count) => ring.consume(count),
        Err(crate::stream::Abort) => {
            connection.is_discarding = true;
            ring.consume(ring.len());
        }
    }
}
