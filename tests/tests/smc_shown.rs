//! What operators see of programs with the library: two of `tests/smc/talker.c` do as they are told, and the tools are
//! asked what they show.

#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use serde_json::Value;
use softrdma_tests::program::{Program, Scratch, smc_library};
use softrdma_tests::skip;
use softrdma_tests::tidy::tree;

/// What is run: built once, gone with the process.
struct Built {
    library: PathBuf,
    talker: PathBuf,
    tools: Program,
    scratch: Scratch,
}

static BUILT: LazyLock<Option<Built>> = LazyLock::new(|| {
    let library = smc_library()?;
    let scratch = Scratch::new("smc-shown");
    let talker = scratch.file("talker");
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let mut command = Command::new(compiler);
    command
        .args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-o"])
        .arg(&talker)
        .arg(tree::root().join("tests/smc/talker.c"));
    let output = command.output().expect("run the C compiler");
    assert!(output.status.success(), "talker.c: {}", String::from_utf8_lossy(&output.stderr));
    Some(Built { library, talker, tools: Program::build_of("softrdma-smc-tools", "softrdma-smc"), scratch })
});

fn built() -> Option<&'static Built> {
    if BUILT.is_none() {
        skip("what the tools show of programs", "this tree has no library (SOFTRDMA_SMC_LIBRARY)");
    }
    BUILT.as_ref()
}

/// A program that does as it is told.
struct Talker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    connections: i64,
}

impl Talker {
    /// With the library, and connections that are moved after four transfers, unless `variables` say something else.
    fn start(variables: &[(&str, &str)]) -> Self {
        Self::start_without(None, variables)
    }

