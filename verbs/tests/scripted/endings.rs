//! How connections end: what still leaves, what completes how, and what a peer can make of it.

use std::time::Duration;

use super::{Host, MODELS, Peer, list, request, send};
use softrdma_verbs::{
    CmEventKind, Operation, Payload, QueuePair, QueuePairState, RemoteAddress, Segment, Stag, Status, TaggedOffset,
};

#[test]
fn what_is_sent_again_after_the_peers_terminate_is_what_was_sent_before() {
    for threads in MODELS {
        let host = Host::new(threads);
        let (id, mut peer) = host.connect();
        let stream = peer.stream();
        let before = host.wire.sent(stream).len();
        id.queue_pair().unwrap().post_send(send(1, host.payload(0, 4000))).unwrap();
        host.drive();
        let sent = host.wire.sent(stream)[before..].to_vec();
        assert!(sent.len() > 4000);
        peer.terminate();
        host.drive();
        assert_eq!(host.events().pop().map(|event| event.kind), Some(CmEventKind::Disconnected));
        assert_eq!(
            host.completed().iter().map(|done| (done.id, done.status)).collect::<Vec<_>>(),
            [(1, Status::Flushed)]
        );
        host.wire.send_again(stream, before);
        host.drive();
        if let Some(again) = host.wire.sent_again(stream) {
            assert!(again == sent, "{threads:?}: other bytes than the first time");
        }
        host.wait(Duration::from_secs(10));
        assert!(host.wire.is_aborted(stream), "nothing keeps the stream");
    }
}

#[test]
fn a_connection_that_has_ended_is_closed_in_order_though_everything_is_dropped() {
    for threads in MODELS {
        let host = Host::new(threads);
        let (id, mut peer) = host.connect();
        let stream = peer.stream();
        id.queue_pair().unwrap().post_send(send(1, host.payload(0, 64))).unwrap();
        host.drive();
        host.wire.acknowledge(stream);
        host.drive();
        assert_eq!(host.completed().len(), 1);
        id.disconnect();
        host.drive();
        assert_eq!(host.events().pop().map(|event| event.kind), Some(CmEventKind::Disconnected));
        drop(id);
        host.drive();
        // On an engine with a buffer of its own, what completed may still be in there.
        assert_eq!((host.wire.is_closed(stream), host.wire.is_aborted(stream)), (true, false), "{threads:?}");
        assert_eq!(peer.look(), 1);
        host.wait(Duration::from_secs(4));
        assert!(host.wire.is_aborted(stream), "a peer that never closes is not waited for longer");
    }
}

#[test]
fn what_was_posted_before_the_end_arrives_though_everything_is_dropped() {
    for threads in MODELS {
        let host = Host::new(threads);
        let (id, mut peer) = host.connect();
        let stream = peer.stream();
        id.queue_pair().unwrap().post_send(send(1, host.payload(0, 64))).unwrap();
        id.disconnect();
        drop(id);
        host.drive();
        assert_eq!((host.wire.is_closed(stream), host.wire.is_aborted(stream)), (false, false), "{threads:?}");
        assert_eq!(peer.look(), 1);
        host.wire.acknowledge(stream);
        host.drive();
        assert_eq!(
            host.completed().iter().map(|done| (done.id, done.status)).collect::<Vec<_>>(),
            [(1, Status::Success)]
        );
        assert_eq!((host.wire.is_closed(stream), host.wire.is_aborted(stream)), (true, false), "{threads:?}");
        assert_eq!(host.region.holds(), 0);
    }
}

#[test]
fn a_queue_pair_in_error_connects_again_while_its_last_connection_still_closes() {
    for threads in MODELS {
        let host = Host::new(threads);
        let (id, peer) = host.connect();
        let queue_pair = id.queue_pair().unwrap();
        id.disconnect();
        host.drive();
        assert_eq!(host.events().pop().map(|event| event.kind), Some(CmEventKind::Disconnected));
        queue_pair.modify_to_reset().unwrap();
        queue_pair.modify_to_init().unwrap();
        assert!(!host.wire.is_aborted(peer.stream()), "{threads:?}");
        let again = host.connect_as(&id);
        assert_ne!(again.stream(), peer.stream());
        assert_eq!(queue_pair.state(), QueuePairState::ReadyToSend);
        host.wait(Duration::from_secs(4));
        assert!(host.wire.is_aborted(peer.stream()) && !host.wire.is_aborted(again.stream()), "{threads:?}");
        assert_eq!(queue_pair.state(), QueuePairState::ReadyToSend);
        assert!(host.events().is_empty());
    }
}

