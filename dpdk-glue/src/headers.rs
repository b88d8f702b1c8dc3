//! The lengths of a frame's headers, which DPDK wants to know when the port is to do some of the work.

const ETHERNET_LENGTH: usize = 14;
const VLAN_LENGTH: usize = 4;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const PROTOCOL_TCP: u8 = 6;

/// Lengths in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeaderLengths {
    /// Ethernet, with one VLAN tag if there is one.
    pub(crate) link: u16,
    /// IPv4 with options, or IPv6 without extension headers.
    pub(crate) network: u16,
    /// TCP with options.
    pub(crate) transport: u16,
    /// Whether it is IPv6.
    pub(crate) is_ipv6: bool,
}

impl HeaderLengths {
    /// Reads them from the start of `frame`; `None` if it is not TCP over IP in one buffer.
    pub(crate) fn of(frame: &[u8]) -> Option<Self> {
        let (link, ethertype) = link(frame)?;
        let packet = frame.get(link..)?;
        let (network, is_ipv6) = match ethertype {
            ETHERTYPE_IPV4 => {
                // RFC 791 §3.1: the header's length in 32-bit words, at least five.
                let length = usize::from(packet.first()? & 0x0f) * 4;
                (*packet.get(9)? == PROTOCOL_TCP && length >= 20).then_some((length, false))?
            }
            // RFC 8200 §3: the next header stands at offset 6, the header takes 40 bytes.
            ETHERTYPE_IPV6 => (*packet.get(6)? == PROTOCOL_TCP).then_some((40, true))?,
            _ => return None,
        };
        // RFC 9293 §3.1: the data offset in 32-bit words, at least five.
        let transport = usize::from(packet.get(network + 12)? >> 4) * 4;
        (transport >= 20).then_some(Self {
            link: link as u16,
            network: network as u16,
            transport: transport as u16,
            is_ipv6,
        })
    }
}

/// Whether `frame` carries IPv6, whose header has no checksum that a port could have checked.
pub(crate) fn is_ipv6(frame: &[u8]) -> bool {
    link(frame).is_some_and(|(_, ethertype)| ethertype == ETHERTYPE_IPV6)
}

/// Length of the link header and the type of what follows.
fn link(frame: &[u8]) -> Option<(usize, u16)> {
    let ethertype_at = |offset: usize| Some(u16::from_be_bytes([*frame.get(offset)?, *frame.get(offset + 1)?]));
    match ethertype_at(12)? {
        ETHERTYPE_VLAN => Some((ETHERNET_LENGTH + VLAN_LENGTH, ethertype_at(16)?)),
        ethertype => Some((ETHERNET_LENGTH, ethertype)),
    }
}

#[cfg(test)]
mod tests;
