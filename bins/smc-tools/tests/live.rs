//! The tools as they are run, on the page that this process shows as a process with the library does.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use serde_json::Value;
use softrdma_smc::names::Rendezvous;
use softrdma_smc::statistics::{
    ArenaDescription, ArenaEntry, Counter, Entry, Flags, Link, Mode, Page, Reasons, Role, Shutdown, SocketDescription,
    State,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_softrdma-smc");

/// What this process shows. One at a time: a process has one page.
struct Shown {
    page: Arc<Page>,
    _memory: OwnedFd,
    _sockets: Vec<Entry>,
    arena: ArenaEntry,
}

fn socket(port: u16, role: Role, state: State) -> SocketDescription {
    SocketDescription {
        descriptor: -1,
        user: 1000,
        inode: u64::from(port),
        local: Some(([127, 0, 0, 1], port).into()),
        peer: (state != State::Listen).then(|| "[2001:db8:1234:5678::1]:50000".parse().unwrap()),
        role,
        state,
        interface: 0,
    }
}

impl Shown {
    fn new() -> Self {
        let (page, memory) = Page::create("redis-server").unwrap();
        page.set_gid(0x1234);
        let open = |port, role, state| page.open_entry(&socket(port, role, state)).unwrap();
        let fast = open(7001, Role::Server, State::Active);
        fast.accelerate(
            Mode::SmcD,
            &Link {
                arena: 0xa0a0,
                index: 3,
                own_token: 0x1111,
                peer_token: 0x2222,
                peer_gid: 0x5678,
                send_ring: 65536,
                receive_ring: 65536,
            },
        );
        fast.sent(100);
        fast.sent(20_000);
        fast.received(50);
        fast.set_sending((65536 + 16, 65536));
        fast.set_receiving((50, 40));
        fast.set_flags(Flags { producer: 0x80, state: 0 }, Flags { producer: 0, state: 0x40 });
        fast.set_shutdown(Shutdown { read: false, write: true });
        let slow = open(7002, Role::Client, State::PeerCloseWait1);
        slow.fall_back(Reasons { own: 0x0500_0000, peer: 0x0303_0001 });
        page.counters().fall_back(Role::Client, 0x0303_0001, true);
        let undecided = open(7003, Role::Client, State::Active);
        let listening = open(7004, Role::Server, State::Listen);
        for _ in 0..3 {
            page.counters().count(Counter::ConnectionsSeen);
        }
        page.counters().set(Counter::RingMemory, 131_072);
        page.counters().set(Counter::RingMemoryLimit, 1 << 30);
        page.counters().count(Counter::Arenas);
        let arena = page
            .open_arena(&ArenaDescription {
                id: 0xa0a0,
                role: Role::Server,
                own_gid: 0x1234,
                peer_gid: 0x5678,
                peer_process: 4711,
                capacity: 1024,
                ring_bytes: 65536,
            })
            .unwrap();
        arena.connection_added();
        Self { page, _memory: memory, _sockets: vec![fast, slow, undecided, listening], arena }
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

/// Runs a tool that must end well, and gives what it printed.
fn printed(arguments: &[&str]) -> String {
    let output = run(arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{arguments:?}: {}\n{text}", String::from_utf8_lossy(&output.stderr));
    text
}

/// What a tool prints about this process alone: others may run at the same time.
fn own(arguments: &[&str]) -> String {
    printed(&[arguments, &["--pid", &std::process::id().to_string()]].concat())
}

/// The objects that it prints about this process.
fn own_rows(arguments: &[&str]) -> Vec<Value> {
    let row = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    own(arguments).lines().map(row).collect()
}

/// The lines that it prints about this process, without the header.
fn own_lines(arguments: &[&str]) -> Vec<String> {
    own(arguments).lines().skip(1).map(str::to_owned).collect()
}

/// All in one test, since all of it is about one page: what it is to contain is changed in between.
#[test]
fn what_a_process_shows_is_printed() {
    let shown = Shown::new();
    it_is_found_among_others();
    sockets_have_the_columns_of_smcss();
    sockets_are_chosen_by_kind();
    sockets_are_objects_with_all_that_is_known();
    link_groups_and_devices_are_listed(&shown);
    statistics_are_counted_since_the_reset(&shown);
    there_is_no_smc_r();
}

/// Whether others can be read does not matter here.
fn it_is_found_among_others() {
    let text = String::from_utf8(run(&["smcss", "--json"]).stdout).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    assert_eq!(rows.filter(|row| row["process"] == std::process::id()).count(), 3, "{text}");
}

fn sockets_have_the_columns_of_smcss() {
    let text = own(&["smcss", "-a"]);
    assert!(
        text.starts_with("State          UID   Inode   Local Address           Peer Address            Intf Mode\n"),
        "{text}"
    );
    let lines: BTreeSet<_> = own_lines(&["smcss", "-a"]).into_iter().collect();
    let expected = [
        "ACTIVE         01000 0007001 127.0.0.1:7001          2001:db8:1234:5678::1.. 0000 SMCD",
        "ACTIVE         01000 0007003 127.0.0.1:7003          2001:db8:1234:5678::1.. 0000 TCP",
        "LISTEN         01000 0007004 127.0.0.1:7004",
        "PEERCLW1       01000 0007002 127.0.0.1:7002          2001:db8:1234:5678::1.. 0000 TCP 0x05000000/0x03030001",
    ];
    assert_eq!(lines, expected.map(str::to_owned).into());
    assert!(own_lines(&["smcss", "-W"])[0].contains(" 2001:db8:1234:5678::1:50000 "));
    let line = &own_lines(&["smcss", "-dD"])[0];
    assert!(
        line.ends_with(
            "0000 SMCD  <-W   00001111 00010000 00010000 00010000 0000:00000032 0001:00000000 00:40   \
         0001:00000010 0000:00000028 80:00   0001:00000010 0001:00000010 0001:00000010 \
         0000000000001234 0000000000001111 0000000000005678 0000000000002222 000000000000a0a0"
        ),
        "{line}"
    );
    let header = own(&["smcss", "-dD"]);
    let header = header.lines().next().unwrap();
    for (column, value) in
        [("ShutD", "<-W"), ("rxprod-Cursor", "0000:00000032"), ("txFlags", "80:00"), ("Linkid", "000000000000a0a0")]
    {
        assert_eq!(header.find(column), line.find(value), "{column}\n{header}\n{line}");
    }
    let with_process = &own_lines(&["smcss", "-p"])[0];
    assert!(with_process.ends_with(&format!(" {}/redis-server", std::process::id())), "{with_process}");
}

fn sockets_are_chosen_by_kind() {
    let ports = |arguments: &[&str]| -> Vec<String> {
        let port = |line: String| line.split("127.0.0.1:").nth(1).unwrap()[..4].to_owned();
        own_lines(arguments).into_iter().map(port).collect()
    };
    assert_eq!(ports(&["smcss"]), ["7001", "7002", "7003"]);
    assert_eq!(ports(&["smcss", "-l"]), ["7004"]);
    assert_eq!(ports(&["smcss", "-D"]), ["7001"]);
    assert_eq!(ports(&["smcss", "-R"]), [""; 0]);
}

fn sockets_are_objects_with_all_that_is_known() {
    let rows = own_rows(&["smcss", "-a", "--json"]);
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[0]["program"], "redis-server");
    assert_eq!(
        (&rows[0]["mode"], &rows[0]["state"], &rows[0]["role"]),
        (&"SMCD".into(), &"ACTIVE".into(), &"server".into())
    );
    assert_eq!(rows[0]["sent_bytes"], 20_100);
    assert_eq!(rows[0]["sending"]["produced"], 65_552);
    assert_eq!(rows[1]["fallback"]["own"]["code"], "0x05000000");
    assert_eq!(rows[1]["fallback"]["peer"]["text"], "no SMC-D device, or the peer is not on this host");
    assert_eq!((&rows[2]["mode"], &rows[2]["fallback"]), (&"undecided".into(), &Value::Null));
}

fn link_groups_and_devices_are_listed(shown: &Shown) {
    let text = own(&["smcd", "linkgroup"]);
    assert!(text.starts_with("LG-ID            LG-Role VLAN #Conns PNET-ID "), "{text}");
    let name = format!("{}/redis-server with 4711", std::process::id());
    let line = text.lines().find(|line| line.ends_with(&name)).expect("the arena");
    assert!(line.starts_with("000000000000a0a0 SERV    0    1      "), "{line}");
    assert_eq!(text.find("GID  "), text.lines().next().unwrap().find("GID  "));
    assert_eq!(own_rows(&["smcd", "--json", "linkgroup", "show", "000000000000a0"])[0]["connections"], 1);
    shown.arena.connection_added();
    assert_eq!(own_rows(&["smcd", "l", "--json"])[0]["connections"], 2);
    assert!(own_rows(&["smcd", "linkgroup", "show", "ffff", "--json"]).is_empty());

    let text = own(&["smcd", "device", "show", "all"]);
    let name = format!(" 0000000000001234 {}/redis-server", std::process::id());
    let line = text.lines().find(|line| line.ends_with(&name)).expect("the device");
    assert!(line.starts_with("0000 loopback softrdma-smc ffff  Yes   1     "), "{line}");
    assert_eq!(run(&["smcd", "device", "show", "eth0"]).status.code(), Some(2));
}

fn statistics_are_counted_since_the_reset(shown: &Shown) {
    let directory = Scratch::new("stats");
    let stats = |arguments: &[&str]| {
        let own = ["smcd", "--pid", &std::process::id().to_string()];
        let output = Command::new(PROGRAM).args(own).args(arguments).env("XDG_RUNTIME_DIR", &directory.0).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let counter = |arguments: &[&str], name: &str| -> u64 {
        let value: Value = serde_json::from_str(&stats(arguments)).unwrap();
        value["counters"][name].as_u64().unwrap_or_else(|| panic!("{name}: {value}"))
    };
    let text = stats(&["-d", "stats"]);
    for line in [
        "SMC-D Connections Summary",
        "  Total connections handled                    3",
        "  SMC connections                              1 (client 0, server 1)",
        "  Handshake errors                             0 (client 0, server 0)",
        "  Avg requests per SMC conn                  3.0",
        "  TCP fallback                                 1 (client 1, server 0)",
        "               1  client  0x03030001  peer  no SMC-D device, or the peer is not on this host",
        "RX Stats",
        "  Data transmitted (Bytes)                    50 (50)",
        "TX Stats",
        "  Data transmitted (Bytes)                 20100 (20.1K)",
        "  Total requests                               2",
        "  Bufs         0       0       0       1       0       0       0       0",
        "  Reqs         1       0       1       0       0       0       0       0",
        "  Ring memory in use (Bytes)              131072 (at most 1G)",
    ] {
        assert!(text.lines().any(|one| one == line), "{line:?} is not in\n{text}");
    }
    assert!(!stats(&["stats"]).contains("(client"), "details only where they are asked for");
    assert!(stats(&["stats"]).contains("client  0x03030001  peer  no SMC-D device"), "but reasons always");

    assert_eq!(counter(&["stats", "json"], "connections_seen"), 3);
    assert!(stats(&["stats", "reset"]).contains("  Total connections handled                    3"));
    assert_eq!(counter(&["stats", "json"], "connections_seen"), 0);
    assert_eq!(counter(&["stats", "json"], "ring_memory"), 131_072, "an amount of now stays what it is");
    assert!(!stats(&["-d", "stats"]).contains("0x03030001"));
    shown.page.counters().count(Counter::ConnectionsSeen);
    assert_eq!(counter(&["--json", "stats"], "connections_seen"), 1);
    assert_eq!(counter(&["-a", "stats", "json"], "connections_seen"), 4);
}

#[test]
fn a_process_that_is_asked_for_must_be_there() {
    for tool in [&["smcss", "--pid", "4194305"][..], &["smcd", "linkgroup", "--pid", "4194305"]] {
        let output = run(tool);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains("process 4194305"), "{said}");
    }
}

fn there_is_no_smc_r() {
    for object in ["linkgroup", "link", "device", "stats", "info"] {
        assert!(own(&["smcr", object]).starts_with("no SMC-R "), "{object}");
    }
    assert_eq!(serde_json::from_str::<Value>(&own(&["smcr", "--json", "link"])).unwrap()["connections"], 0);
}

/// A directory of its own that goes away with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("softrdma-smc-tools-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn links_by_the_usual_names_are_the_tools() {
    let directory = Scratch::new("install");
    let path = directory.0.to_str().unwrap();
    assert_eq!(printed(&["install", path]).lines().count(), 5);
    let smcss = Command::new(directory.0.join("smcss")).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&smcss.stdout).starts_with("smcss "), "{smcss:?}");
    printed(&["install", path]);

    fs::remove_file(directory.0.join("smcd")).unwrap();
    fs::remove_file(directory.0.join("smc_run")).unwrap();
    fs::write(directory.0.join("smc_run"), "somebody else's").unwrap();
    let refused = run(&["install", path]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("smc_run is there already"));
    assert!(!directory.0.join("smcd").exists(), "all links or none");
    printed(&["install", "--force", path]);
    assert!(directory.0.join("smc_run").is_symlink());
}

