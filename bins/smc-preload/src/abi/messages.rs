//! What calls with messages, files and pipes come down to.

use std::ffi::{c_int, c_uint};
use std::os::fd::RawFd;
use std::sync::Arc;

use libc::{iovec, mmsghdr, msghdr, off_t, ssize_t};
use rustix::io::Errno;
use softrdma_smc::shared_memory::{Source, Target};
use softrdma_smc::wire::clc::DeclineReason;

use super::{kernel, real, returned};
use crate::socket::{Socket, flag};
use crate::{back, table, transfer, upgrade};

/// Bytes that files and pipes are copied in at a time.
const CHUNK: usize = 65_536;

/// Parts that a message may have.
const MOST_PARTS: usize = 1024;

/// The socket's bytes go somewhere that we do not see: they go over TCP from now on. Whether they do.
pub(super) fn leave_alone(fd: RawFd, reason: DeclineReason) -> bool {
    table::active_socket(fd).is_none_or(|socket| back::leave(&socket, fd, reason))
}

/// Whether a call that sends makes the connection in the first place (TCP fast open), which is the kernel's business: so is
/// everything on it from then on.
pub(super) fn is_connecting(fd: RawFd, flags: c_int) -> bool {
    if flags & libc::MSG_FASTOPEN != 0
        && let Some(socket) = table::active_socket(fd)
    {
        upgrade::leave_to_tcp(&socket, DeclineReason::OPTION_UNSUPPORTED);
    }
    flags & libc::MSG_FASTOPEN != 0
}

/// # Safety
///
/// As `recvmsg`'s.
pub(super) unsafe fn receive(fd: c_int, message: *mut msghdr, flags: c_int) -> Option<ssize_t> {
    let socket = table::active_socket(fd)?;
    if message.is_null() || flags & libc::MSG_ERRQUEUE != 0 {
        return None;
    }
    // SAFETY: the program vouches for the message.
    if unsafe { (*message).msg_iovlen } > MOST_PARTS {
        return Some(returned(Err(Errno::MSGSIZE)));
    }
    // SAFETY: the program vouches for the message and for its parts; a stream brings neither address nor control data.
    unsafe {
        let parts = Target::from_iovecs((*message).msg_iov, (*message).msg_iovlen);
        let received = returned(transfer::receive(&socket, fd, parts, flags));
        if received >= 0 {
            (*message).msg_namelen = 0;
            (*message).msg_controllen = 0;
            (*message).msg_flags = 0;
        }
        Some(received)
    }
}

/// # Safety
///
/// As `sendmsg`'s.
pub(super) unsafe fn send(fd: c_int, message: *const msghdr, flags: c_int) -> Option<ssize_t> {
    if message.is_null() {
        return None;
    }
    let Some(socket) = table::active_socket(fd) else {
        // TCP carries no descriptors.
        // SAFETY: the program vouches for its control data.
        let may_go = table::is_known(fd) || unsafe { look_for_descriptors(message) };
        // As if the peer's process had no room for more descriptors on their way.
        return if may_go { None } else { Some(returned(Err(Errno::TOOMANYREFS))) };
    };
    // SAFETY: the program vouches for the message and for its parts.
    unsafe {
        let has_control = (*message).msg_controllen > 0;
        if is_connecting(fd, flags) || has_control && upgrade::leave_to_tcp(&socket, DeclineReason::CONTROL_DATA) {
            return None;
        }
        if (*message).msg_iovlen > MOST_PARTS {
            return Some(returned(Err(Errno::MSGSIZE)));
        }
        if has_control && let Err(error) = check_control(&socket, fd, message) {
            return Some(returned(Err(error)));
        }
        let parts = Source::from_iovecs((*message).msg_iov, (*message).msg_iovlen);
        Some(returned(transfer::send(&socket, fd, parts, flags)))
    }
}

