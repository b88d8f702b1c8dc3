//! `make demo`: Write and Send from 64 B to 1 MiB over own TCP and over smoltcp's TCP on DPDK memif and over kernel TCP, side by
//! side with what each fabric moves without RDMA. Runs `softrdma-perf`, whose path is the first argument, and reads its JSON
//! lines.

#![forbid(unsafe_code)]

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

/// The sweep: the sizes that were published, and both ends.
const SIZES: &str = "64,1K,10K,100K,500K,1M";
const OPERATIONS: [&str; 2] = ["write", "send"];
/// Seconds of each measurement; every row has one of latency and one of throughput, and so have its raw limits.
const SECONDS: &str = "0.15";
/// What was published for a user-level iWARP stack and for a network card with RDMA, both on 10 GbE: size in bytes,
/// microseconds one way each (SoftRDMA: Rekindling High Performance Software RDMA over Commodity Ethernet). Other machines,
/// other links: for orientation.
const PUBLISHED: [(u64, f64, f64); 5] = [
    (64, 6.63, 3.59),
    (1 << 10, 6.80, 5.29),
    (10 << 10, 52.20, 16.27),
    (100 << 10, 101.36, 93.45),
    (500 << 10, 500.06, 432.50),
];

/// A way to move the bytes, as `softrdma-perf` names it, and what its fabric does without RDMA.
struct Path {
    scheme: &'static str,
    fabric: &'static str,
    raw: Option<&'static str>,
}

const KERNEL: Path = Path { scheme: "kernel-socket", fabric: "kernel", raw: Some("plain TCP") };
const SOFTRDMA: Path = Path { scheme: "softrdma", fabric: "memif", raw: Some("raw frames") };
const SEQUENTIAL: Path = Path { scheme: "sequential", fabric: "memif", raw: None };

/// One operation at one size on one path.
struct Row {
    operation: String,
    size: u64,
    latency_us: f64,
    throughput_gbps: f64,
    errors: u64,
    raw: Option<Raw>,
}

/// The same bytes without RDMA.
struct Raw {
    latency_us: f64,
    gbps: f64,
    touched_gbps: f64,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: demo PATH-OF-SOFTRDMA-PERF [--without-dpdk]");
        return ExitCode::from(2);
    };
    let without_dpdk = arguments.any(|argument| argument == "--without-dpdk");
    let paths = if without_dpdk { vec![KERNEL] } else { vec![SOFTRDMA, SEQUENTIAL, KERNEL] };
    let mut results = Vec::new();
    for path in &paths {
        match measure(&program, path) {
            Ok(rows) => results.push(rows),
            Err(error) => {
                eprintln!("demo: {}: {error}", path.scheme);
                return ExitCode::FAILURE;
            }
        }
    }
    println!(
        "\nOne queue pair, both ends on this machine, CRC on, run to completion, busy-polling. softrdma, sequential and raw \
         frames\nover memif at MTU 1500, kernel-socket and plain TCP over loopback. touched: with the passes that moving data \
         makes\nmandatory (one copy into memory, CRC, checksum), which is the honest limit."
    );
    for operation in OPERATIONS {
        print_latency(operation, &paths, &results);
        print_throughput(operation, &paths, &results);
    }
    let errors: u64 = results.iter().flatten().map(|row| row.errors).sum();
    if errors > 0 {
        eprintln!("demo: {errors} errors");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Runs the sweep on one path, with a dot on standard error for every row.
fn measure(program: &str, path: &Path) -> Result<Vec<Row>, String> {
    let operations = OPERATIONS.join(",");
    let mut child = Command::new(program)
        .args(["pair", "--scheme", path.scheme, "--fabric", path.fabric, "--op", &operations, "--size", SIZES])
        .args(["--threads", "c2", "--busy-poll", "--duration", SECONDS, "--json", "--quiet"])
        .args(path.raw.map(|_| "--with-raw"))
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    let output = child.stdout.take().expect("standard output is piped");
    eprint!("measuring {} ", path.scheme);
    let mut rows = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line.map_err(|error| format!("output of {program}: {error}"))?;
        rows.push(parse(&line).ok_or_else(|| format!("{program} printed '{line}', which is no row"))?);
        eprint!(".");
    }
    eprintln!();
    let status = child.wait().map_err(|error| error.to_string())?;
    if status.success() { Ok(rows) } else { Err(format!("{program} failed: {status}")) }
}