#[test]
fn a_listener_with_smc_is_told_from_one_without() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = listener.local_addr().unwrap().to_string();
    let check = |arguments: &[&str]| {
        let output = run(&[&["smc_chk", "--json", "-C"], arguments].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (output.status.code(), rows.into_iter().find(|row| row["name"] == "SMC").map(|row| row["is_well"].clone()))
    };
    assert_eq!(check(&[&service]), (Some(1), Some(false.into())));
    let port = listener.local_addr().unwrap().port();
    let announcement = Rendezvous::new().announce(port).unwrap().expect("nobody else has this port");
    assert_eq!(check(&[&service]), (Some(0), Some(true.into())));
    assert_eq!(check(&["127.0.0.1", "-p", &port.to_string()]), (Some(0), Some(true.into())));
    drop(announcement);
    let other_users = Rendezvous::new().for_user(4_000_000).announce(port).unwrap();
    let text = String::from_utf8(run(&["smc_chk", "-C", &service]).stdout).unwrap();
    assert!(text.contains("user 4000000 listens at port"), "{text}");
    drop((other_users, listener));
    assert_eq!(check(&[&service]), (Some(1), None), "without a listener it is not asked");
    assert_eq!(run(&["smc_chk", "-C", "127.0.0.1"]).status.code(), Some(2));
}

