//! Two hosts as network namespaces, and the wire between them. Everything is made anew for each run: the kernel remembers what
//! it learned of a path.

use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::flow::{Outcome, Programs};
use crate::scenario::Scenario;

/// The interface in each namespace.
pub(crate) const INTERFACE: &str = "tap0";

/// Which host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Sender,
    Receiver,
}

pub(crate) struct Rig {
    sender: Namespace,
    receiver: Namespace,
    wire: Option<Child>,
}

struct Namespace(String);

impl Rig {
    /// The kernel has addresses only where its own flow runs.
    pub(crate) fn new(
        programs: &Programs,
        scenario: &Scenario,
        seed: u64,
        kernel_takes_part: bool,
    ) -> Result<Self, String> {
        let (sender, receiver) = (Namespace::new("sender")?, Namespace::new("receiver")?);
        let place = |namespace: &Namespace| format!("{INTERFACE}@{}", namespace.0);
        run_on(Role::Wire);
        let wire = Command::new(&programs.wire)
            .args(["--left", &place(&sender), "--right", &place(&receiver), "--seed", &seed.to_string()])
            .args(scenario.wire())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        run_on(Role::Hosts);
        let wire = wire.map_err(|error| format!("cannot run wire: {error}"))?;
        let mut rig = Self { sender, receiver, wire: Some(wire) };
        rig.wait_for_interfaces()?;
        for (host, address) in [(Host::Sender, KERNEL_SENDER), (Host::Receiver, KERNEL_RECEIVER)] {
            rig.run(host, "ethtool", &["-K", INTERFACE, "tso", "off", "gso", "off", "gro", "off"])?;
            if kernel_takes_part {
                rig.run(host, "ip", &["address", "add", &format!("{address}/24"), "dev", INTERFACE])?;
            }
        }
        Ok(rig)
    }

    /// What starts a program on `host`.
    pub(crate) fn command(&self, host: Host, program: &std::ffi::OsStr) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(host).0]).arg(program).stdin(Stdio::null());
        command
    }

    /// Ends the wire and adds what it says of itself to `outcome`.
    pub(crate) fn take(mut self, mut outcome: Outcome) -> Result<Outcome, String> {
        let mut wire = self.wire.take().expect("a rig has its wire until the end");
        stop(&mut wire, Signal::TERM);
        let output = wire.wait_with_output().map_err(|error| format!("wire: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        outcome.wire = serde_json::from_str(&said).map_err(|error| format!("wire said '{said}': {error}"))?;
        outcome.kernel_retransmissions = self.kernel_retransmissions()?;
        Ok(outcome)
    }

    fn namespace(&self, host: Host) -> &Namespace {
        match host {
            Host::Sender => &self.sender,
            Host::Receiver => &self.receiver,
        }
    }

    fn wait_for_interfaces(&mut self) -> Result<(), String> {
        const PATIENCE: Duration = Duration::from_secs(10);
        let begun = Instant::now();
        let is_up = |namespace: &Namespace| {
            let output = Command::new("ip").args(["-n", &namespace.0, "link", "show", "up", "dev", INTERFACE]).output();
            output.is_ok_and(|output| output.status.success() && !output.stdout.is_empty())
        };
        while !is_up(&self.sender) || !is_up(&self.receiver) {
            let has_ended = !matches!(self.wire.as_mut().map(Child::try_wait), Some(Ok(None)));
            if has_ended || begun.elapsed() > PATIENCE {
                return Err("wire made no interfaces; it needs root".to_owned());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn run(&self, host: Host, program: &str, arguments: &[&str]) -> Result<(), String> {
        run(self.command(host, program.as_ref()).args(arguments))
    }

    /// Segments that the sending host's kernel has sent again.
    fn kernel_retransmissions(&self) -> Result<u64, String> {
        let output = self.command(Host::Sender, "cat".as_ref()).arg("/proc/net/snmp").output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let text = text.map_err(|error| format!("cannot read /proc/net/snmp: {error}"))?;
        let lines: Vec<Vec<&str>> =
            text.lines().filter(|line| line.starts_with("Tcp:")).map(|line| line.split(' ').collect()).collect();
        let [names, values] = &lines[..] else { return Err("/proc/net/snmp has no two lines for TCP".to_owned()) };
        let found = names.iter().zip(values).find(|(name, _)| **name == "RetransSegs");
        found.and_then(|(_, value)| value.parse().ok()).ok_or_else(|| "/proc/net/snmp: no RetransSegs".to_owned())
    }
}

/// What a CPU is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Wire,
    Hosts,
}

/// On two CPUs: has what is started from now on run on the one for `role`. The wire keeps time by spinning, and whoever shares its CPU
/// waits for slices of it: so it has one to itself, and the hosts' programs, whoever's they are, share the other. With more there is
/// room for all, with one no choice.
fn run_on(role: Role) {
    static CPUS: OnceLock<Vec<CoreId>> = OnceLock::new();
    // Asked once: afterwards the answer is the one that was chosen.
    let cpus = CPUS.get_or_init(|| core_affinity::get_core_ids().unwrap_or_default());
    if let [hosts, wire] = cpus[..] {
        core_affinity::set_for_current(if role == Role::Wire { wire } else { hosts });
    }
}

/// Of the kernel; softrdma has its own.
pub(crate) const KERNEL_SENDER: &str = "198.51.100.2";
pub(crate) const KERNEL_RECEIVER: &str = "198.51.100.1";

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(wire) = &mut self.wire {
            stop(wire, Signal::KILL);
            // It has ended, or is none of ours any more.
            let _ = wire.wait();
        }
    }
}

impl Namespace {
    fn new(role: &str) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("softrdma-loss-{role}-{}-{number}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        Ok(Self(name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // One that stays is seen in `ip netns`; the measurement is over.
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).stderr(Stdio::null()).status();
    }
}

/// Sends a signal to a process of ours, which is not reaped yet.
pub(crate) fn stop(child: &mut Child, signal: Signal) {
    if let (Ok(None), Some(process)) = (child.try_wait(), i32::try_from(child.id()).ok().and_then(Pid::from_raw)) {
        let _ = kill_process(process, signal);
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let line = format!("{command:?}");
    let output = command.output().map_err(|error| format!("{line}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// What a child that has ended printed.
pub(crate) fn last_line(text: &str) -> Option<Value> {
    text.lines().rev().find_map(|line| serde_json::from_str(line).ok())
}
