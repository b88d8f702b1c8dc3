//! Every operation, from posting to completion on both sides.

use crate::testing::frames::*;
use crate::testing::*;
use crate::wire::RdmapOpcode;
use crate::*;

/// A pair with a region of 64 KiB at 0x10000 on both sides.
struct Setup {
    pair: Pair,
    ours: Stag,
    theirs: Stag,
}

const BASE: u64 = 0x1_0000;

impl Setup {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl Fn(&mut Negotiated)) -> Self {
        let pair = Pair::with(change);
        let ours = pair.initiator.memory.register(BASE, 0x1_0000);
        let theirs = pair.responder.memory.register(BASE, 0x1_0000);
        Self { pair, ours, theirs }
    }

    fn run(&mut self) {
        self.pair.run();
        assert_eq!(self.pair.initiator.error, None);
        assert_eq!(self.pair.responder.error, None);
    }

    /// Checks that everything is done and nothing is held.
    fn is_at_rest(&self) {
        assert!(self.pair.initiator.outbound.is_idle() && self.pair.responder.outbound.is_idle());
        assert_eq!(self.pair.initiator.memory.holds(), 0);
        assert_eq!(self.pair.responder.memory.holds(), 0);
    }

    fn sent(&self) -> Vec<(u64, Status)> {
        self.pair.initiator.upper.sent.iter().map(|completion| (completion.id, completion.status)).collect()
    }

    fn received(&self, index: usize) -> Completion {
        self.pair.responder.upper.received[index]
    }

    fn atomic(&mut self, id: u64, operation: AtomicOperation) {
        let (sink, target) = (segment(self.ours, BASE + 8 * id, 8), address(self.theirs, BASE + 16));
        self.pair.initiator.post(id, Operation::Atomic { sink, target, operation });
    }

    fn value(&self, id: u64) -> u64 {
        u64::from_ne_bytes(self.pair.initiator.memory.read(self.ours, BASE + 8 * id, 8).try_into().unwrap())
    }
}

fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length)
        .map(|index| (index as u8).wrapping_mul(31).wrapping_add((index >> 8) as u8).wrapping_add(seed))
        .collect()
}

#[test]
fn a_send_lands_in_the_receive_and_completes_on_both_sides() {
    let mut setup = Setup::new();
    let data = pattern(10_000, 1);
    setup.pair.initiator.memory.write(setup.ours, BASE, &data);
    setup.pair.responder.post_receive(7, &[segment(setup.theirs, BASE, 10_000)]);
    let payload = Payload::Segments(one(setup.ours, BASE, 10_000));
    setup.pair.initiator.post(5, Operation::Send { payload, invalidate: None });
    setup.run();
    assert_eq!(setup.pair.responder.memory.read(setup.theirs, BASE, 10_000), data);
    let received = setup.received(0);
    assert_eq!((received.id, received.status, received.opcode), (7, Status::Success, Opcode::Receive));
    assert_eq!((received.length, received.solicited, received.invalidated), (10_000, false, None));
    let sent = setup.pair.initiator.upper.sent[0];
    assert_eq!((sent.id, sent.status, sent.opcode, sent.length), (5, Status::Success, Opcode::Send, 10_000));
    setup.is_at_rest();
}

#[test]
fn gather_and_scatter_need_not_match() {
    let mut setup = Setup::new();
    let data = pattern(5000, 3);
    let (ours, theirs) = (setup.ours, setup.theirs);
    let from = [
        segment(ours, BASE, 1),
        segment(ours, BASE + 100, 0),
        segment(ours, BASE + 200, 2999),
        segment(ours, BASE + 9000, 2000),
    ];
    let mut at = 0;
    for piece in &from {
        setup.pair.initiator.memory.write(ours, piece.offset.0, &data[at..at + piece.length as usize]);
        at += piece.length as usize;
    }
    let to = [segment(theirs, BASE + 7, 1499), segment(theirs, BASE + 3000, 0), segment(theirs, BASE + 5000, 4000)];
    setup.pair.responder.post_receive(1, &to);
    let payload = Payload::Segments(SegmentList::new(&from).unwrap());
    setup.pair.initiator.post(1, Operation::Send { payload, invalidate: None });
    setup.run();
    let memory = &setup.pair.responder.memory;
    let landed = [memory.read(theirs, BASE + 7, 1499), memory.read(theirs, BASE + 5000, 3501)].concat();
    assert_eq!(landed, data);
    assert_eq!(setup.received(0).length, 5000);
    setup.is_at_rest();
}

