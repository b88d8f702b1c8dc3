//! TCP segments on the wire: reading what arrived, and stamping headers onto what leaves.
//!
//! The only place that knows byte positions. Sequence numbers are 32 bits wide and wrap here; above, places in a stream are
//! 64-bit offsets ([`SequenceSpace`] converts).

use super::shared::SackBlocks;
use super::sum::Sum;
use super::tuple::Tuple;
use crate::port::{ReceivedChecksum, TransmitOffload};
use crate::time::Instant;

/// Bytes of an Ethernet header.
pub(super) const ETHERNET_HEADER: usize = 14;
/// Bytes of an IPv4 header without options.
pub(super) const IPV4_HEADER: usize = 20;
/// Bytes of an IPv6 header.
pub(super) const IPV6_HEADER: usize = 40;
/// Bytes of both addresses, which end an IPv4 header without options, and every IPv6 header.
const IPV4_ADDRESSES: usize = 8;
const IPV6_ADDRESSES: usize = 32;
/// Bytes of a TCP header without options.
pub(super) const TCP_HEADER: usize = 20;
/// Bytes of the timestamps option, padded to a multiple of four (RFC 7323 appendix A).
pub(super) const TIMESTAMPS_OPTION: usize = 12;
/// Most bytes of headers in front of a payload that are read: Ethernet, IPv4 or IPv6 and TCP with all their options.
pub(super) const LONGEST_HEADERS: usize = ETHERNET_HEADER + 60 + 60;

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;

const TCP_PROTOCOL: u8 = 6;
/// RFC 7323 §2.3: a larger shift counts as this one.
const LARGEST_SHIFT: u8 = 14;

/// A TCP segment that arrived, its headers read.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) tuple: Tuple,
    pub(super) is_ipv6: bool,
    /// Ethernet address of whoever sent the frame.
    pub(super) hardware_source: [u8; 6],
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) flags: u8,
    /// As on the wire, not scaled.
    pub(super) window: u16,
    /// RFC 7323 §3.2: the peer's clock, and what it echoes of ours.
    pub(super) timestamps: Option<(u32, u32)>,
    pub(super) sack: SackBlocks,
    /// Where the TCP header begins in the frame.
    tcp: usize,
    /// Where the payload begins in the frame.
    pub(super) payload: usize,
    /// Behind the payload: what follows is padding.
    pub(super) end: usize,
}

impl Segment {
    pub(super) const fn payload_length(&self) -> usize {
        self.end - self.payload
    }

    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Sequence numbers that it occupies.
    pub(super) const fn sequence_length(&self) -> u32 {
        self.payload_length() as u32 + self.has(SYN) as u32 + self.has(FIN) as u32
    }

    /// The options of the segment's SYN, which stands in `head`, the beginning of the frame.
    pub(super) fn syn_options(&self, head: &[u8]) -> SynOptions {
        SynOptions::parse(head.get(self.tcp + TCP_HEADER..self.payload).unwrap_or(&[]))
    }

    /// Whether the checksums of the frame hold, which begins with `head` and whose parts are `parts`.
    #[inline(always)]
    pub(super) fn is_intact<'a>(&self, head: &[u8], parts: impl Iterator<Item = &'a [u8]>) -> bool {
        if !self.is_ipv6 && ip_sum(&head[ETHERNET_HEADER..self.tcp]) != 0xffff {
            return false;
        }
        // The pseudo-header (RFC 9293 §3.1): addresses, protocol, length.
        let mut sum = Sum::default();
        sum.add_words([0, TCP_PROTOCOL, 0, 0]);
        sum.add_words(((self.end - self.tcp) as u32).to_be_bytes());
        let start = if self.is_ipv6 {
            self.tcp - IPV6_ADDRESSES
        } else if self.tcp == ETHERNET_HEADER + IPV4_HEADER {
            self.tcp - IPV4_ADDRESSES
        } else {
            // Options stand between the addresses and the segment.
            sum.add(&head[ETHERNET_HEADER + IPV4_HEADER - IPV4_ADDRESSES..ETHERNET_HEADER + IPV4_HEADER]);
            self.tcp
        };
        match head.get(start..self.end) {
            Some(segment) => sum.add(segment),
            None => slices(parts, start, self.end - start).for_each(|part| sum.add(part)),
        }
        sum.fold() == 0xffff
    }
}

