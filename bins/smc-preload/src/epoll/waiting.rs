//! `epoll_wait`: what there is, spinning, and sleep.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use libc::epoll_event;
use rustix::io::Errno;

use super::{Epoll, KERNEL_PATIENCE};
use crate::readiness;

impl Epoll {
    /// `epoll_wait`: `ask` asks the kernel, with room for events and milliseconds to wait.
    pub(crate) fn wait(
        self: &Arc<Self>,
        events: &mut [epoll_event],
        timeout: Option<Duration>,
        mut ask: impl FnMut(&mut [epoll_event], Option<Duration>) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        self.begin_use();
        if !self.has_ours.load(Ordering::SeqCst) {
            // Nothing of ours has ever been ready: the kernel's call it is. What changes meanwhile wakes it.
            let sleeping = self.fall_asleep();
            let asked = ask(events, timeout);
            drop(sleeping);
            let (asked, found) = asked.map(|asked| (asked, self.translate_all(&mut events[..asked])))?;
            if found > 0 || asked == 0 {
                return Ok(found);
            }
        }
        let mut deadline = Deadline::of(timeout);
        loop {
            let found = self.look(events, deadline.is_immediate(), &mut ask)?;
            if found > 0 || deadline.has_passed() {
                return Ok(found);
            }
            if self.has_ours.load(Ordering::Acquire) {
                match self.spin(events, &mut ask)? {
                    Spun::Ours => continue,
                    Spun::Kernels(found) => return Ok(found),
                    Spun::InVain => {}
                }
            }
            let found = self.sleep(events, deadline.left(), &mut ask)?;
            if found > 0 {
                return Ok(found);
            }
        }
    }

    /// What there is, without waiting. The kernel is asked when it is its turn, and when it `must` be.
    fn look(self: &Arc<Self>, events: &mut [epoll_event], must: bool, ask: &mut Ask<'_>) -> Result<usize, Errno> {
        // After a full house of ours it is the kernel's turn.
        let is_kernels_turn = self.was_full.swap(false, Ordering::AcqRel);
        let mut found = if is_kernels_turn { self.ask_kernel(events, Some(Duration::ZERO), ask)? } else { 0 };
        found += self.collect(&mut events[found..]);
        let is_full = found == events.len();
        self.was_full.store(is_full && !is_kernels_turn, Ordering::Release);
        // Who does not wait wants to know all there is.
        let is_due = must || found == 0 && self.is_kernel_busy.load(Ordering::Relaxed) || self.is_kernel_due(now_ns());
        if !is_full && is_due {
            found += self.ask_kernel(&mut events[found..], Some(Duration::ZERO), ask)?;
            if found == 0 {
                // Its doorbells may have told us of something.
                found = self.collect(events);
            }
        }
        Ok(found)
    }

