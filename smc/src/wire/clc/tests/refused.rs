//! What is no message, why, and what is answered.

use super::*;

/// A proposal as Linux makes it in version 2, with `path` in version 1 and `second_path` in version 2: one user enterprise
/// ID, two SMC-D devices beside the first.
pub(super) fn second_version(path: u8, second_path: u8) -> Vec<u8> {
    let subnet: &[u8] = if path == 2 { &[] } else { &[127, 0, 0, 0, 8, 0, 0, 0] };
    let area_offset: u8 = if path == 2 { 0 } else { 40 };
    let mut body = Vec::new();
    body.extend([0x12, 0x34, 2, 0, 0, 0xab, 0xcd, 0xef]);
    body.extend(rdma().gid.0.octets());
    body.extend(MAC.0);
    body.extend([0, area_offset]);
    // GID, channel, offset of the extension behind this field.
    body.extend([1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0xff, 0, 28 + subnet.len() as u8]);
    body.extend([0; 28]);
    body.extend(subnet);
    // One ID, two devices, flags, and 32 reserved bytes and an ID in front of SMC-D's extension.
    body.extend([1, 2, 0, 0x11, 0, 0, 0, 64]);
    body.extend([0; 32]);
    body.extend(*b"USER-ENTERPRISE-ID              ");
    body.extend(*b"SYSTEM-ENTERPRISE-ID            ");
    body.extend([0; 16]);
    body.extend([9; 2 * 10]);
    let length = (HEADER_LENGTH + body.len() + 4) as u16;
    let mut bytes = vec![0xe2, 0xd4, 0xc3, 0xd9, 1];
    bytes.extend(length.to_be_bytes());
    bytes.push(2 << 4 | second_path << 2 | path);
    bytes.extend(body);
    bytes.extend([0xe2, 0xd4, 0xc3, 0xd9]);
    bytes
}

fn changed(mut bytes: Vec<u8>, changes: &[(usize, u8)]) -> Result<Message, ClcError> {
    for &(place, value) in changes {
        bytes[place] = value;
    }
    parsed(&bytes)
}

#[test]
fn a_second_version_is_taken_for_its_first() {
    for (path, offer) in [
        (0, Offer::Rdma(rdma())),
        (1, Offer::Shared(Gid(0x0102_0304_0506_0708))),
        (3, Offer::Both { rdma: rdma(), shared: Gid(0x0102_0304_0506_0708) }),
    ] {
        for second_path in 0..4 {
            let Ok(Message::Proposal(proposal)) = parsed(&second_version(path, second_path)) else {
                panic!("a proposal: {:?}", parsed(&second_version(path, second_path)));
            };
            assert_eq!(proposal.offer, offer);
            assert_eq!(proposal.subnet, Subnet::Ipv4 { subnet: Ipv4Addr::new(127, 0, 0, 0), bits: 8 });
        }
    }
}

#[test]
fn a_second_version_without_a_first_is_declined_for_its_version() {
    for second_path in 0..4 {
        let error = parsed(&second_version(2, second_path)).expect_err("nothing for us");
        assert_eq!(error, ClcError::OnlySecondVersion);
        assert_eq!(error.decline_reason(), DeclineReason::VERSION_MISMATCH);
    }
}

#[test]
fn a_second_version_may_have_no_extension() {
    // No offset; or one that does not count, because no path is offered in version 2.
    assert!(changed(second_version(1, 3), &[(50, 0), (51, 0)]).is_ok());
    assert!(changed(second_version(1, 2), &[(50, 0xff), (51, 0xff)]).is_ok());
    assert!(changed(second_version(1, 3), &[(94, 0), (95, 0)]).is_ok());
    assert!(changed(second_version(1, 0), &[(94, 0xff), (95, 0xff)]).is_ok(), "SMC-R has no use for SMC-D's");
}

