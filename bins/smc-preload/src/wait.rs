//! What a call does that must wait: spin as long as that has been worth it, then sleep in the kernel.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use softrdma_smc::arena::Connection;
use softrdma_smc::ring::state;

use crate::abi::kernel::{self, Stream};
use crate::back;
use crate::epoll::Epoll;
use crate::socket::{Socket, flag};
use crate::transfer;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    ToReceive,
    ToSend,
}

/// Waits until a call is worth trying again. An error is what the kernel would say to a call that waits: a signal, a time
/// limit.
///
/// A call that `has_begun` to move bytes returns with them when a signal comes, even one after which calls go on.
pub(crate) fn wait(socket: &Arc<Socket>, fd: RawFd, waiting: Waiting, has_begun: bool) -> Result<(), Errno> {
    let has_paid = socket.spin.until(|| is_over(socket, waiting), |_| false);
    socket.show(|entry| entry.spun(has_paid));
    if has_paid {
        return Ok(());
    }
    let Some((connection, _)) = socket.rings() else {
        return Ok(());
    };
    match waiting {
        Waiting::ToReceive => sleep_to_receive(socket, fd, has_begun),
        Waiting::ToSend => sleep_to_send(socket, connection, fd),
    }
}

/// Whether a call would not find what the last one found.
pub(crate) fn is_over(socket: &Socket, waiting: Waiting) -> bool {
    let Some((connection, rings)) = socket.rings() else {
        return true;
    };
    if socket.is_plain() {
        return true;
    }
    match waiting {
        Waiting::ToSend => {
            rings.is_writable().unwrap_or(true)
                || socket.is_returning()
                || rings.peer_state() & state::CLOSED != 0
                || socket.has_flag(flag::VIOLATED)
                || socket.has_flag(flag::SENDING_SHUT)
                || transfer::has_vanished(socket)
        }
        Waiting::ToReceive => {
            let is_behind = connection.peer_switch().is_some_and(|switch| socket.received() >= switch);
            is_behind && rings.readable().map_or(true, |there| there > 0) || transfer::end(socket, &rings).is_some()
        }
    }
}

fn sleep_to_receive(socket: &Arc<Socket>, fd: RawFd, has_begun: bool) -> Result<(), Errno> {
    let sleeping = socket.fall_asleep();
    let result = match is_over(socket, Waiting::ToReceive) {
        true => Ok(None),
        false if has_begun => sleep_until_signal(fd),
        false => kernel::sleep(fd).map(Some),
    };
    drop(sleeping);
    listen_to_tcp(socket, fd, result)
}

fn sleep_until_signal(fd: RawFd) -> Result<Option<usize>, Errno> {
    match kernel::poll(fd, libc::POLLIN, kernel::time_limit_ms(fd, libc::SO_RCVTIMEO))? {
        0 => Err(Errno::AGAIN),
        _ => kernel::sleep(fd).map(Some),
    }
}

fn sleep_to_send(socket: &Arc<Socket>, connection: &Connection, fd: RawFd) -> Result<(), Errno> {
    let limit_ms = kernel::time_limit_ms(fd, libc::SO_SNDTIMEO);
    connection.want_room(true);
    let sleeping = socket.fall_asleep();
    let result = if is_over(socket, Waiting::ToSend) { Ok(0) } else { sleep_for_room(socket, fd, limit_ms) };
    drop(sleeping);
    connection.want_room(false);
    // Those who slept as well may have left it to us.
    take_note(socket, fd, *result.as_ref().unwrap_or(&libc::POLLIN), None);
    result.map(drop)
}

/// How long who waits for room sleeps at most. Bytes that the program does not read may lie before the doorbells.
const SLICE_MS: i32 = 20;
/// The same where TCP is shut to receive, which no doorbell gets through.
const SHUT_SLICE_MS: i32 = 1;

/// Sleeps until there may be room: what TCP has to say.
fn sleep_for_room(socket: &Socket, fd: RawFd, limit_ms: i32) -> Result<i16, Errno> {
    let started = Instant::now();
    loop {
        let left_ms = i128::from(limit_ms) - started.elapsed().as_millis() as i128;
        if limit_ms >= 0 && left_ms <= 0 {
            return Err(Errno::AGAIN);
        }
        let most = slice_ms(socket).unwrap_or(SLICE_MS);
        let slice_ms = if limit_ms < 0 { most } else { most.min(left_ms as i32) };
        let events = kernel::poll(fd, bell(socket), slice_ms)?;
        if events != 0 || is_over(socket, Waiting::ToSend) {
            return Ok(events);
        }
        look_for_life(socket, fd);
    }
}

/// What TCP is asked for by who waits for the peer: doorbells and its end, as long as they may come. That it was reset is told
/// without being asked for.
pub(crate) fn bell(socket: &Socket) -> i16 {
    if socket.has_flag(flag::TCP_ENDED | flag::RECEIVING_SHUT) {
        return 0;
    }
    let end = if socket.has_flag(flag::HUNG_UP) { 0 } else { libc::POLLRDHUP };
    if socket.is_behind_switch() { libc::POLLIN | end } else { end }
}

/// How long who waits for something else than bytes of `socket` may sleep, if no doorbell might wake him.
pub(crate) fn slice(socket: &Socket) -> Option<Duration> {
    slice_ms(socket).map(|slice| Duration::from_millis(slice as u64))
}

