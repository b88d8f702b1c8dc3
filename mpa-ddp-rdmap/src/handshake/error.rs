//! What can go wrong: with the peer's frame, and with the caller's use.

use super::{MAX_PRIVATE_DATA, MAX_READ_DEPTH};
use crate::negotiated::{Negotiated, Revision, RtrKinds};
use crate::terminate::Terminate;

/// Why a peer's frame does not lead to a connection.
///
/// With [`Self::NoMatchingRtr`] and [`Self::InsufficientIrd`] both sides have entered full operation, and the peer is told by a
/// TERMINATE, our first and last FPDU, framed as [`Self::negotiated`] says. After any other the TCP connection is to be
/// closed at once and nothing sent (RFC 5044 §8, code 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The peer does not speak MPA.
    #[error("not an MPA frame: byte {position} of the key is {found:#04x}; the peer's program does not speak iWARP")]
    BadKey {
        /// Offset of the first wrong byte.
        position: usize,
        /// What stands there.
        found: u8,
    },
    /// The reply to our request is a request.
    #[error("the peer sent an MPA request instead of a reply: both sides are initiators; one of them must listen")]
    BothInitiators,
    /// A revision that is not ours.
    #[error("MPA revision {found} of the peer is not supported; revisions up to {highest} are")]
    UnknownRevision {
        /// The peer's.
        found: u8,
        /// The highest we take.
        highest: u8,
    },
    /// The reply has another revision than the request.
    #[error("the peer answered a request of MPA revision {asked:?} in revision {found:?}; try revision 1")]
    ReplyRevision {
        /// Ours.
        asked: Revision,
        /// The peer's.
        found: Revision,
    },
    /// The reply has the request's revision, but no enhanced data.
    #[error("the peer's reply lacks the enhanced connection data that revision 2 asked for; try MPA revision 1")]
    ReplyNotEnhanced,
    /// The frame announces more private data than the RFC allows.
    #[error("the peer announces {length} bytes of private data; at most {MAX_PRIVATE_DATA} are allowed")]
    PrivateDataTooLong {
        /// Bytes announced.
        length: u16,
    },
    /// The frame says that it has enhanced data and is too short for them.
    #[error("the peer announces enhanced connection data, which take 4 bytes, in {length} bytes of private data")]
    EnhancedDataMissing {
        /// Bytes announced.
        length: u16,
    },
    /// The initiator did not wait for the reply.
    #[error("the peer sent bytes behind its MPA request before it had the reply")]
    BytesBehindRequest,
    /// The stream ended before the frame was whole, or before the reply was sent.
    #[error("the peer closed the connection {received} bytes into its MPA frame")]
    EndOfStream {
        /// Bytes of the frame that had arrived.
        received: usize,
    },
    /// The two sides take no first message in common, or one wants peer-to-peer and the other does not.
    #[error("no ready-to-receive message suits both sides: we can send {ours:?}, the peer takes {peers:?}")]
    NoMatchingRtr {
        /// What we offered; none if we wanted client-server.
        ours: RtrKinds,
        /// What the reply names; none if the peer wants client-server.
        peers: RtrKinds,
        /// How to frame the TERMINATE.
        negotiated: Negotiated,
    },
    /// The responder wants more outstanding reads than we take.
    #[error("the peer wants {wanted} outstanding reads, we offered {ird}; raise ird")]
    InsufficientIrd {
        /// The responder's ORD.
        wanted: u16,
        /// Our IRD.
        ird: u16,
        /// How to frame the TERMINATE.
        negotiated: Negotiated,
    },
}

impl HandshakeError {
    /// What the peer is told, if it is told anything: layer LLP, type MPA (RFC 6581 §8).
    pub fn terminate(&self) -> Option<Terminate> {
        match self {
            Self::InsufficientIrd { .. } => Some(Terminate::mpa(0x06)),
            Self::NoMatchingRtr { .. } => Some(Terminate::mpa(0x07)),
            // RFC 5044 §8: after an invalid frame (code 4) the connection closes at once.
            Self::BadKey { .. }
            | Self::BothInitiators
            | Self::UnknownRevision { .. }
            | Self::ReplyRevision { .. }
            | Self::ReplyNotEnhanced
            | Self::PrivateDataTooLong { .. }
            | Self::EnhancedDataMissing { .. }
            | Self::BytesBehindRequest
            | Self::EndOfStream { .. } => None,
        }
    }

    /// How to frame the TERMINATE, for the errors that are reported by one.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        match self {
            Self::NoMatchingRtr { negotiated, .. } | Self::InsufficientIrd { negotiated, .. } => Some(negotiated),
            _ => None,
        }
    }
}

/// What a caller asked for that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeMisuse {
    /// More private data than fits.
    #[error("{length} bytes of private data do not fit an MPA frame; at most {limit} do")]
    PrivateDataTooLong {
        /// Bytes given.
        length: usize,
        /// Bytes that fit.
        limit: usize,
    },
    /// IRD or ORD is too large.
    #[error("a read depth of {value} cannot be expressed in an MPA frame; at most {MAX_READ_DEPTH} can")]
    ReadDepth {
        /// The value.
        value: u16,
    },
    /// Peer-to-peer was asked for in revision 1.
    #[error("MPA revision 1 has no peer-to-peer mode; use revision 2 or offer no ready-to-receive message")]
    PeerToPeerNeedsRevision2,
    /// Accept or reject before there was a request.
    #[error("no MPA request has arrived to be answered")]
    NoRequest,
    /// Accept or reject for the second time.
    #[error("the MPA request has been answered already")]
    AlreadyAnswered,
}
