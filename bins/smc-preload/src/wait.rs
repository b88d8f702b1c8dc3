//! What a call does that must wait: spin as long as that has been worth it, then sleep in the kernel.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use softrdma_smc::arena::Connection;

use crate::abi::kernel;
use crate::back;
use crate::socket::{Socket, flag};
use crate::transfer;
use crate::upgrade;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    ToReceive,
    ToSend,
}

/// Looks between two looks at the clock.
const LOOKS: u32 = 32;
/// The least time that is spun, to find out whether it is worth it again.
const LEAST_SPIN: Duration = Duration::from_micros(2);
/// After so long, others are let run between looks.
const ALONE: Duration = Duration::from_micros(10);

/// Letting others run took so long because there were some.
const CROWDED: Duration = Duration::from_micros(100);

/// Spins until `is_over`, for a time that grows when it was worth it and shrinks when it was not: whether it is over.
pub(crate) fn spin(budget_ns: &std::sync::atomic::AtomicU32, mut is_over: impl FnMut() -> bool) -> bool {
    let most = upgrade::spin_limit();
    let budget = Duration::from_nanos(budget_ns.load(Ordering::Relaxed).into()).clamp(LEAST_SPIN.min(most), most);
    let started = Instant::now();
    loop {
        for _ in 0..LOOKS {
            if is_over() {
                // It was worth it: longer is allowed next time.
                budget_ns.store((budget * 2).min(most).as_nanos() as u32, Ordering::Relaxed);
                return true;
            }
            std::hint::spin_loop();
        }
        let elapsed = started.elapsed();
        if elapsed >= budget {
            budget_ns.store((budget / 2).as_nanos() as u32, Ordering::Relaxed);
            return false;
        }
        if elapsed >= ALONE {
            std::thread::yield_now();
            if started.elapsed() - elapsed > CROWDED {
                // Others want the processor: who sleeps is woken sooner than who spins gets another turn.
                budget_ns.store(0, Ordering::Relaxed);
                return is_over();
            }
        }
    }
}

/// Waits until a call is worth trying again. An error is what the kernel would say to a call that waits: a signal, a time
/// limit.
///
/// A call that `has_begun` to move bytes returns with them when a signal comes, even one after which calls go on.
pub(crate) fn wait(socket: &Arc<Socket>, fd: RawFd, waiting: Waiting, has_begun: bool) -> Result<(), Errno> {
    if spin(&socket.spin_ns, || is_over(socket, waiting)) {
        return Ok(());
    }
    let Some((connection, _)) = socket.rings() else {
        return Ok(());
    };
    match waiting {
        Waiting::ToReceive => sleep_to_receive(socket, connection, fd, has_begun),
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
                || rings.peer_state() != 0 && transfer::end(socket, &rings).is_some()
                || socket.has_flag(flag::SENDING_SHUT | flag::TCP_ENDED | flag::TCP_RESET)
        }
        Waiting::ToReceive => {
            let is_behind = connection.peer_switch().is_none_or(|switch| socket.received() >= switch);
            is_behind && rings.readable().map_or(true, |there| there > 0 && connection.peer_switch().is_some())
                || transfer::end(socket, &rings).is_some()
        }
    }
}

fn sleep_to_receive(socket: &Arc<Socket>, connection: &Connection, fd: RawFd, has_begun: bool) -> Result<(), Errno> {
    socket.sleeping_receivers.fetch_add(1, Ordering::SeqCst);
    socket.fall_asleep();
    let result = match is_over(socket, Waiting::ToReceive) {
        true => Ok(None),
        false if has_begun => sleep_until_signal(fd),
        false => kernel::sleep(fd).map(Some),
    };
    socket.wake_up();
    socket.sleeping_receivers.fetch_sub(1, Ordering::SeqCst);
    listen_to_tcp(socket, connection, fd, result)
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
    socket.fall_asleep();
    let result = if is_over(socket, Waiting::ToSend) { Ok(None) } else { sleep_for_room(socket, fd, limit_ms) };
    socket.wake_up();
    connection.want_room(false);
    listen_to_tcp(socket, connection, fd, result)
}

/// A doorbell may be taken by a thread that sleeps to receive, so who sleeps to send looks again from time to time.
fn sleep_for_room(socket: &Socket, fd: RawFd, limit_ms: i32) -> Result<Option<usize>, Errno> {
    const SLICE_MS: i32 = 20;
    let started = Instant::now();
    loop {
        let left_ms = i128::from(limit_ms) - started.elapsed().as_millis() as i128;
        if limit_ms >= 0 && left_ms <= 0 {
            return Err(Errno::AGAIN);
        }
        let slice_ms = if limit_ms < 0 { SLICE_MS } else { SLICE_MS.min(left_ms as i32) };
        match kernel::poll(fd, libc::POLLIN, slice_ms) {
            Ok(_) if is_over(socket, Waiting::ToSend) => return Ok(None),
            Ok(0) => {}
            // Somebody who sleeps to receive is just being woken by it, and takes it off.
            Ok(_) if socket.sleeping_receivers.load(Ordering::SeqCst) > 0 => std::thread::yield_now(),
            Ok(_) => return Ok(Some(1)),
            Err(error) => return Err(error),
        }
    }
}

/// Takes what woke us off the stream, and remembers what it says about it.
fn listen_to_tcp(
    socket: &Arc<Socket>,
    connection: &Connection,
    fd: RawFd,
    woken: Result<Option<usize>, Errno>,
) -> Result<(), Errno> {
    match woken {
        Ok(None) => Ok(()),
        Ok(Some(0)) => {
            socket.note_tcp_end();
            Ok(())
        }
        Ok(Some(_)) => {
            take_doorbells(socket, connection, fd);
            Ok(())
        }
        Err(Errno::CONNRESET) => {
            socket.set_flag(flag::TCP_RESET);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Takes doorbells off the stream, if nothing else can be in it.
pub(crate) fn take_doorbells(socket: &Arc<Socket>, connection: &Connection, fd: RawFd) {
    take_doorbells_locked(socket, connection, fd);
    // What the bell was rung for may be something else than bytes.
    if back::is_asked(socket) {
        back::answer(socket, fd);
    }
    if socket.has_returned() {
        back::settle(socket, fd);
    }
}

fn take_doorbells_locked(socket: &Socket, connection: &Connection, fd: RawFd) {
    if socket.sleeping_receivers.load(Ordering::SeqCst) > 0 {
        // It is their bell as well: the last of them takes it.
        return;
    }
    let _lock = socket.lock_receiving();
    let is_behind = connection.peer_switch().is_some_and(|switch| socket.received() >= switch);
    // With the lock held: a number that is closed meanwhile may become another connection's.
    let descriptors = socket.descriptors();
    if !is_behind || !descriptors.contains(&fd) || socket.is_receiving_over_tcp() || socket.is_plain() {
        return;
    }
    match socket.take_doorbells(fd) {
        Ok(true) => {}
        Ok(false) => socket.note_tcp_end(),
        Err(_) => {
            socket.set_flag(flag::TCP_RESET);
        }
    }
}
