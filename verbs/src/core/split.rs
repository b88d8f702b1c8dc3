//! Receiving and sending under two turns, so that two threads may do one each at the same time (c3).
//!
//! What they share is the mail ([`super::mail`]) and what an engine's halves share among themselves. Nobody waits: who finds a
//! turn taken rings, and whoever is inside works once more. Who leaves a turn sees to it that mail for the other side finds
//! somebody ([`Split::settle`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use softrdma_stack::mailbox::Mailbox;
use softrdma_stack::softrdma::{SMALL_BURST_BYTES, SMALL_BURST_PACKETS};
use softrdma_stack::stream::{
    Abort, Activity, Engine, EngineStatistics, Halves, HalvesMail, ReceiveEngine, ReceiveStreams, Source, StreamEvent,
    StreamId, Streams,
};
use softrdma_stack::time::Instant;

use super::mail::{Outbox, ToHost, ToReceive};
use super::{Host, ReceiveSide, command, transmit_ready};
use crate::queue_pair::{Posted, QueuePairShared};
use crate::turn::{Bell, Turn, Visit};

/// Messages that a mailbox holds without allocating.
const MAIL: usize = 4096;

/// Messages that are delivered before other work has its turn.
const MAIL_BUDGET: usize = 1024;

/// How often a thread goes from one turn to the other for mail before it leaves the rest to the RX thread.
const SETTLE_BUDGET: usize = 6;

/// No deadline.
const NEVER: u64 = u64::MAX;

/// Both turns. See the module.
pub(crate) struct Split {
    receive: Turn<Receiving>,
    send: Turn<Sending>,
    to_host: Arc<Mailbox<ToHost>>,
    to_receive: Arc<Mailbox<ToReceive>>,
    /// The engine's own.
    engine_mail: Arc<dyn HalvesMail>,
    /// When the send turn has work though nobody has mail for it, in nanoseconds.
    send_due: AtomicU64,
    /// Somebody left a turn while its bell hung: [`Self::progress`] has its work to do.
    is_left: AtomicBool,
}

struct Receiving {
    engine: Box<dyn ReceiveEngine>,
    side: ReceiveSide,
    mail: Arc<Mailbox<ToReceive>>,
    /// The last pass brought bytes, and what else it found was left for the next one.
    is_rest_due: bool,
}

/// What is inside the send turn.
pub(crate) struct Sending {
    engine: Box<dyn Engine>,
    host: Host,
    mail: Arc<Mailbox<ToHost>>,
    /// What of the mail is being delivered, and what the engine reported. Fields to keep their memory.
    delivered: Vec<ToHost>,
    reported: Vec<StreamEvent>,
}

impl Split {
    pub(crate) fn new(halves: Halves, mut side: ReceiveSide, mut host: Host) -> Self {
        let Halves { receive, send, mail } = halves;
        let (to_host, to_receive) = (Arc::new(Mailbox::new(MAIL)), Arc::new(Mailbox::new(MAIL)));
        side.to_host = Outbox::Shared(to_host.clone());
        host.to_receive = Outbox::Shared(to_receive.clone());
        Self {
            receive: Turn::new(Receiving { engine: receive, side, mail: to_receive.clone(), is_rest_due: false }),
            send: Turn::new(Sending {
                engine: send,
                host,
                mail: to_host.clone(),
                delivered: Vec::new(),
                reported: Vec::new(),
            }),
            to_host,
            to_receive,
            engine_mail: mail,
            send_due: AtomicU64::new(NEVER),
            is_left: AtomicBool::new(false),
        }
    }

    /// Receives, if nobody else does, and then sends what that brought, or what is due. A small burst that brought bytes is left at
    /// that: the mail waits for the next call, or for whoever sends the answer. Never twice in a row.
    ///
    /// `leaves_sending`: somebody else comes for what is to be sent ([`Self::progress_sending`]).
    pub(crate) fn progress(&self, now: Instant, leaves_sending: bool) -> Activity {
        let mut activity = Activity::default();
        // Before both turns are looked at: who leaves one from now on says so again.
        let is_left = self.is_left.load(Ordering::Relaxed) && self.is_left.swap(false, Ordering::AcqRel);
        let mut is_rest_due = false;
        self.note(self.receive.try_enter(|receiving, _| {
            let was_due = receiving.is_rest_due;
            // What passes since the last call brought is known.
            receiving.side.take_brought();
            let pass = receiving.pass(now);
            add(&mut activity, pass);
            let brought = receiving.side.take_brought();
            let is_small = pass.received <= SMALL_BURST_PACKETS && (1..=SMALL_BURST_BYTES).contains(&brought);
            receiving.is_rest_due = is_small && !was_due;
            is_rest_due = receiving.is_rest_due;
        }));
        // What the host is told of does not wait: a Read is to be answered, a connection ends.
        if !is_left && (leaves_sending || (is_rest_due && self.to_host.is_empty())) {
            return activity;
        }
        if is_left || self.send_due.load(Ordering::Acquire) <= now.as_nanoseconds() {
            add(&mut activity, self.ring_send(now));
        }
        add(&mut activity, self.settle(now));
        activity
    }

