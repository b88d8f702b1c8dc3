//! Sizes, codes and how the numbers look.

use std::net::Ipv4Addr;

use super::{BufferSize, DmbToken, Mac, Mtu, PeerId, Psn, Qpn, RoceGid};

#[test]
fn buffer_sizes_are_the_six_of_the_rfc() {
    let sizes: Vec<u32> = (0..=255).filter_map(BufferSize::new).map(BufferSize::bytes).collect();
    assert_eq!(sizes, [16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10]);
    for (code, bytes) in sizes.iter().enumerate() {
        assert_eq!(BufferSize::of_bytes(*bytes).map(BufferSize::code), Some(code as u8));
    }
    for bytes in [0, 1, 8 << 10, 16 << 10 | 1, 48 << 10, 1 << 20, 1 << 31, u32::MAX] {
        assert_eq!(BufferSize::of_bytes(bytes), None, "{bytes}");
    }
}

#[test]
fn path_mtus_are_enumerated_from_one() {
    let sizes: Vec<Option<u32>> = (0..=7).map(|code| Mtu::new(code).and_then(Mtu::bytes)).collect();
    assert_eq!(sizes, [None, Some(256), Some(512), Some(1024), Some(2048), Some(4096), None, None]);
    assert_eq!(Mtu::new(16), None);
}

#[test]
fn numbers_of_24_bits_have_no_more() {
    assert_eq!(Qpn::new(0xff_ffff).map(Qpn::number), Some(0xff_ffff));
    assert_eq!(Qpn::new(0x100_0000), None);
    assert_eq!(Psn::from_bytes([1, 2, 3]).number(), 0x01_0203);
    assert_eq!(Psn::from_bytes([1, 2, 3]).to_bytes(), [1, 2, 3]);
}

#[test]
fn numbers_look_as_operators_know_them() {
    let mac = Mac([2, 0, 0, 0xab, 0xcd, 0xef]);
    assert_eq!(mac.to_string(), "02:00:00:ab:cd:ef");
    assert_eq!(PeerId::new(0x1234, mac).to_string(), "0x1234020000abcdef");
    assert_eq!(DmbToken(7).to_string(), "0x0000000000000007");
    assert_eq!(Qpn::new(0x11).expect("24 bits").to_string(), "0x000011");
    assert_eq!(RoceGid(Ipv4Addr::LOCALHOST.to_ipv6_mapped()).to_string(), "::ffff:127.0.0.1");
}
