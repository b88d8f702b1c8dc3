//! What waits for what: completions in order, fences, ORD, fairness, local invalidation, the end.

use crate::testing::frames::*;
use crate::testing::*;
use crate::wire::RdmapOpcode;
use crate::*;

struct Sender {
    endpoint: Endpoint,
    stag: Stag,
}

impl Sender {
    fn new() -> Self {
        let endpoint = Endpoint::new(&agreed(Role::Initiator));
        let stag = endpoint.memory.register(0, 1 << 20);
        Self { endpoint, stag }
    }

    fn send(&mut self, id: u64, length: u32) {
        let payload = Payload::Segments(one(self.stag, 0, length));
        self.endpoint.post(id, Operation::Send { payload, invalidate: None });
    }

    fn write(&mut self, id: u64, length: u32) {
        let payload = Payload::Segments(one(self.stag, 0, length));
        self.endpoint.post(id, Operation::Write { payload, target: address(Stag(1), 0), immediate: None });
    }

    fn read(&mut self, id: u64) {
        let operation = Operation::Read { sinks: one(self.stag, 0, 4), source: address(Stag(1), 0), invalidate: None };
        self.endpoint.post(id, operation);
    }

    /// The peer answers the oldest Read.
    fn answer(&mut self) {
        let mut bytes = tagged(RdmapOpcode::READ_RESPONSE, true, self.stag, 0, &[0; 4]).fpdu();
        self.endpoint.receive(&mut bytes).unwrap();
    }

    /// The peer asks for `length` bytes, as its request `message`.
    fn ask(&mut self, message: u32, length: u32) {
        let mut bytes = read_request(message, address(Stag(9), 0), address(self.stag, 0), length).fpdu();
        self.endpoint.receive(&mut bytes).unwrap();
    }

    fn record(&mut self) -> Option<Record> {
        let record = self.endpoint.outbound.next(MAX_FPDU, &self.endpoint.memory, &mut self.endpoint.upper);
        self.endpoint.exchange();
        record
    }

    fn acknowledge(&mut self, through: u64) {
        let endpoint = &mut self.endpoint;
        endpoint.outbound.handle_acknowledged(through, &endpoint.memory, &mut endpoint.upper);
    }

    fn completed(&self) -> Vec<(u64, Status)> {
        self.endpoint.upper.sent.iter().map(|completion| (completion.id, completion.status)).collect()
    }

    fn opcodes(&mut self) -> Vec<u8> {
        std::iter::from_fn(|| self.endpoint.next_fpdu()).map(|fpdu| opcode_of(&fpdu).0).collect()
    }
}

fn success(ids: &[u64]) -> Vec<(u64, Status)> {
    ids.iter().map(|&id| (id, Status::Success)).collect()
}

#[test]
fn sends_complete_when_their_last_byte_is_acknowledged() {
    let mut sender = Sender::new();
    sender.send(1, 3000);
    sender.send(2, 10);
    let records: Vec<Record> = std::iter::from_fn(|| sender.record()).collect();
    assert_eq!(records.len(), 4);
    assert_eq!(records[0].start, START);
    for pair in records.windows(2) {
        assert_eq!(pair[0].end(), pair[1].start, "no gaps");
    }
    sender.acknowledge(records[2].end() - 1);
    assert!(sender.completed().is_empty());
    sender.acknowledge(records[2].end());
    assert_eq!(sender.completed(), success(&[1]));
    sender.acknowledge(records[3].end());
    assert_eq!(sender.completed(), success(&[1, 2]));
    assert_eq!(sender.endpoint.memory.holds(), 0);
}

#[test]
fn a_send_behind_a_read_completes_behind_it() {
    let mut sender = Sender::new();
    sender.read(1);
    sender.send(2, 10);
    sender.endpoint.transmit();
    assert!(sender.completed().is_empty(), "the Send is acknowledged, the Read is not answered");
    sender.answer();
    assert_eq!(sender.completed(), success(&[1, 2]));
}

#[test]
fn an_answer_that_overtakes_the_acknowledgement_does_not_complete_yet() {
    let mut sender = Sender::new();
    sender.read(1);
    let record = sender.record().unwrap();
    sender.answer();
    assert!(sender.completed().is_empty(), "the request may have to be sent again");
    let mut bytes = vec![0; record.length as usize];
    sender.endpoint.outbound.write(record.start, &mut bytes, &sender.endpoint.memory);
    sender.acknowledge(record.end());
    assert_eq!(sender.completed(), success(&[1]));
}

