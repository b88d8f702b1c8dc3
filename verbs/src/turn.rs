//! A turn: the right to work on shared state, which nobody ever waits for.
//!
//! A thread that has work for the state either gets the turn and does the work, or finds somebody inside, rings the bell
//! and goes its way: whoever is inside sees the bell before it leaves and works once more. So work that was handed over
//! (in a queue beside the turn) before [`Turn::ring`] is always done, and no thread is ever blocked by another's copy.
//!
//! Nor is anybody kept inside by what others hand over all the time: after [`PASSES`] of work who is inside leaves, the bell goes
//! on hanging, and who comes next has its work to do. Who left ([`Visit::Left`]) sees to it that somebody comes.
//!
//! A bell says which work it asks for, since whoever is inside may have come for less: to send, or only to look.

// One of the few places that may: see `Turn::value`.
#![allow(unsafe_code)]

#[cfg(loom)]
use loom::{
    cell::UnsafeCell,
    sync::atomic::{AtomicU8, Ordering},
};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU8, Ordering};

#[cfg(not(loom))]
use self::cell::UnsafeCell;

/// What has to be done by whoever is inside, weakest first: each kind of work includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Bell {
    /// Carry out what the application left.
    Outbound = 2,
    /// That, and look for what arrived, and for receives that were waited for.
    Whole = 3,
}

/// What came of a visit to a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    /// Somebody else is inside.
    Elsewhere,
    /// We were inside, and no bell hung when we left.
    Quiet,
    /// We were inside as long as one has to be, and a bell hung when we left: its work is for the next who comes.
    Left,
}

/// Most passes of one who is inside: so often others may have it do their work before its own business goes on.
pub(crate) const PASSES: u32 = 4;

/// Nobody is inside.
const FREE: u8 = 0;
/// Somebody is inside. With a [`Bell`] instead: and has its work to do.
const TAKEN: u8 = 1;
/// Nobody is inside, but a bell hangs, whose number is beside this flag.
const LEFT: u8 = 4;

/// Shared state with a turn. See the module.
#[derive(Debug)]
pub(crate) struct Turn<T, const PASSES: u32 = { self::PASSES }> {
    state: AtomicU8,
    // Not a lock inside the lock: it would be taken and given back, two exchanges, in every visit of the data path. A loom test
    // checks that nobody else is at it.
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached by whoever has set `state` from free to taken, one thread at a time: it has to be `Send`, and what
// one visitor wrote is seen by the next, who acquires what the other released.
unsafe impl<T: Send, const PASSES: u32> Sync for Turn<T, PASSES> {}

impl<T, const PASSES: u32> Turn<T, PASSES> {
    pub(crate) fn new(value: T) -> Self {
        Self { state: AtomicU8::new(FREE), value: UnsafeCell::new(value) }
    }

    /// Has the work of `bell` done on everything handed over before this call: by us if the turn is free, else by whoever is
    /// inside, or comes next. `work` is told which work is due, which may be more than was asked for here.
    pub(crate) fn ring(&self, bell: Bell, mut work: impl FnMut(&mut T, Bell)) -> Visit {
        loop {
            match self.enter() {
                Ok(left) => {
                    return self.work_until_quiet(left.max(Some(bell)), &mut |value, due| {
                        if let Some(due) = due {
                            work(value, due);
                        }
                    });
                }
                // AcqRel: what was handed over before must be visible to the one inside, who acquires when it takes the bell
                // down. Another's bell that hangs already is written once more for that, or exchanged for a stronger one.
                Err(state) if is_taken(state) => {
                    let strongest = state.max(bell as u8);
                    if self.state.compare_exchange(state, strongest, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                        return Visit::Elsewhere;
                    }
                }
                // Whoever was inside has left, or whoever came has.
                Err(_) => {}
            }
        }
    }

