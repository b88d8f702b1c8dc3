//! How connections end: in order, by a reset, or by giving up.

use super::SoftrdmaEngine;
use super::receive_half::Phase;
use super::send_half::Fin;
use super::time_wait::Remembered;
use crate::port::Port;
use crate::stream::{ResetReason, StreamEvent, StreamId, Streams};
use crate::table::Name;
use crate::time::Instant;

impl<P: Port> SoftrdmaEngine<P> {
    pub(super) fn close_stream(&mut self, now: Instant, stream: StreamId) {
        let Some(name) = self.of_stream(stream) else { return };
        let has_peer_ended = self.receive.flows.get(name).is_some_and(|flow| flow.receiver.has_ended());
        if let Some(flow) = self.send.flow_mut(name.index)
            && flow.fin == Fin::None
        {
            flow.is_passive_close = has_peer_ended;
            self.send.close(now, name.index, &mut self.shared[name.index as usize]);
        }
    }

    /// RFC 9293 §3.10.5.
    pub(super) fn abort_stream(&mut self, now: Instant, stream: StreamId) {
        let Some(name) = self.of_stream(stream) else { return };
        self.send.send_reset(now, name.index, &mut self.shared[name.index as usize]);
        self.forget(name);
    }

    /// Ends a connection whose both directions have ended in order; how many events.
    pub(super) fn finish(&mut self, now: Instant, name: Name, streams: &mut dyn Streams) -> usize {
        let Some(flow) = self.send.flow(name.index).filter(|flow| flow.is_fin_acknowledged()) else { return 0 };
        let Some(receiving) = self.receive.flows.get(name).filter(|flow| flow.is_end_reported) else { return 0 };
        let shared = &mut self.shared[name.index as usize];
        let received = receiving.receiver.next_sequence();
        let remembered = Remembered {
            sent: flow.next_sequence(),
            received,
            recent_timestamp: receiving.receiver.recent_timestamp,
            clock_offset: flow.clock_offset,
            until: now + self.limits.time_wait,
        };
        let (tuple, is_passive) = (flow.tuple, flow.is_passive_close);
        // The peer waits for the acknowledgement of its FIN. If it cannot leave now, the peer asks again.
        if shared.progress.acknowledged != received {
            self.send.send_acknowledgement(now, name.index, shared);
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
        let Some(phase) = self.receive.flows.get(name).map(|flow| flow.phase) else { return 0 };
        let stream = StreamId::from(name);
        self.send.send_reset(now, name.index, &mut self.shared[name.index as usize]);
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

    /// Takes the connection out of both halves.
    pub(super) fn forget(&mut self, name: Name) {
        let Some(flow) = self.receive.remove(name) else { return };
        if let Phase::SynReceived(Some(listener)) = flow.phase
            && let Some(listener) = self.listeners.get_mut(listener)
        {
            listener.half_open -= 1;
        }
        self.send.remove(name.index);
    }
}
