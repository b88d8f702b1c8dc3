//! SMC Proposal (RFC 7609 §A.2.2): what the client could do. SMC-D's part stands in the area that the RFC keeps for growth,
//! and version 2 continues from there.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use zerocopy::network_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::decline::DeclineReason;
use super::error::{Area, ClcError};
use super::frame::{Family, Header, Kind, Output, TRAILER, read_at};
use crate::wire::{Gid, Mac, PeerId, RoceGid};

/// What the client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The client.
    pub peer: PeerId,
    /// What it can do.
    pub offer: Offer,
    /// Where its address is, so that a server can tell whether they are neighbours.
    pub subnet: Subnet,
}

/// The ways on which a connection can go, and where the one who offers them is found on each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// SMC-R only.
    Rdma(RoceAddress),
    /// SMC-D only.
    Shared(Gid),
    /// Either.
    Both {
        /// For SMC-R.
        rdma: RoceAddress,
        /// For SMC-D.
        shared: Gid,
    },
}

impl Offer {
    /// The device for SMC-R, if that is offered.
    pub const fn rdma(&self) -> Option<RoceAddress> {
        match self {
            Self::Rdma(rdma) | Self::Both { rdma, .. } => Some(*rdma),
            Self::Shared(_) => None,
        }
    }

    /// The device for SMC-D, if that is offered.
    pub const fn shared(&self) -> Option<Gid> {
        match self {
            Self::Shared(shared) | Self::Both { shared, .. } => Some(*shared),
            Self::Rdma(_) => None,
        }
    }

    /// The better one of the paths that both this one and `other` offer, or what to decline with.
    pub const fn common_path(&self, other: &Self) -> Result<Path, DeclineReason> {
        if self.shared().is_some() && other.shared().is_some() {
            Ok(Path::Shared)
        } else if self.rdma().is_some() && other.rdma().is_some() {
            Ok(Path::Rdma)
        } else {
            Err(DeclineReason::MODE_UNSUPPORTED)
        }
    }

    const fn bits(&self) -> u8 {
        match self {
            Self::Rdma(_) => Path::Rdma.bits(),
            Self::Shared(_) => Path::Shared.bits(),
            Self::Both { .. } => BOTH,
        }
    }
}

/// What a connection goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// RDMA: SMC-R.
    Rdma,
    /// Shared memory: SMC-D.
    Shared,
}

/// Path bits of a proposal that offers neither.
const NEITHER: u8 = 2;
/// Path bits of a proposal that offers both.
const BOTH: u8 = 3;

impl Path {
    pub(super) const fn bits(self) -> u8 {
        match self {
            Self::Rdma => 0,
            Self::Shared => 1,
        }
    }

    pub(super) const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Rdma),
            1 => Some(Self::Shared),
            _ => None,
        }
    }
}

/// An RDMA device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoceAddress {
    /// Its GID.
    pub gid: RoceGid,
    /// Its MAC address.
    pub mac: Mac,
}

/// Networks of the interface through which the client has connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subnet {
    /// The connection is one of IPv4.
    Ipv4 {
        /// The subnet. RFC 7609 calls it a mask; Linux sends the network's address.
        subnet: Ipv4Addr,
        /// How many of its bits count, at most 32.
        bits: u8,
    },
    /// The connection is one of IPv6.
    Ipv6(Prefixes),
}

/// One IPv6 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Prefix {
    /// The prefix, zeros behind it.
    pub prefix: Ipv6Addr,
    /// Its bits, at most 128.
    pub bits: u8,
}

/// One to eight IPv6 prefixes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Prefixes {
    entries: [Ipv6Prefix; Prefixes::MAX],
    count: u8,
}

impl Prefixes {
    /// How many there can be.
    pub const MAX: usize = 8;

    const NONE: Ipv6Prefix = Ipv6Prefix { prefix: Ipv6Addr::UNSPECIFIED, bits: 0 };

    /// `None` if there are none or too many, or one has more bits than an address.
    pub fn new(prefixes: &[Ipv6Prefix]) -> Option<Self> {
        let is_valid = prefixes.iter().all(|prefix| prefix.bits <= IPV6_BITS);
        if prefixes.is_empty() || prefixes.len() > Self::MAX || !is_valid {
            return None;
        }
        let mut entries = [Self::NONE; Self::MAX];
        entries[..prefixes.len()].copy_from_slice(prefixes);
        Some(Self { entries, count: prefixes.len() as u8 })
    }

    /// The prefixes.
    pub fn as_slice(&self) -> &[Ipv6Prefix] {
        &self.entries[..usize::from(self.count)]
    }
}

impl fmt::Debug for Prefixes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.as_slice()).finish()
    }
}

