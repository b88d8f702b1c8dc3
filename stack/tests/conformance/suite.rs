//! What every engine does. Each test gets a function that makes a world for limits of connections, the client's and the
//! server's.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use softrdma_stack::stream::{ConnectError, ListenError, ResetReason, StreamEvent, Transmitted};

use crate::upper::{Appetite, key};
use crate::world::{CLIENT, SERVER, World};

type Make<'a> = &'a dyn Fn([usize; 2]) -> World;

/// Connections that most tests allow.
const FEW: [usize; 2] = [16; 2];
/// More than engines, and sockets as the worlds set them, buffer for a stream that is not read.
const FLOOD: u64 = 3 << 20;

pub(crate) fn both_ends_learn_the_same_addresses(make: Make) {
    let mut world = make(FEW);
    let (listener, address) = world.listen(8);
    let [client, server] = world.connected(address);
    let (ours, theirs) = world.hosts[CLIENT].engine.addresses(client).expect("addresses");
    assert_eq!(theirs, address);
    assert_eq!(world.hosts[SERVER].engine.addresses(server), Some((address, ours)));
    let incoming = StreamEvent::Incoming { listener, stream: server, local: address, remote: ours };
    assert!(world.hosts[SERVER].upper.has(&incoming));
    assert!(world.hosts[CLIENT].upper.has(&StreamEvent::Connected { stream: client, local: ours }));
    for (host, stream) in [(CLIENT, client), (SERVER, server)] {
        let segment = world.hosts[host].engine.segment_size(stream);
        assert!((500..=65_535).contains(&segment), "a segment of {segment} bytes");
        assert_eq!(world.hosts[host].engine.statistics().connections, 1);
    }
}

pub(crate) fn a_connection_nobody_listens_for_is_refused(make: Make) {
    let mut world = make(FEW);
    let (listener, address) = world.listen(8);
    let now = world.now();
    world.hosts[SERVER].engine.close_listener(now, listener);
    assert_eq!(world.connect(address), Err(ResetReason::Refused));
    assert_eq!(world.hosts[CLIENT].engine.statistics().connections, 0);
}

pub(crate) fn bytes_come_back_whatever_the_cuts(make: Make) {
    const COUNT: u64 = 700_000;
    let mut world = make(FEW);
    let [client, server] = world.one_connection();
    world.hosts[CLIENT].upper.appetite = Appetite::Some;
    world.hosts[SERVER].upper.appetite = Appetite::Some;
    world.hosts[CLIENT].upper.send(client, COUNT);
    let mut echoed = 0;
    world.until("the echo", |world| {
        let received = world.hosts[SERVER].upper.received(server);
        if received > echoed {
            world.hosts[SERVER].upper.send(server, received - echoed);
            echoed = received;
        }
        (world.hosts[CLIENT].upper.received(client) == COUNT).then_some(())
    });
    assert_eq!(world.hosts[SERVER].engine.statistics().received_bytes, COUNT);
    assert_eq!(world.hosts[SERVER].engine.statistics().transmitted_bytes, COUNT);
}

pub(crate) fn a_sink_that_takes_nothing_stops_the_sender(make: Make) {
    let mut world = make(FEW);
    let [client, server] = world.one_connection();
    world.hosts[SERVER].upper.appetite = Appetite::None;
    world.hosts[CLIENT].upper.send(client, FLOOD);
    world.until_quiet();
    let sent = world.hosts[CLIENT].upper.sent(client);
    assert!(world.hosts[CLIENT].upper.source(client).is_waiting, "the sender is refused");
    assert!(sent < FLOOD, "{sent} bytes were taken that nobody reads");
    assert!(world.hosts[SERVER].upper.left(server) > 0);
    world.hosts[SERVER].upper.appetite = Appetite::All;
    world.hosts[SERVER].engine.resume(server);
    world.until_received(SERVER, server, FLOOD);
}

