//! What a fabric moves without RDMA: plain frames over a pair of ports, plain TCP for the kernel. The limit that the rest is
//! held against.

use std::collections::HashMap;
use std::io::{Write, stdout};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
#[cfg(feature = "dpdk")]
use softrdma_bins_common::device::End;
use softrdma_bins_common::device::{DeviceArguments, DevicePlan, Fabric};
use softrdma_bins_common::output;
use softrdma_bins_common::size::Bytes;

use crate::arguments::RawArguments;
use crate::child::{Child, Saying, Task, say};
use crate::failure::{Context, Failure};
use crate::report::RawLimits;
use crate::statistics::{Latencies, LatencySummary, Throughput};
use crate::{network, pair, plain_tcp};

/// Bytes of an Ethernet header.
const ETHERNET_HEADER: u64 = 14;

/// What stands in a frame around the payload of one FPDU, besides Ethernet's: IPv4, TCP, the FPDU's length, a tagged DDP/RDMAP
/// header, CRC (RFC 791, 9293, 5044 §4, 5041 §4.1).
const FRAME_OVERHEAD: u64 = ETHERNET_HEADER + 20 + 20 + 2 + 14 + 4;

/// Smallest frame of Ethernet, without its trailing checksum.
const SMALLEST_FRAME: u64 = 60;

/// Time of each measurement that `--with-raw` makes.
const WITH_RAW_SECONDS: &str = "0.3";

/// How long each side waits for the other.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a run moves frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Traffic {
    /// One at a time, there and back.
    PingPong,
    /// As many as go, one way.
    Bulk,
}

/// What a receiver does with what arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RawTouch {
    /// Bytes of memory to copy into.
    pub(crate) memory: u64,
    pub(crate) crc: bool,
    /// The Internet checksum; over kernel TCP that is the kernel's work.
    pub(crate) checksum: bool,
}

/// One measurement, the same at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RawRun {
    /// Bytes of a frame, or of a message over TCP.
    pub(crate) size: u64,
    pub(crate) traffic: Traffic,
    pub(crate) touch: Option<RawTouch>,
    pub(crate) duration: Duration,
}

/// What the second process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RawTask {
    device: DevicePlan,
    runs: Vec<RawRun>,
}

/// What came out of one run: one of the two, by its traffic.
pub(crate) struct RawResult {
    pub(crate) latencies: Latencies,
    pub(crate) throughput: Throughput,
}

/// The result at one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct RawRow {
    fabric: String,
    /// Bytes of a frame, or of a message over TCP.
    size: u64,
    crc: bool,
    /// One way, half of a round trip.
    latency_us: LatencySummary,
    throughput_gbps: f64,
    rate_mops: f64,
    /// With the mandatory passes; absent without `--touch`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    touched_gbps: Option<f64>,
}

/// The command.
pub(crate) fn run(arguments: &RawArguments) -> Result<(), Failure> {
    let fabric = pair::fabric(&arguments.device)?;
    if fabric == Fabric::Ring {
        let what =
            "raw needs two ports, and a ring is one that receives what it sends: use --fabric memif, tap or af_packet";
        return Err(Failure::CommandLine(what.to_owned()));
    }
    network::enter_namespace(fabric)?;
    network::prepare(fabric)?;
    let [server, client] = pair::plans(&arguments.device, fabric, 0)?;
    let touch = arguments.touch.then_some(RawTouch {
        memory: arguments.memory,
        crc: client.config.crc,
        checksum: client.config.checksum,
    });
    let runs = runs(arguments, fabric, touch);
    let child = Child::start(&Task::Raw(RawTask { device: server, runs: runs.clone() }))?;
    let mut results = Vec::new();
    let mut take = |run: &RawRun, result: RawResult| {
        results.push(result);
        if results.len() < runs_of_one_size(touch) {
            return Ok(());
        }
        print(arguments.json, &row(fabric, client.config.crc, run.size, &std::mem::take(&mut results)))
    };
    if !arguments.json {
        output::line(format_args!(
            "{:<9} {:>6} {:>9} {:>9} {:>9} {:>9} {:>10} {:>14}",
            "fabric", "size", "min us", "p50 us", "p99 us", "Gbit/s", "Mframe/s", "touched Gbit/s"
        ));
    }
    match fabric {
        Fabric::Kernel => {
            let address = child.address(PATIENCE)?;
            for run in &runs {
                take(run, plain_tcp::initiate(address, run, PATIENCE)?)?;
            }
        }
        _ => ports::initiate(&child, fabric, &client, &runs, take)?,
    }
    child.join()
}