/// The sum of an IPv4 header: a multiple of four bytes.
#[inline]
fn ip_sum(header: &[u8]) -> u16 {
    let mut sum = Sum::default();
    header.as_chunks::<4>().0.iter().for_each(|words| sum.add_words(*words));
    sum.fold()
}

/// What a frame is.
#[derive(Clone, Debug)]
pub(super) enum Parsed {
    /// A TCP segment.
    Tcp(Segment),
    /// Anything else that may be meant for this host.
    Other,
    /// It contradicts itself.
    Malformed,
}

/// Reads the headers of a frame of `length` bytes that begins with `head`: all of it, or [`LONGEST_HEADERS`] bytes.
#[inline(always)]
pub(super) fn parse(head: &[u8], length: usize) -> Parsed {
    let Some(ether_type) = head.get(12..ETHERNET_HEADER) else { return Parsed::Malformed };
    let (is_ipv6, tcp, end) = match ether_type {
        [0x08, 0x00] => {
            let Some(header) = head.get(ETHERNET_HEADER..ETHERNET_HEADER + IPV4_HEADER) else {
                return Parsed::Malformed;
            };
            let header_length = usize::from(header[0] & 0x0f) * 4;
            if header[0] >> 4 != 4 || header_length < IPV4_HEADER {
                return Parsed::Malformed;
            }
            // Nothing here reassembles: TCP never fragments what it sends.
            if (header[6] & 0x3f) | header[7] != 0 {
                return Parsed::Malformed;
            }
            if header[9] != TCP_PROTOCOL {
                return Parsed::Other;
            }
            let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
            (false, ETHERNET_HEADER + header_length, ETHERNET_HEADER + total)
        }
        [0x86, 0xdd] => {
            let Some(header) = head.get(ETHERNET_HEADER..ETHERNET_HEADER + IPV6_HEADER) else {
                return Parsed::Malformed;
            };
            if header[0] >> 4 != 6 {
                return Parsed::Malformed;
            }
            if header[6] != TCP_PROTOCOL {
                return Parsed::Other;
            }
            let tcp = ETHERNET_HEADER + IPV6_HEADER;
            (true, tcp, tcp + usize::from(u16::from_be_bytes([header[4], header[5]])))
        }
        _ => return Parsed::Other,
    };
    parse_tcp(head, length, is_ipv6, tcp, end).map_or(Parsed::Malformed, Parsed::Tcp)
}

#[inline(always)]
fn parse_tcp(head: &[u8], length: usize, is_ipv6: bool, tcp: usize, end: usize) -> Option<Segment> {
    if end > length || tcp + TCP_HEADER > end {
        return None;
    }
    let header: &[u8; TCP_HEADER] = head.get(tcp..)?.first_chunk()?;
    let payload = tcp + usize::from(header[12] >> 4) * 4;
    if payload < tcp + TCP_HEADER || payload > end {
        return None;
    }
    let options = head.get(tcp + TCP_HEADER..payload)?;
    let ports = [header[0], header[1], header[2], header[3]];
    let ip = &head[ETHERNET_HEADER..tcp];
    let tuple = if is_ipv6 {
        let address = |at: usize| ip[at..].first_chunk::<16>().map(|bytes| u128::from_be_bytes(*bytes));
        Tuple::received_ipv6(address(8)?, address(24)?, ports)
    } else {
        let address = |at: usize| ip[at..].first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
        Tuple::received_ipv4(address(12)?, address(16)?, ports)
    };
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let mut segment = Segment {
        tuple,
        is_ipv6,
        hardware_source: *head[6..].first_chunk()?,
        sequence: word(4),
        acknowledgement: word(8),
        flags: header[13],
        window: u16::from_be_bytes([header[14], header[15]]),
        timestamps: None,
        sack: SackBlocks::default(),
        tcp,
        payload,
        end,
    };
    parse_options(options, &mut segment);
    Some(segment)
}

#[inline]
fn parse_options(mut options: &[u8], segment: &mut Segment) {
    // RFC 7323 appendix A: what nearly every segment of an established connection looks like.
    if let [1, 1, 8, 10, times @ ..] = options
        && let Ok(times) = <&[u8; 8]>::try_from(times)
    {
        segment.timestamps = Some(timestamps(times));
        return;
    }
    while let Some((option, rest)) = next_option(options) {
        options = rest;
        match option {
            [8, 10, times @ ..] => segment.timestamps = times.first_chunk().map(timestamps),
            [5, _, blocks @ ..] => {
                for block in blocks.chunks_exact(8) {
                    let (left, right) = timestamps(block.first_chunk().expect("a chunk of eight"));
                    segment.sack.push(left, right);
                }
            }
            _ => {}
        }
    }
}

