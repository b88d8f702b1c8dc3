//! Peers and strangers that mean harm: memory stays bounded, nothing is delivered that was not sent, the connection lives.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::script::{FULL, Script, plain, seg};
use crate::softrdma::SoftrdmaConfig;
use crate::stream::{Engine, StreamEvent};

#[test]
fn bytes_that_were_received_are_not_changed_by_a_copy_that_differs() {
    let mut script = Script::connected_with_sack();
    script.above.appetite = 0;
    script.send(seg("A", 1, 1).data(b"aaaa"));
    script.send(seg("A", 9, 1).data(b"cccc"));
    script.send(seg("A", 8, 1).data(b"zzzz"));
    script.send(seg("A", 9, 1).data(b"zzzz"));
    script.send(seg("A", 1, 1).data(b"zzzzbbbb"));
    script.above.appetite = usize::MAX;
    let stream = script.stream();
    script.engine.resume(stream);
    script.sent();
    assert_eq!(script.above.received, b"aaaabbbbcccc");
}

#[test]
fn segments_of_one_byte_to_a_layer_above_that_takes_none_keep_few_packets() {
    let config = SoftrdmaConfig { max_held_packets: 32, ..plain() };
    let (mut script, _) = Script::connected_with(config, seg("S", 0, 0).sackable());
    script.above.appetite = 0;
    for at in 0..2000u32 {
        script.send(seg("A", 1 + at, 1).data(&[at as u8]));
    }
    script.drain();
    assert!(script.engine.receive.held_packets() <= 32, "{}", script.engine.receive.held_packets());
    script.above.appetite = usize::MAX;
    let stream = script.stream();
    script.engine.resume(stream);
    script.sent();
    let expected: Vec<u8> = (0..2000u32).map(|at| at as u8).collect();
    assert_eq!(script.above.received, expected);
}

#[test]
fn many_connections_to_a_layer_above_that_takes_none_keep_few_packets() {
    let config = SoftrdmaConfig { max_held_packets: 32, ..plain() };
    let mut script = Script::listening(config);
    script.above.appetite = 0;
    for port in 5000..5100 {
        script.send(seg("S", 0, 0).port(port));
        script.sent();
        script.send(seg("A", 1, 1).port(port));
        script.send(seg("A", 1, 1).port(port).data(b"x"));
    }
    script.sent();
    assert_eq!(script.engine.statistics().connections, 100);
    assert!(script.engine.receive.held_packets() <= 32, "{}", script.engine.receive.held_packets());
    script.above.appetite = usize::MAX;
    for stream in script.streams() {
        script.engine.resume(stream);
    }
    script.sent();
    assert_eq!(script.above.received, [b'x'; 100]);
}

#[test]
fn a_thousand_pieces_behind_a_gap_keep_few_packets_and_the_stream_goes_on() {
    let config = SoftrdmaConfig { max_held_packets: 64, ..plain() };
    let (mut script, _) = Script::connected_with(config, seg("S", 0, 0).sackable());
    for at in (3..3000u32).step_by(2) {
        script.send(seg("A", at, 1).data(&[at as u8]));
    }
    script.drain();
    assert!(script.engine.receive.held_packets() <= 64, "{}", script.engine.receive.held_packets());
    for at in 1..3000u32 {
        script.send(seg("A", at, 1).data(&[at as u8]));
    }
    let expected: Vec<u8> = (1..3000u32).map(|at| at as u8).collect();
    assert_eq!(script.above.received, expected);
    assert_eq!(script.engine.receive.held_packets(), 0);
}

#[test]
fn rfc_2018_8_a_gap_that_nobody_fills_gives_its_room_to_one_that_is_being_repaired() {
    let config = SoftrdmaConfig { max_held_packets: 16, ..plain() };
    let mut script = Script::listening(config);
    let initials = [5000, 5001].map(|port| {
        script.send(seg("S", 0, 0).sackable().port(port));
        script.sent();
        script.send(seg("A", 1, 1).port(port));
        script.initial
    });
    let hold = |script: &mut Script, port: u16, count: u32| {
        script.initial = initials[usize::from(port - 5000)];
        for at in 0..count {
            script.send(seg("A", 11 + 10 * at, 1).port(port).data(&[at as u8; 10]));
        }
        script.drain();
    };
    for _ in 0..2 {
        hold(&mut script, 5000, 16);
    }
    let held = script.engine.receive.held_packets();
    assert!((8..=16).contains(&held), "{held}");
    // A gap that is new keeps its room, however short that is.
    hold(&mut script, 5001, 1);
    assert_eq!(script.engine.receive.held_packets(), held + 1);
    script.pass(Duration::from_millis(11));
    script.drain();
    for _ in 0..2 {
        hold(&mut script, 5001, 6);
    }
    script.send(seg("A", 71, 1).port(5001).data(&[6; 10]));
    assert_eq!(script.one().sack, [(11, 81)], "all of it is there, but for the gap");
    assert_eq!(script.engine.receive.held_packets(), 7);
    // What was dropped is sent again, and the stream is whole.
    script.initial = initials[0];
    script.send(seg("A", 1, 1).port(5000).data(&[0; 170]));
    assert_eq!(script.above.received.len(), 170);
}

