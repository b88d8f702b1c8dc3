//! A port as smoltcp sees it: one frame in at a time, lent in place; frames out, built in the port's memory.

use std::collections::VecDeque;
use std::time::Duration;

use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};

use super::checksum;
use super::headers::{
    ETHERNET_HEADER, Handshake, Kind, classify, is_ipv4_fragment, make_pure_acknowledgement, tcp_place,
    told_of_neighbour,
};
use crate::pcap::{FrameDirection, FrameSink};
use crate::port::{
    BURST, Frame, Packet, Port, PortCapabilities, ReceiveQueue, ReceivedChecksum, TransmitOffload, TransmitQueue,
};
use crate::time::Instant;

/// Frames held back while the port takes none.
const HELD_FRAMES: usize = 64;

/// A port that has taken nothing for so long has nobody at its other end: frames are dropped from then on, so that the
/// timers of all connections go on running. TCP sends them again.
const TRANSMIT_STALL: Duration = Duration::from_millis(200);

/// Handshakes noted at a time, see [`TransmitSide::sent_handshakes`].
const NOTED_HANDSHAKES: usize = 1024;

/// Counters of a [`PortDevice`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DeviceStatistics {
    /// Packets dropped for a bad checksum, a fragment, or an empty frame.
    pub(super) malformed_packets: u64,
    /// TCP payload bytes copied because a packet came in several parts.
    pub(super) linearised_bytes: u64,
    /// Frames dropped because the port took none.
    pub(super) dropped_frames: u64,
}

/// The receive and transmit queue 0 of a port.
pub(super) struct PortDevice<P: Port> {
    receive: P::Receive,
    transmit: TransmitSide<P::Transmit>,
    /// What was received and not looked at yet, the next one last.
    burst: Vec<PacketOf<P>>,
    current: Current<PacketOf<P>>,
    linear: Vec<u8>,
    capabilities: DeviceCapabilities,
    checksum: bool,
    /// smoltcp leaves verifying to the port, so packets that the port did not look at are verified here.
    port_verifies: bool,
    malformed_packets: u64,
    linearised_bytes: u64,
}

type PacketOf<P> = <<P as Port>::Receive as ReceiveQueue>::Packet;

/// The frame that smoltcp is shown next.
enum Current<K> {
    Nothing,
    /// The packet has one part.
    InPlace(K),
    /// The frame was copied into the device's linear buffer.
    Linear,
}

impl<P: Port> PortDevice<P> {
    pub(super) fn new(
        receive: P::Receive,
        transmit: P::Transmit,
        port: PortCapabilities,
        mtu: usize,
        checksum: bool,
        capture: Option<Box<dyn FrameSink>>,
    ) -> Self {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = mtu + ETHERNET_HEADER;
        capabilities.checksum = checksum_capabilities(port, checksum);
        let offload = checksum && port.transmit_checksum;
        Self {
            receive,
            transmit: TransmitSide {
                queue: transmit,
                offload: TransmitOffload { ipv4_checksum: offload, tcp_checksum: offload, segment_size: 0 },
                held: VecDeque::with_capacity(HELD_FRAMES),
                stalled_since: None,
                now: Instant::ZERO,
                scratch: Vec::new(),
                sent_frames: 0,
                dropped_frames: 0,
                watches_handshakes: false,
                sent_handshakes: Vec::new(),
                is_unsent: false,
                answer: None,
                capture,
            },
            burst: Vec::with_capacity(BURST),
            current: Current::Nothing,
            linear: Vec::new(),
            capabilities,
            checksum,
            port_verifies: port.receive_checksum,
            malformed_packets: 0,
            linearised_bytes: 0,
        }
    }

    pub(super) fn statistics(&self) -> DeviceStatistics {
        DeviceStatistics {
            malformed_packets: self.malformed_packets,
            linearised_bytes: self.linearised_bytes,
            dropped_frames: self.transmit.dropped_frames,
        }
    }

