//! TERMINATE: how one end tells the other why it gives up the connection (RFC 5040 §4.8).
//!
//! [`ProtocolError::terminate`] is the one table from what a peer did wrong to what is sent; [`TerminateReceived`] reads it
//! the other way round.

use zerocopy::byteorder::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use crate::error::{ProtocolError, Violation};
use crate::memory::AccessError;
use crate::types::{MessageSequenceNumber, QueueNumber, Stag, TaggedOffset};
use crate::wire::{DdpControl, RdmapControl, RdmapOpcode, ReadRequestHeader, TaggedHeader, UntaggedHeader};
use crate::work::{RemoteAddress, Status};

/// Largest TERMINATE payload: control, DDP segment length, untagged DDP header, Read Request header.
pub const MAX_TERMINATE_LENGTH: usize =
    size_of::<U32>() + size_of::<U16>() + size_of::<UntaggedHeader>() + size_of::<ReadRequestHeader>();

/// The layer that met the error, four bits (RFC 5040 §4.8 figure 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layer(pub u8);

impl Layer {
    /// RDMAP.
    pub const RDMAP: Self = Self(0);
    /// DDP.
    pub const DDP: Self = Self(1);
    /// The lower layer protocol: MPA.
    pub const LLP: Self = Self(2);
}

/// Error types, four bits, by layer.
pub mod kind {
    /// RDMAP and DDP: local catastrophic error.
    pub const LOCAL_CATASTROPHIC: u8 = 0;
    /// RDMAP: remote protection error.
    pub const REMOTE_PROTECTION: u8 = 1;
    /// RDMAP: remote operation error.
    pub const REMOTE_OPERATION: u8 = 2;
    /// DDP: tagged buffer error (RFC 5041 §7.2).
    pub const TAGGED_BUFFER: u8 = 1;
    /// DDP: untagged buffer error (RFC 5041 §7.2).
    pub const UNTAGGED_BUFFER: u8 = 2;
    /// LLP: an MPA error (RFC 5044 §8, RFC 6581 §8).
    pub const MPA: u8 = 0;
}

/// A TERMINATE message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminate {
    /// Who met the error.
    pub layer: Layer,
    /// Error type; see [`kind`].
    pub kind: u8,
    /// Error code; what it means depends on layer and type.
    pub code: u8,
    /// The headers of the message to blame.
    pub headers: TerminatedHeaders,
}

/// Headers of the message that a TERMINATE blames, as far as they are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TerminatedHeaders {
    /// Length of the DDP segment, header included (M bit).
    pub segment_length: Option<u16>,
    /// Its DDP header (D bit).
    pub ddp: Option<DdpHeader>,
    /// The Read Request, advanced to where answering it stopped (R bit).
    pub read_request: Option<ReadRequestHeader>,
}

/// A DDP header of either form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DdpHeader {
    /// Tagged.
    Tagged(TaggedHeader),
    /// Untagged.
    Untagged(UntaggedHeader),
}

impl Terminate {
    /// A TERMINATE that blames no message.
    pub const fn new(layer: Layer, kind: u8, code: u8) -> Self {
        let headers = TerminatedHeaders { segment_length: None, ddp: None, read_request: None };
        Self { layer, kind, code, headers }
    }

    /// Our own side failed (RFC 5040 §4.8): the peer is not to blame.
    pub const LOCAL_CATASTROPHIC: Self = Self::new(Layer::RDMAP, kind::LOCAL_CATASTROPHIC, 0);

    /// An MPA error code (RFC 5044 §8, RFC 6581 §8).
    pub const fn mpa(code: u8) -> Self {
        Self::new(Layer::LLP, kind::MPA, code)
    }

    /// Writes the message's payload to `out` and tells how long it is.
    pub fn encode(&self, out: &mut [u8; MAX_TERMINATE_LENGTH]) -> usize {
        let headers = &self.headers;
        let control = u32::from(self.layer.0 & 0xf) << 28
            | u32::from(self.kind & 0xf) << 24
            | u32::from(self.code) << 16
            | u32::from(headers.has_length()) << 15
            | u32::from(headers.ddp.is_some()) << 14
            | u32::from(headers.read_request.is_some()) << 13;
        let mut end = 0;
        let mut push = |bytes: &[u8]| {
            out[end..end + bytes.len()].copy_from_slice(bytes);
            end += bytes.len();
        };
        push(U32::new(control).as_bytes());
        if headers.has_length() {
            push(U16::new(headers.segment_length.unwrap_or(0)).as_bytes());
        }
        match &headers.ddp {
            Some(DdpHeader::Tagged(header)) => push(header.as_bytes()),
            Some(DdpHeader::Untagged(header)) => push(header.as_bytes()),
            None => {}
        }
        if let Some(header) = &headers.read_request {
            push(header.as_bytes());
        }
        end
    }

