//! What the kernel's TCP does by itself on loopback: the limit for scheme kernel-socket.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crc_fast::{CrcAlgorithm, checksum};

use crate::failure::{Context, Failure};
use crate::raw::{RawResult, RawRun, RawTouch, Traffic};
use crate::statistics::{Latencies, Throughput};

/// Bytes of one read in bulk, and at least of one write.
const CHUNK: usize = 256 << 10;

/// Round trips before those that count.
const WARM_UP: u64 = 200;

/// The side that connects and measures.
pub(crate) fn initiate(address: SocketAddr, run: &RawRun, limit: Duration) -> Result<RawResult, Failure> {
    let mut stream = TcpStream::connect(address).context(|| format!("cannot connect to {address}"))?;
    prepare(&stream, limit)?;
    let measured = match run.traffic {
        Traffic::PingPong => ping(&mut stream, run),
        Traffic::Bulk => flood(&mut stream, run),
    };
    measured.context(|| format!("plain TCP to {address}"))
}

/// The side that answers one run.
pub(crate) fn respond(listener: &TcpListener, run: &RawRun, limit: Duration) -> Result<(), Failure> {
    let (mut stream, _) = listener.accept().context(|| "no connection for plain TCP")?;
    prepare(&stream, limit)?;
    let answered = match run.traffic {
        Traffic::PingPong => answer(&mut stream, run.size as usize),
        Traffic::Bulk => count(&mut stream, run),
    };
    answered.context(|| "plain TCP")
}

fn prepare(stream: &TcpStream, limit: Duration) -> Result<(), Failure> {
    let prepared = stream
        .set_nodelay(true)
        .and_then(|()| stream.set_read_timeout(Some(limit)))
        .and_then(|()| stream.set_write_timeout(Some(limit)));
    prepared.context(|| "cannot set up a socket")
}

fn ping(stream: &mut TcpStream, run: &RawRun) -> io::Result<RawResult> {
    let mut message = vec![0x5A; run.size as usize];
    let mut latencies = Latencies::new();
    let mut begun = Instant::now();
    for number in 0.. {
        if number == WARM_UP {
            (latencies, begun) = (Latencies::new(), Instant::now());
        }
        let sent = Instant::now();
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        let now = Instant::now();
        latencies.record_round_trip(now - sent);
        if number > WARM_UP && now - begun >= run.duration {
            break;
        }
    }
    Ok(RawResult { latencies, throughput: Throughput::default() })
}

fn answer(stream: &mut TcpStream, size: usize) -> io::Result<()> {
    let mut message = vec![0; size];
    loop {
        match stream.read_exact(&mut message) {
            Ok(()) => stream.write_all(&message)?,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Sends messages for the time of the run; the answer says how many bytes arrived by then.
fn flood(stream: &mut TcpStream, run: &RawRun) -> io::Result<RawResult> {
    let message = vec![0xA5; run.size as usize];
    let begun = Instant::now();
    let mut messages = 0_u64;
    loop {
        stream.write_all(&message)?;
        messages += 1;
        // A clock for each message would cost as much as a small message.
        if (messages.is_multiple_of(16) || run.size > 4096) && begun.elapsed() >= run.duration {
            break;
        }
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut count = [0; 8];
    stream.read_exact(&mut count)?;
    let bytes = u64::from_be_bytes(count);
    let throughput = Throughput { messages: bytes / run.size, bytes, time: begun.elapsed() };
    Ok(RawResult { latencies: Latencies::new(), throughput })
}

fn count(stream: &mut TcpStream, run: &RawRun) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut target = run.touch.map(|touch| Target::new(&touch));
    let mut bytes = 0_u64;
    loop {
        let length = stream.read(&mut chunk)?;
        if length == 0 {
            return stream.write_all(&bytes.to_be_bytes());
        }
        bytes += length as u64;
        if let Some(target) = &mut target {
            target.touch(&chunk[..length]);
        }
    }
}

/// Memory that what arrived is copied into, as a test's data would be.
struct Target {
    memory: Vec<u8>,
    offset: usize,
    crc: bool,
}

impl Target {
    fn new(touch: &RawTouch) -> Self {
        // At least one read fits; touched now, so that no page is first touched while measuring.
        Self { memory: vec![1; (touch.memory as usize).max(CHUNK)], offset: 0, crc: touch.crc }
    }

    fn touch(&mut self, bytes: &[u8]) {
        if self.crc {
            black_box(checksum(CrcAlgorithm::Crc32Iscsi, bytes));
        }
        if self.offset + bytes.len() > self.memory.len() {
            self.offset = 0;
        }
        self.memory[self.offset..][..bytes.len()].copy_from_slice(bytes);
        black_box(&self.memory);
        self.offset += bytes.len();
    }
}
