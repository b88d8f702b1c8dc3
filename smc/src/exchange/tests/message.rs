//! The header in front of a CLC message.

use super::*;

use proptest::prelude::*;

use crate::exchange::message::{MAX_EMITTED, MAX_LENGTH, MessageError};

fn bytes_of(envelope: &Envelope) -> Vec<u8> {
    let mut out = [0; MAX_EMITTED];
    let (header, clc) = envelope.emit(&mut out);
    [header, clc].concat()
}

fn accepting(has_memory: bool) -> Envelope {
    let named = Named { id: 0x0102_0304_0506_0708, geometry: GEOMETRY, has_memory };
    Envelope { message: accept(Gid(5), 6, has_memory), arena: Some(named) }
}

fn all() -> [Envelope; 5] {
    let bare = |message| Envelope { message, arena: None };
    [
        bare(proposal(Gid(5))),
        accepting(true),
        accepting(false),
        bare(confirm(Gid(5), 6)),
        bare(decline(DeclineReason::INTERNAL)),
    ]
}

#[test]
fn what_is_sent_is_what_is_read() {
    for envelope in all() {
        let bytes = bytes_of(&envelope);
        let (read, clc) = Envelope::parse(&bytes).unwrap();
        assert_eq!(read, envelope);
        assert_eq!(clc, &bytes[24..]);
    }
}

#[test]
fn the_header_is_laid_out_like_this() {
    let bytes = bytes_of(&accepting(true));
    let expected = [
        b's', b'R', b's', b'm', 2, 3, 0, 48, // magic, version, flags, length
        1, 2, 3, 4, 5, 6, 7, 8, // arena
        0, 0, 0, 64, 0, 0, 0x40, 0, // capacity, bytes of a ring
        0xe2, 0xd4, 0xc3, 0xc4, // and SMC-D's eye catcher
    ];
    assert_eq!(bytes[..expected.len()], expected);
}

#[test]
fn no_part_of_a_message_is_one_and_nothing_follows_it() {
    for envelope in all() {
        let mut bytes = bytes_of(&envelope);
        for length in 0..bytes.len() {
            assert!(Envelope::parse(&bytes[..length]).is_err(), "{length} bytes of {envelope:?}");
        }
        bytes.push(0);
        assert!(matches!(Envelope::parse(&bytes), Err(MessageError::Length { .. })));
        // Neither if the header counts it.
        bytes[7] += 1;
        assert!(Envelope::parse(&bytes).is_err());
    }
}

#[test]
fn what_a_header_must_not_say() {
    let change = |envelope: &Envelope, at: usize, value: u8| {
        let mut bytes = bytes_of(envelope);
        bytes[at] = value;
        Envelope::parse(&bytes).unwrap_err()
    };
    let [proposal, accept, ..] = all();
    assert_eq!(change(&proposal, 0, b'S'), MessageError::Foreign);
    assert_eq!(change(&proposal, 4, 1), MessageError::Version(1));
    assert_eq!(change(&proposal, 5, 4), MessageError::Flags(4));
    assert_eq!(change(&accept, 5, 2), MessageError::Flags(2), "memory, but no arena");
    assert_eq!(change(&accept, 5, 0), MessageError::Flags(0), "an accept names an arena");
    assert_eq!(change(&accept, 5, 0xff), MessageError::Flags(0xff));
    assert!(matches!(change(&accept, 16, 0xff), MessageError::Geometry(_)), "too many connections");
    assert!(matches!(change(&accept, 19, 0), MessageError::Geometry(_)), "none");
    assert!(matches!(change(&accept, 23, 1), MessageError::Geometry(_)), "no power of two");
    assert!(matches!(change(&accept, 20, 1), MessageError::Geometry(_)), "too large");
    assert!(matches!(change(&proposal, 24, 0), MessageError::Clc(_)));
    let mut named = bytes_of(&accept)[..24].to_vec();
    named.extend_from_slice(&bytes_of(&proposal)[24..]);
    named[7] = bytes_of(&proposal)[7];
    assert_eq!(Envelope::parse(&named).unwrap_err(), MessageError::Flags(3), "a proposal names none");
}

#[test]
fn every_error_has_a_reason_to_decline_with() {
    assert_eq!(MessageError::Version(9).decline_reason(), DeclineReason::VERSION_MISMATCH);
    assert_eq!(MessageError::Foreign.decline_reason(), DeclineReason::SYNCHRONIZATION);
    assert_eq!(MessageError::Excess.to_string(), "more than belongs to a message");
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..MAX_LENGTH)) {
        prop_assert!(Envelope::parse(&bytes).is_err());
    }

    #[test]
    fn a_message_with_a_changed_byte_is_read_without_a_panic(
        which in 0..5usize, at in any::<prop::sample::Index>(), value in any::<u8>(),
    ) {
        let mut bytes = bytes_of(&all()[which]);
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok((envelope, _)) = Envelope::parse(&bytes) {
            // What is read is what this would send, but for what is not looked at.
            let (again, _) = Envelope::parse(&bytes_of(&envelope)).map(|(again, _)| (again, ())).unwrap();
            prop_assert_eq!(again, envelope);
        }
    }
}
