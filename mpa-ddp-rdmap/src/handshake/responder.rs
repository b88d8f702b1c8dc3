//! The side that answers.

use super::frame::{Enhancement, Frame, Kind};
use super::initiator::{check_depths, check_private_data};
use super::{HandshakeConfig, HandshakeError, HandshakeMisuse};
use crate::negotiated::{Negotiated, Revision, Role, RtrKinds};

/// The side that sends the MPA Reply.
#[derive(Debug)]
pub struct Responder {
    config: HandshakeConfig,
    state: State,
}

#[derive(Debug)]
enum State {
    AwaitingRequest,
    /// The application is making up its mind.
    Requested(Frame),
    Answered,
}

/// A valid request, to be accepted or rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestReceived {
    /// The application's part of the private data.
    pub private_data: Vec<u8>,
    /// Reads of ours that the initiator can take; `None`: it leaves that to the application (RFC 6581 §9.1), or the request has no
    /// enhanced data.
    pub ird: Option<u16>,
    /// Reads that the initiator wants to have outstanding; `None` as above.
    pub ord: Option<u16>,
    /// The request's revision, which the reply will have too.
    pub revision: Revision,
    /// The initiator's first message will be a zero-length one, so this side may be the first to send.
    pub peer_to_peer: bool,
    /// Bytes of private data that the reply can carry.
    pub max_private_data: usize,
}

impl Responder {
    /// Waits for a request.
    pub fn new(config: &HandshakeConfig) -> Self {
        Self { config: *config, state: State::AwaitingRequest }
    }

    /// Reads the request from `parts`, all bytes of the stream that were not consumed yet. Gives the bytes consumed (none
    /// until the request is whole) and, once, the request. Between request and answer any byte is an error; after the answer the
    /// bytes are not the handshake's and are left alone.
    ///
    /// # Errors
    /// The request cannot be answered; the connection is over.
    pub fn handle_bytes(&mut self, parts: &[&[u8]]) -> Result<(usize, Option<RequestReceived>), HandshakeError> {
        match self.state {
            State::AwaitingRequest => {}
            State::Requested(_) if parts.iter().any(|part| !part.is_empty()) => {
                return Err(HandshakeError::BytesBehindRequest);
            }
            State::Requested(_) | State::Answered => return Ok((0, None)),
        }
        let Some((length, request)) = Frame::read(Kind::Request, self.config.revision, parts)? else {
            return Ok((0, None));
        };
        // RFC 5044 §7.1.2 rules 3 and 9: an initiator sends no FPDU before it has the reply, so what follows is private data
        // in excess of PD_Length.
        if parts.iter().map(|part| part.len()).sum::<usize>() > length {
            return Err(HandshakeError::BytesBehindRequest);
        }
        let received = RequestReceived {
            private_data: request.private_data.clone(),
            ird: request.enhancement.and_then(|enhancement| enhancement.ird),
            ord: request.enhancement.and_then(|enhancement| enhancement.ord),
            revision: request.revision,
            peer_to_peer: request.enhancement.is_some_and(|enhancement| enhancement.rtr.is_some()),
            max_private_data: super::frame::max_private_data(request.enhancement.is_some()),
        };
        self.state = State::Requested(request);
        Ok((length, Some(received)))
    }

    /// The stream ended with `received` bytes of the request, or before it was answered.
    pub fn handle_end_of_stream(&self, received: usize) -> HandshakeError {
        HandshakeError::EndOfStream { received }
    }

