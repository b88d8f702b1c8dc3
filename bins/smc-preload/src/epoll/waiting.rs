//! `epoll_wait`: what there is, spinning, and sleep.

use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use libc::epoll_event;
use rustix::io::Errno;
use smallvec::SmallVec;

use super::{Epoll, KERNEL_PATIENCE, Registration};
use crate::readiness;

/// Registrations of which one wakes somebody.
const FEW: usize = 8;
type Few = SmallVec<[Arc<Registration>; FEW]>;

impl Epoll {
    /// `epoll_wait`: `ask` asks the kernel, with room for events and milliseconds to wait.
    pub(crate) fn wait(
        self: &Arc<Self>,
        events: &mut [epoll_event],
        mut deadline: Deadline,
        mut ask: impl FnMut(&mut [epoll_event], Option<Duration>) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        self.begin_use();
        if !self.has_ours.load(Ordering::SeqCst)
            && let Some(asked) = self.sleep_in_kernel(events, &mut deadline, &mut ask)
        {
            let asked = asked?;
            let found = self.sort(events, asked);
            if found > 0 || asked == 0 {
                return Ok(found);
            }
        }
        loop {
            let found = self.look(events, deadline.is_immediate(), &mut ask)?;
            if found > 0 || deadline.has_passed() {
                return Ok(found);
            }
            if self.has_ours.load(Ordering::Acquire) {
                match self.spin(events, &mut ask)? {
                    Spun::Ours => continue,
                    Spun::Kernels(found) => return Ok(self.fill_up(events, found)),
                    Spun::InVain => {}
                }
            }
            let found = self.sleep(events, deadline.left(), &mut ask)?;
            if found > 0 {
                return Ok(self.fill_up(events, found));
            }
        }
    }

    /// Nothing of ours has ever been ready: the kernel's call it is, which what changes meanwhile wakes. Nothing if that has
    /// changed already.
    fn sleep_in_kernel(
        &self,
        events: &mut [epoll_event],
        deadline: &mut Deadline,
        ask: &mut Ask<'_>,
    ) -> Option<Result<usize, Errno>> {
        let _sleeping = self.fall_asleep();
        if self.has_ours.load(Ordering::SeqCst) {
            return None;
        }
        self.hand_back_taken();
        Some(ask(events, deadline.left()))
    }

