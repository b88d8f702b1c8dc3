//! `softrdma-perf` with both ends as processes of their own, every byte checked, over every fabric that this machine has.

#![forbid(unsafe_code)]

use serde_json::Value;
use softrdma_tests::program::{Program, Scratch, is_root, take_turn};
use softrdma_tests::skip;
use std::time::Duration;

/// Every operation with a payload is measured at each of these; atomics have their own eight bytes.
const SIZES: &str = "8,64,1500,64K,1M,16M";
const PAYLOAD_ROWS: usize = 4 * 6;
const ATOMIC_ROWS: usize = 2;

/// A run that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs `softrdma-perf pair --verify` with `arguments` and checks what it says about itself.
fn pair(program: &Program, arguments: &[&str]) -> Vec<Value> {
    let _turn = take_turn();
    let common = ["pair", "--verify", "--json", "--quiet"];
    let outcome = program.run(LIMIT, common.iter().chain(arguments));
    let rows = outcome.rows();
    assert!(!rows.is_empty(), "no rows\n{outcome}");
    for row in &rows {
        assert_eq!(row["errors"], 0, "{row}");
        assert!(row["throughput_gbps"].as_f64().is_some_and(|gbps| gbps > 0.0), "{row}");
        let latency = |name: &str| row["latency_us"][name].as_f64().unwrap_or(f64::NAN);
        assert!(latency("min") > 0.0, "{row}");
        let ordered = ["min", "p50", "p99", "p999", "max"].map(latency).is_sorted();
        assert!(ordered, "percentiles out of order: {row}");
    }
    rows
}

fn assert_everywhere(rows: &[Value], key: &str, value: impl Into<Value>) {
    let value = value.into();
    for row in rows {
        assert_eq!(row[key], value, "{key} of {row}");
    }
}

/// One queue pair with every operation and size, then 64 with fewer.
fn every_operation(program: &Program, scheme: &str, fabric: &str, threads: &str) {
    let device = ["--scheme", scheme, "--fabric", fabric, "--threads", threads];
    let one = pair(program, &[&device[..], &["--op", "all", "--size", SIZES, "--iterations", "20"]].concat());
    assert_eq!(one.len(), PAYLOAD_ROWS + ATOMIC_ROWS, "rows of all operations and sizes");
    assert_everywhere(&one, "scheme", scheme);
    assert_everywhere(&one, "fabric", fabric);
    assert_everywhere(&one, "threads", threads);
    let many = ["--op", "all", "--size", "8,4K,256K", "--iterations", "200", "--qps", "64", "--depth", "4"];
    let many = pair(program, &[&device[..], &many].concat());
    assert_everywhere(&many, "qps", 64);
}

#[test]
fn every_operation_over_kernel_sockets() {
    every_operation(&Program::build("softrdma-perf"), "kernel-socket", "kernel", "c1");
}

#[test]
fn every_operation_over_kernel_sockets_run_to_completion() {
    every_operation(&Program::build("softrdma-perf"), "kernel-socket", "kernel", "c2");
}

#[test]
fn kernel_sockets_as_nobody() {
    if !is_root() {
        return skip("kernel-socket as another user", "not root, so this whole run was without privileges");
    }
    let scratch = Scratch::new("kernel-nobody");
    let program = Program::build("softrdma-perf").as_nobody(&scratch);
    pair(&program, &["--scheme", "kernel-socket", "--op", "all", "--size", "8,64K", "--iterations", "100"]);
}

#[test]
fn without_crc_over_kernel_sockets() {
    let rows = pair(
        &Program::build("softrdma-perf"),
        &["--op", "all", "--size", "8,64K", "--iterations", "100", "--crc", "off"],
    );
    assert_everywhere(&rows, "crc", false);
}