/// What the kernel says to the control data of `message`: it looks at it before anything else, even if there is nothing to send.
///
/// # Safety
///
/// As `sendmsg`'s.
unsafe fn check_control(socket: &Socket, fd: c_int, message: *const msghdr) -> Result<(), Errno> {
    // SAFETY: the program vouches for the message; without parts no more of it is read than its control data.
    let sent = unsafe {
        let mut control_only = *message;
        control_only.msg_iovlen = 0;
        control_only.msg_name = std::ptr::null_mut();
        control_only.msg_namelen = 0;
        real::sendmsg(fd, &raw const control_only, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    if sent >= 0 {
        return Ok(());
    }
    match kernel::last_error() {
        error @ (Errno::INVAL | Errno::FAULT | Errno::NOBUFS) => Err(error),
        Errno::CONNRESET => {
            // TCP says it once.
            socket.note(flag::TCP_RESET);
            if socket.has_switched() { Ok(()) } else { Err(Errno::CONNRESET) }
        }
        // Anything else is about the connection, which knows better what there is to say.
        _ => Ok(()),
    }
}

/// Descriptors that go to another process take their bytes with them over TCP: whether they do.
///
/// # Safety
///
/// As `sendmsg`'s.
pub(super) unsafe fn look_for_descriptors(message: *const msghdr) -> bool {
    let mut may_go = true;
    // SAFETY: the program vouches for `msg_controllen` bytes of control data; the macros stay within.
    unsafe {
        if (*message).msg_control.is_null() {
            return true;
        }
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*header).cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
                for at in 0..bytes / size_of::<c_int>() {
                    let passed = libc::CMSG_DATA(header).cast::<c_int>().add(at).read_unaligned();
                    may_go &= leave_alone(passed, DeclineReason::PASSED_ON);
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    may_go
}

/// Makes `call` with each of `count` messages until one fails: how many did not.
///
/// # Safety
///
/// `vector` must hold `count` messages.
pub(super) unsafe fn each(vector: *mut mmsghdr, count: c_uint, call: impl Fn(usize, *mut msghdr) -> ssize_t) -> c_int {
    for at in 0..count.min(1024) as usize {
        // SAFETY: `at` is below `count`.
        let message = unsafe { vector.add(at) };
        // SAFETY: as above.
        let result = call(at, unsafe { &raw mut (*message).msg_hdr });
        let Ok(length) = c_uint::try_from(result) else {
            return if at > 0 { at as c_int } else { -1 };
        };
        // SAFETY: as above.
        unsafe { (*message).msg_len = length };
        if length == 0 && at > 0 {
            return at as c_int;
        }
    }
    count.min(1024) as c_int
}

/// MSG_WAITFORONE: from the second message on nobody waits.
pub(super) fn wait_for_one(flags: c_int, at: usize) -> c_int {
    let plain = flags & !libc::MSG_WAITFORONE;
    if flags & libc::MSG_WAITFORONE != 0 && at > 0 { plain | libc::MSG_DONTWAIT } else { plain }
}

/// `sendfile`: without rings the kernel's, which is counted; with them, by copying.
///
/// # Safety
///
/// As `sendfile`'s.
pub(super) unsafe fn send_file(
    socket: &Arc<Socket>,
    to: RawFd,
    from: RawFd,
    offset: *mut off_t,
    count: usize,
) -> Result<usize, Errno> {
    if socket.begin_tcp_sending() {
        // SAFETY: the program's arguments, handed on.
        let sent = usize::try_from(unsafe { real::sendfile(to, from, offset, count) });
        let sent = sent.map_err(|_| kernel::last_error());
        socket.end_tcp_sending(*sent.as_ref().unwrap_or(&0));
        return sent;
    }
    let start = if offset.is_null() {
        let position = rustix::fs::seek(kernel::borrowed(from), rustix::fs::SeekFrom::Current(0));
        position.map_err(|error| if error == Errno::SPIPE { Errno::INVAL } else { error })?
    } else {
        // SAFETY: the program vouches for the offset, if there is one.
        u64::try_from(unsafe { *offset }).map_err(|_| Errno::INVAL)?
    };
    let mut buffer = vec![0_u8; CHUNK.min(count)];
    let mut sent = 0;
    let mut result = Ok(());
    while sent < count {
        let wanted = (count - sent).min(buffer.len());
        let read = match rustix::io::pread(kernel::borrowed(from), &mut buffer[..wanted], start + sent as u64) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) => {
                result = Err(error);
                break;
            }
        };
        match transfer::send(socket, to, &[Source::new(&buffer[..read])], 0) {
            Ok(taken) => {
                sent += taken;
                if taken < read {
                    break;
                }
            }
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    if offset.is_null() {
        rustix::fs::seek(kernel::borrowed(from), rustix::fs::SeekFrom::Start(start + sent as u64))?;
    } else {
        // SAFETY: as above.
        unsafe { *offset = (start + sent as u64) as off_t };
    }
    if sent > 0 { Ok(sent) } else { result.map(|()| 0) }
}

/// `splice` from a connection into a pipe.
pub(super) fn splice_out(
    socket: &Arc<Socket>,
    from: RawFd,
    to: RawFd,
    length: usize,
    flags: c_uint,
) -> Result<usize, Errno> {
    if upgrade::leave_to_tcp(socket, DeclineReason::SPLICED) {
        return splice(from, to, length, flags);
    }
    let mut buffer = vec![0_u8; CHUNK.min(length)];
    let wait = if flags & libc::SPLICE_F_NONBLOCK != 0 { libc::MSG_DONTWAIT } else { 0 };
    let there = transfer::receive(socket, from, &[Target::new(&mut buffer)], libc::MSG_PEEK | wait)?;
    // SAFETY: as many bytes of the buffer have just been written.
    let written = unsafe { real::write(to, buffer.as_ptr().cast(), there) };
    let written = usize::try_from(written).map_err(|_| kernel::last_error())?;
    let mut taken = 0;
    while taken < written {
        taken += transfer::receive(socket, from, &[Target::new(&mut buffer[taken..written])], 0)?;
    }
    Ok(written)
}

/// `splice` from a pipe into a connection.
pub(super) fn splice_in(
    socket: &Arc<Socket>,
    to: RawFd,
    from: RawFd,
    length: usize,
    flags: c_uint,
) -> Result<usize, Errno> {
    if upgrade::leave_to_tcp(socket, DeclineReason::SPLICED) {
        return splice(from, to, length, flags);
    }
    let may_wait = !socket.has_flag(flag::NONBLOCKING) && flags & libc::SPLICE_F_NONBLOCK == 0;
    if socket.is_returning() {
        let limit_ms = if may_wait { kernel::time_limit_ms(to, libc::SO_SNDTIMEO) } else { 0 };
        back::wait_to_send(socket, to, limit_ms)?;
        return splice(from, to, length, flags);
    }
    if flags & libc::SPLICE_F_NONBLOCK != 0 && kernel::poll(from, libc::POLLIN, 0)? == 0 {
        return Err(Errno::AGAIN);
    }
    // No more is taken out of the pipe than certainly fits: nothing could be put back.
    let room = socket.rings().and_then(|(_, rings)| rings.room().ok()).unwrap_or(0);
    if room == 0 {
        transfer::send(socket, to, &[Source::new(&[])], 0)?;
        if !may_wait {
            return Err(Errno::AGAIN);
        }
        crate::wait::wait(socket, to, crate::wait::Waiting::ToSend, false)?;
    }
    let room = socket.rings().and_then(|(_, rings)| rings.room().ok()).unwrap_or(0).max(1);
    let mut buffer = vec![0_u8; CHUNK.min(length).min(room)];
    let part = iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: one iovec, memory of ours.
    let read = unsafe { real::readv(from, &raw const part, 1) };
    let read = usize::try_from(read).map_err(|_| kernel::last_error())?;
    send_for_good(socket, to, &buffer[..read])
}

/// Sends what fits, and cannot be put back where it came from: even if the connection becomes TCP again meanwhile, without room.
fn send_for_good(socket: &Arc<Socket>, to: RawFd, bytes: &[u8]) -> Result<usize, Errno> {
    const LOOK_AGAIN_MS: c_int = 20;
    let mut sent = 0;
    loop {
        match transfer::send(socket, to, &[Source::new(&bytes[sent..])], 0) {
            Ok(more) => sent += more,
            Err(Errno::AGAIN) if socket.is_returning() => drop(kernel::poll(to, libc::POLLOUT, LOOK_AGAIN_MS)?),
            Err(error) => return if sent > 0 { Ok(sent) } else { Err(error) },
        }
        if sent == bytes.len() {
            return Ok(sent);
        }
    }
}

fn splice(from: RawFd, to: RawFd, length: usize, flags: c_uint) -> Result<usize, Errno> {
    // SAFETY: no offsets, so no memory is touched.
    let moved = unsafe { real::splice(from, std::ptr::null_mut(), to, std::ptr::null_mut(), length, flags) };
    usize::try_from(moved).map_err(|_| kernel::last_error())
}
