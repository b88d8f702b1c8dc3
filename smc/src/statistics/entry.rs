//! What is listed: sockets, and arenas.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::layout::{arena, entry, size_class};
use super::page::{arena_at, entry_at, fold};
use super::{Counter, Flags, Mode, Page, Reasons, Role, Shutdown, State, sequence};
use crate::shared_memory::Region;

/// Who a socket is. What is not known may be left out: readers look it up in /proc by the descriptor, at their own
/// expense.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketDescription {
    /// Its descriptor in this process.
    pub descriptor: i32,
    /// The user it belongs to.
    pub user: u32,
    /// Its inode; 0 for not known.
    pub inode: u64,
    /// Its own address.
    pub local: Option<SocketAddr>,
    /// The other end's.
    pub peer: Option<SocketAddr>,
    /// Which end it is.
    pub role: Role,
    /// Where it stands.
    pub state: State,
    /// The interface that it is bound to; 0 for none.
    pub interface: u32,
}

/// What a connection was joined to when it was moved into rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The arena's id.
    pub arena: u64,
    /// Its index there.
    pub index: u32,
    /// What the peer's messages name it by.
    pub own_token: u64,
    /// What ours name the peer by.
    pub peer_token: u64,
    /// The peer.
    pub peer_gid: u64,
    /// Bytes of the ring that we send into.
    pub send_ring: u32,
    /// Bytes of the ring that we receive from.
    pub receive_ring: u32,
}

/// A socket's place in the list, until it is dropped.
///
/// Everything may be called from any thread. But what counts ([`Entry::sent`] ... [`Entry::spun`]) adds without an
/// atomic addition: two threads that count the same at once lose one of the two. Who holds a connection's right to
/// send, or to receive, counts that direction.
#[derive(Debug)]
pub struct Entry {
    page: Arc<Page>,
    index: usize,
}

impl Page {
    /// Lists a socket. `None`, and counted, if [`ENTRIES`](super::ENTRIES) are listed.
    pub fn open_entry(self: &Arc<Self>, socket: &SocketDescription) -> Option<Entry> {
        let Some(index) = self.take_entry() else {
            self.counters().count(Counter::Unlisted);
            return None;
        };
        let opened = Entry { page: Arc::clone(self), index };
        if let Some(region) = self.region() {
            let at = entry_at(index);
            sequence::change(region.word(at + entry::SEQUENCE), || {
                // Whoever had the place before has left its numbers.
                for word in (at + entry::STATE..at + entry::BYTES).step_by(8) {
                    region.word(word).store(0, Ordering::Relaxed);
                }
                let set = |word: usize, value: u64| region.word(at + word).store(value, Ordering::Relaxed);
                set(entry::STATE, socket.state as u64);
                set(entry::DESCRIPTOR, u64::from(socket.descriptor as u32) | u64::from(socket.user) << 32);
                set(entry::INODE, socket.inode);
                set(entry::MODE, socket.role.code() << 8);
                set_addresses(region, at, socket.local, socket.peer, socket.interface);
            });
        }
        Some(opened)
    }

    /// Lists an arena. `None` if [`ARENAS`](super::ARENAS) are listed.
    pub fn open_arena(self: &Arc<Self>, description: &ArenaDescription) -> Option<ArenaEntry> {
        let index = self.take_arena()?;
        if let Some(region) = self.region() {
            let at = arena_at(index);
            sequence::change(region.word(at + arena::SEQUENCE), || {
                let set = |word: usize, value: u64| region.word(at + word).store(value, Ordering::Relaxed);
                set(arena::STATE, 1 | description.role.code() << 8);
                set(arena::ID, description.id);
                set(arena::OWN_GID, description.own_gid);
                set(arena::PEER_GID, description.peer_gid);
                set(arena::GEOMETRY, u64::from(description.capacity) | u64::from(description.ring_bytes) << 32);
                set(arena::PEER_PROCESS, description.peer_process.into());
                set(arena::CONNECTIONS, 0);
            });
        }
        Some(ArenaEntry { page: Arc::clone(self), index })
    }
}

impl Entry {
    /// The same socket has another descriptor (`dup`, and the first was closed).
    pub fn set_descriptor(&self, descriptor: i32) {
        if let Some((region, at)) = self.place() {
            let word = region.word(at + entry::DESCRIPTOR);
            let user = word.load(Ordering::Relaxed) & !u64::from(u32::MAX);
            word.store(user | u64::from(descriptor as u32), Ordering::Relaxed);
        }
    }

