//! Memory regions: memory that the protocol may reach, by tag.

use std::ops::BitOr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use softrdma_mpa_ddp_rdmap::{Access, Segment, Stag, TaggedOffset};

use crate::memory::Backing;
use crate::protection_domain::ProtectionDomain;

/// How long [`MemoryRegion::deregister`] waits for requests that refer to the region.
pub const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(30);

/// What may be done with a region besides reading it locally. The values are those of `ibv_access_flags`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AccessFlags(u8);

impl AccessFlags {
    /// Nothing but local reads: a source of Sends and Writes.
    pub const LOCAL_READ: Self = Self(0);
    /// A sink of receives and Reads.
    pub const LOCAL_WRITE: Self = Self(1 << 0);
    /// Peers may write it; needs [`Self::LOCAL_WRITE`].
    pub const REMOTE_WRITE: Self = Self(1 << 1);
    /// Peers may read it.
    pub const REMOTE_READ: Self = Self(1 << 2);
    /// Peers may execute atomics on it; needs [`Self::LOCAL_WRITE`].
    pub const REMOTE_ATOMIC: Self = Self(1 << 3);
    /// All of them.
    pub const ALL: Self = Self(0b1111);

    /// The flags as verbs numbers them.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The flags of `bits`; bits that mean nothing are dropped.
    pub const fn from_bits_truncate(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// Whether all of `flags` are in it.
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Whether peers may do anything.
    pub const fn is_remote(self) -> bool {
        self.0 & (Self::REMOTE_WRITE.0 | Self::REMOTE_READ.0 | Self::REMOTE_ATOMIC.0) != 0
    }

    /// Whether a region with these flags allows `access`.
    #[inline]
    pub const fn allow(self, access: Access) -> bool {
        match access {
            Access::LocalRead => true,
            Access::LocalWrite => self.contains(Self::LOCAL_WRITE),
            Access::RemoteRead => self.contains(Self::REMOTE_READ),
            Access::RemoteWrite => self.contains(Self::REMOTE_WRITE),
            Access::RemoteAtomic => self.contains(Self::REMOTE_ATOMIC),
        }
    }

    /// Verbs' rule: what a peer may change, the host may change.
    pub const fn are_consistent(self) -> bool {
        self.contains(Self::LOCAL_WRITE) || self.0 & (Self::REMOTE_WRITE.0 | Self::REMOTE_ATOMIC.0) == 0
    }
}

impl BitOr for AccessFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Why a region could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The device's limit is reached.
    #[error("the device's limit of {limit} memory regions is reached; deregister some or raise `limits.max_regions`")]
    TooManyRegions {
        /// The limit.
        limit: usize,
    },
    /// Remote write or atomic without local write.
    #[error("{0:?} lets peers change memory that the host may not; add AccessFlags::LOCAL_WRITE")]
    NeedsLocalWrite(AccessFlags),
    /// The range does not fit into the address space, or is null.
    #[error("{length} bytes at {address:#x} are no range of memory")]
    Range {
        /// Start.
        address: usize,
        /// Bytes.
        length: usize,
    },
    /// A region needs at least one byte.
    #[error("a memory region needs at least one byte")]
    Empty,
    /// The system has not that much.
    #[error("the system refused {length} bytes of memory")]
    OutOfMemory {
        /// Bytes asked for.
        length: usize,
    },
}

/// Requests still refer to the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{holds} requests still refer to memory region {stag:?}; let them complete, or disconnect their queue pairs, and try again"
)]
pub struct Busy {
    /// The region.
    pub stag: Stag,
    /// How many requests.
    pub holds: u32,
}

/// Why the application could not reach a region through its handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionAccessError {
    /// Part of the range lies outside.
    #[error("{length} bytes at offset {offset} lie outside the region's {region} bytes")]
    OutOfBounds {
        /// Offset from the region's start.
        offset: usize,
        /// Bytes asked for.
        length: usize,
        /// Bytes of the region.
        region: usize,
    },
    /// Eight bytes that are to be accessed at once must be aligned so.
    #[error("offset {offset} is not aligned to eight bytes")]
    Misaligned {
        /// Offset from the region's start.
        offset: usize,
    },
    /// Registered memory that was deregistered belongs to its owner again.
    #[error("the region was deregistered")]
    Deregistered,
}

