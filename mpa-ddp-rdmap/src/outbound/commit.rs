//! Cutting requests and responses into FPDUs.

use zerocopy::byteorder::network_endian::{U32, U64};

use super::encode::Encoder;
use super::records::{Body, Content};
use super::turn::Side;
use super::*;
use crate::framing::{MIN_MULPDU, fpdu_length};
use crate::memory::{Access, AtomicOperation};
use crate::terminate::MAX_TERMINATE_LENGTH;
use crate::types::{Stag, TaggedOffset};
use crate::wire::{AtomicRequestHeader, AtomicResponseHeader, DdpControl, RdmapControl, TaggedHeader};
use crate::work::Segment;

const TAGGED: usize = size_of::<TaggedHeader>();
const UNTAGGED: usize = size_of::<UntaggedHeader>();

/// What the current request is to put into the stream next.
#[derive(Clone, Copy)]
enum Step {
    Send { opcode: RdmapOpcode, invalidate: Stag },
    Write { target: RemoteAddress, splits: bool, has_immediate: bool },
    Immediate { data: [u8; 8], solicited: bool },
    Read { source: RemoteAddress },
    Atomic { sink: Segment, compare_swap: bool },
    None,
}

impl Step {
    fn of(entry: &queue::Entry) -> Self {
        let request = entry.request();
        let solicited = request.solicited;
        match &request.operation {
            Operation::Send { invalidate, .. } => Self::Send {
                opcode: match (solicited, invalidate.is_some()) {
                    (false, false) => RdmapOpcode::SEND,
                    (false, true) => RdmapOpcode::SEND_INVALIDATE,
                    (true, false) => RdmapOpcode::SEND_SOLICITED,
                    (true, true) => RdmapOpcode::SEND_SOLICITED_INVALIDATE,
                },
                invalidate: invalidate.unwrap_or_default(),
            },
            Operation::Write { immediate: Some(data), .. } if entry.is_fully_placed() => {
                Self::Immediate { data: *data, solicited }
            }
            Operation::Write { target, immediate, .. } => {
                Self::Write { target: *target, splits: immediate.is_none(), has_immediate: immediate.is_some() }
            }
            Operation::Immediate { data } => Self::Immediate { data: *data, solicited },
            Operation::Read { source, .. } => Self::Read { source: *source },
            Operation::Atomic { sink, operation, .. } => {
                Self::Atomic { sink: *sink, compare_swap: matches!(operation, AtomicOperation::CompareSwap { .. }) }
            }
            Operation::LocalInvalidate { .. } => Self::None,
        }
    }
}

impl Outbound {
    /// The next FPDU of the send queue.
    pub(super) fn commit_request<M: Memory + ?Sized, U: Upper + ?Sized>(
        &mut self,
        room: usize,
        memory: &M,
        upper: &mut U,
    ) -> Option<Record> {
        let (position, entry) = self.queue.current_mut()?;
        if !entry.is_begun() && entry.begin(memory).is_err() {
            entry.fail(Status::LocalProtection);
            // RFC 5040 §7.1 case 1: the TERMINATE goes instead of the request.
            self.terminate(Terminate::LOCAL_CATASTROPHIC);
            self.complete(memory, upper);
            return None;
        }
        match Step::of(entry) {
            Step::Send { opcode, invalidate } => self.commit_send(position, opcode, invalidate, room),
            Step::Write { target, splits, has_immediate } => {
                self.commit_write(position, target, splits, has_immediate, room)
            }
            Step::Immediate { data, solicited } => self.commit_immediate(data, solicited, room),
            Step::Read { source } => self.commit_read(position, source, room, upper),
            Step::Atomic { sink, compare_swap } => self.commit_atomic(position, sink, compare_swap, room, upper),
            Step::None => None,
        }
    }

    #[inline(always)]
    fn commit_send(&mut self, position: u64, opcode: RdmapOpcode, invalidate: Stag, room: usize) -> Option<Record> {
        let (_, entry) = self.queue.current_mut()?;
        let (from, remaining) = (entry.committed(), entry.remaining());
        let length = self.payload_that_fits(UNTAGGED, remaining, room)?;
        let (_, entry) = self.queue.current_mut()?;
        if from == 0 {
            // A zero-length segment never comes before others, so this is the first one.
            entry.set_message(self.next_send.take());
        }
        let message = entry.message();
        let last = length == remaining;
        entry.advance(length);
        let header = untagged(opcode, last, QueueNumber::SEND, message, from, invalidate);
        let record = self.push(Side::Queue, header, Body::Payload { request: position, from, length });
        self.statistics.payload_bytes += u64::from(length);
        if last {
            self.statistics.messages.sends += 1;
            self.queue.finish_current(record.end());
        }
        Some(record)
    }

