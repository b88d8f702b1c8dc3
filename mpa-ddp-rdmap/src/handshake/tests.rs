//! Requests against replies: by table, against a real peer's bytes, and over everything at once.

use proptest::prelude::*;

use super::*;
use crate::negotiated::{Negotiated, Role, RtrKind};
use crate::terminate::Terminate;

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

#[test]
fn crc_is_on_as_soon_as_one_side_wants_it() {
    for (initiator, responder, on) in
        [(false, false, false), (true, false, true), (false, true, true), (true, true, true)]
    {
        for revision in [Revision::V1, Revision::V2] {
            let asking = HandshakeConfig { crc: initiator, revision, ..config() };
            let (mut side, _) = requested(&HandshakeConfig { crc: responder, ..config() }, &request(&asking, b""));
            let (reply, negotiated) = side.accept(1, 1, b"").expect("an answer");
            // A peer that insists on CRC looks for the bit in the reply.
            assert_eq!(reply[16] & 0x40 != 0, on, "{initiator} {responder}");
            assert_eq!(negotiated.crc, on, "{initiator} {responder}");
            assert_eq!(accepted(&asking, &reply).crc, on, "{initiator} {responder}");
        }
    }
}

#[test]
fn the_side_that_is_asked_for_markers_sends_them() {
    for revision in [1, 2] {
        let (mut responder, _) = requested(&config(), &request_frame(0x80, revision, b""));
        let (reply, negotiated) = responder.accept(1, 1, b"").expect("an answer");
        assert!(negotiated.send_markers);
        assert_eq!(reply[16] & 0x80, 0, "we never ask for markers");
    }
    assert!(accepted(&v1(), &reply_frame(0x80, 1, b"")).send_markers);
    assert!(accepted(&config(), &reply_frame(0x90, 2, &[0, 1, 0, 1])).send_markers);
    assert!(!accepted(&v1(), &reply_frame(0, 1, b"")).send_markers);
    assert_eq!(request(&config(), b"")[16] & 0x80, 0, "we never ask for markers");
}

#[test]
fn a_request_is_answered_in_its_own_revision_and_form() {
    for (bytes, flags_and_revision, enhanced) in [
        (request_frame(0x00, 1, b"data"), [0x00, 1], false),
        // The bit that means enhanced data in revision 2 is reserved, and not looked at, in revision 1; so are the rest.
        (request_frame(0x3f, 1, b"data"), [0x00, 1], false),
        (request_frame(0x00, 2, b"data"), [0x00, 2], false),
        (request_frame(0x2f, 2, b"data"), [0x00, 2], false),
        (request_frame(0x10, 2, b"\0\x02\0\x03data"), [0x10, 2], true),
    ] {
        let (mut responder, received) = requested(&config(), &bytes);
        assert_eq!(received.private_data, b"data");
        assert_eq!(received.ird, enhanced.then_some(2));
        assert_eq!(received.ord, enhanced.then_some(3));
        assert_eq!(received.max_private_data, if enhanced { 508 } else { 512 });
        let (reply, negotiated) = responder.accept(8, 4, b"yes").expect("an answer");
        assert_eq!(reply[16..18], flags_and_revision);
        // Without enhanced data the depths are the applications' affair.
        assert_eq!((negotiated.ird, negotiated.ord), if enhanced { (3, 2) } else { (8, 4) });
        assert_eq!(&reply[20..], if enhanced { &b"\0\x03\0\x02yes"[..] } else { &b"yes"[..] });
    }
}

