//! Ending listeners that a driver forgot.
//!
//! When the last port on a net_memif server socket closes, the driver (22.11) frees its record of the socket, but neither
//! closes the descriptor nor takes its handler back from the interrupt thread: the name stays taken, and the next client to
//! connect makes the handler use freed memory. The handler is private to the driver and cannot be unregistered from outside; the
//! descriptor under it can be exchanged for one that never has anything to report.

use std::ffi::c_void;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The address of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketName {
    /// A name in the abstract namespace.
    Abstract(String),
    /// A file.
    Path(String),
}

impl SocketName {
    /// The bytes of `sun_path`, as the system reports them.
    fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Abstract(name) => path.strip_prefix(&[0]).is_some_and(|rest| rest == name.as_bytes()),
            Self::Path(name) => path.split(|byte| *byte == 0).next() == Some(Path::new(name).as_os_str().as_bytes()),
        }
    }
}

/// Closes this process's listening Unix socket at `name`, and leaves an idle descriptor in its place: whoever still watches
/// it will never hear anything. True if there was one.
///
/// The caller knows that the socket's owner has given it up.
pub fn retire(name: &SocketName) -> bool {
    let Ok(open) = fs::read_dir("/proc/self/fd") else { return false };
    let listeners: Vec<i32> = open
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor| is_listener_at(*descriptor, name))
        .collect();
    let retired = listeners.iter().filter(|descriptor| replace_by_idle(**descriptor)).count();
    retired > 0
}

fn is_listener_at(descriptor: i32, name: &SocketName) -> bool {
    let mut listening: i32 = 0;
    let mut length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: option and length are valid places for an int and its size; a descriptor that is no socket gives an error.
    let outcome = unsafe {
        let value = (&raw mut listening).cast::<c_void>();
        libc::getsockopt(descriptor, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, value, &mut length)
    };
    if outcome != 0 || listening == 0 {
        return false;
    }
    // SAFETY: sockaddr_un is plain data.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: address and length are valid places of the size given.
    let outcome = unsafe { libc::getsockname(descriptor, (&raw mut address).cast::<libc::sockaddr>(), &mut length) };
    if outcome != 0 || i32::from(address.sun_family) != libc::AF_UNIX {
        return false;
    }
    let path_length = (length as usize).saturating_sub(size_of::<libc::sa_family_t>()).min(address.sun_path.len());
    let path: Vec<u8> = address.sun_path[..path_length].iter().map(|byte| *byte as u8).collect();
    name.matches(&path)
}

fn replace_by_idle(descriptor: i32) -> bool {
    // SAFETY: plain system calls. `descriptor` is a listener that its owner forgot, so nobody's use of it is disturbed; the
    // number stays taken, so it cannot come to mean something else to those who still hold it.
    unsafe {
        let idle = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        if idle < 0 {
            return false;
        }
        let outcome = libc::dup3(idle, descriptor, libc::O_CLOEXEC);
        libc::close(idle);
        outcome >= 0
    }
}
