//! One test a row of the table from what a peer does wrong to what it is told: the bad bytes go in, the TERMINATE comes out.

use zerocopy::{FromBytes, IntoBytes};

use crate::testing::frames::*;
use crate::testing::*;
use crate::wire::*;
use crate::*;

/// An endpoint with a region that peers may use, and what it sends and completes after bad bytes.
struct Victim {
    endpoint: Endpoint,
    stag: Stag,
}

const BASE: u64 = 0x1000;
const LENGTH: usize = 4096;

/// What the peer is told: layer, type, code, and which headers (segment length and DDP header, Read Request).
#[derive(Debug, PartialEq)]
struct Told {
    layer: u8,
    kind: u8,
    code: u8,
    segment: bool,
    read_request: bool,
}

const fn told(layer: u8, kind: u8, code: u8) -> Told {
    Told { layer, kind, code, segment: true, read_request: false }
}

const fn told_alone(layer: u8, kind: u8, code: u8) -> Told {
    Told { segment: false, ..told(layer, kind, code) }
}

impl Victim {
    fn new() -> Self {
        let endpoint = Endpoint::new(&agreed(Role::Initiator));
        let stag = endpoint.memory.register(BASE, LENGTH);
        Self { endpoint, stag }
    }

    fn post_receive(&mut self, length: u32) {
        self.endpoint.post_receive(1, &[segment(self.stag, BASE, length)]);
    }

    /// Posts a Read of 100 bytes and lets it leave.
    fn ask(&mut self) {
        let (stag, sinks) = (self.stag, one(self.stag, BASE, 100));
        self.endpoint.post(9, Operation::Read { sinks, source: address(stag, 0), invalidate: None });
        self.endpoint.transmit();
        self.endpoint.wire.clear();
    }

    fn ask_atomic(&mut self) {
        let operation = AtomicOperation::FetchAdd { add: 1, mask: 0 };
        let (sink, target) = (segment(self.stag, BASE, 8), address(self.stag, 0));
        self.endpoint.post(9, Operation::Atomic { sink, target, operation });
        self.endpoint.transmit();
        self.endpoint.wire.clear();
    }

    /// Takes good bytes.
    fn accepts(&mut self, frame: &Frame) {
        let mut bytes = frame.fpdu();
        let length = bytes.len();
        assert_eq!(self.endpoint.receive(&mut bytes), Ok(length));
    }

    /// Takes a bad frame and tells what the peer is told. Checks that the headers told are those of the frame.
    fn refuses(&mut self, frame: &Frame) -> Told {
        let before = self.endpoint.memory.read(self.stag, BASE, LENGTH);
        let told = self.refuses_bytes(frame.fpdu(), &frame.ulpdu);
        assert_eq!(self.endpoint.memory.read(self.stag, BASE, LENGTH), before, "nothing of it is placed");
        told
    }

    fn refuses_bytes(&mut self, mut bytes: Vec<u8>, ulpdu: &[u8]) -> Told {
        let error = self.endpoint.receive(&mut bytes).expect_err("the bytes are bad");
        self.told(&error, ulpdu)
    }

    fn told(&mut self, error: &ProtocolError, ulpdu: &[u8]) -> Told {
        assert!(!error.to_string().is_empty());
        self.endpoint.outbound.terminate(error.terminate());
        let fpdu = self.endpoint.next_fpdu().expect("a TERMINATE");
        let (header, payload) = untagged_of(&fpdu);
        assert_eq!((header.queue.get(), header.message.get(), header.offset.get()), (2, 1, 0));
        assert_eq!((header.rdmap.opcode(), header.ddp.is_last()), (RdmapOpcode::TERMINATE, true));
        assert!(self.endpoint.next_fpdu().is_none(), "nothing follows a TERMINATE");

        let flags = payload[2] >> 5;
        let mut rest = &payload[4..];
        if flags & 0b110 != 0 {
            assert_eq!(flags & 0b110, 0b110, "segment length and header go together");
            assert_eq!(usize::from(u16::from_be_bytes([rest[0], rest[1]])), ulpdu.len());
            let header = if ulpdu[0] & 0x80 != 0 { 14 } else { 18 };
            assert_eq!(rest[2..2 + header], ulpdu[..header], "the DDP header is repeated");
            rest = &rest[2 + header..];
        }
        if flags & 0b001 != 0 {
            assert_eq!(rest, &ulpdu[18..46], "the Read Request is repeated");
            rest = &[];
        }
        assert!(rest.is_empty());
        Told {
            layer: payload[0] >> 4,
            kind: payload[0] & 0xf,
            code: payload[1],
            segment: flags & 0b110 != 0,
            read_request: flags & 1 != 0,
        }
    }

