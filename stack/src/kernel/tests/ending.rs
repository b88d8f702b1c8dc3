//! How streams end when not in order, and what time has to do with it.

use std::io::{Read, Write};

use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use super::*;
use crate::kernel::socket::reset_reason;

#[test]
fn a_record_that_is_never_finished_ends_with_a_reset_after_the_time_allowed() {
    let config = KernelConfig::default();
    let mut host = Host::new(config.clone());
    host.upper.is_sated = true;
    let (stream, mut peer) = host.with_peer();
    peer.write_all(b"half a rec").expect("room");
    peer.shutdown(std::net::Shutdown::Write).expect("an end");
    host.until("the offer", |host| host.upper.offered.get(&stream).map(|_| ()));
    let deadline = host.until("a deadline", |host| {
        let now = host.now();
        host.engine.next_deadline(now).filter(|deadline| *deadline > now)
    });
    assert!(deadline - host.now() <= config.truncation_timeout);
    assert_eq!(host.upper.reset_of(stream), None);
    host.ahead = config.truncation_timeout;
    host.until("the reset", |host| host.upper.reset_of(stream).filter(|reason| *reason == ResetReason::TimedOut));
    assert_eq!(host.engine.statistics().connections, 0);
    assert_eq!(host.engine.rings.lent(), 0);
    assert!(peer.read(&mut [0; 1]).is_err(), "the peer is told");
}

#[test]
fn consuming_in_time_calls_the_deadline_off() {
    let mut host = Host::new(KernelConfig::default());
    host.upper.is_sated = true;
    let (stream, mut peer) = host.with_peer();
    peer.write_all(b"half a rec").expect("room");
    peer.shutdown(std::net::Shutdown::Write).expect("an end");
    host.until("a deadline", |host| {
        let now = host.now();
        host.engine.next_deadline(now).filter(|deadline| *deadline > now)
    });
    host.upper.is_sated = false;
    host.engine.resume(stream);
    host.until("the end", |host| host.upper.events.contains(&StreamEvent::PeerClosed { stream }).then_some(()));
    let now = host.now();
    assert_eq!(host.engine.next_deadline(now), None);
    host.ahead = Duration::from_secs(3_600);
    host.poll();
    assert_eq!(host.transmit(stream, &mut Bytes::new(10, 10)), Transmitted::Drained);
    assert_eq!(peer.read(&mut [0; 10]).expect("bytes"), 10);
}

#[test]
fn a_peer_that_never_closes_is_reset_after_the_linger_time() {
    let config = KernelConfig::default();
    let mut host = Host::new(config.clone());
    let (stream, mut peer) = host.with_peer();
    let now = host.now();
    host.engine.close(now, stream);
    assert_eq!(host.engine.next_deadline(now), Some(now + config.linger_timeout));
    assert_eq!(peer.read(&mut [0; 1]).expect("the end"), 0);
    for _ in 0..100 {
        host.poll();
    }
    assert_eq!(host.upper.reset_of(stream), None);
    host.ahead = config.linger_timeout;
    host.until("the reset", |host| host.upper.reset_of(stream).filter(|reason| *reason == ResetReason::TimedOut));
    assert_eq!(host.engine.next_deadline(now), None);
}

#[test]
fn a_handshake_that_gets_no_answer_fails_after_the_connect_time() {
    let config = KernelConfig::default();
    let mut host = Host::new(config.clone());
    // A listener whose queue is full drops what comes.
    let silent = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    silent.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)))).expect("an address");
    silent.listen(0).expect("a listener");
    let address = silent.local_addr().expect("an address").as_socket().expect("an address");
    let _filling = TcpStream::connect(address).expect("the one place in the queue");
    let now = host.now();
    let stream = host.engine.connect(now, address, None).expect("a beginning");
    assert_eq!(host.transmit(stream, &mut Bytes::new(10, 10)), Transmitted::Blocked);
    for _ in 0..100 {
        host.poll();
    }
    assert_eq!(host.upper.events, []);
    host.ahead = config.connect_timeout;
    host.poll();
    assert_eq!(host.upper.events, [StreamEvent::ConnectFailed { stream, reason: ResetReason::TimedOut }]);
    assert_eq!(host.engine.statistics().connections, 0);
}

#[test]
fn what_a_peer_says_before_it_resets_is_heard() {
    let mut host = Host::new(KernelConfig::default());
    let (stream, mut peer) = host.with_peer();
    peer.write_all(b"last words").expect("room");
    Socket::from(peer).set_linger(Some(Duration::ZERO)).expect("a setting");
    // Writing meets the reset first; reading comes after.
    let mut source = Bytes::new(1_000_000, 1_000);
    while host.transmit(stream, &mut source) != Transmitted::Gone {}
    let reason = host.until("the reset", |host| host.upper.reset_of(stream));
    assert_eq!(reason, ResetReason::ByPeer);
    assert_eq!(host.upper.received[&stream], b"last words");
    assert_eq!((host.engine.rings.lent(), host.engine.stages.lent()), (0, 0));
}

#[test]
fn a_reset_is_seen_though_the_sink_takes_nothing_and_the_buffer_is_full() {
    let mut host = Host::new(KernelConfig { receive_buffer_bytes: 64 << 10, ..KernelConfig::default() });
    host.upper.is_sated = true;
    let (stream, mut peer) = host.with_peer();
    peer.set_nonblocking(true).expect("a mode");
    host.until("a full buffer", |host| {
        let _ = peer.write(&[1; 4_096]);
        host.upper.offered.get(&stream).filter(|offered| offered.len() == 64 << 10).map(|_| ())
    });
    Socket::from(peer).set_linger(Some(Duration::ZERO)).expect("a setting");
    assert_eq!(host.until("the reset", |host| host.upper.reset_of(stream)), ResetReason::ByPeer);
}

#[test]
fn closing_while_connecting_ends_with_one_event() {
    let mut host = Host::new(KernelConfig::default());
    let address = host.listen();
    let now = host.now();
    let stream = host.engine.connect(now, address, None).expect("a beginning");
    host.engine.close(now, stream);
    assert_eq!(host.transmit(stream, &mut Bytes::new(10, 10)), Transmitted::Gone);
    host.until("an end", |host| {
        let failed = StreamEvent::ConnectFailed { stream, reason: ResetReason::Other };
        host.upper.events.contains(&failed).then_some(())
    });
    assert_eq!(host.engine.addresses(stream), None);
}

#[test]
fn errors_of_the_system_have_reasons() {
    for (errno, reason) in [
        (Errno::CONNREFUSED, ResetReason::Refused),
        (Errno::CONNRESET, ResetReason::ByPeer),
        (Errno::PIPE, ResetReason::ByPeer),
        (Errno::TIMEDOUT, ResetReason::TimedOut),
        (Errno::HOSTUNREACH, ResetReason::Unreachable),
        (Errno::NETUNREACH, ResetReason::Unreachable),
        (Errno::NOBUFS, ResetReason::Other),
    ] {
        assert_eq!(reset_reason(errno), reason, "{errno:?}");
    }
}