    #[inline(always)]
    fn commit_write(
        &mut self,
        position: u64,
        target: RemoteAddress,
        splits: bool,
        has_immediate: bool,
        room: usize,
    ) -> Option<Record> {
        let (_, entry) = self.queue.current_mut()?;
        let (from, remaining) = (entry.committed(), entry.remaining());
        let length = self.payload_that_fits(TAGGED, remaining, room)?;
        let done = length == remaining;
        // A Write completes nothing at the peer, so it may end early and go on as another one, to let responses pass.
        let yields = splits && !self.responses.is_empty() && self.turn.write_had_its_share(length);
        let last = done || yields;
        let (_, entry) = self.queue.current_mut()?;
        entry.advance(length);
        let offset = TaggedOffset(target.offset.0.wrapping_add(u64::from(from)));
        let header = tagged(RdmapOpcode::WRITE, last, RemoteAddress { stag: target.stag, offset });
        let record = self.push(Side::Queue, header, Body::Payload { request: position, from, length });
        self.in_write = !last;
        self.statistics.payload_bytes += u64::from(length);
        self.statistics.messages.writes += u64::from(last);
        if done && !has_immediate {
            self.queue.finish_current(record.end());
        }
        Some(record)
    }

    fn commit_immediate(&mut self, data: [u8; 8], solicited: bool, room: usize) -> Option<Record> {
        self.fits(UNTAGGED + data.len(), room).then_some(())?;
        let opcode = if solicited { RdmapOpcode::IMMEDIATE_SOLICITED } else { RdmapOpcode::IMMEDIATE };
        let message = self.next_send.take();
        self.queue.current_mut()?.1.set_message(message);
        let header = untagged(opcode, true, QueueNumber::SEND, message, 0, Stag::default());
        let record = self.push(Side::Queue, header, Body::Immediate(data));
        self.statistics.messages.immediates += 1;
        self.queue.finish_current(record.end());
        Some(record)
    }

    fn commit_read<U: Upper + ?Sized>(
        &mut self,
        position: u64,
        source: RemoteAddress,
        room: usize,
        upper: &mut U,
    ) -> Option<Record> {
        self.fits(UNTAGGED + size_of::<ReadRequestHeader>(), room).then_some(())?;
        let message = self.next_request.take();
        let (_, entry) = self.queue.current_mut()?;
        let (index, sink) = entry.next_sink();
        let offset = TaggedOffset(source.offset.0.wrapping_add(u64::from(entry.committed())));
        entry.asked(index, sink.length, message);
        let done = entry.is_fully_placed();
        let record = self.push_read_request(message, sink, RemoteAddress { stag: source.stag, offset }, upper);
        self.awaited.push_back(Awaited::Request(position));
        if done {
            self.queue.finish_current(record.end());
        }
        Some(record)
    }

    fn push_read_request<U: Upper + ?Sized>(
        &mut self,
        message: MessageSequenceNumber,
        sink: Segment,
        source: RemoteAddress,
        upper: &mut U,
    ) -> Record {
        upper.tell_inbound(ToInbound::Read { sink });
        let to = RemoteAddress { stag: sink.stag, offset: sink.offset };
        let header = untagged(RdmapOpcode::READ_REQUEST, true, QueueNumber::READ_REQUEST, message, 0, Stag::default());
        self.statistics.messages.read_requests += 1;
        self.push(Side::Queue, header, Body::ReadRequest(read_request_header(to, source, sink.length)))
    }