#[test]
fn a_reply_must_have_the_form_of_the_request() {
    use HandshakeError::{ReplyNotEnhanced, ReplyRevision, UnknownRevision};
    use Revision::{V1, V2};
    let unknown = |found| UnknownRevision { found, highest: 2 };
    for (asking, reply, expected) in [
        (config(), reply_frame(0x00, 1, b""), ReplyRevision { asked: V2, found: V1 }),
        (config(), reply_frame(0x10, 1, b"\0\x01\0\x01"), ReplyRevision { asked: V2, found: V1 }),
        (config(), reply_frame(0x00, 2, b"\0\x01\0\x01"), ReplyNotEnhanced),
        (v1(), reply_frame(0x10, 2, b"\0\x01\0\x01"), ReplyRevision { asked: V1, found: V2 }),
        (v1(), reply_frame(0x00, 2, b""), ReplyRevision { asked: V1, found: V2 }),
        (config(), reply_frame(0x10, 0, b"\0\x01\0\x01"), unknown(0)),
        (config(), reply_frame(0x10, 3, b"\0\x01\0\x01"), unknown(3)),
        (v1(), reply_frame(0x00, 255, b""), unknown(255)),
    ] {
        assert_eq!(outcome(&asking, &reply), Err(expected), "{reply:02x?}");
        assert_eq!(expected.terminate(), None, "an invalid frame closes the connection and nothing else");
    }
}

#[test]
fn a_request_of_an_unknown_revision_is_refused() {
    for (highest, revision) in [(Revision::V2, 0), (Revision::V2, 3), (Revision::V2, 255), (Revision::V1, 2)] {
        let mut responder = Responder::new(&HandshakeConfig { revision: highest, ..config() });
        let expected =
            HandshakeError::UnknownRevision { found: revision, highest: if highest == Revision::V1 { 1 } else { 2 } };
        assert_eq!(responder.handle_bytes(&[&request_frame(0x10, revision, &[0; 4])]), Err(expected));
    }
}

#[test]
fn a_wrong_key_is_refused_at_its_first_wrong_byte() {
    let valid = request(&config(), b"");
    for position in 0..16 {
        let mut bytes = valid.clone();
        bytes[position] ^= 0x20;
        let expected = Err(HandshakeError::BadKey { position, found: bytes[position] });
        assert_eq!(Responder::new(&config()).handle_bytes(&[&bytes[..position]]), Ok((0, None)));
        assert_eq!(Responder::new(&config()).handle_bytes(&[&bytes[..=position]]), expected);
        assert_eq!(Responder::new(&config()).handle_bytes(&[&bytes]), expected);
    }
    let expected = Err(HandshakeError::BadKey { position: 0, found: b'G' });
    assert_eq!(Responder::new(&config()).handle_bytes(&[b"GET / HTTP/1.1"]), expected);
}

#[test]
fn two_initiators_are_told_apart_from_strangers() {
    let other = request(&config(), b"");
    assert_eq!(outcome(&config(), &other), Err(HandshakeError::BothInitiators));
    assert_eq!(outcome(&config(), b"MPA ID Reqqqqqqqqqqqqqqqqqqqq"), Err(HandshakeError::BothInitiators));
    assert_eq!(outcome(&config(), b"MPA XX Req"), Err(HandshakeError::BadKey { position: 4, found: b'X' }));
    let reply = reply_frame(0, 1, b"");
    let expected = Err(HandshakeError::BadKey { position: 9, found: b'p' });
    assert_eq!(Responder::new(&config()).handle_bytes(&[&reply]), expected);
}

#[test]
fn private_data_fit_to_the_last_byte_and_not_beyond() {
    for (config, limit) in [(v1(), 512), (config(), 508)] {
        assert_eq!(config.max_private_data(), limit);
        let data = vec![0xA5; limit];
        let bytes = request(&config, &data);
        assert_eq!(bytes.len(), MAX_FRAME);
        let (mut responder, received) = requested(&config, &bytes);
        assert_eq!(received.private_data, data);
        let too_long = vec![0xA5; limit + 1];
        let misuse = HandshakeMisuse::PrivateDataTooLong { length: limit + 1, limit };
        assert_eq!(Initiator::new(&config, &too_long).map(|_| ()), Err(misuse));
        assert_eq!(responder.accept(1, 1, &too_long), Err(misuse));
        assert_eq!(responder.reject(&too_long), Err(misuse));
        let (reply, _) = responder.accept(1, 1, &data).expect("the request can still be answered");
        assert!(matches!(
            outcome(&config, &reply),
            Ok(InitiatorOutcome::Accepted { private_data, .. }) if private_data == data
        ));
    }
}

