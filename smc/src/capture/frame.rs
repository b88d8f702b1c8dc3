//! Frames that were never sent: Ethernet, IPv4 or IPv6, TCP, with sums that are right.

use std::net::{IpAddr, SocketAddr};

use bitflags::bitflags;
use zerocopy::network_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::End;
use crate::wire::tcp_option;

/// The file's header, of libpcap's format with nanoseconds.
pub(super) fn file_header(snapshot_bytes: u32) -> [u8; 24] {
    const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
    const VERSION: [u16; 2] = [2, 4];
    const LINK_TYPE_ETHERNET: u32 = 1;
    let mut header = [0; 24];
    header[0..4].copy_from_slice(&MAGIC_NANOSECONDS.to_le_bytes());
    header[4..6].copy_from_slice(&VERSION[0].to_le_bytes());
    header[6..8].copy_from_slice(&VERSION[1].to_le_bytes());
    // Bytes 8 to 15, time zone and accuracy, are zero by convention.
    header[16..20].copy_from_slice(&snapshot_bytes.to_le_bytes());
    header[20..24].copy_from_slice(&LINK_TYPE_ETHERNET.to_le_bytes());
    header
}

/// What stands in front of a frame of `whole` bytes, of which `kept` are in the file.
pub(super) fn record_header(seconds: u32, nanoseconds: u32, kept: u32, whole: u32) -> [u8; 16] {
    zerocopy::transmute!([seconds, nanoseconds, kept, whole].map(u32::to_le_bytes))
}

bitflags! {
    /// Flags of a TCP segment.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Flags: u8 {
        const FIN = 0x01;
        const SYN = 0x02;
        const RST = 0x04;
        const PSH = 0x08;
        const ACK = 0x10;
    }
}

/// A TCP segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub(super) sequence: u32,
    pub(super) acknowledged: u32,
    pub(super) flags: Flags,
    pub(super) payload: &'a [u8],
}

#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Ethernet {
    destination: [u8; 6],
    source: [u8; 6],
    kind: U16,
}

#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Ipv4 {
    version_and_length: u8,
    service: u8,
    length: U16,
    identification: U16,
    fragment: U16,
    hops: u8,
    protocol: u8,
    checksum: U16,
    source: [u8; 4],
    destination: [u8; 4],
}

#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Ipv6 {
    version_and_class: U32,
    payload_length: U16,
    protocol: u8,
    hops: u8,
    source: [u8; 16],
    destination: [u8; 16],
}

#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Tcp {
    source: U16,
    destination: U16,
    sequence: U32,
    acknowledged: U32,
    /// In the high bits, in words.
    length: u8,
    flags: u8,
    window: U16,
    checksum: U16,
    urgent: U16,
}

const _: () = assert!(size_of::<Ethernet>() == 14 && size_of::<Ipv4>() == 20);
const _: () = assert!(size_of::<Ipv6>() == 40 && size_of::<Tcp>() == 20);

/// SMC's option, and two that mean nothing for whole words.
const OPTIONS: usize = tcp_option::OPTION.len() + 2;
const NO_OPERATION: u8 = 1;

const MAX_HEAD: usize = size_of::<Ethernet>() + size_of::<Ipv6>() + size_of::<Tcp>() + OPTIONS;

const KIND_IPV4: u16 = 0x0800;
const KIND_IPV6: u16 = 0x86dd;
const PROTOCOL_TCP: u8 = 6;
const DO_NOT_FRAGMENT: u16 = 0x4000;
const HOPS: u8 = 64;

/// A frame in front of its payload.
pub(super) struct FrameHead {
    bytes: [u8; MAX_HEAD],
    length: usize,
}

