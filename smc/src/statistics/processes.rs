//! The pages there are: found through the descriptors of processes.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, fstat, fstatfs, open, openat, readlinkat};
use rustix::io::{Errno, read};

use super::{NAME, ReadError, Snapshot, lookup};

/// The system in which memfds are.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Pages that a process may have before no more are looked at: its own, and what it inherited.
const CANDIDATES: usize = 32;

/// How much of a file of /proc is read at once, in bytes.
const READ_BYTES: usize = 1 << 16;

/// A process that has a page.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its id, in the reader's numbering.
    pub id: u32,
    /// The user it runs as.
    pub user: u32,
    /// When it was started, in ticks since the machine was: with the id, no other process is called the same.
    pub started: u64,
    /// What its page says.
    pub snapshot: Snapshot,
}

/// A process whose page cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("process {id}: {reason}")]
pub struct ProcessError {
    /// Its id.
    pub id: u32,
    /// Why not.
    pub reason: ReadError,
}

/// The processes that have a page and whose descriptors this process may look at (those of the same user; all, for
/// root), in the order of their ids. Fails if there is no /proc.
pub fn processes() -> Result<Vec<Result<Process, ProcessError>>, Errno> {
    let mut ids = numbers_in(open("/proc", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?);
    ids.sort_unstable();
    Ok(ids.into_iter().filter_map(|id| process(id).transpose()).collect())
}

/// The page of one process; `None` if it has none, is gone, or may not be looked at.
pub fn process(id: u32) -> Result<Option<Process>, ProcessError> {
    let Ok(directory) = open_directory(CWD, &format!("/proc/{id}")) else { return Ok(None) };
    let Ok(descriptors) = open_directory(&directory, "fd") else { return Ok(None) };
    let (Ok(status), own_id) = (fstat(&directory), own_id(&directory).unwrap_or(id)) else { return Ok(None) };
    let mut problem = None;
    for number in numbers_of_pages(&descriptors) {
        match open_page(&descriptors, number).map(Snapshot::read) {
            // A child that has not made a page of its own has its parent's.
            Some(Ok(mut snapshot)) if snapshot.process == own_id => {
                lookup::complete(&directory, &descriptors, &mut snapshot.sockets);
                let started = started(&directory).unwrap_or(0);
                return Ok(Some(Process { id, user: status.st_uid, started, snapshot }));
            }
            Some(Err(reason)) => problem = Some(ProcessError { id, reason }),
            Some(Ok(_)) | None => {}
        }
    }
    problem.map_or(Ok(None), Err)
}

fn open_directory(at: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// The entries of a directory that are numbers.
fn numbers_in(directory: OwnedFd) -> Vec<u32> {
    let entries = Dir::new(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| number(entry.file_name())).collect()
}

fn number(name: &CStr) -> Option<u32> {
    name.to_str().ok()?.parse().ok()
}

/// The first descriptors that are called as a page is.
fn numbers_of_pages(descriptors: &OwnedFd) -> Vec<u32> {
    let is_page = |number: &u32| {
        let link = readlinkat(descriptors, number.to_string(), Vec::with_capacity(64)).ok();
        link.is_some_and(|link| link.to_bytes() == format!("/memfd:{NAME} (deleted)").as_bytes())
    };
    let Ok(all) = open_directory(descriptors, ".") else { return Vec::new() };
    numbers_in(all).into_iter().filter(is_page).take(CANDIDATES).collect()
}

/// Opens a descriptor of another process, which may have put something else in its place since it was looked at:
/// nothing but a file in memory is opened for reading, for others may block or do something when they are opened.
fn open_page(descriptors: &OwnedFd, number: u32) -> Option<OwnedFd> {
    let path = openat(descriptors, number.to_string(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let is_file = FileType::from_raw_mode(fstat(&path).ok()?.st_mode) == FileType::RegularFile;
    if !is_file || fstatfs(&path).ok()?.f_type as u64 != TMPFS_MAGIC {
        return None;
    }
    let own = format!("/proc/self/fd/{}", path.as_raw_fd());
    open(own, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).ok()
}

/// What a process calls itself: the innermost of the numbers it has in nested namespaces.
fn own_id(directory: &OwnedFd) -> Option<u32> {
    let status = read_text(directory, "status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("NSpid:")?.split_whitespace().last()?.parse().ok())
}

/// proc(5): the twenty-second field of stat, the second of which is a name in parentheses that may hold anything.
fn started(directory: &OwnedFd) -> Option<u64> {
    let text = read_text(directory, "stat").ok()?;
    let (_, behind_name) = text.rsplit_once(')')?;
    behind_name.split_whitespace().nth(19)?.parse().ok()
}

/// A file of /proc/PID.
pub(super) fn read_text(directory: &OwnedFd, name: &str) -> Result<String, Errno> {
    let file = openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let (mut text, mut part) = (Vec::new(), vec![0; READ_BYTES]);
    loop {
        match read(&file, &mut part)? {
            0 => return Ok(String::from_utf8_lossy(&text).into_owned()),
            length => text.extend_from_slice(&part[..length]),
        }
    }
}