    /// Whether somebody receives, at the moment of the look, and nothing is to be sent meanwhile.
    pub(crate) fn is_served(&self, now: impl FnOnce() -> Instant) -> bool {
        self.receive.is_taken()
            && !self.has_mail_for_send()
            && self.send_due.load(Ordering::Acquire) > now().as_nanoseconds()
    }

    /// Sends what is due, for a thread that leaves receiving to another; whether anything was.
    pub(crate) fn progress_sending(&self, now: impl FnOnce() -> Instant) -> bool {
        let due = self.send_due.load(Ordering::Acquire);
        let has_mail = self.has_mail_for_send();
        if !has_mail && due == NEVER {
            return false;
        }
        let now = now();
        let is_due = has_mail || due <= now.as_nanoseconds();
        if is_due {
            self.ring_send(now);
        }
        is_due
    }

    /// Takes requests to the connection of `queue_pair` if nobody else sends and they can be taken; `requests` keeps them otherwise.
    /// Then carries out whatever else there is to send.
    pub(crate) fn post(&self, now: Instant, queue_pair: &QueuePairShared, requests: &mut Posted<'_>) {
        let mut is_taken = false;
        self.note(self.send.try_enter(|sending, _| {
            sending.host.set_now(now);
            if sending.host.post(queue_pair, requests) {
                is_taken = true;
                transmit_ready(&mut *sending.engine, &mut sending.host, now);
            }
            self.pass_send(sending, now);
        }));
        if is_taken {
            self.settle(now);
        }
    }

    /// Carries out what the application left.
    pub(crate) fn send(&self, now: Instant) -> Activity {
        let mut activity = self.ring_send(now);
        add(&mut activity, self.settle(now));
        activity
    }

    /// As [`Self::progress`], but somebody who receives already looks once more.
    pub(crate) fn receive(&self, now: Instant) -> Activity {
        let mut activity = Activity::default();
        self.note(self.receive.ring(Bell::Whole, |receiving, _| add(&mut activity, receiving.pass(now))));
        add(&mut activity, self.settle(now));
        activity
    }

    /// When [`Self::progress`] has work again even if nothing arrives and nobody asks. Now, while somebody else receives.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let (mut deadline, mut due) = (None, None);
        let receiving = self.note(self.receive.try_enter(|receiving, bell| {
            if bell.is_some() {
                receiving.pass(now);
            }
            deadline = receiving.next_deadline(now);
        }));
        // Behind the look: what it brought may have set this. Inside the turn, so that whoever sets one behind us sees what we did
        // before: that we are about to sleep.
        let sending = self.note(self.send.try_enter(|sending, bell| {
            if bell.is_some() {
                self.pass_send(sending, now);
            }
            due = sending.next_deadline(now);
        }));
        let is_quiet = receiving == Visit::Quiet && sending == Visit::Quiet && !self.has_mail();
        if is_quiet { [deadline, due].into_iter().flatten().min() } else { Some(now) }
    }

    /// Looks at the send turn, if it is free.
    pub(crate) fn inspect<T>(&self, now: Instant, look: impl Fn(&Sending) -> T) -> Option<T> {
        let mut seen = None;
        self.note(self.send.try_enter(|sending, bell| {
            if bell.is_some() {
                self.pass_send(sending, now);
            }
            seen = Some(look(sending));
        }));
        // A pass may have left something for the other side.
        self.settle(now);
        seen
    }

    /// Whether messages lie somewhere that nobody has been seen to take, or a turn was left though its bell hung. Then the RX
    /// thread must not sleep.
    pub(crate) fn has_mail(&self) -> bool {
        self.is_left.load(Ordering::Acquire) || self.has_mail_for_send() || self.has_mail_for_receive()
    }

    fn has_mail_for_send(&self) -> bool {
        !self.to_host.is_empty() || self.engine_mail.is_for_send()
    }

    fn has_mail_for_receive(&self) -> bool {
        !self.to_receive.is_empty() || self.engine_mail.is_for_receive()
    }

    /// Has mail seen: by us, or by whoever is inside the turn that it is for and was rung after it was left there. Bounded, so
    /// that no thread of the application is kept by others' traffic: what is left then is for the RX thread.
    fn settle(&self, now: Instant) -> Activity {
        let mut activity = Activity::default();
        for _ in 0..SETTLE_BUDGET {
            let mut inside = Activity::default();
            let visit = if self.is_left.load(Ordering::Relaxed) {
                break;
            } else if self.has_mail_for_send() {
                self.send.ring(Bell::Whole, |sending, _| add(&mut inside, self.pass_send(sending, now)))
            } else if self.has_mail_for_receive() {
                self.receive.ring(Bell::Whole, |receiving, _| add(&mut inside, receiving.pass(now)))
            } else {
                break;
            };
            add(&mut activity, inside);
            if self.note(visit) != Visit::Quiet {
                break;
            }
        }
        activity
    }

    fn ring_send(&self, now: Instant) -> Activity {
        let mut activity = Activity::default();
        self.note(self.send.ring(Bell::Whole, |sending, _| add(&mut activity, self.pass_send(sending, now))));
        activity
    }

    /// Who left a turn while its bell hung says so.
    #[inline]
    fn note(&self, visit: Visit) -> Visit {
        if visit == Visit::Left {
            self.is_left.store(true, Ordering::Release);
        }
        visit
    }

    fn pass_send(&self, sending: &mut Sending, now: Instant) -> Activity {
        let activity = sending.pass(now);
        let due = sending.next_deadline(now).map_or(NEVER, Instant::as_nanoseconds);
        self.send_due.store(due, Ordering::Release);
        activity
    }
}