#[test]
fn a_write_lands_at_its_address_and_tells_the_peer_nothing() {
    let mut setup = Setup::new();
    let data = pattern(5000, 2);
    setup.pair.initiator.memory.write(setup.ours, BASE, &data);
    let payload = Payload::Segments(one(setup.ours, BASE, 5000));
    let target = address(setup.theirs, BASE + 1);
    setup.pair.initiator.post(1, Operation::Write { payload, target, immediate: None });
    setup.run();
    assert_eq!(setup.pair.responder.memory.read(setup.theirs, BASE + 1, 5000), data);
    assert_eq!(setup.pair.responder.memory.read(setup.theirs, BASE, 1), [0]);
    assert!(setup.pair.responder.upper.received.is_empty());
    assert_eq!(setup.pair.initiator.upper.sent[0].opcode, Opcode::Write);
    assert_eq!(setup.pair.responder.inbound.statistics().placed_bytes, 5000);
    setup.is_at_rest();
}

#[test]
fn a_whole_segment_is_placed_in_one_step() {
    let mut setup = Setup::new();
    let payload = Payload::Segments(one(setup.ours, BASE, 1000));
    setup.pair.initiator.post(1, Operation::Write { payload, target: address(setup.theirs, BASE), immediate: None });
    let fpdu = setup.pair.initiator.next_fpdu().unwrap();
    let parts: Vec<&[u8]> = fpdu.chunks(200).collect();
    let responder = &mut setup.pair.responder;
    assert_eq!(responder.inbound.handle_bytes(&parts, &responder.memory, &mut responder.upper), Ok(fpdu.len()));
    assert_eq!(responder.memory.placements(setup.theirs), 1);
}

#[test]
fn a_write_with_immediate_completes_a_receive_of_the_peer_behind_the_data() {
    let mut setup = Setup::new();
    setup.pair.initiator.memory.write(setup.ours, BASE, &pattern(3000, 9));
    setup.pair.responder.post_receive(4, &[]);
    let payload = Payload::Segments(one(setup.ours, BASE, 3000));
    let write = Operation::Write { payload, target: address(setup.theirs, BASE), immediate: Some(*b"immediat") };
    setup.pair.initiator.outbound.post(SendRequest { solicited: true, ..request(8, write) }).unwrap();
    setup.run();
    assert_eq!(setup.pair.responder.memory.read(setup.theirs, BASE, 3000), pattern(3000, 9));
    let received = setup.received(0);
    assert_eq!((received.id, received.opcode, received.length), (4, Opcode::ReceiveImmediate, 3000));
    assert_eq!((received.immediate, received.solicited), (Some(*b"immediat"), true));
    assert_eq!(setup.sent(), [(8, Status::Success)], "one request, one completion");
    setup.is_at_rest();
}

#[test]
fn immediate_data_alone_takes_a_receive_and_carries_no_length() {
    let mut setup = Setup::new();
    setup.pair.responder.post_receive(1, &[]);
    setup.pair.responder.post_receive(2, &[segment(setup.theirs, BASE, 100)]);
    setup.pair.initiator.post(1, Operation::Immediate { data: [1; 8] });
    setup.pair.initiator.post(2, send_inline(b"behind"));
    setup.run();
    assert_eq!((setup.received(0).immediate, setup.received(0).length), (Some([1; 8]), 0));
    assert_eq!((setup.received(1).id, setup.received(1).length), (2, 6));
    setup.is_at_rest();
}

