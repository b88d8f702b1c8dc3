//! One measurement, seen from the client: rounds with verification, one long stretch without.

use std::time::{Duration, Instant};

use crate::client::{ask, unexpected};
use crate::control::Control;
use crate::failure::Failure;
use crate::message::{Findings, Reply, Request};
use crate::operation::{Mode, Operation};
use crate::plan::Budget;
use crate::progress::Progress;
use crate::statistics::{Latencies, Throughput};
use crate::traffic::Traffic;

/// What came out.
pub(crate) struct Measured {
    pub(crate) latencies: Latencies,
    pub(crate) throughput: Throughput,
}

/// A measurement under way. Messages are numbered through, warm-up included.
pub(crate) struct Measurement<'a> {
    traffic: &'a mut Traffic,
    control: &'a mut Control,
    progress: Progress,
    /// Before each message of a latency measurement.
    pause: Duration,
    measured: Measured,
    findings: Findings,
    next: u64,
}

/// When a stretch ends.
#[derive(Clone, Copy)]
struct Stretch {
    first: u64,
    /// The number behind the last message.
    end: u64,
    deadline: Option<Instant>,
}

impl<'a> Measurement<'a> {
    pub(crate) fn new(traffic: &'a mut Traffic, control: &'a mut Control, progress: Progress, pause: Duration) -> Self {
        let measured = Measured { latencies: Latencies::new(), throughput: Throughput::default() };
        Self { traffic, control, progress, pause, measured, findings: Findings::default(), next: 0 }
    }

    /// Moves messages until `budget` is used up.
    pub(crate) fn run(&mut self, budget: &Budget) -> Result<(), Failure> {
        let begun = Instant::now();
        let deadline = begun.checked_add(budget.time);
        let end = self.next.saturating_add(budget.messages);
        if !self.traffic.plan.verify {
            return self.stretch(Stretch { first: self.next, end, deadline });
        }
        while self.next < end {
            let count = self.traffic.plan.slots.min(end - self.next);
            self.round(count)?;
            let now = Instant::now();
            self.progress.show(self.next, now);
            if deadline.is_some_and(|deadline| now >= deadline) {
                break;
            }
        }
        Ok(())
    }

    /// What was measured so far was the warm-up. What was found wrong stays.
    pub(crate) fn forget(&mut self) {
        self.measured = Measured { latencies: Latencies::new(), throughput: Throughput::default() };
    }

    pub(crate) fn end(mut self) -> (Measured, Findings) {
        self.findings.merge(self.traffic.take_findings());
        (self.measured, self.findings)
    }

    /// As many messages as have places of their own: filled before, checked after, at the side where they arrive.
    fn round(&mut self, count: u64) -> Result<(), Failure> {
        let (first, plan) = (self.next, self.traffic.plan);
        if plan.operation.is_ping_pong() {
            for number in first..first + count {
                self.traffic.buffers.fill_outgoing(&plan, number, self.traffic.outgoing(number))?;
            }
        }
        let is_answered = plan.is_answered();
        if is_answered && plan.operation.takes_receive() {
            self.traffic.post_receives(first, count)?;
        }
        self.traffic.unmark(first, count)?;
        match ask(self.control, &Request::Prepare { first, count }, "readiness for the next messages")? {
            Reply::Ready => {}
            reply => return Err(unexpected(&reply)),
        }
        self.stretch(Stretch { first, end: first + count, deadline: None })?;
        if is_answered || plan.operation == Operation::Read {
            self.traffic.check(first, count)?;
        }
        self.check_originals(first, count)?;
        match ask(self.control, &Request::Check { first, count }, "result of the check")? {
            Reply::Checked(findings) => self.findings.merge(findings),
            reply => return Err(unexpected(&reply)),
        }
        Ok(())
    }

    /// The values that atomics found: each swap the one before it, and additions, over all queue pairs, each count once.
    fn check_originals(&mut self, first: u64, count: u64) -> Result<(), Failure> {
        let plan = self.traffic.plan;
        if !plan.operation.is_atomic() {
            return Ok(());
        }
        let layout = self.traffic.buffers.layout();
        let mut originals = Vec::with_capacity(count as usize);
        for number in first..first + count {
            let found = self.traffic.buffers.load_word(layout.incoming(&plan, number))?;
            let link = plan.link(number);
            let expected = plan.swapped(link, plan.carried(link, number));
            if plan.operation == Operation::CmpSwap && found != expected {
                self.findings.add(|| format!("cmp-swap {number} found {found:#x} instead of {expected:#x}"));
            }
            originals.push(found.wrapping_sub(plan.counter_start()));
        }
        if plan.operation == Operation::FetchAdd {
            originals.sort_unstable();
            for (expected, found) in (first..).zip(originals) {
                if found != expected {
                    self.findings.add(|| format!("fetch-add found count {found} where {expected} was due"));
                }
            }
        }
        Ok(())
    }

