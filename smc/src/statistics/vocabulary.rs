//! The words of a page: what a number in it means.

use serde::{Serialize, Serializer};

use crate::connection;

/// Which end of a connection a socket is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The one that connected.
    #[default]
    Client,
    /// The one that accepted, or listens.
    Server,
}

impl Role {
    pub(super) const fn code(self) -> u64 {
        self as u64
    }

    pub(super) const fn from_code(code: u64) -> Self {
        if code & 1 == 0 { Self::Client } else { Self::Server }
    }
}

/// What carries a connection's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum Mode {
    /// TCP so far: it has not been decided yet.
    #[default]
    #[serde(rename = "undecided")]
    Undecided,
    /// The rings of an arena.
    #[serde(rename = "SMCD")]
    SmcD,
    /// Remote memory.
    #[serde(rename = "SMCR")]
    SmcR,
    /// TCP for good: it was decided so, see [`Reasons`].
    #[serde(rename = "TCP")]
    Tcp,
}

impl Mode {
    pub(super) const fn from_code(code: u64) -> Self {
        match code & 0xff {
            1 => Self::SmcD,
            2 => Self::SmcR,
            3 => Self::Tcp,
            _ => Self::Undecided,
        }
    }
}

/// Why a connection stays TCP: decline codes as on the wire, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Reasons {
    /// What this end found.
    pub own: u32,
    /// What the other end said.
    pub peer: u32,
}

/// The state of a socket, as `smcss` names it and with Linux's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Neither connected nor listening yet.
    #[default]
    Init = 2,
    /// Connected.
    Active = 1,
    /// Over.
    Closed = 7,
    /// Waits for connections.
    Listen = 10,
    /// We have closed, or shut down sending; the peer has not.
    PeerCloseWait1 = 20,
    /// The same, and the peer has shut down sending.
    PeerCloseWait2 = 21,
    /// The peer has closed, or shut down sending; we have not.
    AppCloseWait1 = 22,
    /// The same, and we have shut down sending.
    AppCloseWait2 = 23,
    /// The peer has closed after we shut down sending; we have not closed.
    AppFinCloseWait = 24,
    /// We have closed after the peer shut down sending; it has not closed.
    PeerFinCloseWait = 25,
    /// We have aborted.
    PeerAbortWait = 26,
    /// The peer has aborted; the program does not know yet.
    ProcessAbort = 27,
}

impl State {
    /// The name that `smcss` prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Init => "INIT",
            Self::Active => "ACTIVE",
            Self::Closed => "CLOSED",
            Self::Listen => "LISTEN",
            Self::PeerCloseWait1 => "PEERCLW1",
            Self::PeerCloseWait2 => "PEERCLW2",
            Self::AppCloseWait1 => "APPLCLW1",
            Self::AppCloseWait2 => "APPLCLW2",
            Self::AppFinCloseWait => "APPLFINCLW",
            Self::PeerFinCloseWait => "PEERFINCLW",
            Self::PeerAbortWait => "PEERABORTW",
            Self::ProcessAbort => "PROCESSABORT",
        }
    }

    pub(super) const fn from_code(code: u64) -> Self {
        match code {
            1 => Self::Active,
            7 => Self::Closed,
            10 => Self::Listen,
            20 => Self::PeerCloseWait1,
            21 => Self::PeerCloseWait2,
            22 => Self::AppCloseWait1,
            23 => Self::AppCloseWait2,
            24 => Self::AppFinCloseWait,
            25 => Self::PeerFinCloseWait,
            26 => Self::PeerAbortWait,
            27 => Self::ProcessAbort,
            _ => Self::Init,
        }
    }
}

impl From<connection::State> for State {
    fn from(state: connection::State) -> Self {
        match state {
            connection::State::Init => Self::Init,
            connection::State::Active => Self::Active,
            connection::State::PeerCloseWait1 { .. } => Self::PeerCloseWait1,
            connection::State::PeerCloseWait2 { .. } => Self::PeerCloseWait2,
            connection::State::AppCloseWait1 { .. } => Self::AppCloseWait1,
            connection::State::AppCloseWait2 { .. } => Self::AppCloseWait2,
            connection::State::AppFinCloseWait => Self::AppFinCloseWait,
            connection::State::PeerFinCloseWait => Self::PeerFinCloseWait,
            connection::State::PeerAbortWait => Self::PeerAbortWait,
            connection::State::ProcessAbort => Self::ProcessAbort,
            connection::State::Closed => Self::Closed,
        }
    }
}

impl Serialize for State {
    fn serialize<To: Serializer>(&self, to: To) -> Result<To::Ok, To::Error> {
        to.serialize_str(self.name())
    }
}

/// Which directions the program has shut down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Shutdown {
    /// It reads no more.
    pub read: bool,
    /// It writes no more.
    pub write: bool,
}

impl Shutdown {
    pub(super) const fn code(self) -> u64 {
        self.read as u64 | (self.write as u64) << 1
    }