    /// From now on something in it is ready or not by what is known here. Those who have slept in the kernel since before
    /// are not known as asleep to those peers, and only one of them will wake up.
    pub(super) fn begin_with_ours(&self) {
        self.has_ours.store(true, Ordering::SeqCst);
        // Who falls asleep counts himself first and then looks at what there is.
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            readiness::fall_asleep(self.waiter);
        }
    }

    /// The kernel has given `asked` events: how many there are for the program, with those of ours.
    pub(crate) fn sort(self: &Arc<Self>, events: &mut [epoll_event], asked: usize) -> usize {
        let found = self.translate_all(&mut events[..asked]);
        self.fill_up(events, found)
    }

    /// The kernel has `found` events for the program. Doorbells beside them, which nobody is told of again, may have told
    /// of more, and a peer that took us for awake has rung none: how many with those. What there is no room for is for
    /// somebody else.
    fn fill_up(self: &Arc<Self>, events: &mut [epoll_event], found: usize) -> usize {
        if found > 0 && self.is_pending() { self.collect(events, found) } else { found }
    }

    /// What there is, without waiting. The kernel is asked when it is its turn, and when it `must` be.
    fn look(self: &Arc<Self>, events: &mut [epoll_event], must: bool, ask: &mut Ask<'_>) -> Result<usize, Errno> {
        // After a full house of ours it is the kernel's turn.
        let is_kernels_turn = self.was_full.swap(false, Ordering::AcqRel);
        let mut found = if is_kernels_turn { self.ask_kernel(events, Some(Duration::ZERO), ask)? } else { 0 };
        found = self.collect(events, found);
        let is_full = found == events.len();
        self.was_full.store(is_full && !is_kernels_turn, Ordering::Release);
        // Who does not wait wants to know all there is.
        let is_due = must || found == 0 && self.is_kernel_busy.load(Ordering::Relaxed) || self.is_kernel_due(now_ns());
        if !is_full && is_due {
            let ours = found;
            found += self.ask_kernel(&mut events[ours..], Some(Duration::ZERO), ask)?;
            // Its doorbells may have told us of something. What was reported is not reported twice.
            if ours == 0 {
                found = self.collect(events, found);
            } else {
                readiness::distribute(Some(self));
                if self.ready_count.load(Ordering::Acquire) > 0 {
                    self.wake_another();
                }
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

    /// Events of ours, behind the first `told`, which are the kernel's: how many there are then.
    ///
    /// What the kernel has just told of may have got its rings since. Its turn comes with the next call: a program that
    /// reads all there is at the first event would find nothing at the second.
    fn collect(self: &Arc<Self>, events: &mut [epoll_event], told: usize) -> usize {
        readiness::distribute(Some(self));
        if self.ready_count.load(Ordering::Acquire) == 0 {
            return told;
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
        let (mut found, mut looked_at, mut kept) = (told, 0, 0);
        while found < events.len() && looked_at < batch.len() {
            let registration = &batch[looked_at];
            let data = registration.data.load(Ordering::Acquire);
            if events[..told].iter().any(|event| { event.u64 } == data) {
                batch.swap(kept, looked_at);
                (kept, looked_at) = (kept + 1, looked_at + 1);
                continue;
            }
            // Nothing of what follows is looked at before: who changes it meanwhile queues it again.
            registration.is_queued.swap(false, Ordering::SeqCst);
            let happened = registration.events();
            if happened != 0 && registration.claim() {
                // What goes with what it is asked for now.
                let data = registration.data.load(Ordering::Acquire);
                events[found] = epoll_event { events: happened, u64: data };
                found += 1;
                if registration.stays_ready_after_report() && !registration.is_queued.swap(true, Ordering::AcqRel) {
                    batch.swap(kept, looked_at);
                    kept += 1;
                }
            }
            looked_at += 1;
        }
        let mut ready = self.ready();
        // The reported ones last, so that all get their turn.
        ready.extend(batch.drain(looked_at..));
        ready.extend(batch.drain(..kept));
        let has_more = !ready.is_empty();
        self.ready_count.store(ready.len(), Ordering::Release);
        drop(ready);
        batch.clear();
        if has_more {
            // There was no room for it here; or it is told of for as long as it is there, as the kernel tells all who sleep.
            self.wake_another();
        }
        found
    }

    /// Somebody who sleeps wakes up for what is ready, which the one who has found it leaves.
    pub(super) fn wake_another(&self) {
        // Who falls asleep counts himself first and then looks at what is queued.
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) == 0 {
            return;
        }
        // The kernel tells of the others. Without locks: whether one can wake takes its socket's.
        let queued: Few = self.ready().iter().filter(|queued| queued.has_rings()).take(FEW).cloned().collect();
        let next = queued.into_iter().find(|queued| queued.can_wake());
        // If none of them can, any other can for them.
        let next = next.or_else(|| {
            let others: Few = self.registrations().all.values().take(FEW).cloned().collect();
            others.into_iter().find(|other| other.can_wake())
        });
        if let Some(next) = next {
            next.take_over();
        }
    }

    /// Events of the kernel's own; doorbells among them are taken note of.
    fn ask_kernel(
        self: &Arc<Self>,
        events: &mut [epoll_event],
        timeout: Option<Duration>,
        ask: &mut Ask<'_>,
    ) -> Result<usize, Errno> {
        self.hand_back_taken();
        let mut rounds = 0;
        let mut asked = ask(events, timeout)?;
        self.last_asked_ns.store(now_ns(), Ordering::Relaxed);
        loop {
            let found = self.translate_all(&mut events[..asked]);
            rounds += 1;
            if found < asked && timeout == Some(Duration::ZERO) && self.sleepers.load(Ordering::SeqCst) > 0 {
                // Who rings takes us for awake from then on: those who go on sleeping say that they do.
                readiness::fall_asleep(self.waiter);
            }
            // All of them were for us alone, and edges: others may wait behind them. But what is registered with a number
            // that was closed, and goes on in another process, is told of again and again.
            let is_over = || rounds > 1 && rounds > self.registrations().all.len() / events.len() + 1;
            if found > 0 || asked < events.len() || is_over() {
                self.is_kernel_busy.store(found > 0, Ordering::Relaxed);
                return Ok(found);
            }
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
pub(crate) struct Deadline {
    timeout: Option<Duration>,
    at: Option<Instant>,
}

impl Deadline {
    pub(crate) const fn of(timeout: Option<Duration>) -> Self {
        Self { timeout, at: None }
    }

    fn is_immediate(&self) -> bool {
        self.timeout == Some(Duration::ZERO)
    }

    /// What is left of it, from the first time on that this is asked; nothing if there is no limit.
    pub(crate) fn left(&mut self) -> Option<Duration> {
        let timeout = self.timeout?;
        if timeout.is_zero() {
            return Some(timeout);
        }
        let now = Instant::now();
        if self.at.is_none() {
            self.at = Some(now.checked_add(timeout)?);
        }
        self.at.map(|at| at.saturating_duration_since(now))
    }

    fn has_passed(&mut self) -> bool {
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