#[test]
fn messages_of_no_bytes_are_messages() {
    let mut setup = Setup::new();
    let nothing = || Payload::Segments(SegmentList::default());
    setup.pair.responder.post_receive(1, &[]);
    setup.pair.responder.post_receive(2, &[]);
    setup.pair.initiator.post(1, Operation::Send { payload: nothing(), invalidate: None });
    setup.pair.initiator.post(2, Operation::Write { payload: nothing(), target: address(Stag(9), 9), immediate: None });
    setup
        .pair
        .initiator
        .post(3, Operation::Write { payload: nothing(), target: address(Stag(9), 9), immediate: Some([3; 8]) });
    let sinks = SegmentList::default();
    setup.pair.initiator.post(4, Operation::Read { sinks, source: address(Stag(9), 9), invalidate: None });
    setup.run();
    assert_eq!(setup.sent(), [1, 2, 3, 4].map(|id| (id, Status::Success)));
    assert_eq!(setup.received(0).length, 0);
    assert_eq!((setup.received(1).immediate, setup.received(1).length), (Some([3; 8]), 0));
    setup.is_at_rest();
}

#[test]
fn inline_data_is_the_data_of_the_moment_of_posting() {
    let mut setup = Setup::new();
    setup.pair.responder.post_receive(1, &[segment(setup.theirs, BASE, 100)]);
    setup.pair.initiator.post(1, send_inline(b"inline"));
    let payload = Payload::Inline(b"written"[..].into());
    setup
        .pair
        .initiator
        .post(2, Operation::Write { payload, target: address(setup.theirs, BASE + 50), immediate: None });
    setup.run();
    assert_eq!(setup.pair.responder.memory.read(setup.theirs, BASE, 6), b"inline");
    assert_eq!(setup.pair.responder.memory.read(setup.theirs, BASE + 50, 7), b"written");
    setup.is_at_rest();
}

#[test]
fn a_read_fetches_and_completes_when_it_is_answered() {
    let mut setup = Setup::new();
    let data = pattern(20_000, 4);
    setup.pair.responder.memory.write(setup.theirs, BASE + 10, &data);
    let sinks = one(setup.ours, BASE + 3, 20_000);
    setup.pair.initiator.post(1, Operation::Read { sinks, source: address(setup.theirs, BASE + 10), invalidate: None });
    setup.pair.initiator.transmit();
    assert!(setup.sent().is_empty(), "leaving is not enough");
    setup.run();
    assert_eq!(setup.pair.initiator.memory.read(setup.ours, BASE + 3, 20_000), data);
    let completion = setup.pair.initiator.upper.sent[0];
    assert_eq!((completion.opcode, completion.length, completion.status), (Opcode::Read, 20_000, Status::Success));
    setup.is_at_rest();
}

#[test]
fn a_read_needs_only_local_writing_at_its_sink() {
    let mut setup = Setup::new();
    setup.pair.initiator.memory.change(setup.ours, |region| {
        region.denied = vec![Access::RemoteWrite, Access::RemoteRead, Access::LocalRead];
    });
    setup.pair.responder.memory.change(setup.theirs, |region| {
        region.denied = vec![Access::RemoteWrite, Access::LocalWrite, Access::LocalRead];
    });
    let sinks = one(setup.ours, BASE, 100);
    setup.pair.initiator.post(1, Operation::Read { sinks, source: address(setup.theirs, BASE), invalidate: None });
    setup.run();
    assert_eq!(setup.sent(), [(1, Status::Success)]);
}

#[test]
fn a_read_into_several_sinks_is_several_requests_and_one_completion() {
    let mut setup = Setup::with(|negotiated| (negotiated.ird, negotiated.ord) = (2, 2));
    let data = pattern(9000, 5);
    setup.pair.responder.memory.write(setup.theirs, BASE, &data);
    let ours = setup.ours;
    let sinks = [(0, 10), (100, 0), (200, 4000), (5000, 1), (6000, 4989)];
    let sinks: Vec<Segment> = sinks.iter().map(|&(at, length)| segment(ours, BASE + at, length)).collect();
    let source = address(setup.theirs, BASE);
    setup
        .pair
        .initiator
        .post(6, Operation::Read { sinks: SegmentList::new(&sinks).unwrap(), source, invalidate: None });
    assert_eq!(setup.pair.initiator.transmit(), 2, "ORD holds for the parts");
    setup.run();
    let read: Vec<u8> = sinks
        .iter()
        .flat_map(|sink| setup.pair.initiator.memory.read(ours, sink.offset.0, sink.length as usize))
        .collect();
    assert_eq!(read, data);
    assert_eq!(setup.sent(), [(6, Status::Success)]);
    assert_eq!(setup.pair.initiator.outbound.statistics().messages.read_requests, 4);
    setup.is_at_rest();
}

