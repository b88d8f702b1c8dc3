//! Where the preload library is.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::executable::{self, NotALibrary};

/// Names the library, instead of where it is looked for.
pub(crate) const VARIABLE: &str = "SOFTRDMA_SMC_LIBRARY";

const FILE: &str = "libsoftrdma_smc.so";

/// Why there is no library.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LibraryError {
    #[error(
        "cannot find {FILE}: looked for {}; build it (cargo build --release -p softrdma-smc-preload) or set {VARIABLE}",
        .looked_for.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and ")
    )]
    NotFound { looked_for: Vec<PathBuf> },
    #[error("{VARIABLE} names {path}, which cannot be used: {source}")]
    Named { path: PathBuf, source: std::io::Error },
    #[error("{path} cannot be loaded into programs: {source}")]
    NotALibrary { path: PathBuf, source: NotALibrary },
    #[error(
        "the loader takes spaces, colons and dollar signs in LD_PRELOAD for its own: move the library out of {path}"
    )]
    Unspeakable { path: PathBuf },
}

/// The library's path: what [`VARIABLE`] names; or beside this program, or in `../lib/softrdma` from there.
pub(crate) fn find() -> Result<PathBuf, LibraryError> {
    let path = match env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        Some(named) => fs::canonicalize(&named).map_err(|source| LibraryError::Named { path: named.into(), source })?,
        None => find_beside(&env::current_exe().and_then(fs::canonicalize).unwrap_or_default())?,
    };
    executable::check_library(&path).map_err(|source| LibraryError::NotALibrary { path: path.clone(), source })?;
    match path.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b' ' | b':' | b'$')) {
        true => Err(LibraryError::Unspeakable { path }),
        false => Ok(path),
    }
}

fn find_beside(program: &Path) -> Result<PathBuf, LibraryError> {
    let directory = program.parent().unwrap_or(Path::new("/"));
    let looked_for = vec![directory.join(FILE), directory.join("../lib/softrdma").join(FILE)];
    match looked_for.iter().find_map(|path| fs::canonicalize(path).ok()) {
        Some(path) => Ok(path),
        None => Err(LibraryError::NotFound { looked_for }),
    }
}

/// What LD_PRELOAD is to be: the library in front of what there is already.
pub(crate) fn preload(library: &Path, existing: Option<&OsStr>) -> OsString {
    let is_separator = |byte: &u8| matches!(byte, b' ' | b':');
    let existing = existing.unwrap_or_default();
    if existing.as_bytes().split(is_separator).any(|one| one == library.as_os_str().as_bytes()) {
        return existing.to_owned();
    }
    let mut all = library.as_os_str().to_owned();
    if !existing.is_empty() {
        all.push(":");
        all.push(existing);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_preloaded_already_stays_and_is_not_doubled() {
        let library = Path::new("/lib/libsoftrdma_smc.so");
        for (existing, expected) in [
            (None, "/lib/libsoftrdma_smc.so"),
            (Some(""), "/lib/libsoftrdma_smc.so"),
            (Some("libasan.so"), "/lib/libsoftrdma_smc.so:libasan.so"),
            (Some("a.so /lib/libsoftrdma_smc.so"), "a.so /lib/libsoftrdma_smc.so"),
        ] {
            assert_eq!(preload(library, existing.map(OsStr::new)), expected);
        }
    }

    #[test]
    fn who_does_not_find_it_is_told_where_it_was_looked_for() {
        let error = find_beside(Path::new("/nonexistent/bin/smc_run")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/bin/libsoftrdma_smc.so"), "{error}");
        assert!(error.contains("/nonexistent/bin/../lib/softrdma/libsoftrdma_smc.so"), "{error}");
        assert!(error.contains(VARIABLE), "{error}");
    }
}
