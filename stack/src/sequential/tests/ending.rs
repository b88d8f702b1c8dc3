//! How streams end, and how they do not.

use std::time::Duration;

use super::world::{Host, Plan, World, config};
use crate::memory_port::Impairments;
use crate::port::LinkState;
use crate::stream::{Engine, ResetReason, StreamEvent, Transmitted};
use crate::time::Instant;

const HOUR: Duration = Duration::from_secs(3600);

fn is_reset(event: &StreamEvent) -> bool {
    matches!(event, StreamEvent::Reset { .. })
}

fn is_closed(event: &StreamEvent) -> bool {
    matches!(event, StreamEvent::Closed { .. })
}

fn any_reset(hosts: &[Host; 2]) -> bool {
    hosts.iter().any(|host| host.application.has(is_reset))
}

#[test]
fn an_idle_connection_between_living_hosts_lives_on() {
    let mut world = World::simple(1, Impairments::default());
    world.connect();
    assert!(!world.run(HOUR, any_reset));
}

#[test]
fn a_stream_whose_reader_sleeps_lives_on() {
    let mut world = World::simple(1, Impairments::default());
    world.hosts[0].application.plan = Plan { to_send: 300_000, ..Plan::default() };
    world.hosts[1].application.plan = Plan { paused: true, expected: 300_000, ..Plan::default() };
    let (_, theirs) = world.connect();
    assert!(!world.run(HOUR, any_reset));
    world.hosts[1].application.streams.get_mut(&theirs).expect("the stream").paused = false;
    world.hosts[1].engine.resume(theirs);
    world.expect("the rest", Duration::from_secs(200), |hosts| {
        hosts[1].application.streams[&theirs].received == 300_000
    });
}

#[test]
fn one_direction_closes_and_the_other_goes_on() {
    let mut world = World::simple(2, Impairments::default());
    world.hosts[0].application.plan = Plan { to_send: 1000, expected: 500_000, closes: true, ..Plan::default() };
    world.hosts[1].application.plan = Plan { expected: 1000, ..Plan::default() };
    let (ours, theirs) = world.connect();
    world.expect("half-closed", HOUR, |hosts| hosts[1].application.streams[&theirs].peer_closed);
    assert_eq!(world.hosts[1].application.streams[&theirs].received, 1000, "everything comes before the end");
    assert!(!world.hosts[0].application.has(is_closed));

    let stream = world.hosts[1].application.streams.get_mut(&theirs).expect("the stream");
    (stream.to_send, stream.closes) = (500_000, true);
    world.expect("closed", HOUR, |hosts| hosts.iter().all(|host| host.application.has(is_closed)));
    assert_eq!(world.hosts[0].application.streams[&ours].received, 500_000);
    assert!(!any_reset(&world.hosts));
}

#[test]
fn both_ends_close_at_the_same_time() {
    let mut world = World::simple(3, Impairments { delay: Duration::from_millis(1), ..Impairments::default() });
    let (ours, theirs) = world.connect();
    let now = world.wire.now();
    world.hosts[0].engine.close(now, ours);
    world.hosts[1].engine.close(now, theirs);
    world.expect("closed", HOUR, |hosts| hosts.iter().all(|host| host.application.has(is_closed)));
    for host in &world.hosts {
        let kinds: Vec<bool> =
            host.application.events.iter().map(|event| matches!(event, StreamEvent::PeerClosed { .. })).collect();
        assert_eq!(kinds, [false, true, false], "PeerClosed, then Closed: {:?}", host.application.events);
    }
}

#[test]
fn bytes_that_nobody_read_survive_the_end_of_time_wait() {
    let mut world = World::simple(4, Impairments::default());
    world.hosts[0].application.plan = Plan { paused: true, closes: true, expected: 5000, ..Plan::default() };
    world.hosts[1].application.plan = Plan { to_send: 5000, closes: true, ..Plan::default() };
    let (ours, _) = world.connect();
    world.run(Duration::from_secs(120), any_reset);
    assert!(!world.hosts[0].application.streams[&ours].peer_closed, "not before the last byte was read");
    world.hosts[0].application.streams.get_mut(&ours).expect("the stream").paused = false;
    world.hosts[0].engine.resume(ours);
    world.expect("closed", HOUR, |hosts| hosts[0].application.has(is_closed));
    assert_eq!(world.hosts[0].application.streams[&ours].received, 5000);
}

