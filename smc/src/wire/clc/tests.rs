//! CLC messages: bytes put together by hand from RFC 7609 §A.2 and from Linux's layouts, what is refused, and round trips.

mod golden;
mod properties;
mod refused;

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::wire::{
    AlertToken, BufferSize, DmbToken, ElementIndex, Gid, LinkId, Mac, Mtu, PeerId, Psn, Qpn, Rkey, RmbAddress, RoceGid,
};

/// Bytes from hexadecimal digits; everything else in `text` only separates.
fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    assert!(digits.len().is_multiple_of(2), "an odd number of digits");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The message that `bytes` are, all of them.
fn parsed(bytes: &[u8]) -> Result<Message, ClcError> {
    match parse(bytes)? {
        Parsed::Complete { message, length } => {
            assert_eq!(length, bytes.len());
            Ok(message)
        }
        Parsed::Incomplete { needed } => panic!("{needed} bytes needed, {} there", bytes.len()),
    }
}

fn emitted(message: &Message) -> Vec<u8> {
    // Whatever stood there before must not shine through.
    let mut memory = [0xaa; MAX_EMITTED];
    message.emit(&mut memory).to_vec()
}

const PEER: PeerId = PeerId(0x1234_0200_00ab_cdef);
const MAC: Mac = Mac([2, 0, 0, 0xab, 0xcd, 0xef]);

fn rdma() -> RoceAddress {
    RoceAddress { gid: RoceGid(Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped()), mac: MAC }
}

fn both_over_ipv4() -> Message {
    Message::Proposal(Proposal {
        peer: PEER,
        offer: Offer::Both { rdma: rdma(), shared: Gid(0x0102_0304_0506_0708) },
        subnet: Subnet::Ipv4 { subnet: Ipv4Addr::new(127, 0, 0, 0), bits: 8 },
    })
}

fn rdma_endpoint() -> RdmaEndpoint {
    RdmaEndpoint {
        peer: PEER,
        gid: rdma().gid,
        mac: MAC,
        qpn: Qpn::new(0x0a_0b0c).expect("24 bits"),
        rkey: Rkey(0x1122_3344),
        element: ElementIndex(5),
        alert_token: AlertToken(0x5566_7788),
        buffer_size: BufferSize::new(2).expect("64 KiB"),
        mtu: Mtu::new(3).expect("1024"),
        address: RmbAddress(0x0000_7fff_dead_b000),
        psn: Psn::new(0x01_0203).expect("24 bits"),
    }
}

fn shared_endpoint() -> SharedEndpoint {
    SharedEndpoint {
        gid: Gid(0x0102_0304_0506_0708),
        token: DmbToken(0x1112_1314_1516_1718),
        element: ElementIndex(9),
        buffer_size: BufferSize::LARGEST,
        link: LinkId(0x2122_2324),
    }
}

fn decline() -> Decline {
    Decline { peer: PEER, reason: DeclineReason::PREFIX_MISMATCH, is_out_of_sync: true }
}

/// One of each.
fn messages() -> [Message; 7] {
    let prefix = Ipv6Prefix { prefix: Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0), bits: 64 };
    let local = Ipv6Prefix { prefix: Ipv6Addr::LOCALHOST, bits: 128 };
    let prefixes = Subnet::Ipv6(Prefixes::new(&[prefix, local]).expect("two prefixes"));
    [
        both_over_ipv4(),
        Message::Proposal(Proposal { peer: PEER, offer: Offer::Rdma(rdma()), subnet: prefixes }),
        Message::Accept(Accept { is_first_contact: true, endpoint: Endpoint::Rdma(rdma_endpoint()) }),
        Message::Confirm(Confirm { endpoint: Endpoint::Rdma(rdma_endpoint()) }),
        Message::Accept(Accept { is_first_contact: true, endpoint: Endpoint::Shared(shared_endpoint()) }),
        Message::Confirm(Confirm { endpoint: Endpoint::Shared(shared_endpoint()) }),
        Message::Decline(decline()),
    ]
}

#[test]
fn a_message_may_arrive_byte_by_byte() {
    for message in messages() {
        let whole = emitted(&message);
        for cut in 0..whole.len() {
            let needed = if cut < HEADER_LENGTH { HEADER_LENGTH } else { whole.len() };
            assert_eq!(parse(&whole[..cut]), Ok(Parsed::Incomplete { needed }), "{cut} bytes of {message:?}");
        }
        assert_eq!(parsed(&whole), Ok(message));
    }
}

#[test]
fn what_follows_a_message_is_left_alone() {
    let [first, .., last] = messages();
    let stream = [emitted(&first), emitted(&last)].concat();
    let Ok(Parsed::Complete { message, length }) = parse(&stream) else { panic!("a message") };
    assert_eq!(message, first);
    assert_eq!(parsed(&stream[length..]), Ok(last));
}

#[test]
fn the_path_that_both_have_is_taken_and_memory_before_rdma() {
    let (rdma, shared) = (Offer::Rdma(rdma()), Offer::Shared(Gid(1)));
    let both = Offer::Both { rdma: rdma.rdma().expect("a device"), shared: Gid(2) };
    for (ours, theirs, path) in [
        (rdma, rdma, Ok(Path::Rdma)),
        (shared, shared, Ok(Path::Shared)),
        (both, both, Ok(Path::Shared)),
        (both, rdma, Ok(Path::Rdma)),
        (both, shared, Ok(Path::Shared)),
        (rdma, shared, Err(DeclineReason::MODE_UNSUPPORTED)),
    ] {
        assert_eq!(ours.common_path(&theirs), path, "{ours:?} and {theirs:?}");
        assert_eq!(theirs.common_path(&ours), path, "{theirs:?} and {ours:?}");
    }
}

#[test]
fn a_reason_says_what_it_means_and_its_code() {
    assert_eq!(
        DeclineReason::MODE_UNSUPPORTED.to_string(),
        "the two ends have no mode (SMC-R or SMC-D) in common (0x03040000)"
    );
    assert_eq!(DeclineReason(0x1234).to_string(), "reason 0x00001234");
    let codes: std::collections::BTreeSet<u32> = DeclineReason::KNOWN.iter().map(|reason| reason.0).collect();
    assert_eq!(codes.len(), DeclineReason::KNOWN.len(), "no code stands for two things");
}

#[test]
fn there_are_one_to_eight_prefixes() {
    let prefix = Ipv6Prefix { prefix: Ipv6Addr::LOCALHOST, bits: 128 };
    assert_eq!(Prefixes::new(&[]), None);
    assert_eq!(Prefixes::new(&[prefix; 8]).map(|prefixes| prefixes.as_slice().len()), Some(8));
    assert_eq!(Prefixes::new(&[prefix; 9]), None);
    assert_eq!(Prefixes::new(&[Ipv6Prefix { bits: 129, ..prefix }]), None);
}
