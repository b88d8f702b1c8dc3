//! Listeners, backlogs, refusals, floods.

use std::time::Duration;

use smoltcp::wire::{TcpControl, TcpPacket};

use super::bare::{Bare, segment};
use super::world::{Host, Plan, World, config, seeds};
use crate::memory_port::{Impairments, wire};
use crate::port::LinkState;
use crate::sequential::SequentialEngine;
use crate::stream::{ConnectError, Engine, ListenError, ResetReason, StreamEvent, StreamId};
use crate::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

fn failed(world: &World, stream: StreamId, reason: ResetReason) -> bool {
    world.hosts[0].application.has(|event| *event == StreamEvent::ConnectFailed { stream, reason })
}

fn established(world: &World) -> usize {
    let incoming = |event: &&StreamEvent| matches!(event, StreamEvent::Incoming { .. });
    world.hosts[1].application.events.iter().filter(incoming).count()
}

#[test]
fn nobody_listens() {
    let mut world = World::simple(1, Impairments::default());
    let stream = world.hosts[0].connect(Instant::ZERO, "10.0.0.2:9");
    world.run(MINUTE, |hosts| !hosts[0].application.events.is_empty());
    assert!(failed(&world, stream, ResetReason::Refused), "{:?}", world.hosts[0].application.events);
    assert!(world.wire.now() < Instant::ZERO + Duration::from_secs(1));
}

#[test]
fn a_neighbour_that_does_not_exist_is_unreachable() {
    let mut world = World::simple(2, Impairments::default());
    let stream = world.hosts[0].connect(Instant::ZERO, "10.0.0.77:9");
    world.run(MINUTE, |hosts| !hosts[0].application.events.is_empty());
    assert!(failed(&world, stream, ResetReason::Unreachable), "{:?}", world.hosts[0].application.events);
    let took = world.wire.now() - Instant::ZERO;
    assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(13), "the connect timeout is 10 s: {took:?}");
}

#[test]
fn a_host_that_stays_silent_times_out() {
    let mut world = World::simple(3, Impairments::default());
    // The neighbour is known from a first connection; then it falls silent.
    world.connect();
    world.wire.set_link(LinkState::Down);
    let now = world.wire.now();
    let stream = world.hosts[0].connect(now, "10.0.0.2:7");
    world.run(MINUTE, |hosts| hosts[0].application.has(|event| matches!(event, StreamEvent::ConnectFailed { .. })));
    assert!(failed(&world, stream, ResetReason::TimedOut), "{:?}", world.hosts[0].application.events);
}

#[test]
fn connections_that_cannot_begin_say_why() {
    let mut configuration = config(&["10.0.0.1/24"], 4);
    configuration.max_connections = 1;
    let (port, ..) = wire(4, Impairments::default());
    let mut engine = SequentialEngine::new(port, configuration, Instant::ZERO).expect("a good configuration");
    let mut connect = |remote: &str, local: Option<&str>| {
        let local = local.map(|local| local.parse().expect("an address"));
        engine.connect(Instant::ZERO, remote.parse().expect("an address"), local)
    };
    for remote in ["192.168.7.7:1", "[fd00::1]:1", "224.0.0.1:1", "0.0.0.0:1"] {
        assert!(matches!(connect(remote, None), Err(ConnectError::NoRoute { .. })), "{remote}");
    }
    assert!(matches!(connect("10.0.0.2:0", None), Err(ConnectError::System { .. })));
    assert!(matches!(connect("10.0.0.2:1", Some("10.0.0.9")), Err(ConnectError::LocalAddress { .. })));
    assert!(connect("10.0.0.2:1", None).is_ok());
    assert_eq!(connect("10.0.0.2:1", None), Err(ConnectError::TooManyConnections { limit: 1 }));
}

#[test]
fn listeners_that_cannot_be_say_why() {
    let mut configuration = config(&["10.0.0.1/24"], 5);
    configuration.max_listeners = 3;
    let (port, ..) = wire(5, Impairments::default());
    let mut engine = SequentialEngine::new(port, configuration, Instant::ZERO).expect("a good configuration");
    let mut listen = |local: &str| engine.listen(Instant::ZERO, local.parse().expect("an address"), 1);
    let first = listen("10.0.0.1:7").expect("a listener");
    assert!(matches!(listen("10.0.0.1:7"), Err(ListenError::AddressInUse { .. })));
    assert!(matches!(listen("10.0.0.2:7"), Err(ListenError::AddressNotOurs { .. })));
    let any = listen("0.0.0.0:0").expect("a listener at any port");
    listen("[::]:9").expect("a listener");
    assert_eq!(listen("10.0.0.1:8"), Err(ListenError::TooManyListeners { limit: 3 }));
    assert!(engine.listener_address(any).expect("its address").port() >= 49_152);
    engine.close_listener(Instant::ZERO, first);
    assert_eq!(engine.listener_address(first), None);
    let again = engine.listen(Instant::ZERO, "10.0.0.1:7".parse().expect("an address"), 1).expect("free again");
    assert_ne!(again, first);
}

