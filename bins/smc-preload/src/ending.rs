//! shutdown, for connections that have rings.

use std::ffi::c_int;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use softrdma_smc::ring::state;
use softrdma_smc::wire::clc::DeclineReason;

use crate::abi::kernel;
use crate::course;
use crate::socket::{Mode, Socket, flag};
use crate::transfer;
use crate::upgrade;

/// How long a connection that is just getting its rings is waited for.
const PATIENCE: Duration = Duration::from_millis(50);

/// `shutdown`, unless the kernel's will do.
pub(crate) fn shut_down(socket: &Socket, fd: RawFd, how: c_int) -> Option<Result<(), Errno>> {
    if upgrade::leave_to_tcp(socket, DeclineReason::SHUT_DOWN) {
        return None;
    }
    if !matches!(how, libc::SHUT_RD | libc::SHUT_WR | libc::SHUT_RDWR) {
        return Some(Err(Errno::INVAL));
    }
    if is_over(socket) {
        return Some(Err(Errno::NOTCONN));
    }
    // What the peer has said by now, it has said first.
    look(socket);
    if socket.has_returned() {
        socket.set_flag(if how == libc::SHUT_RD { 0 } else { flag::SENDING_SHUT });
        socket.set_flag(if how == libc::SHUT_WR { 0 } else { flag::RECEIVING_SHUT });
        return None;
    }
    if how != libc::SHUT_RD && !wait_for_switch(socket) {
        socket.set_flag(flag::SENDING_SHUT);
        // It goes on over TCP, and so does its end.
        return None;
    }
    if how != libc::SHUT_WR {
        socket.set_flag(flag::RECEIVING_SHUT);
        kernel::shut_receiving(fd);
    }
    if how != libc::SHUT_RD && socket.set_flag(flag::SENDING_SHUT) {
        let lock = socket.lock_sending();
        if let Some((_, rings)) = socket.rings()
            && !socket.has_returned()
        {
            // One that is returning shuts TCP as well, behind the last byte.
            rings.say(state::SENDING_DONE);
        } else {
            kernel::shut_sending(fd);
        }
        drop(lock);
        socket.notify();
    }
    look(socket);
    socket.wake_watchers();
    Some(Ok(()))
}

fn look(socket: &Socket) {
    if let Some((_, rings)) = socket.rings() {
        course::look(socket, &rings);
    }
}

/// Whether nothing is left of the connection: both ends have finished, or it was reset, whether or not the program has heard of
/// it.
pub(crate) fn is_over(socket: &Socket) -> bool {
    let Some((_, rings)) = socket.rings().filter(|_| !socket.is_plain()) else {
        return false;
    };
    let has_finished = socket.has_flag(flag::SENDING_SHUT)
        && rings.peer_state() & (state::SENDING_DONE | state::CLOSED) != 0
        && transfer::end(socket, &rings).is_some();
    let was_reset = transfer::was_reset(socket, &rings) || transfer::has_sent_to_closed(socket, &rings);
    has_finished || was_reset || socket.has_flag(flag::RESET_TOLD)
}

/// Whether sending has gone into the ring; if not, it never will: its end, which TCP carries then, must be its last word.
fn wait_for_switch(socket: &Socket) -> bool {
    let started = Instant::now();
    while !socket.has_switched() && matches!(socket.mode(), Mode::Prepared | Mode::Ring) {
        if started.elapsed() > PATIENCE {
            return !socket.stay_sending_over_tcp();
        }
        std::thread::yield_now();
    }
    socket.has_switched()
}
