//! Sending and receiving, over TCP or through the rings.

use std::ffi::c_int;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use libc::{MSG_DONTWAIT, MSG_ERRQUEUE, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL, MSG_ZEROCOPY};
use rustix::io::Errno;
use softrdma_smc::ring::{Rings, state};
use softrdma_smc::shared_memory::{Source, Target};
use softrdma_smc::wire::clc::DeclineReason;

use crate::abi::kernel;
use crate::back;
use crate::capture;
use crate::course;
use crate::show;
use crate::socket::{Mode, Socket, flag};
use crate::spin::Spin;
use crate::upgrade;
use crate::wait::{self, Waiting};

/// Sends `parts`: what `sendmsg` with them does.
pub(crate) fn send(socket: &Arc<Socket>, fd: RawFd, parts: &[Source<'_>], flags: c_int) -> Result<usize, Errno> {
    if socket.is_required() {
        upgrade::wait_for_rings(socket, fd)?;
    }
    if matches!(socket.mode(), Mode::Idle | Mode::Plain) || is_kernels_own(fd, flags) {
        return send_aside(socket, fd, parts, flags);
    }
    if !socket.begin_tcp_sending() {
        return send_into_ring(socket, fd, parts, flags);
    }
    let sent = kernel::send(fd, parts, 0, flags);
    socket.end_tcp_sending(*sent.as_ref().unwrap_or(&0));
    match sent {
        Ok(_) => upgrade::count_transfer(socket, fd),
        Err(Errno::AGAIN) => {
            socket.refusals.fetch_add(1, Ordering::AcqRel);
        }
        Err(_) => {}
    }
    sent
}

/// What only the kernel can do: a connection that needs it becomes TCP, or says that it cannot.
fn is_kernels_own(fd: RawFd, flags: c_int) -> bool {
    // Without the option the flag means nothing.
    let is_zero_copy = || kernel::option(fd, libc::SOL_SOCKET, libc::SO_ZEROCOPY) == Some(1);
    flags & MSG_OOB != 0 || flags & MSG_ZEROCOPY != 0 && is_zero_copy()
}

/// What is not counted: urgent bytes are no part of the stream's count, and notices of bytes that were not copied are the kernel's.
fn send_aside(socket: &Arc<Socket>, fd: RawFd, parts: &[Source<'_>], flags: c_int) -> Result<usize, Errno> {
    if flags & MSG_OOB != 0 {
        show::count_urgent();
    }
    let reason = if flags & MSG_OOB != 0 { DeclineReason::URGENT_DATA } else { DeclineReason::ZERO_COPY };
    if is_kernels_own(fd, flags) && !back::leave(socket, fd, reason) {
        // Without zero copy the same bytes can be sent again with it left out, which this error asks for.
        return Err(if flags & MSG_OOB != 0 { Errno::OPNOTSUPP } else { Errno::NOBUFS });
    }
    kernel::send(fd, parts, 0, flags)
}

fn send_into_ring(socket: &Arc<Socket>, fd: RawFd, parts: &[Source<'_>], flags: c_int) -> Result<usize, Errno> {
    let total = parts.iter().map(Source::length).sum();
    let Some((_, rings)) = socket.rings() else {
        return Err(Errno::NOTCONN);
    };
    socket.pace.reset();
    let (mut sent, mut has_looked_again) = (0, false);
    loop {
        if socket.is_returning() {
            return send_over_tcp_again(socket, fd, parts, flags, sent);
        }
        match may_send(socket, &rings) {
            Ok(true) => {}
            Ok(false) => return Ok(total),
            Err(_) if sent > 0 => return Ok(sent),
            Err(error) => {
                course::look(socket, &rings);
                if error == Errno::PIPE && flags & MSG_NOSIGNAL == 0 {
                    kernel::raise_broken_pipe();
                }
                return Err(error);
            }
        }
        let lock = socket.lock_sending();
        if socket.is_returning() {
            continue;
        }
        let taken = rings.send(parts, sent).map_err(|_| socket.punish());
        if capture::is_on() {
            capture::sent(socket, &rings, *taken.as_ref().unwrap_or(&0));
        }
        lock.release();
        let taken = taken?;
        sent += taken;
        socket.notify_unlocked();
        socket.probe_if_ended();
        socket.show(|entry| {
            if taken > 0 {
                entry.sent(taken as u64);
                entry.set_sending(rings.sending());
            } else {
                entry.ring_was_full();
            }
        });
        if sent == total {
            return Ok(sent);
        }
        let waits = flags & MSG_DONTWAIT == 0 && !socket.has_flag(flag::NONBLOCKING);
        if (waits || !has_looked_again) && rings.is_writable().unwrap_or(true) {
            // A reader that made room before it could see that we want some tells nobody of it. Once it can, it does: who
            // does not wait need not go on for as long as it reads.
            has_looked_again = true;
            continue;
        }
        socket.refusals.fetch_add(1, Ordering::AcqRel);
        if !waits {
            return if sent > 0 { Ok(sent) } else { Err(Errno::AGAIN) };
        }
        if let Err(error) = wait::wait(socket, fd, Waiting::ToSend, sent > 0) {
            return if sent > 0 { Ok(sent) } else { Err(error) };
        }
    }
}

/// Sends the rest of `parts`, behind their first `sent` bytes, over TCP, now that the peer has left the rings.
#[cold]
fn send_over_tcp_again(
    socket: &Arc<Socket>,
    fd: RawFd,
    parts: &[Source<'_>],
    flags: c_int,
    sent: usize,
) -> Result<usize, Errno> {
    let is_waiting = flags & MSG_DONTWAIT == 0 && !socket.has_flag(flag::NONBLOCKING);
    let limit_ms = if is_waiting { kernel::time_limit_ms(fd, libc::SO_SNDTIMEO) } else { 0 };
    let result = back::wait_to_send(socket, fd, limit_ms).and_then(|()| kernel::send(fd, parts, sent, flags));
    match result {
        Ok(more) => Ok(sent + more),
        Err(_) if sent > 0 => Ok(sent),
        Err(error) => Err(error),
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
    if was_reset(socket, rings) {
        return Err(if socket.set_flag(flag::RESET_TOLD) { Errno::CONNRESET } else { Errno::PIPE });
    }
    let is_gone = has_vanished(socket);
    if peer & state::CLOSED != 0 || is_gone {
        if !has_sent_to_closed(socket, rings) && socket.set_flag(flag::SENT_TO_CLOSED) {
            return Ok(false);
        }
        socket.set_flag(flag::RESET_TOLD);
        return Err(Errno::PIPE);
    }
    Ok(true)
}

/// Whether something was sent that the peer had no more use for: it has closed, and said that it had read everything.
pub(crate) fn has_sent_to_closed(socket: &Socket, rings: &Rings<'_>) -> bool {
    socket.has_flag(flag::SENT_TO_CLOSED) || rings.peer_state() & state::CLOSED != 0 && rings.has_lost()
}

/// Whether TCP has come to its end without a word of the peer's. Its end of TCP is the peer's only if the peer no longer sends
/// there: before, it may have closed one direction.
pub(crate) fn has_vanished(socket: &Socket) -> bool {
    let has_ended = socket.has_flag(flag::TCP_ENDED | flag::HUNG_UP);
    let is_peers = || socket.peer_switch().is_some() && !socket.has_peer_gone_back();
    socket.has_flag(flag::TCP_RESET | flag::CUT_OFF) || has_ended && is_peers()
}

/// Whether something is lost: the peer said so, or has died before it read everything. That TCP was reset says little: a doorbell
/// that was not heard is enough.
pub(crate) fn was_reset(socket: &Socket, rings: &Rings<'_>) -> bool {
    let peer = rings.peer_state();
    if peer & state::CLOSED != 0 || socket.has_flag(flag::VIOLATED) {
        return peer & state::ABORTED != 0 || socket.has_flag(flag::VIOLATED);
    }
    let is_of_tcp = socket.has_flag(flag::TCP_RESET) && !socket.has_switched();
    // What is sent again over TCP is TCP's to lose.
    is_of_tcp || has_vanished(socket) && !socket.is_returning() && rings.has_lost()
}

/// Receives into `parts`: what `recvmsg` with them does.
pub(crate) fn receive(socket: &Arc<Socket>, fd: RawFd, parts: &[Target<'_>], flags: c_int) -> Result<usize, Errno> {
    if socket.is_required() {
        upgrade::wait_for_rings(socket, fd)?;
    }
    if matches!(socket.mode(), Mode::Idle | Mode::Plain) || flags & (MSG_OOB | MSG_ERRQUEUE) != 0 {
        return kernel::receive(fd, parts, 0, usize::MAX, flags);
    }
    let mut received = 0;
    let total: usize = parts.iter().map(Target::length).sum();
    while let Some(receiving) = socket.begin_tcp_receiving() {
        // Waiting for all of it is done here: the kernel would take a doorbell for one of the bytes and wait on. But what is only
        // looked at is not taken, so nothing could be waited for here.
        let own = if flags & MSG_PEEK != 0 { 0 } else { MSG_WAITALL };
        let taken = match received {
            0 => receive_over_tcp(socket, fd, parts, flags & !own),
            _ => receive_more_over_tcp(fd, parts, received, flags & !own),
        };
        let kept = taken.map(|taken| socket.count_received(taken, flags & MSG_PEEK != 0));
        drop(receiving);
        if kept.is_ok() {
            upgrade::count_transfer(socket, fd);
        }
        if socket.is_behind_switch() {
            // Nobody else could look behind the program's bytes.
            wait::take_doorbells(socket, fd, true, None);
        }
        if let Some(result) = judge(socket, taken, kept, &mut received, total, flags) {
            return result;
        }
    }
    receive_from_ring(socket, fd, parts, flags, received)
}

thread_local! {
    /// How long it has been worth looking at TCP in this thread: most connections are over before they have learned it.
    static SPIN: Spin = const { Spin::new() };
}

/// A call that may wait looks a while before it lets the kernel wait: over the loopback, an answer is nearer than a sleep.
fn receive_over_tcp(socket: &Socket, fd: RawFd, parts: &[Target<'_>], flags: c_int) -> Result<usize, Errno> {
    // One that only looks may have asked for more than there is at first.
    let waits = flags & (MSG_DONTWAIT | MSG_PEEK) == 0 && !socket.has_flag(flag::NONBLOCKING);
    if waits && !upgrade::spin_limit().is_zero() && !kernel::is_locked_in() {
        let mut taken = Ok(0);
        let mut has_come = || {
            taken = kernel::receive(fd, parts, 0, usize::MAX, flags | MSG_DONTWAIT);
            taken != Err(Errno::AGAIN)
        };
        // What is there at once says nothing of how long a look is worth.
        if has_come() || SPIN.with(|spin| spin.until_called(&mut has_come)) {
            return taken;
        }
    }
    kernel::receive(fd, parts, 0, usize::MAX, flags)
}

/// Waits for more where some was received: a signal ends such a call, even if calls go on after it.
fn receive_more_over_tcp(fd: RawFd, parts: &[Target<'_>], received: usize, flags: c_int) -> Result<usize, Errno> {
    if flags & MSG_DONTWAIT == 0 && !kernel::is_nonblocking(fd) {
        kernel::poll(fd, libc::POLLIN, kernel::time_limit_ms(fd, libc::SO_RCVTIMEO))?;
    }
    kernel::receive(fd, parts, received, usize::MAX, flags | MSG_DONTWAIT)
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
            // Doorbells among it: the program's bytes go on in the ring.
            let is_over = kept == taken && (flags & (MSG_WAITALL | MSG_PEEK) != MSG_WAITALL || *received == total);
            is_over.then_some(Ok(*received))
        }
        (Err(error), _) | (_, Err(error)) => {
            if has_rings && error == Errno::CONNRESET {
                socket.note(flag::TCP_RESET);
                return None;
            }
            Some(if *received > 0 { Ok(*received) } else { Err(error) })
        }
    }
}

fn receive_from_ring(
    socket: &Arc<Socket>,
    fd: RawFd,
    parts: &[Target<'_>],
    flags: c_int,
    mut received: usize,
) -> Result<usize, Errno> {
    let total: usize = parts.iter().map(Target::length).sum();
    let Some((_, rings)) = socket.rings() else {
        return Err(Errno::NOTCONN);
    };
    let is_peek = flags & MSG_PEEK != 0;
    socket.pace.read(total, || rings.has_seen(total));
    loop {
        let taken = take(socket, &rings, fd, parts, flags, if is_peek { 0 } else { received })?;
        if taken == 0 && total > 0 && socket.is_plain() {
            let rest = kernel::receive(fd, parts, received, usize::MAX, flags);
            return if received > 0 { Ok(received + rest.unwrap_or(0)) } else { rest };
        }
        received = if is_peek { taken } else { received + taken };
        let is_enough = received > 0 && (flags & MSG_WAITALL == 0 || received == total);
        if is_enough || total == 0 && wait::is_over(socket, Waiting::ToReceive) {
            return Ok(received);
        }
        if let Some(end) = end(socket, &rings) {
            course::look(socket, &rings);
            return if received > 0 { Ok(received) } else { end.tell(socket) };
        }
        if flags & MSG_DONTWAIT != 0 || socket.has_flag(flag::NONBLOCKING) {
            return if received > 0 { Ok(received) } else { Err(Errno::AGAIN) };
        }
        if is_peek && received > 0 {
            // What is there stays there, so nothing wakes us for more of it.
            kernel::pause(LOOK_AGAIN);
        } else if let Err(error) = wait::wait(socket, fd, Waiting::ToReceive, received > 0) {
            return if received > 0 { Ok(received) } else { Err(error) };
        }
    }
}

/// How long a call that looks at bytes without taking them waits for more.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(1);

/// Takes what there is just now: up to the switch from TCP, then from the ring.
fn take(
    socket: &Arc<Socket>,
    rings: &Rings<'_>,
    fd: RawFd,
    parts: &[Target<'_>],
    flags: c_int,
    skip: usize,
) -> Result<usize, Errno> {
    let is_peek = flags & MSG_PEEK != 0;
    let lock = socket.lock_receiving();
    if socket.is_plain() {
        return Ok(0);
    }
    let over_tcp = take_from_tcp(socket, fd, parts, flags, skip)?;
    // In the ring comes what was sent after the last byte over TCP, so all of that must have been taken, or looked at.
    let limit = socket.rings().and_then(|(connection, _)| connection.peer_switch());
    let seen = socket.received() + if is_peek { over_tcp as u64 } else { 0 };
    if limit.is_none_or(|limit| seen < limit) {
        return Ok(over_tcp);
    }
    let skip = skip + over_tcp;
    let wanted = parts.iter().map(Target::length).sum::<usize>() - skip;
    let about_to = if capture::is_on() && !is_peek { capture::about_to_receive(socket, rings, wanted) } else { None };
    let taken = if is_peek && flags & MSG_TRUNC != 0 {
        rings.readable().map(|there| (there.min(wanted), false))
    } else if is_peek {
        rings.peek(parts, skip).map(|taken| (taken, false))
    } else if let Some(bytes) = &about_to {
        // No more than was written down, though more may have come since.
        let there = if flags & MSG_TRUNC != 0 { Ok(wanted) } else { rings.peek(parts, skip) };
        there.and_then(|there| rings.skip(there.min(bytes.len())))
    } else if flags & MSG_TRUNC != 0 {
        rings.skip(wanted)
    } else {
        rings.receive(parts, skip)
    };
    if let (Some(bytes), Ok((length, _))) = (about_to, taken.as_ref()) {
        capture::received(socket, rings, &bytes, *length);
    }
    let mut behind = 0;
    if let Ok((taken, _)) = taken
        && taken < wanted
        && socket.has_peer_gone_back()
    {
        let result = take_behind_mark(socket, fd, parts, flags, skip + taken);
        behind = if over_tcp + taken > 0 { result.unwrap_or(0) } else { result? };
    }
    drop(lock);
    let (taken, must_notify) = taken.map_err(|_| socket.punish())?;
    if must_notify {
        socket.notify();
    }
    if taken > 0 && !is_peek {
        socket.show(|entry| {
            entry.received(taken as u64);
            entry.set_consumed(rings.consumed());
        });
    }
    Ok(over_tcp + taken + behind)
}

/// Takes what TCP has brought and is the program's, without waiting.
fn take_from_tcp(socket: &Socket, fd: RawFd, parts: &[Target<'_>], flags: c_int, skip: usize) -> Result<usize, Errno> {
    let limit = socket.rings().and_then(|(connection, _)| connection.peer_switch());
    let left = limit.map_or(usize::MAX, |limit| limit.saturating_sub(socket.received()) as usize);
    let has_ended = socket.has_flag(flag::TCP_ENDED | flag::TCP_RESET);
    if left == 0 || has_ended || socket.is_receiving_over_tcp() || parts.iter().all(|part| part.length() == 0) {
        return Ok(0);
    }
    match kernel::receive(fd, parts, skip, left, flags & !MSG_WAITALL | MSG_DONTWAIT) {
        Ok(0) => {
            socket.note_tcp_end();
            Ok(0)
        }
        Ok(taken) => {
            let kept = socket.count_received(taken, flags & MSG_PEEK != 0);
            if socket.is_behind_switch() {
                // What lies behind the last of them may have been announced already.
                wait::look_behind(socket, fd);
            }
            Ok(kept)
        }
        Err(Errno::AGAIN) => Ok(0),
        Err(Errno::CONNRESET) => {
            socket.note(flag::TCP_RESET);
            Ok(0)
        }
        Err(error) => Err(error),
    }
}

/// Takes what TCP has brought behind the mark, once the ring is empty.
#[cold]
fn take_behind_mark(
    socket: &Arc<Socket>,
    fd: RawFd,
    parts: &[Target<'_>],
    flags: c_int,
    skip: usize,
) -> Result<usize, Errno> {
    use softrdma_smc::back::Source;
    if socket.source() == Some(Source::Mark) {
        wait::hear(socket, socket.take_doorbells(fd, true));
    }
    if socket.source() != Some(Source::TcpAgain) {
        return Ok(0);
    }
    back::settle(socket, fd);
    // Where there is a mark behind what was taken already, a call ends.
    if skip > 0 && kernel::is_at_mark(fd) {
        return Ok(0);
    }
    match kernel::receive(fd, parts, skip, usize::MAX, flags & !MSG_WAITALL | MSG_DONTWAIT) {
        Ok(0) => {
            socket.note_tcp_end();
            Ok(0)
        }
        Err(Errno::AGAIN) => Ok(0),
        Err(Errno::CONNRESET) => {
            socket.note(flag::TCP_RESET);
            Ok(0)
        }
        result => result,
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
    if socket.is_plain() {
        return None;
    }
    // What the peer says about itself before what there is: it said it last.
    let peer = rings.peer_state();
    let (has_ended, was_reset) = (socket.has_tcp_ended(), socket.has_flag(flag::TCP_RESET));
    let limit = socket.rings().and_then(|(connection, _)| connection.peer_switch());
    match limit {
        // What is missing between the two will not come.
        Some(limit) if socket.received() < limit => return (has_ended || was_reset).then_some(End::Reset),
        None if !has_ended && !was_reset && !socket.has_flag(flag::RECEIVING_SHUT) => return None,
        _ => {}
    }
    // A peer that never said where its bytes in the ring begin has none there.
    match limit.map(|_| rings.readable()) {
        Some(Ok(1..)) => return None,
        Some(Err(_)) => return Some(End::Reset),
        Some(Ok(0)) | None => {}
    }
    if self::was_reset(socket, rings) {
        return Some(End::Reset);
    }
    let is_closed = peer & (state::SENDING_DONE | state::CLOSED) != 0 || socket.has_flag(flag::RECEIVING_SHUT);
    (is_closed || has_ended || was_reset).then_some(End::Closed)
}
