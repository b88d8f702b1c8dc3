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
mod timers;

use softrdma_stack::stream::{Activity, Engine, EngineStatistics, Transmitted};
use softrdma_stack::time::Instant;

pub(crate) use command::{AcceptParameters, Command};
pub(crate) use host::{CoreSettings, Doorbells, Host};

/// An engine and the host state above it.
pub(crate) struct Core {
    engine: Box<dyn Engine>,
    host: Host,
}

impl Core {
    pub(crate) fn new(engine: Box<dyn Engine>, host: Host) -> Self {
        Self { engine, host }
    }

    /// Does what is there to do now, once. Idle: nothing arrived, left or was asked for.
    pub(crate) fn pass(&mut self, now: Instant) -> Activity {
        self.host.set_now(now);
        let mut activity = self.serve_application(now);
        let received = self.engine.poll(now, &mut self.host);
        activity.received += received.received;
        activity.events += received.events;
        self.host.handle_timers(now);
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

    /// When [`Self::pass`] has work again even if nothing arrives and nobody asks.
    pub(crate) fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
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

    fn serve_application(&mut self, now: Instant) -> Activity {
        let commands = command::execute_all(&mut *self.engine, &mut self.host, now);
        let doorbells = self.host.handle_doorbells();
        self.host.wake_waiting(&mut *self.engine);
        Activity { received: 0, events: commands + doorbells }
    }

    /// Offers every ready connection's records to the engine, then lets everything leave at once. Connections that
    /// have to end are ended here too, since only this place holds both the engine and the host.
    fn transmit(&mut self, now: Instant) -> usize {
        let mut served = 0;
        // Only those ready at the start: a connection that becomes ready again waits for the next pass.
        for _ in 0..self.host.ready_count() {
            let Some((slot, stream)) = self.host.take_ready() else { break };
            served += 1;
            let segment_size = self.engine.segment_size(stream);
            let Some(mut source) = self.host.source(slot, segment_size) else { continue };
            match self.engine.transmit(now, stream, &mut source) {
                Transmitted::Drained | Transmitted::Gone => {}
                Transmitted::Blocked => self.host.set_blocked(slot),
            }
            self.host.after_transmit(slot);
        }
        if served > 0 {
            self.engine.flush(now);
        }
        served += self.host.end_connections(&mut *self.engine, now);
        served
    }
}
