//! The speed table: what softrdma promises, each figure with both halves of its ratio, measured in turns on this machine.
//! Runs `softrdma-perf` and reads its JSON lines. `make bench` runs it.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Parser;
use serde_json::{Value, json};

/// Measures what softrdma promises between two processes, over memif (idle over tap and kernel sockets as well), and prints each
/// bar with its figure.
///
/// Example: speed --rounds 3 target/release/softrdma-perf
#[derive(Parser)]
struct Arguments {
    /// The perf tool, built with DPDK.
    program: PathBuf,
    /// Rounds; in each every contender runs once, and the medians count.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 0.4)]
    seconds: f64,
    /// One JSON object a line instead of the table.
    #[arg(long)]
    json: bool,
    /// Only rows whose text contains this.
    #[arg(long)]
    only: Option<String>,
    /// Fails if a bar is missed.
    #[arg(long)]
    strict: bool,
}

/// A measurement, as `softrdma-perf pair` is told.
type Options = &'static str;

const LATENCY_C2: Options = "--scheme softrdma --threads c2 --busy-poll --op write,send --size 64 --with-raw";
const LATENCY_C3: Options = "--scheme softrdma --threads c3 --busy-poll --op write,send --size 64";
const LATENCY_KERNEL: Options = "--scheme kernel-socket --threads c2 --busy-poll --op write,send --size 64";
const BULK: Options =
    "--scheme softrdma --threads c2 --busy-poll --op write,send --size 1M --depth 16 --mtu 9000 --with-raw";
const BULK_WITHOUT_CRC: Options =
    "--scheme softrdma --threads c2 --busy-poll --op write --size 1M --depth 16 --mtu 9000 --crc off --with-raw";
const BULK_SEQUENTIAL: Options =
    "--scheme sequential --threads c2 --busy-poll --op write --size 1M --depth 16 --mtu 9000";
const BULK_SEQUENTIAL_WITHOUT_CRC: Options =
    "--scheme sequential --threads c2 --busy-poll --op write --size 1M --depth 16 --mtu 9000 --crc off";
const FEW: Options = "--scheme softrdma --threads c2 --busy-poll --op write --size 64 --qps 16 --depth 16";
const MANY: Options =
    "--scheme softrdma --threads c2 --busy-poll --op write --size 64 --qps 10000 --active-qps 16 --depth 16";
const CONNECTS: Options =
    "--scheme softrdma --threads c2 --busy-poll --op write --size 64 --iterations 100 --connects 10000";
// Client on CPU 0; on CPU 1 the server's application and its stack's thread, which has to get in beside it.
const COMPUTES_C3: Options = "--scheme softrdma --threads c3 --busy-poll --pin 0,0,1,1 --op read,write --size 64 \
                              --pause 300us --iterations 3000 --server-computes 10ms";
const POLLS_C3: Options = "--scheme softrdma --threads c3 --busy-poll --pin 0,0,1,1 --op read,write --size 64 \
                           --pause 300us --iterations 3000 --server-computes 0";
const COMPUTES_C2: Options = "--scheme softrdma --threads c2 --busy-poll --pin 0,0,1,1 --op read,write --size 64 \
                              --pause 300us --iterations 3000 --server-computes 10ms";
const POLLS_C2: Options = "--scheme softrdma --threads c2 --busy-poll --pin 0,0,1,1 --op read,write --size 64 \
                           --pause 300us --iterations 3000 --server-computes 0";
const IDLE_MEMIF: Options = "--scheme softrdma --op write --size 64 --iterations 100 --idle 3";
const IDLE_TAP: Options = "--scheme softrdma --fabric tap --op write --size 64 --iterations 100 --idle 3";
const IDLE_KERNEL: Options = "--scheme kernel-socket --op write --size 64 --iterations 100 --idle 3";

/// A number in a row of `softrdma-perf`: of the operation, at the path in the JSON.
#[derive(Clone, Copy)]
struct Figure {
    of: Options,
    operation: &'static str,
    path: &'static str,
}

const fn figure(of: Options, operation: &'static str, path: &'static str) -> Figure {
    Figure { of, operation, path }
}

