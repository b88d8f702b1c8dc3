//! Memory that several processes have mapped: the only unsafe file of this crate.
//!
//! Whoever has it mapped may write anything anywhere at any time. So nothing outside of this file has a pointer or a reference into it,
//! but for single words, which are atomic: a value is looked at once, copied, and then checked. Bytes are copied in inline
//! assembly, which to the compiler is what a `memcpy` of relaxed atomic bytes would be (the standard library has none): it
//! may assume nothing about what others do meanwhile, and a race gives old or new bytes, never undefined behaviour.
//!
//! The size of the memory is sealed before it is mapped, by its maker as by everybody else: no access can fault because
//! somebody has shortened it.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch};
use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// Bytes of a cache line.
const LINE: usize = 64;

/// The seals without which memory of another process is not mapped.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Why memory of another process is not mapped.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It could be shortened while it is mapped.
    #[error("the memory's size is not sealed")]
    NotSealed,
    /// It is not as large as was said.
    #[error("the memory has {actual} bytes, {expected} were announced")]
    Size {
        /// Bytes announced.
        expected: usize,
        /// Bytes there are.
        actual: u64,
    },
    /// The kernel said no.
    #[error("mapping the memory: {0}")]
    Kernel(#[from] Errno),
}

/// Memory that is mapped here and perhaps in other processes. A child of `fork` has it too.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    length: usize,
    is_writable: bool,
}

