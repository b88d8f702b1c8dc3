//! Memory, an owner and a pair of endpoints for tests.

pub(crate) mod frames;

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use crate::*;

/// Regions in ordinary memory. Counts holds, so that tests see leaks.
#[derive(Debug, Default)]
pub(crate) struct TestMemory {
    regions: Mutex<HashMap<u32, Region>>,
}

#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) base: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) denied: Vec<Access>,
    pub(crate) foreign: bool,
    pub(crate) valid: bool,
    pub(crate) holds: i64,
    pub(crate) placements: u64,
}

impl TestMemory {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A region of zeros at virtual address `base` that allows everything.
    pub(crate) fn register(&self, base: u64, length: usize) -> Stag {
        let stag = Stag::new(self.regions.lock().unwrap().len() as u32 + 1, 0x5a);
        self.register_as(stag, base, length);
        stag
    }

    /// Likewise, with this tag; nothing happens if it is taken.
    pub(crate) fn register_as(&self, stag: Stag, base: u64, length: usize) {
        self.regions.lock().unwrap().entry(stag.0).or_insert_with(|| Region {
            base,
            bytes: vec![0; length],
            denied: Vec::new(),
            foreign: false,
            valid: true,
            holds: 0,
            placements: 0,
        });
    }

    pub(crate) fn change(&self, stag: Stag, change: impl FnOnce(&mut Region)) {
        change(self.regions.lock().unwrap().get_mut(&stag.0).expect("a registered region"));
    }

    pub(crate) fn write(&self, stag: Stag, offset: u64, bytes: &[u8]) {
        self.change(stag, |region| {
            let start = (offset - region.base) as usize;
            region.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        });
    }

    pub(crate) fn read(&self, stag: Stag, offset: u64, length: usize) -> Vec<u8> {
        let regions = self.regions.lock().unwrap();
        let region = &regions[&stag.0];
        let start = (offset - region.base) as usize;
        region.bytes[start..start + length].to_vec()
    }

    pub(crate) fn placements(&self, stag: Stag) -> u64 {
        self.regions.lock().unwrap()[&stag.0].placements
    }

    /// Holds that were not released, over all regions.
    pub(crate) fn holds(&self) -> i64 {
        self.regions.lock().unwrap().values().map(|region| region.holds).sum()
    }

    fn with<R>(
        &self,
        stag: Stag,
        offset: TaggedOffset,
        length: u64,
        access: Access,
        then: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<R, AccessError> {
        let mut regions = self.regions.lock().unwrap();
        let region = regions.get_mut(&stag.0).filter(|region| region.valid).ok_or(AccessError::InvalidStag(stag))?;
        if region.foreign {
            return Err(AccessError::WrongProtectionDomain(stag));
        }
        if region.denied.contains(&access) {
            return Err(AccessError::Denied(stag, access));
        }
        let end = offset.0.checked_add(length).ok_or(AccessError::Wrap(offset))?;
        if offset.0 < region.base || end > region.base + region.bytes.len() as u64 {
            return Err(AccessError::OutOfBounds { stag, offset, length });
        }
        let (start, end) = ((offset.0 - region.base) as usize, (end - region.base) as usize);
        Ok(then(&mut region.bytes[start..end]))
    }
}

impl Memory for TestMemory {
    fn check(&self, stag: Stag, offset: TaggedOffset, length: u64, access: Access) -> Result<(), AccessError> {
        if length == 0 { Ok(()) } else { self.with(stag, offset, length, access, |_| ()) }
    }

    fn place(&self, stag: Stag, offset: TaggedOffset, parts: &[&[u8]], access: Access) -> Result<(), AccessError> {
        let length = parts.iter().map(|part| part.len() as u64).sum();
        self.with(stag, offset, length, access, |bytes| bytes.copy_from_slice(&parts.concat()))?;
        self.change(stag, |region| region.placements += 1);
        Ok(())
    }

    fn fetch(&self, stag: Stag, offset: TaggedOffset, out: &mut [u8], access: Access) -> Result<(), AccessError> {
        self.with(stag, offset, out.len() as u64, access, |bytes| out.copy_from_slice(bytes))
    }

