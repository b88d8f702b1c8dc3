//! What the receive side and the host tell each other: all that is shared between receiving and sending.
//!
//! Receiving is [`super::ReceiveSide`]: the Inbound halves, by stream. Everything else is [`super::Host`]. Neither ever looks
//! into the other; both leave messages, in order, and whoever drives them delivers:
//!
//! - Connection management stays in the host. What comes before a connection is established reaches it as a bounded copy
//!   ([`ToHost::Greeting`]); it answers how much of it is done with, and hands an Inbound over ([`ToReceive::Install`]).
//! - An Inbound is with the receive side from its installation until it comes back ([`ToHost::Stopped`]). As long as it is
//!   there, only the receive side takes receives of its queue pair, completes them and places bytes. So the host flushes
//!   nothing, and answers nobody who waits for a flush, before it has the Inbound back.
//! - What Outbound tells Inbound ([`ToReceive::Inbound`]) is left before the record leaves that it speaks of, and is delivered
//!   before bytes are looked at that arrived later. So Inbound knows of a request before it sees the answer.

use std::collections::VecDeque;
use std::sync::Arc;

use softrdma_mpa_ddp_rdmap::{Inbound, ProtocolError, ToInbound, ToOutbound};
use softrdma_stack::mailbox::Mailbox;
use softrdma_stack::stream::{StreamEvent, StreamId};

use super::Host;
use super::receive::ReceiveSide;
use crate::queue_pair::QueuePairShared;

/// Names a connection to both sides. Either part may be in use again when a message arrives; both together are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    /// The engine's name.
    pub(super) stream: StreamId,
    /// The host's slot.
    pub(super) slot: u32,
}

/// From the receive side to the host.
#[derive(Debug)]
pub(super) enum ToHost {
    /// The engine saw something while it received.
    Event(StreamEvent),
    /// The front of a stream that is not established, copied. One at a time: another follows after [`ToReceive::Considered`].
    Greeting { stream: StreamId, bytes: Vec<u8> },
    /// Inbound tells Outbound.
    Outbound(Connection, ToOutbound),
    /// The peer broke a rule. Nothing more is received.
    Violation(Connection, Box<ProtocolError>),
    /// The peer sent a TERMINATE. Nothing more is received.
    PeerTerminated(Connection),
    /// A message waits for a receive from now on, or none does any more.
    Waiting(Connection, bool),
    /// The queues of the queue pair found something out about themselves.
    CheckQueues(Connection),
    /// The Inbound comes back: nothing is placed or completed for this connection any more. Once for each installation, mostly
    /// because [`ToReceive::Stop`] asked for it.
    Stopped(Connection, Box<Inbound>),
}

/// From the host to the receive side.
#[derive(Debug)]
pub(super) enum ToReceive {
    /// The host has looked at a greeting, and is done with this many bytes of it.
    Considered { stream: StreamId, consumed: usize },
    /// The connection is established: its bytes are for this Inbound.
    Install { connection: Connection, inbound: Box<Inbound>, queue_pair: Arc<QueuePairShared> },
    /// Outbound tells Inbound.
    Inbound(StreamId, ToInbound),
    /// No receive was posted in time.
    GiveUpWaiting(StreamId),
    /// It is time to look whether peers that have begun an FPDU or a message go on with it, once nothing more lies in the port.
    LookForStalls,
    /// Whatever still arrives does not matter: it is taken, so that the peer's end can be seen.
    Discard(StreamId),
    /// The Inbound is wanted back; what still arrives does not matter.
    Stop(StreamId),
    /// The stream is gone.
    Remove(StreamId),
}

/// Where messages are left, in order.
#[derive(Debug)]
pub(super) enum Outbox<T> {
    /// One thread drives both sides ([`deliver`]).
    Here(VecDeque<T>),
    /// Each side has a turn of its own.
    Shared(Arc<Mailbox<T>>),
}

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Self::Here(VecDeque::new())
    }
}

impl<T> Outbox<T> {
    #[inline]
    pub(super) fn push(&mut self, message: T) {
        match self {
            Self::Here(messages) => messages.push_back(message),
            Self::Shared(mailbox) => mailbox.push(message),
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Here(messages) => messages.is_empty(),
            Self::Shared(mailbox) => mailbox.is_empty(),
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<T> {
        match self {
            Self::Here(messages) => messages.pop_front(),
            Self::Shared(mailbox) => mailbox.pop(),
        }
    }
}

/// Delivers what both sides left, until nothing is on its way. For those who drive both in one thread.
#[inline]
pub(super) fn deliver(receive: &mut ReceiveSide, host: &mut Host) {
    loop {
        if let Some(message) = receive.to_host.pop() {
            host.handle_mail(message);
        } else if let Some(message) = host.to_receive.pop() {
            receive.handle_mail(message);
        } else {
            return;
        }
    }
}
