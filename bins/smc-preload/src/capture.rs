//! What goes through memory, written to a file as if it had been on a wire, for whoever debugs. Off unless the policy names a
//! file; then a connection's CLC messages are there, and its bytes from the switch on. What TCP carried before is on the
//! interface `lo`, where others look.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use softrdma_smc::capture::{Capture, Connection, DEFAULT_SNAPSHOT_BYTES, End, Ending};
use softrdma_smc::descriptors::Private;
use softrdma_smc::exchange::Direction;
use softrdma_smc::names::Tuple;
use softrdma_smc::ring::{Rings, state};
use softrdma_smc::shared_memory::Target;

use crate::abi::kernel;
use crate::socket::Socket;

static IS_ON: AtomicBool = AtomicBool::new(false);
static FILE: Mutex<Option<File>> = Mutex::new(None);

/// Where the kind of a CLC message stands, and the kinds of the first and of the last one (RFC 7609 appendix A.2).
const KIND: usize = 4;
const PROPOSAL: u8 = 1;
const CONFIRM: u8 = 3;
/// Exchanges that come to nothing leave something behind: so many are kept.
const MOST_WAITING: usize = 1024;

/// What is written to.
struct File {
    /// As the policy has it: `%p` is the process's number.
    path: String,
    capture: Option<Capture>,
    /// Connections that are being agreed on.
    waiting: HashMap<Tuple, Arc<Captured>>,
}

/// A connection that is written down.
pub(crate) struct Captured {
    connection: Connection,
    own: End,
    /// Bytes that moved before the last message was seen, which stands in front of them: nothing once it was.
    early: Mutex<Option<Vec<Early>>>,
    /// Whether the end of the client's, and of the server's, stands there.
    has_ended: [AtomicBool; 2],
}

/// From which end, from where in its stream on, which bytes.
type Early = (End, u64, Vec<u8>);

impl std::fmt::Debug for Captured {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Captured").field("own", &self.own).finish_non_exhaustive()
    }
}

/// Whether anything is written down.
#[inline]
pub(crate) fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

fn file() -> MutexGuard<'static, Option<File>> {
    FILE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on, to `path`. The file is made when there is something for it.
pub(crate) fn begin(path: String) {
    *file() = Some(File { path, capture: None, waiting: HashMap::new() });
    IS_ON.store(true, Ordering::Relaxed);
}

/// In a child: its own file, if the path says so. Only the thread that agrees on connections is ever at it, and is not while
/// the process forks.
pub(crate) fn begin_anew() {
    if is_on()
        && let Some(file) = file().as_mut()
    {
        file.waiting.clear();
        if file.path.contains("%p") {
            file.capture = None;
        }
    }
}

/// A CLC message was sent or received.
pub(crate) fn observe(tuple: Tuple, direction: Direction, message: &[u8]) {
    let mut guard = file();
    let Some(file) = guard.as_mut() else {
        return;
    };
    if message.get(KIND) == Some(&PROPOSAL) {
        let Some(captured) = file.captured(tuple, direction) else {
            return;
        };
        if file.waiting.len() >= MOST_WAITING {
            file.waiting.clear();
        }
        file.waiting.insert(tuple, Arc::new(captured));
    }
    if let Some(captured) = file.waiting.get(&tuple) {
        captured.connection.clc(if direction == Direction::Sent { captured.own } else { captured.peer() }, message);
        if message.get(KIND) == Some(&CONFIRM) {
            captured.agreed();
            file.waiting.remove(&tuple);
        }
    }
}

/// The connection is `socket`, which has got its rings.
pub(crate) fn attach(socket: &Socket, tuple: Tuple) {
    if let Some(captured) = file().as_mut().and_then(|file| file.waiting.get(&tuple)) {
        let _ = socket.captured.set(captured.clone());
    }
}

