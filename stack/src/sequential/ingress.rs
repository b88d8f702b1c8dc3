//! What happens to a received packet before smoltcp sees it, and to sockets afterwards.

use smoltcp::socket::{Socket, tcp};
use smoltcp::wire::IpListenEndpoint;

use super::headers::Handshake;
use super::slots::Role;
use super::{SequentialEngine, smoltcp_time};
use crate::port::Port;
use crate::stream::{ListenerId, ResetReason, StreamEvent, Streams};
use crate::time::Instant;

impl<P: Port> SequentialEngine<P> {
    /// Receives and handles one burst; how many packets.
    pub(super) fn ingress(&mut self, now: Instant) -> usize {
        self.device.transmit_side().set_now(now);
        let received = self.device.receive_burst();
        if received == 0 {
            return 0;
        }
        while self.device.load_next() {
            match self.device.current_handshake() {
                Some(handshake) => self.handle_handshake(now, handshake),
                None => self.handle_packet(now),
            }
        }
        // There may be answers in the port's queue and acknowledgements in the sockets.
        self.egress_due = true;
        received
    }

    fn handle_packet(&mut self, now: Instant) {
        self.show_packet(now);
        if let Some(next_expected) = self.device.transmit_side().take_answer()
            && self.is_acknowledgement_ignored()
        {
            self.device.reduce_current(next_expected);
            self.show_packet(now);
        }
    }

    fn show_packet(&mut self, now: Instant) {
        self.interface.poll_ingress_single(smoltcp_time(now), &mut self.device, &mut self.sockets);
    }

    /// Whether the current packet acknowledges something that its socket still counts as unacknowledged.
    ///
    /// smoltcp answers a segment that is old by repeating its own acknowledgement, and ignores what the segment
    /// acknowledges. After a timeout it starts its own sequence numbers over, so that then its acknowledgements are old
    /// themselves: when both sides lose packets in the same round trip, neither ever hears the other again. The way out is
    /// BSD's: the old payload is cut off, and the acknowledgement counts (RFC 9293 §3.10.7.4 wants segments trimmed to the
    /// window before they are processed further).
    fn is_acknowledgement_ignored(&self) -> bool {
        let Some((remote, local, acknowledged)) = self.device.current_acknowledgement() else { return false };
        let Some(index) = self.slots.find(local, remote) else { return false };
        let slot = self.slots.get(index);
        let Some(send_start) = slot.send_start else { return false };
        let socket = self.sockets.get::<tcp::Socket<'_>>(slot.handle);
        let unacknowledged = socket.send_queue() as u32;
        let oldest = send_start.wrapping_add(slot.sent).wrapping_sub(unacknowledged);
        let news = acknowledged.wrapping_sub(oldest);
        // Our FIN follows the last byte.
        (1..=unacknowledged + u32::from(slot.closing)).contains(&news)
    }

    fn handle_handshake(&mut self, now: Instant, handshake: Handshake) {
        let (local, remote) = (handshake.destination, handshake.source);
        let known = self.slots.find(local, remote);
        if handshake.acknowledges {
            if let Some(index) = known.filter(|&index| self.slots.get(index).role == Role::Connecting) {
                self.slots.get_mut(index).limit_segment_size(handshake.segment_size);
            }
            return self.handle_packet(now);
        }
        if let Some(index) = known {
            // RFC 9293 §3.6.1: a SYN may reopen a connection that is in TIME-WAIT. To every other one it belongs as it is.
            let slot = self.slots.get(index);
            let state = self.sockets.get::<tcp::Socket<'_>>(slot.handle).state();
            if slot.role != Role::Lingering || state != tcp::State::TimeWait {
                return self.handle_packet(now);
            }
            self.free_slot(index);
        }
        let Some(listener) = self.listeners.find(local).filter(|_| self.is_ours(local.ip())) else {
            return self.handle_packet(now); // No socket takes it: smoltcp answers with RST.
        };
        if self.slots.connections() >= self.limits.max_connections {
            self.statistics.refused_connections += 1;
            return self.handle_packet(now);
        }
        let full = self.listeners.get(listener).is_none_or(|listener| listener.half_open >= listener.backlog);
        if full {
            // Not a word: the peer asks again, and by then there may be room.
            self.statistics.refused_connections += 1;
            return;
        }
        self.accept_handshake(now, listener, handshake);
    }

