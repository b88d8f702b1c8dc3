//! Frames made by hand: TCP with whatever header fields and options, its checksums right.

use std::net::{IpAddr, SocketAddr};

use crate::softrdma::sum::Sum;

/// A TCP segment, on Ethernet.
#[derive(Clone, Debug)]
pub(super) struct Forged {
    pub(super) hardware_source: [u8; 6],
    pub(super) hardware_target: [u8; 6],
    pub(super) source: SocketAddr,
    pub(super) target: SocketAddr,
    pub(super) flags: u8,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) window: u16,
    /// At most 40 bytes; they are filled up to a multiple of four.
    pub(super) options: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl Forged {
    pub(super) fn frame(&self) -> Vec<u8> {
        let tcp = self.segment();
        let mut frame = [self.hardware_target, self.hardware_source].concat();
        match (self.source.ip(), self.target.ip()) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                let length = (20 + tcp.len() as u16).to_be_bytes();
                let mut ip = [0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, 6, 0, 0].to_vec();
                ip.extend(source.octets());
                ip.extend(target.octets());
                let mut sum = Sum::default();
                sum.add(&ip);
                ip[10..12].copy_from_slice(&(!sum.fold()).to_be_bytes());
                frame.extend([0x08, 0x00]);
                frame.extend(ip);
            }
            (source, target) => {
                let length = (tcp.len() as u16).to_be_bytes();
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, length[0], length[1], 6, 64]);
                frame.extend(octets(source));
                frame.extend(octets(target));
            }
        }
        frame.extend(tcp);
        frame
    }

    fn segment(&self) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let mut tcp = [self.source.port().to_be_bytes(), self.target.port().to_be_bytes()].concat();
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledgement.to_be_bytes());
        tcp.extend([(((20 + options.len()) / 4) << 4) as u8, self.flags]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(options);
        tcp.extend(&self.payload);
        let mut sum = Sum::default();
        sum.add(&octets(self.source.ip()));
        sum.add(&octets(self.target.ip()));
        sum.add_words([0, 6, 0, 0]);
        sum.add_words((tcp.len() as u32).to_be_bytes());
        sum.add(&tcp);
        tcp[16..18].copy_from_slice(&(!sum.fold()).to_be_bytes());
        tcp
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
