//! DPDK's environment (EAL), started once per process.

use std::collections::VecDeque;
use std::ffi::CString;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lines of DPDK's log that are kept for error messages.
const KEPT_LOG_LINES: usize = 64;
/// DPDK's log level for errors; smaller is worse.
const LOG_ERROR: u32 = 4;
/// Bytes in a MiB.
const MIB: u64 = 1 << 20;

/// Whether DPDK's memory comes from huge pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// Normal pages: needs neither root nor preparation. Enough for virtual devices; NICs want huge pages.
    Off,
    /// Huge pages, or an error that says how to get them.
    On,
    /// Huge pages if enough of them are free, else normal pages.
    #[default]
    Auto,
}

/// What the EAL is started with.
#[derive(Clone, Debug)]
pub struct EalConfig {
    /// Where its memory comes from.
    pub huge_pages: HugePages,
    /// Memory for all pools and rings of this process, in MiB.
    pub memory_mib: u32,
    /// Name that keeps the files of DPDK processes apart; made up from the process id if `None`.
    pub file_prefix: Option<String>,
    /// PCI addresses (`0000:3b:00.0`) that this process may take. No other device is touched; none: PCI is not looked at.
    pub pci: Vec<String>,
    /// More EAL arguments, for what this structure does not say.
    pub extra_arguments: Vec<String>,
}

impl Default for EalConfig {
    fn default() -> Self {
        Self {
            huge_pages: HugePages::Auto,
            memory_mib: 512,
            file_prefix: None,
            pci: Vec::new(),
            extra_arguments: Vec::new(),
        }
    }
}

/// Why there is no EAL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EalError {
    /// Huge pages were asked for and there are too few.
    #[error(
        "{wanted_mib} MiB of huge pages are wanted and {free_mib} MiB are free: as root, \
         `echo {pages} > /proc/sys/vm/nr_hugepages`, or set `huge_pages` to `off`"
    )]
    TooFewHugePages {
        /// What was asked for, in MiB.
        wanted_mib: u64,
        /// What there is, in MiB.
        free_mib: u64,
        /// Pages of the default size that would do.
        pages: u64,
    },
    /// An argument holds a NUL byte.
    #[error("EAL argument {argument:?} holds a NUL byte")]
    Argument {
        /// Which.
        argument: String,
    },
    /// DPDK refused to start, now or when it was tried first.
    #[error(
        "DPDK did not start with `{arguments}`: {reason}. It can be tried once in the life of a process: correct the \
         configuration (`[eal]`) and start the process anew{log}"
    )]
    Refused {
        /// What it was started with.
        arguments: String,
        /// Its error number, in words.
        reason: String,
        /// What it logged, each line after a line break; may be empty.
        log: String,
    },
}

/// Proof that the EAL of this process runs. Cheap to clone; dropping it does nothing, as the EAL cannot be started twice.
#[derive(Clone, Debug)]
pub struct Eal {
    started_by_us: bool,
}

impl Eal {
    /// Starts the EAL, or takes the one that this process has already, whoever started it: `config` is then not looked at.
    ///
    /// It starts once: what DPDK refused is refused for ever ([`EalError::Refused`]), whatever a later `config` says. Other errors
    /// come before anything was started, and leave it open.
    ///
    /// The calling thread keeps its CPU affinity. No signal handler is installed and nothing is left in the file system
    /// but an empty run-time folder, removed at once.
    pub fn init(config: &EalConfig) -> Result<Self, EalError> {
        static OUTCOME: Mutex<Option<Result<Eal, EalError>>> = Mutex::new(None);
        let mut outcome = OUTCOME.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = &*outcome {
            return outcome.clone();
        }
        // Asked before the first start of ours: after it DPDK calls itself initialised even if it failed half way.
        if dpdk_sys::environment::is_initialised() {
            return outcome.insert(Ok(Self { started_by_us: false })).clone();
        }
        let start = Start::new(config)?;
        outcome.insert(start.run().map(|()| Self { started_by_us: true })).clone()
    }

    /// Whether [`Self::init`] started the EAL; else the application did, in its own way.
    pub fn is_started_by_us(&self) -> bool {
        self.started_by_us
    }

    /// DPDK's name and version, as `DPDK 22.11.11`.
    pub fn version(&self) -> &'static str {
        dpdk_sys::environment::version()
    }
}

/// What of DPDK one thread at a time may use, while this lives: its lists of devices, which it changes without a lock (22.11),
/// and its log, which does not tell whose call a line is about.
///
/// Not to be kept while waiting for a peer: another thread of this process may be about to open it.
#[derive(Debug)]
pub(crate) struct Exclusive {
    _turn: MutexGuard<'static, ()>,
}

impl Exclusive {
    /// Waits for its turn. What was logged before is forgotten.
    pub(crate) fn wait() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        LOG.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Self { _turn: turn }
    }

    /// What DPDK has logged since, each line after a line break.
    pub(crate) fn logged(&self) -> String {
        let lines = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().fold(String::new(), |text, line| text + "\n  " + line)
    }
}