    fn write(&self, offset: u64, length: usize) -> Frame {
        tagged(RdmapOpcode::WRITE, true, self.stag, offset, &vec![0xaa; length])
    }

    fn read(&self, offset: u64, length: u32) -> Frame {
        read_request(1, address(Stag(5), 6), address(self.stag, offset), length)
    }
}

// MPA, RFC 5044 §8.

#[test]
fn stream_that_ends_inside_an_fpdu() {
    let mut victim = Victim::new();
    let whole = victim.write(BASE, 100).fpdu();
    let mut part = whole[..whole.len() - 1].to_vec();
    assert_eq!(victim.endpoint.receive(&mut part), Ok(0));
    let error = victim.endpoint.inbound.handle_end_of_stream().unwrap_err();
    assert_eq!(victim.told(&error, &[]), told_alone(2, 0, 0x01));
}

#[test]
fn stream_that_ends_inside_a_message() {
    let mut victim = Victim::new();
    victim.post_receive(100);
    victim.accepts(&untagged(RdmapOpcode::SEND, false, 0, 1, 0, &[1; 10]));
    let error = victim.endpoint.inbound.handle_end_of_stream().unwrap_err();
    assert_eq!(victim.told(&error, &[]), told_alone(2, 0, 0x01));
}

#[test]
fn stream_that_ends_between_messages_is_no_error() {
    let mut victim = Victim::new();
    victim.accepts(&victim.write(BASE, 10));
    assert_eq!(victim.endpoint.inbound.handle_end_of_stream(), Ok(()));
}

