//! A page as others read it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::layout::{
    self, ARENAS, ENTRIES, FALLBACKS, LENGTH, MAGIC, PROGRAM_BYTES, SIZE_CLASSES, VERSION, arena, entry, head,
};
use super::page::{arena_at, entry_at, fallback_key, size_at};
use super::{Counter, Flags, Mode, Reasons, Role, Shutdown, State, sequence};
use crate::shared_memory::{AttachError, Region};

/// Times that the whole is read again because an entry was closed meanwhile.
const TRIES: usize = 8;

/// Why a page cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be mapped, or has not the size of one.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// It does not begin as one.
    #[error("it is no page of statistics, or not a whole one yet")]
    NotAPage,
    /// It is another version's.
    #[error("it has version {0} of the page of statistics, this is version {VERSION}: use the tools of the same build")]
    Version(u64),
}

/// All that a page says at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The process that wrote it, in its own numbering.
    pub process: u32,
    /// Its program's name, without control characters.
    pub program: String,
    /// What it goes by; 0 for nothing yet.
    pub gid: u64,
    /// By [`Counter`]; what sockets count for themselves is in it.
    pub counters: CounterValues,
    /// Connections that stay TCP, by reason; most frequent first.
    pub fallbacks: Vec<Fallback>,
    /// Those for whose reason there was no room.
    pub other_fallbacks: u64,
    /// What was sent.
    pub sent: Traffic,
    /// What was received.
    pub received: Traffic,
    /// What is listed.
    pub sockets: Vec<Socket>,
    /// The arenas it shares with other processes.
    pub arenas: Vec<Arena>,
}

/// Values by [`Counter`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterValues([u64; layout::COUNTERS]);

impl CounterValues {
    /// How much it is.
    pub const fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// More by `amount`.
    pub const fn add(&mut self, counter: Counter, amount: u64) {
        self.0[counter as usize] = self.0[counter as usize].saturating_add(amount);
    }
}

impl Serialize for CounterValues {
    fn serialize<To: Serializer>(&self, to: To) -> Result<To::Ok, To::Error> {
        let mut map = to.serialize_map(Some(Counter::ALL.len()))?;
        for counter in Counter::ALL {
            map.serialize_entry(counter.name(), &self.get(counter))?;
        }
        map.end()
    }
}

/// How many connections stay TCP for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fallback {
    /// Which end we were.
    pub role: Role,
    /// The reason, as on the wire.
    pub code: u32,
    /// Whether the other end gave it.
    pub by_peer: bool,
    /// How many.
    pub count: u64,
}

/// Histograms of one direction, by class: up to 8, 16, 32, 64, 128, 256, 512 KiB, above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Messages (calls that moved bytes) of each class.
    pub messages: [u64; SIZE_CLASSES],
    /// Rings that connections got, of each class.
    pub rings: [u64; SIZE_CLASSES],
}

/// How far a ring is filled and emptied, in bytes since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cursors {
    /// Filled.
    pub produced: u64,
    /// Emptied.
    pub consumed: u64,
}

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Socket {
    /// Its descriptor in its process.
    pub descriptor: i32,
    /// The user it belongs to.
    pub user: u32,
    /// Its inode; 0 for not known.
    pub inode: u64,
    /// Its own address, if known.
    pub local: Option<SocketAddr>,
    /// The other end's, if there is one and it is known.
    pub peer: Option<SocketAddr>,
    /// The interface that it is bound to; 0 for none.
    pub interface: u32,
    /// Which end it is.
    pub role: Role,
    /// What carries its bytes.
    pub mode: Mode,
    /// Why it is TCP.
    pub reasons: Reasons,
    /// Where it stands.
    pub state: State,
    /// What of it was shut down.
    pub shutdown: Shutdown,
    /// What it last told the other end.
    pub own_flags: Flags,
    /// What the other end last told it.
    pub peer_flags: Flags,
    /// Bytes of the ring it sends into; 0 for none.
    pub send_ring: u32,
    /// Bytes of the ring it receives from; 0 for none.
    pub receive_ring: u32,
    /// The ring it sends into.
    pub sending: Cursors,
    /// The ring it receives from.
    pub receiving: Cursors,
    /// The arena's id.
    pub arena: u64,
    /// Its index there.
    pub index: u32,
    /// What the peer's messages name it by.
    pub own_token: u64,
    /// What its messages name the peer by.
    pub peer_token: u64,
    /// The peer.
    pub peer_gid: u64,
    /// What it has counted for itself: the counters of an entry, in their order.
    pub counts: [u64; entry::SENDING_COUNTS + entry::RECEIVING_COUNTS],
}

