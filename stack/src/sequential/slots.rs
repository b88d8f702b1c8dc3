//! The table of connections: what the engine remembers of each socket, and the names of streams.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, SocketAddr};

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
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    tuples: HashMap<Tuple, u32, TupleHash>,
    ports: HashSet<u16>,
    /// Slots that count against the limit of connections: half-open, connecting and open.
    connections: usize,
    shaking_hands: usize,
}

impl Slots {
    /// An empty table. `seed` keeps peers from guessing which addresses collide.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            tuples: HashMap::with_hasher(TupleHash { seed }),
            ports: HashSet::new(),
            connections: 0,
            shaking_hands: 0,
        }
    }

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

    /// The slot of the socket between two addresses.
    pub(super) fn find(&self, tuple: &Tuple) -> Option<usize> {
        self.tuples.get(tuple).map(|&index| index as usize)
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
    pub(super) fn add(&mut self, role: Role, (local, remote): (SocketAddr, SocketAddr), segment_size: usize) -> usize {
        let index = match self.free.pop() {
            Some(index) => index as usize,
            None => self.slots.len(),
        };
        let generation = self.slots.get(index).map_or(0, |slot| slot.generation);
        let owns_port = role == Role::Connecting;
        let slot = Slot {
            generation,
            role,
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
        self.tuples.insert(Tuple::new(local, remote), index as u32);
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
        self.tuples.remove(&Tuple::new(slot.local, slot.remote));
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

/// The two ends of a connection, in a form that is quick to read from a packet and to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuple {
    local: u128,
    remote: u128,
    ports: u32,
}

impl Tuple {
    pub(super) fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            local: address_bits(local.ip()),
            remote: address_bits(remote.ip()),
            ports: u32::from(local.port()) << 16 | u32::from(remote.port()),
        }
    }
}

impl std::hash::Hash for Tuple {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.local);
        state.write_u128(self.remote);
        state.write_u32(self.ports);
    }
}

/// IPv4 addresses as IPv6 has them mapped: no packet carries those, so they meet no others.
fn address_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Makes [`TupleHasher`]s.
#[derive(Clone, Copy, Debug)]
struct TupleHash {
    seed: u64,
}

impl BuildHasher for TupleHash {
    type Hasher = TupleHasher;

    fn build_hasher(&self) -> TupleHasher {
        TupleHasher { state: self.seed }
    }
}

/// Folded multiplication: a few cycles for each word, where the standard library's hash takes tens.
struct TupleHasher {
    state: u64,
}

impl TupleHasher {
    fn mix(&mut self, word: u64) {
        // An odd number with bits all over: 2^64 divided by the golden ratio.
        let product = u128::from(self.state ^ word) * 0x9e37_79b9_7f4a_7c15;
        self.state = (product as u64) ^ (product >> 64) as u64 ^ self.state.rotate_left(23);
    }
}

impl Hasher for TupleHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.mix(u64::from(*byte)));
    }

    fn write_u32(&mut self, word: u32) {
        self.mix(u64::from(word));
    }

    fn write_u128(&mut self, word: u128) {
        self.mix(word as u64);
        self.mix((word >> 64) as u64);
    }

    fn finish(&self) -> u64 {
        self.state
    }
}
