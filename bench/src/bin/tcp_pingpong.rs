//! The floor under the kernel-socket scheme: what a ping-pong over plain TCP sockets takes, and what the engine takes for
//! the same bytes, in one run.
//!
//! Two threads on loopback. The contenders take turns, round by round, so that whatever else the machine does meets all of
//! them. Two pairs belong together: `polling` and `engine-polling` spin, `blocking` and `engine-sleeping` sleep.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::{Arc, Barrier};
use std::time::Instant;

use clap::Parser;
use hdrhistogram::Histogram;
use rustix::event::{PollFd, PollFlags};
use serde_json::json;
use softrdma_stack::kernel::{KernelConfig, KernelEngine};
use softrdma_stack::stream::{Abort, Engine, Record, Source, StreamEvent, StreamId, Streams, Transmitted};
use softrdma_stack::time;

/// Measures TCP ping-pong over loopback: plain sockets against the kernel-socket engine.
#[derive(Clone, Parser)]
struct Options {
    /// Bytes of a message.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    size: u32,
    /// Round trips of each contender in each round.
    #[arg(long, default_value_t = 10_000)]
    iterations: u32,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Only this contender (for a profile).
    #[arg(long, value_enum)]
    only: Option<Contender>,
    /// Leave the threads where the system puts them, instead of one on each of two cores.
    #[arg(long)]
    no_pin: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Who plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Contender {
    /// Plain sockets, non-blocking, tried again and again.
    Polling,
    /// The engine, polled again and again.
    EnginePolling,
    /// Plain sockets, blocking.
    Blocking,
    /// The engine, asleep on its descriptor when there is nothing to do.
    EngineSleeping,
}

const CONTENDERS: [Contender; 4] =
    [Contender::Polling, Contender::EnginePolling, Contender::Blocking, Contender::EngineSleeping];

impl Contender {
    const fn name(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::EnginePolling => "engine-polling",
            Self::Blocking => "blocking",
            Self::EngineSleeping => "engine-sleeping",
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tcp_pingpong: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    // Asked before the first thread is pinned: afterwards the system names one core only.
    let cores = cores(options);
    let mut results = Vec::new();
    for contender in CONTENDERS.into_iter().filter(|contender| options.only.is_none_or(|only| only == *contender)) {
        results.push((contender, histogram()));
    }
    for _ in 0..options.rounds {
        for (contender, total) in &mut results {
            let round = play(*contender, options, cores)?;
            total.add(round).map_err(io::Error::other)?;
        }
    }
    report(options, &results);
    Ok(())
}

/// One round of one contender: round-trip times in nanoseconds.
fn play(contender: Contender, options: &Options, cores: Cores) -> io::Result<Histogram<u64>> {
    let (size, iterations) = (options.size as usize, options.iterations as usize);
    let (server_core, client_core) = cores;
    let start = Start(Arc::new(Barrier::new(2)));
    let ready = start.clone();
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let is_engine = matches!(contender, Contender::EnginePolling | Contender::EngineSleeping);
    if is_engine {
        // The engine brings its own listener.
        drop(listener);
        let sleeps = contender == Contender::EngineSleeping;
        let mut server = Player::listening(size, sleeps)?;
        let address = server.address();
        let echo = std::thread::spawn(move || -> io::Result<()> {
            ready.pinned(server_core);
            (0..iterations).try_for_each(|_| server.echo())?;
            server.linger();
            Ok(())
        });
        start.pinned(client_core);
        let mut client = Player::connecting(address, size, sleeps)?;
        let times = measure(iterations, || client.ping())?;
        drop(client);
        join(echo)?;
        return Ok(times);
    }
    let is_blocking = contender == Contender::Blocking;
    let echo = std::thread::spawn(move || -> io::Result<()> {
        ready.pinned(server_core);
        let (stream, _) = listener.accept()?;
        let mut plain = Plain::new(stream, size, is_blocking)?;
        (0..iterations).try_for_each(|_| {
            plain.receive()?;
            plain.send()
        })
    });
    start.pinned(client_core);
    let mut plain = Plain::new(TcpStream::connect(address)?, size, is_blocking)?;
    let times = measure(iterations, || {
        plain.send()?;
        plain.receive()
    })?;
    join(echo)?;
    Ok(times)
}

fn measure(iterations: usize, mut round_trip: impl FnMut() -> io::Result<()>) -> io::Result<Histogram<u64>> {
    let mut times = histogram();
    for _ in 0..iterations {
        let start = Instant::now();
        round_trip()?;
        times.saturating_record(start.elapsed().as_nanos() as u64);
    }
    Ok(times)
}

/// Plain sockets.
struct Plain {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Plain {
    fn new(stream: TcpStream, size: usize, is_blocking: bool) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(!is_blocking)?;
        Ok(Self { stream, buffer: vec![0; size] })
    }

