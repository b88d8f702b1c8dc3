//! What the sequential engine costs beside smoltcp's bare sockets: both over the same wire in memory, both hosts in one
//! thread, in turns in one run.
//!
//! The application's work is the same for both: bytes to send are copied from a buffer, received ones into one. Time is
//! the thread's time on a processor, so that other work on the machine does not count.

#![forbid(unsafe_code)]

mod bare {
    //! smoltcp as its documentation shows it: one interface, one socket, `poll`.

    use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
    use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
    use smoltcp::socket::tcp::{self, CongestionControl};
    use smoltcp::time::Instant;
    use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};
    use softrdma_stack::memory_port::{MemoryPacket, MemoryPort, MemoryReceiveQueue, MemoryTransmitQueue};
    use softrdma_stack::port::{Frame, Packet, Port, ReceiveQueue, TransmitOffload, TransmitQueue};

    use crate::{Endpoint, Setup};

    struct MemoryDevice {
        receive: MemoryReceiveQueue,
        transmit: MemoryTransmitQueue,
        burst: Vec<MemoryPacket>,
        capabilities: DeviceCapabilities,
    }

    impl Device for MemoryDevice {
        type RxToken<'a> = Received;
        type TxToken<'a> = Transmit<'a>;

        fn receive(&mut self, _now: Instant) -> Option<(Received, Transmit<'_>)> {
            if self.burst.is_empty() {
                self.receive.receive(&mut self.burst);
                self.burst.reverse();
            }
            let packet = self.burst.pop()?;
            Some((Received(packet), Transmit(&mut self.transmit)))
        }

        fn transmit(&mut self, _now: Instant) -> Option<Transmit<'_>> {
            Some(Transmit(&mut self.transmit))
        }

        fn capabilities(&self) -> DeviceCapabilities {
            self.capabilities.clone()
        }
    }

    struct Received(MemoryPacket);

    impl RxToken for Received {
        fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
            f(self.0.parts().next().unwrap_or(&[]))
        }
    }

    struct Transmit<'a>(&'a mut MemoryTransmitQueue);

    impl TxToken for Transmit<'_> {
        fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
            let mut frame = self.0.frame(length).expect("the pool holds more than a window");
            let result = f(frame.bytes_mut());
            self.0.send(frame, TransmitOffload::default()).expect("the wire holds more than a window");
            result
        }
    }

    /// One host.
    pub(crate) struct Host {
        device: MemoryDevice,
        interface: Interface,
        sockets: SocketSet<'static>,
        handle: SocketHandle,
    }

    impl Host {
        pub(crate) fn new(mut port: MemoryPort, number: u8, setup: Setup) -> Self {
            let mut capabilities = DeviceCapabilities::default();
            capabilities.medium = Medium::Ethernet;
            capabilities.max_transmission_unit = setup.mtu + 14;
            if !setup.checksum {
                capabilities.checksum = ChecksumCapabilities::ignored();
            }
            let receive = port.take_receive_queue(0).expect("a receive queue");
            let transmit = port.take_transmit_queue(0).expect("a transmit queue");
            let mut device = MemoryDevice { receive, transmit, burst: Vec::new(), capabilities };
            let address = HardwareAddress::Ethernet(EthernetAddress(port.hardware_address()));
            let mut interface = Interface::new(Config::new(address), &mut device, Instant::ZERO);
            interface.update_ip_addrs(|addresses| {
                addresses.push(IpCidr::new(IpAddress::v4(10, 0, 0, number), 24)).expect("room for one address");
            });
            let mut sockets = SocketSet::new(Vec::new());
            // The last one is used: it is the one that is found last.
            let mut handle = SocketHandle::default();
            for connection in 0..setup.connections as u16 {
                let ring = || tcp::SocketBuffer::new(vec![0; setup.ring_bytes]);
                let mut socket = tcp::Socket::new(ring(), ring());
                socket.set_ack_delay(None);
                socket.set_nagle_enabled(false);
                socket.set_congestion_control(match setup.congestion {
                    true => CongestionControl::Cubic,
                    false => CongestionControl::None,
                });
                // A port for each, so that both ends agree which one is the last.
                let port = 1000 + connection;
                if number == 1 {
                    let remote = (IpAddress::v4(10, 0, 0, 2), port);
                    socket.connect(interface.context(), remote, port).expect("a fresh socket connects");
                } else {
                    socket.listen(port).expect("a fresh socket listens");
                }
                handle = sockets.add(socket);
            }
            Self { device, interface, sockets, handle }
        }

        fn socket(&mut self) -> &mut tcp::Socket<'static> {
            self.sockets.get_mut(self.handle)
        }
    }

    impl Endpoint for Host {
        fn turn(&mut self, now: u64) {
            let now = Instant::from_micros((now / 1000) as i64);
            self.interface.poll(now, &mut self.device, &mut self.sockets);
            self.device.transmit.flush();
        }

        fn is_connected(&mut self) -> bool {
            self.sockets
                .iter()
                .all(|(_, smoltcp::socket::Socket::Tcp(socket))| socket.state() == tcp::State::Established)
        }

        fn send(&mut self, from: &[u8], limit: usize) -> usize {
            let mut sent = 0;
            while sent < limit && self.socket().can_send() {
                let taken = self.socket().send(|ring| {
                    let taken = ring.len().min(limit - sent).min(from.len());
                    ring[..taken].copy_from_slice(&from[..taken]);
                    (taken, taken)
                });
                sent += taken.expect("an established socket sends");
            }
            sent
        }

        fn receive(&mut self, into: &mut [u8]) -> usize {
            let mut received = 0;
            while self.socket().can_recv() {
                let taken = self.socket().recv(|ring| {
                    let taken = ring.len().min(into.len());
                    into[..taken].copy_from_slice(&ring[..taken]);
                    (taken, taken)
                });
                received += taken.expect("an established socket receives");
            }
            received
        }

        /// What was sent and read since the last turn leaves.
        fn flush(&mut self, now: u64) {
            let now = Instant::from_micros((now / 1000) as i64);
            while self.interface.poll_egress(now, &mut self.device, &mut self.sockets)
                == smoltcp::iface::PollResult::SocketStateChanged
            {}
            self.device.transmit.flush();
        }
    }
}

