use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::configuration::DeviceLimits;
use crate::resources::BareDevice;

fn queue(capacity: usize, channel: Option<&CompletionChannel>) -> CompletionQueue {
    CompletionQueue::new(BareDevice::new(DeviceLimits::default()), capacity, channel).expect("within limits")
}

fn completion(id: u64) -> Completion {
    Completion {
        id,
        status: Status::Success,
        opcode: Opcode::Receive,
        length: 8,
        immediate: None,
        invalidated: None,
        solicited: false,
        signaled: true,
    }
}

const EMPTY: WorkCompletion = WorkCompletion {
    id: 0,
    status: Status::Fatal,
    opcode: Opcode::Send,
    length: 0,
    queue_pair: 0,
    immediate: None,
    invalidated: None,
    solicited: false,
};

fn is_readable(channel: &CompletionChannel) -> bool {
    let descriptor = channel.as_fd();
    let mut polled = [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("it can be polled") == 1
}

#[test]
fn completions_come_out_in_order_with_all_they_say() {
    let queue = queue(8, None);
    let told = Completion {
        immediate: Some([1; 8]),
        invalidated: Some(Stag(7)),
        solicited: true,
        opcode: Opcode::ReceiveImmediate,
        ..completion(2)
    };
    queue.shared().push(11, completion(1)).expect("room");
    queue.shared().push(12, told).expect("room");
    let mut out = [EMPTY; 4];
    assert_eq!(queue.poll(&mut out), 2);
    assert_eq!((out[0].id, out[0].queue_pair, out[0].length), (1, 11, 8));
    let expected = WorkCompletion {
        id: 2,
        status: Status::Success,
        opcode: Opcode::ReceiveImmediate,
        length: 8,
        queue_pair: 12,
        immediate: Some([1; 8]),
        invalidated: Some(Stag(7)),
        solicited: true,
    };
    assert_eq!(out[1], expected);
    assert_eq!(queue.poll(&mut out), 0);
    assert_eq!(queue.poll_one(), None);
}

#[test]
fn a_poll_takes_no_more_than_there_is_room_for() {
    let queue = queue(8, None);
    for id in 0..5 {
        queue.shared().push(1, completion(id)).expect("room");
    }
    let mut out = [EMPTY; 3];
    assert_eq!(queue.poll(&mut []), 0);
    assert_eq!(queue.poll(&mut out), 3);
    assert_eq!(queue.poll(&mut out), 2);
    assert_eq!(out.map(|entry| entry.id), [3, 4, 2]);
}

#[test]
fn an_overrun_is_told_and_loses_only_what_did_not_fit() {
    let queue = queue(2, None);
    queue.shared().push(1, completion(1)).expect("room");
    queue.shared().push(1, completion(2)).expect("room");
    let overrun = queue.shared().push(1, completion(3)).expect_err("full");
    assert_eq!((overrun.capacity, overrun.first), (2, true));
    assert!(overrun.to_string().contains("2 entries"), "{overrun}");
    assert!(!queue.shared().push(1, completion(4)).expect_err("full").first, "told once");
    assert_eq!(queue.lost(), 2);
    assert_eq!(queue.poll_one().map(|entry| entry.id), Some(1));
    assert_eq!(queue.poll_one().map(|entry| entry.id), Some(2));
    assert_eq!(queue.poll_one(), None);
}

#[test]
fn a_capacity_out_of_bounds_is_refused_with_the_limit() {
    let device = BareDevice::new(DeviceLimits { max_completion_queue_entries: 10, ..DeviceLimits::default() });
    for capacity in [0, 11] {
        let error = CompletionQueue::new(device.clone(), capacity, None).expect_err("out of bounds");
        assert_eq!(error, CreateCompletionQueueError::Capacity { capacity, limit: 10 });
        assert!(error.to_string().contains("limits.max_completion_queue_entries"));
    }
}

#[test]
fn too_many_queues_are_refused_and_a_dropped_one_makes_room() {
    let device = BareDevice::new(DeviceLimits { max_completion_queues: 1, ..DeviceLimits::default() });
    let first = CompletionQueue::new(device.clone(), 1, None).expect("the first");
    let error = CompletionQueue::new(device.clone(), 1, None).expect_err("the second");
    assert!(error.to_string().contains("limits.max_completion_queues"), "{error}");
    let number = first.id();
    drop(first);
    let next = CompletionQueue::new(device, 1, None).expect("room again");
    assert_ne!(next.id(), number, "numbers are not reused");
}

#[test]
fn an_unarmed_queue_makes_no_event() {
    let channel = CompletionChannel::new().expect("a descriptor");
    let queue = queue(8, Some(&channel));
    queue.shared().push(1, completion(1)).expect("room");
    assert!(!is_readable(&channel));
    assert_eq!(channel.try_get_event(), None);
}

#[test]
fn an_armed_queue_makes_one_event_that_names_it() {
    let channel = CompletionChannel::new().expect("a descriptor");
    let device = BareDevice::new(DeviceLimits::default());
    let first = CompletionQueue::new(device.clone(), 8, Some(&channel)).expect("within limits");
    let second = CompletionQueue::new(device, 8, Some(&channel)).expect("within limits");
    first.arm(false);
    second.arm(false);
    for id in 0..3 {
        second.shared().push(1, completion(id)).expect("room");
    }
    assert!(is_readable(&channel));
    assert_eq!(channel.try_get_event(), Some(second.id()));
    assert!(!is_readable(&channel));
    assert_eq!(channel.try_get_event(), None);
    first.shared().push(1, completion(9)).expect("room");
    assert_eq!(channel.get_event(Some(Duration::from_secs(5))), Some(first.id()));
}

#[test]
fn solicited_only_is_for_solicited_and_failed_completions() {
    let channel = CompletionChannel::new().expect("a descriptor");
    let queue = queue(8, Some(&channel));
    queue.arm(true);
    queue.shared().push(1, completion(1)).expect("room");
    assert_eq!(channel.try_get_event(), None);
    queue.shared().push(1, Completion { solicited: true, ..completion(2) }).expect("room");
    assert_eq!(channel.try_get_event(), Some(queue.id()));
    queue.arm(true);
    queue.shared().push(1, Completion { status: Status::Flushed, ..completion(3) }).expect("room");
    assert_eq!(channel.try_get_event(), Some(queue.id()));
}

#[test]
fn an_overrun_wakes_who_waits() {
    let channel = CompletionChannel::new().expect("a descriptor");
    let queue = queue(1, Some(&channel));
    queue.shared().push(1, completion(1)).expect("room");
    queue.arm(true);
    queue.shared().push(1, completion(2)).expect_err("full");
    assert_eq!(channel.try_get_event(), Some(queue.id()));
}

#[test]
fn events_wait_once_each_however_often_a_queue_is_armed() {
    let channel = CompletionChannel::new().expect("a descriptor");
    let queue = queue(64, Some(&channel));
    for id in 0..50 {
        queue.arm(false);
        queue.shared().push(1, completion(id)).expect("room");
    }
    assert_eq!(channel.try_get_event(), Some(queue.id()));
    assert_eq!(channel.try_get_event(), None, "a second would tell nothing new");
}

#[test]
fn a_dropped_queue_takes_its_event_with_it() {
    let channel = CompletionChannel::new().expect("a descriptor");
    let queue = queue(8, Some(&channel));
    let shared = queue.shared().clone();
    queue.arm(false);
    shared.push(1, completion(1)).expect("room");
    assert!(is_readable(&channel));
    drop(queue);
    assert!(!is_readable(&channel));
    assert_eq!(channel.try_get_event(), None);
}

#[test]
fn a_destroyer_waits_until_events_are_acknowledged() {
    let channel = CompletionChannel::new().expect("a descriptor");
    let queue = queue(8, Some(&channel));
    for id in 0..2 {
        queue.arm(false);
        queue.shared().push(1, completion(id)).expect("room");
        assert_eq!(channel.try_get_event(), Some(queue.id()));
    }
    assert_eq!(queue.unacknowledged_events(), 2);
    queue.acknowledge_events(1);
    let (sender, done) = mpsc::channel();
    let waiting = queue.clone();
    let destroyer = thread::spawn(move || {
        waiting.wait_for_acknowledgements();
        sender.send(()).expect("the test waits");
    });
    assert!(done.recv_timeout(Duration::from_millis(50)).is_err(), "one is missing");
    queue.acknowledge_events(1);
    done.recv_timeout(Duration::from_secs(10)).expect("it goes on");
    destroyer.join().expect("no panic");
    queue.arm(false);
    queue.shared().push(1, completion(9)).expect("room");
    assert_eq!(channel.try_get_event(), None, "its events have ended");
    queue.acknowledge_events(5);
    assert_eq!(queue.unacknowledged_events(), 0);
}

#[test]
fn a_channel_whose_descriptor_was_read_by_mistake_does_not_block() {
    let channel = CompletionChannel::new().expect("a descriptor");
    let queue = queue(8, Some(&channel));
    queue.arm(false);
    queue.shared().push(1, completion(1)).expect("room");
    rustix::io::read(channel.as_fd(), &mut [0; 8]).expect("readable");
    assert_eq!(channel.try_get_event(), Some(queue.id()));
}

#[test]
fn waiting_for_an_event_ends_with_its_time() {
    let channel = CompletionChannel::new().expect("a descriptor");
    assert_eq!(channel.get_event(Some(Duration::from_millis(5))), None);
}

/// Two threads complete, one arms, polls empty and sleeps on the descriptor: every completion arrives, once.
#[test]
fn no_completion_is_lost_between_arming_and_polling() {
    const EACH: u64 = 20_000;
    let channel = CompletionChannel::new().expect("a descriptor");
    let queue = queue(2 * EACH as usize, Some(&channel));
    let seen = thread::scope(|scope| {
        for number in 0..2 {
            let shared = queue.shared().clone();
            scope.spawn(move || {
                for id in 0..EACH {
                    shared.push(number, completion(id)).expect("room for all");
                    if id % 7 == 0 {
                        thread::yield_now();
                    }
                }
            });
        }
        let mut next = [0_u64; 2];
        let mut out = [EMPTY; 16];
        while next.iter().sum::<u64>() < 2 * EACH {
            queue.arm(false);
            let mut any = false;
            loop {
                let count = queue.poll(&mut out);
                for entry in &out[..count] {
                    let expected = &mut next[entry.queue_pair as usize];
                    assert_eq!(entry.id, *expected, "in order");
                    *expected += 1;
                }
                any |= count > 0;
                if count == 0 {
                    break;
                }
            }
            if !any {
                let event = channel.get_event(Some(Duration::from_secs(10)));
                assert_eq!(event, Some(queue.id()), "completions were left and nobody said so: {next:?}");
                queue.acknowledge_events(1);
            }
        }
        next
    });
    assert_eq!(seen, [EACH; 2]);
}