#[test]
fn a_backlog_of_one_takes_one_after_the_other() {
    let mut world = World::simple(6, Impairments { delay: Duration::from_millis(1), ..Impairments::default() });
    world.hosts[1].listen("0.0.0.0:7", 1);
    for _ in 0..4 {
        world.hosts[0].connect(Instant::ZERO, "10.0.0.2:7");
    }
    world.expect("all four, with patience", MINUTE, |hosts| hosts[1].application.order.len() == 4);
    assert!(world.hosts[1].engine.statistics().refused_connections > 0);
}

#[test]
fn beyond_the_limit_of_connections_peers_are_refused() {
    let mut small = config(&["10.0.0.2/24"], 8);
    small.max_connections = 2;
    let mut world = World::new(7, Impairments::default(), [config(&["10.0.0.1/24"], 7), small]);
    world.hosts[1].listen("10.0.0.2:7", 16);
    let streams: Vec<StreamId> = (0..3).map(|_| world.hosts[0].connect(Instant::ZERO, "10.0.0.2:7")).collect();
    world.run(MINUTE, |hosts| hosts[0].application.events.len() == 3);
    assert!(failed(&world, streams[2], ResetReason::Refused), "{:?}", world.hosts[0].application.events);
    assert_eq!(established(&world), 2);
    assert_eq!(world.hosts[1].engine.statistics().refused_connections, 1);
}

#[test]
fn a_closed_listener_refuses_and_its_streams_live_on() {
    let mut world = World::simple(8, Impairments::default());
    let listener = world.hosts[1].listen("10.0.0.2:7", 4);
    world.hosts[0].connect(Instant::ZERO, "10.0.0.2:7");
    world.expect("a stream", MINUTE, |hosts| !hosts[1].application.order.is_empty());
    let now = world.wire.now();
    world.hosts[1].engine.close_listener(now, listener);
    let refused = world.hosts[0].connect(now, "10.0.0.2:7");
    world.run(MINUTE, |hosts| hosts[0].application.has(|event| matches!(event, StreamEvent::ConnectFailed { .. })));
    assert!(failed(&world, refused, ResetReason::Refused));
    assert_eq!(world.hosts[1].engine.statistics().connections, 1);
}

#[test]
fn duplicated_and_lost_handshakes_make_one_stream_each() {
    for seed in seeds(50) {
        println!("seed {seed}"); // Shown if it fails.
        let impairments = Impairments {
            duplicate: 0.5,
            loss: 0.1,
            reorder: 0.5,
            delay: Duration::from_micros(100),
            jitter: Duration::from_micros(300),
            ..Impairments::default()
        };
        let configs = ["10.0.0.1/24", "10.0.0.2/24"].map(|address| {
            let mut config = config(&[address], seed);
            // A handshake whose segments are lost five times in a row is to succeed as well.
            (config.connect_timeout, config.half_open_timeout) = (2 * MINUTE, 2 * MINUTE);
            config
        });
        let mut world = World::new(seed, impairments, configs);
        for host in &mut world.hosts {
            host.application.plan = Plan { to_send: 3000, expected: 3000, ..Plan::default() };
        }
        world.hosts[1].listen("10.0.0.2:7", 8);
        for _ in 0..5 {
            world.hosts[0].connect(Instant::ZERO, "10.0.0.2:7");
        }
        let done =
            |host: &Host| host.application.streams.values().filter(|stream| stream.received == 3000).count() == 5;
        world.expect("five exchanges", 3 * MINUTE, |hosts| hosts.iter().all(done));
        assert_eq!(established(&world), 5);
        world.run(MINUTE, |_| false);
        assert_eq!(world.hosts[1].engine.statistics().connections, 5, "half-open ones were left behind");
    }
}

#[test]
fn ten_thousand_half_open_connections_cost_a_backlog_and_pass() {
    let mut configuration = config(&["10.0.0.2/24"], 1);
    configuration.max_backlog = 64;
    let mut bare = Bare::new(configuration, Impairments::default());
    bare.engine.listen(Instant::ZERO, "10.0.0.2:7".parse().expect("an address"), usize::MAX).expect("a listener");
    bare.introduce();
    let mut answered = 0;
    for port in 10_000..20_000 {
        bare.send_segment(&segment(port, TcpControl::Syn, i32::from(port)));
        bare.turn();
        for answer in bare.sent() {
            let answer = TcpPacket::new_checked(&answer[34..]).expect("TCP");
            assert!(answer.syn() && answer.ack() && !answer.rst(), "a full backlog keeps silent");
            answered += 1;
        }
    }
    assert_eq!(answered, 64);
    let statistics = bare.engine.statistics();
    assert_eq!((statistics.connections, statistics.refused_connections), (64, 10_000 - 64));
    // Nobody confirms any of them: they are gone after the half-open timeout of ten seconds.
    for _ in 0..130 {
        bare.now = bare.now + Duration::from_millis(100);
        bare.turn();
        bare.sent();
    }
    assert_eq!(bare.engine.statistics().connections, 0);
    assert!(bare.nobody.events.is_empty());
}
