//! What all CLC messages have: header, trailer, and the memory they are written to.

use std::fmt;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::{Area, ClcError};
use super::{MAX_EMITTED, MAX_LENGTH, decline, endpoint, proposal};

/// "SMCR" in EBCDIC.
const RDMA_EYECATCHER: [u8; 4] = [0xe2, 0xd4, 0xc3, 0xd9];
/// "SMCD" in EBCDIC.
const SHARED_EYECATCHER: [u8; 4] = [0xe2, 0xd4, 0xc3, 0xc4];

/// Bytes of the eye catcher at the end.
pub(super) const TRAILER: usize = RDMA_EYECATCHER.len();

const VERSION: u8 = 1;
const MAX_VERSION: u8 = 2;

/// Which message, in the byte that says so (RFC 7609 §A.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind(pub u8);

impl Kind {
    /// SMC Proposal.
    pub const PROPOSAL: Self = Self(1);
    /// SMC Accept.
    pub const ACCEPT: Self = Self(2);
    /// SMC Confirm.
    pub const CONFIRM: Self = Self(3);
    /// SMC Decline.
    pub const DECLINE: Self = Self(4);
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PROPOSAL => formatter.write_str("proposal"),
            Self::ACCEPT => formatter.write_str("accept"),
            Self::CONFIRM => formatter.write_str("confirm"),
            Self::DECLINE => formatter.write_str("decline"),
            Self(other) => write!(formatter, "message of type {other}"),
        }
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Whose eye catcher a message has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Rdma,
    Shared,
}

impl Family {
    const fn eyecatcher(self) -> [u8; 4] {
        match self {
            Self::Rdma => RDMA_EYECATCHER,
            Self::Shared => SHARED_EYECATCHER,
        }
    }
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    eyecatcher: [u8; 4],
    kind: u8,
    length: U16,
    /// Version, and four bits whose meaning is the message's.
    control: u8,
}

const _: () = assert!(size_of::<Header>() == 8);

/// Of [`Header::control`]: first contact in an accept, out of sync in a decline.
pub(super) const FLAG: u8 = 0x08;

impl Header {
    /// `None` if there are too few bytes.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        Self::read_from_prefix(bytes).ok().map(|(header, _)| header)
    }

    /// Checks everything that can be checked without the rest, and gives the length of the message.
    pub(super) fn check(self) -> Result<usize, ClcError> {
        let (kind, family, length) = (self.kind(), self.family(), usize::from(self.length.get()));
        let (lengths, max_version) = match (kind, family) {
            (Kind::PROPOSAL, Family::Rdma) => (proposal::MIN_LENGTH..=MAX_LENGTH, MAX_VERSION),
            // SMC-D has no proposal of its own: the one proposal says what the client has.
            (Kind::PROPOSAL, Family::Shared) => return Err(ClcError::Eyecatcher),
            (Kind::ACCEPT | Kind::CONFIRM, Family::Rdma) => (endpoint::RDMA_LENGTH..=endpoint::RDMA_LENGTH, VERSION),
            (Kind::ACCEPT | Kind::CONFIRM, Family::Shared) => {
                (endpoint::SHARED_LENGTH..=endpoint::SHARED_LENGTH, VERSION)
            }
            // Whatever it declines, a decline means the same.
            (Kind::DECLINE, _) => (decline::LENGTH..=decline::LENGTH, MAX_VERSION),
            _ => return Err(ClcError::Kind(kind)),
        };
        if !(VERSION..=max_version).contains(&self.version()) {
            return Err(ClcError::Version { kind, version: self.version() });
        }
        if !lengths.contains(&length) {
            return Err(ClcError::Length { kind, length });
        }
        Ok(length)
    }

    pub(super) const fn kind(self) -> Kind {
        Kind(self.kind)
    }

    pub(super) fn family(self) -> Family {
        if self.eyecatcher == SHARED_EYECATCHER { Family::Shared } else { Family::Rdma }
    }

    pub(super) const fn version(self) -> u8 {
        self.control >> 4
    }

    pub(super) const fn has_flag(self) -> bool {
        self.control & FLAG != 0
    }

    /// Two bits: what is offered or chosen in version 1.
    pub(super) const fn path(self) -> u8 {
        self.control & 0x03
    }

    /// Two bits: what a proposal of version 2 offers in that version.
    pub(super) const fn second_path(self) -> u8 {
        self.control >> 2 & 0x03
    }
}

/// Checks as much as there is of the eye catcher in front.
pub(super) fn check_eyecatcher(bytes: &[u8]) -> Result<(), ClcError> {
    let begun = &bytes[..bytes.len().min(TRAILER)];
    let is_known = RDMA_EYECATCHER.starts_with(begun) || SHARED_EYECATCHER.starts_with(begun);
    if is_known { Ok(()) } else { Err(ClcError::Eyecatcher) }
}

/// RFC 7609 §A.2: there is an eye catcher at the end too, and both are validated. Gives the message without it.
pub(super) fn check_trailer(whole: &[u8], header: Header) -> Result<&[u8], ClcError> {
    match whole.split_last_chunk() {
        Some((body, trailer)) if *trailer == header.eyecatcher => Ok(body),
        _ => Err(ClcError::Trailer),
    }
}

/// The `T` at `offset` of `body`, which is called `area`.
pub(super) fn read_at<T>(body: &[u8], offset: usize, area: Area) -> Result<T, ClcError>
where
    T: FromBytes + KnownLayout + Immutable + Unaligned,
{
    let bytes = body.get(offset..).ok_or(ClcError::Outside(area))?;
    T::read_from_prefix(bytes).map(|(value, _)| value).map_err(|_| ClcError::Outside(area))
}

/// Memory that a message is written to, from its front.
pub(super) struct Output<'a> {
    memory: &'a mut [u8; MAX_EMITTED],
    written: usize,
    family: Family,
}

impl<'a> Output<'a> {
    pub(super) fn new(memory: &'a mut [u8; MAX_EMITTED]) -> Self {
        Self { memory, written: 0, family: Family::Rdma }
    }

    /// Begins a message; its length is written by [`Self::end`].
    pub(super) fn begin(&mut self, kind: Kind, family: Family, low_bits: u8) {
        let eyecatcher = family.eyecatcher();
        self.family = family;
        self.put(&Header { eyecatcher, kind: kind.0, length: U16::ZERO, control: VERSION << 4 | low_bits });
    }

    /// Appends `part`. The longest message fits by the definition of [`MAX_EMITTED`].
    pub(super) fn put<T: IntoBytes + Immutable>(&mut self, part: &T) {
        let bytes = part.as_bytes();
        self.memory[self.written..][..bytes.len()].copy_from_slice(bytes);
        self.written += bytes.len();
    }

    pub(super) fn end(mut self) -> &'a [u8] {
        let trailer = self.family.eyecatcher();
        self.put(&trailer);
        // At most MAX_EMITTED, which fits.
        let length = self.written as u16;
        self.memory[5..7].copy_from_slice(&length.to_be_bytes());
        &self.memory[..self.written]
    }
}