    pub(super) fn transmit_side(&mut self) -> &mut TransmitSide<P::Transmit> {
        &mut self.transmit
    }

    /// Receives a burst; how many packets.
    pub(super) fn receive_burst(&mut self) -> usize {
        let received = self.receive.receive(&mut self.burst);
        self.burst.reverse();
        received
    }

    /// Makes the next good packet of the burst the current one; the one before it goes back to the port. `false` at the
    /// end of the burst.
    pub(super) fn load_next(&mut self) -> bool {
        self.current = Current::Nothing;
        while let Some(packet) = self.burst.pop() {
            let mut verdict = packet.checksum();
            self.current = self.load(packet);
            let frame = frame_of(&self.current, &self.linear);
            if let Some(capture) = &mut self.transmit.capture {
                capture.handle_frame(self.transmit.now, FrameDirection::Received, &[frame]);
            }
            if self.checksum && self.port_verifies && verdict == ReceivedChecksum::Unknown {
                verdict = checksum::verdict(frame);
            }
            let bad = self.checksum && verdict == ReceivedChecksum::Bad;
            if !bad && !frame.is_empty() && !is_ipv4_fragment(frame) {
                return true;
            }
            self.malformed_packets += 1;
            self.current = Current::Nothing;
        }
        false
    }

    /// What the current frame is.
    pub(super) fn current_kind(&self) -> Kind {
        classify(frame_of(&self.current, &self.linear))
    }

    /// Cuts the payload off the current frame and moves it to `sequence`, so that only what it acknowledges is left.
    pub(super) fn reduce_current(&mut self, sequence: u32) {
        if let Current::InPlace(packet) = &self.current {
            self.linear.clear();
            packet.parts().for_each(|part| self.linear.extend_from_slice(part));
        }
        make_pure_acknowledgement(&mut self.linear, sequence);
        if self.checksum {
            let both = TransmitOffload { ipv4_checksum: true, tcp_checksum: true, segment_size: 0 };
            checksum::fill(&mut self.linear, both);
        }
        self.current = Current::Linear;
    }

    fn load(&mut self, packet: PacketOf<P>) -> Current<PacketOf<P>> {
        if packet.parts().nth(1).is_none() {
            return Current::InPlace(packet);
        }
        self.linear.clear();
        packet.parts().for_each(|part| self.linear.extend_from_slice(part));
        self.linearised_bytes += payload_bytes(&self.linear);
        Current::Linear
    }
}

impl<P: Port> Device for PortDevice<P> {
    type RxToken<'a>
        = ReceiveToken<'a>
    where
        P: 'a;
    type TxToken<'a>
        = TransmitToken<'a, P::Transmit>
    where
        P: 'a;

    fn receive(&mut self, _now: smoltcp::time::Instant) -> Option<(ReceiveToken<'_>, TransmitToken<'_, P::Transmit>)> {
        let frame = frame_of(&self.current, &self.linear);
        if frame.is_empty() {
            return None;
        }
        Some((ReceiveToken { frame }, TransmitToken { side: &mut self.transmit, answers: true }))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<TransmitToken<'_, P::Transmit>> {
        let has_room = self.transmit.has_room();
        self.transmit.is_unsent = has_room;
        has_room.then_some(TransmitToken { side: &mut self.transmit, answers: false })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.capabilities.clone()
    }
}

/// Shows smoltcp the current frame.
pub(super) struct ReceiveToken<'a> {
    frame: &'a [u8],
}

impl RxToken for ReceiveToken<'_> {
    fn consume<R, F>(self, f: F) -> R
    where
        F: FnOnce(&[u8]) -> R,
    {
        f(self.frame)
    }
}

/// Takes one frame from smoltcp.
pub(super) struct TransmitToken<'a, T: TransmitQueue> {
    side: &'a mut TransmitSide<T>,
    /// The frame answers the one being received.
    answers: bool,
}

