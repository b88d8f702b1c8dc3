//! Sending and receiving, over TCP or through the rings.

use std::ffi::c_int;
use std::os::fd::RawFd;
use std::sync::Arc;

use libc::{MSG_DONTWAIT, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL};
use rustix::io::Errno;
use softrdma_smc::ring::{Rings, state};
use softrdma_smc::shared_memory::{Source, Target};

use crate::abi::kernel;
use crate::socket::{Mode, Socket, flag};
use crate::upgrade;
use crate::wait::{self, Waiting};

/// Sends `parts`: what `sendmsg` with them does.
pub(crate) fn send(socket: &Arc<Socket>, fd: RawFd, parts: &[Source<'_>], flags: c_int) -> Result<usize, Errno> {
    if matches!(socket.mode(), Mode::Idle | Mode::Plain) || flags & MSG_OOB != 0 {
        return send_aside(socket, fd, parts, flags);
    }
    if socket.is_required() {
        upgrade::wait_for_rings(socket, fd)?;
    }
    if !socket.begin_tcp_sending() {
        return send_into_ring(socket, fd, parts, flags);
    }
    let sent = kernel::send(fd, parts, 0, flags);
    socket.end_tcp_sending(*sent.as_ref().unwrap_or(&0));
    if sent.is_ok() {
        upgrade::count_transfer(socket, fd);
    }
    sent
}

/// What is not counted: urgent bytes are no part of the stream's count, so a connection with such stays TCP.
fn send_aside(socket: &Socket, fd: RawFd, parts: &[Source<'_>], flags: c_int) -> Result<usize, Errno> {
    if flags & MSG_OOB != 0 && !socket.stay_plain() {
        return Err(Errno::OPNOTSUPP);
    }
    kernel::send(fd, parts, 0, flags)
}

fn send_into_ring(socket: &Socket, fd: RawFd, parts: &[Source<'_>], flags: c_int) -> Result<usize, Errno> {
    let total = parts.iter().map(Source::length).sum();
    let Some((_, rings)) = socket.rings() else {
        return Err(Errno::NOTCONN);
    };
    let mut sent = 0;
    loop {
        match may_send(socket, &rings) {
            Ok(true) => {}
            Ok(false) => return Ok(total),
            Err(_) if sent > 0 => return Ok(sent),
            Err(error) => {
                if error == Errno::PIPE && flags & MSG_NOSIGNAL == 0 {
                    kernel::raise_broken_pipe();
                }
                return Err(error);
            }
        }
        let lock = socket.lock_sending();
        let taken = rings.send(parts, sent).map_err(|_| socket.punish());
        drop(lock);
        let taken = taken?;
        sent += taken;
        socket.notify();
        socket.show(|entry| {
            if taken > 0 {
                entry.sent(taken as u64);
            } else {
                entry.ring_was_full();
            }
        });
        if sent == total {
            return Ok(sent);
        }
        if flags & MSG_DONTWAIT != 0 || socket.has_flag(flag::NONBLOCKING) {
            return if sent > 0 { Ok(sent) } else { Err(Errno::AGAIN) };
        }
        if let Err(error) = wait::wait(socket, fd, Waiting::ToSend) {
            return if sent > 0 { Ok(sent) } else { Err(error) };
        }
    }
}

/// Whether the peer takes what is sent; what is sent right after it has closed is lost, as it is over TCP, and says nothing.
fn may_send(socket: &Socket, rings: &Rings<'_>) -> Result<bool, Errno> {
    if socket.has_flag(flag::SENDING_SHUT) {
        return Err(Errno::PIPE);
    }
    if socket.has_flag(flag::VIOLATED) {
        return Err(Errno::CONNRESET);
    }
    let peer = rings.peer_state();
    if peer & state::ABORTED != 0 || socket.has_flag(flag::TCP_RESET) && peer & state::CLOSED == 0 {
        return Err(if socket.set_flag(flag::RESET_TOLD) { Errno::CONNRESET } else { Errno::PIPE });
    }
    if peer & state::CLOSED != 0 || socket.has_flag(flag::TCP_ENDED) {
        return if socket.set_flag(flag::SENT_TO_CLOSED) { Ok(false) } else { Err(Errno::PIPE) };
    }
    Ok(true)
}

/// Receives into `parts`: what `recvmsg` with them does.
pub(crate) fn receive(socket: &Arc<Socket>, fd: RawFd, parts: &[Target<'_>], flags: c_int) -> Result<usize, Errno> {
    if matches!(socket.mode(), Mode::Idle | Mode::Plain) || flags & MSG_OOB != 0 {
        return kernel::receive(fd, parts, 0, usize::MAX, flags);
    }
    if socket.is_required() {
        upgrade::wait_for_rings(socket, fd)?;
    }
    let mut received = 0;
    let total: usize = parts.iter().map(Target::length).sum();
    while socket.begin_tcp_receiving() {
        // Waiting for all of it is done here: the kernel would take a doorbell for one of the bytes and wait on.
        let taken = kernel::receive(fd, parts, received, usize::MAX, flags & !MSG_WAITALL);
        let kept = taken.map(|taken| socket.count_received(taken, flags & MSG_PEEK != 0));
        socket.end_tcp_receiving();
        if kept.is_ok() {
            upgrade::count_transfer(socket, fd);
        }
        if let Some(result) = judge(socket, taken, kept, &mut received, total, flags) {
            return result;
        }
    }
    receive_from_ring(socket, fd, parts, flags, received)
}

/// What comes of a call that received over TCP; nothing yet if there is more to wait for, or the rings have the rest.
fn judge(
    socket: &Socket,
    taken: Result<usize, Errno>,
    kept: Result<usize, Errno>,
    received: &mut usize,
    total: usize,
    flags: c_int,
) -> Option<Result<usize, Errno>> {
    let has_rings = socket.mode() == Mode::Prepared || socket.mode() == Mode::Ring;
    match (taken, kept) {
        (Ok(0), _) if total > *received => {
            if !has_rings {
                return Some(Ok(*received));
            }
            socket.note_tcp_end();
            None
        }
        (Ok(taken), Ok(kept)) => {
            *received += kept;
            let is_done = flags & (MSG_WAITALL | MSG_PEEK) != MSG_WAITALL || *received == total;
            (is_done && (*received > 0 || taken == 0)).then_some(Ok(*received))
        }
        (Err(error), _) | (_, Err(error)) => {
            if has_rings && error == Errno::CONNRESET {
                socket.set_flag(flag::TCP_RESET);
                return None;
            }
            Some(if *received > 0 { Ok(*received) } else { Err(error) })
        }
    }
}

fn receive_from_ring(
    socket: &Socket,
    fd: RawFd,
    parts: &[Target<'_>],
    flags: c_int,
    mut received: usize,
) -> Result<usize, Errno> {
    let total: usize = parts.iter().map(Target::length).sum();
    let Some((_, rings)) = socket.rings() else {
        return Err(Errno::NOTCONN);
    };
    if total == 0 {
        return Ok(0);
    }
    loop {
        let (taken, must_notify) = take(socket, &rings, fd, parts, flags, received)?;
        if must_notify {
            socket.notify();
        }
        received += taken;
        if taken > 0 && flags & MSG_PEEK == 0 {
            socket.show(|entry| entry.received(taken as u64));
        }
        if taken > 0 && (flags & MSG_WAITALL == 0 || flags & MSG_PEEK != 0 || received == total) {
            return Ok(received);
        }
        if taken > 0 {
            continue;
        }
        if let Some(end) = end(socket, &rings) {
            return if received > 0 { Ok(received) } else { end.tell(socket) };
        }
        if flags & MSG_DONTWAIT != 0 || socket.has_flag(flag::NONBLOCKING) {
            return if received > 0 { Ok(received) } else { Err(Errno::AGAIN) };
        }
        if let Err(error) = wait::wait(socket, fd, Waiting::ToReceive) {
            return if received > 0 { Ok(received) } else { Err(error) };
        }
    }
}

/// Takes what there is just now: up to the switch from TCP, then from the ring.
fn take(
    socket: &Socket,
    rings: &Rings<'_>,
    fd: RawFd,
    parts: &[Target<'_>],
    flags: c_int,
    skip: usize,
) -> Result<(usize, bool), Errno> {
    let _lock = socket.lock_receiving();
    let limit = socket.rings().and_then(|(connection, _)| connection.peer_switch());
    let left = limit.map(|limit| limit.saturating_sub(socket.received()));
    if left == Some(0) {
        let total = parts.iter().map(Target::length).sum::<usize>();
        let taken = if flags & MSG_TRUNC != 0 && flags & MSG_PEEK == 0 {
            rings.readable().and_then(|there| Ok((there.min(total - skip), rings.skip(total - skip)?)))
        } else if flags & MSG_PEEK != 0 {
            rings.peek(parts, 0).map(|taken| (taken, false))
        } else {
            rings.receive(parts, skip)
        };
        return taken.map_err(|_| socket.punish());
    }
    if socket.is_receiving_over_tcp() || socket.has_flag(flag::TCP_ENDED | flag::TCP_RESET) {
        return Ok((0, false));
    }
    let most = left.map_or(usize::MAX, |left| left as usize);
    match kernel::receive(fd, parts, skip, most, flags & !MSG_WAITALL | MSG_DONTWAIT) {
        Ok(0) => {
            socket.note_tcp_end();
            Ok((0, false))
        }
        Ok(taken) => Ok((socket.count_received(taken, flags & MSG_PEEK != 0), false)),
        Err(Errno::AGAIN) => Ok((0, false)),
        Err(Errno::CONNRESET) => {
            socket.set_flag(flag::TCP_RESET);
            Ok((0, false))
        }
        Err(error) => Err(error),
    }
}

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer has sent all it wanted, or the program wants no more.
    Closed,
    /// Something is lost.
    Reset,
}

impl End {
    /// What a receiving call returns: an error once, then the end.
    fn tell(self, socket: &Socket) -> Result<usize, Errno> {
        if self == Self::Reset && socket.set_flag(flag::RESET_TOLD) { Err(Errno::CONNRESET) } else { Ok(0) }
    }
}

/// Whether the stream has come to its end: all of it was received.
pub(crate) fn end(socket: &Socket, rings: &Rings<'_>) -> Option<End> {
    if socket.has_flag(flag::VIOLATED) {
        return Some(End::Reset);
    }
    // What the peer says about itself before what there is: it said it last.
    let peer = rings.peer_state();
    let (has_ended, was_reset) = (socket.has_flag(flag::TCP_ENDED), socket.has_flag(flag::TCP_RESET));
    let limit = socket.rings().and_then(|(connection, _)| connection.peer_switch());
    match limit {
        Some(limit) if socket.received() < limit && !has_ended && !was_reset => return None,
        None if !has_ended && !was_reset && !socket.has_flag(flag::RECEIVING_SHUT) => return None,
        _ => {}
    }
    if rings.readable().ok()? > 0 {
        return None;
    }
    if peer & state::ABORTED != 0 {
        return Some(End::Reset);
    }
    if peer & (state::SENDING_DONE | state::CLOSED) != 0 || socket.has_flag(flag::RECEIVING_SHUT) {
        return Some(End::Closed);
    }
    if was_reset {
        return Some(End::Reset);
    }
    // The peer has died. Over TCP we learn of what it had not read by a reset.
    has_ended.then(|| if rings.in_flight().unwrap_or(0) > 0 { End::Reset } else { End::Closed })
}
