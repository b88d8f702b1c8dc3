//! What this process has used, and what it holds: CPU time, memory, connections, bytes copied and delivered.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};
use softrdma_verbs::Device;
use softrdma_verbs::device::{DeviceStatistics, EngineCounters, HostCounters};

use crate::failure::{Context, Failure};
use crate::message::{Holdings, Usage};
use crate::plan::Session;

/// The run that a client of this process has begun.
static OWN_SESSION: AtomicU64 = AtomicU64::new(0);

/// Remembers that this process is the client of run `session`.
pub(crate) fn claim(session: u64) {
    OWN_SESSION.store(session, Ordering::Relaxed);
}

/// What a server reports for run `session`: nothing if its client is in the same process (over a ring) and counts for both.
pub(crate) fn of_server(device: &Device, session: u64) -> Result<Usage, Failure> {
    if is_own(session) { Ok(Usage::default()) } else { of(device) }
}

/// Whether client and server of run `session` are both in this process.
pub(crate) fn is_own(session: u64) -> bool {
    OWN_SESSION.load(Ordering::Relaxed) == session
}

/// How often a device is asked that is too busy to answer.
const ATTEMPTS: u32 = 10_000;

/// Since the process began, and the device was opened.
pub(crate) fn of(device: &Device) -> Result<Usage, Failure> {
    let (statistics, engine, _) = statistics(device)?;
    Ok(Usage {
        cpu_seconds: cpu_seconds(),
        delivered_bytes: statistics.placed_bytes,
        copied_bytes: statistics.placed_bytes + engine.receive_copied_bytes,
        retransmitted_segments: engine.retransmitted_segments,
    })
}

/// What the process holds.
pub(crate) fn holdings(device: &Device, idle_connection_bytes: Option<f64>) -> Result<Holdings, Failure> {
    let (statistics, engine, host) = statistics(device)?;
    Ok(Holdings {
        cpu_seconds: cpu_seconds(),
        connections: host.connections,
        streams: engine.connections,
        queue_pairs: statistics.queue_pairs.len() as u64,
        idle_connection_bytes,
    })
}

/// The counters of `device`, waiting until it has time to show them all.
fn statistics(device: &Device) -> Result<(DeviceStatistics, EngineCounters, HostCounters), Failure> {
    for _ in 0..ATTEMPTS {
        let mut statistics = device.statistics();
        if let (Some(engine), Some(host)) = (statistics.engine.take(), statistics.host.take()) {
            return Ok((statistics, engine, host));
        }
        std::thread::yield_now();
    }
    Err(Failure::Refused("the device is too busy to show its counters".to_owned()))
}

/// Memory of the process that is in RAM, in bytes.
pub(crate) fn resident_bytes() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/self/status").context(|| "cannot read /proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes.map(|count| count * 1024).ok_or_else(|| Failure::Refused("/proc/self/status has no VmRSS".to_owned()))
}

/// Memory that the connections without traffic take, which are made after the others.
pub(crate) struct Growth {
    active: u32,
    idle: u32,
    /// When the others were there.
    before: u64,
}

impl Growth {
    pub(crate) fn new(session: &Session) -> Result<Self, Failure> {
        let idle = session.queue_pairs - session.active;
        Ok(Self { active: session.active, idle, before: resident_bytes()? })
    }

    /// `count` connections are there.
    pub(crate) fn look(&mut self, count: u32) -> Result<(), Failure> {
        if count == self.active {
            self.before = resident_bytes()?;
        }
        Ok(())
    }

    /// All are there: bytes that each of those without traffic took, if there are any.
    pub(crate) fn bytes_each(&self) -> Result<Option<f64>, Failure> {
        let bytes = resident_bytes()?.saturating_sub(self.before);
        Ok((self.idle > 0).then(|| bytes as f64 / f64::from(self.idle)))
    }
}

/// The machine's clock, which all its processes share, in nanoseconds.
pub(crate) fn monotonic() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// User and system time of all threads of the process.
pub(crate) fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