/// What the idle pair of `scheme` takes is far from what a processor that spins takes.
fn an_idle_pair_sleeps(scheme: &str) {
    let program = Program::build("softrdma-perf");
    let rows =
        pair(&program, &["--scheme", scheme, "--op", "write", "--size", "8", "--iterations", "100", "--idle", "1"]);
    for end in ["client", "server"] {
        let percent = rows[0]["idle"]["cpu_percent"][end].as_f64().expect("a share of a processor");
        assert!((0.0..30.0).contains(&percent), "{end}: {:?}", rows[0]["idle"]);
    }
}

#[test]
fn an_idle_pair_sleeps_over_kernel_sockets() {
    an_idle_pair_sleeps("kernel-socket");
}

#[test]
fn a_scheme_to_come_says_so() {
    let _turn = take_turn();
    let outcome = Program::build("softrdma-perf").run(LIMIT, ["pair", "--scheme", "rnic"]);
    assert!(outcome.status.is_some_and(|status| !status.success()), "{outcome}");
    assert!(outcome.errors.contains("not in this version"), "{outcome}");
}

#[test]
fn a_server_that_is_not_there_is_reported_and_not_waited_for() {
    let _turn = take_turn();
    let outcome = Program::build("softrdma-perf").run(Duration::from_secs(30), ["client", "127.0.0.1:9"]);
    assert!(outcome.status.is_some_and(|status| status.code() == Some(1)), "{outcome}");
    assert!(outcome.errors.contains("127.0.0.1:9"), "the message names the address: {outcome}");
}

#[cfg(feature = "dpdk")]
mod over_dpdk {
    use super::*;
    use softrdma_tests::network::Namespace;
    use softrdma_tests::program::Outcome;
    use std::process::Command;
    use std::time::Instant;

    #[test]
    fn every_operation_over_memif() {
        every_operation(&Program::build("softrdma-perf"), "sequential", "memif", "c1");
    }

    #[test]
    fn every_operation_over_memif_run_to_completion() {
        every_operation(&Program::build("softrdma-perf"), "sequential", "memif", "c2");
    }

    #[test]
    fn every_operation_over_softrdma() {
        every_operation(&Program::build("softrdma-perf"), "softrdma", "memif", "c1");
    }

    #[test]
    fn every_operation_over_softrdma_run_to_completion() {
        every_operation(&Program::build("softrdma-perf"), "softrdma", "memif", "c2");
    }

    #[test]
    fn every_operation_over_softrdma_receiving_and_sending_at_once() {
        every_operation(&Program::build("softrdma-perf"), "softrdma", "memif", "c3");
    }

    #[test]
    fn an_idle_pair_sleeps_over_softrdma() {
        super::an_idle_pair_sleeps("softrdma");
    }

    #[test]
    fn memif_as_nobody() {
        if !is_root() {
            return skip("memif as another user", "not root, so this whole run was without privileges");
        }
        let scratch = Scratch::new("memif-nobody");
        let program = Program::build("softrdma-perf").as_nobody(&scratch);
        pair(&program, &["--scheme", "sequential", "--op", "all", "--size", "8,64K", "--iterations", "100"]);
    }

    #[test]
    fn without_crc_over_memif() {
        let run = ["--op", "all", "--size", "8,64K", "--iterations", "100", "--scheme", "sequential", "--crc", "off"];
        assert_everywhere(&pair(&Program::build("softrdma-perf"), &run), "crc", false);
    }

    #[test]
    fn large_packets_over_memif() {
        let run = ["--op", "all", "--size", "8,1M", "--iterations", "50", "--scheme", "sequential", "--mtu", "9000"];
        assert_everywhere(&pair(&Program::build("softrdma-perf"), &run), "mtu", 9000);
    }

    #[test]
    fn every_operation_over_a_ring() {
        every_operation(&Program::build("softrdma-perf"), "sequential", "ring", "c1");
    }

    #[test]
    fn every_operation_over_taps() {
        if !is_root() {
            return skip("--fabric tap", "needs root");
        }
        let run = ["--op", "all", "--size", "8,64K", "--iterations", "50", "--fabric", "tap"];
        assert_everywhere(&pair(&Program::build("softrdma-perf"), &run), "fabric", "tap");
    }