    fn is_kernel_due(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.last_asked_ns.load(Ordering::Relaxed)) > KERNEL_PATIENCE.as_nanos() as u64
    }

    fn spin(self: &Arc<Self>, events: &mut [epoll_event], ask: &mut Ask<'_>) -> Result<Spun, Errno> {
        let mut asked = Ok(0);
        let is_over = self.spin.until(
            || self.is_pending(),
            |now| {
                if now.is_none_or(|now| self.is_kernel_due(nanoseconds(now))) {
                    asked = self.ask_kernel(events, Some(Duration::ZERO), ask);
                }
                asked != Ok(0)
            },
        );
        Ok(match asked? {
            0 if is_over => Spun::Ours,
            0 => Spun::InVain,
            found => Spun::Kernels(found),
        })
    }

    fn sleep(
        self: &Arc<Self>,
        events: &mut [epoll_event],
        limit: Option<Duration>,
        ask: &mut Ask<'_>,
    ) -> Result<usize, Errno> {
        let sleeping = self.fall_asleep();
        readiness::fall_asleep(self.waiter);
        let result = if self.is_pending() { Ok(0) } else { self.ask_kernel(events, limit, ask) };
        drop(sleeping);
        result
    }

    fn is_pending(&self) -> bool {
        self.ready_count.load(Ordering::Acquire) > 0 || readiness::is_pending()
    }

    /// Events of ours: how many.
    fn collect(self: &Arc<Self>, events: &mut [epoll_event]) -> usize {
        readiness::distribute(Some(self));
        if self.ready_count.load(Ordering::Acquire) == 0 {
            return 0;
        }
        // Another thread that is just collecting has what there was; what comes meanwhile is for the next to ask.
        let mut own = Vec::new();
        let mut batch = self.batch.try_lock().ok();
        let batch = batch.as_deref_mut().unwrap_or(&mut own);
        {
            let mut ready = self.ready();
            std::mem::swap(batch, &mut *ready);
            self.ready_count.store(0, Ordering::Release);
        }
        let (mut found, mut looked_at, mut kept) = (0, 0, 0);
        while found < events.len() && looked_at < batch.len() {
            let registration = &batch[looked_at];
            registration.is_queued.store(false, Ordering::Release);
            let happened = registration.events();
            if happened != 0 {
                events[found] = epoll_event { events: happened, u64: registration.data.load(Ordering::Acquire) };
                found += 1;
                if registration.stays_ready_after_report() && !registration.is_queued.swap(true, Ordering::AcqRel) {
                    batch.swap(kept, looked_at);
                    kept += 1;
                }
            }
            looked_at += 1;
        }
        if let Some(next) = batch.get(looked_at).filter(|_| self.sleepers.load(Ordering::SeqCst) > 0) {
            // There is no room for it here: somebody else wakes up for it.
            next.take_over();
        }
        let mut ready = self.ready();
        // The reported ones last, so that all get their turn.
        ready.extend(batch.drain(looked_at..));
        ready.extend(batch.drain(..kept));
        self.ready_count.store(ready.len(), Ordering::Release);
        drop(ready);
        batch.clear();
        found
    }

    /// Events of the kernel's own; doorbells among them are taken note of.
    fn ask_kernel(
        self: &Arc<Self>,
        events: &mut [epoll_event],
        timeout: Option<Duration>,
        ask: &mut Ask<'_>,
    ) -> Result<usize, Errno> {
        let kept: Vec<_> = {
            let mut kept = self.kept();
            let count = kept.len().min(events.len());
            kept.drain(..count).collect()
        };
        if !kept.is_empty() {
            events[..kept.len()].copy_from_slice(&kept);
            return Ok(kept.len());
        }
        let mut asked = ask(events, timeout)?;
        self.last_asked_ns.store(now_ns(), Ordering::Relaxed);
        loop {
            let found = self.translate_all(&mut events[..asked]);
            if found > 0 || asked < events.len() {
                self.is_kernel_busy.store(found > 0, Ordering::Relaxed);
                return Ok(found);
            }
            // All of them were for us alone, and edges: others may wait behind them.
            asked = ask(events, Some(Duration::ZERO))?;
        }
    }
}

/// What asks the kernel, with room for events and a time to wait.
type Ask<'a> = dyn FnMut(&mut [epoll_event], Option<Duration>) -> Result<usize, Errno> + 'a;

/// What ended a spin.
enum Spun {
    /// Something of ours is ready.
    Ours,
    /// So many events of the kernel's.
    Kernels(usize),
    /// Time.
    InVain,
}

/// How long a call may wait. The clock is asked only once it does.
struct Deadline {
    timeout: Option<Duration>,
    at: Option<Instant>,
}

impl Deadline {
    const fn of(timeout: Option<Duration>) -> Self {
        Self { timeout, at: None }
    }

    pub(super) fn is_immediate(&self) -> bool {
        self.timeout == Some(Duration::ZERO)
    }

    /// What is left of it; nothing if there is none.
    pub(super) fn left(&mut self) -> Option<Duration> {
        let timeout = self.timeout?;
        let now = Instant::now();
        if self.at.is_none() {
            self.at = Some(now.checked_add(timeout)?);
        }
        self.at.map(|at| at.saturating_duration_since(now))
    }

    pub(super) fn has_passed(&mut self) -> bool {
        self.is_immediate() || self.left() == Some(Duration::ZERO)
    }
}

/// A time in nanoseconds since some time of this process.
fn nanoseconds(now: Instant) -> u64 {
    static BEGINNING: OnceLock<Instant> = OnceLock::new();
    let since = now.saturating_duration_since(*BEGINNING.get_or_init(|| now));
    // 0 is long before it.
    (since + 2 * KERNEL_PATIENCE).as_nanos() as u64
}

fn now_ns() -> u64 {
    nanoseconds(Instant::now())
}
