//! One slot of the table of regions, and how an access keeps it from being taken away.
//!
//! A slot is in one of three phases:
//!
//! ```text
//!           publish          close             finish (no holds), revoke
//!   FREE -----------> OPEN -------> CLOSED ----------------------------> FREE
//!   nobody            everybody     requests that hold it, locally
//! ```
//!
//! Whether its owner deregisters a region, or a request or a peer invalidates it, is the same to those who access it: requests
//! that hold the region end normally, no other begins ([`Slot::check_beginning`]).
//!
//! Two things keep a region from becoming free:
//!
//! - A *hold* counts a request that refers to it, from its beginning to its completion. Holds are for order: a request
//!   that began before the region was closed ends normally. They live in one word with the tag they belong to, so a hold
//!   or release that comes too early or too late finds another tag there and does nothing.
//! - A *pin* lasts for one copy. Pins are for memory safety: see [`Pin`].
//!
//! A pin is cheap because nobody shares it: each queue pair's view of memory has a [`PinRecord`] in which it writes the slot
//! it is about to touch, and then looks whether the slot is still open. Who frees a slot first closes it, and then looks
//! into all the records. All four steps are sequentially consistent, so in whatever order they fall at least one of
//! the two sees the other (Dekker's argument). Two threads on one view at a time are not expected, but allowed:
//! the second finds the record taken and counts itself in the slot, where it is looked for as well.

#[cfg(loom)]
use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use softrdma_mpa_ddp_rdmap::{Access, AccessError, Stag, TaggedOffset};

use crate::region::AccessFlags;

/// What of a region every access looks at, in one word.
///
/// | bits | what |
/// |---|---|
/// | 0..8 | key |
/// | 8..16 | access flags |
/// | 16..18 | phase |
/// | 32..64 | protection domain |
#[derive(Clone, Copy, PartialEq, Eq)]
struct State(u64);

const PHASE: u64 = 0b11 << 16;
const OPEN: u64 = 0b01 << 16;
const CLOSED: u64 = 0b10 << 16;

impl State {
    const fn open(key: u8, access: AccessFlags, domain: u32) -> Self {
        Self(key as u64 | (access.bits() as u64) << 8 | OPEN | (domain as u64) << 32)
    }

    const fn closed(self) -> Self {
        Self(self.0 & !PHASE | CLOSED)
    }

    const fn free(self) -> Self {
        Self(self.0 & !PHASE)
    }

    const fn key(self) -> u8 {
        self.0 as u8
    }

    const fn access(self) -> AccessFlags {
        AccessFlags::from_bits_truncate((self.0 >> 8) as u8)
    }

    const fn is_open(self) -> bool {
        self.0 & PHASE == OPEN
    }

    const fn is_free(self) -> bool {
        self.0 & PHASE == 0
    }

    const fn domain(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// In the low half of the word of holds: the region's handle is gone, the last release frees it.
const ORPHANED: u64 = 1 << 31;

/// Requests that hold the region: the low half of the word without [`ORPHANED`].
const HOLDS: u64 = ORPHANED - 1;

const fn holder(word: u64) -> u32 {
    (word >> 32) as u32
}

/// A slot. Its first cache line is only read on the data path, its second is written once a request.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Slot {
    state: AtomicU64,
    /// Changes only while the slot is free: stable for whoever has pinned it and found it open or held.
    base: AtomicPtr<u8>,
    /// As `base`.
    length: AtomicU64,
    usage: Usage,
}

#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Usage {
    /// High half: the tag, 0 while free. Low half: how many requests hold it, and [`ORPHANED`].
    holds: AtomicU64,
    /// Pins of threads that found their record taken.
    pins: AtomicU32,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Slot>() == 128, "two cache lines");

/// Loom knows sequential consistency of fences only, and takes that of loads and stores for acquire and release.
#[inline]
fn loom_fence() {
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
}

/// Where the one user of a view of memory writes down which slot it touches, and counts what it places.
#[derive(Debug, Default)]
pub(super) struct PinRecord(CachePadded<Record>);

#[derive(Debug, Default)]
struct Record {
    /// 1 + index of the pinned slot; 0: none.
    slot: AtomicU64,
    /// Written only by who has the record.
    placed: AtomicU64,
    /// Bytes placed by threads that found the record taken.
    placed_beside: AtomicU64,
}

impl PinRecord {
    pub(super) fn is_pinning(&self, index: u32) -> bool {
        loom_fence();
        self.0.slot.load(Ordering::SeqCst) == u64::from(index) + 1
    }

    pub(super) fn placed_bytes(&self) -> u64 {
        self.0.placed.load(Ordering::Relaxed) + self.0.placed_beside.load(Ordering::Relaxed)
    }
}