const IPV4_BITS: u8 = 32;
const IPV6_BITS: u8 = 128;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Base {
    peer: U64,
    gid: [u8; 16],
    mac: [u8; 6],
    /// Bytes between this field and [`SubnetLayout`].
    area_offset: U16,
}

/// SMC-D's part, directly behind [`Base`].
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct SharedLayout {
    gid: U64,
    channel: U16,
    /// Bytes between this field and [`Extension`]; zero: there is none.
    extension_offset: U16,
    reserved: [u8; 28],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct SubnetLayout {
    subnet: [u8; 4],
    bits: u8,
    reserved: [u8; 2],
    prefixes: u8,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct PrefixLayout {
    prefix: [u8; 16],
    bits: u8,
}

/// Of version 2; user enterprise IDs follow.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Extension {
    user_ids: u8,
    shared_devices: u8,
    _flags: [u8; 4],
    /// Bytes between this field and [`SharedExtension`]; zero: there is none.
    shared_offset: U16,
    _rest: [u8; 32],
}

/// Of SMC-D's version 2; devices follow.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct SharedExtension {
    _system_id: [u8; 32],
    _reserved: [u8; 16],
}

/// Bytes of an enterprise ID.
const USER_ID: usize = 32;
/// Bytes of the GID and the channel of a device.
const SHARED_DEVICE: usize = 10;
/// How many of either there can be.
const MAX_ENTRIES: u8 = 8;

const BASE_END: usize = size_of::<Header>() + size_of::<Base>();
const SHARED_END: usize = BASE_END + size_of::<SharedLayout>();

/// Bytes of the shortest proposal: SMC-R over IPv4.
pub(super) const MIN_LENGTH: usize = BASE_END + size_of::<SubnetLayout>() + TRAILER;
/// Bytes of the longest proposal of ours.
pub(super) const MAX_EMITTED: usize =
    SHARED_END + size_of::<SubnetLayout>() + Prefixes::MAX * size_of::<PrefixLayout>() + TRAILER;

const _: () = assert!(BASE_END == 40 && SHARED_END == 80 && size_of::<PrefixLayout>() == 17);
const _: () = assert!(MIN_LENGTH == 52 && SHARED_END + size_of::<SubnetLayout>() + TRAILER == 92);
const _: () = assert!(size_of::<Extension>() == 40 && size_of::<SharedExtension>() == 48);

pub(super) fn parse(body: &[u8], header: Header) -> Result<Proposal, ClcError> {
    let base: Base = read_at(body, size_of::<Header>(), Area::Base)?;
    let rdma = RoceAddress { gid: RoceGid(base.gid.into()), mac: Mac(base.mac) };
    let subnet_at = BASE_END + usize::from(base.area_offset.get());
    let is_first_version = header.version() == 1;
    let offer = match header.path() {
        path if Path::from_bits(path) == Some(Path::Rdma) => Offer::Rdma(rdma),
        path if Path::from_bits(path) == Some(Path::Shared) => Offer::Shared(shared_gid(body, subnet_at)?),
        BOTH => Offer::Both { rdma, shared: shared_gid(body, subnet_at)? },
        path if is_first_version => return Err(ClcError::Path { kind: Kind::PROPOSAL, path }),
        _ => {
            // No subnet then: the extension, if any, follows at once.
            check_extension(body, SHARED_END, header)?;
            return Err(ClcError::OnlySecondVersion);
        }
    };
    let (subnet, end) = parse_subnet(body, subnet_at)?;
    if is_first_version {
        if end != body.len() {
            return Err(ClcError::Length { kind: Kind::PROPOSAL, length: body.len() + TRAILER });
        }
    } else {
        check_extension(body, end, header)?;
    }
    Ok(Proposal { peer: PeerId(base.peer.get()), offer, subnet })
}

/// The client's SMC-D device. Its part must lie in front of the subnet.
fn shared_gid(body: &[u8], subnet_at: usize) -> Result<Gid, ClcError> {
    if subnet_at < SHARED_END {
        return Err(ClcError::Outside(Area::Shared));
    }
    let shared: SharedLayout = read_at(body, BASE_END, Area::Shared)?;
    Ok(Gid(shared.gid.get()))
}