#[test]
fn announced_lengths_that_cannot_be_are_refused_before_the_data_arrive() {
    use HandshakeError::{EnhancedDataMissing, PrivateDataTooLong};
    for (flags, revision, length, expected) in [
        (0x00, 1, 513, PrivateDataTooLong { length: 513 }),
        (0x10, 2, 513, PrivateDataTooLong { length: 513 }),
        (0x10, 2, 0xFFFF, PrivateDataTooLong { length: 0xFFFF }),
        (0x10, 2, 0, EnhancedDataMissing { length: 0 }),
        (0x10, 2, 3, EnhancedDataMissing { length: 3 }),
    ] {
        for (key, kind) in [(b"MPA ID Req Frame", frame::Kind::Request), (b"MPA ID Rep Frame", frame::Kind::Reply)] {
            let mut bytes = frame(key, flags, revision, b"");
            bytes[18..20].copy_from_slice(&u16::to_be_bytes(length));
            assert_eq!(frame::Frame::read(kind, Revision::V2, &[&bytes]), Err(expected), "{bytes:02x?}");
        }
    }
}

#[test]
fn nothing_may_follow_a_request_before_its_reply() {
    let early = [request(&config(), b"private"), b"x".to_vec()].concat();
    assert_eq!(Responder::new(&config()).handle_bytes(&[&early]), Err(HandshakeError::BytesBehindRequest));

    let (mut responder, _) = requested(&config(), &request(&config(), b"private"));
    assert_eq!(responder.handle_bytes(&[]), Ok((0, None)));
    assert_eq!(responder.handle_bytes(&[b""]), Ok((0, None)));
    assert_eq!(responder.handle_bytes(&[b"", b"x"]), Err(HandshakeError::BytesBehindRequest));

    let (mut responder, _) = requested(&config(), &request(&config(), b""));
    responder.accept(1, 1, b"").expect("an answer");
    assert_eq!(responder.handle_bytes(&[b"an FPDU"]), Ok((0, None)), "what follows the reply is not the handshake's");
}

#[test]
fn what_follows_a_reply_is_left_for_full_operation() {
    let (mut responder, _) = requested(&config(), &request(&config(), b""));
    let (reply, _) = responder.accept(1, 1, b"welcome").expect("an answer");
    let mut initiator = Initiator::new(&config(), b"").expect("a valid configuration");
    let (consumed, outcome) = initiator.handle_bytes(&[&reply, b"an FPDU"]).expect("a valid reply");
    assert_eq!(consumed, reply.len());
    assert!(matches!(outcome, Some(InitiatorOutcome::Accepted { .. })));
    assert_eq!(initiator.handle_bytes(&[b"an FPDU"]), Ok((0, None)));
}

/// IRD and ORD of the request, IRD and ORD of `accept`, the words of the reply, IRD and ORD that the responder goes on with.
type ResponderDepths = ([u16; 2], [u16; 2], [u16; 2], [u16; 2]);

#[test]
fn a_responder_fits_its_depths_to_the_request() {
    let table: &[ResponderDepths] = &[
        ([8, 4], [4, 8], [4, 8], [4, 8]),
        ([1, 1], [16, 16], [1, 1], [1, 1]),
        ([16, 16], [1, 2], [1, 2], [1, 2]),
        ([0, 0], [16, 16], [0, 0], [0, 0]),
        ([16, 16], [0, 0], [0, 0], [0, 0]),
        ([0x3FFE, 0x3FFE], [0x3FFE, 0x3FFE], [0x3FFE, 0x3FFE], [0x3FFE, 0x3FFE]),
        // All ones: the application's affair. The reply says so too and our values stay (RFC 6581 §9.1).
        ([0x3FFF, 2], [5, 6], [2, 0x3FFF], [2, 6]),
        ([2, 0x3FFF], [5, 6], [0x3FFF, 2], [5, 2]),
        ([0x3FFF, 0x3FFF], [5, 6], [0x3FFF, 0x3FFF], [5, 6]),
    ];
    for &(asked, accept, replied, result) in table {
        let words = |[a, b]: [u16; 2]| [a.to_be_bytes(), b.to_be_bytes()].concat();
        let (mut responder, received) = requested(&config(), &request_frame(0x10, 2, &words(asked)));
        let shown = |depth: u16| Some(depth).filter(|&depth| depth != 0x3FFF);
        assert_eq!([received.ird, received.ord], asked.map(shown));
        let (reply, negotiated) = responder.accept(accept[0], accept[1], b"").expect("an answer");
        assert_eq!(reply, reply_frame(0x10, 2, &words(replied)), "asked {asked:?}");
        assert_eq!([negotiated.ird, negotiated.ord], result, "asked {asked:?}");
    }
}

