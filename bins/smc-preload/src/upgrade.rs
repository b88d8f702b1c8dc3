//! TEMPORARY exchange, to try the data path.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::net::*;
use softrdma_smc::arena::{Arena, Connection, Geometry};

use crate::abi::kernel;
use crate::descriptor;
use crate::readiness;
use crate::socket::{Role, Socket};

pub(crate) struct Settings {
    pub(crate) spin: Duration,
    after: u64,
}

const GEOMETRY: Geometry = Geometry { capacity: 1, ring_bytes: 262_144 };

pub(crate) fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| Settings {
        spin: Duration::from_micros(std::env::var("SPIN").ok().and_then(|v| v.parse().ok()).unwrap_or(50)),
        after: std::env::var("SOFTRDMA_SMC_UPGRADE_AFTER").ok().and_then(|v| v.parse().ok()).unwrap_or(8),
    })
}

pub(crate) fn is_enabled() -> bool {
    true
}
pub(crate) fn is_allowed(_fd: RawFd, _role: Role) -> bool {
    true
}
pub(crate) fn announce(_fd: RawFd) {}
pub(crate) fn begin() {
    settings();
}
pub(crate) fn withdraw(_socket: &Socket) {}

fn name(fd: RawFd) -> Option<SocketAddrUnix> {
    let (a, b) = kernel::ends(fd)?;
    let mut ends = [a, b].map(|e| (e.ip().to_canonical(), e.port()));
    ends.sort();
    SocketAddrUnix::new_abstract_name(format!("tmp-smc-{ends:?}").as_bytes()).ok()
}

fn set_up(socket: &Arc<Socket>, connection: Connection) -> bool {
    descriptor::look_up_nonblocking(socket);
    readiness::register(&connection, socket);
    socket.prepare(connection)
}

pub(crate) fn count_transfer(socket: &Arc<Socket>, fd: RawFd) {
    let count = socket.count_transfer();
    let after = settings().after.max(1);
    match socket.role() {
        Role::Connector if count == after => offer(socket, fd),
        Role::Acceptor if count >= after && (count / after).is_power_of_two() && count % after == 0 => seek(socket, fd),
        _ => {}
    }
}

fn seqpacket() -> OwnedFd {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

fn offer(socket: &Arc<Socket>, fd: RawFd) {
    let Some(name) = name(fd) else { return };
    let listener = seqpacket();
    if bind(&listener, &name).is_err() || listen(&listener, 1).is_err() {
        return;
    }
    let socket = Arc::downgrade(socket);
    std::thread::spawn(move || {
        let _ = (|| {
            let channel = accept(&listener).ok()?;
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut bytes = [0_u8; 8];
            recvmsg(&channel, &mut [std::io::IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
                .ok()?;
            let mut memory = None;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(mut fds) = message {
                    memory = fds.next();
                }
            }
            let arena = Arc::new(Arena::attach(memory?, GEOMETRY, 1).ok()?);
            let connection = arena.join(u64::from_ne_bytes(bytes)).ok()?;
            let socket = socket.upgrade()?;
            if !set_up(&socket, connection) {
                return None;
            }
            send(&channel, &[1], SendFlags::empty()).ok()?;
            socket.establish();
            Some(())
        })();
    });
}

fn seek(socket: &Arc<Socket>, fd: RawFd) {
    let Some(name) = name(fd) else { return };
    let channel = seqpacket();
    if connect(&channel, &name).is_err() {
        return;
    }
    let socket = Arc::downgrade(socket);
    std::thread::spawn(move || {
        let _ = (|| {
            let (arena, memory) = Arena::create(GEOMETRY, 1).ok()?;
            let connection = Arc::new(arena).claim(42).ok()?;
            let token = connection.own_token();
            let socket = socket.upgrade()?;
            if !set_up(&socket, connection) {
                return None;
            }
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let fds = [memory.as_fd()];
            control.push(SendAncillaryMessage::ScmRights(&fds));
            sendmsg(&channel, &[std::io::IoSlice::new(&token.to_ne_bytes())], &mut control, SendFlags::empty()).ok()?;
            let mut byte = [0_u8; 1];
            recv(&channel, &mut byte, RecvFlags::empty()).ok()?;
            if byte[0] == 1 {
                socket.establish();
            }
            Some(())
        })();
    });
}

pub(crate) fn before_fork() {}
pub(crate) fn after_fork_in_parent() {}
pub(crate) fn after_fork_in_child() {}
