//! Whether a process that runs is served, and if not, why.

use std::fs;
use std::path::PathBuf;

use softrdma_smc::statistics::{Counter, process};

use super::Finding;
use crate::executable::{self, Inspection};

/// What a process that has loaded the library has mapped: its file, as it is usually called, and the page that it shows.
const MAPPED: [&str; 2] = ["/libsoftrdma_smc.so", "/memfd:softrdma-smc"];

/// What the link of a descriptor of io_uring's shows.
const IO_URING: &str = "anon_inode:[io_uring]";

/// What is found out; a text if there is no such process.
pub(super) fn look(id: u32) -> Result<Vec<Finding>, String> {
    let directory = PathBuf::from(format!("/proc/{id}"));
    let name = fs::read_to_string(directory.join("comm")).map_err(|_| format!("there is no process {id}"))?;
    let maps = fs::read_to_string(directory.join("maps"))
        .map_err(|error| format!("process {id} ({}) may not be looked at: {error}", name.trim_end()))?;
    let is_loaded = maps.lines().any(|line| MAPPED.iter().any(|name| line.contains(name)));
    let mut findings = vec![library(&directory, name.trim_end(), is_loaded)];
    if is_loaded {
        findings.extend([shown(id), system_calls(&directory)]);
    }
    Ok(findings)
}

fn library(directory: &std::path::Path, name: &str, is_loaded: bool) -> Finding {
    if is_loaded {
        return Finding::well("library", format!("{name} has loaded it"));
    }
    let inspection = executable::inspect(directory.join("exe").as_os_str());
    match inspection.and_then(|Inspection { bypass, .. }| bypass) {
        Some(bypass) => {
            Finding::missing("library", format!("{name} {bypass}"), "it cannot be served: it stays with TCP")
        }
        None => Finding::missing("library", format!("{name} runs without it"), "start it with smc_run"),
    }
}

fn shown(id: u32) -> Finding {
    let name = "connections";
    match process(id) {
        Ok(Some(process)) => {
            let get = |counter| process.snapshot.counters.get(counter);
            let moved = get(Counter::AcceleratedAsClient) + get(Counter::AcceleratedAsServer);
            Finding::well(name, format!("{moved} of {} went through shared memory", get(Counter::ConnectionsSeen)))
        }
        Ok(None) => Finding::missing(
            name,
            "it has the library and shows nothing",
            "its policy is not understood, or it may not make files in memory: see what it wrote when it began",
        ),
        Err(error) => Finding::missing(name, error.to_string(), "use the tools of the same build"),
    }
}

/// Those that pass the library by.
fn system_calls(directory: &std::path::Path) -> Finding {
    let name = "system calls";
    let descriptors = fs::read_dir(directory.join("fd")).into_iter().flatten().flatten();
    let rings = descriptors.filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == IO_URING));
    match rings.count() {
        0 => Finding::well(name, "go through libc, as far as can be seen: it has no io_uring"),
        count => Finding::missing(
            name,
            format!("it has {count} of io_uring, which the library does not see"),
            "connections that it uses that way stay TCP: give them a rule with action = \"tcp\", or turn io_uring off",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_uring_is_known_by_its_descriptors() {
        let directory = std::env::temp_dir().join(format!("smc-chk-{}", std::process::id()));
        fs::create_dir_all(directory.join("fd")).unwrap();
        std::os::unix::fs::symlink("socket:[1]", directory.join("fd/3")).unwrap();
        assert!(system_calls(&directory).is_well);
        std::os::unix::fs::symlink(IO_URING, directory.join("fd/4")).unwrap();
        let finding = system_calls(&directory);
        fs::remove_dir_all(&directory).unwrap();
        assert!(!finding.is_well && finding.detail.contains("has 1 of io_uring"), "{finding:?}");
    }

    #[test]
    fn who_runs_without_the_library_is_told_how_to_get_it() {
        let findings = look(std::process::id()).unwrap();
        assert!(matches!(findings.as_slice(), [Finding { name: "library", is_well: false, .. }]), "{findings:?}");
        // A number that no process can have.
        assert!(look(u32::MAX).is_err());
    }
}