    /// Accepts the connection with at most `ird` Reads of the peer and `ord` of ours, less if the initiator offers less. Gives
    /// the reply's bytes and how to go on once they are sent.
    ///
    /// # Errors
    /// There is no request to answer, or the reply cannot carry this; the request can still be answered then.
    pub fn accept(
        &mut self,
        ird: u16,
        ord: u16,
        private_data: &[u8],
    ) -> Result<(Vec<u8>, Negotiated), HandshakeMisuse> {
        check_depths(ird, ord)?;
        let config = self.config;
        let request = self.request(private_data)?;
        let plain = Negotiated {
            // RFC 5044 §7.1.1: on as soon as one side asks.
            crc: config.crc || request.crc,
            send_markers: request.markers,
            ird,
            ord,
            rtr: None,
            role: Role::Responder,
        };
        let (enhancement, negotiated) = match request.enhancement {
            None => (None, plain),
            Some(asked) => {
                let (enhancement, negotiated) = negotiate(plain, asked, kinds_taken(&config));
                (Some(enhancement), negotiated)
            }
        };
        let reply = reply(request, false, negotiated.crc, enhancement, private_data);
        self.state = State::Answered;
        Ok((reply.to_bytes(), negotiated))
    }

    /// Rejects the connection. Gives the reply's bytes; MPA is over once they are sent.
    ///
    /// # Errors
    /// There is no request to answer, or the reply cannot carry this; the request can still be answered then.
    pub fn reject(&mut self, private_data: &[u8]) -> Result<Vec<u8>, HandshakeMisuse> {
        let config = self.config;
        let request = self.request(private_data)?;
        let enhancement = request.enhancement.map(|asked| Enhancement {
            rtr: asked.rtr.map(|_| kinds_taken(&config)),
            ird: Some(config.ird),
            // RFC 6581 §9.1: tells an initiator what it would take.
            ord: Some(config.ord),
        });
        let reply = reply(request, true, config.crc || request.crc, enhancement, private_data);
        self.state = State::Answered;
        Ok(reply.to_bytes())
    }

    /// The request that waits for an answer which can carry `private_data`.
    fn request(&self, private_data: &[u8]) -> Result<&Frame, HandshakeMisuse> {
        match &self.state {
            State::AwaitingRequest => Err(HandshakeMisuse::NoRequest),
            State::Answered => Err(HandshakeMisuse::AlreadyAnswered),
            State::Requested(request) => {
                check_private_data(private_data, request.enhancement.is_some())?;
                Ok(request)
            }
        }
    }
}

/// RFC 6581 §9.1 and §9.2, the responder's part.
fn negotiate(plain: Negotiated, asked: Enhancement, taken: RtrKinds) -> (Enhancement, Negotiated) {
    let mut negotiated = plain;
    let mut rtr = None;
    if let Some(offered) = asked.rtr {
        // The initiator may choose among the kinds of the reply. A reply that names one tells us what the first FPDU will be.
        // Without one in common the reply names what we take, and the initiator ends the connection by a TERMINATE.
        negotiated.rtr = offered.intersection(taken).cheapest();
        rtr = Some(negotiated.rtr.map_or(taken, RtrKinds::from));
    }
    // 0x3FFF is answered by 0x3FFF, and our own value stays.
    if let Some(wanted) = asked.ord {
        negotiated.ird = plain.ird.min(wanted);
    }
    if let Some(offered) = asked.ird {
        negotiated.ord = plain.ord.min(offered);
    }
    if rtr.is_some_and(|rtr| rtr.read) {
        // The Read that says "ready" needs a slot even if no other will come.
        negotiated.ird = negotiated.ird.max(1);
    }
    let enhancement =
        Enhancement { rtr, ird: asked.ord.map(|_| negotiated.ird), ord: asked.ird.map(|_| negotiated.ord) };
    (enhancement, negotiated)
}

/// RFC 6581 §9.2: a responder takes at least one kind.
fn kinds_taken(config: &HandshakeConfig) -> RtrKinds {
    if config.rtr.is_empty() { RtrKinds::ALL } else { config.rtr }
}

/// RFC 6581 §10: the reply has the request's revision, and enhanced data if the request has.
fn reply(request: &Frame, rejected: bool, crc: bool, enhancement: Option<Enhancement>, private_data: &[u8]) -> Frame {
    Frame {
        kind: Kind::Reply,
        markers: false,
        crc,
        rejected,
        revision: request.revision,
        enhancement,
        private_data: private_data.to_vec(),
    }
}