impl FrameHead {
    /// That of `segment` from the first to the second of two addresses of one family; `from` is the first's side.
    pub(super) fn new(from: End, [source, destination]: [SocketAddr; 2], segment: Segment<'_>) -> Self {
        let mut head = Self { bytes: [0; MAX_HEAD], length: 0 };
        let kind = if source.is_ipv4() { KIND_IPV4 } else { KIND_IPV6 };
        head.put(&Ethernet { destination: mac(from.other()), source: mac(from), kind: kind.into() });
        let options = if segment.flags.contains(Flags::SYN) { OPTIONS } else { 0 };
        let length = (size_of::<Tcp>() + options + segment.payload.len()) as u16;
        let pseudo_header = head.put_ip(source.ip(), destination.ip(), length);
        head.put_tcp(source.port(), destination.port(), segment, pseudo_header);
        head
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn put<T: IntoBytes + Immutable>(&mut self, part: &T) {
        let bytes = part.as_bytes();
        self.bytes[self.length..][..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    /// Appends the header of a packet whose TCP segment has `length` bytes, and gives the sum of the pseudo header.
    fn put_ip(&mut self, source: IpAddr, destination: IpAddr, length: u16) -> Sum {
        let sum = Sum::default().word(PROTOCOL_TCP.into()).word(length);
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = Ipv4 {
                    version_and_length: 0x45,
                    service: 0,
                    length: (size_of::<Ipv4>() as u16 + length).into(),
                    identification: U16::ZERO,
                    fragment: DO_NOT_FRAGMENT.into(),
                    hops: HOPS,
                    protocol: PROTOCOL_TCP,
                    checksum: U16::ZERO,
                    source: source.octets(),
                    destination: destination.octets(),
                };
                header.checksum = Sum::default().bytes(header.as_bytes()).complement().into();
                self.put(&header);
                sum.bytes(&source.octets()).bytes(&destination.octets())
            }
            (source, destination) => {
                let [source, destination] = [source, destination].map(|address| match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                    IpAddr::V6(address) => address.octets(),
                });
                self.put(&Ipv6 {
                    version_and_class: 0x6000_0000.into(),
                    payload_length: length.into(),
                    protocol: PROTOCOL_TCP,
                    hops: HOPS,
                    source,
                    destination,
                });
                sum.bytes(&source).bytes(&destination)
            }
        }
    }

    fn put_tcp(&mut self, source: u16, destination: u16, segment: Segment<'_>, pseudo_header: Sum) {
        let Segment { sequence, acknowledged, flags, payload } = segment;
        let is_syn = flags.contains(Flags::SYN);
        let words = (size_of::<Tcp>() + if is_syn { OPTIONS } else { 0 }) / 4;
        let at = self.length;
        self.put(&Tcp {
            source: source.into(),
            destination: destination.into(),
            sequence: sequence.into(),
            acknowledged: acknowledged.into(),
            length: (words as u8) << 4,
            flags: flags.bits(),
            window: u16::MAX.into(),
            checksum: U16::ZERO,
            urgent: U16::ZERO,
        });
        if is_syn {
            self.put(&tcp_option::OPTION);
            self.put(&[NO_OPERATION; 2]);
        }
        let checksum = pseudo_header.bytes(&self.bytes[at..self.length]).bytes(payload).complement();
        let checksum_at = at + std::mem::offset_of!(Tcp, checksum);
        self.bytes[checksum_at..][..2].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// A made-up address for each side.
const fn mac(end: End) -> [u8; 6] {
    [2, 0, 0, 0, 0, 1 + end.index() as u8]
}

/// The Internet checksum in the making (RFC 1071).
#[derive(Clone, Copy, Default)]
struct Sum(u64);

impl Sum {
    fn word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word))
    }

    /// Adds bytes, of which only the last part may have an odd number.
    fn bytes(self, bytes: &[u8]) -> Self {
        let (pairs, odd) = bytes.as_chunks();
        let sum: u64 = pairs.iter().map(|&pair| u64::from(u16::from_be_bytes(pair))).sum();
        let last = odd.first().map_or(0, |&byte| u64::from(byte) << 8);
        Self(self.0 + sum + last)
    }

    fn complement(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}
