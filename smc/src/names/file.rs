//! Sockets with a path, in a directory that several containers have.

#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, fchmod, lstat, unlink};
use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, SocketType, bind, connect};
use rustix::process::{Pid, getpid};

use super::new_socket;

/// Bytes that fit into a socket's address, without the zero behind them.
const MAX_PATH: usize = 107;
const PREFIX: &str = "smc-";
const HASH_DIGITS: usize = 32;

/// The file of `text` in `directory`: hashed, as names are longer than what a socket's address holds.
pub(super) fn path(directory: &Path, domain: &str, text: &str) -> PathBuf {
    // The domain's length in front: no two pairs of domain and text are the same bytes.
    let bytes = [&(domain.len() as u64).to_be_bytes()[..], domain.as_bytes(), text.as_bytes()].concat();
    directory.join(format!("{PREFIX}{:0HASH_DIGITS$x}", hash(&bytes)))
}

/// FNV-1a of 128 bits. It need not withstand an attacker: whom it leads to is asked for the user.
fn hash(bytes: &[u8]) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(BASIS, |hash, &byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

/// The file of a bound socket. It is removed by the process that has made it.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    /// Device and number: another process may have replaced the file.
    inode: (u64, u64),
    maker: Pid,
}

impl File {
    /// Bytes that the path of a directory may have.
    pub(super) const MAX_DIRECTORY: usize = MAX_PATH - 1 - PREFIX.len() - HASH_DIGITS;

    /// Binds `socket` to `path`. A file that a process has left behind which is gone is replaced.
    pub(super) fn bind(path: &Path, socket: &OwnedFd) -> Result<Self, Errno> {
        // The file gets the socket's mode: nobody but this user may connect.
        fchmod(socket, Mode::RUSR | Mode::WUSR)?;
        let address = SocketAddrUnix::new(path)?;
        let mut result = bind(socket, &address);
        if result == Err(Errno::ADDRINUSE) && is_left_behind(&address) {
            // Somebody else may have removed it meanwhile.
            let _ = unlink(path);
            result = bind(socket, &address);
        }
        result?;
        let inode = inode(path)?;
        Ok(Self { path: path.to_owned(), inode, maker: getpid() })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // In a child of fork it is the parent's still.
        if getpid() == self.maker && inode(&self.path) == Ok(self.inode) {
            let _ = unlink(&self.path);
        }
    }
}

/// Whether no socket is behind the name. One of another type than is asked for answers with another error, and does not
/// notice that it was asked.
fn is_left_behind(address: &SocketAddrUnix) -> bool {
    new_socket(SocketType::DGRAM).and_then(|socket| connect(socket, address)) == Err(Errno::CONNREFUSED)
}

fn inode(path: &Path) -> Result<(u64, u64), Errno> {
    lstat(path).map(|file| (file.st_dev, file.st_ino))
}