#[test]
fn options_that_lie_about_their_length_are_read_no_further() {
    let mut script = Script::listening(plain());
    let mut random = SmallRng::seed_from_u64(1);
    for round in 0..2000u16 {
        // Real options, then random bytes in their place.
        let segment = seg("S", 0, 0).sackable().scale(2).ts(1, 0).port(5000 + round % 8);
        let mut packet = script.packet_of(&segment, true);
        let tcp = 20;
        let header = usize::from(packet[tcp + 12] >> 4) * 4;
        packet[tcp + 20..tcp + header].fill_with(|| random.random_range(0..12));
        refill_checksum(&mut packet);
        script.send_raw(&packet);
        script.sent();
    }
    // The engine is well: somebody else is served.
    script.send(seg("S", 0, 0));
    script.expect("SA", 0, 1, 0);
}

/// Sets the TCP checksum of an IPv4 packet without options.
fn refill_checksum(packet: &mut [u8]) {
    use smoltcp::wire::{Ipv4Packet, TcpPacket};
    let mut ip = Ipv4Packet::new_unchecked(packet);
    let (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
    TcpPacket::new_unchecked(ip.payload_mut()).fill_checksum(&source, &destination);
}

#[test]
fn wrong_checksums_are_counted_and_nothing_more() {
    let mut script = Script::connected();
    let packet = script.packet_of(&seg("A", 1, 1).data(b"junk"), false);
    script.send_raw(&packet);
    script.nothing();
    assert!(script.above.received.is_empty());
    assert_eq!(script.engine.statistics().malformed_packets, 1);
}

#[test]
fn truncated_and_random_packets_do_nothing() {
    let mut script = Script::connected();
    let mut random = SmallRng::seed_from_u64(2);
    let whole = script.packet_of(&seg("A", 1, 1).data(&[9; 100]), true);
    for length in 1..whole.len() {
        script.send_raw(&whole[..length]);
    }
    for _ in 0..5000 {
        let mut packet = whole.clone();
        for _ in 0..random.random_range(1..8) {
            let at = random.random_range(0..packet.len());
            packet[at] ^= 1 << random.random_range(0..8);
        }
        packet.truncate(random.random_range(1..=packet.len()));
        script.send_raw(&packet);
        script.sent();
    }
    assert!(script.above.received.is_empty());
    script.send(seg("A", 1, 1).data(b"good"));
    assert_eq!(script.above.received, b"good");
}

#[test]
fn a_segment_from_ourselves_is_no_connection() {
    let mut script = Script::listening(plain());
    let mut packet = script.packet_of(&seg("S", 0, 0).port(7), true);
    let destination: [u8; 4] = packet[16..20].try_into().expect("four bytes");
    packet[12..16].copy_from_slice(&destination);
    let mut ip = smoltcp::wire::Ipv4Packet::new_unchecked(packet.as_mut_slice());
    ip.fill_checksum();
    refill_checksum(&mut packet);
    script.send_raw(&packet);
    script.pass(Duration::from_millis(10));
    script.drain();
    assert!(script.above.events.is_empty());
}

#[test]
fn syn_and_fin_at_once_begin_nothing() {
    let mut script = Script::listening(plain());
    script.send(seg("SF", 0, 0));
    let sent = script.sent();
    assert!(sent.iter().all(|sent| sent.flags.contains('R')), "{sent:?}");
    assert_eq!(script.engine.statistics().connections, 0);
}

#[test]
fn a_peer_that_reports_nonsense_selectively_gets_its_bytes_all_the_same() {
    let mut script = Script::connected_with_sack();
    let mut random = SmallRng::seed_from_u64(3);
    script.write(20 * FULL as u64);
    script.drain();
    for _ in 0..500 {
        let blocks = [(); 3].map(|()| {
            let left = random.random_range(0..40_000u32).wrapping_sub(5000);
            (left, left.wrapping_add(random.random_range(0..20_000)).wrapping_sub(2000))
        });
        script.send(seg("A", 1, 1).sack(&blocks));
        script.drain();
    }
    // Nothing was acknowledged: the first segment comes again, and then all the rest.
    let mut through = 1;
    for _ in 0..10_000 {
        script.pass(Duration::from_micros(500));
        for sent in script.drain() {
            if sent.seq <= through {
                through = through.max(sent.seq + sent.payload.len() as u32);
            }
        }
        script.send(seg("A", 1, through));
        if through == 1 + 20 * FULL as u32 {
            break;
        }
    }
    assert_eq!(script.above.source.acknowledged, 20 * FULL as u64);
}

#[test]
fn acknowledgements_that_are_split_into_bytes_open_the_window_by_bytes() {
    let mut script = Script::connected();
    script.write(1_000_000);
    assert_eq!(script.sent().len(), 10);
    let mut sent = 0;
    for byte in 2..=1 + FULL as u32 {
        script.send(seg("A", 1, byte));
        sent += script.drain().iter().map(|sent| sent.payload.len()).sum::<usize>();
    }
    // RFC 3465: what was acknowledged in all, twice, is what slow start allows.
    assert!(sent <= 3 * FULL, "{sent}");
}

#[test]
fn a_flood_of_guesses_at_a_connection_does_not_end_it() {
    let mut script = Script::connected();
    let mut random = SmallRng::seed_from_u64(4);
    for _ in 0..20_000 {
        let flags = ["R", "S", "A", "RA", "FA", "SA", ""][random.random_range(0..7)];
        let (seq, ack) = (random.random::<u32>() | 0x0020_0000, random.random::<u32>() | 0x0020_0000);
        script.send(seg(flags, seq, ack).data(&[0; 3]));
        script.drain();
    }
    assert!(!script.has(|event| matches!(event, StreamEvent::Reset { .. } | StreamEvent::PeerClosed { .. })));
    assert!(script.above.received.is_empty());
    script.send(seg("A", 1, 1).data(b"alive"));
    assert_eq!(script.above.received, b"alive");
}