    #[test]
    fn every_operation_over_af_packet() {
        if !is_root() {
            return skip("--fabric af_packet", "needs root");
        }
        let run = ["--op", "all", "--size", "8,64K", "--iterations", "50", "--fabric", "af_packet"];
        assert_everywhere(&pair(&Program::build("softrdma-perf"), &run), "fabric", "af_packet");
    }

    /// The two engines against each other: the kernel's TCP on one side of a TAP, smoltcp's on the other.
    #[test]
    fn sequential_client_to_kernel_socket_server_across_a_tap() {
        if !is_root() {
            return skip("sequential against kernel-socket across a tap", "needs root");
        }
        let _turn = take_turn();
        let (namespace, scratch) = (Namespace::new("tap"), Scratch::new("tap"));
        let everywhere = scratch.file("server.toml");
        std::fs::write(&everywhere, "scheme = \"kernel-socket\"\nlisten_addresses = []\n")
            .expect("write the configuration");
        let program = Program::build("softrdma-perf").inside(namespace.name());
        let everywhere = everywhere.to_str().expect("a path in UTF-8");
        let mut server = program.start(["server", "--config", everywhere, "--listen", "0.0.0.0", "--once"]);
        let port = "net_tap0,iface=kernel0";
        let client =
            ["client", "10.78.0.1", "--port", port, "--address", "10.78.0.2/24", "--op", "all", "--size", "8,64K"];
        let client = program.start(client.iter().chain(&["--iterations", "50", "--verify", "--json", "--quiet"]));
        // The interface exists once the client has opened its port.
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(error) = namespace.ip(&["addr", "add", "10.78.0.1/24", "dev", "kernel0"]) {
            assert!(Instant::now() < deadline && server.is_running(), "{error}\n{}", client.finish(Duration::ZERO));
            std::thread::sleep(Duration::from_millis(50));
        }
        let outcome = client.finish(LIMIT);
        let rows = outcome.rows();
        assert!(rows.len() > ATOMIC_ROWS, "{outcome}");
        assert_everywhere(&rows, "errors", 0);
        let server = server.finish(Duration::from_secs(10));
        assert!(server.status.is_some_and(|status| status.success()), "server: {server}");
    }

    /// Captures a run of its own and has tshark take it apart, checksums, CRCs and all.
    #[test]
    fn tshark_dissects_our_capture_with_every_crc_good() {
        if Command::new("tshark").arg("--version").output().is_err() {
            return skip("dissection of a capture", "no tshark (apt-get install tshark)");
        }
        let scratch = Scratch::new("capture");
        let file = scratch.file("run.pcap");
        let file = file.to_str().expect("a path in UTF-8");
        let run =
            ["--scheme", "sequential", "--op", "all", "--size", "8,1500,64K", "--iterations", "20", "--pcap", file];
        pair(&Program::build("softrdma-perf"), &run);
        let dissect = || {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/dissect.sh");
            let output = Command::new(script).arg(file).output().expect("run dissect.sh");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Outcome { status: Some(output.status), output: text(&output.stdout), errors: text(&output.stderr) }
        };
        let good = dissect();
        assert!(good.status.is_some_and(|status| status.success()), "{good}");
        // The same capture with one bit of its last message's CRC turned must not pass.
        let mut bytes = std::fs::read(file).expect("read the capture");
        turn_last_crc(&mut bytes);
        std::fs::write(file, bytes).expect("write the capture");
        let bad = dissect();
        assert!(bad.status.is_some_and(|status| !status.success()), "a wrong CRC went unnoticed: {bad}");
    }

    /// Turns a bit in the last byte of the longest frame, which ends in the CRC of an FPDU.
    fn turn_last_crc(pcap: &mut [u8]) {
        let mut at = 24;
        let mut longest = (0, 0);
        while let Some(header) = pcap.get(at..at + 16) {
            let length = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) as usize;
            at += 16 + length;
            longest = longest.max((length, at - 1));
        }
        pcap[longest.1] ^= 1;
    }
}
