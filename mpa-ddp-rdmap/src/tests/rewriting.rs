//! The same range again gives the same bytes, however it is cut, and CRCs hold whatever the application does to its memory.

use crate::framing::{crc32c, fpdu_length};
use crate::testing::frames::*;
use crate::testing::*;
use crate::wire::RdmapOpcode;
use crate::*;

/// An endpoint with all kinds of records committed: Sends, Writes, a Read, an atomic, immediate data, a response.
fn busy(negotiated: &Negotiated, retention: Retention) -> (Endpoint, Stag, u64) {
    let mut endpoint = Endpoint::with(negotiated, &Limits::default(), retention);
    let stag = endpoint.memory.register(0, 10_000);
    let data: Vec<u8> = (0..10_000u32).map(|index| (index * 7 % 251) as u8).collect();
    endpoint.memory.write(stag, 0, &data);
    for (message, length) in [(1, 3000), (2, 0)] {
        let request = read_request(message, address(Stag(9), 0), address(stag, 100), length);
        endpoint.receive(&mut request.fpdu()).unwrap();
    }
    endpoint.receive(&mut fetch_add(3, 0, address(stag, 8)).fpdu()).unwrap();
    let payload = || Payload::Segments(SegmentList::new(&[segment(stag, 3, 2000), segment(stag, 5000, 1777)]).unwrap());
    endpoint.post(1, Operation::Send { payload: payload(), invalidate: None });
    endpoint.post(2, Operation::Write { payload: payload(), target: address(Stag(1), 77), immediate: Some([4; 8]) });
    endpoint.post(3, send_inline(b"inline data"));
    endpoint.post(4, Operation::Read { sinks: one(stag, 0, 100), source: address(Stag(1), 0), invalidate: None });
    let operation = AtomicOperation::CompareSwap { compare: 1, compare_mask: 2, swap: 3, swap_mask: 4 };
    endpoint.post(5, Operation::Atomic { sink: segment(stag, 0, 8), target: address(Stag(1), 8), operation });
    let mut end = START;
    while let Some(record) = endpoint.outbound.next(MAX_FPDU, &endpoint.memory, &mut endpoint.upper) {
        endpoint.exchange();
        end = record.end();
    }
    (endpoint, stag, end)
}

fn written(endpoint: &mut Endpoint, from: u64, to: u64) -> Vec<u8> {
    let mut bytes = vec![0xee; (to - from) as usize];
    endpoint.outbound.write(from, &mut bytes, &endpoint.memory);
    bytes
}

/// Checks that `stream` is whole FPDUs with valid CRCs, and gives their opcodes.
fn opcodes(mut stream: &[u8]) -> Vec<u8> {
    let mut opcodes = Vec::new();
    while !stream.is_empty() {
        let length = fpdu_length(usize::from(u16::from_be_bytes([stream[0], stream[1]])));
        let (fpdu, rest) = stream.split_at(length);
        assert_eq!(crc32c(&fpdu[..length - 4]).to_le_bytes(), fpdu[length - 4..]);
        opcodes.push(fpdu[3] & 0xf);
        stream = rest;
    }
    opcodes
}

#[test]
fn any_range_of_the_stream_is_written_the_same_again() {
    for send_markers in [false, true] {
        for retention in [Retention::UntilAcknowledged, Retention::None] {
            let mut negotiated = agreed(Role::Initiator);
            negotiated.send_markers = send_markers;
            let (mut endpoint, _, end) = busy(&negotiated, retention);
            let stream = written(&mut endpoint, START, end);
            if !send_markers {
                let kinds = opcodes(&stream);
                for opcode in [0, 1, 2, 3, 8, 10, 11] {
                    assert!(kinds.contains(&opcode), "{opcode} is missing in {kinds:?}");
                }
            }
            for cut in [1, 3, 100, 511, 1459, 1460, 1461, 5000] {
                let (mut endpoint, _, end) = busy(&negotiated, retention);
                let mut pieces = Vec::new();
                let mut at = START;
                while at < end {
                    let to = (at + cut).min(end);
                    pieces.extend(written(&mut endpoint, at, to));
                    at = to;
                }
                assert_eq!(pieces, stream, "cut into {cut}");
                assert_eq!(written(&mut endpoint, START, end), stream, "whole, behind pieces");
                let (from, to) = (START + cut, end - cut.min(2000));
                let range = cut as usize..(to - START) as usize;
                assert_eq!(written(&mut endpoint, from, to), stream[range]);
            }
        }
    }
}

#[test]
fn a_range_that_begins_where_the_acknowledgement_ends_need_not_begin_a_record() {
    let (mut endpoint, _, end) = busy(&agreed(Role::Initiator), Retention::UntilAcknowledged);
    let stream = written(&mut endpoint, START, end);
    for through in (START..end).step_by(333) {
        endpoint.outbound.handle_acknowledged(through, &endpoint.memory, &mut endpoint.upper);
        assert_eq!(written(&mut endpoint, through, end), stream[(through - START) as usize..]);
    }
}