#[test]
fn no_more_reads_leave_than_were_agreed_on() {
    let mut sender = Sender::new();
    for id in 1..=6 {
        sender.read(id);
    }
    sender.send(7, 1);
    assert_eq!(sender.opcodes(), [1; 4], "and what is behind waits, in order");
    assert!(!sender.endpoint.outbound.has_work());
    sender.answer();
    assert!(sender.endpoint.outbound.has_work());
    assert_eq!(sender.opcodes(), [1]);
    sender.answer();
    sender.answer();
    assert_eq!(sender.opcodes(), [1, 3]);
}

#[test]
fn a_fenced_request_waits_for_all_earlier_reads_but_not_for_writes() {
    let mut sender = Sender::new();
    sender.read(1);
    sender.write(2, 10);
    let fenced = SendRequest { fence: true, ..request(3, send_inline(b"fenced")) };
    sender.endpoint.outbound.post(fenced).unwrap();
    sender.send(4, 1);
    assert_eq!(sender.opcodes(), [1, 0]);
    sender.answer();
    assert_eq!(sender.opcodes(), [3, 3]);
}

#[test]
fn local_invalidation_waits_for_all_before_and_holds_up_all_behind() {
    let mut sender = Sender::new();
    let stag = sender.stag;
    sender.send(1, 10);
    sender.endpoint.post(2, Operation::LocalInvalidate { stag });
    sender.endpoint.post(3, send_inline(b"inline"));
    let first = sender.record().unwrap();
    assert!(sender.record().is_none(), "the Send may have to be written again");
    sender.acknowledge(first.end());
    assert_eq!(sender.completed(), success(&[1, 2]));
    sender.endpoint.memory.check(stag, TaggedOffset(0), 1, Access::LocalRead).unwrap_err();
    sender.endpoint.transmit();
    assert_eq!(sender.completed(), success(&[1, 2, 3]));
}

#[test]
fn a_local_invalidation_alone_is_work() {
    let mut sender = Sender::new();
    sender.endpoint.post(1, Operation::LocalInvalidate { stag: sender.stag });
    assert!(sender.endpoint.outbound.has_work());
    assert!(sender.record().is_none());
    assert_eq!(sender.completed(), success(&[1]));
    assert_eq!(sender.endpoint.upper.sent[0].opcode, Opcode::LocalInvalidate);
    assert!(sender.endpoint.outbound.is_idle());
}

#[test]
fn a_local_invalidation_that_fails_ends_the_connection() {
    let mut sender = Sender::new();
    sender.endpoint.post(1, Operation::LocalInvalidate { stag: Stag(0xdead) });
    sender.send(2, 10);
    assert_eq!(sender.opcodes(), [7]);
    assert_eq!(sender.completed(), [(1, Status::LocalProtection), (2, Status::Flushed)]);
}

#[test]
fn memory_that_may_not_be_sent_fails_its_request_and_ends_the_connection() {
    for access in [Access::LocalRead, Access::LocalWrite] {
        let mut sender = Sender::new();
        sender.send(1, 10);
        let bad = sender.endpoint.memory.register(0, 10);
        sender.endpoint.memory.change(bad, |region| region.denied.push(access));
        let operation = match access {
            Access::LocalRead => Operation::Send { payload: Payload::Segments(one(bad, 0, 10)), invalidate: None },
            _ => Operation::Read { sinks: one(bad, 0, 10), source: address(Stag(1), 0), invalidate: None },
        };
        sender.endpoint.post(2, operation);
        sender.send(3, 10);
        let first = sender.record().unwrap();
        let fpdu = sender.endpoint.next_fpdu().unwrap();
        let (_, payload) = untagged_of(&fpdu);
        assert_eq!(opcode_of(&fpdu), RdmapOpcode::TERMINATE);
        assert_eq!(payload, [0; 4], "RFC 5040 §7.1 case 1: no headers");
        assert!(sender.endpoint.outbound.is_ending());
        assert!(sender.completed().is_empty(), "the first Send is not acknowledged");
        sender.acknowledge(first.end());
        assert_eq!(sender.completed(), [(1, Status::Success), (2, Status::LocalProtection), (3, Status::Flushed)]);
        assert_eq!(sender.endpoint.memory.holds(), 0);
        assert!(!sender.endpoint.outbound.is_terminated());
        sender.acknowledge(first.end() + fpdu.len() as u64);
        assert!(sender.endpoint.outbound.is_terminated());
    }
}

