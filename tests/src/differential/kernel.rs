//! The kernel's TCP below an application.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sockopt};

use super::End;
use super::script::{Application, Seen};
use crate::network::Namespace;

/// What the kernel is asked to keep of either direction, so that a window closes soon (it takes twice as much).
const SOCKET_BYTES: usize = 64 << 10;
/// Bytes that one system call moves at most, and calls in each direction before others have their turn.
const CHUNK: usize = 32 << 10;
const TURNS: usize = 8;

/// A socket in a namespace.
pub(super) struct KernelEnd<'a> {
    namespace: &'a Namespace,
    /// Ours, without a port.
    local: SocketAddr,
    listener: Option<TcpListener>,
    socket: Option<TcpStream>,
    /// The handshake is over.
    is_established: bool,
    /// There is nothing to be seen any more.
    is_over: bool,
    buffer: Vec<u8>,
}

impl<'a> KernelEnd<'a> {
    pub(super) fn new(namespace: &'a Namespace, local: SocketAddr) -> Self {
        let buffer = vec![0; CHUNK];
        Self { namespace, local, listener: None, socket: None, is_established: false, is_over: false, buffer }
    }

    /// A socket with our address.
    fn socket(&self) -> Result<OwnedFd, Errno> {
        let family = if self.local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = self.namespace.inside(|| rustix::net::socket_with(family, SocketType::STREAM, flags, None))?;
        sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BYTES)?;
        sockopt::set_socket_send_buffer_size(&socket, SOCKET_BYTES)?;
        // RFC 6093 §6: urgent bytes are bytes of the stream, and whoever wants them to be has to say so.
        sockopt::set_socket_oobinline(&socket, true)?;
        rustix::net::bind(&socket, &self.local)?;
        Ok(socket)
    }

    /// The connection, once there is one.
    fn establish(&mut self, application: &mut Application) -> Result<bool, String> {
        let Some(listener) = &self.listener else {
            let Some(socket) = &self.socket else { return Ok(false) };
            if let Some(error) = socket.take_error().map_err(said)? {
                self.fail(error.kind(), application);
                return Ok(true);
            }
            // It has no peer before there is a connection.
            self.is_established = socket.peer_addr().is_ok();
            if self.is_established {
                application.see(Seen::Connected);
            }
            return Ok(self.is_established);
        };
        match listener.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(true).and_then(|()| socket.set_nodelay(true)).map_err(said)?;
                self.socket = Some(socket);
                self.is_established = true;
                application.see(Seen::Accepted);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(said(error)),
        }
    }

    fn fail(&mut self, kind: ErrorKind, application: &mut Application) {
        self.is_over = true;
        application.see(match kind {
            ErrorKind::ConnectionRefused => Seen::Refused,
            // Where the peer's direction had ended, the kernel calls a reset a broken pipe.
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Seen::Reset,
            other => Seen::Failed(other),
        });
    }

    fn read(&mut self, application: &mut Application) -> Result<bool, ErrorKind> {
        let Some(socket) = &mut self.socket else { return Ok(false) };
        let mut moved = false;
        for _ in 0..TURNS {
            if !application.reads || application.has_seen(Seen::End) {
                break;
            }
            match socket.read(&mut self.buffer) {
                Ok(0) => application.see(Seen::End),
                Ok(count) => application.take(&self.buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.kind()),
            }
            moved = true;
        }
        Ok(moved)
    }

    fn write(&mut self, application: &mut Application) -> Result<bool, ErrorKind> {
        let Some(socket) = &mut self.socket else { return Ok(false) };
        let mut moved = false;
        for _ in 0..TURNS {
            let left = usize::try_from(application.goal - application.sent).unwrap_or(CHUNK).min(CHUNK);
            if left == 0 {
                break;
            }
            let out = &mut self.buffer[..left];
            Application::fill(application.side(), application.sent, out);
            match socket.write(out) {
                Ok(count) => application.note_sent(count as u64),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.kind()),
            }
            moved = true;
        }
        Ok(moved)
    }

    /// Takes what there is to be taken, then what broke the connection, if anything did.
    fn exchange(&mut self, application: &mut Application) -> Result<bool, String> {
        let outcome = self.read(application).and_then(|moved| Ok(self.write(application)? || moved));
        let moved = match outcome {
            Ok(moved) => moved,
            Err(kind) => {
                self.fail(kind, application);
                return Ok(true);
            }
        };
        // Who neither reads nor writes has to ask.
        let error = self.socket.as_ref().map_or(Ok(None), TcpStream::take_error).map_err(said)?;
        if let Some(error) = &error {
            self.fail(error.kind(), application);
        }
        Ok(moved || error.is_some())
    }
}

impl End for KernelEnd<'_> {
    fn connect(&mut self, remote: SocketAddr) -> Result<(), String> {
        let socket = self.socket().map_err(said)?;
        match rustix::net::connect(&socket, &remote) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(said(error)),
        }
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true).map_err(said)?;
        self.socket = Some(socket);
        Ok(())
    }

    fn listen(&mut self) -> Result<SocketAddr, String> {
        let socket = self.socket().map_err(said)?;
        rustix::net::listen(&socket, 1).map_err(said)?;
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().map_err(said)?;
        self.listener = Some(listener);
        Ok(address)
    }

    fn advance(&mut self, application: &mut Application) -> Result<bool, String> {
        if self.is_over {
            return Ok(false);
        }
        if !self.is_established {
            return self.establish(application);
        }
        let moved = self.exchange(application)?;
        let has_ended = application.has_ended && application.has_seen(Seen::End);
        // In CLOSED, where TIME-WAIT counts as, a socket has no peer.
        if !self.is_over && has_ended && self.socket.as_ref().is_some_and(|socket| socket.peer_addr().is_err()) {
            self.is_over = true;
            application.see(Seen::Closed);
            return Ok(true);
        }
        Ok(moved)
    }

    fn end(&mut self) -> Result<(), String> {
        self.socket.as_ref().map_or(Ok(()), |socket| socket.shutdown(Shutdown::Write)).map_err(said)
    }

    fn reset(&mut self) -> Result<(), String> {
        self.is_over = true;
        let Some(socket) = self.socket.take() else { return Ok(()) };
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).map_err(said)
    }

    fn leave(&mut self) -> Result<(), String> {
        self.is_over = true;
        self.socket = None;
        Ok(())
    }

    fn send_urgent(&mut self, byte: u8) -> Result<bool, String> {
        let socket = self.socket.as_ref().ok_or("no connection")?;
        match rustix::net::send(socket, &[byte], SendFlags::OOB | SendFlags::NOSIGNAL) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(said(error)),
        }
    }
}

impl Drop for KernelEnd<'_> {
    fn drop(&mut self) {
        // Nothing of it speaks up in a later run.
        let _ = self.reset();
    }
}

fn said(error: impl std::fmt::Display) -> String {
    format!("a socket: {error}")
}
