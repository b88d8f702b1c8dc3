//! The side that asks.

use super::frame::{Enhancement, Frame, Kind, max_private_data};
use super::{HandshakeConfig, HandshakeError, HandshakeMisuse, MAX_READ_DEPTH};
use crate::negotiated::{Negotiated, Revision, Role, RtrKind, RtrKinds};

/// The side that sends the MPA Request.
#[derive(Debug)]
pub struct Initiator {
    config: HandshakeConfig,
    request: Vec<u8>,
    answered: bool,
}

/// What the reply said. `peer_ird` and `peer_ord` are the responder's own numbers, for the application (RFC 6581 §9.1); `None`: it
/// left them to the application, or the connection is of revision 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitiatorOutcome {
    /// The connection stands; FPDUs follow.
    Accepted {
        /// How to go on.
        negotiated: Negotiated,
        /// The responder's private data.
        private_data: Vec<u8>,
        /// The responder's IRD.
        peer_ird: Option<u16>,
        /// The responder's ORD.
        peer_ord: Option<u16>,
    },
    /// The responder does not want the connection. MPA is over, the TCP connection is the caller's to close.
    Rejected {
        /// The responder's private data.
        private_data: Vec<u8>,
        /// The responder's IRD.
        peer_ird: Option<u16>,
        /// The ORD that the responder would need.
        peer_ord: Option<u16>,
    },
}

impl Initiator {
    /// Prepares the request.
    ///
    /// # Errors
    /// Private data above [`HandshakeConfig::max_private_data`], depths above [`MAX_READ_DEPTH`], peer-to-peer in revision 1.
    pub fn new(config: &HandshakeConfig, private_data: &[u8]) -> Result<Self, HandshakeMisuse> {
        let enhanced = config.revision == Revision::V2;
        if !enhanced && !config.rtr.is_empty() {
            return Err(HandshakeMisuse::PeerToPeerNeedsRevision2);
        }
        check_depths(config.ird, config.ord)?;
        check_private_data(private_data, enhanced)?;
        let frame = Frame {
            kind: Kind::Request,
            markers: false,
            crc: config.crc,
            rejected: false,
            revision: config.revision,
            enhancement: enhanced.then_some(Enhancement {
                rtr: Some(config.rtr).filter(|rtr| !rtr.is_empty()),
                ird: Some(config.ird),
                ord: Some(config.ord),
            }),
            private_data: private_data.to_vec(),
        };
        Ok(Self { config: *config, request: frame.to_bytes(), answered: false })
    }

    /// The bytes to send.
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Reads the reply from `parts`, all bytes of the stream that were not consumed yet. Gives the bytes consumed (none
    /// until the reply is whole; FPDUs behind it are left alone) and, once, the outcome.
    ///
    /// # Errors
    /// The reply is no answer to the request; the connection is over.
    pub fn handle_bytes(&mut self, parts: &[&[u8]]) -> Result<(usize, Option<InitiatorOutcome>), HandshakeError> {
        if self.answered {
            return Ok((0, None));
        }
        match Frame::read(Kind::Reply, Revision::V2, parts)? {
            None => Ok((0, None)),
            Some((length, reply)) => {
                let outcome = self.outcome(reply)?;
                self.answered = true;
                Ok((length, Some(outcome)))
            }
        }
    }

    /// The stream ended with `received` bytes of the reply.
    pub fn handle_end_of_stream(&self, received: usize) -> HandshakeError {
        HandshakeError::EndOfStream { received }
    }

    fn outcome(&self, reply: Frame) -> Result<InitiatorOutcome, HandshakeError> {
        let peer_ird = reply.enhancement.and_then(|enhancement| enhancement.ird);
        let peer_ord = reply.enhancement.and_then(|enhancement| enhancement.ord);
        if reply.rejected {
            // A rejection settles nothing, so it is taken in any revision.
            return Ok(InitiatorOutcome::Rejected { private_data: reply.private_data, peer_ird, peer_ord });
        }
        // RFC 6581 §10: an enhanced request has an enhanced reply, a plain one a plain one.
        if reply.revision != self.config.revision {
            return Err(HandshakeError::ReplyRevision { asked: self.config.revision, found: reply.revision });
        }
        let plain = Negotiated {
            crc: self.config.crc || reply.crc,
            send_markers: reply.markers,
            ird: self.config.ird,
            ord: self.config.ord,
            rtr: None,
            role: Role::Initiator,
        };
        let negotiated = match (self.config.revision, reply.enhancement) {
            (Revision::V1, _) => plain,
            (Revision::V2, Some(enhancement)) => self.negotiate(plain, enhancement)?,
            (Revision::V2, None) => return Err(HandshakeError::ReplyNotEnhanced),
        };
        Ok(InitiatorOutcome::Accepted { negotiated, private_data: reply.private_data, peer_ird, peer_ord })
    }

    fn negotiate(&self, plain: Negotiated, reply: Enhancement) -> Result<Negotiated, HandshakeError> {
        let mut negotiated = plain;
        // RFC 6581 §9.1: our IRD must cover the responder's ORD, our ORD stay within its IRD; 0x3FFF leaves ours alone.
        if let Some(wanted) = reply.ord {
            if wanted > self.config.ird {
                return Err(HandshakeError::InsufficientIrd { wanted, ird: self.config.ird, negotiated: plain });
            }
            negotiated.ird = wanted;
        }
        if let Some(taken) = reply.ird {
            negotiated.ord = self.config.ord.min(taken);
        }
        let peers = reply.rtr.unwrap_or(RtrKinds::NONE);
        // RFC 6581 §9.2: the two sides must be of one mind about peer-to-peer.
        if reply.rtr.is_some() || !self.config.rtr.is_empty() {
            let mut common = self.config.rtr.intersection(peers);
            common.read &= reply.ird != Some(0);
            let no_match = HandshakeError::NoMatchingRtr { ours: self.config.rtr, peers, negotiated: plain };
            negotiated.rtr = Some(common.cheapest().ok_or(no_match)?);
        }
        if negotiated.rtr == Some(RtrKind::Read) {
            // RFC 6581 §9.1: the responder made room for it, even if the application has no use for Reads.
            negotiated.ord = negotiated.ord.max(1);
        }
        Ok(negotiated)
    }
}

pub(super) fn check_depths(ird: u16, ord: u16) -> Result<(), HandshakeMisuse> {
    match [ird, ord].into_iter().find(|&depth| depth > MAX_READ_DEPTH) {
        Some(value) => Err(HandshakeMisuse::ReadDepth { value }),
        None => Ok(()),
    }
}

pub(super) fn check_private_data(private_data: &[u8], enhanced: bool) -> Result<(), HandshakeMisuse> {
    let (length, limit) = (private_data.len(), max_private_data(enhanced));
    if length > limit { Err(HandshakeMisuse::PrivateDataTooLong { length, limit }) } else { Ok(()) }
}
