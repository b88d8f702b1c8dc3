//! The other end of a stream: the protocol, spoken by the test.

use softrdma_mpa_ddp_rdmap::{
    Access, AccessError, AtomicOperation, Completion, HandshakeConfig, Inbound, Initiator, InitiatorOutcome, Limits,
    Memory, Negotiated, Outbound, ReceiveRequest, Responder, Retention, SegmentList, SendRequest, Stag, TaggedOffset,
    Terminate, ToInbound, ToOutbound, Upper,
};

use super::Wire;

const LIMITS: Limits =
    Limits { receive_read_requests: 16, send_read_requests: 16, send_queue_depth: 64, max_message_length: 1 << 30 };

/// A peer that sends what it is told to, and understands what it gets.
pub(crate) struct Peer {
    wire: Wire,
    stream: usize,
    /// Bytes of the stream that were looked at.
    seen: usize,
    initiator: Option<Initiator>,
    halves: Option<(Inbound, Outbound)>,
    upper: Mail,
}

#[derive(Default)]
struct Mail {
    to_inbound: Vec<ToInbound>,
    to_outbound: Vec<ToOutbound>,
    received: u64,
}

impl Peer {
    /// Answers the request that `stream` has sent.
    pub(crate) fn accept(wire: &Wire, stream: usize) -> Self {
        let mut responder = Responder::new(&HandshakeConfig::default());
        let (seen, request) = responder.handle_bytes(&[&wire.sent(stream)]).unwrap();
        assert!(request.is_some(), "a whole request");
        let (reply, negotiated) = responder.accept(16, 16, &[]).unwrap();
        wire.arrive(stream, &reply);
        let mut peer = Self::new(wire, stream);
        peer.seen = seen;
        peer.establish(&negotiated, reply.len());
        peer
    }

    /// Connects to the listener and sends a request.
    pub(crate) fn request(wire: &Wire, private_data: &[u8]) -> Self {
        let mut peer = Self::new(wire, wire.incoming());
        let config = HandshakeConfig { ird: 16, ord: 16, ..HandshakeConfig::default() };
        let initiator = peer.initiator.insert(Initiator::new(&config, private_data).unwrap());
        wire.arrive(peer.stream, initiator.request());
        peer
    }

    /// Reads the reply to [`Self::request`].
    pub(crate) fn finish_request(&mut self) {
        let mut initiator = self.initiator.take().expect("a request was sent");
        let (seen, outcome) = initiator.handle_bytes(&[&self.wire.sent(self.stream)]).unwrap();
        let Some(InitiatorOutcome::Accepted { negotiated, .. }) = outcome else { panic!("{outcome:?}") };
        self.seen = seen;
        self.establish(&negotiated, initiator.request().len());
    }

    fn new(wire: &Wire, stream: usize) -> Self {
        Self { wire: wire.clone(), stream, seen: 0, initiator: None, halves: None, upper: Mail::default() }
    }

    fn establish(&mut self, negotiated: &Negotiated, greeting: usize) {
        let outbound = Outbound::new(negotiated, &LIMITS, greeting as u64, Retention::None);
        self.halves = Some((Inbound::new(negotiated, &LIMITS), outbound));
    }

    pub(crate) fn stream(&self) -> usize {
        self.stream
    }

    /// Takes what was sent to it. Gives how many messages it received.
    pub(crate) fn look(&mut self) -> u64 {
        let (inbound, outbound) = self.halves.as_mut().expect("an established connection");
        for message in self.upper.to_inbound.drain(..) {
            inbound.handle(message);
        }
        let sent = self.wire.sent(self.stream);
        self.seen += inbound.handle_bytes(&[&sent[self.seen..]], &Nothing, &mut self.upper).unwrap();
        for message in std::mem::take(&mut self.upper.to_outbound) {
            outbound.handle(message, &Nothing, &mut self.upper);
        }
        self.upper.received
    }

    /// The TERMINATE that it got.
    pub(crate) fn terminated(&mut self) -> Option<Terminate> {
        self.look();
        self.halves.as_ref()?.0.peer_terminated().map(|received| received.terminate)
    }

    /// What it sends now, whole.
    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        let (_, outbound) = self.halves.as_mut().expect("an established connection");
        outbound.set_segment_size(1440);
        let mut bytes = Vec::new();
        while let Some(record) = outbound.next(1440, &Nothing, &mut self.upper) {
            let start = bytes.len();
            bytes.resize(start + record.length as usize, 0);
            outbound.write(record.start, &mut bytes[start..], &Nothing);
            outbound.handle_acknowledged(record.start + u64::from(record.length), &Nothing, &mut self.upper);
        }
        bytes
    }

    pub(crate) fn post(&mut self, request: SendRequest) {
        self.halves.as_mut().expect("an established connection").1.post(request).unwrap();
    }

    /// Posts and sends.
    pub(crate) fn send(&mut self, request: SendRequest) {
        self.post(request);
        let bytes = self.bytes();
        self.wire.arrive(self.stream, &bytes);
    }

    /// Sends a TERMINATE.
    pub(crate) fn terminate(&mut self) {
        self.look();
        self.halves.as_mut().expect("an established connection").1.terminate(Terminate::LOCAL_CATASTROPHIC);
        let bytes = self.bytes();
        self.wire.arrive(self.stream, &bytes);
    }
}

impl Upper for Mail {
    fn take_receive(&mut self) -> Option<ReceiveRequest> {
        let segment = softrdma_mpa_ddp_rdmap::Segment { length: 1 << 20, ..Default::default() };
        Some(ReceiveRequest { id: 0, segments: SegmentList::new(&[segment])? })
    }

    fn complete_receive(&mut self, _completion: Completion) {
        self.received += 1;
    }

    fn complete_send(&mut self, _completion: Completion) {}

    fn tell_outbound(&mut self, message: ToOutbound) {
        self.to_outbound.push(message);
    }

    fn tell_inbound(&mut self, message: ToInbound) {
        self.to_inbound.push(message);
    }
}

/// Memory that takes everything and holds zeros.
struct Nothing;

impl Memory for Nothing {
    fn check(&self, _: Stag, _: TaggedOffset, _: u64, _: Access) -> Result<(), AccessError> {
        Ok(())
    }

    fn place(&self, _: Stag, _: TaggedOffset, _: &[&[u8]], _: Access) -> Result<(), AccessError> {
        Ok(())
    }

    fn fetch(&self, _: Stag, _: TaggedOffset, out: &mut [u8], _: Access) -> Result<(), AccessError> {
        out.fill(0);
        Ok(())
    }

    fn execute(&self, _: Stag, _: TaggedOffset, _: AtomicOperation) -> Result<u64, AccessError> {
        Ok(0)
    }

    fn invalidate(&self, _: Stag, _: bool) -> Result<(), AccessError> {
        Ok(())
    }

    fn hold(&self, _: Stag) {}

    fn release(&self, _: Stag) {}
}
