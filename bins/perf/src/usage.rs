//! What this process has used: CPU time, and bytes copied and delivered.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};
use softrdma_verbs::Device;

use crate::failure::Failure;
use crate::message::Usage;

/// The run that a client of this process has begun.
static OWN_SESSION: AtomicU64 = AtomicU64::new(0);

/// Remembers that this process is the client of run `session`.
pub(crate) fn claim(session: u64) {
    OWN_SESSION.store(session, Ordering::Relaxed);
}

/// What a server reports for run `session`: nothing if its client is in the same process (over a ring) and counts for both.
pub(crate) fn of_server(device: &Device, session: u64) -> Result<Usage, Failure> {
    if OWN_SESSION.load(Ordering::Relaxed) == session { Ok(Usage::default()) } else { of(device) }
}

/// How often a device is asked that is too busy to answer.
const ATTEMPTS: u32 = 10_000;

/// Since the process began, and the device was opened.
pub(crate) fn of(device: &Device) -> Result<Usage, Failure> {
    for _ in 0..ATTEMPTS {
        let statistics = device.statistics();
        if let Some(engine) = statistics.engine {
            return Ok(Usage {
                cpu_seconds: cpu_seconds(),
                delivered_bytes: statistics.placed_bytes,
                copied_bytes: statistics.placed_bytes + engine.receive_copied_bytes,
                retransmitted_segments: engine.retransmitted_segments,
            });
        }
        std::thread::yield_now();
    }
    Err(Failure::Refused("the device is too busy to show its counters".to_owned()))
}

/// User and system time of all threads of the process.
pub(crate) fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
