//! How a connection that has rings becomes TCP again ([`softrdma_smc::back`]): an end that leaves, and one that is left.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use softrdma_smc::arena::Connection;
use softrdma_smc::back::{self, BackError, Recall, Source, Step, Stream};
use softrdma_smc::descriptors::Private;
use softrdma_smc::ring::{Rings, state};
use softrdma_smc::statistics::Reasons;
use softrdma_smc::wire::clc::DeclineReason;

use crate::abi::kernel;
use crate::socket::{Mode, Socket, flag};
use crate::{show, upgrade};

/// How long the peer may take to answer. Until then nothing has changed.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How long the rest may take.
const REST_WITHIN: Duration = Duration::from_secs(2);
/// How often the peer is called.
const CALL_AGAIN: Duration = Duration::from_millis(10);
/// How long nothing is done between looks.
const NAP: Duration = Duration::from_micros(100);

/// A socket's TCP.
struct Tcp {
    fd: RawFd,
    /// It is shut to receive, and says that it ends there whenever it is empty.
    is_shut: bool,
}

impl Tcp {
    fn new(socket: &Socket, fd: RawFd) -> Self {
        Self { fd, is_shut: socket.has_flag(flag::RECEIVING_SHUT) }
    }
}

impl Stream for Tcp {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        kernel::send_at_once(self.fd, bytes)
    }

    fn receive(&mut self, bytes: &mut [u8], is_peek: bool) -> Result<Option<usize>, Errno> {
        let there = kernel::receive_at_once(self.fd, bytes, is_peek)?;
        Ok(there.filter(|there| *there > 0 || !self.is_shut))
    }
}

/// Why a connection could not be made TCP again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// The peer has not answered, or cannot: everything is as it was.
    Unanswered,
    /// Bytes are lost.
    Broken,
}

impl From<BackError> for Failure {
    fn from(_: BackError) -> Self {
        Self::Broken
    }
}

