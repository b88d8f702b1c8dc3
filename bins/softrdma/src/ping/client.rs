//! The side that has the data.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use softrdma_bins_common::output;
use softrdma_verbs::{CmEventKind, CmId, Device, EventChannel, MemoryRegion};

use super::announcement::Announcement;
use super::end::{End, PingError, make, outcome};

/// What a ping came to.
pub(super) struct Summary {
    peer: SocketAddr,
    size: u64,
    rounds: Histogram<u64>,
}

impl Summary {
    /// One line, or one JSON object. Times are of whole rounds: a Read, a Write and the Sends between them.
    pub(super) fn print(&self, json: bool) {
        let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
        let [min, p50, p99, max] = [
            self.rounds.min(),
            self.rounds.value_at_quantile(0.5),
            self.rounds.value_at_quantile(0.99),
            self.rounds.max(),
        ]
        .map(microseconds);
        let (count, peer, size) = (self.rounds.len(), self.peer, self.size);
        if json {
            let round_us = serde_json::json!({ "min": min, "p50": p50, "p99": p99, "max": max });
            let peer = peer.to_string();
            output::line(format_args!(
                "{}",
                serde_json::json!({ "peer": peer, "rounds": count, "size": size, "errors": 0, "round_us": round_us })
            ));
        } else {
            output::line(format_args!(
                "{count} rounds of {size} bytes to {peer}, all of them right: min {min:.1} p50 {p50:.1} p99 {p99:.1} max {max:.1} us a round"
            ));
        }
    }
}

pub(super) fn run(
    device: &Device,
    peer: SocketAddr,
    rounds: u64,
    size: u64,
    timeout: Duration,
    show: bool,
) -> Result<Summary, PingError> {
    let events = EventChannel::new(device).map_err(|error| make("make an event channel", error))?;
    let mut end = End::new(device, CmId::new(&events), size, timeout)?;
    connect(&events, &end, peer, timeout)?;
    // Bounds that a histogram takes, so this cannot fail.
    let mut times = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("valid histogram bounds");
    for round in 0..rounds {
        let data = message(round, size as usize);
        end.source.write(0, &data).map_err(|error| make("write memory", error))?;
        end.sink.fill(0, size as usize, 0).map_err(|error| make("write memory", error))?;
        let begun = Instant::now();
        end.announce(describe(&end.source))?;
        end.announcement("word that the data was read")?;
        end.announce(describe(&end.sink))?;
        end.announcement("word that the data was written")?;
        times.saturating_record(begun.elapsed().as_nanos() as u64);
        check(&end.sink, round, &data)?;
        if show {
            output::line(format_args!("ping data: {}", String::from_utf8_lossy(&data).trim_end_matches('\0')));
        }
    }
    end.id.disconnect();
    // The peer learns of it in order; that it takes its time with its side is its affair.
    let _ = outcome(&events, &end.id, timeout);
    Ok(Summary { peer, size, rounds: times })
}

fn connect(events: &EventChannel, end: &End, peer: SocketAddr, timeout: Duration) -> Result<(), PingError> {
    let failed = |reason: String| PingError::Connect { peer, reason };
    end.id.resolve_address(peer);
    end.id.resolve_route();
    end.id.connect(&End::parameters()).map_err(|error| failed(error.to_string()))?;
    match outcome(events, &end.id, timeout).map(|event| event.kind) {
        Some(CmEventKind::Established { .. }) => Ok(()),
        Some(CmEventKind::Rejected { private_data }) => {
            Err(failed(format!("it rejected the connection {}", String::from_utf8_lossy(&private_data))))
        }
        Some(CmEventKind::Unreachable { reason }) => {
            Err(failed(format!("{reason:?}; does `softrdma ping --server` or `rping -s` listen there?")))
        }
        Some(kind) => Err(failed(format!("{kind:?}"))),
        None => Err(failed(format!("no answer within {} s", timeout.as_secs()))),
    }
}

fn describe(region: &MemoryRegion) -> Announcement {
    Announcement { address: region.address(), key: region.rkey().0, length: region.length() as u32 }
}

/// The data of a round, as rping makes it: its number in words, then letters that turn with each round, then a zero (rping's server
/// sends back what is in front of the first one, and it).
pub(super) fn message(round: u64, size: usize) -> Vec<u8> {
    const FIRST: u64 = 65;
    const LETTERS: u64 = 58;
    let mut data = format!("rdma-ping-{round}: ").into_bytes();
    data.truncate(size - 1);
    let letters = (0..).map(|index| (FIRST + (round + index) % LETTERS) as u8);
    let missing = size - 1 - data.len();
    data.extend(letters.take(missing));
    data.push(0);
    data
}

fn check(sink: &MemoryRegion, round: u64, expected: &[u8]) -> Result<(), PingError> {
    let mut found = vec![0; expected.len()];
    sink.read(0, &mut found).map_err(|error| make("read memory", error))?;
    match (0..found.len()).find(|index| found[*index] != expected[*index]) {
        None => Ok(()),
        Some(offset) => Err(PingError::Wrong { round, offset, found: found[offset], expected: expected[offset] }),
    }
}