#[test]
fn a_read_with_invalidate_makes_its_tag_invalid_when_it_is_done() {
    let mut setup = Setup::new();
    let sinks = one(setup.ours, BASE, 10);
    let (source, invalidate) = (address(setup.theirs, BASE), Some(setup.ours));
    setup.pair.initiator.post(1, Operation::Read { sinks, source, invalidate });
    setup.run();
    assert_eq!(setup.sent(), [(1, Status::Success)]);
    let memory = &setup.pair.initiator.memory;
    memory.check(setup.ours, TaggedOffset(BASE), 1, Access::LocalRead).unwrap_err();
    setup.is_at_rest();
}

#[test]
fn the_four_sends_say_what_they_are() {
    let mut setup = Setup::new();
    let victim = setup.pair.responder.memory.register(0, 16);
    let other = setup.pair.responder.memory.register(0, 16);
    for id in 0..4 {
        setup.pair.responder.post_receive(id, &[segment(setup.theirs, BASE, 10)]);
    }
    for (id, solicited, invalidate) in
        [(0, false, None), (1, false, Some(victim)), (2, true, None), (3, true, Some(other))]
    {
        let operation = Operation::Send { payload: Payload::Inline([id as u8][..].into()), invalidate };
        setup.pair.initiator.outbound.post(SendRequest { solicited, ..request(id, operation) }).unwrap();
    }
    setup.run();
    let seen: Vec<_> = (0..4).map(|index| setup.received(index)).map(|c| (c.solicited, c.invalidated)).collect();
    assert_eq!(seen, [(false, None), (false, Some(victim)), (true, None), (true, Some(other))]);
    for stag in [victim, other] {
        setup.pair.responder.memory.check(stag, TaggedOffset(0), 1, Access::LocalRead).unwrap_err();
    }
    setup.is_at_rest();
}

#[test]
fn atomics_are_executed_once_and_give_the_value_before() {
    let mut setup = Setup::new();
    setup.pair.responder.memory.write(setup.theirs, BASE + 16, &40u64.to_ne_bytes());
    let swap =
        |compare, swap| AtomicOperation::CompareSwap { compare, compare_mask: u64::MAX, swap, swap_mask: u64::MAX };
    setup.atomic(0, AtomicOperation::FetchAdd { add: 2, mask: 0 });
    setup.atomic(1, swap(42, 100));
    setup.atomic(2, swap(42, 200));
    setup.atomic(3, AtomicOperation::FetchAdd { add: u64::MAX, mask: 0 });
    setup.atomic(4, AtomicOperation::CompareSwap { compare: 0, compare_mask: 0, swap: 0xff00, swap_mask: 0xff00 });
    setup.run();
    assert_eq!([0, 1, 2, 3, 4].map(|id| setup.value(id)), [40, 42, 100, 100, 99]);
    assert_eq!(setup.pair.responder.memory.read(setup.theirs, BASE + 16, 8), 0xff63u64.to_ne_bytes());
    let opcodes: Vec<Opcode> = setup.pair.initiator.upper.sent.iter().map(|completion| completion.opcode).collect();
    use Opcode::{CompareSwap, FetchAdd};
    assert_eq!(opcodes, [FetchAdd, CompareSwap, CompareSwap, FetchAdd, CompareSwap]);
    setup.is_at_rest();
}

#[test]
fn reads_and_atomics_are_answered_in_the_order_they_were_asked() {
    let mut setup = Setup::new();
    for id in 0..12 {
        if id % 2 == 0 {
            setup.atomic(id, AtomicOperation::FetchAdd { add: 1, mask: 0 });
        } else {
            let sinks = one(setup.ours, BASE + 1000 + 100 * id, 64);
            let source = address(setup.theirs, BASE);
            setup.pair.initiator.post(id, Operation::Read { sinks, source, invalidate: None });
        }
    }
    setup.run();
    assert_eq!(setup.sent(), (0..12).map(|id| (id, Status::Success)).collect::<Vec<_>>());
    assert_eq!([0, 2, 4, 6, 8, 10].map(|id| setup.value(id)), [0, 1, 2, 3, 4, 5]);
    setup.is_at_rest();
}

