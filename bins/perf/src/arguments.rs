//! The command line.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};
use softrdma_bins_common::device::DeviceArguments;
use softrdma_bins_common::size::{SizeList, parse_bytes};

use crate::operation::OperationList;
use crate::plan::{MAX_COMPUTATION, MAX_DEPTH, MAX_QUEUE_PAIRS};

const EXAMPLES: &str = "\
Examples:
  Both ends here, over the kernel's TCP, every byte checked:
    softrdma-perf pair --op all --size 8..1M --verify
  The same over DPDK shared memory, beside what the fabric itself can do:
    softrdma-perf pair --scheme sequential --fabric memif --size 64..1M --with-raw
  On two machines:
    softrdma-perf server --listen 10.0.0.1
    softrdma-perf client 10.0.0.1 --op write --size 64K --qps 4
  What a vdev moves without RDMA:
    softrdma-perf raw --fabric memif --size 64,1514

Exit status: 0 if all went well; 1 after a wrong byte, a failed or lost completion, or a timeout; 2 for a wrong command line.";

const MEASURED: &str = "\
What is measured, for each operation and size:
  send, write, write-imm   ping-pong between the two applications; latency is half the round trip. The arrival of a write is
                           seen in the last bytes of its target, in memory.
  read, fetch-add,         from posting to completion, the whole of it (the answer is part of the operation).
  cmp-swap                 Atomics work on 8 bytes, whatever sizes are asked for.
  throughput               --depth requests outstanding on each active queue pair, from the first post until the last byte is
                           known to be placed at the peer (a Read on each queue pair follows what was sent).
With --verify, buffers are filled before and checked after each timed stretch: fill and check are not in the figures.";

/// Measures softrdma: latency and throughput of every operation, over any fabric.
#[derive(Debug, Parser)]
#[command(name = "softrdma-perf", version, after_help = EXAMPLES, max_term_width = 120)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Waits for clients and is measured, one client after another.
    Server(ServerArguments),
    /// Measures against a server.
    Client(ClientArguments),
    /// Both ends on this machine, over a fabric that it sets up and takes away.
    Pair(PairArguments),
    /// What the fabric moves without RDMA: plain frames, or plain TCP for the kernel.
    Raw(RawArguments),
    /// One end of `pair` or `raw`: takes its task from standard input.
    #[command(hide = true)]
    Child,
}

#[derive(Args, Debug)]
pub(crate) struct ServerArguments {
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    /// Address to listen on, with or without a port [default: loopback, or the device's own address; port 18515].
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = parse_peer)]
    pub(crate) listen: Option<Peer>,
    /// Ends after one client.
    #[arg(long)]
    pub(crate) once: bool,
    /// Most memory that a client may ask for, for messages in one direction; twice as much is made.
    #[arg(long, default_value = "1G", value_name = "BYTES", value_parser = parse_bytes, help_heading = "Limits")]
    pub(crate) memory: u64,
    /// Longest wait for anything that must happen, in seconds.
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = parse_seconds, help_heading = "Limits")]
    pub(crate) timeout: Duration,
}

#[derive(Args, Debug)]
#[command(after_help = MEASURED)]
pub(crate) struct ClientArguments {
    /// Where the server listens [default: the server's default address].
    #[arg(value_name = "ADDRESS[:PORT]", value_parser = parse_peer)]
    pub(crate) server: Option<Peer>,
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    #[command(flatten)]
    pub(crate) test: TestArguments,
    #[command(flatten)]
    pub(crate) limits: LimitArguments,
}

