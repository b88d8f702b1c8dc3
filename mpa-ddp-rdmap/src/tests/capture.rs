//! Against the bytes of another implementation: a capture of two Linux siw peers running rping. Each of our endpoints takes what
//! the peer of its counterpart sent, and has to send what its counterpart sent.

use crate::framing::fpdu_length;
use crate::testing::frames::*;
use crate::testing::*;
use crate::wire::{RdmapOpcode, ReadRequestHeader};
use crate::*;
use zerocopy::FromBytes;

const CAPTURE: &[u8] = include_bytes!("../../../tests/captures/siw-rping.pcap");

/// Port of the rping server.
const SERVER: u16 = 7174;

/// TCP payloads in the order of the capture, with whether the server sent them. Microsecond pcap, Ethernet, IPv4.
fn payloads() -> Vec<(bool, &'static [u8])> {
    assert_eq!(CAPTURE[..4], 0xa1b2_c3d4u32.to_le_bytes());
    let mut rest = &CAPTURE[24..];
    let mut payloads = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        let ip = &rest[16 + 14..16 + length];
        rest = &rest[16 + length..];
        let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        let tcp = &ip[usize::from(ip[0] & 0xf) * 4..total];
        let payload = &tcp[usize::from(tcp[12] >> 4) * 4..];
        if !payload.is_empty() {
            payloads.push((u16::from_be_bytes([tcp[0], tcp[1]]) == SERVER, payload));
        }
    }
    payloads
}

/// FPDUs in the order of the capture, behind the MPA request and reply.
fn fpdus() -> Vec<(bool, Vec<u8>)> {
    let mut fpdus = Vec::new();
    for (from_server, mut payload) in payloads() {
        if payload.starts_with(b"MPA ID Re") {
            assert_eq!(payload.len() as u64, START);
            continue;
        }
        while !payload.is_empty() {
            let (fpdu, rest) = payload.split_at(fpdu_length(usize::from(u16::from_be_bytes([payload[0], payload[1]]))));
            fpdus.push((from_server, fpdu.to_vec()));
            payload = rest;
        }
    }
    fpdus
}

fn endpoint(role: Role) -> Endpoint {
    let mut endpoint = Endpoint::new(&Negotiated { crc: false, send_markers: false, ird: 1, ord: 1, rtr: None, role });
    let stag = endpoint.memory.register(0, 64);
    for id in 0..100 {
        endpoint.post_receive(id, &[segment(stag, 0, 64)]);
    }
    endpoint
}

/// The source of the Read Request in `fpdu`, and where its answer goes.
fn read_of(fpdu: &[u8]) -> (RemoteAddress, RemoteAddress, u32) {
    let header = ReadRequestHeader::read_from_bytes(&untagged_of(fpdu).1).unwrap();
    (
        address(Stag(header.sink_stag.get()), header.sink_offset.get()),
        address(Stag(header.source_stag.get()), header.source_offset.get()),
        header.length.get(),
    )
}

/// Lets `from` do what makes siw send `fpdu`, with the memory that takes at both ends.
fn prepare(fpdu: &[u8], source_of_read: &mut Option<RemoteAddress>, from: &mut Endpoint, to: &mut Endpoint) {
    match opcode_of(fpdu) {
        RdmapOpcode::SEND => from.post(1, send_inline(&untagged_of(fpdu).1)),
        RdmapOpcode::WRITE => {
            let (header, payload) = tagged_of(fpdu);
            let target = address(Stag(header.stag.get()), header.offset.get());
            to.memory.register_as(target.stag, target.offset.0, payload.len());
            let source = from.memory.register(0, payload.len());
            from.memory.write(source, 0, &payload);
            let payload = Payload::Segments(one(source, 0, payload.len() as u32));
            from.post(2, Operation::Write { payload, target, immediate: None });
        }
        RdmapOpcode::READ_REQUEST => {
            let (sink, source, length) = read_of(fpdu);
            from.memory.register_as(sink.stag, sink.offset.0, length as usize);
            to.memory.register_as(source.stag, source.offset.0, length as usize);
            let sinks = one(sink.stag, sink.offset.0, length);
            from.post(3, Operation::Read { sinks, source, invalidate: None });
            *source_of_read = Some(source);
        }
        RdmapOpcode::READ_RESPONSE => {
            let source = source_of_read.take().expect("a Read Request before its response");
            from.memory.write(source.stag, source.offset.0, &tagged_of(fpdu).1);
        }
        other => panic!("rping does not use {other:?}"),
    }
}

#[test]
fn we_send_the_bytes_that_siw_sends_and_take_those_it_sends() {
    let fpdus = fpdus();
    assert_eq!(fpdus.len(), 35, "the capture has seven FPDUs in each of five rounds");
    let (mut client, mut server) = (endpoint(Role::Initiator), endpoint(Role::Responder));
    let mut source_of_read = None;
    for (index, (from_server, fpdu)) in fpdus.iter().enumerate() {
        let (from, to) = if *from_server { (&mut server, &mut client) } else { (&mut client, &mut server) };
        prepare(fpdu, &mut source_of_read, from, to);
        from.exchange();
        let record = from.outbound.next(1460, &from.memory, &mut from.upper).expect("an FPDU");
        from.exchange();
        let mut ours = vec![0; record.length as usize];
        from.outbound.write(record.start, &mut ours, &from.memory);
        from.outbound.handle_acknowledged(record.end(), &from.memory, &mut from.upper);
        assert_eq!(&ours, fpdu, "FPDU {index}");
        assert_eq!(to.receive(&mut fpdu.clone()), Ok(fpdu.len()), "FPDU {index}");
    }
    for (endpoint, sends, receives) in [(&client, 10, 10), (&server, 20, 10)] {
        assert_eq!(endpoint.upper.sent.len(), sends);
        assert_eq!(endpoint.upper.received.len(), receives);
        let all = endpoint.upper.sent.iter().chain(&endpoint.upper.received);
        assert!(all.into_iter().all(|completion| completion.status == Status::Success));
        assert!(endpoint.outbound.is_idle());
        assert_eq!(endpoint.memory.holds(), 0);
    }
}
