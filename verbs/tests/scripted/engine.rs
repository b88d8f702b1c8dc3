//! The engine, and the test's end of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use softrdma_stack::stream::{
    Abort, Activity, ConnectError, Engine, EngineStatistics, Halves, HalvesMail, ListenError, ListenerId,
    ReceiveEngine, ReceiveStreams, Source, StreamEvent, StreamId, Streams, Transmitted,
};
use softrdma_stack::time::Instant;

const SEGMENT_SIZE: usize = 1440;

/// What unwritten bytes of a packet buffer look like.
pub(crate) const STALE: u8 = 0xdd;

#[derive(Default)]
struct State {
    streams: Vec<Stream>,
    listener: Option<ListenerId>,
    events: Vec<StreamEvent>,
    /// A poll takes bytes of one stream, and leaves others to the next.
    one_stream_at_a_time: bool,
}

#[derive(Default)]
struct Stream {
    /// Every byte that was sent.
    sent: Vec<u8>,
    acknowledged: u64,
    acknowledge: bool,
    rewrite: Option<(u64, usize)>,
    rewritten: Option<Vec<u8>>,
    arriving: Vec<u8>,
    is_due: bool,
    peer_closes: bool,
    is_closed: bool,
    is_aborted: bool,
    is_discarding: bool,
}

/// See the module. Its halves, if it is split, are the same engine.
pub(crate) struct ScriptedEngine(Arc<Mutex<State>>, Arc<Gate>);

/// The test's end.
#[derive(Clone)]
pub(crate) struct Wire(Arc<Mutex<State>>, Arc<Gate>);

pub(crate) fn scripted() -> (ScriptedEngine, Wire) {
    let (state, gate) = (Arc::new(Mutex::new(State::default())), Arc::new(Gate::default()));
    (ScriptedEngine(state.clone(), gate.clone()), Wire(state, gate))
}

/// Where polls of the sending side wait while a test holds them: somebody is at work then.
#[derive(Default)]
struct Gate {
    is_closed: AtomicBool,
    /// Polls that came to it while it was closed, and those that may go on.
    arrived: AtomicUsize,
    allowed: AtomicUsize,
}