mod engine {
    //! The sequential engine, as `verbs` drives it.

    use softrdma_stack::memory_port::MemoryPort;
    use softrdma_stack::sequential::{CongestionControl, SequentialConfig, SequentialEngine};
    use softrdma_stack::stream::{Abort, Engine, Record, Source, StreamEvent, StreamId, Streams};
    use softrdma_stack::time::Instant;

    use crate::{COPY_BYTES, Endpoint, Setup};

    /// The application's end of the stream.
    struct Application {
        stream: Option<StreamId>,
        connected: usize,
        wanted: usize,
        received: usize,
        into: Vec<u8>,
    }

    impl Streams for Application {
        fn handle_bytes(&mut self, _stream: StreamId, parts: &[&[u8]]) -> Result<usize, Abort> {
            let mut taken = 0;
            for part in parts {
                for piece in part.chunks(self.into.len()) {
                    self.into[..piece.len()].copy_from_slice(piece);
                }
                taken += part.len();
            }
            self.received += taken;
            Ok(taken)
        }

        fn with_source(&mut self, _stream: StreamId, _use_source: &mut dyn FnMut(&mut dyn Source)) {}

        fn handle_event(&mut self, event: StreamEvent) {
            match event {
                StreamEvent::Incoming { stream, local, .. } => {
                    self.connected += 1;
                    if usize::from(local.port()) == 999 + self.wanted {
                        self.stream = Some(stream);
                    }
                }
                StreamEvent::Connected { .. } => self.connected += 1,
                StreamEvent::Writable { .. } => {}
                other => panic!("{other:?} between two good hosts"),
            }
        }
    }