#[test]
fn an_initiator_fits_its_depths_to_the_reply() {
    // Ours are 8 and 4.
    for (replied, result) in [
        ([4, 8], [8, 4]),
        ([16, 1], [1, 4]),
        ([1, 0], [0, 1]),
        ([0, 0], [0, 0]),
        ([0x3FFF, 2], [2, 4]),
        ([2, 0x3FFF], [8, 2]),
        ([0x3FFF, 0x3FFF], [8, 4]),
    ] {
        let words: [u16; 2] = replied;
        let reply = reply_frame(0x10, 2, &[words[0].to_be_bytes(), words[1].to_be_bytes()].concat());
        let negotiated = accepted(&config(), &reply);
        assert_eq!([negotiated.ird, negotiated.ord], result, "reply {replied:?}");
    }
}

#[test]
fn a_responder_that_wants_more_reads_than_offered_is_terminated() {
    let error = outcome(&config(), &reply_frame(0xD0, 2, &[0, 4, 0, 9])).expect_err("nine reads, eight offered");
    assert!(matches!(error, HandshakeError::InsufficientIrd { wanted: 9, ird: 8, .. }));
    assert_eq!(error.terminate(), Some(Terminate::mpa(0x06)));
    let framing = error.negotiated().expect("a TERMINATE has to be framed");
    assert!(framing.crc && framing.send_markers && framing.role == Role::Initiator);
}

/// Kinds offered, kinds of the reply, what is sent first.
type InitiatorKinds = (RtrKinds, Option<RtrKinds>, Option<RtrKind>);

#[test]
fn an_initiator_sends_a_first_message_that_both_sides_take() {
    let all = RtrKinds::ALL;
    let table: &[InitiatorKinds] = &[
        (all, Some(all), Some(RtrKind::Write)),
        (all, Some(SEND), Some(RtrKind::Send)),
        (all, Some(WRITE), Some(RtrKind::Write)),
        (all, Some(READ), Some(RtrKind::Read)),
        (SEND, Some(all), Some(RtrKind::Send)),
        (READ, Some(all), Some(RtrKind::Read)),
        (SEND, Some(WRITE), None),
        (READ, Some(SEND), None),
        // A reply with none, or with client-server, to a request for peer-to-peer, and the other way round.
        (all, Some(RtrKinds::NONE), None),
        (all, None, None),
        (RtrKinds::NONE, Some(all), None),
    ];
    for &(offered, replied, expected) in table {
        let kinds = replied.unwrap_or_default();
        let ird = if replied.is_some() { 0x80 } else { 0 } | if kinds.send { 0x40 } else { 0 };
        let ord = if kinds.write { 0x80 } else { 0 } | if kinds.read { 0x40 } else { 0 };
        let reply = reply_frame(0x10, 2, &[ird, 1, ord, 1]);
        let config = HandshakeConfig { rtr: offered, ..config() };
        match (outcome(&config, &reply), expected) {
            (Ok(InitiatorOutcome::Accepted { negotiated, .. }), Some(_)) => assert_eq!(negotiated.rtr, expected),
            (Err(error @ HandshakeError::NoMatchingRtr { ours, peers, .. }), None) => {
                assert_eq!((ours, peers), (offered, kinds));
                assert_eq!(error.terminate(), Some(Terminate::mpa(0x07)));
                assert!(error.negotiated().is_some_and(|framing| framing.rtr.is_none()));
            }
            (other, _) => panic!("offered {offered:?}, replied {replied:?}: {other:?}"),
        }
    }
}

