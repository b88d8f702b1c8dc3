//! Somebody on the same switch who means harm: floods under false names, guesses at the connections of others, and peers of its
//! own that keep no rule.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::memory_port::{MemoryPort, MemoryReceiveQueue, MemoryTransmitQueue};
use crate::port::{Frame, Packet, Port, ReceiveQueue, TransmitOffload, TransmitQueue};
use crate::softrdma::segment::{ACK, FIN, PSH, Parsed, RST, SYN, Segment, parse};
use crate::softrdma::tests::forged::Forged;
use crate::softrdma::tests::network::Stranger;
use crate::softrdma::tests::network::app::{DEAF, DUMP, SERVICES, WELL};
use crate::time::Instant;

/// Bytes that a peer may send ahead of what was acknowledged, without window scaling.
const WINDOW: u32 = 0xffff;

/// Bits that it sends in a second at most, lest its share of the link be all that is seen.
const MOST_BITS: u64 = 100_000_000;

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::softrdma::tests) enum Harm {
    /// SYNs from everywhere to ports that somebody listens at.
    SynFlood,
    /// The same to ports that nobody listens at.
    ClosedPorts,
    /// Questions for the host's Ethernet address, from everybody.
    ArpFlood,
    /// Segments of the connections of others, their numbers guessed.
    Guesses,
    /// Options of all kinds and lengths, in SYNs and in guesses.
    Options,
    /// Segments that overlap and contradict each other.
    Overlaps,
    /// Segments of one byte.
    Bytes,
    /// Many peers who fill their windows at a service that takes nothing.
    Unwanted,
    /// Many peers who keep full segments behind gaps.
    Gaps,
    /// Windows that shrink, acknowledgements and reports of what was never sent.
    Lies,
    /// Many peers who are sent much and read nothing.
    Unread,
}

impl Harm {
    /// Peers of its own that it needs, and what they connect to.
    const fn peers(self) -> (u16, u16) {
        match self {
            Self::SynFlood | Self::ClosedPorts | Self::ArpFlood | Self::Guesses | Self::Options => (0, 0),
            Self::Overlaps | Self::Bytes => (4, DUMP),
            Self::Unwanted => (200, DEAF),
            Self::Gaps => (200, DUMP),
            Self::Lies => (4, WELL),
            Self::Unread => (200, WELL),
        }
    }
}

/// The host that it attacks, and who is connected to it.
#[derive(Clone, Debug)]
pub(in crate::softrdma::tests) struct Victim {
    pub(in crate::softrdma::tests) hardware: [u8; 6],
    pub(in crate::softrdma::tests) address: IpAddr,
    /// The good peer's ends, and the services that they are connected to.
    pub(in crate::softrdma::tests) good: Vec<(SocketAddr, u16)>,
}

/// A peer of its own, as far as it keeps count.
#[derive(Clone, Copy, Debug)]
struct Peer {
    port: u16,
    /// The next number that it would send.
    next: u32,
    /// What the host said last: the next number that it expects, and behind the last that it sent.
    acknowledged: u32,
    heard: Option<u32>,
}

/// See the [module](self).
pub(in crate::softrdma::tests) struct Attacker {
    receive: MemoryReceiveQueue,
    transmit: MemoryTransmitQueue,
    hardware: [u8; 6],
    address: IpAddr,
    victim: Victim,
    harm: Harm,
    random: SmallRng,
    peers: Vec<Peer>,
    interval: Duration,
    next: Instant,
    pub(in crate::softrdma::tests) sent: u64,
}

impl Attacker {
    /// One that sends so many frames in a second from `now` on.
    pub(in crate::softrdma::tests) fn new(
        (hardware, mut port): ([u8; 6], MemoryPort),
        victim: Victim,
        harm: Harm,
        (seed, rate): (u64, u32),
        now: Instant,
    ) -> Self {
        let queues = (port.take_receive_queue(0), port.take_transmit_queue(0));
        let (Some(receive), Some(transmit)) = queues else { panic!("no queues") };
        let mut random = SmallRng::seed_from_u64(seed);
        let peer = |port| {
            let next = random.random();
            Peer { port, next, acknowledged: next, heard: None }
        };
        let peers = (10_000..10_000 + harm.peers().0).map(peer).collect();
        let address = match victim.address {
            IpAddr::V4(_) => [10, 0, 0, 66].into(),
            IpAddr::V6(_) => [0xfd00, 0, 0, 0, 0, 0, 0, 66].into(),
        };
        let interval = Duration::from_secs(1) / rate;
        Self { receive, transmit, hardware, address, victim, harm, random, peers, interval, next: now, sent: 0 }
    }

