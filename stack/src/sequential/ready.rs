//! Which slots want attention: a bit each, set by smoltcp's wakers, so that no poll looks at a socket that has nothing to say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Wake, Waker};

/// A set of slot indices that wakers add to.
pub(super) struct ReadySet {
    bits: Arc<Bits>,
    wakers: Vec<Waker>,
}

/// Only the engine's thread touches them; they are atomic because a [`Waker`] has to be shareable.
struct Bits {
    any: AtomicBool,
    words: Box<[AtomicU64]>,
}

struct SlotWaker {
    bits: Arc<Bits>,
    index: usize,
}

impl ReadySet {
    /// An empty set for indices below `capacity`.
    pub(super) fn new(capacity: usize) -> Self {
        let words = (0..capacity.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { bits: Arc::new(Bits { any: AtomicBool::new(false), words }), wakers: Vec::new() }
    }

    /// The waker that adds `index`.
    pub(super) fn waker(&mut self, index: usize) -> &Waker {
        while self.wakers.len() <= index {
            let waker = SlotWaker { bits: Arc::clone(&self.bits), index: self.wakers.len() };
            self.wakers.push(Waker::from(Arc::new(waker)));
        }
        &self.wakers[index]
    }

    /// Adds `index`.
    pub(super) fn insert(&self, index: usize) {
        self.bits.insert(index);
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.bits.any.load(Ordering::Relaxed)
    }

    /// Moves every index into `indices`, ascending.
    pub(super) fn drain(&self, indices: &mut Vec<u32>) {
        if self.is_empty() {
            return;
        }
        self.bits.any.store(false, Ordering::Relaxed);
        for (number, word) in self.bits.words.iter().enumerate() {
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = word.swap(0, Ordering::Relaxed);
            while bits != 0 {
                indices.push((number * 64) as u32 + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
    }
}

impl Bits {
    fn insert(&self, index: usize) {
        self.words[index / 64].fetch_or(1 << (index % 64), Ordering::Relaxed);
        self.any.store(true, Ordering::Relaxed);
    }
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.bits.insert(self.index);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.bits.insert(self.index);
    }
}
