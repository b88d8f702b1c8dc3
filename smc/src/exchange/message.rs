//! What is sent: a CLC message as it is on the wire, behind a header that says what CLC has no place for, the arena.

use zerocopy::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::arena::Geometry;
use crate::wire::clc::{self, ClcError, DeclineReason, Message, Parsed};

const MAGIC: [u8; 4] = *b"sRsm";
const VERSION: u8 = 2;
/// The header names an arena.
const NAMES_ARENA: u8 = 1;
/// Its memory comes with the message.
const BRINGS_MEMORY: u8 = 2;

const HEADER: usize = size_of::<Header>();

/// Bytes that a message of ours has at most.
pub(super) const MAX_EMITTED: usize = HEADER + clc::MAX_EMITTED;

/// Bytes of the longest message that is looked at.
pub(super) const MAX_LENGTH: usize = HEADER + clc::MAX_LENGTH;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    version: u8,
    flags: u8,
    /// Bytes of the CLC message.
    length: U16,
    arena: U64,
    capacity: U32,
    ring_bytes: U32,
}

const _: () = assert!(HEADER == 24);

/// A message with all that goes with it but a descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) message: Message,
    pub(super) arena: Option<Named>,
}

/// The arena that an Accept is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) id: u64,
    pub(super) geometry: Geometry,
    /// Its memory comes with the message.
    pub(super) has_memory: bool,
}

/// Why a message is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MessageError {
    /// It is not of this protocol.
    #[error("no message of this protocol")]
    Foreign,
    /// It is of another version.
    #[error("version {0} of the protocol is not {VERSION}")]
    Version(u8),
    /// A flag without meaning, or in the wrong place.
    #[error("flags {0:#04x} do not fit the message")]
    Flags(u8),
    /// There are more or fewer bytes than it says.
    #[error("{actual} bytes of a CLC message that should have {announced}")]
    Length { announced: u16, actual: usize },
    /// No arena is so small or so large.
    #[error("no arena has room for {} connections with rings of {} bytes", .0.capacity, .0.ring_bytes)]
    Geometry(Geometry),
    /// More than the longest message, or descriptors that were not announced.
    #[error("more than belongs to a message")]
    Excess,
    /// The CLC message is wrong.
    #[error(transparent)]
    Clc(#[from] ClcError),
}

impl MessageError {
    /// What to decline with.
    pub(super) fn decline_reason(self) -> DeclineReason {
        match self {
            Self::Version(_) => DeclineReason::VERSION_MISMATCH,
            Self::Clc(error) => error.decline_reason(),
            Self::Foreign | Self::Flags(_) | Self::Length { .. } | Self::Geometry(_) | Self::Excess => {
                DeclineReason::SYNCHRONIZATION
            }
        }
    }
}

impl Envelope {
    /// Writes it to the front of `out`; the header's and the CLC message's part.
    pub(super) fn emit<'a>(&self, out: &'a mut [u8; MAX_EMITTED]) -> (&'a [u8], &'a [u8]) {
        let (header_out, clc_out) = out.split_first_chunk_mut::<HEADER>().expect("longer than the header");
        let clc_out = clc_out.first_chunk_mut().expect("as long as the longest CLC message behind the header");
        let clc = self.message.emit(clc_out);
        let flags = match self.arena {
            None => 0,
            Some(named) if named.has_memory => NAMES_ARENA | BRINGS_MEMORY,
            Some(_) => NAMES_ARENA,
        };
        let (id, geometry) = match self.arena {
            Some(Named { id, geometry, .. }) => (id, geometry),
            None => (0, Geometry { capacity: 0, ring_bytes: 0 }),
        };
        let header = Header {
            magic: MAGIC,
            version: VERSION,
            flags,
            length: (clc.len() as u16).into(),
            arena: id.into(),
            capacity: geometry.capacity.into(),
            ring_bytes: geometry.ring_bytes.into(),
        };
        header_out.copy_from_slice(header.as_bytes());
        (header_out, clc)
    }

    /// Reads the message that `bytes` are, all of them; and the CLC message's part.
    pub(super) fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), MessageError> {
        let (header, clc) = Header::ref_from_prefix(bytes).map_err(|_| MessageError::Foreign)?;
        if header.magic != MAGIC {
            return Err(MessageError::Foreign);
        }
        if header.version != VERSION {
            return Err(MessageError::Version(header.version));
        }
        let announced = header.length.get();
        if usize::from(announced) != clc.len() {
            return Err(MessageError::Length { announced, actual: clc.len() });
        }
        let message = match clc::parse(clc)? {
            Parsed::Complete { message, length } if length == clc.len() => message,
            Parsed::Complete { .. } | Parsed::Incomplete { .. } => {
                return Err(MessageError::Length { announced, actual: clc.len() });
            }
        };
        let arena = header.named()?;
        // An Accept names an arena, nothing else does.
        if arena.is_some() != matches!(message, Message::Accept(_)) {
            return Err(MessageError::Flags(header.flags));
        }
        Ok((Self { message, arena }, clc))
    }
}

impl Header {
    fn named(&self) -> Result<Option<Named>, MessageError> {
        let has_memory = match self.flags {
            0 => return Ok(None),
            NAMES_ARENA => false,
            flags if flags == NAMES_ARENA | BRINGS_MEMORY => true,
            flags => return Err(MessageError::Flags(flags)),
        };
        let geometry = Geometry { capacity: self.capacity.get(), ring_bytes: self.ring_bytes.get() };
        if !geometry.is_valid() {
            return Err(MessageError::Geometry(geometry));
        }
        Ok(Some(Named { id: self.arena.get(), geometry, has_memory }))
    }
}

/// Takes any bytes for a message: what is understood can be written and understood again, and what is not has an answer. For
/// the fuzz target, which cannot see the types.
///
/// # Panics
///
/// If one of them is not so.
#[cfg(fuzzing)]
pub fn check_message(bytes: &[u8]) {
    match Envelope::parse(bytes) {
        Ok((envelope, clc)) => {
            assert!(bytes.ends_with(clc));
            let mut memory = [0xaa; MAX_EMITTED];
            let (header, body) = envelope.emit(&mut memory);
            let written = [header, body].concat();
            assert_eq!(Envelope::parse(&written).map(|(again, _)| again), Ok(envelope));
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(DeclineReason::KNOWN.contains(&error.decline_reason()));
        }
    }
}
