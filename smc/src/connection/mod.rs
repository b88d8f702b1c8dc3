//! The states of a connection from its agreement to its end (RFC 7609 §4.8, with the conditions that Linux keeps beside its
//! states made part of them): one table, for SMC-R and SMC-D alike.
//!
//! Each side says three things of itself, in flags that stay once they are raised ([`StateFlags`]): it sends nothing more, it
//! has closed, it has aborted. [`State::handle`] takes what the application does and what the peer's flags say, and gives
//! the next state, the flags to raise, and what the application is to notice.
//!
//! ```text
//!                                      INIT        (which ends as ACTIVE does)
//!                                        | established
//!                                        v
//!      shutdown, close: D or C         ACTIVE         peer's D or C
//!            +---------------------------+---------------------------+
//!            v                                                       v
//!     PEERCLOSEWAIT1                                          APPCLOSEWAIT1
//!            | peer's D                                              | shutdown: D
//!            v                                                       v
//!     PEERCLOSEWAIT2                                          APPCLOSEWAIT2
//!            |                                                       |
//!     from either one:                                       from either one:
//!      closed, peer's C -------------> CLOSED <------------- peer's C is there, close: C
//!      not closed, peer's C              ^                   only its D, close: C
//!            v                           |                           v
//!     APPFINCLOSEWAIT --- close: C ------+------ peer's C --- PEERFINCLOSEWAIT
//!
//!     any state before C: abort, or close with unread bytes: A -----> PEERABORTWAIT -- peer's A or C --> CLOSED
//!     any state before C: peer's A: A, and the application is told -> PROCESSABORT --- close ----------> CLOSED
//! ```
//!
//! D: sending is done; C: closed; A: aborted; behind a colon stands what is raised. The letter of the law says that PROCESSABORT
//! is left once A has been raised; here it lasts until the application, which has to be told, lets go. The peer gets its answer
//! at once all the same.
//!
//! A peer that has vanished raises nothing any more. TCP would show its end as the kernel closes the socket of a
//! process that has died: as a close, or, with unread bytes, as a reset. So do we.
//!
//! A side that has closed is told nothing, and waits for its peer only so that nobody writes into a buffer that is in
//! use again. RFC 7609 §4.8.1: that wait must have an end; whoever drives the table gives [`Input::TimedOut`] to states that
//! [wait so](State::is_waiting_for_peer).
//!
//! Every pair that is not listed changes nothing:
//!
//! ```text
#![doc = include_str!("table.txt")]
//! ```

#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;

use std::fmt;

use crate::wire::cdc::StateFlags;

/// The state of one side of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// The two are about to agree, and the peer may know already that they have: so this ends as [`Self::Active`] does. If
    /// they do not agree after all, the connection is TCP and has no state here.
    #[default]
    Init,
    /// Both sides send and receive.
    Active,
    /// We have ended first, the peer has not yet.
    PeerCloseWait1 {
        /// We have closed, not only shut down sending.
        has_closed: bool,
    },
    /// We have ended first, and the peer sends nothing more.
    PeerCloseWait2 {
        /// We have closed, not only shut down sending.
        has_closed: bool,
    },
    /// The peer has ended first, we have not yet.
    AppCloseWait1 {
        /// It has closed, not only shut down sending.
        peer_has_closed: bool,
    },
    /// The peer has ended first, and we send nothing more.
    AppCloseWait2 {
        /// It has closed, not only shut down sending.
        peer_has_closed: bool,
    },
    /// We have shut down sending, the peer has closed: our application's close is all that is missing.
    AppFinCloseWait,
    /// We have closed, the peer has shut down sending: its close is all that is missing.
    PeerFinCloseWait,
    /// We have aborted, the peer has not taken note yet.
    PeerAbortWait,
    /// The connection was reset; the application has still to close.
    ProcessAbort,
    /// Nobody writes or reads any more.
    Closed,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The two have agreed.
    Established,
    /// The application sends nothing more, and everything that it has sent is in the peer's buffer.
    ShutdownWrite,
    /// The application has closed, and everything that it has sent is in the peer's buffer.
    Close {
        /// It has not read everything.
        unread: bool,
    },
    /// The application has given the connection up, by a linger time of zero for example.
    Abort,
    /// The peer's flag of that name is up. Giving it again changes nothing.
    PeerSendingDone,
    /// The peer's flag of that name is up. Giving it again changes nothing.
    PeerClosed,
    /// The peer's flag of that name is up. Giving it again changes nothing.
    PeerAborted,
    /// The peer is gone and has not said goodbye.
    PeerVanished {
        /// It has not read everything.
        unread: bool,
    },
    /// It was waited long enough for the peer.
    TimedOut,
}

