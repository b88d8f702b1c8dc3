//! The processes there are, and what cannot be seen of them.

use std::process::ExitCode;

use softrdma_smc::statistics::{Process, processes};

/// What was seen of the processes.
pub(crate) struct Observation {
    pub(crate) processes: Vec<Process>,
    /// Whether all that there was could be read.
    pub(crate) is_whole: bool,
}

/// Looks at every process whose page may be looked at. What is wrong goes to standard error, in the name of `tool`.
pub(crate) fn look(tool: &str) -> Observation {
    let mut observation = Observation { processes: Vec::new(), is_whole: true };
    match processes() {
        Ok(all) => {
            for process in all {
                match process {
                    Ok(process) => observation.processes.push(process),
                    Err(error) => {
                        eprintln!("{tool}: {error}");
                        observation.is_whole = false;
                    }
                }
            }
        }
        Err(error) => {
            eprintln!("{tool}: cannot look at processes in /proc: {error}");
            observation.is_whole = false;
        }
    }
    if observation.processes.is_empty() && observation.is_whole {
        eprintln!("{tool}: no process of {} runs with SMC: start one with smc_run", users());
    }
    observation
}

impl Observation {
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
