//! The table of connections: what the engine remembers of each socket, and the names of streams.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use smoltcp::iface::SocketHandle;

use crate::stream::{ListenerId, StreamId};

/// What a socket is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// No socket.
    Free,
    /// A peer's SYN was answered, and not confirmed yet.
    HalfOpen(ListenerId),
    /// Our SYN waits for its answer.
    Connecting,
    /// A stream that the layer above knows.
    Open,
    /// Nobody's any more: waits for its RST to leave or for TIME-WAIT to end.
    Lingering,
}

/// One socket.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) generation: u32,
    pub(super) role: Role,
    pub(super) handle: SocketHandle,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// Our port was chosen by us, and is free again with the slot.
    pub(super) owns_port: bool,
    /// Largest segment that peer and MTU allow.
    pub(super) segment_size: usize,
    /// The layer above closed our direction.
    pub(super) closing: bool,
    /// A transmission was refused: `Writable` is owed.
    pub(super) blocked: bool,
    /// The layer above wants no more bytes: what arrives is thrown away.
    pub(super) deaf: bool,
    /// The peer's FIN arrived.
    pub(super) fin_seen: bool,
    /// ... and was reported.
    pub(super) fin_reported: bool,
    /// Both directions ended in order and TIME-WAIT began; the socket may be closed by now.
    pub(super) ended: bool,
    /// smoltcp gave up on the peer.
    pub(super) expired: bool,
    /// Sequence number of the first byte of our direction, once our SYN has left.
    pub(super) send_start: Option<u32>,
    /// Bytes handed to the socket, modulo 2^32 as sequence numbers are.
    pub(super) sent: u32,
    /// Received bytes in front of the socket's ring: what the ring's end had cut in two.
    pub(super) stage: Vec<u8>,
    /// Of the unconsumed bytes in `stage` and ring, so many were offered before.
    pub(super) offered: usize,
}

/// Slots by index, by name and by addresses.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    tuples: HashMap<(SocketAddr, SocketAddr), u32>,
    ports: HashSet<u16>,
    /// Slots that count against the limit of connections: half-open, connecting and open.
    connections: usize,
    shaking_hands: usize,
}

impl Slots {
    pub(super) fn connections(&self) -> usize {
        self.connections
    }

    /// Connections in the middle of a handshake.
    pub(super) fn shaking_hands(&self) -> usize {
        self.shaking_hands
    }

    pub(super) fn is_port_taken(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }

    /// The slot of a socket between two addresses.
    pub(super) fn find(&self, local: SocketAddr, remote: SocketAddr) -> Option<usize> {
        self.tuples.get(&(local, remote)).map(|&index| index as usize)
    }

    /// The slot of a stream that the layer above may name.
    pub(super) fn of_stream(&self, stream: StreamId) -> Option<usize> {
        let index = stream.index as usize;
        let slot = self.slots.get(index)?;
        (slot.generation == stream.generation && matches!(slot.role, Role::Connecting | Role::Open)).then_some(index)
    }

    pub(super) fn get(&self, index: usize) -> &Slot {
        &self.slots[index]
    }

    pub(super) fn get_mut(&mut self, index: usize) -> &mut Slot {
        &mut self.slots[index]
    }

    pub(super) fn name(&self, index: usize) -> StreamId {
        StreamId { index: index as u32, generation: self.slots[index].generation }
    }

    /// Puts a socket into a slot.
    pub(super) fn add(
        &mut self,
        role: Role,
        handle: SocketHandle,
        (local, remote): (SocketAddr, SocketAddr),
        segment_size: usize,
    ) -> usize {
        let index = match self.free.pop() {
            Some(index) => index as usize,
            None => self.slots.len(),
        };
        let generation = self.slots.get(index).map_or(0, |slot| slot.generation);
        let owns_port = role == Role::Connecting;
        let slot = Slot {
            generation,
            role,
            handle,
            local,
            remote,
            owns_port,
            segment_size,
            closing: false,
            blocked: false,
            deaf: false,
            fin_seen: false,
            fin_reported: false,
            ended: false,
            expired: false,
            send_start: None,
            sent: 0,
            stage: Vec::new(),
            offered: 0,
        };
        if index == self.slots.len() {
            self.slots.push(slot);
        } else {
            self.slots[index] = slot;
        }
        self.count(role, 1);
        self.tuples.insert((local, remote), index as u32);
        if owns_port {
            self.ports.insert(local.port());
        }
        index
    }

    pub(super) fn set_role(&mut self, index: usize, role: Role) {
        let before = std::mem::replace(&mut self.slots[index].role, role);
        self.count(before, -1);
        self.count(role, 1);
    }

    /// Empties a slot whose socket is gone.
    pub(super) fn remove(&mut self, index: usize) {
        self.set_role(index, Role::Free);
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        slot.stage = Vec::new();
        self.tuples.remove(&(slot.local, slot.remote));
        if slot.owns_port {
            self.ports.remove(&slot.local.port());
        }
        self.free.push(index as u32);
    }

    fn count(&mut self, role: Role, change: isize) {
        if matches!(role, Role::HalfOpen(_) | Role::Connecting | Role::Open) {
            self.connections = self.connections.wrapping_add_signed(change);
        }
        if matches!(role, Role::HalfOpen(_) | Role::Connecting) {
            self.shaking_hands = self.shaking_hands.wrapping_add_signed(change);
        }
    }
}
