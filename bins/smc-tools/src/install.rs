//! `softrdma-smc install`: the tools' usual names.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use softrdma_bins_common::output;

use crate::tool::{NAMES, PROGRAM};

#[derive(Args, Debug)]
pub(crate) struct InstallArguments {
    /// Where the links are made.
    directory: PathBuf,
    /// Takes the place of whatever has such a name there, as that of another SMC.
    #[arg(long)]
    force: bool,
}

/// Why a link is not made.
#[derive(Debug, thiserror::Error)]
enum InstallError {
    #[error("cannot say where this program is: {0}")]
    Program(io::Error),
    #[error("{0} is there already and is not a link to this program: remove it, or use --force")]
    Taken(PathBuf),
    #[error("cannot make {path}: {source}")]
    Link { path: PathBuf, source: io::Error },
}

pub(crate) fn run(arguments: &InstallArguments) -> ExitCode {
    match install(&arguments.directory, arguments.force) {
        Ok(links) => {
            links.iter().for_each(|link| output::line(link.display()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{PROGRAM}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn install(directory: &Path, force: bool) -> Result<Vec<PathBuf>, InstallError> {
    let program = std::env::current_exe().and_then(fs::canonicalize).map_err(InstallError::Program)?;
    let links: Vec<_> = NAMES.iter().map(|name| directory.join(name)).collect();
    // All or none: nothing is made if a name is taken.
    let is_ours = |link: &Path| fs::read_link(link).is_ok_and(|target| target == program);
    if let Some(taken) = links.iter().find(|link| !force && link.symlink_metadata().is_ok() && !is_ours(link)) {
        return Err(InstallError::Taken(taken.clone()));
    }
    for link in &links {
        make(&program, link).map_err(|source| InstallError::Link { path: link.clone(), source })?;
    }
    Ok(links)
}

fn make(program: &Path, link: &Path) -> io::Result<()> {
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(program, link)
}
