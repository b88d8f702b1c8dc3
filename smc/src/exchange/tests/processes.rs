//! Real processes, which die at a certain point or fork. The other process is this program once more, told by its environment
//! to be nothing but the test [`the_other_process`], and that what it is to do.

use super::*;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, daemon};

use crate::descriptors::next_private;

const ROLE: &str = "SOFTRDMA_TEST_EXCHANGE_ROLE";
const MARK: &str = "other process: ";

/// Another process, until dropped.
struct Other {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Other {
    /// `role` is for [`the_other_process`]: what to do, with which connection, and when to die.
    fn start(role: &str, tuple: Tuple, dies_at: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "exchange::tests::processes::the_other_process", "--nocapture", "--test-threads=1"])
            .env(ROLE, format!("{role} {} {} {dies_at}", tuple.local, tuple.peer))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// The next thing that the process says; empty when it is gone.
    fn says(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            if self.output.read_line(&mut line).unwrap() == 0 {
                return String::new();
            }
            if let Some((_, said)) = line.split_once(MARK) {
                return said.trim().to_owned();
            }
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It, and what has come of it by fork, ends with its input.
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(what: &str) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{MARK}{what}").unwrap();
    output.flush().unwrap();
}

fn die() -> ! {
    let _ = kill(Pid::this(), Signal::SIGKILL);
    unreachable!("killed")
}

/// A host that dies at a certain point.
struct Mortal {
    recorder: Recorder,
    dies_at: String,
}

impl Mortal {
    fn reach(&self, point: &str) {
        if self.dies_at == point {
            die();
        }
    }
}

impl Host for Mortal {
    fn prepare(&self, key: u64, connection: Connection, peer: Gid) -> bool {
        self.reach("prepare");
        self.recorder.prepare(key, connection, peer)
    }

    fn establish(&self, key: u64) {
        self.reach("establish");
        self.recorder.establish(key);
    }

    fn decline(&self, key: u64, reason: DeclineReason, by_peer: bool) {
        self.recorder.decline(key, reason, by_peer);
    }

    fn observe(&self, tuple: Tuple, direction: Direction, message: &[u8]) {
        self.reach(&format!("{direction:?}{}", message[4]));
        self.recorder.observe(tuple, direction, message);
    }
}

/// Does nothing unless started by [`Other::start`].
#[test]
fn the_other_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<_> = role.split(' ').collect();
    let [role, local, peer, dies_at] = words[..] else { panic!("{words:?}") };
    let tuple = Tuple { local: local.parse().unwrap(), peer: peer.parse().unwrap() };
    let host = Arc::new(Mortal { recorder: Recorder::default(), dies_at: dies_at.to_owned() });
    let offer_limit = if role == "robbed" { Duration::from_millis(300) } else { PATIENCE };
    let service = Service::start(Settings { offer_limit, ..settings() }, host.clone());
    match role {
        "connector" => {
            service.offer(1, tuple).unwrap();
            say("offered");
        }
        "acceptor" => {
            assert!(service.seek(1, tuple));
        }
        "robbed" => {
            be_robbed(&service);
            service.offer(1, tuple).unwrap();
            say("offered");
        }
        "forker" => {
            fork(&service, &host.recorder, tuple);
            die();
        }
        other => panic!("{other}"),
    }
    host.recorder.wait_established(1);
    host.recorder.with_connection(1, |connection| connection.switch_sending(41));
    say("established");
    let _ = std::io::stdin().read(&mut [0]);
    die();
}

#[test]
fn two_processes_agree_and_have_the_same_memory() {
    for role in ["connector", "acceptor"] {
        let (end, tuple) = (End::new(), new_tuple());
        let mut other = if role == "connector" {
            let mut other = Other::start(role, tuple, "never");
            assert_eq!(other.says(), "offered");
            assert!(end.service.seek(1, tuple.reversed()));
            other
        } else {
            end.service.offer(1, tuple).unwrap();
            Other::start(role, tuple.reversed(), "never")
        };
        end.host.wait_established(1);
        assert_eq!(other.says(), "established");
        assert_eq!(end.host.with_connection(1, Connection::peer_switch), Some(41), "{role}");
        let arena = end.host.with_connection(1, |connection| Arc::downgrade(connection.arena()));
        drop(other);
        drop(end.host.take_connection(1));
        eventually(|| arena.upgrade().is_none());
    }
}

/// What the survivor has heard.
#[derive(Debug, PartialEq, Eq)]
enum Survived {
    WithTcp,
    Established,
}

