//! Connections that ended here first, remembered for a while (RFC 9293 §3.6.1): without buffers, and without taking a port.

use std::collections::{HashMap, VecDeque};

use super::segment::{ACK, FIN, RST, SYN, Segment};
use super::tuple::{Tuple, TupleHash};
use crate::time::Instant;

/// What is remembered of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remembered {
    /// The next sequence number that we would send.
    pub(super) sent: u32,
    /// The sequence number behind the peer's FIN.
    pub(super) received: u32,
    /// The peer's last timestamp, if it sent timestamps.
    pub(super) recent_timestamp: Option<u32>,
    /// Our clock, see [`super::send_half::SendFlow`].
    pub(super) clock_offset: u32,
    /// When it is forgotten.
    pub(super) until: Instant,
}

/// The connections in TIME-WAIT, by their ends.
pub(super) struct TimeWait {
    entries: HashMap<Tuple, Remembered, TupleHash>,
    /// Oldest first. May name what is gone already.
    order: VecDeque<(Tuple, Instant)>,
    limit: usize,
}

/// What a segment for a connection in TIME-WAIT asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Ignore,
    /// The acknowledgement is sent again.
    Acknowledge,
    /// A new connection may begin.
    Reopen,
}

impl TimeWait {
    pub(super) fn new(limit: usize, hash: TupleHash) -> Self {
        Self { entries: HashMap::with_hasher(hash), order: VecDeque::new(), limit }
    }

    /// Remembers a connection; the oldest is forgotten if there are too many.
    pub(super) fn insert(&mut self, tuple: Tuple, remembered: Remembered) {
        while self.order.len() >= self.limit {
            self.forget_oldest();
        }
        self.entries.insert(tuple, remembered);
        self.order.push_back((tuple, remembered.until));
    }

    pub(super) fn get(&self, tuple: &Tuple) -> Option<&Remembered> {
        if self.entries.is_empty() { None } else { self.entries.get(tuple) }
    }

    pub(super) fn remove(&mut self, tuple: &Tuple) {
        self.entries.remove(tuple);
    }

    /// Forgets those whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(_, until)| *until <= now) {
            self.forget_oldest();
        }
    }

    /// What is to be done about `segment`.
    pub(super) fn handle_segment(&mut self, now: Instant, segment: &Segment, wait: std::time::Duration) -> Verdict {
        let Some(entry) = self.entries.get_mut(&segment.tuple) else { return Verdict::Ignore };
        // RFC 1337 §3: a RST does not end TIME-WAIT early.
        if segment.has(RST) {
            return Verdict::Ignore;
        }
        if segment.has(SYN) && !segment.has(ACK) {
            // RFC 6191 §2, RFC 9293 §3.10.7.4: a new connection if it cannot be an old duplicate.
            let is_later = match (segment.timestamps, entry.recent_timestamp) {
                (Some((value, _)), Some(recent)) if value != recent => (value.wrapping_sub(recent) as i32) > 0,
                _ => (segment.sequence.wrapping_sub(entry.received) as i32) > 0,
            };
            return if is_later { Verdict::Reopen } else { Verdict::Acknowledge };
        }
        // RFC 9293 §3.10.7.4: the peer's FIN again: it did not hear us, and the time starts over.
        if segment.has(FIN) {
            entry.until = now + wait;
            return Verdict::Acknowledge;
        }
        if segment.sequence_length() > 0 { Verdict::Acknowledge } else { Verdict::Ignore }
    }

    fn forget_oldest(&mut self) {
        let Some((tuple, until)) = self.order.pop_front() else { return };
        match self.entries.get(&tuple) {
            // Its time was started over: it waits again.
            Some(entry) if entry.until > until && self.order.len() + 1 < self.limit => {
                self.order.push_back((tuple, entry.until));
            }
            Some(entry) if entry.until >= until => {
                self.entries.remove(&tuple);
            }
            _ => {}
        }
    }
}