#[test]
fn a_terminate_goes_out_at_once_and_is_the_last_record() {
    let mut sender = Sender::new();
    sender.send(1, 100_000);
    sender.ask(1, 100_000);
    sender.record().unwrap();
    sender.endpoint.outbound.terminate(Terminate::LOCAL_CATASTROPHIC);
    sender.endpoint.outbound.terminate(Terminate::mpa(2));
    let fpdu = sender.endpoint.next_fpdu().unwrap();
    assert_eq!(untagged_of(&fpdu).1, [0; 4], "the first one counts");
    assert!(sender.record().is_none() && !sender.endpoint.outbound.has_work());
    sender.endpoint.flush();
    assert_eq!(sender.completed(), [(1, Status::Flushed)]);
    assert_eq!(sender.endpoint.memory.holds(), 0);
}

#[test]
fn flushing_completes_everything_once_and_in_order() {
    let mut sender = Sender::new();
    sender.send(1, 10);
    sender.read(2);
    sender.write(3, 5000);
    sender.send(4, 10);
    let first = sender.record().unwrap();
    sender.record().unwrap();
    sender.record().unwrap();
    sender.endpoint.outbound.handle_acknowledged(first.end(), &sender.endpoint.memory, &mut sender.endpoint.upper);
    sender.endpoint.flush();
    let flushed = [2, 3, 4].map(|id| (id, Status::Flushed));
    assert_eq!(sender.completed(), [&success(&[1])[..], &flushed].concat());
    assert_eq!(sender.endpoint.memory.holds(), 0);
    assert!(sender.record().is_none());
    sender.endpoint.flush();
    assert_eq!(sender.completed().len(), 4);
}

#[test]
fn what_is_done_behind_what_is_not_is_flushed_too() {
    let mut sender = Sender::new();
    sender.read(1);
    sender.send(2, 10);
    sender.endpoint.transmit();
    sender.endpoint.flush();
    assert_eq!(sender.completed(), [(1, Status::Flushed), (2, Status::Flushed)]);
}

#[test]
fn a_half_received_message_gives_its_receive_back_as_flushed() {
    let mut sender = Sender::new();
    sender.endpoint.post_receive(5, &[segment(sender.stag, 0, 100)]);
    let mut bytes = untagged(RdmapOpcode::SEND, false, 0, 1, 0, &[1; 10]).fpdu();
    sender.endpoint.receive(&mut bytes).unwrap();
    assert_eq!(sender.endpoint.memory.holds(), 1);
    sender.endpoint.flush();
    let received = sender.endpoint.upper.received[0];
    assert_eq!((received.id, received.status), (5, Status::Flushed));
    assert_eq!(sender.endpoint.memory.holds(), 0);
}

#[test]
fn requests_of_the_peer_that_come_after_the_end_are_not_answered_and_hold_nothing() {
    let mut sender = Sender::new();
    sender.ask(1, 1000);
    sender.endpoint.outbound.terminate(Terminate::LOCAL_CATASTROPHIC);
    sender.ask(2, 1000);
    sender.endpoint.flush();
    sender.endpoint.exchange();
    assert_eq!(sender.endpoint.memory.holds(), 0);
}

#[test]
fn responses_and_sends_take_turns_segment_by_segment() {
    let mut sender = Sender::new();
    sender.ask(1, 40_000);
    sender.send(1, 40_000);
    let opcodes = sender.opcodes();
    let mut runs = vec![(opcodes[0], 0)];
    for opcode in opcodes {
        match runs.last_mut() {
            Some((last, count)) if *last == opcode => *count += 1,
            _ => runs.push((opcode, 1)),
        }
    }
    runs.pop();
    assert!(runs.len() > 10);
    assert!(runs.iter().all(|&(_, count)| count == 4), "runs of four: {runs:?}");
}

#[test]
fn a_write_is_never_interrupted_by_a_response_nor_a_response_by_a_write() {
    // A peer may keep track of one tagged message at a time.
    let mut sender = Sender::new();
    for message in 1..=3 {
        sender.ask(message, 10_000);
        sender.write(u64::from(message), 20_000);
    }
    let mut open: Option<u8> = None;
    let mut switches = 0;
    let mut last = None;
    while let Some(fpdu) = sender.endpoint.next_fpdu() {
        let opcode = opcode_of(&fpdu).0;
        assert!(open.is_none_or(|open| open == opcode), "{opcode} inside {open:?}");
        open = (!is_last(&fpdu)).then_some(opcode);
        switches += usize::from(last.replace(opcode) != Some(opcode));
    }
    assert!(switches >= 6, "they alternate: {switches} switches");
    assert_eq!(open, None);
}

