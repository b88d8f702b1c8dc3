//! Runs the simulation over many seeds: `simulate FIRST COUNT [SECONDS] [SCHEME]`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use softrdma_verbs::Scheme;

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let scheme = match std::env::args().nth(numbers.len() + 1).as_deref() {
        Some("softrdma") => Scheme::Softrdma,
        None | Some("sequential") => Scheme::Sequential,
        Some(other) => {
            eprintln!("{other:?} is no scheme of the simulation; it knows sequential and softrdma");
            std::process::exit(2);
        }
    };
    let [first, count, rest @ ..] = &numbers[..] else {
        eprintln!("usage: simulate FIRST_SEED COUNT [MOST_SECONDS] [sequential|softrdma]\nexample: simulate 1 20000");
        std::process::exit(2);
    };
    let most = Duration::from_secs(rest.first().copied().unwrap_or(u64::MAX / 2));
    let (next, failed, requests) = (AtomicU64::new(*first), AtomicU64::new(0), AtomicU64::new(0));
    let start = Instant::now();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while start.elapsed() < most {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    if (seed - first) % 1000 == 999 {
                        eprintln!("{} of {count} seeds, {:?}", seed - first + 1, start.elapsed());
                    }
                    let outcome = std::panic::catch_unwind(|| softrdma_tests::simulation::run(seed, scheme));
                    match outcome.unwrap_or_else(|_| Err("panicked".to_owned())) {
                        Ok(report) => drop(requests.fetch_add(report.requests, Ordering::Relaxed)),
                        Err(error) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            println!("seed {seed}: {error}");
                        }
                    }
                }
            });
        }
    });
    let done = next.load(Ordering::Relaxed).min(first + count) - first;
    let failed = failed.load(Ordering::Relaxed);
    println!(
        "{done} seeds, {} requests, {:.1?}: {} passed, {failed} failed",
        requests.load(Ordering::Relaxed),
        start.elapsed(),
        done - failed
    );
    std::process::exit(i32::from(failed > 0));
}
