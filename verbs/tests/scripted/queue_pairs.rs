//! What happens to a queue pair while something of its connection is still there.

use super::{Host, MODELS, send};
use softrdma_verbs::{ConnectParameters, Payload, QueuePairAttributes, Status};

#[test]
fn a_queue_pair_that_was_dropped_takes_no_receives_that_others_share() {
    for threads in MODELS {
        let host = Host::new(threads);
        let shared = host.domain.create_shared_receive_queue(8).unwrap();
        let (request, mut peer, _listener) = host.request();
        let attributes = QueuePairAttributes {
            shared_receive_queue: Some(shared.clone()),
            ..host.queue_pair().attributes().clone()
        };
        let queue_pair = host.device.create_queue_pair(&host.domain, &attributes).unwrap();
        request.set_queue_pair(queue_pair.clone());
        request.accept(&ConnectParameters::default()).unwrap();
        host.drive();
        peer.finish_request();
        host.wire.acknowledge(peer.stream());
        for id in 0..4 {
            shared.post_receive(id, &[host.region.segment(0, 8)]).unwrap();
        }
        peer.send(send(1, Payload::Inline([1; 8].into())));
        host.drive();
        assert_eq!((host.completed().len(), shared.length()), (1, 3), "{threads:?}");
        // What was posted still leaves, and until the peer has acknowledged it the connection is there.
        queue_pair.post_send(send(9, host.payload(0, 8))).unwrap();
        request.disconnect();
        host.drive();
        peer.send(send(2, Payload::Inline([2; 8].into())));
        host.drive();
        assert_eq!((host.completed().len(), shared.length()), (1, 2), "{threads:?}: draining, it goes on receiving");
        drop((queue_pair, request));
        peer.send(send(3, Payload::Inline([3; 8].into())));
        host.drive();
        assert_eq!((host.completed().len(), shared.length()), (0, 2), "{threads:?}");
        // Another receive changes nothing, and nobody is kept busy by it.
        shared.post_receive(4, &[host.region.segment(0, 8)]).unwrap();
        host.drive();
        assert_eq!((host.completed().len(), shared.length()), (0, 3), "{threads:?}");
        assert!(host.device.next_deadline() > Some(Default::default()), "{threads:?}: nothing is due now");
        host.wire.acknowledge(peer.stream());
        host.drive();
        let completed: Vec<_> = host.completed().iter().map(|done| (done.id, done.status)).collect();
        assert_eq!(completed, [(9, Status::Success)], "{threads:?}");
        assert!(host.wire.is_closed(peer.stream()) && !host.wire.is_aborted(peer.stream()), "{threads:?}");
    }
}
