//! A capture of accelerated traffic, for debugging: what goes through memory is on no wire, so a pcap file is written as if it
//! had been, with Ethernet, IP and TCP around it, as SMC-R's users see their CLC messages. Wireshark's SMC
//! dissector takes it; where the port has a dissector of its own, as 6379 has, TCP's preference "try heuristic sub-dissectors
//! first" lets SMC's look (`tshark -o tcp.try_heuristic_first:TRUE`).
//!
//! It runs inside of other people's programs: it has no lock and no buffer (a record is one `writev` of headers from the
//! stack and of the caller's bytes), so that any thread, and a child of `fork`, can write at any time.

#![forbid(unsafe_code)]

mod frame;
#[cfg(test)]
mod tests;

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use frame::{Flags, FrameHead, Segment};

/// Bytes of each frame that are kept unless something else is asked for: all.
pub const DEFAULT_SNAPSHOT_BYTES: u32 = 1 << 18;

/// Bytes of a stream in one frame; more go into several.
pub const MAX_PAYLOAD: usize = 65_483;

/// Where the numbers of both streams begin.
const INITIAL_SEQUENCE: u32 = 0;

/// One side of a captured connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// It has connected.
    Client,
    /// It has accepted.
    Server,
}

impl End {
    const fn index(self) -> usize {
        match self {
            Self::Client => 0,
            Self::Server => 1,
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// How one side ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// It sends nothing more: FIN.
    Finished,
    /// It gives the connection up: RST.
    Reset,
}

/// A file that captured connections are written to. Clones write to the same one.
#[derive(Clone)]
pub struct Capture(Arc<Shared>);

struct Shared {
    file: Box<dyn AsFd + Send + Sync>,
    snapshot_bytes: u32,
    /// Zero, or the error of the write that was the last.
    failure: AtomicI32,
}

impl Capture {
    /// Writes the file's header. Of each frame at most `snapshot_bytes` will be kept. The file may have been opened to
    /// append, and several processes may write to it if one of them has written the header.
    pub fn create(file: impl AsFd + Send + Sync + 'static, snapshot_bytes: u32) -> Result<Self, Errno> {
        let capture = Self::resume(file, snapshot_bytes);
        match capture.0.write(&[IoSlice::new(&frame::file_header(snapshot_bytes))]) {
            Some(error) => Err(error),
            None => Ok(capture),
        }
    }

    /// Continues a file that has its header already.
    pub fn resume(file: impl AsFd + Send + Sync + 'static, snapshot_bytes: u32) -> Self {
        // Each record behind the last one, whoever wrote that. What cannot append (a pipe) has one end only.
        if let Ok(flags) = fcntl_getfl(&file) {
            let _ = fcntl_setfl(&file, flags | OFlags::APPEND);
        }
        Self(Arc::new(Shared { file: Box::new(file), snapshot_bytes, failure: AtomicI32::new(0) }))
    }

    /// Why nothing more is written; `None` as long as all is well.
    pub fn failure(&self) -> Option<Errno> {
        match self.0.failure.load(Ordering::Relaxed) {
            0 => None,
            error => Some(Errno::from_raw_os_error(error)),
        }
    }

    /// Begins a connection: three frames of a TCP handshake in which both sides say that they have SMC. IPv4 addresses
    /// that are mapped to IPv6 are shown as what they are.
    pub fn connection(&self, client: SocketAddr, server: SocketAddr) -> Connection {
        let connection = Connection {
            capture: self.clone(),
            addresses: of_one_family(client, server),
            clc_bytes: [AtomicU32::new(0), AtomicU32::new(0)],
            next: [AtomicU32::new(INITIAL_SEQUENCE), AtomicU32::new(INITIAL_SEQUENCE)],
        };
        connection.control(End::Client, Flags::SYN);
        connection.control(End::Server, Flags::SYN | Flags::ACK);
        connection.control(End::Client, Flags::ACK);
        connection
    }
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Capture").field("failure", &self.failure()).finish_non_exhaustive()
    }
}

impl Shared {
    /// Writes one record, whole or, at the end of all writing, not. Gives the error of that.
    fn write(&self, parts: &[IoSlice<'_>]) -> Option<Errno> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let error = loop {
            match rustix::io::writev(&self.file, parts) {
                Err(Errno::INTR) => {}
                Err(error) => break error,
                Ok(written) if written == length => return None,
                // What follows half a record could not be read.
                Ok(_) => break Errno::NOSPC,
            }
        };
        self.failure.store(error.raw_os_error(), Ordering::Relaxed);
        Some(error)
    }
}

/// Both addresses as IPv4 if both are, else as IPv6.
fn of_one_family(client: SocketAddr, server: SocketAddr) -> [SocketAddr; 2] {
    let canonical = [client, server].map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()));
    if canonical.iter().all(SocketAddr::is_ipv4) {
        return canonical;
    }
    canonical.map(|address| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    })
}

