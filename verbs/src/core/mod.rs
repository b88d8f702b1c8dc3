//! The sans-IO heart of a device: an engine, the connections on it, and what the application asked for.
//!
//! One [`Core::pass`] does a bounded amount of everything: commands and doorbells of the application, packets that
//! arrived, records that can leave, timers. Who calls it, on which thread and how often is the threading model
//! ([`crate::device`]); the clock is an argument, so tests run whole hosts on a virtual one.

mod adapter;
mod command;
mod connection;
mod endpoint;
mod host;
mod mail;
mod receive;
mod split;
mod timers;

use softrdma_stack::stream::{
    Abort, Activity, Engine, EngineStatistics, Source, StreamEvent, StreamId, Streams, Transmitted,
};
use softrdma_stack::time::Instant;

pub(crate) use command::{AcceptParameters, Command};
pub(crate) use host::{CoreSettings, Doorbells, Host};
use mail::deliver;
pub(crate) use receive::ReceiveSide;
pub(crate) use split::Split;

use crate::queue_pair::{Posted, QueuePairShared};
use crate::turn::Bell;

/// An engine and what is above it: receiving and sending, driven together.
pub(crate) struct Core {
    engine: Box<dyn Engine>,
    receive: ReceiveSide,
    host: Host,
}

impl Core {
    pub(crate) fn new(engine: Box<dyn Engine>, receive: ReceiveSide, host: Host) -> Self {
        Self { engine, receive, host }
    }

    /// Does what is there to do now, once. Idle: nothing arrived, left or was asked for.
    pub(crate) fn pass(&mut self, now: Instant) -> Activity {
        self.host.set_now(now);
        let mut activity = self.serve_application(now);
        let engine = &mut *self.engine;
        self.receive.poll_resumed(|stream| engine.resume(stream));
        let mut joined = Joined { receive: &mut self.receive, host: &mut self.host };
        let received = engine.poll(now, &mut joined);
        activity.received += received.received;
        activity.events += received.events;
        if !joined.receive.to_host.is_empty() {
            // What the host is told of may depend on what was acknowledged before it: whether a connection ends in order.
            engine.settle(now, &mut joined);
        } else if engine.has_rest() && !joined.host.has_ready() {
            // Bytes first: with nothing to tell and nothing to send, timers can wait as well as what the engine left.
            return activity;
        }
        self.receive.handle_polled(received.received);
        self.host.handle_timers(now);
        deliver(&mut self.receive, &mut self.host);
        activity.events += self.transmit(now);
        activity
    }

    /// The short pass of a `post_*`: what the application asked for, without looking for packets.
    pub(crate) fn pass_outbound(&mut self, now: Instant) -> Activity {
        self.host.set_now(now);
        let mut activity = self.serve_application(now);
        activity.events += self.transmit(now);
        activity
    }

    /// Requests, straight from the application. `requests` keeps those that their connection cannot take.
    pub(crate) fn post(&mut self, now: Instant, queue_pair: &QueuePairShared, requests: &mut Posted<'_>) {
        self.host.set_now(now);
        if self.host.post(queue_pair, requests) {
            self.transmit(now);
        }
    }

    /// The work that a bell asked for.
    pub(crate) fn answer(&mut self, bell: Bell, now: Instant) -> Activity {
        match bell {
            Bell::Outbound => self.pass_outbound(now),
            Bell::Whole => self.pass(now),
        }
    }

    /// Whether [`Self::pass`] has work already, left by the last one.
    pub(crate) fn has_rest(&self) -> bool {
        self.engine.has_rest() || self.host.has_ready() || self.receive.wants_poll()
    }

    /// When [`Self::pass`] has work again even if nothing arrives and nobody asks.
    pub(crate) fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        if self.has_rest() {
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

    fn serve_application(&mut self, now: Instant) -> Activity {
        let commands = command::execute_all(&mut *self.engine, &mut self.host, now);
        let doorbells = self.host.handle_doorbells();
        deliver(&mut self.receive, &mut self.host);
        Activity { received: 0, events: commands + doorbells }
    }

    /// Sends what is ready. Connections that have to end are ended here too, since only this place holds both the engine and
    /// the host.
    fn transmit(&mut self, now: Instant) -> usize {
        let mut served = transmit_ready(&mut *self.engine, &mut self.host, now);
        deliver(&mut self.receive, &mut self.host);
        // At most twice: a connection is asked to stop receiving, and has stopped when the mail is delivered.
        while self.host.is_ending() {
            served += self.host.end_connections(&mut *self.engine, now);
            deliver(&mut self.receive, &mut self.host);
        }
        served
    }
}

/// Offers every ready connection's records to the engine, then lets everything leave at once.
fn transmit_ready(engine: &mut dyn Engine, host: &mut Host, now: Instant) -> usize {
    let mut served = 0;
    // Only those ready at the start: a connection that becomes ready again waits for the next pass.
    for _ in 0..host.ready_count() {
        let Some((slot, stream)) = host.take_ready() else { break };
        served += 1;
        let segment_size = engine.segment_size(stream);
        let Some(mut source) = host.source(slot, segment_size) else { continue };
        match engine.transmit(now, stream, &mut source) {
            Transmitted::Drained | Transmitted::Gone => {}
            Transmitted::Blocked => host.set_blocked(slot),
        }
        host.offered.push(slot);
    }
    if served > 0 {
        engine.flush(now);
    }
    // Behind the frames: whoever waits for them need not wait for this.
    while let Some(slot) = host.offered.pop() {
        host.after_transmit(slot);
    }
    served
}

/// Both sides as a whole engine sees them. What one tells the other is delivered when the engine is done: the end of a stream is
/// the host's business once it knows all that was acknowledged.
struct Joined<'a> {
    receive: &'a mut ReceiveSide,
    host: &'a mut Host,
}

impl Streams for Joined<'_> {
    fn handle_bytes(&mut self, stream: StreamId, parts: &[&[u8]]) -> Result<usize, Abort> {
        self.receive.handle_bytes(stream, parts)
    }

    fn with_source(&mut self, stream: StreamId, use_source: &mut dyn FnMut(&mut dyn Source)) {
        self.host.with_source(stream, use_source);
    }

    fn handle_event(&mut self, event: StreamEvent) {
        self.receive.handle_event(event);
    }
}
