//! softrdma: the operator's command line.

#![forbid(unsafe_code)]

mod devices;
mod doctor;
mod ping;
mod run;
mod stat;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  What can this machine run, and how to get what is missing?
    softrdma doctor
  Is the other side reachable by RDMA? (The other side: `softrdma ping --server --listen 10.0.0.1`, or rping -s.)
    softrdma ping 10.0.0.1
  What is a running softrdma-perf doing?
    softrdma stat --json
  TCP connections of an unmodified program through shared memory (the other end too; then look with smcss):
    softrdma run --smc -- redis-server --port 6379

Logs go to standard error: -v shows more, RUST_LOG decides in detail. Exit status: 0 if all went well, 1 if something
failed, 2 for a wrong command line.";

/// Looks after softrdma: pings, checks the machine, shows devices and counters.
#[derive(Debug, Parser)]
#[command(name = "softrdma", version, after_help = EXAMPLES, max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Moves data to a peer and back by RDMA, and checks it: rping's protocol, either end.
    Ping(Box<ping::PingArguments>),
    /// Tells what this machine can run, and how to get what is missing.
    Doctor(doctor::DoctorArguments),
    /// Opens devices and shows their attributes.
    Devices(devices::DevicesArguments),
    /// Shows the counters of running processes: per queue pair, port and device.
    Stat(stat::StatArguments),
    /// Runs an unmodified program over softrdma: the same process, its exit status.
    Run(run::RunArguments),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Ping(arguments) => ping::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Devices(arguments) => devices::run(&arguments),
        Command::Stat(arguments) => stat::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_example_of_the_help_is_a_command_line() {
        let examples: Vec<_> = EXAMPLES.lines().filter(|line| line.trim_start().starts_with("softrdma ")).collect();
        assert!(examples.len() >= 3);
        for example in examples {
            Arguments::try_parse_from(example.split_whitespace()).unwrap_or_else(|error| panic!("{example}: {error}"));
        }
    }
}