/// The other process dies when it has got to a point. This one agrees with others as before.
fn survive(role: &str, dies_at: &str) -> Survived {
    let (end, tuple) = (End::new(), new_tuple());
    let mut other = if role == "connector" {
        let mut other = Other::start(role, tuple, dies_at);
        assert_eq!(other.says(), "offered");
        assert!(end.service.seek(1, tuple.reversed()));
        other
    } else {
        end.service.offer(1, tuple).unwrap();
        Other::start(role, tuple.reversed(), dies_at)
    };
    assert_eq!(other.says(), "", "it dies");
    let heard = end.host.wait(|heard| matches!(heard, Heard::Establish(1) | Heard::Decline(1, ..)));
    let survived = if heard.contains(&Heard::Establish(1)) {
        let arena = end.host.with_connection(1, |connection| Arc::downgrade(connection.arena()));
        drop(end.host.take_connection(1));
        eventually(|| arena.upgrade().is_none());
        Survived::Established
    } else {
        assert_eq!(end.host.wait_declined(1), (DeclineReason::PEER_DECLINED, true));
        Survived::WithTcp
    };
    end.agree_with(&End::new(), 2);
    End::new().agree_with(&end, 3);
    survived
}

#[test]
fn an_acceptor_that_dies_before_it_accepts_leaves_the_connection_to_tcp() {
    for point in ["Received1", "prepare"] {
        assert_eq!(survive("acceptor", point), Survived::WithTcp, "{point}");
    }
}

#[test]
fn an_acceptor_that_dies_later_leaves_a_connection_that_has_no_other_end() {
    assert_eq!(survive("acceptor", "establish"), Survived::Established);
    // The accept is out: whether the confirm still gets there is a matter of luck, and makes no difference to anybody.
    survive("acceptor", "Sent2");
}

#[test]
fn a_connector_that_dies_before_it_confirms_leaves_the_connection_to_tcp() {
    for point in ["Sent1", "Received2", "prepare"] {
        assert_eq!(survive("connector", point), Survived::WithTcp, "{point}");
    }
}

#[test]
fn a_connector_that_dies_after_it_has_confirmed_leaves_a_connection_that_has_no_other_end() {
    for point in ["Sent3", "establish"] {
        assert_eq!(survive("connector", point), Survived::Established, "{point}");
    }
}

/// Closes the descriptors of the service as a program does that thinks they are its own, while an offer is under way.
fn be_robbed(service: &Service) {
    service.offer(9, new_tuple()).unwrap();
    let first_gid = service.gid();
    eventually(|| {
        let mut next = 0;
        while let Some(descriptor) = next_private(next) {
            let _ = nix::unistd::close(descriptor);
            next = descriptor + 1;
        }
        // Once the offer's time is over the thread looks.
        service.gid().is_none()
    });
    assert!(first_gid.is_some());
}

#[test]
fn a_program_that_closes_everything_gets_a_service_that_begins_anew() {
    let (end, tuple) = (End::new(), new_tuple());
    let mut other = Other::start("robbed", tuple, "never");
    assert_eq!(other.says(), "offered");
    assert!(end.service.seek(1, tuple.reversed()));
    end.host.wait_established(1);
    assert_eq!(other.says(), "established");
}

/// Agrees on `tuple`, offers another connection, and forks.
fn fork(service: &Service, host: &Recorder, tuple: Tuple) {
    service.offer(1, tuple).unwrap();
    say("offered");
    host.wait_established(1);
    let pending = new_tuple();
    service.offer(2, pending).unwrap();
    let announced = service.announce(3).unwrap();
    let (parent, parent_gid) = (std::process::id(), service.gid());

    let fork = service.before_fork();
    // The one way to fork that cannot be misused: the parent ends at once.
    daemon(true, true).unwrap();
    assert_ne!(std::process::id(), parent);
    fork.after_fork_in_child();

    drop(announced);
    assert_eq!(next_private(0), None, "nothing of the parent's is left in the set");
    let open = open_descriptors();
    assert!(open.iter().all(|link| !link.contains("socket:") && !link.contains("event")), "{open:?}");
    assert_eq!(service.gid(), None);
    host.with_connection(1, |connection| connection.switch_sending(42));
    say("forked");

    // The service begins anew; what was under way in the parent is free again now that the parent is gone.
    eventually(|| service.offer(3, tuple).is_ok());
    eventually(|| service.offer(4, pending).is_ok());
    assert!(service.gid().is_some() && service.gid() != parent_gid);
    say("offered");
    host.wait_established(3);
    assert_eq!(host.heard_of(2), [], "what was under way is under way no more");
    say("established");
    let _ = std::io::stdin().read(&mut [0]);
}

fn open_descriptors() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    links.map(|link| link.to_string_lossy().into_owned()).collect()
}

#[test]
fn a_child_of_fork_has_nothing_of_its_parents_exchanges_and_begins_anew() {
    let (end, tuple) = (End::new(), new_tuple());
    let mut other = Other::start("forker", tuple, "never");
    assert_eq!(other.says(), "offered");
    assert!(end.service.seek(1, tuple.reversed()));
    end.host.wait_established(1);
    assert_eq!(other.says(), "forked");
    let connection = end.host.take_connection(1);
    assert_eq!(connection.peer_switch(), Some(42), "the child has the connection still");
    let arena = Arc::downgrade(connection.arena());
    drop(connection);
    eventually(|| arena.upgrade().is_none());
    assert_eq!(other.says(), "offered");
    assert!(end.service.seek(2, tuple.reversed()));
    end.host.wait_established(2);
    assert_eq!(other.says(), "established");
}