fn parse(line: &str) -> Option<Row> {
    let row: Value = serde_json::from_str(line).ok()?;
    let raw = || {
        let raw = row.get("raw")?;
        Some(Raw {
            latency_us: raw["latency_us_p50"].as_f64()?,
            gbps: raw["throughput_gbps"].as_f64()?,
            touched_gbps: raw["touched_gbps"].as_f64()?,
        })
    };
    Some(Row {
        operation: row["op"].as_str()?.to_owned(),
        size: row["size"].as_u64()?,
        latency_us: row["latency_us"]["p50"].as_f64()?,
        throughput_gbps: row["throughput_gbps"].as_f64()?,
        errors: row["errors"].as_u64()?,
        raw: raw(),
    })
}

fn print_latency(operation: &str, paths: &[Path], results: &[Vec<Row>]) {
    let raw = |row: &Row| row.raw.as_ref().map(|raw| vec![raw.latency_us]);
    let published = " | published: SoftRDMA      RNIC";
    let title = format!("{operation}: us, half the round trip, median");
    print_table(
        &title,
        &[""],
        published,
        operation,
        (paths, results),
        |row| row.latency_us,
        raw,
        |size| {
            let found = PUBLISHED.iter().find(|(published, ..)| *published == size);
            found.map_or(String::new(), |(_, soft, card)| format!(" | {soft:>19.2} {card:>9.2}"))
        },
    );
}

fn print_throughput(operation: &str, paths: &[Path], results: &[Vec<Row>]) {
    let raw = |row: &Row| row.raw.as_ref().map(|raw| vec![raw.gbps, raw.touched_gbps]);
    let title = format!("{operation}: Gbit/s, 64 requests outstanding");
    print_table(
        &title,
        &["", "touched"],
        "",
        operation,
        (paths, results),
        |row| row.throughput_gbps,
        raw,
        |_| String::new(),
    );
}

/// Sizes as rows, schemes as columns, behind them what the fabrics do without RDMA, and what `aside` has to say.
#[expect(clippy::too_many_arguments, reason = "a table is what its columns are")]
fn print_table(
    title: &str,
    raw_names: &[&str],
    aside_title: &str,
    operation: &str,
    (paths, results): (&[Path], &[Vec<Row>]),
    figure: impl Fn(&Row) -> f64,
    raw: impl Fn(&Row) -> Option<Vec<f64>>,
    aside: impl Fn(u64) -> String,
) {
    println!("\n{title}");
    let mut header = format!("{:>9} |", "size");
    for path in paths {
        header += &format!(" {:>13}", path.scheme);
    }
    header += " |";
    for name in paths.iter().filter_map(|path| path.raw) {
        for raw_name in raw_names {
            header += &format!(" {:>10}", if raw_name.is_empty() { name } else { raw_name });
        }
    }
    println!("{header}{aside_title}");
    let sizes: Vec<u64> = results[0].iter().filter(|row| row.operation == operation).map(|row| row.size).collect();
    for size in sizes {
        let find = |rows: &'_ Vec<Row>| rows.iter().position(|row| row.operation == operation && row.size == size);
        let found: Vec<Option<&Row>> = results.iter().map(|rows| find(rows).map(|at| &rows[at])).collect();
        let mut line = format!("{:>9} |", size_text(size));
        for row in &found {
            line += &row.map_or_else(|| format!(" {:>13}", "-"), |row| format!(" {:>13.2}", figure(row)));
        }
        line += " |";
        for value in found.iter().flatten().filter_map(|row| raw(row)).flatten() {
            line += &format!(" {value:>10.2}");
        }
        println!("{line}{}", aside(size));
    }
}

fn size_text(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / 1_048_576),
    }
}
