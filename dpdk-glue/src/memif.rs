//! The sockets through which memif ports find each other, where the driver leaves work undone.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use dpdk_sys::listener::{self, SocketName};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};

use crate::port::PortError;

/// The names on which ports of this process listen, once for each port.
static SERVED: Mutex<Vec<SocketName>> = Mutex::new(Vec::new());

/// A server port's share in its listening socket. When the last one is dropped, after its port was closed, the name is free.
#[derive(Debug)]
pub(crate) struct ServerSocket {
    name: SocketName,
}

impl ServerSocket {
    /// The socket of a memif device by its arguments, if it is a server.
    pub(crate) fn of(device: &str) -> Option<Self> {
        let name = server_socket(device)?;
        served().push(name.clone());
        Some(Self { name })
    }
}

impl Drop for ServerSocket {
    fn drop(&mut self) {
        let mut served = served();
        if let Some(index) = served.iter().position(|name| *name == self.name) {
            served.swap_remove(index);
        }
        if !served.contains(&self.name) {
            listener::retire(&self.name);
        }
    }
}

/// A server's socket file that nobody serves any more keeps its successor from binding: removed. One that somebody else
/// serves is an error.
pub(crate) fn remove_stale_socket(device: &str) -> Result<(), PortError> {
    let Some(SocketName::Path(path)) = server_socket(device) else { return Ok(()) };
    if !Path::new(&path).exists() || served().contains(&SocketName::Path(path.clone())) {
        return Ok(());
    }
    let (Ok(address), Ok(probe)) =
        (SocketAddrUnix::new(path.as_str()), socket(AddressFamily::UNIX, SocketType::SEQPACKET, None))
    else {
        return Ok(());
    };
    match connect(&probe, &address) {
        Ok(()) => Err(PortError::SocketInUse { path }),
        Err(rustix::io::Errno::CONNREFUSED) => {
            let _ = std::fs::remove_file(path);
            Ok(())
        }
        Err(_) => Ok(()),
    }
}

/// Where the device listens; `None` for clients. Defaults are the driver's.
fn server_socket(device: &str) -> Option<SocketName> {
    let argument = |key| device.split(',').find_map(|argument| argument.trim().strip_prefix(key));
    if !matches!(argument("role="), Some("server" | "master")) {
        return None;
    }
    let name = argument("socket=").unwrap_or("/run/memif.sock").to_owned();
    Some(if argument("socket-abstract=") == Some("no") { SocketName::Path(name) } else { SocketName::Abstract(name) })
}

fn served() -> std::sync::MutexGuard<'static, Vec<SocketName>> {
    SERVED.lock().unwrap_or_else(PoisonError::into_inner)
}
