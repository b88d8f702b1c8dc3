//! The built programs, run as a user would run them.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::process::{Pid, Signal, geteuid, kill_process, kill_process_group};
use serde_json::Value;

/// User and group of nobody on Debian.
const NOBODY: u32 = 65534;

/// How often a running program is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Whether this process may do what root may.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Two ends spin on two CPUs: end-to-end tests of one process take turns, so that none runs into its timeout because of
/// the others.
pub fn take_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A directory of its own that goes away with this value. Anyone may write into it.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes the directory; `name` appears in its path.
    pub fn new(name: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("softrdma-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("own directory");
        Scratch(path)
    }

    /// The path of `name` in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind in the temporary directory fails no test.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One of our programs, built in the profile and with the features of this package.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    as_nobody: bool,
    namespace: Option<String>,
}

/// What a run of a program came to.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended; `None` if it was ended because its time was over.
    pub status: Option<ExitStatus>,
    /// Its standard output.
    pub output: String,
    /// Its standard error.
    pub errors: String,
}

impl Program {
    /// Builds `package`, whose binary has the same name, and finds the result through cargo's own messages.
    pub fn build(package: &str) -> Self {
        Self::build_with(package, package, if cfg!(feature = "dpdk") { &["--features", "dpdk"] } else { &[] })
    }

    /// The same of a package whose binary is called `name`, and which has nothing to do with ports.
    pub fn build_of(package: &str, name: &str) -> Self {
        Self::build_with(package, name, &[])
    }

    fn build_with(package: &str, name: &str, features: &[&str]) -> Self {
        let path = build(package, name, features)
            .iter()
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .unwrap_or_else(|| panic!("cargo named no executable of {package}"));
        Program { path, as_nobody: false, namespace: None }
    }

    /// A program of this package, which cargo has built for its tests: `env!("CARGO_BIN_EXE_...")`.
    pub fn at(path: &str) -> Self {
        Program { path: path.into(), as_nobody: false, namespace: None }
    }

    /// The same program run as the user nobody, from a copy in `scratch`: where it was built, nobody may not look.
    pub fn as_nobody(&self, scratch: &Scratch) -> Self {
        let copy = scratch.file("program");
        fs::copy(&self.path, &copy).expect("copy the program");
        Program { path: copy, as_nobody: true, namespace: self.namespace.clone() }
    }

    /// The same program run inside the network namespace `name`.
    pub fn inside(&self, name: &str) -> Self {
        Program { namespace: Some(name.to_owned()), ..self.clone() }
    }

    /// Starts it; whatever it starts belongs to its process group and ends with it.
    pub fn start(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Running {
        let mut command = match &self.namespace {
            None => Command::new(&self.path),
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(&self.path);
                command
            }
        };
        command.args(arguments).process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if self.as_nobody {
            command.uid(NOBODY).gid(NOBODY).env("XDG_RUNTIME_DIR", std::env::temp_dir()).current_dir("/");
        }
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {}: {error}", self.path.display()));
        let readers = [drain(child.stdout.take()), drain(child.stderr.take())];
        Running { child, readers: Some(readers) }
    }

    /// Runs it to its end, for `limit` at most.
    pub fn run(&self, limit: Duration, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Outcome {
        self.start(arguments).finish(limit)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The library that is preloaded into unmodified programs: the file that `SOFTRDMA_SMC_LIBRARY` names, or else the one
/// of this tree, built for the occasion. `None` in a tree without it.
pub fn smc_library() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("SOFTRDMA_SMC_LIBRARY") {
        let path = PathBuf::from(path);
        let path = path.canonicalize();
        return Some(path.unwrap_or_else(|error| panic!("SOFTRDMA_SMC_LIBRARY: {error}")));
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bins/smc-preload/Cargo.toml");
    if !manifest.exists() {
        return None;
    }
    let messages = build("softrdma-smc-preload", "softrdma_smc", &[]);
    let mut files = messages.iter().flat_map(|message| message["filenames"].as_array().into_iter().flatten());
    let library = files.find_map(|file| file.as_str().filter(|file| file.ends_with(".so")).map(PathBuf::from));
    Some(library.expect("cargo named no library"))
}

/// Builds `package` in the profile of this package: cargo's own messages about its target of that name.
fn build(package: &str, target: &str, features: &[&str]) -> Vec<Value> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", package, "--message-format", "json-render-diagnostics"]);
    cargo.args(features);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("run cargo");
    assert!(output.status.success(), "cargo build {package}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == target)
        .collect()
}

/// Reads a pipe to its end, so that the program never waits for us.
#[derive(Debug)]
struct Reader {
    thread: thread::JoinHandle<()>,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Reader {
    /// All that it has read so far.
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// All that there was to read.
    fn finish(self) -> String {
        let Self { thread, said } = self;
        // What it had read is there even if it panicked.
        let _ = thread.join();
        String::from_utf8_lossy(&said.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> Reader {
    let said = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&said);
    let thread = thread::spawn(move || {
        let mut chunk = [0; 4096];
        let Some(mut pipe) = pipe else { return };
        // A pipe that breaks ends the text there.
        while let Ok(length @ 1..) = pipe.read(&mut chunk) {
            shared.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk[..length]);
        }
    });
    Reader { thread, said }
}

/// A program that was started. Dropping it ends it and what it started.
#[derive(Debug)]
pub struct Running {
    child: Child,
    readers: Option<[Reader; 2]>,
}

impl Running {
    /// Waits for its end, for `limit` at most, then ends it.
    pub fn finish(mut self, limit: Duration) -> Outcome {
        let status = self.wait(limit);
        self.end();
        let [output, errors] = self.readers.take().expect("taken here only").map(Reader::finish);
        Outcome { status, output, errors }
    }

    /// Asks it to end and waits for that, for `limit` at most.
    pub fn stop(self, limit: Duration) -> Outcome {
        if let Some(process) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It has ended by itself if it cannot be asked.
            let _ = kill_process(process, Signal::TERM);
        }
        self.finish(limit)
    }

    /// Waits until its standard error holds `text`; whether it came to that within `limit`.
    pub fn has_said(&mut self, text: &str, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let said = |running: &Self| running.readers.as_ref().is_some_and(|[_, errors]| errors.text().contains(text));
        while !said(self) {
            if Instant::now() >= deadline || !self.is_running() {
                return said(self);
            }
            thread::sleep(LOOK_EVERY);
        }
        true
    }

    /// Names its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return Some(status);
            }
            thread::sleep(LOOK_EVERY);
        }
        None
    }

    fn end(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // The group is gone if all of it has ended.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

impl Outcome {
    /// The JSON objects that it printed, one a line; panics with all that it said if it did not end well.
    pub fn rows(&self) -> Vec<Value> {
        assert!(self.status.is_some_and(|status| status.success()), "{self}");
        let rows: Result<Vec<Value>, _> = self.output.lines().map(serde_json::from_str).collect();
        rows.unwrap_or_else(|error| panic!("no JSON line: {error}\n{self}"))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.status {
            Some(status) => writeln!(f, "{status}")?,
            None => writeln!(f, "did not end in time")?,
        }
        write!(f, "--- standard output\n{}--- standard error\n{}", self.output, self.errors)
    }
}
