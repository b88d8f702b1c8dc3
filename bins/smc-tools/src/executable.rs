//! Programs that the library cannot serve, known by their files.
//!
//! A library that is preloaded stands between a program and libc. Where there is no libc, or it is not asked, or the
//! loader is told not to, a program is left alone.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use object::elf::{DT_NEEDED, EM_X86_64, ET_DYN, FileHeader64};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{Endianness, Object, ReadCache};
use rustix::fs::{Access, access, getxattr};

/// Scripts that run scripts that run scripts.
const MAX_SCRIPTS: usize = 4;

/// Why a program runs without the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bypass {
    /// There is no loader.
    Static,
    /// Its network code makes system calls of its own.
    Go,
    /// The loader ignores what users preload.
    Privileged,
    /// Of another machine or word size, named.
    Foreign(String),
    /// Its loader is not glibc's.
    OtherLoader(PathBuf),
}

impl fmt::Display for Bypass {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static => formatter.write_str("is linked statically, no library can be loaded into it"),
            Self::Go => formatter.write_str("is written in Go, whose network code does not use libc"),
            Self::Privileged => formatter
                .write_str("gets privileges when it starts (setuid, setgid or capabilities): nothing is preloaded"),
            Self::Foreign(kind) => write!(formatter, "is a program for {kind}, the library is for x86-64"),
            Self::OtherLoader(path) => write!(formatter, "is not loaded by glibc's loader, but by {}", path.display()),
        }
    }
}

/// What a program's file shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inspection {
    /// Why the library cannot serve it.
    pub(crate) bypass: Option<Bypass>,
    /// It is linked to liburing.
    pub(crate) uses_io_uring: bool,
}

/// Looks at what `program` would run, found as a shell does. `None`: there is nothing to look at, or it is not
/// understood; then the kernel shall say what it thinks of it.
pub(crate) fn inspect(program: &OsStr) -> Option<Inspection> {
    inspect_file(&resolve(program)?, MAX_SCRIPTS)
}

fn inspect_file(path: &Path, scripts: usize) -> Option<Inspection> {
    let mut start = [0; 256];
    let file = File::open(path).ok()?;
    let metadata = file.metadata().ok().filter(Metadata::is_file)?;
    let length = (&file).take(start.len() as u64).read(&mut start).ok()?;
    if let Some(line) = start[..length].strip_prefix(b"#!") {
        // What a script is allowed to do is what its interpreter is.
        return inspect_file(&interpreter_of_script(line)?, scripts.checked_sub(1)?);
    }
    let mut inspection = inspect_elf(file, &start[..length])?;
    if is_privileged(path, &metadata) {
        inspection.bypass = Some(Bypass::Privileged);
    }
    Some(inspection)
}

/// execve(2): the path behind `#!` ends at the first blank.
fn interpreter_of_script(line: &[u8]) -> Option<PathBuf> {
    let line = line.split(|byte| *byte == b'\n').next()?.trim_ascii_start();
    let path = line.split(|byte| matches!(byte, b' ' | b'\t')).next().filter(|path| !path.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(path)))
}

/// As execvp(3): names without a slash are looked for in PATH.
fn resolve(program: &OsStr) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(program));
    }
    let path = env::var_os("PATH").unwrap_or_else(|| OsString::from("/bin:/usr/bin"));
    let is_program = |path: &PathBuf| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    env::split_paths(&path).map(|directory| directory.join(program)).find(is_program)
}

/// ld.so(8), secure-execution mode: ids differ, or there are capabilities, which root has anyway.
fn is_privileged(path: &Path, metadata: &Metadata) -> bool {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let sets = |bit: u32, own: u32, id: u32| metadata.mode() & bit == bit && own != id;
    let has_capabilities = getxattr(path, "security.capability", &mut [0_u8; 64][..]).is_ok();
    sets(0o4000, user.as_raw(), metadata.uid())
        // Without the group's right to execute, the bit means something else.
        || sets(0o2010, group.as_raw(), metadata.gid())
        || has_capabilities && !user.is_root()
}

fn inspect_elf(file: File, start: &[u8]) -> Option<Inspection> {
    let left_alone = |bypass| Some(Inspection { bypass: Some(bypass), ..Inspection::default() });
    // ELF: class and machine stand at the same place in all files.
    match start {
        [0x7f, b'E', b'L', b'F', 2, 1, ..] if start.get(18..20)? == EM_X86_64.0.to_le_bytes() => {}
        [0x7f, b'E', b'L', b'F', 1, ..] => return left_alone(Bypass::Foreign("32 bits".to_owned())),
        [0x7f, b'E', b'L', b'F', ..] => return left_alone(Bypass::Foreign("another machine".to_owned())),
        _ => return None,
    }
    let cache = ReadCache::new(file);
    let elf = ElfFile64::<Endianness, _>::parse(&cache).ok()?;
    if [".note.go.buildid", ".go.buildinfo"].iter().any(|name| elf.section_by_name(name).is_some()) {
        return left_alone(Bypass::Go);
    }
    let Some(loader) = loader(&elf) else { return left_alone(Bypass::Static) };
    let name = loader.file_name().unwrap_or_default().as_bytes();
    if !name.starts_with(b"ld-linux") {
        return left_alone(Bypass::OtherLoader(loader));
    }
    Some(Inspection { bypass: None, uses_io_uring: needs(&elf, b"liburing.so") })
}

type Elf<'data> = ElfFile64<'data, Endianness, &'data ReadCache<File>>;

/// What PT_INTERP names.
fn loader(elf: &Elf<'_>) -> Option<PathBuf> {
    let path = elf.elf_program_headers().iter().find_map(|part| part.interpreter(elf.endian(), elf.data()).ok()?)?;
    Some(PathBuf::from(OsStr::from_bytes(path)))
}

/// Whether a library whose name begins so is asked for (DT_NEEDED).
fn needs(elf: &Elf<'_>, library: &[u8]) -> bool {
    let Ok(table) = elf.elf_dynamic_table() else { return false };
    let mut needed = table.iter().filter(|entry| entry.tag == DT_NEEDED);
    needed.any(|entry| table.string(entry).is_ok_and(|name| name.starts_with(library)))
}

/// Why a file cannot be preloaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotALibrary {
    #[error("{0}")]
    Unreadable(#[from] std::io::Error),
    #[error("it is no shared library for x86-64")]
    Other,
}

/// Whether `path` is something that the loader can load into programs.
pub(crate) fn check_library(path: &Path) -> Result<(), NotALibrary> {
    let mut file = File::open(path)?;
    let mut start = [0; size_of::<FileHeader64<Endianness>>()];
    match file.read_exact(&mut start) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Err(NotALibrary::Other),
        Err(error) => return Err(error.into()),
    }
    let header = FileHeader64::<Endianness>::parse(&start[..]).map_err(|_| NotALibrary::Other)?;
    let endian = header.endian().map_err(|_| NotALibrary::Other)?;
    match (header.e_type(endian), header.e_machine(endian)) {
        (ET_DYN, EM_X86_64) => Ok(()),
        _ => Err(NotALibrary::Other),
    }
}

#[cfg(test)]
mod tests;
