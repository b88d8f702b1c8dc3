//! Requests against replies: by table, against a real peer's bytes, and over everything at once.

use proptest::prelude::*;

use super::*;
use crate::negotiated::{Negotiated, Role, RtrKind};

mod golden {
    //! Frames of Linux siw, from the captures in the repository's `tests/captures`.

    pub(super) const PLAIN: &[u8] = include_bytes!("../../../tests/captures/mpa_req_crc0_v1_p2p0.bin");
    pub(super) const PLAIN_CRC: &[u8] = include_bytes!("../../../tests/captures/mpa_req_crc1_v1_p2p0.bin");
    pub(super) const ENHANCED: &[u8] = include_bytes!("../../../tests/captures/mpa_req_crc0_v2_p2p0.bin");
    pub(super) const ENHANCED_CRC: &[u8] = include_bytes!("../../../tests/captures/mpa_req_crc1_v2_p2p0.bin");
    pub(super) const PEER_TO_PEER: &[u8] = include_bytes!("../../../tests/captures/mpa_req_crc1_v2_p2p1.bin");
    const RPING: &[u8] = include_bytes!("../../../tests/captures/rping2.pcap");

    /// The request and the reply of the captured connection.
    pub(super) fn rping() -> (Vec<u8>, Vec<u8>) {
        (payload(b"MPA ID Req Frame"), payload(b"MPA ID Rep Frame"))
    }

    /// Payload of the frame in the capture that starts with `key`. Both are 24 bytes long and end their packet.
    fn payload(key: &[u8]) -> Vec<u8> {
        let packets = RPING.windows(key.len()).positions_of(key);
        assert_eq!(packets.len(), 1, "the capture has one connection");
        RPING[packets[0]..packets[0] + 24].to_vec()
    }

    trait Positions<'a> {
        fn positions_of(self, wanted: &[u8]) -> Vec<usize>;
    }

    impl<'a, I: Iterator<Item = &'a [u8]>> Positions<'a> for I {
        fn positions_of(self, wanted: &[u8]) -> Vec<usize> {
            self.enumerate().filter(|(_, window)| *window == wanted).map(|(position, _)| position).collect()
        }
    }
}

const SEND: RtrKinds = RtrKinds { send: true, ..RtrKinds::NONE };
const WRITE: RtrKinds = RtrKinds { write: true, ..RtrKinds::NONE };
const READ: RtrKinds = RtrKinds { read: true, ..RtrKinds::NONE };

fn config() -> HandshakeConfig {
    HandshakeConfig { crc: false, revision: Revision::V2, ird: 8, ord: 4, rtr: RtrKinds::NONE }
}

fn v1() -> HandshakeConfig {
    HandshakeConfig { revision: Revision::V1, ..config() }
}

fn request(config: &HandshakeConfig, private_data: &[u8]) -> Vec<u8> {
    Initiator::new(config, private_data).expect("a valid configuration").request().to_vec()
}

/// A responder of `config` that has just received `bytes`.
fn requested(config: &HandshakeConfig, bytes: &[u8]) -> (Responder, RequestReceived) {
    let mut responder = Responder::new(config);
    let (consumed, received) = responder.handle_bytes(&[bytes]).expect("a valid request");
    assert_eq!(consumed, bytes.len());
    (responder, received.expect("a whole request"))
}

/// What an initiator of `config` makes of `reply`.
fn outcome(config: &HandshakeConfig, reply: &[u8]) -> Result<InitiatorOutcome, HandshakeError> {
    let mut initiator = Initiator::new(config, b"").expect("a valid configuration");
    initiator.handle_bytes(&[reply]).map(|(consumed, outcome)| {
        assert_eq!(consumed, reply.len());
        outcome.expect("a whole reply")
    })
}

fn accepted(config: &HandshakeConfig, reply: &[u8]) -> Negotiated {
    match outcome(config, reply) {
        Ok(InitiatorOutcome::Accepted { negotiated, .. }) => negotiated,
        other => panic!("expected an accepted connection, got {other:?}"),
    }
}

fn frame(key: &[u8; 16], flags: u8, revision: u8, private_data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(private_data.len()).expect("a length").to_be_bytes();
    [key, &[flags, revision][..], &length, private_data].concat()
}

fn reply_frame(flags: u8, revision: u8, private_data: &[u8]) -> Vec<u8> {
    frame(b"MPA ID Rep Frame", flags, revision, private_data)
}

fn request_frame(flags: u8, revision: u8, private_data: &[u8]) -> Vec<u8> {
    frame(b"MPA ID Req Frame", flags, revision, private_data)
}

#[test]
fn our_requests_are_those_of_siw_byte_for_byte() {
    let one = HandshakeConfig { ird: 1, ord: 1, ..config() };
    for (golden, config) in [
        (golden::PLAIN, HandshakeConfig { revision: Revision::V1, ..one }),
        (golden::PLAIN_CRC, HandshakeConfig { revision: Revision::V1, crc: true, ..one }),
        (golden::ENHANCED, one),
        (golden::ENHANCED_CRC, HandshakeConfig { crc: true, ..one }),
        (
            golden::PEER_TO_PEER,
            HandshakeConfig { crc: true, rtr: RtrKinds { write: true, read: true, send: false }, ..one },
        ),
    ] {
        assert_eq!(request(&config, b""), golden, "{config:?}");
    }
}

#[test]
fn our_reply_to_siw_is_its_own_byte_for_byte() {
    let (siw_request, siw_reply) = golden::rping();
    assert_eq!(siw_request, golden::ENHANCED);
    let (mut responder, received) = requested(&config(), &siw_request);
    assert_eq!((received.ird, received.ord, received.peer_to_peer), (Some(1), Some(1), false));
    let (reply, negotiated) = responder.accept(8, 4, b"").expect("an answer");
    assert_eq!(reply, siw_reply);
    assert_eq!((negotiated.ird, negotiated.ord, negotiated.crc), (1, 1, false));

    let initiator = accepted(&HandshakeConfig { ird: 1, ord: 1, ..config() }, &siw_reply);
    assert_eq!((initiator.ird, initiator.ord, initiator.crc, initiator.rtr), (1, 1, false, None));
}

#[test]
fn siw_in_peer_to_peer_mode_is_told_one_kind_of_first_message() {
    let (mut responder, received) = requested(&config(), golden::PEER_TO_PEER);
    assert!(received.peer_to_peer);
    let (reply, negotiated) = responder.accept(8, 4, b"").expect("an answer");
    assert_eq!(reply, reply_frame(0x50, 2, &[0x80, 1, 0x80, 1]));
    assert_eq!(negotiated.rtr, Some(RtrKind::Write));
    assert!(negotiated.crc);
}
