//! Errors of our own side: the peer is told, and everything completes, in order and in time.

use std::time::Duration;

use super::{Host, MODELS, list, request, send};
use softrdma_verbs::{
    AccessFlags, AsyncEvent, CmEventKind, Operation, Payload, QueuePairState, Segment, Stag, Status, TaggedOffset,
};

/// A piece of no region.
const NOWHERE: Segment = Segment { stag: Stag(0xdead_beef), offset: TaggedOffset(0), length: 64 };

fn outcome(host: &Host) -> Vec<(u64, Status)> {
    host.completed().iter().map(|done| (done.id, done.status)).collect()
}

#[test]
fn a_send_from_no_region_ends_the_connection_and_everything_completes_in_order() {
    for (threads, acknowledges) in MODELS.into_iter().flat_map(|threads| [(threads, true), (threads, false)]) {
        let host = Host::new(threads);
        let (id, mut peer) = host.connect();
        let queue_pair = id.queue_pair().unwrap();
        let stream = peer.stream();
        let sinks = list(&[host.region.segment(0, 64)]);
        let read = Operation::Read { sinks, source: Default::default(), invalidate: None };
        queue_pair.post_send(request(1, read)).unwrap();
        queue_pair.post_send(send(2, Payload::Segments(list(&[NOWHERE])))).unwrap();
        host.drive();
        assert_eq!(queue_pair.state(), QueuePairState::Error, "{threads:?}");
        queue_pair.post_send(send(3, host.payload(0, 8))).unwrap();
        host.drive();
        let number = queue_pair.number();
        assert_eq!(host.device.try_get_async_event(), Some(AsyncEvent::QueuePairFatal { number }));
        assert!(peer.terminated().is_some(), "the peer is told");
        assert_eq!(outcome(&host), [], "{threads:?}: nothing overtakes the Read");
        if acknowledges {
            host.wire.acknowledge(stream);
            host.drive();
        } else {
            host.wait(Duration::from_millis(1100));
        }
        let expected = [(1, Status::Flushed), (2, Status::LocalProtection), (3, Status::Flushed)];
        assert_eq!(outcome(&host), expected, "{threads:?}");
        assert_eq!(host.events().pop().map(|event| event.kind), Some(CmEventKind::Disconnected));
        assert_eq!((host.wire.is_closed(stream), host.wire.is_aborted(stream)), (acknowledges, !acknowledges));
        assert_eq!(host.region.holds(), 0);
    }
}

#[test]
fn a_region_that_is_given_up_while_a_peer_reads_it_is_soon_free() {
    for threads in MODELS {
        let host = Host::new(threads);
        let source = host.domain.allocate(16 << 20, AccessFlags::ALL).unwrap();
        let (_id, mut peer, _listener) = host.accept();
        let stream = peer.stream();
        let sinks = list(&[Segment { stag: Stag(0x100), offset: TaggedOffset(0), length: 16 << 20 }]);
        let from = softrdma_verbs::RemoteAddress { stag: source.rkey(), offset: TaggedOffset(source.address()) };
        peer.send(request(1, Operation::Read { sinks, source: from, invalidate: None }));
        host.drive();
        assert!(source.try_deregister().unwrap_err().holds > 0, "{threads:?}: the Read is under way");
        // The peer goes on, and never closes.
        host.wire.acknowledge(stream);
        host.drive();
        assert!(peer.terminated().is_some(), "{threads:?}: the peer is told");
        assert_eq!(source.try_deregister(), Ok(()), "{threads:?}");
        host.wire.acknowledge(stream);
        host.drive();
        assert_eq!(host.events().pop().map(|event| event.kind), Some(CmEventKind::Disconnected));
    }
}

#[test]
fn an_error_before_the_peers_first_message_ends_the_connection_without_a_word() {
    for threads in MODELS {
        let host = Host::new(threads);
        let (id, peer, _listener) = host.accept();
        let queue_pair = id.queue_pair().unwrap();
        let before = host.wire.sent(peer.stream()).len();
        queue_pair.post_send(request(1, Operation::LocalInvalidate { stag: NOWHERE.stag })).unwrap();
        queue_pair.post_send(send(2, host.payload(0, 8))).unwrap();
        host.drive();
        assert_eq!(outcome(&host), [(1, Status::LocalProtection), (2, Status::Flushed)], "{threads:?}");
        assert_eq!(host.events().pop().map(|event| event.kind), Some(CmEventKind::Disconnected), "{threads:?}");
        assert!(host.wire.is_closed(peer.stream()));
        assert_eq!(host.wire.sent(peer.stream()).len(), before, "RFC 5044 §7.1.2: a responder speaks second");
        assert_eq!(host.device.statistics().host.unwrap().terminates_sent, 0);
    }
}
