use std::sync::atomic::Ordering;
use std::thread;

use softrdma_mpa_ddp_rdmap::{Stag, TaggedOffset};

use super::*;
use crate::configuration::DeviceLimits;
use crate::resources::BareDevice;

fn request(id: u64) -> ReceiveRequest {
    ReceiveRequest { id, segments: SegmentList::default() }
}

fn segment() -> Segment {
    Segment { stag: Stag(1), offset: TaggedOffset(2), length: 3 }
}

#[test]
fn receives_are_taken_in_the_order_they_were_posted() {
    let queue = ReceiveQueue::new(3);
    for id in 1..=3 {
        queue.post(request(id)).expect("room");
    }
    assert_eq!(queue.post(request(4)), Err(Full { capacity: 3 }));
    let taken: Vec<_> = std::iter::from_fn(|| queue.take()).map(|request| request.id).collect();
    assert_eq!(taken, [1, 2, 3]);
    assert!(queue.is_empty());
}

#[test]
fn the_limit_event_comes_once_when_fewer_are_left() {
    let queue = ReceiveQueue::new(8);
    for id in 0..4 {
        queue.post(request(id)).expect("room");
    }
    queue.set_limit(3);
    queue.take();
    assert!(!queue.take_limit_reached(), "three are not fewer than three");
    queue.take();
    assert!(queue.take_limit_reached());
    assert_eq!(queue.limit(), 0, "disarmed");
    queue.take();
    assert!(!queue.take_limit_reached(), "it comes once");
}

#[test]
fn a_limit_above_what_is_posted_is_reached_at_once() {
    let queue = ReceiveQueue::new(8);
    queue.set_limit(1);
    assert!(queue.take_limit_reached());
    queue.post(request(0)).expect("room");
    queue.set_limit(1);
    assert!(!queue.take_limit_reached());
    queue.set_limit(0);
    queue.take();
    assert!(!queue.take_limit_reached(), "disarmed");
}

#[test]
fn posting_wakes_the_device_and_refusals_are_typed() {
    let device = BareDevice::new(DeviceLimits::default());
    let domain = ProtectionDomain::new(device.clone()).expect("the first");
    let queue = domain.create_shared_receive_queue(1).expect("within limits");
    queue.post_receive(7, &[segment()]).expect("room");
    assert_eq!(device.receives_posted.load(Ordering::Relaxed), 1);
    assert_eq!(queue.post_receive(8, &[]), Err(PostReceiveError::Full(Full { capacity: 1 })));
    let many = [segment(); MAX_SEGMENTS + 1];
    let count = many.len();
    assert_eq!(queue.post_receive(9, &many), Err(PostReceiveError::TooManySegments { count }));
    assert_eq!(device.receives_posted.load(Ordering::Relaxed), 1, "nothing was posted");
    let taken = queue.queue().take().expect("it was posted");
    assert_eq!((taken.id, taken.segments.as_slice()), (7, &[segment()][..]));
}

#[test]
fn capacities_and_numbers_of_queues_have_limits() {
    let limits = DeviceLimits { max_receive_requests: 16, max_shared_receive_queues: 1, ..DeviceLimits::default() };
    let domain = ProtectionDomain::new(BareDevice::new(limits)).expect("the first");
    for capacity in [0, 17] {
        let error = domain.create_shared_receive_queue(capacity).expect_err("out of bounds");
        assert_eq!(error, CreateReceiveQueueError::Capacity { capacity, limit: 16 });
    }
    let first = domain.create_shared_receive_queue(16).expect("the first");
    let error = domain.create_shared_receive_queue(16).expect_err("the second");
    assert!(error.to_string().contains("limits.max_shared_receive_queues"), "{error}");
    drop(first);
    domain.create_shared_receive_queue(16).expect("room again");
}

#[test]
fn each_receive_is_taken_exactly_once_by_some_queue_pair() {
    const EACH: u64 = 5000;
    let queue = ReceiveQueue::new(64);
    let taken = thread::scope(|scope| {
        for poster in 0..2 {
            let queue = &queue;
            scope.spawn(move || {
                for number in 0..EACH {
                    while queue.post(request(poster * EACH + number)).is_err() {
                        thread::yield_now();
                    }
                }
            });
        }
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let queue = &queue;
                scope.spawn(move || {
                    let mut ids = Vec::new();
                    while ids.len() < EACH as usize {
                        match queue.take() {
                            Some(request) => ids.push(request.id),
                            None => thread::yield_now(),
                        }
                    }
                    ids
                })
            })
            .collect();
        takers.into_iter().flat_map(|taker| taker.join().expect("no panic")).collect::<Vec<_>>()
    });
    let mut sorted = taken;
    sorted.sort_unstable();
    assert_eq!(sorted, (0..2 * EACH).collect::<Vec<_>>());
}