pub(crate) fn a_peer_that_never_reads_disturbs_nobody(make: Make) {
    const COUNT: u64 = 300_000;
    let mut world = make(FEW);
    let (_, address) = world.listen(8);
    let stuck = world.connected(address);
    let [client, server] = world.connected(address);
    world.hosts[SERVER].upper.appetites.insert(key(stuck[SERVER]), Appetite::None);
    world.hosts[CLIENT].upper.send(stuck[CLIENT], FLOOD);
    world.until_quiet();
    world.hosts[CLIENT].upper.send(client, COUNT);
    world.hosts[SERVER].upper.send(server, COUNT);
    world.until_received(SERVER, server, COUNT);
    world.until_received(CLIENT, client, COUNT);
    assert_eq!(world.hosts[SERVER].upper.received(stuck[SERVER]), 0);
    world.abort(CLIENT, stuck[CLIENT]);
    world.until_event(SERVER, &StreamEvent::Reset { stream: stuck[SERVER], reason: ResetReason::ByPeer });
}

pub(crate) fn bytes_are_offered_again_only_after_resume(make: Make) {
    const COUNT: u64 = 1_000;
    let mut world = make(FEW);
    let [client, server] = world.one_connection();
    world.hosts[SERVER].upper.appetite = Appetite::None;
    world.hosts[CLIENT].upper.send(client, COUNT);
    world.until("the offer", |world| (world.hosts[SERVER].upper.left(server) as u64 == COUNT).then_some(()));
    world.until_quiet();
    let offers = world.hosts[SERVER].upper.offers;
    for _ in 0..100 {
        world.step();
    }
    assert_eq!(world.hosts[SERVER].upper.offers, offers, "offered again unasked");
    world.hosts[SERVER].engine.resume(server);
    world.until("another offer", |world| (world.hosts[SERVER].upper.offers > offers).then_some(()));
    world.hosts[CLIENT].upper.send(client, COUNT);
    world.until("a longer offer", |world| (world.hosts[SERVER].upper.left(server) as u64 == 2 * COUNT).then_some(()));
    world.hosts[SERVER].upper.appetite = Appetite::All;
    world.hosts[SERVER].engine.resume(server);
    world.until_received(SERVER, server, 2 * COUNT);
}

pub(crate) fn each_direction_ends_by_itself(make: Make) {
    const COUNT: u64 = 200_000;
    let mut world = make(FEW);
    let [client, server] = world.one_connection();
    world.hosts[CLIENT].upper.send(client, COUNT);
    world.until_received(SERVER, server, COUNT);
    world.close(CLIENT, client);
    world.until_event(SERVER, &StreamEvent::PeerClosed { stream: server });
    world.hosts[SERVER].upper.send(server, COUNT);
    world.until_received(CLIENT, client, COUNT);
    assert!(!world.hosts[CLIENT].upper.has(&StreamEvent::PeerClosed { stream: client }));
    world.close(SERVER, server);
    world.until_event(CLIENT, &StreamEvent::PeerClosed { stream: client });
    world.until_event(CLIENT, &StreamEvent::Closed { stream: client });
    world.until_event(SERVER, &StreamEvent::Closed { stream: server });
    for host in [CLIENT, SERVER] {
        assert_eq!(world.hosts[host].engine.statistics().connections, 0);
    }
}

pub(crate) fn the_end_is_reported_after_the_last_byte_is_consumed(make: Make) {
    const COUNT: u64 = 5_000;
    let mut world = make(FEW);
    let [client, server] = world.one_connection();
    world.hosts[SERVER].upper.appetite = Appetite::None;
    world.hosts[CLIENT].upper.send(client, COUNT);
    world.until("the offer", |world| (world.hosts[SERVER].upper.left(server) as u64 == COUNT).then_some(()));
    world.close(CLIENT, client);
    world.until_quiet();
    assert!(!world.hosts[SERVER].upper.has(&StreamEvent::PeerClosed { stream: server }));
    world.hosts[SERVER].upper.appetite = Appetite::Some;
    world.hosts[SERVER].engine.resume(server);
    world.until_event(SERVER, &StreamEvent::PeerClosed { stream: server });
    assert_eq!(world.hosts[SERVER].upper.received(server), COUNT);
}

