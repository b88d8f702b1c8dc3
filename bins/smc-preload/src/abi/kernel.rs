//! What the library itself asks of the kernel about the program's descriptors.

use std::ffi::{c_int, c_void};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{iovec, msghdr};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use softrdma_smc::names::Tuple;
use softrdma_smc::shared_memory::{Source, Target};

use super::real;

/// Parts that one call hands to the kernel; more of them take another.
const MAX_PARTS: usize = 1024;

/// A descriptor of the program's, for a call that is made at once.
pub(crate) fn borrowed(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the program has passed the number in the call that is being made, or it is a socket in our table. If it is closed
    // meanwhile by another thread the kernel says so, as it would without us; nothing here keeps it.
    unsafe { BorrowedFd::borrow_raw(fd.max(0)) }
}

/// The parts of a call to the kernel: `skip` bytes left out, and no more than `limit`.
struct Parts {
    parts: [iovec; MAX_PARTS],
    count: usize,
}

impl Parts {
    fn new(given: impl Iterator<Item = (*mut c_void, usize)>, mut skip: usize, mut limit: usize) -> Self {
        let mut parts = [iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_PARTS];
        let mut count = 0;
        for (base, length) in given {
            let from = skip.min(length);
            skip -= from;
            let taken = (length - from).min(limit);
            limit -= taken;
            if taken == 0 {
                continue;
            }
            parts[count] = iovec { iov_base: base.cast::<u8>().wrapping_add(from).cast(), iov_len: taken };
            count += 1;
            if count == MAX_PARTS {
                break;
            }
        }
        Self { parts, count }
    }

    fn message(&mut self) -> msghdr {
        // SAFETY: all of a msghdr may be 0: no address, no parts, no control data.
        let mut message: msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = self.parts.as_mut_ptr();
        message.msg_iovlen = self.count;
        message
    }
}

/// Whether the program may have locked itself in.
static IS_LOCKED_IN: AtomicBool = AtomicBool::new(false);

/// From now on no calls are made that the program does not make, as far as that can be helped.
pub(crate) fn lock_in() {
    IS_LOCKED_IN.store(true, Ordering::Relaxed);
}

/// See [`lock_in`].
pub(crate) fn is_locked_in() -> bool {
    IS_LOCKED_IN.load(Ordering::Relaxed)
}

/// The only part of a call, if it is one, and there is something in it: for what the program itself most likely called.
/// Programs that have locked themselves in (seccomp) are ended for calls that they do not make.
fn only(
    mut given: impl ExactSizeIterator<Item = (*mut c_void, usize)>,
    skip: usize,
    limit: usize,
) -> Option<(*mut c_void, usize)> {
    let part = given.next()?;
    if given.len() > 0 {
        return None;
    }
    let from = skip.min(part.1);
    let length = (part.1 - from).min(limit);
    (length > 0).then_some((part.0.cast::<u8>().wrapping_add(from).cast(), length))
}

fn result(returned: isize) -> Result<usize, Errno> {
    usize::try_from(returned).map_err(|_| last_error())
}

/// What the call that just failed left behind.
pub(crate) fn last_error() -> Errno {
    // SAFETY: the address is the thread's own errno, always valid.
    let number = unsafe { *libc::__errno_location() };
    if number > 0 { Errno::from_raw_os_error(number) } else { Errno::IO }
}

