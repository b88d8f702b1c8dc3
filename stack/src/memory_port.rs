//! A packet port in memory: two hosts on one wire, for tests on a virtual clock and for measuring without hardware.
//!
//! [`wire`] makes two ports and a [`Wire`]. Whatever one port transmits the other receives, after the [`Impairments`] had
//! their way with it. The wire keeps the virtual time: a frame is received once [`Wire::now`] has reached its arrival, and
//! [`Wire::next_arrival`] tells when that is, so a test jumps from event to event. With no delay and no rate frames arrive
//! at once and the clock may be left alone.
//!
//! [`mirror`] makes a port whose frames come back to it: a host that talks to itself, receiving and sending at the same time.
//!
//! Everything random comes from the seed: the same calls with the same seed give the same run.
//!
//! The wire is bounded. A frame that finds no room stays in the sender's transmit queue, and one that finds no room there
//! is given back: nothing is lost that [`Impairments::loss`] did not lose.

mod lane;
mod pool;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::port::{
    BURST, Frame, LinkState, Packet, Port, PortCapabilities, PortStatistics, ReceiveQueue, ReceivedChecksum,
    TransmitOffload, TransmitQueue,
};
use crate::sequential::checksum;
use crate::time::Instant;
use lane::Lane;
use pool::{Buffer, Pool};

/// Frames that one transmit queue holds back while the wire is full.
pub const TRANSMIT_QUEUE_FRAMES: usize = 256;

/// Bytes of the Ethernet header in front of each packet.
const ETHERNET_HEADER: usize = 14;

/// What a wire does to the frames on it. Probabilities are between 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Impairments {
    /// Probability that a frame vanishes.
    pub loss: f64,
    /// Probability that a frame arrives twice.
    pub duplicate: f64,
    /// Probability that a frame overtakes up to [`REORDER_DEPTH`] others that are on their way.
    pub reorder: f64,
    /// Probability that one bit of a frame is flipped, anywhere in it.
    pub corrupt: f64,
    /// Frames of at most this many bytes are never corrupted. The default spares ARP, which carries no checksum: on real
    /// Ethernet the frame check sequence guards it.
    pub corrupt_longer_than: usize,
    /// Time on the way.
    pub delay: Duration,
    /// A random time up to this long is added to the delay, anew for each frame; frames overtake each other by it.
    pub jitter: Duration,
    /// Bits that the wire takes in a second, in each direction; `None` for any number.
    pub rate_bits_per_second: Option<u64>,
    /// Largest IP packet in bytes.
    pub mtu: usize,
    /// Probability that a received frame comes in several parts, cut at random places.
    pub cut: f64,
    /// The ports verify and compute IPv4 and TCP checksums.
    pub checksum_offload: bool,
    /// Frames that are on their way in each direction at most.
    pub in_flight_frames: usize,
    /// Transmit queues of each port.
    pub transmit_queues: u16,
}

/// Most frames that one frame overtakes by [`Impairments::reorder`].
pub const REORDER_DEPTH: usize = 8;

impl Default for Impairments {
    fn default() -> Self {
        Self {
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            corrupt: 0.0,
            corrupt_longer_than: 42,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate_bits_per_second: None,
            mtu: 1500,
            cut: 0.0,
            checksum_offload: false,
            in_flight_frames: 1024,
            transmit_queues: 1,
        }
    }
}

/// What a wire did to the frames of both directions since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireStatistics {
    /// Frames that vanished, those sent while the link was down included.
    pub lost: u64,
    /// Frames that were sent on twice.
    pub duplicated: u64,
    /// Frames that overtook others.
    pub reordered: u64,
    /// Frames that had a bit flipped.
    pub corrupted: u64,
}

/// Makes a wire and the two ports at its ends.
pub fn wire(seed: u64, impairments: Impairments) -> (MemoryPort, MemoryPort, Wire) {
    let shared = Shared::new(seed, impairments);
    (MemoryPort::new(&shared, 0, 1), MemoryPort::new(&shared, 1, 0), Wire { shared })
}

/// Makes a port that receives what it transmits, and the wire that leads there.
pub fn mirror(seed: u64, impairments: Impairments) -> (MemoryPort, Wire) {
    let shared = Shared::new(seed, impairments);
    (MemoryPort::new(&shared, 0, 0), Wire { shared })
}

/// The wire between two [`MemoryPort`]s, or from one to itself, and its clock.
#[derive(Clone, Debug)]
pub struct Wire {
    shared: Arc<Shared>,
}

impl Wire {
    /// The virtual time.
    pub fn now(&self) -> Instant {
        self.shared.now()
    }

    /// Moves the virtual time to `now`; never backwards.
    pub fn advance_to(&self, now: Instant) {
        self.shared.now.fetch_max(now.as_nanoseconds(), Ordering::Relaxed);
    }

