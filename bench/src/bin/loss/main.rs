//! `loss`: goodput over a wire that loses and reorders, softrdma beside the kernel's CUBIC over the very same wire, and the two
//! at once. Needs root; `bench/loss.sh` builds what it runs.

#![forbid(unsafe_code)]

mod flow;
mod report;
mod rig;
mod scenario;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use flow::{Flow, Programs, Times};
use report::{Contest, Fairness, Pair};
use rig::Rig;
use scenario::Scenario;

/// Goodput over a wire that loses and reorders: softrdma (c2, af_packet) beside the kernel's CUBIC.
#[derive(Debug, Parser)]
#[command(name = "loss", max_term_width = 120)]
struct Arguments {
    /// Where `wire`, `softrdma-perf` and `bulk_tcp` are.
    #[arg(long, value_name = "DIRECTORY")]
    programs: PathBuf,
    /// Seeds of each scenario, from 1 on.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Three seeds and shorter measurements.
    #[arg(long)]
    quick: bool,
    /// Only scenarios whose name contains this; `fairness` is the two flows at once.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Writes every single result there too, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("loss: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether every bar was reached.
fn run(arguments: &Arguments) -> Result<bool, String> {
    let programs = Programs::new(&arguments.programs)?;
    let seeds = if arguments.quick { 3 } else { arguments.seeds };
    let chosen = |name: &str| name.contains(&arguments.only);
    let mut contests = Vec::new();
    for scenario in scenario::all().into_iter().filter(|scenario| chosen(&scenario.name())) {
        let times = Times::new(&scenario, arguments.quick);
        let pairs: Result<Vec<Pair>, String> =
            (1..=seeds).map(|seed| contend(&programs, &scenario, seed, times)).collect();
        let contest = Contest { scenario, pairs: pairs? };
        contest.print();
        contests.push(contest);
    }
    let mut fairness = Vec::new();
    for scenario in scenario::clean().into_iter().filter(|_| chosen("fairness")) {
        let times = Times::new(&scenario, arguments.quick);
        let pairs: Result<Vec<Pair>, String> =
            (1..=seeds).map(|seed| share(&programs, &scenario, seed, times)).collect();
        let shared = Fairness { scenario, pairs: pairs? };
        shared.print();
        fairness.push(shared);
    }
    if let Some(file) = &arguments.json {
        let text = report::json(&contests, &fairness).to_string();
        std::fs::write(file, text).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    Ok(contests.iter().all(Contest::holds) && fairness.iter().all(Fairness::holds))
}

/// Both, one after the other, over wires with the same seed. Who is first alternates.
fn contend(programs: &Programs, scenario: &Scenario, seed: u64, times: Times) -> Result<Pair, String> {
    let kernel = || {
        let rig = Rig::new(programs, scenario, seed, true)?;
        let flow = Flow::of_kernel(programs, &rig, times, 0.0)?;
        rig.take(flow.finish()?)
    };
    let ours = || {
        let rig = Rig::new(programs, scenario, seed, false)?;
        let flow = Flow::of_ours(programs, &rig, times)?;
        rig.take(flow.finish()?)
    };
    let pair = if seed.is_multiple_of(2) {
        let ours = ours()?;
        Pair { kernel: kernel()?, ours }
    } else {
        Pair { kernel: kernel()?, ours: ours()? }
    };
    eprintln!("  {}, seed {seed}: kernel {:.3}, ours {:.3} Gbit/s", scenario.name(), pair.kernel.gbps, pair.ours.gbps);
    Ok(pair)
}

/// Both at once over one wire. Who is first alternates: who comes later finds a full queue, and CUBIC needs longer than this to make
/// up for that. Both go on until both have been measured.
fn share(programs: &Programs, scenario: &Scenario, seed: u64, times: Times) -> Result<Pair, String> {
    /// Seconds that our processes may need before their flow begins.
    const START: f64 = 2.0;
    let rig = Rig::new(programs, scenario, seed, true)?;
    let later = Times { settle: times.settle + START, seconds: times.seconds };
    let (kernel, ours) = if seed.is_multiple_of(2) {
        let ours = Flow::of_ours(programs, &rig, Times { seconds: times.seconds + START, ..later })?;
        std::thread::sleep(Duration::from_secs_f64(START));
        (Flow::of_kernel(programs, &rig, times, 2.0 * START)?, ours)
    } else {
        let kernel = Flow::of_kernel(programs, &rig, later, 2.0 * START)?;
        let ours = Flow::of_ours(programs, &rig, Times { seconds: times.seconds + START, ..times })?;
        (kernel, ours)
    };
    let (ours, mut kernel) = (ours.finish()?, kernel.finish()?);
    let total = kernel.gbps + ours.gbps;
    eprintln!("  fairness, {}, seed {seed}: kernel {:.3}, ours {:.3} Gbit/s", scenario.name(), kernel.gbps, ours.gbps);
    if total == 0.0 {
        return Err("nothing moved".to_owned());
    }
    let ours = rig.take(ours)?;
    kernel.kernel_retransmissions = ours.kernel_retransmissions;
    Ok(Pair { kernel, ours })
}