/// What the figure is to be.
#[derive(Clone, Copy)]
enum Bar {
    AtMost(f64),
    AtLeast(f64),
    /// Nothing is promised.
    Shown,
}

/// A row of the table.
struct Row {
    what: &'static str,
    bar: Bar,
    ours: Figure,
    /// What ours is set against; by itself if nothing.
    theirs: Option<Figure>,
    against: Against,
}

/// How one figure is set against another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Against {
    Ratio,
    Difference,
}

const fn row(what: &'static str, bar: Bar, ours: Figure, theirs: Option<Figure>) -> Row {
    Row { what, bar, ours, theirs, against: Against::Ratio }
}

/// By how much ours is more than theirs.
const fn above(what: &'static str, bar: Bar, ours: Figure, theirs: Figure) -> Row {
    Row { what, bar, ours, theirs: Some(theirs), against: Against::Difference }
}

/// A figure by itself.
const fn alone(what: &'static str, bar: Bar, ours: Figure) -> Row {
    row(what, bar, ours, None)
}

const P50: &str = "/latency_us/p50";
const P99: &str = "/latency_us/p99";
const RAW_P50: &str = "/raw/latency_us_p50";
const GBPS: &str = "/throughput_gbps";
const RAW_GBPS: &str = "/raw/throughput_gbps";
const TOUCHED_GBPS: &str = "/raw/touched_gbps";
const COPIES: &str = "/receive_copies_per_byte";

fn rows() -> Vec<Row> {
    [latency_rows(), bulk_rows(), computing_rows(), connection_rows(), idle_rows()].into_iter().flatten().collect()
}

fn latency_rows() -> Vec<Row> {
    use Bar::{AtLeast, AtMost};
    let mut rows = Vec::new();
    for operation in ["write", "send"] {
        let (c2, c3) = (figure(LATENCY_C2, operation, P50), figure(LATENCY_C3, operation, P50));
        let raw = figure(LATENCY_C2, operation, RAW_P50);
        let kernel = figure(LATENCY_KERNEL, operation, P50);
        let is_write = operation == "write";
        let name = |write, send| if is_write { write } else { send };
        rows.extend([
            row(
                name("64 B Write latency, c2 / raw frames", "64 B Send latency, c2 / raw frames"),
                AtMost(2.0),
                c2,
                Some(raw),
            ),
            row(name("64 B Write latency, c3 / c2", "64 B Send latency, c3 / c2"), AtMost(1.1), c3, Some(c2)),
            row(
                name("64 B Write latency, c2 / kernel-socket", "64 B Send latency, c2 / kernel-socket"),
                AtMost(0.2),
                c2,
                Some(kernel),
            ),
        ]);
    }
    rows.push(alone(
        "64 B Writes, depth 64: million a second",
        AtLeast(2.0),
        figure(LATENCY_C2, "write", "/rate_mops"),
    ));
    rows
}

fn bulk_rows() -> Vec<Row> {
    use Bar::{AtLeast, AtMost, Shown};
    let bulk = |path| figure(BULK, "write", path);
    let bare = |path| figure(BULK_WITHOUT_CRC, "write", path);
    let sequential = figure(BULK_SEQUENTIAL, "write", GBPS);
    let sequential_bare = figure(BULK_SEQUENTIAL_WITHOUT_CRC, "write", GBPS);
    vec![
        row("1 MiB Writes, CRC on / raw touched", AtLeast(0.8), bulk(GBPS), Some(bulk(TOUCHED_GBPS))),
        row("1 MiB Writes, CRC on / raw", Shown, bulk(GBPS), Some(bulk(RAW_GBPS))),
        row("1 MiB Writes, CRC on / sequential", AtLeast(1.5), bulk(GBPS), Some(sequential)),
        row("1 MiB Writes, CRC off / raw touched", AtLeast(0.8), bare(GBPS), Some(bare(TOUCHED_GBPS))),
        row("1 MiB Writes, CRC off / raw", Shown, bare(GBPS), Some(bare(RAW_GBPS))),
        row("1 MiB Writes, CRC off / sequential", AtLeast(1.5), bare(GBPS), Some(sequential_bare)),
        alone("copies per byte received, Writes", AtMost(1.0), bulk(COPIES)),
        alone("copies per byte received, Sends", AtMost(1.0), figure(BULK, "send", COPIES)),
    ]
}

