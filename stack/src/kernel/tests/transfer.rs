//! Bytes, and the memory they lie in.

use std::collections::VecDeque;
use std::io::{Read, Write};

use proptest::prelude::*;

use super::*;
use crate::kernel::buffer::{Buffer, Ring};

#[test]
fn a_large_transfer_arrives_unchanged_without_a_copy_of_ours() {
    let (mut left, mut right) = (Host::new(KernelConfig::default()), Host::new(KernelConfig::default()));
    let address = right.listen();
    let now = left.now();
    let stream = left.engine.connect(now, address, None).expect("a beginning");
    let mut source = Bytes::new(20_000_000, 30_000);
    let incoming = right.until("a stream", |right| {
        left.poll();
        right.upper.incoming().pop()
    });
    right.until("the transfer", |right| {
        left.poll();
        assert_ne!(left.transmit(stream, &mut source), Transmitted::Gone);
        (right.upper.received.get(&incoming).map_or(0, Vec::len) == source.bytes.len()).then_some(())
    });
    assert!(right.upper.received[&incoming] == source.bytes);
    assert_eq!(right.engine.statistics().receive_copied_bytes, 0);
    assert_eq!(right.engine.statistics().received_bytes, source.bytes.len() as u64);
    assert_eq!(left.engine.statistics().transmitted_bytes, source.bytes.len() as u64);
}

#[test]
fn records_of_one_burst_leave_in_one_write() {
    let mut host = Host::new(KernelConfig::default());
    let (stream, mut peer) = host.with_peer();
    let mut source = Bytes::new(100 * 50, 50);
    assert_eq!(host.transmit(stream, &mut source), Transmitted::Drained);
    // Each write would be a segment of its own here: the connection has no delay and nothing to wait for.
    let mut received = vec![0; source.bytes.len() + 1];
    assert_eq!(peer.read(&mut received).expect("bytes"), source.bytes.len());
    received.pop();
    assert!(received == source.bytes);
}

#[test]
fn nothing_leaves_before_flush_unless_the_stage_is_full() {
    let mut host = Host::new(KernelConfig::default());
    let (stream, peer) = host.with_peer();
    peer.set_nonblocking(true).expect("a mode");
    let now = host.now();
    assert_eq!(host.engine.transmit(now, stream, &mut Bytes::new(50, 50)), Transmitted::Drained);
    assert!((&peer).read(&mut [0; 50]).is_err());
    host.engine.flush(now);
    peer.set_nonblocking(false).expect("a mode");
    assert_eq!((&peer).read(&mut [0; 50]).expect("bytes"), 50);
}

#[test]
fn connections_without_leftovers_own_no_buffers() {
    const MANY: usize = 200;
    let mut host = Host::new(KernelConfig::default());
    let address = host.listen();
    let mut peers: Vec<_> = (0..MANY).map(|_| TcpStream::connect(address).expect("a connection")).collect();
    for peer in &mut peers {
        peer.write_all(&[7; 1_000]).expect("room");
    }
    host.until("all bytes", |host| {
        (host.upper.received.values().map(Vec::len).sum::<usize>() == MANY * 1_000).then_some(())
    });
    for stream in host.upper.incoming() {
        assert_eq!(host.transmit(stream, &mut Bytes::new(1_000, 100)), Transmitted::Drained);
    }
    assert_eq!((host.engine.rings.lent(), host.engine.stages.lent()), (0, 0));
    assert_eq!((host.engine.rings.owned(), host.engine.stages.owned()), (1, 1), "one of each served them all");
}

#[test]
fn leftovers_of_many_connections_share_a_few_buffers() {
    const MANY: usize = 50;
    const COUNT: usize = 3_000;
    let mut host = Host::new(KernelConfig { receive_buffers: 4, ..KernelConfig::default() });
    host.upper.is_sated = true;
    let address = host.listen();
    let mut peers: Vec<_> = (0..MANY).map(|_| TcpStream::connect(address).expect("a connection")).collect();
    let bytes = |peer: usize| -> Vec<u8> { (0..COUNT).map(|position| (position * 7 + peer) as u8).collect() };
    for half in [0..COUNT / 2, COUNT / 2..COUNT] {
        for (number, peer) in peers.iter_mut().enumerate() {
            peer.write_all(&bytes(number)[half.clone()]).expect("room");
        }
        host.until("the offers", |host| {
            let offered = host.upper.offered.values().filter(|offered| offered.len() == half.end).count();
            (offered == MANY).then_some(())
        });
        assert_eq!(host.engine.rings.lent(), 4);
        assert_eq!(host.engine.rings.owned(), 4);
    }
    assert!(host.engine.statistics().receive_copied_bytes > 0, "moving leftovers is counted");
    host.upper.is_sated = false;
    let streams: Vec<_> = host.upper.incoming();
    for stream in &streams {
        host.engine.resume(*stream);
    }
    host.until("all bytes", |host| {
        (host.upper.received.values().map(Vec::len).sum::<usize>() == MANY * COUNT).then_some(())
    });
    let remotes: HashMap<_, _> =
        peers.iter().enumerate().map(|(number, peer)| (peer.local_addr().expect("an address"), number)).collect();
    for stream in streams {
        let (_, remote) = host.engine.addresses(stream).expect("an open stream");
        assert!(host.upper.received[&stream] == bytes(remotes[&remote]));
    }
    assert_eq!(host.engine.rings.lent(), 0);
}

