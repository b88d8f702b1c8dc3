//! The threading models: who is inside the turn, and when.
//!
//! - c1: the stack's thread alone. The application's threads leave requests and wake it.
//! - c2: the application's polls and posts. The stack's thread looks every [`TAKE_OVER`], at first sooner, whether the application still
//!   polls; when it does not (it computes, sleeps, waits for an event) the thread takes over until it polls again, so a
//!   passive side makes progress all the same.
//! - c3: receiving and sending have a turn each. The RX thread receives, places, completes receives and runs timers; posting
//!   enters the send turn from the application's thread, at the same time. With cores to spare (`stack_cpu`) the RX thread
//!   keeps the receive turn, and leaves the send turn to the application while that polls or posts; otherwise the receive turn is
//!   a token: the application's polls take it, and the RX thread takes over as in c2.
//! - manual: nobody but the caller of [`Driver::drive`], on a clock of the caller's.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use crossbeam_queue::ArrayQueue;
use crossbeam_utils::CachePadded;
use rustix::event::{EventfdFlags, eventfd};
use softrdma_stack::stream::{Activity, Engine, EngineStatistics};
use softrdma_stack::time::Instant;

use super::open::{OpenError, core_settings};
use crate::asynchronous::AsyncEvents;
use crate::configuration::{DeviceConfig, Threads};
use crate::core::{Command, Core, Doorbells, Host, ReceiveSide, Split};
use crate::events::wait_readable;
use crate::queue_pair::{Posted, QueuePairShared};
use crate::turn::{Bell, Turn, Visit};

/// How often the stack's thread looks whether a polling application still polls.
const TAKE_OVER: Duration = Duration::from_micros(400);
/// The same for the first looks: an application that computes most of the time polls now and then, and stops at once.
const FIRST_TAKE_OVER: Duration = Duration::from_micros(50);
/// So many looks in a row have to see it poll.
const FIRST_LOOKS: u32 = 8;

/// With a core of its own, the RX thread leaves what is to be sent to an application that has polled or posted within this time.
const LEAVE_SENDING: Duration = Duration::from_micros(5);

/// A yield that takes longer gave the CPU to somebody who computes, for the rest of a slice: milliseconds. A sleeper is let in
/// again when it wakes.
const CONTENTION: Duration = Duration::from_micros(200);
/// What the stack's thread does then, instead of yielding, and so many times before it tries a yield again.
const NAP: Duration = Duration::from_micros(20);
const NAPS: u32 = 2000;

/// By how much the system may make sleeps of the stack's thread longer, to serve several timers at a time, in nanoseconds: its
/// default is 50,000, a good part of a short sleep.
const TIMER_SLACK_NS: u64 = 1000;

/// Longest sleep of an idle stack thread: bounds what a deadline set by another thread can be late by.
const LONGEST_SLEEP: Duration = Duration::from_millis(5);
/// So long after the last work it sleeps deeply, if a descriptor wakes it: until the earliest deadline, or for this long. Whoever
/// comes to the turn meanwhile wakes it, so that it learns of new deadlines.
const DEEP_SLEEP_AFTER: Duration = Duration::from_millis(100);
const DEEP_SLEEP: Duration = Duration::from_secs(1);
/// So long after the last work sleeps are short, where no descriptor ends them.
const SHORT_SLEEPS: Duration = Duration::from_millis(5);

/// Who drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driving {
    StackThread,
    RunToCompletion,
    /// Receiving and sending at the same time.
    Halves,
    Manual,
}

/// What is driven: both sides in one turn, or in one each.
enum Work {
    /// With whether the last pass left work to the next.
    Whole(Box<Turn<Core>>, AtomicBool),
    Split(Box<Split>),
}

impl Work {
    /// One pass, unless somebody is at it. `leaves_sending`: split, it only receives.
    fn progress(&self, now: Instant, leaves_sending: bool) -> Activity {
        match self {
            Self::Whole(turn, has_rest) => {
                let mut activity = Activity::default();
                turn.try_enter(|core, _| {
                    add(&mut activity, core.pass(now));
                    note_rest(has_rest, core);
                });
                activity
            }
            Self::Split(split) => split.progress(now, leaves_sending),
        }
    }

