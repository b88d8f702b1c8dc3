//! The page as its process writes it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::layout::{self, ARENAS, ENTRIES, FALLBACKS, LENGTH, MAGIC, PROGRAM_BYTES, VERSION, arena, entry, head};
use super::slots::Slots;
use super::{Counter, NAME, Role, sequence};
use crate::shared_memory::Region;

/// How deep children of children (without `exec` between) have pages. Deeper ones write nothing.
pub(super) const GENERATIONS: usize = 16;

/// A key of the table of reasons that is in use.
const KEY_IN_USE: u64 = 1 << 63;

/// The page of this process. Whoever has it may write; see the [module](super).
#[derive(Debug)]
pub struct Page {
    /// The memory of this process, behind that of its parent, its parent's parent ... as far as it was forked with
    /// them.
    pub(super) regions: [OnceLock<Region>; GENERATIONS],
    pub(super) generation: AtomicUsize,
    pub(super) entries: Slots,
    pub(super) arenas: Slots,
}

impl Page {
    /// A page for `program` (its name, without directories), and the descriptor by which readers find it: it must stay
    /// open as long as they shall.
    pub fn create(program: &str) -> io::Result<(Arc<Self>, OwnedFd)> {
        let (region, memory) = Region::create(NAME, LENGTH)?;
        let mut name = [0; PROGRAM_BYTES];
        let length = program.len().min(PROGRAM_BYTES);
        name[..length].copy_from_slice(&program.as_bytes()[..length]);
        region.copy_in(head::PROGRAM, &name);
        introduce(&region);
        let page = Self {
            regions: Default::default(),
            generation: AtomicUsize::new(0),
            entries: Slots::new(ENTRIES),
            arenas: Slots::new(ARENAS),
        };
        page.regions[0].get_or_init(|| region);
        Ok((Arc::new(page), memory))
    }

    /// What is rare enough to be counted by atomic additions.
    pub fn counters(&self) -> Counters<'_> {
        Counters { region: self.region() }
    }

    /// The GID that this process goes by.
    pub fn set_gid(&self, gid: u64) {
        if let Some(region) = self.region() {
            region.word(head::GID).store(gid, Ordering::Relaxed);
        }
    }

    /// `None` in a child that has no page.
    #[inline]
    pub(super) fn region(&self) -> Option<&Region> {
        self.regions.get(self.generation.load(Ordering::Relaxed))?.get()
    }

    pub(super) fn take_entry(&self) -> Option<usize> {
        take(&self.entries, self.region()?, head::ENTRIES_USED)
    }

    pub(super) fn give_entry_back(&self, index: usize) {
        self.entries.give_back(index);
    }

    pub(super) fn take_arena(&self) -> Option<usize> {
        take(&self.arenas, self.region()?, head::ARENAS_USED)
    }

    pub(super) fn give_arena_back(&self, index: usize) {
        self.arenas.give_back(index);
    }
}

/// Where entry `index` begins.
#[inline]
pub(super) const fn entry_at(index: usize) -> usize {
    layout::FIRST_ENTRY + index * entry::BYTES
}

/// Where arena `index` begins.
pub(super) const fn arena_at(index: usize) -> usize {
    layout::FIRST_ARENA + index * arena::BYTES
}

fn take(slots: &Slots, region: &Region, used_word: usize) -> Option<usize> {
    let index = slots.take()?;
    used(region, used_word, index);
    Some(index)
}

pub(super) fn used(region: &Region, used_word: usize, index: usize) {
    let word = region.word(used_word);
    if word.load(Ordering::Relaxed) <= index as u64 {
        word.fetch_max(index as u64 + 1, Ordering::Release);
    }
}

/// Writes what readers check, the magic last.
pub(super) fn introduce(region: &Region) {
    region.word(head::VERSION).store(VERSION, Ordering::Relaxed);
    let process = rustix::process::getpid().as_raw_nonzero().get();
    region.word(head::PROCESS).store(u64::from(process.unsigned_abs()), Ordering::Relaxed);
    region.word(head::MAGIC).store(MAGIC, Ordering::Release);
}

