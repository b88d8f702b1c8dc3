//! `make demo`: Write and Send from 64 B to 1 MiB over kernel TCP and over DPDK memif, side by side in one table with what
//! each fabric moves without RDMA. Runs `softrdma-perf`, whose path is the first argument, and reads its JSON lines.

#![forbid(unsafe_code)]

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

/// The sweep: powers of four, so that the demonstration stays under a minute.
const SIZES: &str = "64,256,1K,4K,16K,64K,256K,1M";
const OPERATIONS: &str = "write,send";
/// Seconds of each measurement; every row has one of latency and one of throughput, and so have its raw limits.
const SECONDS: &str = "0.15";

/// A way to move the bytes, as `softrdma-perf` and as the table name it.
struct Path {
    scheme: &'static str,
    fabric: &'static str,
    title: &'static str,
    raw_title: &'static str,
}

const KERNEL: Path = Path {
    scheme: "kernel-socket",
    fabric: "kernel",
    title: "kernel-socket over loopback",
    raw_title: "plain TCP, no RDMA",
};
const MEMIF: Path =
    Path { scheme: "sequential", fabric: "memif", title: "sequential over memif", raw_title: "plain frames, no RDMA" };

/// One operation at one size on one path.
struct Row {
    operation: String,
    size: u64,
    latency_us: f64,
    throughput_gbps: f64,
    errors: u64,
    raw_latency_us: f64,
    raw_gbps: f64,
    touched_gbps: f64,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: demo PATH-OF-SOFTRDMA-PERF [--without-dpdk]");
        return ExitCode::from(2);
    };
    let without_dpdk = arguments.any(|argument| argument == "--without-dpdk");
    let paths = if without_dpdk { vec![KERNEL] } else { vec![KERNEL, MEMIF] };
    let mut results = Vec::new();
    for path in &paths {
        match measure(&program, path) {
            Ok(rows) => results.push(rows),
            Err(error) => {
                eprintln!("demo: {}: {error}", path.title);
                return ExitCode::FAILURE;
            }
        }
    }
    print_table(&paths, &results);
    let errors: u64 = results.iter().flatten().map(|row| row.errors).sum();
    if errors > 0 {
        eprintln!("demo: {errors} errors");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Runs the sweep on one path, with a dot on standard error for every row.
fn measure(program: &str, path: &Path) -> Result<Vec<Row>, String> {
    let mut child = Command::new(program)
        .args(["pair", "--scheme", path.scheme, "--fabric", path.fabric, "--op", OPERATIONS, "--size", SIZES])
        .args(["--threads", "c2", "--busy-poll", "--duration", SECONDS, "--with-raw", "--json", "--quiet"])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    let output = child.stdout.take().expect("standard output is piped");
    eprint!("measuring {} ", path.title);
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
    Some(Row {
        operation: row["op"].as_str()?.to_owned(),
        size: row["size"].as_u64()?,
        latency_us: row["latency_us"]["p50"].as_f64()?,
        throughput_gbps: row["throughput_gbps"].as_f64()?,
        errors: row["errors"].as_u64()?,
        raw_latency_us: row["raw"]["latency_us_p50"].as_f64()?,
        raw_gbps: row["raw"]["throughput_gbps"].as_f64()?,
        touched_gbps: row["raw"]["touched_gbps"].as_f64()?,
    })
}

fn print_table(paths: &[Path], results: &[Vec<Row>]) {
    println!(
        "\nOne queue pair, CRC on, both ends on this machine, run to completion, busy-polling. us: half the round trip, median. touched: raw with the"
    );
    println!(
        "passes that moving data makes mandatory (one copy into memory, CRC, checksum), which is the honest limit.\n"
    );
    let mut titles = format!("{:<7}{:>9}", "", "");
    let mut header = format!("{:<7}{:>9}", "op", "size");
    for path in paths {
        titles += &format!(" | {:<28} {:<29}", path.title, path.raw_title);
        header += &format!(" | {:>12}  {:>12}   {:>9} {:>9} {:>9}", "us", "Gbit/s", "us", "Gbit/s", "touched");
    }
    println!("{titles}\n{header}");
    let Some(first) = results.first() else { return };
    for row in first {
        let mut line = format!("{:<7}{:>9}", row.operation, size_text(row.size));
        for rows in results {
            match rows.iter().find(|other| other.operation == row.operation && other.size == row.size) {
                Some(row) => {
                    line += &format!(" | {:>12.2}  {:>12.3}  ", row.latency_us, row.throughput_gbps);
                    line += &format!(" {:>9.2} {:>9.3} {:>9.3}", row.raw_latency_us, row.raw_gbps, row.touched_gbps);
                }
                None => line += " | not measured",
            }
        }
        println!("{line}");
    }
}

fn size_text(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / 1_048_576),
    }
}