pub(crate) fn everything_taken_before_close_arrives(make: Make) {
    let mut world = make(FEW);
    let [client, server] = world.one_connection();
    world.hosts[SERVER].upper.appetite = Appetite::None;
    world.hosts[CLIENT].upper.send(client, FLOOD);
    world.until_quiet();
    world.close(CLIENT, client);
    let now = world.now();
    let sent = world.hosts[CLIENT].upper.sent(client);
    let nothing = &mut crate::upper::Nothing;
    assert_eq!(world.hosts[CLIENT].engine.transmit(now, client, nothing), Transmitted::Gone);
    world.hosts[SERVER].upper.appetite = Appetite::All;
    world.hosts[SERVER].engine.resume(server);
    world.until_event(SERVER, &StreamEvent::PeerClosed { stream: server });
    assert_eq!(world.hosts[SERVER].upper.received(server), sent);
}

pub(crate) fn both_ends_may_close_at_once(make: Make) {
    let mut world = make(FEW);
    let [client, server] = world.one_connection();
    world.close(CLIENT, client);
    world.close(SERVER, server);
    world.close(SERVER, server);
    world.until_event(CLIENT, &StreamEvent::Closed { stream: client });
    world.until_event(SERVER, &StreamEvent::Closed { stream: server });
    world.until_quiet();
    for (host, stream) in [(CLIENT, client), (SERVER, server)] {
        let events = &world.hosts[host].upper.events;
        assert_eq!(events.iter().filter(|event| **event == StreamEvent::PeerClosed { stream }).count(), 1);
        assert_eq!(events.last(), Some(&StreamEvent::Closed { stream }));
    }
}

pub(crate) fn an_abort_resets_the_peer_and_says_nothing_here(make: Make) {
    let mut world = make(FEW);
    let [client, server] = world.one_connection();
    let events = world.hosts[CLIENT].upper.events.len();
    world.abort(CLIENT, client);
    world.until_event(SERVER, &StreamEvent::Reset { stream: server, reason: ResetReason::ByPeer });
    world.until_quiet();
    assert_eq!(world.hosts[CLIENT].upper.events.len(), events);
    for (host, stream) in [(CLIENT, client), (SERVER, server)] {
        assert_eq!(world.hosts[host].engine.addresses(stream), None);
        assert_eq!(world.hosts[host].engine.statistics().connections, 0);
    }
}

pub(crate) fn a_sink_that_gives_up_is_left_alone(make: Make) {
    const COUNT: u64 = 300_000;
    let mut world = make(FEW);
    let [client, server] = world.one_connection();
    world.hosts[SERVER].upper.appetite = Appetite::Abort;
    world.hosts[CLIENT].upper.send(client, COUNT);
    world.until("the offer", |world| (world.hosts[SERVER].upper.offers == 1).then_some(()));
    // The last words, which the peer has to hear though it still sends itself.
    world.hosts[SERVER].upper.send(server, 100);
    world.step();
    world.until("the last words", |world| (world.hosts[SERVER].upper.sent(server) == 100).then_some(()));
    world.close(SERVER, server);
    world.until_received(CLIENT, client, 100);
    world.until_event(CLIENT, &StreamEvent::PeerClosed { stream: client });
    world.until("all of it", |world| (world.hosts[CLIENT].upper.sent(client) == COUNT).then_some(()));
    world.close(CLIENT, client);
    world.until_event(CLIENT, &StreamEvent::Closed { stream: client });
    world.until_event(SERVER, &StreamEvent::Closed { stream: server });
    assert_eq!(world.hosts[SERVER].upper.offers, 1);
}

