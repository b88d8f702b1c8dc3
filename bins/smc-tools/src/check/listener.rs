//! Whether connections to a service would go through shared memory.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;
use std::{env, fs};

use softrdma_smc::names::Rendezvous;
use softrdma_smc::policy::{Action, Policy, Query};
use softrdma_smc::statistics::Role;

use super::Finding;

/// How long a service may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// What names begin with, in /proc/net/unix; a user's number follows.
const NAME_BEGINS: &str = "@softrdma-smc/";

/// What is found out; a text for what is wrong with the command line.
pub(super) fn look(host: &str, port: Option<u16>, is_ipv6: bool) -> Result<Vec<Finding>, String> {
    let address = resolve(host, port, is_ipv6)?;
    let reached = reached(address);
    let mut findings = vec![same_host(address), policy(address)];
    // Without a listener there is nobody who could have said that he has it.
    if reached.is_well {
        findings.push(announced(address.port()));
    }
    findings.insert(0, reached);
    Ok(findings)
}

fn resolve(host: &str, port: Option<u16>, is_ipv6: bool) -> Result<SocketAddr, String> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let (name, port) = match (port, bare.parse::<IpAddr>(), host.rsplit_once(':')) {
        (Some(port), ..) => (bare, port),
        (None, Err(_), Some((name, port))) => {
            let port = port.parse().map_err(|_| format!("'{port}' is no port"))?;
            (name.trim_start_matches('[').trim_end_matches(']'), port)
        }
        _ => return Err(format!("which port of {host}? write {host}:PORT, or -p PORT")),
    };
    let all = (name, port).to_socket_addrs().map_err(|error| format!("cannot find {name}: {error}"))?;
    let mut all = all.filter(|address| !is_ipv6 || address.is_ipv6());
    all.next().ok_or_else(|| format!("{name} has no address{}", if is_ipv6 { " of IPv6" } else { "" }))
}

fn reached(address: SocketAddr) -> Finding {
    let name = "service";
    match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
        Ok(_) => Finding::well(name, format!("{address} accepts TCP connections")),
        Err(error) => Finding::missing(name, format!("{address}: {error}"), "start it with smc_run, or name another"),
    }
}

/// An address is one of this host if a socket can be bound to it.
fn same_host(address: SocketAddr) -> Finding {
    let name = "same host";
    match UdpSocket::bind(SocketAddr::new(address.ip(), 0)) {
        Ok(_) => Finding::well(name, format!("{} is an address of this network namespace", address.ip())),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Finding::missing(
            name,
            format!("{} is not an address of this network namespace", address.ip()),
            "memory is shared within a host: connections elsewhere are TCP",
        ),
        Err(error) => Finding::missing(name, error.to_string(), "cannot tell: taken for another host's"),
    }
}

fn policy(address: SocketAddr) -> Finding {
    let name = "policy";
    match Policy::of_process(|name| env::var(name).ok()) {
        // For a program that no rule names.
        Ok(policy) => match policy.decide(&Query { program: "", role: Role::Client, address }) {
            Action::Tcp => Finding::missing(name, format!("{address}: tcp"), "add a rule with action = \"smc-d\""),
            action => Finding::well(name, format!("{address}: {action}")),
        },
        Err(error) => Finding::missing(name, error.to_string(), "mend it: the sample in configs/ has all settings"),
    }
}

fn announced(port: u16) -> Finding {
    let name = "SMC";
    let user = rustix::process::geteuid().as_raw();
    if rendezvous().is_announced(port) {
        return Finding::well(name, format!("a process of user {user} listens at port {port} with SMC"));
    }
    let others = users_with_names().into_iter().filter(|other| *other != user);
    match others.into_iter().find(|other| Rendezvous::new().for_user(*other).is_announced(port)) {
        Some(other) => Finding::missing(
            name,
            format!("user {other} listens at port {port} with SMC, you are user {user}"),
            "memory is shared between processes of one user: run both ends as the same",
        ),
        None => Finding::missing(
            name,
            format!("nobody says that he listens at port {port} with SMC"),
            "start the service with smc_run: it was started without, or its policy leaves it to TCP",
        ),
    }
}

/// Where processes with the same policy as this one would meet.
fn rendezvous() -> Rendezvous {
    let policy = Policy::of_process(|name| env::var(name).ok()).unwrap_or_default();
    match (policy.rendezvous_directory, policy.isolation_domain) {
        (Some(directory), Some(domain)) => Rendezvous::with_directory(directory, domain).unwrap_or_default(),
        _ => Rendezvous::new(),
    }
}

/// The users whose processes have names in this network namespace.
fn users_with_names() -> Vec<u32> {
    let text = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let names = text.lines().filter_map(|line| line.split_whitespace().last()?.strip_prefix(NAME_BEGINS));
    let mut users: Vec<u32> = names.filter_map(|name| name.split('/').next()?.parse().ok()).collect();
    users.sort_unstable();
    users.dedup();
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_in_the_ways_that_people_write() {
        for (host, port, is_ipv6, expected) in [
            ("127.0.0.1:80", None, false, "127.0.0.1:80"),
            ("127.0.0.1", Some(80), false, "127.0.0.1:80"),
            ("::1", Some(80), true, "[::1]:80"),
            ("[::1]:80", None, false, "[::1]:80"),
            ("[::1]", Some(80), false, "[::1]:80"),
        ] {
            assert_eq!(resolve(host, port, is_ipv6).map(|address| address.to_string()), Ok(expected.to_owned()));
        }
        for (host, port, is_ipv6) in [
            ("127.0.0.1", None, false),
            ("::1", None, false),
            ("127.0.0.1:x", None, false),
            ("127.0.0.1", Some(1), true),
        ] {
            assert!(resolve(host, port, is_ipv6).is_err(), "{host}");
        }
    }

    #[test]
    fn addresses_of_this_host_are_told_from_others() {
        assert!(same_host("127.0.0.1:1".parse().unwrap()).is_well);
        // RFC 5737 §3: nobody has it.
        assert!(!same_host("192.0.2.1:1".parse().unwrap()).is_well);
    }
}