    /// Reads the payload of a TERMINATE. `None` if it is shorter than its own control bits say.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (control, rest) = U32::read_from_prefix(payload).ok()?;
        let control = control.get();
        let mut terminate = Self::new(Layer((control >> 28) as u8), (control >> 24 & 0xf) as u8, (control >> 16) as u8);
        let (has_length, has_ddp, has_read) = (control & 1 << 15 != 0, control & 1 << 14 != 0, control & 1 << 13 != 0);
        let mut rest = rest;
        // RFC 5040 §4.8: the length is there whenever the DDP header is.
        if has_length || has_ddp {
            let (length, behind) = U16::read_from_prefix(rest).ok()?;
            terminate.headers.segment_length = has_length.then_some(length.get());
            rest = behind;
        }
        if has_ddp {
            let (header, behind) = DdpHeader::read(rest)?;
            terminate.headers.ddp = Some(header);
            rest = behind;
        }
        if has_read {
            terminate.headers.read_request = Some(ReadRequestHeader::read_from_prefix(rest).ok()?.0);
        }
        Some(terminate)
    }
}

impl TerminatedHeaders {
    fn has_length(&self) -> bool {
        self.segment_length.is_some() || self.ddp.is_some()
    }
}

impl DdpHeader {
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        if DdpControl(*bytes.first()?).is_tagged() {
            let (header, rest) = TaggedHeader::read_from_prefix(bytes).ok()?;
            Some((Self::Tagged(header), rest))
        } else {
            let (header, rest) = UntaggedHeader::read_from_prefix(bytes).ok()?;
            Some((Self::Untagged(header), rest))
        }
    }

    /// The byte that holds opcode and version of RDMAP.
    pub const fn rdmap(&self) -> RdmapControl {
        match self {
            Self::Tagged(header) => header.rdmap,
            Self::Untagged(header) => header.rdmap,
        }
    }
}

impl ProtocolError {
    /// The TERMINATE for this error: the one table (RFC 5040 §4.8 figures 9 and 10, RFC 5041 §7.2, RFC 5044 §8,
    /// RFC 7306 §8).
    pub fn terminate(&self) -> Terminate {
        let (layer, kind, code, include) = row(&self.violation);
        let mut terminate = Terminate::new(layer, kind, code);
        let Some(segment) = &self.segment else { return terminate };
        if include != Include::Nothing {
            terminate.headers.segment_length = Some(segment.length);
            terminate.headers.ddp = segment.header;
        }
        if include == Include::ReadRequest {
            terminate.headers.read_request = segment.read_request;
        }
        terminate
    }
}

/// Which headers go with a TERMINATE (RFC 5040 §4.8 figure 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Include {
    Nothing,
    Segment,
    ReadRequest,
}

/// Layer, error type, error code and headers of an error.
fn row(violation: &Violation) -> (Layer, u8, u8, Include) {
    use Include::{Nothing, ReadRequest, Segment};
    let mpa = |code| (Layer::LLP, kind::MPA, code, Nothing);
    let tagged = |code| (Layer::DDP, kind::TAGGED_BUFFER, code, Segment);
    let untagged = |code| (Layer::DDP, kind::UNTAGGED_BUFFER, code, Segment);
    let operation = |code| (Layer::RDMAP, kind::REMOTE_OPERATION, code, Segment);
    match violation {
        Violation::StreamEnded | Violation::Unfinished { .. } => mpa(0x01),
        Violation::Crc { .. } => mpa(0x02),
        Violation::TaggedVersion(_) => tagged(0x04),
        Violation::UntaggedVersion(_) => untagged(0x06),
        Violation::WriteAccess(error) => tagged(tagged_access(error)),
        Violation::ResponseStag { .. } => tagged(0x00),
        Violation::ResponseOffset { .. } | Violation::ResponseTooLong { .. } => tagged(0x01),
        Violation::Queue(_) => untagged(0x01),
        Violation::NoReceive(_) | Violation::TooManyReads { .. } => untagged(0x02),
        Violation::Sequence { .. } => untagged(0x03),
        Violation::Offset { .. } => untagged(0x04),
        Violation::TooLong { .. } => untagged(0x05),
        Violation::ReadAccess(error) => (Layer::RDMAP, kind::REMOTE_PROTECTION, protection(error), ReadRequest),
        // RFC 7306 §8.1: the header of an atomic is not repeated.
        Violation::AtomicAccess(error) | Violation::Invalidate(error) => {
            (Layer::RDMAP, kind::REMOTE_PROTECTION, protection(error), Segment)
        }
        Violation::RdmapVersion(_) => operation(0x05),
        // RFC 7306 §5.2.1: an atomic operation we do not have is an operation we do not have.
        Violation::Opcode(_) | Violation::AtomicOperation(_) => operation(0x06),
        // RFC 7306 §8.2: a misaligned atomic has a code of its own.
        Violation::AtomicMisaligned(_) => operation(0x07),
        // No code fits these; each is a message that contradicts itself or what we asked for.
        Violation::TooShort { .. }
        | Violation::MessageLength { .. }
        | Violation::ResponseTooShort { .. }
        | Violation::AtomicResponse { .. }
        | Violation::MalformedTerminate { .. } => operation(0xff),
        Violation::LocalMemory(_) => (Layer::RDMAP, kind::LOCAL_CATASTROPHIC, 0x00, Nothing),
    }
}