    /// Records of one segment each, as FPDUs are.
    struct Records<'a> {
        from: &'a [u8],
        next: u64,
        end: u64,
        segment_size: usize,
    }

    impl Source for Records<'_> {
        fn next(&mut self, room: usize) -> Option<Record> {
            let length = self.segment_size.min(room).min((self.end - self.next) as usize);
            let record = Record { start: self.next, length: length as u32 };
            self.next = record.end();
            (length > 0).then_some(record)
        }

        fn write(&mut self, _start: u64, out: &mut [u8]) {
            out.copy_from_slice(&self.from[..out.len()]);
        }

        fn handle_acknowledged(&mut self, _through: u64) {}
    }

    /// One host.
    pub(crate) struct Host {
        engine: SequentialEngine<MemoryPort>,
        application: Application,
        now: Instant,
        sent: u64,
    }

    impl Host {
        pub(crate) fn new(port: MemoryPort, number: u8, setup: Setup) -> Self {
            let config = SequentialConfig {
                addresses: vec![([10, 0, 0, number].into(), 24)],
                mtu: Some(setup.mtu),
                max_connections: setup.connections,
                max_listeners: setup.connections,
                socket_buffer_bytes: setup.ring_bytes,
                random_seed: u64::from(number),
                checksum: setup.checksum,
                congestion_control: if setup.congestion { CongestionControl::Cubic } else { CongestionControl::Off },
                ..SequentialConfig::default()
            };
            let mut engine = SequentialEngine::new(port, config, Instant::ZERO).expect("a good configuration");
            let mut stream = None;
            for connection in 0..setup.connections as u16 {
                let server = ([10, 0, 0, 2], 1000 + connection).into();
                if number == 1 {
                    stream = Some(engine.connect(Instant::ZERO, server, None).expect("connecting begins"));
                } else {
                    engine.listen(Instant::ZERO, server, 1).expect("a listener");
                }
            }
            let wanted = setup.connections;
            let application = Application { stream, connected: 0, wanted, received: 0, into: vec![0; COPY_BYTES] };
            Self { engine, application, now: Instant::ZERO, sent: 0 }
        }
    }

    impl Endpoint for Host {
        fn turn(&mut self, now: u64) {
            self.now = Instant::from_nanoseconds(now);
            self.engine.poll(self.now, &mut self.application);
        }

        fn is_connected(&mut self) -> bool {
            self.application.connected == self.application.wanted
        }

        fn send(&mut self, from: &[u8], limit: usize) -> usize {
            let Some(stream) = self.application.stream else { return 0 };
            let segment_size = self.engine.segment_size(stream);
            let mut source = Records { from, next: self.sent, end: self.sent + limit as u64, segment_size };
            self.engine.transmit(self.now, stream, &mut source);
            let sent = source.next - self.sent;
            self.sent = source.next;
            sent as usize
        }

        fn receive(&mut self, _into: &mut [u8]) -> usize {
            std::mem::take(&mut self.application.received)
        }

        fn flush(&mut self, now: u64) {
            self.engine.flush(Instant::from_nanoseconds(now));
        }
    }
}

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use softrdma_stack::memory_port::{Impairments, MemoryPort, wire};

/// The application's buffers: as large as a first-level cache likes.
const COPY_BYTES: usize = 16 * 1024;
/// Bytes of a ping and of a pong.
const PING_BYTES: usize = 64;
/// Measurements of each half; the best of each counts, as the machine's other work only ever adds.
const ROUNDS: usize = 7;
/// Exchanges between two looks at the processor's time, which cost a system call each.
const BATCH: u32 = 64;

const USAGE: &str =
    "usage: smoltcp_baseline [--json] [--checksum] [--no-congestion-control] [--seconds S] [--ring-bytes N]
       [--connections N]