#[test]
fn what_this_machine_has_is_said() {
    let output = run(&["smc_chk", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for name in ["shared memory", "rendezvous", "statistics", "user", "policy"] {
        let row = rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name}: {text}"));
        assert_eq!(row["is_well"], true, "{row}");
    }
    let broken = Scratch::new("policy");
    let policy = broken.0.join("policy.toml");
    fs::write(&policy, "\nspin = 3\n").unwrap();
    let output = Command::new(PROGRAM).arg("smc_chk").env("SOFTRDMA_SMC_POLICY", &policy).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success() && text.contains("line 2") && text.contains("spin_us"), "{text}");
}

/// A shared library that every program can have: one that this process has too.
fn some_library() -> String {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let paths = maps.lines().filter_map(|line| line.split_whitespace().last());
    paths.filter(|path| path.contains("/libgcc_s.so")).map(str::to_owned).next().expect("Rust programs have it")
}

fn smc_run() -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("smc_run").env("SOFTRDMA_SMC_LIBRARY", some_library()).env_remove("LD_PRELOAD");
    command
}

#[test]
fn the_program_takes_the_place_of_smc_run() {
    let child =
        smc_run().args(["sh", "-c", "echo $$ $LD_PRELOAD; exit 7", "--debug"]).stdout(Stdio::piped()).spawn().unwrap();
    let id = child.id();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, format!("{id} {}\n", fs::canonicalize(some_library()).unwrap().display()));
    assert_eq!(output.status.code(), Some(7));
    let killed = smc_run().args(["sh", "-c", "kill -TERM $$"]).status().unwrap();
    assert_eq!(killed.signal(), Some(15));
}