/// Receives over TCP, at most `limit` bytes, into `parts` without their first `skip` bytes.
pub(crate) fn receive(
    fd: RawFd,
    parts: &[Target<'_>],
    skip: usize,
    limit: usize,
    flags: c_int,
) -> Result<usize, Errno> {
    if let Some((base, length)) = only(parts.iter().map(Target::as_raw), skip, limit) {
        // SAFETY: it lies within what the program vouched for.
        return result(unsafe {
            if flags == 0 { real::read(fd, base, length) } else { real::recv(fd, base, length, flags) }
        });
    }
    let mut parts = Parts::new(parts.iter().map(Target::as_raw), skip, limit);
    let mut message = parts.message();
    // SAFETY: the parts lie within those that the program vouched for.
    result(unsafe { real::recvmsg(fd, &raw mut message, flags) })
}

/// Sends over TCP what `parts` hold without their first `skip` bytes.
pub(crate) fn send(fd: RawFd, parts: &[Source<'_>], skip: usize, flags: c_int) -> Result<usize, Errno> {
    if let Some((base, length)) = only(parts.iter().map(Source::as_raw), skip, usize::MAX) {
        // SAFETY: it lies within what the program vouched for.
        return result(unsafe {
            if flags == 0 { real::write(fd, base, length) } else { real::send(fd, base, length, flags) }
        });
    }
    let mut parts = Parts::new(parts.iter().map(Source::as_raw), skip, usize::MAX);
    let message = parts.message();
    // SAFETY: as above.
    result(unsafe { real::sendmsg(fd, &raw const message, flags) })
}

/// Sleeps until TCP has something, the way a receiving call of the program's would: its time limit, its signals, its cancellation.
/// 0 at the end of the stream.
pub(crate) fn sleep(fd: RawFd) -> Result<usize, Errno> {
    let mut byte = 0_u8;
    // SAFETY: one byte of ours.
    result(unsafe { real::recv(fd, (&raw mut byte).cast(), 1, libc::MSG_PEEK) })
}

/// Waits for `events` at most `timeout_ms`: those that there are.
pub(crate) fn poll(fd: RawFd, events: i16, timeout_ms: c_int) -> Result<i16, Errno> {
    let mut descriptor = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one record of ours.
    result(unsafe { real::poll(&raw mut descriptor, 1, timeout_ms) } as isize)?;
    Ok(descriptor.revents)
}

/// What who takes doorbells has found in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Whether there were any.
    Open {
        had_doorbells: bool,
    },
    Ended,
    Reset,
}

/// Takes what there is of the stream, or looks at it, without waiting: `None` if there is nothing, 0 bytes at its end. Like
/// [`send_at_once`] it ends no thread that was cancelled, which may have to tell others of what it did just before.
pub(crate) fn receive_at_once(fd: RawFd, bytes: &mut [u8], is_peek: bool) -> Result<Option<usize>, Errno> {
    let flags = if is_peek { RecvFlags::DONTWAIT | RecvFlags::PEEK } else { RecvFlags::DONTWAIT };
    match rustix::net::recv(borrowed(fd), bytes, flags) {
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        received => received.map(|(received, _)| Some(received)),
    }
}

/// Whether the next byte of TCP is an urgent one.
pub(crate) fn is_at_mark(fd: RawFd) -> bool {
    // SAFETY: touches no memory.
    unsafe { real::sockatmark(fd) == 1 }
}

/// Bytes that TCP has brought and nobody has taken.
pub(crate) fn unread(fd: RawFd) -> u64 {
    let mut count: c_int = 0;
    // SAFETY: an int of ours.
    let result = unsafe { real::ioctl(fd, libc::FIONREAD, (&raw mut count) as usize) };
    if result == 0 { count.max(0) as u64 } else { 0 }
}

/// Sends as much as there is room for, without waiting: 0 if there is none.
pub(crate) fn send_at_once(fd: RawFd, bytes: &[u8]) -> Result<usize, Errno> {
    match rustix::net::send(borrowed(fd), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        sent => sent,
    }
}

/// The number by which the kernel tells sockets apart, whatever their descriptors.
pub(crate) fn socket_number(fd: RawFd) -> Option<u64> {
    let status = rustix::fs::fstat(borrowed(fd)).ok()?;
    let is_socket = rustix::fs::FileType::from_raw_mode(status.st_mode) == rustix::fs::FileType::Socket;
    is_socket.then_some(status.st_ino)
}

/// The descriptors that a program which is executed now would have.
pub(crate) fn inherited() -> Vec<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    let all = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // SAFETY: takes no argument and touches no memory.
    let stays = |fd: &RawFd| unsafe { real::fcntl(*fd, libc::F_GETFD, 0) & libc::FD_CLOEXEC == 0 };
    all.filter(stays).collect()
}