impl Receiving {
    fn pass(&mut self, now: Instant) -> Activity {
        self.drain();
        let engine = &mut *self.engine;
        self.side.poll_resumed(|stream| engine.resume(stream));
        let activity = engine.poll(now, &mut Arriving { side: &mut self.side, mail: &self.mail });
        self.side.handle_polled(activity.received);
        activity
    }

    fn drain(&mut self) {
        while let Some(message) = self.mail.pop() {
            self.side.handle_mail(message);
        }
    }

    fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        if self.side.wants_poll() { Some(now) } else { self.engine.next_deadline(now) }
    }
}

/// The receive side as a receiving half sees it.
struct Arriving<'a> {
    side: &'a mut ReceiveSide,
    mail: &'a Mailbox<ToReceive>,
}

impl ReceiveStreams for Arriving<'_> {
    fn handle_burst(&mut self) {
        // What Outbound told before the peer could answer is here by now: it was left before the request could leave.
        while let Some(message) = self.mail.pop() {
            self.side.handle_mail(message);
        }
    }

    fn handle_bytes(&mut self, stream: StreamId, parts: &[&[u8]]) -> Result<usize, Abort> {
        self.side.handle_bytes(stream, parts)
    }

    fn handle_event(&mut self, event: StreamEvent) {
        self.side.handle_event(event);
    }
}

impl Sending {
    fn pass(&mut self, now: Instant) -> Activity {
        self.host.set_now(now);
        // What the application posted leaves first; bookkeeping is done while it is on its way.
        let mut events = command::execute_all(&mut *self.engine, &mut self.host, now);
        events += self.host.handle_doorbells();
        events += transmit_ready(&mut *self.engine, &mut self.host, now);
        // Three kinds of news of the same stream, which the other side left in this order: what was acknowledged, what its bytes
        // brought, and its end, before which the host has to know both.
        while self.delivered.len() < MAIL_BUDGET
            && let Some(message) = self.mail.pop()
        {
            self.delivered.push(message);
        }
        events += self.delivered.len();
        let mut activity = self.engine.poll(now, &mut Leaving { host: &mut self.host, reported: &mut self.reported });
        self.delivered.drain(..).for_each(|message| self.host.handle_mail(message));
        self.reported.drain(..).for_each(|event| self.host.handle_event(event));
        self.host.handle_timers(now);
        events += transmit_ready(&mut *self.engine, &mut self.host, now);
        events += self.host.end_connections(&mut *self.engine, now);
        activity.events += events;
        activity
    }

    fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        if self.host.has_ready() {
            return Some(now);
        }
        [self.engine.next_deadline(now), self.host.next_deadline()].into_iter().flatten().min()
    }

    pub(crate) fn engine_statistics(&self) -> EngineStatistics {
        self.engine.statistics()
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }
}

/// The host as a sending half sees it.
struct Leaving<'a> {
    host: &'a mut Host,
    reported: &'a mut Vec<StreamEvent>,
}

impl Streams for Leaving<'_> {
    fn handle_bytes(&mut self, _stream: StreamId, _parts: &[&[u8]]) -> Result<usize, Abort> {
        unreachable!("a sending half receives nothing")
    }

    fn with_source(&mut self, stream: StreamId, use_source: &mut dyn FnMut(&mut dyn Source)) {
        self.host.with_source(stream, use_source);
    }

    fn handle_event(&mut self, event: StreamEvent) {
        self.reported.push(event);
    }
}

fn add(activity: &mut Activity, more: Activity) {
    activity.received += more.received;
    activity.events += more.events;
}
