//! Our TCP below an application.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use softrdma_stack::memory_port::{Impairments, MemoryPort, wire};
use softrdma_stack::softrdma::{SoftrdmaConfig, SoftrdmaEngine};
use softrdma_stack::stream::{
    Abort, Engine, Halves, ReceiveEngine, ReceiveStreams, Record, ResetReason, Source, StreamEvent, StreamId, Streams,
    Transmitted,
};
use softrdma_stack::time::Instant;

use super::End;
use super::script::{Application, Seen};

/// What a peer may send ahead: about as much as the kernel's sockets allow, so that a window closes soon.
const WINDOW_BYTES: usize = 128 << 10;
/// Lengths of records, in turn: whole windows, single bytes, and what is more than a segment.
const RECORD_BYTES: [u64; 4] = [70_000, 1, 3_000, 20_000];
/// Offers of which some is left: one in so many.
const LEAVES_EVERY: u64 = 5;

/// An engine with one connection.
pub(super) struct OurEnd {
    engine: Box<dyn Engine>,
    /// The half that receives, of an engine that was taken apart.
    receive: Option<Box<dyn ReceiveEngine>>,
    start: std::time::Instant,
    local: IpAddr,
    connection: Connection,
}

/// The connection, as it is known above the engine.
struct Connection {
    stream: Option<StreamId>,
    source: Pattern,
    /// The engine has refused records, and has not said yet that it takes them again.
    is_blocked: bool,
    /// Bytes were offered and left.
    has_left: bool,
    /// Times that bytes were offered and wanted.
    offers: u64,
    /// There is nothing to be seen any more.
    is_over: bool,
}

/// Bytes that follow from their place in the stream.
#[derive(Default)]
struct Pattern {
    side: usize,
    goal: u64,
    sent: u64,
    acknowledged: u64,
    records: usize,
}

impl OurEnd {
    /// An engine with `address`, taken apart or not, and the other end of its port.
    pub(super) fn new(address: (IpAddr, u8), seed: u64, is_split: bool) -> (Self, MemoryPort) {
        let (port, far, _) = wire(seed, Impairments::default());
        let config = SoftrdmaConfig {
            addresses: vec![address],
            receive_window_bytes: WINDOW_BYTES,
            random_seed: seed,
            ..SoftrdmaConfig::default()
        };
        let engine = SoftrdmaEngine::new(port, config, Instant::ZERO).expect("a good configuration");
        let mut engine: Box<dyn Engine> = Box::new(engine);
        let mut receive = None;
        if is_split {
            let halves = engine.split().expect("this engine has halves");
            let Halves { receive: half, send, .. } = halves;
            (engine, receive) = (send, Some(half));
        }
        let connection = Connection {
            stream: None,
            source: Pattern::default(),
            is_blocked: false,
            has_left: false,
            offers: 0,
            is_over: false,
        };
        (Self { engine, receive, start: std::time::Instant::now(), local: address.0, connection }, far)
    }

    fn now(&self) -> Instant {
        Instant::from_nanoseconds(self.start.elapsed().as_nanos() as u64)
    }

    fn stream(&self) -> Result<StreamId, String> {
        self.connection.stream.ok_or_else(|| "there is no connection".to_owned())
    }

    fn resume(&mut self, stream: StreamId) {
        match &mut self.receive {
            Some(receive) => receive.resume(stream),
            None => self.engine.resume(stream),
        }
    }

    fn transmit(&mut self, now: Instant, application: &mut Application) -> Result<bool, String> {
        let Some(stream) = self.connection.stream else { return Ok(false) };
        let source = &mut self.connection.source;
        source.side = application.side();
        source.goal = application.goal;
        if self.connection.is_blocked || self.connection.is_over || source.sent >= source.goal {
            return Ok(false);
        }
        match self.engine.transmit(now, stream, source) {
            Transmitted::Drained => {}
            Transmitted::Blocked => self.connection.is_blocked = true,
            Transmitted::Gone => return Err("the engine takes nothing, and has not said why".to_owned()),
        }
        let count = self.connection.source.sent - application.sent;
        if count > 0 {
            application.note_sent(count);
        }
        Ok(count > 0)
    }
}

impl End for OurEnd {
    fn connect(&mut self, remote: SocketAddr) -> Result<(), String> {
        let stream = self.engine.connect(self.now(), remote, None).map_err(|error| error.to_string())?;
        self.connection.stream = Some(stream);
        Ok(())
    }

    fn listen(&mut self) -> Result<SocketAddr, String> {
        let local = SocketAddr::new(self.local, 0);
        let listener = self.engine.listen(self.now(), local, 1).map_err(|error| error.to_string())?;
        self.engine.listener_address(listener).ok_or_else(|| "a listener without an address".to_owned())
    }

