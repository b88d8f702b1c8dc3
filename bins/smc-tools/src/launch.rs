//! `smc_run`, which `softrdma run --smc` is too: starts a program with the library in it.
//!
//! The program takes the place of this process: same id, same descriptors, and its exit status is its own.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Args;

use crate::executable::{self, Inspection};
use crate::library;

/// Shown below the help of `smc_run`.
pub const EXAMPLES: &str = "\
Examples:
  A server and its client; both need it, as the same user, or their connections stay TCP:
    smc_run redis-server --port 6379
    smc_run redis-benchmark -p 6379
  With a policy of its own, for all that the program starts too:
    smc_run --policy smc-policy.toml nginx
  Everything that goes through memory in a file for tshark or Wireshark:
    smc_run --capture redis.pcap redis-server --port 6379

Which connections are moved, and when, a policy says: /etc/softrdma/smc-policy.toml, --policy, or one variable for \
each of its settings, such as SOFTRDMA_SMC_UPGRADE_AFTER. Programs that the library cannot serve are started as they are: \
-v says so.
Exit status: the program's; 127 if it is not found, 126 if it cannot be run, 125 if there is no library.";

/// How the library learns where to write.
const CAPTURE_VARIABLE: &str = "SOFTRDMA_SMC_CAPTURE";

const OWN_FAILURE: u8 = 125;
const NOT_RUNNABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Starts a program whose TCP connections go through shared memory where the other end can do so too.
#[derive(Args, Debug)]
pub struct LaunchArguments {
    /// The library says what it does.
    #[arg(short, long)]
    pub debug: bool,
    /// Says what is started and how, and why a program is started without the library.
    #[arg(short, long)]
    pub verbose: bool,
    /// The file that says which connections are moved.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Writes what goes through memory to a pcap file, for debugging: %p in its name is the process's number. What is in
    /// the file is replaced.
    #[arg(long, value_name = "FILE")]
    pub capture: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_names = ["PROGRAM", "ARGUMENT"])]
    pub program: Vec<OsString>,
}

/// Becomes the program. Comes back only if that fails, having said why in the name of `tool`.
pub fn run(tool: &str, arguments: &LaunchArguments) -> ExitCode {
    let Some((program, rest)) = arguments.program.split_first() else { return ExitCode::from(OWN_FAILURE) };
    let say = |text: String| {
        if arguments.verbose {
            eprintln!("{tool}: {text}");
        }
    };
    let name = program.to_string_lossy();
    let mut command = Command::new(program);
    command.args(rest);
    match executable::inspect(program) {
        Some(Inspection { bypass: Some(bypass), .. }) => say(format!("{name} {bypass}: it runs without SMC")),
        inspection => {
            let library = match library::find() {
                Ok(library) => library,
                Err(error) => {
                    eprintln!("{tool}: {error}");
                    return ExitCode::from(OWN_FAILURE);
                }
            };
            if inspection.is_some_and(|inspection| inspection.uses_io_uring) {
                say(format!("{name} may use io_uring: connections that go that way stay TCP"));
            }
            let preload = library::preload(&library, env::var_os("LD_PRELOAD").as_deref());
            say(format!("{name} runs with LD_PRELOAD={}", preload.to_string_lossy()));
            command.env("LD_PRELOAD", preload);
        }
    }
    if let Err(problem) = set_variables(&mut command, arguments) {
        eprintln!("{tool}: {problem}");
        return ExitCode::from(OWN_FAILURE);
    }
    let error = command.exec();
    eprintln!("{tool}: cannot run {name}: {error}");
    ExitCode::from(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE })
}

/// A policy that cannot be understood is said here, where somebody reads it.
fn set_variables(command: &mut Command, arguments: &LaunchArguments) -> Result<(), String> {
    use softrdma_smc::policy::{FILE_VARIABLE, Policy};
    if arguments.debug {
        command.env("SOFTRDMA_SMC_VERBOSE", "1");
    }
    let file = match &arguments.policy {
        None => env::var_os(FILE_VARIABLE),
        // The program may have another directory when it looks.
        Some(path) => {
            let whole = std::fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()))?;
            command.env(FILE_VARIABLE, &whole);
            Some(whole.into_os_string())
        }
    };
    if let Some(path) = &arguments.capture {
        let whole = std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))?;
        match std::fs::remove_file(&whole) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(format!("cannot replace {}: {error}", whole.display()));
            }
            _ => command.env(CAPTURE_VARIABLE, whole),
        };
    }
    let variable = |name: &str| match name {
        FILE_VARIABLE => file.as_deref().map(OsStr::to_string_lossy).map(Into::into),
        _ => env::var(name).ok(),
    };
    Policy::of_process(variable).map(drop).map_err(|error| error.to_string())
}
