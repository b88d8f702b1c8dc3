//! Registered memory: the only unsafe file of this crate.
//!
//! # How memory is copied that others touch at the same time
//!
//! Registered memory is shared by nature: the application looks at it (often spinning on its last byte) while a peer's
//! Write is placed, and changes it while a Send is fetched. In Rust's memory model two such accesses are a data race,
//! undefined behaviour, unless both are atomic. So:
//!
//! - No reference to registered memory ever exists; there are raw pointers, and they stay in this file.
//! - `ptr::copy_nonoverlapping` is out: a plain access, which may race with nothing. `read_volatile` does not help, volatile
//!   accesses may not race either. What the language wants is a `memcpy` of atomic bytes, which the standard library does not
//!   have yet; loops over `AtomicU8` or `AtomicU64` are right but never vectorised (a quarter of the speed for long copies).
//! - So the shared side of a copy is accessed in inline assembly ([`copy`]), which does what such a `memcpy` would: to the
//!   abstract machine, a relaxed atomic access to each byte, and at its end a release. The compiler can assume nothing about
//!   what another thread does meanwhile, and the processor gives every byte old or new. Under Miri, and on other
//!   processors, the same is spelled out as atomic bytes.
//! - A copy to shared memory is visible in order where applications rely on it: its last byte, or its last eight if they are
//!   aligned, become visible after all others. Whoever loads it ([`Backing::load_u8`], acquire) and finds it new may read the
//!   rest. Segments of a message are placed in order, so that holds for messages. (RFC 5040 §5.5 promises less.)
//! - Atomics (RFC 7306) are `AtomicU64` operations on aligned words in place, hence atomic towards each other on
//!   every queue pair and towards the application's own atomics. Mixed with copies of the same word they are what the
//!   processor makes of them: an aligned word is not torn.
//! - An application that looks into the memory by itself does so by raw pointers too; a program in C or Rust should use
//!   atomics or volatile there. That its accesses may race with ours is part of the contract of [`ProtectionDomain::register`].
//!
//! # Why the memory is there when it is touched
//!
//! Every access pins the region's slot, looks it up, checks it, touches memory and unpins, in this order: [`slot`] explains why a
//! region that is being deregistered is then either found closed or waited for. [`Backing`] owns or borrows the
//! memory; it is dropped only behind that wait.

#![allow(unsafe_code)]

#[forbid(unsafe_code)]
mod slot;
#[forbid(unsafe_code)]
mod table;

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use softrdma_mpa_ddp_rdmap::{Access, AccessError, AtomicOperation, Memory, Stag, TaggedOffset};

use crate::protection_domain::ProtectionDomain;
use crate::region::{AccessFlags, MemoryRegion, RegionAccessError, RegisterError};
use slot::PinRecord;
pub(crate) use table::RegionTable;

/// Bytes of a normal page.
const PAGE: usize = 4096;

impl ProtectionDomain {
    /// A region with zeroed memory of its own, page-aligned; in huge pages if it is large enough to fill one and the
    /// system has some to spare.
    pub fn allocate(&self, length: usize, access: AccessFlags) -> Result<MemoryRegion, RegisterError> {
        check_request(length, access)?;
        let backing = Backing::allocate(length).ok_or(RegisterError::OutOfMemory { length })?;
        MemoryRegion::new(self, backing, access)
    }

    /// A region over memory of the caller.
    ///
    /// # Safety
    ///
    /// From now until [`MemoryRegion::deregister`] or [`MemoryRegion::try_deregister`] has succeeded, or the last handle of the
    /// region has been dropped (which waits for copies under way, not for requests):
    ///
    /// - `address .. address + length` must be one allocation, or mapping, that is readable, and writable if `access` has
    ///   [`AccessFlags::LOCAL_WRITE`]; it must not be freed, unmapped or truncated (a mapped file).
    /// - The memory must not be touched except by raw pointers, and except by atomic or volatile accesses where that can happen
    ///   at the same time as the protocol's: no `&mut` to it may be live, and no `&` while it can change.
    pub unsafe fn register(
        &self,
        address: *mut u8,
        length: usize,
        access: AccessFlags,
    ) -> Result<MemoryRegion, RegisterError> {
        check_request(length, access)?;
        let range = RegisterError::Range { address: address.addr(), length };
        let pointer = NonNull::new(address).ok_or(range)?;
        // Strictly below the end of the address space, so that `address + length` is a number.
        address.addr().checked_add(length).ok_or(range)?;
        MemoryRegion::new(self, Backing { pointer, length, source: Source::Foreign }, access)
    }
}