    /// Its addresses are known by now.
    pub fn set_addresses(&self, local: SocketAddr, peer: Option<SocketAddr>) {
        if let Some((region, at)) = self.place() {
            let interface = (region.word(at + entry::PORTS).load(Ordering::Relaxed) >> 32) as u32;
            sequence::change(region.word(at + entry::SEQUENCE), || {
                set_addresses(region, at, Some(local), peer, interface);
            });
        }
    }

    /// Where it stands.
    pub fn set_state(&self, state: State) {
        self.store(entry::STATE, state as u64);
    }

    /// What of it was shut down.
    pub fn set_shutdown(&self, shutdown: Shutdown) {
        self.store(entry::SHUTDOWN, shutdown.code());
    }

    /// The flags that this end shows the other now, and those that it last saw of the other.
    pub fn set_flags(&self, own: Flags, peer: Flags) {
        self.store(entry::FLAGS, own.code() | peer.code() << 16);
    }

    /// It was moved into rings: `mode` is [`Mode::SmcD`] or [`Mode::SmcR`].
    pub fn accelerate(&self, mode: Mode, link: &Link) {
        let Some((region, at)) = self.place() else { return };
        let role = region.word(at + entry::MODE).load(Ordering::Relaxed) & 0x100;
        sequence::change(region.word(at + entry::SEQUENCE), || {
            let set = |word: usize, value: u64| region.word(at + word).store(value, Ordering::Relaxed);
            set(entry::MODE, mode as u64 | role | u64::from(link.index) << 32);
            set(entry::RINGS, u64::from(link.receive_ring) | u64::from(link.send_ring) << 32);
            set(entry::OWN_TOKEN, link.own_token);
            set(entry::PEER_TOKEN, link.peer_token);
            set(entry::LINK, link.arena);
            set(entry::PEER_GID, link.peer_gid);
            set(entry::REASONS, 0);
        });
        let counters = self.page.counters();
        counters.count(match Role::from_code(role >> 8) {
            Role::Client => Counter::AcceleratedAsClient,
            Role::Server => Counter::AcceleratedAsServer,
        });
        counters.count_ring(false, link.send_ring);
        counters.count_ring(true, link.receive_ring);
    }

    /// It stays TCP. Whether that counts as a fallback is the caller's knowledge: see
    /// [`Counters::fall_back`](super::Counters::fall_back).
    pub fn fall_back(&self, reasons: Reasons) {
        let Some((region, at)) = self.place() else { return };
        let role = region.word(at + entry::MODE).load(Ordering::Relaxed) & 0x100;
        sequence::change(region.word(at + entry::SEQUENCE), || {
            let reasons = u64::from(reasons.own) | u64::from(reasons.peer) << 32;
            region.word(at + entry::REASONS).store(reasons, Ordering::Relaxed);
            region.word(at + entry::MODE).store(Mode::Tcp as u64 | role, Ordering::Relaxed);
        });
    }

    /// A call sent `bytes` through the ring.
    #[inline]
    pub fn sent(&self, bytes: u64) {
        self.transferred(false, bytes);
    }

    /// A call took `bytes` out of the ring.
    #[inline]
    pub fn received(&self, bytes: u64) {
        self.transferred(true, bytes);
    }

    /// How far the ring that we send into is filled by us, and emptied by the peer, since it began.
    #[inline]
    pub fn set_sending(&self, cursors: (u64, u64)) {
        self.set_cursors(entry::SENDING, cursors);
    }

    /// How far the ring that we receive from is filled by the peer, and emptied by us, since it began.
    #[inline]
    pub fn set_receiving(&self, cursors: (u64, u64)) {
        self.set_cursors(entry::RECEIVING, cursors);
    }

    /// As [`Self::set_receiving`], where only our own part of it is known.
    #[inline]
    pub fn set_consumed(&self, consumed: u64) {
        if let Some((region, at)) = self.place() {
            region.word(at + entry::RECEIVING + entry::CONSUMED).store(consumed, Ordering::Relaxed);
        }
    }

    /// A call that wanted to send found the ring full.
    pub fn ring_was_full(&self) {
        self.count(Counter::RingFull);
    }

    /// The peer slept and was woken.
    pub fn doorbell_rung(&self) {
        self.count(Counter::DoorbellsRung);
    }

    /// `count` doorbells of the peer were taken out of TCP.
    pub fn doorbells_received(&self, count: u64) {
        self.add(Counter::DoorbellsReceived, count);
    }