#[test]
fn crc_that_does_not_hold() {
    for bit in 0..8 * 64 {
        let mut victim = Victim::new();
        let mut bytes = victim.write(BASE, 41).fpdu();
        assert_eq!(bytes.len(), 64);
        // The first two bytes are the length, and would have us wait for more.
        if bit < 16 {
            continue;
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(victim.refuses_bytes(bytes, &[]), told_alone(2, 0, 0x02), "bit {bit}");
        assert_eq!(victim.endpoint.memory.read(victim.stag, BASE, 41), [0; 41], "nothing is placed");
        assert_eq!(victim.endpoint.inbound.statistics().crc_errors, 1);
    }
}

#[test]
fn crc_is_not_looked_at_unless_agreed_on() {
    let mut negotiated = agreed(Role::Initiator);
    negotiated.crc = false;
    let mut endpoint = Endpoint::new(&negotiated);
    let stag = endpoint.memory.register(BASE, LENGTH);
    let mut bytes = tagged(RdmapOpcode::WRITE, true, stag, BASE, &[9; 5]).fpdu();
    let length = bytes.len();
    bytes[length - 4..].fill(0);
    assert_eq!(endpoint.receive(&mut bytes), Ok(length));
    assert_eq!(endpoint.memory.read(stag, BASE, 5), [9; 5]);
}

#[test]
fn padding_is_covered_by_the_crc_and_otherwise_ignored() {
    let mut victim = Victim::new();
    let mut bytes = victim.write(BASE, 5).fpdu();
    let length = bytes.len();
    bytes[length - 5] = 0x77;
    let crc = crate::framing::crc32c(&bytes[..length - 4]);
    bytes[length - 4..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(victim.endpoint.receive(&mut bytes), Ok(length));
}

// DDP, tagged: RFC 5041 §7.2.

#[test]
fn write_to_an_unknown_tag() {
    let mut victim = Victim::new();
    let frame = tagged(RdmapOpcode::WRITE, true, Stag(0xdead), BASE, &[1]);
    assert_eq!(victim.refuses(&frame), told(1, 1, 0x00));
}

#[test]
fn write_with_a_stale_key() {
    let mut victim = Victim::new();
    let frame = tagged(RdmapOpcode::WRITE, true, Stag(victim.stag.0 ^ 1), BASE, &[1]);
    assert_eq!(victim.refuses(&frame), told(1, 1, 0x00));
}

#[test]
fn write_to_a_region_that_does_not_allow_it() {
    let mut victim = Victim::new();
    victim.endpoint.memory.change(victim.stag, |region| region.denied.push(Access::RemoteWrite));
    let frame = victim.write(BASE, 1);
    assert_eq!(victim.refuses(&frame), told(1, 1, 0x00));
}

#[test]
fn write_outside_the_region() {
    for (offset, length) in [(BASE - 1, 1), (BASE + LENGTH as u64, 1), (BASE + LENGTH as u64 - 1, 2), (0, 5)] {
        let mut victim = Victim::new();
        let frame = victim.write(offset, length);
        assert_eq!(victim.refuses(&frame), told(1, 1, 0x01), "{length} bytes at {offset:#x}");
    }
}

#[test]
fn second_segment_of_a_write_is_checked_as_the_first() {
    let mut victim = Victim::new();
    victim.accepts(&tagged(RdmapOpcode::WRITE, false, victim.stag, BASE, &[1; 10]));
    let frame = victim.write(BASE + LENGTH as u64 - 1, 2);
    assert_eq!(victim.refuses(&frame), told(1, 1, 0x01));
}

#[test]
fn write_to_a_region_of_another_protection_domain() {
    let mut victim = Victim::new();
    victim.endpoint.memory.change(victim.stag, |region| region.foreign = true);
    let frame = victim.write(BASE, 1);
    assert_eq!(victim.refuses(&frame), told(1, 1, 0x02));
}

#[test]
fn write_whose_offset_wraps() {
    let mut victim = Victim::new();
    let frame = victim.write(u64::MAX - 1, 4);
    assert_eq!(victim.refuses(&frame), told(1, 1, 0x03));
}

#[test]
fn tagged_segment_of_another_ddp_version() {
    for version in [0x00, 0x02, 0x03] {
        let mut victim = Victim::new();
        let frame = victim.write(BASE, 1).with(0, 0xc0 | version);
        assert_eq!(victim.refuses(&frame), told(1, 1, 0x04));
    }
}

// DDP, untagged: RFC 5041 §7.2.

#[test]
fn message_on_a_queue_that_does_not_exist() {
    for queue in [4, 5, 0x100, u32::MAX] {
        let mut victim = Victim::new();
        victim.post_receive(100);
        let frame = untagged(RdmapOpcode::SEND, true, queue, 1, 0, &[1]);
        assert_eq!(victim.refuses(&frame), told(1, 2, 0x01));
    }
}

#[test]
fn message_for_which_no_receive_is_posted_in_time() {
    let mut victim = Victim::new();
    let frame = send(1, &[1, 2, 3]);
    let mut bytes = frame.fpdu();
    assert_eq!(victim.endpoint.receive(&mut bytes), Ok(0), "it is not consumed");
    assert!(victim.endpoint.inbound.is_waiting_for_receive());
    let error = victim.endpoint.inbound.give_up_waiting();
    assert_eq!(victim.told(&error, &frame.ulpdu), told(1, 2, 0x02));
}

#[test]
fn more_reads_than_agreed_on() {
    let mut victim = Victim::new();
    for message in 1..=4 {
        let mut frame = victim.read(BASE, 10);
        frame.ulpdu[10..14].copy_from_slice(&u32::to_be_bytes(message));
        victim.accepts(&frame);
    }
    let mut frame = victim.read(BASE, 10);
    frame.ulpdu[10..14].copy_from_slice(&5u32.to_be_bytes());
    assert_eq!(victim.refuses(&frame), told(1, 2, 0x02));
}

#[test]
fn more_reads_and_atomics_than_agreed_on() {
    let mut victim = Victim::new();
    for message in 1..=4 {
        victim.accepts(&fetch_add(message, 0, address(victim.stag, BASE)));
    }
    let frame = fetch_add(5, 0, address(victim.stag, BASE));
    assert_eq!(victim.refuses(&frame), told(1, 2, 0x02));
}

#[test]
fn reads_that_were_answered_do_not_count() {
    let mut victim = Victim::new();
    for message in 1..=20 {
        let mut frame = victim.read(BASE, 10);
        frame.ulpdu[10..14].copy_from_slice(&u32::to_be_bytes(message));
        victim.accepts(&frame);
        if message % 4 == 0 {
            assert_eq!(victim.endpoint.transmit(), 4);
        }
    }
}

#[test]
fn message_number_that_is_not_due() {
    for number in [0, 2, 3, u32::MAX] {
        for (queue, frame) in [
            (0, send(number, &[1])),
            (1, read_request(number, address(Stag(1), 0), address(Stag(1), 0), 0)),
            (2, untagged(RdmapOpcode::TERMINATE, true, 2, number, 0, &[0; 4])),
            (3, atomic_response(number, 1, 0)),
        ] {
            let mut victim = Victim::new();
            victim.post_receive(100);
            assert_eq!(victim.refuses(&frame), told(1, 2, 0x03), "message {number} on queue {queue}");
        }
    }
}

#[test]
fn message_number_that_was_used_before() {
    let mut victim = Victim::new();
    victim.post_receive(100);
    victim.post_receive(100);
    victim.accepts(&send(1, &[]));
    assert_eq!(victim.refuses(&send(1, &[])), told(1, 2, 0x03));
}

#[test]
fn message_offset_that_is_not_due() {
    let mut victim = Victim::new();
    victim.post_receive(100);
    let frame = untagged(RdmapOpcode::SEND, true, 0, 1, 4, &[1]);
    assert_eq!(victim.refuses(&frame), told(1, 2, 0x04));
}

#[test]
fn message_offset_with_a_gap_or_an_overlap() {
    for offset in [0, 9, 11, u32::MAX] {
        let mut victim = Victim::new();
        victim.post_receive(100);
        victim.accepts(&untagged(RdmapOpcode::SEND, false, 0, 1, 0, &[1; 10]));
        let frame = untagged(RdmapOpcode::SEND, true, 0, 1, offset, &[2]);
        assert_eq!(victim.refuses(&frame), told(1, 2, 0x04), "offset {offset}");
        assert_eq!(victim.endpoint.upper.received[0].status, Status::Flushed);
    }
}

#[test]
fn message_longer_than_its_receive() {
    let mut victim = Victim::new();
    victim.post_receive(10);
    assert_eq!(victim.refuses(&send(1, &[7; 11])), told(1, 2, 0x05));
    assert_eq!(victim.endpoint.upper.received[0].status, Status::LocalLength);
    assert_eq!(victim.endpoint.memory.holds(), 0);
}

#[test]
fn message_whose_second_segment_makes_it_too_long() {
    let mut victim = Victim::new();
    victim.post_receive(10);
    victim.accepts(&untagged(RdmapOpcode::SEND, false, 0, 1, 0, &[1; 10]));
    let frame = untagged(RdmapOpcode::SEND, true, 0, 1, 10, &[2]);
    assert_eq!(victim.refuses(&frame), told(1, 2, 0x05));
    assert_eq!(victim.endpoint.upper.received[0].status, Status::LocalLength);
}

#[test]
fn read_request_with_too_many_bytes() {
    let mut victim = Victim::new();
    let frame = untagged(RdmapOpcode::READ_REQUEST, true, 1, 1, 0, &[0; 29]);
    assert_eq!(victim.refuses(&frame), told(1, 2, 0x05));
}

#[test]
fn untagged_segment_of_another_ddp_version() {
    for version in [0x00, 0x02, 0x03] {
        let mut victim = Victim::new();
        victim.post_receive(10);
        let frame = send(1, &[1]).with(0, 0x40 | version);
        assert_eq!(victim.refuses(&frame), told(1, 2, 0x06));
    }
}

// RDMAP, remote protection: RFC 5040 §4.8.

fn refused_read(change: impl FnOnce(&mut Region), offset: u64, length: u32) -> Told {
    let mut victim = Victim::new();
    victim.endpoint.memory.change(victim.stag, change);
    let frame = victim.read(offset, length);
    victim.refuses(&frame)
}

fn told_with_request(code: u8) -> Told {
    Told { read_request: true, ..told(0, 1, code) }
}

#[test]
fn read_from_an_invalid_tag() {
    assert_eq!(refused_read(|region| region.valid = false, BASE, 1), told_with_request(0x00));
}

#[test]
fn read_outside_the_region() {
    assert_eq!(refused_read(|_| {}, BASE + 1, LENGTH as u32), told_with_request(0x01));
}

#[test]
fn read_from_a_region_that_does_not_allow_it() {
    assert_eq!(refused_read(|region| region.denied.push(Access::RemoteRead), BASE, 1), told_with_request(0x02));
}

#[test]
fn read_from_a_region_of_another_protection_domain() {
    assert_eq!(refused_read(|region| region.foreign = true, BASE, 1), told_with_request(0x03));
}

#[test]
fn read_whose_offset_wraps() {
    assert_eq!(refused_read(|_| {}, u64::MAX, 2), told_with_request(0x04));
}

#[test]
fn read_of_nothing_is_not_checked() {
    let mut victim = Victim::new();
    victim.accepts(&read_request(1, address(Stag(1), 2), address(Stag(0xdead), u64::MAX), 0));
    let answer = victim.endpoint.next_fpdu().unwrap();
    assert_eq!((opcode_of(&answer), is_last(&answer)), (RdmapOpcode::READ_RESPONSE, true));
    assert!(tagged_of(&answer).1.is_empty());
}

#[test]
fn read_whose_source_goes_away_while_it_is_answered() {
    let mut victim = Victim::new();
    let sink = address(Stag(5), 6);
    victim.accepts(&read_request(1, sink, address(victim.stag, BASE), 4000));
    let first = victim.endpoint.next_fpdu().unwrap();
    let sent = tagged_of(&first).1.len();
    victim.endpoint.memory.change(victim.stag, |region| region.valid = false);
    let fpdu = victim.endpoint.next_fpdu().unwrap();
    let (header, payload) = untagged_of(&fpdu);
    assert_eq!(header.rdmap.opcode(), RdmapOpcode::TERMINATE);
    let terminate = Terminate::parse(&payload).unwrap();
    assert_eq!((terminate.layer, terminate.kind, terminate.code), (Layer::RDMAP, 1, 0x00));
    let request = terminate.headers.read_request.unwrap();
    assert_eq!(request.sink_offset.get(), 6 + sent as u64, "RFC 5040 §4.8: where it stopped");
    assert_eq!(request.source_offset.get(), BASE + sent as u64);
    assert_eq!(request.length.get(), 4000 - sent as u32);
    assert!(terminate.headers.ddp.is_some());
    victim.endpoint.flush();
    assert_eq!(victim.endpoint.memory.holds(), 0);
}

fn refused_atomic(change: impl FnOnce(&mut Region), offset: u64) -> Told {
    let mut victim = Victim::new();
    victim.endpoint.memory.change(victim.stag, change);
    let frame = fetch_add(1, 0, address(victim.stag, offset));
    victim.refuses(&frame)
}

#[test]
fn atomic_on_an_invalid_tag() {
    assert_eq!(refused_atomic(|region| region.valid = false, BASE), told(0, 1, 0x00));
}

#[test]
fn atomic_outside_the_region() {
    assert_eq!(refused_atomic(|_| {}, BASE + LENGTH as u64), told(0, 1, 0x01));
}

#[test]
fn atomic_on_a_region_that_does_not_allow_it() {
    assert_eq!(refused_atomic(|region| region.denied.push(Access::RemoteAtomic), BASE), told(0, 1, 0x02));
}

#[test]
fn atomic_on_a_region_of_another_protection_domain() {
    assert_eq!(refused_atomic(|region| region.foreign = true, BASE), told(0, 1, 0x03));
}

#[test]
fn atomic_whose_offset_wraps() {
    assert_eq!(refused_atomic(|_| {}, u64::MAX - 7), told(0, 1, 0x04));
}

#[test]
fn send_that_invalidates_an_invalid_tag() {
    let mut victim = Victim::new();
    victim.post_receive(100);
    let frame = untagged(RdmapOpcode::SEND_INVALIDATE, true, 0, 1, 0, &[]).invalidating(Stag(0xdead));
    assert_eq!(victim.refuses(&frame), told(0, 1, 0x00));
    assert_eq!(victim.endpoint.upper.received[0].status, Status::RemoteInvalidRequest);
}

#[test]
fn send_that_invalidates_a_tag_of_another_protection_domain() {
    let mut victim = Victim::new();
    victim.post_receive(100);
    let other = victim.endpoint.memory.register(0, 10);
    victim.endpoint.memory.change(other, |region| region.foreign = true);
    let frame = untagged(RdmapOpcode::SEND_SOLICITED_INVALIDATE, true, 0, 1, 0, &[]).invalidating(other);
    assert_eq!(victim.refuses(&frame), told(0, 1, 0x09));
}

// RDMAP, remote operation: RFC 5040 §4.8, RFC 7306 §8.2.

#[test]
fn segment_of_another_rdmap_version() {
    for version in [0x00, 0x80, 0xc0] {
        let mut victim = Victim::new();
        let frame = victim.write(BASE, 1).with(1, version);
        assert_eq!(victim.refuses(&frame), told(0, 2, 0x05));
        let mut victim = Victim::new();
        assert_eq!(victim.refuses(&send(1, &[]).with(1, version | 3)), told(0, 2, 0x05));
    }
}

#[test]
fn opcode_that_does_not_exist() {
    for opcode in 12..16 {
        let mut victim = Victim::new();
        assert_eq!(victim.refuses(&send(1, &[]).with(1, 0x40 | opcode)), told(0, 2, 0x06));
    }
}

#[test]
fn opcode_with_the_wrong_tagged_flag() {
    for opcode in [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15] {
        let mut victim = Victim::new();
        let frame = victim.write(BASE, 1).with(1, 0x40 | opcode);
        assert_eq!(victim.refuses(&frame), told(0, 2, 0x06), "tagged {opcode}");
    }
    for opcode in [0, 2] {
        let mut victim = Victim::new();
        assert_eq!(victim.refuses(&send(1, &[]).with(1, 0x40 | opcode)), told(0, 2, 0x06), "untagged {opcode}");
    }
}

#[test]
fn opcode_on_the_wrong_queue() {
    let queues = [(3, 0), (8, 0), (1, 1), (10, 1), (7, 2), (11, 3)];
    for (opcode, right) in queues {
        for queue in (0..4).filter(|&queue| queue != right) {
            let mut victim = Victim::new();
            victim.post_receive(100);
            let frame = untagged(RdmapOpcode(opcode), true, queue, 1, 0, &[0; 28]);
            assert_eq!(victim.refuses(&frame), told(0, 2, 0x06), "opcode {opcode} on queue {queue}");
        }
    }
}

#[test]
fn opcode_that_changes_within_a_message() {
    for opcode in [RdmapOpcode::SEND_SOLICITED, RdmapOpcode::IMMEDIATE] {
        let mut victim = Victim::new();
        victim.post_receive(100);
        victim.accepts(&untagged(RdmapOpcode::SEND, false, 0, 1, 0, &[1; 10]));
        let frame = untagged(opcode, true, 0, 1, 10, &[2; 8]);
        assert_eq!(victim.refuses(&frame), told(0, 2, 0x06));
    }
}

#[test]
fn response_that_was_not_asked_for() {
    let mut victim = Victim::new();
    let frame = tagged(RdmapOpcode::READ_RESPONSE, true, victim.stag, BASE, &[1]);
    assert_eq!(victim.refuses(&frame), told(0, 2, 0x06));
    let mut victim = Victim::new();
    assert_eq!(victim.refuses(&atomic_response(1, 1, 0)), told(0, 2, 0x06));
}

#[test]
fn response_of_the_wrong_kind() {
    let mut victim = Victim::new();
    victim.ask();
    assert_eq!(victim.refuses(&atomic_response(1, 1, 0)), told(0, 2, 0x06));
    let mut victim = Victim::new();
    victim.ask_atomic();
    let frame = tagged(RdmapOpcode::READ_RESPONSE, true, victim.stag, BASE, &[1]);
    assert_eq!(victim.refuses(&frame), told(0, 2, 0x06));
}

#[test]
fn atomic_operation_that_does_not_exist() {
    for code in [1, 3, 15] {
        let mut victim = Victim::new();
        let frame = fetch_add(1, code, address(victim.stag, BASE));
        assert_eq!(victim.refuses(&frame), told(0, 2, 0x06));
    }
}

#[test]
fn atomic_on_a_misaligned_address() {
    for offset in 1..8 {
        assert_eq!(refused_atomic(|_| {}, BASE + offset), told(0, 2, 0x07));
    }
}

#[test]
fn response_for_another_tag() {
    let mut victim = Victim::new();
    let other = victim.endpoint.memory.register(BASE, LENGTH);
    victim.ask();
    let frame = tagged(RdmapOpcode::READ_RESPONSE, true, other, BASE, &[1; 100]);
    assert_eq!(victim.refuses(&frame), told(1, 1, 0x00));
}

#[test]
fn response_at_another_offset() {
    for offset in [BASE - 1, BASE + 1] {
        let mut victim = Victim::new();
        victim.ask();
        let frame = tagged(RdmapOpcode::READ_RESPONSE, true, victim.stag, offset, &[1; 99]);
        assert_eq!(victim.refuses(&frame), told(1, 1, 0x01));
    }
}

#[test]
fn response_that_does_not_continue_where_it_was() {
    let mut victim = Victim::new();
    victim.ask();
    victim.accepts(&tagged(RdmapOpcode::READ_RESPONSE, false, victim.stag, BASE, &[1; 50]));
    let frame = tagged(RdmapOpcode::READ_RESPONSE, true, victim.stag, BASE, &[1; 50]);
    assert_eq!(victim.refuses(&frame), told(1, 1, 0x01));
}

#[test]
fn response_longer_than_asked_for() {
    let mut victim = Victim::new();
    victim.ask();
    let frame = tagged(RdmapOpcode::READ_RESPONSE, true, victim.stag, BASE, &[1; 101]);
    assert_eq!(victim.refuses(&frame), told(1, 1, 0x01));
}

#[test]
fn response_that_ends_too_early_or_not_at_all() {
    for (length, last) in [(99, true), (0, true), (100, false)] {
        let mut victim = Victim::new();
        victim.ask();
        let frame = tagged(RdmapOpcode::READ_RESPONSE, last, victim.stag, BASE, &vec![1; length]);
        assert_eq!(victim.refuses(&frame), told(0, 2, 0xff), "{length} bytes, last: {last}");
    }
}

#[test]
fn response_to_another_atomic() {
    let mut victim = Victim::new();
    victim.ask_atomic();
    assert_eq!(victim.refuses(&atomic_response(1, 2, 0)), told(0, 2, 0xff));
}

#[test]
fn messages_of_the_wrong_length() {
    let cases = [
        (RdmapOpcode::IMMEDIATE, 0, 7, true),
        (RdmapOpcode::IMMEDIATE, 0, 9, true),
        (RdmapOpcode::IMMEDIATE_SOLICITED, 0, 0, true),
        (RdmapOpcode::IMMEDIATE, 0, 8, false),
        (RdmapOpcode::READ_REQUEST, 1, 27, true),
        (RdmapOpcode::READ_REQUEST, 1, 28, false),
        (RdmapOpcode::ATOMIC_REQUEST, 1, 51, true),
        (RdmapOpcode::ATOMIC_RESPONSE, 3, 11, true),
        (RdmapOpcode::TERMINATE, 2, 3, true),
    ];
    for (opcode, queue, length, last) in cases {
        let mut victim = Victim::new();
        victim.post_receive(100);
        let frame = untagged(opcode, last, queue, 1, 0, &vec![0; length]);
        assert_eq!(victim.refuses(&frame), told(0, 2, 0xff), "{opcode:?} with {length} bytes, last: {last}");
    }
}

#[test]
fn terminate_that_is_shorter_than_its_control_bits_say() {
    // M and D set, a tagged header announced, one byte of it missing.
    let mut payload = vec![0x11, 0x00, 0xc0, 0x00, 0x00, 0x0e];
    payload.extend(&[0xc1; 13]);
    let mut victim = Victim::new();
    assert_eq!(victim.refuses(&untagged(RdmapOpcode::TERMINATE, true, 2, 1, 0, &payload)), told(0, 2, 0xff));
}

#[test]
fn ulpdu_too_short_for_its_header() {
    for control in [0x41, 0xc1] {
        for length in 1..18 {
            if control == 0xc1 && length >= 14 {
                continue;
            }
            let mut ulpdu = vec![0; length];
            ulpdu[0] = control;
            let frame = Frame { ulpdu };
            let mut victim = Victim::new();
            let error = victim.endpoint.receive(&mut frame.fpdu()).unwrap_err();
            let terminate = error.terminate();
            assert_eq!((terminate.layer, terminate.kind, terminate.code), (Layer::RDMAP, 2, 0xff));
            assert_eq!(terminate.headers.segment_length, Some(length as u16));
            assert_eq!(terminate.headers.ddp, None);
        }
    }
    let mut victim = Victim::new();
    victim.endpoint.receive(&mut Frame { ulpdu: vec![] }.fpdu()).unwrap_err();
}

// RDMAP, local catastrophic: our own memory.

#[test]
fn receive_whose_memory_is_gone() {
    let mut victim = Victim::new();
    victim.endpoint.post_receive(3, &[segment(Stag(0xdead), 0, 100)]);
    assert_eq!(victim.refuses(&send(1, &[1])), told_alone(0, 0, 0x00));
    assert_eq!(victim.endpoint.upper.received[0].status, Status::LocalProtection);
}

#[test]
fn read_whose_sink_is_gone_when_the_response_comes() {
    let mut victim = Victim::new();
    victim.ask();
    victim.endpoint.memory.change(victim.stag, |region| region.valid = false);
    let mut bytes = tagged(RdmapOpcode::READ_RESPONSE, true, victim.stag, BASE, &[1; 100]).fpdu();
    let error = victim.endpoint.receive(&mut bytes).unwrap_err();
    assert_eq!(victim.told(&error, &[]), told_alone(0, 0, 0x00));
    assert_eq!(victim.endpoint.upper.sent[0].status, Status::LocalProtection);
}

#[test]
fn after_an_error_everything_is_swallowed_and_nothing_done() {
    let mut victim = Victim::new();
    victim.refuses(&send(9, &[]));
    let mut more = victim.write(BASE, 10).fpdu();
    more.extend([1, 2, 3]);
    let length = more.len();
    assert_eq!(victim.endpoint.receive(&mut more), Ok(length));
    assert_eq!(victim.endpoint.memory.read(victim.stag, BASE, 10), [0; 10]);
    assert_eq!(victim.endpoint.inbound.handle_end_of_stream(), Ok(()));
}

#[test]
fn a_responder_says_nothing_before_it_received_a_valid_fpdu() {
    let mut endpoint = Endpoint::new(&agreed(Role::Responder));
    let mut bytes = send(1, &[]).fpdu();
    let length = bytes.len();
    bytes[length - 1] ^= 1;
    let error = endpoint.receive(&mut bytes).unwrap_err();
    endpoint.outbound.terminate(error.terminate());
    assert!(endpoint.next_fpdu().is_none());
    assert!(endpoint.outbound.is_terminated(), "there is nothing to wait for");
}

#[test]
fn every_terminate_reads_back_as_it_was_written() {
    let header = TaggedHeader::read_from_bytes(&[0xc1, 0x40, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]).unwrap();
    let untagged = UntaggedHeader::read_from_bytes(&send(1, &[]).ulpdu).unwrap();
    let request = crate::terminate::read_request_header(address(Stag(1), 2), address(Stag(3), 4), 5);
    for ddp in [None, Some(DdpHeader::Tagged(header)), Some(DdpHeader::Untagged(untagged))] {
        for read_request in [None, Some(request)] {
            for layer in 0..4 {
                let headers = TerminatedHeaders { segment_length: ddp.map(|_| 99), ddp, read_request };
                let terminate = Terminate { layer: Layer(layer), kind: 2, code: 0xab, headers };
                let mut bytes = [0; crate::terminate::MAX_TERMINATE_LENGTH];
                let length = terminate.encode(&mut bytes);
                assert_eq!(Terminate::parse(&bytes[..length]), Some(terminate));
                assert_eq!(length, 4 + ddp.map_or(0, |_| 2) + header_length(&ddp) + read_request.as_bytes_length());
            }
        }
    }
}

fn header_length(header: &Option<DdpHeader>) -> usize {
    match header {
        Some(DdpHeader::Tagged(header)) => header.as_bytes().len(),
        Some(DdpHeader::Untagged(header)) => header.as_bytes().len(),
        None => 0,
    }
}

trait LengthOrNothing {
    fn as_bytes_length(&self) -> usize;
}

impl LengthOrNothing for Option<ReadRequestHeader> {
    fn as_bytes_length(&self) -> usize {
        self.as_ref().map_or(0, |header| header.as_bytes().len())
    }
}
