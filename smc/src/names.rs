//! Where the two ends of a connection find each other: names of unix sockets, made of the user and of what both ends know.
//!
//! A listener's name ([`listener`]) only says that there is one with SMC; nothing is ever sent to it. At a connection's name
//! ([`connection`]) one end waits for the other. At a process's own name, which only those know that have connections with it,
//! it hears of what they ask for ([`Rendezvous::call`]).
//!
//! Abstract names reach as far as one network namespace, which is as far as the addresses in them mean something; they vanish
//! with their socket. Containers share a directory instead ([`Rendezvous::with_directory`]). Connections over loopback stay
//! with the abstract names even then: the same loopback addresses stand for other connections in another namespace.
//!
//! Anybody can bind an abstract name, so a name proves nothing: who is behind it is asked of the kernel.

mod file;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType};
use rustix::net::{SendFlags, bind, connect, listen, send, shutdown, socket_with};
use rustix::process::geteuid;

use crate::descriptors::Private;
use crate::wire::Gid;
use file::File;

/// The two ends of a TCP connection as one of them sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// This end.
    pub local: SocketAddr,
    /// The other one.
    pub peer: SocketAddr,
}

impl Tuple {
    /// The same as the other end sees it.
    pub const fn reversed(self) -> Self {
        Self { local: self.peer, peer: self.local }
    }

    /// The same from both ends, and whether the sockets are of IPv4 or of IPv6 with such addresses.
    fn ends(self) -> [(IpAddr, u16); 2] {
        let mut ends = [self.local, self.peer].map(|end| (end.ip().to_canonical(), end.port()));
        ends.sort();
        ends
    }

    fn is_loopback(self) -> bool {
        self.ends().iter().any(|(address, _)| address.is_loopback())
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} - {}", self.local, self.peer)
    }
}

/// The abstract name that says that a process of user `uid` listens at `port` and has SMC.
pub fn listener(uid: u32, port: u16) -> SocketAddrUnix {
    abstract_name(&listener_text(uid, port))
}

/// The abstract name at which one end of a connection of user `uid` waits for the other. Both ends come to the same.
pub fn connection(uid: u32, tuple: Tuple) -> SocketAddrUnix {
    abstract_name(&connection_text(uid, tuple))
}

fn home_text(uid: u32, gid: Gid) -> String {
    format!("softrdma-smc/{uid}/at/{:016x}", gid.0)
}

fn listener_text(uid: u32, port: u16) -> String {
    format!("softrdma-smc/{uid}/listener/{port}")
}

fn connection_text(uid: u32, tuple: Tuple) -> String {
    let [(low, low_port), (high, high_port)] = tuple.ends();
    format!("softrdma-smc/{uid}/{}/{low_port}-{}/{high_port}", Digits(low), Digits(high))
}

/// An address in few letters: IPv6 without colons, so that two of them and the rest fit into a name.
struct Digits(IpAddr);

impl fmt::Display for Digits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(formatter, "{address}"),
            IpAddr::V6(address) => write!(formatter, "{:032x}", address.to_bits()),
        }
    }
}

fn abstract_name(text: &str) -> SocketAddrUnix {
    SocketAddrUnix::new_abstract_name(text.as_bytes()).expect("at most 101 bytes of the 107 that fit")
}

/// Why a directory is no meeting place.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The path of a socket in it does not fit into a socket's address.
    #[error("{path} is too long for a rendezvous directory: its path must have at most {} bytes", File::MAX_DIRECTORY)]
    TooLong {
        /// The directory.
        path: PathBuf,
    },
    /// It is relative to a directory that programs change.
    #[error("{path} is no absolute path: a rendezvous directory needs one")]
    Relative {
        /// The directory.
        path: PathBuf,
    },
}

/// Where this process meets others.
#[derive(Clone, Debug, Default)]
pub struct Rendezvous {
    /// Instead of the process's effective user.
    uid: Option<u32>,
    directory: Option<Directory>,
}

#[derive(Clone, Debug)]
struct Directory {
    path: PathBuf,
    domain: String,
}

impl Rendezvous {
    /// In this network namespace.
    pub fn new() -> Self {
        Self::default()
    }

    /// In this network namespace, and through sockets in the directory at `path`, which other containers have at this or
    /// another path. Only who was given the same `domain` is met there: addresses that mean something else in another
    /// container's network need another domain.
    pub fn with_directory(path: impl Into<PathBuf>, domain: impl Into<String>) -> Result<Self, DirectoryError> {
        let path = path.into();
        if !path.is_absolute() {
            return Err(DirectoryError::Relative { path });
        }
        if path.as_os_str().len() > File::MAX_DIRECTORY {
            return Err(DirectoryError::TooLong { path });
        }
        Ok(Self { uid: None, directory: Some(Directory { path, domain: domain.into() }) })
    }

    /// The same for another user than the one that the process is.
    pub fn for_user(self, uid: u32) -> Self {
        Self { uid: Some(uid), ..self }
    }

