//! What a connection does with what the receive side has to say: the handshake first, then what Inbound found.

use std::sync::Arc;

use softrdma_mpa_ddp_rdmap::{
    HandshakeError, Inbound, Initiator, InitiatorOutcome, Limits, Negotiated, Outbound, ProtocolError, RequestReceived,
    Responder, Retention, ToOutbound, Violation,
};
use softrdma_stack::stream::StreamId;

use super::adapter::{OutboundUpper, take_posted};
use super::endpoint::{Ending, Phase, Receiving};
use super::host::Host;
use super::mail::{Connection, ToHost, ToReceive};
use crate::connection_manager::{CmEventKind, ConnectionOffer};
use crate::queue_pair::QueuePairShared;

/// What the host makes of a greeting that it can live with.
enum Considered {
    /// More of it has to come.
    Waits,
    /// The receive side was told.
    Done,
}

impl Host {
    /// Carries out what the receive side left.
    pub(super) fn handle_mail(&mut self, message: ToHost) {
        match message {
            ToHost::Outbound(connection, message) => self.handle_inbound(connection, message),
            ToHost::CheckQueues(connection) => {
                if let Some(slot) = self.slot_of_connection(connection) {
                    self.check_queues(slot);
                }
            }
            ToHost::Waiting(connection, waits) => {
                if let Some(slot) = self.slot_of_connection(connection) {
                    self.handle_waiting(slot, waits);
                }
            }
            ToHost::Event(event) => self.handle_event(event),
            ToHost::Greeting { stream, bytes } => self.handle_greeting(stream, &bytes),
            ToHost::Violation(connection, error) => self.handle_violation(connection, &error),
            ToHost::PeerTerminated(connection) => self.handle_peer_terminated(connection),
            ToHost::Stopped(connection, inbound) => self.handle_stopped(connection, inbound),
        }
    }

    fn handle_inbound(&mut self, connection: Connection, message: ToOutbound) {
        let Some(slot) = self.slot_of_connection(connection) else { return };
        let Some(endpoint) = self.endpoints[slot as usize].as_mut() else { return };
        let (Some(queue_pair), Some(outbound)) = (endpoint.queue_pair.as_deref(), endpoint.phase.outbound_mut()) else {
            return;
        };
        let to_receive = &mut self.to_receive;
        let mut upper = OutboundUpper { stream: connection.stream, queue_pair, to_receive };
        outbound.handle(message, queue_pair.memory(), &mut upper);
        let (has_failed, wants_to_send, has_news) = (outbound.has_failed(), outbound.has_work(), queue_pair.has_news());
        if has_failed {
            self.handle_own_failure(slot);
        }
        // Draining, the end is due once nothing is outstanding, and what the peer answered may have been the last.
        let drains = self.endpoints[slot as usize].as_ref().is_some_and(|it| matches!(it.phase, Phase::Draining(_)));
        if wants_to_send || drains {
            self.mark_ready(slot);
        }
        if has_news {
            self.check_queues(slot);
        }
    }

    fn handle_violation(&mut self, connection: Connection, error: &ProtocolError) {
        let Some(slot) = self.slot_of_connection(connection) else { return };
        let Some(endpoint) = self.endpoint_mut(slot) else { return };
        match (&endpoint.phase, &error.violation) {
            // Both sides end; what the peer left unfinished nobody misses.
            (Phase::Draining(_), Violation::StreamEnded) => self.end(slot, Ending::Close),
            (Phase::Established(_) | Phase::Draining(_), _) => self.violation(slot, error),
            _ => {}
        }
        self.check_queues(slot);
    }

    fn handle_peer_terminated(&mut self, connection: Connection) {
        let Some(slot) = self.slot_of_connection(connection) else { return };
        self.statistics_mut().terminates_received += 1;
        if let Some(endpoint) = self.endpoint_mut(slot)
            && let Some(queue_pair) = &endpoint.queue_pair
        {
            queue_pair.enter_error();
        }
        // RFC 5040 §4.8: after a Terminate nothing more is sent or received.
        self.end(slot, Ending::Close);
    }