#[test]
fn kinds_without_the_peer_to_peer_flag_are_ignored() {
    let negotiated = accepted(&config(), &reply_frame(0x10, 2, &[0x40, 1, 0xC0, 1]));
    assert_eq!((negotiated.rtr, negotiated.ird, negotiated.ord), (None, 1, 1));
    let (mut responder, received) = requested(&config(), &request_frame(0x10, 2, &[0x40, 1, 0xC0, 1]));
    assert!(!received.peer_to_peer);
    let (reply, negotiated) = responder.accept(1, 1, b"").expect("an answer");
    assert_eq!(reply, reply_frame(0x10, 2, &[0, 1, 0, 1]));
    assert_eq!(negotiated.rtr, None);
}

#[test]
fn a_read_as_first_message_gets_a_slot_though_nobody_wants_reads() {
    let asking = HandshakeConfig { rtr: READ, ird: 0, ord: 0, ..config() };
    let (mut responder, _) = requested(&config(), &request(&asking, b""));
    let (reply, negotiated) = responder.accept(0, 0, b"").expect("an answer");
    assert_eq!(reply, reply_frame(0x10, 2, &[0x80, 1, 0x40, 0]));
    assert_eq!((negotiated.ird, negotiated.ord), (1, 0));
    let negotiated = accepted(&asking, &reply);
    assert_eq!((negotiated.rtr, negotiated.ird, negotiated.ord), (Some(RtrKind::Read), 0, 1));
    // A responder that takes no Read at all takes none as first message.
    let error = outcome(&asking, &reply_frame(0x10, 2, &[0x80, 0, 0x40, 0])).expect_err("no slot");
    assert_eq!(error.terminate(), Some(Terminate::mpa(0x07)));
}

#[test]
fn a_responder_without_a_kind_in_common_names_what_it_takes() {
    let asking = HandshakeConfig { rtr: SEND, ..config() };
    let (mut responder, received) = requested(&HandshakeConfig { rtr: WRITE, ..config() }, &request(&asking, b""));
    assert!(received.peer_to_peer);
    let (reply, negotiated) = responder.accept(8, 8, b"").expect("an answer");
    assert_eq!(reply, reply_frame(0x10, 2, &[0x80, 4, 0x80, 8]));
    assert_eq!(negotiated.rtr, None);
    assert_eq!(outcome(&asking, &reply).expect_err("nothing in common").terminate(), Some(Terminate::mpa(0x07)));
}

#[test]
fn a_rejection_carries_private_data_and_depths() {
    let taking = HandshakeConfig { ird: 3, ord: 9, ..config() };
    let (mut responder, _) = requested(&taking, &request(&config(), b""));
    let reply = responder.reject(b"no").expect("an answer");
    assert_eq!(reply, reply_frame(0x30, 2, b"\0\x03\0\x09no"));
    let rejected =
        |peer_ird, peer_ord| Ok(InitiatorOutcome::Rejected { private_data: b"no".to_vec(), peer_ird, peer_ord });
    assert_eq!(outcome(&config(), &reply), rejected(Some(3), Some(9)));

    let (mut responder, _) = requested(&taking, &request(&v1(), b""));
    let reply = responder.reject(b"no").expect("an answer");
    assert_eq!(reply, reply_frame(0x20, 1, b"no"));
    assert_eq!(outcome(&v1(), &reply), rejected(None, None));
    // A peer of revision 1 may reject what it does not understand.
    assert_eq!(outcome(&config(), &reply), rejected(None, None));
}

#[test]
fn a_request_is_answered_once() {
    let mut responder = Responder::new(&config());
    assert_eq!(responder.accept(1, 1, b""), Err(HandshakeMisuse::NoRequest));
    assert_eq!(responder.reject(b""), Err(HandshakeMisuse::NoRequest));
    let (mut responder, _) = requested(&config(), &request(&config(), b""));
    responder.reject(b"").expect("an answer");
    assert_eq!(responder.accept(1, 1, b""), Err(HandshakeMisuse::AlreadyAnswered));
    assert_eq!(responder.reject(b""), Err(HandshakeMisuse::AlreadyAnswered));
}