/// Memory that the protocol may reach. Clones name the same region.
///
/// Dropping the last handle deregisters it, without waiting for requests that still refer to it: memory from
/// [`ProtectionDomain::allocate`] lives on until they complete, memory from [`ProtectionDomain::register`] is taken away from
/// them, and they fail. [`Self::deregister`] waits instead.
#[derive(Clone)]
pub struct MemoryRegion(Arc<RegionShared>);

struct RegionShared {
    stag: Stag,
    access: AccessFlags,
    domain: ProtectionDomain,
    /// `None` only while it is dropped.
    backing: Option<Backing>,
    /// Whether the registration has ended. Held while it ends, so that one caller ends it.
    deregistered: Mutex<bool>,
}

impl MemoryRegion {
    pub(crate) fn new(domain: &ProtectionDomain, backing: Backing, access: AccessFlags) -> Result<Self, RegisterError> {
        let stag = domain.table().publish(&backing, domain.number(), access)?;
        let (domain, deregistered) = (domain.clone(), Mutex::new(false));
        Ok(Self(Arc::new(RegionShared { stag, access, domain, backing: Some(backing), deregistered })))
    }

    /// The tag for local use.
    pub fn lkey(&self) -> Stag {
        self.0.stag
    }

    /// The tag for a peer's use. The same as [`Self::lkey`]: on iWARP one tag serves both.
    pub fn rkey(&self) -> Stag {
        self.0.stag
    }

    /// Where it starts: the first offset of its tag.
    pub fn address(&self) -> u64 {
        self.0.backing().pointer().addr() as u64
    }

    /// Where it starts, for programs that look into the memory themselves. A region from [`ProtectionDomain::allocate`]
    /// is page-aligned and stays as long as a handle to it. Peers may change it at any time.
    pub fn as_ptr(&self) -> *mut u8 {
        self.0.backing().pointer()
    }

    /// Bytes.
    pub fn length(&self) -> usize {
        self.0.backing().length()
    }

    /// What may be done with it.
    pub fn access(&self) -> AccessFlags {
        self.0.access
    }

    /// The domain it belongs to.
    pub fn protection_domain(&self) -> &ProtectionDomain {
        &self.0.domain
    }

    /// Whether it lies in huge pages.
    pub fn is_in_huge_pages(&self) -> bool {
        self.0.backing().is_in_huge_pages()
    }

    /// `length` bytes at `offset` from its start, for a request. Whether they lie inside is checked when they are used.
    pub fn segment(&self, offset: usize, length: u32) -> Segment {
        Segment { stag: self.0.stag, offset: TaggedOffset(self.address().wrapping_add(offset as u64)), length }
    }

