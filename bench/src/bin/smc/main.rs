//! `smc`: what shared memory brings to unmodified programs beside TCP loopback: each bar with its figure and both halves, plain
//! and accelerated runs in turns. `bench/smc.sh` builds what it runs.

#![forbid(unsafe_code)]

mod crowd;
mod end;
mod fallback;
mod own;
mod programs;
mod report;
mod rig;
mod rounds;
mod turns;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use end::End;
use report::Line;
use rig::{Rig, Trouble};

/// What shared memory brings to unmodified programs beside TCP loopback.
#[derive(Debug, Parser)]
#[command(name = "smc", max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures everything and prints the table. Exit status 1 with --strict: a bar was missed.
    Table(Table),
    /// One end of a connection, run by `table` as a process of its own.
    #[command(subcommand)]
    End(End),
}

/// Example: smc table --library target/release/libsoftrdma_smc.so --only redis
#[derive(Debug, clap::Args)]
struct Table {
    /// The library to preload; without it both halves are plain, and every ratio is the noise of this machine.
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    /// Where `thrift_server` and `thrift_client` are.
    #[arg(long, value_name = "DIRECTORY")]
    thrift: Option<PathBuf>,
    /// Rounds; in each both sides run once, and the medians count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    rounds: u64,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Pairs of processes with and without the library in one end, which take twenty turns each.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(6..=1000))]
    pairs: u64,
    /// Idle connections.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=30_000))]
    idle: u64,
    /// Only contests whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// The names of the contests.
    #[arg(long)]
    list: bool,
    /// One JSON object a line instead of the table.
    #[arg(long)]
    json: bool,
    /// Fails if a bar is missed or a contest cannot be held.
    #[arg(long)]
    strict: bool,
}

/// What is measured together.
struct Contest {
    name: &'static str,
    hold: fn(&Rig, &Table) -> Result<Vec<Line>, Trouble>,
}

const CONTESTS: &[Contest] = &[
    Contest { name: "sockperf ping-pong", hold: |rig, table| rounds::hold(rig, table, &programs::SOCKPERF_PING_PONG) },
    Contest {
        name: "sockperf throughput",
        hold: |rig, table| rounds::hold(rig, table, &programs::SOCKPERF_THROUGHPUT),
    },
    Contest { name: "one connection, one way", hold: |rig, table| rounds::hold(rig, table, &own::ONE_WAY) },
    Contest { name: "one connection, ping-pong", hold: |rig, table| rounds::hold(rig, table, &own::PING_PONG) },
    Contest { name: "redis, 200 connections", hold: |rig, table| rounds::hold(rig, table, &programs::REDIS_MANY) },
    Contest { name: "redis, one connection", hold: |rig, table| rounds::hold(rig, table, &programs::REDIS_ONE) },
    Contest { name: "nginx keep-alive", hold: |rig, table| rounds::hold(rig, table, &programs::NGINX) },
    Contest { name: "thrift", hold: |rig, table| rounds::hold(rig, table, &programs::THRIFT) },
    Contest { name: "block storage", hold: |rig, table| rounds::hold(rig, table, &programs::BLOCKS) },
    Contest { name: "connect, one request, close", hold: |rig, table| rounds::hold(rig, table, &own::CONNECTS) },
    Contest { name: "idle connections", hold: |rig, table| crowd::memory(rig, table.idle) },
    Contest { name: "fallback", hold: |rig, table| fallback::slowdown(rig, table.pairs) },
    Contest { name: "idle process", hold: |rig, _| crowd::idle_process(rig) },
];

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Table(table) => measure(&table),
        Command::End(end) => end::run(end).map(|()| true).map_err(|error| error.to_string()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(trouble) => {
            eprintln!("smc: {trouble}");
            ExitCode::from(2)
        }
    }
}

/// Whether everything asked for was reached.
fn measure(table: &Table) -> Result<bool, Trouble> {
    if table.list {
        CONTESTS.iter().for_each(|contest| println!("{}", contest.name));
        return Ok(true);
    }
    let chosen: Vec<_> = CONTESTS
        .iter()
        .filter(|contest| table.only.as_ref().is_none_or(|text| contest.name.contains(text.as_str())))
        .collect();
    if chosen.is_empty() {
        return Err("no contest has such a name; --list shows them".to_owned());
    }
    let rig = Rig::new(table.library.clone(), table.thrift.clone(), table.seconds)?;
    if table.library.is_none() {
        eprintln!("smc: no library: both halves are plain");
    }
    let (mut bars, mut missed, mut unheld) = (0, 0, 0);
    for contest in chosen {
        match (contest.hold)(&rig, table) {
            Ok(lines) => {
                for line in lines {
                    line.print(table.json);
                    bars += usize::from(line.decides());
                    missed += usize::from(!line.holds());
                }
            }
            Err(trouble) => {
                report::print_unheld(contest.name, &trouble, table.json);
                unheld += 1;
            }
        }
    }
    if !table.json {
        println!("{missed} of {bars} bars missed, {unheld} contests not held");
    }
    Ok(!table.strict || missed + unheld == 0)
}