impl<T: TransmitQueue> TxToken for TransmitToken<'_, T> {
    fn consume<R, F>(self, length: usize, f: F) -> R
    where
        F: FnOnce(&mut [u8]) -> R,
    {
        if !self.answers {
            let mut is_unsent = false;
            let result = self.side.build(length, |frame| {
                let result = f(frame);
                is_unsent = told_of_neighbour(frame).is_some();
                result
            });
            self.side.is_unsent = is_unsent;
            return result;
        }
        let mut answer = None;
        let result = self.side.build(length, |frame| {
            let result = f(frame);
            if let Kind::Segment { acknowledged, .. } = classify(frame) {
                answer = acknowledged;
            }
            result
        });
        self.side.answer = answer;
        result
    }
}

/// The transmit half of a [`PortDevice`].
pub(super) struct TransmitSide<T: TransmitQueue> {
    queue: T,
    offload: TransmitOffload,
    /// Frames that the port did not take yet, the oldest first.
    held: VecDeque<Held<T::Frame>>,
    /// Since when the port takes nothing.
    stalled_since: Option<Instant>,
    now: Instant,
    scratch: Vec<u8>,
    sent_frames: u64,
    dropped_frames: u64,
    watches_handshakes: bool,
    /// Handshake segments that left, while they are watched.
    sent_handshakes: Vec<Handshake>,
    /// A socket was given room for a frame, and its neighbour was asked for instead, or not even that: see
    /// [`Self::take_unsent`].
    is_unsent: bool,
    /// What the last frame that answered a received one acknowledged, if it was TCP.
    answer: Option<u32>,
    capture: Option<Box<dyn FrameSink>>,
}

/// A frame that waits for the port.
enum Held<F> {
    /// The port's queue was full.
    Frame(F, TransmitOffload),
    /// The port had no memory for it.
    Bytes(Box<[u8]>, TransmitOffload),
}

impl<T: TransmitQueue> TransmitSide<T> {
    pub(super) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Frames built since the engine was made.
    pub(super) fn sent_frames(&self) -> u64 {
        self.sent_frames
    }

    /// What the last answer to a received frame acknowledged, if there was one since the last call and it was TCP.
    pub(super) fn take_answer(&mut self) -> Option<u32> {
        self.answer.take()
    }

    /// Whether the socket that was visited last had something to send, and it did not leave because its neighbour is not known:
    /// smoltcp asks for neighbours, no more than once a second for all sockets, and tells nobody who waits.
    pub(super) fn take_unsent(&mut self) -> bool {
        std::mem::take(&mut self.is_unsent)
    }

    /// Starts or stops noting the handshake segments that leave.
    pub(super) fn watch_handshakes(&mut self, watch: bool) {
        self.watches_handshakes = watch;
    }

