//! Where what stands in a page, in bytes. Reader and writer have the same of it, or they do not understand each other:
//! whatever changes here changes [`VERSION`].

use crate::shared_memory::PAGE;

/// "SRDMASMC", the first word, written last.
pub(super) const MAGIC: u64 = u64::from_be_bytes(*b"SRDMASMC");
/// Of this layout.
pub(super) const VERSION: u64 = 1;

/// Sockets that a page lists at once. A word costs memory once it is written.
pub const ENTRIES: usize = 65536;
/// Arenas that a page lists at once.
pub const ARENAS: usize = 4096;
/// Different reasons for falling back that are counted each for itself.
pub const FALLBACKS: usize = 64;
/// Classes of sizes: up to 8 KiB, 16, 32, 64, 128, 256, 512 KiB, and above.
pub const SIZE_CLASSES: usize = 8;
/// Bytes of a program's name.
pub(super) const PROGRAM_BYTES: usize = 64;
/// Room for counters of the page.
pub(super) const COUNTERS: usize = 32;

/// The words of the head, in bytes from the start of the page.
pub(super) mod head {
    use super::{COUNTERS, FALLBACKS, PROGRAM_BYTES, SIZE_CLASSES};

    pub(in super::super) const MAGIC: usize = 0;
    pub(in super::super) const VERSION: usize = 8;
    /// The writer's process id, as it sees itself.
    pub(in super::super) const PROCESS: usize = 16;
    /// One more than the highest entry that ever was in use: readers touch no others.
    pub(in super::super) const ENTRIES_USED: usize = 24;
    /// The same of arenas.
    pub(in super::super) const ARENAS_USED: usize = 32;
    /// The sequence lock of moving an entry's counts to the page's.
    pub(in super::super) const FOLDS: usize = 40;
    /// The process's own GID; 0 before it has one.
    pub(in super::super) const GID: usize = 48;
    pub(in super::super) const PROGRAM: usize = 64;
    pub(in super::super) const COUNTER: usize = PROGRAM + PROGRAM_BYTES;
    /// Pairs of key and count.
    pub(in super::super) const FALLBACK: usize = COUNTER + COUNTERS * 8;
    /// Falls for more reasons than there is room for.
    pub(in super::super) const OTHER_FALLBACKS: usize = FALLBACK + FALLBACKS * 16;
    /// Messages of each class of sizes but the first: sent, then received.
    pub(in super::super) const MESSAGE_SIZES: usize = OTHER_FALLBACKS + 8;
    /// Rings of each class of sizes: those sent into, then those received from.
    pub(in super::super) const RING_SIZES: usize = MESSAGE_SIZES + 2 * SIZE_CLASSES * 8;
    pub(in super::super) const END: usize = RING_SIZES + 2 * SIZE_CLASSES * 8;
}

/// The words of an arena, in bytes from its start.
pub(super) mod arena {
    pub(in super::super) const BYTES: usize = 128;
    pub(in super::super) const SEQUENCE: usize = 0;
    /// 1 if it is there, and whose it is: [`super::super::Role`] from bit 8.
    pub(in super::super) const STATE: usize = 8;
    pub(in super::super) const ID: usize = 16;
    pub(in super::super) const OWN_GID: usize = 24;
    pub(in super::super) const PEER_GID: usize = 32;
    /// Capacity in the lower half, bytes of a ring in the upper.
    pub(in super::super) const GEOMETRY: usize = 40;
    pub(in super::super) const PEER_PROCESS: usize = 48;
    pub(in super::super) const CONNECTIONS: usize = 56;
}

/// The words of a socket, in bytes from its start: two cache lines that hardly change, one of what is sent and one of
/// what is received.
pub(super) mod entry {
    pub(in super::super) const BYTES: usize = 256;

    pub(in super::super) const SEQUENCE: usize = 0;
    pub(in super::super) const STATE: usize = 8;
    /// Descriptor in the lower half, user id in the upper.
    pub(in super::super) const DESCRIPTOR: usize = 16;
    pub(in super::super) const INODE: usize = 24;
    /// Local port, peer's port, index of the interface from bit 32.
    pub(in super::super) const PORTS: usize = 32;
    /// Bytes of the ring we receive from in the lower half, of the one we send into in the upper.
    pub(in super::super) const RINGS: usize = 40;
    pub(in super::super) const OWN_TOKEN: usize = 48;
    pub(in super::super) const PEER_TOKEN: usize = 56;

    /// Sixteen bytes each, IPv4 addresses mapped.
    pub(in super::super) const LOCAL: usize = 64;
    pub(in super::super) const PEER: usize = 80;
    pub(in super::super) const LINK: usize = 96;
    pub(in super::super) const PEER_GID: usize = 104;
    /// Own in the lower half, peer's in the upper.
    pub(in super::super) const REASONS: usize = 112;
    /// Mode, role from bit 8, index in the arena from bit 32.
    pub(in super::super) const MODE: usize = 120;

    pub(in super::super) const SENDING: usize = 128;
    pub(in super::super) const RECEIVING: usize = 192;
    /// In each of the two lines: positions, then counts, which `close` adds to the page's.
    pub(in super::super) const PRODUCED: usize = 0;
    pub(in super::super) const CONSUMED: usize = 8;
    pub(in super::super) const COUNT: usize = 16;
    /// The counts of sending are the first [`super::super::Counter`]s,
    pub(in super::super) const SENDING_COUNTS: usize = 4;
    /// and those of receiving the ones that follow.
    pub(in super::super) const RECEIVING_COUNTS: usize = 5;
    /// Bytes of the last CDC messages: sent (producer's flags, state), received.
    pub(in super::super) const FLAGS: usize = SENDING + 48;
    pub(in super::super) const SHUTDOWN: usize = SENDING + 56;

    /// Where the count `index` is.
    pub(in super::super) const fn count_at(index: usize) -> usize {
        assert!(index < SENDING_COUNTS + RECEIVING_COUNTS, "no count of an entry");
        match index < SENDING_COUNTS {
            true => SENDING + COUNT + index * 8,
            false => RECEIVING + COUNT + (index - SENDING_COUNTS) * 8,
        }
    }
}

pub(super) const FIRST_ARENA: usize = PAGE;
pub(super) const FIRST_ENTRY: usize = FIRST_ARENA + ARENAS * arena::BYTES;
/// Bytes of the whole.
pub(super) const LENGTH: usize = FIRST_ENTRY + ENTRIES * entry::BYTES;

const _: () = assert!((super::Counter::Unlisted as usize) < COUNTERS);
const _: () = assert!(head::END <= PAGE && LENGTH.is_multiple_of(PAGE));
const _: () = assert!(entry::COUNT + entry::SENDING_COUNTS * 8 <= entry::FLAGS - entry::SENDING);
const _: () = assert!(entry::COUNT + entry::RECEIVING_COUNTS * 8 <= entry::BYTES - entry::RECEIVING);

/// The class of a size: 0 up to 8 KiB, then one for each power of two, the last without end.
#[inline]
pub(super) fn size_class(bytes: u64) -> usize {
    let eighths = bytes.saturating_sub(1) >> 13;
    ((u64::BITS - eighths.leading_zeros()) as usize).min(SIZE_CLASSES - 1)
}
