//! A host made of frames: the bare end of a wire, with an engine at the other.

use std::time::Duration;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet,
    Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use crate::memory_port::{Impairments, MemoryPort, MemoryReceiveQueue, MemoryTransmitQueue, wire};
use crate::port::{Frame, Packet, Port, ReceiveQueue, TransmitOffload, TransmitQueue};
use crate::sequential::{SequentialConfig, SequentialEngine};
use crate::stream::{Abort, Engine, Source, StreamEvent, StreamId, Streams};
use crate::time::Instant;

/// The bare end's Ethernet address.
pub(super) const OURS: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
/// The engine's Ethernet address.
pub(super) const ITS: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 2]);

/// A layer above that sends nothing, and takes everything or nothing.
#[derive(Default)]
pub(super) struct Nobody {
    pub(super) refuses: bool,
    pub(super) received: usize,
    pub(super) events: Vec<StreamEvent>,
}

impl Streams for Nobody {
    fn handle_bytes(&mut self, _stream: StreamId, parts: &[&[u8]]) -> Result<usize, Abort> {
        let offered = parts.iter().map(|part| part.len()).sum();
        if self.refuses {
            return Ok(0);
        }
        self.received += offered;
        Ok(offered)
    }

    fn with_source(&mut self, _stream: StreamId, _use_source: &mut dyn FnMut(&mut dyn Source)) {}

    fn handle_event(&mut self, event: StreamEvent) {
        self.events.push(event);
    }
}

/// The bare end, and the engine.
pub(super) struct Bare {
    pub(super) engine: SequentialEngine<MemoryPort>,
    pub(super) nobody: Nobody,
    pub(super) now: Instant,
    receive: MemoryReceiveQueue,
    transmit: MemoryTransmitQueue,
}

impl Bare {
    pub(super) fn new(config: SequentialConfig, impairments: Impairments) -> Self {
        let (mut port, its, _) = wire(config.random_seed, impairments);
        let engine = SequentialEngine::new(its, config, Instant::ZERO).expect("a good configuration");
        let queues = (port.take_receive_queue(0), port.take_transmit_queue(0));
        let (Some(receive), Some(transmit)) = queues else { panic!("no queues") };
        Self { engine, nobody: Nobody::default(), now: Instant::ZERO, receive, transmit }
    }

    /// Puts a whole frame onto the wire, if it is not too long for it.
    pub(super) fn send_frame(&mut self, bytes: &[u8]) {
        let Some(mut frame) = self.transmit.frame(bytes.len()) else { return };
        frame.bytes_mut().copy_from_slice(bytes);
        self.transmit.send(frame, TransmitOffload::default()).expect("room on the wire");
        self.transmit.flush();
    }

    pub(super) fn send(&mut self, destination: EthernetAddress, kind: EthernetProtocol, payload: &[u8]) {
        let mut bytes = vec![0; 14 + payload.len()];
        let mut ethernet = EthernetFrame::new_unchecked(&mut bytes);
        ethernet.set_src_addr(OURS);
        ethernet.set_dst_addr(destination);
        ethernet.set_ethertype(kind);
        ethernet.payload_mut().copy_from_slice(payload);
        self.send_frame(&bytes);
    }

    /// Lets the engine poll and flush once.
    pub(super) fn turn(&mut self) {
        self.engine.poll(self.now, &mut self.nobody);
        self.engine.flush(self.now);
    }

    /// What the engine has sent.
    pub(super) fn sent(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        while self.receive.receive(&mut packets) > 0 {}
        packets.iter().map(|packet| packet.parts().flatten().copied().collect()).collect()
    }

    /// What the engine sends within three milliseconds.
    pub(super) fn answers(&mut self) -> Vec<Vec<u8>> {
        for _ in 0..3 {
            self.now = self.now + Duration::from_millis(1);
            self.turn();
        }
        self.sent()
    }

    /// Makes 10.0.0.1 known to the engine.
    pub(super) fn introduce(&mut self) {
        self.send(EthernetAddress::BROADCAST, EthernetProtocol::Arp, &arp(ArpOperation::Request, [10, 0, 0, 1]));
        let answers = self.answers();
        let reply = EthernetFrame::new_checked(answers[0].as_slice()).expect("a frame");
        assert_eq!((reply.ethertype(), reply.dst_addr()), (EthernetProtocol::Arp, OURS));
    }

    /// Sends a segment from 10.0.0.1 to port 7 of 10.0.0.2.
    pub(super) fn send_segment(&mut self, tcp: &TcpRepr<'_>) {
        let (source, destination) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let checksums = ChecksumCapabilities::default();
        let ip = Ipv4Repr {
            src_addr: source,
            dst_addr: destination,
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: 64,
        };
        let mut bytes = vec![0; ip.buffer_len() + tcp.buffer_len()];
        let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
        ip.emit(&mut packet, &checksums);
        let mut segment = TcpPacket::new_unchecked(packet.payload_mut());
        tcp.emit(&mut segment, &source.into(), &destination.into(), &checksums);
        self.send(ITS, EthernetProtocol::Ipv4, &bytes);
    }
}

/// ARP from us, as `address`, to 10.0.0.2.
pub(super) fn arp(operation: ArpOperation, address: [u8; 4]) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: OURS,
        source_protocol_addr: address.into(),
        target_hardware_addr: ITS,
        target_protocol_addr: [10, 0, 0, 2].into(),
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut ArpPacket::new_unchecked(&mut bytes));
    bytes
}

/// An empty segment to port 7.
pub(super) fn segment(source_port: u16, control: TcpControl, sequence: i32) -> TcpRepr<'static> {
    TcpRepr {
        src_port: source_port,
        dst_port: 7,
        control,
        seq_number: TcpSeqNumber(sequence),
        ack_number: None,
        window_len: 65_535,
        window_scale: (control == TcpControl::Syn).then_some(7),
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    }
}
