use crate::testing::*;
use crate::*;

fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|index| (index as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

#[test]
fn a_send_lands_in_the_receive_and_completes_on_both_sides() {
    let mut pair = Pair::new();
    let source = pair.initiator.memory.register(0x1000, 10_000);
    let sink = pair.responder.memory.register(0x8000, 10_000);
    let data = pattern(10_000, 1);
    pair.initiator.memory.write(source, 0x1000, &data);
    pair.responder.post_receive(7, &[segment(sink, 0x8000, 10_000)]);
    pair.initiator
        .post(5, Operation::Send { payload: Payload::Segments(one(source, 0x1000, 10_000)), invalidate: None });
    pair.run();
    assert_eq!(pair.responder.memory.read(sink, 0x8000, 10_000), data);
    let received = pair.responder.upper.received[0];
    assert_eq!((received.id, received.status, received.length), (7, Status::Success, 10_000));
    let sent = pair.initiator.upper.sent[0];
    assert_eq!((sent.id, sent.status, sent.opcode, sent.length), (5, Status::Success, Opcode::Send, 10_000));
    assert_eq!(pair.initiator.memory.holds() + pair.responder.memory.holds(), 0);
    assert!(pair.initiator.outbound.is_idle());
}

#[test]
fn a_write_lands_at_its_address_and_tells_the_peer_nothing() {
    let mut pair = Pair::new();
    let source = pair.initiator.memory.register(0, 5000);
    let target = pair.responder.memory.register(0x10_0000, 6000);
    let data = pattern(5000, 2);
    pair.initiator.memory.write(source, 0, &data);
    pair.initiator.post(
        1,
        Operation::Write {
            payload: Payload::Segments(one(source, 0, 5000)),
            target: address(target, 0x10_0001),
            immediate: None,
        },
    );
    pair.run();
    assert_eq!(pair.responder.memory.read(target, 0x10_0001, 5000), data);
    assert_eq!(pair.responder.memory.read(target, 0x10_0000, 1), [0]);
    assert!(pair.responder.upper.received.is_empty());
    assert_eq!(pair.initiator.upper.sent[0].opcode, Opcode::Write);
    assert_eq!(pair.responder.inbound.statistics().placed_bytes, 5000);
}