#[test]
fn connections_that_end_with_leftovers_leave_nothing_in_the_list_of_holders() {
    let mut host = Host::new(KernelConfig { receive_buffers: 2, ..KernelConfig::default() });
    host.upper.is_sated = true;
    let address = host.listen();
    let leave_over = |host: &mut Host| {
        let mut peer = TcpStream::connect(address).expect("a connection");
        let before = host.upper.offered.len();
        peer.write_all(&[7; 100]).expect("room");
        host.until("the offer", |host| (host.upper.offered.len() > before).then_some(()));
        (*host.upper.incoming().last().expect("a stream"), peer)
    };
    // One that stays has kept a ring once, and has given it back.
    let (staying, mut peer) = leave_over(&mut host);
    host.upper.is_sated = false;
    host.engine.resume(staying);
    host.until("all bytes", |host| host.upper.received.contains_key(&staying).then_some(()));
    host.upper.is_sated = true;
    for round in 0..500 {
        let (stream, _peer) = leave_over(&mut host);
        let now = host.now();
        host.engine.abort(now, stream);
        assert!(host.engine.rings.listed() <= 4, "{} in round {round}", host.engine.rings.listed());
    }
    assert_eq!(host.engine.rings.lent(), 0);
    // It can still be asked for the ring that it keeps next.
    host.upper.offered.clear();
    peer.write_all(&[8; 100]).expect("room");
    host.until("the offer", |host| host.upper.offered.contains_key(&staying).then_some(()));
    let _others = [leave_over(&mut host), leave_over(&mut host)];
    assert_eq!((host.engine.rings.lent(), host.engine.rings.owned()), (2, 2));
}

#[test]
fn connections_that_end_with_unsent_bytes_leave_nothing_in_the_list_of_holders() {
    let mut host = Host::new(KernelConfig { socket_send_bytes: Some(16 << 10), ..KernelConfig::default() });
    let address = host.listen();
    for round in 0..50 {
        let _peer = TcpStream::connect(address).expect("a connection");
        let count = host.upper.incoming().len();
        let stream = host.until("a stream", |host| host.upper.incoming().get(count).copied());
        let mut source = Bytes::new(20_000_000, 5_000);
        host.until("being refused", |host| {
            (host.transmit(stream, &mut source) == Transmitted::Blocked && host.engine.stages.lent() > 0).then_some(())
        });
        let now = host.now();
        host.engine.abort(now, stream);
        assert!(host.engine.stages.listed() <= 4, "{} in round {round}", host.engine.stages.listed());
    }
    assert_eq!(host.engine.stages.lent(), 0);
}

#[test]
fn peers_that_never_read_hold_only_what_was_taken_for_them() {
    const MANY: usize = 10;
    let mut host =
        Host::new(KernelConfig { transmit_stages: 2, socket_send_bytes: Some(16 << 10), ..KernelConfig::default() });
    let address = host.listen();
    let mut peers: Vec<_> = (0..MANY).map(|_| TcpStream::connect(address).expect("a connection")).collect();
    let streams = host.until("the streams", |host| Some(host.upper.incoming()).filter(|all| all.len() == MANY));
    let mut sources: HashMap<_, _> = streams.iter().map(|stream| (*stream, Bytes::new(20_000_000, 5_000))).collect();
    for (stream, source) in &mut sources {
        host.until("being refused", |host| {
            (host.transmit(*stream, source) == Transmitted::Blocked && host.engine.stages.lent() > 0).then_some(())
        });
        while host.transmit(*stream, source) != Transmitted::Blocked {}
    }
    assert!(host.engine.stages.lent() <= 2);
    // All that was taken arrives, whether its stage was shrunk or not.
    for peer in &mut peers {
        let local = peer.local_addr().expect("an address");
        let stream =
            *streams.iter().find(|stream| host.engine.addresses(**stream).expect("open").1 == local).expect("it");
        peer.set_nonblocking(true).expect("a mode");
        let mut received = Vec::new();
        host.until("the bytes", |_| {
            let mut space = [0; 65_536];
            if let Ok(count) = peer.read(&mut space) {
                received.extend_from_slice(&space[..count]);
            }
            (received.len() >= sources[&stream].sent).then_some(())
        });
        assert!(received == sources[&stream].bytes[..sources[&stream].sent]);
    }
}

proptest! {
    /// A ring against a queue that is simple enough to be right.
    #[test]
    fn a_ring_is_a_queue(
        capacity in 1usize..64,
        steps in prop::collection::vec((any::<bool>(), 0usize..64), 0..200),
    ) {
        let mut ring = Ring::new(Buffer::owned(vec![0; capacity].into_boxed_slice()));
        let mut oracle = VecDeque::new();
        let mut next = 0u8;
        for (is_filling, count) in steps {
            if is_filling {
                let count = count.min(capacity - oracle.len());
                let mut left = count;
                for part in ring.spare() {
                    for byte in part.iter_mut().take(left) {
                        *byte = next;
                        oracle.push_back(next);
                        next = next.wrapping_add(1);
                    }
                    left -= left.min(part.len());
                }
                prop_assert_eq!(left, 0, "less room than capacity says");
                ring.fill(count);
            } else {
                let count = count.min(oracle.len());
                oracle.drain(..count);
                ring.consume(count);
            }
            prop_assert_eq!(ring.len(), oracle.len());
            prop_assert_eq!(ring.parts().concat(), oracle.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(ring.shrunk().parts().concat(), ring.parts().concat());
        }
    }
}
