//! What passes between the pages of a process and of its children.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use super::layout::{FALLBACKS, LENGTH, SIZE_CLASSES, entry, head};
use super::page::{Counters, GENERATIONS, Page, arena_at, entry_at, fallback_key, introduce, used};
use super::{Counter, NAME};
use crate::shared_memory::Region;

/// What a child is to find in its page: a copy that was made before the fork, for the parent goes on at once, and
/// closes what its child shall serve.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// Places in the page and what stands there.
    words: Vec<(u32, u64)>,
    arenas: Vec<usize>,
    entries: Vec<usize>,
}

impl Inheritance {
    /// A zero takes no memory.
    fn keep(&mut self, region: &Region, start: usize, end: usize) {
        let words = (start..end).step_by(8).map(|at| (at as u32, region.word(at).load(Ordering::Relaxed)));
        self.words.extend(words.filter(|(_, value)| *value != 0));
    }
}

impl Page {
    /// To be called before the process forks; what it gives is for [`Page::renew_in_child`].
    pub fn inheritance(&self) -> Inheritance {
        use super::layout::arena;
        let mut kept = Inheritance::default();
        let Some(region) = self.region() else { return kept };
        kept.keep(region, head::GID, head::COUNTER);
        for counter in Counter::ALL.iter().filter(|counter| counter.is_gauge()) {
            let at = head::COUNTER + *counter as usize * 8;
            kept.keep(region, at, at + 8);
        }
        kept.arenas.extend(self.arenas.taken());
        for index in kept.arenas.clone() {
            kept.keep(region, arena_at(index) + arena::STATE, arena_at(index + 1));
        }
        kept.entries.extend(self.entries.taken());
        for index in kept.entries.clone() {
            let at = entry_at(index);
            kept.keep(region, at + entry::STATE, at + entry::SENDING + entry::COUNT);
            kept.keep(region, at + entry::FLAGS, at + entry::RECEIVING + entry::COUNT);
        }
        kept
    }

    /// To be called in a child of `fork` before it does anything else, while it has one thread: what it writes goes
    /// to a page of its own from now on. Entries and arenas it has inherited are listed there too, their counts from
    /// zero. The descriptor replaces the one of [`Page::create`]. If it fails (no descriptor is left), nothing is
    /// written any more.
    pub fn renew_in_child(&self, inherited: &Inheritance) -> io::Result<OwnedFd> {
        // Not the parent's memory, whatever happens below.
        let generation = self.generation.swap(GENERATIONS, Ordering::Relaxed);
        if generation >= GENERATIONS {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let place = self.regions.get(generation + 1).ok_or(io::ErrorKind::QuotaExceeded)?;
        let (region, memory) = Region::create(NAME, LENGTH)?;
        for (at, value) in &inherited.words {
            region.word(*at as usize).store(*value, Ordering::Relaxed);
        }
        inherited.arenas.iter().for_each(|index| used(&region, head::ARENAS_USED, *index));
        inherited.entries.iter().for_each(|index| used(&region, head::ENTRIES_USED, *index));
        introduce(&region);
        place.get_or_init(|| region);
        self.generation.store(generation + 1, Ordering::Release);
        Ok(memory)
    }

    /// To be called when the process ends. A child leaves what it has counted to its parent, so that the totals of a
    /// server that has a process for each connection do not go with them. Nothing is written any more then.
    pub fn end(&self) {
        let generation = self.generation.load(Ordering::Relaxed);
        let region = |generation: usize| self.regions.get(generation)?.get();
        let (Some(own), Some(parents)) = (region(generation), generation.checked_sub(1).and_then(region)) else {
            return;
        };
        if self.generation.swap(GENERATIONS, Ordering::Relaxed) != generation {
            return;
        }
        // Readers look for it no more: what it has counted is about to stand somewhere else.
        own.word(head::PROCESS).store(0, Ordering::SeqCst);
        let to = Counters::of(parents);
        for counter in Counter::ALL.into_iter().filter(|counter| !counter.is_gauge()) {
            let at = counter as usize * 8;
            let of_entries = |index: usize| match counter.is_of_entry() {
                true => load(own, entry_at(index) + entry::count_at(counter as usize)),
                false => 0,
            };
            let open: u64 = self.entries.taken().map(of_entries).fold(0, u64::wrapping_add);
            to.add(counter, load(own, head::COUNTER + at).wrapping_add(open));
        }
        for at in (0..FALLBACKS).map(|index| head::FALLBACK + index * 16) {
            if let Some((role, code, by_peer)) = fallback_key(load(own, at)) {
                to.add_fallbacks(role, code, by_peer, load(own, at + 8));
            }
        }
        to.add_at(head::OTHER_FALLBACKS, load(own, head::OTHER_FALLBACKS));
        for table in [head::MESSAGE_SIZES, head::RING_SIZES] {
            for at in (table..table + 2 * SIZE_CLASSES * 8).step_by(8) {
                to.add_at(at, load(own, at));
            }
        }
    }
}

fn load(region: &Region, at: usize) -> u64 {
    region.word(at).load(Ordering::Relaxed)
}
