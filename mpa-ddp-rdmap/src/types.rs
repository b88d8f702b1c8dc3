//! The numbers that travel: each has a type of its own.

/// Steering tag: names a memory region to the peer. 24 bits of index, 8 bits of key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stag(pub u32);

impl Stag {
    /// Composes a tag from the region's index (24 bits) and key.
    pub const fn new(index: u32, key: u8) -> Self {
        Self((index << 8) | key as u32)
    }

    /// The region's slot in the table of regions.
    pub const fn index(self) -> u32 {
        self.0 >> 8
    }

    /// What tells the users of a slot apart.
    pub const fn key(self) -> u8 {
        self.0 as u8
    }
}

/// Offset into a tagged buffer; here the virtual address, as verbs has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaggedOffset(pub u64);

/// Number of an untagged DDP queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueNumber(pub u32);

impl QueueNumber {
    /// Sends (and immediate data).
    pub const SEND: Self = Self(0);
    /// RDMA Read requests and atomic requests.
    pub const READ_REQUEST: Self = Self(1);
    /// Terminate.
    pub const TERMINATE: Self = Self(2);
    /// Atomic responses.
    pub const ATOMIC_RESPONSE: Self = Self(3);
}

/// Number of a message within an untagged queue; the first is 1, it wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MessageSequenceNumber(pub u32);

/// Offset within an untagged message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageOffset(pub u32);