#[test]
fn a_peer_that_breaks_a_rule_and_closes_is_still_told() {
    for threads in MODELS {
        let host = Host::new(threads);
        let (id, mut peer, _listener) = host.accept();
        let stream = peer.stream();
        id.queue_pair().unwrap().post_receive(1, &[host.region.segment(0, 8)]).unwrap();
        peer.send(send(0, Payload::Inline([0; 8].into())));
        host.drive();
        assert_eq!(host.completed().len(), 1);
        peer.post(send(1, Payload::Inline([1; 8].into())));
        let mut bytes = peer.bytes();
        *bytes.last_mut().unwrap() ^= 1;
        host.wire.arrive(stream, &bytes);
        host.wire.close_by_peer(stream);
        host.drive();
        assert!(peer.terminated().is_some(), "{threads:?}");
        assert!(!host.wire.is_closed(stream) && !host.wire.is_aborted(stream), "{threads:?}");
        host.wire.acknowledge(stream);
        host.drive();
        assert_eq!((host.wire.is_closed(stream), host.wire.is_aborted(stream)), (true, false), "{threads:?}");
    }
}

#[test]
fn an_id_that_gets_another_queue_pair_gives_up_the_one_it_has() {
    for threads in MODELS {
        let (done, waiting) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let host = Host::new(threads);
            let (id, peer) = host.connect();
            id.set_queue_pair(host.queue_pair());
            host.drive();
            assert!(host.wire.is_aborted(peer.stream()));
            assert_eq!(host.events().pop().map(|event| event.kind), Some(CmEventKind::Disconnected));
            done.send(()).unwrap();
        });
        waiting.recv_timeout(Duration::from_secs(10)).unwrap_or_else(|error| panic!("{threads:?}: {error}"));
    }
}

#[test]
fn a_peer_that_never_finishes_what_it_began_is_not_waited_for_for_ever() {
    for threads in MODELS {
        let host = Host::with(threads, |config| config.timing.stall_timeout_ms = 2000);
        let (id, mut peer, _listener) = host.accept();
        let stream = peer.stream();
        let queue_pair = id.queue_pair().unwrap();
        for id in 0..2 {
            queue_pair.post_receive(id, &[host.region.segment(0, 64)]).unwrap();
        }
        peer.send(send(0, Payload::Inline([0; 64].into())));
        host.drive();
        assert_eq!(host.completed().len(), 1);
        // Between two messages a peer may be silent as long as it likes.
        (0..10).for_each(|_| host.wait(LOOK));
        peer.post(send(1, Payload::Inline([1; 64].into())));
        let bytes = peer.bytes();
        // Slow is not stalled.
        for byte in &bytes[..20] {
            host.wire.arrive(stream, &[*byte]);
            host.wait(LOOK);
            assert_eq!(queue_pair.state(), QueuePairState::ReadyToSend, "{threads:?}");
        }
        host.wait(LOOK);
        assert!(peer.terminated().is_some(), "{threads:?}");
        host.wire.acknowledge(stream);
        host.drive();
        assert_eq!(host.events().pop().map(|event| event.kind), Some(CmEventKind::Disconnected), "{threads:?}");
        assert_eq!(
            host.completed().iter().map(|done| (done.id, done.status)).collect::<Vec<_>>(),
            [(1, Status::Flushed)]
        );
        assert!(host.wire.is_closed(stream));
    }
}

