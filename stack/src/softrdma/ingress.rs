//! What happens to a received packet first: verified, and brought to its connection, or to the other half.

use super::receive_half::{PacketOf, ReceiveHalf};
use super::segment::{LONGEST_HEADERS, Parsed, is_good, parse};
use super::shared::{ToSend, add};
use crate::port::{Packet, Port, ReceivedChecksum};
use crate::stream::ReceiveStreams;
use crate::time::Instant;

impl<P: Port> ReceiveHalf<P> {
    #[inline]
    pub(super) fn handle_packet(
        &mut self,
        now: Instant,
        packet: PacketOf<P>,
        streams: &mut (impl ReceiveStreams + ?Sized),
    ) -> usize {
        let mut copied = [0; LONGEST_HEADERS];
        let (head, length) = headers(&packet, &mut copied);
        let segment = match parse(head, length) {
            Parsed::Tcp(segment) => segment,
            Parsed::Other => {
                self.leave_stray(packet);
                return 0;
            }
            Parsed::Malformed => {
                add(&self.counters.malformed, 1);
                return 0;
            }
        };
        if head[..6] != self.hardware {
            return 0;
        }
        let verdict = if self.verifies { packet.checksum() } else { ReceivedChecksum::Good };
        if !is_good(&segment, verdict, head, packet.parts()) {
            add(&self.counters.malformed, 1);
            return 0;
        }
        match self.find(&segment.tuple) {
            Some(name) => self.handle_segment(now, name, &segment, packet, streams),
            None => {
                self.leave_stray(packet);
                0
            }
        }
    }

    /// Leaves a packet of no connection to the send half. A flood of them must neither hold the port's buffers nor keep what
    /// connections have to say waiting: whoever means it asks again.
    fn leave_stray(&mut self, packet: PacketOf<P>) {
        if self.to_send.is_crowded() {
            add(&self.counters.dropped_strays, 1);
        } else {
            self.to_send.push(ToSend::Stray(packet));
        }
    }
}

/// The beginning of a packet in one piece, as far as headers can reach, and the packet's length.
#[inline]
pub(super) fn headers<'a, K: Packet>(packet: &'a K, copied: &'a mut [u8; LONGEST_HEADERS]) -> (&'a [u8], usize) {
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