#[test]
fn a_message_without_a_receive_waits_and_is_not_lost() {
    let mut setup = Setup::new();
    setup.pair.initiator.post(1, send_inline(b"early"));
    setup.pair.initiator.post(2, send_inline(b"second"));
    setup.run();
    assert!(setup.pair.responder.inbound.is_waiting_for_receive());
    let waiting = setup.pair.initiator.wire.clone();
    assert_eq!(setup.pair.initiator.outbound.statistics().fpdus, 2);
    assert!(!waiting.is_empty(), "nothing was consumed");
    setup.pair.responder.post_receive(1, &[segment(setup.theirs, BASE, 100)]);
    setup.run();
    assert!(setup.pair.responder.inbound.is_waiting_for_receive(), "for the second");
    setup.pair.responder.post_receive(2, &[segment(setup.theirs, BASE + 100, 100)]);
    setup.run();
    assert!(!setup.pair.responder.inbound.is_waiting_for_receive());
    assert_eq!(setup.pair.responder.memory.read(setup.theirs, BASE, 5), b"early");
    assert_eq!(setup.pair.responder.memory.read(setup.theirs, BASE + 100, 6), b"second");
    assert_eq!(setup.pair.responder.inbound.statistics().receive_waits, 2, "not once an attempt");
    setup.is_at_rest();
}

#[test]
fn a_waiting_message_opens_the_gate_of_a_responder_all_the_same() {
    let mut setup = Setup::new();
    setup.pair.initiator.post_receive(1, &[segment(setup.ours, BASE, 10)]);
    setup.pair.responder.post(1, send_inline(b"answer"));
    setup.run();
    assert_eq!(setup.pair.responder.outbound.statistics().fpdus, 0, "RFC 5044 §7.1.2 rule 4");
    setup.pair.initiator.post(1, send_inline(b"question"));
    setup.run();
    assert_eq!(setup.pair.initiator.upper.received[0].length, 6);
}

#[test]
fn a_ready_to_receive_message_opens_the_connection_and_leaves_no_trace() {
    for rtr in [RtrKind::Send, RtrKind::Write, RtrKind::Read] {
        let mut setup = Setup::with(|negotiated| {
            (negotiated.rtr, negotiated.ird, negotiated.ord) = (Some(rtr), 0, 0);
        });
        setup.pair.initiator.post_receive(1, &[segment(setup.ours, BASE, 10)]);
        setup.pair.responder.post_receive(2, &[segment(setup.theirs, BASE, 10)]);
        setup.pair.responder.post(7, send_inline(b"hello"));
        setup.run();
        assert_eq!(setup.pair.initiator.upper.received[0].length, 5, "{rtr:?}: the responder may speak first");
        assert!(setup.pair.responder.upper.received.is_empty() && setup.pair.initiator.upper.sent.is_empty());
        setup.pair.initiator.post(3, send_inline(b"hi"));
        setup.run();
        assert_eq!(setup.received(0).length, 2);
        setup.is_at_rest();
    }
}

#[test]
fn an_ordinary_first_send_of_no_bytes_takes_a_receive() {
    let mut setup = Setup::new();
    setup.pair.responder.post_receive(2, &[]);
    setup.pair.initiator.post(3, send_inline(b""));
    setup.run();
    assert_eq!(setup.received(0).id, 2);
}

