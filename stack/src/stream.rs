//! The face of a byte stream, the same for every engine.
//!
//! An [`Engine`] owns connections and whatever carries them. The layer above lends it a [`Sink`] for what arrives and a
//! [`Source`] for what leaves; bytes are lent in both directions, never owned by the other side:
//!
//! - Received bytes are offered in place, in several slices, cut anywhere. What the sink does not consume is offered
//!   again, together with what arrived since.
//! - Bytes to send are named by their offset in the stream. The source can write any range again until it is
//!   acknowledged, so an engine needs no send buffer. An engine that copies says "acknowledged" at once.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::port::PortStatistics;
use crate::time::Instant;

/// Names a connection of one [`Engine`]. Never reused: an old name finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId {
    /// Slot in the engine's table; small, reused, fit to index an array.
    pub index: u32,
    /// Tells the users of a slot apart.
    pub generation: u32,
}

/// Names a listener of one [`Engine`]. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId {
    /// Slot in the engine's table.
    pub index: u32,
    /// Tells the users of a slot apart.
    pub generation: u32,
}

/// The layer above cannot go on with a stream. The engine stops offering its bytes; the layer above ends the stream
/// with [`Engine::close`] or [`Engine::abort`] once it has said what it has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort;

/// Where received bytes go.
pub trait Sink {
    /// Takes bytes from the front of `parts` and tells how many. The rest is offered again with what follows it, once
    /// more has arrived or [`Engine::resume`] was called.
    fn handle_bytes(&mut self, parts: &[&[u8]]) -> Result<usize, Abort>;
}

/// A piece of the stream that should travel whole: one FPDU, or one handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Offset of its first byte in the stream; the stream starts at 0.
    pub start: u64,
    /// Bytes in it.
    pub length: u32,
}

impl Record {
    /// Offset of the byte behind it.
    pub const fn end(&self) -> u64 {
        self.start + self.length as u64
    }
}

/// Where bytes to send come from.
pub trait Source {
    /// The next record, of at most `room` bytes; `None` while there is nothing to send or nothing that fits. Records follow
    /// each other without gaps, and their boundaries never change afterwards.
    fn next(&mut self, room: usize) -> Option<Record>;

    /// Whether [`Self::next`] may have a record, given room: `false` saves asking. It may say `true` in vain.
    fn has_more(&self) -> bool {
        true
    }

    /// Writes stream bytes `start .. start + out.len()`, all of them committed by [`Self::next`] and not yet acknowledged.
    /// Asked again for the same range it writes the same bytes (as long as the application leaves its buffer alone).
    fn write(&mut self, start: u64, out: &mut [u8]);

    /// Everything before `through` has reached the peer, or was copied by the engine: it is never asked for again.
    fn handle_acknowledged(&mut self, through: u64);
}

/// The layer above, as an engine sees it while it works.
pub trait Streams {
    /// See [`Sink::handle_bytes`].
    fn handle_bytes(&mut self, stream: StreamId, parts: &[&[u8]]) -> Result<usize, Abort>;

    /// Calls `use_source` with the source of `stream`, for retransmission and acknowledgement; not at all when the
    /// stream is unknown to the layer above.
    fn with_source(&mut self, stream: StreamId, use_source: &mut dyn FnMut(&mut dyn Source));

    /// Something happened to a stream or listener.
    fn handle_event(&mut self, event: StreamEvent);
}

/// What happens to streams. After `ConnectFailed`, `Closed` or `Reset` the name of the stream is void.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// A peer connected to a listener. The stream is established.
    Incoming {
        /// Which listener.
        listener: ListenerId,
        /// The new stream.
        stream: StreamId,
        /// Our end.
        local: SocketAddr,
        /// The peer's end.
        remote: SocketAddr,
    },
    /// [`Engine::connect`] succeeded.
    Connected {
        /// Which stream.
        stream: StreamId,
        /// Our end.
        local: SocketAddr,
    },
    /// [`Engine::connect`] failed.
    ConnectFailed {
        /// Which stream.
        stream: StreamId,
        /// Why.
        reason: ResetReason,
    },
    /// A stream that refused records has room again.
    Writable {
        /// Which stream.
        stream: StreamId,
    },
    /// The peer sent its last byte, and all bytes before were consumed. Our direction is still open.
    PeerClosed {
        /// Which stream.
        stream: StreamId,
    },
    /// Both directions ended in order.
    Closed {
        /// Which stream.
        stream: StreamId,
    },
    /// The stream broke.
    Reset {
        /// Which stream.
        stream: StreamId,
        /// Why.
        reason: ResetReason,
    },
}

