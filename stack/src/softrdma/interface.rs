//! Frames that are not TCP: a smoltcp interface answers ARP, neighbour solicitations and echo requests.

use std::collections::VecDeque;
use std::net::IpAddr;

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use crate::time::Instant;

/// Answers that wait for the port at a time: a flood of questions is answered as far as there is room.
const MOST_ANSWERS: usize = 32;

/// smoltcp without sockets.
pub(super) struct Services {
    interface: Interface,
    sockets: SocketSet<'static>,
    device: OneFrame,
}

impl Services {
    pub(super) fn new(hardware: [u8; 6], addresses: &[(IpAddr, u8)], mtu: usize, seed: u64, now: Instant) -> Self {
        let mut device = OneFrame { mtu, frame: Vec::new(), answers: VecDeque::new() };
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(hardware)));
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut device, smoltcp_time(now));
        interface.update_ip_addrs(|ours| {
            // The configuration holds at most as many as fit.
            ours.extend(addresses.iter().map(|&(address, prefix)| IpCidr::new(address.into(), prefix)));
        });
        Self { interface, sockets: SocketSet::new(Vec::new()), device }
    }

    /// Shows a frame to smoltcp; answers wait in [`Self::next_answer`].
    pub(super) fn handle_frame(&mut self, now: Instant, frame: &[u8]) {
        self.device.frame.clear();
        self.device.frame.extend_from_slice(frame);
        self.interface.poll_ingress_single(smoltcp_time(now), &mut self.device, &mut self.sockets);
        self.device.frame.clear();
    }

    /// The next frame to be sent, whole.
    pub(super) fn next_answer(&mut self) -> Option<Vec<u8>> {
        self.device.answers.pop_front()
    }
}

fn smoltcp_time(now: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros(i64::try_from(now.as_nanoseconds() / 1000).unwrap_or(i64::MAX))
}

/// A device that holds one frame.
struct OneFrame {
    mtu: usize,
    frame: Vec<u8>,
    answers: VecDeque<Vec<u8>>,
}

impl Device for OneFrame {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Answer<'a>;

    fn receive(&mut self, _now: smoltcp::time::Instant) -> Option<(Received<'_>, Answer<'_>)> {
        if self.frame.is_empty() {
            return None;
        }
        Some((Received { frame: &self.frame }, Answer { answers: &mut self.answers }))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Answer<'_>> {
        Some(Answer { answers: &mut self.answers })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + super::segment::ETHERNET_HEADER;
        capabilities.checksum = ChecksumCapabilities::default();
        capabilities
    }
}

/// The frame that smoltcp is shown.
struct Received<'a> {
    frame: &'a [u8],
}

impl RxToken for Received<'_> {
    fn consume<R, F>(self, f: F) -> R
    where
        F: FnOnce(&[u8]) -> R,
    {
        f(self.frame)
    }
}

/// Takes one frame from smoltcp.
struct Answer<'a> {
    answers: &'a mut VecDeque<Vec<u8>>,
}

impl TxToken for Answer<'_> {
    fn consume<R, F>(self, length: usize, f: F) -> R
    where
        F: FnOnce(&mut [u8]) -> R,
    {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        if self.answers.len() < MOST_ANSWERS {
            self.answers.push_back(frame);
        }
        result
    }
}
