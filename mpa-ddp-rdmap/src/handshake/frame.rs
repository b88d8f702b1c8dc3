//! The frame that requests and replies share (RFC 5044 §7.1.1 figure 8, RFC 6581 §6 and §9).

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{HandshakeError, MAX_PRIVATE_DATA, MAX_READ_DEPTH};
use crate::negotiated::{Revision, RtrKinds};

/// Bytes in the longest frame.
pub const MAX_FRAME: usize = HEADER + MAX_PRIVATE_DATA;

const KEY: usize = 16;
const HEADER: usize = size_of::<Header>();
const ENHANCED: usize = size_of::<EnhancedData>();
const _: () = assert!(HEADER == 20 && ENHANCED == 4);

const REQUEST_KEY: &[u8; KEY] = b"MPA ID Req Frame";
const REPLY_KEY: &[u8; KEY] = b"MPA ID Rep Frame";

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    key: [u8; KEY],
    flags: u8,
    revision: u8,
    private_data_length: U16,
}

const MARKERS: u8 = 0x80;
const CRC: u8 = 0x40;
const REJECTED: u8 = 0x20;
const ENHANCED_DATA: u8 = 0x10;

/// RFC 6581 §9: two control flags and a depth in each half.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct EnhancedData {
    ird: U16,
    ord: U16,
}

const IRD_PEER_TO_PEER: u16 = 0x8000;
const IRD_RTR_SEND: u16 = 0x4000;
const ORD_RTR_WRITE: u16 = 0x8000;
const ORD_RTR_READ: u16 = 0x4000;
/// The depth, and as a value: "not negotiated".
const DEPTH: u16 = 0x3FFF;

/// Which of the two frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    Reply,
}

impl Kind {
    fn key(self) -> &'static [u8; KEY] {
        match self {
            Self::Request => REQUEST_KEY,
            Self::Reply => REPLY_KEY,
        }
    }
}

/// What RFC 6581 adds to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Enhancement {
    /// Kinds of first message; `None`: client-server.
    pub(super) rtr: Option<RtrKinds>,
    /// `None`: left to the applications.
    pub(super) ird: Option<u16>,
    /// `None`: left to the applications.
    pub(super) ord: Option<u16>,
}

/// A valid frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) markers: bool,
    pub(super) crc: bool,
    /// Means nothing in a request.
    pub(super) rejected: bool,
    pub(super) revision: Revision,
    pub(super) enhancement: Option<Enhancement>,
    /// The application's part of the private data.
    pub(super) private_data: Vec<u8>,
}

/// Bytes of private data that are left to the application.
pub(super) fn max_private_data(enhanced: bool) -> usize {
    // RFC 6581 §9: the enhanced data count towards the 512 bytes.
    if enhanced { MAX_PRIVATE_DATA - ENHANCED } else { MAX_PRIVATE_DATA }
}

impl Frame {
    /// Reads the frame at the start of `parts` and gives it with its length. `None`: it is not whole yet.
    ///
    /// Fields are judged in the order in which they arrive, so that the verdict does not depend on how much there is.
    pub(super) fn read(
        kind: Kind,
        highest: Revision,
        parts: &[&[u8]],
    ) -> Result<Option<(usize, Self)>, HandshakeError> {
        let mut buffer = [0; MAX_FRAME];
        let length = gather(parts, &mut buffer);
        let bytes = &buffer[..length];
        check_key(kind, &bytes[..length.min(KEY)])?;
        if let Some(&revision) = bytes.get(KEY + 1) {
            check_revision(revision, highest)?;
        }
        let Ok((header, rest)) = Header::ref_from_prefix(bytes) else { return Ok(None) };

        let announced = header.private_data_length.get();
        let private_length = usize::from(announced);
        // RFC 5044 §7.1.1: more than 512 bytes close the connection.
        if private_length > MAX_PRIVATE_DATA {
            return Err(HandshakeError::PrivateDataTooLong { length: announced });
        }
        let revision = check_revision(header.revision, highest)?;
        // RFC 6581 §6: the bit is reserved, and not to be looked at, in revision 1.
        let enhanced = revision == Revision::V2 && header.flags & ENHANCED_DATA != 0;
        if enhanced && private_length < ENHANCED {
            return Err(HandshakeError::EnhancedDataMissing { length: announced });
        }
        let Some(mut private_data) = rest.get(..private_length) else { return Ok(None) };
        let mut enhancement = None;
        if enhanced && let Ok((data, rest)) = EnhancedData::ref_from_prefix(private_data) {
            enhancement = Some(Enhancement::from_wire(data));
            private_data = rest;
        }
        let frame = Self {
            kind,
            markers: header.flags & MARKERS != 0,
            crc: header.flags & CRC != 0,
            rejected: header.flags & REJECTED != 0,
            revision,
            enhancement,
            private_data: private_data.to_vec(),
        };
        Ok(Some((HEADER + private_length, frame)))
    }