fn check_request(length: usize, access: AccessFlags) -> Result<(), RegisterError> {
    if length == 0 {
        return Err(RegisterError::Empty);
    }
    if !access.are_consistent() {
        return Err(RegisterError::NeedsLocalWrite(access));
    }
    // More is no allocation that Rust's pointers can span.
    if length > isize::MAX as usize - PAGE {
        return Err(RegisterError::OutOfMemory { length });
    }
    Ok(())
}

/// Memory as the queue pairs of one protection domain see it; each has one of its own.
///
/// It is fast for one user at a time, which writes to no memory that others read; several are served as well.
pub(crate) struct DomainMemory {
    table: Arc<RegionTable>,
    domain: u32,
    record: Arc<PinRecord>,
}

impl DomainMemory {
    pub(crate) fn new(table: &Arc<RegionTable>, domain: u32) -> Self {
        Self { table: table.clone(), domain, record: table.add_record() }
    }

    /// Bytes that were placed through this view.
    pub(crate) fn placed_bytes(&self) -> u64 {
        self.record.placed_bytes()
    }
}

impl Clone for DomainMemory {
    fn clone(&self) -> Self {
        Self::new(&self.table, self.domain)
    }
}

impl Drop for DomainMemory {
    fn drop(&mut self) {
        self.table.remove_record(&self.record);
    }
}

impl std::fmt::Debug for DomainMemory {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("DomainMemory").field("domain", &self.domain).finish_non_exhaustive()
    }
}

impl Memory for DomainMemory {
    #[inline]
    fn check(&self, stag: Stag, offset: TaggedOffset, length: u64, access: Access) -> Result<(), AccessError> {
        if length == 0 {
            return Ok(());
        }
        let slot = self.table.slot(stag.index()).ok_or(AccessError::InvalidStag(stag))?;
        slot.check(stag, self.domain, offset, length, access)
    }

    #[inline]
    fn check_beginning(
        &self,
        stag: Stag,
        offset: TaggedOffset,
        length: u64,
        access: Access,
    ) -> Result<(), AccessError> {
        if length == 0 {
            return Ok(());
        }
        let slot = self.table.slot(stag.index()).ok_or(AccessError::InvalidStag(stag))?;
        slot.check_beginning(stag, self.domain, offset, length, access)
    }

