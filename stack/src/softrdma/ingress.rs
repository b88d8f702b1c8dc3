//! What happens to a received packet first: verified, and brought to its connection.

use super::SoftrdmaEngine;
use super::receive_half::{Effect, PacketOf, Phase};
use super::segment::{LONGEST_HEADERS, Parsed, RST, SYN, Segment, is_good, parse};
use crate::port::{Packet, Port, ReceiveQueue, ReceivedChecksum};
use crate::stream::{ResetReason, StreamEvent, Streams};
use crate::time::Instant;

/// Longest frame that is not TCP and is looked at: an echo request of the largest MTU.
const LONGEST_OTHER: usize = 65_535 + 14;

impl<P: Port> SoftrdmaEngine<P> {
    /// Receives and handles one burst; how many packets, and how many events.
    pub(super) fn ingress(&mut self, now: Instant, streams: &mut dyn Streams) -> (usize, usize) {
        let mut burst = std::mem::take(&mut self.receive.burst);
        let received = self.receive.queue.receive(&mut burst);
        let mut events = 0;
        for packet in burst.drain(..) {
            events += self.handle_packet(now, packet, streams);
        }
        self.receive.burst = burst;
        (received, events)
    }

    #[inline]
    fn handle_packet(&mut self, now: Instant, packet: PacketOf<P>, streams: &mut dyn Streams) -> usize {
        self.send.output.capture_received(now, packet.parts());
        let mut copied = [0; LONGEST_HEADERS];
        let (head, length) = headers(&packet, &mut copied);
        let segment = match parse(head, length) {
            Parsed::Tcp(segment) => segment,
            Parsed::Other => {
                self.handle_other(now, &packet);
                return 0;
            }
            Parsed::Malformed => {
                self.malformed_packets += 1;
                return 0;
            }
        };
        if head[..6] != self.hardware {
            return 0;
        }
        let verdict = if self.limits.verifies { packet.checksum() } else { ReceivedChecksum::Good };
        if !is_good(&segment, verdict, head, packet.parts()) {
            self.malformed_packets += 1;
            return 0;
        }
        let Some(name) = self.receive.find(&segment.tuple) else {
            let options = segment.syn_options(head);
            self.handle_stranger(now, &segment, options);
            return 0;
        };
        let Some(flow) = self.receive.flows.get(name) else { return 0 };
        if flow.phase == Phase::Synchronised {
            return self.handle_segment(now, name, &segment, packet, streams);
        }
        let options = segment.syn_options(head);
        let (goes_on, events) = self.handle_handshake(now, name, &segment, options, streams);
        if goes_on && segment.flags & (SYN | RST) == 0 {
            return events + self.handle_segment(now, name, &segment, packet, streams);
        }
        events
    }

    #[inline]
    fn handle_segment(
        &mut self,
        now: Instant,
        name: crate::table::Name,
        segment: &Segment,
        packet: PacketOf<P>,
        streams: &mut dyn Streams,
    ) -> usize {
        let shared = &mut self.shared[name.index as usize];
        match self.receive.handle_segment(now, name, segment, packet, shared, &mut self.messages) {
            Effect::None => 0,
            Effect::Reset => {
                // What came before the reset arrived.
                let events = self.serve_one(now, name, streams);
                if self.receive.flows.get(name).is_none() {
                    return events;
                }
                self.forget(name);
                streams.handle_event(StreamEvent::Reset { stream: name.into(), reason: ResetReason::ByPeer });
                events + 1
            }
        }
    }

    /// A frame that is not TCP: smoltcp answers it, and neighbours are learnt from it.
    fn handle_other(&mut self, now: Instant, packet: &PacketOf<P>) {
        let length = packet.length();
        if length > LONGEST_OTHER {
            self.malformed_packets += 1;
            return;
        }
        let mut parts = packet.parts();
        let first = parts.next().unwrap_or(&[]);
        let mut joined = Vec::new();
        let frame = if first.len() == length {
            first
        } else {
            joined.reserve(length);
            packet.parts().for_each(|part| joined.extend_from_slice(part));
            &joined
        };
        let addresses = &self.addresses;
        let is_ours = |address| addresses.iter().any(|&(ours, _)| ours == address);
        self.send.neighbours.handle_frame(now, frame, is_ours);
        self.services.handle_frame(now, frame);
        while let Some(answer) = self.services.next_answer() {
            self.send.output.send_bytes(now, &answer);
        }
    }
}

/// The beginning of a packet in one piece, as far as headers can reach, and the packet's length.
#[inline]
fn headers<'a, K: Packet>(packet: &'a K, copied: &'a mut [u8; LONGEST_HEADERS]) -> (&'a [u8], usize) {
    let length = packet.length();
    let first = packet.parts().next().unwrap_or(&[]);
    if first.len() == length || first.len() >= LONGEST_HEADERS {
        return (first, length);
    }
    let mut filled = 0;
    for part in packet.parts() {
        let count = part.len().min(LONGEST_HEADERS - filled);
        copied[filled..filled + count].copy_from_slice(&part[..count]);
        filled += count;
    }
    (&copied[..filled], length)
}