// SAFETY: the mapping belongs to no thread, and all access is by atomic words and by copies that may race.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// New memory of `length` zeroed bytes (whole pages), none of which costs anything before it is touched, and what
    /// another process needs to map it. `name` shows in /proc/PID/maps and in the link of the descriptor.
    pub fn create(name: &str, length: usize) -> io::Result<(Self, OwnedFd)> {
        let memory = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&memory, length as u64)?;
        fcntl_add_seals(&memory, SEALS)?;
        Ok((Self::map(&memory, length, true)?, memory))
    }

    /// The memory behind `memory`, which must be sealed and have `length` bytes.
    pub fn attach(memory: impl AsFd, length: usize) -> Result<Self, AttachError> {
        Self::attach_as(memory, length, true)
    }

    /// The same to look at: everything that writes panics.
    pub fn attach_to_read(memory: impl AsFd, length: usize) -> Result<Self, AttachError> {
        Self::attach_as(memory, length, false)
    }

    fn attach_as(memory: impl AsFd, length: usize, is_writable: bool) -> Result<Self, AttachError> {
        if !fcntl_get_seals(&memory)?.contains(SEALS) {
            return Err(AttachError::NotSealed);
        }
        let actual = fstat(&memory)?.st_size as u64;
        if actual != length as u64 {
            return Err(AttachError::Size { expected: length, actual });
        }
        Ok(Self::map(&memory, length, is_writable)?)
    }

    fn map(memory: impl AsFd, length: usize, is_writable: bool) -> Result<Self, Errno> {
        if length == 0 || !length.is_multiple_of(PAGE) {
            return Err(Errno::INVAL);
        }
        let protection = if is_writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that anybody has.
        let base = unsafe { mmap(ptr::null_mut(), length, protection, MapFlags::SHARED, memory, 0) }?;
        // What others have written has no place in a core dump; that it is not left out is no error.
        // SAFETY: the range is the mapping made just now; the advice changes no bytes.
        let _ = unsafe { madvise(base, length, Advice::LinuxDontDump) };
        let base = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { base, length, is_writable })
    }

    /// Bytes of it.
    pub const fn length(&self) -> usize {
        self.length
    }

    /// The word at `offset`, in which anything may stand.
    ///
    /// # Panics
    ///
    /// If it does not lie in the memory at a multiple of eight. Offsets are ours, never a peer's.
    #[inline]
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < self.length, "no word at {offset} of {} bytes", self.length);
        // SAFETY: in the mapping (whole pages, so eight bytes from an aligned offset inside are inside), aligned, and
        // mapped as long as `self` lives. All accesses to words are atomic; copies go through assembly.
        unsafe { &*self.base.as_ptr().add(offset).cast::<AtomicU64>() }
    }

    /// The words from `offset` on, in which anything may stand.
    ///
    /// # Panics
    ///
    /// As [`Self::word`].
    #[inline]
    pub fn words<const N: usize>(&self, offset: usize) -> &[AtomicU64; N] {
        assert!(offset.is_multiple_of(8), "no word at {offset}");
        self.check(offset, 8 * N);
        // SAFETY: in the mapping and aligned, as `word`, all of them.
        unsafe { &*self.base.as_ptr().add(offset).cast::<[AtomicU64; N]>() }
    }

    /// Copies `length` bytes of `source`, from its byte `from` on, to `offset`. Whoever sees a word that is stored afterwards
    /// (release) sees them.
    ///
    /// # Panics
    ///
    /// If they do not lie in the memory or in the source, or the memory is mapped to read.
    #[inline]
    pub fn copy_from(&self, offset: usize, source: &Source<'_>, from: usize, length: usize) {
        self.check(offset, length);
        assert!(self.is_writable, "memory mapped to read is not written");
        assert!(
            from <= source.0.iov_len && length <= source.0.iov_len - from,
            "{length} bytes from {from} of a source"
        );
        // SAFETY: checked above to lie in the mapping, and in what the maker of the source has vouched for.
        unsafe { copy(self.base.as_ptr().add(offset), source.0.iov_base.cast::<u8>().add(from), length) }
    }

    /// Copies `length` bytes at `offset` to `target`, from its byte `to` on.
    ///
    /// # Panics
    ///
    /// If they do not lie in the memory or in the target.
    #[inline]
    pub fn copy_to(&self, offset: usize, target: &Target<'_>, to: usize, length: usize) {
        self.check(offset, length);
        assert!(to <= target.0.iov_len && length <= target.0.iov_len - to, "{length} bytes to {to} of a target");
        // SAFETY: as in `copy_from`.
        unsafe { copy(target.0.iov_base.cast::<u8>().add(to), self.base.as_ptr().add(offset), length) }
    }

    /// Fetches the cache lines at `offset` that will be written next. Another processor has them, as it has read what stood there;
    /// a store that finds them missing is waited for by the next barrier.
    #[inline]
    pub fn prefetch_to_write(&self, offset: usize, length: usize) {
        for at in (offset..offset + length).step_by(LINE).take_while(|at| *at < self.length) {
            // SAFETY: a hint about an address in the mapping.
            #[cfg(target_arch = "x86_64")]
            unsafe {
                _mm_prefetch::<_MM_HINT_ET0>(self.base.as_ptr().add(at).cast());
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = at;
        }
    }

    /// The same for lines that will be read next.
    #[inline]
    pub fn prefetch_to_read(&self, offset: usize, length: usize) {
        for at in (offset..offset + length).step_by(LINE).take_while(|at| *at < self.length) {
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(self.base.as_ptr().add(at).cast());
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = at;
        }
    }

    /// Copies `bytes` to `offset`. Whoever sees a word that is stored afterwards (release) sees them.
    ///
    /// # Panics
    ///
    /// If they do not lie in the memory, or it is mapped to read.
    #[inline]
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len());
        assert!(self.is_writable, "memory mapped to read is not written");
        // SAFETY: checked above to lie in the mapping; `bytes` is a slice, and never one of this memory.
        unsafe { copy(self.base.as_ptr().add(offset), bytes.as_ptr(), bytes.len()) }
    }

    /// Copies what stands at `offset` to `bytes`.
    ///
    /// # Panics
    ///
    /// If it does not lie in the memory.
    #[inline]
    pub fn copy_out(&self, offset: usize, bytes: &mut [MaybeUninit<u8>]) {
        self.check(offset, bytes.len());
        // SAFETY: as in `copy_in`.
        unsafe { copy(bytes.as_mut_ptr().cast(), self.base.as_ptr().add(offset), bytes.len()) }
    }

    /// Gives the pages that lie wholly in `range` back to the system; they read as zeros afterwards.
    pub fn discard(&self, range: Range<usize>) {
        let (start, end) = (range.start.next_multiple_of(PAGE), range.end.min(self.length) / PAGE * PAGE);
        if start < end && self.is_writable {
            // SAFETY: the range lies in the mapping, and its bytes may change at any time as far as anybody knows.
            let _ =
                unsafe { madvise(self.base.as_ptr().add(start).cast::<c_void>(), end - start, Advice::LinuxRemove) };
        }
    }

    #[inline]
    fn check(&self, offset: usize, length: usize) {
        let end = offset.checked_add(length);
        assert!(end.is_some_and(|end| end <= self.length), "{length} bytes at {offset} of {}", self.length);
    }
}

/// Bytes of a program, to be sent: as the kernel would, we copy what is there, whoever changes it meanwhile.
#[repr(transparent)]
pub struct Source<'a>(libc::iovec, PhantomData<&'a [u8]>);

/// Memory of a program, to be filled.
#[repr(transparent)]
pub struct Target<'a>(libc::iovec, PhantomData<&'a mut [u8]>);

impl<'a> Source<'a> {
    /// These bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }, PhantomData)
    }

    /// The parts that `parts` of a program's call names.
    ///
    /// # Safety
    ///
    /// `parts` must point to `count` iovecs, or `count` be 0, and each of them to memory that can be read for `'a`.
    pub const unsafe fn from_iovecs(parts: *const libc::iovec, count: usize) -> &'a [Self] {
        if count == 0 {
            return &[];
        }
        // SAFETY: a source is an iovec, and the caller vouches for these.
        unsafe { std::slice::from_raw_parts(parts.cast(), count) }
    }

    /// Bytes of it.
    pub const fn length(&self) -> usize {
        self.0.iov_len
    }

    /// Where it is, and its bytes: for a call that hands it on.
    pub const fn as_raw(&self) -> (*mut c_void, usize) {
        (self.0.iov_base, self.0.iov_len)
    }
}