impl Socket {
    /// What it has counted of `counter`, which must be one that entries have.
    pub const fn count(&self, counter: Counter) -> u64 {
        self.counts[counter as usize]
    }
}

/// An arena: the "link group" of the tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Arena {
    /// What its makers call it.
    pub id: u64,
    /// Whether the connections in it were accepted by the process (server) or opened by it.
    pub role: Role,
    /// The process.
    pub own_gid: u64,
    /// The one it shares the arena with.
    pub peer_gid: u64,
    /// That one's process id; 0 for not known.
    pub peer_process: u32,
    /// Connections that are in it.
    pub connections: u64,
    /// Connections there is room for.
    pub capacity: u32,
    /// Bytes of each ring.
    pub ring_bytes: u32,
}

impl Snapshot {
    /// What the page behind `memory` says now.
    pub fn read(memory: impl AsFd) -> Result<Self, ReadError> {
        let region = Region::attach_to_read(memory, LENGTH)?;
        if region.word(head::MAGIC).load(Ordering::Acquire) != MAGIC {
            return Err(ReadError::NotAPage);
        }
        match load(&region, head::VERSION) {
            VERSION => Ok(sequence::read_or_latest(region.word(head::FOLDS), TRIES, || Self::of(&region))),
            other => Err(ReadError::Version(other)),
        }
    }

    fn of(region: &Region) -> Self {
        let mut counters = CounterValues::default();
        for counter in Counter::ALL {
            counters.add(counter, load(region, head::COUNTER + counter as usize * 8));
        }
        // What a page says beyond what there is room for is nonsense.
        let listed = (load(region, head::ENTRIES_USED) as usize).min(ENTRIES);
        let sockets: Vec<_> = (0..listed).filter_map(|index| read_socket(region, entry_at(index))).collect();
        for counter in Counter::ALL.into_iter().filter(|counter| counter.is_of_entry()) {
            sockets.iter().for_each(|socket| counters.add(counter, socket.count(counter)));
        }
        let arenas = (load(region, head::ARENAS_USED) as usize).min(ARENAS);
        Self {
            process: load(region, head::PROCESS) as u32,
            program: read_program(region),
            gid: load(region, head::GID),
            fallbacks: read_fallbacks(region),
            other_fallbacks: load(region, head::OTHER_FALLBACKS),
            sent: read_traffic(region, false, counters.get(Counter::SentMessages)),
            received: read_traffic(region, true, counters.get(Counter::ReceivedMessages)),
            arenas: (0..arenas).filter_map(|index| read_arena(region, arena_at(index))).collect(),
            counters,
            sockets,
        }
    }
}

fn load(region: &Region, at: usize) -> u64 {
    region.word(at).load(Ordering::Relaxed)
}

fn read_program(region: &Region) -> String {
    let words = (head::PROGRAM..head::PROGRAM + PROGRAM_BYTES).step_by(8);
    let bytes: Vec<u8> = words.flat_map(|at| load(region, at).to_ne_bytes()).take_while(|byte| *byte != 0).collect();
    // It goes to somebody's terminal.
    let clean = |character: char| if character.is_control() { '?' } else { character };
    String::from_utf8_lossy(&bytes).chars().map(clean).collect()
}

