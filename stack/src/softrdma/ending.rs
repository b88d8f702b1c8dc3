//! How connections end: in order, by a reset, or by giving up.

use super::send_half::Fin;
use super::sending::{Phase, Sending};
use super::shared::ToReceive;
use super::time_wait::Remembered;
use crate::port::Port;
use crate::stream::{ListenerId, ResetReason, StreamEvent, StreamId, Streams};
use crate::table::Name;
use crate::time::Instant;

impl<P: Port> Sending<P> {
    pub(super) fn close_stream(&mut self, now: Instant, stream: StreamId) {
        let Some(name) = self.of_stream(stream) else { return };
        let has_peer_ended = self.connections.get(name).is_some_and(|connection| connection.peer_end.is_some());
        if let Some(flow) = self.send.flow_mut(name.index)
            && flow.fin == Fin::None
        {
            flow.is_passive_close = has_peer_ended;
            self.send.close(now, name.index);
        }
    }

    /// RFC 9293 §3.10.5.
    pub(super) fn abort_stream(&mut self, now: Instant, stream: StreamId) {
        let Some(name) = self.of_stream(stream) else { return };
        let has_peer_ended = self.connections.get(name).is_some_and(|connection| connection.peer_end.is_some());
        let has_ended = self.send.flow(name.index).is_some_and(|flow| flow.fin == Fin::Sent);
        // RFC 9293 §3.10.5: in CLOSING and LAST-ACK nothing is sent. The peer has our end, or is about to: a reset behind it
        // would cut its TIME-WAIT short (RFC 1337 §3). If our end was lost, nobody repeats it: that is what aborting means.
        if !(has_peer_ended && has_ended) {
            self.send.send_reset(now, name.index);
        }
        self.forget(name);
    }

    /// Ends a connection whose both directions have ended in order; how many events.
    pub(super) fn finish(&mut self, now: Instant, name: Name, streams: &mut dyn Streams) -> usize {
        let Some(flow) = self.send.flow(name.index).filter(|flow| flow.is_fin_acknowledged()) else { return 0 };
        let Some(end) = self.connections.get(name).and_then(|connection| connection.peer_end) else { return 0 };
        let remembered = Remembered {
            sent: flow.next_sequence(),
            received: end.next,
            recent_timestamp: end.recent_timestamp,
            clock_offset: flow.clock_offset,
            until: now + self.limits.time_wait,
        };
        let (tuple, is_passive) = (flow.tuple, flow.is_passive_close);
        // The peer waits for the acknowledgement of its FIN. If it cannot leave now, the peer asks again.
        if flow.shared.told().next != end.next {
            self.send.send_acknowledgement(now, name.index);
        }
        self.forget(name);
        if !is_passive {
            self.time_wait.insert(tuple, remembered);
        }
        streams.handle_event(StreamEvent::Closed { stream: name.into() });
        1
    }

    /// A connection that has waited long enough; how many events.
    pub(super) fn give_up(&mut self, now: Instant, name: Name, unreachable: bool, streams: &mut dyn Streams) -> usize {
        let Some(phase) = self.connections.get(name).map(|connection| connection.phase) else { return 0 };
        let stream = StreamId::from(name);
        self.send.send_reset(now, name.index);
        self.forget(name);
        let reason = if unreachable { ResetReason::Unreachable } else { ResetReason::TimedOut };
        match phase {
            Phase::SynReceived(Some(_)) => return 0,
            Phase::SynSent | Phase::SynReceived(None) => {
                streams.handle_event(StreamEvent::ConnectFailed { stream, reason });
            }
            Phase::Synchronised => streams.handle_event(StreamEvent::Reset { stream, reason }),
        }
        1
    }

    /// A connection for `listener` is not half-open any more.
    pub(super) fn end_half_open(&mut self, listener: ListenerId) {
        self.half_open -= 1;
        if let Some(entry) = self.listeners.get_mut(listener) {
            entry.end();
        }
    }

    /// Takes the connection out of both halves.
    pub(super) fn forget(&mut self, name: Name) {
        let Some(connection) = self.connections.remove(name) else { return };
        self.tuples.remove(&connection.tuple);
        match connection.phase {
            Phase::Synchronised => self.to_receive.push(ToReceive::Remove(name)),
            Phase::SynReceived(Some(listener)) => self.end_half_open(listener),
            Phase::SynSent | Phase::SynReceived(None) => {}
        }
        self.send.remove(name.index);
    }
}