/// Puts a socket whose connection was reset in the place of `fd`, which goes to another program. Nothing is done if there is no
/// room for it.
pub(crate) fn replace_by_reset(fd: RawFd) {
    let mut flags = SocketFlags::CLOEXEC;
    flags.set(SocketFlags::NONBLOCK, is_nonblocking(fd));
    let Ok((ours, other)) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None) else {
        return;
    };
    // unix(7): who closes with data unread resets the other.
    let is_to_be_reset = rustix::io::write(&ours, b"?").is_ok();
    drop(other);
    if is_to_be_reset {
        // SAFETY: touches no memory.
        unsafe { real::dup2(ours.as_raw_fd(), fd) };
    }
}

/// A copy of `fd` for the library itself.
pub(crate) fn copy(fd: RawFd) -> Option<std::os::fd::OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(borrowed(fd), 0).ok()
}

/// Whether the peer has ended the TCP connection, though receiving from it was shut here.
pub(crate) fn has_peer_ended(fd: RawFd) -> bool {
    const CLOSED: u8 = 7;
    const CLOSE_WAIT: u8 = 8;
    let (mut state, mut size) = (0_u8, 1);
    // SAFETY: one byte of ours: the first of what there is is the state.
    let returned =
        unsafe { real::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut state).cast(), &raw mut size) };
    returned == 0 && matches!(state, CLOSED | CLOSE_WAIT)
}

/// Whether calls on `fd` do not wait.
pub(crate) fn is_nonblocking(fd: RawFd) -> bool {
    // SAFETY: takes no argument and touches no memory.
    unsafe { real::fcntl(fd, libc::F_GETFL, 0) & libc::O_NONBLOCK != 0 }
}

/// A socket option that is a number.
pub(crate) fn option(fd: RawFd, level: c_int, name: c_int) -> Option<c_int> {
    let (mut value, mut size) = (0_i32, 4);
    // SAFETY: four bytes of ours.
    let returned = unsafe { real::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut size) };
    (returned == 0 && size == 4).then_some(value)
}

/// The size of the send buffer of `fd`, if the program has asked for one.
pub(crate) fn send_buffer_asked_for(fd: RawFd) -> Option<c_int> {
    /// SOCK_SNDBUF_LOCK of SO_BUF_LOCK, which Linux has from 5.14 on.
    const LOCKED: c_int = 1;
    option(fd, libc::SOL_SOCKET, libc::SO_BUF_LOCK).filter(|locked| locked & LOCKED != 0)?;
    option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF)
}

/// Sets a socket option that is a number.
pub(crate) fn set_option(fd: RawFd, level: c_int, name: c_int, value: c_int) {
    // SAFETY: four bytes of ours.
    let _ = unsafe { real::setsockopt(fd, level, name, (&raw const value).cast(), 4) };
}

/// The time limit that `name` (SO_RCVTIMEO, SO_SNDTIMEO) sets, in milliseconds; -1 without.
pub(crate) fn time_limit_ms(fd: RawFd, name: c_int) -> c_int {
    let mut value = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let mut size = size_of::<libc::timeval>() as u32;
    // SAFETY: a record of ours and its size.
    unsafe { real::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut size) };
    let milliseconds = value.tv_sec.saturating_mul(1000).saturating_add((value.tv_usec + 999) / 1000);
    if milliseconds == 0 { -1 } else { c_int::try_from(milliseconds).unwrap_or(c_int::MAX) }
}

/// Whether closing `fd` throws away what is not sent yet (SO_LINGER without a time).
pub(crate) fn lingers_not(fd: RawFd) -> bool {
    rustix::net::sockopt::socket_linger(borrowed(fd)) == Ok(Some(std::time::Duration::ZERO))
}

/// Both ends of a connection: ours, the peer's.
pub(crate) fn ends(fd: RawFd) -> Option<(SocketAddr, SocketAddr)> {
    let local = rustix::net::getsockname(borrowed(fd)).ok()?;
    let peer = rustix::net::getpeername(borrowed(fd)).ok()??;
    Some((SocketAddr::try_from(local).ok()?, SocketAddr::try_from(peer).ok()?))
}

/// Whether the other end of a connection has an address of this network namespace's.
pub(crate) fn is_of_this_host(tuple: Tuple) -> bool {
    let ip = tuple.peer.ip().to_canonical();
    // A datagram socket can be bound to just those; a port is taken for a moment.
    ip.is_loopback() || ip == tuple.local.ip().to_canonical() || std::net::UdpSocket::bind((ip, 0)).is_ok()
}

