//! What joins the protocol halves of one connection to the queues of its queue pair and to the engine's stream.

use std::collections::VecDeque;

use softrdma_mpa_ddp_rdmap::{
    Completion, Inbound, Outbound, ProtocolError, ReceiveRequest, ToInbound, ToOutbound, Upper,
};

use crate::queue_pair::QueuePairShared;

/// Messages between the halves that are on their way.
#[derive(Debug, Default)]
pub(super) struct Mail {
    to_outbound: VecDeque<ToOutbound>,
    to_inbound: VecDeque<ToInbound>,
}

/// The queues of one queue pair, as the halves see them.
struct QueuePairUpper<'a> {
    queue_pair: &'a QueuePairShared,
    mail: &'a mut Mail,
}

impl Upper for QueuePairUpper<'_> {
    fn take_receive(&mut self) -> Option<ReceiveRequest> {
        self.queue_pair.take_receive()
    }

    fn complete_receive(&mut self, completion: Completion) {
        self.queue_pair.complete_receive(completion);
    }

    fn complete_send(&mut self, completion: Completion) {
        self.queue_pair.complete_send(completion);
    }

    fn tell_outbound(&mut self, message: ToOutbound) {
        self.mail.to_outbound.push_back(message);
    }

    fn tell_inbound(&mut self, message: ToInbound) {
        self.mail.to_inbound.push_back(message);
    }
}

/// Both halves of an established connection, and the mail between them.
#[derive(Debug)]
pub(super) struct Halves {
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
    mail: Mail,
}

impl Halves {
    pub(super) fn new(inbound: Inbound, outbound: Outbound) -> Self {
        Self { inbound, outbound, mail: Mail::default() }
    }

    /// Feeds Inbound and delivers what it has to tell Outbound.
    pub(super) fn handle_bytes(
        &mut self,
        parts: &[&[u8]],
        queue_pair: &QueuePairShared,
    ) -> Result<usize, ProtocolError> {
        let mut upper = QueuePairUpper { queue_pair, mail: &mut self.mail };
        let result = self.inbound.handle_bytes(parts, queue_pair.memory(), &mut upper);
        self.deliver(queue_pair);
        result
    }

    /// The next record to send. What Outbound tells Inbound about it is delivered before its bytes can leave.
    pub(super) fn next(&mut self, room: usize, queue_pair: &QueuePairShared) -> Option<softrdma_mpa_ddp_rdmap::Record> {
        let mut upper = QueuePairUpper { queue_pair, mail: &mut self.mail };
        let record = self.outbound.next(room, queue_pair.memory(), &mut upper);
        self.deliver(queue_pair);
        record
    }

    pub(super) fn handle_acknowledged(&mut self, through: u64, queue_pair: &QueuePairShared) {
        let mut upper = QueuePairUpper { queue_pair, mail: &mut self.mail };
        self.outbound.handle_acknowledged(through, queue_pair.memory(), &mut upper);
        self.deliver(queue_pair);
    }

    /// Moves what the application posted into Outbound. Tells whether there was anything.
    pub(super) fn take_posted(&mut self, queue_pair: &QueuePairShared) -> bool {
        let mut any = false;
        while let Some(request) = queue_pair.take_send() {
            any = true;
            let id = request.id;
            // Lengths, depths and tags were checked when it was posted; what is refused now is reported all the same.
            if let Err(error) = self.outbound.post(request) {
                tracing::warn!(queue_pair = queue_pair.number(), id, %error, "request refused after posting");
                queue_pair.fail_send(id);
            }
        }
        any
    }

    /// The connection is over: the receive that is half filled and every request in Outbound complete as flushed.
    pub(super) fn flush(&mut self, queue_pair: &QueuePairShared) {
        let mut upper = QueuePairUpper { queue_pair, mail: &mut self.mail };
        self.inbound.flush(queue_pair.memory(), &mut upper);
        self.outbound.flush(queue_pair.memory(), &mut upper);
        upper.mail.to_inbound.clear();
        upper.mail.to_outbound.clear();
    }

    fn deliver(&mut self, queue_pair: &QueuePairShared) {
        loop {
            if let Some(message) = self.mail.to_outbound.pop_front() {
                let mut upper = QueuePairUpper { queue_pair, mail: &mut self.mail };
                self.outbound.handle(message, queue_pair.memory(), &mut upper);
            } else if let Some(message) = self.mail.to_inbound.pop_front() {
                self.inbound.handle(message);
            } else {
                return;
            }
        }
    }
}
