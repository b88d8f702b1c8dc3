//! The calls that stand before libc's. Each looks whether its descriptor is ours, and otherwise makes the call that was made.

#![allow(unsafe_code)]

pub(crate) mod held;
pub(crate) mod kernel;

mod aliases;
mod bytes;
mod descriptors;
mod exec;
mod life;
mod messages;
mod options;
mod real;
mod watching;

use std::ffi::c_int;

use rustix::io::Errno;

/// What a call of libc returns for `result`: a count, or -1 and errno.
fn returned(result: Result<usize, Errno>) -> isize {
    match result {
        Ok(count) => count as isize,
        Err(error) => {
            set_error(error);
            -1
        }
    }
}

/// The same for calls that return an int.
fn returned_int(result: Result<usize, Errno>) -> c_int {
    returned(result) as c_int
}

fn set_error(error: Errno) {
    // SAFETY: the address is the thread's own errno, always valid.
    unsafe { *libc::__errno_location() = error.raw_os_error() };
}
