//! Receiving: which Inbound the bytes of a stream are for, and what it has to say.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use softrdma_mpa_ddp_rdmap::{Inbound, ToInbound, Unfinished};
use softrdma_stack::stream::{Abort, StreamEvent, StreamId};

use super::adapter::InboundUpper;
use super::host::Doorbells;
use super::mail::{Connection, Outbox, ToHost, ToReceive};
use crate::queue_pair::QueuePairShared;

/// Most slices that are looked at at once behind a greeting; more are offered again.
const MAX_PARTS: usize = 64;

/// Bytes of a greeting that the host gets to see at a time: the longest MPA frame (RFC 5044 §7.1: 20 bytes and 512 of private
/// data) and one more, by which it knows of what follows.
const MAX_GREETING: usize = 20 + 512 + 1;

/// Polls after which stalled peers are looked for though every one of them brought something: whatever lay in the port when the
/// look was asked for has been taken by then.
const STALL_LOOK_PATIENCE: u32 = 1024;

/// The receive side of a device. See [`super::mail`].
pub(crate) struct ReceiveSide {
    /// By the engine's slot.
    flows: Vec<Option<Flow>>,
    pub(super) to_host: Outbox<ToHost>,
    doorbells: Arc<Doorbells>,
    /// Streams with a message that waits for a receive.
    waiting: Vec<StreamId>,
    /// Streams whose bytes have to be offered again.
    resumed: Vec<StreamId>,
    /// Stalled peers are to be looked for, at the latest after so many polls.
    stall_look: Option<u32>,
    /// Bytes that established connections were offered since [`Self::take_brought`].
    brought: usize,
}

/// One stream.
struct Flow {
    stream: StreamId,
    state: State,
    /// Bytes of the greeting that the host is done with, and that the engine still offers.
    considered: usize,
}

enum State {
    /// The host reads its greeting.
    Greeting(Greeting),
    Established(Box<Established>),
    /// What arrives is dropped.
    Discarding,
}

#[derive(Default)]
struct Greeting {
    /// Bytes that the host has seen, or is about to see.
    shown: usize,
    /// The host is looking.
    is_shown: bool,
}

struct Established {
    connection: Connection,
    inbound: Inbound,
    queue_pair: Arc<QueuePairShared>,
    is_waiting: bool,
    /// The host knows of the peer's TERMINATE.
    termination_told: bool,
    /// Where inside an FPDU or a message the stream stood at the last look.
    seen_unfinished: Option<Unfinished>,
}

impl ReceiveSide {
    pub(crate) fn new(doorbells: Arc<Doorbells>) -> Self {
        Self {
            flows: Vec::new(),
            to_host: Outbox::default(),
            doorbells,
            waiting: Vec::new(),
            resumed: Vec::new(),
            stall_look: None,
            brought: 0,
        }
    }

    /// Bytes of `stream`; tells how many of them were taken.
    pub(super) fn handle_bytes(&mut self, stream: StreamId, parts: &[&[u8]]) -> Result<usize, Abort> {
        let index = stream.index as usize;
        if !self.flows.get(index).is_some_and(|flow| flow.as_ref().is_some_and(|flow| flow.stream == stream)) {
            self.begin(stream);
        }
        match &mut self.flows[index] {
            Some(Flow { state: State::Established(established), considered: 0, .. }) => {
                self.brought += length(parts);
                let news = established.handle_bytes(parts, &mut self.to_host);
                self.note(stream, news)
            }
            _ => self.handle_behind(stream, parts),
        }
    }

    /// As [`Self::handle_bytes`], for the calls at the beginning and at the end of a stream.
    #[cold]
    fn handle_behind(&mut self, stream: StreamId, parts: &[&[u8]]) -> Result<usize, Abort> {
        let Some(Flow { state, considered, .. }) = &mut self.flows[stream.index as usize] else { return Err(Abort) };
        let considered = std::mem::take(considered);
        let mut behind = [&[][..]; MAX_PARTS];
        let behind = behind_of(parts, considered, &mut behind);
        match state {
            State::Established(established) => {
                let news = established.handle_bytes(behind, &mut self.to_host);
                self.note(stream, news).map(|consumed| considered + consumed)
            }
            State::Greeting(greeting) => {
                let length = length(behind).min(MAX_GREETING);
                if length > greeting.shown && !greeting.is_shown {
                    *greeting = Greeting { shown: length, is_shown: true };
                    let mut bytes = behind.concat();
                    bytes.truncate(MAX_GREETING);
                    self.to_host.push(ToHost::Greeting { stream, bytes });
                }
                Ok(considered)
            }
            State::Discarding => Ok(length(parts)),
        }
    }

    /// How many bytes for applications arrived since the last call.
    pub(super) fn take_brought(&mut self) -> usize {
        std::mem::take(&mut self.brought)
    }