    /// A segment to `port` of the host.
    fn segment(&self, source: SocketAddr, port: u16, flags: u8) -> Forged {
        Forged {
            hardware_source: self.hardware,
            hardware_target: self.victim.hardware,
            source,
            target: SocketAddr::new(self.victim.address, port),
            flags,
            sequence: 0,
            acknowledgement: 0,
            window: WINDOW as u16,
            options: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// Somebody else's address: on the host's network, or anywhere.
    fn stranger(&mut self) -> SocketAddr {
        let bits: u32 = self.random.random();
        let port = self.random.random_range(1024..=u16::MAX);
        let address = match self.victim.address {
            IpAddr::V4(_) if bits & 1 == 0 => [10, 0, 0, 100 + (bits >> 8) as u8 % 100].into(),
            IpAddr::V4(_) => [11, (bits >> 8) as u8, (bits >> 16) as u8, (bits >> 24) as u8].into(),
            IpAddr::V6(_) => [0xfd00, 0, 0, (bits & 1) as u16, 0, 0, (bits >> 8) as u16, 100].into(),
        };
        SocketAddr::new(address, port)
    }

    fn act_once(&mut self) -> Vec<u8> {
        match self.harm {
            Harm::SynFlood => {
                let service = SERVICES[self.random.random_range(0..SERVICES.len())];
                self.syn(service).frame()
            }
            Harm::ClosedPorts => {
                let port = self.random.random_range(100..=u16::MAX);
                self.syn(port).frame()
            }
            Harm::ArpFlood => self.question(),
            Harm::Guesses => self.guess().frame(),
            Harm::Options => self.bomb().frame(),
            _ => self.act_as_peer().frame(),
        }
    }

    fn syn(&mut self, port: u16) -> Forged {
        let source = self.stranger();
        let mut syn = self.segment(source, port, SYN);
        syn.sequence = self.random.random();
        syn.options = vec![2, 4, 5, 180, 4, 2, 1, 3, 3, 7];
        if self.random.random() {
            syn.options.extend([8, 10, 0, 0, 0, 1, 0, 0, 0, 0]);
        }
        syn
    }

    fn question(&mut self) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        let mut hardware: [u8; 6] = self.random.random();
        hardware[0] = 2;
        let (IpAddr::V4(source), IpAddr::V4(target)) = (self.stranger().ip(), self.victim.address) else {
            return Vec::new();
        };
        frame.extend(self.hardware);
        frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
        frame.extend(hardware);
        frame.extend(source.octets());
        frame.extend([0; 6]);
        frame.extend(target.octets());
        frame
    }

    fn guess(&mut self) -> Forged {
        const FLAGS: [u8; 8] = [RST, SYN, ACK, RST | ACK, FIN | ACK, SYN | ACK, ACK | PSH, 0];
        let good = self.victim.good[self.random.random_range(0..self.victim.good.len())];
        let flags = FLAGS[self.random.random_range(0..FLAGS.len())];
        let mut guess = self.segment(good.0, good.1, flags);
        guess.sequence = self.random.random();
        guess.acknowledgement = self.random.random();
        guess.window = self.random.random();
        if self.random.random() {
            // The good connections have timestamps: without, it would not even be looked at.
            guess.options = vec![1, 1, 8, 10];
            guess.options.extend(self.random.random::<[u8; 8]>());
        }
        guess.payload = vec![0xee; self.random.random_range(0..100)];
        guess
    }

    fn bomb(&mut self) -> Forged {
        let mut bomb = if self.random.random() { self.syn(WELL) } else { self.guess() };
        let length = self.random.random_range(1..=40);
        bomb.options = match self.random.random_range(0..4) {
            // Any kind and any length.
            0 => (0..length).map(|_| self.random.random_range(0..12)).collect(),
            // One that is longer than the header.
            1 => [8, 10, 0, 0].repeat(10),
            // Very many, or blocks without end.
            2 => vec![1; 40],
            _ => [vec![5, 40], self.random.random::<[u8; 32]>().to_vec()].concat(),
        };
        bomb
    }

    /// The next thing that one of its peers does.
    fn act_as_peer(&mut self) -> Forged {
        let (_, service) = self.harm.peers();
        // Connections first.
        let place = match self.peers.iter().position(|peer| peer.heard.is_none()) {
            Some(place) if self.sent.is_multiple_of(2) => place + (self.sent / 2) as usize % (self.peers.len() - place),
            _ => self.random.random_range(0..self.peers.len()),
        };
        let peer = self.peers[place];
        let source = SocketAddr::new(self.address, peer.port);
        let Some(heard) = peer.heard else {
            let mut syn = self.segment(source, service, SYN);
            syn.sequence = peer.next.wrapping_sub(1);
            syn.options = vec![2, 4, 5, 180, 4, 2];
            return syn;
        };
        let mut act = self.segment(source, service, ACK);
        (act.sequence, act.acknowledgement) = (peer.acknowledged, heard);
        let ahead = self.random.random_range(0..WINDOW - 1460);
        match self.harm {
            Harm::Overlaps => {
                act.sequence = peer.acknowledged.wrapping_add(ahead % 3000).wrapping_sub(300);
                act.payload = vec![self.random.random(); self.random.random_range(1..1460)];
            }
            Harm::Bytes => act.payload = vec![1],
            Harm::Unwanted => act.payload = vec![1; 1460],
            Harm::Gaps => {
                act.sequence = peer.acknowledged.wrapping_add(1 + ahead);
                act.payload = vec![1; 1460];
            }
            Harm::Unread => act.window = 100,
            _ => self.lie(&mut act),
        }
        act
    }

    fn lie(&mut self, act: &mut Forged) {
        let heard = act.acknowledgement;
        act.window = [0, 1, 100, 1000][self.random.random_range(0..4)];
        act.acknowledgement = match self.random.random_range(0..4) {
            0 => heard.wrapping_add(self.random.random_range(1..100_000)),
            1 => heard.wrapping_sub(self.random.random_range(0..100_000)),
            _ => heard,
        };
        if self.random.random() {
            act.options = vec![1, 1, 5, 34];
            for _ in 0..4 {
                let left = heard.wrapping_add(self.random.random_range(0..100_000)).wrapping_sub(50_000);
                act.options.extend(left.to_be_bytes());
                act.options.extend(left.wrapping_add(self.random.random_range(0..20_000)).to_be_bytes());
            }
        }
    }

    /// What comes for it: questions, which it answers, and what its peers are sent.
    fn listen(&mut self) {
        let mut packets = Vec::new();
        while self.receive.receive(&mut packets) > 0 {}
        for packet in packets {
            let bytes: Vec<u8> = packet.parts().flatten().copied().collect();
            if let Some(answer) = self.answer(&bytes) {
                self.send(&answer);
            } else if let Parsed::Tcp(segment) = parse(&bytes, bytes.len()) {
                self.hear(&segment);
            }
        }
    }

    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let IpAddr::V4(address) = self.address else { return None };
        if question[12..14] != [0x08, 0x06] || question[20..22] != [0, 1] || question[38..42] != address.octets() {
            return None;
        }
        let mut answer = [&question[6..12], &self.hardware, &question[12..20], &[0, 2], &self.hardware].concat();
        answer.extend(address.octets());
        answer.extend(&question[22..32]);
        Some(answer)
    }

    fn hear(&mut self, segment: &Segment) {
        let port = segment.tuple.local().port();
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.port == port) else { return };
        if segment.has(RST) || !segment.has(ACK) {
            return;
        }
        peer.acknowledged = segment.acknowledgement;
        let end = segment.sequence.wrapping_add(segment.sequence_length());
        if self.harm == Harm::Unread && peer.heard.is_some() {
            return;
        }
        peer.heard = Some(end);
    }

    fn send(&mut self, bytes: &[u8]) {
        if let Some(mut frame) = self.transmit.frame(bytes.len()) {
            frame.bytes_mut().copy_from_slice(bytes);
            self.transmit.send(frame, TransmitOffload::default()).expect("room on its link");
        }
    }
}

impl Stranger for Attacker {
    fn next(&self) -> Instant {
        self.next
    }

    fn act(&mut self, now: Instant) {
        self.listen();
        while self.next <= now {
            let frame = self.act_once();
            self.send(&frame);
            self.sent += 1;
            let bits = 8 * frame.len() as u64;
            let time = Duration::from_nanos(bits * 1_000_000_000 / MOST_BITS);
            self.next = self.next + self.interval.max(time);
        }
        self.transmit.flush();
    }
}
