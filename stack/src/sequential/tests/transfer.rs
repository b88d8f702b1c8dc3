//! Bulk data both ways, whatever the wire does.

use std::time::Duration;

use super::world::{Host, Plan, World, config, seeds};
use crate::memory_port::Impairments;
use crate::sequential::CongestionControl;
use crate::stream::{Engine, StreamEvent};
use crate::time::Instant;

/// Sends `bytes` both ways and closes; everything has to arrive, and both sides have to see an orderly end.
fn exchange(mut world: World, bytes: u64) -> World {
    for host in &mut world.hosts {
        host.application.plan = Plan { to_send: bytes, expected: bytes, closes: true, ..Plan::default() };
    }
    world.connect();
    world.expect("both ends closed", Duration::from_secs(600), |hosts| {
        hosts.iter().all(|host| host.application.has(|event| matches!(event, StreamEvent::Closed { .. })))
    });
    for host in &world.hosts {
        for stream in host.application.streams.values() {
            assert_eq!(stream.received, bytes);
            assert!(stream.peer_closed);
        }
        let statistics = host.engine.statistics();
        assert_eq!(statistics.received_bytes, bytes);
        assert_eq!(statistics.transmitted_bytes, bytes);
        assert!(statistics.receive_copied_bytes >= bytes, "the copy into the ring counts");
        assert_eq!(statistics.connections, 0);
    }
    world
}

#[test]
fn a_megabyte_each_way_over_a_perfect_wire() {
    let world = exchange(World::simple(1, Impairments::default()), 1_000_000);
    for host in &world.hosts {
        let copied = host.engine.statistics().receive_copied_bytes;
        assert!(copied < 1_100_000, "{copied} bytes copied: more than the ring's end explains");
    }
}

#[test]
fn a_delayed_and_slow_wire() {
    let impairments = Impairments {
        delay: Duration::from_micros(50),
        jitter: Duration::from_micros(1),
        rate_bits_per_second: Some(1_000_000_000),
        ..Impairments::default()
    };
    exchange(World::simple(2, impairments), 500_000);
}

#[test]
fn packets_in_several_parts_are_put_together_and_counted() {
    let world = exchange(World::simple(3, Impairments { cut: 1.0, ..Impairments::default() }), 300_000);
    for host in &world.hosts {
        assert!(host.engine.statistics().receive_copied_bytes > 500_000, "the second copy counts as well");
    }
}

#[test]
fn checksums_left_to_the_port() {
    let impairments = Impairments { checksum_offload: true, corrupt: 0.02, ..Impairments::default() };
    let world = exchange(World::simple(4, impairments), 500_000);
    let dropped: u64 = world.hosts.iter().map(|host| host.engine.statistics().malformed_packets).sum();
    assert!(world.wire.statistics().corrupted > 5 && dropped > 0, "{dropped} packets dropped");
}

#[test]
fn no_checksums_at_all() {
    let configs = ["10.0.0.1/24", "10.0.0.2/24"].map(|address| {
        let mut config = config(&[address], 5);
        config.checksum = false;
        config
    });
    exchange(World::new(5, Impairments::default(), configs), 300_000);
}

#[test]
fn jumbo_frames_and_large_buffers() {
    let configs = ["10.0.0.1/24", "10.0.0.2/24"].map(|address| {
        let mut config = config(&[address], 6);
        config.socket_buffer_bytes = 1 << 20;
        config.congestion_control = CongestionControl::Off;
        config
    });
    let world = exchange(World::new(6, Impairments { mtu: 9000, ..Impairments::default() }, configs), 4_000_000);
    assert!(world.hosts[0].engine.statistics().port.expect("a port").transmitted_packets < 1500);
}

/// What a hard day on the network looks like, by seed.
fn bad_wire(seed: u64) -> Impairments {
    let level = 0.01 * (seed % 4) as f64;
    Impairments {
        loss: level,
        duplicate: level * 2.0,
        reorder: level * 3.0,
        corrupt: level,
        delay: Duration::from_micros(20 * (seed % 7)),
        jitter: Duration::from_micros(seed % 11),
        cut: 0.1 * (seed % 3) as f64,
        checksum_offload: seed.is_multiple_of(5),
        mtu: if seed.is_multiple_of(6) { 9000 } else { 1500 },
        ..Impairments::default()
    }
}

