//! What the engine reads of a frame before smoltcp does: whether it opens a TCP connection, and between whom.
//!
//! smoltcp tells nobody the peer's maximum segment size and has no backlog, so the frames that carry SYN are looked at here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of an Ethernet header.
pub(super) const ETHERNET_HEADER: usize = 14;
/// Bytes of an IPv4 header without options.
pub(super) const IPV4_HEADER: usize = 20;
/// Bytes of an IPv6 header.
pub(super) const IPV6_HEADER: usize = 40;
/// Bytes of a TCP header without options.
pub(super) const TCP_HEADER: usize = 20;

const TCP_PROTOCOL: u8 = 6;
const ICMPV6_PROTOCOL: u8 = 58;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// RFC 9293 §3.7.1: what a peer takes that does not say.
const DEFAULT_SEGMENT_IPV4: u16 = 536;

/// A TCP segment with SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handshake {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    /// It acknowledges a SYN: the second segment of a handshake, not the first.
    pub(super) acknowledges: bool,
    /// The sender's initial sequence number.
    pub(super) sequence: u32,
    /// Largest segment that the sender takes.
    pub(super) segment_size: u16,
}

/// Where the headers of a TCP packet stand in its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TcpPlace {
    pub(super) is_ipv6: bool,
    /// Offset of the TCP header.
    pub(super) tcp: usize,
    /// Offset behind the TCP payload.
    pub(super) end: usize,
}

/// Finds the TCP header of `frame`; `None` if the frame carries none that stands whole in it.
pub(super) fn tcp_place(frame: &[u8]) -> Option<TcpPlace> {
    let ether_type = frame.get(12..14)?;
    let packet = frame.get(ETHERNET_HEADER..)?;
    let place = match ether_type {
        [0x08, 0x00] => {
            let header = packet.get(..IPV4_HEADER)?;
            if header[9] != TCP_PROTOCOL || is_fragment(header) {
                return None;
            }
            let header_length = usize::from(header[0] & 0x0f) * 4;
            let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
            TcpPlace { is_ipv6: false, tcp: ETHERNET_HEADER + header_length, end: ETHERNET_HEADER + total }
        }
        [0x86, 0xdd] => {
            let header = packet.get(..IPV6_HEADER)?;
            if header[6] != TCP_PROTOCOL {
                return None;
            }
            let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
            let tcp = ETHERNET_HEADER + IPV6_HEADER;
            TcpPlace { is_ipv6: true, tcp, end: tcp + payload }
        }
        _ => return None,
    };
    (place.tcp + TCP_HEADER <= place.end && place.end <= frame.len()).then_some(place)
}

/// Whether `frame` is part of a larger IPv4 packet. Nothing here reassembles: TCP never fragments what it sends.
pub(super) fn is_ipv4_fragment(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x08, 0x00])
        && frame.get(ETHERNET_HEADER..ETHERNET_HEADER + IPV4_HEADER).is_some_and(is_fragment)
}

/// More fragments follow, or this one does not start at zero.
fn is_fragment(ipv4_header: &[u8]) -> bool {
    (ipv4_header[6] & 0x3f) | ipv4_header[7] != 0
}

/// What a frame is to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A TCP segment with SYN.
    Handshake(Handshake),
    /// Any other TCP segment.
    Segment {
        /// Its source and destination.
        ends: (SocketAddr, SocketAddr),
        /// Its sequence number.
        sequence: u32,
        /// What it acknowledges, if it does.
        acknowledged: Option<u32>,
    },
    /// ARP or ICMPv6, from which neighbours are learned, to this address.
    Neighbour { told: IpAddr },
    /// Anything else.
    Other,
}

/// Looks at `frame`.
pub(super) fn classify(frame: &[u8]) -> Kind {
    segment(frame).or_else(|| told_of_neighbour(frame).map(|told| Kind::Neighbour { told })).unwrap_or(Kind::Other)
}

