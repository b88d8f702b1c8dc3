//! What is printed: a row a size, as a table or as one JSON object a line.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use softrdma_bins_common::size::Bytes;

use crate::operation::Operation;
use crate::statistics::LatencySummary;

/// The result of one operation at one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) scheme: String,
    pub(crate) threads: String,
    pub(crate) fabric: String,
    pub(crate) op: Operation,
    /// Bytes of a message.
    pub(crate) size: u64,
    /// Messages of the throughput measurement.
    pub(crate) iterations: u64,
    pub(crate) qps: u32,
    pub(crate) depth: u32,
    /// Bytes of the largest IP packet.
    pub(crate) mtu: u32,
    pub(crate) crc: bool,
    /// `None`: not measured.
    pub(crate) latency_us: Option<LatencySummary>,
    pub(crate) throughput_gbps: f64,
    pub(crate) rate_mops: f64,
    /// Bytes that this software copied on the receiving side over bytes delivered there; the kernel's own copies are not seen.
    pub(crate) receive_copies_per_byte: f64,
    /// Segments that both processes sent again; the kernel's own are not seen.
    pub(crate) retransmitted_segments: u64,
    /// CPU time of both processes for this row, in seconds.
    pub(crate) cpu_seconds: f64,
    /// Wrong messages, failed and lost completions.
    pub(crate) errors: u64,
    /// Of `--server-computes`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) server_computes_us: Option<u32>,
    /// Of `--idle`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) idle: Option<Idle>,
    /// Of `--connects`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) connects: Option<Connects>,
    /// With queue pairs that carry no traffic.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) idle_connection_bytes: Option<Ends>,
    /// What the fabric does without RDMA, at the same frame size.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) raw: Option<RawLimits>,
}

/// A figure of each of the two processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ends {
    pub(crate) client: f64,
    pub(crate) server: f64,
}

/// A connected pair that did nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Idle {
    pub(crate) seconds: f64,
    /// User and system time of each process, in percent of a core.
    pub(crate) cpu_percent: Ends,
    /// From a Send after a pause until the server's application has it, which slept; `None` between two machines.
    pub(crate) first_message_us: Option<LatencySummary>,
    /// The same until that application's answer is here.
    pub(crate) first_round_trip_us: LatencySummary,
}

/// Connections that came and went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Connects {
    /// Established and ended, at both sides.
    pub(crate) complete: u32,
    pub(crate) lost: u32,
    pub(crate) per_second: f64,
    /// Connections and queue pairs, of device and engine, that each side has more of than before.
    pub(crate) left: Ends,
}

/// The fabric's own limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RawLimits {
    /// Half of a frame's round trip.
    pub(crate) latency_us_p50: f64,
    /// Frames that nobody looks at.
    pub(crate) throughput_gbps: f64,
    /// Frames whose payload is copied once into as much memory as the test uses, and checked as the test checks it.
    pub(crate) touched_gbps: f64,
}

/// Where rows go.
pub(crate) struct Reporter {
    json: bool,
    with_raw: bool,
    header_printed: bool,
}

impl Reporter {
    pub(crate) fn new(json: bool, with_raw: bool) -> Self {
        Self { json, with_raw, header_printed: false }
    }

    /// Prints one row and flushes, so that a reader of a pipe sees it at once.
    pub(crate) fn print(&mut self, row: &Row, out: &mut impl Write) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut *out, row)?;
            writeln!(out)?;
        } else {
            if !self.header_printed {
                self.header_printed = true;
                writeln!(out, "{}", self.header())?;
            }
            writeln!(out, "{}", self.line(row))?;
        }
        out.flush()
    }

    fn header(&self) -> String {
        let raw = if self.with_raw { "    raw us  raw Gbit/s  touched Gbit/s" } else { "" };
        format!(
            "{:<13} {:<3} {:<9} {:<9} {:>5} {:>9} {:>4} {:>5} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>6}{raw}",
            "scheme",
            "thr",
            "fabric",
            "op",
            "size",
            "messages",
            "qps",
            "depth",
            "min us",
            "p50 us",
            "p99 us",
            "p99.9 us",
            "max us",
            "Gbit/s",
            "Mop/s",
            "copies/B",
            "errors"
        )
    }

    fn line(&self, row: &Row) -> String {
        let latency = |of: fn(&LatencySummary) -> f64| {
            row.latency_us.as_ref().map_or_else(|| "-".to_owned(), |latency| format!("{:.2}", of(latency)))
        };
        let raw = match row.raw {
            Some(raw) if self.with_raw => {
                format!("{:>10.2}  {:>10.3}  {:>14.3}", raw.latency_us_p50, raw.throughput_gbps, raw.touched_gbps)
            }
            _ => String::new(),
        };
        format!(
            "{:<13} {:<3} {:<9} {:<9} {:>5} {:>9} {:>4} {:>5} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8.3} {:>8.4} {:>8.2} {:>6}{raw}",
            row.scheme,
            row.threads,
            row.fabric,
            row.op,
            Bytes(row.size),
            row.iterations,
            row.qps,
            row.depth,
            latency(|latency| latency.min),
            latency(|latency| latency.p50),
            latency(|latency| latency.p99),
            latency(|latency| latency.p999),
            latency(|latency| latency.max),
            row.throughput_gbps,
            row.rate_mops,
            row.receive_copies_per_byte,
            row.errors,
        )
    }
}

#[cfg(test)]
#[path = "report/tests.rs"]
mod tests;
