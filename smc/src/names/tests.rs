use super::*;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Mode, mkdir, stat};
use rustix::net::{SendFlags, accept_with, send};

/// A port and addresses that no other test of this machine uses at the same time.
fn unique_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(7919);
    (1024 + (std::process::id().wrapping_mul(31).wrapping_add(next)) % 60_000) as u16
}

/// A user that is nobody's, so that names are not those of programs that run here.
fn rendezvous() -> Rendezvous {
    Rendezvous::new().for_user(4_000_000_000 + std::process::id())
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("smc-names-{}-{name}", std::process::id()));
        mkdir(&path, Mode::RWXU).unwrap();
        Self(path)
    }

    fn files(&self) -> Vec<PathBuf> {
        std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tuple(local: &str, peer: &str) -> Tuple {
    Tuple { local: local.parse().unwrap(), peer: peer.parse().unwrap() }
}

fn text(name: &SocketAddrUnix) -> String {
    String::from_utf8(name.abstract_name().unwrap().to_vec()).unwrap()
}

#[test]
fn both_ends_come_to_one_name() {
    let ends = [
        tuple("127.0.0.1:40000", "127.0.0.1:80"),
        tuple("10.0.0.2:80", "10.0.0.1:40000"),
        tuple("[::1]:1", "[2001:db8::1]:1"),
        tuple("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
    ];
    for end in ends {
        let name = text(&connection(u32::MAX, end));
        assert_eq!(name, text(&connection(u32::MAX, end.reversed())), "{end}");
        assert!(name.len() <= 107, "{name}");
    }
    let unlike: std::collections::HashSet<_> = ends.iter().map(|end| text(&connection(0, *end))).collect();
    assert_eq!(unlike.len(), ends.len());
}

#[test]
fn an_ipv4_address_is_the_same_in_a_socket_of_ipv6() {
    let plain = tuple("127.0.0.1:40000", "127.0.0.2:80");
    let mapped = tuple("[::ffff:127.0.0.2]:80", "[::ffff:127.0.0.1]:40000");
    assert_eq!(text(&connection(7, plain)), text(&connection(7, mapped)));
    assert_eq!(text(&connection(7, plain)), "softrdma-smc/7/127.0.0.1/40000-127.0.0.2/80");
    assert!(mapped.is_loopback());
}

#[test]
fn another_user_or_another_port_is_another_name() {
    let end = tuple("127.0.0.1:40000", "127.0.0.1:80");
    assert_ne!(text(&connection(1, end)), text(&connection(2, end)));
    assert_ne!(text(&connection(1, end)), text(&connection(1, tuple("127.0.0.1:40000", "127.0.0.1:81"))));
    assert_ne!(text(&connection(1, end)), text(&connection(1, tuple("127.0.0.1:80", "127.0.0.1:40001"))));
    assert_ne!(text(&listener(1, 80)), text(&listener(1, 8080)));
    assert_ne!(text(&listener(1, 80)), text(&listener(18, 0)));
}

#[test]
fn a_listener_is_announced_until_nobody_says_so() {
    let (rendezvous, port) = (rendezvous(), unique_port());
    assert!(!rendezvous.is_announced(port));
    let announcement = rendezvous.announce(port).unwrap().expect("nobody else's");
    assert!(rendezvous.is_announced(port));
    assert!(rendezvous.announce(port).unwrap().is_none(), "announced already");
    assert!(!rendezvous.clone().for_user(1).is_announced(port), "for another user");
    drop(announcement);
    assert!(!rendezvous.is_announced(port));
}

#[test]
fn what_is_sent_to_a_listeners_name_is_refused() {
    let (rendezvous, port) = (rendezvous(), unique_port());
    let _announcement = rendezvous.announce(port).unwrap().unwrap();
    let socket = new_socket(SocketType::DGRAM).unwrap();
    connect(&socket, &listener(rendezvous.uid(), port)).unwrap();
    assert_eq!(send(&socket, b"junk", SendFlags::NOSIGNAL), Err(Errno::PIPE));
}

#[test]
fn two_ends_meet_at_a_connections_name_and_nowhere_else() {
    let rendezvous = rendezvous();
    let end = tuple(&format!("127.0.0.1:{}", unique_port()), "127.0.0.1:80");
    assert!(rendezvous.go_to(end.reversed()).is_err(), "nobody waits yet");
    let bound = rendezvous.wait_at(end, 4).unwrap();
    assert!(rendezvous.wait_at(end, 4).is_err(), "the name is taken");
    let other = tuple("127.0.0.1:1", "127.0.0.1:2");
    assert!(rendezvous.go_to(other).is_err());
    let there = rendezvous.go_to(end.reversed()).unwrap();
    let here = accept_with(&bound.socket, SocketFlags::CLOEXEC).unwrap();
    send(&there, b"x", SendFlags::NOSIGNAL).unwrap();
    assert_eq!(rustix::net::recv(&here, &mut [0; 4][..], rustix::net::RecvFlags::empty()).unwrap().1, 1);
    drop(bound);
    assert!(rendezvous.go_to(end.reversed()).is_err());
}

#[test]
fn containers_meet_in_a_directory_and_leave_it_empty() {
    let scratch = Scratch::new("meet");
    let ours = Rendezvous::with_directory(&scratch.0, "one").unwrap().for_user(4_000_000_000 + std::process::id());
    let foreign = Rendezvous::with_directory(&scratch.0, "two").unwrap().for_user(ours.uid());
    let end = tuple("10.1.2.3:40000", "10.1.2.4:80");
    let bound = ours.wait_at(end, 4).unwrap();
    assert!(foreign.go_to(end.reversed()).is_err(), "another domain");
    assert!(Rendezvous::new().for_user(ours.uid()).go_to(end.reversed()).is_err(), "not an abstract name");
    assert!(ours.go_to(end.reversed()).is_ok());
    let files = scratch.files();
    assert_eq!(files.len(), 1);
    assert_eq!(stat(&files[0]).unwrap().st_mode & 0o077, 0, "other users are kept out");

    let port = unique_port();
    let announcement = ours.announce(port).unwrap();
    assert!(ours.is_announced(port));
    assert_eq!(scratch.files().len(), 2);
    drop((bound, announcement));
    assert!(scratch.files().is_empty());
}

#[test]
fn loopback_connections_of_two_containers_are_not_confused() {
    let scratch = Scratch::new("loopback");
    let rendezvous = Rendezvous::with_directory(&scratch.0, "").unwrap().for_user(4_000_000_000 + std::process::id());
    let bound = rendezvous.wait_at(tuple("127.0.0.1:40001", "127.0.0.1:81"), 4).unwrap();
    assert!(scratch.files().is_empty(), "nobody in another network namespace sees it");
    drop(bound);
}

#[test]
fn a_file_that_a_dead_process_left_is_replaced_and_a_living_ones_is_not() {
    let scratch = Scratch::new("left");
    let rendezvous = Rendezvous::with_directory(&scratch.0, "").unwrap();
    let end = tuple("10.1.2.3:40000", "10.1.2.4:80");
    let Bound { _file: file, socket } = rendezvous.wait_at(end, 4).unwrap();
    assert!(rendezvous.wait_at(end, 4).is_err(), "somebody waits there");
    std::mem::forget(file);
    drop(socket);
    assert_eq!(scratch.files().len(), 1, "left behind");
    let bound = rendezvous.wait_at(end, 4).unwrap();
    assert!(rendezvous.go_to(end.reversed()).is_ok());
    assert!(bound.socket.as_fd().try_clone_to_owned().is_ok());
}

#[test]
fn a_file_that_is_somebody_elses_by_now_stays() {
    let scratch = Scratch::new("elses");
    let rendezvous = Rendezvous::with_directory(&scratch.0, "").unwrap();
    let end = tuple("10.1.2.3:40000", "10.1.2.4:80");
    let first = rendezvous.wait_at(end, 4).unwrap();
    std::fs::remove_file(&scratch.files()[0]).unwrap();
    let _second = rendezvous.wait_at(end, 4).unwrap();
    drop(first);
    assert!(rendezvous.go_to(end.reversed()).is_ok(), "the second one's file is there");
}

#[test]
fn a_directory_whose_sockets_have_no_room_in_an_address_is_refused() {
    let fits = format!("/{}", "d".repeat(File::MAX_DIRECTORY - 1));
    assert!(Rendezvous::with_directory(&fits, "").is_ok());
    assert_eq!(file::path(Path::new(&fits), "", "any").as_os_str().len(), 107);
    let long = format!("{fits}x");
    let message = Rendezvous::with_directory(&long, "").unwrap_err().to_string();
    assert!(message.contains("at most 70 bytes"), "{message}");
    assert!(matches!(Rendezvous::with_directory("tmp", ""), Err(DirectoryError::Relative { .. })));
}

#[test]
fn domain_and_name_are_not_run_together() {
    let directory = Path::new("/d");
    assert_ne!(file::path(directory, "a", "b"), file::path(directory, "", "ab"));
    assert_eq!(file::path(directory, "", ""), file::path(directory, "", ""));
}