#[test]
fn nothing_in_a_second_version_may_point_out_of_it_or_back() {
    let outside = |area| Err(ClcError::Outside(area));
    for (changes, expected) in [
        // Subnet: behind the end; inside of SMC-D's part; so that its end is missing.
        (&[(38, 0xff), (39, 0xff)][..], outside(Area::Prefixes)),
        (&[(39, 39)], outside(Area::Shared)),
        (&[(39, 228)], outside(Area::Prefixes)),
        // Extension: behind the end, and on the subnet.
        (&[(50, 0xff), (51, 0xff)], outside(Area::Extension)),
        (&[(51, 35)], outside(Area::Extension)),
        (&[(51, 1)], outside(Area::Extension)),
        // Its counts: too many, and more than there is room for.
        (&[(88, 9)], Err(ClcError::Count { area: Area::Extension, count: 9, limit: 8 })),
        (&[(88, 8)], outside(Area::Extension)),
        (&[(89, 9)], Err(ClcError::Count { area: Area::SharedExtension, count: 9, limit: 8 })),
        (&[(89, 3)], outside(Area::SharedExtension)),
        // SMC-D's: on the IDs, and behind the end.
        (&[(95, 63)], outside(Area::SharedExtension)),
        (&[(94, 0xff), (95, 0xff)], outside(Area::SharedExtension)),
    ] {
        assert_eq!(changed(second_version(1, 1), changes), expected, "{changes:?}");
    }
    // SMC-R only, but its subnet would lie in the part that version 2 always has.
    assert_eq!(changed(second_version(0, 3), &[(39, 32)]), outside(Area::Prefixes));
}

#[test]
fn a_second_version_is_as_long_as_what_it_must_have() {
    let short = |length: usize, path: u8| {
        let mut bytes = second_version(path, 2);
        bytes.truncate(length - 4);
        bytes.extend([0xe2, 0xd4, 0xc3, 0xd9]);
        bytes[6] = length as u8;
        parsed(&bytes)
    };
    assert_eq!(short(52, 2), Err(ClcError::Outside(Area::Shared)));
    assert_eq!(short(83, 2), Err(ClcError::Outside(Area::Shared)));
    assert_eq!(short(84, 2), Err(ClcError::OnlySecondVersion));
    assert_eq!(short(91, 1), Err(ClcError::Outside(Area::Prefixes)));
    assert!(short(92, 1).is_ok());
}

#[test]
fn eye_catchers_must_be_there_at_both_ends() {
    for message in messages() {
        let bytes = emitted(&message);
        for place in 0..4 {
            let first_byte_wrong = &bytes[..place];
            assert!(parse(first_byte_wrong).is_ok());
            assert_eq!(changed(bytes.clone(), &[(place, 0)]), Err(ClcError::Eyecatcher));
            let end = bytes.len() - 4 + place;
            assert_eq!(changed(bytes.clone(), &[(end, 0)]), Err(ClcError::Trailer), "{message:?}");
        }
        // The other family's is not the same.
        let end = bytes.len() - 1;
        let other = if bytes[end] == 0xd9 { 0xc4 } else { 0xd9 };
        assert_eq!(changed(bytes, &[(end, other)]), Err(ClcError::Trailer));
    }
    assert_eq!(parse(b"GET / HTTP/1.1\r\n"), Err(ClcError::Eyecatcher));
    assert_eq!(parse(&[0xe2, 0xd4, 0xc3, 0xd8]), Err(ClcError::Eyecatcher), "at once, not when there is a header");
    assert_eq!(parse(&[0xe3]), Err(ClcError::Eyecatcher));
    assert_eq!(changed(emitted(&both_over_ipv4()), &[(3, 0xc4)]), Err(ClcError::Eyecatcher), "SMC-D has no proposal");
}

