//! softrdma's TCP and the kernel's on either side of a wire that loses, reorders, doubles and corrupts: every byte checked, both
//! ways, by seed.

#![forbid(unsafe_code)]
#![cfg(feature = "dpdk")]

use serde_json::Value;
use softrdma_tests::network::Namespace;
use softrdma_tests::program::{Program, Running, Scratch, is_root, take_turn};
use softrdma_tests::skip;
use std::time::{Duration, Instant};

/// A run that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(60);
const START: Duration = Duration::from_secs(20);

const KERNEL: &str = "192.0.2.1";
const OURS: &str = "192.0.2.2";
const INTERFACE: &str = "wire0";

/// What the wire does, one seed each.
const WIRES: [&[&str]; 4] = [
    &["--seed", "1", "--loss", "0.01"],
    &["--seed", "2", "--reorder", "0.05", "--reorder-us", "300", "--duplicate", "0.02"],
    &["--seed", "3", "--corrupt", "0.01", "--burst", "0.001", "--burst-frames", "8"],
    &["--seed", "4", "--loss", "0.005", "--reorder", "0.02", "--duplicate", "0.01", "--corrupt", "0.005"],
];

/// What is moved and checked: small and large, by the client and by the server.
const TEST: &[&str] = &["--op", "send,write,read", "--size", "8,1500,64K", "--iterations", "60", "--depth", "16"];

/// Two hosts and the wire between them: one has the kernel's TCP, the other softrdma's.
struct Rig {
    wire: Running,
    kernel: Namespace,
    ours: Namespace,
    scratch: Scratch,
}

impl Rig {
    fn new(name: &str, options: &[&str]) -> Self {
        let (kernel, ours) = (Namespace::new(&format!("{name}-k")), Namespace::new(&format!("{name}-s")));
        let place = |namespace: &Namespace| format!("{INTERFACE}@{}", namespace.name());
        let (left, right) = (place(&kernel), place(&ours));
        let fixed = ["--left", &left, "--right", &right, "--rate", "1G", "--delay-us", "100"];
        let mut wire = Program::at(env!("CARGO_BIN_EXE_wire")).start(fixed.iter().chain(options));
        assert!(wire.has_said("are up", START), "{}", wire.finish(Duration::ZERO));
        kernel.ip(&["addr", "add", &format!("{KERNEL}/24"), "dev", INTERFACE]).expect("an address");
        // What the kernel repeats after a time, it repeats at the pace of a LAN, as we do.
        kernel.ip(&["route", "change", "192.0.2.0/24", "dev", INTERFACE, "rto_min", "5ms"]).expect("a route");
        let scratch = Scratch::new(name);
        std::fs::write(scratch.file("kernel.toml"), "scheme = \"kernel-socket\"\nlisten_addresses = []\n")
            .expect("write the configuration");
        Self { wire, kernel, ours, scratch }
    }

    /// Has each side do its part, with the options that make its device; gives the rows that the client printed.
    fn run(self, program: &Program, ours_is_client: bool, seed: &str) -> Vec<Value> {
        let file = self.scratch.file("kernel.toml");
        let kernel_device = ["--config", file.to_str().expect("a path in UTF-8")];
        let port = format!("net_af_packet0,iface={INTERFACE}");
        let address = format!("{OURS}/24");
        let our_device = ["--scheme", "softrdma", "--threads", "c2", "--port", &port, "--address", &address];
        let (kernel, ours) = (program.inside(self.kernel.name()), program.inside(self.ours.name()));
        let serve = |listen: &'static str| vec!["server", "--once", "--listen", listen];
        let test = |server: &'static str| {
            [&["client", server, "--verify", "--json", "--quiet", "--seed", seed], TEST].concat()
        };
        let (mut server, client) = if ours_is_client {
            let server = kernel.start(serve("0.0.0.0").iter().chain(&kernel_device));
            (server, (&ours, [test(KERNEL), our_device.to_vec()].concat()))
        } else {
            let server = ours.start(serve(OURS).iter().chain(&our_device));
            (server, (&kernel, [test(OURS), kernel_device.to_vec()].concat()))
        };
        assert!(server.has_said("listening on", START), "server: {}", server.finish(Duration::ZERO));
        let (client, arguments) = client;
        let outcome = client.run(LIMIT, arguments);
        let server = server.finish(Duration::from_secs(10));
        let wire = self.wire.stop(START);
        let rows = outcome.rows();
        assert!(server.status.is_some_and(|status| status.success()), "server: {server}");
        let [said] = &wire.rows()[..] else { panic!("the wire says what it did: {wire}") };
        let troubles = ["lost", "lost_in_bursts", "held_back", "duplicated", "corrupted"];
        let met = |direction: &str| troubles.iter().filter_map(|key| said[direction][key].as_u64()).sum::<u64>();
        assert!(met("left_to_right") > 0 && met("right_to_left") > 0, "the wire did no harm: {said}");
        rows
    }
}

/// Every wire with either side as the client.
fn across(name: &str, ours_is_client: bool) {
    if !is_root() {
        return skip("softrdma against kernel TCP over a bad wire", "needs root");
    }
    let _turn = take_turn();
    let program = Program::build("softrdma-perf");
    for options in WIRES {
        let begun = Instant::now();
        let rows = Rig::new(name, options).run(&program, ours_is_client, options[1]);
        println!("{options:?}: {:?}", begun.elapsed());
        assert_eq!(rows.len(), 9, "{options:?}: three operations at three sizes");
        for row in &rows {
            assert_eq!(row["errors"], 0, "{options:?}: {row}");
        }
    }
}

#[test]
fn a_softrdma_client_and_a_kernel_server_understand_each_other_over_a_bad_wire() {
    across("bad-c", true);
}

#[test]
fn a_kernel_client_and_a_softrdma_server_understand_each_other_over_a_bad_wire() {
    across("bad-s", false);
}