    /// Copies bytes from `offset` on into `out`. While a peer writes there, `out` may hold some old and some new bytes.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), RegionAccessError> {
        self.with_backing(|backing| backing.read(offset, out))
    }

    /// Copies `bytes` to `offset`. A reader that finds the last byte new finds all of them new.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), RegionAccessError> {
        self.with_backing(|backing| backing.write(offset, bytes))
    }

    /// Sets `length` bytes from `offset` on to `value`.
    pub fn fill(&self, offset: usize, length: usize, value: u8) -> Result<(), RegionAccessError> {
        const PIECE: usize = 4096;
        let bytes = [value; PIECE];
        self.with_backing(|backing| {
            backing.contains(offset, length)?;
            for start in (0..length).step_by(PIECE) {
                backing.write(offset + start, &bytes[..PIECE.min(length - start)])?;
            }
            Ok(())
        })
    }

    /// The byte at `offset`, now: to wait for a peer's Write by looking at its last byte. What was placed before it is seen
    /// by a [`Self::read`] afterwards.
    pub fn load_u8(&self, offset: usize) -> Result<u8, RegionAccessError> {
        self.with_backing(|backing| backing.load_u8(offset))
    }

    /// The eight aligned bytes at `offset`, now and at once, in the host's byte order.
    pub fn load_u64(&self, offset: usize) -> Result<u64, RegionAccessError> {
        self.with_backing(|backing| backing.load_u64(offset))
    }

    /// Replaces the eight aligned bytes at `offset` at once.
    pub fn store_u64(&self, offset: usize, value: u64) -> Result<(), RegionAccessError> {
        self.with_backing(|backing| backing.store_u64(offset, value))
    }

    fn with_backing<T>(
        &self,
        access: impl FnOnce(&Backing) -> Result<T, RegionAccessError>,
    ) -> Result<T, RegionAccessError> {
        let backing = self.0.backing();
        if backing.is_owned() {
            // It lives as long as this handle, registered or not.
            return access(backing);
        }
        self.0
            .domain
            .table()
            .while_registered(self.0.stag, || access(backing))
            .ok_or(RegionAccessError::Deregistered)?
    }

    /// Makes the tag unusable for peers and for new requests, at once. Requests that refer to it already go on.
    pub fn invalidate_now(&self) {
        self.0.close();
    }

    /// Whether its tag works.
    pub fn is_valid(&self) -> bool {
        self.0.domain.table().is_open(self.0.stag)
    }

    /// Requests that refer to it, from when they leave their queue until they complete.
    pub fn holds(&self) -> u32 {
        self.0.domain.table().holds(self.0.stag)
    }

    /// Ends the registration, or tells that requests still refer to the region; its tag is unusable for peers and new requests
    /// in either case. After success nothing of the device touches the memory any more. Done twice it succeeds twice.
    pub fn try_deregister(&self) -> Result<(), Busy> {
        self.0.close();
        let mut deregistered = self.0.deregistered.lock().unwrap_or_else(PoisonError::into_inner);
        if !*deregistered {
            let stag = self.0.stag;
            self.0.domain.table().finish(stag).map_err(|holds| Busy { stag, holds })?;
            *deregistered = true;
        }
        Ok(())
    }

    /// As [`Self::try_deregister`], but drives the device and waits while requests refer to the region, at most
    /// [`DEREGISTER_TIMEOUT`].
    pub fn deregister(&self) -> Result<(), Busy> {
        let begin = Instant::now();
        let mut rounds = 0_u32;
        loop {
            match self.try_deregister() {
                Err(_) if begin.elapsed() < DEREGISTER_TIMEOUT => {}
                result => return result,
            }
            self.0.domain.device().progress();
            rounds += 1;
            // The device may need the CPU that this spins on.
            if rounds > 100 {
                std::thread::sleep(Duration::from_micros(50));
            } else {
                std::thread::yield_now();
            }
        }
    }
}

impl PartialEq for MemoryRegion {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for MemoryRegion {}

impl std::fmt::Debug for MemoryRegion {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("MemoryRegion")
            .field("stag", &self.0.stag)
            .field("address", &format_args!("{:#x}", self.address()))
            .field("length", &self.length())
            .field("access", &self.0.access)
            .finish()
    }
}

impl RegionShared {
    fn backing(&self) -> &Backing {
        self.backing.as_ref().expect("only Drop takes it")
    }

    fn close(&self) {
        // It may have been invalidated, by a peer or by a request, or closed already.
        let _ = self.domain.table().close(self.stag, |_, _| Ok(()));
    }
}

impl Drop for RegionShared {
    fn drop(&mut self) {
        if *self.deregistered.get_mut().unwrap_or_else(PoisonError::into_inner) {
            return;
        }
        self.close();
        let backing = self.backing.take().expect("only Drop takes it");
        if backing.is_owned() {
            self.domain.table().orphan(self.stag, backing);
        } else {
            self.domain.table().revoke(self.stag);
        }
    }
}

#[cfg(test)]
mod tests;
