//! Programs, started with and without the library, each end on a CPU of its own.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use softrdma_smc::statistics::{Counter, process};

/// What went wrong, for a person to read.
pub(crate) type Trouble = String;

/// Longest that a program may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest that a server may take to listen, and to end.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How often somebody is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Below the ports that connecting sockets are given.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 10_000;
/// Descriptors that a process with many connections needs, for itself and for what is preloaded into it.
const DESCRIPTORS: u64 = 100_000;

/// Which ends have the library preloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Plain,
    Accelerated,
    OnlyClient,
    OnlyServer,
}

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// What programs are run with.
pub(crate) struct Rig {
    library: Option<PathBuf>,
    thrift: Option<PathBuf>,
    /// Of each measurement.
    pub(crate) seconds: f64,
    /// Where programs leave what they write. Goes away with the rig.
    pub(crate) scratch: PathBuf,
    own: PathBuf,
    next_port: AtomicU16,
    /// Programs started that others go on beside: their outputs have names of their own.
    started: AtomicU32,
}

impl Rig {
    pub(crate) fn new(library: Option<PathBuf>, thrift: Option<PathBuf>, seconds: f64) -> Result<Self, Trouble> {
        let absolute = |path: PathBuf| path.canonicalize().map_err(|error| format!("{}: {error}", path.display()));
        let library = library.map(absolute).transpose()?;
        let scratch = std::env::temp_dir().join(format!("softrdma-smc-bench-{}", std::process::id()));
        fs::create_dir(&scratch).map_err(|error| format!("cannot make {}: {error}", scratch.display()))?;
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        raise_descriptor_limit();
        let next_port = AtomicU16::new((std::process::id() % u32::from(PORTS)) as u16);
        Ok(Rig { library, thrift, seconds, scratch, own, next_port, started: AtomicU32::new(0) })
    }

    /// The program at `name`, pinned, with the library if this end of `side` has it.
    pub(crate) fn command(&self, role: Role, side: Side, name: impl AsRef<Path>) -> Command {
        let cpu = match role {
            Role::Server if thread::available_parallelism().is_ok_and(|count| count.get() > 1) => "1",
            Role::Server | Role::Client => "0",
        };
        let mut command = Command::new("taskset");
        command.args(["-c", cpu]).arg(name.as_ref()).stdin(Stdio::null());
        let preloads = match role {
            Role::Client => matches!(side, Side::Accelerated | Side::OnlyClient),
            Role::Server => matches!(side, Side::Accelerated | Side::OnlyServer),
        };
        match &self.library {
            Some(library) if preloads => command.env("LD_PRELOAD", library),
            _ => command.env_remove("LD_PRELOAD"),
        };
        command
    }

    /// An end of our own.
    pub(crate) fn own_end(&self, role: Role, side: Side, arguments: &[&str]) -> Command {
        let mut command = self.command(role, side, &self.own);
        command.arg("end").args(arguments);
        command
    }

    /// One of the thrift pair.
    pub(crate) fn thrift(&self, name: &str) -> Result<PathBuf, Trouble> {
        let directory = self.thrift.as_ref().ok_or("no thrift pair (--thrift)")?;
        Ok(directory.join(name))
    }

    /// A port that nobody listens on.
    pub(crate) fn free_port(&self) -> u16 {
        loop {
            let port = FIRST_PORT + self.next_port.fetch_add(1, Ordering::Relaxed) % PORTS;
            if !is_listening(port) {
                return port;
            }
        }
    }

    /// Starts a server and waits until it listens on `port`.
    pub(crate) fn serve(&self, mut command: Command, port: u16) -> Result<Daemon, Trouble> {
        let (child, name) = self.spawn(&mut command, "server.log")?;
        let mut daemon = Daemon { child, name };
        let begun = Instant::now();
        while !is_listening(port) {
            if let Ok(Some(status)) = daemon.child.try_wait() {
                return Err(format!("{} ended: {status}: {}", daemon.name, self.last_lines("server.log")));
            }
            if begun.elapsed() > START_PATIENCE {
                return Err(format!("{} does not listen", daemon.name));
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(daemon)
    }

    /// Runs a program to its end. What it printed, on both outputs.
    pub(crate) fn run(&self, mut command: Command) -> Result<String, Trouble> {
        let (mut child, name) = self.spawn(&mut command, "client.log")?;
        let status = wait(&mut child, PATIENCE);
        let Some(status) = status else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("{name} is not done after {PATIENCE:?}"));
        };
        let printed = fs::read_to_string(self.scratch.join("client.log")).map_err(|error| error.to_string())?;
        if status.success() {
            Ok(printed)
        } else {
            Err(format!("{name} failed: {status}: {}", self.last_lines("client.log")))
        }
    }

    /// Starts a program that answers each line of its input with one, and goes on until that ends.
    pub(crate) fn start(&self, mut command: Command) -> Result<Started, Trouble> {
        let log = format!("client-{}.log", self.started.fetch_add(1, Ordering::Relaxed));
        let (child, name) = self.spawn(command.stdin(Stdio::piped()), &log)?;
        Ok(Started { daemon: Daemon { child, name }, log, answers: 0 })
    }

