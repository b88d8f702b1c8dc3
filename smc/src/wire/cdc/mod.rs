//! Connection data control: how far each side has written and read, and what state it is in. SMC-R sends it as messages
//! ([`Message`], RFC 7609 §A.4); SMC-D keeps it in the first bytes of the shared buffer ([`SharedControl`], as Linux has it,
//! in network byte order).

mod cursor;
mod message;
mod shared;
#[cfg(test)]
mod tests;

pub use cursor::Cursor;
pub use message::{CdcError, LENGTH, Message, SequenceNumber};
pub use shared::{ControlWord, SHARED_LENGTH, SharedControl};

use bitflags::bitflags;

/// First byte of both kinds. The two high bits tell it from link layer control (RFC 7609 §A.4).
pub const TYPE: u8 = 0xfe;

bitflags! {
    /// What a writer says of its data (RFC 7609 §A.4: B, P, U, R, F).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ProducerFlags: u8 {
        /// It waits for room, and must be told of it.
        const WRITER_BLOCKED = 0x80;
        /// There is urgent data that is not in the buffer yet.
        const URGENT_PENDING = 0x40;
        /// The last byte in front of the producer cursor is urgent.
        const URGENT_PRESENT = 0x20;
        /// It asks for the consumer cursor at once.
        const CURSOR_REQUESTED = 0x10;
        /// After a link has failed: has everything up to this message's number arrived?
        const FAILOVER_VALIDATION = 0x08;
    }
}

bitflags! {
    /// What a side says of the connection (RFC 7609 §A.4: D, C, A). Once raised they stay.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct StateFlags: u8 {
        /// It writes nothing more.
        const SENDING_DONE = 0x80;
        /// It neither writes nor reads any more.
        const CLOSED = 0x40;
        /// It has given the connection up; what is not read yet is void.
        const ABORTED = 0x20;
    }
}

// Reserved bits are not looked at (RFC 7609 §A.2): a peer's unknown ones get lost here.
impl From<u8> for ProducerFlags {
    fn from(byte: u8) -> Self {
        Self::from_bits_truncate(byte)
    }
}

impl From<u8> for StateFlags {
    fn from(byte: u8) -> Self {
        Self::from_bits_truncate(byte)
    }
}