/// While this lives, a region that is or becomes free keeps its memory: who frees waits for it. It is held for one copy,
/// never while anything else is waited for.
pub(super) struct Pin<'a> {
    slot: &'a Slot,
    /// Where the pin is written; `None`: it is counted in the slot.
    record: Option<&'a PinRecord>,
}

impl Drop for Pin<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release: what was done under the pin happens before whatever the thread does that sees the pin gone.
        match self.record {
            Some(record) => record.0.slot.store(0, Ordering::Release),
            None => _ = self.slot.usage.pins.fetch_sub(1, Ordering::Release),
        }
    }
}

impl<'a> Pin<'a> {
    #[inline]
    pub(super) fn new(slot: &'a Slot, index: u32, record: &'a PinRecord) -> Self {
        let mine = u64::from(index) + 1;
        match record.0.slot.compare_exchange(0, mine, Ordering::SeqCst, Ordering::Relaxed) {
            Ok(_) => {
                loom_fence();
                Self { slot, record: Some(record) }
            }
            Err(_) => Self::beside(slot),
        }
    }

    /// A pin without a record: for who has none, or found it taken.
    #[cold]
    pub(super) fn beside(slot: &'a Slot) -> Self {
        slot.usage.pins.fetch_add(1, Ordering::SeqCst);
        loom_fence();
        Self { slot, record: None }
    }

    /// The memory at `offset`, if the region of `stag` allows `access` to `length` bytes there. It is as long as that and
    /// stays while the pin lives.
    #[inline]
    pub(super) fn admit(
        &self,
        stag: Stag,
        domain: u32,
        offset: TaggedOffset,
        length: u64,
        access: Access,
    ) -> Result<*mut u8, AccessError> {
        let base = self.slot.admit(stag, domain, offset, length, access)?;
        Ok(base.wrapping_add((offset.0 - base.addr() as u64) as usize))
    }

    /// For the region's own handle: whether it is still registered, open or closed. The word of holds says so, not the state:
    /// it is what ends a registration, before pins are waited for.
    pub(super) fn is_registered(&self, stag: Stag) -> bool {
        holder(self.slot.usage.holds.load(Ordering::SeqCst)) == stag.0
    }