#[test]
fn headers_are_refused_before_the_rest_is_there() {
    let header = |kind: u8, length: u16, control: u8| {
        let [high, low] = length.to_be_bytes();
        parse(&[0xe2, 0xd4, 0xc3, 0xd9, kind, high, low, control]).expect_err("no such message")
    };
    let length = |kind, length| ClcError::Length { kind, length };
    assert_eq!(header(0, 28, 0x10), ClcError::Kind(Kind(0)));
    assert_eq!(header(5, 28, 0x10), ClcError::Kind(Kind(5)));
    assert_eq!(header(1, 51, 0x10), length(Kind::PROPOSAL, 51));
    assert_eq!(header(1, 0, 0x10), length(Kind::PROPOSAL, 0));
    assert_eq!(header(1, 1025, 0x20), length(Kind::PROPOSAL, 1025));
    assert_eq!(header(1, u16::MAX, 0x10), length(Kind::PROPOSAL, 65535));
    for (kind, wrong) in [(2, 67), (2, 69), (2, 48), (3, 67), (3, 78), (4, 27), (4, 29)] {
        assert_eq!(header(kind, wrong, 0x10), length(Kind(kind), usize::from(wrong)));
    }
    for (kind, right) in [(1, 52), (2, 68), (3, 68), (4, 28)] {
        for version in [0, 3, 15] {
            let error = header(kind, right, version << 4);
            assert_eq!(error, ClcError::Version { kind: Kind(kind), version });
            assert_eq!(error.decline_reason(), DeclineReason::VERSION_MISMATCH);
        }
    }
    // We never propose version 2, so nobody may accept or confirm it.
    assert_eq!(header(2, 68, 0x20), ClcError::Version { kind: Kind::ACCEPT, version: 2 });
    assert_eq!(header(3, 68, 0x20), ClcError::Version { kind: Kind::CONFIRM, version: 2 });
}

#[test]
fn the_path_must_be_one_and_that_of_the_eye_catcher() {
    let [both, _, accept_rdma, _, accept_shared, confirm_shared, _] = messages().map(|message| emitted(&message));
    let path = |kind, path| Err(ClcError::Path { kind, path });
    assert_eq!(changed(both, &[(7, 0x12)]), path(Kind::PROPOSAL, 2));
    for (bits, byte) in [(1, 0x11), (2, 0x12), (3, 0x13)] {
        assert_eq!(changed(accept_rdma.clone(), &[(7, byte)]), path(Kind::ACCEPT, bits));
    }
    for (bits, byte) in [(0, 0x10), (2, 0x12), (3, 0x13)] {
        assert_eq!(changed(accept_shared.clone(), &[(7, byte)]), path(Kind::ACCEPT, bits));
        assert_eq!(changed(confirm_shared.clone(), &[(7, byte)]), path(Kind::CONFIRM, bits));
    }
    assert_eq!(ClcError::Path { kind: Kind::ACCEPT, path: 2 }.decline_reason(), DeclineReason::MODE_UNSUPPORTED);
}

#[test]
fn lengths_and_counts_of_a_proposal_are_checked() {
    let [both, ipv6, ..] = messages().map(|message| emitted(&message));
    let outside = |area| Err(ClcError::Outside(area));
    assert_eq!(changed(both.clone(), &[(39, 39)]), outside(Area::Shared));
    assert_eq!(changed(both.clone(), &[(39, 0)]), outside(Area::Shared));
    assert_eq!(changed(both.clone(), &[(39, 41)]), outside(Area::Prefixes));
    assert_eq!(changed(both.clone(), &[(38, 0xff), (39, 0xff)]), outside(Area::Prefixes));
    assert_eq!(changed(both.clone(), &[(84, 33)]), Err(ClcError::PrefixLength(33)));
    assert_eq!(changed(both, &[(87, 1)]), outside(Area::Prefixes));
    assert_eq!(changed(ipv6.clone(), &[(87, 3)]), outside(Area::Prefixes));
    assert_eq!(changed(ipv6.clone(), &[(87, 9)]), Err(ClcError::Count { area: Area::Prefixes, count: 9, limit: 8 }));
    assert_eq!(changed(ipv6.clone(), &[(104, 129)]), Err(ClcError::PrefixLength(129)));
    // Bytes that belong to nothing.
    let leftover = Err(ClcError::Length { kind: Kind::PROPOSAL, length: 126 });
    assert_eq!(changed(ipv6.clone(), &[(87, 1)]), leftover);
    assert_eq!(changed(ipv6, &[(87, 0)]), leftover);
}

#[test]
fn a_buffer_has_at_most_512_kib() {
    let [_, _, accept_rdma, _, accept_shared, ..] = messages().map(|message| emitted(&message));
    for code in 6..16 {
        assert_eq!(changed(accept_rdma.clone(), &[(50, code << 4)]), Err(ClcError::BufferSize(code)));
        assert_eq!(changed(accept_shared.clone(), &[(25, code << 4)]), Err(ClcError::BufferSize(code)));
    }
}
