//! The processes there are, and what cannot be seen of them.

use std::process::ExitCode;

use clap::Args;
use softrdma_smc::statistics::{Process, ProcessError, join_ends, process, processes};

/// Which processes are looked at.
#[derive(Args, Debug)]
pub(crate) struct Selection {
    /// Only the process with this id (may be given several times).
    #[arg(long = "pid", value_name = "PID", global = true)]
    ids: Vec<u32>,
}

/// What was seen of the processes.
pub(crate) struct Observation {
    pub(crate) processes: Vec<Process>,
    /// Whether all that there was could be read.
    pub(crate) is_whole: bool,
    /// All that can be seen, if more than was asked for is needed: the other ends.
    all: Vec<Process>,
}

/// Looks at the processes that are selected and may be looked at. What is wrong goes to standard error, in the name
/// of `tool`.
pub(crate) fn look(tool: &str, selection: &Selection) -> Observation {
    let mut observation = Observation { processes: Vec::new(), is_whole: true, all: Vec::new() };
    let all = match selection.ids.as_slice() {
        [] => processes().unwrap_or_else(|error| {
            eprintln!("{tool}: cannot look at processes in /proc: {error}");
            observation.is_whole = false;
            Vec::new()
        }),
        ids => ids.iter().filter_map(|id| chosen(tool, *id, &mut observation.is_whole)).collect(),
    };
    for process in all {
        match process {
            Ok(process) => observation.processes.push(process),
            Err(error) => {
                eprintln!("{tool}: {error}");
                observation.is_whole = false;
            }
        }
    }
    if observation.processes.is_empty() && observation.is_whole {
        eprintln!("{tool}: no process of {} runs with SMC: start one with smc_run", users());
    }
    observation
}

/// A process that was asked for by its number must be there.
fn chosen(tool: &str, id: u32, is_whole: &mut bool) -> Option<Result<Process, ProcessError>> {
    let found = process(id).transpose();
    if found.is_none() {
        eprintln!("{tool}: process {id} does not run with SMC, or may not be looked at");
        *is_whole = false;
    }
    found
}

impl Observation {
    /// Completes the sockets by what their other ends say, whether those were asked for or not.
    pub(crate) fn join_ends(&mut self) {
        self.look_at_all();
        join_ends(&mut self.processes, &self.all);
    }

    /// The process that goes by `gid`, after [`Self::look_at_all`].
    pub(crate) fn with_gid(&self, gid: u64) -> Option<&Process> {
        self.all.iter().find(|process| gid != 0 && process.snapshot.gid == gid)
    }

    /// What cannot be read here is said where it was asked for.
    pub(crate) fn look_at_all(&mut self) {
        if self.all.is_empty() {
            self.all = processes().unwrap_or_default().into_iter().flatten().collect();
        }
    }

    /// Fails if something could not be read.
    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Whose processes can be seen.
fn users() -> String {
    match rustix::process::geteuid() {
        user if user.is_root() => "any user".to_owned(),
        user => format!("user {}", user.as_raw()),
    }
}
