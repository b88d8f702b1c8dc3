//! A turn: the right to work on shared state, which nobody ever waits for.
//!
//! A thread that has work for the state either gets the turn and does the work, or finds somebody inside, rings the bell
//! and goes its way: whoever is inside sees the bell before it leaves and works once more. So work that was handed over
//! (in a queue beside the turn) before [`Turn::ring`] is always done, and no thread is ever blocked by another's copy.
//!
//! A bell says which work it asks for, since whoever is inside may have come for less: to send, or only to look.

#[cfg(loom)]
use loom::sync::{
    Mutex,
    atomic::{AtomicU8, Ordering},
};
#[cfg(not(loom))]
use std::sync::{
    Mutex,
    atomic::{AtomicU8, Ordering},
};

/// What has to be done by whoever is inside, weakest first: each kind of work includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Bell {
    /// Carry out what the application left.
    Outbound = 2,
    /// That, and look for what arrived, and for receives that were waited for.
    Whole = 3,
}

/// Nobody is inside.
const FREE: u8 = 0;
/// Somebody is inside. Greater: and has the work of that [`Bell`] to do before leaving.
const TAKEN: u8 = 1;

/// Shared state with a turn. See the module.
#[derive(Debug)]
pub(crate) struct Turn<T> {
    state: AtomicU8,
    // Never contended: only the holder of the turn locks it. It costs one uncontended exchange and keeps this file safe.
    value: Mutex<T>,
}

impl<T> Turn<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { state: AtomicU8::new(FREE), value: Mutex::new(value) }
    }

    /// Has the work of `bell` done on everything handed over before this call: by us if the turn is free, else by whoever is
    /// inside. Tells whether we were inside. `work` is told which work is due, which may be more than was asked for here.
    pub(crate) fn ring(&self, bell: Bell, mut work: impl FnMut(&mut T, Bell)) -> bool {
        loop {
            match self.state.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    self.work_until_quiet(Some(bell), &mut |value, due| {
                        if let Some(due) = due {
                            work(value, due);
                        }
                    });
                    return true;
                }
                // AcqRel: what was handed over before must be visible to the one inside, who acquires when it takes the bell
                // down. Another's bell that hangs already is written once more for that, or exchanged for a stronger one.
                Err(state) => {
                    let strongest = state.max(bell as u8);
                    if self.state.compare_exchange(state, strongest, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                        return false;
                    }
                }
            }
        }
    }

    /// Does `work` if the turn is free; otherwise nothing happens, and nobody is told. Called with a bell, it has to do the work
    /// that was rung for meanwhile.
    pub(crate) fn try_enter(&self, mut work: impl FnMut(&mut T, Option<Bell>)) -> bool {
        if self.state.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return false;
        }
        self.work_until_quiet(None, &mut work);
        true
    }

    fn work_until_quiet(&self, bell: Option<Bell>, work: &mut impl FnMut(&mut T, Option<Bell>)) {
        let mut due = bell;
        loop {
            match self.value.lock() {
                Ok(mut value) => work(&mut value, due),
                // A holder panicked: the state may be half-changed, and the panic is already on its way to the user.
                Err(_) => return,
            }
            if self.state.compare_exchange(TAKEN, FREE, Ordering::Release, Ordering::Relaxed).is_ok() {
                return;
            }
            // Somebody rang: take the bell down, then do what it asks for.
            let rung = self.state.swap(TAKEN, Ordering::AcqRel);
            due = Some(if rung == Bell::Outbound as u8 { Bell::Outbound } else { Bell::Whole });
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn everything_handed_over_is_done_once_all_have_rung() {
        let handed_over = Arc::new(AtomicU64::new(0));
        let turn = Arc::new(Turn::new(0_u64));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (handed_over, turn) = (handed_over.clone(), turn.clone());
                std::thread::spawn(move || {
                    for _ in 0..10_000 {
                        handed_over.fetch_add(1, Ordering::Relaxed);
                        turn.ring(Bell::Whole, |done, _| *done += handed_over.swap(0, Ordering::Relaxed));
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let mut total = 0;
        assert!(turn.try_enter(|done, _| total = *done));
        assert_eq!(total, 40_000);
        assert_eq!(handed_over.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn nobody_enters_while_somebody_is_inside() {
        let turn = Turn::new(());
        let mut due = Vec::new();
        turn.ring(Bell::Outbound, |(), bell| {
            due.push(bell);
            if due.len() == 1 {
                assert!(!turn.try_enter(|(), _| unreachable!("the turn is taken")));
                for bell in [Bell::Outbound, Bell::Whole, Bell::Outbound] {
                    assert!(!turn.ring(bell, |(), _| unreachable!("the turn is taken")));
                }
            }
        });
        assert_eq!(due, [Bell::Outbound, Bell::Whole], "the strongest bell makes the one inside work once more");
    }

    #[test]
    fn who_only_looks_does_the_work_that_was_rung_for_meanwhile() {
        let turn = Turn::new(());
        let mut due = Vec::new();
        turn.try_enter(|(), bell| {
            due.push(bell);
            if due.len() == 1 {
                assert!(!turn.ring(Bell::Outbound, |(), _| unreachable!("the turn is taken")));
            }
        });
        assert_eq!(due, [None, Some(Bell::Outbound)]);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;

    #[test]
    fn no_bell_is_lost() {
        loom::model(|| {
            let handed_over = Arc::new(AtomicUsize::new(0));
            let turn = Arc::new(Turn::new(0_usize));
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let (handed_over, turn) = (handed_over.clone(), turn.clone());
                    loom::thread::spawn(move || {
                        handed_over.fetch_add(1, Ordering::Relaxed);
                        turn.ring(Bell::Whole, |done, _| *done += handed_over.swap(0, Ordering::Relaxed));
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
            let mut total = 0;
            turn.try_enter(|done, _| total = *done);
            assert_eq!(total, 2);
        });
    }

    /// What was left for each kind of work, and what of it is done.
    #[derive(Default)]
    struct Left {
        outbound: AtomicUsize,
        whole: AtomicUsize,
    }

    impl Left {
        fn take(&self, due: Bell, done: &mut usize) {
            *done += self.outbound.swap(0, Ordering::Relaxed);
            if due == Bell::Whole {
                *done += self.whole.swap(0, Ordering::Relaxed);
            }
        }
    }

    #[test]
    fn every_bell_is_answered_with_the_work_it_asks_for() {
        loom::model(|| {
            let left = Arc::new(Left::default());
            let turn = Arc::new(Turn::new(0_usize));
            let posting = {
                let (left, turn) = (left.clone(), turn.clone());
                loom::thread::spawn(move || {
                    left.outbound.fetch_add(1, Ordering::Relaxed);
                    turn.ring(Bell::Outbound, |done, due| left.take(due, done));
                })
            };
            let resuming = {
                let (left, turn) = (left.clone(), turn.clone());
                loom::thread::spawn(move || {
                    left.whole.fetch_add(1, Ordering::Relaxed);
                    turn.ring(Bell::Whole, |done, due| left.take(due, done));
                })
            };
            // A look at the state, for statistics.
            turn.try_enter(|done, due| {
                if let Some(due) = due {
                    left.take(due, done);
                }
            });
            posting.join().unwrap();
            resuming.join().unwrap();
            let mut total = 0;
            turn.try_enter(|done, _| total = *done);
            assert_eq!(total, 2);
        });
    }
}
