//! Which entries are in use: the writer's own knowledge, outside of the memory that others may have mapped.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const BITS: usize = u64::BITS as usize;

/// A set of indices that are in use.
#[derive(Debug)]
pub(super) struct Slots {
    words: Box<[AtomicU64]>,
    /// The word in which something was freed or taken last.
    hint: AtomicUsize,
}

impl Slots {
    /// None of `count` (a multiple of 64) is in use.
    pub(super) fn new(count: usize) -> Self {
        Self { words: (0..count / BITS).map(|_| AtomicU64::new(0)).collect(), hint: AtomicUsize::new(0) }
    }

    /// An index that nobody has, in one pass over the words; near the lowest, so that little memory is touched.
    pub(super) fn take(&self) -> Option<usize> {
        let start = self.hint.load(Ordering::Relaxed);
        (start..self.words.len()).chain(0..start.min(self.words.len())).find_map(|at| self.take_in(at))
    }

    fn take_in(&self, at: usize) -> Option<usize> {
        let mut used = self.words[at].load(Ordering::Relaxed);
        // Each try that fails has lost to somebody who took a bit of this word; more than its bits are not tried.
        for _ in 0..BITS {
            let bit = used.trailing_ones() as usize;
            if bit == BITS {
                return None;
            }
            used = self.words[at].fetch_or(1 << bit, Ordering::Acquire);
            if used & 1 << bit == 0 {
                self.hint.store(at, Ordering::Relaxed);
                return Some(at * BITS + bit);
            }
        }
        None
    }

    /// `index` is nobody's again.
    pub(super) fn give_back(&self, index: usize) {
        let at = index / BITS;
        self.words[at].fetch_and(!(1 << (index % BITS)), Ordering::Release);
        self.hint.fetch_min(at, Ordering::Relaxed);
    }

    /// The indices that are in use.
    pub(super) fn taken(&self) -> impl Iterator<Item = usize> {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let mut used = word.load(Ordering::Relaxed);
            std::iter::from_fn(move || {
                let bit = used.trailing_zeros() as usize;
                // Clears the lowest bit; nothing is left of 0.
                used &= used.wrapping_sub(1);
                (bit < BITS).then_some(at * BITS + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_index_is_given_once_and_again_when_it_came_back() {
        let slots = Slots::new(128);
        let taken: BTreeSet<_> = (0..128).map(|_| slots.take().unwrap()).collect();
        assert_eq!(taken, (0..128).collect());
        assert_eq!(slots.take(), None);
        slots.give_back(3);
        slots.give_back(127);
        assert_eq!(slots.taken().collect::<Vec<_>>(), (0..127).filter(|index| *index != 3).collect::<Vec<_>>());
        assert_eq!((slots.take(), slots.take(), slots.take()), (Some(3), Some(127), None));
    }

    #[test]
    fn threads_never_share_an_index() {
        let slots = Slots::new(256);
        let owners: Vec<AtomicUsize> = (0..256).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 1..=4 {
                let (slots, owners) = (&slots, &owners);
                scope.spawn(move || {
                    for _ in 0..20_000 {
                        let index = slots.take().expect("four of 256");
                        assert_eq!(owners[index].swap(thread, Ordering::Relaxed), 0);
                        assert_eq!(owners[index].swap(0, Ordering::Relaxed), thread);
                        slots.give_back(index);
                    }
                });
            }
        });
    }
}