    /// Does `work` if the turn is free; otherwise nothing happens, and nobody is told. Called with a bell, it has to do the work
    /// that was rung for meanwhile, or that was left.
    pub(crate) fn try_enter(&self, mut work: impl FnMut(&mut T, Option<Bell>)) -> Visit {
        match self.enter() {
            Ok(left) => self.work_until_quiet(left, &mut work),
            Err(_) => Visit::Elsewhere,
        }
    }

    /// Whether somebody is inside, at the moment of the look.
    pub(crate) fn is_taken(&self) -> bool {
        is_taken(self.state.load(Ordering::Relaxed))
    }

    /// Whether nobody is inside though a bell hangs.
    pub(crate) fn is_left(&self) -> bool {
        let state = self.state.load(Ordering::Acquire);
        !is_taken(state) && state != FREE
    }

    /// Takes the turn if it is free, with the bell that was left hanging; else gives what is in its place.
    fn enter(&self) -> Result<Option<Bell>, u8> {
        let seen = match self.state.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => return Ok(None),
            Err(seen) => seen,
        };
        if is_taken(seen) {
            return Err(seen);
        }
        self.state.compare_exchange(seen, TAKEN, Ordering::Acquire, Ordering::Relaxed).map(bell_of)
    }

    fn work_until_quiet(&self, bell: Option<Bell>, work: &mut impl FnMut(&mut T, Option<Bell>)) -> Visit {
        let mut due = bell;
        for pass in 1.. {
            // If the work panics the turn stays taken: nobody sees the state half-changed.
            // SAFETY: who is here has set the state from free to taken and has not set it back, so that nobody else is.
            self.value.with_mut(|value| work(unsafe { &mut *value }, due));
            if self.state.compare_exchange(TAKEN, FREE, Ordering::Release, Ordering::Relaxed).is_ok() {
                break;
            }
            // Somebody rang.
            if pass >= PASSES {
                // AcqRel: what was handed over for this bell is visible to who takes the turn with it.
                self.state.fetch_or(LEFT, Ordering::AcqRel);
                return Visit::Left;
            }
            // The bell is taken down; then what it asks for is done.
            due = bell_of(self.state.swap(TAKEN, Ordering::AcqRel));
        }
        Visit::Quiet
    }
}

/// The face of loom's cell.
#[cfg(not(loom))]
mod cell {
    #[derive(Debug)]
    pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(super) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        #[inline]
        pub(super) fn with_mut<R>(&self, use_value: impl FnOnce(*mut T) -> R) -> R {
            use_value(self.0.get())
        }
    }
}

fn is_taken(state: u8) -> bool {
    state != FREE && state & LEFT == 0
}

