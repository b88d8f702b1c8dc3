//! Arbitrary bytes as MPA request and as MPA reply: whatever they are and however they are cut, the verdict is the same,
//! nothing beyond one frame is consumed, and what is negotiated stays within what was configured.

#![no_main]

use libfuzzer_sys::fuzz_target;
use softrdma_fuzz::{CUTS, Input, ends, halves};
use softrdma_mpa_ddp_rdmap::handshake::{
    HandshakeConfig, HandshakeError, Initiator, InitiatorOutcome, MAX_FRAME, MAX_READ_DEPTH, Responder,
};
use softrdma_mpa_ddp_rdmap::{Negotiated, Revision, Role, RtrKind, RtrKinds};

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let config = configuration(&mut input);
    let (ird, ord, reject) =
        (input.number() % (MAX_READ_DEPTH + 1), input.number() % (MAX_READ_DEPTH + 1), input.flag());
    let cuts = input.cuts();
    let stream = input.0;
    initiate(&config, &cuts, stream);
    respond(&config, (ird, ord, reject), &cuts, stream);
});

/// The first five of ten bytes that stand before the cuts.
fn configuration(input: &mut Input) -> HandshakeConfig {
    let bits = input.byte();
    let rtr = RtrKinds { send: bits & 4 != 0, write: bits & 8 != 0, read: bits & 16 != 0 };
    let second = bits & 2 != 0;
    HandshakeConfig {
        crc: bits & 1 != 0,
        revision: if second { Revision::V2 } else { Revision::V1 },
        ird: input.number() % (MAX_READ_DEPTH + 1),
        ord: input.number() % (MAX_READ_DEPTH + 1),
        rtr: if second { rtr } else { RtrKinds::NONE },
    }
}

fn initiate(config: &HandshakeConfig, cuts: &[u8; CUTS], stream: &[u8]) {
    let initiator = || Initiator::new(config, b"").expect("a valid configuration");
    let (mut whole, mut cut) = (initiator(), initiator());
    let expected = whole.handle_bytes(&[stream]);
    assert_eq!(drip(stream, cuts, |parts| cut.handle_bytes(parts)), expected);
    match expected {
        Ok((_, Some(InitiatorOutcome::Accepted { negotiated, .. }))) => {
            check(&negotiated, Role::Initiator, config.ird, config.ord);
            assert!(!config.crc || negotiated.crc);
            assert_eq!(negotiated.rtr.is_some(), !config.rtr.is_empty());
        }
        Ok(_) => {}
        Err(error) => {
            assert_eq!(error.terminate().is_some(), error.negotiated().is_some());
            assert!(!error.to_string().is_empty());
        }
    }
}

fn respond(config: &HandshakeConfig, (ird, ord, reject): (u16, u16, bool), cuts: &[u8; CUTS], stream: &[u8]) {
    let (mut whole, mut cut) = (Responder::new(config), Responder::new(config));
    let expected = whole.handle_bytes(&[stream]);
    assert_eq!(drip(stream, cuts, |parts| cut.handle_bytes(parts)), expected);
    let Ok((_, Some(request))) = expected else { return };
    let private_data = &stream[..stream.len().min(request.max_private_data)];
    if reject {
        let reply = whole.reject(private_data).expect("an answer");
        assert!(reply.len() <= MAX_FRAME);
        return;
    }
    let (reply, negotiated) = whole.accept(ird, ord, private_data).expect("an answer");
    assert!(reply.len() <= MAX_FRAME);
    check(&negotiated, Role::Responder, ird.max(1), ord);
    // A peer that asked as this one did can read the answer.
    let asking = HandshakeConfig { revision: request.revision, rtr: RtrKinds::NONE, ..*config };
    let mut peer = Initiator::new(&asking, b"").expect("a valid configuration");
    match peer.handle_bytes(&[&reply]) {
        Ok((consumed, Some(InitiatorOutcome::Accepted { private_data: read, .. }))) => {
            assert_eq!((consumed, &*read), (reply.len(), private_data));
        }
        Err(HandshakeError::NoMatchingRtr { .. }) => assert!(request.peer_to_peer),
        // The request of the input offered other depths, or revision 2 without enhanced data.
        Err(HandshakeError::InsufficientIrd { .. } | HandshakeError::ReplyNotEnhanced) => {}
        other => panic!("{other:?}"),
    }
}

fn check(negotiated: &Negotiated, role: Role, ird: u16, ord: u16) {
    assert_eq!(negotiated.role, role);
    assert!(negotiated.ird <= ird);
    // The Read that says "ready" has a slot of its own.
    assert!(negotiated.ord <= ord || negotiated.rtr == Some(RtrKind::Read) && negotiated.ord == 1);
}

/// Shows `stream` piece by piece; gives the bytes consumed and the outcome.
fn drip<T>(
    stream: &[u8],
    cuts: &[u8; CUTS],
    mut handle: impl FnMut(&[&[u8]]) -> Result<(usize, Option<T>), HandshakeError>,
) -> Result<(usize, Option<T>), HandshakeError> {
    let (mut total, mut outcome) = (0, None);
    for end in ends(stream.len(), cuts) {
        let offered = &stream[total..end];
        let (consumed, now) = handle(&halves(offered))?;
        assert!(consumed <= offered.len() && total + consumed <= MAX_FRAME);
        assert_eq!(consumed > 0, now.is_some());
        total += consumed;
        outcome = outcome.or(now);
    }
    Ok((total, outcome))
}