    /// The user that the names are made of, and that the other end must be. A process may change it while it runs.
    pub(crate) fn uid(&self) -> u32 {
        self.uid.unwrap_or_else(|| geteuid().as_raw())
    }

    /// Says that this process listens at `port` and has SMC, until the result is dropped here and in all children of fork
    /// that have it. `None`: some process says so already.
    pub fn announce(&self, port: u16) -> io::Result<Option<Announcement>> {
        let mut bound = Vec::with_capacity(2);
        for place in self.listener_places(port) {
            match place.bind(SocketType::DGRAM) {
                Ok(socket) => bound.push(socket),
                Err(Errno::ADDRINUSE) => continue,
                Err(error) => return Err(error.into()),
            }
            // What anybody sends is refused, not kept.
            let socket = &bound[bound.len() - 1].socket;
            shutdown(socket, Shutdown::Read)?;
        }
        Ok((!bound.is_empty()).then_some(Announcement { _bound: bound }))
    }

    /// Whether some process says that it listens at `port` and has SMC. Does not wait, nor does the other process notice.
    pub fn is_announced(&self, port: u16) -> bool {
        let Ok(socket) = new_socket(SocketType::DGRAM) else { return false };
        self.listener_places(port).iter().any(|place| place.connect(&socket).is_ok())
    }

    /// Waits for the other end of a connection; at most `backlog` may stand in line.
    pub(crate) fn wait_at(&self, tuple: Tuple, backlog: i32) -> io::Result<Bound> {
        let bound = self.connection_place(tuple).bind(SocketType::SEQPACKET)?;
        listen(&bound.socket, backlog)?;
        Ok(bound)
    }

    /// Goes to the other end of a connection, if it waits. Does not wait itself.
    pub(crate) fn go_to(&self, tuple: Tuple) -> io::Result<Private> {
        let socket = new_socket(SocketType::SEQPACKET)?;
        self.connection_place(tuple).connect(&socket)?;
        Private::keep(socket)
    }

    /// Where the process that calls itself `gid` hears of connections that it has.
    pub(crate) fn be_at_home(&self, gid: Gid) -> Vec<Bound> {
        self.home_places(gid).iter().filter_map(|place| place.bind(SocketType::DGRAM).ok()).collect()
    }

    /// Says `word` to the process that calls itself `gid`: whether there is one that may hear it. Does not wait.
    pub fn call(&self, gid: Gid, word: &[u8]) -> bool {
        let Ok(socket) = new_socket(SocketType::DGRAM) else { return false };
        let mut places = self.home_places(gid).into_iter();
        places.any(|place| place.connect(&socket).is_ok() && send(&socket, word, SendFlags::NOSIGNAL).is_ok())
    }

    fn home_places(&self, gid: Gid) -> Vec<Place> {
        let text = home_text(self.uid(), gid);
        let file = self.directory.as_ref().map(|directory| directory.place(&text));
        [Some(Place::Abstract(abstract_name(&text))), file].into_iter().flatten().collect()
    }

    fn listener_places(&self, port: u16) -> Vec<Place> {
        let text = listener_text(self.uid(), port);
        let file = self.directory.as_ref().map(|directory| directory.place(&text));
        [Some(Place::Abstract(abstract_name(&text))), file].into_iter().flatten().collect()
    }

    fn connection_place(&self, tuple: Tuple) -> Place {
        let text = connection_text(self.uid(), tuple);
        match &self.directory {
            Some(directory) if !tuple.is_loopback() => directory.place(&text),
            _ => Place::Abstract(abstract_name(&text)),
        }
    }
}

impl Directory {
    fn place(&self, text: &str) -> Place {
        Place::File(file::path(&self.path, &self.domain, text))
    }
}

/// That a process listens and has SMC, as long as this lives.
#[derive(Debug)]
pub struct Announcement {
    _bound: Vec<Bound>,
}

/// A socket that has a name, until dropped.
#[derive(Debug)]
pub(crate) struct Bound {
    /// In front of the socket: the file goes first.
    _file: Option<File>,
    pub(crate) socket: Private,
}

#[derive(Debug)]
enum Place {
    Abstract(SocketAddrUnix),
    File(PathBuf),
}

impl Place {
    fn bind(&self, kind: SocketType) -> Result<Bound, Errno> {
        let socket = new_socket(kind)?;
        let file = match self {
            Self::Abstract(name) => {
                bind(&socket, name)?;
                None
            }
            Self::File(path) => Some(File::bind(path, &socket)?),
        };
        let socket = Private::keep(socket).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::MFILE))?;
        Ok(Bound { _file: file, socket })
    }

    fn connect(&self, socket: &OwnedFd) -> Result<(), Errno> {
        match self {
            Self::Abstract(name) => connect(socket, name),
            Self::File(path) => connect(socket, &SocketAddrUnix::new(path.as_path() as &Path)?),
        }
    }
}

fn new_socket(kind: SocketType) -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}
