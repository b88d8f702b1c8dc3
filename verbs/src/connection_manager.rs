//! Connections as rdma_cm has them: ids, events on a channel, connect and accept with private data.

mod event_channel;
mod id;

use std::net::SocketAddr;

use softrdma_mpa_ddp_rdmap::HandshakeMisuse;
use softrdma_stack::stream::{ConnectError, ListenError, ResetReason};

pub use event_channel::{CmEvent, EventChannel};
pub(crate) use id::CmIdShared;
pub use id::{CmId, ConnectParameters};

use crate::queue_pair::QueuePairState;

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Ours.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
}

/// Depths that a peer offers, or that both agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionOffer {
    /// Reads and atomics that its side answers at a time.
    pub ird: u16,
    /// Reads and atomics that its side has outstanding at a time.
    pub ord: u16,
}

/// What happened to an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CmEventKind {
    /// [`CmId::resolve_address`] is done.
    AddressResolved,
    /// [`CmId::resolve_route`] is done.
    RouteResolved,
    /// A peer wants to connect; the event's id is the new connection, to be accepted or rejected.
    ConnectRequest {
        /// The peer's depths.
        offer: ConnectionOffer,
        /// What the peer sent along.
        private_data: Vec<u8>,
    },
    /// Data may flow.
    Established {
        /// Our depths, as agreed.
        offer: ConnectionOffer,
        /// What the acceptor sent along (empty on the accepting side).
        private_data: Vec<u8>,
    },
    /// The peer said no.
    Rejected {
        /// What it sent along.
        private_data: Vec<u8>,
    },
    /// The peer cannot be reached, or did not answer in time.
    Unreachable {
        /// What was found.
        reason: ResetReason,
    },
    /// The peer answered, but not as the protocol has it.
    ConnectError {
        /// What was wrong.
        reason: String,
    },
    /// The connection is over; every request has completed.
    Disconnected,
}

/// Why a connection manager call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CmError {
    /// The id is not in a state for it.
    #[error("{operation}: {state}")]
    WrongState {
        /// The call.
        operation: &'static str,
        /// What the id is instead.
        state: &'static str,
    },
    /// The queue pair cannot be connected.
    #[error("queue pair {number} is {state:?}: only one that is in INIT and has no connection can be connected")]
    QueuePairState {
        /// Its number.
        number: u32,
        /// Its state.
        state: QueuePairState,
    },
    /// The queue pair is one of another device than the id.
    #[error("queue pair {number} belongs to another device than the id; create one on the id's device")]
    OtherDevice {
        /// Its number.
        number: u32,
    },
    /// A depth beyond the device's limit.
    #[error("{what} of {value} exceeds the device's {limit} (`limits.max_outstanding_reads`)")]
    Depth {
        /// IRD or ORD.
        what: &'static str,
        /// What was asked for.
        value: u16,
        /// The device's limit.
        limit: u16,
    },
    /// The address is unspecified, and what is configured for that case has none of its family.
    #[error(
        "nothing to listen on for {address}: `listen_addresses` is {configured:?}; name an address, or extend it (empty: all)"
    )]
    ListenAddresses {
        /// What was asked for.
        address: std::net::SocketAddr,
        /// What is configured.
        configured: Vec<std::net::IpAddr>,
    },
    /// See there.
    #[error(transparent)]
    Listen(ListenError),
    /// See there.
    #[error(transparent)]
    Connect(ConnectError),
    /// Private data too long, or the like.
    #[error(transparent)]
    Handshake(HandshakeMisuse),
    /// The device's thread has gone.
    #[error("the device is shutting down")]
    DeviceGone,
}