    #[inline]
    fn place(&self, stag: Stag, offset: TaggedOffset, parts: &[&[u8]], access: Access) -> Result<(), AccessError> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length == 0 {
            return Ok(());
        }
        let pin = self.table.pin(stag, &self.record).ok_or(AccessError::InvalidStag(stag))?;
        let mut target = pin.admit(stag, self.domain, offset, length as u64, access)?;
        for part in parts {
            // SAFETY: `target` has room for all parts inside a region that `admit` found to allow it, and the pin
            // keeps that region's memory; `part` is ours to read. A slice of the caller cannot overlap it: no reference to
            // registered memory exists.
            unsafe { copy::<true>(part.as_ptr(), target, part.len()) };
            target = target.wrapping_add(part.len());
        }
        pin.count_placed(&self.record, length as u64);
        Ok(())
    }

    #[inline]
    fn fetch(&self, stag: Stag, offset: TaggedOffset, out: &mut [u8], access: Access) -> Result<(), AccessError> {
        if out.is_empty() {
            return Ok(());
        }
        let pin = self.table.pin(stag, &self.record).ok_or(AccessError::InvalidStag(stag))?;
        let source = pin.admit(stag, self.domain, offset, out.len() as u64, access)?;
        // SAFETY: as in `place`, the other way round.
        unsafe { copy::<false>(source, out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    fn execute(&self, stag: Stag, offset: TaggedOffset, operation: AtomicOperation) -> Result<u64, AccessError> {
        let pin = self.table.pin(stag, &self.record).ok_or(AccessError::InvalidStag(stag))?;
        let word = pin.admit(stag, self.domain, offset, 8, Access::RemoteAtomic)?;
        if !word.addr().is_multiple_of(8) {
            return Err(AccessError::Misaligned(offset));
        }
        // SAFETY: eight aligned bytes inside a pinned region, and only atomic accesses to them: see the module.
        let word = unsafe { AtomicU64::from_ptr(word.cast()) };
        let original = match operation {
            AtomicOperation::FetchAdd { add, mask: 0 } => word.fetch_add(add, Ordering::SeqCst),
            // Changes nothing if the comparison fails, but writes all the same: so do devices.
            _ => word
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |value| Some(operation.apply(value)))
                .unwrap_or_else(|value| value),
        };
        Ok(original)
    }

    /// Ours may be invalidated by a request of ours. A peer may invalidate what it was given: a region with some remote
    /// permission, of the stream's domain (RFC 5040 §8.1). The region's handle stays; only its tag is void.
    fn invalidate(&self, stag: Stag, remote: bool) -> Result<(), AccessError> {
        self.table.close(stag, |domain, access| {
            if domain != self.domain {
                Err(AccessError::WrongProtectionDomain(stag))
            } else if remote && !access.is_remote() {
                Err(AccessError::CannotInvalidate(stag))
            } else {
                Ok(())
            }
        })
    }

    #[inline]
    fn hold(&self, stag: Stag) {
        self.table.hold(stag);
    }

    #[inline]
    fn release(&self, stag: Stag) {
        self.table.release(stag);
    }
}

/// The memory of one region.
pub(crate) struct Backing {
    pointer: NonNull<u8>,
    length: usize,
    source: Source,
}

/// Where memory came from, and so how it is given back.
enum Source {
    /// From hugepage-rs, with this layout.
    HugePages(Layout),
    /// A mapping of that many bytes.
    Pages(usize),
    /// The caller's.
    Foreign,
}

// SAFETY: it is a range of memory that every access treats as shared (see the module); nothing of it belongs to a thread.
unsafe impl Send for Backing {}
// SAFETY: as above.
unsafe impl Sync for Backing {}

impl Backing {
    fn allocate(length: usize) -> Option<Self> {
        Self::allocate_huge(length).or_else(|| Self::allocate_pages(length))
    }

    /// Huge pages, if the system has enough of them to spare. hugepage-rs panics on a kernel without them, hence the look.
    fn allocate_huge(length: usize) -> Option<Self> {
        let (size, free) = spare_huge_pages()?;
        if length < size || length.div_ceil(size) > free {
            return None;
        }
        let layout = Layout::from_size_align(length, PAGE).ok()?;
        // SAFETY: the layout is not empty: a region has at least one byte. Fresh huge pages are zero.
        let pointer = NonNull::new(unsafe { hugepage_rs::alloc(layout) })?;
        Some(Self { pointer, length, source: Source::HugePages(layout) })
    }

    fn allocate_pages(length: usize) -> Option<Self> {
        let mapped = length.checked_next_multiple_of(PAGE)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping where the kernel finds room touches no other memory. It is zero.
        let pointer = unsafe { mmap_anonymous(std::ptr::null_mut(), mapped, access, MapFlags::PRIVATE) }.ok()?;
        // A wish: with transparent huge pages large copies miss the TLB less often.
        // SAFETY: the mapping was made above, and its contents do not change.
        let _ = unsafe { madvise(pointer, mapped, Advice::LinuxHugepage) };
        Some(Self { pointer: NonNull::new(pointer.cast())?, length, source: Source::Pages(mapped) })
    }

    pub(crate) fn pointer(&self) -> *mut u8 {
        self.pointer.as_ptr()
    }

    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Whether the memory lives as long as this value.
    pub(crate) fn is_owned(&self) -> bool {
        !matches!(self.source, Source::Foreign)
    }

    pub(crate) fn is_in_huge_pages(&self) -> bool {
        matches!(self.source, Source::HugePages(_))
    }

    pub(crate) fn contains(&self, offset: usize, length: usize) -> Result<(), RegionAccessError> {
        match offset.checked_add(length) {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(RegionAccessError::OutOfBounds { offset, length, region: self.length }),
        }
    }

    // The accesses below touch memory: who calls them on memory that is not owned makes sure that it is still registered.

    pub(crate) fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), RegionAccessError> {
        self.contains(offset, out.len())?;
        // SAFETY: inside the memory, which is there (owned, or registered: see above); `out` is the caller's alone.
        unsafe { copy::<false>(self.pointer().wrapping_add(offset), out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), RegionAccessError> {
        self.contains(offset, bytes.len())?;
        // SAFETY: as in `read`.
        unsafe { copy::<true>(bytes.as_ptr(), self.pointer().wrapping_add(offset), bytes.len()) };
        Ok(())
    }

    pub(crate) fn load_u8(&self, offset: usize) -> Result<u8, RegionAccessError> {
        self.contains(offset, 1)?;
        // SAFETY: inside the memory, which is there, and which only atomic accesses touch: see the module.
        Ok(unsafe { AtomicU8::from_ptr(self.pointer().wrapping_add(offset)) }.load(Ordering::Acquire))
    }

    pub(crate) fn load_u64(&self, offset: usize) -> Result<u64, RegionAccessError> {
        // SAFETY: `word` checked bounds and alignment; otherwise as in `load_u8`.
        Ok(unsafe { AtomicU64::from_ptr(self.word(offset)?) }.load(Ordering::Acquire))
    }

    pub(crate) fn store_u64(&self, offset: usize, value: u64) -> Result<(), RegionAccessError> {
        // SAFETY: as in `load_u64`.
        unsafe { AtomicU64::from_ptr(self.word(offset)?) }.store(value, Ordering::Release);
        Ok(())
    }

    fn word(&self, offset: usize) -> Result<*mut u64, RegionAccessError> {
        self.contains(offset, 8)?;
        let word = self.pointer().wrapping_add(offset).cast::<u64>();
        if word.is_aligned() { Ok(word) } else { Err(RegionAccessError::Misaligned { offset }) }
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        match self.source {
            // SAFETY: it came from there with this layout, and nothing touches it any more: see the module.
            Source::HugePages(layout) => unsafe { hugepage_rs::dealloc(self.pointer(), layout) },
            Source::Pages(mapped) => {
                // SAFETY: our mapping, that long, and nothing touches it any more: see the module.
                let unmapped = unsafe { munmap(self.pointer().cast(), mapped) };
                debug_assert!(unmapped.is_ok());
            }
            Source::Foreign => {}
        }
    }
}

/// Size of a huge page, and how many are free and not promised to anybody; `None` if the kernel has none.
fn spare_huge_pages() -> Option<(usize, usize)> {
    parse_huge_pages(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_huge_pages(information: &str) -> Option<(usize, usize)> {
    let value = |name: &str| -> Option<usize> {
        let line = information.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let size = value("Hugepagesize")?.checked_mul(1024)?;
    let free = value("HugePages_Free")?.checked_sub(value("HugePages_Rsvd")?)?;
    (size > 0 && free > 0).then_some((size, free))
}

/// From this length on the processor's own string copy is faster than a loop, unless it stores to memory that is in no cache.
const STRING_COPY: usize = 1024;
/// From this length on a loop asks for the lines that it will store to, so many bytes ahead of itself: a region is larger than
/// the cache. Behind the end of a part of a message are mostly the bytes of the next.
const AHEAD: usize = 512;

/// Copies `length` bytes, either side of which may be shared: see the module. The last byte becomes visible last; if the
/// target's end is aligned to eight bytes, the last eight do, at once. `TO_REGION`: the target is rather in no cache.
///
/// # Safety
///
/// `source` must be readable and `target` writable for `length` bytes; they must not overlap; neither may be accessed
/// meanwhile, except by atomic accesses in the sense of the module where it is shared memory.
#[inline]
#[cfg(all(target_arch = "x86_64", not(miri)))]
unsafe fn copy<const TO_REGION: bool>(source: *const u8, target: *mut u8, length: usize) {
    let last = if length >= 8 && (target.addr() + length).is_multiple_of(8) { 8 } else { 1.min(length) };
    let body = length - last;
    // SAFETY: `body + last` is the caller's length; each of the calls stays in its part.
    unsafe {
        copy_body::<TO_REGION>(source, target, body);
        let (source, target) = (source.wrapping_add(body), target.wrapping_add(body));
        // The target's stores keep the program's order on x86-64, and a store behind a string copy stays behind it: this one
        // is the release.
        match last {
            8 => std::arch::asm!("mov {word}, [{source}]", "mov [{target}], {word}", word = out(reg) _,
                source = in(reg) source, target = in(reg) target, options(nostack, preserves_flags)),
            1 => std::arch::asm!("mov {byte}, [{source}]", "mov [{target}], {byte}", byte = out(reg_byte) _,
                source = in(reg) source, target = in(reg) target, options(nostack, preserves_flags)),
            _ => {}
        }
    }
}

/// Copies `length` bytes upwards, none twice.
///
/// # Safety
///
/// As [`copy`].
#[inline]
#[cfg(all(target_arch = "x86_64", not(miri)))]
unsafe fn copy_body<const TO_REGION: bool>(mut source: *const u8, mut target: *mut u8, length: usize) {
    if length >= STRING_COPY && !TO_REGION {
        // SAFETY: reads and writes `length` bytes upwards (the direction flag is clear by the calling convention).
        unsafe {
            std::arch::asm!("rep movsb", inout("rcx") length => _, inout("rsi") source => _,
                inout("rdi") target => _, options(nostack, preserves_flags));
        }
        return;
    }
    let asks_ahead = TO_REGION && length >= STRING_COPY;
    for _ in 0..length / 64 {
        if asks_ahead {
            // SAFETY: a hint, which accesses nothing, wherever it points.
            unsafe {
                std::arch::asm!("prefetchw [{target} + {ahead}]", target = in(reg) target, ahead = const AHEAD,
                    options(nostack, preserves_flags, readonly));
            }
        }
        // SAFETY: 64 bytes, and there are that many blocks of them.
        unsafe {
            std::arch::asm!(
                "movups {a}, [{source}]",
                "movups {b}, [{source} + 16]",
                "movups {c}, [{source} + 32]",
                "movups {d}, [{source} + 48]",
                "movups [{target}], {a}",
                "movups [{target} + 16], {b}",
                "movups [{target} + 32], {c}",
                "movups [{target} + 48], {d}",
                source = in(reg) source, target = in(reg) target,
                a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
                options(nostack, preserves_flags),
            );
        }
        source = source.wrapping_add(64);
        target = target.wrapping_add(64);
    }
    // SAFETY: what the blocks left.
    unsafe { copy_rest(source, target, length % 64) };
}

/// Copies `length` bytes, fewer than 64.
///
/// # Safety
///
/// As [`copy`].
#[inline]
#[cfg(all(target_arch = "x86_64", not(miri)))]
unsafe fn copy_rest(source: *const u8, target: *mut u8, length: usize) {
    // SAFETY: blocks of 16 bytes while 16 are left, then at most one each of 8, 4, 2 and 1 by the bits of what is left: together
    // `length` bytes upwards.
    unsafe {
        std::arch::asm!(
            "sub {left}, 16",
            "jb 3f",
            "2:",
            "movups {block}, [{source}]",
            "movups [{target}], {block}",
            "add {source}, 16",
            "add {target}, 16",
            "sub {left}, 16",
            "jae 2b",
            // Below, `left` is 16 too low: the same in its lowest four bits.
            "3:",
            "test {left:l}, 8",
            "jz 4f",
            "mov {word}, [{source}]",
            "mov [{target}], {word}",
            "add {source}, 8",
            "add {target}, 8",
            "4:",
            "test {left:l}, 4",
            "jz 5f",
            "mov {word:e}, [{source}]",
            "mov [{target}], {word:e}",
            "add {source}, 4",
            "add {target}, 4",
            "5:",
            "test {left:l}, 2",
            "jz 6f",
            "mov {word:x}, [{source}]",
            "mov [{target}], {word:x}",
            "add {source}, 2",
            "add {target}, 2",
            "6:",
            "test {left:l}, 1",
            "jz 7f",
            "mov {word:l}, [{source}]",
            "mov [{target}], {word:l}",
            "7:",
            source = inout(reg) source => _, target = inout(reg) target => _, left = inout(reg) length => _,
            word = out(reg) _, block = out(xmm_reg) _, options(nostack),
        );
    }
}

/// The same in the terms of the abstract machine.
///
/// # Safety
///
/// As above.
#[cfg(any(not(target_arch = "x86_64"), miri))]
unsafe fn copy<const TO_REGION: bool>(source: *const u8, target: *mut u8, length: usize) {
    for index in 0..length {
        // Either side may be the shared one.
        // SAFETY: inside what the caller answers for.
        let byte = unsafe { AtomicU8::from_ptr(source.wrapping_add(index).cast_mut()) }.load(Ordering::Relaxed);
        let order = if index + 1 == length { Ordering::Release } else { Ordering::Relaxed };
        // SAFETY: as above.
        unsafe { AtomicU8::from_ptr(target.wrapping_add(index)) }.store(byte, order);
    }
}

#[cfg(test)]
mod tests;
