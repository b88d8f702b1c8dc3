//! One end of a connection: from the first SYN to the last event.

use std::sync::Arc;

use crossbeam_channel::Sender;
use softrdma_mpa_ddp_rdmap::{Inbound, Initiator, Outbound, Responder};
use softrdma_stack::stream::{Record, Source, StreamId};
use softrdma_stack::time::Instant;

use super::adapter::OutboundUpper;
use super::mail::{Outbox, ToReceive};
use crate::connection_manager::{CmEventKind, CmIdShared};
use crate::queue_pair::QueuePairShared;

/// Where a connection stands.
pub(super) enum Phase {
    /// TCP is being established by us.
    Connecting(Box<Initiator>),
    /// Our MPA request is under way; the reply is awaited.
    Requesting(Box<Initiator>),
    /// A peer connected; its MPA request is awaited.
    AwaitingRequest(Box<Responder>),
    /// The application decides about the peer's request.
    Deciding(Box<Responder>),
    /// Data flows.
    Established(Box<Outbound>),
    /// We want to close: what was handed to Outbound still leaves, nothing new is taken.
    Draining(Box<Outbound>),
    /// A TERMINATE is to leave, or has come: nothing is received any more.
    Terminating(Box<Outbound>),
    /// Our reply says no; the stream closes behind it.
    Rejecting,
    /// Our direction is closed; the peer's end is awaited.
    Closing,
}

impl Phase {
    pub(super) fn outbound_mut(&mut self) -> Option<&mut Outbound> {
        match self {
            Self::Established(outbound) | Self::Draining(outbound) | Self::Terminating(outbound) => Some(outbound),
            _ => None,
        }
    }
}

/// Where the Inbound of a connection is.
pub(super) enum Receiving {
    /// There is none yet.
    Never,
    /// With the receive side.
    Installed,
    /// With the receive side; it was asked for.
    Stopping,
    /// Here again.
    Stopped(Box<Inbound>),
    /// It was flushed.
    Over,
}

/// How a connection is to be ended, by whoever holds the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// FIN behind everything sent; RST if the peer has not acknowledged it all.
    Close,
    /// RST.
    Abort,
}

/// One connection of a [`super::Host`].
pub(super) struct Endpoint {
    pub(super) phase: Phase,
    pub(super) stream: StreamId,
    pub(super) cm: Arc<CmIdShared>,
    pub(super) queue_pair: Option<Arc<QueuePairShared>>,
    pub(super) receiving: Receiving,
    /// The endpoint goes, with this event, once its Inbound is here.
    pub(super) removal: Option<CmEventKind>,
    /// Who waits for it to be gone.
    pub(super) replies: Vec<Sender<()>>,
    /// The MPA request or reply: the first bytes of our direction.
    pub(super) greeting: Vec<u8>,
    pub(super) greeting_taken: bool,
    pub(super) greeting_acknowledged: bool,
    /// In the host's ready list.
    pub(super) ready: bool,
    /// The engine has no room; it says when it has.
    pub(super) blocked: bool,
    /// No FPDU leaves before (a peer's race, see `first_fpdu_delay_ms`).
    pub(super) silent_until: Option<Instant>,
    /// When the phase has lasted too long.
    pub(super) deadline: Option<Instant>,
    /// When a message has waited too long for a receive.
    pub(super) receive_deadline: Option<Instant>,
    /// The earliest entry in the host's timers.
    pub(super) timer: Option<Instant>,
    pub(super) ending: Option<Ending>,
    /// Disconnected (or the like) was reported.
    pub(super) end_reported: bool,
}

impl Endpoint {
    pub(super) fn new(phase: Phase, stream: StreamId, cm: Arc<CmIdShared>) -> Self {
        Self {
            phase,
            stream,
            cm,
            queue_pair: None,
            receiving: Receiving::Never,
            removal: None,
            replies: Vec::new(),
            greeting: Vec::new(),
            greeting_taken: false,
            greeting_acknowledged: false,
            ready: false,
            blocked: false,
            silent_until: None,
            deadline: None,
            receive_deadline: None,
            timer: None,
            ending: None,
            end_reported: false,
        }
    }

    /// Whether the engine would be given anything: asked in vain it costs as much as a segment.
    #[inline]
    pub(super) fn wants_to_send(&self) -> bool {
        match &self.phase {
            Phase::Established(outbound) => !(self.greeting_taken || self.greeting_acknowledged) || outbound.has_work(),
            _ => true,
        }
    }

    /// The earliest of its deadlines.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        [self.deadline, self.receive_deadline, self.silent_until].into_iter().flatten().min()
    }
}

/// The stream of an endpoint as the engine sees it: the greeting, then FPDUs.
pub(super) struct EndpointSource<'a> {
    pub(super) endpoint: &'a mut Endpoint,
    pub(super) to_receive: &'a mut Outbox<ToReceive>,
}

impl Source for EndpointSource<'_> {
    fn next(&mut self, room: usize) -> Option<Record> {
        let endpoint = &mut *self.endpoint;
        if !endpoint.greeting_taken && !endpoint.greeting.is_empty() {
            let length = endpoint.greeting.len();
            if length > room {
                return None;
            }
            endpoint.greeting_taken = true;
            return Some(Record { start: 0, length: length as u32 });
        }
        if endpoint.silent_until.is_some() {
            return None;
        }
        let queue_pair = endpoint.queue_pair.as_deref()?;
        // What Outbound tells Inbound about the record is in the mail before the record can leave.
        let mut upper = OutboundUpper { stream: endpoint.stream, queue_pair, to_receive: self.to_receive };
        let record = endpoint.phase.outbound_mut()?.next(room, queue_pair.memory(), &mut upper)?;
        Some(Record { start: record.start, length: record.length })
    }

    #[inline]
    fn has_more(&self) -> bool {
        self.endpoint.wants_to_send()
    }

    fn write(&mut self, start: u64, out: &mut [u8]) {
        let greeting = &self.endpoint.greeting;
        let mut out = out;
        let mut start = start;
        if let Some(rest) = usize::try_from(start).ok().and_then(|start| greeting.get(start..)) {
            let length = rest.len().min(out.len());
            let (head, tail) = out.split_at_mut(length);
            head.copy_from_slice(&rest[..length]);
            out = tail;
            start += length as u64;
        }
        if out.is_empty() {
            return;
        }
        if let (Some(queue_pair), Some(outbound)) =
            (self.endpoint.queue_pair.as_deref(), self.endpoint.phase.outbound_mut())
        {
            return outbound.write(start, out, queue_pair.memory());
        }
        debug_assert!(false, "bytes from {start} on are asked for after their source has gone");
        // A packet buffer holds what was in it before, and that may be another's.
        out.fill(0);
    }

    fn handle_acknowledged(&mut self, through: u64) {
        let endpoint = &mut *self.endpoint;
        if through >= endpoint.greeting.len() as u64 {
            endpoint.greeting_acknowledged = true;
        }
        if let (Some(queue_pair), Some(outbound)) = (endpoint.queue_pair.as_deref(), endpoint.phase.outbound_mut()) {
            let mut upper = OutboundUpper { stream: endpoint.stream, queue_pair, to_receive: self.to_receive };
            outbound.handle_acknowledged(through, queue_pair.memory(), &mut upper);
        }
    }
}
