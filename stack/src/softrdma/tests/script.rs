//! Scripted exchanges: a peer made of segments at one end of a wire, the engine at the other, a clock that the script moves.
//!
//! Sequence numbers in scripts are relative: each side's SYN is number 0, its first byte number 1.

use std::time::Duration;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet,
    Ipv4Repr, TcpControl, TcpOption, TcpPacket, TcpRepr, TcpSeqNumber, TcpTimestampRepr,
};

use crate::memory_port::{Impairments, MemoryPort, MemoryReceiveQueue, MemoryTransmitQueue, wire};
use crate::port::{Frame, Packet, Port, ReceiveQueue, TransmitOffload, TransmitQueue};
use crate::softrdma::{SoftrdmaConfig, SoftrdmaEngine};
use crate::stream::{Abort, Engine, Record, Source, StreamEvent, StreamId, Streams};
use crate::time::Instant;

/// The peer's addresses.
const PEER: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
const PEER_ADDRESS: [u8; 4] = [10, 0, 0, 1];
/// The engine's.
const ENGINE: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 2]);
const ENGINE_ADDRESS: [u8; 4] = [10, 0, 0, 2];
/// The port that the engine listens at.
pub(super) const SERVICE: u16 = 7;
/// The peer's port.
pub(super) const PEER_PORT: u16 = 4000;
/// The peer's initial sequence number: close to where they wrap.
pub(super) const PEER_INITIAL: u32 = 0xffff_ff00;
/// Bytes of payload in a full segment at MTU 1500 without timestamps.
pub(super) const FULL: usize = 1460;

/// Byte `offset` of what the engine's side sends.
pub(super) fn byte(offset: u64) -> u8 {
    (offset % 251) as u8
}

/// The layer above: takes as much as it is told to, and sends a pattern.
pub(super) struct Above {
    pub(super) received: Vec<u8>,
    /// Bytes that it still takes.
    pub(super) appetite: usize,
    pub(super) events: Vec<StreamEvent>,
    pub(super) source: Pattern,
}

/// What is sent.
#[derive(Default)]
pub(super) struct Pattern {
    total: u64,
    committed: u64,
    pub(super) acknowledged: u64,
    /// Bytes of a record; whatever fits if zero.
    pub(super) record: u64,
}

impl Source for Pattern {
    fn next(&mut self, room: usize) -> Option<Record> {
        let length = if self.record == 0 { room as u64 } else { self.record };
        let length = length.min(self.total - self.committed);
        if length == 0 || length > room as u64 {
            return None;
        }
        let record = Record { start: self.committed, length: length as u32 };
        self.committed = record.end();
        Some(record)
    }

    fn write(&mut self, start: u64, out: &mut [u8]) {
        assert!(start >= self.acknowledged && start + out.len() as u64 <= self.committed, "{start} {}", out.len());
        for (at, out) in out.iter_mut().enumerate() {
            *out = byte(start + at as u64);
        }
    }

    fn handle_acknowledged(&mut self, through: u64) {
        assert!(through > self.acknowledged && through <= self.committed);
        self.acknowledged = through;
    }
}

impl Streams for Above {
    fn handle_bytes(&mut self, _stream: StreamId, parts: &[&[u8]]) -> Result<usize, Abort> {
        let before = self.received.len();
        for part in parts {
            let taken = part.len().min(self.appetite);
            self.received.extend_from_slice(&part[..taken]);
            self.appetite -= taken;
        }
        Ok(self.received.len() - before)
    }

    fn with_source(&mut self, _stream: StreamId, use_source: &mut dyn FnMut(&mut dyn Source)) {
        use_source(&mut self.source);
    }

    fn handle_event(&mut self, event: StreamEvent) {
        self.events.push(event);
    }
}

/// A segment, as the script says it or the engine sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seg {
    /// Of `S`, `A`, `F`, `R`; PSH is left out.
    pub(super) flags: String,
    pub(super) seq: u32,
    /// Counts only with `A`.
    pub(super) ack: u32,
    pub(super) window: u16,
    pub(super) scale: Option<u8>,
    pub(super) mss: Option<u16>,
    pub(super) sack_permitted: bool,
    pub(super) sack: Vec<(u32, u32)>,
    pub(super) timestamps: Option<(u32, u32)>,
    pub(super) payload: Vec<u8>,
    /// The peer's port.
    pub(super) port: u16,
}

/// A segment with these flags and numbers.
pub(super) fn seg(flags: &str, seq: u32, ack: u32) -> Seg {
    Seg {
        flags: flags.into(),
        seq,
        ack,
        window: 0xffff,
        scale: None,
        mss: flags.contains('S').then_some(FULL as u16),
        sack_permitted: false,
        sack: Vec::new(),
        timestamps: None,
        payload: Vec::new(),
        port: PEER_PORT,
    }
}

