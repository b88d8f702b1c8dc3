//! iWARP as a host implements it: MPA (RFC 5044, 6581), DDP (RFC 5041) and RDMAP (RFC 5040, 7306), sans-IO.
//!
//! From the top down:
//!
//! - [`work`]: requests, completions, and what the halves tell each other.
//! - [`memory`]: the one callback through which memory is reached.
//! - [`terminate`], [`error`]: what a peer can do wrong, and what it is told: one table.
//! - [`inbound`], [`outbound`]: the two halves of a connection.
//! - [`handshake`]: the request and the reply that open a connection.
//! - [`negotiated`], [`limits`], [`record`], [`statistics`]: what the halves are made from and what they give.
//! - [`wire`]: headers as they travel.
//! - [`types`]: the numbers that travel.

#![forbid(unsafe_code)]

pub mod error;
mod framing;
pub mod handshake;
pub mod inbound;
mod lent;
pub mod limits;
pub mod memory;
pub mod negotiated;
pub mod outbound;
pub mod record;
mod segment;
pub mod statistics;
pub mod terminate;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod types;
pub mod wire;
pub mod work;

pub use error::{OffendingSegment, ProtocolError, Violation};
pub use framing::{MAX_FPDU, MAX_RECEIVED_FPDU, MIN_MULPDU};
pub use handshake::{
    HandshakeConfig, HandshakeError, HandshakeMisuse, Initiator, InitiatorOutcome, RequestReceived, Responder,
};
pub use inbound::{Inbound, Unfinished};
pub use limits::*;
pub use memory::*;
pub use negotiated::*;
pub use outbound::Outbound;
pub use record::*;
pub use statistics::*;
pub use terminate::{Blamed, DdpHeader, Layer, Terminate, TerminateReceived, TerminatedHeaders};
pub use types::*;
pub use work::*;