static LOG: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

fn receive_log(level: u32, text: &str) {
    let text = text.trim_end();
    if text.is_empty() {
        return;
    }
    if level <= LOG_ERROR {
        // The caller of the failed operation gets it in a typed error; here it is for those who trace.
        tracing::debug!(target: "softrdma::dpdk", level, "{text}");
    } else {
        tracing::trace!(target: "softrdma::dpdk", level, "{text}");
    }
    let mut lines = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    if lines.len() == KEPT_LOG_LINES {
        lines.pop_front();
    }
    lines.push_back(text.to_owned());
}

/// A start that DPDK has not seen yet.
struct Start {
    prefix: String,
    arguments: Vec<String>,
    given: Vec<CString>,
}

impl Start {
    fn new(config: &EalConfig) -> Result<Self, EalError> {
        let prefix = config.file_prefix.clone().unwrap_or_else(|| format!("softrdma-{}", std::process::id()));
        let arguments = arguments(config, &prefix, use_huge_pages(config)?);
        let given = arguments
            .iter()
            .map(|argument| {
                CString::new(argument.as_str()).map_err(|_| EalError::Argument { argument: argument.clone() })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { prefix, arguments, given })
    }

    fn run(self) -> Result<(), EalError> {
        let exclusive = Exclusive::wait();
        dpdk_sys::log::redirect(receive_log);
        // The EAL pins the thread that starts it; that thread is the application's, and the application knows better.
        let affinity = rustix::thread::sched_getaffinity(None);
        let outcome = dpdk_sys::environment::initialise(self.given);
        if let Ok(affinity) = affinity {
            let _ = rustix::thread::sched_setaffinity(None, &affinity);
        }
        remove_run_folder(&self.prefix);
        outcome.map_err(|error| EalError::Refused {
            arguments: self.arguments[1..].join(" "),
            reason: dpdk_sys::error_text(error),
            log: exclusive.logged(),
        })
    }
}

fn arguments(config: &EalConfig, prefix: &str, huge: bool) -> Vec<String> {
    let mut arguments: Vec<String> = ["softrdma", "--no-telemetry", "--iova-mode=va"].map(String::from).to_vec();
    arguments.push(format!("--lcores=0@{}", allowed_cpus()));
    arguments.push(format!("--file-prefix={prefix}"));
    arguments.extend(["-m".to_owned(), config.memory_mib.to_string()]);
    if huge {
        arguments.push("--in-memory".to_owned());
    } else {
        // DPDK refuses --in-memory together with --no-huge; this does the same.
        arguments.extend(["--no-huge", "--no-shconf"].map(String::from));
    }
    if config.pci.is_empty() {
        arguments.push("--no-pci".to_owned());
    }
    for address in &config.pci {
        arguments.extend(["-a".to_owned(), address.clone()]);
    }
    arguments.extend(config.extra_arguments.iter().cloned());
    arguments
}

/// The CPUs that this thread may run on, as `(0,1,3)`: DPDK's threads may then run there too, and on no other.
fn allowed_cpus() -> String {
    let cpus: Vec<String> = match rustix::thread::sched_getaffinity(None) {
        Ok(set) => {
            (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).map(|cpu| cpu.to_string()).collect()
        }
        Err(_) => vec!["0".to_owned()],
    };
    format!("({})", cpus.join(","))
}

fn use_huge_pages(config: &EalConfig) -> Result<bool, EalError> {
    let wanted_mib = u64::from(config.memory_mib);
    let (free_pages, page_size) = free_huge_pages();
    let free_mib = free_pages * page_size / MIB;
    match config.huge_pages {
        HugePages::Off => Ok(false),
        HugePages::Auto => Ok(free_mib >= wanted_mib),
        HugePages::On if free_mib >= wanted_mib => Ok(true),
        HugePages::On => {
            let pages = (wanted_mib * MIB).div_ceil(page_size.max(1));
            Err(EalError::TooFewHugePages { wanted_mib, free_mib, pages })
        }
    }
}

/// Free huge pages of the default size, and that size in bytes.
fn free_huge_pages() -> (u64, u64) {
    const DEFAULT_PAGE_SIZE: u64 = 2 * MIB;
    let information = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let value = |key: &str| {
        let line = information.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    (value("HugePages_Free:").unwrap_or(0), value("Hugepagesize:").map_or(DEFAULT_PAGE_SIZE, |kib| kib << 10))
}

/// DPDK makes a folder for its run-time files even when told to make none. It is empty; it would be left behind.
fn remove_run_folder(prefix: &str) {
    let is_root = rustix::process::getuid().is_root();
    let base = std::env::var("RUNTIME_DIRECTORY").ok().unwrap_or_else(|| match is_root {
        true => "/var/run".to_owned(),
        false => std::env::var("XDG_RUNTIME_DIR").unwrap_or_else(|_| "/tmp".to_owned()),
    });
    // Fails, as it should, when something is in it.
    let _ = std::fs::remove_dir(format!("{base}/dpdk/{prefix}"));
}
