//! The connections of a device: where each stands, what it has to send, when it has waited too long.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use crossbeam_channel::Receiver;
use crossbeam_queue::ArrayQueue;
use softrdma_mpa_ddp_rdmap::HandshakeConfig;
use softrdma_mpa_ddp_rdmap::Inbound;
use softrdma_stack::stream::{Engine, ListenerId, ResetReason, Source, StreamEvent, StreamId};
use softrdma_stack::time::Instant;

use super::Command;
use super::adapter::{FlushUpper, OutboundUpper, take, take_posted};
use super::endpoint::{Ending, Endpoint, EndpointSource, Phase, Receiving};
use super::mail::{Connection, Outbox, ToReceive};
use super::timers::Timers;
use crate::asynchronous::{AsyncEvent, AsyncEvents};
use crate::connection_manager::{CmEventKind, CmIdShared};
use crate::queue_pair::{Posted, QueuePairShared};

/// What a host is told once.
#[derive(Clone, Debug)]
pub(crate) struct CoreSettings {
    /// What our MPA frames offer, depths aside.
    pub(crate) handshake: HandshakeConfig,
    /// From the first SYN to the MPA reply, and from an accepted stream to its MPA request.
    pub(crate) handshake_timeout: Duration,
    /// How long the application may take to accept or reject.
    pub(crate) accept_timeout: Duration,
    /// How long a message waits for a receive to be posted.
    pub(crate) receive_wait: Duration,
    /// How long a TERMINATE may take to leave before the stream is reset.
    pub(crate) terminate_timeout: Duration,
    /// How long a drain or a close may take before the stream is reset.
    pub(crate) close_timeout: Duration,
    /// How long an FPDU or a message that was begun may stand without a byte more; at most twice that.
    pub(crate) stall_timeout: Duration,
    /// Pause of an initiator before its first FPDU.
    pub(crate) first_fpdu_delay: Duration,
    /// Most streams that have connected and not yet sent a whole MPA request.
    pub(crate) half_open_limit: usize,
    /// Longest message, in bytes.
    pub(crate) max_message_length: u32,
    /// What a listener is bound to whose address is unspecified; empty: whatever the engine makes of it.
    pub(crate) listen_addresses: Vec<IpAddr>,
    /// The engine copies what it takes (it acknowledges at once), so nothing need be kept for retransmission.
    pub(crate) engine_copies: bool,
}

/// What the application's threads leave for whoever is inside the turn.
#[derive(Debug)]
pub(crate) struct Doorbells {
    /// Queue pairs with new send requests. Each is in here at most once.
    pub(crate) queue_pairs: ArrayQueue<Arc<QueuePairShared>>,
    /// Connections that wait for a receive to be posted. Posting looks here to know whether to ring.
    pub(crate) waiting_for_receive: AtomicU32,
    /// What the application is to be told, the other way.
    pub(crate) asynchronous: AsyncEvents,
}

/// A listening id.
pub(super) struct Listener {
    pub(super) cm: Arc<CmIdShared>,
    pub(super) backlog: usize,
    /// Streams accepted whose request the application has not decided.
    pub(super) undecided: usize,
}

/// All connections of one device, without their Inbound halves: those are with the receive side ([`super::mail`]). The engine
/// stands beside it, in [`super::Core`].
pub(crate) struct Host {
    pub(super) settings: CoreSettings,
    pub(super) now: Instant,
    pub(super) commands: Receiver<Command>,
    doorbells: Arc<Doorbells>,
    pub(super) endpoints: Vec<Option<Endpoint>>,
    free: Vec<u32>,
    /// By the engine's slot.
    by_stream: Vec<Option<u32>>,
    pub(super) by_cm: HashMap<u64, u32>,
    pub(super) listeners: HashMap<ListenerId, Listener>,
    ready: VecDeque<u32>,
    /// Endpoints that were just offered to the engine. A field to keep its memory.
    pub(super) offered: Vec<u32>,
    ending: Vec<u32>,
    pub(super) to_receive: Outbox<ToReceive>,
    timers: Timers,
    /// When to look for stalled peers: while anything is connected.
    look_for_stalls_at: Option<Instant>,
    half_open: usize,
    statistics: HostStatistics,
}