    /// A receiver spun; whether that saved it from sleeping.
    pub fn spun(&self, has_paid: bool) {
        self.count(if has_paid { Counter::SpinsPaid } else { Counter::SpinsVain });
    }

    #[inline]
    fn transferred(&self, is_received: bool, bytes: u64) {
        let Some((region, at)) = self.place() else { return };
        let (line, counter) = match is_received {
            false => (entry::SENDING, Counter::SentBytes),
            true => (entry::RECEIVING, Counter::ReceivedBytes),
        };
        debug_assert_eq!(entry::count_at(counter as usize), line + entry::COUNT);
        add_unshared(region, at + line + entry::COUNT, bytes);
        add_unshared(region, at + line + entry::COUNT + 8, 1);
        let class = size_class(bytes);
        // Readers take what is left for the first class: small messages cost no atomic addition.
        if class > 0 {
            self.page.counters().count_message_size(is_received, class);
        }
    }

    #[inline]
    fn set_cursors(&self, line: usize, (produced, consumed): (u64, u64)) {
        if let Some((region, at)) = self.place() {
            region.word(at + line + entry::PRODUCED).store(produced, Ordering::Relaxed);
            region.word(at + line + entry::CONSUMED).store(consumed, Ordering::Relaxed);
        }
    }

    fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    fn add(&self, counter: Counter, amount: u64) {
        if let Some((region, at)) = self.place() {
            add_unshared(region, at + entry::count_at(counter as usize), amount);
        }
    }

    fn store(&self, word: usize, value: u64) {
        if let Some((region, at)) = self.place() {
            region.word(at + word).store(value, Ordering::Relaxed);
        }
    }

    #[inline]
    fn place(&self) -> Option<(&Region, usize)> {
        Some((self.page.region()?, entry_at(self.index)))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some((region, at)) = self.place() {
            fold(region, at);
        }
        self.page.give_entry_back(self.index);
    }
}

/// An addition that nobody else makes at the same time.
#[inline]
fn add_unshared(region: &Region, at: usize, amount: u64) {
    let word = region.word(at);
    word.store(word.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

fn set_addresses(region: &Region, at: usize, local: Option<SocketAddr>, peer: Option<SocketAddr>, interface: u32) {
    let port = |address: Option<SocketAddr>| u64::from(address.map_or(0, |address| address.port()));
    let ports = port(local) | port(peer) << 16 | u64::from(interface) << 32;
    region.word(at + entry::PORTS).store(ports, Ordering::Relaxed);
    for (word, address) in [(entry::LOCAL, local), (entry::PEER, peer)] {
        let bytes = match address.map(|address| address.ip()) {
            Some(IpAddr::V4(address)) => u128::from(address.to_ipv6_mapped()),
            Some(IpAddr::V6(address)) => u128::from(address),
            None => 0,
        };
        region.word(at + word).store((bytes >> 64) as u64, Ordering::Relaxed);
        region.word(at + word + 8).store(bytes as u64, Ordering::Relaxed);
    }
}

/// What an arena is: the "link group" of the tools.
#[derive(Clone, Copy, Debug, Default)]
pub struct ArenaDescription {
    /// What its makers call it.
    pub id: u64,
    /// Whether the connections in it were accepted here (server) or opened here.
    pub role: Role,
    /// This process.
    pub own_gid: u64,
    /// The other process.
    pub peer_gid: u64,
    /// Its process id; 0 for not known.
    pub peer_process: u32,
    /// Connections there is room for.
    pub capacity: u32,
    /// Bytes of each ring.
    pub ring_bytes: u32,
}

/// An arena's place in the list, until it is dropped.
#[derive(Debug)]
pub struct ArenaEntry {
    page: Arc<Page>,
    index: usize,
}

impl ArenaEntry {
    /// A connection was put into it.
    pub fn connection_added(&self) {
        self.add(1);
    }

    /// A connection left it.
    pub fn connection_removed(&self) {
        self.add(u64::MAX);
    }

    fn add(&self, amount: u64) {
        if let Some(region) = self.page.region() {
            region.word(arena_at(self.index) + arena::CONNECTIONS).fetch_add(amount, Ordering::Relaxed);
        }
    }
}

impl Drop for ArenaEntry {
    fn drop(&mut self) {
        if let Some(region) = self.page.region() {
            let at = arena_at(self.index);
            sequence::change(region.word(at + arena::SEQUENCE), || {
                region.word(at + arena::STATE).store(0, Ordering::Relaxed);
            });
        }
        self.page.give_arena_back(self.index);
    }
}
