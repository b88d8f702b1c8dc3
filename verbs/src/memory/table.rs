//! The table of a device's regions: slots by index, found without a lock; who may use which slot, under one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rand::Rng;
use softrdma_mpa_ddp_rdmap::{AccessError, Stag};

use super::Backing;
use super::slot::{Pin, PinRecord, Released, Slot};
use crate::region::{AccessFlags, RegisterError};

/// Slots that are allocated together.
const CHUNK: usize = 256;

/// The index space is that many times larger than the number of regions, so that an index is hard to guess
/// (RFC 5042 §6.1.1: tags are not to be predictable), up to the 24 bits of an index.
const SPREAD: usize = 4;

/// A new chunk is allocated when fewer slots than this are free, so that there is a choice even for the first regions.
const FEW: usize = CHUNK / 2;

/// The memory regions of a device.
pub(crate) struct RegionTable {
    /// Chunks come into being at random places and stay.
    chunks: Box<[OnceLock<Box<[Slot]>>]>,
    limit: usize,
    places: Mutex<Places>,
    /// Every view's record: whoever frees a slot looks into all of them.
    records: Mutex<Vec<Arc<PinRecord>>>,
    /// Memory without a handle that requests still hold.
    orphans: Mutex<HashMap<u32, Backing>>,
}

#[derive(Default)]
struct Places {
    free: Vec<u32>,
    unused_chunks: Vec<u32>,
    live: usize,
}

impl std::fmt::Debug for RegionTable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RegionTable").field("limit", &self.limit).field("live", &self.live()).finish()
    }
}

impl RegionTable {
    /// A table of at most `limit` regions.
    pub(crate) fn new(limit: usize) -> Self {
        let limit = limit.clamp(1, (1 << 24) - CHUNK);
        let chunks = (limit.div_ceil(CHUNK) * SPREAD + 1).min((1 << 24) / CHUNK);
        let unused_chunks = (0..chunks as u32).collect();
        Self {
            chunks: std::iter::repeat_with(OnceLock::new).take(chunks).collect(),
            limit,
            places: Mutex::new(Places { unused_chunks, ..Places::default() }),
            records: Mutex::default(),
            orphans: Mutex::default(),
        }
    }

    /// Regions that are registered, or still held though their handle is gone.
    pub(crate) fn live(&self) -> usize {
        lock(&self.places).live
    }

    // --- the data path ---

    #[inline]
    pub(super) fn slot(&self, index: u32) -> Option<&Slot> {
        let index = index as usize;
        self.chunks.get(index / CHUNK)?.get()?.get(index % CHUNK)
    }

    #[inline]
    pub(super) fn pin<'a>(&'a self, stag: Stag, record: &'a PinRecord) -> Option<Pin<'a>> {
        Some(Pin::new(self.slot(stag.index())?, stag.index(), record))
    }

    #[inline]
    pub(super) fn hold(&self, stag: Stag) {
        if let Some(slot) = self.slot(stag.index()) {
            slot.hold(stag);
        }
    }

    #[inline]
    pub(super) fn release(&self, stag: Stag) {
        if let Some(slot) = self.slot(stag.index())
            && slot.release(stag) == Released::Last
        {
            self.reclaim(stag, slot);
        }
    }

    // --- registration ---

    /// Takes a slot for a region and opens it.
    pub(crate) fn publish(&self, backing: &Backing, domain: u32, access: AccessFlags) -> Result<Stag, RegisterError> {
        let index = self.take_place()?;
        let slot = self.slot(index).expect("its chunk was allocated before it was free");
        let last = slot.last_key();
        // Any key but the last: a stale tag never fits the next region of its slot.
        let key = last.wrapping_add(rand::rng().random_range(1..=255));
        let stag = Stag::new(index, key);
        slot.publish(stag, backing.pointer(), backing.length() as u64, domain, access);
        Ok(stag)
    }

