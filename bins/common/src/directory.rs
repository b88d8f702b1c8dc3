//! Where a running process keeps its sockets.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;

/// Why there is no directory for sockets.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be made.
    #[error("cannot make the directory {path}: {source}; set XDG_RUNTIME_DIR to a directory that you may write to")]
    Create {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else's directory stands in its place.
    #[error("{path} belongs to user {owner}, not to you: remove it, or set XDG_RUNTIME_DIR")]
    ForeignOwner {
        /// Which one.
        path: PathBuf,
        /// The owner's number.
        owner: u32,
    },
}

/// `$XDG_RUNTIME_DIR/softrdma`, or `/tmp/softrdma-UID` where that variable is not set or names no directory that the user may use.
pub fn path() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(base) if is_writable_directory(&base) => base.join("softrdma"),
        _ => std::env::temp_dir().join(format!("softrdma-{}", user())),
    }
}

/// Makes [`path`], for its owner only.
pub fn create() -> Result<PathBuf, DirectoryError> {
    let path = path();
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(DirectoryError::Create { path, source }),
    }
    // Below a directory that anybody can write to, somebody else may have been first; a link is not followed.
    let metadata =
        fs::symlink_metadata(&path).map_err(|source| DirectoryError::Create { path: path.clone(), source })?;
    if metadata.uid() != user() || !metadata.is_dir() {
        return Err(DirectoryError::ForeignOwner { path, owner: metadata.uid() });
    }
    Ok(path)
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn is_writable_directory(path: &std::path::Path) -> bool {
    path.is_absolute() && path.is_dir() && rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}