pub(crate) fn a_closed_listener_refuses_and_its_streams_live_on(make: Make) {
    const COUNT: u64 = 10_000;
    let mut world = make(FEW);
    let (listener, address) = world.listen(8);
    let [client, server] = world.connected(address);
    let now = world.now();
    world.hosts[SERVER].engine.close_listener(now, listener);
    world.hosts[SERVER].engine.close_listener(now, listener);
    assert_eq!(world.hosts[SERVER].engine.listener_address(listener), None);
    assert_eq!(world.connect(address), Err(ResetReason::Refused));
    world.hosts[CLIENT].upper.send(client, COUNT);
    world.until_received(SERVER, server, COUNT);
}

pub(crate) fn a_listener_says_what_is_wrong_with_its_address(make: Make) {
    let mut world = make(FEW);
    let (listener, address) = world.listen(8);
    let now = world.now();
    let engine = &mut world.hosts[SERVER].engine;
    assert_eq!(engine.listen(now, address, 8), Err(ListenError::AddressInUse { local: address }));
    // Addresses for documentation (RFC 5737 §3, RFC 3849) are nobody's.
    let foreign = if address.is_ipv4() { "203.0.113.7:7000" } else { "[2001:db8::7]:7000" };
    let foreign: SocketAddr = foreign.parse().expect("an address");
    assert_eq!(engine.listen(now, foreign, 8), Err(ListenError::AddressNotOurs { local: foreign }));
    let refused = world.hosts[CLIENT].engine.connect(now, address, Some(foreign.ip()));
    assert!(matches!(refused, Err(ConnectError::LocalAddress { local, .. }) if local == foreign.ip()), "{refused:?}");
    let engine = &mut world.hosts[SERVER].engine;
    engine.close_listener(now, listener);
    let again = engine.listen(now, address, 8).expect("the address is free again");
    assert_ne!(again, listener);
}

pub(crate) fn many_connections_live_side_by_side(make: Make) {
    const MANY: usize = 100;
    const COUNT: u64 = 10_000;
    let mut world = make([MANY; 2]);
    let (_, address) = world.listen(MANY);
    let streams: Vec<_> = (0..MANY).map(|_| world.connected(address)).collect();
    world.hosts[CLIENT].upper.appetite = Appetite::Some;
    world.hosts[SERVER].upper.appetite = Appetite::Some;
    for [client, server] in &streams {
        world.hosts[CLIENT].upper.send(*client, COUNT);
        world.hosts[SERVER].upper.send(*server, COUNT);
    }
    for [client, server] in &streams {
        world.until_received(SERVER, *server, COUNT);
        world.until_received(CLIENT, *client, COUNT);
    }
    let now = world.now();
    let refused = world.hosts[CLIENT].engine.connect(now, address, None);
    assert_eq!(refused, Err(ConnectError::TooManyConnections { limit: MANY }));
}

pub(crate) fn connections_beyond_the_limit_are_refused(make: Make) {
    const LIMIT: usize = 3;
    let mut world = make([LIMIT + 1, LIMIT]);
    let (_, address) = world.listen(8);
    let streams: Vec<_> = (0..LIMIT).map(|_| world.connected(address)).collect();
    // Engines that answer a SYN before they look at the limit reset the connection afterwards.
    if let Ok(stream) = world.connect(address) {
        world.until_event(CLIENT, &StreamEvent::Reset { stream, reason: ResetReason::ByPeer });
    }
    world.until("the count", |world| (world.hosts[SERVER].engine.statistics().refused_connections > 0).then_some(()));
    assert_eq!(world.hosts[SERVER].engine.statistics().connections as usize, LIMIT);
    world.abort(CLIENT, streams[0][CLIENT]);
    world.until_event(SERVER, &StreamEvent::Reset { stream: streams[0][SERVER], reason: ResetReason::ByPeer });
    let [client, server] = world.connected(address);
    world.hosts[CLIENT].upper.send(client, 1_000);
    world.until_received(SERVER, server, 1_000);
}