#[test]
fn an_abort_resets_the_peer_and_says_nothing_here() {
    let mut world = World::simple(5, Impairments::default());
    let (ours, theirs) = world.connect();
    let (now, events) = (world.wire.now(), world.hosts[0].application.events.len());
    world.hosts[0].engine.abort(now, ours);
    assert_eq!(world.hosts[0].engine.addresses(ours), None, "the name is void");
    world.expect("reset", HOUR, |hosts| {
        hosts[1].application.has(|event| *event == StreamEvent::Reset { stream: theirs, reason: ResetReason::ByPeer })
    });
    assert_eq!(world.hosts[0].application.events.len(), events);
    let Host { engine, application } = &mut world.hosts[0];
    let stream = application.streams.get_mut(&ours).expect("the stream");
    assert_eq!(engine.transmit(now, ours, stream), Transmitted::Gone);
    assert_eq!(engine.statistics().connections, 0);
}

#[test]
fn a_sink_that_cannot_go_on_is_offered_nothing_more_and_the_stream_can_still_end() {
    let mut world = World::simple(6, Impairments::default());
    world.hosts[0].application.plan = Plan { to_send: 400_000, closes: true, ..Plan::default() };
    world.hosts[1].application.plan = Plan { abort_at: Some(0), to_send: 100, ..Plan::default() };
    let (_, theirs) = world.connect();
    world
        .expect("everything is taken and thrown away", HOUR, |hosts| hosts[1].application.streams[&theirs].peer_closed);
    assert_eq!(world.hosts[1].application.streams[&theirs].received, 0);
    world.hosts[1].application.streams.get_mut(&theirs).expect("the stream").closes = true;
    world.expect("closed", HOUR, |hosts| hosts.iter().all(|host| host.application.has(is_closed)));
}

#[test]
fn a_dead_peer_ends_the_stream_within_the_user_timeout() {
    for to_send in [0, 100_000] {
        let mut world = World::simple(7, Impairments::default());
        let (ours, _) = world.connect();
        world.wire.set_link(LinkState::Down);
        world.hosts[0].application.streams.get_mut(&ours).expect("the stream").to_send = to_send;
        let before = world.wire.now();
        world.expect("timed out", HOUR, |hosts| {
            hosts[0]
                .application
                .has(|event| *event == StreamEvent::Reset { stream: ours, reason: ResetReason::TimedOut })
        });
        let took = world.wire.now() - before;
        assert!(took < Duration::from_secs(100), "{took:?}");
        assert_eq!(world.hosts[0].engine.statistics().connections, 0);
    }
}

#[test]
fn a_link_that_comes_back_in_time_loses_nothing() {
    let mut world = World::simple(8, Impairments::default());
    world.hosts[0].application.plan = Plan { to_send: 2_000_000, closes: true, ..Plan::default() };
    world.hosts[1].application.plan = Plan { expected: 2_000_000, closes: true, ..Plan::default() };
    let (_, theirs) = world.connect();
    world.expect("some", HOUR, |hosts| hosts[1].application.streams[&theirs].received > 100_000);
    world.wire.set_link(LinkState::Down);
    assert!(!world.run(Duration::from_secs(20), any_reset));
    world.wire.set_link(LinkState::Up);
    world.expect("closed", HOUR, |hosts| hosts.iter().all(|host| host.application.has(is_closed)));
    assert_eq!(world.hosts[1].application.streams[&theirs].received, 2_000_000);
}

#[test]
fn ports_and_slots_do_not_run_out() {
    let configs = ["10.0.0.1/24", "10.0.0.2/24"].map(|address| {
        let mut config = config(&[address], 9);
        (config.max_connections, config.max_time_wait) = (4, 3);
        config
    });
    let mut world = World::new(9, Impairments::default(), configs);
    for host in &mut world.hosts {
        host.application.plan = Plan { closes: true, ..Plan::default() };
    }
    world.hosts[1].listen("10.0.0.2:7", 4);
    for round in 1..=300 {
        let now = world.wire.now();
        let stream = world.hosts[0].connect(now, "10.0.0.2:7");
        assert!(stream.index < 9, "slot {}", stream.index);
        world.expect("closed", Duration::from_secs(30), |hosts| {
            hosts.iter().all(|host| host.application.events.iter().filter(|event| is_closed(event)).count() == round)
        });
    }
    assert!(world.wire.now() < Instant::ZERO + Duration::from_secs(1), "nobody waits for TIME-WAIT to end");
}