/// Makes `socket`, which is `fd`, TCP for good, whatever it is now: whether it is then.
pub(crate) fn leave(socket: &Arc<Socket>, fd: RawFd, reason: DeclineReason) -> bool {
    if upgrade::leave_to_tcp(socket, reason) {
        return true;
    }
    let deadline = Instant::now() + ANSWER_WITHIN;
    while socket.mode() != Mode::Ring {
        if upgrade::leave_to_tcp(socket, reason) {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        kernel::pause(NAP);
    }
    let receiving = socket.lock_receiving();
    if socket.is_plain() {
        return true;
    }
    let result = leave_receiving(socket, fd, deadline).and_then(|()| {
        socket.set_flag(flag::RECALLED);
        // The peer sends what was in the ring once more: from here on there is no way back.
        leave_sending(socket, fd).map_err(|_| Failure::Broken)
    });
    if result == Err(Failure::Broken) {
        // What is lost must not go unnoticed.
        socket.punish();
    }
    if result.is_ok() {
        become_plain(socket, fd, Reasons { own: reason.0, peer: 0 });
    }
    drop(receiving);
    if result.is_ok() {
        call_peer(socket);
    }
    result.is_ok()
}

/// The socket goes to another program, but cannot be TCP. If the peer has changed its ways already, the program must not take
/// what comes for what it is not: it sees the end.
pub(crate) fn give_up(socket: &Socket, fd: RawFd) {
    if socket.has_flag(flag::RECALLED | flag::VIOLATED) {
        kernel::shut_receiving(fd);
        kernel::shut_sending(fd);
    }
}

/// Tells the peer's processes to look at the connection.
fn call_peer(socket: &Socket) {
    if let Some((connection, _)) = socket.rings() {
        connection.peer_homes().for_each(|home| upgrade::call(home, connection.peer_token()));
    }
}

/// The peer sends over TCP from now on, beginning with what was not read here.
fn leave_receiving(socket: &Arc<Socket>, fd: RawFd, deadline: Instant) -> Result<(), Failure> {
    let (connection, rings) = socket.rings().ok_or(Failure::Unanswered)?;
    while socket.is_receiving_over_tcp() {
        wait_until(deadline)?;
    }
    if socket.has_flag(flag::RECALLED) {
        return Ok(());
    }
    let mut recall = Recall::default();
    let mut called = None::<Instant>;
    let rest_deadline = deadline + REST_WITHIN;
    loop {
        if has_peer_left(socket, connection, &rings, fd) && recall.cancel(connection) {
            return catch_up(socket, fd, deadline);
        }
        match recall.step(&rings, &mut Tcp::new(socket, fd), socket.received())? {
            Step::Done => return Ok(()),
            Step::Tcp => drop(kernel::poll(fd, libc::POLLIN, 1)),
            Step::Peer => {
                if called.is_none_or(|called| called.elapsed() > CALL_AGAIN) {
                    call_peer(socket);
                    // Who sleeps there looks, too.
                    socket.ring(fd);
                    called = Some(Instant::now());
                }
                kernel::pause(NAP);
            }
        }
        if Instant::now() > deadline && recall.cancel(connection) {
            return Err(Failure::Unanswered);
        }
        if Instant::now() > rest_deadline {
            return Err(Failure::Broken);
        }
    }
}

fn wait_until(deadline: Instant) -> Result<(), Failure> {
    if Instant::now() > deadline {
        return Err(Failure::Unanswered);
    }
    kernel::pause(NAP);
    Ok(())
}

/// Whether nobody answers there any more: the peer has closed or died, or is TCP again itself.
fn has_peer_left(socket: &Socket, connection: &Connection, rings: &Rings<'_>, fd: RawFd) -> bool {
    let over = libc::POLLRDHUP;
    connection.has_peer_gone_back()
        || rings.peer_state() & (state::CLOSED | state::ABORTED) != 0
        || connection.peer_switch().is_some()
            && !socket.has_flag(flag::RECEIVING_SHUT)
            && kernel::poll(fd, over, 0).is_ok_and(|found| found & over != 0)
}

/// Leaves a connection that the peer has left: with everything read, what follows in TCP is all there is.
fn catch_up(socket: &Socket, fd: RawFd, deadline: Instant) -> Result<(), Failure> {
    loop {
        match socket.source() {
            Some(Source::TcpAgain) => return Ok(()),
            Some(Source::Tcp(u64::MAX)) => return Ok(()),
            Some(Source::Mark) => {
                if !matches!(socket.take_doorbells(fd, true), kernel::Stream::Open { .. }) {
                    return Ok(());
                }
            }
            Some(Source::Ring) => {
                let is_empty = socket.rings().is_some_and(|(_, rings)| rings.readable() == Ok(0));
                if !is_empty {
                    return Err(Failure::Unanswered);
                }
                if !matches!(socket.take_doorbells(fd, true), kernel::Stream::Open { .. }) {
                    return Ok(());
                }
            }
            Some(Source::Tcp(_)) | None => return Err(Failure::Unanswered),
        }
        wait_until(deadline)?;
    }
}

/// What this end sends goes over TCP from now on.
fn leave_sending(socket: &Arc<Socket>, fd: RawFd) -> Result<(), Failure> {
    let (_, rings) = socket.rings().ok_or(Failure::Unanswered)?;
    let deadline = Instant::now() + REST_WITHIN;
    loop {
        let lock = socket.lock_sending();
        let mut step = step_locked(socket, &rings, fd);
        if step == Step::Done && !socket.has_returned() {
            // Before the peer may look for what was sent: where that begins is settled.
            if !socket.stay_sending_over_tcp() {
                socket.stop_using_ring();
            }
            if let Some(answer) = socket.answer() {
                back::go_back(&rings, answer);
            }
            step = step_locked(socket, &rings, fd);
        }
        drop(lock);
        match step {
            Step::Done => return Ok(()),
            Step::Tcp => drop(kernel::poll(fd, libc::POLLOUT, 1)),
            Step::Peer => kernel::pause(NAP),
        }
        if Instant::now() > deadline {
            return Err(Failure::Unanswered);
        }
    }
}

/// All that belongs in front of it is in TCP: sending goes on there.
fn finish_sending(socket: &Socket, fd: RawFd) {
    socket.send_over_tcp_again();
    if socket.has_flag(flag::SENDING_SHUT) {
        kernel::shut_sending(fd);
    }
    socket.ask_for_room();
    socket.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
    upgrade::let_go(socket);
}

/// Does what the peer asks for, as far as it goes now.
pub(crate) fn answer(socket: &Arc<Socket>, fd: RawFd) -> Step {
    if socket.is_plain() {
        return Step::Done;
    }
    let Some((connection, rings)) = socket.rings() else {
        return Step::Done;
    };
    if !back::is_asked(connection) && !socket.is_returning() {
        return Step::Done;
    }
    let lock = socket.lock_sending();
    let step = if socket.is_plain() { Step::Done } else { step_locked(socket, &rings, fd) };
    drop(lock);
    settle(socket, fd);
    step
}

/// With the sending locked.
fn step_locked(socket: &Arc<Socket>, rings: &Rings<'_>, fd: RawFd) -> Step {
    let Some((connection, _)) = socket.rings() else {
        return Step::Done;
    };
    // A call that began to receive over TCP before there were rings would take the mark, and more, for doorbells.
    if back::is_asked(connection) && !socket.is_receiving_over_tcp() && !socket.is_returning() {
        if socket.stay_sending_over_tcp() {
            back::accept(connection);
        } else if back::accept(connection) {
            socket.stop_using_ring();
            let copy = kernel::copy(fd).and_then(|copy| Private::keep(copy).ok());
            *socket.kept.lock().unwrap_or_else(PoisonError::into_inner) = copy;
            upgrade::hold(socket);
        }
    }
    if !socket.is_returning() || socket.has_returned() {
        return Step::Done;
    }
    let go_on = || socket.answer().map_or(Ok(Step::Done), |answer| answer.step(rings, &mut Tcp::new(socket, fd)));
    let mut step = go_on();
    if step == Ok(Step::Peer) && has_asker_died(socket, connection, fd) {
        // What it has said last, it has said by now.
        step = go_on().map(|step| if step == Step::Peer { Step::Done } else { step });
    }
    match step {
        Ok(Step::Done) | Err(_) => {
            // If TCP has failed, it says so to whoever sends there.
            finish_sending(socket, fd);
            Step::Done
        }
        Ok(step) => step,
    }
}

/// Whether TCP has ended before the peer has said which bytes it wants. One that has sent through the ring, and has ended its
/// sending there, ends TCP only afterwards.
fn has_asker_died(socket: &Socket, connection: &Connection, fd: RawFd) -> bool {
    let is_ours_alone = connection.peer_switch().is_none() || socket.has_flag(flag::RECEIVING_SHUT);
    let end = if is_ours_alone { libc::POLLHUP } else { libc::POLLRDHUP | libc::POLLHUP };
    kernel::poll(fd, end, 0).is_ok_and(|found| found & end != 0)
}

/// Whether the peer waits for something that only this end can do.
#[inline]
pub(crate) fn is_asked(socket: &Socket) -> bool {
    socket.rings().is_some_and(|(connection, _)| back::is_asked(connection))
}

/// The peer has left, and everything is done for it: this end is TCP again, too.
pub(crate) fn settle(socket: &Arc<Socket>, fd: RawFd) {
    if socket.has_returned() && !socket.is_plain() && socket.source() == Some(Source::TcpAgain) {
        // What for, only the peer knows.
        become_plain(socket, fd, Reasons { own: 0, peer: DeclineReason::KERNELS_OWN.0 });
    }
}

fn become_plain(socket: &Arc<Socket>, fd: RawFd, reasons: Reasons) {
    if !socket.become_plain() {
        return;
    }
    for (flag, name) in [(flag::NO_DELAY, libc::TCP_NODELAY), (flag::CORKED, libc::TCP_CORK)] {
        kernel::set_option(fd, libc::IPPROTO_TCP, name, socket.has_flag(flag).into());
    }
    show::go_back(socket, reasons);
    socket.give_back_watchers();
}

/// What the service asks for `socket`: a copy of it, if it is to be looked at again when there is room in TCP.
pub(crate) fn look_at(socket: &Arc<Socket>) -> Option<OwnedFd> {
    let copy = match socket.descriptors().first() {
        Some(fd) => kernel::copy(*fd),
        // The program has closed it, but not all that it has sent is in TCP yet.
        None => socket.kept.lock().ok()?.as_ref().and_then(|kept| rustix::io::fcntl_dupfd_cloexec(kept, 0).ok()),
    }?;
    let step = answer(socket, copy.as_raw_fd());
    (step == Step::Tcp).then_some(copy)
}

/// Waits until sending goes over TCP again.
pub(crate) fn wait_to_send(socket: &Arc<Socket>, fd: RawFd, limit_ms: i32) -> Result<(), Errno> {
    const SLICE_MS: i32 = 20;
    let started = Instant::now();
    while !socket.has_returned() {
        match answer(socket, fd) {
            Step::Done => {}
            Step::Tcp => drop(kernel::poll(fd, libc::POLLOUT, SLICE_MS)?),
            Step::Peer => kernel::pause(NAP),
        }
        if limit_ms >= 0 && started.elapsed().as_millis() as i128 >= i128::from(limit_ms) {
            return Err(Errno::AGAIN);
        }
    }
    Ok(())
}