fn runs_of_one_size(touch: Option<RawTouch>) -> usize {
    if touch.is_some() { 3 } else { 2 }
}

fn runs(arguments: &RawArguments, fabric: Fabric, touch: Option<RawTouch>) -> Vec<RawRun> {
    let smallest = if fabric == Fabric::Kernel { 1 } else { SMALLEST_FRAME };
    let of_size = |size: &u64| {
        let run = RawRun {
            size: (*size).max(smallest),
            traffic: Traffic::PingPong,
            touch: None,
            duration: arguments.duration,
        };
        let bulk = RawRun { traffic: Traffic::Bulk, ..run };
        let touched = touch.map(|touch| RawRun { touch: Some(touch), ..bulk });
        [run, bulk].into_iter().chain(touched)
    };
    arguments.size.as_slice().iter().flat_map(of_size).collect()
}

fn row(fabric: Fabric, crc: bool, size: u64, results: &[RawResult]) -> RawRow {
    let [ping, bulk, touched @ ..] = results else { unreachable!("a row is made of two or three results") };
    RawRow {
        fabric: fabric.name().to_owned(),
        size,
        crc,
        latency_us: ping.latencies.summary(),
        throughput_gbps: bulk.throughput.gigabits_per_second(),
        rate_mops: bulk.throughput.million_messages_per_second(),
        touched_gbps: touched.first().map(|touched| touched.throughput.gigabits_per_second()),
    }
}

fn print(json: bool, row: &RawRow) -> Result<(), Failure> {
    let mut out = stdout().lock();
    let printed = if json {
        serde_json::to_writer(&mut out, row).map_err(std::io::Error::from).and_then(|()| writeln!(out))
    } else {
        let latency = &row.latency_us;
        let touched = row.touched_gbps.map_or_else(|| "-".to_owned(), |gbps| format!("{gbps:.3}"));
        writeln!(
            out,
            "{:<9} {:>6} {:>9.2} {:>9.2} {:>9.2} {:>9.3} {:>10.4} {:>14}",
            row.fabric,
            Bytes(row.size),
            latency.min,
            latency.p50,
            latency.p99,
            row.throughput_gbps,
            row.rate_mops,
            touched
        )
    };
    printed.and_then(|()| out.flush()).context(|| "cannot print")
}

impl RawTask {
    /// The second process: answers each run.
    pub(crate) fn respond(&self) -> Result<(), Failure> {
        if self.device.fabric != Some(Fabric::Kernel) {
            return ports::respond(&self.device, &self.runs);
        }
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let listener = TcpListener::bind(any).context(|| "cannot listen on loopback")?;
        say(&Saying::Listening(listener.local_addr().context(|| "cannot listen on loopback")?));
        self.runs.iter().try_for_each(|run| plain_tcp::respond(&listener, run, PATIENCE))
    }
}

/// The frame that carries a message of `size` bytes, or its first segment.
fn frame_size(fabric: Fabric, size: u64, mtu: u32) -> u64 {
    match fabric {
        Fabric::Kernel => size,
        _ => (size + FRAME_OVERHEAD).clamp(SMALLEST_FRAME, u64::from(mtu) + ETHERNET_HEADER),
    }
}

/// What the fabric can do, measured once for each frame size, by a process of its own: this one's ports are in use, or will be.
pub(crate) struct RawLimitsCache {
    fabric: Fabric,
    mtu: u32,
    options: Vec<String>,
    found: HashMap<u64, RawLimits>,
}