#[test]
fn a_configuration_that_no_frame_can_express_is_misuse() {
    for value in [0x3FFF, 0x4000, 0xFFFF] {
        let misuse = Err(HandshakeMisuse::ReadDepth { value });
        assert_eq!(Initiator::new(&HandshakeConfig { ird: value, ..config() }, b"").map(|_| ()), misuse);
        assert_eq!(Initiator::new(&HandshakeConfig { ord: value, ..config() }, b"").map(|_| ()), misuse);
        let (mut responder, _) = requested(&config(), &request(&config(), b""));
        assert_eq!(responder.accept(value, 1, b"").map(|_| ()), misuse);
        assert_eq!(responder.accept(1, value, b"").map(|_| ()), misuse);
        responder.accept(1, 1, b"").expect("the request can still be answered");
    }
    let peer_to_peer = HandshakeConfig { rtr: WRITE, ..v1() };
    assert_eq!(Initiator::new(&peer_to_peer, b"").map(|_| ()), Err(HandshakeMisuse::PeerToPeerNeedsRevision2));
}

#[test]
fn an_early_end_of_the_stream_is_reported_with_what_had_arrived() {
    let initiator = Initiator::new(&config(), b"").expect("a valid configuration");
    assert_eq!(initiator.handle_end_of_stream(7), HandshakeError::EndOfStream { received: 7 });
    let responder = Responder::new(&config());
    assert_eq!(responder.handle_end_of_stream(0).terminate(), None);
}

fn kinds() -> impl Strategy<Value = RtrKinds> {
    any::<[bool; 3]>().prop_map(|[send, write, read]| RtrKinds { send, write, read })
}

fn depth() -> impl Strategy<Value = u16> {
    prop_oneof![0..4u16, 0..=MAX_READ_DEPTH, Just(MAX_READ_DEPTH)]
}

/// Any configuration that an initiator can have.
fn configurations() -> impl Strategy<Value = HandshakeConfig> {
    (any::<[bool; 2]>(), depth(), depth(), kinds()).prop_map(|([crc, v2], ird, ord, rtr)| {
        let (revision, rtr) = if v2 { (Revision::V2, rtr) } else { (Revision::V1, RtrKinds::NONE) };
        HandshakeConfig { crc, revision, ird, ord, rtr }
    })
}

/// Bytes that are a frame, nearly one, or nothing of the kind.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop::collection::vec(any::<u8>(), 500..530)
    ];
    let key = prop_oneof![Just(b"MPA ID Req Frame"), Just(b"MPA ID Rep Frame")];
    let damage = prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>()));
    let valid = (key, any::<u8>(), prop_oneof![4 => 1..3u8, 1 => any::<u8>()], body, damage);
    let nearly = valid.prop_map(|(key, flags, revision, body, damage)| {
        let mut bytes = frame(key, flags, revision, &body);
        if let Some((index, value)) = damage {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        bytes
    });
    prop_oneof![8 => nearly, 1 => prop::collection::vec(any::<u8>(), 0..600)]
}

/// What came of a stream that was shown to a role bit by bit: bytes consumed, and the outcome if there is one.
type Seen<T> = Result<(usize, Option<T>), HandshakeError>;

/// Shows `bytes` as it would arrive cut at `cuts`, each time as two slices, until the role is done.
fn drip<T>(bytes: &[u8], cuts: &[usize], mut handle: impl FnMut(&[&[u8]]) -> Seen<T>) -> Seen<T> {
    let mut total = 0;
    let mut outcome = None;
    for &end in cuts.iter().chain([&bytes.len()]) {
        let (left, right) = bytes[total..end].split_at((end - total) / 2);
        let (consumed, now) = handle(&[left, right])?;
        assert!(consumed <= end - total, "consumed more than there was");
        assert!(total == 0 || consumed == 0, "consumed a second time");
        total += consumed;
        outcome = outcome.or(now);
    }
    Ok((total, outcome))
}