    /// Counts bytes that were placed under this pin in the record of their view.
    #[inline]
    pub(super) fn count_placed(&self, record: &PinRecord, bytes: u64) {
        if self.record.is_some() {
            let placed = &record.0.placed;
            // Not one step, and need not be: only who has the record writes.
            placed.store(placed.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
        } else {
            record.0.placed_beside.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

/// What became of a [`Slot::release`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Released {
    /// Nothing else to do.
    Done,
    /// It was the last hold of a region without a handle: the caller frees it.
    Last,
}

impl Slot {
    /// The base of the region if it allows the access. Whoever goes on to touch memory has pinned the slot before.
    #[inline]
    fn admit(
        &self,
        stag: Stag,
        domain: u32,
        offset: TaggedOffset,
        length: u64,
        access: Access,
    ) -> Result<*mut u8, AccessError> {
        // Sequentially consistent, after the pin: see the module.
        let state = State(self.state.load(Ordering::SeqCst));
        if state.key() != stag.key() || !(state.is_open() || self.is_left_to(stag, state, access)) {
            return Err(AccessError::InvalidStag(stag));
        }
        // RFC 5041 §8.2, RFC 5042 §2.2: a tag is good only on the streams of its protection domain.
        if state.domain() != domain {
            return Err(AccessError::WrongProtectionDomain(stag));
        }
        let base = self.base.load(Ordering::Relaxed);
        let start = base.addr() as u64;
        let end = offset.0.checked_add(length).ok_or(AccessError::Wrap(offset))?;
        // The region itself does not wrap: registration refuses that.
        if offset.0 < start || end > start + self.length.load(Ordering::Relaxed) {
            return Err(AccessError::OutOfBounds { stag, offset, length });
        }
        if !state.access().allow(access) {
            return Err(AccessError::Denied(stag, access));
        }
        Ok(base)
    }

    /// A region that is no longer open is left to the requests that hold it, and to local use: a retransmission of a Send, the sink of a Read.
    #[cold]
    fn is_left_to(&self, stag: Stag, state: State, access: Access) -> bool {
        !state.is_free() && matches!(access, Access::LocalRead | Access::LocalWrite) && self.holds(stag) > 0
    }

    /// As [`Pin::admit`], without touching memory afterwards.
    #[inline(always)]
    pub(super) fn check(
        &self,
        stag: Stag,
        domain: u32,
        offset: TaggedOffset,
        length: u64,
        access: Access,
    ) -> Result<(), AccessError> {
        loop {
            let before = self.state.load(Ordering::SeqCst);
            let result = self.admit(stag, domain, offset, length, access);
            // Without a pin the slot may have changed hands between two loads: what was found belongs together only if it
            // did not.
            if self.state.load(Ordering::SeqCst) == before {
                return result.map(|_| ());
            }
        }
    }

    /// As [`Self::check`], for a request that begins: whatever else holds the region, it must be open.
    #[inline]
    pub(super) fn check_beginning(
        &self,
        stag: Stag,
        domain: u32,
        offset: TaggedOffset,
        length: u64,
        access: Access,
    ) -> Result<(), AccessError> {
        self.check(stag, domain, offset, length, access)?;
        if self.is_open(stag) { Ok(()) } else { Err(AccessError::InvalidStag(stag)) }
    }

    /// Requests that hold the region of `stag`.
    pub(super) fn holds(&self, stag: Stag) -> u32 {
        let word = self.usage.holds.load(Ordering::SeqCst);
        if holder(word) == stag.0 { (word & HOLDS) as u32 } else { 0 }
    }

    #[inline]
    pub(super) fn hold(&self, stag: Stag) {
        // A count cannot reach the flag's bit: 2^31 requests at a time do not fit into any memory.
        let _ = self.change_holds(stag, |count| Some(count + 1));
    }

    #[inline]
    pub(super) fn release(&self, stag: Stag) -> Released {
        let word = self.change_holds(stag, |count| (count & HOLDS != 0).then(|| count - 1));
        match word {
            Ok(before) if before & (ORPHANED | HOLDS) == ORPHANED | 1 => Released::Last,
            _ => Released::Done,
        }
    }

    /// Replaces the low half of the word of holds, if it belongs to `stag`. A count of zero with [`ORPHANED`] set ends the
    /// registration: the word becomes free with the same step, so exactly one caller sees it.
    fn change_holds(&self, stag: Stag, change: impl Fn(u64) -> Option<u64>) -> Result<u64, u64> {
        self.usage.holds.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| {
            if holder(word) != stag.0 {
                return None;
            }
            let count = change(word & (ORPHANED | HOLDS))?;
            Some(if count == ORPHANED { 0 } else { u64::from(stag.0) << 32 | count })
        })
    }

    /// FREE to OPEN. The caller has the slot to itself.
    pub(super) fn publish(&self, stag: Stag, base: *mut u8, length: u64, domain: u32, access: AccessFlags) {
        debug_assert!(base.addr().checked_add(length as usize).is_some());
        self.base.store(base, Ordering::Relaxed);
        self.length.store(length, Ordering::Relaxed);
        self.usage.holds.store(u64::from(stag.0) << 32, Ordering::SeqCst);
        // Publishes what is above: who sees the slot open sees its base and length.
        self.state.store(State::open(stag.key(), access, domain).0, Ordering::SeqCst);
    }

    /// OPEN to CLOSED, if it is `stag`'s and `permit` agrees to its domain and access.
    pub(super) fn close(
        &self,
        stag: Stag,
        permit: impl Fn(u32, AccessFlags) -> Result<(), AccessError>,
    ) -> Result<(), AccessError> {
        let state = State(self.state.load(Ordering::SeqCst));
        if state.key() != stag.key() || !state.is_open() {
            return Err(AccessError::InvalidStag(stag));
        }
        permit(state.domain(), state.access())?;
        let closed = state.closed().0;
        self.state
            .compare_exchange(state.0, closed, Ordering::SeqCst, Ordering::SeqCst)
            .map(|_| ())
            .map_err(|_| AccessError::InvalidStag(stag))
    }

    /// Ends the registration of a region that is no longer open and that nothing holds; otherwise tells how many requests do.
    pub(super) fn finish(&self, stag: Stag) -> Result<(), u32> {
        let empty = u64::from(stag.0) << 32;
        match self.usage.holds.compare_exchange(empty, 0, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => Ok(()),
            Err(word) => Err((word & HOLDS) as u32),
        }
    }

    /// Leaves the end of the registration to the last release; `false` if nothing holds it, and it has ended now.
    pub(super) fn orphan(&self, stag: Stag) -> bool {
        matches!(self.change_holds(stag, |count| Some(count | ORPHANED)), Ok(before) if before & HOLDS != 0)
    }

    /// Ends the registration of a region that is no longer open, whatever holds it: releases that come later find nothing.
    pub(super) fn revoke(&self) {
        self.usage.holds.store(0, Ordering::SeqCst);
    }

    /// To FREE. The registration has ended, nothing is pinned.
    pub(super) fn free(&self) {
        let state = State(self.state.load(Ordering::SeqCst));
        self.state.store(state.free().0, Ordering::SeqCst);
    }

    pub(super) fn is_open(&self, stag: Stag) -> bool {
        let state = State(self.state.load(Ordering::SeqCst));
        state.key() == stag.key() && state.is_open()
    }

    /// The key of the latest registration.
    pub(super) fn last_key(&self) -> u8 {
        State(self.state.load(Ordering::SeqCst)).key()
    }

    pub(super) fn has_pins(&self) -> bool {
        loom_fence();
        self.usage.pins.load(Ordering::SeqCst) != 0
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
