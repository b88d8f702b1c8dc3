//! What received bytes do to a connection: the handshake first, then FPDUs.

use std::sync::Arc;

use softrdma_mpa_ddp_rdmap::{
    HandshakeError, Inbound, Initiator, InitiatorOutcome, Limits, Negotiated, Outbound, RequestReceived, Responder,
    Retention,
};
use softrdma_stack::stream::Abort;

use super::adapter::Halves;
use super::endpoint::{Ending, Phase};
use super::host::Host;
use crate::connection_manager::{CmEventKind, ConnectionOffer};
use crate::queue_pair::QueuePairShared;

/// Most slices that are looked at at once; more are offered again.
const MAX_PARTS: usize = 64;

impl Host {
    pub(super) fn handle_stream_bytes(&mut self, slot: u32, parts: &[&[u8]]) -> Result<usize, Abort> {
        let endpoint = self.endpoint_mut(slot).ok_or(Abort)?;
        match &mut endpoint.phase {
            Phase::Established(_) => self.handle_fpdus(slot, parts),
            Phase::Draining(_) => self.handle_fpdus(slot, parts),
            Phase::Requesting(_) => self.handle_reply(slot, parts),
            Phase::AwaitingRequest(_) => self.handle_request(slot, parts),
            // RFC 5044 §7.1.2: an initiator sends nothing between its request and our reply.
            Phase::Deciding(_) => {
                self.statistics_mut().handshakes_failed += 1;
                self.end(slot, Ending::Abort);
                Err(Abort)
            }
            // Nothing that still arrives matters; it is taken so that the peer's end can be seen.
            Phase::Terminating(_) | Phase::Rejecting | Phase::Closing => Ok(parts.iter().map(|part| part.len()).sum()),
            Phase::Connecting(_) => Err(Abort),
        }
    }

    fn handle_fpdus(&mut self, slot: u32, parts: &[&[u8]]) -> Result<usize, Abort> {
        let endpoint = self.endpoint_mut(slot).ok_or(Abort)?;
        let queue_pair = endpoint.queue_pair.as_deref().ok_or(Abort)?;
        let waited = endpoint.receive_deadline.is_some();
        let halves = endpoint.phase.halves_mut().ok_or(Abort)?;
        let result = halves.handle_bytes(parts, queue_pair);
        let waits = halves.inbound.is_waiting_for_receive();
        let wants_to_send = halves.outbound.has_work();
        let terminated = halves.inbound.peer_terminated().is_some();
        let consumed = match result {
            Ok(consumed) => consumed,
            Err(error) => {
                self.violation(slot, &error);
                return Err(Abort);
            }
        };
        if waits != waited {
            // A message that has begun to move again gets a fresh grace if it stops once more.
            self.waits(slot, waits);
        } else if waits && consumed > 0 {
            self.waits(slot, false);
            self.waits(slot, true);
        }
        if wants_to_send {
            self.mark_ready(slot);
        }
        self.check_queues(slot);
        if terminated {
            self.statistics_mut().terminates_received += 1;
            if let Some(endpoint) = self.endpoint_mut(slot)
                && let Some(queue_pair) = &endpoint.queue_pair
            {
                queue_pair.enter_error();
            }
            // RFC 5040 §4.8: after a Terminate nothing more is sent or received.
            self.end(slot, Ending::Close);
        }
        Ok(consumed)
    }

    fn handle_reply(&mut self, slot: u32, parts: &[&[u8]]) -> Result<usize, Abort> {
        let endpoint = self.endpoint_mut(slot).ok_or(Abort)?;
        let Phase::Requesting(initiator) = &mut endpoint.phase else { return Err(Abort) };
        match initiator.handle_bytes(parts) {
            Ok((consumed, None)) => Ok(consumed),
            Ok((consumed, Some(InitiatorOutcome::Accepted { negotiated, private_data, .. }))) => {
                self.establish(slot, &negotiated, private_data);
                self.handle_rest(slot, parts, consumed)
            }
            Ok((consumed, Some(InitiatorOutcome::Rejected { private_data, .. }))) => {
                self.finish(slot, CmEventKind::Rejected { private_data });
                self.end(slot, Ending::Close);
                Ok(consumed)
            }
            Err(error) => {
                self.refuse_reply(slot, &error);
                Err(Abort)
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
        if let Some(mut halves) = self.halves(slot, negotiated) {
            let deadline = self.now + self.settings.terminate_timeout;
            halves.outbound.terminate(terminate);
            let Some(endpoint) = self.endpoint_mut(slot) else { return };
            endpoint.phase = Phase::Terminating(Box::new(halves));
            endpoint.deadline = Some(deadline);
            self.statistics_mut().terminates_sent += 1;
            self.schedule(slot);
            self.mark_ready(slot);
        }
    }

    fn handle_request(&mut self, slot: u32, parts: &[&[u8]]) -> Result<usize, Abort> {
        let endpoint = self.endpoint_mut(slot).ok_or(Abort)?;
        let Phase::AwaitingRequest(responder) = &mut endpoint.phase else { return Err(Abort) };
        match responder.handle_bytes(parts) {
            Ok((consumed, None)) => Ok(consumed),
            Ok((consumed, Some(request))) => {
                self.offer(slot, request);
                self.handle_rest(slot, parts, consumed)
            }
            Err(error) => {
                tracing::debug!(peer = ?endpoint.cm.remote(), %error, "MPA request refused");
                endpoint.end_reported = true; // The application never heard of it.
                let listener = endpoint.cm.listener_number();
                self.statistics_mut().handshakes_failed += 1;
                self.decided(listener);
                self.end(slot, Ending::Abort);
                Err(Abort)
            }
        }
    }

    /// Hands the bytes behind a handshake message to the next phase.
    fn handle_rest(&mut self, slot: u32, parts: &[&[u8]], consumed: usize) -> Result<usize, Abort> {
        let mut rest: [&[u8]; MAX_PARTS] = [&[]; MAX_PARTS];
        let mut count = 0;
        let mut skip = consumed;
        for part in parts {
            let kept = &part[skip.min(part.len())..];
            skip -= part.len() - kept.len();
            if !kept.is_empty() && count < MAX_PARTS {
                rest[count] = kept;
                count += 1;
            }
        }
        if count == 0 {
            return Ok(consumed);
        }
        Ok(consumed + self.handle_stream_bytes(slot, &rest[..count])?)
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
        let Some(halves) = self.halves(slot, negotiated) else { return };
        let Some(endpoint) = self.endpoint_mut(slot) else { return };
        let Some(queue_pair) = endpoint.queue_pair.clone() else { return };
        let initiated = matches!(endpoint.phase, Phase::Requesting(_));
        endpoint.phase = Phase::Established(Box::new(halves));
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
        self.schedule(slot);
        self.mark_ready(slot);
    }

    /// The protocol halves of a connection whose greetings are exchanged.
    fn halves(&mut self, slot: u32, negotiated: &Negotiated) -> Option<Halves> {
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
        let inbound = Inbound::new(negotiated, &limits);
        Some(Halves::new(inbound, Outbound::new(negotiated, &limits, start, retention)))
    }

    fn take_early_posts(&mut self, slot: u32, queue_pair: &Arc<QueuePairShared>) {
        if let Some(endpoint) = self.endpoint_mut(slot)
            && let Phase::Established(halves) = &mut endpoint.phase
        {
            halves.take_posted(queue_pair);
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