/// The signal for whoever writes to a connection that is gone, to this thread.
pub(crate) fn raise_broken_pipe() {
    // SAFETY: raises a signal for this very thread.
    unsafe { libc::raise(libc::SIGPIPE) };
}

/// Sends nothing more over TCP.
pub(crate) fn shut_sending(fd: RawFd) {
    // SAFETY: touches no memory.
    let _ = unsafe { real::shutdown(fd, libc::SHUT_WR) };
}

/// Says to the kernel that the receiving end of `fd` is shut, which wakes who sleeps there.
pub(crate) fn shut_receiving(fd: RawFd) {
    // SAFETY: touches no memory.
    let _ = unsafe { real::shutdown(fd, libc::SHUT_RD) };
}

/// Adds, changes or removes what an epoll instance watches.
pub(crate) fn epoll_control(epoll: RawFd, operation: c_int, fd: RawFd, events: u32, data: u64) -> Result<(), Errno> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: a record of ours.
    result(unsafe { real::epoll_ctl(epoll, operation, fd, &raw mut event) } as isize).map(drop)
}

/// Our end of a connection, or where a socket listens.
pub(crate) fn local(fd: RawFd) -> Option<SocketAddr> {
    SocketAddr::try_from(rustix::net::getsockname(borrowed(fd)).ok()?).ok()
}

/// An internet address that the program has passed.
///
/// # Safety
///
/// `address` must be null or have `size` bytes.
pub(crate) unsafe fn read_address(address: *const libc::sockaddr, size: libc::socklen_t) -> Option<SocketAddr> {
    if address.is_null() || (size as usize) < size_of::<libc::sockaddr_in>() {
        return None;
    }
    // SAFETY: as many bytes as the family of an address that has them says, whose size was looked at.
    unsafe {
        match c_int::from((*address).sa_family) {
            libc::AF_INET => {
                let address = address.cast::<libc::sockaddr_in>().read_unaligned();
                let ip = std::net::Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
                Some(SocketAddr::new(ip.into(), u16::from_be(address.sin_port)))
            }
            libc::AF_INET6 if size as usize >= size_of::<libc::sockaddr_in6>() => {
                let address = address.cast::<libc::sockaddr_in6>().read_unaligned();
                let ip = std::net::Ipv6Addr::from(address.sin6_addr.s6_addr);
                Some(SocketAddr::new(ip.into(), u16::from_be(address.sin6_port)))
            }
            _ => None,
        }
    }
}

/// What the program was started as, without directories.
pub(crate) fn program_name() -> String {
    let path = rustix::param::linux_execfn().to_string_lossy();
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

/// Says something that the user must know, once, where errors go.
pub(crate) fn complain(what: &str) {
    let line = format!("softrdma-smc: {what}\n");
    // SAFETY: a string of ours.
    let _ = unsafe { real::write(2, line.as_ptr().cast(), line.len()) };
}

/// Does nothing for a while.
pub(crate) fn pause(time: std::time::Duration) {
    std::thread::sleep(time);
}

/// The events that an epoll instance has just now: how many.
pub(crate) fn epoll_look(epoll: RawFd, events: &mut [libc::epoll_event]) -> usize {
    // SAFETY: a slice of records.
    let found = unsafe { real::epoll_wait(epoll, events.as_mut_ptr(), events.len() as c_int, 0) };
    usize::try_from(found).unwrap_or(0)
}

/// The signals that a thread does not let through.
pub(crate) struct Signals(libc::sigset_t);

/// Lets no signal through to this thread: what it let through before, for [`restore_signals`].
pub(crate) fn block_signals() -> Signals {
    let mut all = std::mem::MaybeUninit::uninit();
    let mut before = std::mem::MaybeUninit::uninit();
    // SAFETY: sets of ours; the first is filled before it is read, and the second always by a call that cannot fail.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        Signals(before.assume_init())
    }
}

/// See [`block_signals`].
pub(crate) fn restore_signals(before: &Signals) {
    // SAFETY: a set that was one of the thread's.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before.0, std::ptr::null_mut()) };
}
