//! Offering received bytes, and noticing how streams end.

use smoltcp::socket::tcp;

use super::SequentialEngine;
use super::slots::Slot;
use crate::port::Port;
use crate::stream::{EngineStatistics, ResetReason, StreamEvent, StreamId, Streams};
use crate::time::Instant;

/// A stage that has grown beyond this gives its memory back when it is empty.
const KEPT_STAGE_BYTES: usize = 128 * 1024;

impl<P: Port> SequentialEngine<P> {
    /// Offers what arrived and reports what happened to an open stream; how many events.
    pub(super) fn serve_open(&mut self, now: Instant, index: usize, streams: &mut dyn Streams) -> usize {
        let stream = self.slots.name(index);
        let slot = self.slots.get_mut(index);
        let socket = self.sockets.get_mut(index);
        let queued = socket.recv_queue();
        offer(slot, socket, stream, streams, &mut self.statistics);
        let window_opened = socket.recv_queue() < queued;
        if socket.state() == tcp::State::TimeWait {
            slot.ended = true;
            // When TIME-WAIT ends smoltcp empties the ring, and what is in it was acknowledged.
            stage_all(slot, socket, &mut self.statistics);
        }
        if window_opened {
            self.sockets.mark(index);
        }
        let socket = self.sockets.get_mut(index);
        let mut events = 0;
        if !slot.fin_seen {
            slot.fin_seen = is_fin_received(socket);
        }
        let drained = slot.stage.is_empty() && !socket.can_recv();
        if slot.fin_seen && drained && !slot.fin_reported {
            slot.fin_reported = true;
            events += 1;
            streams.handle_event(StreamEvent::PeerClosed { stream });
        }
        match ending(slot, socket) {
            Some(Ending::Closed) if !drained => {} // The layer above has yet to take the rest.
            Some(Ending::Closed) => {
                self.retire(now, index);
                streams.handle_event(StreamEvent::Closed { stream });
                return events + 1;
            }
            Some(Ending::Reset(reason)) => {
                self.retire(now, index);
                streams.handle_event(StreamEvent::Reset { stream, reason });
                return events + 1;
            }
            None => {}
        }
        events + self.rearm(index, streams)
    }

    /// Asks to be woken again, and says `Writable` where it is owed and true.
    fn rearm(&mut self, index: usize, streams: &mut dyn Streams) -> usize {
        let stream = self.slots.name(index);
        let slot = self.slots.get_mut(index);
        let socket = self.sockets.get_mut(index);
        let waker = self.ready.waker(index);
        socket.register_recv_waker(waker);
        if !slot.blocked {
            return 0;
        }
        let free = socket.send_capacity() - socket.send_queue();
        if !slot.closing && free < slot.writable_room(socket.send_capacity()) {
            socket.register_send_waker(waker);
            return 0;
        }
        slot.blocked = false;
        streams.handle_event(StreamEvent::Writable { stream });
        1
    }
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Closed,
    Reset(ResetReason),
}

fn ending(slot: &Slot, socket: &tcp::Socket<'_>) -> Option<Ending> {
    match socket.state() {
        _ if slot.ended => Some(Ending::Closed),
        // RFC 9293 §3.10.7.4: both FINs are acknowledged, ours as the last. smoltcp shows a RST in its place the same way;
        // by then every byte of both directions has arrived, so it makes no difference.
        tcp::State::Closed if slot.closing && slot.fin_seen && !slot.expired && socket.send_queue() == 0 => {
            Some(Ending::Closed)
        }
        tcp::State::Closed if slot.expired => Some(Ending::Reset(ResetReason::TimedOut)),
        tcp::State::Closed => Some(Ending::Reset(ResetReason::ByPeer)),
        _ => None,
    }
}

fn is_fin_received(socket: &mut tcp::Socket<'_>) -> bool {
    match socket.state() {
        tcp::State::CloseWait | tcp::State::LastAck | tcp::State::Closing | tcp::State::TimeWait => true,
        tcp::State::Closed => socket.recv(|_| (0, ())) == Err(tcp::RecvError::Finished),
        _ => false,
    }
}