pub(crate) fn a_backlog_of_connections_is_accepted_later(make: Make) {
    const WAITING: usize = 5;
    let mut world = make(FEW);
    let (_, address) = world.listen(WAITING);
    let now = world.now();
    let begun: Vec<_> = (0..WAITING)
        .map(|_| world.hosts[CLIENT].engine.connect(now, address, None).expect("connecting begins"))
        .collect();
    for _ in 0..50 {
        world.step_one(CLIENT);
    }
    assert_eq!(world.hosts[SERVER].upper.incoming().len(), 0);
    world.until("all of them", |world| (world.hosts[SERVER].upper.incoming().len() == WAITING).then_some(()));
    for stream in begun {
        world.until("each connection", |world| {
            let (local, _) = world.hosts[CLIENT].engine.addresses(stream)?;
            world.hosts[CLIENT].upper.has(&StreamEvent::Connected { stream, local }).then_some(())
        });
        world.hosts[CLIENT].upper.send(stream, 10);
    }
    for stream in world.hosts[SERVER].upper.incoming() {
        world.until_received(SERVER, stream, 10);
    }
}

pub(crate) fn an_old_name_finds_nothing(make: Make) {
    let mut world = make(FEW);
    let (_, address) = world.listen(8);
    let [old, old_server] = world.connected(address);
    world.abort(CLIENT, old);
    world.until_event(SERVER, &StreamEvent::Reset { stream: old_server, reason: ResetReason::ByPeer });
    let [client, server] = world.connected(address);
    assert_ne!(client, old);
    let now = world.now();
    let engine = &mut world.hosts[CLIENT].engine;
    assert_eq!(engine.transmit(now, old, &mut crate::upper::Nothing), Transmitted::Gone);
    assert_eq!(engine.addresses(old), None);
    assert_eq!(engine.segment_size(old), 0);
    engine.resume(old);
    engine.close(now, old);
    engine.abort(now, old);
    world.hosts[CLIENT].upper.send(client, 1_000);
    world.until_received(SERVER, server, 1_000);
}

pub(crate) fn who_sleeps_is_woken_and_who_has_nothing_to_do_sleeps(make: Make) {
    let mut world = make(FEW);
    let [client, server] = world.one_connection();
    let Some(descriptor) = world.hosts[SERVER].engine.readiness() else { return };
    let is_readable = |patience: Duration| {
        let mut descriptors = [PollFd::new(&*descriptor, PollFlags::IN)];
        let patience = Timespec { tv_sec: 0, tv_nsec: patience.as_nanos() as i64 };
        rustix::event::poll(&mut descriptors, Some(&patience)).expect("poll") == 1
    };
    let (at_once, soon) = (Duration::ZERO, Duration::from_millis(900));
    world.until_quiet();
    assert!(!is_readable(at_once), "nothing to do");
    // Bytes wake; a sink that does not want them lets sleep; resuming wakes; the end wakes.
    world.hosts[SERVER].upper.appetite = Appetite::None;
    world.hosts[CLIENT].upper.send(client, FLOOD);
    world.step_one(CLIENT);
    assert!(is_readable(soon), "bytes came");
    world.until_quiet();
    assert!(!is_readable(at_once), "a full buffer is nothing to do");
    world.hosts[SERVER].upper.appetite = Appetite::All;
    world.hosts[SERVER].engine.resume(server);
    assert!(is_readable(at_once), "resume was called");
    world.until_received(SERVER, server, FLOOD);
    world.until_quiet();
    assert!(!is_readable(at_once), "all is consumed");
    world.close(CLIENT, client);
    world.step_one(CLIENT);
    assert!(is_readable(soon), "the peer ended its direction");
    world.until_event(SERVER, &StreamEvent::PeerClosed { stream: server });
    world.until_quiet();
    assert!(!is_readable(at_once), "a half-open stream is nothing to do");
    world.close(SERVER, server);
    assert!(is_readable(at_once), "Closed is to be reported");
    world.until_event(SERVER, &StreamEvent::Closed { stream: server });
}
