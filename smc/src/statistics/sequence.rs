//! A sequence lock whose writers do not exclude each other and never wait: a word that holds how many changes have
//! begun (lower half) and how many have ended (upper half). What it guards is whole while the two are equal and the
//! same before and after reading.

use std::sync::atomic::{AtomicU64, Ordering, fence};

const BEGUN: u64 = 1;
const ENDED: u64 = 1 << 32;
const BEGUN_MASK: u64 = ENDED - BEGUN;

/// Times that a reader tries before it takes or leaves what it has.
const TRIES: usize = 64;

/// Runs `change`, which stores into words that `word` guards.
pub(super) fn change(word: &AtomicU64, change: impl FnOnce()) {
    begin(word);
    change();
    // What overflows from the upper half is lost, as it is meant to be.
    word.fetch_add(ENDED, Ordering::Release);
}

fn begin(word: &AtomicU64) {
    // 2^32 changes later the lower half would carry into the upper: the carry is taken back.
    let before = word.fetch_add(BEGUN, Ordering::Relaxed);
    if before & BEGUN_MASK == BEGUN_MASK {
        word.fetch_sub(ENDED, Ordering::Relaxed);
    }
    // No store that follows is seen before the count.
    fence(Ordering::Release);
}

/// What `read` gave while nothing changed; `None` if something did every time.
pub(super) fn read<Value>(word: &AtomicU64, mut read: impl FnMut() -> Value) -> Option<Value> {
    (0..TRIES).find_map(|_| read_once(word, &mut read).ok())
}

/// What `read` gave while nothing changed, or, if something did `tries` times, what it gave the last time.
pub(super) fn read_or_latest<Value>(word: &AtomicU64, tries: usize, mut read: impl FnMut() -> Value) -> Value {
    for _ in 1..tries {
        if let Ok(value) = read_once(word, &mut read) {
            return value;
        }
    }
    read()
}

/// `Err`: something changed meanwhile.
fn read_once<Value>(word: &AtomicU64, read: impl FnOnce() -> Value) -> Result<Value, ()> {
    let before = word.load(Ordering::Acquire);
    if before & BEGUN_MASK != before >> 32 {
        std::hint::spin_loop();
        return Err(());
    }
    let value = read();
    // No load before it is done after this one.
    fence(Ordering::Acquire);
    if word.load(Ordering::Relaxed) == before { Ok(value) } else { Err(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_reader_never_sees_half_of_a_change_whoever_makes_it() {
        let (word, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        // Each writer has a pair of its own under the one lock: the two of a pair are equal unless a change is under
        // way.
        let pairs: [[AtomicU64; 2]; 2] = Default::default();
        std::thread::scope(|scope| {
            for pair in &pairs {
                scope.spawn(|| {
                    let mut value = 0;
                    while !stop.load(Ordering::Relaxed) {
                        value += 1;
                        change(&word, || {
                            pair[0].store(value, Ordering::Relaxed);
                            std::hint::spin_loop();
                            pair[1].store(value, Ordering::Relaxed);
                        });
                        // A reader gets its turn even where there is one CPU.
                        (0..100).for_each(|_| std::hint::spin_loop());
                    }
                });
            }
            let mut whole = 0;
            while whole < 10_000 {
                let look = || pairs.each_ref().map(|pair| pair.each_ref().map(|one| one.load(Ordering::Relaxed)));
                if let Some(pairs) = read(&word, look) {
                    whole += 1;
                    if pairs.iter().any(|[one, other]| one != other) {
                        stop.store(true, Ordering::Relaxed);
                        panic!("half a change: {pairs:?}");
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_change_that_has_not_ended_hides_what_it_guards() {
        let word = AtomicU64::new(0);
        begin(&word);
        assert_eq!(read(&word, || 1), None);
        change(&word, || {});
        assert_eq!(read(&word, || 1), None, "the first has still not ended");
        word.fetch_add(ENDED, Ordering::Release);
        assert_eq!(read(&word, || 1), Some(1));
    }

    #[test]
    fn counting_goes_on_where_the_halves_overflow() {
        let word = AtomicU64::new(u64::MAX);
        assert_eq!(read(&word, || 1), Some(1));
        begin(&word);
        assert_eq!(read(&word, || 1), None);
        word.fetch_add(ENDED, Ordering::Release);
        assert_eq!(word.load(Ordering::Relaxed), 0);
    }
}