    fn execute(&self, stag: Stag, offset: TaggedOffset, operation: AtomicOperation) -> Result<u64, AccessError> {
        if !offset.0.is_multiple_of(8) {
            return Err(AccessError::Misaligned(offset));
        }
        self.with(stag, offset, 8, Access::RemoteAtomic, |bytes| {
            let original = u64::from_ne_bytes(bytes.try_into().unwrap());
            bytes.copy_from_slice(&operation.apply(original).to_ne_bytes());
            original
        })
    }

    fn invalidate(&self, stag: Stag, _remote: bool) -> Result<(), AccessError> {
        let mut regions = self.regions.lock().unwrap();
        let region = regions.get_mut(&stag.0).filter(|region| region.valid).ok_or(AccessError::InvalidStag(stag))?;
        if region.foreign {
            return Err(AccessError::WrongProtectionDomain(stag));
        }
        region.valid = false;
        Ok(())
    }

    fn hold(&self, stag: Stag) {
        if let Some(region) = self.regions.lock().unwrap().get_mut(&stag.0) {
            region.holds += 1;
        }
    }

    fn release(&self, stag: Stag) {
        if let Some(region) = self.regions.lock().unwrap().get_mut(&stag.0) {
            region.holds -= 1;
            assert!(region.holds >= 0, "{stag:?} released more often than held");
        }
    }
}

/// What a half's owner sees.
#[derive(Debug, Default)]
pub(crate) struct TestUpper {
    pub(crate) receives: VecDeque<ReceiveRequest>,
    pub(crate) received: Vec<Completion>,
    pub(crate) sent: Vec<Completion>,
    pub(crate) to_outbound: VecDeque<ToOutbound>,
    pub(crate) to_inbound: VecDeque<ToInbound>,
}

impl Upper for TestUpper {
    fn take_receive(&mut self) -> Option<ReceiveRequest> {
        self.receives.pop_front()
    }

    fn complete_receive(&mut self, completion: Completion) {
        self.received.push(completion);
    }

    fn complete_send(&mut self, completion: Completion) {
        self.sent.push(completion);
    }

    fn tell_outbound(&mut self, message: ToOutbound) {
        self.to_outbound.push_back(message);
    }

    fn tell_inbound(&mut self, message: ToInbound) {
        self.to_inbound.push_back(message);
    }
}

/// What a pair of endpoints agreed on, unless a test says otherwise.
pub(crate) fn agreed(role: Role) -> Negotiated {
    Negotiated { crc: true, send_markers: false, ird: 4, ord: 4, rtr: None, role }
}

/// One end of a connection: both halves, its memory, and its part of the stream.
pub(crate) struct Endpoint {
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
    pub(crate) memory: TestMemory,
    pub(crate) upper: TestUpper,
    /// Bytes on their way to the peer.
    pub(crate) wire: Vec<u8>,
    pub(crate) error: Option<ProtocolError>,
}

/// Bytes in front of the first FPDU, as a handshake would leave them.
pub(crate) const START: u64 = 24;

impl Endpoint {
    pub(crate) fn new(negotiated: &Negotiated) -> Self {
        Self::with(negotiated, &Limits::default(), Retention::UntilAcknowledged)
    }

    pub(crate) fn with(negotiated: &Negotiated, limits: &Limits, retention: Retention) -> Self {
        let mut outbound = Outbound::new(negotiated, limits, START, retention);
        outbound.set_segment_size(1460);
        Self {
            inbound: Inbound::new(negotiated, limits),
            outbound,
            memory: TestMemory::new(),
            upper: TestUpper::default(),
            wire: Vec::new(),
            error: None,
        }
    }

    pub(crate) fn post(&mut self, id: u64, operation: Operation) {
        self.outbound.post(request(id, operation)).unwrap();
    }

    pub(crate) fn post_receive(&mut self, id: u64, segments: &[Segment]) {
        self.upper.receives.push_back(ReceiveRequest { id, segments: SegmentList::new(segments).unwrap() });
    }