    /// What such a program says to `line`.
    pub(crate) fn ask(&self, started: &mut Started, line: &str) -> Result<String, Trouble> {
        let Started { daemon, log, answers } = started;
        let input = daemon.child.stdin.as_mut().ok_or("it has no input")?;
        // If it has ended, what it has left says more.
        let _ = writeln!(input, "{line}");
        let begun = Instant::now();
        loop {
            let printed = fs::read_to_string(self.scratch.join(&*log)).unwrap_or_default();
            if let Some(answer) = printed.split_inclusive('\n').nth(*answers).and_then(|line| line.strip_suffix('\n')) {
                *answers += 1;
                return Ok(answer.to_owned());
            }
            if let Ok(Some(status)) = daemon.child.try_wait() {
                return Err(format!("{} failed: {status}: {}", daemon.name, self.last_lines(log)));
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("{} is not done after {PATIENCE:?}", daemon.name));
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Ends its input, and waits.
    pub(crate) fn finish(&self, started: Started) -> Result<(), Trouble> {
        let Started { mut daemon, log, .. } = started;
        drop(daemon.child.stdin.take());
        match wait(&mut daemon.child, PATIENCE) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("{} failed: {status}: {}", daemon.name, self.last_lines(&log))),
            None => Err(format!("{} is not done after {PATIENCE:?}", daemon.name)),
        }
    }

    /// Fails if `side` is the accelerated one and its server has accelerated fewer connections: then two plain halves would be
    /// measured.
    pub(crate) fn check(&self, side: Side, server: &Daemon, at_least: u64) -> Result<(), Trouble> {
        if side != Side::Accelerated || self.library.is_none() {
            return Ok(());
        }
        let (count, others) = server.accelerated();
        if count >= at_least {
            return Ok(());
        }
        Err(format!("{} has accelerated {count} of at least {at_least} connections ({others})", server.name))
    }

    fn spawn(&self, command: &mut Command, log: &str) -> Result<(Child, String), Trouble> {
        let arguments: Vec<_> = command.get_args().skip(2).map(|word| word.to_string_lossy().into_owned()).collect();
        let name = arguments.join(" ");
        let log = File::create(self.scratch.join(log)).map_err(|error| format!("cannot make {log}: {error}"))?;
        let same = log.try_clone().map_err(|error| error.to_string())?;
        let child =
            command.stdout(log).stderr(same).spawn().map_err(|error| format!("cannot start {name}: {error}"))?;
        Ok((child, name))
    }

    fn last_lines(&self, log: &str) -> String {
        let text = fs::read_to_string(self.scratch.join(log)).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(3)..].join(" | ")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // What is left behind in the temporary directory spoils no measurement.
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

/// A server, which ends with this value.
pub(crate) struct Daemon {
    child: Child,
    name: String,
}

/// A program that is asked.
pub(crate) struct Started {
    daemon: Daemon,
    /// Where its answers are, and how many there were.
    log: String,
    answers: usize,
}

impl Started {
    /// Its process, which `taskset` became.
    pub(crate) fn id(&self) -> u32 {
        self.daemon.id()
    }
}

impl Daemon {
    /// Its process, which `taskset` became.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Connections that it and its children have accelerated so far, and what has become of others.
    fn accelerated(&self) -> (u64, String) {
        let id = self.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let ids = children.split_whitespace().filter_map(|child| child.parse().ok()).chain([id]);
        let (mut count, mut others) = (0, Vec::new());
        for id in ids {
            match process(id) {
                Ok(Some(process)) => {
                    let snapshot = process.snapshot;
                    count += snapshot.counters.get(Counter::AcceleratedAsServer);
                    let reasons = snapshot.fallbacks.iter();
                    let reasons: Vec<_> =
                        reasons.map(|fallback| format!("{} for {:#010x}", fallback.count, fallback.code)).collect();
                    others.push(format!("process {id} has left to TCP: {}", reasons.join(", ")));
                }
                Ok(None) => others.push(format!("process {id} has no statistics")),
                Err(error) => others.push(error.to_string()),
            }
        }
        (count, others.join("; "))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        if wait(&mut self.child, START_PATIENCE).is_none() {
            eprintln!("smc: {} does not end and is killed", self.name);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// How `child` ended; `None` if it has not.
fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let begun = Instant::now();
    while begun.elapsed() < patience {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        thread::sleep(LOOK_EVERY);
    }
    None
}

/// Without connecting to it, since some servers serve one connection only.
fn is_listening(port: u16) -> bool {
    const LISTEN: &str = "0A";
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|table| {
        fs::read_to_string(table).unwrap_or_default().lines().any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next().unwrap_or_default();
            local.ends_with(&format!(":{port:04X}")) && fields.nth(1) == Some(LISTEN)
        })
    })
}

/// The processes that are started inherit it.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: Some(DESCRIPTORS), maximum: Some(DESCRIPTORS) };
    if limit.current.is_some_and(|current| current < DESCRIPTORS) && setrlimit(Resource::Nofile, wanted).is_err() {
        // More than its hard limit only root may have; what that means for a contest, the contest will say.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}
