//! The socket between the two ends of an exchange: whole messages, and a descriptor with one of them.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, Shutdown, recvmsg, sendmsg, shutdown,
};

use super::message::{Envelope, MAX_EMITTED, MAX_LENGTH, MessageError};
use super::{Direction, Host};
use crate::descriptors::Private;
use crate::names::Tuple;

/// A connected socket, and the process at its other end.
#[derive(Debug)]
pub(super) struct Link {
    socket: Private,
    process: i32,
}

/// Why nothing more comes from a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkError {
    /// The peer has closed its end, and nothing that it sent before is left.
    HungUp,
    /// What it has sent is no message.
    Message(MessageError),
}

impl From<MessageError> for LinkError {
    fn from(error: MessageError) -> Self {
        Self::Message(error)
    }
}

/// A message, and the memory that came with it if it says so.
pub(super) type Received = (Envelope, Option<OwnedFd>);

impl Link {
    /// The other end of `socket` must be a process of user `uid`; `None` if it is not.
    pub(super) fn new(socket: Private, uid: u32) -> Option<Self> {
        // A process of another PID namespace is number 0 here, which the type that rustix gives cannot hold.
        let credentials = getsockopt(&socket, PeerCredentials).ok()?;
        (credentials.uid() == uid).then(|| Self { socket, process: credentials.pid() })
    }

    /// Number of the process at the other end; 0 if it has none here.
    pub(super) const fn process(&self) -> i32 {
        self.process
    }

    /// Sends a message, with the `memory` that it speaks of. A link always has room for the few that an exchange has.
    pub(super) fn send(
        &self,
        envelope: &Envelope,
        memory: Option<BorrowedFd<'_>>,
        host: &dyn Host,
        tuple: Tuple,
    ) -> Result<(), Errno> {
        let mut out = [0; MAX_EMITTED];
        let (header, clc) = envelope.emit(&mut out);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors: &[BorrowedFd<'_>] = memory.as_slice();
        if !descriptors.is_empty() {
            let has_room = control.push(SendAncillaryMessage::ScmRights(descriptors));
            debug_assert!(has_room, "the space is for one descriptor");
        }
        let parts = [IoSlice::new(header), IoSlice::new(clc)];
        loop {
            match sendmsg(&self.socket, &parts, &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        host.observe(tuple, Direction::Sent, clc);
        Ok(())
    }

    /// Takes the next message, if there is one. Descriptors that nothing is said about are closed.
    pub(super) fn receive(&self, host: &dyn Host, tuple: Tuple) -> Result<Option<Received>, LinkError> {
        let mut bytes = [0; MAX_LENGTH];
        let mut descriptors = Descriptors::default();
        let (length, flags) = match self.receive_into(&mut bytes, &mut descriptors) {
            Ok((0, _)) => return Err(LinkError::HungUp),
            Ok(received) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(_) => return Err(LinkError::HungUp),
        };
        if flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(MessageError::Excess.into());
        }
        let (envelope, clc) = Envelope::parse(&bytes[..length])?;
        let expected = usize::from(envelope.arena.is_some_and(|named| named.has_memory));
        if descriptors.count != expected {
            return Err(MessageError::Excess.into());
        }
        host.observe(tuple, Direction::Received, clc);
        Ok(Some((envelope, descriptors.first)))
    }

    fn receive_into(&self, bytes: &mut [u8], descriptors: &mut Descriptors) -> Result<(usize, ReturnFlags), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut receive = || recvmsg(&self.socket, &mut [IoSliceMut::new(bytes)], &mut control, flags);
        // That the peer has closed with something unread is said once, before what it has sent.
        let received = match receive() {
            Err(Errno::CONNRESET) => receive(),
            received => received,
        }?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(those) = message {
                for descriptor in those {
                    descriptors.count += 1;
                    descriptors.first.get_or_insert(descriptor);
                }
            }
        }
        Ok((received.bytes, received.flags))
    }

    /// Whether the peer has closed its end, whatever it has sent before.
    pub(super) fn has_hung_up(&self) -> bool {
        let mut watched = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        poll(&mut watched, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// From now on the peer cannot send. What it has sent can still be received; behind that, it has hung up.
    pub(super) fn stop_receiving(&self) {
        let _ = shutdown(&self.socket, Shutdown::Read);
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Those that came with a message. There is room for one in the control data; where that is rounded up for another, the second
/// is counted and closed.
#[derive(Default)]
struct Descriptors {
    first: Option<OwnedFd>,
    count: usize,
}