/// Microseconds that a server's computing application adds.
fn computing_rows() -> Vec<Row> {
    use Bar::{AtMost, Shown};
    let p99 = |of, operation| figure(of, operation, P99);
    let (read, write) = ("read", "write");
    vec![
        above(
            "Read p99, server computes 10 ms, c3: us more",
            AtMost(200.0),
            p99(COMPUTES_C3, read),
            p99(POLLS_C3, read),
        ),
        above(
            "Write p99, server computes 10 ms, c3: us more",
            AtMost(200.0),
            p99(COMPUTES_C3, write),
            p99(POLLS_C3, write),
        ),
        above("Read p99, server computes 10 ms, c2: us more", Shown, p99(COMPUTES_C2, read), p99(POLLS_C2, read)),
        above("Write p99, server computes 10 ms, c2: us more", Shown, p99(COMPUTES_C2, write), p99(POLLS_C2, write)),
    ]
}

fn connection_rows() -> Vec<Row> {
    use Bar::{AtMost, Shown};
    let many = |path| figure(MANY, "write", path);
    let connects = |path| figure(CONNECTS, "write", path);
    vec![
        row(
            "64 B Write latency, 10,000 queue pairs, 16 active / 16 alone",
            AtMost(1.2),
            many(P50),
            Some(figure(FEW, "write", P50)),
        ),
        alone("bytes of an idle connection, client", AtMost(8192.0), many("/idle_connection_bytes/client")),
        alone("bytes of an idle connection, server", AtMost(8192.0), many("/idle_connection_bytes/server")),
        alone("10,000 connects and disconnects: lost", AtMost(0.0), connects("/connects/lost")),
        alone("10,000 connects and disconnects: left at the client", AtMost(0.0), connects("/connects/left/client")),
        alone("10,000 connects and disconnects: left at the server", AtMost(0.0), connects("/connects/left/server")),
        alone("connects and disconnects a second, one by one", Shown, connects("/connects/per_second")),
    ]
}

/// Percent of a core, and microseconds.
fn idle_rows() -> Vec<Row> {
    const CLIENT: &str = "/idle/cpu_percent/client";
    const SERVER: &str = "/idle/cpu_percent/server";
    const FIRST: &str = "/idle/first_message_us/p50";
    const WORST: &str = "/idle/first_message_us/max";
    use Bar::{AtMost, Shown};
    let mut rows = Vec::new();
    let mut idle = |of, names: [&'static str; 4], percent, microseconds| {
        let paths =
            [(CLIENT, AtMost(percent)), (SERVER, AtMost(percent)), (FIRST, Shown), (WORST, AtMost(microseconds))];
        rows.extend(
            names.into_iter().zip(paths).map(|(name, (path, bar))| alone(name, bar, figure(of, "write", path))),
        );
    };
    let names = [
        "idle, memif: percent of a core, client",
        "idle, memif: percent of a core, server",
        "idle, memif: first message, median us",
        "idle, memif: first message, worst of 50, us",
    ];
    idle(IDLE_MEMIF, names, 2.0, 500.0);
    // It makes interfaces.
    if rustix::process::geteuid().is_root() {
        let names = [
            "idle, tap: percent of a core, client",
            "idle, tap: percent of a core, server",
            "idle, tap: first message, median us",
            "idle, tap: first message, worst of 50, us",
        ];
        idle(IDLE_TAP, names, 0.5, 100.0);
    } else {
        eprintln!("speed: idle over tap needs root and goes unmeasured");
    }
    let names = [
        "idle, kernel-socket: percent of a core, client",
        "idle, kernel-socket: percent of a core, server",
        "idle, kernel-socket: first message, median us",
        "idle, kernel-socket: first message, worst of 50, us",
    ];
    idle(IDLE_KERNEL, names, 0.5, 100.0);
    rows
}