    fn commit_atomic<U: Upper + ?Sized>(
        &mut self,
        position: u64,
        sink: Segment,
        compare_swap: bool,
        room: usize,
        upper: &mut U,
    ) -> Option<Record> {
        self.fits(UNTAGGED + size_of::<AtomicRequestHeader>(), room).then_some(())?;
        let message = self.next_request.take();
        self.queue.current_mut()?.1.asked(0, sink.length, message);
        upper.tell_inbound(ToInbound::Atomic { request: message.0, sink, compare_swap });
        self.awaited.push_back(Awaited::Request(position));
        let header =
            untagged(RdmapOpcode::ATOMIC_REQUEST, true, QueueNumber::READ_REQUEST, message, 0, Stag::default());
        let record = self.push(Side::Queue, header, Body::AtomicRequest(position));
        self.statistics.messages.atomic_requests += 1;
        self.queue.finish_current(record.end());
        Some(record)
    }

    /// The ready-to-receive message of an initiator (RFC 6581 §9.2).
    pub(super) fn commit_rtr<U: Upper + ?Sized>(
        &mut self,
        kind: RtrKind,
        room: usize,
        upper: &mut U,
    ) -> Option<Record> {
        self.fits(UNTAGGED + size_of::<ReadRequestHeader>(), room).then_some(())?;
        self.rtr_due = None;
        Some(match kind {
            RtrKind::Write => {
                let header = tagged(RdmapOpcode::WRITE, true, RemoteAddress::default());
                self.push(Side::Queue, header, Body::Empty)
            }
            RtrKind::Send => {
                let message = self.next_send.take();
                let header = untagged(RdmapOpcode::SEND, true, QueueNumber::SEND, message, 0, Stag::default());
                self.push(Side::Queue, header, Body::Empty)
            }
            RtrKind::Read => {
                let message = self.next_request.take();
                self.awaited.push_back(Awaited::Rtr);
                self.push_read_request(message, Segment::default(), RemoteAddress::default(), upper)
            }
        })
    }

    /// The next FPDU of the oldest response.
    pub(super) fn commit_response<M: Memory + ?Sized, U: Upper + ?Sized>(
        &mut self,
        room: usize,
        memory: &M,
        upper: &mut U,
    ) -> Option<Record> {
        let record = match *self.responses.front()? {
            Response::Atomic { request, original } => {
                self.fits(UNTAGGED + size_of::<AtomicResponseHeader>(), room).then_some(())?;
                let message = self.next_atomic_response.take();
                let queue = QueueNumber::ATOMIC_RESPONSE;
                let header = untagged(RdmapOpcode::ATOMIC_RESPONSE, true, queue, message, 0, Stag::default());
                let response = AtomicResponseHeader { request: U32::new(request), original: U64::new(original) };
                self.statistics.messages.atomic_responses += 1;
                self.push(Side::Responses, header, Body::AtomicResponse(response))
            }
            Response::Read { message, sink, source, remaining, .. } => {
                let length = self.payload_that_fits(TAGGED, remaining, room)?;
                let last = length == remaining;
                let record = match self.push_response(sink, source, length, last, memory) {
                    Ok(record) => record,
                    Err(error) => {
                        self.fail_response(message, sink, source, remaining, error);
                        self.drop_responses(memory);
                        return None;
                    }
                };
                if !last {
                    let step = |address: RemoteAddress| RemoteAddress {
                        stag: address.stag,
                        offset: TaggedOffset(address.offset.0.wrapping_add(u64::from(length))),
                    };
                    let (sink, source, remaining) = (step(sink), step(source), remaining - length);
                    let begun = true;
                    self.responses[0] = Response::Read { message, sink, source, remaining, begun };
                    return Some(record);
                }
                if remaining > 0 {
                    memory.release(source.stag);
                }
                self.statistics.messages.read_responses += 1;
                record
            }
        };
        self.responses.pop_front();
        upper.tell_inbound(ToInbound::Responded);
        Some(record)
    }

    fn push_response<M: Memory + ?Sized>(
        &mut self,
        sink: RemoteAddress,
        source: RemoteAddress,
        length: u32,
        last: bool,
        memory: &M,
    ) -> Result<Record, AccessError> {
        let content =
            Content { header: tagged(RdmapOpcode::READ_RESPONSE, last, sink), body: Body::Response { source, length } };
        let bytes = Encoder::<M>::length(self.markers, self.records.end(), content.length()) as u32;
        let record = match self.retention {
            Retention::UntilAcknowledged => {
                let encoder = Encoder { queue: &self.queue, crc: self.crc, markers: self.markers, memory };
                self.records.push_kept(content, bytes, &encoder)?
            }
            Retention::None => {
                memory.check(source.stag, source.offset, u64::from(length), Access::RemoteRead)?;
                self.records.push_held(content, bytes, memory)
            }
        };
        self.turn.note(Side::Responses, bytes);
        self.statistics.fpdus += 1;
        self.statistics.payload_bytes += u64::from(length);
        Ok(record)
    }