    /// When the next frame arrives at either port; `None` while nothing is on its way. May lie in the past, while nobody
    /// has received the frame yet.
    pub fn next_arrival(&self) -> Option<Instant> {
        let first = |side| self.shared.lane(side).next_arrival();
        first(0).into_iter().chain(first(1)).min().map(Instant::from_nanoseconds)
    }

    /// Brings the link up or down. While it is down, frames are lost.
    pub fn set_link(&self, state: LinkState) {
        self.shared.link_up.store(state == LinkState::Up, Ordering::Relaxed);
    }

    /// What became of the frames so far.
    pub fn statistics(&self) -> WireStatistics {
        let [a, b] = [0, 1].map(|side| self.shared.lane(side).statistics);
        WireStatistics {
            lost: a.lost + b.lost,
            duplicated: a.duplicated + b.duplicated,
            reordered: a.reordered + b.reordered,
            corrupted: a.corrupted + b.corrupted,
        }
    }
}

/// What both ends and the wire's handle know. Lane 0 carries what port 0 transmits; of a mirror it is the only one in use.
#[derive(Debug)]
struct Shared {
    now: AtomicU64,
    link_up: AtomicBool,
    lanes: [Mutex<Lane>; 2],
    /// Frames on each lane, as of its last change: who receives all the time does not keep the sender from an empty lane.
    in_flight: [InFlight; 2],
    impairments: Impairments,
}

/// In a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct InFlight(AtomicUsize);

impl Shared {
    fn new(seed: u64, impairments: Impairments) -> Arc<Self> {
        let lane = |salt: u64| Mutex::new(Lane::new(seed ^ salt, impairments));
        Arc::new(Self {
            now: AtomicU64::new(0),
            link_up: AtomicBool::new(true),
            lanes: [lane(0x9e37_79b9_7f4a_7c15), lane(0x5851_f42d_4c95_7f2d)],
            in_flight: Default::default(),
            impairments,
        })
    }

    fn now(&self) -> Instant {
        Instant::from_nanoseconds(self.now.load(Ordering::Relaxed))
    }

    fn is_up(&self) -> bool {
        self.link_up.load(Ordering::Relaxed)
    }

