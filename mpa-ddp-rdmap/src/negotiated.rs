//! What the two sides agreed on before the first FPDU (RFC 5044 §7.1, RFC 6581 §9).

/// Revision of MPA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revision {
    /// RFC 5044: client-server, read depths are the application's affair.
    V1,
    /// RFC 6581: read depths and the first message can be negotiated.
    V2,
}

/// Which side of the handshake an endpoint was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Sent the MPA Request; sends the first FPDU.
    Initiator,
    /// Sent the MPA Reply; sends nothing until the first FPDU of the initiator has arrived (RFC 5044 §7.1.2).
    Responder,
}

/// The zero-length message by which an initiator says that it is ready to receive (RFC 6581 §9.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RtrKind {
    /// A Send; it takes no receive of the responder.
    Send,
    /// An RDMA Write.
    Write,
    /// An RDMA Read; it occupies one of the responder's read slots.
    Read,
}

/// A set of [`RtrKind`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RtrKinds {
    /// Holds [`RtrKind::Send`].
    pub send: bool,
    /// Holds [`RtrKind::Write`].
    pub write: bool,
    /// Holds [`RtrKind::Read`].
    pub read: bool,
}

impl RtrKinds {
    /// None: the connection is client-server, the initiator's first message is its application's.
    pub const NONE: Self = Self { send: false, write: false, read: false };
    /// Every kind there is.
    pub const ALL: Self = Self { send: true, write: true, read: true };

    /// Whether no kind is in the set.
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// The kinds that are in both sets.
    pub fn intersection(self, other: Self) -> Self {
        Self { send: self.send && other.send, write: self.write && other.write, read: self.read && other.read }
    }

    /// The kind of the set that costs least: a Write needs nothing of the responder, a Read one of its slots, a Send
    /// is told from the application's own only by being first.
    pub fn cheapest(self) -> Option<RtrKind> {
        match self {
            Self { write: true, .. } => Some(RtrKind::Write),
            Self { read: true, .. } => Some(RtrKind::Read),
            Self { send: true, .. } => Some(RtrKind::Send),
            Self::NONE => None,
        }
    }
}

impl From<RtrKind> for RtrKinds {
    fn from(kind: RtrKind) -> Self {
        match kind {
            RtrKind::Send => Self { send: true, ..Self::NONE },
            RtrKind::Write => Self { write: true, ..Self::NONE },
            RtrKind::Read => Self { read: true, ..Self::NONE },
        }
    }
}

/// How the two sides of a connection frame and limit what they send from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// CRCs are generated and checked, both ways.
    pub crc: bool,
    /// The peer wants markers in what we send it. We never ask for them, so nothing we receive has any.
    pub send_markers: bool,
    /// Read Requests and atomics of the peer that may be outstanding.
    pub ird: u16,
    /// Read Requests and atomics of ours that may be outstanding.
    pub ord: u16,
    /// The zero-length message that the initiator sends first; `None`: the first message is an application's.
    pub rtr: Option<RtrKind>,
    /// Which side we were.
    pub role: Role,
}
