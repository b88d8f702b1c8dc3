//! SMC-D's form: 32 bytes in front of the data in the shared buffer, which its writer changes and its reader looks at.

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{CdcError, Cursor, ProducerFlags, StateFlags, TYPE};

/// Bytes of it. Data follows.
pub const SHARED_LENGTH: usize = size_of::<Layout>();

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct CursorLayout {
    wrap: U16,
    count: U32,
    flags: u8,
    state: u8,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Layout {
    kind: u8,
    reserved: [u8; 7],
    producer: CursorLayout,
    consumer: CursorLayout,
    reserved_too: [u8; 8],
}

const _: () = assert!(size_of::<CursorLayout>() == 8 && SHARED_LENGTH == 32);
const _: () = assert!(SharedControl::PRODUCER_OFFSET == 8 && SharedControl::CONSUMER_OFFSET == 16);

/// A cursor with flags: one word of shared memory, so that it changes, and is seen, as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlWord {
    /// How far.
    pub cursor: Cursor,
    /// What the writer of the word says of its data.
    pub flags: ProducerFlags,
    /// What it says of the connection.
    pub state: StateFlags,
}

impl ControlWord {
    /// From a word as it is loaded from memory.
    pub fn from_word(word: u64) -> Self {
        let layout: CursorLayout = zerocopy::transmute!(word.to_ne_bytes());
        layout.into()
    }

    /// The word to store to memory.
    pub fn to_word(self) -> u64 {
        u64::from_ne_bytes(zerocopy::transmute!(CursorLayout::from(self)))
    }
}

impl From<CursorLayout> for ControlWord {
    fn from(layout: CursorLayout) -> Self {
        let cursor = Cursor::new(layout.wrap.get(), layout.count.get());
        Self { cursor, flags: layout.flags.into(), state: layout.state.into() }
    }
}

impl From<ControlWord> for CursorLayout {
    fn from(word: ControlWord) -> Self {
        Self {
            wrap: word.cursor.wrap.into(),
            count: word.cursor.count.into(),
            flags: word.flags.bits(),
            state: word.state.bits(),
        }
    }
}

/// All of it, as a copy of those bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedControl {
    /// How far its writer has written into this buffer.
    pub producer: ControlWord,
    /// How far its writer has read from the buffer of its own.
    pub consumer: ControlWord,
}

impl SharedControl {
    /// Where the word of the producer stands.
    pub const PRODUCER_OFFSET: usize = std::mem::offset_of!(Layout, producer);
    /// Where the word of the consumer stands.
    pub const CONSUMER_OFFSET: usize = std::mem::offset_of!(Layout, consumer);

    /// Reads a copy. Cursors are the peer's word, see [`Cursor::since`].
    pub fn parse(bytes: &[u8; SHARED_LENGTH]) -> Result<Self, CdcError> {
        let layout: Layout = zerocopy::transmute!(*bytes);
        if layout.kind != TYPE {
            return Err(CdcError::Type(layout.kind));
        }
        Ok(Self { producer: layout.producer.into(), consumer: layout.consumer.into() })
    }

    /// Writes it.
    pub fn emit(&self, out: &mut [u8; SHARED_LENGTH]) {
        let layout = Layout {
            kind: TYPE,
            reserved: [0; 7],
            producer: self.producer.into(),
            consumer: self.consumer.into(),
            reserved_too: [0; 8],
        };
        out.copy_from_slice(layout.as_bytes());
    }
}
