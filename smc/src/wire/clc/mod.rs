//! Connection layer control: the messages with which two ends agree on a connection (RFC 7609 §A.2, SMC-D's as Linux has
//! them).
//!
//! [`parse`] takes bytes of a stream, which may hold less than a message or more than one; [`Message::emit`] writes one.
//! Version 1 is spoken. A proposal of version 2 is read for what it offers in version 1, and its extension is checked; one that
//! offers nothing in version 1 is an error, as is everything malformed, and [`ClcError::decline_reason`] says what to
//! answer.
//!
//! ```
//! use softrdma_smc::wire::clc::{Decline, DeclineReason, MAX_EMITTED, Message, Parsed, parse};
//! use softrdma_smc::wire::PeerId;
//!
//! let decline = Decline { peer: PeerId(7), reason: DeclineReason::CONFIGURATION, is_out_of_sync: false };
//! let mut memory = [0; MAX_EMITTED];
//! let bytes = Message::Decline(decline).emit(&mut memory);
//! assert_eq!(parse(&bytes[..9]), Ok(Parsed::Incomplete { needed: 28 }));
//! assert_eq!(parse(bytes), Ok(Parsed::Complete { message: Message::Decline(decline), length: 28 }));
//! ```

mod decline;
mod endpoint;
mod error;
mod frame;
mod proposal;
#[cfg(test)]
mod tests;

pub use decline::{Decline, DeclineReason};
pub use endpoint::{Accept, Confirm, Endpoint, RdmaEndpoint, SharedEndpoint};
pub use error::{Area, ClcError};
pub use frame::Kind;
pub use proposal::{Ipv6Prefix, Offer, Path, Prefixes, Proposal, RoceAddress, Subnet};

use frame::{Header, Output, check_eyecatcher, check_trailer};

/// Bytes of the part that all messages have in front. With these [`parse`] knows how long the message is.
pub const HEADER_LENGTH: usize = size_of::<Header>();

/// No message is longer: far more than the longest proposal of version 2 that there is.
pub const MAX_LENGTH: usize = 1024;

/// Bytes in the longest message of ours: a proposal of both paths and eight IPv6 prefixes.
pub const MAX_EMITTED: usize = proposal::MAX_EMITTED;

/// A message of version 1, or the version 1 in one of version 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The client's first: what it could do.
    Proposal(Proposal),
    /// The server's answer.
    Accept(Accept),
    /// The client's answer to that.
    Confirm(Confirm),
    /// In place of any of them: the connection stays TCP.
    Decline(Decline),
}

/// What [`parse`] found at the beginning of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Nothing wrong so far, but not all of it.
    Incomplete {
        /// How many bytes from the beginning there must be to know more; always more than there are.
        needed: usize,
    },
    /// A message.
    Complete {
        /// What it says.
        message: Message,
        /// Its bytes; what follows is the next one's.
        length: usize,
    },
}

/// Reads the message at the beginning of `bytes`. What can be no message is refused as soon as that shows.
pub fn parse(bytes: &[u8]) -> Result<Parsed, ClcError> {
    check_eyecatcher(bytes)?;
    let Some(header) = Header::read(bytes) else {
        return Ok(Parsed::Incomplete { needed: HEADER_LENGTH });
    };
    let length = header.check()?;
    let Some(whole) = bytes.get(..length) else {
        return Ok(Parsed::Incomplete { needed: length });
    };
    let body = check_trailer(whole, header)?;
    let message = match header.kind() {
        Kind::PROPOSAL => Message::Proposal(proposal::parse(body, header)?),
        Kind::ACCEPT => Message::Accept(endpoint::parse_accept(body, header)?),
        Kind::CONFIRM => Message::Confirm(endpoint::parse_confirm(body, header)?),
        Kind::DECLINE => Message::Decline(decline::parse(body, header)?),
        other => return Err(ClcError::Kind(other)),
    };
    Ok(Parsed::Complete { message, length })
}

impl Message {
    /// Which of the four.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Proposal(_) => Kind::PROPOSAL,
            Self::Accept(_) => Kind::ACCEPT,
            Self::Confirm(_) => Kind::CONFIRM,
            Self::Decline(_) => Kind::DECLINE,
        }
    }

    /// Writes it to the front of `out`, and gives back that part.
    pub fn emit<'a>(&self, out: &'a mut [u8; MAX_EMITTED]) -> &'a [u8] {
        let output = Output::new(out);
        match self {
            Self::Proposal(proposal) => proposal::emit(proposal, output),
            Self::Accept(accept) => endpoint::emit_accept(accept, output),
            Self::Confirm(confirm) => endpoint::emit_confirm(confirm, output),
            Self::Decline(decline) => decline::emit(decline, output),
        }
    }
}