/// Offers everything in stage and ring. Bytes that the ring's end cuts off from those behind it are moved to the stage, so
/// that both can be offered together.
fn offer(
    slot: &mut Slot,
    socket: &mut tcp::Socket<'_>,
    stream: StreamId,
    streams: &mut dyn Streams,
    statistics: &mut EngineStatistics,
) {
    while !slot.deaf && (!slot.stage.is_empty() || socket.can_recv()) {
        let Some(taken) = offer_once(slot, socket, stream, streams, statistics) else {
            slot.deaf = true;
            break;
        };
        if !socket.can_recv() {
            break;
        }
        if taken.everything {
            continue; // That was up to the ring's end, and there is more behind it.
        }
        let front = socket.peek(usize::MAX).map_or(0, <[u8]>::len);
        if socket.recv_queue() == front {
            break;
        }
        // What is behind the ring's end may be what the layer above waits for.
        move_to_stage(slot, socket, statistics);
    }
    if slot.deaf {
        discard(slot, socket);
    }
    if slot.stage.is_empty() && slot.stage.capacity() > KEPT_STAGE_BYTES {
        slot.stage = Vec::new();
    }
}

/// What one offer came to.
struct Taken {
    /// Nothing of it was left.
    everything: bool,
}

/// Offers the stage and the ring's front; `None` if the layer above cannot go on.
fn offer_once(
    slot: &mut Slot,
    socket: &mut tcp::Socket<'_>,
    stream: StreamId,
    streams: &mut dyn Streams,
    statistics: &mut EngineStatistics,
) -> Option<Taken> {
    let staged = slot.stage.len();
    let stage = &slot.stage;
    let mut offered = staged;
    let mut consumed = 0;
    let mut offer = |front: &[u8]| {
        offered = staged + front.len();
        let result = match (staged, front.len()) {
            (0, _) => streams.handle_bytes(stream, &[front]),
            (_, 0) => streams.handle_bytes(stream, &[stage]),
            _ => streams.handle_bytes(stream, &[stage, front]),
        };
        let taken = result.ok().map(|taken| taken.min(offered));
        consumed = taken.unwrap_or(0);
        (consumed.saturating_sub(staged), taken)
    };
    // The ring may be empty and closed, with the rest of the stream in the stage.
    let taken = match socket.can_recv() {
        true => socket.recv(|front| offer(front)).ok().flatten(),
        false => offer(&[]).1,
    };
    slot.stage.drain(..consumed.min(staged));
    let new = offered.saturating_sub(slot.offered) as u64;
    statistics.received_bytes += new;
    // smoltcp copied every one of them from its packet into the ring.
    statistics.receive_copied_bytes += new;
    slot.offered = slot.offered.max(offered) - consumed;
    taken.map(|taken| Taken { everything: taken == offered })
}

/// Moves the ring's front to the stage: as far as the ring's end.
fn move_to_stage(slot: &mut Slot, socket: &mut tcp::Socket<'_>, statistics: &mut EngineStatistics) {
    let stage = &mut slot.stage;
    let moved = socket.recv(|front| {
        stage.extend_from_slice(front);
        (front.len(), front.len())
    });
    statistics.receive_copied_bytes += moved.unwrap_or(0) as u64;
}

fn stage_all(slot: &mut Slot, socket: &mut tcp::Socket<'_>, statistics: &mut EngineStatistics) {
    while socket.can_recv() {
        move_to_stage(slot, socket, statistics);
    }
}

fn discard(slot: &mut Slot, socket: &mut tcp::Socket<'_>) {
    slot.stage.clear();
    slot.offered = 0;
    while socket.can_recv() {
        // Cannot fail while there is something in the ring.
        let _ = socket.recv(|front| (front.len(), ()));
    }
}