/// The subnet or the prefixes at `at`, and where they end.
fn parse_subnet(body: &[u8], at: usize) -> Result<(Subnet, usize), ClcError> {
    let layout: SubnetLayout = read_at(body, at, Area::Prefixes)?;
    let mut at = at + size_of::<SubnetLayout>();
    if layout.prefixes == 0 {
        if layout.bits > IPV4_BITS {
            return Err(ClcError::PrefixLength(layout.bits));
        }
        return Ok((Subnet::Ipv4 { subnet: layout.subnet.into(), bits: layout.bits }, at));
    }
    check_count(Area::Prefixes, layout.prefixes)?;
    let mut entries = [Prefixes::NONE; Prefixes::MAX];
    for entry in &mut entries[..usize::from(layout.prefixes)] {
        let prefix: PrefixLayout = read_at(body, at, Area::Prefixes)?;
        if prefix.bits > IPV6_BITS {
            return Err(ClcError::PrefixLength(prefix.bits));
        }
        *entry = Ipv6Prefix { prefix: prefix.prefix.into(), bits: prefix.bits };
        at += size_of::<PrefixLayout>();
    }
    Ok((Subnet::Ipv6(Prefixes { entries, count: layout.prefixes }), at))
}

/// Checks version 2 of a proposal whose version 1 ends at `first_end`: what it points to must be there, behind version 1 and
/// in order. Nothing of it is used here; a message that is wrong anywhere is not believed elsewhere.
fn check_extension(body: &[u8], first_end: usize, header: Header) -> Result<(), ClcError> {
    let shared: SharedLayout = read_at(body, BASE_END, Area::Shared)?;
    // A proposal of version 2 always has SMC-D's part, filled or not.
    if first_end < SHARED_END + if header.path() == NEITHER { 0 } else { size_of::<SubnetLayout>() } {
        return Err(ClcError::Outside(Area::Prefixes));
    }
    let offset = usize::from(shared.extension_offset.get());
    if header.second_path() == NEITHER || offset == 0 {
        return Ok(());
    }
    let at = BASE_END + std::mem::offset_of!(SharedLayout, reserved) + offset;
    if at < first_end {
        return Err(ClcError::Outside(Area::Extension));
    }
    let extension: Extension = read_at(body, at, Area::Extension)?;
    check_count(Area::Extension, extension.user_ids)?;
    let end = at + size_of::<Extension>() + usize::from(extension.user_ids) * USER_ID;
    if end > body.len() {
        return Err(ClcError::Outside(Area::Extension));
    }
    let offset = usize::from(extension.shared_offset.get());
    if header.second_path() == Path::Rdma.bits() || offset == 0 {
        return Ok(());
    }
    let at = at + std::mem::offset_of!(Extension, _rest) + offset;
    let _: SharedExtension = read_at(body, at, Area::SharedExtension)?;
    check_count(Area::SharedExtension, extension.shared_devices)?;
    let devices_end = at + size_of::<SharedExtension>() + usize::from(extension.shared_devices) * SHARED_DEVICE;
    if at < end || devices_end > body.len() {
        return Err(ClcError::Outside(Area::SharedExtension));
    }
    Ok(())
}

fn check_count(area: Area, count: u8) -> Result<(), ClcError> {
    if count <= MAX_ENTRIES { Ok(()) } else { Err(ClcError::Count { area, count, limit: MAX_ENTRIES }) }
}

pub(super) fn emit<'a>(proposal: &Proposal, mut output: Output<'a>) -> &'a [u8] {
    let Proposal { peer, offer, subnet } = proposal;
    // Without SMC-D its part is there all the same, as in Linux's: receivers skip it by its length, and Wireshark counts on it.
    let area_offset = size_of::<SharedLayout>() as u16;
    // RFC 7609 §A.2: what is not in use is zero.
    let shared = offer.shared().unwrap_or_default();
    let (gid, mac) = offer.rdma().map_or(([0; 16], Mac::default()), |rdma| (rdma.gid.0.octets(), rdma.mac));
    output.begin(Kind::PROPOSAL, Family::Rdma, offer.bits());
    output.put(&Base { peer: peer.0.into(), gid, mac: mac.0, area_offset: area_offset.into() });
    let (channel, extension_offset) = (U16::ZERO, U16::ZERO);
    output.put(&SharedLayout { gid: shared.0.into(), channel, extension_offset, reserved: [0; 28] });
    match subnet {
        Subnet::Ipv4 { subnet, bits } => {
            output.put(&SubnetLayout {
                subnet: subnet.octets(),
                bits: (*bits).min(IPV4_BITS),
                reserved: [0; 2],
                prefixes: 0,
            });
        }
        Subnet::Ipv6(prefixes) => {
            output.put(&SubnetLayout { subnet: [0; 4], bits: 0, reserved: [0; 2], prefixes: prefixes.count });
            for Ipv6Prefix { prefix, bits } in prefixes.as_slice() {
                output.put(&PrefixLayout { prefix: prefix.octets(), bits: *bits });
            }
        }
    }
    output.end()
}