impl Seg {
    pub(super) fn window(self, window: u16) -> Self {
        Self { window, ..self }
    }

    pub(super) fn scale(self, scale: u8) -> Self {
        Self { scale: Some(scale), ..self }
    }

    pub(super) fn sackable(self) -> Self {
        Self { sack_permitted: true, ..self }
    }

    pub(super) fn sack(self, blocks: &[(u32, u32)]) -> Self {
        Self { sack: blocks.to_vec(), ..self }
    }

    pub(super) fn ts(self, value: u32, echo: u32) -> Self {
        Self { timestamps: Some((value, echo)), ..self }
    }

    pub(super) fn data(self, bytes: &[u8]) -> Self {
        Self { payload: bytes.to_vec(), ..self }
    }

    pub(super) fn port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// Flags, numbers and bytes of payload.
    pub(super) fn is(&self, flags: &str, seq: u32, ack: u32, length: usize) -> bool {
        let acknowledges = !flags.contains('A') || self.ack == ack;
        self.flags == flags && self.seq == seq && acknowledges && self.payload.len() == length
    }
}

/// The engine, and the peer that the script plays.
pub(super) struct Script {
    pub(super) engine: SoftrdmaEngine<MemoryPort>,
    pub(super) above: Above,
    pub(super) now: Instant,
    /// The engine's initial sequence number, from its latest SYN.
    pub(super) initial: u32,
    pub(super) receive: MemoryReceiveQueue,
    transmit: MemoryTransmitQueue,
    /// The engine's port.
    pub(super) local_port: u16,
}

/// A configuration without timestamps, so that segments are round numbers.
pub(super) fn plain() -> SoftrdmaConfig {
    SoftrdmaConfig {
        addresses: vec![(ENGINE_ADDRESS.into(), 24)],
        random_seed: 7,
        timestamps: false,
        receive_window_bytes: 1 << 16,
        ..SoftrdmaConfig::default()
    }
}

impl Script {
    pub(super) fn new(config: SoftrdmaConfig) -> Self {
        let (mut port, its, _) = wire(config.random_seed, Impairments::default());
        let now = Instant::ZERO + Duration::from_secs(1);
        let engine = SoftrdmaEngine::new(its, config, now).expect("a good configuration");
        let queues = (port.take_receive_queue(0), port.take_transmit_queue(0));
        let (Some(receive), Some(transmit)) = queues else { panic!("no queues") };
        let above =
            Above { received: Vec::new(), appetite: usize::MAX, events: Vec::new(), source: Pattern::default() };
        Self { engine, above, now, initial: 0, receive, transmit, local_port: SERVICE }
    }

    /// The engine listens.
    pub(super) fn listening(config: SoftrdmaConfig) -> Self {
        let mut script = Self::new(config);
        script.listen(16);
        script
    }

    /// The peer has connected with `syn`; what it got for an answer.
    pub(super) fn connected_with(config: SoftrdmaConfig, syn: Seg) -> (Self, Seg) {
        let mut script = Self::listening(config);
        let echo = syn.timestamps.map(|(value, _)| value);
        let scaled = syn.scale;
        let window = syn.window;
        script.send(syn);
        let answer = script.one();
        let mut last = seg("A", 1, 1).window(if scaled.is_some() { window.min(0x4000) } else { window });
        last.timestamps = answer.timestamps.zip(echo).map(|((clock, _), value)| (value, clock));
        script.send(last);
        assert!(script.is_incoming(), "{:?}", script.above.events);
        script.nothing();
        (script, answer)
    }

    /// The peer has connected, without options but the segment size.
    pub(super) fn connected() -> Self {
        Self::connected_with(plain(), seg("S", 0, 0)).0
    }

    /// The peer has connected, with selective acknowledgements.
    pub(super) fn connected_with_sack() -> Self {
        Self::connected_with(plain(), seg("S", 0, 0).sackable()).0
    }

    /// The engine has begun to connect; its SYN.
    pub(super) fn connecting(config: SoftrdmaConfig) -> (Self, Seg) {
        let mut script = Self::new(config);
        let remote = std::net::SocketAddr::new(PEER_ADDRESS.into(), PEER_PORT);
        script.engine.connect(script.now, remote, None).expect("a connection");
        let syn = script.one();
        assert!(syn.is("S", 0, 0, 0), "{syn:?}");
        (script, syn)
    }