fn read_fallbacks(region: &Region) -> Vec<Fallback> {
    let places = (0..FALLBACKS).map(|index| head::FALLBACK + index * 16);
    let mut fallbacks: Vec<_> = places
        .filter_map(|at| {
            let (role, code, by_peer) = fallback_key(load(region, at))?;
            Some(Fallback { role, code, by_peer, count: load(region, at + 8) })
        })
        .collect();
    fallbacks.sort_by_key(|fallback| (u64::MAX - fallback.count, fallback.code, fallback.role));
    fallbacks
}

/// Of `all` messages, those of the larger classes are counted each; the rest is the smallest class.
fn read_traffic(region: &Region, is_received: bool, all: u64) -> Traffic {
    let table = |at: usize| std::array::from_fn(|class| load(region, size_at(at, is_received, class)));
    let mut traffic = Traffic { messages: table(head::MESSAGE_SIZES), rings: table(head::RING_SIZES) };
    traffic.messages[0] = traffic.messages[1..].iter().fold(all, |rest, class| rest.saturating_sub(*class));
    traffic
}

fn read_socket(region: &Region, at: usize) -> Option<Socket> {
    sequence::read(region.word(at + entry::SEQUENCE), || {
        let get = |word: usize| load(region, at + word);
        let state = get(entry::STATE);
        if state == 0 {
            return None;
        }
        let (ports, rings, mode, descriptor) =
            (get(entry::PORTS), get(entry::RINGS), get(entry::MODE), get(entry::DESCRIPTOR));
        let cursors =
            |line: usize| Cursors { produced: get(line + entry::PRODUCED), consumed: get(line + entry::CONSUMED) };
        let reasons = get(entry::REASONS);
        Some(Socket {
            descriptor: descriptor as u32 as i32,
            user: (descriptor >> 32) as u32,
            inode: get(entry::INODE),
            local: read_address(region, at + entry::LOCAL, ports as u16),
            peer: read_address(region, at + entry::PEER, (ports >> 16) as u16),
            interface: (ports >> 32) as u32,
            role: Role::from_code(mode >> 8),
            mode: Mode::from_code(mode),
            reasons: Reasons { own: reasons as u32, peer: (reasons >> 32) as u32 },
            state: State::from_code(state),
            shutdown: Shutdown::from_code(get(entry::SHUTDOWN)),
            own_flags: Flags::from_code(get(entry::FLAGS)),
            peer_flags: Flags::from_code(get(entry::FLAGS) >> 16),
            send_ring: (rings >> 32) as u32,
            receive_ring: rings as u32,
            sending: cursors(entry::SENDING),
            receiving: cursors(entry::RECEIVING),
            arena: get(entry::LINK),
            index: (mode >> 32) as u32,
            own_token: get(entry::OWN_TOKEN),
            peer_token: get(entry::PEER_TOKEN),
            peer_gid: get(entry::PEER_GID),
            counts: std::array::from_fn(|index| get(entry::count_at(index))),
        })
    })
    .flatten()
}

/// `None`: neither address nor port was said.
fn read_address(region: &Region, at: usize, port: u16) -> Option<SocketAddr> {
    let bits = u128::from(load(region, at)) << 64 | u128::from(load(region, at + 8));
    let address = Ipv6Addr::from_bits(bits);
    let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
    (bits != 0 || port != 0).then_some(SocketAddr::new(address, port))
}

fn read_arena(region: &Region, at: usize) -> Option<Arena> {
    sequence::read(region.word(at + arena::SEQUENCE), || {
        let get = |word: usize| load(region, at + word);
        let (state, geometry) = (get(arena::STATE), get(arena::GEOMETRY));
        (state & 1 != 0).then(|| Arena {
            id: get(arena::ID),
            role: Role::from_code(state >> 8),
            own_gid: get(arena::OWN_GID),
            peer_gid: get(arena::PEER_GID),
            peer_process: get(arena::PEER_PROCESS) as u32,
            connections: get(arena::CONNECTIONS),
            capacity: geometry as u32,
            ring_bytes: (geometry >> 32) as u32,
        })
    })
    .flatten()
}
