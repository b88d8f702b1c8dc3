//! What this machine, this user and this installation allow.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use softrdma_smc::policy::{FILE_VARIABLE, Policy, SYSTEM_FILE};
use softrdma_smc::shared_memory::{PAGE, Region};
use softrdma_smc::statistics::processes;

use super::Finding;
use crate::library;

pub(super) fn look() -> Vec<Finding> {
    vec![memory(), abstract_sockets(), processes_in_proc(), user(), library_found(), policy()]
}

fn memory() -> Finding {
    let name = "shared memory";
    let shared = Region::create("softrdma-smc-check", PAGE)
        .and_then(|(_, memory)| Region::attach(memory, PAGE).map_err(std::io::Error::other));
    match shared {
        Ok(_) => Finding::well(name, "files in memory (memfd) whose size can be sealed"),
        Err(error) => Finding::missing(name, error.to_string(), "needs memfd_create with seals: Linux 3.17 or later"),
    }
}

fn abstract_sockets() -> Finding {
    let name = "rendezvous";
    let text = format!("softrdma-smc-check/{}", std::process::id());
    let bound = SocketAddrUnix::new_abstract_name(text.as_bytes()).and_then(|address| {
        bind(socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?, &address)
    });
    match bound {
        Ok(()) => Finding::well(name, "abstract unix sockets, by which the two ends of a connection meet"),
        Err(error) => Finding::missing(name, error.to_string(), "needs unix sockets with abstract names"),
    }
}

fn processes_in_proc() -> Finding {
    let name = "statistics";
    match processes() {
        Ok(all) => Finding::well(name, format!("/proc, where processes are found: {} of them run with SMC", all.len())),
        Err(error) => Finding::missing(name, format!("/proc: {error}"), "mount proc: smcss and smcd look there"),
    }
}

fn user() -> Finding {
    let user = rustix::process::geteuid().as_raw();
    Finding::well("user", format!("{user}: connections between its processes are accelerated, and no others"))
}

/// A library that is there may still miss something that the loader needs.
fn library_found() -> Finding {
    let name = "library";
    let path = match library::find() {
        Ok(path) => path,
        Err(error) => return Finding::missing(name, "not found", error.to_string()),
    };
    match problem_of_loader(&path) {
        None => Finding::well(name, path.display().to_string()),
        Some(problem) => Finding::missing(name, problem, "build it on this system, or install what it needs"),
    }
}

/// The loader complains about what it cannot preload, and goes on.
fn problem_of_loader(library: &Path) -> Option<String> {
    let program = env::current_exe().ok()?;
    let run = Command::new(program).arg("--version").env("LD_PRELOAD", library).stdin(Stdio::null()).output().ok()?;
    let said = String::from_utf8_lossy(&run.stderr);
    let complaint = said.lines().find(|line| line.contains("ld.so") || line.contains("symbol lookup error"));
    match (run.status.success(), complaint) {
        (_, Some(complaint)) => Some(complaint.to_owned()),
        (false, None) => Some(format!("{} ends programs when it is loaded: {}", library.display(), run.status)),
        (true, None) => None,
    }
}

fn policy() -> Finding {
    let name = "policy";
    let named = env::var(FILE_VARIABLE).ok().filter(|path| !path.is_empty());
    let from = match &named {
        Some(path) => path.as_str(),
        None if Path::new(SYSTEM_FILE).exists() => SYSTEM_FILE,
        None => "the defaults",
    };
    match Policy::of_process(|name| env::var(name).ok()) {
        Ok(policy) => {
            let after = match policy.upgrade_after {
                0 => "at once".to_owned(),
                count => format!("after {count} transfers"),
            };
            let (rules, ring) = (policy.rules.len(), policy.ring_bytes.get());
            Finding::well(name, format!("{from}: {rules} rules, connections move {after}, rings of {ring} bytes"))
        }
        Err(error) => Finding::missing(name, error.to_string(), "mend it: the sample in configs/ has all settings"),
    }
}