    /// One pass; whoever is at it does another.
    fn pass(&self, now: Instant) -> Activity {
        let mut activity = Activity::default();
        match self {
            Self::Whole(turn, has_rest) => {
                turn.ring(Bell::Whole, |core, due| {
                    add(&mut activity, core.answer(due, now));
                    note_rest(has_rest, core);
                });
            }
            Self::Split(split) => {
                add(&mut activity, split.receive(now));
                add(&mut activity, split.send(now));
            }
        }
        activity
    }

    /// What the application left.
    fn pass_outbound(&self, now: Instant) {
        match self {
            Self::Whole(turn, has_rest) => {
                turn.ring(Bell::Outbound, |core, due| {
                    core.answer(due, now);
                    note_rest(has_rest, core);
                });
            }
            Self::Split(split) => {
                split.send(now);
            }
        }
    }

    /// Takes requests to the connection of `queue_pair` and lets them leave, if nobody is at work and they can be taken; otherwise
    /// they stay where they are.
    fn post(&self, now: Instant, queue_pair: &QueuePairShared, requests: &mut Posted<'_>) {
        match self {
            Self::Whole(turn, has_rest) => {
                turn.try_enter(|core, bell| {
                    core.post(now, queue_pair, requests);
                    if let Some(due) = bell {
                        core.answer(due, now);
                        note_rest(has_rest, core);
                    }
                });
            }
            Self::Split(split) => split.post(now, queue_pair, requests),
        }
    }

    /// When there is work again even if nothing arrives and nobody asks. Now, while somebody else is at work: when that is over
    /// is not known.
    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        match self {
            Self::Whole(turn, has_rest) => {
                let mut deadline = Some(now);
                let visit = turn.try_enter(|core, bell| {
                    if let Some(due) = bell {
                        core.answer(due, now);
                        note_rest(has_rest, core);
                    }
                    deadline = core.next_deadline(now);
                });
                if visit == Visit::Quiet { deadline } else { Some(now) }
            }
            Self::Split(split) => split.next_deadline(now),
        }
    }

    /// The engine's counters and the host, if nobody is at work.
    fn look<T>(&self, now: Instant, look: impl Fn(EngineStatistics, &Host) -> T) -> Option<T> {
        match self {
            Self::Whole(turn, has_rest) => {
                let mut seen = None;
                turn.try_enter(|core, bell| {
                    if let Some(due) = bell {
                        core.answer(due, now);
                        note_rest(has_rest, core);
                    }
                    seen = Some(look(core.engine_statistics(), core.host()));
                });
                seen
            }
            Self::Split(split) => split.inspect(now, |sending| look(sending.engine_statistics(), sending.host())),
        }
    }

    /// Whether somebody is at work, and nothing is left for who else would come; at the moment of the look.
    fn is_served(&self, now: impl FnOnce() -> Instant) -> bool {
        match self {
            Self::Whole(turn, _) => turn.is_taken(),
            Self::Split(split) => split.is_served(now),
        }
    }

    /// Whether something lies between the sides that nobody has been seen to take, or was left by who was inside long enough.
    fn has_mail(&self) -> bool {
        match self {
            Self::Whole(turn, has_rest) => has_rest.load(Ordering::Relaxed) || turn.is_left(),
            Self::Split(split) => split.has_mail(),
        }
    }
}

/// Notes whether `core` left work to its next pass. Written only where it changes: others look at it.
fn note_rest(has_rest: &AtomicBool, core: &Core) {
    let is_left = core.has_rest();
    if has_rest.load(Ordering::Relaxed) != is_left {
        has_rest.store(is_left, Ordering::Relaxed);
    }
}

fn add(activity: &mut Activity, more: Activity) {
    activity.received += more.received;
    activity.events += more.events;
}