    /// Bytes from a stream that is not established.
    fn handle_greeting(&mut self, stream: StreamId, bytes: &[u8]) {
        let Some(slot) = self.slot_of(stream) else {
            return self.to_receive.push(ToReceive::Remove(stream));
        };
        let Some(endpoint) = self.endpoint_mut(slot) else { return };
        let considered = match &mut endpoint.phase {
            Phase::Requesting(_) => self.handle_reply(slot, stream, bytes),
            Phase::AwaitingRequest(_) => self.handle_request(slot, stream, bytes),
            // RFC 5044 §7.1.2: an initiator sends nothing between its request and our reply.
            Phase::Deciding(_) => {
                self.statistics_mut().handshakes_failed += 1;
                self.end(slot, Ending::Abort);
                None
            }
            // These were sent before the receive side knew; its Inbound gets them.
            Phase::Established(_) | Phase::Draining(_) => return,
            // Nothing that still arrives matters.
            Phase::Terminating(_) | Phase::Rejecting | Phase::Closing | Phase::Connecting(_) => None,
        };
        match considered {
            Some(Considered::Waits) => self.to_receive.push(ToReceive::Considered { stream, consumed: 0 }),
            Some(Considered::Done) => {}
            None => self.to_receive.push(ToReceive::Discard(stream)),
        }
    }

    /// `None`: the connection ends.
    fn handle_reply(&mut self, slot: u32, stream: StreamId, bytes: &[u8]) -> Option<Considered> {
        let Phase::Requesting(initiator) = &mut self.endpoint_mut(slot)?.phase else { return None };
        match initiator.handle_bytes(&[bytes]) {
            Ok((0, None)) => Some(Considered::Waits),
            Ok((consumed, None)) => {
                self.to_receive.push(ToReceive::Considered { stream, consumed });
                Some(Considered::Done)
            }
            Ok((consumed, Some(InitiatorOutcome::Accepted { negotiated, private_data, .. }))) => {
                self.to_receive.push(ToReceive::Considered { stream, consumed });
                self.establish(slot, &negotiated, private_data);
                Some(Considered::Done)
            }
            Ok((_, Some(InitiatorOutcome::Rejected { private_data, .. }))) => {
                self.finish(slot, CmEventKind::Rejected { private_data });
                self.end(slot, Ending::Close);
                None
            }
            Err(error) => {
                self.refuse_reply(slot, &error);
                None
            }
        }
    }

    /// A reply that cannot be lived with: told to the peer where RFC 6581 §9 has a TERMINATE for it, else by a reset.
    fn refuse_reply(&mut self, slot: u32, error: &HandshakeError) {
        self.statistics_mut().handshakes_failed += 1;
        self.finish(slot, CmEventKind::ConnectError { reason: error.to_string() });
        let (Some(terminate), Some(negotiated)) = (error.terminate(), error.negotiated()) else {
            return self.end(slot, Ending::Abort);
        };
        if let Some((_, mut outbound)) = self.halves(slot, negotiated) {
            let deadline = self.now + self.settings.terminate_timeout;
            outbound.terminate(terminate);
            let Some(endpoint) = self.endpoint_mut(slot) else { return };
            endpoint.phase = Phase::Terminating(Box::new(outbound));
            endpoint.deadline = Some(deadline);
            self.statistics_mut().terminates_sent += 1;
            self.schedule(slot);
            self.mark_ready(slot);
        }
    }

    /// `None`: the connection ends.
    fn handle_request(&mut self, slot: u32, stream: StreamId, bytes: &[u8]) -> Option<Considered> {
        let endpoint = self.endpoint_mut(slot)?;
        let Phase::AwaitingRequest(responder) = &mut endpoint.phase else { return None };
        match responder.handle_bytes(&[bytes]) {
            Ok((0, None)) => Some(Considered::Waits),
            Ok((consumed, request)) => {
                self.to_receive.push(ToReceive::Considered { stream, consumed });
                if let Some(request) = request {
                    self.offer(slot, request);
                }
                Some(Considered::Done)
            }
            Err(error) => {
                tracing::debug!(peer = ?endpoint.cm.remote(), %error, "MPA request refused");
                endpoint.end_reported = true; // The application never heard of it.
                let listener = endpoint.cm.listener_number();
                self.statistics_mut().handshakes_failed += 1;
                self.decided(listener);
                self.end(slot, Ending::Abort);
                None
            }
        }
    }

