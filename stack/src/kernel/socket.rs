//! Opening, setting up and asking kernel sockets.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use super::buffer::Ring;
use super::config::{KernelConfig, LARGEST_RECORD};
use crate::stream::{ConnectError, ListenError, ResetReason};

/// A segment that every path carries (RFC 9293 §3.7.1), assumed until the socket tells a larger one.
const LEAST_SEGMENT: usize = 536;

/// A socket that began to connect, and whether it is connected already.
pub(super) fn connect(
    config: &KernelConfig,
    remote: SocketAddr,
    local: Option<IpAddr>,
) -> Result<(Socket, Result<bool, ResetReason>), ConnectError> {
    let system = |error: io::Error| ConnectError::System { remote, reason: error.to_string() };
    let socket = open(remote).map_err(system)?;
    configure(&socket, config).map_err(system)?;
    if let Some(local) = local {
        let refused = |error: io::Error| ConnectError::LocalAddress { local, reason: error.to_string() };
        socket.bind(&SockAddr::from(SocketAddr::new(local, 0))).map_err(refused)?;
    }
    let Err(error) = socket.connect(&SockAddr::from(remote)) else {
        return Ok((socket, Ok(true)));
    };
    match errno(&error) {
        Some(Errno::INPROGRESS | Errno::INTR | Errno::AGAIN) => Ok((socket, Ok(false))),
        Some(Errno::NETUNREACH | Errno::HOSTUNREACH) => Err(ConnectError::NoRoute { remote }),
        Some(Errno::ADDRNOTAVAIL) => Err(ConnectError::LocalAddress {
            local: local.unwrap_or_else(|| unspecified(remote)),
            reason: "no free port".into(),
        }),
        // A host that is so near that its answer is there already.
        Some(errno @ (Errno::CONNREFUSED | Errno::CONNRESET | Errno::TIMEDOUT)) => {
            Ok((socket, Err(reset_reason(errno))))
        }
        _ => Err(system(error)),
    }
}

/// A listening socket.
pub(super) fn listen(config: &KernelConfig, local: SocketAddr, backlog: usize) -> Result<Socket, ListenError> {
    let failed = |error: io::Error| match errno(&error) {
        Some(Errno::ADDRINUSE) => ListenError::AddressInUse { local },
        Some(Errno::ADDRNOTAVAIL) => ListenError::AddressNotOurs { local },
        _ => ListenError::System { local, reason: error.to_string() },
    };
    let socket = open(local).map_err(failed)?;
    // A restarted server gets its port back while old connections are in TIME-WAIT.
    socket.set_reuse_address(true).map_err(failed)?;
    if local.is_ipv6() {
        socket.set_only_v6(true).map_err(failed)?;
    }
    // Accepted sockets inherit all of it; and the window scale, which follows from the buffers, is chosen with the
    // SYN (RFC 7323 §2.2).
    configure(&socket, config).map_err(failed)?;
    socket.bind(&SockAddr::from(local)).map_err(failed)?;
    socket.listen(i32::try_from(backlog.max(1)).unwrap_or(i32::MAX)).map_err(failed)?;
    Ok(socket)
}

/// The next waiting connection, with the peer's address.
pub(super) fn accept(listener: &Socket) -> rustix::io::Result<(Socket, Option<SocketAddr>)> {
    let (socket, remote) = rustix::net::acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    Ok((Socket::from(socket), remote.and_then(|remote| SocketAddr::try_from(remote).ok())))
}

/// Sets what a connection needs.
fn configure(socket: &Socket, config: &KernelConfig) -> io::Result<()> {
    // A burst leaves in one write, so there is nothing for Nagle's algorithm to gather (RFC 9293 §3.7.4).
    socket.set_tcp_nodelay(true)?;
    if let Some(keep_alive) = config.keep_alive {
        let parameters = TcpKeepalive::new()
            .with_time(keep_alive.idle)
            .with_interval(keep_alive.interval)
            .with_retries(keep_alive.probes);
        socket.set_tcp_keepalive(&parameters)?;
    }
    if config.unacknowledged_timeout.is_some() {
        socket.set_tcp_user_timeout(config.unacknowledged_timeout)?;
    }
    set_buffers(socket, config)
}

/// Makes closing the socket reset the connection.
pub(super) fn reset(socket: Socket) {
    // If it fails the connection ends in order instead, which the layer above has no further interest in either.
    let _ = socket.set_linger(Some(Duration::ZERO));
}

/// Reads once into the room of `ring`.
#[inline]
pub(super) fn read(socket: &Socket, ring: &mut Ring) -> rustix::io::Result<usize> {
    let [front, back] = ring.spare();
    let count = if back.is_empty() {
        rustix::net::recv(socket, front, RecvFlags::empty())?.1
    } else {
        rustix::io::readv(socket, &mut [IoSliceMut::new(front), IoSliceMut::new(back)])?
    };
    ring.fill(count);
    Ok(count)
}

/// Writes once.
#[inline]
pub(super) fn write(socket: &Socket, bytes: &[u8]) -> rustix::io::Result<usize> {
    rustix::net::send(socket, bytes, SendFlags::NOSIGNAL)
}

/// The largest record that fits a segment now.
pub(super) fn segment_size(socket: &Socket) -> usize {
    let segment = socket.tcp_mss().map_or(LEAST_SEGMENT, |bytes| bytes as usize);
    segment.clamp(LEAST_SEGMENT, LARGEST_RECORD)
}

pub(super) fn local_address(socket: &Socket) -> Option<SocketAddr> {
    socket.local_addr().ok()?.as_socket()
}

pub(super) fn remote_address(socket: &Socket) -> Option<SocketAddr> {
    socket.peer_addr().ok()?.as_socket()
}

/// What went wrong with `socket`, if anything did; asking clears it.
pub(super) fn take_error(socket: &Socket) -> Option<ResetReason> {
    match socket.take_error() {
        Ok(None) => None,
        Ok(Some(error)) | Err(error) => Some(errno(&error).map_or(ResetReason::Other, reset_reason)),
    }
}

/// The one mapping of the system's errors.
pub(super) const fn reset_reason(errno: Errno) -> ResetReason {
    match errno {
        Errno::CONNREFUSED => ResetReason::Refused,
        Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED => ResetReason::ByPeer,
        Errno::TIMEDOUT => ResetReason::TimedOut,
        Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::NETDOWN | Errno::HOSTDOWN | Errno::NETRESET => {
            ResetReason::Unreachable
        }
        _ => ResetReason::Other,
    }
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))
}

fn set_buffers(socket: &Socket, config: &KernelConfig) -> io::Result<()> {
    if let Some(bytes) = config.socket_send_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = config.socket_receive_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    Ok(())
}

fn errno(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

const fn unspecified(address: SocketAddr) -> IpAddr {
    match address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}
