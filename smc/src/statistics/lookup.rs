//! What a process has not said about its sockets, since finding out would have cost it: taken from its /proc by the
//! reader.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::fs::readlinkat;

use super::processes::read_text;
use super::{Socket, State};

/// Fills in inodes and addresses as far as they are missing and can be known.
pub(super) fn complete(process: &OwnedFd, descriptors: &OwnedFd, sockets: &mut [Socket]) {
    for socket in sockets.iter_mut().filter(|socket| socket.inode == 0) {
        let link = readlinkat(descriptors, socket.descriptor.to_string(), Vec::with_capacity(64));
        socket.inode = link.ok().and_then(|link| inode(link.to_str().ok()?)).unwrap_or(0);
    }
    let needs_addresses = |socket: &Socket| {
        let needs_peer = socket.state != State::Listen;
        socket.inode != 0 && (socket.local.is_none() || needs_peer && socket.peer.is_none())
    };
    if !sockets.iter().any(needs_addresses) {
        return;
    }
    // Of the process's own network namespace.
    let tables: Vec<_> = ["net/tcp", "net/tcp6"].iter().filter_map(|name| read_text(process, name).ok()).collect();
    let known: HashMap<_, _> = tables.iter().flat_map(|table| table.lines().filter_map(connection)).collect();
    for socket in sockets.iter_mut().filter(|socket| needs_addresses(socket)) {
        if let Some((local, peer)) = known.get(&socket.inode) {
            socket.local.get_or_insert(*local);
            if peer.port() != 0 {
                socket.peer.get_or_insert(*peer);
            }
        }
    }
}

/// The number in `socket:[12345]`.
fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// A line of /proc/net/tcp or tcp6: inode, local and remote address. proc(5): the second and third fields are the
/// addresses, the tenth is the inode.
fn connection(line: &str) -> Option<(u64, (SocketAddr, SocketAddr))> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, peer) = (address(fields.next()?)?, address(fields.next()?)?);
    Some((fields.nth(6)?.parse().ok()?, (local, peer)))
}

/// `0100007F:1F90`: words of the address as they stand in memory, and the port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (index, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(index)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_understood() {
        let line =
            "   0: 0100007F:1F90 0200007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000";
        let expected = (4711, ("127.0.0.1:8080".parse().unwrap(), "127.0.0.2:50000".parse().unwrap()));
        assert_eq!(connection(line), Some(expected));
        let line = "   1: 00000000000000000000000001000000:0050 0000000000000000FFFF00000100007F:0051 01 \
                    00000000:00000000 00:00000000 00000000     0        0 12 1";
        let expected = (12, ("[::1]:80".parse().unwrap(), "127.0.0.1:81".parse().unwrap()));
        assert_eq!(connection(line), Some(expected));
        for line in
            ["", "  sl  local_address rem_address   st", "0: 0100007F:1F90", "0: é00007F:1 0100007F:1 1 1 1 1 1 1 9"]
        {
            assert_eq!(connection(line), None, "{line}");
        }
        assert_eq!((inode("socket:[77]"), inode("pipe:[77]"), inode("socket:[]")), (Some(77), None, None));
    }
}