/// Counters of a host since it was made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HostStatistics {
    pub(crate) connections_established: u64,
    pub(crate) handshakes_failed: u64,
    pub(crate) half_open_refused: u64,
    pub(crate) terminates_sent: u64,
    pub(crate) terminates_received: u64,
    pub(crate) receive_waits: u64,
}

impl Host {
    pub(crate) fn new(settings: CoreSettings, commands: Receiver<Command>, doorbells: Arc<Doorbells>) -> Self {
        Self {
            settings,
            now: Instant::ZERO,
            commands,
            doorbells,
            endpoints: Vec::new(),
            free: Vec::new(),
            by_stream: Vec::new(),
            by_cm: HashMap::new(),
            listeners: HashMap::new(),
            ready: VecDeque::new(),
            offered: Vec::new(),
            ending: Vec::new(),
            to_receive: Outbox::default(),
            timers: Timers::default(),
            look_for_stalls_at: None,
            half_open: 0,
            statistics: HostStatistics::default(),
        }
    }

    pub(crate) fn statistics(&self) -> HostStatistics {
        self.statistics
    }

    /// Connections in any phase.
    pub(crate) fn endpoint_count(&self) -> usize {
        self.endpoints.len() - self.free.len()
    }

    pub(super) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    // --- endpoints ---

