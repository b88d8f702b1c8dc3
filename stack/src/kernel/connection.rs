//! One connection: what is known of it, and the questions the engine asks about that.

use std::net::SocketAddr;

use socket2::Socket;

use super::buffer::{Ring, Stage};
use super::poller::EventFlags;
use crate::stream::ResetReason;
use crate::time::Instant;

/// A connection. The two directions end one by one.
pub(super) struct Connection {
    pub(super) socket: Socket,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) phase: Phase,
    pub(super) sending: Sending,
    pub(super) receiving: Receiving,
    /// Bytes that the sink left.
    pub(super) ring: Option<Ring>,
    /// Whether the connection stands in the pool's list of holders.
    pub(super) is_ring_holder: bool,
    /// Records that the socket has not taken.
    pub(super) stage: Option<Stage>,
    /// Whether the connection stands in the pool's list of holders.
    pub(super) is_stage_holder: bool,
    /// The sink gave up: what still arrives is read, so that the end is seen, and dropped.
    pub(super) is_discarding: bool,
    /// The socket took less than it was given.
    pub(super) is_blocked: bool,
    /// A `transmit` was answered with `Blocked`, and `Writable` is owed.
    pub(super) is_writable_owed: bool,
    /// `resume` was called.
    pub(super) is_resumed: bool,
    /// Stands in the engine's queue of connections to serve.
    pub(super) is_queued: bool,
    /// Stands in the engine's list of connections to flush.
    pub(super) is_dirty: bool,
    /// Writing met an error. What the peer sent before is still read.
    pub(super) failure: Option<ResetReason>,
    /// What epoll was asked for; `None`: the socket is not in it.
    pub(super) interest: Option<EventFlags>,
    pub(super) deadline: Option<Instant>,
    pub(super) segment_size: usize,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The handshake is under way.
    Connecting,
    /// The handshake ended within `connect`; the event is owed.
    Answered(Result<(), ResetReason>),
    /// Established.
    Open,
}

/// Our direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    Open,
    /// `close` was called, and the stage is not empty.
    Draining,
    /// Our FIN is on its way.
    Shut,
}

/// The peer's direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    Open,
    /// The peer's FIN was read; not all bytes before it are consumed.
    Ended,
    /// `PeerClosed` was reported.
    Reported,
}

impl Connection {
    pub(super) const fn new(socket: Socket, local: SocketAddr, remote: SocketAddr, phase: Phase) -> Self {
        Self {
            socket,
            local,
            remote,
            phase,
            sending: Sending::Open,
            receiving: Receiving::Open,
            ring: None,
            is_ring_holder: false,
            stage: None,
            is_stage_holder: false,
            is_discarding: false,
            is_blocked: false,
            is_writable_owed: false,
            is_resumed: false,
            is_queued: false,
            is_dirty: false,
            failure: None,
            interest: None,
            deadline: None,
            segment_size: 0,
        }
    }

    /// Whether a read could bring anything that there is room for, rings being of `ring_bytes`.
    #[inline]
    pub(super) fn wants_read(&self, ring_bytes: usize) -> bool {
        self.phase == Phase::Open
            && self.receiving == Receiving::Open
            && self.ring.as_ref().is_none_or(|ring| ring.len() < ring_bytes)
    }

    /// What epoll is to watch.
    #[inline]
    pub(super) fn wanted_interest(&self, ring_bytes: usize) -> EventFlags {
        let mut wanted = EventFlags::empty();
        match self.phase {
            Phase::Connecting => wanted |= EventFlags::OUT,
            Phase::Answered(_) => {}
            Phase::Open => {
                wanted.set(EventFlags::IN, self.wants_read(ring_bytes));
                wanted.set(EventFlags::OUT, self.is_blocked);
            }
        }
        wanted
    }

    /// Whether the ring is the pool's, looked at anew; a connection whose is not leaves the pool's list.
    pub(super) fn renew_ring_hold(&mut self) -> bool {
        self.is_ring_holder = self.ring.as_ref().is_some_and(Ring::is_lent);
        self.is_ring_holder
    }

    /// The same of the stage.
    pub(super) fn renew_stage_hold(&mut self) -> bool {
        self.is_stage_holder = self.stage.as_ref().is_some_and(Stage::is_lent);
        self.is_stage_holder
    }

    pub(super) fn has_unconsumed(&self) -> bool {
        self.ring.is_some()
    }
}