    /// What the engine saw while it received. The end of a stream concerns Inbound first.
    pub(super) fn handle_event(&mut self, event: StreamEvent) {
        if let StreamEvent::PeerClosed { stream } = event
            && let Some(established) = self.established_mut(stream)
            && let Err(error) = established.inbound.handle_end_of_stream()
        {
            let connection = established.connection;
            self.stop_waiting(stream);
            self.to_host.push(ToHost::Violation(connection, Box::new(error)));
            return;
        }
        self.to_host.push(ToHost::Event(event));
    }

    pub(super) fn handle_mail(&mut self, message: ToReceive) {
        match message {
            ToReceive::Inbound(stream, message) => self.handle_outbound(stream, message),
            ToReceive::Considered { stream, consumed } => {
                if let Some(Flow { state: State::Greeting(greeting), considered, .. }) = self.flow_mut(stream) {
                    *considered += consumed;
                    greeting.is_shown = false;
                    // What follows a message that is done with is for another phase of the handshake.
                    greeting.shown = if consumed > 0 { 0 } else { greeting.shown };
                    self.resumed.push(stream);
                }
            }
            ToReceive::Install { connection, inbound, queue_pair } => self.install(connection, *inbound, queue_pair),
            ToReceive::GiveUpWaiting(stream) => self.give_up_waiting(stream),
            ToReceive::LookForStalls => {
                self.stall_look.get_or_insert(STALL_LOOK_PATIENCE);
            }
            ToReceive::Discard(stream) | ToReceive::Stop(stream) => {
                self.stop(stream);
                self.begin(stream).state = State::Discarding;
                self.resumed.push(stream);
            }
            ToReceive::Remove(stream) => {
                self.stop(stream);
                if self.flow_mut(stream).is_some() {
                    self.flows[stream.index as usize] = None;
                }
            }
        }
    }

    /// The engine was polled. A look for stalled peers that was asked for before waits until a poll brings nothing: a process
    /// that stood still finds at once what its peers sent meanwhile, and the timer that it missed, but not all in one burst.
    #[inline]
    pub(super) fn handle_polled(&mut self, received: usize) {
        if let Some(polls) = self.stall_look {
            self.stall_look = polls.checked_sub(1).filter(|_| received > 0);
            if self.stall_look.is_none() {
                self.look_for_stalls();
            }
        }
    }

    /// Streams whose bytes have to be offered again now: those that the host decided about, and those whose message waits and
    /// that have a receive by now.
    pub(super) fn poll_resumed(&mut self, mut resume: impl FnMut(StreamId)) {
        for stream in self.resumed.drain(..) {
            resume(stream);
        }
        for &stream in &self.waiting {
            if self.established(stream).is_some_and(|established| established.queue_pair.has_receive()) {
                resume(stream);
            }
        }
    }

    /// Whether the engine is to be polled though nothing may arrive: [`Self::poll_resumed`] or [`Self::handle_polled`] has
    /// something to do. A receive that was posted between the look at the queue and the registration is found by this.
    pub(super) fn wants_poll(&self) -> bool {
        self.stall_look.is_some()
            || !self.resumed.is_empty()
            || self
                .waiting
                .iter()
                .any(|&stream| self.established(stream).is_some_and(|established| established.queue_pair.has_receive()))
    }

    fn install(&mut self, connection: Connection, inbound: Inbound, queue_pair: Arc<QueuePairShared>) {
        let stream = connection.stream;
        let established = Established {
            connection,
            inbound,
            queue_pair,
            is_waiting: false,
            termination_told: false,
            seen_unfinished: None,
        };
        self.begin(stream).state = State::Established(Box::new(established));
        self.resumed.push(stream);
    }

    fn handle_outbound(&mut self, stream: StreamId, message: ToInbound) {
        if let Some(established) = self.established_mut(stream) {
            established.inbound.handle(message);
        }
    }

    fn give_up_waiting(&mut self, stream: StreamId) {
        let Some(established) = self.established_mut(stream) else { return };
        if established.inbound.is_waiting_for_receive() {
            let error = established.inbound.give_up_waiting();
            let connection = established.connection;
            self.stop_waiting(stream);
            self.to_host.push(ToHost::Violation(connection, Box::new(error)));
        }
    }

    /// Ends streams that stand inside the same FPDU or message, at the same byte, as at the last look.
    #[cold]
    fn look_for_stalls(&mut self) {
        for flow in self.flows.iter_mut().flatten() {
            let State::Established(established) = &mut flow.state else { continue };
            let unfinished = established.inbound.unfinished();
            if unfinished.is_some() && unfinished == established.seen_unfinished {
                let error = established.inbound.give_up_unfinished();
                self.to_host.push(ToHost::Violation(established.connection, Box::new(error)));
            }
            established.seen_unfinished = unfinished;
        }
    }