impl Gate {
    fn pass(&self) {
        if !self.is_closed.load(Ordering::SeqCst) {
            return;
        }
        let ticket = self.arrived.fetch_add(1, Ordering::SeqCst);
        while self.is_closed.load(Ordering::SeqCst) && ticket >= self.allowed.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn holds(&self) -> bool {
        self.arrived.load(Ordering::SeqCst) > self.allowed.load(Ordering::SeqCst)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name(index: usize) -> StreamId {
    StreamId { index: index as u32, generation: 1 }
}

impl Wire {
    /// The stream that was made last.
    pub(crate) fn newest(&self) -> usize {
        lock(&self.0).streams.len() - 1
    }

    /// A peer connects to the listener.
    pub(crate) fn incoming(&self) -> usize {
        let mut state = lock(&self.0);
        let listener = state.listener.expect("a listener");
        state.streams.push(Stream::default());
        let index = state.streams.len() - 1;
        let [local, remote] = ["192.0.2.1:4420", "192.0.2.2:50000"].map(|address| address.parse().unwrap());
        state.events.push(StreamEvent::Incoming { listener, stream: name(index), local, remote });
        index
    }

    /// Everything that was sent.
    pub(crate) fn sent(&self, stream: usize) -> Vec<u8> {
        lock(&self.0).streams[stream].sent.clone()
    }

    /// What was sent is acknowledged at the next pass.
    pub(crate) fn acknowledge(&self, stream: usize) {
        lock(&self.0).streams[stream].acknowledge = true;
    }

    /// The unacknowledged bytes from `start` on are sent again at the next pass.
    pub(crate) fn send_again(&self, stream: usize, start: usize) {
        let mut state = lock(&self.0);
        let stream = &mut state.streams[stream];
        stream.rewrite = Some((start as u64, stream.sent.len() - start));
    }

    /// What was sent again: stale bytes where nobody wrote any; `None` if nothing was.
    pub(crate) fn sent_again(&self, stream: usize) -> Option<Vec<u8>> {
        lock(&self.0).streams[stream].rewritten.take()
    }

    /// Bytes of the peer arrive.
    pub(crate) fn arrive(&self, stream: usize, bytes: &[u8]) {
        let mut state = lock(&self.0);
        state.streams[stream].arriving.extend(bytes);
        state.streams[stream].is_due = true;
    }

    /// From now on a poll takes bytes of one stream, and leaves others to the next.
    pub(crate) fn deliver_one_stream_at_a_time(&self) {
        lock(&self.0).one_stream_at_a_time = true;
    }

    /// The peer's end arrives.
    pub(crate) fn close_by_peer(&self, stream: usize) {
        lock(&self.0).streams[stream].peer_closes = true;
    }

    /// The peer resets the stream.
    pub(crate) fn reset_by_peer(&self, stream: usize) {
        let mut state = lock(&self.0);
        let reason = softrdma_stack::stream::ResetReason::ByPeer;
        state.streams[stream].is_aborted = true;
        state.events.push(StreamEvent::Reset { stream: name(stream), reason });
    }

    /// From now on polls of the sending side wait, until [`Self::let_one_poll_go`] or [`Self::let_polls_go`].
    pub(crate) fn hold_polls(&self) {
        self.1.is_closed.store(true, Ordering::SeqCst);
    }

    /// Waits until a poll waits, or nobody is left to come: whether one does.
    pub(crate) fn wait_for_poll(&self, is_over: impl Fn() -> bool) -> bool {
        while !self.1.holds() && !is_over() {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.1.holds()
    }

    /// The poll that waits goes on.
    pub(crate) fn let_one_poll_go(&self) {
        self.1.allowed.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn let_polls_go(&self) {
        self.1.is_closed.store(false, Ordering::SeqCst);
    }

    pub(crate) fn is_closed(&self, stream: usize) -> bool {
        lock(&self.0).streams[stream].is_closed
    }

    pub(crate) fn is_aborted(&self, stream: usize) -> bool {
        lock(&self.0).streams[stream].is_aborted
    }
}

impl State {
    fn stream(&mut self, stream: StreamId) -> Option<&mut Stream> {
        self.streams.get_mut(stream.index as usize).filter(|stream| !stream.is_aborted)
    }

    fn receive(&mut self, streams: &mut dyn Streams) -> Activity {
        let mut activity = Activity::default();
        for event in std::mem::take(&mut self.events) {
            activity.events += 1;
            streams.handle_event(event);
        }
        for (index, stream) in self.streams.iter_mut().enumerate().filter(|(_, stream)| !stream.is_aborted) {
            if self.one_stream_at_a_time && activity.received > 0 {
                break;
            }
            if std::mem::take(&mut stream.is_due) && !stream.arriving.is_empty() {
                activity.received += 1;
                match streams.handle_bytes(name(index), &[&stream.arriving]) {
                    Ok(consumed) => drop(stream.arriving.drain(..consumed)),
                    Err(Abort) => stream.is_discarding = true,
                }
            }
            if stream.is_discarding {
                stream.arriving.clear();
            }
            if stream.arriving.is_empty() && std::mem::take(&mut stream.peer_closes) {
                activity.events += 1;
                streams.handle_event(StreamEvent::PeerClosed { stream: name(index) });
            }
        }
        activity
    }

    fn send(&mut self, streams: &mut dyn Streams) -> Activity {
        for (index, stream) in self.streams.iter_mut().enumerate().filter(|(_, stream)| !stream.is_aborted) {
            let sent = stream.sent.len() as u64;
            if std::mem::take(&mut stream.acknowledge) && sent > stream.acknowledged {
                stream.acknowledged = sent;
                streams.with_source(name(index), &mut |source| source.handle_acknowledged(sent));
            }
            if let Some((start, length)) = stream.rewrite.take() {
                let mut again = vec![STALE; length];
                streams.with_source(name(index), &mut |source| source.write(start, &mut again));
                stream.rewritten = Some(again);
            }
        }
        Activity::default()
    }
}

impl Engine for ScriptedEngine {
    fn split(self: Box<Self>) -> Option<Halves> {
        let receive = Box::new(ReceiveHalf(self.0.clone()));
        Some(Halves { receive, send: Box::new(SendHalf(*self)), mail: Arc::new(NoMail) })
    }

    fn connect(
        &mut self,
        _now: Instant,
        _remote: SocketAddr,
        _local: Option<IpAddr>,
    ) -> Result<StreamId, ConnectError> {
        let mut state = lock(&self.0);
        state.streams.push(Stream::default());
        let stream = name(state.streams.len() - 1);
        let local = "192.0.2.1:50000".parse().unwrap();
        state.events.push(StreamEvent::Connected { stream, local });
        Ok(stream)
    }

    fn listen(&mut self, _now: Instant, _local: SocketAddr, _backlog: usize) -> Result<ListenerId, ListenError> {
        Ok(*lock(&self.0).listener.insert(ListenerId { index: 0, generation: 1 }))
    }

    fn listener_address(&self, _listener: ListenerId) -> Option<SocketAddr> {
        "192.0.2.1:4420".parse().ok()
    }

    fn close_listener(&mut self, _now: Instant, _listener: ListenerId) {
        lock(&self.0).listener = None;
    }

    fn poll(&mut self, _now: Instant, streams: &mut dyn Streams) -> Activity {
        self.1.pass();
        let mut state = lock(&self.0);
        state.send(streams);
        state.receive(streams)
    }

    fn transmit(&mut self, _now: Instant, stream: StreamId, source: &mut dyn Source) -> Transmitted {
        let mut state = lock(&self.0);
        let Some(stream) = state.stream(stream).filter(|stream| !stream.is_closed) else { return Transmitted::Gone };
        while let Some(record) = source.next(SEGMENT_SIZE) {
            assert_eq!(record.start, stream.sent.len() as u64, "a gap between records");
            let mut bytes = vec![STALE; record.length as usize];
            source.write(record.start, &mut bytes);
            stream.sent.extend(bytes);
        }
        Transmitted::Drained
    }

    fn flush(&mut self, _now: Instant) {}

    fn resume(&mut self, stream: StreamId) {
        if let Some(stream) = lock(&self.0).stream(stream) {
            stream.is_due = true;
        }
    }

    fn segment_size(&self, _stream: StreamId) -> usize {
        SEGMENT_SIZE
    }

    fn addresses(&self, _stream: StreamId) -> Option<(SocketAddr, SocketAddr)> {
        None
    }

    fn local_addresses(&self) -> Vec<IpAddr> {
        vec![IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))]
    }

    fn close(&mut self, _now: Instant, stream: StreamId) {
        if let Some(stream) = lock(&self.0).stream(stream) {
            stream.is_closed = true;
        }
    }

    fn abort(&mut self, _now: Instant, stream: StreamId) {
        if let Some(stream) = lock(&self.0).stream(stream) {
            stream.is_aborted = true;
        }
    }

    fn next_deadline(&mut self, _now: Instant) -> Option<Instant> {
        None
    }

    fn readiness(&self) -> Option<Arc<OwnedFd>> {
        None
    }

    fn statistics(&self) -> EngineStatistics {
        EngineStatistics::default()
    }
}

struct ReceiveHalf(Arc<Mutex<State>>);

struct SendHalf(ScriptedEngine);

struct NoMail;

impl HalvesMail for NoMail {
    fn is_for_receive(&self) -> bool {
        false
    }

    fn is_for_send(&self) -> bool {
        false
    }
}

/// A receiving half calls less of what is above it.
struct Receiving<'a>(&'a mut dyn ReceiveStreams);

impl Streams for Receiving<'_> {
    fn handle_bytes(&mut self, stream: StreamId, parts: &[&[u8]]) -> Result<usize, Abort> {
        self.0.handle_burst();
        self.0.handle_bytes(stream, parts)
    }

    fn with_source(&mut self, _stream: StreamId, _use_source: &mut dyn FnMut(&mut dyn Source)) {
        unreachable!("a receiving half writes nothing");
    }

    fn handle_event(&mut self, event: StreamEvent) {
        self.0.handle_event(event);
    }
}

impl ReceiveEngine for ReceiveHalf {
    fn poll(&mut self, _now: Instant, streams: &mut dyn ReceiveStreams) -> Activity {
        lock(&self.0).receive(&mut Receiving(streams))
    }