    /// Tells the application of a peer that wants to connect.
    fn offer(&mut self, slot: u32, request: RequestReceived) {
        let deadline = self.now + self.settings.accept_timeout;
        self.left_half_open();
        let Some(endpoint) = self.endpoint_mut(slot) else { return };
        endpoint.phase = match std::mem::replace(&mut endpoint.phase, Phase::Closing) {
            Phase::AwaitingRequest(responder) => Phase::Deciding(responder),
            other => other,
        };
        endpoint.deadline = Some(deadline);
        // Revision 1 tells no depths.
        let offer = ConnectionOffer { ird: request.ird.unwrap_or(0), ord: request.ord.unwrap_or(0) };
        endpoint.cm.emit(CmEventKind::ConnectRequest { offer, private_data: request.private_data });
        self.schedule(slot);
    }

    /// Both sides agreed: data may flow.
    pub(super) fn establish(&mut self, slot: u32, negotiated: &Negotiated, private_data: Vec<u8>) {
        let pause = self.settings.first_fpdu_delay;
        let now = self.now;
        let Some((inbound, outbound)) = self.halves(slot, negotiated) else { return };
        let Some(endpoint) = self.endpoint_mut(slot) else { return };
        let Some(queue_pair) = endpoint.queue_pair.clone() else { return };
        let initiated = matches!(endpoint.phase, Phase::Requesting(_));
        endpoint.phase = Phase::Established(Box::new(outbound));
        endpoint.receiving = Receiving::Installed;
        let connection = Connection { stream: endpoint.stream, slot };
        endpoint.deadline = None;
        if initiated && !pause.is_zero() {
            endpoint.silent_until = Some(now + pause);
        }
        queue_pair.set_ord(negotiated.ord);
        queue_pair.enter_ready_to_send();
        let offer = ConnectionOffer { ird: negotiated.ird, ord: negotiated.ord };
        endpoint.cm.emit(CmEventKind::Established { offer, private_data });
        self.statistics_mut().connections_established += 1;
        self.take_early_posts(slot, &queue_pair);
        let install = ToReceive::Install { connection, inbound: Box::new(inbound), queue_pair };
        self.to_receive.push(install);
        self.watch_for_stalls();
        self.schedule(slot);
        self.mark_ready(slot);
    }

    /// The protocol halves of a connection whose greetings are exchanged.
    fn halves(&mut self, slot: u32, negotiated: &Negotiated) -> Option<(Inbound, Outbound)> {
        let max_message_length = self.settings.max_message_length;
        let retention = if self.settings.engine_copies { Retention::None } else { Retention::UntilAcknowledged };
        let endpoint = self.endpoint_mut(slot)?;
        let limits = Limits {
            receive_read_requests: negotiated.ird,
            send_read_requests: negotiated.ord,
            send_queue_depth: endpoint.queue_pair.as_ref()?.max_send(),
            max_message_length,
        };
        let start = endpoint.greeting.len() as u64;
        Some((Inbound::new(negotiated, &limits), Outbound::new(negotiated, &limits, start, retention)))
    }

    fn take_early_posts(&mut self, slot: u32, queue_pair: &Arc<QueuePairShared>) {
        if let Some(endpoint) = self.endpoint_mut(slot)
            && let Phase::Established(outbound) = &mut endpoint.phase
        {
            take_posted(outbound, queue_pair);
        }
    }

    /// The responder of an endpoint that the application decides about.
    pub(super) fn deciding(&mut self, slot: u32) -> Option<&mut Responder> {
        match &mut self.endpoint_mut(slot)?.phase {
            Phase::Deciding(responder) => Some(responder),
            _ => None,
        }
    }

    /// An initiator for the parameters of a connect.
    pub(super) fn initiator(
        &self,
        ird: u16,
        ord: u16,
        private_data: &[u8],
    ) -> Result<Initiator, softrdma_mpa_ddp_rdmap::HandshakeMisuse> {
        let config = softrdma_mpa_ddp_rdmap::HandshakeConfig { ird, ord, ..self.settings.handshake };
        Initiator::new(&config, private_data)
    }
}
