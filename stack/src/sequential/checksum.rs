//! IPv4 and TCP checksums over whole frames, for ports that compute them and for packets that a port did not look at.

use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket};

use super::headers::{ETHERNET_HEADER, tcp_place};
use crate::port::{ReceivedChecksum, TransmitOffload};

/// Checks the IPv4 and the TCP checksum of `frame`; `Unknown` if it has neither.
pub(crate) fn verdict(frame: &[u8]) -> ReceivedChecksum {
    let good = EthernetFrame::new_checked(frame).ok().and_then(|ethernet| match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => {
            // A packet that contradicts itself fails like one with a wrong sum.
            let Ok(packet) = Ipv4Packet::new_checked(ethernet.payload()) else { return Some(false) };
            let tcp = packet.next_header() == IpProtocol::Tcp && !packet.more_frags() && packet.frag_offset() == 0;
            let (source, destination) = (packet.src_addr().into(), packet.dst_addr().into());
            Some(packet.verify_checksum() && (!tcp || tcp_is_good(packet.payload(), source, destination)))
        }
        EthernetProtocol::Ipv6 => {
            let Ok(packet) = Ipv6Packet::new_checked(ethernet.payload()) else { return Some(false) };
            let (source, destination) = (packet.src_addr().into(), packet.dst_addr().into());
            (packet.next_header() == IpProtocol::Tcp).then(|| tcp_is_good(packet.payload(), source, destination))
        }
        _ => None,
    });
    match good {
        Some(true) => ReceivedChecksum::Good,
        Some(false) => ReceivedChecksum::Bad,
        None => ReceivedChecksum::Unknown,
    }
}

/// Writes the checksums that `offload` names into `frame`, as a port does that computes them.
pub(crate) fn fill(frame: &mut [u8], offload: TransmitOffload) {
    let Ok(mut ethernet) = EthernetFrame::new_checked(frame) else { return };
    match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => {
            let Ok(mut packet) = Ipv4Packet::new_checked(ethernet.payload_mut()) else { return };
            if offload.ipv4_checksum {
                packet.fill_checksum();
            }
            let (source, destination) = (packet.src_addr().into(), packet.dst_addr().into());
            if offload.tcp_checksum && packet.next_header() == IpProtocol::Tcp {
                fill_tcp(packet.payload_mut(), source, destination);
            }
        }
        EthernetProtocol::Ipv6 => {
            let Ok(mut packet) = Ipv6Packet::new_checked(ethernet.payload_mut()) else { return };
            let (source, destination) = (packet.src_addr().into(), packet.dst_addr().into());
            if offload.tcp_checksum && packet.next_header() == IpProtocol::Tcp {
                fill_tcp(packet.payload_mut(), source, destination);
            }
        }
        _ => {}
    }
}

/// Puts the sum of the pseudo-header where the TCP checksum belongs, as ports want it that add the rest. Says whether
/// `frame` carries TCP at all.
pub(super) fn prepare_tcp(frame: &mut [u8]) -> bool {
    let Some(place) = tcp_place(frame) else { return false };
    // The addresses stand in front of the TCP header: the last 8 bytes of an IPv4 header without options, which is all
    // that smoltcp sends, the last 32 of an IPv6 header.
    let addresses = ETHERNET_HEADER + if place.is_ipv6 { 8 } else { 12 };
    let length = place.end - place.tcp;
    let mut sum = 6 + length as u64;
    for pair in frame[addresses..place.tcp].chunks_exact(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[place.tcp + 16..place.tcp + 18].copy_from_slice(&(sum as u16).to_be_bytes());
    true
}

fn tcp_is_good(segment: &[u8], source: IpAddress, destination: IpAddress) -> bool {
    TcpPacket::new_checked(segment).is_ok_and(|segment| segment.verify_checksum(&source, &destination))
}

fn fill_tcp(segment: &mut [u8], source: IpAddress, destination: IpAddress) {
    if let Ok(mut segment) = TcpPacket::new_checked(segment) {
        segment.fill_checksum(&source, &destination);
    }
}