    /// A panic elsewhere leaves a lane whole: every change to it is complete.
    fn lane(&self, index: usize) -> MutexGuard<'_, Lane> {
        self.lanes[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end of a [`Wire`], or both.
#[derive(Debug)]
pub struct MemoryPort {
    /// The lane that it transmits onto.
    side: usize,
    /// The lane that it receives from.
    from: usize,
    shared: Arc<Shared>,
    receive_taken: bool,
    transmit_taken: Vec<bool>,
}

impl MemoryPort {
    fn new(shared: &Arc<Shared>, side: usize, from: usize) -> Self {
        Self {
            side,
            from,
            shared: Arc::clone(shared),
            receive_taken: false,
            transmit_taken: vec![false; usize::from(shared.impairments.transmit_queues)],
        }
    }
}

impl Port for MemoryPort {
    type Receive = MemoryReceiveQueue;
    type Transmit = MemoryTransmitQueue;

    fn hardware_address(&self) -> [u8; 6] {
        // A locally administered unicast address, the last byte telling the ends apart.
        [0x02, 0, 0, 0, 0, 1 + u8::from(self.side == 1)]
    }

    fn capabilities(&self) -> PortCapabilities {
        let Impairments { mtu, checksum_offload, .. } = self.shared.impairments;
        PortCapabilities {
            mtu,
            receive_checksum: checksum_offload,
            transmit_checksum: checksum_offload,
            segmentation: false,
            attachments: false,
        }
    }

    fn link_state(&self) -> LinkState {
        if self.shared.is_up() { LinkState::Up } else { LinkState::Down }
    }

    fn statistics(&self) -> PortStatistics {
        let sent = self.shared.lane(self.side).traffic;
        let received = self.shared.lane(self.from).traffic;
        PortStatistics {
            received_packets: received.delivered_packets,
            received_bytes: received.delivered_bytes,
            transmitted_packets: sent.taken_packets,
            transmitted_bytes: sent.taken_bytes,
            ..PortStatistics::default()
        }
    }

    fn take_receive_queue(&mut self, index: u16) -> Option<MemoryReceiveQueue> {
        if index != 0 || std::mem::replace(&mut self.receive_taken, true) {
            return None;
        }
        Some(MemoryReceiveQueue { from: self.from, shared: Arc::clone(&self.shared) })
    }

    fn take_transmit_queue(&mut self, index: u16) -> Option<MemoryTransmitQueue> {
        let taken = self.transmit_taken.get_mut(usize::from(index))?;
        if std::mem::replace(taken, true) {
            return None;
        }
        let impairments = self.shared.impairments;
        // As many as can be queued and on their way, received and not yet dropped, twice over.
        let frames = 2 * (impairments.in_flight_frames + TRANSMIT_QUEUE_FRAMES + BURST);
        Some(MemoryTransmitQueue {
            side: self.side,
            shared: Arc::clone(&self.shared),
            pool: Pool::new(impairments.mtu + ETHERNET_HEADER, frames),
            spare: Vec::with_capacity(BURST),
            queued: Vec::with_capacity(TRANSMIT_QUEUE_FRAMES),
        })
    }
}

/// The receive queue of a [`MemoryPort`].
#[derive(Debug)]
pub struct MemoryReceiveQueue {
    from: usize,
    shared: Arc<Shared>,
}

impl ReceiveQueue for MemoryReceiveQueue {
    type Packet = MemoryPacket;

    fn receive(&mut self, packets: &mut Vec<MemoryPacket>) -> usize {
        if self.shared.in_flight[self.from].0.load(Ordering::Acquire) == 0 {
            return 0;
        }
        let now = self.shared.now().as_nanoseconds();
        let mut lane = self.shared.lane(self.from);
        let before = packets.len();
        while packets.len() - before < BURST {
            let Some(packet) = lane.deliver(now) else { break };
            packets.push(packet);
        }
        self.shared.in_flight[self.from].0.store(lane.in_flight(), Ordering::Release);
        packets.len() - before
    }
}

/// A frame that came over a [`Wire`].
#[derive(Debug)]
pub struct MemoryPacket {
    buffer: Buffer,
    /// Where the frame is cut, ascending; the frame's length where it is not.
    cuts: [usize; 2],
    checksum: ReceivedChecksum,
}

impl Packet for MemoryPacket {
    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let bytes = self.buffer.bytes();
        let [first, second] = self.cuts;
        [&bytes[..first], &bytes[first..second], &bytes[second..]]
            .into_iter()
            .enumerate()
            .filter(|(index, part)| *index == 0 || !part.is_empty())
            .map(|(_, part)| part)
    }

    fn length(&self) -> usize {
        self.buffer.bytes().len()
    }

    fn checksum(&self) -> ReceivedChecksum {
        self.checksum
    }
}

/// A transmit queue of a [`MemoryPort`].
#[derive(Debug)]
pub struct MemoryTransmitQueue {
    side: usize,
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    /// Buffers taken from the pool ahead of need, a burst at a time.
    spare: Vec<Box<[u8]>>,
    queued: Vec<Buffer>,
}

impl MemoryTransmitQueue {
    /// Buffers of its pool that are not free: in frames under construction, queued, on their way, or received and not dropped.
    pub fn buffers_in_use(&self) -> usize {
        self.pool.in_use() - self.spare.len()
    }
}

impl TransmitQueue for MemoryTransmitQueue {
    type Attachment = Infallible;
    type Frame = MemoryFrame;

    fn frame(&mut self, length: usize) -> Option<MemoryFrame> {
        if length > self.pool.buffer_bytes() {
            return None;
        }
        if self.spare.is_empty() {
            self.pool.take(&mut self.spare, BURST);
        }
        let bytes = self.spare.pop()?;
        Some(MemoryFrame { buffer: Buffer::new(bytes, length, Arc::clone(&self.pool)) })
    }

    fn send(&mut self, mut frame: MemoryFrame, offload: TransmitOffload) -> Result<(), MemoryFrame> {
        if self.queued.len() == TRANSMIT_QUEUE_FRAMES && self.flush() == TRANSMIT_QUEUE_FRAMES {
            return Err(frame);
        }
        if offload.ipv4_checksum || offload.tcp_checksum {
            checksum::fill(frame.bytes_mut(), offload);
        }
        self.queued.push(frame.buffer);
        // As ports do: the peer begins while the rest of a long train is made.
        if self.queued.len().is_multiple_of(BURST) {
            self.flush();
        }
        Ok(())
    }

    fn flush(&mut self) -> usize {
        if self.queued.is_empty() {
            return 0;
        }
        let (now, up) = (self.shared.now().as_nanoseconds(), self.shared.is_up());
        let mut lane = self.shared.lane(self.side);
        let taken = self.queued.len().min(lane.room());
        for buffer in self.queued.drain(..taken) {
            lane.carry(now, buffer, up);
        }
        self.shared.in_flight[self.side].0.store(lane.in_flight(), Ordering::Release);
        self.queued.len()
    }
}

/// A frame under construction for a [`Wire`].
#[derive(Debug)]
pub struct MemoryFrame {
    buffer: Buffer,
}

impl Frame for MemoryFrame {
    type Attachment = Infallible;

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.bytes_mut()
    }

    fn attach(&mut self, attachment: Infallible) -> Result<(), Infallible> {
        Err(attachment)
    }
}
