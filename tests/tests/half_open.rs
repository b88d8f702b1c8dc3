//! Ten thousand peers that connect and say nothing: they cost bounded memory, a good client is served among them, and they are
//! gone when the time of a handshake is over.

#![forbid(unsafe_code)]
// `make test` runs this package with DPDK as well, which plays no part here.
#![cfg(not(feature = "dpdk"))]

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use softrdma_tests::program::{Outcome, Program, Running, Scratch, take_turn};
use softrdma_tests::skip;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const SILENT: usize = 10_000;
/// Descriptors that a process needs besides one for each of them.
const OTHERS: u64 = 200;
/// What each may cost the server, in bytes of memory of its own.
const MOST_EACH: usize = 4096;
/// How long the server waits for each to speak up. All must be there at once: the second is for a machine that is too busy for
/// the first.
const HANDSHAKES: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(60)];
/// Connections that wait to be accepted at a time, far below what the kernel keeps for a listener.
const BATCH: usize = 500;
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that takes as many in as there are, and the address where it listens.
fn start(program: &Program, scratch: &Scratch, handshake: Duration) -> (Running, SocketAddr) {
    let config = scratch.file("server.toml");
    let text = format!(
        "scheme = \"kernel-socket\"\n[limits]\nmax_connections = 16384\nmax_half_open = 12000\nbacklog = 12000\n\
         [timing]\nhandshake_timeout_ms = {}\n",
        handshake.as_millis()
    );
    std::fs::write(&config, text).expect("write the configuration");
    // Free when it was given back, and on loopback of a test that takes turns.
    let probe = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = probe.expect("a free port");
    let config = config.to_str().expect("a path in UTF-8");
    let server =
        program.start(["ping", "--server", "--persistent", "--config", config, "--listen", &address.to_string()]);
    (server, address)
}

fn good_client(program: &Program, address: SocketAddr) -> Outcome {
    let outcome = program.run(PATIENCE, ["ping", &address.to_string(), "--count", "3"]);
    assert!(outcome.status.is_some_and(|status| status.success()), "{outcome}");
    outcome
}

/// Bytes of memory that process `id` holds.
fn memory_of(id: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("the server runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line for resident memory");
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kilobytes * 1024
}

fn descriptors_of(id: u32) -> usize {
    std::fs::read_dir(format!("/proc/{id}/fd")).expect("the server runs").count()
}

fn await_listener(address: SocketAddr, server: &mut Running) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        assert!(server.is_running() && Instant::now() < deadline, "no server at {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the number of open descriptors of process `id` is as `wanted`; whether it came to that.
fn await_descriptors(id: u32, wanted: impl Fn(usize) -> bool, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while !wanted(descriptors_of(id)) {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Whether all of them were there at once.
fn hold_ten_thousand(program: &Program, handshake: Duration) -> bool {
    let scratch = Scratch::new("half-open");
    let (mut server, address) = start(program, &scratch, handshake);
    await_listener(address, &mut server);
    good_client(program, address);
    let (memory, descriptors) = (memory_of(server.id()), descriptors_of(server.id()));

    let begun = Instant::now();
    let mut silent = Vec::new();
    while silent.len() < SILENT {
        let batch = (0..BATCH).map(|_| TcpStream::connect(address).expect("the server listens"));
        silent.extend(batch);
        let are_there = |count| count >= descriptors + silent.len();
        if !await_descriptors(server.id(), are_there, handshake) || begun.elapsed() >= handshake {
            return false;
        }
    }
    let cost = memory_of(server.id()).saturating_sub(memory);
    println!("{} bytes for each silent connection", cost / SILENT);
    assert!(cost <= SILENT * MOST_EACH, "{} bytes for each silent connection", cost / SILENT);
    good_client(program, address);

    // They are still connected as far as they know; the server has had enough of them.
    let are_gone = await_descriptors(server.id(), |count| count < descriptors + 100, 2 * handshake);
    assert!(are_gone, "{} descriptors are still open", descriptors_of(server.id()));
    good_client(program, address);
    assert!(server.is_running());
    true
}

#[test]
fn ten_thousand_silent_connections_cost_little_and_keep_nobody_out() {
    let _turn = take_turn();
    let before = getrlimit(Resource::Nofile);
    if before.maximum.is_some_and(|most| most < SILENT as u64 + OTHERS) {
        return skip("10,000 half-open connections", "the limit of open files (ulimit -Hn) is below 10,200");
    }
    // The server inherits it.
    setrlimit(Resource::Nofile, Rlimit { current: before.maximum, ..before }).expect("as far as allowed");
    let program = Program::build("softrdma");
    let held = HANDSHAKES.into_iter().any(|handshake| hold_ten_thousand(&program, handshake));
    assert!(held, "they were never there at once");
}