    fn take_place(&self) -> Result<u32, RegisterError> {
        let mut places = lock(&self.places);
        if places.live >= self.limit {
            return Err(RegisterError::TooManyRegions { limit: self.limit });
        }
        if places.free.len() < FEW && !places.unused_chunks.is_empty() {
            let choice = rand::rng().random_range(0..places.unused_chunks.len());
            let chunk = places.unused_chunks.swap_remove(choice);
            self.chunks[chunk as usize].get_or_init(|| std::iter::repeat_with(Slot::default).take(CHUNK).collect());
            let first = chunk * CHUNK as u32;
            // Index 0 stays unused: programs take a tag of 0 for "none".
            places.free.extend((first..first + CHUNK as u32).filter(|index| *index != 0));
        }
        let choice = rand::rng().random_range(0..places.free.len());
        places.live += 1;
        Ok(places.free.swap_remove(choice))
    }

    /// The region becomes unreachable for peers and for new requests.
    pub(crate) fn close(
        &self,
        stag: Stag,
        permit: impl Fn(u32, AccessFlags) -> Result<(), AccessError>,
    ) -> Result<(), AccessError> {
        self.slot(stag.index()).ok_or(AccessError::InvalidStag(stag))?.close(stag, permit)
    }

    /// Requests that hold the region.
    pub(crate) fn holds(&self, stag: Stag) -> u32 {
        self.slot(stag.index()).map_or(0, |slot| slot.holds(stag))
    }

    /// Frees the slot of a closed region unless requests hold it: then tells how many. Nothing touches its memory through
    /// this table afterwards. To be called by the region's handle, until it succeeds.
    pub(crate) fn finish(&self, stag: Stag) -> Result<(), u32> {
        let slot = self.slot(stag.index()).expect("a region's handle knows a tag that was given out");
        slot.finish(stag)?;
        self.reclaim(stag, slot);
        Ok(())
    }

    /// As [`Self::finish`], but requests that hold the region find it gone.
    pub(crate) fn revoke(&self, stag: Stag) {
        let slot = self.slot(stag.index()).expect("a region's handle knows a tag that was given out");
        slot.revoke();
        self.reclaim(stag, slot);
    }

    /// Takes over the memory of a closed region and frees it with the slot, at once or when the last hold is released.
    pub(crate) fn orphan(&self, stag: Stag, backing: Backing) {
        let slot = self.slot(stag.index()).expect("a region's handle knows a tag that was given out");
        // Before the flag is set: from then on the last release looks for it.
        lock(&self.orphans).insert(stag.index(), backing);
        if !slot.orphan(stag) {
            self.reclaim(stag, slot);
        }
    }

    /// Runs `access` while the registration of `stag` cannot end; `None` if it has ended.
    pub(crate) fn while_registered<T>(&self, stag: Stag, access: impl FnOnce() -> T) -> Option<T> {
        let pin = Pin::beside(self.slot(stag.index())?);
        pin.is_registered(stag).then(access)
    }

    /// Whether `stag` can be used.
    pub(crate) fn is_open(&self, stag: Stag) -> bool {
        self.slot(stag.index()).is_some_and(|slot| slot.is_open(stag))
    }

    /// The registration has ended: waits for the copies under way, then gives memory and slot back.
    fn reclaim(&self, stag: Stag, slot: &Slot) {
        self.wait_for_pins(stag, slot);
        let memory = lock(&self.orphans).remove(&stag.index());
        drop(memory);
        slot.free();
        let mut places = lock(&self.places);
        places.live -= 1;
        places.free.push(stag.index());
    }

    /// A pin lasts as long as one copy, unless its thread was preempted: so spin a little, then yield.
    fn wait_for_pins(&self, stag: Stag, slot: &Slot) {
        let backoff = crossbeam_utils::Backoff::new();
        let is_pinned = || slot.has_pins() || lock(&self.records).iter().any(|record| record.is_pinning(stag.index()));
        while is_pinned() {
            backoff.snooze();
        }
    }

    // --- views ---

    pub(super) fn add_record(&self) -> Arc<PinRecord> {
        let record = Arc::new(PinRecord::default());
        lock(&self.records).push(record.clone());
        record
    }

    pub(super) fn remove_record(&self, record: &Arc<PinRecord>) {
        let mut records = lock(&self.records);
        if let Some(place) = records.iter().position(|other| Arc::ptr_eq(other, record)) {
            records.swap_remove(place);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
