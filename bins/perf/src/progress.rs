//! Signs of life on standard error.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use softrdma_bins_common::size::Bytes;

use crate::plan::{Budget, Plan};

/// From one sign to the next; a measurement that is shorter shows none.
const INTERVAL: Duration = Duration::from_secs(2);

/// Shows how far one measurement is.
pub(crate) struct Progress {
    quiet: bool,
    title: String,
    budget: Budget,
    begun: Instant,
    shown: Instant,
    line_open: bool,
}

impl Progress {
    pub(crate) fn new(quiet: bool, plan: &Plan, budget: &Budget) -> Self {
        let mode = format!("{:?}", plan.mode).to_lowercase();
        let title = format!("{} {} {mode}", plan.operation, Bytes(plan.size));
        let now = Instant::now();
        Self { quiet, title, budget: *budget, begun: now, shown: now, line_open: false }
    }

    /// `done` messages are through at `now`.
    pub(crate) fn show(&mut self, done: u64, now: Instant) {
        if self.quiet || now.duration_since(self.shown) < INTERVAL {
            return;
        }
        self.shown = now;
        let of = match self.budget.messages {
            u64::MAX => String::new(),
            messages => format!(" of {messages}"),
        };
        let seconds = now.duration_since(self.begun).as_secs();
        let mut out = stderr().lock();
        // A terminal's line is written over; anything else gets lines.
        let (begin, end) = if out.is_terminal() { ("\r\x1b[K", "") } else { ("", "\n") };
        self.line_open = end.is_empty();
        let _ = write!(out, "{begin}{}: {done}{of} messages, {seconds} s{end}", self.title);
        let _ = out.flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.line_open {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