#[test]
fn a_connection_whose_last_request_is_a_read_ends_with_the_answer() {
    for threads in MODELS {
        let host = Host::new(threads);
        let (id, mut peer) = host.connect();
        let stream = peer.stream();
        let sinks = list(&[host.region.segment(0, 0)]);
        let read = Operation::Read { sinks, source: Default::default(), invalidate: None };
        id.queue_pair().unwrap().post_send(request(1, read)).unwrap();
        host.drive();
        host.wire.acknowledge(stream);
        id.disconnect();
        host.drive();
        assert!(!host.wire.is_closed(stream), "{threads:?}: the answer is awaited");
        peer.look();
        let answer = peer.bytes();
        assert!(!answer.is_empty());
        host.wire.arrive(stream, &answer);
        host.drive();
        assert_eq!((host.wire.is_closed(stream), host.wire.is_aborted(stream)), (true, false), "{threads:?}");
        let completed: Vec<_> = host.completed().iter().map(|done| (done.id, done.status)).collect();
        assert_eq!(completed, [(1, Status::Success)]);
    }
}

#[test]
fn what_is_acknowledged_together_with_the_peers_end_is_complete() {
    for threads in MODELS {
        let host = Host::new(threads);
        let (id, peer) = host.connect();
        let stream = peer.stream();
        let payload = Payload::Segments(list(&[host.region.segment(0, 8)]));
        id.queue_pair().unwrap().post_send(request(1, Operation::Send { payload, invalidate: None })).unwrap();
        host.drive();
        host.wire.acknowledge(stream);
        host.wire.close_by_peer(stream);
        host.drive();
        let completed: Vec<_> = host.completed().iter().map(|done| (done.id, done.status)).collect();
        assert_eq!(completed, [(1, Status::Success)], "{threads:?}");
        assert_eq!((host.wire.is_closed(stream), host.wire.is_aborted(stream)), (true, false), "{threads:?}");
    }
}

#[test]
fn a_peer_that_stops_between_two_segments_of_a_message_is_not_waited_for_for_ever() {
    for threads in MODELS {
        let host = Host::with(threads, |config| config.timing.stall_timeout_ms = 2000);
        let (id, mut peer, _listener) = host.accept();
        let stream = peer.stream();
        let queue_pair = id.queue_pair().unwrap();
        for id in 0..2 {
            queue_pair.post_receive(id, &[host.region.segment(0, 8192)]).unwrap();
        }
        peer.send(send(0, Payload::Inline([0; 64].into())));
        host.drive();
        assert_eq!(host.completed().len(), 1);
        let from = Segment { stag: Stag(0x100), offset: TaggedOffset(0), length: 8192 };
        peer.post(send(1, Payload::Segments(list(&[from]))));
        let bytes = peer.bytes();
        let mut rest = &bytes[..];
        // Slow is not stalled.
        for _ in 0..3 {
            let (segment, behind) = rest.split_at(first_fpdu(rest));
            host.wire.arrive(stream, segment);
            host.wait(LOOK);
            assert_eq!(queue_pair.state(), QueuePairState::ReadyToSend, "{threads:?}");
            rest = behind;
        }
        assert!(!rest.is_empty(), "the message goes on");
        assert!(host.region.try_deregister().unwrap_err().holds > 0, "{threads:?}: the message is being received");
        host.wait(LOOK);
        assert!(peer.terminated().is_some(), "{threads:?}");
        host.wire.acknowledge(stream);
        host.drive();
        assert_eq!(host.events().pop().map(|event| event.kind), Some(CmEventKind::Disconnected), "{threads:?}");
        assert_eq!(
            host.completed().iter().map(|done| (done.id, done.status)).collect::<Vec<_>>(),
            [(1, Status::Flushed)]
        );
        assert_eq!(host.region.try_deregister(), Ok(()), "{threads:?}");
    }
}

#[test]
fn a_peer_that_stops_inside_a_write_is_not_waited_for_for_ever() {
    for threads in MODELS {
        let host = Host::with(threads, |config| config.timing.stall_timeout_ms = 2000);
        let (id, mut peer, _listener) = host.accept();
        let queue_pair = id.queue_pair().unwrap();
        let from = Segment { stag: Stag(0x100), offset: TaggedOffset(0), length: 4000 };
        let payload = Payload::Segments(list(&[from]));
        let target = RemoteAddress { stag: host.region.rkey(), offset: TaggedOffset(host.region.address()) };
        let write = Operation::Write { payload, target, immediate: None };
        // Behind a Write that is finished a peer may be silent as long as it likes.
        peer.send(request(0, write.clone()));
        (0..10).for_each(|_| host.wait(LOOK));
        peer.post(request(1, write));
        let bytes = peer.bytes();
        stops_inside(&host, &mut peer, &queue_pair, &bytes);
        assert_eq!(host.events().pop().map(|event| event.kind), Some(CmEventKind::Disconnected), "{threads:?}");
    }
}