fn cuts(bytes: &[u8], indices: &[prop::sample::Index]) -> Vec<usize> {
    let mut cuts: Vec<usize> = indices.iter().map(|index| index.index(bytes.len() + 1)).collect();
    cuts.sort_unstable();
    cuts
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn cutting_the_stream_anywhere_changes_nothing(
        bytes in frames(),
        indices in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        config in configurations(),
    ) {
        let cuts = cuts(&bytes, &indices);
        let mut whole = Initiator::new(&config, b"").expect("a valid configuration");
        let mut dripped = Initiator::new(&config, b"").expect("a valid configuration");
        let expected = whole.handle_bytes(&[&bytes]);
        prop_assert_eq!(drip(&bytes, &cuts, |parts| dripped.handle_bytes(parts)), expected.clone());
        if let Ok((consumed, outcome)) = expected {
            prop_assert!(consumed <= MAX_FRAME);
            prop_assert_eq!(consumed == 0, outcome.is_none());
        }

        let (mut whole, mut dripped) = (Responder::new(&config), Responder::new(&config));
        let expected = whole.handle_bytes(&[&bytes]);
        prop_assert_eq!(drip(&bytes, &cuts, |parts| dripped.handle_bytes(parts)), expected.clone());
        if let Ok((consumed, outcome)) = expected {
            prop_assert!(consumed <= MAX_FRAME);
            prop_assert_eq!(consumed == 0, outcome.is_none());
        }
    }

    #[test]
    fn what_a_role_writes_the_other_reads(bytes in frames()) {
        for kind in [frame::Kind::Request, frame::Kind::Reply] {
            if let Ok(Some((length, frame))) = frame::Frame::read(kind, Revision::V2, &[&bytes]) {
                let written = frame.to_bytes();
                prop_assert_eq!(written.len(), length);
                prop_assert_eq!(frame::Frame::read(kind, Revision::V2, &[&written]), Ok(Some((length, frame))));
            }
        }
    }

    #[test]
    fn both_sides_agree_whatever_their_configurations(
        asking in configurations(),
        answering in configurations(),
        ird in depth(),
        ord in depth(),
        private_data in prop::collection::vec(any::<u8>(), 0..509),
    ) {
        let answering = HandshakeConfig { revision: Revision::V2, ..answering };
        let mut initiator = Initiator::new(&asking, &private_data).expect("a valid configuration");
        let mut responder = Responder::new(&answering);
        let (_, received) = responder.handle_bytes(&[initiator.request()]).expect("a valid request");
        let received = received.expect("a whole request");
        prop_assert_eq!(&received.private_data, &private_data);
        prop_assert_eq!(received.peer_to_peer, !asking.rtr.is_empty());
        let (reply, theirs) = responder.accept(ird, ord, &private_data).expect("an answer");
        prop_assert!(theirs.ird <= ird.max(1) && theirs.ord <= ord);

        let takes = if answering.rtr.is_empty() { RtrKinds::ALL } else { answering.rtr };
        let common = asking.rtr.intersection(takes);
        match initiator.handle_bytes(&[&reply]) {
            Ok((consumed, Some(InitiatorOutcome::Accepted { negotiated: ours, private_data: answer, .. }))) => {
                prop_assert_eq!(consumed, reply.len());
                prop_assert_eq!(answer, private_data);
                prop_assert!(common.is_empty() == ours.rtr.is_none() && (ours.rtr.is_some() || asking.rtr.is_empty()));
                prop_assert!(ours.ird <= asking.ird && ours.ord <= asking.ord.max(1));
                if asking.revision == Revision::V2 {
                    prop_assert_eq!((ours.ird, ours.ord), (theirs.ord, theirs.ird));
                } else {
                    prop_assert_eq!((ours.ird, ours.ord, theirs.ird, theirs.ord), (asking.ird, asking.ord, ird, ord));
                }
                let mirrored = Negotiated { role: Role::Initiator, ird: ours.ird, ord: ours.ord, ..theirs };
                prop_assert_eq!(ours, mirrored);
                prop_assert_eq!(theirs.role, Role::Responder);
            }
            Err(HandshakeError::NoMatchingRtr { ours, .. }) => {
                prop_assert_eq!(ours, asking.rtr);
                prop_assert!(common.is_empty() && !asking.rtr.is_empty());
                prop_assert_eq!(theirs.rtr, None);
            }
            other => prop_assert!(false, "unexpected: {:?}", other),
        }
    }
}