#[test]
fn what_was_preloaded_stays_and_debug_reaches_the_library() {
    let output = smc_run()
        .args(["-d", "sh", "-c", "echo $LD_PRELOAD; echo $SOFTRDMA_SMC_VERBOSE"])
        .env("LD_PRELOAD", "libm.so.6")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.ends_with(":libm.so.6\n1\n"), "{said}");
}

#[test]
fn a_program_that_cannot_be_served_runs_as_it_is() {
    // Its interpreter is ld.so itself, which is linked statically.
    let scratch = Scratch::new("static");
    let loader = fs::canonicalize("/lib64/ld-linux-x86-64.so.2").unwrap();
    let script = scratch.0.join("script");
    fs::write(&script, format!("#!{} /bin/echo\n", loader.display())).unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let run =
        |option: &[&str]| smc_run().args(option).arg(&script).env("SOFTRDMA_SMC_LIBRARY", "/nonexistent").output();
    let (quiet, verbose) = (run(&[]).unwrap(), run(&["-v"]).unwrap());
    assert!(quiet.status.success() && quiet.stderr.is_empty(), "{quiet:?}");
    assert_eq!(quiet.stdout, format!("{}\n", script.display()).into_bytes());
    let said = String::from_utf8(verbose.stderr).unwrap();
    assert!(said.contains("linked statically") && said.lines().count() == 1, "{said}");
}

#[test]
fn what_cannot_be_run_is_said_with_a_status_of_its_own() {
    let outcome = |command: &mut Command| {
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, said) = outcome(smc_run().arg("surely-there-is-no-such-program"));
    assert_eq!(status, Some(127), "{said}");
    let (status, said) = outcome(smc_run().arg("/etc/passwd"));
    assert_eq!(status, Some(126), "{said}");
    let (status, said) = outcome(smc_run().args(["true"]).env("SOFTRDMA_SMC_LIBRARY", "/nonexistent.so"));
    assert!(status == Some(125) && said.contains("SOFTRDMA_SMC_LIBRARY names /nonexistent.so"), "{said}");
    let (status, said) = outcome(smc_run().args(["true"]).env("SOFTRDMA_SMC_LIBRARY", "/etc/passwd"));
    assert!(status == Some(125) && said.contains("no shared library"), "{said}");
    let (status, said) = outcome(smc_run().args(["true"]).env("SOFTRDMA_SMC_SPIN_US", "x"));
    assert!(status == Some(125) && said.contains("SOFTRDMA_SMC_SPIN_US=x"), "{said}");
    let (status, said) = outcome(smc_run().args(["--policy", "/nonexistent.toml", "true"]));
    assert!(status == Some(125) && said.contains("/nonexistent.toml"), "{said}");
}