/// Whom a frame tells about its sender's Ethernet address: the target of ARP (RFC 826), the destination of a neighbour
/// solicitation or advertisement (RFC 4861 §4.3, §4.4). `None` for all other frames.
pub(super) fn told_of_neighbour(frame: &[u8]) -> Option<IpAddr> {
    const TARGET_PROTOCOL_ADDRESS: usize = 24;
    const SOLICITATION: u8 = 135;
    const ADVERTISEMENT: u8 = 136;
    let packet = frame.get(ETHERNET_HEADER..)?;
    match frame.get(12..14)? {
        [0x08, 0x06] => {
            let target = packet.get(TARGET_PROTOCOL_ADDRESS..TARGET_PROTOCOL_ADDRESS + 4)?;
            Some(Ipv4Addr::from(<[u8; 4]>::try_from(target).ok()?).into())
        }
        [0x86, 0xdd] if *packet.get(6)? == ICMPV6_PROTOCOL => {
            let is_discovery = matches!(*packet.get(IPV6_HEADER)?, SOLICITATION | ADVERTISEMENT);
            let (_, destination) = addresses(frame, true)?;
            is_discovery.then_some(destination)
        }
        _ => None,
    }
}

fn segment(frame: &[u8]) -> Option<Kind> {
    let place = tcp_place(frame)?;
    let tcp = &frame[place.tcp..place.end];
    let flags = tcp[13];
    let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    let (source, destination) = addresses(frame, place.is_ipv6)?;
    let (source, destination) = (SocketAddr::new(source, port(0)), SocketAddr::new(destination, port(2)));
    if flags & (SYN | RST | FIN) == SYN {
        let options = tcp.get(TCP_HEADER..usize::from(tcp[12] >> 4) * 4).unwrap_or(&[]);
        return Some(Kind::Handshake(Handshake {
            source,
            destination,
            acknowledges: flags & ACK != 0,
            sequence: sequence_number(tcp),
            segment_size: segment_size_option(options).unwrap_or(DEFAULT_SEGMENT_IPV4),
        }));
    }
    let acknowledged = (flags & (RST | ACK) == ACK).then(|| acknowledgement_number(tcp));
    Some(Kind::Segment { ends: (source, destination), sequence: sequence_number(tcp), acknowledged })
}

/// Turns a TCP packet into a pure acknowledgement at `sequence`: its payload is cut off, all else stays. The checksums are
/// wrong afterwards.
pub(super) fn make_pure_acknowledgement(frame: &mut Vec<u8>, sequence: u32) {
    let Some(place) = tcp_place(frame) else { return };
    let header = usize::from(frame[place.tcp + 12] >> 4) * 4;
    let end = place.tcp + header;
    if header < TCP_HEADER || end > place.end {
        return;
    }
    frame.truncate(end);
    frame[place.tcp + 4..place.tcp + 8].copy_from_slice(&sequence.to_be_bytes());
    frame[place.tcp + 13] = ACK;
    if place.is_ipv6 {
        frame[ETHERNET_HEADER + 4..ETHERNET_HEADER + 6].copy_from_slice(&(header as u16).to_be_bytes());
    } else {
        let total = (end - ETHERNET_HEADER) as u16;
        frame[ETHERNET_HEADER + 2..ETHERNET_HEADER + 4].copy_from_slice(&total.to_be_bytes());
    }
}

fn sequence_number(tcp: &[u8]) -> u32 {
    u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]])
}

fn acknowledgement_number(tcp: &[u8]) -> u32 {
    u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]])
}

fn addresses(frame: &[u8], is_ipv6: bool) -> Option<(IpAddr, IpAddr)> {
    if is_ipv6 {
        let address = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(frame.get(at..at + 16)?).ok()?));
        Some((address(ETHERNET_HEADER + 8)?.into(), address(ETHERNET_HEADER + 24)?.into()))
    } else {
        let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?));
        Some((address(ETHERNET_HEADER + 12)?.into(), address(ETHERNET_HEADER + 16)?.into()))
    }
}

/// RFC 9293 §3.2: the value of the Maximum Segment Size option; `None` if it is absent or zero.
fn segment_size_option(mut options: &[u8]) -> Option<u16> {
    loop {
        match options {
            [] | [0, ..] => return None,
            [1, rest @ ..] => options = rest,
            [2, 4, high, low, ..] => return Some(u16::from_be_bytes([*high, *low])).filter(|size| *size != 0),
            [_, length, ..] if *length >= 2 => options = options.get(usize::from(*length)..)?,
            _ => return None,
        }
    }
}
