//! How two processes agree that a connection goes through memory that both have, while it goes on over TCP.
//!
//! The end that has connected offers the connection under its name ([`Service::offer`]) and waits; the end that has accepted
//! looks there now and then ([`Service::seek`]). Once they have met, over a unix socket that keeps messages apart:
//!
//! ```text
//!       connector                                      acceptor
//!   offer: waits at the name                      seek: goes there
//!          --- Proposal: its GID ---------------------->
//!                                                 claims a connection of the arena;
//!                                                 prepare: can read its ring
//!          <-- Accept: its GID, its token, which arena -
//!              (at the first contact: with the memory)
//!   joins the connection;
//!   prepare: can read its ring
//!          --- Confirm: its token --------------------->
//!   establish: may send into the ring             establish: may send into the ring
//! ```
//!
//! In place of any message either may decline with a reason, or hang up: the connection stays what it is.
//!
//! # What holds
//!
//! - *Nobody sends into a ring that is not read.* An end prepares before it says so, and sends only once the other has said so.
//! - *The decision is one.* The connector decides by sending Confirm, which unix sockets do not lose. An acceptor that has
//!   waited long enough first closes its receiving half, from when on a Confirm cannot be sent any more, then reads what was sent
//!   before, and only then gives up.
//! - *Two processes have one arena for the connections that one of them accepts from the other.* The acceptor makes it at the
//!   first contact. Further connections that are found while that goes on wait until it is decided: the connector has the
//!   arena then, or the next one is the first contact. A connector that is offered a second arena declines.
//! - *The first contact's socket stays open.* When it hangs up, the other process is gone, or does not know the arena any more:
//!   so this one forgets it too. Connections in it go on as long as their ends do.
//! - *Who is behind a socket is asked of the kernel:* only processes of the same user.
//! - *What the peer sends is hostile*: a message is checked whole, in its place, and what does not fit ends this exchange and no
//!   other. Descriptors come with one message only, one of them; all others are closed.
//!
//! # Afterwards
//!
//! Connections go on without this, but for one thing: an end that becomes TCP again needs the other to do something while
//! that other's program may be asleep or busy ([`back`](crate::back)). So each process hears, under a name made of its GID
//! ([`Rendezvous::call`]), which of its connections to look at ([`Host::look_at`]); the GIDs of those that have an end stand in the
//! arena. A word there is only a hint: what is asked for stands in the arena, too, where only the peer can write.
//!
//! One thread does this, started when first needed. It has all signals blocked and sleeps while nothing happens, but for
//! what the host asks of it ([`Host::tidy`]).

mod acceptor;
mod connector;
mod fork;
mod home;
mod link;
mod message;
mod peers;
mod poller;
mod service;
#[cfg(test)]
mod tests;
mod worker;

use std::os::fd::OwnedFd;
use std::time::Duration;

pub use fork::Fork;
#[cfg(fuzzing)]
pub use message::check_message;
pub use service::{OfferError, Service};

use crate::arena::{Connection, Geometry};
use crate::names::{Rendezvous, Tuple};
use crate::wire::Gid;
use crate::wire::clc::DeclineReason;

/// What is set for a process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where others are met.
    pub rendezvous: Rendezvous,
    /// How large the arenas are that this process makes, one for each process whose connections it accepts.
    pub geometry: Geometry,
    /// How long an offered connection waits to be found.
    pub offer_limit: Duration,
    /// How long an answer may take: RFC 7609 leaves it open, Linux gives up after 6 s.
    pub answer_limit: Duration,
    /// Connections that are being agreed on at a time. Each costs a descriptor.
    pub max_exchanges: usize,
    /// Processes with which there are arenas, of either kind. Each costs a descriptor and an arena.
    pub max_peers: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rendezvous: Rendezvous::new(),
            geometry: Geometry { capacity: 16_384, ring_bytes: 65_536 },
            offer_limit: Duration::from_secs(10),
            answer_limit: Duration::from_secs(6),
            max_exchanges: 256,
            max_peers: 1024,
        }
    }
}

/// The process whose connections these are. It calls its own ends by keys that it uses once.
///
/// Of an offered or found end it hears: [`prepare`](Self::prepare), then [`establish`](Self::establish); or
/// [`decline`](Self::decline), before or after `prepare`. After `prepare` has returned false, and at most once more after
/// [`Service::withdraw`], it hears nothing.
///
/// The calls come from the service's thread. They may call the [`Service`], but must not wait for a thread that is about to
/// fork.
pub trait Host: Send + Sync {
    /// From now on the end with `key` must be able to read its ring: the peer, which is called `peer`, may send there as soon
    /// as this returns. It does not send itself yet. False: there is no such end any more.
    fn prepare(&self, key: u64, connection: Connection, peer: Gid) -> bool;

    /// The peer can read: sending may move to the ring.
    fn establish(&self, key: u64);

    /// The connection stays with TCP. The peer has never sent into the ring, and never will.
    fn decline(&self, key: u64, reason: DeclineReason, by_peer: bool);

    /// Called now and then, once there was a connection: what has not been used for a while may be cleared away. How long until the
    /// next time; `None` if there is nothing left that could be.
    fn tidy(&self) -> Option<Duration> {
        None
    }

    /// An arena has gone out of use: its other process has ended, or does not know it any more.
    fn part(&self) {}

    /// The peer may have changed something about the connection whose end here is called `token`: it asks for what it has not
    /// read, see [`back`](crate::back). A copy of the connection's descriptor: to be called again once that has room to send.
    fn look_at(&self, token: u64) -> Option<OwnedFd> {
        let _ = token;
        None
    }

    /// A CLC message of the connection with ends `tuple` was sent or received; for those who want to see them.
    fn observe(&self, tuple: Tuple, direction: Direction, message: &[u8]) {
        let _ = (tuple, direction, message);
    }
}

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From this end.
    Sent,
    /// To this end.
    Received,
}
