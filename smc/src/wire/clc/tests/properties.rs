//! What holds of all messages and of all bytes.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::refused::second_version;
use super::*;

fn any_rdma() -> impl Strategy<Value = RoceAddress> {
    (any::<[u8; 16]>(), any::<[u8; 6]>()).prop_map(|(gid, mac)| RoceAddress { gid: RoceGid(gid.into()), mac: Mac(mac) })
}

fn any_offer() -> impl Strategy<Value = Offer> {
    prop_oneof![
        any_rdma().prop_map(Offer::Rdma),
        any::<u64>().prop_map(|gid| Offer::Shared(Gid(gid))),
        (any_rdma(), any::<u64>()).prop_map(|(rdma, gid)| Offer::Both { rdma, shared: Gid(gid) }),
    ]
}

fn any_subnet() -> impl Strategy<Value = Subnet> {
    let prefix = (any::<[u8; 16]>(), 0..=128u8).prop_map(|(prefix, bits)| Ipv6Prefix { prefix: prefix.into(), bits });
    prop_oneof![
        (any::<[u8; 4]>(), 0..=32u8).prop_map(|(subnet, bits)| Subnet::Ipv4 { subnet: subnet.into(), bits }),
        vec(prefix, 1..=8).prop_map(|prefixes| Subnet::Ipv6(Prefixes::new(&prefixes).expect("one to eight"))),
    ]
}

fn any_buffer_size() -> impl Strategy<Value = BufferSize> {
    (0..=BufferSize::LARGEST.code()).prop_map(|code| BufferSize::new(code).expect("one of six"))
}

fn any_rdma_endpoint() -> impl Strategy<Value = RdmaEndpoint> {
    let numbers = (any::<u64>(), 0..1u32 << 24, any::<u32>(), any::<u8>(), any::<u32>(), any::<u64>(), 0..1u32 << 24);
    (any_rdma(), numbers, any_buffer_size(), 0..16u8).prop_map(|(rdma, numbers, buffer_size, mtu)| {
        let (peer, qpn, rkey, element, alert_token, address, psn) = numbers;
        RdmaEndpoint {
            peer: PeerId(peer),
            gid: rdma.gid,
            mac: rdma.mac,
            qpn: Qpn::new(qpn).expect("24 bits"),
            rkey: Rkey(rkey),
            element: ElementIndex(element),
            alert_token: AlertToken(alert_token),
            buffer_size,
            mtu: Mtu::new(mtu).expect("four bits"),
            address: RmbAddress(address),
            psn: Psn::new(psn).expect("24 bits"),
        }
    })
}

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    let shared = (any::<u64>(), any::<u64>(), any::<u8>(), any_buffer_size(), any::<u32>());
    prop_oneof![
        any_rdma_endpoint().prop_map(Endpoint::Rdma),
        shared.prop_map(|(gid, token, element, buffer_size, link)| Endpoint::Shared(SharedEndpoint {
            gid: Gid(gid),
            token: DmbToken(token),
            element: ElementIndex(element),
            buffer_size,
            link: LinkId(link),
        })),
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    prop_oneof![
        (any::<u64>(), any_offer(), any_subnet()).prop_map(|(peer, offer, subnet)| Message::Proposal(Proposal {
            peer: PeerId(peer),
            offer,
            subnet
        })),
        (any::<bool>(), any_endpoint())
            .prop_map(|(is_first_contact, endpoint)| Message::Accept(Accept { is_first_contact, endpoint })),
        any_endpoint().prop_map(|endpoint| Message::Confirm(Confirm { endpoint })),
        (any::<u64>(), any::<u32>(), any::<bool>()).prop_map(|(peer, reason, is_out_of_sync)| {
            Message::Decline(Decline { peer: PeerId(peer), reason: DeclineReason(reason), is_out_of_sync })
        }),
    ]
}

/// What is understood can be written, and is then the same again.
fn check_what_is_understood(bytes: &[u8]) -> Result<(), TestCaseError> {
    match parse(bytes) {
        Ok(Parsed::Complete { message, length }) => {
            prop_assert!(length <= bytes.len());
            prop_assert_eq!(parsed(&emitted(&message)), Ok(message));
        }
        Ok(Parsed::Incomplete { needed }) => prop_assert!(needed > bytes.len() && needed <= MAX_LENGTH),
        Err(error) => prop_assert!(DeclineReason::KNOWN.contains(&error.decline_reason())),
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_message_is_the_same_after_a_journey(message in any_message()) {
        let bytes = emitted(&message);
        prop_assert_eq!(parsed(&bytes), Ok(message));
    }

    #[test]
    fn any_bytes_are_read_safely(tail in vec(any::<u8>(), 0..300), kind in 0..6u8, length in 0..120u16, control: u8) {
        check_what_is_understood(&tail)?;
        let header = [&[0xe2, 0xd4, 0xc3, 0xd9, kind][..], &length.to_be_bytes(), &[control]].concat();
        check_what_is_understood(&[&header[..], &tail].concat())?;
    }

    #[test]
    fn a_message_with_some_bytes_changed_is_read_safely(
        message in any_message(),
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = emitted(&message);
        for (place, value) in changes {
            let length = bytes.len();
            bytes[place.index(length)] = value;
        }
        check_what_is_understood(&bytes)?;
    }

    #[test]
    fn a_second_version_with_some_bytes_changed_is_read_safely(
        path in 0..4u8,
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = second_version(path, 3);
        // Offsets and counts, in which everything can go wrong, more often than by chance.
        let places = [7, 38, 39, 50, 51, 87, 88, 89, 94, 95];
        for (place, value) in changes {
            bytes[places[place.index(places.len())]] = value;
        }
        check_what_is_understood(&bytes)?;
    }
}
