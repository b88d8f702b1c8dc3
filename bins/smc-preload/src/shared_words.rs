//! What a connection's state is kept in: words that children of `fork` share, so that a connection works on in whichever process
//! uses it, as the kernel's does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use softrdma_smc::shared_memory::Region;

/// Words of one connection: three cache lines.
pub(crate) const WORDS: usize = 24;
const BYTES: usize = 8 * WORDS;
/// Connections that one process can look after at a time; more stay plain TCP.
const CONNECTIONS: usize = 65_536;

/// The first word counts the processes that have the connection.
const HOLDERS: usize = 0;

/// This process's own; a child begins another, and keeps this one for what it has inherited.
static OWN: ArcSwapOption<Slab> = ArcSwapOption::const_empty();

#[derive(Debug)]
struct Slab {
    region: Region,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    used: usize,
    free: Vec<usize>,
    /// Left by this process while another one held them still.
    inherited: Vec<usize>,
}

/// Those of one connection.
#[derive(Debug)]
pub(crate) struct SharedWords {
    slab: Arc<Slab>,
    at: usize,
}

impl SharedWords {
    /// Zeroed ones, if there are any left.
    pub(crate) fn new() -> Option<Self> {
        let slab = own()?;
        let at = slab.take()?;
        let words = Self { slab, at };
        for word in words.get() {
            word.store(0, Ordering::Relaxed);
        }
        words.get()[HOLDERS].store(1, Ordering::Release);
        Some(words)
    }

    #[inline]
    pub(crate) fn get(&self) -> &[AtomicU64; WORDS] {
        self.slab.region.words(BYTES * self.at)
    }

    /// Another process has them from now on.
    pub(crate) fn add_holder(&self) {
        self.get()[HOLDERS].fetch_add(1, Ordering::AcqRel);
    }

    /// Processes that have them.
    pub(crate) fn holders(&self) -> u64 {
        self.get()[HOLDERS].load(Ordering::Acquire)
    }

    /// This process has them no more: whether it was the last.
    pub(crate) fn leave(&self) -> bool {
        let was_last = self.get()[HOLDERS].fetch_sub(1, Ordering::AcqRel) == 1;
        let is_own = OWN.load().as_ref().is_some_and(|own| Arc::ptr_eq(own, &self.slab));
        if is_own {
            let mut book = self.slab.book();
            if was_last { book.free.push(self.at) } else { book.inherited.push(self.at) }
        }
        was_last
    }
}

impl Slab {
    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<usize> {
        let mut book = self.book();
        if let Some(at) = book.free.pop() {
            return Some(at);
        }
        let holders = |at: usize| self.region.word(BYTES * at + 8 * HOLDERS).load(Ordering::Acquire);
        if let Some(found) = book.inherited.iter().take(16).position(|at| holders(*at) == 0) {
            return Some(book.inherited.swap_remove(found));
        }
        (book.used < CONNECTIONS).then(|| {
            book.used += 1;
            book.used - 1
        })
    }
}

fn own() -> Option<Arc<Slab>> {
    if let Some(own) = OWN.load_full() {
        return Some(own);
    }
    // Two threads may both make one; the second to come takes the first's.
    let (region, _) = Region::create("softrdma-smc-words", CONNECTIONS * BYTES).ok()?;
    let new = Some(Arc::new(Slab { region, book: Mutex::default() }));
    OWN.compare_and_swap(&None::<Arc<Slab>>, new);
    OWN.load_full()
}

/// In a child: what it opens is its own.
pub(crate) fn begin_anew() {
    OWN.store(None);
}
