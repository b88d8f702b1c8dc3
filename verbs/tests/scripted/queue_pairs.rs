//! What happens to a queue pair while something of its connection is still there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Host, MODELS, send};
use softrdma_verbs::{
    CmId, ConnectParameters, Payload, PostError, QueuePair, QueuePairAttributes, QueuePairState, Status, Threads,
};

#[test]
fn a_queue_pair_is_not_reset_beside_who_is_at_work() {
    for threads in MODELS {
        // Who resets it may find nobody at work for a moment, and then does it all: only sometimes it is flushed by who is held.
        let is_held = (0..100).any(|_| {
            let seen = reset_beside_a_held_driver(threads);
            assert_ne!(seen, (QueuePairState::Error, true), "{threads:?}: it is told that the reset is over");
            seen == (QueuePairState::Error, false)
        });
        assert!(is_held, "{threads:?}: it is reset while somebody is at work");
    }
}

/// What is seen of a reset once the queue pair is flushed, while whoever drives is held: its state, and whether that is all.
fn reset_beside_a_held_driver(threads: Threads) -> (QueuePairState, bool) {
    let host = Host::new(threads);
    let queue_pair = host.queue_pair();
    queue_pair.modify_to_init().unwrap();
    queue_pair.post_receive(1, &[host.region.segment(0, 8)]).unwrap();
    let nobody = CmId::new(&host.channel);
    let is_over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        host.wire.hold_polls();
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                host.device.drive(Default::default());
            }
        });
        host.wire.wait_for_poll(|| false);
        let resetting = scope.spawn(|| queue_pair.modify_to_reset());
        std::thread::sleep(Duration::from_millis(50));
        while queue_pair.state() == QueuePairState::Init {
            // More than a pass carries out: what is asked for behind the flush is not done in the pass that flushes.
            (0..128).for_each(|_| nobody.disconnect());
            host.wire.let_one_poll_go();
            host.wire.wait_for_poll(|| false);
        }
        // It is flushed, and whoever did that is still at work.
        std::thread::sleep(Duration::from_millis(50));
        let seen = (queue_pair.state(), resetting.is_finished());
        host.wire.let_polls_go();
        resetting.join().unwrap().unwrap();
        is_over.store(true, Ordering::SeqCst);
        seen
    });
    assert_eq!(queue_pair.state(), QueuePairState::Reset, "{threads:?}");
    let completed: Vec<_> = host.completed().iter().map(|done| (done.id, done.status)).collect();
    assert_eq!(completed, [(1, Status::Flushed)]);
    seen
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

/// Most that [`post_beside_a_driver`] posts.
const MANY: u64 = 50;

/// Posts something during each pass of one that drives, so that another is due, until it leaves; how many. The last of them is left.
fn post_beside_a_driver(host: &Host, queue_pair: &QueuePair) -> u64 {
    let mut posted = 0;
    std::thread::scope(|scope| {
        host.wire.hold_polls();
        let driving = scope.spawn(|| host.device.drive(Default::default()));
        while host.wire.wait_for_poll(|| driving.is_finished()) && posted < MANY {
            queue_pair.post_send(send(posted, host.payload(0, 8))).unwrap();
            posted += 1;
            host.wire.let_one_poll_go();
        }
        host.wire.let_polls_go();
    });
    posted
}

#[test]
fn who_drives_is_not_kept_by_what_others_post() {
    let host = Host::new(Threads::C3);
    let (id, mut peer) = host.connect();
    let posted = post_beside_a_driver(&host, &id.queue_pair().unwrap());
    assert!((1..MANY).contains(&posted), "{posted} passes");
    assert!(peer.look() < posted, "the last is left");
    // As the RX thread does.
    host.device.progress();
    assert_eq!(peer.look(), posted, "who comes next has the rest");
}

#[test]
fn what_is_posted_behind_requests_that_were_left_does_not_overtake_them() {
    let host = Host::new(Threads::C3);
    let (id, mut peer) = host.connect();
    let queue_pair = id.queue_pair().unwrap();
    let posted = post_beside_a_driver(&host, &queue_pair);
    assert!(peer.look() < posted, "the last is left");
    // Nobody is at work: this one goes straight to its connection.
    queue_pair.post_send(send(posted, host.payload(0, 8))).unwrap();
    assert_eq!(peer.look(), posted + 1);
    host.wire.acknowledge(peer.stream());
    host.drive();
    let completed: Vec<u64> = host.completed().iter().map(|completion| completion.id).collect();
    assert_eq!(completed, (0..=posted).collect::<Vec<_>>());
}

#[test]
fn requests_of_one_call_go_out_in_order_up_to_the_first_that_is_refused() {
    for threads in MODELS {
        let host = Host::new(threads);
        let (id, mut peer) = host.connect();
        let queue_pair = id.queue_pair().unwrap();
        let mut made = 0;
        let requests = std::iter::repeat_with(|| {
            made += 1;
            send(made - 1, host.payload(0, 8))
        });
        // More than are handed over at a time, and more than there is room for.
        let Err((taken, error)) = queue_pair.post_send_many(requests) else { panic!("{threads:?}: all of no end") };
        assert_eq!((taken, error), (64, PostError::Full { depth: 64 }), "{threads:?}");
        assert_eq!(made, 65, "{threads:?}: no request is taken that is not looked at");
        host.drive();
        assert_eq!(peer.look(), 64, "{threads:?}");
        host.wire.acknowledge(peer.stream());
        host.drive();
        let completed: Vec<u64> = host.completed().iter().map(|completion| completion.id).collect();
        assert_eq!(completed, (0..64).collect::<Vec<_>>(), "{threads:?}");

        let requests = (64..).take(3).map(|id| send(id, host.payload(0, 8)));
        assert_eq!(queue_pair.post_send_many(requests), Ok(3), "{threads:?}");
        assert_eq!(queue_pair.post_send_many([]), Ok(0), "{threads:?}");
        host.drive();
        assert_eq!(peer.look(), 67, "{threads:?}");
    }
}

#[test]
fn requests_of_one_call_are_no_more_than_the_queue_holds_though_they_complete_meanwhile() {
    for threads in MODELS {
        let host = Host::new(threads);
        let (id, _peer) = host.connect();
        let queue_pair = id.queue_pair().unwrap();
        queue_pair.modify_to_error();
        host.drive();
        // More than fit, and not without end: a call that took them all would fail here and not hang.
        let requests = (0..200).map(|id| send(id, host.payload(0, 8)));
        assert_eq!(queue_pair.post_send_many(requests), Err((64, PostError::Full { depth: 64 })), "{threads:?}");
        host.drive();
        let completed: Vec<_> = host.completed().iter().map(|done| (done.id, done.status)).collect();
        assert_eq!(completed, (0..64).map(|id| (id, Status::Flushed)).collect::<Vec<_>>(), "{threads:?}");
    }
}

#[test]
fn requests_that_were_taken_go_out_though_their_iterator_panics() {
    for threads in MODELS {
        let host = Host::new(threads);
        let (id, mut peer) = host.connect();
        let queue_pair = id.queue_pair().unwrap();
        let posting = std::panic::AssertUnwindSafe(|| {
            queue_pair.post_send_many(
                (0..).map(|id| if id < 40 { send(id, host.payload(0, 8)) } else { panic!("on purpose") }),
            )
        });
        assert!(std::panic::catch_unwind(posting).is_err(), "{threads:?}");
        host.drive();
        assert_eq!(peer.look(), 40, "{threads:?}");
        host.wire.acknowledge(peer.stream());
        host.drive();
        assert_eq!(host.completed().len(), 40, "{threads:?}");
    }
}