/// The next option in `options` and what is behind it; `None` at the end, or where the rest makes no sense.
fn next_option(mut options: &[u8]) -> Option<(&[u8], &[u8])> {
    loop {
        match options {
            [] | [0, ..] => return None,
            [1, rest @ ..] => options = rest,
            [_, length, ..] if *length >= 2 => return options.split_at_checked(usize::from(*length)),
            _ => return None,
        }
    }
}

fn timestamps(bytes: &[u8; 8]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = *bytes;
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

/// What a SYN offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SynOptions {
    /// RFC 9293 §3.7.1: largest segment that its sender takes; `None` if it does not say.
    pub(super) maximum_segment: Option<u16>,
    /// RFC 7323 §2: how far the sender shifts its window.
    pub(super) window_shift: Option<u8>,
    /// RFC 2018 §2: it understands selective acknowledgements.
    pub(super) sack: bool,
    /// RFC 7323 §3: it sent timestamps.
    pub(super) timestamps: bool,
}

impl SynOptions {
    fn parse(mut options: &[u8]) -> Self {
        let mut parsed = Self::default();
        while let Some((option, rest)) = next_option(options) {
            options = rest;
            match option {
                [2, 4, high, low] => {
                    parsed.maximum_segment = Some(u16::from_be_bytes([*high, *low])).filter(|size| *size != 0);
                }
                [3, 3, shift] => parsed.window_shift = Some((*shift).min(LARGEST_SHIFT)),
                [4, 2] => parsed.sack = true,
                [8, 10, ..] => parsed.timestamps = true,
                _ => {}
            }
        }
        parsed
    }
}

/// The parts of `length` bytes from `start` on of what is in `parts`.
#[inline]
pub(super) fn slices<'a>(
    parts: impl Iterator<Item = &'a [u8]>,
    start: usize,
    length: usize,
) -> impl Iterator<Item = &'a [u8]> {
    let mut skip = start;
    let mut left = length;
    parts.filter_map(move |part| {
        let begin = skip.min(part.len());
        skip -= begin;
        let part = &part[begin..];
        let part = &part[..left.min(part.len())];
        left -= part.len();
        (!part.is_empty()).then_some(part)
    })
}

/// Converts between the offsets of one direction of a connection and its sequence numbers: offset 0 is the first byte
/// behind the SYN.
#[derive(Clone, Copy, Debug)]
pub(super) struct SequenceSpace {
    start: u32,
}

impl SequenceSpace {
    /// `initial` is the sequence number of the SYN.
    pub(super) const fn new(initial: u32) -> Self {
        Self { start: initial.wrapping_add(1) }
    }

    #[inline]
    pub(super) const fn sequence(self, offset: u64) -> u32 {
        self.start.wrapping_add(offset as u32)
    }

    /// The offset of `sequence` that is nearest to `near`; negative offsets lie before the stream.
    #[inline]
    pub(super) const fn offset(self, sequence: u32, near: u64) -> i64 {
        near as i64 + sequence.wrapping_sub(self.sequence(near)) as i32 as i64
    }
}

/// Who computes checksums of what leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checksums {
    /// Nobody.
    Off,
    /// The engine.
    Here,
    /// The port.
    Port,
}

/// The headers of a connection's segments, with everything in place that does not change.
#[derive(Clone, Debug)]
pub(super) struct HeaderTemplate {
    bytes: [u8; ETHERNET_HEADER + IPV6_HEADER + TCP_HEADER],
    /// Where the TCP header begins.
    tcp: usize,
    /// Of the IP header's words that do not change.
    ip_sum: Sum,
    /// Of the addresses, the protocol and the ports.
    pseudo_sum: Sum,
}

/// What changes from segment to segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp<'a> {
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) flags: u8,
    /// As on the wire.
    pub(super) window: u16,
    pub(super) options: Options<'a>,
}

/// RFC 7323 §5.4: a clock in milliseconds, before the offset of the connection.
#[inline]
pub(super) const fn clock_at(now: Instant) -> u32 {
    (now.as_nanoseconds() / 1_000_000) as u32
}