    /// Carries messages from half to half until there are none.
    pub(crate) fn exchange(&mut self) {
        loop {
            if let Some(message) = self.upper.to_outbound.pop_front() {
                self.outbound.handle(message, &self.memory, &mut self.upper);
            } else if let Some(message) = self.upper.to_inbound.pop_front() {
                self.inbound.handle(message);
            } else {
                return;
            }
        }
    }

    /// Takes the next FPDU.
    pub(crate) fn next_fpdu(&mut self) -> Option<Vec<u8>> {
        let record = self.outbound.next(MAX_FPDU, &self.memory, &mut self.upper)?;
        self.exchange();
        let mut bytes = vec![0xee; record.length as usize];
        self.outbound.write(record.start, &mut bytes, &self.memory);
        Some(bytes)
    }

    /// Puts all that can be sent on the wire, and acknowledges it.
    pub(crate) fn transmit(&mut self) -> usize {
        let mut count = 0;
        self.exchange();
        while let Some(record) = self.outbound.next(MAX_FPDU, &self.memory, &mut self.upper) {
            let start = self.wire.len();
            self.wire.resize(start + record.length as usize, 0xee);
            self.outbound.write(record.start, &mut self.wire[start..], &self.memory);
            self.outbound.handle_acknowledged(record.end(), &self.memory, &mut self.upper);
            self.exchange();
            count += 1;
        }
        count
    }

    /// Hands bytes in; what is not consumed is left in `bytes`.
    pub(crate) fn receive(&mut self, bytes: &mut Vec<u8>) -> Result<usize, ProtocolError> {
        let consumed = self.inbound.handle_bytes(&[&bytes[..]], &self.memory, &mut self.upper);
        self.exchange();
        let consumed = consumed.inspect_err(|error| {
            self.error = Some(error.clone());
        })?;
        bytes.drain(..consumed);
        Ok(consumed)
    }

    /// Ends: everything that is outstanding completes.
    pub(crate) fn flush(&mut self) {
        self.inbound.flush(&self.memory, &mut self.upper);
        self.exchange();
        self.outbound.flush(&self.memory, &mut self.upper);
        self.exchange();
    }
}

/// A signaled request.
pub(crate) fn request(id: u64, operation: Operation) -> SendRequest {
    SendRequest { id, operation, signaled: true, solicited: false, fence: false }
}

/// A Send of these bytes, inline.
pub(crate) fn send_inline(bytes: &[u8]) -> Operation {
    Operation::Send { payload: Payload::Inline(bytes.into()), invalidate: None }
}

/// A list of one segment.
pub(crate) fn one(stag: Stag, offset: u64, length: u32) -> SegmentList {
    SegmentList::new(&[segment(stag, offset, length)]).unwrap()
}

pub(crate) fn segment(stag: Stag, offset: u64, length: u32) -> Segment {
    Segment { stag, offset: TaggedOffset(offset), length }
}

pub(crate) fn address(stag: Stag, offset: u64) -> RemoteAddress {
    RemoteAddress { stag, offset: TaggedOffset(offset) }
}

/// Two connected endpoints.
pub(crate) struct Pair {
    pub(crate) initiator: Endpoint,
    pub(crate) responder: Endpoint,
}

impl Pair {
    /// Endpoints that agreed on what `change` makes of [`agreed`].
    pub(crate) fn with(change: impl Fn(&mut Negotiated)) -> Self {
        let endpoint = |role| {
            let mut negotiated = agreed(role);
            change(&mut negotiated);
            Endpoint::new(&negotiated)
        };
        Self { initiator: endpoint(Role::Initiator), responder: endpoint(Role::Responder) }
    }

    /// Carries bytes until neither side has any to send or can take any. A protocol error becomes a TERMINATE.
    pub(crate) fn run(&mut self) {
        loop {
            let sent = self.initiator.transmit() + self.responder.transmit();
            let taken = Self::carry(&mut self.initiator, &mut self.responder)
                + Self::carry(&mut self.responder, &mut self.initiator);
            if sent + taken == 0 {
                return;
            }
        }
    }

    fn carry(from: &mut Endpoint, to: &mut Endpoint) -> usize {
        match to.receive(&mut from.wire) {
            Ok(taken) => taken,
            Err(error) => {
                to.outbound.terminate(error.terminate());
                from.wire.clear();
                1
            }
        }
    }
}
