//! softrdma-perf: latency and throughput of softrdma, both ends, over any fabric.

#![forbid(unsafe_code)]

mod arguments;
mod operation;
mod pattern;
mod report;
mod statistics;

use clap::Parser;

fn main() {
    let _ = arguments::Arguments::parse();
}
