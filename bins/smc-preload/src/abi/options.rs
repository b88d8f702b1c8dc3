//! Socket options and ioctls.

use std::ffi::{c_int, c_ulong, c_void};
use std::sync::Arc;

use libc::{IPPROTO_TCP, SO_ERROR, SO_RCVLOWAT, SOL_SOCKET, TCP_CORK, TCP_NODELAY, socklen_t};

use softrdma_smc::back as back_to_tcp;
use softrdma_smc::wire::clc::DeclineReason;

use super::{kernel, real};
use crate::socket::{Mode, Socket, flag};
use crate::table::Active;
use crate::{back, descriptor, table, transfer, upgrade, wait};

/// Whether the next byte is the urgent one: asm-generic/sockios.h.
const SIOCATMARK: c_ulong = 0x8905;

/// The socket that `fd` is, if it has rings.
fn with_rings(fd: c_int) -> Option<Active> {
    table::active_socket(fd).filter(|socket| matches!(socket.mode(), Mode::Prepared | Mode::Ring))
}

/// The flag that stands for an option: with rings the kernel is told to send doorbells at once, whatever the program wants.
const fn remembered(level: c_int, name: c_int) -> Option<u64> {
    match (level, name) {
        (IPPROTO_TCP, TCP_NODELAY) => Some(flag::NO_DELAY),
        (IPPROTO_TCP, TCP_CORK) => Some(flag::CORKED),
        _ => None,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    size: socklen_t,
) -> c_int {
    if table::is_known(fd) && !value.is_null() && size >= 4 {
        // SAFETY: the program vouches for `size` bytes.
        let number = unsafe { value.cast::<c_int>().read_unaligned() };
        if let (Some(flag), Some(socket)) = (remembered(level, name), with_rings(fd)) {
            if number != 0 {
                socket.set_flag(flag);
            } else {
                socket.clear_flag(flag);
            }
            return 0;
        }
        // What a ring does not do: the connection becomes TCP.
        let is_beyond_us = match (level, name) {
            (SOL_SOCKET, SO_RCVLOWAT) => number > 1,
            (SOL_SOCKET, libc::SO_PEEK_OFF) => number >= 0,
            _ => false,
        };
        if (level, name) == (SOL_SOCKET, libc::SO_SNDBUF)
            && upgrade::is_small_buffer(number.saturating_mul(2))
            && let Some(socket) = table::active_socket(fd)
        {
            // If it cannot be TCP, more than that is under way: no more than from a kernel with a higher least size.
            back::leave(&socket, fd, DeclineReason::OPTION_UNSUPPORTED);
        }
        let leaves = |socket: Active| back::leave(&socket, fd, DeclineReason::RECEIVE_OPTION);
        if is_beyond_us && table::active_socket(fd).is_some_and(|socket| !leaves(socket)) {
            super::set_error(rustix::io::Errno::OPNOTSUPP);
            return -1;
        }
    }
    // SAFETY: the program's arguments, handed on.
    unsafe { real::setsockopt(fd, level, name, value, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    size: *mut socklen_t,
) -> c_int {
    // SAFETY: the program's arguments, handed on.
    let result = unsafe { real::getsockopt(fd, level, name, value, size) };
    if result == 0
        && let Some(socket) = with_rings(fd)
        // SAFETY: the call succeeded, so the size is there.
        && unsafe { *size } >= 1
    {
        if (level, name) == (IPPROTO_TCP, libc::TCP_INFO) {
            // SAFETY: the first byte of what the kernel has just written.
            unsafe { *value.cast::<u8>() = tcp_state(&socket, *value.cast::<u8>()) };
            return result;
        }
        // SAFETY: as above.
        if unsafe { *size } != 4 {
            return result;
        }
        let number = remembered(level, name).map(|flag| c_int::from(socket.has_flag(flag)));
        let number = number.or_else(|| ((level, name) == (SOL_SOCKET, SO_ERROR)).then(|| pending_error(&socket)));
        if let Some(number) = number {
            // SAFETY: four bytes, as the kernel has just written.
            unsafe { value.cast::<c_int>().write_unaligned(number) };
        }
    }
    result
}

/// TCP's state, as the program would see it: with rings the peer's end is no news to the kernel's TCP.
fn tcp_state(socket: &Socket, state: u8) -> u8 {
    const ESTABLISHED: u8 = 1;
    const CLOSE_WAIT: u8 = 8;
    let has_peer_ended = socket.rings().is_some_and(|(_, rings)| rings.peer_state() != 0);
    if has_peer_ended && state == ESTABLISHED { CLOSE_WAIT } else { state }
}

fn pending_error(socket: &Socket) -> c_int {
    let is_reset = socket.rings().is_some_and(|(_, rings)| transfer::end(socket, &rings) == Some(transfer::End::Reset));
    if is_reset && socket.set_flag(flag::RESET_TOLD) { libc::ECONNRESET } else { 0 }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int {
    if table::is_known(fd)
        && let Some(socket) = with_rings(fd)
    {
        let count = match request {
            libc::FIONREAD => unread(&socket, fd),
            // The mark is in TCP, behind what the ring has.
            SIOCATMARK if has_unread_ring(&socket) => Some(0),
            libc::TIOCOUTQ => unsent(&socket),
            _ => None,
        };
        if let Some(count) = count {
            // SAFETY: these requests take the address of an int.
            unsafe { (argument as *mut c_int).write_unaligned(count as c_int) };
            return 0;
        }
    }
    // SAFETY: the program's arguments, handed on.
    let result = unsafe { real::ioctl(fd, request, argument) };
    if result == 0 && request == libc::FIONBIO && table::is_known(fd) {
        // SAFETY: as above.
        descriptor::set_nonblocking(fd, unsafe { (argument as *const c_int).read_unaligned() } != 0);
    }
    result
}

/// Bytes that can be received, once they come through the ring.
fn unread(socket: &Arc<Socket>, fd: c_int) -> Option<u64> {
    let (connection, rings) = socket.rings()?;
    if socket.has_peer_gone_back() {
        wait::take_doorbells(socket, fd, false, None);
        let behind = if socket.has_flag(flag::MARKED) { kernel::unread(fd) } else { 0 };
        let is_tcps = socket.has_flag(flag::RECALLED) || socket.is_plain();
        return if is_tcps { None } else { Some(rings.readable().unwrap_or(0) as u64 + behind) };
    }
    let over_tcp = connection.peer_switch()?.saturating_sub(socket.received());
    Some(over_tcp + rings.readable().unwrap_or(0) as u64)
}

fn has_unread_ring(socket: &Socket) -> bool {
    socket.has_peer_gone_back() && socket.source() == Some(back_to_tcp::Source::Ring)
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sockatmark(fd: c_int) -> c_int {
    if with_rings(fd).is_some_and(|socket| has_unread_ring(&socket)) {
        return 0;
    }
    // SAFETY: touches no memory.
    unsafe { real::sockatmark(fd) }
}

fn unsent(socket: &Socket) -> Option<u64> {
    // What stands in the ring has arrived.
    (socket.has_switched() && !socket.is_returning()).then_some(0)
}
