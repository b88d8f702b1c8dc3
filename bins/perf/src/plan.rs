//! What one measurement does: both ends work from the same plan.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use softrdma_bins_common::size::MAX_SIZE;

use crate::failure::Failure;
use crate::operation::{Mode, Operation};
use crate::pattern::{Pattern, mix};

/// Most slots of a latency measurement with verification: so many messages are filled and checked at a time, if each can
/// have a receive of its own.
const LATENCY_SLOTS: u64 = 63;

/// Most queue pairs of a run.
pub(crate) const MAX_QUEUE_PAIRS: u32 = 20_000;

/// Longest that a server's application computes between its calls into the library: a client may ask for it.
pub(crate) const MAX_COMPUTATION: Duration = Duration::from_secs(1);

/// Most requests outstanding on each queue pair.
pub(crate) const MAX_DEPTH: u32 = 8192;

/// Most memory for messages in one direction, however much a server is allowed: the address space has room for it.
const MAX_AREA: u64 = 1 << 40;

/// Receives that stay posted on each queue pair: twice the depth, so that one half is refilled while the other is used.
pub(crate) fn receives_per_queue_pair(depth: u32) -> u32 {
    2 * depth + 2
}

/// What every measurement of a run has in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// Names the run, so that a server never mixes two.
    pub(crate) number: u64,
    pub(crate) queue_pairs: u32,
    /// Those that carry traffic.
    pub(crate) active: u32,
    pub(crate) depth: u32,
    pub(crate) verify: bool,
    /// The largest message.
    pub(crate) max_size: u64,
    /// Bytes of memory for each direction, on each side; at least one message.
    pub(crate) area: u64,
    pub(crate) seed: u64,
    /// How long the server's application computes between its calls into the library, in microseconds; it takes no part in latency
    /// then. `None`: it waits for what comes, and answers.
    pub(crate) server_computes_us: Option<u32>,
}

impl Session {
    /// The memory that messages of one direction get: as much as may be outstanding, at most `limit`, at least one message.
    pub(crate) fn area(max_size: u64, active: u32, depth: u32, limit: u64) -> u64 {
        let message = stride(max_size);
        let wanted = message.saturating_mul(u64::from(active) * u64::from(depth));
        wanted.min(limit).max(message).max(stride(1) * LATENCY_SLOTS)
    }

    /// For a server: whether it can serve this, which a client made up, with `memory` bytes for messages in one direction.
    pub(crate) fn check(&self, memory: u64) -> Result<(), Failure> {
        let within = |what: &str, value: u64, most: u64, way_out: &str| match value <= most {
            true => Ok(()),
            false => Err(Failure::Refused(format!("{what} is {value}; this server takes at most {most}{way_out}"))),
        };
        within("--qps", self.queue_pairs.into(), MAX_QUEUE_PAIRS.into(), "")?;
        within("--depth", self.depth.into(), MAX_DEPTH.into(), "")?;
        let computes = self.server_computes_us.unwrap_or(0);
        within("--server-computes, in microseconds,", computes.into(), MAX_COMPUTATION.as_micros() as u64, "")?;
        within("the largest of --size", self.max_size, MAX_SIZE, "")?;
        let way_out = "; give the client a smaller --memory and --size, or the server a larger --memory";
        within("memory for messages in one direction, in bytes,", self.area, memory.min(MAX_AREA), way_out)?;
        let is_whole = (1..=self.queue_pairs).contains(&self.active)
            && self.depth > 0
            && self.max_size > 0
            && stride(self.max_size) <= self.area;
        if is_whole { Ok(()) } else { Err(Failure::Protocol(format!("{self:?} contradicts itself"))) }
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) operation: Operation,
    pub(crate) mode: Mode,
    /// Bytes of a message.
    pub(crate) size: u64,
    pub(crate) active: u32,
    pub(crate) depth: u32,
    /// Places for messages in each area; message `n` has place `n % slots`.
    pub(crate) slots: u64,
    pub(crate) verify: bool,
    /// The server's application takes no part.
    pub(crate) one_sided: bool,
    /// Differs from plan to plan, so that what an earlier one left behind is no valid data.
    pub(crate) seed: u64,
}