    pub(super) fn listen(&mut self, backlog: usize) {
        let local = std::net::SocketAddr::new(ENGINE_ADDRESS.into(), SERVICE);
        self.engine.listen(self.now, local, backlog).expect("a listener");
    }

    pub(super) fn stream(&self) -> StreamId {
        let of = |event: &StreamEvent| match event {
            StreamEvent::Incoming { stream, .. } | StreamEvent::Connected { stream, .. } => Some(*stream),
            _ => None,
        };
        self.above.events.iter().rev().find_map(of).expect("a stream")
    }

    /// All streams that have come.
    pub(super) fn streams(&self) -> Vec<StreamId> {
        let of = |event: &StreamEvent| match event {
            StreamEvent::Incoming { stream, .. } => Some(*stream),
            _ => None,
        };
        self.above.events.iter().filter_map(of).collect()
    }

    pub(super) fn is_incoming(&self) -> bool {
        self.has(|event| matches!(event, StreamEvent::Incoming { .. }))
    }

    pub(super) fn has(&self, what: impl Fn(&StreamEvent) -> bool) -> bool {
        self.above.events.iter().any(what)
    }

    /// The application writes so many bytes more.
    pub(super) fn write(&mut self, bytes: u64) {
        self.above.source.total += bytes;
        let stream = self.stream();
        self.engine.transmit(self.now, stream, &mut self.above.source);
        self.engine.flush(self.now);
    }

    pub(super) fn close(&mut self) {
        let stream = self.stream();
        self.engine.close(self.now, stream);
        self.engine.flush(self.now);
    }

    /// The peer sends a segment; the engine takes it in at once.
    pub(super) fn send(&mut self, segment: Seg) {
        let sum = true;
        self.send_raw(&self.packet_of(&segment, sum));
        self.turn();
    }

    fn turn(&mut self) {
        let seen = self.above.events.len();
        self.engine.poll(self.now, &mut self.above);
        for event in &self.above.events[seen..] {
            if let StreamEvent::Writable { stream } = event {
                self.engine.transmit(self.now, *stream, &mut self.above.source);
            }
        }
        self.engine.flush(self.now);
    }