    /// The frame's bytes. `private_data` has been checked against [`max_private_data`].
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let enhancement = self.enhancement.map(Enhancement::to_wire);
        let enhanced = enhancement.as_ref().map_or(&[][..], IntoBytes::as_bytes);
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let private_length = u16::try_from(enhanced.len() + self.private_data.len()).expect("private data was checked");
        let header = Header {
            key: *self.kind.key(),
            flags: flag(self.markers, MARKERS)
                | flag(self.crc, CRC)
                | flag(self.rejected, REJECTED)
                | flag(enhancement.is_some(), ENHANCED_DATA),
            revision: number(self.revision),
            private_data_length: U16::new(private_length),
        };
        [header.as_bytes(), enhanced, &self.private_data].concat()
    }
}

impl Enhancement {
    fn from_wire(data: &EnhancedData) -> Self {
        let (ird, ord) = (data.ird.get(), data.ord.get());
        // RFC 6581 §9.2: without flag A the others are ignored.
        let rtr = (ird & IRD_PEER_TO_PEER != 0).then_some(RtrKinds {
            send: ird & IRD_RTR_SEND != 0,
            write: ord & ORD_RTR_WRITE != 0,
            read: ord & ORD_RTR_READ != 0,
        });
        let depth = |word: u16| Some(word & DEPTH).filter(|&depth| depth <= MAX_READ_DEPTH);
        Self { rtr, ird: depth(ird), ord: depth(ord) }
    }

    fn to_wire(self) -> EnhancedData {
        let mut ird = self.ird.map_or(DEPTH, |depth| depth.min(MAX_READ_DEPTH));
        let mut ord = self.ord.map_or(DEPTH, |depth| depth.min(MAX_READ_DEPTH));
        if let Some(rtr) = self.rtr {
            ird |= IRD_PEER_TO_PEER;
            ird |= if rtr.send { IRD_RTR_SEND } else { 0 };
            ord |= if rtr.write { ORD_RTR_WRITE } else { 0 };
            ord |= if rtr.read { ORD_RTR_READ } else { 0 };
        }
        EnhancedData { ird: U16::new(ird), ord: U16::new(ord) }
    }
}

/// Copies as much of `parts` as `buffer` holds, one behind the other.
fn gather(parts: &[&[u8]], buffer: &mut [u8]) -> usize {
    let mut length = 0;
    for part in parts {
        let room = &mut buffer[length..];
        let count = part.len().min(room.len());
        room[..count].copy_from_slice(&part[..count]);
        length += count;
    }
    length
}

/// RFC 5044 §7.1.2 rule 5: any other key closes the connection. `start`: at most the key's length.
fn check_key(kind: Kind, start: &[u8]) -> Result<(), HandshakeError> {
    let Some(position) = start.iter().zip(kind.key()).position(|(found, expected)| found != expected) else {
        return Ok(());
    };
    let found = start[position];
    // RFC 5044 §7.1.2 rule 8: the first byte in which the two keys differ gives away a second initiator.
    if kind == Kind::Reply && REQUEST_KEY[..=position] == start[..=position] {
        return Err(HandshakeError::BothInitiators);
    }
    Err(HandshakeError::BadKey { position, found })
}

fn check_revision(found: u8, highest: Revision) -> Result<Revision, HandshakeError> {
    match found {
        1 => Ok(Revision::V1),
        2 if highest == Revision::V2 => Ok(Revision::V2),
        _ => Err(HandshakeError::UnknownRevision { found, highest: number(highest) }),
    }
}

fn number(revision: Revision) -> u8 {
    match revision {
        Revision::V1 => 1,
        Revision::V2 => 2,
    }
}