/// Where time comes from.
#[derive(Debug)]
pub(super) enum Clock {
    /// The machine's, which read so much when the device was opened.
    System {
        origin: u64,
    },
    Manual(AtomicU64),
}

impl Clock {
    pub(super) fn system() -> Self {
        Self::System { origin: monotonic() }
    }

    pub(super) fn manual() -> Self {
        Self::Manual(AtomicU64::new(0))
    }

    pub(super) fn now(&self) -> Instant {
        Instant::from_nanoseconds(match self {
            Self::System { origin } => monotonic() - origin,
            Self::Manual(nanoseconds) => nanoseconds.load(Ordering::Relaxed),
        })
    }
}

/// The machine's clock, in nanoseconds. Never goes back, and fits for 500 years.
#[inline]
fn monotonic() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The turn and everything beside it.
pub(super) struct Driver {
    driving: Driving,
    clock: Clock,
    work: Work,
    /// The RX thread has a core of its own and keeps the receive turn.
    keeps_receiving: bool,
    doorbells: Arc<Doorbells>,
    /// The host's. Only looked at here.
    commands: Receiver<Command>,
    local_addresses: Vec<IpAddr>,
    /// Readable when the engine has something; `None`: it must be polled.
    readiness: Option<Arc<OwnedFd>>,
    wake: OwnedFd,
    sleeping: AtomicBool,
    /// For longer than a deadline may be late by.
    sleeping_deeply: AtomicBool,
    /// Somebody wakes the thread, or has: set back by the thread before it sleeps again.
    woken: AtomicBool,
    stopping: AtomicBool,
    /// Counts polls of the application, and posts if the RX thread keeps receiving. Only its change matters. Apart from what
    /// the threads only read.
    application_polls: CachePadded<AtomicU64>,
    /// When a poll of the application last brought something, in nanoseconds.
    application_active: AtomicU64,
    busy_poll: bool,
    spin: Duration,
    /// From the last work to sleep.
    awake: Duration,
    idle_sleep: Duration,
}

impl Driver {
    pub(super) fn new(
        config: &DeviceConfig,
        engine: Box<dyn Engine>,
        clock: Clock,
    ) -> Result<(Self, Sender<Command>), OpenError> {
        let driving = match (&clock, config.threads) {
            (Clock::Manual(_), _) => Driving::Manual,
            (_, Threads::C1) => Driving::StackThread,
            (_, Threads::C2) => Driving::RunToCompletion,
            (_, Threads::C3) => Driving::Halves,
        };
        let (sender, receiver) = crossbeam_channel::unbounded();
        let doorbells = Arc::new(Doorbells {
            queue_pairs: ArrayQueue::new(config.limits.max_queue_pairs.max(1) as usize),
            waiting_for_receive: Default::default(),
            asynchronous: AsyncEvents::new(config.limits.max_async_events as usize).map_err(OpenError::Events)?,
        });
        let host = Host::new(core_settings(config), receiver.clone(), doorbells.clone());
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(OpenError::Descriptor)?;
        let (local_addresses, readiness) = (engine.local_addresses(), engine.readiness());
        let receive = ReceiveSide::new(doorbells.clone());
        let work = match config.threads {
            Threads::C1 | Threads::C2 => {
                Work::Whole(Box::new(Turn::new(Core::new(engine, receive, host))), AtomicBool::new(false))
            }
            Threads::C3 => {
                let halves = engine.split().ok_or(OpenError::OfOnePiece { scheme: config.scheme.name() })?;
                Work::Split(Box::new(Split::new(halves, receive, host)))
            }
        };
        let driver = Self {
            driving,
            clock,
            local_addresses,
            readiness,
            work,
            keeps_receiving: driving == Driving::Halves && config.stack_cpu.is_some(),
            doorbells,
            commands: receiver,
            wake,
            sleeping: AtomicBool::new(false),
            sleeping_deeply: AtomicBool::new(false),
            woken: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            application_polls: CachePadded::new(AtomicU64::new(0)),
            application_active: AtomicU64::new(0),
            busy_poll: config.busy_poll,
            spin: Duration::from_micros(config.polling.spin_us.into()),
            awake: Duration::from_micros(u64::from(config.polling.spin_us) + u64::from(config.polling.yield_us)),
            idle_sleep: Duration::from_micros(config.polling.idle_sleep_us.into()),
        };
        Ok((driver, sender))
    }