    fn resume(&mut self, stream: StreamId) {
        if let Some(stream) = lock(&self.0).stream(stream) {
            stream.is_due = true;
        }
    }

    fn next_deadline(&mut self, _now: Instant) -> Option<Instant> {
        None
    }
}

impl Engine for SendHalf {
    fn connect(&mut self, now: Instant, remote: SocketAddr, local: Option<IpAddr>) -> Result<StreamId, ConnectError> {
        self.0.connect(now, remote, local)
    }

    fn listen(&mut self, now: Instant, local: SocketAddr, backlog: usize) -> Result<ListenerId, ListenError> {
        self.0.listen(now, local, backlog)
    }

    fn listener_address(&self, listener: ListenerId) -> Option<SocketAddr> {
        self.0.listener_address(listener)
    }

    fn close_listener(&mut self, now: Instant, listener: ListenerId) {
        self.0.close_listener(now, listener);
    }

    fn poll(&mut self, _now: Instant, streams: &mut dyn Streams) -> Activity {
        self.0.1.pass();
        lock(&self.0.0).send(streams)
    }

    fn transmit(&mut self, now: Instant, stream: StreamId, source: &mut dyn Source) -> Transmitted {
        self.0.transmit(now, stream, source)
    }

    fn flush(&mut self, _now: Instant) {}

    fn resume(&mut self, _stream: StreamId) {}

    fn segment_size(&self, stream: StreamId) -> usize {
        self.0.segment_size(stream)
    }

    fn addresses(&self, stream: StreamId) -> Option<(SocketAddr, SocketAddr)> {
        self.0.addresses(stream)
    }

    fn local_addresses(&self) -> Vec<IpAddr> {
        self.0.local_addresses()
    }

    fn close(&mut self, now: Instant, stream: StreamId) {
        self.0.close(now, stream);
    }

    fn abort(&mut self, now: Instant, stream: StreamId) {
        self.0.abort(now, stream);
    }

    fn next_deadline(&mut self, _now: Instant) -> Option<Instant> {
        None
    }

    fn readiness(&self) -> Option<Arc<OwnedFd>> {
        None
    }

    fn statistics(&self) -> EngineStatistics {
        EngineStatistics::default()
    }
}