    /// The same; the system call of this number fails.
    fn start_without(call: Option<i64>, variables: &[(&str, &str)]) -> Self {
        let built = BUILT.as_ref().expect("a library");
        let mut command = Command::new(&built.talker);
        if let Some(call) = call {
            // The library is for the program behind, which `env` runs with the filter on.
            let preload = format!("LD_PRELOAD={}", built.library.display());
            command.args(["without", &call.to_string(), "/usr/bin/env"]).arg(preload).arg(&built.talker);
        } else {
            command.env("LD_PRELOAD", &built.library);
        }
        command.env("SOFTRDMA_SMC_UPGRADE_AFTER", "4").envs(variables.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start a talker");
        let (input, output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        Self { child, input, output: BufReader::new(output), connections: 0 }
    }

    fn id(&self) -> u64 {
        self.child.id().into()
    }

    /// Begins something that ends with [`Self::done`].
    fn begin(&mut self, command: &str) {
        writeln!(self.input, "{command}").expect("a talker that listens");
    }

    /// The result of what was begun, and its error.
    fn done(&mut self) -> (i64, i32) {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("an answer");
        let (result, error) = line.trim().split_once(' ').unwrap_or_else(|| panic!("a talker answered {line:?}"));
        (result.parse().expect("a number"), error.parse().expect("a number"))
    }

    fn tell(&mut self, command: &str) -> i64 {
        self.begin(command);
        let (result, error) = self.done();
        assert!(result >= 0, "{command}: error {error}");
        result
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client and the server that it connects to.
struct Pair {
    client: Talker,
    server: Talker,
    port: i64,
}

impl Pair {
    fn start(variables: &[(&str, &str)]) -> Self {
        Self::of(Talker::start(variables), Talker::start(variables))
    }

    fn of(client: Talker, mut server: Talker) -> Self {
        let port = server.tell("listen");
        Self { client, server, port }
    }

    /// Another connection: what both call it.
    fn connect(&mut self, low_water_mark: u32) -> i64 {
        self.client.tell(&format!("connect {} {low_water_mark}", self.port));
        self.server.tell("accept");
        self.client.connections += 1;
        self.client.connections - 1
    }

    fn rounds(&mut self, connection: i64, count: u32) {
        self.server.begin(&format!("follow {connection} {count}"));
        self.client.tell(&format!("lead {connection} {count}"));
        self.server.done();
    }

    /// The first connection, which is moved.
    fn move_first(&mut self) -> i64 {
        let connection = self.connect(0);
        let ids = [self.client.id(), self.server.id()];
        for _ in 0..200 {
            self.rounds(connection, 10);
            if ids.iter().all(|id| is_any_moved(*id)) {
                return connection;
            }
        }
        panic!("the connection was not moved");
    }
}

fn is_any_moved(process: u64) -> bool {
    sockets_of(process).iter().any(|socket| socket["mode"] == "SMCD")
}

/// Objects that a tool shows, one a line.
fn shown(arguments: &[&str]) -> Vec<Value> {
    let tools = &BUILT.as_ref().expect("a library").tools;
    let output = Command::new(tools.path()).args(arguments).output().expect("run a tool");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

fn sockets_of(process: u64) -> Vec<Value> {
    shown(&["smcss", "-a", "--json", "--pid", &process.to_string()])
}

/// Bytes that the sockets of a process have received through memory.
fn bytes_moved(process: u64) -> i64 {
    sockets_of(process).iter().filter_map(|socket| socket["received_bytes"].as_i64()).sum()
}

fn state_of(process: u64) -> String {
    let sockets = sockets_of(process);
    let connection = sockets.iter().find(|socket| socket["state"] != "LISTEN").expect("a connection");
    connection["state"].as_str().expect("a name").to_owned()
}

fn stats_of(process: u64) -> Value {
    shown(&["smcd", "stats", "--json", "--absolute", "--pid", &process.to_string()]).swap_remove(0)
}

fn counter(stats: &Value, name: &str) -> i64 {
    stats["counters"][name].as_i64().unwrap_or_else(|| panic!("no counter {name}"))
}

/// Texts of the reasons for which connections stayed TCP, and how many.
fn reasons(stats: &Value) -> Vec<(String, i64)> {
    let all = stats["fallbacks"].as_array().expect("a list").iter();
    all.map(|one| (one["text"].as_str().expect("a text").to_owned(), one["count"].as_i64().expect("a count"))).collect()
}

/// What comes within a while.
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(10), "not so after 10 s: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn connections_of_children_are_seen_and_counted_when_they_are_gone() {
    if built().is_none() {
        return;
    }
    let mut pair = Pair::start(&[]);
    let parent = pair.server.id();
    let children: Vec<u64> = (0..6)
        .map(|_| {
            let connection = pair.connect(0);
            // The parent closes at once what its child has.
            let child = pair.server.tell(&format!("fork {connection}"));
            let child = u64::try_from(child).expect("a process");
            for _ in 0..200 {
                pair.client.tell(&format!("lead {connection} 20"));
                if bytes_moved(child) > 1000 {
                    break;
                }
            }
            child
        })
        .collect();
    for child in &children {
        let sockets = sockets_of(*child);
        let moved: Vec<_> = sockets.iter().filter(|socket| socket["mode"] == "SMCD").collect();
        assert_eq!(moved.len(), 1, "process {child}: {sockets:#?}");
        assert_eq!(moved[0]["local"], format!("127.0.0.1:{}", pair.port));
        assert!(bytes_moved(*child) > 1000, "{:#?}", moved[0]);
    }
    let own: Vec<_> = sockets_of(parent);
    assert_eq!(own.iter().map(|socket| socket["state"].clone()).collect::<Vec<_>>(), ["LISTEN"], "{own:#?}");
    assert_eq!(counter(&stats_of(parent), "accelerated_as_server"), 0, "the children's own");

    for connection in 0..children.len() {
        pair.client.tell(&format!("close {connection}"));
        pair.server.tell("wait");
    }
    let stats = stats_of(parent);
    assert_eq!(counter(&stats, "connections_seen"), 6);
    assert_eq!(counter(&stats, "accelerated_as_server"), 6, "{stats:#?}");
    assert!(counter(&stats, "received_bytes") > 6000, "{stats:#?}");
    assert_eq!(counter(&stats, "ring_memory"), 0);
}

#[test]
fn states_and_link_groups_are_what_both_ends_have_come_to() {
    if built().is_none() {
        return;
    }
    let mut pair = Pair::start(&[]);
    let (client, server) = (pair.client.id(), pair.server.id());
    let states = || [state_of(client), state_of(server)];
    let connection = pair.move_first();
    assert_eq!(states(), ["ACTIVE", "ACTIVE"]);
    let groups = shown(&["smcd", "linkgroup", "--json", "--pid", &client.to_string(), "--pid", &server.to_string()]);
    assert_eq!(groups.len(), 2, "{groups:#?}");
    assert_eq!(groups[0]["id"], groups[1]["id"]);
    for group in &groups {
        let (own, peer) = if group["role"] == "client" { (client, server) } else { (server, client) };
        assert_eq!((group["process"].as_u64(), group["peer_process"].as_u64()), (Some(own), Some(peer)));
        assert_eq!(group["connections"], 1);
    }

    // Bytes that lie in the ring: sent, and not taken.
    pair.client.tell(&format!("send {connection} 777"));
    let at = |process: u64, direction: &str, cursor: &str| {
        let sockets = sockets_of(process);
        let moved = sockets.iter().find(|socket| socket["mode"] == "SMCD").expect("a connection");
        moved[direction][cursor].as_i64().expect("a position")
    };
    for (process, direction) in [(client, "sending"), (server, "receiving")] {
        let between = at(process, direction, "produced") - at(process, direction, "consumed");
        assert_eq!(between, 777, "{direction}");
    }

    pair.client.tell(&format!("shut {connection}"));
    assert_eq!(pair.server.tell(&format!("end {connection}")), 777);
    assert_eq!(states(), ["PEERCLW1", "APPLCLW1"]);
    pair.server.tell(&format!("shut {connection}"));
    pair.client.tell(&format!("end {connection}"));
    assert_eq!(states(), ["PEERCLW2", "APPLCLW2"]);
    pair.client.tell(&format!("close {connection}"));
    pair.server.begin(&format!("send {connection} 1"));
    assert_eq!(pair.server.done().0, -1);
    assert_eq!(state_of(server), "APPLCLW2");
    assert!(shown(&["smcss", "--json", "--pid", &client.to_string()]).is_empty());
    drop(pair.client);
    pair.server.tell(&format!("close {connection}"));
    eventually("a link group goes with its other process", || {
        shown(&["smcd", "linkgroup", "--json", "--pid", &server.to_string()]).is_empty()
    });
}

#[test]
fn a_peer_that_breaks_off_is_shown_so() {
    if built().is_none() {
        return;
    }
    let mut pair = Pair::start(&[]);
    let connection = pair.move_first();
    // Unread at the close.
    pair.server.tell(&format!("send {connection} 10"));
    pair.client.tell(&format!("close {connection}"));
    pair.server.begin(&format!("end {connection}"));
    assert_eq!(pair.server.done().0, -1);
    assert_eq!(state_of(pair.server.id()), "PROCESSABORT");
}

#[test]
fn every_connection_that_stays_tcp_has_a_reason() {
    if built().is_none() {
        return;
    }
    let mut pair = Pair::start(&[]);
    let (over_early, shut, urgent, option) = (pair.connect(0), pair.connect(0), pair.connect(0), pair.connect(2));
    pair.rounds(over_early, 1);
    pair.client.tell(&format!("shut {shut}"));
    pair.client.tell(&format!("urgent {urgent}"));
    for connection in [over_early, shut, urgent, option] {
        pair.client.tell(&format!("close {connection}"));
        pair.server.tell(&format!("close {connection}"));
    }
    let stats = stats_of(pair.client.id());
    for expected in ["it was over before", "a direction was shut down", "urgent data", "a socket option (SO_RCVLOWAT"] {
        let all = reasons(&stats);
        let count: i64 = all.iter().filter(|(text, _)| text.contains(expected)).map(|(_, count)| count).sum();
        assert_eq!(count, 1, "{expected}: {all:#?}");
    }
    assert_eq!(counter(&stats, "connections_seen"), 4);
    assert_eq!(counter(&stats, "fallbacks_as_client"), 4);
    let stats = stats_of(pair.server.id());
    assert_eq!(reasons(&stats), [("it was over before it was worth moving".to_owned(), 4)]);
}

#[test]
fn a_connection_that_is_tcp_again_is_shown_so_and_counts_as_moved() {
    if built().is_none() {
        return;
    }
    let mut pair = Pair::start(&[]);
    let connection = pair.move_first();
    pair.client.tell(&format!("urgent {connection}"));
    pair.rounds(connection, 10);
    let expected = [
        (pair.client.id(), "own", "the program sends urgent data (MSG_OOB)", "client"),
        (pair.server.id(), "peer", "the program uses it in a way that only the kernel has", "server"),
    ];
    for (process, whose, text, role) in expected {
        let sockets = sockets_of(process);
        let socket = sockets.iter().find(|socket| socket["state"] != "LISTEN").expect("a connection");
        assert_eq!(socket["mode"], "TCP", "{socket:#?}");
        assert_eq!(socket["fallback"][whose]["text"], text, "{socket:#?}");
        let stats = stats_of(process);
        assert_eq!(counter(&stats, &format!("accelerated_as_{role}")), 1);
        assert_eq!(counter(&stats, &format!("fallbacks_as_{role}")), 0, "it was counted already");
    }
}

#[test]
fn what_the_policy_or_a_peer_leaves_to_tcp_is_counted_as_such() {
    let Some(built) = built() else { return };
    let tcp = &[("SOFTRDMA_SMC_ACTION", "tcp")];
    let mut pair = Pair::start(tcp);
    let connection = pair.connect(0);
    pair.rounds(connection, 20);
    for process in [pair.client.id(), pair.server.id()] {
        assert_eq!(reasons(&stats_of(process)), [("the policy leaves it to TCP".to_owned(), 1)]);
    }
    let sockets = sockets_of(pair.client.id());
    assert_eq!(sockets[0]["fallback"]["own"]["text"], "the policy leaves it to TCP");

    // A server that has been told nothing of all this.
    let mut plain = Pair::of(Talker::start(&[("SOFTRDMA_SMC_VERBOSE", "1")]), Talker::start(tcp));
    let connection = plain.connect(0);
    plain.rounds(connection, 20);
    assert_eq!(reasons(&stats_of(plain.client.id())), [("the peer has no SMC".to_owned(), 1)]);
    drop((built, plain));
}

/// System calls that the library needs and a program can do without. A filter that forbids them leaves it to TCP.
#[test]
fn a_program_that_may_not_do_what_the_library_needs_works_over_tcp() {
    if built().is_none() {
        return;
    }
    let calls = [("sendmsg", 46), ("recvmsg", 47), ("fcntl", 72), ("eventfd2", 290), ("epoll_create1", 291)];
    for (name, call) in calls.into_iter().chain([("memfd_create", 319), ("clone3", 435)]) {
        for filtered in ["client", "server"] {
            let call = |end: &str| (end == filtered).then_some(call);
            let client = Talker::start_without(call("client"), &[]);
            let server = Talker::start_without(call("server"), &[]);
            let mut pair = Pair::of(client, server);
            let connection = pair.connect(0);
            pair.rounds(connection, 200);
            assert!(!is_any_moved(pair.client.id()), "{name} in the {filtered}: it was moved");
        }
    }
}

/// tshark on `file`, with nothing of a user's own settings.
fn tshark(file: &Path, filter: &str) -> String {
    let scratch = &BUILT.as_ref().expect("a library").scratch;
    let mut command = Command::new("tshark");
    command.env("HOME", scratch.file("home")).env("XDG_CONFIG_HOME", scratch.file("home")).arg("-r").arg(file);
    command.args(["-o", "tcp.try_heuristic_first:TRUE", "-o", "tcp.check_checksum:TRUE", "-Y", filter]);
    let output = command.output().expect("run tshark");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn what_goes_through_memory_can_be_captured() {
    let Some(built) = built() else { return };
    let name = built.scratch.file("smc-%p.pcap");
    let mut pair = Pair::start(&[("SOFTRDMA_SMC_CAPTURE", name.to_str().expect("a name"))]);
    let connection = pair.move_first();
    pair.client.tell(&format!("send {connection} 200000"));
    pair.client.tell(&format!("shut {connection}"));
    assert_eq!(pair.server.tell(&format!("end {connection}")), 200_000);
    pair.server.tell(&format!("close {connection}"));
    pair.client.tell(&format!("end {connection}"));
    pair.client.tell(&format!("close {connection}"));
    let [client, server] = [pair.client.id(), pair.server.id()];
    let files = [client, server].map(|id| PathBuf::from(name.to_str().expect("a name").replace("%p", &id.to_string())));
    drop(pair);
    for file in &files {
        assert!(fs::metadata(file).expect("a capture").len() > 200_000);
    }
    if Command::new("tshark").arg("--version").output().is_err() {
        return skip("dissection of captured traffic", "no tshark (apt-get install tshark)");
    }
    for file in &files {
        let messages = tshark(file, "smc");
        let kinds = ["Proposal", "Accept", "Confirm"];
        let found: Vec<_> = kinds.iter().filter(|kind| messages.contains(&format!("SMC-D-{kind}"))).collect();
        assert_eq!((found.len(), messages.lines().count()), (3, 3), "{messages}");
        // More is under way at a time than a window of TCP's without options; anything else is wrong.
        let bad = "_ws.malformed || tcp.checksum.status == 0 || tcp.analysis.flags && !tcp.analysis.window_full";
        let bad = tshark(file, bad);
        assert_eq!(bad, "", "{}", file.display());
        let ends = tshark(file, "tcp.flags.fin == 1");
        assert_eq!(ends.lines().count(), 2, "{ends}");
    }
}

#[test]
fn a_process_is_told_apart_by_what_serves_it() {
    let Some(built) = built() else { return };
    let talker = Talker::start(&[]);
    let findings = |id: u64| shown(&["smc_chk", &id.to_string(), "--json"]);
    eventually("the library is seen", || findings(talker.id()).iter().all(|finding| finding["is_well"] == true));
    assert_eq!(findings(talker.id()).len(), 3);
    let alone = findings(std::process::id().into());
    assert_eq!((alone.len(), alone[0]["name"].as_str()), (1, Some("library")));
    assert_eq!(alone[0]["is_well"], false);
    drop((talker, built));
}