Measures 64 B ping-pong and bulk at MTU 1500 and 9000 in one thread, bare smoltcp beside the sequential engine. One of
N connections carries the traffic.";

/// What both halves are measured with.
#[derive(Clone, Copy)]
struct Setup {
    mtu: usize,
    checksum: bool,
    congestion: bool,
    ring_bytes: usize,
    /// Connections open at a time; one of them carries the traffic.
    connections: usize,
}

/// One end of one connection. Times are nanoseconds.
trait Endpoint {
    /// Receives and handles what has arrived.
    fn turn(&mut self, now: u64);
    fn is_connected(&mut self) -> bool;
    /// Sends up to `limit` bytes, copied from `from` again and again.
    fn send(&mut self, from: &[u8], limit: usize) -> usize;
    /// Takes everything received, copied into `into` again and again.
    fn receive(&mut self, into: &mut [u8]) -> usize;
    /// Lets leave what waits.
    fn flush(&mut self, now: u64);
}

/// What a run is told.
struct Options {
    json: bool,
    checksum: bool,
    congestion: bool,
    seconds: f64,
    ring_bytes: usize,
    connections: usize,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    if !options.json {
        println!("{:<10} {:>5} {:>18} {:>18} {:>9}", "test", "MTU", "smoltcp bare", "SequentialEngine", "ratio");
    }
    for mtu in [1500, 9000] {
        let Options { checksum, congestion, ring_bytes, connections, .. } = options;
        let setup = Setup { mtu, checksum, congestion, ring_bytes, connections };
        let time = Duration::from_secs_f64(options.seconds / ROUNDS as f64);
        let (bare, engine) = compare(setup, |pair| ping_pong(pair, time), f64::min);
        report(&options, setup, "ping-pong", "us round trip", bare, engine, bare / engine);
        let (bare, engine) = compare(setup, |pair| bulk(pair, time), f64::max);
        report(&options, setup, "bulk", "Gbit/s", bare, engine, engine / bare);
    }
    ExitCode::SUCCESS
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        json: false,
        checksum: false,
        congestion: true,
        seconds: 1.0,
        ring_bytes: 256 * 1024,
        connections: 1,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--json" => options.json = true,
            "--checksum" => options.checksum = true,
            "--no-congestion-control" => options.congestion = false,
            "--seconds" => {
                let text = value()?;
                options.seconds = text
                    .parse()
                    .ok()
                    .filter(|seconds| (0.01..=60.0).contains(seconds))
                    .ok_or_else(|| format!("--seconds {text}: give a number from 0.01 to 60"))?;
            }
            "--connections" => {
                let text = value()?;
                options.connections = text
                    .parse()
                    .ok()
                    .filter(|connections| (1..=1024).contains(connections))
                    .ok_or_else(|| format!("--connections {text}: give a number from 1 to 1024"))?;
            }
            "--ring-bytes" => {
                let text = value()?;
                options.ring_bytes = text
                    .parse()
                    .ok()
                    .filter(|bytes| (65_536..=1 << 24).contains(bytes))
                    .ok_or_else(|| format!("--ring-bytes {text}: give a number from 65536 to 16777216"))?;
            }
            _ => return Err(format!("{argument}: not an option")),
        }
    }
    Ok(options)
}

/// The best of [`ROUNDS`] measurements of each half, taken in turns.
fn compare(
    setup: Setup,
    measure: impl Fn(&mut [&mut dyn Endpoint; 2]) -> f64,
    better: impl Fn(f64, f64) -> f64,
) -> (f64, f64) {
    let (mut best_bare, mut best_engine) = (None, None);
    for _ in 0..ROUNDS {
        let (a, b) = ports(setup);
        let (mut a, mut b) = (bare::Host::new(a, 1, setup), bare::Host::new(b, 2, setup));
        let bare = measure(&mut [&mut a, &mut b]);
        let (a, b) = ports(setup);
        let (mut a, mut b) = (engine::Host::new(a, 1, setup), engine::Host::new(b, 2, setup));
        let engine = measure(&mut [&mut a, &mut b]);
        best_bare = Some(best_bare.map_or(bare, |best| better(best, bare)));
        best_engine = Some(best_engine.map_or(engine, |best| better(best, engine)));
    }
    (best_bare.unwrap_or(f64::NAN), best_engine.unwrap_or(f64::NAN))
}