#[test]
fn everything_arrives_over_a_hundred_bad_wires() {
    for seed in seeds(100) {
        println!("seed {seed}"); // Shown if it fails.
        let mut configs = ["10.0.0.1/24", "10.0.0.2/24"].map(|address| config(&[address], seed));
        configs[0].congestion_control =
            [CongestionControl::Off, CongestionControl::Reno, CongestionControl::Cubic][seed as usize % 3];
        exchange(World::new(seed, bad_wire(seed), configs), 40_000 + 1000 * (seed % 100));
    }
}

#[test]
fn sixty_four_streams_at_a_time() {
    let mut world = World::simple(7, Impairments { loss: 0.001, ..Impairments::default() });
    for host in &mut world.hosts {
        host.application.plan = Plan { to_send: 20_000, expected: 20_000, closes: true, ..Plan::default() };
    }
    world.hosts[1].listen("10.0.0.2:7", 64);
    for _ in 0..64 {
        world.hosts[0].connect(Instant::ZERO, "10.0.0.2:7");
    }
    let ends = |host: &Host| {
        host.application.events.iter().filter(|event| matches!(event, StreamEvent::Closed { .. })).count()
    };
    world.expect("all closed", Duration::from_secs(100), |hosts| hosts.iter().all(|host| ends(host) == 64));
    for host in &world.hosts {
        assert!(host.application.streams.values().all(|stream| stream.received == 20_000));
    }
}

#[test]
fn what_a_sink_leaves_behind_is_offered_again_when_it_asks() {
    let mut world = World::simple(8, Impairments::default());
    world.hosts[0].application.plan = Plan { to_send: 200_000, ..Plan::default() };
    world.hosts[1].application.plan = Plan { paused: true, expected: 200_000, ..Plan::default() };
    let (_, theirs) = world.connect();
    assert!(!world.run(Duration::from_secs(5), |hosts| hosts[1].application.streams[&theirs].received > 0));
    world.hosts[1].application.streams.get_mut(&theirs).expect("the stream").paused = false;
    world.hosts[1].engine.resume(theirs);
    world.expect("everything", Duration::from_secs(60), |hosts| {
        hosts[1].application.streams[&theirs].received == 200_000
    });
}

#[test]
fn a_segment_is_what_mtu_and_family_leave() {
    let mut world = World::simple(9, Impairments::default());
    let (ours, theirs) = world.connect();
    assert_eq!(world.hosts[0].engine.segment_size(ours), 1460);
    assert_eq!(world.hosts[1].engine.segment_size(theirs), 1460);

    let mut small = config(&["10.0.0.2/24"], 11);
    small.mtu = Some(1000);
    let jumbo = Impairments { mtu: 9000, ..Impairments::default() };
    let mut world = World::new(10, jumbo, [config(&["10.0.0.1/24"], 10), small]);
    let (ours, theirs) = world.connect();
    assert_eq!(world.hosts[0].engine.segment_size(ours), 960, "the peer takes no more");
    assert_eq!(world.hosts[1].engine.segment_size(theirs), 960);
}

#[test]
fn a_wire_with_room_for_four_frames() {
    let impairments = Impairments { in_flight_frames: 4, delay: Duration::from_micros(5), ..Impairments::default() };
    exchange(World::simple(11, impairments), 2_000_000);
}

#[test]
fn a_port_that_takes_nothing_for_a_while_loses_nothing_that_was_acknowledged() {
    // The other host does not even poll, so the wire fills up and the port's queue with it.
    let impairments = Impairments { in_flight_frames: 1, ..Impairments::default() };
    let mut world = World::simple(12, impairments);
    world.hosts[0].application.plan = Plan { to_send: 600_000, closes: true, ..Plan::default() };
    world.hosts[1].application.plan = Plan { expected: 600_000, closes: true, ..Plan::default() };
    let (_, theirs) = world.connect();
    for _ in 0..2000 {
        let now = world.wire.now() + Duration::from_millis(5);
        world.wire.advance_to(now);
        world.hosts[0].turn(now);
        assert!(world.hosts[0].engine.next_deadline(now) > Some(now), "nothing can be done at once");
    }
    world.expect("everything", Duration::from_secs(200), |hosts| {
        hosts.iter().all(|host| host.application.has(|event| matches!(event, StreamEvent::Closed { .. })))
    });
    assert_eq!(world.hosts[1].application.streams[&theirs].received, 600_000);
}
