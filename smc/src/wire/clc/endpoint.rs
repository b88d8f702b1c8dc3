//! SMC Accept and SMC Confirm (RFC 7609 §A.2.3, §A.2.4): where the sender's buffer is.

use zerocopy::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::{Area, ClcError};
use super::frame::{FLAG, Family, Header, Kind, Output, TRAILER, read_at};
use super::proposal::Path;
use crate::wire::{
    AlertToken, BufferSize, DmbToken, ElementIndex, Gid, LinkId, Mac, Mtu, PeerId, Psn, Qpn, Rkey, RmbAddress, RoceGid,
};

/// The server's answer to a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    /// The server knows of no link group of the two yet.
    pub is_first_contact: bool,
    /// The server's end.
    pub endpoint: Endpoint,
}

/// The client's answer to an accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirm {
    /// The client's end.
    pub endpoint: Endpoint,
}

/// One end of a connection, as the other must know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Over RDMA: SMC-R.
    Rdma(RdmaEndpoint),
    /// Over shared memory: SMC-D.
    Shared(SharedEndpoint),
}

impl Endpoint {
    /// The path that was chosen.
    pub const fn path(&self) -> Path {
        match self {
            Self::Rdma(_) => Path::Rdma,
            Self::Shared(_) => Path::Shared,
        }
    }
}

/// One end of an SMC-R connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RdmaEndpoint {
    /// Whose it is.
    pub peer: PeerId,
    /// Its RDMA device.
    pub gid: RoceGid,
    /// The same, for peers that cannot look it up.
    pub mac: Mac,
    /// Its end of the link.
    pub qpn: Qpn,
    /// Key of its remote memory buffer.
    pub rkey: Rkey,
    /// The connection's element in that buffer.
    pub element: ElementIndex,
    /// The connection's name in control messages to it.
    pub alert_token: AlertToken,
    /// Size of the element.
    pub buffer_size: BufferSize,
    /// Largest payload of its packets.
    pub mtu: Mtu,
    /// Where the buffer begins.
    pub address: RmbAddress,
    /// The first packet it sends has this number.
    pub psn: Psn,
}

/// One end of an SMC-D connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedEndpoint {
    /// Its device.
    pub gid: Gid,
    /// Its buffer.
    pub token: DmbToken,
    /// The connection's element in that buffer.
    pub element: ElementIndex,
    /// Size of the element.
    pub buffer_size: BufferSize,
    /// The link group, to its owner.
    pub link: LinkId,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RdmaLayout {
    peer: U64,
    gid: [u8; 16],
    mac: [u8; 6],
    qpn: [u8; 3],
    rkey: U32,
    element: u8,
    alert_token: U32,
    /// Size in the high bits, MTU in the low ones.
    size_and_mtu: u8,
    reserved: u8,
    address: U64,
    reserved_too: u8,
    psn: [u8; 3],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct SharedLayout {
    gid: U64,
    token: U64,
    element: u8,
    /// In the high bits.
    size: u8,
    reserved: U16,
    link: U32,
    reserved_too: [u8; 12],
}

/// Bytes of an accept or a confirm of SMC-R.
pub(super) const RDMA_LENGTH: usize = size_of::<Header>() + size_of::<RdmaLayout>() + TRAILER;
/// Bytes of an accept or a confirm of SMC-D.
pub(super) const SHARED_LENGTH: usize = size_of::<Header>() + size_of::<SharedLayout>() + TRAILER;
const _: () = assert!(RDMA_LENGTH == 68 && SHARED_LENGTH == 48);

pub(super) fn parse_accept(body: &[u8], header: Header) -> Result<Accept, ClcError> {
    Ok(Accept { is_first_contact: header.has_flag(), endpoint: parse(body, header)? })
}

pub(super) fn parse_confirm(body: &[u8], header: Header) -> Result<Confirm, ClcError> {
    Ok(Confirm { endpoint: parse(body, header)? })
}

fn parse(body: &[u8], header: Header) -> Result<Endpoint, ClcError> {
    let wrong_path = ClcError::Path { kind: header.kind(), path: header.path() };
    match (header.family(), Path::from_bits(header.path())) {
        (Family::Rdma, Some(Path::Rdma)) => parse_rdma(body).map(Endpoint::Rdma),
        (Family::Shared, Some(Path::Shared)) => parse_shared(body).map(Endpoint::Shared),
        _ => Err(wrong_path),
    }
}

fn parse_rdma(body: &[u8]) -> Result<RdmaEndpoint, ClcError> {
    let layout: RdmaLayout = read_at(body, size_of::<Header>(), Area::Base)?;
    Ok(RdmaEndpoint {
        peer: PeerId(layout.peer.get()),
        gid: RoceGid(layout.gid.into()),
        mac: Mac(layout.mac),
        qpn: Qpn::from_bytes(layout.qpn),
        rkey: Rkey(layout.rkey.get()),
        element: ElementIndex(layout.element),
        alert_token: AlertToken(layout.alert_token.get()),
        buffer_size: buffer_size(layout.size_and_mtu)?,
        mtu: Mtu::from_low_bits(layout.size_and_mtu),
        address: RmbAddress(layout.address.get()),
        psn: Psn::from_bytes(layout.psn),
    })
}

fn parse_shared(body: &[u8]) -> Result<SharedEndpoint, ClcError> {
    let layout: SharedLayout = read_at(body, size_of::<Header>(), Area::Base)?;
    Ok(SharedEndpoint {
        gid: Gid(layout.gid.get()),
        token: DmbToken(layout.token.get()),
        element: ElementIndex(layout.element),
        buffer_size: buffer_size(layout.size)?,
        link: LinkId(layout.link.get()),
    })
}

fn buffer_size(byte: u8) -> Result<BufferSize, ClcError> {
    let code = byte >> 4;
    BufferSize::new(code).ok_or(ClcError::BufferSize(code))
}

pub(super) fn emit_accept<'a>(accept: &Accept, output: Output<'a>) -> &'a [u8] {
    emit(Kind::ACCEPT, if accept.is_first_contact { FLAG } else { 0 }, &accept.endpoint, output)
}

pub(super) fn emit_confirm<'a>(confirm: &Confirm, output: Output<'a>) -> &'a [u8] {
    emit(Kind::CONFIRM, 0, &confirm.endpoint, output)
}

fn emit<'a>(kind: Kind, flag: u8, endpoint: &Endpoint, mut output: Output<'a>) -> &'a [u8] {
    match endpoint {
        Endpoint::Rdma(end) => {
            output.begin(kind, Family::Rdma, flag | Path::Rdma.bits());
            output.put(&RdmaLayout {
                peer: end.peer.0.into(),
                gid: end.gid.0.octets(),
                mac: end.mac.0,
                qpn: end.qpn.to_bytes(),
                rkey: end.rkey.0.into(),
                element: end.element.0,
                alert_token: end.alert_token.0.into(),
                size_and_mtu: end.buffer_size.code() << 4 | end.mtu.code(),
                reserved: 0,
                address: end.address.0.into(),
                reserved_too: 0,
                psn: end.psn.to_bytes(),
            });
        }
        Endpoint::Shared(end) => {
            output.begin(kind, Family::Shared, flag | Path::Shared.bits());
            output.put(&SharedLayout {
                gid: end.gid.0.into(),
                token: end.token.0.into(),
                element: end.element.0,
                size: end.buffer_size.code() << 4,
                reserved: U16::ZERO,
                link: end.link.0.into(),
                reserved_too: [0; 12],
            });
        }
    }
    output.end()
}