fn ports(setup: Setup) -> (MemoryPort, MemoryPort) {
    let (a, b, _wire) = wire(1, Impairments { mtu: setup.mtu, ..Impairments::default() });
    (a, b)
}

/// Round trip of [`PING_BYTES`] there and back, in microseconds.
fn ping_pong(pair: &mut [&mut dyn Endpoint; 2], time: Duration) -> f64 {
    let (from, mut into) = (vec![1; COPY_BYTES], vec![0; COPY_BYTES]);
    let clock = connect(pair);
    let now = || clock.elapsed().as_nanos() as u64;
    let [client, server] = pair;
    let mut trips = 0;
    let start = processor_time();
    let mut used = Duration::ZERO;
    while used < time {
        for _ in 0..BATCH {
            client.send(&from, PING_BYTES);
            client.flush(now());
            exchange(*server, now(), &mut into);
            server.send(&from, PING_BYTES);
            server.flush(now());
            exchange(*client, now(), &mut into);
        }
        trips += BATCH;
        used = processor_time() - start;
    }
    used.as_secs_f64() * 1e6 / f64::from(trips)
}

/// Waits for [`PING_BYTES`].
fn exchange(host: &mut dyn Endpoint, now: u64, into: &mut [u8]) {
    let mut received = 0;
    while received < PING_BYTES {
        host.turn(now);
        received += host.receive(into);
    }
}

/// Payload in 10^9 bits a second, one way.
fn bulk(pair: &mut [&mut dyn Endpoint; 2], time: Duration) -> f64 {
    let (from, mut into) = (vec![1; COPY_BYTES], vec![0; COPY_BYTES]);
    let clock = connect(pair);
    let now = || clock.elapsed().as_nanos() as u64;
    let [client, server] = pair;
    let mut bytes = 0;
    let start = processor_time();
    let mut used = Duration::ZERO;
    while used < time {
        for _ in 0..BATCH {
            client.turn(now());
            client.send(&from, usize::MAX >> 1);
            client.flush(now());
            server.turn(now());
            bytes += server.receive(&mut into);
            server.flush(now());
        }
        used = processor_time() - start;
    }
    bytes as f64 * 8.0 / used.as_secs_f64() / 1e9
}

/// Time that this thread has run.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Lets the two connect; returns the clock of the connection.
fn connect(pair: &mut [&mut dyn Endpoint; 2]) -> Instant {
    let clock = Instant::now();
    while !pair.iter_mut().all(|host| host.is_connected()) {
        for host in pair.iter_mut() {
            host.turn(clock.elapsed().as_nanos() as u64);
            host.flush(clock.elapsed().as_nanos() as u64);
        }
    }
    clock
}

/// Prints both halves of a ratio, and the ratio: above one the engine is the better.
fn report(options: &Options, setup: Setup, test: &str, unit: &str, bare: f64, engine: f64, ratio: f64) {
    if options.json {
        let line = json!({
            "test": test, "unit": unit, "mtu": setup.mtu, "checksum": setup.checksum,
            "congestion_control": setup.congestion, "ring_bytes": setup.ring_bytes,
            "connections": setup.connections,
            "smoltcp_bare": bare, "sequential_engine": engine, "ratio": ratio,
        });
        println!("{line}");
    } else {
        let with_unit = |value: f64| format!("{value:.2} {}", if test == "bulk" { "Gbit/s" } else { "us" });
        println!("{test:<10} {:>5} {:>18} {:>18} {ratio:>9.2}", setup.mtu, with_unit(bare), with_unit(engine));
    }
}
