//! How the protocol reaches memory: by tag and offset, through one trait, checked every time.

use crate::types::{Stag, TaggedOffset};

/// What an access is for; the region must allow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Source of an outgoing Send or Write: any region of ours.
    LocalRead,
    /// Sink of a receive or of a Read response: needs local write permission.
    LocalWrite,
    /// Source of a Read response: the peer needs remote read permission.
    RemoteRead,
    /// Target of a peer's Write: remote write permission.
    RemoteWrite,
    /// Target of a peer's atomic: remote atomic permission.
    RemoteAtomic,
}

/// Why memory cannot be reached; decides the TERMINATE code or the completion status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// No such region, or the key is wrong, or it was invalidated.
    #[error("steering tag {0:?} names no valid region")]
    InvalidStag(Stag),
    /// The region belongs to another protection domain.
    #[error("steering tag {0:?} belongs to another protection domain")]
    WrongProtectionDomain(Stag),
    /// Part of the range lies outside the region.
    #[error("{length} bytes at offset {offset:?} lie outside the region of {stag:?}")]
    OutOfBounds {
        /// The region.
        stag: Stag,
        /// Start of the access.
        offset: TaggedOffset,
        /// Its length.
        length: u64,
    },
    /// `offset + length` exceeds 64 bits.
    #[error("offset {0:?} wraps around")]
    Wrap(TaggedOffset),
    /// The region does not allow this access.
    #[error("region of {0:?} does not allow {1:?}")]
    Denied(Stag, Access),
    /// An atomic's address is no multiple of eight.
    #[error("atomic at {0:?} is not aligned to eight bytes")]
    Misaligned(TaggedOffset),
    /// The region cannot be invalidated by a peer.
    #[error("steering tag {0:?} cannot be invalidated")]
    CannotInvalidate(Stag),
}

/// An atomic operation on eight bytes of memory, in the host's byte order (RFC 7306).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicOperation {
    /// Adds, carries stopping at the set bits of the mask (0: one 64-bit addition).
    FetchAdd {
        /// Addend.
        add: u64,
        /// Field boundaries.
        mask: u64,
    },
    /// Replaces the bits of `swap_mask` by `swap` if the bits of `compare_mask` equal `compare`.
    CompareSwap {
        /// Expected value.
        compare: u64,
        /// Bits that are compared.
        compare_mask: u64,
        /// New value.
        swap: u64,
        /// Bits that are replaced.
        swap_mask: u64,
    },
}

impl AtomicOperation {
    /// The value that replaces `original`.
    pub fn apply(&self, original: u64) -> u64 {
        match *self {
            Self::FetchAdd { add, mask } => masked_add(original, add, mask),
            Self::CompareSwap { compare, compare_mask, swap, swap_mask } => {
                if (original ^ compare) & compare_mask == 0 {
                    (original & !swap_mask) | (swap & swap_mask)
                } else {
                    original
                }
            }
        }
    }
}

/// Adds field by field: a set bit in `mask` is the most significant bit of a field, no carry leaves it.
fn masked_add(original: u64, add: u64, mask: u64) -> u64 {
    // Sum everything but the fields' top bits, whose carries then cannot cross; the top bits are added without carry.
    let low = (original & !mask).wrapping_add(add & !mask);
    low ^ ((original ^ add) & mask)
}

/// Registered memory, seen from one queue pair (its protection domain is implied). Every call checks tag, key, protection
/// domain, permission and bounds without wrap-around.
///
/// The memory may be read and written by the application at the same time, so no reference to it is ever given out.
pub trait Memory {
    /// Whether `length` bytes at `offset` may be accessed so. A length of zero checks nothing (RFC 5040: a zero-length
    /// access needs no valid tag).
    fn check(&self, stag: Stag, offset: TaggedOffset, length: u64, access: Access) -> Result<(), AccessError>;

    /// As [`Self::check`], for local memory of a request that begins now. Where others hold a region that is being given up,
    /// those may go on, but this one may not begin.
    fn check_beginning(
        &self,
        stag: Stag,
        offset: TaggedOffset,
        length: u64,
        access: Access,
    ) -> Result<(), AccessError> {
        self.check(stag, offset, length, access)
    }

    /// Checks, then copies `parts`, one behind the other, to `offset`. Nothing is written if the check fails.
    fn place(&self, stag: Stag, offset: TaggedOffset, parts: &[&[u8]], access: Access) -> Result<(), AccessError>;

    /// Checks, then fills `out` from `offset`.
    fn fetch(&self, stag: Stag, offset: TaggedOffset, out: &mut [u8], access: Access) -> Result<(), AccessError>;

    /// Checks, then executes `operation` atomically towards every other access through this trait, and gives the original value.
    fn execute(&self, stag: Stag, offset: TaggedOffset, operation: AtomicOperation) -> Result<u64, AccessError>;

    /// Makes `stag` invalid; `remote`: a peer asked for it with Send with Invalidate.
    fn invalidate(&self, stag: Stag, remote: bool) -> Result<(), AccessError>;

    /// A request that refers to `stag` has begun: deregistration waits for the matching [`Self::release`]. A tag that names no
    /// region is ignored.
    fn hold(&self, stag: Stag);

    /// Ends one [`Self::hold`].
    fn release(&self, stag: Stag);
}
