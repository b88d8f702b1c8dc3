//! What happens to a received packet before smoltcp sees it, and to sockets afterwards.

use smoltcp::socket::{Socket, tcp};
use smoltcp::wire::IpListenEndpoint;

use super::headers::{Handshake, Kind};
use super::slots::{Role, Tuple};
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
            match self.device.current_kind() {
                Kind::Handshake(handshake) => self.handle_handshake(now, handshake),
                Kind::Segment { ends: (remote, local), sequence, acknowledged } => {
                    match self.slots.find(&Tuple::new(local, remote)) {
                        Some(index) => self.handle_segment(now, index, sequence, acknowledged),
                        None => self.show_nobody(now),
                    }
                }
                Kind::Neighbour { told } => {
                    self.show_nobody(now);
                    if self.is_ours(told) || told.is_multicast() {
                        self.sockets.mark_unsent();
                    }
                }
                Kind::Other => self.show_nobody(now),
            }
        }
        // Answers are in the port's queue.
        self.egress_due = true;
        received
    }

    /// Shows the current packet to smoltcp with no socket: all but TCP, and TCP that nobody waits for.
    fn show_nobody(&mut self, now: Instant) {
        self.interface.poll_ingress_single(smoltcp_time(now), &mut self.device, &mut self.nobody);
    }

    /// Shows the current packet to smoltcp with the socket that it belongs to.
    fn show(&mut self, now: Instant, index: usize) {
        let set = self.sockets.set_mut(index);
        self.interface.poll_ingress_single(smoltcp_time(now), &mut self.device, set);
    }

    fn handle_segment(&mut self, now: Instant, index: usize, sequence: u32, acknowledged: Option<u32>) {
        self.show(now, index);
        let Some(next_expected) = self.device.transmit_side().take_answer() else { return };
        if self.is_recent(index, next_expected.wrapping_sub(sequence))
            && acknowledged.is_some_and(|acknowledged| self.is_acknowledgement_ignored(index, acknowledged))
        {
            self.device.reduce_current(next_expected);
            self.show(now, index);
        }
    }

    /// Whether a segment that begins `age` bytes before what is expected next may be a repetition of what the socket has had, or,
    /// with none, what a window of zero keeps out. Only such a segment's acknowledgement is believed though smoltcp ignored it:
    /// one from anywhere else is dropped whole (RFC 9293 §3.10.7.4), or a stranger who guesses no sequence number could
    /// release bytes (RFC 5961 §5).
    fn is_recent(&self, index: usize, age: u32) -> bool {
        age as usize <= self.sockets.get(index).recv_capacity()
    }

    /// Whether a segment acknowledges something that its socket still counts as unacknowledged.
    ///
    /// smoltcp answers a segment that is old by repeating its own acknowledgement, and ignores what the segment
    /// acknowledges. After a timeout it starts its own sequence numbers over, so that then its acknowledgements are old
    /// themselves: when both sides lose packets in the same round trip, neither ever hears the other again. The way out is
    /// BSD's: the old payload is cut off, and the acknowledgement counts (RFC 9293 §3.10.7.4 wants segments trimmed to the
    /// window before they are processed further).
    fn is_acknowledgement_ignored(&self, index: usize, acknowledged: u32) -> bool {
        let slot = self.slots.get(index);
        let Some(send_start) = slot.send_start else { return false };
        let socket = self.sockets.get(index);
        let unacknowledged = socket.send_queue() as u32;
        let oldest = send_start.wrapping_add(slot.sent).wrapping_sub(unacknowledged);
        let news = acknowledged.wrapping_sub(oldest);
        // Our FIN follows the last byte.
        (1..=unacknowledged + u32::from(slot.closing)).contains(&news)
    }

    fn handle_handshake(&mut self, now: Instant, handshake: Handshake) {
        let (local, remote) = (handshake.destination, handshake.source);
        let known = self.slots.find(&Tuple::new(local, remote));
        if let Some(index) = known {
            let slot = self.slots.get_mut(index);
            if handshake.acknowledges && slot.role == Role::Connecting {
                slot.limit_segment_size(handshake.segment_size);
            }
            // RFC 9293 §3.6.1: a SYN may reopen a connection that is in TIME-WAIT. To every other one it belongs as it is.
            let ended = slot.role == Role::Lingering && self.sockets.get(index).state() == tcp::State::TimeWait;
            if handshake.acknowledges || !ended {
                return self.show(now, index);
            }
            self.free_slot(index);
        }
        if handshake.acknowledges {
            return self.show_nobody(now);
        }
        let Some(listener) = self.listeners.find(local).filter(|_| self.is_ours(local.ip())) else {
            return self.show_nobody(now); // smoltcp answers with RST.
        };
        if self.slots.connections() >= self.limits.max_connections {
            self.statistics.refused_connections += 1;
            return self.show_nobody(now);
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
        let segment = self.largest_segment(local.ip());
        let index = self.slots.add(Role::HalfOpen(listener), (local, handshake.source), segment);
        self.sockets.put(index, socket);
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
        let socket = self.sockets.get_mut(index);
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
        self.establish(index);
        let (stream, slot) = (self.slots.name(index), self.slots.get(index));
        streams.handle_event(StreamEvent::Incoming { listener, stream, local: slot.local, remote: slot.remote });
        1 + self.serve_open(now, index, streams)
    }

    fn serve_connecting(&mut self, now: Instant, index: usize, streams: &mut dyn Streams) -> usize {
        let (stream, slot) = (self.slots.name(index), self.slots.get(index));
        let (local, closing) = (slot.local, slot.closing);
        let socket = self.sockets.get_mut(index);
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
                self.establish(index);
                streams.handle_event(StreamEvent::Connected { stream, local });
                if closing {
                    self.close_stream(stream);
                }
                1 + self.serve_open(now, index, streams)
            }
        }
    }
}
