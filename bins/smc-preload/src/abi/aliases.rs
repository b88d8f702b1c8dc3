//! Other names that glibc has for the same calls.

use std::ffi::{c_int, c_void};

use libc::{iovec, nfds_t, off_t, pollfd, size_t, sockaddr, socklen_t, ssize_t};

use super::{bytes, descriptors, watching};

macro_rules! aliases {
    ($($name:ident = $module:ident::$call:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C-unwind" fn $name($($argument: $type),*) -> $result {
                // SAFETY: the same call by another name.
                unsafe { $module::$call($($argument),*) }
            }
        )*
    };
}

aliases! {
    __read = bytes::read(fd: c_int, buffer: *mut c_void, length: size_t) -> ssize_t;
    __write = bytes::write(fd: c_int, buffer: *const c_void, length: size_t) -> ssize_t;
    __send = bytes::send(fd: c_int, buffer: *const c_void, length: size_t, flags: c_int) -> ssize_t;
    preadv64v2 = bytes::preadv2(fd: c_int, parts: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t;
    pwritev64v2 = bytes::pwritev2(fd: c_int, parts: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t;
    sendfile64 = bytes::sendfile(to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t;
    __close = descriptors::close(fd: c_int) -> c_int;
    __connect = descriptors::connect(fd: c_int, address: *const sockaddr, size: socklen_t) -> c_int;
    __dup2 = descriptors::dup2(fd: c_int, to: c_int) -> c_int;
    __fcntl = descriptors::fcntl(fd: c_int, command: c_int, argument: usize) -> c_int;
    fcntl64 = descriptors::fcntl(fd: c_int, command: c_int, argument: usize) -> c_int;
    __poll = watching::poll(descriptors: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int;
    __select = watching::select(
        count: c_int,
        reading: *mut libc::fd_set,
        writing: *mut libc::fd_set,
        excepting: *mut libc::fd_set,
        timeout: *mut libc::timeval
    ) -> c_int;
}