fn slice_ms(socket: &Socket) -> Option<i32> {
    if socket.has_flag(flag::RECEIVING_SHUT) {
        return Some(SHUT_SLICE_MS);
    }
    (bell(socket) & libc::POLLIN == 0).then_some(SLICE_MS)
}

/// Finds out about the end of a peer that TCP would not tell of.
pub(crate) fn look_for_life(socket: &Socket, fd: RawFd) {
    if socket.has_flag(flag::RECEIVING_SHUT) {
        if kernel::has_peer_ended(fd) {
            socket.note(flag::HUNG_UP);
        }
    } else if socket.has_flag(flag::TCP_ENDED | flag::HUNG_UP) && !transfer::has_vanished(socket) {
        socket.probe();
    }
}

/// Takes what woke us off the stream, and remembers what it says about it.
fn listen_to_tcp(socket: &Arc<Socket>, fd: RawFd, woken: Result<Option<usize>, Errno>) -> Result<(), Errno> {
    match woken {
        Ok(None) => Ok(()),
        Ok(Some(0)) => {
            socket.note_tcp_end();
            Ok(())
        }
        Ok(Some(_)) => {
            take_doorbells(socket, fd, false, None);
            Ok(())
        }
        Err(Errno::CONNRESET) => {
            socket.note(flag::TCP_RESET);
            Ok(())
        }
        Err(error) => {
            // Others may have left it to us.
            take_doorbells(socket, fd, true, None);
            Err(error)
        }
    }
}

/// The kernel has told these `events` of `fd`, and will not tell some of them again, to who waits in `epoll`.
pub(crate) fn take_note(socket: &Arc<Socket>, fd: RawFd, events: i16, epoll: Option<&Epoll>) {
    // An error without a hang-up is no end: something lies in the error queue, such as a timestamp of a doorbell.
    let is_hung_up = events & libc::POLLHUP != 0;
    let has_end = is_hung_up || events & libc::POLLRDHUP != 0;
    if events & libc::POLLIN != 0 || has_end {
        take_doorbells(socket, fd, has_end, epoll);
    }
    if socket.is_plain() {
        // The kernel will tell it again.
        return;
    }
    if has_end && !socket.has_flag(flag::TCP_ENDED | flag::TCP_RESET | flag::RECEIVING_SHUT) {
        // Somebody else has still to take what lies before it.
        socket.note(flag::HUNG_UP);
    }
    // Both directions being shut by us is no reset.
    if is_hung_up && (events & libc::POLLERR != 0 || !socket.has_flag(flag::SENDING_SHUT)) {
        socket.note(flag::CUT_OFF);
    }
}

/// Takes doorbells off the stream, if nothing else can be in it. The end behind them is seen if the caller `wants_end`.
pub(crate) fn take_doorbells(socket: &Arc<Socket>, fd: RawFd, wants_end: bool, epoll: Option<&Epoll>) {
    take_bells(socket, fd, wants_end, epoll);
    // What the bell was rung for may be something else than bytes; and nobody else may have heard what the peer wants next.
    let is_asked = back::is_asked(socket) || socket.is_returning() && !socket.has_returned();
    if !is_asked && !socket.has_returned() {
        return;
    }
    let Some(fd) = number(&socket.descriptors(), fd) else {
        return;
    };
    if is_asked {
        back::answer(socket, fd);
    }
    if socket.has_returned() {
        back::settle(socket, fd);
    }
}

/// The number of a socket that was `fd`: it may have been closed meanwhile, and be another connection's.
fn number(descriptors: &[RawFd], fd: RawFd) -> Option<RawFd> {
    descriptors.iter().find(|known| **known == fd).or(descriptors.first()).copied()
}

fn take_bells(socket: &Socket, fd: RawFd, wants_end: bool, epoll: Option<&Epoll>) {
    let stream = {
        let _lock = socket.lock_receiving();
        if socket.sleepers.load(Ordering::SeqCst) > 0 {
            // It is their bell as well: the last of them takes it.
            return;
        }
        // With the lock held: a number that is closed meanwhile may become another connection's.
        let descriptors = socket.descriptors();
        match number(&descriptors, fd) {
            Some(fd) if has_only_doorbells(socket) => socket.take_doorbells(fd, wants_end),
            _ => return,
        }
    };
    hear(socket, stream);
    if let Stream::Open { had_doorbells: true } = stream {
        socket.pass_on_doorbell(epoll);
    }
}

/// Whether what TCP brings up to the mark is nobody's but ours.
fn has_only_doorbells(socket: &Socket) -> bool {
    socket.is_behind_switch() && !socket.is_receiving_over_tcp() && !socket.is_plain()
}

/// The receive lock is held, and the last of the program's bytes was just taken: what lies behind it.
pub(crate) fn look_behind(socket: &Socket, fd: RawFd) {
    if has_only_doorbells(socket) {
        hear(socket, socket.take_doorbells(fd, true));
    }
}

pub(crate) fn hear(socket: &Socket, stream: Stream) {
    match stream {
        Stream::Open { .. } => {}
        Stream::Ended => socket.note_tcp_end(),
        Stream::Reset => socket.note(flag::TCP_RESET),
    }
}
