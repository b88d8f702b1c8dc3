//! What happens to a queue pair while something of its connection is still there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Host, MODELS, send};
use softrdma_verbs::{ConnectParameters, Payload, QueuePairAttributes, QueuePairState, Status};

#[test]
fn a_queue_pair_is_not_reset_beside_who_is_at_work() {
    for threads in MODELS {
        let host = Host::new(threads);
        let queue_pair = host.queue_pair();
        queue_pair.modify_to_init().unwrap();
        queue_pair.post_receive(1, &[host.region.segment(0, 8)]).unwrap();
        let is_over = AtomicBool::new(false);
        let held = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    host.device.drive(Default::default());
                }
            });
            host.wire.hold_polls();
            let resetting = scope.spawn(|| queue_pair.modify_to_reset());
            std::thread::sleep(Duration::from_millis(50));
            let begin = Instant::now();
            while queue_pair.state() == QueuePairState::Init && begin.elapsed() < Duration::from_secs(10) {
                host.wire.let_one_poll_go();
            }
            // It is flushed, but whoever did that is still at work.
            std::thread::sleep(Duration::from_millis(50));
            let held = (queue_pair.state(), resetting.is_finished());
            host.wire.let_polls_go();
            resetting.join().unwrap().unwrap();
            is_over.store(true, Ordering::SeqCst);
            held
        });
        assert_eq!(held, (QueuePairState::Error, false), "{threads:?}");
        assert_eq!(queue_pair.state(), QueuePairState::Reset, "{threads:?}");
        let completed: Vec<_> = host.completed().iter().map(|done| (done.id, done.status)).collect();
        assert_eq!(completed, [(1, Status::Flushed)]);
    }
}

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
