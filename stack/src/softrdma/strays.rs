//! Packets that the receive half has no use for: frames that are not TCP, handshakes, and segments of no connection.

use super::ingress::headers;
use super::receive_half::PacketOf;
use super::segment::{LONGEST_HEADERS, Parsed, RST, SYN, parse};
use super::sending::{Phase, Sending};
use super::shared::ToReceive;
use crate::port::{Packet, Port};
use crate::stream::Streams;
use crate::time::Instant;

/// Longest frame that is not TCP and is looked at: an echo request of the largest MTU.
const LONGEST_OTHER: usize = 65_535 + 14;

impl<P: Port> Sending<P> {
    /// A packet that the receive half has verified; how many events there were.
    pub(super) fn handle_stray(&mut self, now: Instant, packet: PacketOf<P>, streams: &mut dyn Streams) -> usize {
        let mut copied = [0; LONGEST_HEADERS];
        let (head, length) = headers(&packet, &mut copied);
        let Parsed::Tcp(segment) = parse(head, length) else {
            self.handle_other(now, &packet);
            return 0;
        };
        let options = segment.syn_options(head);
        let known = self.tuples.get(&segment.tuple).copied();
        if let Some(connection) = known.and_then(|name| self.connections.get(name))
            && connection.phase == Phase::Synchronised
        {
            self.to_receive.push(ToReceive::Packet(packet));
            return 0;
        }
        let (goes_on, events) = match known {
            Some(name) => self.handle_handshake(now, name, &segment, options, streams),
            None => self.handle_stranger(now, &segment, options, streams),
        };
        if goes_on && segment.flags & (SYN | RST) == 0 {
            self.to_receive.push(ToReceive::Packet(packet));
        }
        events
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