#[test]
fn a_peer_that_stops_inside_a_read_response_is_not_waited_for_for_ever() {
    for threads in MODELS {
        let host = Host::with(threads, |config| config.timing.stall_timeout_ms = 2000);
        let (id, mut peer) = host.connect();
        let queue_pair = id.queue_pair().unwrap();
        let sinks = list(&[host.region.segment(0, 4000)]);
        let read = Operation::Read { sinks, source: Default::default(), invalidate: None };
        queue_pair.post_send(request(1, read)).unwrap();
        host.drive();
        host.wire.acknowledge(peer.stream());
        // A peer may take its time before it answers.
        (0..10).for_each(|_| host.wait(LOOK));
        peer.look();
        let bytes = peer.bytes();
        stops_inside(&host, &mut peer, &queue_pair, &bytes);
        let completed: Vec<_> = host.completed().iter().map(|done| (done.id, done.status)).collect();
        assert_eq!(completed, [(1, Status::Flushed)], "{threads:?}");
        assert_eq!(host.region.try_deregister(), Ok(()), "{threads:?}");
    }
}

/// More than the stall timeout of those who use it.
const LOOK: Duration = Duration::from_millis(2100);

/// `peer` sends the segments of `bytes` slowly, all but the last, and no more: it gets a TERMINATE.
fn stops_inside(host: &Host, peer: &mut Peer, queue_pair: &QueuePair, bytes: &[u8]) {
    let threads = host.device.config().threads;
    let mut rest = bytes;
    loop {
        let (segment, behind) = rest.split_at(first_fpdu(rest));
        if behind.is_empty() {
            break;
        }
        host.wire.arrive(peer.stream(), segment);
        host.wait(LOOK);
        assert_eq!(queue_pair.state(), QueuePairState::ReadyToSend, "{threads:?}: slow is not stalled");
        rest = behind;
    }
    assert!(rest.len() < bytes.len(), "several segments");
    host.wait(LOOK);
    assert!(peer.terminated().is_some(), "{threads:?}");
    host.wire.acknowledge(peer.stream());
    host.drive();
    assert_eq!(queue_pair.state(), QueuePairState::Error, "{threads:?}");
}

#[test]
fn a_peer_whose_bytes_lie_behind_others_is_not_taken_for_stalled() {
    for threads in MODELS {
        let host = Host::with(threads, |config| config.timing.stall_timeout_ms = 2000);
        let (busy, mut other) = host.connect();
        busy.queue_pair().unwrap().post_send(send(0, host.payload(0, 8))).unwrap();
        host.drive();
        // RFC 5044 §7.1.2: a responder speaks second.
        assert_eq!(other.look(), 1);
        let (id, mut peer, _listener) = host.accept();
        let queue_pair = id.queue_pair().unwrap();
        queue_pair.post_receive(1, &[host.region.segment(0, 64)]).unwrap();
        peer.post(send(1, Payload::Inline([1; 64].into())));
        let bytes = peer.bytes();
        host.wire.arrive(peer.stream(), &bytes[..20]);
        host.wait(LOOK);
        // The process stood still meanwhile: all of it is there when it goes on, but not all of it in the first burst.
        host.wire.deliver_one_stream_at_a_time();
        let (payload, target) = (Payload::Inline([].into()), Default::default());
        other.send(request(1, Operation::Write { payload, target, immediate: None }));
        host.wire.arrive(peer.stream(), &bytes[20..]);
        host.wait(LOOK);
        assert_eq!(host.completed().len(), 1, "{threads:?}");
        assert_eq!(queue_pair.state(), QueuePairState::ReadyToSend, "{threads:?}");
        assert!(peer.terminated().is_none(), "{threads:?}");
    }
}

/// Length of the FPDU at the front (RFC 5044 §4.1).
fn first_fpdu(bytes: &[u8]) -> usize {
    let ulpdu = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    (2 + ulpdu).next_multiple_of(4) + 4
}
