//! Which Ethernet address a packet is sent to: the table of neighbours, and asking for those that are missing.
//!
//! RFC 826 (ARP) for IPv4, RFC 4861 §7.2 (neighbour solicitation) for IPv6. Answering the questions of others is smoltcp's
//! work (`interface`); what it is shown is read here as well.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv6Packet,
    Icmpv6Repr, IpProtocol, Ipv6Packet, Ipv6Repr, NdiscRepr, RawHardwareAddress,
};

use crate::time::Instant;

/// Neighbours that are remembered at a time.
const MOST: usize = 4096;
/// So many that are in use are passed over for one that may not be.
const PASSED_OVER: usize = 8;
/// A question is repeated after so long.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// An answer is trusted for so long; then it is asked for again, and used meanwhile.
const FRESH: Duration = Duration::from_secs(60);
/// Bytes of the longest question: Ethernet, IPv6, neighbour solicitation with an option.
pub(super) const LONGEST_QUESTION: usize = 14 + 40 + 32;

/// The neighbours of one port.
pub(super) struct Neighbours {
    own: [u8; 6],
    entries: HashMap<IpAddr, Entry>,
    /// All of them, in the order in which they are forgotten.
    order: VecDeque<IpAddr>,
    /// Grows whenever an address changes that somebody may have copied.
    version: u32,
    /// Grows whenever an address is learnt that was not known.
    news: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hardware: Option<[u8; 6]>,
    /// When the answer was heard.
    heard: Instant,
    /// When it was asked for last.
    asked: Option<Instant>,
    /// Somebody has looked it up since it was passed over last.
    is_used: bool,
}

/// What is known of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// Its Ethernet address.
    Known([u8; 6]),
    /// Its Ethernet address, old enough to be asked for again.
    Stale([u8; 6]),
    /// It has to be asked for, now.
    Ask,
    /// It was asked for; the answer is not there yet.
    Waiting,
}

impl Neighbours {
    pub(super) fn new(own: [u8; 6]) -> Self {
        Self { own, entries: HashMap::new(), order: VecDeque::new(), version: 0, news: 0 }
    }

    /// Changes when any copied address may have become wrong, and when a new one was learnt.
    pub(super) const fn version(&self) -> u32 {
        self.version
    }

    /// Changes when an address was learnt: for who waits for one. That somebody was forgotten is no news for them.
    pub(super) const fn news(&self) -> u32 {
        self.news
    }

    /// Looks up `address`. `Ask` and `Stale` count as the asking: they are not said again for a while.
    pub(super) fn look_up(&mut self, now: Instant, address: IpAddr) -> Lookup {
        let entry = self.entry(now, address);
        entry.is_used = true;
        let may_ask = entry.asked.is_none_or(|asked| now.saturating_since(asked) >= ASK_AGAIN);
        match entry.hardware {
            Some(hardware) if now.saturating_since(entry.heard) < FRESH || !may_ask => Lookup::Known(hardware),
            Some(hardware) => {
                entry.asked = Some(now);
                Lookup::Stale(hardware)
            }
            None if may_ask => {
                entry.asked = Some(now);
                Lookup::Ask
            }
            None => Lookup::Waiting,
        }
    }

