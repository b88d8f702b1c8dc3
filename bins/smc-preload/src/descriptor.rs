//! Making, copying and closing the program's descriptors.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use softrdma_smc::policy::Action;
use softrdma_smc::wire::clc::DeclineReason;

use crate::abi::kernel;
use crate::epoll;
use crate::fork;
use crate::show;
use crate::socket::{Mode, Role, Socket, flag};
use crate::table::{self, Entry};
use crate::upgrade;

/// `fd` is a new TCP socket.
pub(crate) fn opened(fd: RawFd) {
    closing(fd);
    if upgrade::is_enabled()
        && let Some(socket) = Socket::new()
    {
        socket.add_descriptor(fd);
    }
}

/// `fd` is a new epoll instance.
pub(crate) fn opened_epoll(fd: RawFd) {
    closing(fd);
    if fd >= 0 && upgrade::is_enabled() {
        epoll::instance(fd);
    }
}

/// `fd` listens.
pub(crate) fn listening(fd: RawFd) {
    if let Some(socket) = table::socket(fd)
        && socket.mode() == Mode::Idle
    {
        announce(&socket, fd);
    }
}

/// Says where `listener` listens, unless a process that is asked first has said so already.
fn announce(listener: &Arc<Socket>, fd: RawFd) {
    if let Some(address) = kernel::local(fd)
        && let Some(announcement) = upgrade::announce(address)
    {
        listener.keep(Arc::new(announcement));
        show::listen(listener, fd, address);
    }
}

/// `fd` was accepted from `listener`.
pub(crate) fn accepted(listener: RawFd, fd: RawFd) {
    closing(fd);
    let Some(socket) = table::socket(listener) else {
        return;
    };
    if let Some(address) = kernel::local(fd) {
        // Another process that listens there too may have ended since.
        if socket.announcement().is_none() && socket.may_announce_again() {
            announce(&socket, listener);
        }
        begin(fd, address, Role::Acceptor);
        if let (Some(socket), Some(announcement)) = (table::socket(fd), socket.announcement()) {
            socket.keep(announcement);
        }
    }
}

fn begin(fd: RawFd, service: SocketAddr, role: Role) {
    let action = upgrade::action(service, role);
    let known = table::socket(fd);
    if action == Action::Tcp && known.is_none() {
        return show::pass_by(role.shown(), DeclineReason::POLICY);
    }
    let Some(socket) = known.or_else(Socket::new) else {
        return show::pass_by(role.shown(), DeclineReason::INSUFFICIENT_MEMORY);
    };
    if action == Action::Require {
        socket.require();
    }
    socket.begin(role);
    if role == Role::Acceptor {
        socket.add_descriptor(fd);
    }
    show::open(&socket, fd);
    if action == Action::Tcp {
        upgrade::leave_to_tcp(&socket, DeclineReason::POLICY);
    } else {
        upgrade::begin_connection(&socket, fd);
    }
}

/// `fd` is being connected to `service`.
pub(crate) fn connecting(fd: RawFd, service: Option<SocketAddr>) {
    if let Some(socket) = table::socket(fd)
        && !socket.has_begun()
    {
        match service {
            Some(service) if socket.mode() == Mode::Idle => begin(fd, service, Role::Connector),
            // It stays TCP because of what was done to it before.
            Some(_) if socket.is_plain() => {
                socket.begin(Role::Connector);
                show::open(&socket, fd);
                let reason = DeclineReason(socket.plain_because.load(Ordering::Acquire));
                show::fall_back(&socket, reason, false);
            }
            _ => {
                socket.stay_plain();
            }
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
        match entry {
            Entry::Socket(socket) => socket.add_descriptor(to),
            Entry::Epoll(epoll) => {
                epoll.add_descriptor(to);
                table::insert(to, Entry::Epoll(epoll));
            }
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
    match table::remove(fd) {
        Some(Entry::Socket(socket)) => {
            epoll::forget(&socket, fd);
            socket.remove_descriptor(fd);
        }
        Some(Entry::Epoll(epoll)) => epoll.remove_descriptor(fd),
        None => {}
    }
}

/// The program's calls on `fd` wait from now on, or do not.
pub(crate) fn set_nonblocking(fd: RawFd, is_nonblocking: bool) {
    if let Some(socket) = table::active_socket(fd) {
        note_nonblocking(&socket, is_nonblocking);
    }
}

/// The program wants signals for what happens to `fd`, or does not.
pub(crate) fn set_signals(fd: RawFd, wants_signals: bool) {
    if let Some(socket) = table::active_socket(fd) {
        if wants_signals {
            socket.set_flag(flag::SIGNALS);
        } else {
            socket.clear_flag(flag::SIGNALS);
        }
        socket.tell_waiter();
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