    fn stretch(&mut self, stretch: Stretch) -> Result<(), Failure> {
        match self.traffic.plan.mode {
            Mode::Latency => self.latency(stretch),
            Mode::Throughput => self.throughput(stretch),
        }
    }

    fn latency(&mut self, stretch: Stretch) -> Result<(), Failure> {
        let is_answered = self.traffic.plan.is_answered();
        for number in stretch.first..stretch.end {
            if !self.pause.is_zero() {
                std::thread::sleep(self.pause);
            }
            let begun = Instant::now();
            let link = self.traffic.post(number)?;
            self.wait_for_answer(number, link)?;
            let now = Instant::now();
            let time = now - begun;
            match is_answered {
                true => self.measured.latencies.record_round_trip(time),
                false => self.measured.latencies.record(time),
            }
            self.next = number + 1;
            if stretch.deadline.is_some_and(|deadline| now >= deadline) {
                break;
            }
            if number % 256 == 0 {
                self.progress.show(number, now);
            }
        }
        // What is still unacknowledged of our own messages must not linger in the next measurement.
        self.traffic.finish()
    }

    fn wait_for_answer(&mut self, number: u64, link: usize) -> Result<(), Failure> {
        let traffic = &mut *self.traffic;
        let (patience, plan, expected) = (traffic.patience, traffic.plan, traffic.incoming(number));
        patience.until(
            || format!("answer to {} message {number} of {} bytes on queue pair {link}", plan.operation, plan.size),
            || {
                traffic.poll()?;
                let arrived = match plan.operation {
                    _ if !plan.is_answered() => traffic.outstanding(link) == 0,
                    Operation::Send | Operation::WriteImm => traffic.received() > number,
                    Operation::Write => traffic.buffers.has_arrived(&plan, number, expected)?,
                    Operation::Read | Operation::FetchAdd | Operation::CmpSwap => false,
                };
                Ok(arrived.then_some(()))
            },
        )
    }

    fn throughput(&mut self, stretch: Stretch) -> Result<(), Failure> {
        let (plan, first) = (self.traffic.plan, stretch.first);
        let active = plan.active as usize;
        let step = u64::from(plan.active);
        // The first message of each link that is not before the stretch.
        let mut next: Vec<u64> = vec![0; active];
        for number in first..first + step {
            next[plan.link(number)] = number;
        }
        let mut wait = self.traffic.patience.begin();
        let begun = Instant::now();
        let (mut rounds, mut end) = (0_u64, stretch.end);
        loop {
            let mut progress = 0;
            for (link, next) in next.iter_mut().enumerate() {
                let room = u64::from(plan.depth).saturating_sub(self.traffic.outstanding(link));
                if room > 0 && *next < end {
                    let count = self.traffic.post_many(link, *next, end, room)?;
                    *next += count * step;
                    progress += count;
                }
            }
            if next.iter().all(|next| *next >= end) {
                break;
            }
            progress += self.traffic.poll()? as u64;
            rounds += 1;
            if progress > 0 {
                wait.reset();
            } else if wait.pause() {
                let (what, limit) = (format!("completion of {} messages", plan.operation), self.traffic.patience.limit);
                return Err(Failure::Timeout { what, limit });
            }
            if rounds % 16 == 0 {
                let now = Instant::now();
                self.progress.show(next.iter().sum::<u64>() / step, now);
                if stretch.deadline.is_some_and(|deadline| now >= deadline) {
                    end = 0;
                }
            }
        }
        self.traffic.finish()?;
        let messages = next.iter().enumerate().map(|(link, next)| carried_from(&plan, link, first, *next)).sum::<u64>();
        self.measured.throughput.messages += messages;
        self.measured.throughput.bytes += messages * plan.size;
        self.measured.throughput.time += begun.elapsed();
        // A stretch that ended early may have gone further on some links than on others.
        self.next = next.iter().copied().max().unwrap_or(first).next_multiple_of(step).max(stretch.first);
        if plan.verify {
            self.next = stretch.end;
        }
        Ok(())
    }
}

/// Messages of `link` from number `first` to before `next`, which is one of its own.
fn carried_from(plan: &crate::plan::Plan, link: usize, first: u64, next: u64) -> u64 {
    plan.carried(link, next).saturating_sub(plan.carried(link, first))
}