/// A captured connection. Its methods may be called by several threads at once, also for the same side.
#[derive(Debug)]
pub struct Connection {
    capture: Capture,
    addresses: [SocketAddr; 2],
    /// Bytes of CLC messages that each side has sent; its data follows them.
    clc_bytes: [AtomicU32; 2],
    /// Number of the byte behind the last one of each side, which the other acknowledges.
    next: [AtomicU32; 2],
}

impl Connection {
    /// A CLC message. They come before all data.
    pub fn clc(&self, from: End, message: &[u8]) {
        // Messages are far shorter than a frame.
        let length = message.len() as u32;
        let sent = self.clc_bytes[from.index()].fetch_add(length, Ordering::Relaxed);
        self.segment(from, INITIAL_SEQUENCE.wrapping_add(1).wrapping_add(sent), message);
    }

    /// Data of the stream of `from`, whose first byte is the one at `offset`; the first of all that is captured has offset 0.
    pub fn data(&self, from: End, offset: u64, bytes: &[u8]) {
        let before = self.clc_bytes[from.index()].load(Ordering::Relaxed);
        // Sequence numbers are the low half of offsets.
        let mut sequence = INITIAL_SEQUENCE.wrapping_add(1).wrapping_add(before).wrapping_add(offset as u32);
        for piece in bytes.chunks(MAX_PAYLOAD) {
            self.segment(from, sequence, piece);
            sequence = sequence.wrapping_add(piece.len() as u32);
        }
    }

    /// The end of one side's stream, or of both at once.
    pub fn close(&self, from: End, ending: Ending) {
        self.control(
            from,
            match ending {
                Ending::Finished => Flags::FIN | Flags::ACK,
                Ending::Reset => Flags::RST | Flags::ACK,
            },
        );
    }

    /// A segment without data, at the end of what `from` has sent.
    fn control(&self, from: End, flags: Flags) {
        let sequence = self.next[from.index()].load(Ordering::Relaxed);
        self.record(from, sequence, flags, &[]);
        if flags.intersects(Flags::SYN | Flags::FIN) {
            self.advance(from, sequence.wrapping_add(1));
        }
    }

    fn segment(&self, from: End, sequence: u32, payload: &[u8]) {
        self.record(from, sequence, Flags::PSH | Flags::ACK, payload);
        self.advance(from, sequence.wrapping_add(payload.len() as u32));
    }

    /// `from` has sent everything before `sequence`.
    fn advance(&self, from: End, sequence: u32) {
        let later = |next: u32| (sequence.wrapping_sub(next) as i32 > 0).then_some(sequence);
        // An error: another thread is further already.
        let _ = self.next[from.index()].fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    }

    fn record(&self, from: End, sequence: u32, flags: Flags, payload: &[u8]) {
        let shared = &*self.capture.0;
        if self.capture.failure().is_some() {
            return;
        }
        let acknowledged =
            if flags.contains(Flags::ACK) { self.next[from.other().index()].load(Ordering::Relaxed) } else { 0 };
        let addresses = [self.addresses[from.index()], self.addresses[from.other().index()]];
        let head = FrameHead::new(from, addresses, Segment { sequence, acknowledged, flags, payload });
        let whole = head.bytes().len() + payload.len();
        let kept = whole.min(shared.snapshot_bytes as usize);
        let (head_kept, payload_kept) = match kept.checked_sub(head.bytes().len()) {
            Some(rest) => (head.bytes(), &payload[..rest]),
            None => (&head.bytes()[..kept], &[][..]),
        };
        let now = clock_gettime(ClockId::Realtime);
        let record = frame::record_header(now.tv_sec as u32, now.tv_nsec as u32, kept as u32, whole as u32);
        shared.write(&[IoSlice::new(&record), IoSlice::new(head_kept), IoSlice::new(payload_kept)]);
    }
}