/// What one run printed: its rows by operation.
type Printed = HashMap<String, Value>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut rows = rows();
    if let Some(text) = &arguments.only {
        rows.retain(|row| row.what.contains(text.as_str()));
    }
    let mut contenders: Vec<Options> = Vec::new();
    for figure in rows.iter().flat_map(|row| [Some(row.ours), row.theirs]).flatten() {
        if !contenders.contains(&figure.of) {
            contenders.push(figure.of);
        }
    }
    let mut rounds: Vec<HashMap<Options, Printed>> = Vec::new();
    for round in 1..=arguments.rounds.max(1) {
        let mut printed = HashMap::new();
        for (index, options) in contenders.iter().enumerate() {
            eprint!("\rround {round} of {}, {} of {}   ", arguments.rounds, index + 1, contenders.len());
            match run(&arguments, options) {
                Ok(rows) => printed.insert(*options, rows),
                // Its rows are missed, and the others are measured all the same.
                Err(error) => {
                    eprintln!("\nspeed: softrdma-perf pair {options}: {error}");
                    continue;
                }
            };
        }
        rounds.push(printed);
    }
    eprintln!();
    let missed = rows.iter().filter(|row| !report(row, &rounds, arguments.json)).count();
    if !arguments.json {
        println!("{missed} of {} bars missed", rows.iter().filter(|row| !matches!(row.bar, Bar::Shown)).count());
    }
    if missed > 0 && arguments.strict { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn run(arguments: &Arguments, options: Options) -> Result<Printed, String> {
    let mut command = Command::new(&arguments.program);
    command.arg("pair").args(options.split_whitespace()).args(["--json", "--quiet"]);
    if !options.contains("--iterations") {
        command.args(["--duration", &arguments.seconds.to_string()]);
    }
    let output = command.output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    let mut printed = HashMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let row: Value = serde_json::from_str(line).map_err(|error| format!("{line}: {error}"))?;
        if row["errors"].as_u64() != Some(0) {
            return Err(format!("errors: {line}"));
        }
        printed.insert(row["op"].as_str().unwrap_or_default().to_owned(), row);
    }
    Ok(printed)
}

/// Prints a row; whether its bar holds.
fn report(row: &Row, rounds: &[HashMap<Options, Printed>], as_json: bool) -> bool {
    // Not a number where a run failed.
    let values = |figure: Figure| -> Vec<f64> {
        let one = |round: &HashMap<Options, Printed>| {
            round.get(figure.of)?.get(figure.operation)?.pointer(figure.path)?.as_f64()
        };
        rounds.iter().map(|round| one(round).unwrap_or(f64::NAN)).collect()
    };
    let ours = values(row.ours);
    let theirs = row.theirs.map(values);
    // The ratio of each round, for the machine's pace changes between them.
    let ratios: Vec<f64> = match &theirs {
        Some(theirs) if row.against == Against::Ratio => {
            ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect()
        }
        Some(theirs) => ours.iter().zip(theirs).map(|(ours, theirs)| ours - theirs).collect(),
        None => ours.clone(),
    };
    let (ratio, ours, theirs) = (median(&ratios), median(&ours), theirs.as_deref().map(median));
    let (holds, bar) = match row.bar {
        Bar::AtMost(most) => (ratio <= most, format!("at most {most}")),
        Bar::AtLeast(least) => (ratio >= least, format!("at least {least}")),
        Bar::Shown => (true, String::new()),
    };
    let holds = holds && ratios.iter().all(|ratio| ratio.is_finite());
    if as_json {
        let line = json!({
            "what": row.what, "bar": bar, "figure": ratio, "ours": ours, "theirs": theirs, "holds": holds,
            "rounds": ratios,
        });
        println!("{line}");
    } else {
        let sign = if row.against == Against::Ratio { '/' } else { '-' };
        let halves = theirs.map_or(String::new(), |theirs| format!("{ours:.3} {sign} {theirs:.3}"));
        let verdict = if holds { "" } else { "MISSED" };
        println!("{:<66} {bar:>14} {ratio:>8.3}   {halves:<20} {verdict}", row.what);
    }
    holds
}

fn median(values: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}