/// The bell that hangs in `state`.
fn bell_of(state: u8) -> Option<Bell> {
    [Bell::Whole, Bell::Outbound].into_iter().find(|&bell| state & !LEFT == bell as u8)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn everything_handed_over_is_done_once_all_have_rung() {
        let handed_over = Arc::new(AtomicU64::new(0));
        let turn = Arc::new(<Turn<_>>::new(0_u64));
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
        let visit = turn.try_enter(|done, _| {
            *done += handed_over.swap(0, Ordering::Relaxed);
            total = *done;
        });
        assert_eq!((visit, turn.is_left()), (Visit::Quiet, false));
        assert_eq!(total, 40_000);
        assert_eq!(handed_over.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn nobody_enters_while_somebody_is_inside() {
        let turn = <Turn<_>>::new(());
        let mut due = Vec::new();
        let visit = turn.ring(Bell::Outbound, |(), bell| {
            due.push(bell);
            if due.len() == 1 {
                assert_eq!(turn.try_enter(|(), _| unreachable!("the turn is taken")), Visit::Elsewhere);
                assert!(turn.is_taken());
                for bell in [Bell::Outbound, Bell::Whole, Bell::Outbound] {
                    assert_eq!(turn.ring(bell, |(), _| unreachable!("the turn is taken")), Visit::Elsewhere);
                }
            }
        });
        assert_eq!((visit, turn.is_left(), turn.is_taken()), (Visit::Quiet, false, false));
        assert_eq!(due, [Bell::Outbound, Bell::Whole], "the strongest bell makes the one inside work once more");
    }

    #[test]
    fn who_only_looks_does_the_work_that_was_rung_for_meanwhile() {
        let turn = <Turn<_>>::new(());
        let mut due = Vec::new();
        let visit = turn.try_enter(|(), bell| {
            due.push(bell);
            if due.len() == 1 {
                assert_eq!(turn.ring(Bell::Outbound, |(), _| unreachable!("the turn is taken")), Visit::Elsewhere);
            }
        });
        assert_eq!(visit, Visit::Quiet);
        assert_eq!(due, [None, Some(Bell::Outbound)]);
    }

    #[test]
    fn who_is_rung_for_without_end_leaves_and_the_next_has_the_work() {
        let turn = <Turn<_>>::new(());
        let mut passes = 0;
        // As if others handed something over during each pass.
        let visit = turn.ring(Bell::Whole, |(), _| {
            passes += 1;
            let bell = if passes == PASSES { Bell::Whole } else { Bell::Outbound };
            assert_eq!(turn.ring(bell, |(), _| unreachable!("the turn is taken")), Visit::Elsewhere);
            assert!(passes < 1000, "kept inside");
        });
        assert_eq!((visit, passes), (Visit::Left, PASSES));
        assert!(turn.is_left());
        let mut due = Vec::new();
        assert_eq!(turn.ring(Bell::Outbound, |(), bell| due.push(bell)), Visit::Quiet);
        assert_eq!(due, [Bell::Whole], "the stronger of what was left and what is asked for");
        assert!(!turn.is_left());
    }

    #[test]
    fn who_only_looks_does_what_was_left() {
        let turn = Turn::<_, 1>::new(());
        let visit = turn.ring(Bell::Outbound, |(), _| {
            turn.ring(Bell::Outbound, |(), _| unreachable!("the turn is taken"));
        });
        assert_eq!(visit, Visit::Left);
        let mut due = Vec::new();
        assert_eq!(turn.try_enter(|(), bell| due.push(bell)), Visit::Quiet);
        assert_eq!(due, [Some(Bell::Outbound)]);
        due.clear();
        assert_eq!(turn.try_enter(|(), bell| due.push(bell)), Visit::Quiet);
        assert_eq!(due, [None]);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;

    #[test]
    fn no_bell_is_lost() {
        no_bell_of_two_is_lost::<4>();
    }

    #[test]
    fn no_bell_that_is_left_is_lost() {
        no_bell_of_two_is_lost::<1>();
    }

    fn no_bell_of_two_is_lost<const PASSES: u32>() {
        loom::model(|| {
            let handed_over = Arc::new(AtomicUsize::new(0));
            let turn = Arc::new(Turn::<_, PASSES>::new(0_usize));
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let (handed_over, turn) = (handed_over.clone(), turn.clone());
                    loom::thread::spawn(move || {
                        handed_over.fetch_add(1, Ordering::Relaxed);
                        turn.ring(Bell::Whole, |done, _| *done += handed_over.swap(0, Ordering::Relaxed)) == Visit::Left
                    })
                })
                .collect();
            let left = threads.into_iter().fold(false, |left, thread| thread.join().unwrap() | left);
            assert!(left || !turn.is_left(), "who leaves a bell knows");
            let mut total = 0;
            turn.try_enter(|done, due| {
                if due.is_some() {
                    *done += handed_over.swap(0, Ordering::Relaxed);
                }
                total = *done;
            });
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
        every_bell_is_answered::<4>();
    }

    #[test]
    fn every_bell_that_is_left_is_answered_with_the_work_it_asks_for() {
        every_bell_is_answered::<1>();
    }

    fn every_bell_is_answered<const PASSES: u32>() {
        loom::model(|| {
            let left = Arc::new(Left::default());
            let turn = Arc::new(Turn::<_, PASSES>::new(0_usize));
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
            turn.try_enter(|done, due| {
                if let Some(due) = due {
                    left.take(due, done);
                }
                total = *done;
            });
            assert_eq!(total, 2);
        });
    }
}
