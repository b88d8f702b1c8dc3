//! The sockets, each in a set of its own.
//!
//! smoltcp matches a packet against every socket of the set that it is shown, and visits every one of them to send. So it
//! is shown the one socket that the packet belongs to, and visited where there may be something to send: connections at
//! rest cost nothing.

use smoltcp::iface::{Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp;

use super::device::PortDevice;
use super::{TIMER_TICK, smoltcp_time};
use crate::port::Port;
use crate::time::Instant;

/// Sockets by the index of their slots.
#[derive(Default)]
pub(super) struct Sockets {
    entries: Vec<Entry>,
    /// When smoltcp wants to see each socket again though nothing arrives; [`NEVER`] for no such time.
    timers: Vec<Instant>,
    /// Sockets that may have something to send, each once.
    due: Vec<u32>,
    /// Sockets that had something to send when their neighbour was not known, each once. Those that have sent it since are taken
    /// out when the list is gone through.
    unsent: Vec<u32>,
}

struct Entry {
    set: SocketSet<'static>,
    handle: Option<SocketHandle>,
    is_due: bool,
    /// It had something to send when its neighbour was not known.
    is_unsent: bool,
    is_unsent_listed: bool,
}

const NEVER: Instant = Instant::from_nanoseconds(u64::MAX);

impl Sockets {
    /// Puts `socket` at `index`, where there is none. It counts as due.
    pub(super) fn put(&mut self, index: usize, socket: tcp::Socket<'static>) {
        while self.entries.len() <= index {
            let set = SocketSet::new(Vec::with_capacity(1));
            self.entries.push(Entry { set, handle: None, is_due: false, is_unsent: false, is_unsent_listed: false });
            self.timers.push(NEVER);
        }
        let entry = &mut self.entries[index];
        entry.handle = Some(entry.set.add(socket));
        self.mark(index);
    }

    /// Drops the socket at `index`.
    pub(super) fn remove(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        if let Some(handle) = entry.handle.take() {
            entry.set.remove(handle);
        }
        self.timers[index] = NEVER;
        entry.is_unsent = false;
    }

    /// The socket at `index`: there is one in every slot that is not free.
    pub(super) fn get(&self, index: usize) -> &tcp::Socket<'static> {
        let entry = &self.entries[index];
        entry.set.get(entry.handle.expect("a slot in use has a socket"))
    }

    pub(super) fn get_mut(&mut self, index: usize) -> &mut tcp::Socket<'static> {
        let entry = &mut self.entries[index];
        entry.set.get_mut(entry.handle.expect("a slot in use has a socket"))
    }

    /// The set of the socket at `index`, to show a packet to. The socket may have something to send afterwards.
    pub(super) fn set_mut(&mut self, index: usize) -> &mut SocketSet<'static> {
        self.mark(index);
        &mut self.entries[index].set
    }

    /// The socket at `index` may have something to send.
    pub(super) fn mark(&mut self, index: usize) {
        if !std::mem::replace(&mut self.entries[index].is_due, true) {
            self.due.push(index as u32);
        }
    }

    /// A neighbour has become known: those that wait for one may have something to send. Which of them wait for this one, smoltcp
    /// finds out.
    pub(super) fn mark_unsent(&mut self) {
        let mut unsent = std::mem::take(&mut self.unsent);
        unsent.retain(|&index| {
            let entry = &mut self.entries[index as usize];
            entry.is_unsent_listed = entry.is_unsent;
            if entry.is_unsent {
                self.mark(index as usize);
            }
            self.entries[index as usize].is_unsent
        });
        self.unsent = unsent;
    }

    fn note_unsent(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        entry.is_unsent = true;
        if !std::mem::replace(&mut entry.is_unsent_listed, true) {
            self.unsent.push(index as u32);
        }
    }

    /// Those whose time has come may have something to send.
    pub(super) fn mark_expired(&mut self, now: Instant) {
        for index in 0..self.timers.len() {
            if self.timers[index] <= now {
                self.mark(index);
            }
        }
    }

    /// Whether any socket may have something to send.
    pub(super) fn is_any_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The earliest time at which smoltcp wants to see a socket again.
    pub(super) fn earliest_timer(&self) -> Option<Instant> {
        self.timers.iter().copied().min().filter(|timer| *timer != NEVER)
    }

    /// Lets every due socket send one packet. Sockets that have nothing more are not due any longer; while the device is blocked,
    /// nobody is done.
    pub(super) fn send_one_each<P: Port>(
        &mut self,
        now: Instant,
        interface: &mut Interface,
        device: &mut PortDevice<P>,
    ) {
        let mut kept = 0;
        for place in 0..self.due.len() {
            let index = self.due[place] as usize;
            let Entry { set, handle, .. } = &mut self.entries[index];
            let sent = interface.poll_egress(smoltcp_time(now), device, set) == PollResult::SocketStateChanged;
            let is_kept = handle.is_some() && (sent || device.transmit_side().is_blocked());
            if device.transmit_side().take_unsent() {
                self.note_unsent(index);
            } else if sent {
                self.entries[index].is_unsent = false;
            }
            if is_kept {
                self.due[kept] = index as u32;
                kept += 1;
                continue;
            }
            let Entry { set, is_due, .. } = &mut self.entries[index];
            *is_due = false;
            self.timers[index] = interface.poll_at(smoltcp_time(now), set).map_or(NEVER, |at| {
                let at = u64::try_from(at.total_micros()).unwrap_or(0).saturating_mul(1000);
                // It was served at this very time; if it wants more, then not before the clock has moved.
                if at <= now.as_nanoseconds() { now + TIMER_TICK } else { Instant::from_nanoseconds(at) }
            });
        }
        self.due.truncate(kept);
    }
}
