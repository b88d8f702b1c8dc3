//! Every interleaving of what the halves tell each other through a [`SharedFlow`].

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use super::{Announcement, SharedFlow};
use crate::mailbox::Mailbox;

/// Everything up to `next` arrived; the window is one byte.
fn announcement(next: u32) -> Announcement {
    Announcement { next, edge: next + 1 }
}

#[test]
fn loom_whoever_sees_a_number_acknowledged_has_heard_that_it_was_sent() {
    loom::model(|| {
        let flow = Arc::new(SharedFlow::default());
        let wire = Arc::new(AtomicU32::new(0));
        let sending = {
            let (flow, wire) = (flow.clone(), wire.clone());
            thread::spawn(move || {
                for next in [10, 20] {
                    flow.set_next(next);
                    // The segment leaves: a ring that packets cross orders what was written before.
                    wire.store(next, Ordering::Release);
                }
                flow.set_oldest(10);
            })
        };
        let acknowledged = wire.load(Ordering::Acquire);
        let (oldest, next) = flow.in_flight();
        assert!(next >= acknowledged, "{acknowledged} was acknowledged, {next} is the next to be sent");
        assert!(oldest <= next, "{oldest} and {next} are of two states");
        sending.join().expect("no panic");
        assert_eq!(flow.in_flight(), (10, 20));
    });
}

#[test]
fn loom_the_timestamp_of_a_segment_is_not_older_than_what_the_segment_acknowledges() {
    loom::model(|| {
        let flow = Arc::new(SharedFlow::default());
        let receiving = {
            let flow = flow.clone();
            thread::spawn(move || (1..=2).for_each(|next| flow.announce(announcement(next), next)))
        };
        // In the order in which a segment is stamped.
        let announced = flow.announcement();
        let echo = flow.recent_timestamp();
        assert!(echo >= announced.next, "{announced:?} with the timestamp of {echo}");
        assert!(announced == Announcement::default() || announced == announcement(announced.next), "{announced:?}");
        receiving.join().expect("no panic");
    });
}

#[test]
fn loom_what_arrived_is_told_to_the_peer_by_data_or_by_an_acknowledgement_that_is_owed() {
    loom::model(|| {
        let flow = Arc::new(SharedFlow::default());
        let mail = Arc::new(Mailbox::new(2));
        let receiving = {
            let (flow, mail) = (flow.clone(), mail.clone());
            thread::spawn(move || {
                // A burst is announced before it is served, and then as far as it was served.
                flow.announce(announcement(1), 0);
                for next in [1, 2] {
                    let told = flow.told();
                    flow.announce(announcement(next), 0);
                    if told.next != next {
                        mail.push(());
                    }
                }
            })
        };
        let tell = || flow.set_told(flow.announcement());
        // Data that leaves by itself, and then a look at what is owed, as `SendHalf::handle_owed` has it.
        let answer = || {
            if mail.pop().is_some() && flow.told() != flow.announcement() {
                tell();
            }
        };
        tell();
        answer();
        answer();
        receiving.join().expect("no panic");
        answer();
        answer();
        assert_eq!(flow.told(), announcement(2));
    });
}
