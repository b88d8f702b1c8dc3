//! Taking records: they are written straight into the socket's transmit ring.

use super::SequentialEngine;
use super::slots::{Role, Slot};
use crate::port::Port;
use crate::stream::{Record, Source, StreamId, Transmitted};

/// A source is asked for a record only while a whole segment fits, and at least this: the longest handshake message of
/// MPA with room to spare. So a source that has nothing that fits has nothing.
const SMALLEST_ROOM: usize = 1024;

impl<P: Port> SequentialEngine<P> {
    pub(super) fn take_records(&mut self, stream: StreamId, source: &mut dyn Source) -> Transmitted {
        let Some(index) = self.slots.of_stream(stream) else { return Transmitted::Gone };
        let slot = self.slots.get_mut(index);
        if slot.closing {
            return Transmitted::Gone;
        }
        if slot.role == Role::Connecting {
            slot.blocked = true;
            return Transmitted::Blocked;
        }
        let socket = self.sockets.get_mut(index);
        if !socket.may_send() {
            return Transmitted::Gone;
        }
        let mut taken_any = false;
        let outcome = loop {
            let free = socket.send_capacity() - socket.send_queue();
            let room = slot.record_room(socket.send_capacity());
            let filled = socket.send(|ring| {
                let filled = fill(ring, free, room, source);
                (filled.used, filled)
            });
            // It may send, as was asked above.
            let Ok(filled) = filled else { break Transmitted::Gone };
            let mut taken = filled.used;
            if let Some(record) = filled.cut {
                self.record.resize(record.length as usize, 0);
                source.write(record.start, &mut self.record);
                let copied = socket.send_slice(&self.record);
                debug_assert_eq!(copied, Ok(self.record.len()), "a record is no longer than the room");
                taken += self.record.len();
            }
            if taken > 0 {
                taken_any = true;
                slot.sent = slot.sent.wrapping_add(taken as u32);
                self.statistics.transmitted_bytes += taken as u64;
                // Retransmission is smoltcp's own business from here on.
                source.handle_acknowledged(filled.cut.map_or(filled.through, |record| record.end()));
            }
            if filled.cut.is_some() {
                continue;
            }
            if filled.drained {
                break Transmitted::Drained;
            }
            slot.blocked = true;
            socket.register_send_waker(self.ready.waker(index));
            break Transmitted::Blocked;
        };
        if taken_any {
            self.sockets.mark(index);
        }
        outcome
    }
}

impl Slot {
    /// Free bytes below which no record is taken.
    fn record_room(&self, capacity: usize) -> usize {
        self.segment_size.max(SMALLEST_ROOM).min(capacity)
    }

    /// Free bytes at which a stream that refused records is worth a visit: half the ring, so that each visit is a long one.
    pub(super) fn writable_room(&self, capacity: usize) -> usize {
        self.record_room(capacity).max(capacity / 2)
    }

    /// The peer takes segments of at most `bytes`.
    pub(super) fn limit_segment_size(&mut self, bytes: u16) {
        // smoltcp never goes below this either: a smaller size would stall the connection.
        const SMALLEST_SEGMENT: usize = 48;
        self.segment_size = self.segment_size.min(usize::from(bytes).max(SMALLEST_SEGMENT));
    }
}

/// What [`fill`] did.
struct Filled {
    /// Bytes written into the ring.
    used: usize,
    /// End of the last record among them, as an offset in the stream.
    through: u64,
    /// A record that is due but does not fit in front of the ring's end.
    cut: Option<Record>,
    /// The source has nothing more.
    drained: bool,
}

/// Writes records into `ring`, the part of `free` bytes that lies in front of the ring's end, while at least `room` bytes
/// are free.
fn fill(ring: &mut [u8], free: usize, room: usize, source: &mut dyn Source) -> Filled {
    let mut filled = Filled { used: 0, through: 0, cut: None, drained: false };
    while free - filled.used >= room {
        let Some(record) = source.next(free - filled.used) else {
            filled.drained = true;
            break;
        };
        let Some(out) = ring[filled.used..].get_mut(..record.length as usize) else {
            filled.cut = Some(record);
            break;
        };
        source.write(record.start, out);
        filled.used += out.len();
        filled.through = record.end();
    }
    filled
}