    /// The handshake segments that left since the last call.
    pub(super) fn take_sent_handshakes(&mut self) -> std::vec::Drain<'_, Handshake> {
        self.sent_handshakes.drain(..)
    }

    /// Frames wait because the port takes none, and nothing more can be built.
    pub(super) fn is_blocked(&self) -> bool {
        !self.held.is_empty() && !self.is_stalled()
    }

    /// Frames wait because the port takes none.
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Hands everything to the port.
    pub(super) fn flush(&mut self) {
        self.retry_held();
        self.queue.flush();
    }

    /// Whether a frame built now will be sent, or lost for a good reason.
    fn has_room(&mut self) -> bool {
        self.retry_held();
        self.held.is_empty() || self.is_stalled()
    }

    fn is_stalled(&self) -> bool {
        self.stalled_since.is_some_and(|since| self.now.saturating_since(since) >= TRANSMIT_STALL)
    }

    fn build<R>(&mut self, length: usize, f: impl FnOnce(&mut [u8]) -> R) -> R {
        self.sent_frames += 1;
        if let Some(mut frame) = self.queue.frame(length) {
            let result = f(frame.bytes_mut());
            let offload = self.finish_frame(frame.bytes_mut());
            self.send(Held::Frame(frame, offload));
            return result;
        }
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        bytes.resize(length, 0);
        let result = f(&mut bytes);
        let offload = self.finish_frame(&mut bytes);
        self.hold(Held::Bytes(bytes.as_slice().into(), offload));
        self.scratch = bytes;
        result
    }

    /// What is left to do to a frame that smoltcp has built.
    fn finish_frame(&mut self, frame: &mut [u8]) -> TransmitOffload {
        let mut offload = TransmitOffload::default();
        if self.offload.tcp_checksum {
            offload.ipv4_checksum = self.offload.ipv4_checksum && frame[12..14] == [0x08, 0x00];
            offload.tcp_checksum = checksum::prepare_tcp(frame);
        }
        if self.watches_handshakes
            && self.sent_handshakes.len() < NOTED_HANDSHAKES
            && let Kind::Handshake(handshake) = classify(frame)
        {
            self.sent_handshakes.push(handshake);
        }
        if let Some(capture) = &mut self.capture {
            capture.handle_frame(self.now, FrameDirection::Transmitted, &[frame]);
        }
        offload
    }

    fn send(&mut self, frame: Held<T::Frame>) {
        if !self.held.is_empty() {
            return self.hold(frame);
        }
        match self.try_send(frame) {
            Ok(()) => self.stalled_since = None,
            Err(frame) => self.hold(frame),
        }
    }

    fn try_send(&mut self, frame: Held<T::Frame>) -> Result<(), Held<T::Frame>> {
        match frame {
            Held::Frame(frame, offload) => self.queue.send(frame, offload).map_err(|frame| Held::Frame(frame, offload)),
            Held::Bytes(bytes, offload) => {
                let Some(mut frame) = self.queue.frame(bytes.len()) else { return Err(Held::Bytes(bytes, offload)) };
                frame.bytes_mut().copy_from_slice(&bytes);
                self.queue.send(frame, offload).map_err(|frame| Held::Frame(frame, offload))
            }
        }
    }

    fn hold(&mut self, frame: Held<T::Frame>) {
        self.stalled_since.get_or_insert(self.now);
        if self.held.len() < HELD_FRAMES && !self.is_stalled() {
            self.held.push_back(frame);
        } else {
            self.dropped_frames += 1;
        }
    }

    fn retry_held(&mut self) {
        while let Some(frame) = self.held.pop_front() {
            match self.try_send(frame) {
                Ok(()) => self.stalled_since = None,
                Err(frame) => return self.held.push_front(frame),
            }
        }
    }
}

fn frame_of<'a, K: Packet>(current: &'a Current<K>, linear: &'a [u8]) -> &'a [u8] {
    match current {
        Current::Nothing => &[],
        Current::InPlace(packet) => packet.parts().next().unwrap_or(&[]),
        Current::Linear => linear,
    }
}

fn checksum_capabilities(port: PortCapabilities, checksum: bool) -> ChecksumCapabilities {
    let mut capabilities = ChecksumCapabilities::ignored();
    if checksum {
        let here = match (port.receive_checksum, port.transmit_checksum) {
            (false, false) => Checksum::Both,
            (false, true) => Checksum::Rx,
            (true, false) => Checksum::Tx,
            (true, true) => Checksum::None,
        };
        capabilities.ipv4 = here;
        capabilities.tcp = here;
        // No port computes these.
        capabilities.icmpv4 = Checksum::Both;
        capabilities.icmpv6 = Checksum::Both;
    }
    capabilities
}

fn payload_bytes(frame: &[u8]) -> u64 {
    tcp_place(frame).map_or(0, |place| {
        let header = usize::from(frame[place.tcp + 12] >> 4) * 4;
        place.end.saturating_sub(place.tcp + header) as u64
    })
}
