//! Making, copying and closing the program's descriptors.

use std::os::fd::RawFd;
use std::sync::Arc;

use crate::abi::kernel;
use crate::epoll;
use crate::fork;
use crate::socket::{Mode, Role, Socket, flag};
use crate::table::{self, Entry};
use crate::upgrade;

/// `fd` is a new TCP socket.
pub(crate) fn opened(fd: RawFd) {
    table::remove(fd);
    if upgrade::is_enabled()
        && let Some(socket) = Socket::new()
    {
        socket.add_descriptor(fd);
    }
}

/// `fd` listens.
pub(crate) fn listening(fd: RawFd) {
    if table::socket(fd).is_some_and(|socket| socket.mode() == Mode::Idle) {
        upgrade::announce(fd);
    }
}

/// `fd` was accepted from a socket of ours.
pub(crate) fn accepted(listener: RawFd, fd: RawFd) {
    table::remove(fd);
    if table::is_known(listener)
        && upgrade::is_allowed(fd, Role::Acceptor)
        && let Some(socket) = Socket::new()
    {
        socket.begin(Role::Acceptor);
        socket.add_descriptor(fd);
    }
}

/// `fd` is being connected.
pub(crate) fn connecting(fd: RawFd) {
    if let Some(socket) = table::socket(fd)
        && socket.mode() == Mode::Idle
    {
        socket.begin(Role::Connector);
        if !upgrade::is_allowed(fd, Role::Connector) {
            socket.stay_plain();
        }
    }
}

/// `to` is a copy of `from`.
pub(crate) fn copied(from: RawFd, to: RawFd) {
    if from == to || !fork::is_own_process() {
        return;
    }
    forget(to);
    if let Some(entry) = table::entry(from) {
        match entry.as_ref() {
            Entry::Socket(socket) => socket.add_descriptor(to),
            Entry::Epoll(_) => table::insert(to, entry.clone()),
        }
    }
}

/// `fd` is about to be closed, or replaced.
pub(crate) fn closing(fd: RawFd) {
    if table::is_known(fd) && fork::is_own_process() {
        forget(fd);
    }
}

fn forget(fd: RawFd) {
    if let Some(entry) = table::remove(fd)
        && let Entry::Socket(socket) = entry.as_ref()
    {
        epoll::forget(socket, fd);
        socket.remove_descriptor(fd);
    }
}

/// The program's calls on `fd` wait from now on, or do not.
pub(crate) fn set_nonblocking(fd: RawFd, is_nonblocking: bool) {
    if let Some(socket) = table::active_socket(fd) {
        note_nonblocking(&socket, is_nonblocking);
    }
}

fn note_nonblocking(socket: &Arc<Socket>, is_nonblocking: bool) {
    if is_nonblocking {
        socket.set_flag(flag::NONBLOCKING);
    } else {
        socket.clear_flag(flag::NONBLOCKING);
    }
}

/// Looks up whether the program's calls on `socket` wait.
pub(crate) fn look_up_nonblocking(socket: &Arc<Socket>) {
    if let Some(fd) = socket.descriptor() {
        note_nonblocking(socket, kernel::is_nonblocking(fd));
    }
}