    pub(super) fn driving(&self) -> Driving {
        self.driving
    }

    pub(super) fn local_addresses(&self) -> &[IpAddr] {
        &self.local_addresses
    }

    pub(super) fn asynchronous(&self) -> &AsyncEvents {
        &self.doorbells.asynchronous
    }

    /// Something was handed over: it is done now, or by whoever is inside, or by the stack's thread.
    pub(super) fn ring(&self) {
        match self.driving {
            Driving::StackThread => self.wake_if_sleeping(),
            Driving::RunToCompletion | Driving::Halves | Driving::Manual => {
                self.work.pass_outbound(self.clock.now());
                self.wake_for_mail();
            }
        }
    }

    /// Requests that were admitted ([`QueuePairShared::admit_send`]): straight to their connection if nobody is at work, else into
    /// the queue.
    pub(super) fn post(&self, queue_pair: &Arc<QueuePairShared>, mut requests: Posted<'_>) {
        if self.driving != Driving::StackThread {
            self.work.post(self.clock.now(), queue_pair, &mut requests);
        }
        if self.keeps_receiving {
            self.count_application_poll();
        }
        if requests.is_empty() {
            return self.wake_for_mail();
        }
        // Once they are all in the queue.
        if requests.fold(false, |rings, request| queue_pair.queue_send(std::mem::take(request)) | rings) {
            self.push_doorbell(queue_pair.clone());
        }
        self.ring();
    }

    pub(super) fn push_doorbell(&self, queue_pair: Arc<QueuePairShared>) {
        // Every queue pair is in here at most once, and there is room for all of them; only those that were dropped and not yet
        // looked at can be too many for the moment.
        let mut refused = self.doorbells.queue_pairs.push(queue_pair);
        while let Err(queue_pair) = refused {
            self.ring();
            std::thread::yield_now();
            refused = self.doorbells.queue_pairs.push(queue_pair);
        }
    }

    pub(super) fn ring_for_receive(&self) {
        // Pairs with the raise in `Host::start_waiting`: either we see it, or it sees our receive.
        fence(Ordering::SeqCst);
        if self.doorbells.waiting_for_receive.load(Ordering::SeqCst) > 0 {
            match self.driving {
                Driving::StackThread => self.wake_if_sleeping(),
                Driving::RunToCompletion | Driving::Halves | Driving::Manual => {
                    self.work.pass(self.clock.now());
                    self.wake_for_mail();
                }
            }
        }
    }

    pub(super) fn progress_from_application(&self) {
        if self.driving == Driving::StackThread {
            return;
        }
        self.count_application_poll();
        // Sleeping, the RX thread leaves the receive turn to who polls, though it has a core of its own.
        if self.keeps_receiving && !self.sleeping.load(Ordering::Relaxed) {
            return self.progress_sending();
        }
        let now = self.clock.now();
        let is_idle = self.work.progress(now, false).is_idle();
        self.wake_for_mail();
        if !is_idle {
            self.application_active.store(now.as_nanoseconds(), Ordering::Relaxed);
        } else if !self.busy_poll && self.driving != Driving::Manual {
            let active = Instant::from_nanoseconds(self.application_active.load(Ordering::Relaxed));
            // With fewer cores than threads, what it waits for may be waiting for its core.
            if now.saturating_since(active) >= self.spin {
                std::thread::yield_now();
            }
        }
    }