#[test]
fn markers_stand_every_512_bytes_and_point_back() {
    let mut setup = Setup::with(|negotiated| negotiated.send_markers = true);
    let data = pattern(30_000, 8);
    setup.pair.initiator.memory.write(setup.ours, BASE, &data);
    let payload = || Payload::Segments(one(setup.ours, BASE, 30_000));
    let target = address(setup.theirs, BASE);
    setup.pair.initiator.post(1, Operation::Write { payload: payload(), target, immediate: None });
    setup.pair.initiator.post(2, send_inline(b"x"));
    setup.pair.responder.post_receive(1, &[segment(setup.theirs, BASE, 1)]);
    setup.pair.initiator.transmit();
    let marked = std::mem::take(&mut setup.pair.initiator.wire);

    // Walk it as a receiver that requires markers does: FPDU by FPDU, the CRC over markers too.
    let (mut at, mut plain) = (0, Vec::new());
    while at < marked.len() {
        let begin = at;
        let mut header = None;
        let mut fpdu = Vec::new();
        let mut whole = usize::MAX;
        while fpdu.len() < whole {
            if at % 512 == 0 {
                let back = header.map_or(0, |header| at - header) as u16;
                assert_eq!(marked[at..at + 4], [0, 0, back.to_be_bytes()[0], back.to_be_bytes()[1]], "marker at {at}");
                at += 4;
            }
            header.get_or_insert(at);
            fpdu.extend_from_slice(&marked[at..at + 4]);
            at += 4;
            whole = crate::framing::fpdu_length(usize::from(u16::from_be_bytes([fpdu[0], fpdu[1]])));
        }
        assert!(at - begin <= 1460, "an FPDU fits its segment");
        let crc = crate::framing::crc32c(&marked[begin..at - 4]);
        assert_eq!(marked[at - 4..at], crc.to_le_bytes());
        let bare = crate::framing::crc32c(&fpdu[..fpdu.len() - 4]);
        fpdu.truncate(fpdu.len() - 4);
        fpdu.extend(bare.to_le_bytes());
        plain.extend(fpdu);
    }
    setup.pair.responder.receive(&mut plain).unwrap();
    assert_eq!(setup.pair.responder.memory.read(setup.theirs, BASE + 1, 29_999), data[1..]);
    assert_eq!(setup.received(0).length, 1);
}

#[test]
fn a_terminate_blames_the_request_and_flushes_the_others() {
    let mut setup = Setup::new();
    let read = |stag, offset| Operation::Read {
        sinks: one(setup.ours, BASE, 10),
        source: address(stag, offset),
        invalidate: None,
    };
    let (good, bad) = (read(setup.theirs, BASE), read(setup.theirs, 0));
    setup.pair.initiator.post(1, good);
    setup.run();
    setup.pair.initiator.post(2, bad);
    setup.pair.initiator.post(3, send_inline(b"never"));
    setup.pair.run();
    let received = *setup.pair.initiator.inbound.peer_terminated().unwrap();
    assert_eq!((received.terminate.layer, received.terminate.kind, received.terminate.code), (Layer::RDMAP, 1, 0x01));
    assert_eq!(received.blamed(), Blamed::ReadRequest(MessageSequenceNumber(2)));
    assert!(setup.pair.initiator.outbound.is_ending() && !setup.pair.initiator.outbound.has_work());
    assert!(setup.pair.responder.outbound.is_terminated());
    setup.pair.initiator.flush();
    setup.pair.responder.flush();
    assert_eq!(setup.sent(), [(1, Status::Success), (2, Status::RemoteAccess), (3, Status::Flushed)]);
    setup.is_at_rest();
}

#[test]
fn a_refused_write_is_blamed_if_it_is_still_outstanding() {
    let mut endpoint = Endpoint::new(&agreed(Role::Initiator));
    let stag = endpoint.memory.register(0, 100);
    let write = |offset| Operation::Write {
        payload: Payload::Segments(one(stag, 0, 100)),
        target: address(Stag(0x77), offset),
        immediate: None,
    };
    endpoint.post(1, write(0));
    endpoint.post(2, write(100));
    let fpdus = [endpoint.next_fpdu().unwrap(), endpoint.next_fpdu().unwrap()];
    // The peer refuses the second one before it acknowledged either.
    let mut peer = Endpoint::new(&agreed(Role::Responder));
    let error = peer.receive(&mut fpdus[1].clone()).unwrap_err();
    peer.outbound.terminate(error.terminate());
    endpoint.receive(&mut peer.next_fpdu().unwrap()).unwrap();
    endpoint.flush();
    let sent: Vec<_> = endpoint.upper.sent.iter().map(|c| (c.id, c.status)).collect();
    assert_eq!(sent, [(1, Status::Flushed), (2, Status::RemoteAccess)]);
    assert_eq!(endpoint.memory.holds(), 0);
}