    /// Doubts the address of a neighbour that does not answer: it is asked for again.
    pub(super) fn doubt(&mut self, address: IpAddr) {
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.heard = Instant::ZERO;
            self.version = self.version.wrapping_add(1);
        }
    }

    /// Learns from a frame that is ARP or neighbour discovery. `is_ours` tells our addresses.
    pub(super) fn handle_frame(&mut self, now: Instant, frame: &[u8], is_ours: impl Fn(IpAddr) -> bool) {
        let Ok(ethernet) = EthernetFrame::new_checked(frame) else { return };
        match ethernet.ethertype() {
            EthernetProtocol::Arp => self.handle_arp(now, ethernet.payload(), is_ours),
            EthernetProtocol::Ipv6 => self.handle_ipv6(now, ethernet.payload(), is_ours),
            _ => {}
        }
    }

    fn handle_arp(&mut self, now: Instant, packet: &[u8], is_ours: impl Fn(IpAddr) -> bool) {
        let Ok(ArpRepr::EthernetIpv4 { source_hardware_addr, source_protocol_addr, target_protocol_addr, .. }) =
            ArpPacket::new_checked(packet).and_then(|packet| ArpRepr::parse(&packet))
        else {
            return;
        };
        // RFC 826: whoever is known is brought up to date; whoever asks for us, or answers us, is learnt.
        let is_for_us = is_ours(target_protocol_addr.into());
        self.learn(now, source_protocol_addr.into(), source_hardware_addr, is_for_us);
    }

    fn handle_ipv6(&mut self, now: Instant, packet: &[u8], is_ours: impl Fn(IpAddr) -> bool) {
        let Ok(ipv6) = Ipv6Packet::new_checked(packet) else { return };
        // RFC 4861 §7.1: a hop limit below 255 came from beyond the link.
        if ipv6.next_header() != IpProtocol::Icmpv6 || ipv6.hop_limit() != 255 {
            return;
        }
        let Ok(icmp) = Icmpv6Packet::new_checked(ipv6.payload()) else { return };
        let (source, destination) = (ipv6.src_addr(), ipv6.dst_addr());
        let checksums = ChecksumCapabilities::default();
        let Ok(Icmpv6Repr::Ndisc(message)) = Icmpv6Repr::parse(&source, &destination, &icmp, &checksums) else {
            return;
        };
        let (address, hardware, is_for_us) = match message {
            NdiscRepr::NeighborSolicit { target_addr, lladdr: Some(hardware) } => {
                (source, hardware, is_ours(target_addr.into()))
            }
            NdiscRepr::NeighborAdvert { target_addr, lladdr: Some(hardware), .. } => {
                let asked = self.entries.contains_key(&target_addr.into());
                (target_addr, hardware, asked)
            }
            _ => return,
        };
        if let Ok(bytes) = <[u8; 6]>::try_from(hardware.as_bytes()) {
            self.learn(now, address.into(), EthernetAddress(bytes), is_for_us);
        }
    }

    fn learn(&mut self, now: Instant, address: IpAddr, hardware: EthernetAddress, may_add: bool) {
        let is_usable = |address: IpAddr| !address.is_unspecified() && !address.is_multicast();
        if !hardware.is_unicast() || !is_usable(address) {
            return;
        }
        if !may_add && !self.entries.contains_key(&address) {
            return;
        }
        let entry = self.entry(now, address);
        entry.heard = now;
        if entry.hardware.replace(hardware.0) != Some(hardware.0) {
            self.version = self.version.wrapping_add(1);
            self.news = self.news.wrapping_add(1);
        }
    }

    /// What is known of `address`, be it nothing.
    fn entry(&mut self, now: Instant, address: IpAddr) -> &mut Entry {
        if !self.entries.contains_key(&address) {
            self.make_room();
            self.order.push_back(address);
        }
        let nothing = Entry { hardware: None, heard: now, asked: None, is_used: false };
        self.entries.entry(address).or_insert(nothing)
    }

    /// Forgets somebody if the table is full: whoever came first, but rather one that only asked for us than one that is sent
    /// to. Whoever it is, it can be asked for again.
    fn make_room(&mut self) {
        if self.entries.len() < MOST {
            return;
        }
        for _ in 0..PASSED_OVER {
            if let Some(address) = self.order.front()
                && let Some(entry) = self.entries.get_mut(address)
                && std::mem::take(&mut entry.is_used)
            {
                self.order.rotate_left(1);
            }
        }
        if let Some(address) = self.order.pop_front() {
            self.entries.remove(&address);
            self.version = self.version.wrapping_add(1);
        }
    }

    /// Writes the question for `target`, asked from `source`, into `frame`; its length, or `None` if they are of
    /// different families.
    pub(super) fn write_question(&self, source: IpAddr, target: IpAddr, frame: &mut [u8]) -> Option<usize> {
        match (source, target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => Some(self.write_arp(source, target, frame)),
            (IpAddr::V6(source), IpAddr::V6(target)) => Some(self.write_solicitation(source, target, frame)),
            _ => None,
        }
    }

    fn write_arp(&self, source: Ipv4Addr, target: Ipv4Addr, frame: &mut [u8]) -> usize {
        let arp = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: EthernetAddress(self.own),
            source_protocol_addr: source,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: target,
        };
        let length = 14 + arp.buffer_len();
        let mut ethernet = EthernetFrame::new_unchecked(&mut frame[..length]);
        let header = EthernetRepr {
            src_addr: EthernetAddress(self.own),
            dst_addr: EthernetAddress::BROADCAST,
            ethertype: EthernetProtocol::Arp,
        };
        header.emit(&mut ethernet);
        arp.emit(&mut ArpPacket::new_unchecked(ethernet.payload_mut()));
        length
    }

    fn write_solicitation(&self, source: Ipv6Addr, target: Ipv6Addr, frame: &mut [u8]) -> usize {
        // RFC 4291 §2.7.1: the solicited-node multicast address; RFC 2464 §7: its Ethernet address.
        let [.., a, b, c] = target.octets();
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from(b) << 8 | u16::from(c));
        let message = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
            target_addr: target,
            lladdr: Some(RawHardwareAddress::from(EthernetAddress(self.own))),
        });
        let ipv6 = Ipv6Repr {
            src_addr: source,
            dst_addr: group,
            next_header: IpProtocol::Icmpv6,
            payload_len: message.buffer_len(),
            hop_limit: 255,
        };
        let length = 14 + ipv6.buffer_len() + message.buffer_len();
        let mut ethernet = EthernetFrame::new_unchecked(&mut frame[..length]);
        let header = EthernetRepr {
            src_addr: EthernetAddress(self.own),
            dst_addr: EthernetAddress([0x33, 0x33, 0xff, a, b, c]),
            ethertype: EthernetProtocol::Ipv6,
        };
        header.emit(&mut ethernet);
        let mut packet = Ipv6Packet::new_unchecked(ethernet.payload_mut());
        ipv6.emit(&mut packet);
        let mut icmp = Icmpv6Packet::new_unchecked(packet.payload_mut());
        message.emit(&source, &group, &mut icmp, &ChecksumCapabilities::default());
        length
    }
}
