//! What travels in the Sends: where memory is.

/// Bytes of an announcement: address, key and length, in network byte order.
pub(super) const ANNOUNCEMENT_BYTES: usize = 16;

/// Memory that the other side may reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Announcement {
    pub(super) address: u64,
    pub(super) key: u32,
    pub(super) length: u32,
}

impl Announcement {
    pub(super) fn to_bytes(self) -> [u8; ANNOUNCEMENT_BYTES] {
        let mut bytes = [0; ANNOUNCEMENT_BYTES];
        bytes[..8].copy_from_slice(&self.address.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.key.to_be_bytes());
        bytes[12..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; ANNOUNCEMENT_BYTES]) -> Self {
        let number = |range: std::ops::Range<usize>| {
            bytes[range].iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
        };
        Self { address: number(0..8), key: number(8..12) as u32, length: number(12..16) as u32 }
    }
}
