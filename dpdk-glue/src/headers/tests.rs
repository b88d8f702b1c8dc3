use super::*;

fn ipv4_frame(options: usize, protocol: u8) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET_LENGTH + 20 + options + 32];
    frame[12..14].copy_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
    frame[14] = 0x40 | ((20 + options) / 4) as u8;
    frame[14 + 9] = protocol;
    frame[14 + 20 + options + 12] = 8 << 4;
    frame
}

#[test]
fn an_ipv4_header_with_options_is_measured() {
    let lengths = HeaderLengths::of(&ipv4_frame(8, PROTOCOL_TCP));
    assert_eq!(lengths, Some(HeaderLengths { link: 14, network: 28, transport: 32, is_ipv6: false }));
}

#[test]
fn a_vlan_tag_counts_as_link_header() {
    let mut frame = ipv4_frame(0, PROTOCOL_TCP);
    frame.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
    assert_eq!(HeaderLengths::of(&frame).map(|lengths| (lengths.link, lengths.network)), Some((18, 20)));
}

#[test]
fn an_ipv6_frame_is_measured_and_known_as_such() {
    let mut frame = vec![0; ETHERNET_LENGTH + 40 + 20];
    frame[12..14].copy_from_slice(&ETHERTYPE_IPV6.to_be_bytes());
    frame[14 + 6] = PROTOCOL_TCP;
    frame[14 + 40 + 12] = 5 << 4;
    assert!(is_ipv6(&frame));
    let lengths = HeaderLengths::of(&frame);
    assert_eq!(lengths, Some(HeaderLengths { link: 14, network: 40, transport: 20, is_ipv6: true }));
}

#[test]
fn what_is_not_tcp_or_is_cut_short_has_no_lengths() {
    assert_eq!(HeaderLengths::of(&ipv4_frame(0, 17)), None);
    let whole = ipv4_frame(0, PROTOCOL_TCP);
    for length in 0..ETHERNET_LENGTH + 20 + 12 {
        assert_eq!(HeaderLengths::of(&whole[..length]), None, "cut at {length}");
    }
}