    /// Does the sending that the RX thread leaves to the application.
    fn progress_sending(&self) {
        let Work::Split(split) = &self.work else { return };
        if split.progress_sending(|| self.clock.now()) {
            // It may have taken long, and the next poll or post comes soon.
            self.count_application_poll();
            self.wake_for_mail();
        }
    }

    fn count_application_poll(&self) {
        // Not a read-modify-write: a lost count does no harm, the number changes all the same.
        let polls = self.application_polls.load(Ordering::Relaxed);
        self.application_polls.store(polls.wrapping_add(1), Ordering::Relaxed);
    }

    pub(super) fn drive(&self, now: Instant) -> Activity {
        let Clock::Manual(clock) = &self.clock else { return Activity::default() };
        clock.store(now.as_nanoseconds(), Ordering::Relaxed);
        self.work.pass(now)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.work.next_deadline(self.clock.now())
    }

    /// Looks at engine and host between two passes, waiting for the turn: for statistics only.
    pub(super) fn inspect<T>(&self, look: impl Fn(EngineStatistics, &Host) -> T) -> Option<T> {
        for _ in 0..1000 {
            let seen = self.work.look(self.clock.now(), &look);
            self.wake_for_mail();
            if seen.is_some() {
                return seen;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        None
    }

    pub(super) fn engine_statistics(&self) -> Option<EngineStatistics> {
        self.inspect(|engine, _| engine)
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Lets connections that are being closed come to their end, for at most `longest`: what was handed over still leaves.
    /// For when the stack's thread has stopped.
    pub(super) fn linger(&self, longest: Duration) {
        if self.driving == Driving::Manual {
            return;
        }
        let begin = self.clock.now();
        loop {
            let now = self.clock.now();
            self.work.progress(now, false);
            let open = self.work.look(now, |_, host| host.endpoint_count());
            if open.is_none_or(|open| open == 0) || now.saturating_since(begin) > longest {
                return;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Behind a visit to the turn: wakes the thread if there is work for it, or perhaps an earlier deadline than it knows.
    fn wake_for_mail(&self) {
        // If the thread was in the turn before us, entering it has shown us this; if it comes behind us, it sees the deadline.
        if self.sleeping_deeply.load(Ordering::Relaxed) || self.work.has_mail() {
            self.wake_if_sleeping();
        }
    }

    fn wake_if_sleeping(&self) {
        // Pairs with the fence in `sleep`: either it sees what was handed over, or we see that it sleeps.
        fence(Ordering::SeqCst);
        // Once for each sleep: it may take a while until the thread has a core.
        if self.sleeping.load(Ordering::Relaxed) && !self.woken.swap(true, Ordering::Relaxed) {
            self.wake();
        }
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    // --- the stack's thread ---

    fn run(&self) {
        let mut last_active = self.clock.now();
        let mut seen_polls = self.application_polls.load(Ordering::Relaxed);
        let mut looks = 0_u32;
        let mut naps = 0_u32;
        let mut application_at = None;
        while !self.stopping.load(Ordering::Relaxed) {
            let polls = self.application_polls.load(Ordering::Relaxed);
            if self.is_driven(polls != seen_polls) {
                // Whatever the application leaves behind when it stops is found at the next look.
                seen_polls = polls;
                std::thread::sleep(if looks < FIRST_LOOKS { FIRST_TAKE_OVER } else { TAKE_OVER });
                looks = looks.saturating_add(1);
                continue;
            }
            looks = 0;
            let now = self.clock.now();
            if polls != seen_polls {
                seen_polls = polls;
                application_at = Some(now);
            }
            let leaves_sending = application_at.is_some_and(|at| now.saturating_since(at) < LEAVE_SENDING);
            if !self.work.progress(now, leaves_sending).is_idle() {
                last_active = now;
            } else if (self.busy_poll && (self.driving == Driving::StackThread || self.keeps_receiving))
                || now.saturating_since(last_active) < self.spin
            {
                std::hint::spin_loop();
            } else if now.saturating_since(last_active) < self.awake {
                self.give_way(&mut naps);
            } else {
                self.sleep(now, now.saturating_since(last_active), &mut naps);
                if self.keeps_receiving {
                    // Who polled before may be asleep by now: only the next poll says that somebody comes for what is to be sent.
                    seen_polls = self.application_polls.load(Ordering::Relaxed);
                }
            }
        }
    }

    /// Whether the application drives (c2, c3 with the token). `has_polled`: since the last look. Or it is still in a poll of then, with
    /// much to do, perhaps on this very CPU: then it needs no help.
    fn is_driven(&self, has_polled: bool) -> bool {
        match self.driving {
            Driving::RunToCompletion | Driving::Halves => {
                !self.keeps_receiving && (has_polled || self.work.is_served(|| self.clock.now()))
            }
            Driving::StackThread | Driving::Manual => false,
        }
    }

    /// Yields the CPU, or naps while `naps` are left.
    fn give_way(&self, naps: &mut u32) {
        if *naps > 0 {
            *naps -= 1;
            std::thread::sleep(NAP);
            return;
        }
        let begun = self.clock.now();
        std::thread::yield_now();
        if self.clock.now().saturating_since(begun) > CONTENTION {
            *naps = NAPS;
        }
    }

    fn sleep(&self, now: Instant, idle: Duration, naps: &mut u32) {
        let is_deep = self.readiness.is_some() && idle >= DEEP_SLEEP_AFTER;
        self.woken.store(false, Ordering::Relaxed);
        self.sleeping_deeply.store(is_deep, Ordering::Relaxed);
        self.sleeping.store(true, Ordering::Relaxed);
        // Pairs with `wake_if_sleeping`: whoever hands something over from now on sees that we sleep, and we see what was handed
        // over before. So everything is looked at behind the fence, by `next_deadline` what waits inside the turn.
        fence(Ordering::SeqCst);
        let handed_over = !self.doorbells.queue_pairs.is_empty() || !self.commands.is_empty() || self.work.has_mail();
        let longest = match &self.readiness {
            Some(_) if is_deep => DEEP_SLEEP,
            Some(_) => LONGEST_SLEEP,
            // Soon after work more is likely.
            None if idle < SHORT_SLEEPS => self.idle_sleep / 3,
            None => self.idle_sleep,
        };
        let timeout =
            self.work.next_deadline(now).map_or(longest, |deadline| deadline.saturating_since(now).min(longest));
        let mut is_readable = false;
        if handed_over || timeout.is_zero() {
            // If somebody else is at work, perhaps on this core.
            self.give_way(naps);
        } else {
            is_readable = match &self.readiness {
                Some(readiness) => wait_readable([self.wake.as_fd(), readiness.as_fd()], Some(timeout)),
                None => wait_readable([self.wake.as_fd()], Some(timeout)),
            };
        }
        self.sleeping.store(false, Ordering::Relaxed);
        self.sleeping_deeply.store(false, Ordering::Relaxed);
        if is_readable {
            // Nothing to read is no error: it may have been the port.
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        }
    }
}

/// Starts the stack's thread.
pub(super) fn spawn(driver: &Arc<Driver>, config: &DeviceConfig) -> Result<std::thread::JoinHandle<()>, OpenError> {
    let driver = driver.clone();
    let cpu = config.stack_cpu;
    #[cfg(feature = "dpdk")]
    let has_port = config.port.is_some();
    std::thread::Builder::new()
        .name(format!("{}-stack", config.name))
        .spawn(move || {
            if let Some(id) = cpu
                && !core_affinity::set_for_current(core_affinity::CoreId { id })
            {
                tracing::warn!(cpu = id, "cannot pin the stack's thread to `stack_cpu`; it runs anywhere");
            }
            // Where it is refused sleeps are a little longer.
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(TIMER_SLACK_NS));
            #[cfg(feature = "dpdk")]
            if has_port {
                super::port::prefer_latency();
            }
            driver.run();
        })
        .map_err(OpenError::Thread)
}
