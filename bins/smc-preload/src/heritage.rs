//! What another program inherits: it has the kernel's socket and nothing else, so that is what every connection becomes that it
//! is going to have.

use std::os::fd::RawFd;
use std::sync::Arc;

use softrdma_smc::wire::clc::DeclineReason;

use crate::abi::kernel;
use crate::back;
use crate::socket::{Mode, Socket};
use crate::table::{self, Entry};

/// A program is about to be executed in a child that has all our descriptors.
pub(crate) fn prepare() {
    prepare_each(back::give_up);
}

/// A program is about to be executed here. What cannot be TCP it gets as a connection that was reset: with the kernel's
/// socket alone it would take the end for that of the stream, though bytes before it are in memory that it does not have.
pub(crate) fn prepare_here() {
    prepare_each(|socket, fd| {
        back::give_up(socket, fd);
        kernel::replace_by_reset(fd);
    });
}

/// In a child that borrows our memory it may have other descriptors than the table says, so the kernel is asked which they are.
fn prepare_each(give_up: impl Fn(&Socket, RawFd)) {
    let sockets = sockets();
    if sockets.is_empty() {
        return;
    }
    for fd in kernel::inherited() {
        let Some(number) = kernel::socket_number(fd) else {
            continue;
        };
        if let Some((_, socket)) = sockets.iter().find(|(known, _)| *known == number)
            && !back::leave(socket, fd, DeclineReason::PASSED_ON)
        {
            give_up(socket, fd);
        }
    }
}

/// `fd` is going to be used by somebody whom we do not see: whether that may be.
pub(crate) fn name(fd: RawFd, reason: DeclineReason) -> bool {
    table::active_socket(fd).is_none_or(|socket| back::leave(&socket, fd, reason))
}

/// The sockets that are not TCP for good, each by its number.
fn sockets() -> Vec<(u64, Arc<Socket>)> {
    let mut sockets: Vec<(u64, Arc<Socket>)> = Vec::new();
    table::each(|fd, entry| {
        let Entry::Socket(socket) = entry else {
            return;
        };
        if matches!(socket.mode(), Mode::Idle | Mode::Plain) || socket.descriptor() != Some(fd) {
            return;
        }
        let number = if socket.number() != 0 { Some(socket.number()) } else { kernel::socket_number(fd) };
        sockets.extend(number.map(|number| (number, socket.clone())));
    });
    sockets
}