    pub(super) const fn from_code(code: u64) -> Self {
        Self { read: code & 1 != 0, write: code & 2 != 0 }
    }
}

/// What the two ends last told each other beside cursors: the flag bytes of CDC, as on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Flags {
    /// Of the producer: urgent data, writer blocked and the like.
    pub producer: u8,
    /// Of the connection: sending done, closed, aborted.
    pub state: u8,
}

impl Flags {
    pub(super) const fn code(self) -> u64 {
        self.producer as u64 | (self.state as u64) << 8
    }

    pub(super) const fn from_code(code: u64) -> Self {
        Self { producer: code as u8, state: (code >> 8) as u8 }
    }
}

/// What a page counts, beside what it counts by reason and by size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub enum Counter {
    // First what an entry counts too, in its order: sending, then receiving.
    /// Bytes that went out through rings.
    SentBytes,
    /// Calls that sent them.
    SentMessages,
    /// Calls that found the ring full.
    RingFull,
    /// Sleeping peers that were woken.
    DoorbellsRung,
    /// Bytes that came in through rings.
    ReceivedBytes,
    /// Calls that took them.
    ReceivedMessages,
    /// Doorbells that were taken out of TCP.
    DoorbellsReceived,
    /// Times that spinning saved a sleep.
    SpinsPaid,
    /// Times that it did not.
    SpinsVain,

    /// TCP connections seen, of both roles, accelerated or not.
    ConnectionsSeen,
    /// Connections moved into rings that this process had opened.
    AcceleratedAsClient,
    /// Connections moved into rings that this process had accepted.
    AcceleratedAsServer,
    /// Connections that stay TCP, opened here.
    FallbacksAsClient,
    /// Connections that stay TCP, accepted here.
    FallbacksAsServer,
    /// Handshakes that a peer broke off or spoilt, opened here.
    HandshakeErrorsAsClient,
    /// Handshakes that a peer broke off or spoilt, accepted here.
    HandshakeErrorsAsServer,
    /// Connections that ended because of what the peer wrote into shared memory.
    Violations,
    /// Urgent data sent or received.
    Urgent,
    /// Ring memory that connections have in use, in bytes; goes up and down.
    RingMemory,
    /// The most it may be.
    RingMemoryLimit,
    /// Arenas there are; goes up and down.
    Arenas,
    /// Sockets that found no room in the list.
    Unlisted,
}

impl Counter {
    /// All that mean something.
    pub const ALL: [Self; 22] = [
        Self::ConnectionsSeen,
        Self::AcceleratedAsClient,
        Self::AcceleratedAsServer,
        Self::FallbacksAsClient,
        Self::FallbacksAsServer,
        Self::HandshakeErrorsAsClient,
        Self::HandshakeErrorsAsServer,
        Self::Violations,
        Self::SentBytes,
        Self::SentMessages,
        Self::RingFull,
        Self::DoorbellsRung,
        Self::ReceivedBytes,
        Self::ReceivedMessages,
        Self::DoorbellsReceived,
        Self::SpinsPaid,
        Self::SpinsVain,
        Self::Urgent,
        Self::RingMemory,
        Self::RingMemoryLimit,
        Self::Arenas,
        Self::Unlisted,
    ];

    /// As it is called in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SentBytes => "sent_bytes",
            Self::SentMessages => "sent_messages",
            Self::RingFull => "ring_full",
            Self::DoorbellsRung => "doorbells_rung",
            Self::ReceivedBytes => "received_bytes",
            Self::ReceivedMessages => "received_messages",
            Self::DoorbellsReceived => "doorbells_received",
            Self::SpinsPaid => "spins_paid",
            Self::SpinsVain => "spins_vain",
            Self::ConnectionsSeen => "connections_seen",
            Self::AcceleratedAsClient => "accelerated_as_client",
            Self::AcceleratedAsServer => "accelerated_as_server",
            Self::FallbacksAsClient => "fallbacks_as_client",
            Self::FallbacksAsServer => "fallbacks_as_server",
            Self::HandshakeErrorsAsClient => "handshake_errors_as_client",
            Self::HandshakeErrorsAsServer => "handshake_errors_as_server",
            Self::Violations => "violations",
            Self::Urgent => "urgent",
            Self::RingMemory => "ring_memory",
            Self::RingMemoryLimit => "ring_memory_limit",
            Self::Arenas => "arenas",
            Self::Unlisted => "unlisted",
        }
    }

    /// Whether each socket counts it for itself.
    pub const fn is_of_entry(self) -> bool {
        (self as usize) <= Self::SpinsVain as usize
    }

    /// Whether it is an amount of now: it goes down too, and starts from nothing for nobody.
    pub const fn is_gauge(self) -> bool {
        matches!(self, Self::RingMemory | Self::RingMemoryLimit | Self::Arenas)
    }
}