impl<'a> Target<'a> {
    /// This memory.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self(libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }, PhantomData)
    }

    /// The parts that `parts` of a program's call names.
    ///
    /// # Safety
    ///
    /// `parts` must point to `count` iovecs, or `count` be 0, and each of them to memory that can be written for `'a`.
    pub const unsafe fn from_iovecs(parts: *const libc::iovec, count: usize) -> &'a [Self] {
        if count == 0 {
            return &[];
        }
        // SAFETY: a target is an iovec, and the caller vouches for these.
        unsafe { std::slice::from_raw_parts(parts.cast(), count) }
    }

    /// Bytes of it.
    pub const fn length(&self) -> usize {
        self.0.iov_len
    }

    /// Where it is, and its bytes: for a call that hands it on.
    pub const fn as_raw(&self) -> (*mut c_void, usize) {
        (self.0.iov_base, self.0.iov_len)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing borrowed from it outlives `self`.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.length) };
    }
}

/// Lengths that are copied in steps of sixteen bytes.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const SHORT: std::ops::RangeInclusive<usize> = 16..=256;

/// Copies `length` bytes, at least one side of which others may be reading and writing.
///
/// # Safety
///
/// Both ranges must be mapped for the access, and must not overlap.
#[inline]
unsafe fn copy(to: *mut u8, from: *const u8, length: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if SHORT.contains(&length) {
        // SAFETY: reads and writes just the two ranges that the caller vouches for, which are not shorter than one step: the
        // last one ends where they do. The string instruction below takes longer to begin than this to end.
        unsafe {
            std::arch::asm!(
                "2:",
                "movups {bytes}, [{from} + {at}]",
                "movups [{to} + {at}], {bytes}",
                "add {at}, 16",
                "cmp {at}, {last}",
                "jb 2b",
                "movups {bytes}, [{from} + {last}]",
                "movups [{to} + {last}], {bytes}",
                bytes = out(xmm_reg) _,
                from = in(reg) from,
                to = in(reg) to,
                at = inout(reg) 0_usize => _,
                last = in(reg) length - SHORT.start(),
                options(nostack),
            );
        }
        return;
    }
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: reads and writes just the two ranges that the caller vouches for; the direction flag is clear by the ABI.
    // Without `nomem` the compiler takes it for an access to any memory.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") length => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags),
        );
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    for at in 0..length {
        use std::sync::atomic::{AtomicU8, Ordering};
        // SAFETY: both bytes are in the ranges that the caller vouches for; one of them may be memory of a plain slice,
        // to which nobody else has access now.
        unsafe {
            let byte = (*from.add(at).cast::<AtomicU8>()).load(Ordering::Relaxed);
            (*to.add(at).cast::<AtomicU8>()).store(byte, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    fn read(region: &Region, offset: usize, length: usize) -> Vec<u8> {
        let mut bytes = vec![MaybeUninit::new(0xAA); length];
        region.copy_out(offset, &mut bytes);
        // SAFETY: every byte was written, by `vec!` already.
        bytes.into_iter().map(|byte| unsafe { byte.assume_init() }).collect()
    }

    #[test]
    fn what_one_mapping_writes_the_other_reads() {
        let (ours, memory) = Region::create("test", 2 * PAGE).unwrap();
        let theirs = Region::attach(&memory, 2 * PAGE).unwrap();
        ours.copy_in(PAGE - 2, b"over the edge");
        ours.word(8).store(7, Ordering::Release);
        assert_eq!(theirs.word(8).load(Ordering::Acquire), 7);
        assert_eq!(read(&theirs, PAGE - 2, 13), b"over the edge");
        theirs.discard(0..2 * PAGE);
        assert_eq!(read(&ours, PAGE - 2, 13), [0; 13]);
    }

    #[test]
    fn memory_that_could_shrink_is_not_mapped() {
        let memory = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&memory, PAGE as u64).unwrap();
        assert!(matches!(Region::attach(&memory, PAGE), Err(AttachError::NotSealed)));
        let (_, memory) = Region::create("test", PAGE).unwrap();
        assert!(matches!(Region::attach(&memory, 2 * PAGE), Err(AttachError::Size { actual: 4096, .. })));
        assert!(ftruncate(&memory, 0).is_err());
    }

    #[test]
    #[should_panic(expected = "bytes at 4090 of 4096")]
    fn a_copy_past_the_end_panics() {
        Region::create("test", PAGE).unwrap().0.copy_in(4090, &[0; 7]);
    }

    #[test]
    #[should_panic(expected = "mapped to read")]
    fn memory_mapped_to_read_is_not_written() {
        let (_, memory) = Region::create("test", PAGE).unwrap();
        Region::attach_to_read(&memory, PAGE).unwrap().copy_in(0, &[1]);
    }
}