#[test]
fn memory_that_changes_between_two_pieces_of_a_record_does_not_break_its_crc() {
    for cut in [1, 20, 700, 1450] {
        let (mut endpoint, stag, end) = busy(&agreed(Role::Initiator), Retention::UntilAcknowledged);
        let mut stream = Vec::new();
        let mut at = START;
        let mut round = 0;
        while at < end {
            let to = (at + cut).min(end);
            stream.extend(written(&mut endpoint, at, to));
            round += 1;
            endpoint.memory.write(stag, 0, &[round as u8; 10_000]);
            at = to;
        }
        opcodes(&stream);
    }
}

#[test]
fn memory_that_changes_between_two_transmissions_does_not_break_a_crc() {
    let (mut endpoint, stag, end) = busy(&agreed(Role::Initiator), Retention::UntilAcknowledged);
    let first = written(&mut endpoint, START, end);
    endpoint.memory.write(stag, 0, &[0xff; 10_000]);
    let second = written(&mut endpoint, START, end);
    assert_ne!(first, second, "a Send is fetched again");
    assert_eq!(opcodes(&first), opcodes(&second));
}

#[test]
fn a_response_survives_its_source() {
    let (mut endpoint, stag, end) = busy(&agreed(Role::Initiator), Retention::UntilAcknowledged);
    let responses = |stream: &[u8]| -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut rest = stream;
        while !rest.is_empty() {
            let (fpdu, behind) = rest.split_at(fpdu_length(usize::from(u16::from_be_bytes([rest[0], rest[1]]))));
            if matches!(opcode_of(fpdu), RdmapOpcode::READ_RESPONSE | RdmapOpcode::ATOMIC_RESPONSE) {
                found.push(fpdu.to_vec());
            }
            rest = behind;
        }
        found
    };
    let before = responses(&written(&mut endpoint, START, end));
    endpoint.memory.write(stag, 0, &[0xff; 10_000]);
    assert_eq!(responses(&written(&mut endpoint, START, end)), before, "the bytes of the first time");
    assert_eq!(before.len(), 5);
}

#[test]
fn a_response_holds_its_source_no_longer_than_it_needs_it() {
    for (retention, until) in [(Retention::UntilAcknowledged, 0), (Retention::None, 1)] {
        let mut endpoint = Endpoint::with(&agreed(Role::Initiator), &Limits::default(), retention);
        let stag = endpoint.memory.register(0, 100);
        endpoint.receive(&mut read_request(1, address(Stag(9), 0), address(stag, 0), 100).fpdu()).unwrap();
        assert_eq!(endpoint.memory.holds(), 1, "from arrival");
        let record = endpoint.outbound.next(MAX_FPDU, &endpoint.memory, &mut endpoint.upper).unwrap();
        assert_eq!(endpoint.memory.holds(), until, "{retention:?}");
        endpoint.outbound.handle_acknowledged(record.end(), &endpoint.memory, &mut endpoint.upper);
        assert_eq!(endpoint.memory.holds(), 0);
    }
}

#[test]
fn an_fpdu_whose_memory_is_gone_is_one_that_every_peer_refuses() {
    for (crc, cut) in [(true, 0), (false, 0), (true, 50), (false, 50)] {
        let mut negotiated = agreed(Role::Initiator);
        negotiated.crc = crc;
        let mut endpoint = Endpoint::new(&negotiated);
        let stag = endpoint.memory.register(0, 100);
        let payload = Payload::Segments(one(stag, 0, 100));
        endpoint.post(1, Operation::Write { payload, target: address(Stag(0x15a), 0), immediate: None });
        let record = endpoint.outbound.next(MAX_FPDU, &endpoint.memory, &mut endpoint.upper).unwrap();
        endpoint.memory.change(stag, |region| region.valid = false);
        let mut stream = written(&mut endpoint, record.start, record.start + cut);
        stream.extend(written(&mut endpoint, record.start + cut, record.end()));

        negotiated.role = Role::Responder;
        let mut peer = Endpoint::new(&negotiated);
        let target = peer.memory.register(0, 100);
        assert_eq!(target, Stag(0x15a));
        peer.memory.write(target, 0, &[7; 100]);
        let error = peer.receive(&mut stream).unwrap_err();
        assert_eq!(error.violation, Violation::TaggedVersion(0));
        assert_eq!(peer.memory.read(target, 0, 100), [7; 100]);

        let terminate = endpoint.next_fpdu().unwrap();
        assert_eq!(opcode_of(&terminate), RdmapOpcode::TERMINATE);
        endpoint.flush();
        assert_eq!(endpoint.upper.sent[0].status, Status::LocalProtection);
        assert_eq!(endpoint.memory.holds(), 0);
    }
}

#[test]
fn without_crc_its_field_is_zero() {
    let mut negotiated = agreed(Role::Initiator);
    negotiated.crc = false;
    let (mut endpoint, _, _) = busy(&negotiated, Retention::None);
    let mut first = [0xee; 1460];
    endpoint.outbound.write(START, &mut first, &endpoint.memory);
    let length = fpdu_length(usize::from(u16::from_be_bytes([first[0], first[1]])));
    assert_eq!(first[length - 4..length], [0; 4]);
}

#[test]
#[should_panic(expected = "asked for")]
fn asking_for_what_is_acknowledged_is_a_bug_of_the_engine() {
    let (mut endpoint, _, end) = busy(&agreed(Role::Initiator), Retention::UntilAcknowledged);
    endpoint.outbound.handle_acknowledged(end, &endpoint.memory, &mut endpoint.upper);
    written(&mut endpoint, end - 1, end);
}
