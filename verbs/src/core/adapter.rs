//! What joins each protocol half of a connection to the queues of its queue pair and to its mail.

use softrdma_mpa_ddp_rdmap::{Completion, Outbound, ReceiveRequest, SendRequest, ToInbound, ToOutbound, Upper};
use softrdma_stack::stream::StreamId;

use super::mail::{Connection, Outbox, ToHost, ToReceive};
use crate::queue_pair::QueuePairShared;

/// What Inbound sees.
pub(super) struct InboundUpper<'a> {
    pub(super) connection: Connection,
    pub(super) queue_pair: &'a QueuePairShared,
    pub(super) to_host: &'a mut Outbox<ToHost>,
}

impl Upper for InboundUpper<'_> {
    fn take_receive(&mut self) -> Option<ReceiveRequest> {
        self.queue_pair.take_receive()
    }

    fn complete_receive(&mut self, completion: Completion) {
        self.queue_pair.complete_receive(completion);
    }

    fn complete_send(&mut self, _completion: Completion) {
        unreachable!("Inbound completes no sends: it tells Outbound");
    }

    fn tell_outbound(&mut self, message: ToOutbound) {
        self.to_host.push(ToHost::Outbound(self.connection, message));
    }

    fn tell_inbound(&mut self, _message: ToInbound) {
        unreachable!("Inbound tells itself nothing");
    }
}

/// What Outbound sees.
pub(super) struct OutboundUpper<'a> {
    pub(super) stream: StreamId,
    pub(super) queue_pair: &'a QueuePairShared,
    pub(super) to_receive: &'a mut Outbox<ToReceive>,
}

impl Upper for OutboundUpper<'_> {
    fn take_receive(&mut self) -> Option<ReceiveRequest> {
        unreachable!("Outbound takes no receives");
    }

    fn complete_receive(&mut self, _completion: Completion) {
        unreachable!("Outbound completes no receives");
    }

    fn complete_send(&mut self, completion: Completion) {
        self.queue_pair.complete_send(completion);
    }

    fn tell_outbound(&mut self, _message: ToOutbound) {
        unreachable!("Outbound tells itself nothing");
    }

    fn tell_inbound(&mut self, message: ToInbound) {
        self.to_receive.push(ToReceive::Inbound(self.stream, message));
    }
}

/// What an Inbound that came back sees while it is flushed.
pub(super) struct FlushUpper<'a>(pub(super) &'a QueuePairShared);

impl Upper for FlushUpper<'_> {
    fn take_receive(&mut self) -> Option<ReceiveRequest> {
        None
    }

    fn complete_receive(&mut self, completion: Completion) {
        self.0.complete_receive(completion);
    }

    fn complete_send(&mut self, _completion: Completion) {
        unreachable!("Inbound completes no sends: it tells Outbound");
    }

    // Who is flushed has nothing to say to the other half, which is flushed as well.
    fn tell_outbound(&mut self, _message: ToOutbound) {}

    fn tell_inbound(&mut self, _message: ToInbound) {}
}

/// Moves what the application posted into Outbound. Tells whether there was anything. Of a connection that is ending nothing is
/// moved: what is posted then is flushed with the queue pair, behind what Outbound has.
pub(super) fn take_posted(outbound: &mut Outbound, queue_pair: &QueuePairShared) -> bool {
    let mut any = false;
    // A look is two loads; an empty queue is told for certain only behind a fence.
    while queue_pair.has_send()
        && !outbound.is_ending()
        && let Some(mut request) = queue_pair.take_send()
    {
        any = true;
        take(outbound, queue_pair, &mut request);
    }
    any
}

/// Moves one request into Outbound, which is not ending.
#[inline(always)]
pub(super) fn take(outbound: &mut Outbound, queue_pair: &QueuePairShared, request: &mut SendRequest) {
    let id = request.id;
    // Lengths, depths and tags were checked when it was posted; what is refused now is reported all the same.
    if let Err(error) = outbound.post_from(request) {
        tracing::warn!(queue_pair = queue_pair.number(), id, %error, "request refused after posting");
        queue_pair.fail_send(id);
    }
}