    /// Time passes, the engine doing what is due when it is.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.engine.next_deadline(self.now).filter(|at| *at <= end) {
            self.now = at.max(self.now + Duration::from_nanos(1));
            self.turn();
        }
        self.now = end.max(self.now);
        self.turn();
    }

    /// What the engine sends now: acknowledgements that wait for data have waited long enough after it.
    pub(super) fn sent(&mut self) -> Vec<Seg> {
        for _ in 0..3 {
            self.now = self.now + Duration::from_micros(5);
            self.turn();
        }
        self.drain()
    }

    /// What the engine has sent. Questions for the peer's Ethernet address are answered, and do not count.
    pub(super) fn drain(&mut self) -> Vec<Seg> {
        let mut segments = Vec::new();
        loop {
            let mut packets = Vec::new();
            while self.receive.receive(&mut packets) > 0 {}
            if packets.is_empty() {
                return segments;
            }
            for packet in packets {
                let bytes: Vec<u8> = packet.parts().flatten().copied().collect();
                let frame = EthernetFrame::new_checked(bytes.as_slice()).expect("a frame");
                match frame.ethertype() {
                    EthernetProtocol::Arp => self.answer_arp(),
                    _ => segments.push(self.parse(frame.payload())),
                }
            }
        }
    }

    /// The one segment that the engine sends now.
    #[track_caller]
    pub(super) fn one(&mut self) -> Seg {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:#?}");
        sent.remove(0)
    }

    /// The one segment that the engine sends now is this.
    #[track_caller]
    pub(super) fn expect(&mut self, flags: &str, seq: u32, ack: u32, length: usize) -> Seg {
        let sent = self.one();
        assert!(sent.is(flags, seq, ack, length), "not {flags} {seq} {ack} ({length}) but {sent:?}");
        sent
    }

    /// The engine sends nothing.
    #[track_caller]
    pub(super) fn nothing(&mut self) {
        let sent = self.sent();
        assert!(sent.is_empty(), "{sent:#?}");
    }

    fn answer_arp(&mut self) {
        let repr = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: PEER,
            source_protocol_addr: PEER_ADDRESS.into(),
            target_hardware_addr: ENGINE,
            target_protocol_addr: ENGINE_ADDRESS.into(),
        };
        let mut bytes = vec![0; repr.buffer_len()];
        repr.emit(&mut ArpPacket::new_unchecked(&mut bytes));
        self.send_frame(EthernetProtocol::Arp, &bytes);
        // It is learnt in one poll, and used in the next.
        self.turn();
        self.turn();
    }

    fn parse(&mut self, packet: &[u8]) -> Seg {
        let ip = Ipv4Packet::new_checked(packet).expect("IPv4");
        assert!(ip.verify_checksum());
        let (source, destination) = (ip.src_addr(), ip.dst_addr());
        let tcp = TcpPacket::new_checked(ip.payload()).expect("TCP");
        assert!(tcp.verify_checksum(&source.into(), &destination.into()), "a bad checksum");
        let named = [('S', tcp.syn()), ('F', tcp.fin()), ('R', tcp.rst()), ('A', tcp.ack())];
        let flags: String = named.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
        let raw = tcp.seq_number().0 as u32;
        if tcp.syn() {
            self.initial = raw;
            self.local_port = tcp.src_port();
        }
        let (mut scale, mut mss, mut sack_permitted, mut timestamps, mut sack) = (None, None, false, None, Vec::new());
        let mut options = tcp.options();
        while !options.is_empty() {
            let (rest, option) = TcpOption::parse(options).expect("good options");
            match option {
                TcpOption::WindowScale(shift) => scale = Some(shift),
                TcpOption::MaxSegmentSize(size) => mss = Some(size),
                TcpOption::SackPermitted => sack_permitted = true,
                TcpOption::TimeStamp { tsval, tsecr } => timestamps = Some((tsval, tsecr)),
                TcpOption::SackRange(ranges) => {
                    let relative =
                        |(left, right): (u32, u32)| (left.wrapping_sub(PEER_INITIAL), right.wrapping_sub(PEER_INITIAL));
                    sack.extend(ranges.iter().flatten().copied().map(relative));
                }
                _ => {}
            }
            options = rest;
        }
        Seg {
            flags,
            seq: raw.wrapping_sub(self.initial),
            ack: (tcp.ack_number().0 as u32).wrapping_sub(PEER_INITIAL),
            window: tcp.window_len(),
            scale,
            mss,
            sack_permitted,
            sack,
            timestamps,
            payload: tcp.payload().to_vec(),
            port: tcp.dst_port(),
        }
    }

    /// The IPv4 packet of a segment of the peer. Without `sum` its TCP checksum is wrong.
    pub(super) fn packet_of(&self, segment: &Seg, sum: bool) -> Vec<u8> {
        let has = |flag: char| segment.flags.contains(flag);
        let mut sack_ranges = [None; 3];
        for (place, (left, right)) in sack_ranges.iter_mut().zip(&segment.sack) {
            *place = Some((left.wrapping_add(self.initial), right.wrapping_add(self.initial)));
        }
        let number = |relative: u32, initial: u32| TcpSeqNumber(relative.wrapping_add(initial) as i32);
        let tcp = TcpRepr {
            src_port: segment.port,
            dst_port: self.local_port,
            control: TcpControl::None,
            seq_number: number(segment.seq, PEER_INITIAL),
            ack_number: has('A').then(|| number(segment.ack, self.initial)),
            window_len: segment.window,
            window_scale: segment.scale,
            max_seg_size: segment.mss,
            sack_permitted: segment.sack_permitted,
            sack_ranges,
            timestamp: segment.timestamps.map(|(tsval, tsecr)| TcpTimestampRepr { tsval, tsecr }),
            payload: &segment.payload,
        };
        let (source, destination) = (PEER_ADDRESS.into(), ENGINE_ADDRESS.into());
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
        let mut raw = TcpPacket::new_unchecked(packet.payload_mut());
        tcp.emit(&mut raw, &source.into(), &destination.into(), &checksums);
        raw.set_syn(has('S'));
        raw.set_fin(has('F'));
        raw.set_rst(has('R'));
        raw.fill_checksum(&source.into(), &destination.into());
        if !sum {
            raw.set_checksum(!raw.checksum());
        }
        bytes
    }

    /// Sends an IPv4 packet as it is.
    pub(super) fn send_raw(&mut self, packet: &[u8]) {
        self.send_frame(EthernetProtocol::Ipv4, packet);
    }

    fn send_frame(&mut self, kind: EthernetProtocol, payload: &[u8]) {
        let mut bytes = vec![0; 14 + payload.len()];
        let mut ethernet = EthernetFrame::new_unchecked(&mut bytes);
        ethernet.set_src_addr(PEER);
        ethernet.set_dst_addr(ENGINE);
        ethernet.set_ethertype(kind);
        ethernet.payload_mut().copy_from_slice(payload);
        let mut frame = self.transmit.frame(bytes.len()).expect("a frame");
        frame.bytes_mut().copy_from_slice(&bytes);
        self.transmit.send(frame, TransmitOffload::default()).expect("room on the wire");
        self.transmit.flush();
    }
}