    pub(super) fn insert(&mut self, endpoint: Endpoint) -> u32 {
        let stream = endpoint.stream;
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.endpoints.push(None);
                (self.endpoints.len() - 1) as u32
            }
        };
        self.by_cm.insert(endpoint.cm.number(), slot);
        if let Some(queue_pair) = &endpoint.queue_pair {
            queue_pair.set_endpoint(Some(slot));
        }
        let index = stream.index as usize;
        if self.by_stream.len() <= index {
            self.by_stream.resize(index + 1, None);
        }
        self.by_stream[index] = Some(slot);
        self.endpoints[slot as usize] = Some(endpoint);
        self.schedule(slot);
        slot
    }

    pub(super) fn endpoint_mut(&mut self, slot: u32) -> Option<&mut Endpoint> {
        self.endpoints.get_mut(slot as usize)?.as_mut()
    }

    pub(super) fn slot_of_connection(&self, connection: Connection) -> Option<u32> {
        let endpoint = self.endpoints.get(connection.slot as usize)?.as_ref()?;
        (endpoint.stream == connection.stream).then_some(connection.slot)
    }

    pub(super) fn slot_of(&self, stream: StreamId) -> Option<u32> {
        let slot = (*self.by_stream.get(stream.index as usize)?)?;
        let endpoint = self.endpoints[slot as usize].as_ref()?;
        (endpoint.stream == stream).then_some(slot)
    }

    /// Has the Inbound of `slot` come back, so that nothing is placed or completed by it any more. `true`: it is here, or there
    /// never was one; otherwise [`Self::handle_stopped`] goes on with what was begun.
    fn stop_receiving(&mut self, slot: u32) -> bool {
        let Some(endpoint) = self.endpoints[slot as usize].as_mut() else { return true };
        match endpoint.receiving {
            Receiving::Never | Receiving::Stopped(_) | Receiving::Over => return true,
            Receiving::Stopping => {}
            Receiving::Installed => {
                endpoint.receiving = Receiving::Stopping;
                self.to_receive.push(ToReceive::Stop(endpoint.stream));
            }
        }
        false
    }

    /// The Inbound is here again: what waited for that goes on.
    pub(super) fn handle_stopped(&mut self, connection: Connection, inbound: Box<Inbound>) {
        let Some(slot) = self.slot_of_connection(connection) else { return };
        let Some(endpoint) = self.endpoint_mut(slot) else { return };
        endpoint.receiving = Receiving::Stopped(inbound);
        if let Some(kind) = endpoint.removal.take() {
            self.remove(slot, kind);
        } else if endpoint.ending.is_some() {
            self.ending.push(slot);
        }
    }

    /// Forgets an endpoint whose stream is gone, as soon as its Inbound is here: flushes, reports the end, gives the slot back.
    pub(super) fn remove(&mut self, slot: u32, kind: CmEventKind) {
        if !self.stop_receiving(slot) {
            if let Some(endpoint) = self.endpoint_mut(slot) {
                endpoint.removal.get_or_insert(kind);
            }
            return;
        }
        self.finish(slot, kind);
        let Some(endpoint) = self.endpoints[slot as usize].take() else { return };
        if matches!(endpoint.phase, Phase::AwaitingRequest(_)) {
            self.half_open -= 1;
        }
        if self.by_cm.get(&endpoint.cm.number()) == Some(&slot) {
            self.by_cm.remove(&endpoint.cm.number());
        }
        if let Some(queue_pair) = &endpoint.queue_pair {
            queue_pair.set_endpoint(None);
            // What was posted since the end was reported: nobody looks for it here any more.
            queue_pair.flush();
        }
        if self.by_stream[endpoint.stream.index as usize] == Some(slot) {
            self.by_stream[endpoint.stream.index as usize] = None;
        }
        self.to_receive.push(ToReceive::Remove(endpoint.stream));
        self.free.push(slot);
        for reply in endpoint.replies {
            // Who no longer waits is no error.
            let _ = reply.send(());
        }
    }

    /// Flushes the queue pair and reports the end of the connection, once. Its Inbound is here.
    pub(super) fn finish(&mut self, slot: u32, kind: CmEventKind) {
        let Some(endpoint) = self.endpoints[slot as usize].as_mut() else { return };
        if endpoint.end_reported {
            return;
        }
        endpoint.end_reported = true;
        if let Some(queue_pair) = endpoint.queue_pair.clone() {
            debug_assert!(!matches!(endpoint.receiving, Receiving::Installed | Receiving::Stopping));
            if let Receiving::Stopped(mut inbound) = std::mem::replace(&mut endpoint.receiving, Receiving::Over) {
                inbound.flush(queue_pair.memory(), &mut FlushUpper(&queue_pair));
            }
            if let Some(outbound) = endpoint.phase.outbound_mut() {
                let (stream, to_receive) = (endpoint.stream, &mut self.to_receive);
                let mut upper = OutboundUpper { stream, queue_pair: &queue_pair, to_receive };
                outbound.flush(queue_pair.memory(), &mut upper);
            }
            queue_pair.flush();
            if queue_pair.shares_receives() {
                let number = queue_pair.number();
                self.doorbells.asynchronous.push(AsyncEvent::LastReceiveReached { number });
            }
        }
        let Some(endpoint) = self.endpoint_mut(slot) else { return };
        let cm = endpoint.cm.clone();
        let listener = cm.listener_number();
        let is_offered = matches!(endpoint.phase, Phase::Deciding(_));
        if is_offered || matches!(endpoint.phase, Phase::AwaitingRequest(_)) {
            self.decided(listener);
        }
        if is_offered {
            cm.withdraw_request();
        }
        cm.emit(kind);
    }

    /// Ends what came to the listener of this number and the application has not been told of, or has not asked for.
    pub(super) fn end_unknown_children(&mut self, listener: u64) {
        for slot in 0..self.endpoints.len() {
            let Some(endpoint) = &self.endpoints[slot] else { continue };
            let is_undecided = matches!(endpoint.phase, Phase::AwaitingRequest(_) | Phase::Deciding(_));
            if is_undecided && endpoint.cm.listener_number() == Some(listener) && !endpoint.cm.is_known() {
                self.end(slot as u32, Ending::Abort);
            }
        }
    }

    /// The queue pair of an endpoint whose end was reported is free: the stream closes without it.
    pub(super) fn detach(&mut self, slot: u32) {
        if let Some(endpoint) = self.endpoint_mut(slot)
            && let Some(queue_pair) = endpoint.queue_pair.take()
        {
            debug_assert!(endpoint.end_reported && matches!(endpoint.phase, Phase::Closing));
            queue_pair.set_endpoint(None);
        }
    }

    /// A child of `listener` no longer counts against its backlog.
    pub(super) fn decided(&mut self, listener: Option<u64>) {
        let Some(number) = listener else { return };
        // An id that listens at several addresses has a listener for each: the sum is what counts.
        let mut listeners = self.listeners.values_mut();
        if let Some(listener) = listeners.find(|listener| listener.cm.number() == number && listener.undecided > 0) {
            listener.undecided -= 1;
        }
    }

    // --- ready list ---

    pub(super) fn mark_ready(&mut self, slot: u32) {
        let Some(endpoint) = self.endpoint_mut(slot) else { return };
        if !endpoint.ready && !endpoint.blocked {
            endpoint.ready = true;
            self.ready.push_back(slot);
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty() || !self.ending.is_empty()
    }

    pub(super) fn is_ending(&self) -> bool {
        !self.ending.is_empty()
    }

    pub(super) fn ready_count(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn take_ready(&mut self) -> Option<(u32, StreamId)> {
        loop {
            let slot = self.ready.pop_front()?;
            if let Some(endpoint) = self.endpoint_mut(slot)
                && endpoint.ready
            {
                endpoint.ready = false;
                return Some((slot, endpoint.stream));
            }
        }
    }

    pub(super) fn set_blocked(&mut self, slot: u32) {
        if let Some(endpoint) = self.endpoint_mut(slot) {
            endpoint.blocked = true;
        }
    }

    /// The stream of `slot` to the engine, cut into segments of `segment_size`.
    pub(super) fn source(&mut self, slot: u32, segment_size: usize) -> Option<EndpointSource<'_>> {
        let endpoint = self.endpoints.get_mut(slot as usize)?.as_mut()?;
        if let Some(outbound) = endpoint.phase.outbound_mut() {
            outbound.set_segment_size(segment_size);
        }
        Some(EndpointSource { endpoint, to_receive: &mut self.to_receive })
    }

    /// Reports what the queues of a queue pair found out about themselves.
    pub(super) fn check_queues(&mut self, slot: u32) {
        let Some(endpoint) = self.endpoints[slot as usize].as_ref() else { return };
        let Some(queue_pair) = endpoint.queue_pair.as_deref() else { return };
        let number = queue_pair.number();
        if let Some(shared_receive_queue) = queue_pair.take_limit_reached() {
            self.doorbells.asynchronous.push(AsyncEvent::ReceiveLimitReached { shared_receive_queue });
        }
        if let Some(queue) = queue_pair.take_overrun() {
            self.doorbells.asynchronous.push(AsyncEvent::CompletionQueueOverrun { queue, queue_pair: number });
            self.end(slot, Ending::Abort);
        }
    }

    /// Sees whether what was to leave before the end has left.
    pub(super) fn after_transmit(&mut self, slot: u32) {
        let Some(endpoint) = self.endpoint_mut(slot) else { return };
        if endpoint.phase.outbound_mut().is_some_and(|outbound| outbound.has_failed()) {
            self.handle_own_failure(slot);
        }
        let Some(endpoint) = self.endpoint_mut(slot) else { return };
        let greeted = endpoint.greeting_acknowledged || endpoint.greeting.is_empty();
        let over = match &mut endpoint.phase {
            Phase::Terminating(outbound) => outbound.is_terminated(),
            Phase::Draining(outbound) => greeted && outbound.is_idle(),
            Phase::Rejecting => greeted,
            _ => false,
        };
        if over {
            self.end(slot, Ending::Close);
        }
        self.check_queues(slot);
    }

    pub(super) fn end(&mut self, slot: u32, ending: Ending) {
        let Some(endpoint) = self.endpoint_mut(slot) else { return };
        if endpoint.ending.is_none() {
            self.ending.push(slot);
        }
        let Some(endpoint) = self.endpoint_mut(slot) else { return };
        if endpoint.ending != Some(Ending::Abort) {
            endpoint.ending = Some(ending);
        }
    }

    /// Carries out [`Self::end`].
    pub(super) fn end_connections(&mut self, engine: &mut dyn Engine, now: Instant) -> usize {
        let count = self.ending.len();
        for _ in 0..count {
            let Some(slot) = self.ending.pop() else { break };
            if self.endpoint_mut(slot).is_none_or(|endpoint| endpoint.ending.is_none()) {
                continue;
            }
            // `handle_stopped` puts it into the list again.
            if !self.stop_receiving(slot) {
                continue;
            }
            let Some(endpoint) = self.endpoint_mut(slot) else { continue };
            let Some(ending) = endpoint.ending.take() else { continue };
            let stream = endpoint.stream;
            // The requests complete now, and their memory is the application's again: what the peer does not have yet could
            // not be sent once more as it was.
            let cuts_off = endpoint.phase.outbound_mut().is_some_and(|outbound| outbound.has_unacknowledged());
            match if cuts_off { Ending::Abort } else { ending } {
                Ending::Close => {
                    // Flushes before the peer's end is seen: nothing refers to the application's memory any more.
                    self.finish(slot, CmEventKind::Disconnected);
                    let deadline = now + self.settings.close_timeout;
                    if let Some(endpoint) = self.endpoint_mut(slot) {
                        endpoint.phase = Phase::Closing;
                        endpoint.receive_deadline = None;
                        endpoint.deadline = Some(deadline);
                    }
                    self.schedule(slot);
                    self.to_receive.push(ToReceive::Discard(stream));
                    engine.close(now, stream);
                }
                Ending::Abort => {
                    engine.abort(now, stream);
                    self.remove(slot, CmEventKind::Disconnected);
                }
            }
        }
        count
    }

    // --- the application's doorbells ---

    /// Moves newly posted requests to their connections.
    pub(super) fn handle_doorbells(&mut self) -> usize {
        let mut served = 0;
        for _ in 0..self.doorbells.queue_pairs.capacity() {
            // A look is two loads; an empty queue is told for certain only behind a fence.
            if self.doorbells.queue_pairs.is_empty() {
                break;
            }
            let Some(queue_pair) = self.doorbells.queue_pairs.pop() else { break };
            served += 1;
            queue_pair.clear_doorbell();
            let slot = queue_pair.endpoint();
            let Some(endpoint) = slot.and_then(|slot| self.endpoint_mut(slot)) else {
                queue_pair.flush_unconnected();
                continue;
            };
            if endpoint.end_reported {
                queue_pair.flush_unconnected();
                continue;
            }
            if let Phase::Established(outbound) = &mut endpoint.phase
                && take_posted(outbound, &queue_pair)
                && let Some(slot) = slot
            {
                self.mark_ready(slot);
            }
        }
        served
    }

    /// Hands what is in the queue of `queue_pair` to its connection, and behind it `requests`, which stay where they are if they cannot
    /// be taken. Whether there was anything.
    pub(super) fn post(&mut self, queue_pair: &QueuePairShared, requests: &mut Posted<'_>) -> bool {
        let Some(slot) = queue_pair.endpoint() else { return false };
        let Some(endpoint) = self.endpoint_mut(slot) else { return false };
        let Phase::Established(outbound) = &mut endpoint.phase else { return false };
        if endpoint.end_reported {
            return false;
        }
        let mut any = take_posted(outbound, queue_pair);
        while !outbound.is_ending()
            && let Some(request) = requests.next()
        {
            take(outbound, queue_pair, request);
            any = true;
        }
        if any {
            self.mark_ready(slot);
        }
        any
    }

    /// A message waits for a receive: that is allowed for a while. Or none waits any more.
    pub(super) fn handle_waiting(&mut self, slot: u32, waits: bool) {
        let deadline = self.now + self.settings.receive_wait;
        let Some(endpoint) = self.endpoint_mut(slot) else { return };
        if !waits || !matches!(endpoint.phase, Phase::Established(_) | Phase::Draining(_)) {
            endpoint.receive_deadline = None;
            return;
        }
        endpoint.receive_deadline = Some(deadline);
        self.statistics.receive_waits += 1;
        self.schedule(slot);
    }

    // --- timers ---

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        [self.timers.next(), self.look_for_stalls_at].into_iter().flatten().min()
    }

    /// Has stalled peers looked for from now on, as long as anything is connected. Nobody notes when bytes arrive: a peer that
    /// stands where it stood at the last look has sent none.
    pub(super) fn watch_for_stalls(&mut self) {
        self.look_for_stalls_at.get_or_insert(self.now + self.settings.stall_timeout);
    }

    fn look_for_stalls(&mut self) {
        let mut endpoints = self.endpoints.iter().flatten();
        let is_connected = endpoints.any(|endpoint| matches!(endpoint.receiving, Receiving::Installed));
        self.look_for_stalls_at = is_connected.then(|| self.now + self.settings.stall_timeout);
        self.to_receive.push(ToReceive::LookForStalls);
    }

    /// Has the deadlines of `slot` looked at in time.
    pub(super) fn schedule(&mut self, slot: u32) {
        let Some(endpoint) = self.endpoint_mut(slot) else { return };
        let Some(deadline) = endpoint.next_deadline() else { return };
        if endpoint.timer.is_some_and(|timer| timer <= deadline) {
            return;
        }
        endpoint.timer = Some(deadline);
        self.timers.add(deadline, slot);
    }

    pub(super) fn handle_timers(&mut self, now: Instant) {
        if self.look_for_stalls_at.is_some_and(|at| at <= now) {
            self.look_for_stalls();
        }
        while let Some(slot) = self.timers.pop_due(now) {
            let Some(endpoint) = self.endpoint_mut(slot) else { continue };
            endpoint.timer = None;
            let due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
            let (silent, receive, phase) =
                (due(endpoint.silent_until), due(endpoint.receive_deadline), due(endpoint.deadline));
            if silent {
                endpoint.silent_until = None;
                self.mark_ready(slot);
            }
            if receive {
                self.give_up_waiting(slot);
            }
            if phase {
                self.handle_phase_timeout(slot);
            }
            self.schedule(slot);
        }
    }

    fn handle_phase_timeout(&mut self, slot: u32) {
        let Some(endpoint) = self.endpoint_mut(slot) else { return };
        endpoint.deadline = None;
        match endpoint.phase {
            Phase::Connecting(_) | Phase::Requesting(_) => {
                self.statistics.handshakes_failed += 1;
                self.finish(slot, CmEventKind::Unreachable { reason: ResetReason::TimedOut });
            }
            Phase::AwaitingRequest(_) => {
                self.statistics.handshakes_failed += 1;
                if let Some(endpoint) = self.endpoint_mut(slot) {
                    endpoint.end_reported = true; // The application never heard of it.
                    let listener = endpoint.cm.listener_number();
                    self.decided(listener);
                }
            }
            _ => {}
        }
        self.end(slot, Ending::Abort);
    }

    fn give_up_waiting(&mut self, slot: u32) {
        let Some(endpoint) = self.endpoints[slot as usize].as_mut() else { return };
        endpoint.receive_deadline = None;
        self.to_receive.push(ToReceive::GiveUpWaiting(endpoint.stream));
    }

    // --- the engine's events ---

    fn handle_incoming(&mut self, listener: ListenerId, stream: StreamId, ends: crate::connection_manager::Ends) {
        let accepts = self.half_open < self.settings.half_open_limit;
        let settings = &self.settings;
        let deadline = self.now + settings.handshake_timeout;
        let responder = softrdma_mpa_ddp_rdmap::Responder::new(&settings.handshake);
        let Some(listener) = self.listeners.get_mut(&listener) else {
            return self.refuse(stream);
        };
        // One more than the backlog may be on its way, so that a backlog of 0 still accepts one after another.
        if !accepts || listener.undecided > listener.backlog {
            self.statistics.half_open_refused += 1;
            return self.refuse(stream);
        }
        listener.undecided += 1;
        let cm = listener.cm.child(ends);
        self.half_open += 1;
        let mut endpoint = Endpoint::new(Phase::AwaitingRequest(Box::new(responder)), stream, cm);
        endpoint.deadline = Some(deadline);
        self.insert(endpoint);
    }

    /// Takes a stream in only to reset it: ending needs the engine.
    fn refuse(&mut self, stream: StreamId) {
        let mut endpoint = Endpoint::new(Phase::Closing, stream, CmIdShared::nobody());
        endpoint.end_reported = true;
        let slot = self.insert(endpoint);
        self.end(slot, Ending::Abort);
    }

    fn handle_connected(&mut self, slot: u32, local: std::net::SocketAddr) {
        let Some(endpoint) = self.endpoint_mut(slot) else { return };
        endpoint.cm.set_local(local);
        match std::mem::replace(&mut endpoint.phase, Phase::Closing) {
            Phase::Connecting(initiator) => {
                endpoint.greeting = initiator.request().to_vec();
                endpoint.phase = Phase::Requesting(initiator);
                self.mark_ready(slot);
            }
            other => endpoint.phase = other,
        }
    }

    fn handle_peer_closed(&mut self, slot: u32) {
        let Some(endpoint) = self.endpoint_mut(slot) else { return };
        match &mut endpoint.phase {
            Phase::Established(outbound) => {
                let idle = outbound.is_idle();
                self.end(slot, if idle { Ending::Close } else { Ending::Abort });
            }
            // The peer can still hear why the connection ends; then it is closed.
            Phase::Terminating(outbound) if !outbound.is_terminated() => {}
            Phase::Draining(_) | Phase::Terminating(_) | Phase::Closing | Phase::Rejecting => {
                self.end(slot, Ending::Close);
            }
            Phase::Connecting(_) | Phase::Requesting(_) => {
                self.statistics.handshakes_failed += 1;
                self.finish(slot, CmEventKind::ConnectError { reason: "the peer closed during the handshake".into() });
                self.end(slot, Ending::Abort);
            }
            Phase::AwaitingRequest(_) | Phase::Deciding(_) => {
                self.statistics.handshakes_failed += 1;
                self.end(slot, Ending::Abort);
            }
        }
    }

    fn handle_reset(&mut self, slot: u32, reason: ResetReason) {
        let Some(endpoint) = self.endpoint_mut(slot) else { return };
        let kind = match endpoint.phase {
            Phase::Connecting(_) | Phase::Requesting(_) => {
                self.statistics.handshakes_failed += 1;
                CmEventKind::Unreachable { reason }
            }
            _ => CmEventKind::Disconnected,
        };
        self.remove(slot, kind);
    }

    /// The peer broke a rule: it is told with a TERMINATE, then the connection ends.
    pub(super) fn violation(&mut self, slot: u32, error: &softrdma_mpa_ddp_rdmap::ProtocolError) {
        let Some(endpoint) = self.endpoint_mut(slot) else { return };
        tracing::debug!(peer = ?endpoint.cm.remote(), %error, "the peer broke the protocol; terminating");
        if let Some(outbound) = endpoint.phase.outbound_mut() {
            outbound.terminate(error.terminate());
        }
        self.begin_terminating(slot);
    }

    /// A request of ours, or the answer to one of the peer's, cannot be sent: Outbound tells the peer, and the connection ends.
    #[cold]
    pub(super) fn handle_own_failure(&mut self, slot: u32) {
        let Some(endpoint) = self.endpoint_mut(slot) else { return };
        if !matches!(endpoint.phase, Phase::Established(_) | Phase::Draining(_)) {
            return;
        }
        tracing::debug!(peer = ?endpoint.cm.remote(), "a request cannot be carried out; terminating");
        self.begin_terminating(slot);
        // RFC 5040 §5.4: nothing that arrives behind the error is for the application.
        self.stop_receiving(slot);
    }

    /// A TERMINATE is to leave, or should if it may: the queue pair is in error, and the end is near.
    fn begin_terminating(&mut self, slot: u32) {
        let deadline = self.now + self.settings.terminate_timeout;
        let Some(endpoint) = self.endpoint_mut(slot) else { return };
        endpoint.receive_deadline = None;
        let mut is_told = false;
        endpoint.phase = match std::mem::replace(&mut endpoint.phase, Phase::Closing) {
            Phase::Established(outbound) | Phase::Draining(outbound) => {
                is_told = !outbound.is_terminated();
                Phase::Terminating(outbound)
            }
            other => other,
        };
        endpoint.deadline = Some(deadline);
        if let Some(queue_pair) = &endpoint.queue_pair {
            queue_pair.enter_error();
            let number = queue_pair.number();
            self.doorbells.asynchronous.push(AsyncEvent::QueuePairFatal { number });
        }
        self.statistics.terminates_sent += u64::from(is_told);
        self.schedule(slot);
        self.mark_ready(slot);
    }

    pub(super) fn statistics_mut(&mut self) -> &mut HostStatistics {
        &mut self.statistics
    }

    pub(super) fn left_half_open(&mut self) {
        self.half_open -= 1;
    }
}