/// Codes of a tagged buffer error (RFC 5041 §7.2).
fn tagged_access(error: &AccessError) -> u8 {
    match error {
        AccessError::OutOfBounds { .. } => 0x01,
        AccessError::WrongProtectionDomain(_) => 0x02,
        AccessError::Wrap(_) => 0x03,
        // RFC 5041 §7.1 check 2, "a buffer that allows placement", has no code of its own; it goes with the STag.
        AccessError::InvalidStag(_)
        | AccessError::Denied(..)
        | AccessError::Misaligned(_)
        | AccessError::CannotInvalidate(_) => 0x00,
    }
}

/// Codes of a remote protection error (RFC 5040 §4.8 figure 9).
fn protection(error: &AccessError) -> u8 {
    match error {
        AccessError::InvalidStag(_) => 0x00,
        AccessError::OutOfBounds { .. } => 0x01,
        AccessError::Denied(..) => 0x02,
        AccessError::WrongProtectionDomain(_) => 0x03,
        AccessError::Wrap(_) => 0x04,
        AccessError::CannotInvalidate(_) => 0x09,
        AccessError::Misaligned(_) => 0xff,
    }
}

/// A TERMINATE from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminateReceived {
    /// What it says.
    pub terminate: Terminate,
}

/// The request of ours that a TERMINATE blames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blamed {
    /// None, or the peer does not say which.
    Unknown,
    /// The Send or Immediate Data with this number.
    Send(MessageSequenceNumber),
    /// The Write that covers this address.
    Write(RemoteAddress),
    /// The Read Request or atomic with this number.
    ReadRequest(MessageSequenceNumber),
}

impl TerminateReceived {
    /// How the blamed request ends.
    pub fn status(&self) -> Status {
        match (self.terminate.layer, self.terminate.kind, self.terminate.code) {
            (Layer::RDMAP, kind::REMOTE_PROTECTION, _) | (Layer::DDP, kind::TAGGED_BUFFER, 0x00..=0x03) => {
                Status::RemoteAccess
            }
            (Layer::RDMAP, kind::REMOTE_OPERATION, 0x07 | 0x08) => Status::RemoteOperation,
            (Layer::RDMAP, kind::REMOTE_OPERATION, _) | (Layer::DDP, kind::UNTAGGED_BUFFER, _) => {
                Status::RemoteInvalidRequest
            }
            (Layer::RDMAP | Layer::DDP, kind::LOCAL_CATASTROPHIC, _) => Status::RemoteOperation,
            _ => Status::Fatal,
        }
    }

    /// Which request is blamed.
    pub fn blamed(&self) -> Blamed {
        match self.terminate.headers.ddp {
            Some(DdpHeader::Tagged(header)) if header.rdmap.opcode() == RdmapOpcode::WRITE => {
                Blamed::Write(RemoteAddress {
                    stag: Stag(header.stag.get()),
                    offset: TaggedOffset(header.offset.get()),
                })
            }
            Some(DdpHeader::Untagged(header)) => {
                let message = MessageSequenceNumber(header.message.get());
                match QueueNumber(header.queue.get()) {
                    QueueNumber::SEND => Blamed::Send(message),
                    QueueNumber::READ_REQUEST => Blamed::ReadRequest(message),
                    _ => Blamed::Unknown,
                }
            }
            _ => Blamed::Unknown,
        }
    }
}

/// A Read Request header.
pub(crate) fn read_request_header(sink: RemoteAddress, source: RemoteAddress, length: u32) -> ReadRequestHeader {
    ReadRequestHeader {
        sink_stag: U32::new(sink.stag.0),
        sink_offset: U64::new(sink.offset.0),
        length: U32::new(length),
        source_stag: U32::new(source.stag.0),
        source_offset: U64::new(source.offset.0),
    }
}
