//! Requests on memory that was given up after they were posted.

use super::{Host, MODELS, list, request, send};
use softrdma_mpa_ddp_rdmap::{Operation, Payload};
use softrdma_verbs::{AccessFlags, Status};

#[test]
fn a_receive_whose_region_was_invalidated_gets_nothing() {
    for threads in MODELS {
        let host = Host::new(threads);
        let (id, mut peer) = host.connect();
        let queue_pair = id.queue_pair().unwrap();
        // A responder, as the peer is, sends once it has received.
        queue_pair.post_send(send(0, host.payload(0, 8))).unwrap();
        host.drive();
        host.wire.acknowledge(peer.stream());
        assert_eq!(peer.look(), 1);
        let sink = host.domain.allocate(4096, AccessFlags::ALL).unwrap();
        queue_pair.post_receive(7, &[sink.segment(0, 64)]).unwrap();
        queue_pair.post_send(request(1, Operation::LocalInvalidate { stag: sink.lkey() })).unwrap();
        host.drive();
        assert_eq!(
            host.completed().iter().map(|done| (done.id, done.status)).collect::<Vec<_>>(),
            [(0, Status::Success), (1, Status::Success)]
        );
        peer.send(send(1, Payload::Inline([0xab; 64].into())));
        host.drive();
        let done = host.completed();
        assert_eq!((done[0].id, done[0].status), (7, Status::LocalProtection), "{threads:?}");
        let mut bytes = [0; 64];
        sink.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 64], "{threads:?}: placed into an invalidated region");
        assert_eq!(sink.holds(), 0);
        assert!(peer.terminated().is_some(), "{threads:?}: the peer is told");
    }
}

#[test]
fn nothing_begins_on_a_region_that_waits_for_deregistration() {
    for threads in MODELS {
        let host = Host::new(threads);
        let (id, peer) = host.connect();
        let queue_pair = id.queue_pair().unwrap();
        let source = host.domain.allocate(4096, AccessFlags::ALL).unwrap();
        let payload = || Payload::Segments(list(&[source.segment(0, 64)]));
        queue_pair.post_send(send(1, payload())).unwrap();
        host.drive();
        assert_eq!(source.try_deregister().unwrap_err().holds, 1);
        queue_pair.post_send(send(2, payload())).unwrap();
        host.drive();
        host.wire.acknowledge(peer.stream());
        host.drive();
        let done = host.completed();
        let done: Vec<_> = done.iter().map(|done| (done.id, done.status)).collect();
        assert_eq!(done, [(1, Status::Success), (2, Status::LocalProtection)], "{threads:?}");
        assert_eq!(source.try_deregister(), Ok(()));
    }
}
