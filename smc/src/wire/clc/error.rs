//! What a peer can do wrong in a CLC message, and what it is told.

use std::fmt;

use super::decline::DeclineReason;
use super::frame::Kind;

/// These bytes are no message that can be answered but with a decline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClcError {
    /// They do not begin with the eye catcher of such a message.
    #[error("no SMC: the eye catcher in front is missing")]
    Eyecatcher,
    /// They do not end with the same one.
    #[error("the eye catcher at the end is missing")]
    Trailer,
    /// Nobody knows this message.
    #[error("message type {} does not exist", .0.0)]
    Kind(Kind),
    /// It is of a version that is not spoken here.
    #[error("{kind} of version {version}; version 1 is spoken here")]
    Version {
        /// Which message.
        kind: Kind,
        /// Its version.
        version: u8,
    },
    /// No such message is of this length, or its parts do not add up to it.
    #[error("{kind} of {length} bytes")]
    Length {
        /// Which message.
        kind: Kind,
        /// What its header says.
        length: usize,
    },
    /// The bits that say SMC-R or SMC-D contradict the rest.
    #[error("{kind} with path bits {path:#04b}")]
    Path {
        /// Which message.
        kind: Kind,
        /// The bits.
        path: u8,
    },
    /// A part of it would lie outside of it, or in another part.
    #[error("the {0} does not lie in the message")]
    Outside(Area),
    /// It has more of something than there can be.
    #[error("the {area} has {count} entries, at most {limit} are allowed")]
    Count {
        /// Where.
        area: Area,
        /// How many.
        count: u8,
        /// How many there can be.
        limit: u8,
    },
    /// A subnet or prefix has more bits than an address.
    #[error("a prefix of {0} bits")]
    PrefixLength(u8),
    /// A buffer would be larger than 512 KiB.
    #[error("buffer size code {0}; 5 (512 KiB) is the largest")]
    BufferSize(u8),
    /// A proposal offers nothing in version 1.
    #[error("the proposal offers nothing in version 1, which is spoken here")]
    OnlySecondVersion,
}

/// A part of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// What all proposals have.
    Base,
    /// The client's SMC-D device.
    Shared,
    /// Subnet or prefixes of the client.
    Prefixes,
    /// The extension of version 2.
    Extension,
    /// The extension of SMC-D's version 2.
    SharedExtension,
}

impl fmt::Display for Area {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Base => "fixed part",
            Self::Shared => "SMC-D part",
            Self::Prefixes => "prefix area",
            Self::Extension => "version 2 extension",
            Self::SharedExtension => "SMC-D version 2 extension",
        })
    }
}

impl ClcError {
    /// What to answer: the one place where errors get their codes.
    pub const fn decline_reason(self) -> DeclineReason {
        match self {
            Self::Version { .. } | Self::OnlySecondVersion => DeclineReason::VERSION_MISMATCH,
            Self::Path { .. } => DeclineReason::MODE_UNSUPPORTED,
            Self::BufferSize(_) | Self::PrefixLength(_) => DeclineReason::CONFIGURATION,
            Self::Eyecatcher
            | Self::Trailer
            | Self::Kind(_)
            | Self::Length { .. }
            | Self::Outside(_)
            | Self::Count { .. } => DeclineReason::SYNCHRONIZATION,
        }
    }
}