/// Why a stream broke or never came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResetReason {
    /// Nobody listens there.
    #[error("connection refused: nothing listens at the remote address")]
    Refused,
    /// The peer reset the connection.
    #[error("connection reset by the peer")]
    ByPeer,
    /// No answer within the time allowed.
    #[error("connection timed out")]
    TimedOut,
    /// No route, or the link is down.
    #[error("remote address unreachable")]
    Unreachable,
    /// Anything else the engine met.
    #[error("connection failed")]
    Other,
}

/// Why [`Engine::connect`] could not begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The engine's limit of connections is reached.
    #[error("the limit of {limit} connections is reached; raise `max_connections`")]
    TooManyConnections {
        /// The configured limit.
        limit: usize,
    },
    /// No address of ours can reach the peer.
    #[error("no local address can reach {remote}")]
    NoRoute {
        /// The peer's address.
        remote: SocketAddr,
    },
    /// The local address asked for is not ours, or all its ports are taken.
    #[error("local address {local} cannot be used: {reason}")]
    LocalAddress {
        /// What was asked for.
        local: IpAddr,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system refused.
    #[error("connecting to {remote} failed: {reason}")]
    System {
        /// The peer's address.
        remote: SocketAddr,
        /// What the system said.
        reason: String,
    },
}

/// Why [`Engine::listen`] failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// Somebody listens there already.
    #[error("{local} is in use; choose another port, or port 0 for any")]
    AddressInUse {
        /// What was asked for.
        local: SocketAddr,
    },
    /// Not an address of this host.
    #[error("{local} is not an address of this device")]
    AddressNotOurs {
        /// What was asked for.
        local: SocketAddr,
    },
    /// The engine's limit of listeners is reached.
    #[error("the limit of {limit} listeners is reached; raise `max_listeners`")]
    TooManyListeners {
        /// The configured limit.
        limit: usize,
    },
    /// The operating system refused.
    #[error("listening on {local} failed: {reason}")]
    System {
        /// What was asked for.
        local: SocketAddr,
        /// What the system said.
        reason: String,
    },
}

/// What [`Engine::transmit`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transmitted {
    /// The source has nothing more.
    Drained,
    /// The stream takes no more now; [`StreamEvent::Writable`] follows.
    Blocked,
    /// The stream is unknown, closing or broken: it takes nothing any more.
    Gone,
}

/// What one [`Engine::poll`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Packets or reads that brought something. Zero: nothing arrived.
    pub received: usize,
    /// Events reported.
    pub events: usize,
}

impl Activity {
    /// Whether there was nothing to do.
    pub const fn is_idle(&self) -> bool {
        self.received == 0 && self.events == 0
    }
}

/// Counters of an engine since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineStatistics {
    /// Payload bytes that were offered to sinks for the first time.
    pub received_bytes: u64,
    /// Payload bytes that this engine copied on their way to a sink (kernel copies do not count; they are not ours).
    pub receive_copied_bytes: u64,
    /// Payload bytes taken from sources.
    pub transmitted_bytes: u64,
    /// Connections open now, half-open ones included.
    pub connections: u64,
    /// Connections that were refused because a limit or backlog was reached.
    pub refused_connections: u64,
    /// Connection requests that were answered without keeping anything, for the peer to bring back (RFC 4987 §3.6), because a
    /// backlog was full.
    pub stateless_answers: u64,
    /// Segments sent again; 0 where the engine cannot know.
    pub retransmitted_segments: u64,
    /// Frames dropped for a bad checksum or a malformed header.
    pub malformed_packets: u64,
    /// The port's counters, where there is a port.
    pub port: Option<PortStatistics>,
}

/// What a receiving half tells while it works.
pub trait ReceiveStreams {
    /// Packets were taken from the port, and none of them has been looked at. Whatever the layer above asked a peer for and the
    /// peer answers in one of them was on its way before: the layer above makes itself ready for the answers now.
    fn handle_burst(&mut self);

    /// See [`Sink::handle_bytes`].
    fn handle_bytes(&mut self, stream: StreamId, parts: &[&[u8]]) -> Result<usize, Abort>;

    /// Something arrived that is no bytes. In order with the bytes of the stream.
    fn handle_event(&mut self, event: StreamEvent);
}