#[derive(Args, Debug)]
#[command(after_help = MEASURED)]
pub(crate) struct PairArguments {
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    #[command(flatten)]
    pub(crate) test: TestArguments,
    #[command(flatten)]
    pub(crate) limits: LimitArguments,
    /// Measures the fabric without RDMA too, at the same frame sizes.
    #[arg(long)]
    pub(crate) with_raw: bool,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Test")]
pub(crate) struct TestArguments {
    /// What to measure: send, write, read, write-imm, fetch-add, cmp-swap; several with commas, or all.
    #[arg(long, default_value = "write", value_name = "OPERATIONS")]
    pub(crate) op: OperationList,
    /// Message sizes: one, a list, or a sweep of powers of two, as in 8..1G.
    #[arg(long, default_value = "64", value_name = "SIZES")]
    pub(crate) size: SizeList,
    /// Messages of each measurement [default: fewer the larger they are, and at most a second].
    #[arg(long, value_name = "COUNT")]
    pub(crate) iterations: Option<NonZeroU64>,
    /// Time of each measurement, instead of a number of messages, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, conflicts_with = "iterations")]
    pub(crate) duration: Option<Duration>,
    /// Time before each measurement that does not count [default: a tenth of the messages or a fifth of the time, at most 8 MB].
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) warm_up: Option<Duration>,
    /// Measures throughput only.
    #[arg(long)]
    pub(crate) skip_latency: bool,
    /// Queue pairs.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_QUEUE_PAIRS)))]
    pub(crate) qps: u32,
    /// Queue pairs that carry traffic, the first ones [default: all].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_QUEUE_PAIRS)))]
    pub(crate) active_qps: Option<u32>,
    /// Requests outstanding on each queue pair while throughput is measured.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_DEPTH)))]
    pub(crate) depth: u32,
    /// The server's application computes (spins) that long between its calls into the library, instead of polling: its stack's
    /// thread has to answer. The latency of a Write is then from posting to completion, as nobody sends one back; for write, read
    /// and atomics. 0: the server polls as ever, for comparison. A fair pinning on two cores is `--pin 0,0,1,1`: the client's
    /// threads on CPU 0, and on CPU 1 the computing application together with the stack's thread, which has to get in there. It does
    /// not compute while `--idle` and `--connects` measure.
    #[arg(long, value_name = "TIME", value_parser = parse_short_time)]
    pub(crate) server_computes: Option<Duration>,
    /// Sleeps that long before each message of a latency measurement [default: 0].
    #[arg(long, value_name = "TIME", value_parser = parse_short_time, default_value = "0", hide_default_value = true)]
    pub(crate) pause: Duration,
    /// First measures the connected pair doing nothing for that long, both applications asleep: CPU time of each process, then 50
    /// messages after a pause each, from the Send until it has woken the server's application, and until its answer is here. In JSON:
    /// `idle`.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) idle: Option<Duration>,
    /// First makes and ends so many connections beside the others, one after another, and sees whether any is lost, or left behind
    /// at either side. In JSON: `connects`.
    #[arg(long, value_name = "COUNT")]
    pub(crate) connects: Option<NonZeroU32>,
    /// Checks every byte that moves, at the side it moves to.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Seed of the data of verified runs.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// One JSON object a line instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// No progress on standard error.
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub(crate) quiet: bool,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArguments {
    /// Memory of each side for messages in one direction; messages share it if it does not hold all that are outstanding.
    #[arg(long, default_value = "64M", value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) memory: u64,
    /// Longest wait for anything that must happen, in seconds.
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) timeout: Duration,
}

#[derive(Args, Debug)]
pub(crate) struct RawArguments {
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    /// Frame sizes in bytes, without the checksum of Ethernet: one, a list, or a sweep. For the kernel: message sizes.
    #[arg(long, default_value = "64,1514", value_name = "SIZES")]
    pub(crate) size: SizeList,
    /// Seconds of each measurement.
    #[arg(long, default_value = "1", value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) duration: Duration,
    /// Adds the passes that moving data makes mandatory: one copy into memory, the CRC and the checksum if they are on.
    #[arg(long)]
    pub(crate) touch: bool,
    /// Memory that --touch copies into.
    #[arg(long, default_value = "64M", value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) memory: u64,
    /// One JSON object a line instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// No progress on standard error.
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub(crate) quiet: bool,
}

/// Where a server listens when nothing else is said.
pub(crate) const DEFAULT_PORT: u16 = 18515;

/// An address with the port it was given, or [`DEFAULT_PORT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer(pub(crate) SocketAddr);

fn parse_peer(text: &str) -> Result<Peer, String> {
    let with_port = text.parse();
    let alone = || text.trim_matches(['[', ']']).parse().map(|address| SocketAddr::new(address, DEFAULT_PORT));
    with_port.or_else(|_| alone()).map(Peer).map_err(|_| {
        format!("'{text}' is no IP address, alone or with a port: write 10.0.0.1, 10.0.0.1:{DEFAULT_PORT} or [fd00::1]:{DEFAULT_PORT}")
    })
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let accepted = || format!("'{text}' is no time: seconds from 0.001 to 86400 are accepted, as in 10, 0.5 or 500ms");
    seconds(text)
        .filter(|seconds| (0.001..=86400.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(accepted)
}

/// A time that may be nothing.
fn parse_short_time(text: &str) -> Result<Duration, String> {
    let longest = MAX_COMPUTATION.as_secs_f64();
    let accepted = || format!("'{text}' is no time from 0 to {longest} s: 10ms, 250us or 0.5 are accepted");
    seconds(text).filter(|seconds| (0.0..=longest).contains(seconds)).map(Duration::from_secs_f64).ok_or_else(accepted)
}

/// A number of seconds, or of a part of them that is named.
fn seconds(text: &str) -> Option<f64> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("", 1.0)];
    let (number, unit) = units.into_iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    number.parse::<f64>().ok().map(|number| number * unit)
}

#[cfg(test)]
#[path = "arguments/tests.rs"]
mod tests;