/// The options of a segment that leaves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Options<'a> {
    None,
    /// Our clock and the echo of the peer's.
    Timestamps(u32, u32),
    /// A SYN's. With the timestamps if they are offered.
    Syn(&'a SynOptions, (u32, u32)),
    /// A pure acknowledgement's.
    Sack(Option<(u32, u32)>, &'a SackBlocks),
}

impl Options<'_> {
    /// Bytes that they take: a multiple of four.
    pub(super) fn length(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Timestamps(..) => TIMESTAMPS_OPTION,
            Self::Syn(syn, _) => {
                4 * usize::from(syn.maximum_segment.is_some())
                    + 4 * usize::from(syn.window_shift.is_some())
                    + 4 * usize::from(syn.sack)
                    + TIMESTAMPS_OPTION * usize::from(syn.timestamps)
            }
            Self::Sack(times, blocks) => {
                let blocks = blocks.fitting(times.is_some()).len();
                TIMESTAMPS_OPTION * usize::from(times.is_some()) + if blocks > 0 { 4 + 8 * blocks } else { 0 }
            }
        }
    }

    fn write(&self, out: &mut [u8]) {
        match self {
            Self::None => {}
            Self::Timestamps(value, echo) => write_timestamps(out, *value, *echo),
            Self::Syn(syn, (value, echo)) => {
                let mut out = out;
                let mut put = |bytes: [u8; 4]| {
                    let (place, rest) = std::mem::take(&mut out).split_at_mut(4);
                    place.copy_from_slice(&bytes);
                    out = rest;
                };
                if let Some(size) = syn.maximum_segment {
                    put([2, 4, (size >> 8) as u8, size as u8]);
                }
                if let Some(shift) = syn.window_shift {
                    put([1, 3, 3, shift]);
                }
                if syn.sack {
                    put([1, 1, 4, 2]);
                }
                if syn.timestamps {
                    write_timestamps(out, *value, *echo);
                }
            }
            Self::Sack(times, blocks) => {
                let mut out = out;
                if let Some((value, echo)) = times {
                    let (place, rest) = out.split_at_mut(TIMESTAMPS_OPTION);
                    write_timestamps(place, *value, *echo);
                    out = rest;
                }
                let blocks = blocks.fitting(times.is_some());
                if !blocks.is_empty() {
                    out[..4].copy_from_slice(&[1, 1, 5, 2 + 8 * blocks.len() as u8]);
                    for (place, (left, right)) in out[4..].chunks_exact_mut(8).zip(blocks) {
                        place[..4].copy_from_slice(&left.to_be_bytes());
                        place[4..].copy_from_slice(&right.to_be_bytes());
                    }
                }
            }
        }
    }
}

#[inline]
fn write_timestamps(out: &mut [u8], value: u32, echo: u32) {
    out[..4].copy_from_slice(&[1, 1, 8, 10]);
    out[4..8].copy_from_slice(&value.to_be_bytes());
    out[8..12].copy_from_slice(&echo.to_be_bytes());
}