    /// Shows a first SYN to a socket that listens for it, and keeps the socket if the SYN was good.
    fn accept_handshake(&mut self, now: Instant, listener: ListenerId, handshake: Handshake) {
        let local = handshake.destination;
        let handle = match self.spare.take() {
            Some(handle) => handle,
            None => self.listening.add(self.new_socket(self.limits.half_open_timeout)),
        };
        let socket = self.listening.get_mut::<tcp::Socket<'_>>(handle);
        socket.close();
        let endpoint = IpListenEndpoint { addr: Some(local.ip().into()), port: local.port() };
        let listens = socket.listen(endpoint);
        debug_assert_eq!(listens, Ok(()), "a closed socket listens at any port but zero");
        self.interface.poll_ingress_single(smoltcp_time(now), &mut self.device, &mut self.listening);
        if self.listening.get::<tcp::Socket<'_>>(handle).state() != tcp::State::SynReceived {
            self.spare = Some(handle);
            return;
        }
        let Socket::Tcp(socket) = self.listening.remove(handle);
        let handle = self.sockets.add(socket);
        let segment = self.largest_segment(local.ip());
        let index = self.slots.add(Role::HalfOpen(listener), handle, (local, handshake.source), segment);
        self.slots.get_mut(index).limit_segment_size(handshake.segment_size);
        self.ready.insert(index);
        if let Some(listener) = self.listeners.get_mut(listener) {
            listener.half_open += 1;
        }
    }

    /// Looks at every socket that has something to say; how many events there were.
    pub(super) fn serve_ready(&mut self, now: Instant, streams: &mut dyn Streams) -> usize {
        if self.ready.is_empty() {
            return 0;
        }
        let mut serving = std::mem::take(&mut self.serving);
        serving.clear();
        self.ready.drain(&mut serving);
        let mut events = 0;
        for &index in &serving {
            let index = index as usize;
            events += match self.slots.get(index).role {
                Role::Free => 0,
                Role::HalfOpen(listener) => self.serve_half_open(now, index, listener, streams),
                Role::Connecting => self.serve_connecting(now, index, streams),
                Role::Open => self.serve_open(now, index, streams),
                Role::Lingering => {
                    self.serve_lingering(index);
                    0
                }
            };
        }
        self.serving = serving;
        events
    }

    fn serve_half_open(
        &mut self,
        now: Instant,
        index: usize,
        listener: ListenerId,
        streams: &mut dyn Streams,
    ) -> usize {
        let handle = self.slots.get(index).handle;
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        match socket.state() {
            tcp::State::SynReceived => {
                socket.register_recv_waker(self.ready.waker(index));
                return 0;
            }
            // A RST took it back to LISTEN, or the time is over.
            tcp::State::Listen | tcp::State::Closed => {
                self.free_slot(index);
                return 0;
            }
            _ => {}
        }
        let Some(entry) = self.listeners.get_mut(listener) else {
            // The listener was closed meanwhile.
            self.reset(now, index);
            return 0;
        };
        entry.half_open -= 1;
        self.slots.set_role(index, Role::Open);
        self.establish(handle);
        let (stream, slot) = (self.slots.name(index), self.slots.get(index));
        streams.handle_event(StreamEvent::Incoming { listener, stream, local: slot.local, remote: slot.remote });
        1 + self.serve_open(now, index, streams)
    }

    fn serve_connecting(&mut self, now: Instant, index: usize, streams: &mut dyn Streams) -> usize {
        let (stream, slot) = (self.slots.name(index), self.slots.get(index));
        let (handle, local, closing) = (slot.handle, slot.local, slot.closing);
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        match socket.state() {
            tcp::State::SynSent | tcp::State::SynReceived => {
                socket.register_recv_waker(self.ready.waker(index));
                0
            }
            tcp::State::Closed => {
                let reason = match (slot.expired, slot.send_start.is_some()) {
                    (false, _) => ResetReason::Refused,
                    (true, true) => ResetReason::TimedOut,
                    (true, false) => ResetReason::Unreachable,
                };
                self.retire(now, index);
                streams.handle_event(StreamEvent::ConnectFailed { stream, reason });
                1
            }
            _ => {
                self.slots.set_role(index, Role::Open);
                self.establish(handle);
                streams.handle_event(StreamEvent::Connected { stream, local });
                if closing {
                    self.close_stream(stream);
                }
                1 + self.serve_open(now, index, streams)
            }
        }
    }
}