impl File {
    /// The one that proposes has connected.
    fn captured(&mut self, tuple: Tuple, direction: Direction) -> Option<Captured> {
        let capture = match &self.capture {
            Some(capture) => capture.clone(),
            None => self.open()?,
        };
        let own = if direction == Direction::Sent { End::Client } else { End::Server };
        let connection = match own {
            End::Client => capture.connection(tuple.local, tuple.peer),
            End::Server => capture.connection(tuple.peer, tuple.local),
        };
        Some(Captured { connection, own, early: Mutex::new(Some(Vec::new())), has_ended: Default::default() })
    }

    fn open(&mut self) -> Option<Capture> {
        let path = self.path.replace("%p", &std::process::id().to_string());
        match create(&path) {
            Ok(capture) => self.capture = Some(capture),
            Err(error) => {
                kernel::complain(&format!("cannot write the capture {path}: {error}"));
                IS_ON.store(false, Ordering::Relaxed);
            }
        }
        self.capture.clone()
    }
}

/// Who makes the file writes its header; who finds it, such as a child, goes on behind what is there.
fn create(path: &str) -> Result<Capture, Errno> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let keep = |file| Private::keep(file).map_err(|_| Errno::MFILE);
    match open(path, flags | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Capture::create(keep(file)?, DEFAULT_SNAPSHOT_BYTES),
        Err(Errno::EXIST) => Ok(Capture::resume(keep(open(path, flags, Mode::empty())?)?, DEFAULT_SNAPSHOT_BYTES)),
        Err(error) => Err(error),
    }
}

impl Captured {
    const fn peer(&self) -> End {
        match self.own {
            End::Client => End::Server,
            End::Server => End::Client,
        }
    }

    fn early(&self) -> MutexGuard<'_, Option<Vec<Early>>> {
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All messages are there.
    fn agreed(&self) {
        let mut early = self.early();
        for (from, offset, bytes) in early.take().unwrap_or_default() {
            self.connection.data(from, offset, &bytes);
        }
    }

    fn data(&self, from: End, offset: u64, bytes: &[u8]) {
        let mut early = self.early();
        match early.as_mut() {
            Some(early) => early.push((from, offset, bytes.to_owned())),
            None => self.connection.data(from, offset, bytes),
        }
    }

    fn end(&self, end: End, says: u8) {
        let ending = if says & state::ABORTED != 0 { Ending::Reset } else { Ending::Finished };
        if says != 0 && !self.has_ended[end as usize].swap(true, Ordering::Relaxed) {
            self.agreed();
            self.connection.close(end, ending);
        }
    }
}

/// `length` bytes have just been put into the ring, by the thread that holds the right to.
#[cold]
pub(crate) fn sent(socket: &Socket, rings: &Rings<'_>, length: usize) {
    if let Some(captured) = socket.captured.get() {
        let mut bytes = vec![0; length];
        let offset = rings.look_back(&mut bytes);
        captured.data(captured.own, offset, &bytes);
    }
}

/// The bytes that are about to be taken out of the ring, at most `wanted`, by the thread that holds the right to.
#[cold]
pub(crate) fn about_to_receive(socket: &Socket, rings: &Rings<'_>, wanted: usize) -> Option<Vec<u8>> {
    socket.captured.get()?;
    let mut bytes = vec![0; wanted.min(rings.readable().ok()?)];
    let length = rings.peek(&[Target::new(&mut bytes)], 0).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

/// Of those, `length` were taken.
pub(crate) fn received(socket: &Socket, rings: &Rings<'_>, bytes: &[u8], length: usize) {
    if let (Some(captured), Some(taken)) = (socket.captured.get(), bytes.get(..length)) {
        captured.data(captured.peer(), rings.consumed().saturating_sub(length as u64), taken);
    }
}

/// Writes down which ends have ended. The peer's stands behind its last byte.
pub(crate) fn ends(socket: &Socket, rings: &Rings<'_>) {
    if let Some(captured) = socket.captured.get() {
        let [own, peer] = rings.flags();
        captured.end(captured.own, own.1);
        if peer.1 & state::ABORTED != 0 || rings.readable() == Ok(0) {
            captured.end(captured.peer(), peer.1);
        }
    }
}