    /// Gives the Inbound of `stream` back, if there is one.
    fn stop(&mut self, stream: StreamId) {
        self.stop_waiting(stream);
        let Some(flow) = self.flow_mut(stream) else { return };
        if let State::Established(established) = std::mem::replace(&mut flow.state, State::Discarding) {
            let Established { connection, inbound, .. } = *established;
            self.to_host.push(ToHost::Stopped(connection, Box::new(inbound)));
        }
    }

    /// The flow of `stream`, made if there is none. One of an older stream in the same place ends.
    fn begin(&mut self, stream: StreamId) -> &mut Flow {
        let index = stream.index as usize;
        if self.flows.len() <= index {
            self.flows.resize_with(index + 1, || None);
        }
        if let Some(old) = self.flows[index].as_ref().map(|flow| flow.stream).filter(|&old| old != stream) {
            self.stop(old);
            self.flows[index] = None;
        }
        self.flows[index].get_or_insert_with(|| Flow {
            stream,
            state: State::Greeting(Greeting::default()),
            considered: 0,
        })
    }

    /// Acts on what a call of Inbound brought.
    fn note(&mut self, stream: StreamId, news: News) -> Result<usize, Abort> {
        let News { result, waits } = news;
        match waits {
            Some(true) => self.waiting.push(stream),
            Some(false) => self.waiting.retain(|&waiting| waiting != stream),
            None => return result,
        }
        // SeqCst pairs with the poster: it pushes the receive, then looks here; we raise this, then look at its queue.
        match waits {
            Some(true) => self.doorbells.waiting_for_receive.fetch_add(1, Ordering::SeqCst),
            _ => self.doorbells.waiting_for_receive.fetch_sub(1, Ordering::SeqCst),
        };
        result
    }

    fn stop_waiting(&mut self, stream: StreamId) {
        let Some(established) = self.established_mut(stream) else { return };
        if std::mem::take(&mut established.is_waiting) {
            self.waiting.retain(|&waiting| waiting != stream);
            self.doorbells.waiting_for_receive.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn flow_mut(&mut self, stream: StreamId) -> Option<&mut Flow> {
        self.flows.get_mut(stream.index as usize)?.as_mut().filter(|flow| flow.stream == stream)
    }

    fn established(&self, stream: StreamId) -> Option<&Established> {
        match self.flows.get(stream.index as usize)?.as_ref()? {
            Flow { stream: name, state: State::Established(established), .. } if *name == stream => Some(established),
            _ => None,
        }
    }

    fn established_mut(&mut self, stream: StreamId) -> Option<&mut Established> {
        match &mut self.flow_mut(stream)?.state {
            State::Established(established) => Some(established),
            _ => None,
        }
    }
}

/// What came of bytes.
struct News {
    result: Result<usize, Abort>,
    /// A message waits for a receive from now on, or none does any more.
    waits: Option<bool>,
}

impl Established {
    fn handle_bytes(&mut self, parts: &[&[u8]], to_host: &mut Outbox<ToHost>) -> News {
        let Self { connection, inbound, queue_pair, .. } = self;
        let connection = *connection;
        let mut upper = InboundUpper { connection, queue_pair, to_host };
        let result = inbound.handle_bytes(parts, queue_pair.memory(), &mut upper);
        if queue_pair.has_news() {
            to_host.push(ToHost::CheckQueues(connection));
        }
        let waited = std::mem::replace(&mut self.is_waiting, result.is_ok() && inbound.is_waiting_for_receive());
        let changed = (self.is_waiting != waited).then_some(self.is_waiting);
        let consumed = match result {
            Ok(consumed) => consumed,
            Err(error) => {
                to_host.push(ToHost::Violation(connection, Box::new(error)));
                return News { result: Err(Abort), waits: changed };
            }
        };
        // A message that has begun to move again gets a fresh grace if it stops once more.
        if changed.is_some() || (self.is_waiting && consumed > 0) {
            to_host.push(ToHost::Waiting(connection, self.is_waiting));
        }
        if inbound.peer_terminated().is_some() && !std::mem::replace(&mut self.termination_told, true) {
            to_host.push(ToHost::PeerTerminated(connection));
        }
        News { result: Ok(consumed), waits: changed }
    }
}

fn length(parts: &[&[u8]]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

/// `parts` without the first `skip` bytes, as many as there is room for.
fn behind_of<'a, 'b>(parts: &[&'a [u8]], skip: usize, room: &'b mut [&'a [u8]; MAX_PARTS]) -> &'b [&'a [u8]] {
    let mut skip = skip;
    let mut count = 0;
    for part in parts {
        let kept = &part[skip.min(part.len())..];
        skip -= part.len() - kept.len();
        if !kept.is_empty() && count < MAX_PARTS {
            room[count] = kept;
            count += 1;
        }
    }
    &room[..count]
}