/// What the application is to notice; the later ones include the earlier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Notice {
    /// Nothing.
    #[default]
    None,
    /// Behind what is in the buffer the stream has an end: who waits to read wakes up.
    EndOfStream,
    /// Nor is anything read that we send: who waits to write wakes up, too, and fails.
    PeerClosed,
    /// The connection was reset. What is in the buffer is void.
    Reset,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Output {
    /// Flags to raise for the peer, if any.
    pub raise: StateFlags,
    /// What the application notices.
    pub notice: Notice,
}

impl Output {
    /// As when nothing has happened.
    pub const NOTHING: Self = Self::new(StateFlags::empty(), Notice::None);

    const SENDING_DONE: Self = Self::new(StateFlags::SENDING_DONE, Notice::None);
    const CLOSED: Self = Self::new(StateFlags::CLOSED, Notice::None);
    const ABORTED: Self = Self::new(StateFlags::ABORTED, Notice::None);
    const END_OF_STREAM: Self = Self::new(StateFlags::empty(), Notice::EndOfStream);
    const PEER_CLOSED: Self = Self::new(StateFlags::empty(), Notice::PeerClosed);
    const RESET: Self = Self::new(StateFlags::empty(), Notice::Reset);
    const RESET_ANSWERED: Self = Self::new(StateFlags::ABORTED, Notice::Reset);

    const fn new(raise: StateFlags, notice: Notice) -> Self {
        Self { raise, notice }
    }
}

// What the table calls the states that come in two kinds: we have shut down or closed; the peer is half gone or gone.
const SHUT_1: State = State::PeerCloseWait1 { has_closed: false };
const SHUT_2: State = State::PeerCloseWait2 { has_closed: false };
const CLOSED_1: State = State::PeerCloseWait1 { has_closed: true };
const CLOSED_2: State = State::PeerCloseWait2 { has_closed: true };
const HALF_1: State = State::AppCloseWait1 { peer_has_closed: false };
const HALF_2: State = State::AppCloseWait2 { peer_has_closed: false };
const GONE_1: State = State::AppCloseWait1 { peer_has_closed: true };
const GONE_2: State = State::AppCloseWait2 { peer_has_closed: true };

