//! A turn: the right to work on shared state, which nobody ever waits for.
//!
//! A thread that has work for the state either gets the turn and does the work, or finds somebody inside, rings the bell
//! and goes its way: whoever is inside sees the bell before it leaves and works once more. So work that was handed over
//! (in a queue beside the turn) before [`Turn::ring`] is always done, and no thread is ever blocked by another's copy.

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

/// Nobody is inside.
const FREE: u8 = 0;
/// Somebody is inside.
const TAKEN: u8 = 1;
/// Somebody is inside and has to work once more before leaving.
const RUNG: u8 = 2;

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

    /// Has `work` done on everything handed over before this call: by us if the turn is free, else by whoever is inside.
    /// Tells whether we were inside.
    pub(crate) fn ring(&self, mut work: impl FnMut(&mut T)) -> bool {
        loop {
            match self.state.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    self.work_until_quiet(&mut work);
                    return true;
                }
                // AcqRel: what was handed over before must be visible to the one inside, who acquires when it sees RUNG.
                Err(TAKEN) => {
                    if self.state.compare_exchange(TAKEN, RUNG, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                        return false;
                    }
                }
                // Another's bell hangs already, and it stays until the one inside takes it down and looks again. Writing it
                // once more releases our hand-over to that look.
                Err(_) => {
                    if self.state.compare_exchange(RUNG, RUNG, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                        return false;
                    }
                }
            }
        }
    }

    /// Does `work` if the turn is free; otherwise nothing happens, and nobody is told. For work that anybody inside does
    /// anyway.
    pub(crate) fn try_enter(&self, mut work: impl FnMut(&mut T)) -> bool {
        if self.state.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return false;
        }
        self.work_until_quiet(&mut work);
        true
    }

    fn work_until_quiet(&self, work: &mut impl FnMut(&mut T)) {
        loop {
            match self.value.lock() {
                Ok(mut value) => work(&mut value),
                // A holder panicked: the state may be half-changed, and the panic is already on its way to the user.
                Err(_) => return,
            }
            if self.state.compare_exchange(TAKEN, FREE, Ordering::Release, Ordering::Relaxed).is_ok() {
                return;
            }
            // RUNG: take the bell down, then look again.
            self.state.swap(TAKEN, Ordering::AcqRel);
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
                        turn.ring(|done| *done += handed_over.swap(0, Ordering::Relaxed));
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let mut total = 0;
        assert!(turn.try_enter(|done| total = *done));
        assert_eq!(total, 40_000);
        assert_eq!(handed_over.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn nobody_enters_while_somebody_is_inside() {
        let turn = Turn::new(());
        let mut entered = 0;
        turn.ring(|()| {
            entered += 1;
            if entered == 1 {
                assert!(!turn.try_enter(|()| unreachable!("the turn is taken")));
                assert!(!turn.ring(|()| unreachable!("the turn is taken")));
            }
        });
        assert_eq!(entered, 2, "the bell makes the one inside work once more");
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
                        turn.ring(|done| *done += handed_over.swap(0, Ordering::Relaxed));
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
            let mut total = 0;
            turn.try_enter(|done| total = *done);
            assert_eq!(total, 2);
        });
    }
}
