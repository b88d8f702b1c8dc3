//! Where connections that have rings stand, for those who look: the states of RFC 7609 §4.8, followed through the table of
//! `softrdma_smc::connection` whenever this end or the peer has said something new. What is done about it is decided elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use softrdma_smc::connection::{Input, State};
use softrdma_smc::ring::Rings;
use softrdma_smc::statistics;
use softrdma_smc::wire::cdc::StateFlags;

use crate::capture;
use crate::socket::{Socket, flag};
use crate::transfer;

/// How far a connection has come.
#[derive(Debug, Default)]
pub(crate) struct Course {
    state: Mutex<State>,
    /// What was known when it was looked at last, so that looking again costs nothing.
    known: AtomicU64,
}

/// What a connection's own flags have to do with it.
const OWN_FLAGS: [u64; 4] =
    [flag::SENDING_SHUT, flag::RECEIVING_SHUT, flag::TCP_ENDED | flag::TCP_RESET, flag::VIOLATED];

/// It has got its rings.
pub(crate) fn begin(socket: &Socket) {
    if let Some((_, rings)) = socket.rings() {
        step(socket, &rings, &[Input::Established]);
    }
}

/// Something may have been said, by this end or by the peer.
pub(crate) fn look(socket: &Socket, rings: &Rings<'_>) {
    let own = OWN_FLAGS.iter().enumerate().map(|(bit, flag)| u64::from(socket.has_flag(*flag)) << bit);
    let known = u64::from(rings.peer_state()) << 8 | own.fold(1 << 7, |all, flag| all | flag);
    if socket.course.known.swap(known, Ordering::Relaxed) != known {
        step(socket, rings, &[]);
    }
    if capture::is_on() {
        capture::ends(socket, rings);
    }
}

/// The program has let go, and the peer was told so.
pub(crate) fn close(socket: &Socket, rings: &Rings<'_>, is_read: bool) {
    let input = if socket.has_flag(flag::ABRUPT) { Input::Abort } else { Input::Close { unread: !is_read } };
    step(socket, rings, &[input]);
    if capture::is_on() {
        capture::ends(socket, rings);
    }
}

/// Goes through the table with all that is known to be so (what was known before changes nothing), and then with `inputs`.
fn step(socket: &Socket, rings: &Rings<'_>, inputs: &[Input]) {
    let mut state = socket.course.state.lock().unwrap_or_else(PoisonError::into_inner);
    let mut now = *state;
    if socket.has_flag(flag::SENDING_SHUT) {
        now = now.handle(Input::ShutdownWrite).0;
    }
    let [own, peer] = rings.flags();
    let said = StateFlags::from_bits_truncate(peer.1);
    now = now.handle_peer_flags(said).0;
    if socket.has_flag(flag::VIOLATED) {
        now = now.handle(Input::Abort).0;
    } else if has_vanished(socket) && !said.intersects(StateFlags::CLOSED | StateFlags::ABORTED) {
        now = now.handle(Input::PeerVanished { unread: transfer::was_reset(socket, rings) }).0;
    }
    now = inputs.iter().fold(now, |now, input| now.handle(*input).0);
    *state = now;
    let flags = |(producer, state)| statistics::Flags { producer, state };
    socket.show(|entry| {
        entry.set_state(now.into());
        entry.set_shutdown(statistics::Shutdown {
            read: socket.has_flag(flag::RECEIVING_SHUT),
            write: socket.has_flag(flag::SENDING_SHUT),
        });
        entry.set_flags(flags(own), flags(peer));
    });
}

/// The kernel says that the other end is gone; whoever only shuts sending down keeps TCP open.
fn has_vanished(socket: &Socket) -> bool {
    let has_peer_switched = socket.rings().is_some_and(|(connection, _)| connection.peer_switch().is_some());
    has_peer_switched && socket.has_flag(flag::TCP_ENDED | flag::TCP_RESET)
}