impl RawLimitsCache {
    pub(crate) fn new(device: &DeviceArguments, fabric: Fabric, memory: u64) -> Self {
        let mtu = device.mtu.unwrap_or(1500);
        let mut options =
            vec!["--fabric".to_owned(), fabric.name().to_owned(), "--memory".to_owned(), memory.to_string()];
        if fabric != Fabric::Kernel {
            options.extend(["--mtu".to_owned(), mtu.to_string()]);
        }
        for (option, value) in [("--crc", device.crc), ("--checksum", device.checksum)] {
            if let Some(value) = value {
                options.extend([option.to_owned(), if value.into() { "on" } else { "off" }.to_owned()]);
            }
        }
        Self { fabric, mtu, options, found: HashMap::new() }
    }

    /// The limits at the frame size of messages of `size` bytes.
    pub(crate) fn limits(&mut self, size: u64) -> Result<RawLimits, Failure> {
        let frame = frame_size(self.fabric, size, self.mtu);
        if let Some(limits) = self.found.get(&frame) {
            return Ok(*limits);
        }
        let limits = self.measure(frame)?;
        self.found.insert(frame, limits);
        Ok(limits)
    }

    fn measure(&self, frame: u64) -> Result<RawLimits, Failure> {
        let program = std::env::current_exe().context(|| "cannot find this program's file")?;
        let output = Command::new(program)
            .args(["raw", "--json", "--touch", "--duration", WITH_RAW_SECONDS, "--size", &frame.to_string()])
            .args(&self.options)
            .env_remove(network::INSIDE)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context(|| "cannot start `softrdma-perf raw`")?;
        if !output.status.success() {
            return Err(Failure::Connection(format!("`softrdma-perf raw` failed ({})", output.status)));
        }
        let row: RawRow = serde_json::from_slice(&output.stdout).context(|| "`softrdma-perf raw` printed no result")?;
        Ok(RawLimits {
            latency_us_p50: row.latency_us.p50,
            throughput_gbps: row.throughput_gbps,
            touched_gbps: row.touched_gbps.unwrap_or_default(),
        })
    }
}

#[cfg(not(feature = "dpdk"))]
mod ports {
    //! Without DPDK there are none; a plan for one is refused before it gets here.

    use super::*;

    const NO_PORTS: &str = "this program was built without DPDK: build it with `cargo build --release --features dpdk`";

    pub(super) fn initiate(
        _: &Child,
        _: Fabric,
        _: &DevicePlan,
        _: &[RawRun],
        _: impl FnMut(&RawRun, RawResult) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let _ = network::attach;
        Err(Failure::Refused(NO_PORTS.to_owned()))
    }

    pub(super) fn respond(_: &DevicePlan, _: &[RawRun]) -> Result<(), Failure> {
        Err(Failure::Refused(NO_PORTS.to_owned()))
    }
}

#[cfg(feature = "dpdk")]
#[path = "raw/ports.rs"]
mod ports;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_of_a_message_is_its_size_and_headers_within_the_mtu() {
        assert_eq!(frame_size(Fabric::Memif, 64, 1500), 64 + 74);
        assert_eq!(frame_size(Fabric::Memif, 1, 1500), 75);
        assert_eq!(frame_size(Fabric::Memif, 1 << 20, 1500), 1514);
        assert_eq!(frame_size(Fabric::Memif, 1 << 20, 9000), 9014);
        assert_eq!(frame_size(Fabric::Kernel, 1 << 20, 1500), 1 << 20);
    }

    #[test]
    fn plain_tcp_moves_what_it_says() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let duration = Duration::from_millis(20);
        let touch = Some(RawTouch { memory: 1 << 20, crc: true, checksum: false });
        let ping = RawRun { size: 64, traffic: Traffic::PingPong, touch: None, duration };
        let bulk = RawRun { size: 4096, traffic: Traffic::Bulk, touch, duration };
        let server = std::thread::spawn(move || {
            for run in [ping, bulk] {
                plain_tcp::respond(&listener, &run, PATIENCE).unwrap();
            }
        });
        let ping = plain_tcp::initiate(address, &ping, PATIENCE).unwrap().latencies.summary();
        assert!(ping.min > 0.0 && ping.min <= ping.p50 && ping.p50 <= ping.max, "{ping:?}");
        let bulk = plain_tcp::initiate(address, &bulk, PATIENCE).unwrap().throughput;
        assert_eq!(bulk.bytes, bulk.messages * 4096);
        assert!(bulk.messages > 0 && bulk.time >= duration);
        server.join().unwrap();
    }
}
