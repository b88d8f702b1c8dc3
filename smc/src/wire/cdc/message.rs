//! SMC-R's form: a message of 44 bytes on the link (RFC 7609 §A.4 figure 41).

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Cursor, ProducerFlags, StateFlags, TYPE};
use crate::wire::AlertToken;

/// Bytes of a message.
pub const LENGTH: usize = size_of::<Layout>();

/// Number of a message; the first is 1, it wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SequenceNumber(pub u16);

impl SequenceNumber {
    /// That of the first message.
    pub const FIRST: Self = Self(1);

    /// That of the message after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// Whether a message of this number is newer than one of `other`: less than half of all numbers ahead. Older ones are
    /// dropped (RFC 7609 §A.4).
    #[must_use]
    pub const fn is_after(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0) as i16 > 0
    }
}

/// How far one side of a connection is, told to the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Its number.
    pub sequence: SequenceNumber,
    /// The connection, by the name that the receiver has given it.
    pub alert_token: AlertToken,
    /// How far the sender has written into the receiver's buffer.
    pub producer: Cursor,
    /// How far the sender has read from its own.
    pub consumer: Cursor,
    /// What the sender says of its data.
    pub flags: ProducerFlags,
    /// What it says of the connection.
    pub state: StateFlags,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Layout {
    kind: u8,
    length: u8,
    sequence: U16,
    alert_token: U32,
    reserved: U16,
    producer_wrap: U16,
    producer_count: U32,
    reserved_too: U16,
    consumer_wrap: U16,
    consumer_count: U32,
    flags: u8,
    state: u8,
    rest: [u8; 18],
}

const _: () = assert!(LENGTH == 44);

/// These bytes are no CDC message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CdcError {
    /// There are more or fewer than one has.
    #[error("a CDC message of {0} bytes; it has 44")]
    Length(usize),
    /// It is of another type.
    #[error("message type {0:#04x}; CDC is 0xfe")]
    Type(u8),
    /// Its length field is wrong.
    #[error("a CDC message whose length field says {0}; it has 44 bytes")]
    LengthField(u8),
}

impl Message {
    /// Reads what has arrived. Cursors are the peer's word, see [`Cursor::since`].
    pub fn parse(bytes: &[u8]) -> Result<Self, CdcError> {
        let layout = Layout::read_from_bytes(bytes).map_err(|_| CdcError::Length(bytes.len()))?;
        if layout.kind != TYPE {
            return Err(CdcError::Type(layout.kind));
        }
        if usize::from(layout.length) != LENGTH {
            return Err(CdcError::LengthField(layout.length));
        }
        Ok(Self {
            sequence: SequenceNumber(layout.sequence.get()),
            alert_token: AlertToken(layout.alert_token.get()),
            producer: Cursor::new(layout.producer_wrap.get(), layout.producer_count.get()),
            consumer: Cursor::new(layout.consumer_wrap.get(), layout.consumer_count.get()),
            flags: layout.flags.into(),
            state: layout.state.into(),
        })
    }

    /// Writes it.
    pub fn emit(&self, out: &mut [u8; LENGTH]) {
        let layout = Layout {
            kind: TYPE,
            length: LENGTH as u8,
            sequence: self.sequence.0.into(),
            alert_token: self.alert_token.0.into(),
            reserved: U16::ZERO,
            producer_wrap: self.producer.wrap.into(),
            producer_count: self.producer.count.into(),
            reserved_too: U16::ZERO,
            consumer_wrap: self.consumer.wrap.into(),
            consumer_count: self.consumer.count.into(),
            flags: self.flags.bits(),
            state: self.state.bits(),
            rest: [0; 18],
        };
        out.copy_from_slice(layout.as_bytes());
    }
}
