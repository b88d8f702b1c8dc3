//! Calls that make, copy, connect and close descriptors.

use std::ffi::{c_char, c_int, c_uint, c_void};

use libc::{AF_INET, AF_INET6, FILE, SOCK_STREAM, size_t, sockaddr, socklen_t, ssize_t};
use rustix::io::Errno;
use softrdma_smc::descriptors;
use softrdma_smc::wire::clc::DeclineReason;

use super::{kernel, real, returned_int};
use crate::table::Active;
use crate::{descriptor, ending, table, upgrade};

/// Bits of a socket's kind that are no kind.
const KIND_FLAGS: c_int = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    // SAFETY: the program's arguments, handed on.
    let fd = unsafe { real::socket(domain, kind, protocol) };
    let is_tcp = matches!(domain, AF_INET | AF_INET6) && kind & !KIND_FLAGS == SOCK_STREAM;
    if fd >= 0 {
        if is_tcp && matches!(protocol, 0 | libc::IPPROTO_TCP) {
            descriptor::opened(fd);
            note_nonblocking(fd, kind);
        } else {
            descriptor::closing(fd);
        }
    }
    fd
}

/// The calls on `fd`, which was made with `flags`, may not wait.
fn note_nonblocking(fd: c_int, flags: c_int) {
    if flags & libc::SOCK_NONBLOCK != 0 {
        descriptor::set_nonblocking(fd, true);
    }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn connect(fd: c_int, address: *const sockaddr, size: socklen_t) -> c_int {
    // SAFETY: the program's arguments, handed on.
    let result = unsafe { real::connect(fd, address, size) };
    if table::is_known(fd) {
        // SAFETY: the program vouches for the address.
        let service = unsafe { kernel::read_address(address, size) };
        if result == 0 {
            descriptor::connecting(fd, service);
        } else if kernel::last_error() == Errno::INPROGRESS {
            descriptor::connecting(fd, service);
            super::set_error(Errno::INPROGRESS);
        }
    }
    result
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn getpeername(fd: c_int, address: *mut sockaddr, size: *mut socklen_t) -> c_int {
    if table::active_socket(fd).is_some_and(|socket| ending::is_over(&socket)) {
        return returned_int(Err(Errno::NOTCONN));
    }
    // SAFETY: the program's arguments, handed on.
    unsafe { real::getpeername(fd, address, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn listen(fd: c_int, backlog: c_int) -> c_int {
    // SAFETY: the program's arguments, handed on.
    let result = unsafe { real::listen(fd, backlog) };
    if result == 0 {
        descriptor::listening(fd);
    }
    result
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn accept(fd: c_int, address: *mut sockaddr, size: *mut socklen_t) -> c_int {
    // SAFETY: the program's arguments, handed on.
    let accepted = unsafe { real::accept(fd, address, size) };
    if accepted >= 0 {
        descriptor::accepted(fd, accepted);
    }
    accepted
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn accept4(fd: c_int, address: *mut sockaddr, size: *mut socklen_t, flags: c_int) -> c_int {
    // SAFETY: the program's arguments, handed on.
    let accepted = unsafe { real::accept4(fd, address, size, flags) };
    if accepted >= 0 {
        descriptor::accepted(fd, accepted);
        note_nonblocking(accepted, flags);
    }
    accepted
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn shutdown(fd: c_int, how: c_int) -> c_int {
    let result = table::active_socket(fd).and_then(|socket| ending::shut_down(&socket, fd, how));
    // SAFETY: touches no memory.
    result.map_or_else(|| unsafe { real::shutdown(fd, how) }, |result| returned_int(result.map(|()| 0)))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn close(fd: c_int) -> c_int {
    if descriptors::is_private(fd) {
        return returned_int(Err(Errno::BADF));
    }
    descriptor::closing(fd);
    // SAFETY: the program's descriptor.
    unsafe { real::close(fd) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    if first > last {
        return returned_int(Err(Errno::INVAL));
    }
    if flags & libc::CLOSE_RANGE_CLOEXEC as c_int == 0 {
        let mut known = Vec::new();
        table::each(|fd, _| known.push(fd));
        for fd in known.into_iter().filter(|fd| (first..=last).contains(&fd.unsigned_abs())) {
            descriptor::closing(fd);
        }
    }
    // The library's own descriptors stay open: the range is closed around them.
    let mut from = first;
    loop {
        let next = c_int::try_from(from).ok().and_then(descriptors::next_private).map(c_int::unsigned_abs);
        let to = next.map_or(last, |next| last.min(next.wrapping_sub(1)));
        if next != Some(from) && from <= to {
            // SAFETY: descriptors of the program's.
            let result = unsafe { real::close_range(from, to, flags) };
            if result != 0 {
                return result;
            }
        }
        match next {
            Some(next) if next < last => from = next + 1,
            _ => return 0,
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn closefrom(first: c_int) {
    // SAFETY: as above.
    unsafe { close_range(first.max(0).unsigned_abs(), c_uint::MAX, 0) };
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn dup(fd: c_int) -> c_int {
    // SAFETY: touches no memory.
    let copy = unsafe { real::dup(fd) };
    note_copy(fd, copy)
}

/// Says goodbye for what `to` was, if it is going to be replaced.
fn prepare_copy(fd: c_int, to: c_int) {
    // SAFETY: takes no argument and touches no memory.
    if fd != to && table::is_known(to) && unsafe { real::fcntl(fd, libc::F_GETFD, 0) } >= 0 {
        descriptor::closing(to);
    }
}

fn note_copy(fd: c_int, copy: c_int) -> c_int {
    if copy >= 0 && table::is_known(fd) {
        descriptor::copied(fd, copy);
    }
    copy
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn dup2(fd: c_int, to: c_int) -> c_int {
    prepare_copy(fd, to);
    // SAFETY: touches no memory.
    let copy = unsafe { real::dup2(fd, to) };
    note_copy(fd, copy)
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn dup3(fd: c_int, to: c_int, flags: c_int) -> c_int {
    prepare_copy(fd, to);
    // SAFETY: touches no memory.
    let copy = unsafe { real::dup3(fd, to, flags) };
    note_copy(fd, copy)
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: the program's arguments, handed on.
    let result = unsafe { real::fcntl(fd, command, argument) };
    if result < 0 {
        return result;
    }
    match command {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => note_copy(fd, result),
        libc::F_SETFL => {
            descriptor::set_nonblocking(fd, argument as c_int & libc::O_NONBLOCK != 0);
            descriptor::set_signals(fd, argument as c_int & libc::O_ASYNC != 0);
            result
        }
        _ => result,
    }
}

// stdio calls the kernel by itself, where we do not see it.

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn fdopen(fd: c_int, mode: *const c_char) -> *mut FILE {
    let must_stay = |socket: Active| upgrade::leave_to_tcp(&socket, DeclineReason::STREAM);
    if table::active_socket(fd).is_some_and(|socket| !must_stay(socket)) {
        let calls = Cookie { read: read_cookie, write: write_cookie, seek: std::ptr::null(), close: close_cookie };
        // SAFETY: the mode is the program's; the calls take a descriptor for their cookie.
        return unsafe { fopencookie(fd as usize as *mut c_void, mode, calls) };
    }
    // SAFETY: the program's arguments, handed on.
    unsafe { real::fdopen(fd, mode) }
}

#[repr(C)]
struct Cookie {
    read: unsafe extern "C-unwind" fn(*mut c_void, *mut c_char, size_t) -> ssize_t,
    write: unsafe extern "C-unwind" fn(*mut c_void, *const c_char, size_t) -> ssize_t,
    seek: *const c_void,
    close: unsafe extern "C-unwind" fn(*mut c_void) -> c_int,
}

unsafe extern "C" {
    fn fopencookie(cookie: *mut c_void, mode: *const c_char, calls: Cookie) -> *mut FILE;
}

unsafe extern "C-unwind" fn read_cookie(cookie: *mut c_void, buffer: *mut c_char, length: size_t) -> ssize_t {
    // SAFETY: stdio's buffer.
    unsafe { super::bytes::read(cookie as usize as c_int, buffer.cast(), length) }
}

unsafe extern "C-unwind" fn write_cookie(cookie: *mut c_void, buffer: *const c_char, length: size_t) -> ssize_t {
    // SAFETY: stdio's buffer.
    unsafe { super::bytes::write(cookie as usize as c_int, buffer.cast(), length) }
}

unsafe extern "C-unwind" fn close_cookie(cookie: *mut c_void) -> c_int {
    // SAFETY: the descriptor that the stream was made of.
    unsafe { close(cookie as usize as c_int) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn fclose(file: *mut FILE) -> c_int {
    // SAFETY: the program's stream.
    let fd = unsafe { libc::fileno(file) };
    if fd >= 0 && table::is_known(fd) {
        // SAFETY: as above; what it still holds belongs before the end.
        unsafe { libc::fflush(file) };
        descriptor::closing(fd);
    }
    // SAFETY: the program's argument, handed on.
    unsafe { real::fclose(file) }
}