impl HeaderTemplate {
    /// For segments between the ends of `tuple`, from `source` to `destination` on Ethernet.
    pub(super) fn new(tuple: &Tuple, source: [u8; 6], destination: [u8; 6]) -> Self {
        use std::net::IpAddr;
        let (local, remote) = (tuple.local(), tuple.remote());
        let mut bytes = [0; ETHERNET_HEADER + IPV6_HEADER + TCP_HEADER];
        bytes[..6].copy_from_slice(&destination);
        bytes[6..12].copy_from_slice(&source);
        let mut pseudo_sum = Sum::default();
        let ip = &mut bytes[ETHERNET_HEADER..];
        let tcp = match (local.ip(), remote.ip()) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                ip[0] = 0x45;
                ip[6] = 0x40; // RFC 1191: never fragmented on the way, so the identification may be zero (RFC 6864 §4.1).
                ip[8] = 64;
                ip[9] = TCP_PROTOCOL;
                ip[12..16].copy_from_slice(&local.octets());
                ip[16..20].copy_from_slice(&remote.octets());
                pseudo_sum.add(&ip[12..20]);
                bytes[12..14].copy_from_slice(&[0x08, 0x00]);
                ETHERNET_HEADER + IPV4_HEADER
            }
            (local, remote) => {
                let octets = |address: IpAddr| match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                    IpAddr::V6(address) => address.octets(),
                };
                ip[0] = 0x60;
                ip[6] = TCP_PROTOCOL;
                ip[7] = 64;
                ip[8..24].copy_from_slice(&octets(local));
                ip[24..40].copy_from_slice(&octets(remote));
                pseudo_sum.add(&ip[8..40]);
                bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
                ETHERNET_HEADER + IPV6_HEADER
            }
        };
        bytes[tcp..tcp + 2].copy_from_slice(&local.port().to_be_bytes());
        bytes[tcp + 2..tcp + 4].copy_from_slice(&remote.port().to_be_bytes());
        let mut ip_sum = Sum::default();
        ip_sum.add(&bytes[ETHERNET_HEADER..tcp]);
        pseudo_sum.add(&[0, TCP_PROTOCOL]);
        Self { bytes, tcp, ip_sum, pseudo_sum }
    }

    /// The next hop has another Ethernet address.
    pub(super) fn set_destination(&mut self, destination: [u8; 6]) {
        self.bytes[..6].copy_from_slice(&destination);
    }

    /// Bytes in front of the TCP options.
    pub(super) const fn length(&self) -> usize {
        self.tcp + TCP_HEADER
    }

    const fn is_ipv6(&self) -> bool {
        self.tcp == ETHERNET_HEADER + IPV6_HEADER
    }

    /// Writes the headers of `stamp` in front of the payload, which is in place at the end of `frame`, and says what is left
    /// to the port.
    #[inline(always)]
    pub(super) fn stamp(&self, frame: &mut [u8], stamp: &Stamp<'_>, checksums: Checksums) -> TransmitOffload {
        let tcp = self.tcp;
        let packet = (frame.len() - ETHERNET_HEADER) as u16;
        let segment = (frame.len() - tcp) as u32;
        let options = stamp.options.length();
        frame[..self.length()].copy_from_slice(&self.bytes[..self.length()]);
        stamp.options.write(&mut frame[self.length()..self.length() + options]);
        let header = &mut frame[tcp..tcp + TCP_HEADER];
        header[4..8].copy_from_slice(&stamp.sequence.to_be_bytes());
        header[8..12].copy_from_slice(&stamp.acknowledgement.to_be_bytes());
        header[12] = ((TCP_HEADER + options) as u8 / 4) << 4;
        header[13] = stamp.flags;
        header[14..16].copy_from_slice(&stamp.window.to_be_bytes());
        if self.is_ipv6() {
            let payload = (packet - IPV6_HEADER as u16).to_be_bytes();
            frame[ETHERNET_HEADER + 4..ETHERNET_HEADER + 6].copy_from_slice(&payload);
        } else {
            frame[ETHERNET_HEADER + 2..ETHERNET_HEADER + 4].copy_from_slice(&packet.to_be_bytes());
        }
        if checksums == Checksums::Off {
            return TransmitOffload::default();
        }
        let mut pseudo = self.pseudo_sum;
        pseudo.add_words(segment.to_be_bytes());
        if checksums == Checksums::Port {
            frame[tcp + 16..tcp + 18].copy_from_slice(&pseudo.fold().to_be_bytes());
            return TransmitOffload { ipv4_checksum: !self.is_ipv6(), tcp_checksum: true, segment_size: 0 };
        }
        if !self.is_ipv6() {
            let mut sum = self.ip_sum;
            let [high, low] = packet.to_be_bytes();
            sum.add_words([high, low, 0, 0]);
            frame[ETHERNET_HEADER + 10..ETHERNET_HEADER + 12].copy_from_slice(&(!sum.fold()).to_be_bytes());
        }
        pseudo.add(&frame[tcp..]);
        frame[tcp + 16..tcp + 18].copy_from_slice(&(!pseudo.fold()).to_be_bytes());
        TransmitOffload::default()
    }
}

/// Whether a packet whose port said `verdict` has good checksums.
#[inline(always)]
pub(super) fn is_good<'a>(
    segment: &Segment,
    verdict: ReceivedChecksum,
    head: &[u8],
    parts: impl Iterator<Item = &'a [u8]>,
) -> bool {
    match verdict {
        ReceivedChecksum::Good => true,
        ReceivedChecksum::Bad => false,
        ReceivedChecksum::Unknown => segment.is_intact(head, parts),
    }
}