    /// The source of a Read went away while it was answered: RFC 5040 §4.8, the TERMINATE says how far it got.
    fn fail_response(
        &mut self,
        message: MessageSequenceNumber,
        sink: RemoteAddress,
        source: RemoteAddress,
        remaining: u32,
        error: AccessError,
    ) {
        let request = untagged(RdmapOpcode::READ_REQUEST, true, QueueNumber::READ_REQUEST, message, 0, Stag(0));
        let segment = OffendingSegment {
            length: (UNTAGGED + size_of::<ReadRequestHeader>()) as u16,
            header: Some(request),
            read_request: Some(read_request_header(sink, source, remaining)),
        };
        let error = ProtocolError { violation: Violation::ReadAccess(error), segment: Some(segment) };
        self.terminate(error.terminate());
    }

    /// RFC 5040 §5.4: the last message ever.
    pub(super) fn commit_terminate(&mut self, terminate: &Terminate, room: usize) -> Option<Record> {
        let mut bytes = Box::new([0; MAX_TERMINATE_LENGTH]);
        let length = terminate.encode(&mut bytes);
        self.fits(UNTAGGED + length, room).then_some(())?;
        let message = MessageSequenceNumber(1);
        let header = untagged(RdmapOpcode::TERMINATE, true, QueueNumber::TERMINATE, message, 0, Stag::default());
        let record = self.push(Side::Queue, header, Body::Terminate { bytes, length: length as u8 });
        self.statistics.messages.terminates += 1;
        self.ending = Ending::Sent(record.end());
        Some(record)
    }

    /// Commits an FPDU that was found to fit.
    #[inline(always)]
    fn push(&mut self, side: Side, header: DdpHeader, body: Body) -> Record {
        let content = Content { header, body };
        let length = self.length_of(content.length()) as u32;
        self.turn.note(side, length);
        self.statistics.fpdus += 1;
        self.records.push(content, length)
    }

    /// Bytes that a ULPDU would have in the stream now.
    fn length_of(&self, ulpdu: usize) -> usize {
        let plain = fpdu_length(ulpdu);
        self.markers.map_or(plain, |markers| markers.length(self.records.end(), plain))
    }

    fn fits(&self, ulpdu: usize, room: usize) -> bool {
        self.length_of(ulpdu) <= room
    }

    /// How much of `remaining` bytes of payload the next FPDU carries behind a header of `header` bytes.
    #[inline(always)]
    fn payload_that_fits(&self, header: usize, remaining: u32, room: usize) -> Option<u32> {
        let wanted = (remaining as usize).min(self.mulpdu - header);
        if self.fits(header + wanted, room) {
            return Some(wanted as u32);
        }
        if !self.records.is_empty() {
            return None;
        }
        // No acknowledgement will make more room, so this is all there ever is.
        let ulpdu = mulpdu(room, self.markers.is_some());
        let fits = self.fits(ulpdu, room) && ulpdu >= MIN_MULPDU;
        fits.then_some(wanted.min(ulpdu - header) as u32)
    }
}

#[inline(always)]
fn tagged(opcode: RdmapOpcode, last: bool, address: RemoteAddress) -> DdpHeader {
    DdpHeader::Tagged(TaggedHeader {
        ddp: DdpControl::new(true, last),
        rdmap: RdmapControl::new(opcode),
        stag: U32::new(address.stag.0),
        offset: U64::new(address.offset.0),
    })
}

#[inline(always)]
fn untagged(
    opcode: RdmapOpcode,
    last: bool,
    queue: QueueNumber,
    message: MessageSequenceNumber,
    offset: u32,
    invalidate: Stag,
) -> DdpHeader {
    DdpHeader::Untagged(UntaggedHeader {
        ddp: DdpControl::new(false, last),
        rdmap: RdmapControl::new(opcode),
        invalidate: U32::new(invalidate.0),
        queue: U32::new(queue.0),
        message: U32::new(message.0),
        offset: U32::new(offset),
    })
}
