//! The MPA Request and Reply (RFC 5044 §7.1, RFC 6581): the two frames that turn a TCP connection into an MPA one.
//!
//! An [`Initiator`] makes the request and reads the reply, a [`Responder`] reads the request and makes the reply. Both
//! are handed the bytes that the stream holds so far, consume a frame when all of it is there and nothing before, and
//! refuse a peer at the first byte that no valid frame can have. What they settle is a [`Negotiated`](crate::negotiated::Negotiated).
//!
//! Timeouts are the caller's (RFC 5044 §7.1.2): a peer that never finishes its frame costs at most
//! [`MAX_FRAME`] bytes of receive buffer.

mod error;
mod frame;
mod initiator;
mod responder;
#[cfg(test)]
mod tests;

pub use error::{HandshakeError, HandshakeMisuse};
pub use frame::MAX_FRAME;
pub use initiator::{Initiator, InitiatorOutcome};
pub use responder::{RequestReceived, Responder};

use crate::negotiated::{Revision, RtrKinds};

/// Most bytes of private data in a frame, the four bytes of enhanced data of revision 2 included (RFC 5044 §7.1.1,
/// RFC 6581 §9). See [`HandshakeConfig::max_private_data`].
pub const MAX_PRIVATE_DATA: usize = 512;

/// Largest IRD or ORD that a frame can carry: 14 bits, of which all ones mean "not negotiated" (RFC 6581 §9.1).
pub const MAX_READ_DEPTH: u16 = 0x3FFE;

/// What this side brings to the negotiation.
///
/// Markers are not in it: we never ask for them, and add them to what we send when the peer asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeConfig {
    /// Ask for CRCs. They are on as soon as either side asks (RFC 5044 §7.1.1).
    pub crc: bool,
    /// Initiator: the revision to ask for. Responder: the highest to accept; revision 1 is always accepted.
    pub revision: Revision,
    /// Read Requests of the peer that we can take at once; at most [`MAX_READ_DEPTH`]. A responder names the values that
    /// count when it accepts; these two go into a reply that rejects.
    pub ird: u16,
    /// Read Requests that we want to have outstanding; at most [`MAX_READ_DEPTH`].
    pub ord: u16,
    /// Initiator: the kinds of first message to offer; none: client-server. Responder: the kinds to take from an
    /// initiator that wants peer-to-peer; none means all, for at least one must be taken (RFC 6581 §9.2).
    pub rtr: RtrKinds,
}

impl HandshakeConfig {
    /// Most bytes of private data that the application can send in this revision: 512, in revision 2 508.
    pub fn max_private_data(&self) -> usize {
        frame::max_private_data(self.revision == Revision::V2)
    }
}

impl Default for HandshakeConfig {
    /// CRC on, revision 2, client-server, one Read at a time either way.
    fn default() -> Self {
        Self { crc: true, revision: Revision::V2, ird: 1, ord: 1, rtr: RtrKinds::NONE }
    }
}
