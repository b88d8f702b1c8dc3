//! A running process shows its counters on a socket of its own: whoever connects gets one JSON document and the end of the
//! stream. Sockets are named by process number, in [`crate::directory::path`], which only the owner can enter.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::directory::{self, DirectoryError};

/// Longest document that a reader takes, in bytes.
pub const MAX_DOCUMENT_BYTES: u64 = 64 << 20;

/// How long one side waits for the other.
pub const TIMEOUT: Duration = Duration::from_secs(2);

/// Why a process does not show its counters, or they cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StatisticsSocketError {
    /// See there.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The socket cannot be made.
    #[error("cannot listen on {path}: {source}")]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process did not answer.
    #[error("process {process} did not give its counters on {path}: {source}")]
    Read {
        /// Its number.
        process: u32,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Serves counters until it is dropped; the socket file goes with it.
#[derive(Debug)]
pub struct StatisticsSocket {
    path: PathBuf,
}

impl StatisticsSocket {
    /// Serves what `document` gives at the time of asking, from a thread of its own.
    pub fn serve(document: impl Fn() -> Value + Send + 'static) -> Result<Self, StatisticsSocketError> {
        Self::serve_at(&directory::create()?, document)
    }

    fn serve_at(
        directory: &Path,
        document: impl Fn() -> Value + Send + 'static,
    ) -> Result<Self, StatisticsSocketError> {
        let path = directory.join(format!("{}.sock", std::process::id()));
        // A process that had our number before us may have left its file.
        let _ = fs::remove_file(&path);
        let error = |source| StatisticsSocketError::Listen { path: path.clone(), source };
        let listener = UnixListener::bind(&path).map_err(error)?;
        let serve = move || {
            for stream in listener.incoming() {
                match stream {
                    Ok(stream) => answer(stream, &document()),
                    // Out of descriptors, most likely: give others time to close theirs.
                    Err(_) => thread::sleep(Duration::from_millis(100)),
                }
            }
        };
        thread::Builder::new().name("statistics".into()).spawn(serve).map_err(error)?;
        Ok(Self { path })
    }
}

impl Drop for StatisticsSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A reader that does not read costs [`TIMEOUT`], no more.
fn answer(mut stream: UnixStream, document: &Value) {
    let _ = stream.set_write_timeout(Some(TIMEOUT));
    let _ = stream.write_all(document.to_string().as_bytes());
    let _ = stream.shutdown(Shutdown::Both);
}

/// The counters of one process.
#[derive(Debug)]
pub struct ProcessStatistics {
    /// Its number.
    pub process: u32,
    /// What it said.
    pub document: Value,
}

/// Asks every process that shows its counters, in the order of their numbers. Files of processes that are gone are removed.
pub fn read_all() -> Vec<Result<ProcessStatistics, StatisticsSocketError>> {
    read_all_in(&directory::path())
}

fn read_all_in(directory: &Path) -> Vec<Result<ProcessStatistics, StatisticsSocketError>> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let process = name.to_str()?.strip_suffix(".sock")?.parse().ok()?;
            Some((process, entry.path()))
        })
        .collect();
    found.sort();
    found.into_iter().filter_map(|(process, path)| read(process, path).transpose()).collect()
}

/// `None`: the process is gone.
fn read(process: u32, path: PathBuf) -> Result<Option<ProcessStatistics>, StatisticsSocketError> {
    match ask(&path) {
        Ok(document) => Ok(Some(ProcessStatistics { process, document })),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let _ = fs::remove_file(&path);
            Ok(None)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StatisticsSocketError::Read { process, path, source }),
    }
}

fn ask(path: &Path) -> io::Result<Value> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut text = Vec::new();
    stream.take(MAX_DOCUMENT_BYTES).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn temporary(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("softrdma-test-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn whoever_connects_gets_the_counters_of_that_moment() {
        let directory = temporary("counters");
        let counter = Arc::new(AtomicU64::new(0));
        let shown = counter.clone();
        let document = move || serde_json::json!({ "asked": shown.fetch_add(1, Ordering::Relaxed) });
        let socket = StatisticsSocket::serve_at(&directory, document).unwrap();
        for expected in 0..3 {
            let all = read_all_in(&directory);
            assert_eq!(all.len(), 1);
            let statistics = all[0].as_ref().unwrap();
            assert_eq!(statistics.process, std::process::id());
            assert_eq!(statistics.document["asked"], expected);
        }
        drop(socket);
        assert!(read_all_in(&directory).is_empty());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn the_file_of_a_process_that_is_gone_is_removed() {
        let directory = temporary("gone");
        let path = directory.join("4000000.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        assert!(read_all_in(&directory).is_empty());
        assert!(!path.exists());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_process_that_answers_nonsense_is_an_error_that_names_it() {
        let directory = temporary("nonsense");
        let listener = UnixListener::bind(directory.join("77.sock")).unwrap();
        let server = thread::spawn(move || listener.accept().unwrap().0.write_all(b"no json").unwrap());
        let error = read_all_in(&directory).pop().unwrap().unwrap_err().to_string();
        assert!(error.contains("process 77"), "{error}");
        server.join().unwrap();
        fs::remove_dir_all(directory).unwrap();
    }
}