impl State {
    /// The table.
    pub const fn handle(self, input: Input) -> (Self, Output) {
        use Input::*;
        use State::*;
        match (self, input) {
            (Init, Established) => (Active, Output::NOTHING),
            // Nothing begins a second time, and what is over stays over.
            (Closed, _) | (_, Established) => (self, Output::NOTHING),

            (Init | Active, ShutdownWrite) => (SHUT_1, Output::SENDING_DONE),
            (HALF_1, ShutdownWrite) => (HALF_2, Output::SENDING_DONE),
            (GONE_1, ShutdownWrite) => (GONE_2, Output::SENDING_DONE),
            (SHUT_1 | SHUT_2 | CLOSED_1 | CLOSED_2 | HALF_2 | GONE_2, ShutdownWrite)
            | (AppFinCloseWait | PeerFinCloseWait | PeerAbortWait | ProcessAbort, ShutdownWrite) => {
                (self, Output::NOTHING)
            }

            (Init | Active | SHUT_1, Close { unread: false }) => (CLOSED_1, Output::CLOSED),
            (SHUT_2, Close { unread: false }) => (CLOSED_2, Output::CLOSED),
            (HALF_1 | HALF_2, Close { unread: false }) => (PeerFinCloseWait, Output::CLOSED),
            (GONE_1 | GONE_2 | AppFinCloseWait, Close { unread: false }) => (Closed, Output::CLOSED),
            // RFC 7609 §4.8.1 3A: bytes that nobody will read make a close an abort.
            (Init | Active | SHUT_1 | SHUT_2 | HALF_1 | HALF_2, Close { unread: true } | Abort) => {
                (PeerAbortWait, Output::ABORTED)
            }
            // A peer that has closed does not answer.
            (GONE_1 | GONE_2 | AppFinCloseWait, Close { unread: true } | Abort) => (Closed, Output::ABORTED),
            (ProcessAbort, Close { .. } | Abort) => (Closed, Output::NOTHING),
            (CLOSED_1 | CLOSED_2 | PeerFinCloseWait | PeerAbortWait, Close { .. } | Abort) => (self, Output::NOTHING),

            (Init | Active, PeerSendingDone) => (HALF_1, Output::END_OF_STREAM),
            (SHUT_1, PeerSendingDone) => (SHUT_2, Output::END_OF_STREAM),
            (CLOSED_1, PeerSendingDone) => (CLOSED_2, Output::NOTHING),
            (SHUT_2 | CLOSED_2 | HALF_1 | HALF_2 | GONE_1 | GONE_2, PeerSendingDone)
            | (AppFinCloseWait | PeerFinCloseWait | PeerAbortWait | ProcessAbort, PeerSendingDone) => {
                (self, Output::NOTHING)
            }

            (Init | Active | HALF_1, PeerClosed | PeerVanished { unread: false }) => (GONE_1, Output::PEER_CLOSED),
            (HALF_2, PeerClosed | PeerVanished { unread: false }) => (GONE_2, Output::PEER_CLOSED),
            (SHUT_1 | SHUT_2, PeerClosed | PeerVanished { unread: false }) => (AppFinCloseWait, Output::PEER_CLOSED),
            (GONE_1 | GONE_2 | AppFinCloseWait, PeerClosed | PeerVanished { .. }) => (self, Output::NOTHING),
            (Init | Active | SHUT_1 | SHUT_2 | HALF_1 | HALF_2, PeerVanished { unread: true }) => {
                (ProcessAbort, Output::RESET)
            }
            // RFC 7609 §4.8.2 2A, 2B: the application is told, the peer gets the same flag as its answer.
            (Init | Active | SHUT_1 | SHUT_2 | HALF_1 | HALF_2 | GONE_1 | GONE_2 | AppFinCloseWait, PeerAborted) => {
                (ProcessAbort, Output::RESET_ANSWERED)
            }
            (ProcessAbort, PeerClosed | PeerAborted | PeerVanished { .. }) => (self, Output::NOTHING),

            (
                CLOSED_1 | CLOSED_2 | PeerFinCloseWait | PeerAbortWait,
                PeerClosed | PeerAborted | PeerVanished { .. } | TimedOut,
            ) => (Closed, Output::NOTHING),
            // An application that has not closed may take its time.
            (Init | Active | SHUT_1 | SHUT_2 | HALF_1 | HALF_2 | GONE_1 | GONE_2, TimedOut)
            | (AppFinCloseWait | ProcessAbort, TimedOut) => (self, Output::NOTHING),
        }
    }

    /// Takes note of all flags that the peer has raised by now; those that were known change nothing.
    pub fn handle_peer_flags(self, flags: StateFlags) -> (Self, Output) {
        let inputs = [
            (StateFlags::SENDING_DONE, Input::PeerSendingDone),
            (StateFlags::CLOSED, Input::PeerClosed),
            (StateFlags::ABORTED, Input::PeerAborted),
        ];
        let raised = inputs.into_iter().filter(|(flag, _)| flags.contains(*flag));
        raised.fold((self, Output::NOTHING), |(state, output), (_, input)| {
            let (state, more) = state.handle(input);
            (state, Output::new(output.raise | more.raise, output.notice.max(more.notice)))
        })
    }

    /// Whether the application may send into the peer's buffer.
    pub const fn can_send(self) -> bool {
        matches!(self, Self::Active | HALF_1)
    }

    /// Whether more may come than is in the buffer; if not, its end is the end of the stream.
    pub const fn can_receive(self) -> bool {
        matches!(self, Self::Init | Self::Active | SHUT_1)
    }

    /// Whether the application has let go and only the peer is waited for, which must have an end
    /// ([`Input::TimedOut`]).
    pub const fn is_waiting_for_peer(self) -> bool {
        matches!(self, CLOSED_1 | CLOSED_2 | Self::PeerFinCloseWait | Self::PeerAbortWait)
    }

    /// The name that operators know from `smcss`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Init => "INIT",
            Self::Active => "ACTIVE",
            Self::PeerCloseWait1 { .. } => "PEERCLOSEWAIT1",
            Self::PeerCloseWait2 { .. } => "PEERCLOSEWAIT2",
            Self::AppCloseWait1 { .. } => "APPCLOSEWAIT1",
            Self::AppCloseWait2 { .. } => "APPCLOSEWAIT2",
            Self::AppFinCloseWait => "APPFINCLOSEWAIT",
            Self::PeerFinCloseWait => "PEERFINCLOSEWAIT",
            Self::PeerAbortWait => "PEERABORTWAIT",
            Self::ProcessAbort => "PROCESSABORT",
            Self::Closed => "CLOSED",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}
