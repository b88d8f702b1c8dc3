//! read and write, recv and send, and their kin for one message.

use std::ffi::{c_int, c_uint, c_void};

use libc::{iovec, mmsghdr, msghdr, off_t, size_t, sockaddr, socklen_t, ssize_t, timespec};
use rustix::io::Errno;
use softrdma_smc::shared_memory::{Source, Target};

use super::messages;
use super::{real, returned, returned_int};
use crate::{table, transfer};

/// Most bytes of a read or write that the kernel looks at.
const MOST: usize = 0x7fff_f000;

/// # Safety
///
/// As `recv`'s.
unsafe fn receive(fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> Option<ssize_t> {
    let socket = table::active_socket(fd)?;
    let part = iovec { iov_base: buffer, iov_len: length.min(MOST) };
    // SAFETY: one iovec, with the memory that the program vouches for.
    let parts = unsafe { Target::from_iovecs(&raw const part, 1) };
    Some(returned(transfer::receive(&socket, fd, parts, flags)))
}

/// # Safety
///
/// As `send`'s.
unsafe fn send_bytes(fd: c_int, buffer: *const c_void, length: size_t, flags: c_int) -> Option<ssize_t> {
    let socket = table::active_socket(fd)?;
    let part = iovec { iov_base: buffer.cast_mut(), iov_len: length.min(MOST) };
    // SAFETY: as above.
    let parts = unsafe { Source::from_iovecs(&raw const part, 1) };
    Some(returned(transfer::send(&socket, fd, parts, flags)))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn read(fd: c_int, buffer: *mut c_void, length: size_t) -> ssize_t {
    if length == 0 {
        // SAFETY: the program's arguments, handed on: no bytes are none of ours.
        return unsafe { real::read(fd, buffer, length) };
    }
    // SAFETY: the program's arguments, handed on.
    unsafe { receive(fd, buffer, length, 0).unwrap_or_else(|| real::read(fd, buffer, length)) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn write(fd: c_int, buffer: *const c_void, length: size_t) -> ssize_t {
    // SAFETY: the program's arguments, handed on.
    unsafe { send_bytes(fd, buffer, length, 0).unwrap_or_else(|| real::write(fd, buffer, length)) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn recv(fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the program's arguments, handed on.
    unsafe { receive(fd, buffer, length, flags).unwrap_or_else(|| real::recv(fd, buffer, length, flags)) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn send(fd: c_int, buffer: *const c_void, length: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the program's arguments, handed on.
    unsafe { send_bytes(fd, buffer, length, flags).unwrap_or_else(|| real::send(fd, buffer, length, flags)) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn recvfrom(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    flags: c_int,
    address: *mut sockaddr,
    size: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the program's arguments, handed on; a stream's receives give no address, which its size says.
    unsafe {
        match receive(fd, buffer, length, flags) {
            Some(received) => {
                if received >= 0 && !address.is_null() && !size.is_null() {
                    *size = 0;
                }
                received
            }
            None => real::recvfrom(fd, buffer, length, flags, address, size),
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sendto(
    fd: c_int,
    buffer: *const c_void,
    length: size_t,
    flags: c_int,
    address: *const sockaddr,
    size: socklen_t,
) -> ssize_t {
    // SAFETY: the program's arguments, handed on. A connected stream takes no notice of an address.
    unsafe {
        if messages::is_connecting(fd, flags) {
            return real::sendto(fd, buffer, length, flags, address, size);
        }
        send_bytes(fd, buffer, length, flags).unwrap_or_else(|| real::sendto(fd, buffer, length, flags, address, size))
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn readv(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    let Some(socket) = table::active_socket(fd) else {
        // SAFETY: the program's arguments, handed on.
        return unsafe { real::readv(fd, parts, count) };
    };
    if !(0..=1024).contains(&count) {
        return returned(Err(Errno::INVAL));
    }
    // SAFETY: the program vouches for so many.
    let parts = unsafe { Target::from_iovecs(parts, count as usize) };
    if parts.iter().all(|part| part.length() == 0) {
        return 0;
    }
    returned(transfer::receive(&socket, fd, parts, 0))
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    let Some(socket) = table::active_socket(fd) else {
        // SAFETY: the program's arguments, handed on.
        return unsafe { real::writev(fd, parts, count) };
    };
    if !(0..=1024).contains(&count) {
        return returned(Err(Errno::INVAL));
    }
    // SAFETY: the program vouches for so many.
    let parts = unsafe { Source::from_iovecs(parts, count as usize) };
    returned(transfer::send(&socket, fd, parts, 0))
}

/// preadv2 and pwritev2 without an offset are readv and writev with flags.
const NO_OFFSET: off_t = -1;

fn from_read_flags(flags: c_int) -> c_int {
    if flags & libc::RWF_NOWAIT != 0 { libc::MSG_DONTWAIT } else { 0 }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn preadv2(
    fd: c_int,
    parts: *const iovec,
    count: c_int,
    offset: off_t,
    flags: c_int,
) -> ssize_t {
    match table::active_socket(fd).filter(|_| offset == NO_OFFSET && (0..=1024).contains(&count)) {
        Some(socket) => {
            // SAFETY: the program vouches for so many.
            let parts = unsafe { Target::from_iovecs(parts, count as usize) };
            returned(transfer::receive(&socket, fd, parts, from_read_flags(flags)))
        }
        // SAFETY: the program's arguments, handed on.
        None => unsafe { real::preadv2(fd, parts, count, offset, flags) },
    }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn pwritev2(
    fd: c_int,
    parts: *const iovec,
    count: c_int,
    offset: off_t,
    flags: c_int,
) -> ssize_t {
    match table::active_socket(fd).filter(|_| offset == NO_OFFSET && (0..=1024).contains(&count)) {
        Some(socket) => {
            // SAFETY: the program vouches for so many.
            let parts = unsafe { Source::from_iovecs(parts, count as usize) };
            returned(transfer::send(&socket, fd, parts, from_read_flags(flags)))
        }
        // SAFETY: the program's arguments, handed on.
        None => unsafe { real::pwritev2(fd, parts, count, offset, flags) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the program's arguments, handed on.
    unsafe { messages::receive(fd, message, flags).unwrap_or_else(|| real::recvmsg(fd, message, flags)) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the program's arguments, handed on.
    unsafe { messages::send(fd, message, flags).unwrap_or_else(|| real::sendmsg(fd, message, flags)) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn recvmmsg(
    fd: c_int,
    vector: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    if table::active_socket(fd).is_none() {
        // SAFETY: the program's arguments, handed on.
        return unsafe { real::recvmmsg(fd, vector, count, flags, timeout) };
    }
    // SAFETY: the program vouches for so many messages.
    unsafe { messages::each(vector, count, |at, message| recvmsg(fd, message, messages::wait_for_one(flags, at))) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sendmmsg(fd: c_int, vector: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
    if table::active_socket(fd).is_none() {
        // SAFETY: the program vouches for so many messages, and for their control data.
        let may_go =
            |at: &c_uint| unsafe { messages::look_for_descriptors(&raw const (*vector.add(*at as usize)).msg_hdr) };
        let most = if vector.is_null() { 0 } else { count.min(1024) };
        let sent = (0..most).take_while(may_go).count() as c_uint;
        if sent == 0 && most > 0 {
            // As if the peer's process had no room for more descriptors on their way.
            return returned_int(Err(Errno::TOOMANYREFS));
        }
        let count = if sent < most { sent } else { count };
        // SAFETY: the program's arguments, handed on.
        return unsafe { real::sendmmsg(fd, vector, count, flags) };
    }
    // SAFETY: the program vouches for so many messages.
    unsafe { messages::each(vector, count, |_, message| sendmsg(fd, message, flags)) }
}

// What programs call that were compiled with _FORTIFY_SOURCE: `room` is what the compiler knows of the buffer.

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __read_chk(fd: c_int, buffer: *mut c_void, length: size_t, room: size_t) -> ssize_t {
    // SAFETY: the program's arguments, handed on; a buffer that is too small is libc's to complain of.
    unsafe {
        match (length <= room).then(|| receive(fd, buffer, length, 0)).flatten() {
            Some(received) => received,
            None => real::__read_chk(fd, buffer, length, room),
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __recv_chk(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: as above.
    unsafe {
        match (length <= room).then(|| receive(fd, buffer, length, flags)).flatten() {
            Some(received) => received,
            None => real::__recv_chk(fd, buffer, length, room, flags),
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __recvfrom_chk(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    room: size_t,
    flags: c_int,
    address: *mut sockaddr,
    size: *mut socklen_t,
) -> ssize_t {
    if length <= room && table::active_socket(fd).is_some() {
        // SAFETY: as above.
        return unsafe { recvfrom(fd, buffer, length, flags, address, size) };
    }
    // SAFETY: as above.
    unsafe { real::__recvfrom_chk(fd, buffer, length, room, flags, address, size) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn sendfile(to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t {
    let Some(socket) = table::active_socket(to) else {
        // SAFETY: the program's arguments, handed on.
        return unsafe { real::sendfile(to, from, offset, count) };
    };
    // SAFETY: the program vouches for the offset.
    returned(unsafe { messages::send_file(&socket, to, from, offset, count) })
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn splice(
    from: c_int,
    from_offset: *mut off_t,
    to: c_int,
    to_offset: *mut off_t,
    length: size_t,
    flags: c_uint,
) -> ssize_t {
    if from_offset.is_null() && to_offset.is_null() && !(table::is_known(from) && table::is_known(to)) {
        if let Some(socket) = table::active_socket(from) {
            return returned(messages::splice_out(&socket, from, to, length, flags));
        }
        if let Some(socket) = table::active_socket(to) {
            return returned(messages::splice_in(&socket, to, from, length, flags));
        }
    }
    // SAFETY: the program's arguments, handed on.
    unsafe { real::splice(from, from_offset, to, to_offset, length, flags) }
}