/// The half of an engine that takes packets in ([`Engine::split`]).
pub trait ReceiveEngine: Send {
    /// Receives a bounded amount of work: offers bytes, reports events. What the other half has to know it is told inside the
    /// engine.
    fn poll(&mut self, now: Instant, streams: &mut dyn ReceiveStreams) -> Activity;

    /// See [`Engine::resume`].
    fn resume(&mut self, stream: StreamId);

    /// See [`Engine::next_deadline`]; for this half.
    fn next_deadline(&mut self, now: Instant) -> Option<Instant>;
}

/// Whether one half of an engine has left something for the other, which then has to be polled soon. Asked by any thread.
pub trait HalvesMail: Send + Sync {
    /// The receiving half has to look.
    fn is_for_receive(&self) -> bool;

    /// The sending half has to look.
    fn is_for_send(&self) -> bool;
}

/// The two halves of an engine.
pub struct Halves {
    /// Receives.
    pub receive: Box<dyn ReceiveEngine>,
    /// Does everything else, and receives nothing: [`Engine::poll`] handles what the other half told it, runs timers and
    /// reports events, and [`Engine::resume`] does nothing.
    pub send: Box<dyn Engine>,
    /// What lies between them.
    pub mail: std::sync::Arc<dyn HalvesMail>,
}

/// A transport that carries byte streams. All methods return at once.
pub trait Engine: Send {
    /// Takes the engine apart, so that two threads can receive and send at the same time; `None` if it is of one piece.
    fn split(self: Box<Self>) -> Option<Halves> {
        None
    }

    /// Begins a connection. `Connected` or `ConnectFailed` follows.
    fn connect(&mut self, now: Instant, remote: SocketAddr, local: Option<IpAddr>) -> Result<StreamId, ConnectError>;

    /// Listens. At most `backlog` connections wait half-open (the engine may round up to at least 1). Port 0 chooses a port.
    fn listen(&mut self, now: Instant, local: SocketAddr, backlog: usize) -> Result<ListenerId, ListenError>;

    /// The address a listener is bound to.
    fn listener_address(&self, listener: ListenerId) -> Option<SocketAddr>;

    /// Ends a listener. Streams it accepted live on.
    fn close_listener(&mut self, now: Instant, listener: ListenerId);

    /// Receives a bounded amount of work, offers bytes, runs timers, reports events.
    fn poll(&mut self, now: Instant, streams: &mut dyn Streams) -> Activity;

    /// Whether the last poll left everything but the bytes that it brought to the next one. Never twice in a row.
    fn has_rest(&self) -> bool {
        false
    }

    /// Does at once what the last poll has left to the next one, if it has: for a layer above that cannot go on before it knows what
    /// was acknowledged.
    fn settle(&mut self, _now: Instant, _streams: &mut dyn Streams) {}

    /// Takes records from `source` until it has none or the stream has no room. They leave at the latest with
    /// [`Self::flush`].
    fn transmit(&mut self, now: Instant, stream: StreamId, source: &mut dyn Source) -> Transmitted;

    /// Lets everything leave that waits: called once a burst, after the transmissions.
    fn flush(&mut self, now: Instant);

    /// Offers the unconsumed bytes of `stream` again at the next [`Self::poll`], though nothing new arrived.
    fn resume(&mut self, stream: StreamId);

    /// Largest record, in bytes, that travels in one segment of `stream` now.
    fn segment_size(&self, stream: StreamId) -> usize;

    /// The two ends of a stream: ours, the peer's.
    fn addresses(&self, stream: StreamId) -> Option<(SocketAddr, SocketAddr)>;

    /// Addresses of this host that peers can connect to; empty if the operating system knows better.
    fn local_addresses(&self) -> Vec<IpAddr>;

    /// Ends our direction after everything taken so far. `PeerClosed` and then `Closed`, or `Reset`, follow.
    fn close(&mut self, now: Instant, stream: StreamId);

    /// Resets the stream. Its name is void; no event follows.
    fn abort(&mut self, now: Instant, stream: StreamId);

    /// When [`Self::poll`] has to be called next even if nothing arrives.
    fn next_deadline(&mut self, now: Instant) -> Option<Instant>;

    /// A descriptor that is readable (level-triggered) whenever [`Self::poll`] has something to do, for sleeping; `None`
    /// where the port has none and must be polled.
    fn readiness(&self) -> Option<Arc<OwnedFd>>;

    /// Counters.
    fn statistics(&self) -> EngineStatistics;
}