#[test]
fn statistics_count_what_happened() {
    let mut setup = Setup::new();
    setup.pair.responder.post_receive(1, &[segment(setup.theirs, BASE, 100)]);
    setup.pair.responder.post_receive(2, &[]);
    setup.pair.initiator.post(1, send_inline(b"12345"));
    setup.pair.initiator.post(2, Operation::Immediate { data: [0; 8] });
    let sinks = one(setup.ours, BASE, 2000);
    setup.pair.initiator.post(3, Operation::Read { sinks, source: address(setup.theirs, BASE), invalidate: None });
    setup.run();
    let inbound = setup.pair.responder.inbound.statistics();
    assert_eq!((inbound.fpdus, inbound.placed_bytes), (3, 5));
    assert_eq!((inbound.messages.sends, inbound.messages.immediates, inbound.messages.read_requests), (1, 1, 1));
    let outbound = setup.pair.responder.outbound.statistics();
    assert_eq!((outbound.fpdus, outbound.payload_bytes, outbound.messages.read_responses), (2, 2000, 1));
}

#[test]
fn posting_what_cannot_be_is_refused_and_queues_nothing() {
    let limits = Limits { send_queue_depth: 2, max_message_length: 1000, ..Limits::default() };
    let mut negotiated = agreed(Role::Initiator);
    negotiated.ord = 0;
    let mut endpoint = Endpoint::with(&negotiated, &limits, Retention::None);
    let mut refuse = |operation| endpoint.outbound.post(request(1, operation)).unwrap_err();
    let long = Payload::Segments(one(Stag(1), 0, 1001));
    assert_eq!(
        refuse(Operation::Send { payload: long, invalidate: None }),
        PostError::TooLong { length: 1001, limit: 1000 }
    );
    let inline = Payload::Inline(vec![0; MAX_INLINE + 1].into());
    assert_eq!(
        refuse(Operation::Send { payload: inline, invalidate: None }),
        PostError::InlineTooLong { length: MAX_INLINE + 1, limit: MAX_INLINE }
    );
    let read = Operation::Read { sinks: one(Stag(1), 0, 1), source: address(Stag(1), 0), invalidate: None };
    assert_eq!(refuse(read), PostError::NoReads);
    assert!(endpoint.outbound.is_idle());
    endpoint.post(1, send_inline(b"1"));
    endpoint.post(2, send_inline(b"2"));
    let error = endpoint.outbound.post(request(3, send_inline(b"3"))).unwrap_err();
    assert_eq!(error, PostError::QueueFull { depth: 2 });
    endpoint.flush();
    assert_eq!(endpoint.outbound.post(request(4, send_inline(b"4"))), Err(PostError::Ended));

    let mut endpoint = Endpoint::new(&agreed(Role::Initiator));
    let operation = AtomicOperation::FetchAdd { add: 0, mask: 0 };
    let atomic = Operation::Atomic { sink: segment(Stag(1), 0, 4), target: address(Stag(1), 0), operation };
    assert_eq!(endpoint.outbound.post(request(1, atomic)), Err(PostError::AtomicSink { length: 4 }));
}

#[test]
fn the_opcodes_on_the_wire_are_those_of_the_standard() {
    let mut endpoint = Endpoint::new(&agreed(Role::Initiator));
    let stag = endpoint.memory.register(0, 100);
    let mut opcode = |solicited, operation| {
        endpoint.outbound.post(SendRequest { solicited, ..request(1, operation) }).unwrap();
        opcode_of(&endpoint.next_fpdu().unwrap())
    };
    let send = |invalidate| Operation::Send { payload: Payload::Inline([][..].into()), invalidate };
    assert_eq!(opcode(false, send(None)), RdmapOpcode(3));
    assert_eq!(opcode(false, send(Some(Stag(1)))), RdmapOpcode(4));
    assert_eq!(opcode(true, send(None)), RdmapOpcode(5));
    assert_eq!(opcode(true, send(Some(Stag(1)))), RdmapOpcode(6));
    assert_eq!(opcode(false, Operation::Immediate { data: [0; 8] }), RdmapOpcode(8));
    assert_eq!(opcode(true, Operation::Immediate { data: [0; 8] }), RdmapOpcode(9));
    let read = Operation::Read { sinks: one(stag, 0, 1), source: address(stag, 0), invalidate: None };
    assert_eq!(opcode(false, read), RdmapOpcode(1));
    let operation = AtomicOperation::FetchAdd { add: 0, mask: 0 };
    let atomic = Operation::Atomic { sink: segment(stag, 0, 8), target: address(stag, 0), operation };
    assert_eq!(opcode(false, atomic), RdmapOpcode(10));
}