impl Host {
    /// Lends the source of `stream` for acknowledgement and retransmission.
    pub(super) fn with_source(&mut self, stream: StreamId, use_source: &mut dyn FnMut(&mut dyn Source)) {
        let Some(slot) = self.slot_of(stream) else { return };
        if let Some(endpoint) = self.endpoints[slot as usize].as_mut() {
            use_source(&mut EndpointSource { endpoint, to_receive: &mut self.to_receive });
            let wants_to_send = endpoint.wants_to_send();
            self.after_transmit(slot);
            if wants_to_send {
                self.mark_ready(slot);
            }
        }
    }

    /// Something happened to a stream.
    pub(super) fn handle_event(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Incoming { listener, stream, local, remote } => {
                self.handle_incoming(listener, stream, crate::connection_manager::Ends { local, remote });
            }
            StreamEvent::Connected { stream, local } => {
                if let Some(slot) = self.slot_of(stream) {
                    self.handle_connected(slot, local);
                }
            }
            StreamEvent::ConnectFailed { stream, reason } | StreamEvent::Reset { stream, reason } => {
                if let Some(slot) = self.slot_of(stream) {
                    self.handle_reset(slot, reason);
                }
            }
            StreamEvent::Writable { stream } => {
                if let Some(slot) = self.slot_of(stream)
                    && let Some(endpoint) = self.endpoint_mut(slot)
                {
                    endpoint.blocked = false;
                    self.mark_ready(slot);
                }
            }
            StreamEvent::PeerClosed { stream } => {
                if let Some(slot) = self.slot_of(stream) {
                    self.handle_peer_closed(slot);
                }
            }
            StreamEvent::Closed { stream } => {
                if let Some(slot) = self.slot_of(stream) {
                    self.remove(slot, CmEventKind::Disconnected);
                }
            }
        }
    }
}