    fn advance(&mut self, application: &mut Application) -> Result<bool, String> {
        let now = self.now();
        if let (Ok(stream), true, true) = (self.stream(), application.reads, self.connection.has_left) {
            self.connection.has_left = false;
            self.resume(stream);
        }
        let seen = application.seen.len();
        let mut upper = Upper { application, connection: &mut self.connection };
        let mut activity = self.receive.as_mut().map(|receive| receive.poll(now, &mut upper)).unwrap_or_default();
        let rest = self.engine.poll(now, &mut upper);
        activity.received += rest.received;
        activity.events += rest.events;
        let has_sent = self.transmit(now, application)?;
        self.engine.flush(now);
        Ok(has_sent || !activity.is_idle() || application.seen.len() > seen)
    }

    fn end(&mut self) -> Result<(), String> {
        let (now, stream) = (self.now(), self.stream()?);
        self.engine.close(now, stream);
        self.engine.flush(now);
        Ok(())
    }

    fn reset(&mut self) -> Result<(), String> {
        let (now, stream) = (self.now(), self.stream()?);
        self.engine.abort(now, stream);
        self.engine.flush(now);
        Ok(())
    }

    fn leave(&mut self) -> Result<(), String> {
        Err("an engine has no such thing".to_owned())
    }

    fn send_urgent(&mut self, _byte: u8) -> Result<bool, String> {
        Err("an engine has no such thing".to_owned())
    }
}

/// What is above the engine while it works.
struct Upper<'a> {
    application: &'a mut Application,
    connection: &'a mut Connection,
}

impl Upper<'_> {
    fn take(&mut self, parts: &[&[u8]]) -> usize {
        if !self.application.reads {
            self.connection.has_left = true;
            return 0;
        }
        // Now and then it leaves some for the next time, as a layer above may.
        let total: usize = parts.iter().map(|part| part.len()).sum();
        self.connection.offers += 1;
        let wanted = if self.connection.offers.is_multiple_of(LEAVES_EVERY) { total.div_ceil(2) } else { total };
        self.connection.has_left = wanted < total;
        let mut left = wanted;
        for part in parts {
            let count = part.len().min(left);
            self.application.take(&part[..count]);
            left -= count;
        }
        wanted
    }

    fn handle(&mut self, event: StreamEvent) {
        let seen = match event {
            StreamEvent::Writable { .. } => {
                self.connection.is_blocked = false;
                return;
            }
            StreamEvent::Incoming { stream, .. } => {
                self.connection.stream = Some(stream);
                Seen::Accepted
            }
            StreamEvent::Connected { .. } => Seen::Connected,
            StreamEvent::PeerClosed { .. } => Seen::End,
            StreamEvent::Closed { .. } => Seen::Closed,
            StreamEvent::ConnectFailed { reason, .. } | StreamEvent::Reset { reason, .. } => match reason {
                ResetReason::Refused => Seen::Refused,
                ResetReason::ByPeer => Seen::Reset,
                ResetReason::TimedOut => Seen::Failed(ErrorKind::TimedOut),
                ResetReason::Unreachable => Seen::Failed(ErrorKind::HostUnreachable),
                ResetReason::Other => Seen::Failed(ErrorKind::Other),
            },
        };
        self.connection.is_over |= !matches!(seen, Seen::Accepted | Seen::Connected | Seen::End);
        self.application.see(seen);
    }
}

impl Streams for Upper<'_> {
    fn handle_bytes(&mut self, _stream: StreamId, parts: &[&[u8]]) -> Result<usize, Abort> {
        Ok(self.take(parts))
    }

    fn with_source(&mut self, _stream: StreamId, use_source: &mut dyn FnMut(&mut dyn Source)) {
        use_source(&mut self.connection.source);
    }

    fn handle_event(&mut self, event: StreamEvent) {
        self.handle(event);
    }
}

impl ReceiveStreams for Upper<'_> {
    fn handle_burst(&mut self) {}

    fn handle_bytes(&mut self, _stream: StreamId, parts: &[&[u8]]) -> Result<usize, Abort> {
        Ok(self.take(parts))
    }

    fn handle_event(&mut self, event: StreamEvent) {
        self.handle(event);
    }
}

impl Source for Pattern {
    fn next(&mut self, room: usize) -> Option<Record> {
        let longest = RECORD_BYTES[self.records % RECORD_BYTES.len()];
        let length = longest.min(self.goal - self.sent).min(room as u64);
        if length == 0 {
            return None;
        }
        let record = Record { start: self.sent, length: length as u32 };
        self.sent += length;
        self.records += 1;
        Some(record)
    }

    fn write(&mut self, start: u64, out: &mut [u8]) {
        assert!(start >= self.acknowledged, "{start} was acknowledged, up to {}", self.acknowledged);
        assert!(start + out.len() as u64 <= self.sent, "{} bytes from {start} of {}", out.len(), self.sent);
        Application::fill(self.side, start, out);
    }

    fn handle_acknowledged(&mut self, through: u64) {
        assert!(through > self.acknowledged && through <= self.sent, "{through} of {}", self.sent);
        self.acknowledged = through;
    }
}