    fn send(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.buffer.len() {
            sent += again(self.stream.write(&self.buffer[sent..]))?;
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut received = 0;
        while received < self.buffer.len() {
            received += match self.stream.read(&mut self.buffer[received..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                outcome => again(outcome)?,
            };
        }
        Ok(())
    }
}

/// Turns "not now" into nothing.
fn again(outcome: io::Result<usize>) -> io::Result<usize> {
    match outcome {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        other => other,
    }
}

/// The engine, with all that is needed above it.
struct Player {
    engine: KernelEngine,
    upper: Upper,
    message: Message,
    /// What to sleep on, when this player sleeps.
    descriptor: Option<Arc<OwnedFd>>,
    address: Option<SocketAddr>,
    size: usize,
    origin: Instant,
}

#[derive(Default)]
struct Upper {
    stream: Option<StreamId>,
    received: usize,
    is_over: bool,
}

/// The message to send, again and again.
struct Message {
    bytes: Vec<u8>,
    start: u64,
    is_due: bool,
}

impl Player {
    fn new(size: usize, sleeps: bool) -> io::Result<Self> {
        let engine = KernelEngine::new(KernelConfig::default())?;
        let descriptor = engine.readiness().filter(|_| sleeps);
        let message = Message { bytes: vec![0; size], start: 0, is_due: false };
        Ok(Self { engine, upper: Upper::default(), message, descriptor, address: None, size, origin: Instant::now() })
    }

    fn listening(size: usize, sleeps: bool) -> io::Result<Self> {
        let mut player = Self::new(size, sleeps)?;
        let now = player.now();
        let listener = player.engine.listen(now, SocketAddr::from(([127, 0, 0, 1], 0)), 1).map_err(io::Error::other)?;
        player.address = player.engine.listener_address(listener);
        Ok(player)
    }

    fn connecting(address: SocketAddr, size: usize, sleeps: bool) -> io::Result<Self> {
        let mut player = Self::new(size, sleeps)?;
        let now = player.now();
        player.engine.connect(now, address, None).map_err(io::Error::other)?;
        while player.upper.stream.is_none() {
            player.poll()?;
        }
        Ok(player)
    }

    fn address(&self) -> SocketAddr {
        self.address.unwrap_or_else(|| SocketAddr::from(([0; 4], 0)))
    }

    fn now(&self) -> time::Instant {
        time::Instant::from_nanoseconds(self.origin.elapsed().as_nanos() as u64)
    }

    fn ping(&mut self) -> io::Result<()> {
        self.send()?;
        self.receive()
    }

    fn echo(&mut self) -> io::Result<()> {
        self.receive()?;
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        self.message.is_due = true;
        let now = self.now();
        let Some(stream) = self.upper.stream else { return Err(ErrorKind::NotConnected.into()) };
        if self.engine.transmit(now, stream, &mut self.message) != Transmitted::Drained {
            return Err(io::Error::other("the engine has no room for one message"));
        }
        self.engine.flush(now);
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        while self.upper.received < self.size {
            self.poll()?;
        }
        self.upper.received -= self.size;
        Ok(())
    }

    fn poll(&mut self) -> io::Result<()> {
        let now = self.now();
        let activity = self.engine.poll(now, &mut self.upper);
        if self.upper.is_over {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if let Some(descriptor) = self.descriptor.as_ref().filter(|_| activity.is_idle()) {
            rustix::event::poll(&mut [PollFd::new(descriptor, PollFlags::IN)], None)?;
        }
        Ok(())
    }

    /// Stays until the peer has left, so that the last answer is not lost.
    fn linger(&mut self) {
        while self.poll().is_ok() {}
    }
}

impl Streams for Upper {
    fn handle_bytes(&mut self, _stream: StreamId, parts: &[&[u8]]) -> Result<usize, Abort> {
        let count: usize = parts.iter().map(|part| part.len()).sum();
        self.received += count;
        Ok(count)
    }

    fn with_source(&mut self, _stream: StreamId, _use_source: &mut dyn FnMut(&mut dyn Source)) {}

    fn handle_event(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Connected { stream, .. } | StreamEvent::Incoming { stream, .. } => {
                self.stream = Some(stream);
            }
            StreamEvent::Writable { .. } => {}
            _ => self.is_over = true,
        }
    }
}

impl Source for Message {
    fn next(&mut self, room: usize) -> Option<Record> {
        if !self.is_due || room < self.bytes.len() {
            return None;
        }
        self.is_due = false;
        Some(Record { start: self.start, length: self.bytes.len() as u32 })
    }

    fn write(&mut self, _start: u64, out: &mut [u8]) {
        out.copy_from_slice(&self.bytes[..out.len()]);
    }

    fn handle_acknowledged(&mut self, through: u64) {
        self.start = through;
    }
}

fn report(options: &Options, results: &[(Contender, Histogram<u64>)]) {
    let median = |wanted: Contender| {
        let (_, times) = results.iter().find(|(contender, _)| *contender == wanted)?;
        Some(times.value_at_quantile(0.5) as f64)
    };
    let ratio = |ours: Contender, plain: Contender| Some(median(ours)? / median(plain)?);
    let polling = ratio(Contender::EnginePolling, Contender::Polling);
    let sleeping = ratio(Contender::EngineSleeping, Contender::Blocking);
    if options.json {
        let halves = results.iter().map(|(contender, times)| (contender.name().to_string(), quantiles(times)));
        let object = json!({
            "size": options.size,
            "iterations": u64::from(options.iterations) * u64::from(options.rounds),
            "latency_us": serde_json::Value::Object(halves.collect()),
            "ratio_polling": polling,
            "ratio_sleeping": sleeping,
        });
        return println!("{object}");
    }
    println!("{} B, one way in microseconds (half the round trip)", options.size);
    println!("{:16} {:>9} {:>9} {:>9} {:>9}", "", "min", "p50", "p99", "max");
    for (contender, times) in results {
        let (least, p50, p99) = (times.min(), times.value_at_quantile(0.5), times.value_at_quantile(0.99));
        let [least, p50, p99, most] = [least, p50, p99, times.max()].map(one_way);
        println!("{:16} {least:>9.2} {p50:>9.2} {p99:>9.2} {most:>9.2}", contender.name());
    }
    if let Some(ratio) = polling {
        println!("engine-polling : polling    {ratio:.3} (p50)");
    }
    if let Some(ratio) = sleeping {
        println!("engine-sleeping : blocking  {ratio:.3} (p50)");
    }
}

fn quantiles(times: &Histogram<u64>) -> serde_json::Value {
    json!({
        "min": one_way(times.min()),
        "p50": one_way(times.value_at_quantile(0.5)),
        "p99": one_way(times.value_at_quantile(0.99)),
        "max": one_way(times.max()),
    })
}

/// Microseconds one way of a round trip in nanoseconds.
fn one_way(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 2_000.0
}

fn histogram() -> Histogram<u64> {
    const LONGEST: u64 = 60_000_000_000;
    Histogram::new_with_bounds(1, LONGEST, 3).expect("bounds that hdrhistogram accepts")
}

/// The server's core and the client's, where they are to be pinned.
type Cores = (Option<core_affinity::CoreId>, Option<core_affinity::CoreId>);

fn cores(options: &Options) -> Cores {
    if options.no_pin {
        return (None, None);
    }
    match core_affinity::get_core_ids().unwrap_or_default()[..] {
        [first, second, ..] => (Some(second), Some(first)),
        _ => (None, None),
    }
}

/// Where both threads meet once they are on their cores. A new thread begins on its creator's core, and would not get away
/// from there while the creator spins.
#[derive(Clone)]
struct Start(Arc<Barrier>);

impl Start {
    fn pinned(&self, core: Option<core_affinity::CoreId>) {
        if let Some(core) = core {
            // Where it is not allowed the figures are noisier, and still true.
            core_affinity::set_for_current(core);
        }
        self.0.wait();
    }
}

fn join(thread: std::thread::JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the echoing thread panicked")))
}