/// The counters of a page. In a child without a page they count nothing.
#[derive(Clone, Copy, Debug)]
pub struct Counters<'page> {
    region: Option<&'page Region>,
}

impl<'page> Counters<'page> {
    pub(super) const fn of(region: &'page Region) -> Self {
        Self { region: Some(region) }
    }
}

impl Counters<'_> {
    /// One more.
    pub fn count(self, counter: Counter) {
        self.add(counter, 1);
    }

    /// More by `amount`.
    pub fn add(self, counter: Counter, amount: u64) {
        self.add_at(head::COUNTER + counter as usize * 8, amount);
    }

    /// Less by `amount`, of which there must have been as much.
    pub fn subtract(self, counter: Counter, amount: u64) {
        self.add_at(head::COUNTER + counter as usize * 8, amount.wrapping_neg());
    }

    /// Exactly `amount`.
    pub fn set(self, counter: Counter, amount: u64) {
        if let Some(region) = self.region {
            region.word(head::COUNTER + counter as usize * 8).store(amount, Ordering::Relaxed);
        }
    }

    /// A connection that stays TCP: because of `code` (as on the wire), which `by_peer` says who said.
    pub fn fall_back(self, role: Role, code: u32, by_peer: bool) {
        self.count(match role {
            Role::Client => Counter::FallbacksAsClient,
            Role::Server => Counter::FallbacksAsServer,
        });
        self.add_fallbacks(role, code, by_peer, 1);
    }

    /// The same so often, without the sum of all.
    pub(super) fn add_fallbacks(self, role: Role, code: u32, by_peer: bool, count: u64) {
        let Some(region) = self.region else { return };
        let key = KEY_IN_USE | u64::from(by_peer) << 33 | role.code() << 32 | u64::from(code);
        let place = (0..FALLBACKS).map(|index| head::FALLBACK + index * 16).find(|at| is_for(region.word(*at), key));
        self.add_at(place.map_or(head::OTHER_FALLBACKS, |at| at + 8), count);
    }

    /// A message of a class of sizes that is counted for itself: the caller has looked that there is one.
    pub(super) fn count_message_size(self, is_received: bool, class: usize) {
        self.add_at(size_at(head::MESSAGE_SIZES, is_received, class), 1);
    }

    pub(super) fn count_ring(self, is_received: bool, bytes: u32) {
        self.add_at(size_at(head::RING_SIZES, is_received, layout::size_class(bytes.into())), 1);
    }

    pub(super) fn add_at(self, at: usize, amount: u64) {
        if let Some(region) = self.region {
            region.word(at).fetch_add(amount, Ordering::Relaxed);
        }
    }
}

/// Whether a place of the table is `key`'s, perhaps from now on.
fn is_for(word: &AtomicU64, key: u64) -> bool {
    match word.load(Ordering::Relaxed) {
        0 => match word.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => true,
            Err(other) => other == key,
        },
        other => other == key,
    }
}

/// The key of a place: role, code, whether the peer said it; `None` if nobody has used it.
pub(super) fn fallback_key(word: u64) -> Option<(Role, u32, bool)> {
    (word & KEY_IN_USE != 0).then(|| (Role::from_code(word >> 32), word as u32, word >> 33 & 1 != 0))
}

/// The word of a class of sizes in one of the two tables.
pub(super) const fn size_at(table: usize, is_received: bool, class: usize) -> usize {
    table + (is_received as usize * layout::SIZE_CLASSES + class) * 8
}

/// Moves what an entry has counted to the page, and what it was from sight, as one step to readers.
pub(super) fn fold(region: &Region, at: usize) {
    sequence::change(region.word(head::FOLDS), || {
        sequence::change(region.word(at + entry::SEQUENCE), || {
            region.word(at + entry::STATE).store(0, Ordering::Relaxed);
        });
        for index in 0..entry::SENDING_COUNTS + entry::RECEIVING_COUNTS {
            let amount = region.word(at + entry::count_at(index)).load(Ordering::Relaxed);
            if amount != 0 {
                region.word(head::COUNTER + index * 8).fetch_add(amount, Ordering::Relaxed);
            }
        }
    });
}
