//! Bytes as they must be.

use super::*;

/// A proposal of both paths over IPv4: 92 bytes.
const PROPOSAL: &str = "
    e2d4c3d9 01 005c 13            eye catcher, proposal, 92 bytes, version 1, path 3: both
    1234 020000abcdef              peer: instance, MAC
    00000000000000000000ffffc0000201
    020000abcdef
    0028                           40 bytes to the subnet
    0102030405060708               GID of the SMC-D device
    0000 0000                      channel, no extension
    00000000000000000000000000000000000000000000000000000000
    7f000000 08 0000 00            subnet, bits, reserved, no IPv6 prefixes
    e2d4c3d9";

/// A proposal of SMC-R over IPv6 with two prefixes.
const PROPOSAL_IPV6: &str = "
    e2d4c3d9 01 007e 10
    1234 020000abcdef
    00000000000000000000ffffc0000201
    020000abcdef
    0028
    00000000000000000000000000000000000000000000000000000000000000000000000000000000
    00000000 00 0000 02
    20010db8000000010000000000000000 40
    00000000000000000000000000000001 80
    e2d4c3d9";

/// Accept of SMC-R, first contact.
const ACCEPT_RDMA: &str = "
    e2d4c3d9 02 0044 18
    1234 020000abcdef
    00000000000000000000ffffc0000201
    020000abcdef
    0a0b0c 11223344 05 55667788
    23 00                          size code 2, MTU code 3
    00007fffdeadb000
    00 010203
    e2d4c3d9";

/// Accept of SMC-D, first contact.
const ACCEPT_SHARED: &str = "
    e2d4c3c4 02 0030 19
    0102030405060708
    1112131415161718
    09 50 0000                     element, size code 5
    21222324
    000000000000000000000000
    e2d4c3c4";

const DECLINE: &str = "
    e2d4c3d9 04 001c 18
    1234 020000abcdef
    03070000
    00000000
    e2d4c3d9";

/// Hexadecimal text with words in it: what follows two blanks behind the first column is a remark.
fn hex(text: &str) -> Vec<u8> {
    let lines = text.lines().map(|line| line.trim_start().split("  ").next().unwrap_or_default());
    bytes(&lines.collect::<String>())
}

/// A confirm is what an accept is but for its type and the flag.
fn as_confirm(accept: &str) -> Vec<u8> {
    let mut bytes = hex(accept);
    bytes[4] = 3;
    bytes[7] &= !0x08;
    bytes
}

#[test]
fn our_messages_are_these_bytes_and_these_bytes_our_messages() {
    let [both, ipv6, accept_rdma, confirm_rdma, accept_shared, confirm_shared, decline] = messages();
    for (message, golden, length) in [
        (both, hex(PROPOSAL), 92),
        (ipv6, hex(PROPOSAL_IPV6), 126),
        (accept_rdma, hex(ACCEPT_RDMA), 68),
        (confirm_rdma, as_confirm(ACCEPT_RDMA), 68),
        (accept_shared, hex(ACCEPT_SHARED), 48),
        (confirm_shared, as_confirm(ACCEPT_SHARED), 48),
        (decline, hex(DECLINE), 28),
    ] {
        assert_eq!(golden.len(), length);
        assert_eq!(emitted(&message), golden, "{message:?}");
        assert_eq!(parsed(&golden), Ok(message));
    }
}

#[test]
fn the_proposal_of_the_rfc_has_52_bytes() {
    let golden = hex("
        e2d4c3d9 01 0034 10
        1234 020000abcdef
        00000000000000000000ffffc0000201
        020000abcdef
        0000
        0a010000 10 0000 00
        e2d4c3d9");
    assert_eq!(golden.len(), 52);
    let subnet = Subnet::Ipv4 { subnet: Ipv4Addr::new(10, 1, 0, 0), bits: 16 };
    let message = Message::Proposal(Proposal { peer: PEER, offer: Offer::Rdma(rdma()), subnet });
    assert_eq!(parsed(&golden), Ok(message));
}

#[test]
fn the_longest_proposal_of_ours_fits() {
    let prefix = Ipv6Prefix { prefix: Ipv6Addr::LOCALHOST, bits: 128 };
    let subnet = Subnet::Ipv6(Prefixes::new(&[prefix; Prefixes::MAX]).expect("eight prefixes"));
    let Message::Proposal(both) = both_over_ipv4() else { unreachable!("a proposal") };
    let message = Message::Proposal(Proposal { subnet, ..both });
    let bytes = emitted(&message);
    assert_eq!(bytes.len(), MAX_EMITTED);
    assert_eq!(parsed(&bytes), Ok(message));
}

#[test]
fn reserved_fields_are_not_looked_at() {
    let with_reserved_bits = |golden: &str, places: &[usize]| {
        let mut bytes = hex(golden);
        for &place in places {
            bytes[place] = 0xff;
        }
        parsed(&bytes)
    };
    let [both, ipv6, accept_rdma, _, accept_shared, _, decline] = messages();
    // Behind the SMC-D device's GID, and beside the prefix length.
    let growth: Vec<usize> = (52..80).chain([85, 86]).collect();
    assert_eq!(with_reserved_bits(PROPOSAL, &growth), Ok(both));
    // With prefixes there is no IPv4 subnet.
    assert_eq!(with_reserved_bits(PROPOSAL_IPV6, &[80, 81, 82, 83, 84, 85, 86]), Ok(ipv6));
    assert_eq!(with_reserved_bits(ACCEPT_RDMA, &[51, 60]), Ok(accept_rdma));
    let shared: Vec<usize> = [26, 27].into_iter().chain(32..44).collect();
    assert_eq!(with_reserved_bits(ACCEPT_SHARED, &shared), Ok(accept_shared));
    assert_eq!(with_reserved_bits(DECLINE, &[20, 21, 22, 23]), Ok(decline));
}

#[test]
fn room_for_growth_in_front_of_the_subnet_is_skipped() {
    // RFC 7609 §A.2.2: also in a proposal of SMC-R, and whatever stands there.
    let mut grown = hex(PROPOSAL);
    grown[7] = 0x10;
    let Message::Proposal(both) = both_over_ipv4() else { unreachable!("a proposal") };
    assert_eq!(parsed(&grown), Ok(Message::Proposal(Proposal { offer: Offer::Rdma(rdma()), ..both })));
}

#[test]
fn a_proposal_of_linux_says_that_it_has_no_second_version() {
    // Linux says so with two bits that the RFC reserves.
    let mut bytes = hex(PROPOSAL);
    bytes[7] |= 2 << 2;
    assert_eq!(parsed(&bytes), Ok(both_over_ipv4()));
}

#[test]
fn a_decline_is_one_in_any_version_and_under_either_eye_catcher() {
    let mut second_version = hex(DECLINE);
    second_version[7] = 0x28;
    second_version[20] = 0x20;
    assert_eq!(parsed(&second_version), Ok(Message::Decline(decline())));
    let mut shared = hex(DECLINE);
    (shared[3], shared[27]) = (0xc4, 0xc4);
    assert_eq!(parsed(&shared), Ok(Message::Decline(decline())));
}