impl Plan {
    /// The plan of measurement `number` of `session`.
    pub(crate) fn new(session: &Session, number: u64, operation: Operation, mode: Mode, size: u64) -> Self {
        let size = if operation.is_atomic() { 8 } else { size };
        let outstanding = u64::from(session.active) * u64::from(session.depth);
        let room = session.area / stride(size);
        let slots = match mode {
            Mode::Throughput => room.min(outstanding),
            Mode::Latency if session.verify => {
                room.min(LATENCY_SLOTS).min(u64::from(receives_per_queue_pair(session.depth)))
            }
            Mode::Latency => 1,
        };
        // Odd, so that a slot's messages alternate in parity: `Pattern` then makes every byte change from one to the next, and
        // waiting for a Write's last byte works down to a single byte.
        let slots = if mode == Mode::Latency { slots - (1 - slots % 2) } else { slots };
        Self {
            operation,
            mode,
            size,
            active: session.active,
            depth: session.depth,
            slots,
            verify: session.verify,
            one_sided: session.server_computes_us.is_some(),
            seed: mix(session.seed ^ mix(number)),
        }
    }

    /// For a server: whether this, which a client made up, is what `session` makes of an operation, a mode and a size. Nothing
    /// of it may lead outside our memory.
    pub(crate) fn check(&self, session: &Session) -> Result<(), Failure> {
        let fits = (1..=session.max_size.max(8)).contains(&self.size)
            && *self == Self { seed: self.seed, ..Self::new(session, 0, self.operation, self.mode, self.size) };
        if fits { Ok(()) } else { Err(Failure::Protocol(format!("{self:?} does not fit {session:?}"))) }
    }

    /// Whether the server's application answers each message with one of its own.
    pub(crate) fn is_answered(&self) -> bool {
        self.mode == Mode::Latency && self.operation.is_ping_pong() && !self.one_sided
    }

    /// Bytes from one place to the next.
    pub(crate) fn stride(&self) -> u64 {
        stride(self.size)
    }

    /// Where message `number` lies within its area.
    pub(crate) fn offset(&self, number: u64) -> u64 {
        number % self.slots * self.stride()
    }

    /// The queue pair that carries message `number`.
    pub(crate) fn link(&self, number: u64) -> usize {
        (number % u64::from(self.active)) as usize
    }

    /// What the client sends as message `number`.
    pub(crate) fn client_pattern(&self, number: u64) -> Pattern {
        Pattern::new(mix(self.seed ^ 0xC11E), number)
    }

    /// What the server sends, or lets be read, as message `number`.
    pub(crate) fn server_pattern(&self, number: u64) -> Pattern {
        Pattern::new(mix(self.seed ^ 0x5E17), number)
    }

    /// Where a fetch-and-add counter begins.
    pub(crate) fn counter_start(&self) -> u64 {
        mix(self.seed ^ 0xADD)
    }

    /// The value of the compare-and-swap word of a queue pair after `count` swaps. Different for different counts.
    pub(crate) fn swapped(&self, link: usize, count: u64) -> u64 {
        mix(self.seed ^ mix(link as u64)) ^ mix(count)
    }

    /// How many of the messages before `number` the queue pair `link` carries.
    pub(crate) fn carried(&self, link: usize, number: u64) -> u64 {
        let (active, link) = (u64::from(self.active), link as u64);
        number / active + u64::from(number % active > link)
    }
}

/// Messages are apart by whole words, which atomics need.
fn stride(size: u64) -> u64 {
    size.next_multiple_of(8)
}

/// How long a measurement goes on: until either limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) messages: u64,
    pub(crate) time: Duration,
}

/// Longest time of a measurement whose length nobody chose.
const DEFAULT_TIME: Duration = Duration::from_millis(500);

/// Longest time of a measurement by number of messages: none, in effect; every wait within it is bounded.
const UNLIMITED: Duration = Duration::from_secs(1 << 32);

impl Budget {
    /// What was asked for, or a number of messages that falls with their size.
    pub(crate) fn new(mode: Mode, size: u64, iterations: Option<u64>, duration: Option<Duration>) -> Self {
        match (iterations, duration) {
            (Some(messages), _) => Self { messages, time: UNLIMITED },
            (None, Some(time)) => Self { messages: u64::MAX, time },
            (None, None) => {
                let (most, bytes) = match mode {
                    Mode::Latency => (10_000, 64 << 20),
                    Mode::Throughput => (200_000, 1 << 30),
                };
                Self { messages: (bytes / size).clamp(4, most), time: DEFAULT_TIME }
            }
        }
    }

    /// What runs before, unmeasured: as long as was asked for, or a tenth, within bounds.
    pub(crate) fn warm_up(&self, size: u64, asked: Option<Duration>) -> Self {
        if let Some(time) = asked {
            return Self { messages: u64::MAX, time };
        }
        let messages = (self.messages / 10).min((8 << 20) / size).clamp(1, 1000);
        Self { messages, time: self.time.min(Duration::from_secs(1)) / 5 }
    }
}

#[cfg(test)]
#[path = "plan/tests.rs"]
mod tests;