#[test]
fn a_long_write_lets_responses_pass_now_and_then() {
    let mut sender = Sender::new();
    sender.write(1, 500_000);
    for _ in 0..10 {
        assert_eq!(opcode_of(&sender.endpoint.next_fpdu().unwrap()), RdmapOpcode::WRITE);
    }
    sender.ask(1, 100);
    let opcodes: Vec<u8> = (0..3).map(|_| opcode_of(&sender.endpoint.next_fpdu().unwrap()).0).collect();
    assert!(opcodes.contains(&2), "the response does not wait for 500 kB: {opcodes:?}");
}

#[test]
fn a_write_with_immediate_is_one_write_whatever_else_is_to_send() {
    let mut sender = Sender::new();
    sender.ask(1, 100_000);
    let payload = Payload::Segments(one(sender.stag, 0, 50_000));
    let target = address(Stag(1), 0);
    sender.endpoint.post(1, Operation::Write { payload, target, immediate: Some([1; 8]) });
    let writes_that_end = std::iter::from_fn(|| sender.endpoint.next_fpdu())
        .filter(|fpdu| opcode_of(fpdu) == RdmapOpcode::WRITE && is_last(fpdu))
        .count();
    assert_eq!(writes_that_end, 1);
}

#[test]
fn responses_pause_at_the_limit_of_retained_bytes_and_sends_go_on() {
    let mut sender = Sender::new();
    sender.endpoint.outbound.set_segment_size(MAX_FPDU);
    for message in 1..=4 {
        sender.ask(message, 1 << 20);
    }
    for _ in 0..3 {
        sender.endpoint.post(1, send_inline(b"x"));
    }
    let records: Vec<Record> = std::iter::from_fn(|| sender.record()).collect();
    let retained = sender.endpoint.outbound.statistics().retained_bytes;
    assert!(retained >= MAX_RETAINED_BYTES as u64 && retained < (MAX_RETAINED_BYTES + MAX_FPDU) as u64);
    sender.send(2, 1);
    assert_eq!(sender.opcodes(), [3]);
    sender.acknowledge(records.last().unwrap().end());
    assert_eq!(sender.endpoint.outbound.statistics().retained_bytes, 0);
    assert!(sender.endpoint.outbound.has_work());
}

#[test]
fn records_pause_at_their_limit() {
    let mut sender = Sender::new();
    sender.write(1, 1 << 20);
    sender.write(2, 1 << 20);
    let records: Vec<Record> = std::iter::from_fn(|| sender.record()).collect();
    assert_eq!(records.len(), MAX_UNACKNOWLEDGED_RECORDS);
    assert!(!sender.endpoint.outbound.has_work());
    sender.acknowledge(records[0].end());
    assert!(sender.endpoint.outbound.has_work());
    assert!(sender.record().is_some());
}

#[test]
fn a_record_fits_the_segment_size_and_the_room() {
    for size in [1460, 1448, 1447, 8960, 536, 65_535, 1 << 20] {
        let mut sender = Sender::new();
        sender.endpoint.outbound.set_segment_size(size);
        sender.send(1, 200_000);
        let first = sender.record().unwrap();
        assert!(first.length as usize <= size && first.length as usize > size.min(MAX_FPDU) - 8, "{size}: {first:?}");
    }
}

#[test]
fn room_that_is_too_small_is_waited_for_as_long_as_more_is_coming() {
    let mut sender = Sender::new();
    sender.send(1, 10_000);
    let next = |sender: &mut Sender, room| {
        sender.endpoint.outbound.next(room, &sender.endpoint.memory, &mut sender.endpoint.upper)
    };
    let first = next(&mut sender, 1460).unwrap();
    assert_eq!(next(&mut sender, 1459), None);
    sender.acknowledge(first.end());
    let second = next(&mut sender, 1000).unwrap();
    assert!(second.length <= 1000 && second.length > 990, "nothing is under way: this is all the room there is");
    sender.acknowledge(second.end());
    assert_eq!(next(&mut sender, 100), None, "RFC 5044 §4.5: not below 128 bytes");
}

#[test]
fn segments_never_shrink_below_128_bytes_of_ulpdu() {
    let mut sender = Sender::new();
    sender.endpoint.outbound.set_segment_size(40);
    sender.send(1, 1000);
    let fpdu = sender.endpoint.next_fpdu().unwrap();
    assert_eq!(u16::from_be_bytes([fpdu[0], fpdu[1]]), 128);
}
