//! `softrdma run`: unmodified programs.

use std::process::ExitCode;

use clap::Args;
use softrdma_smc_tools::launch::{self, LaunchArguments};

#[derive(Args, Debug)]
#[command(after_help = launch::EXAMPLES)]
pub(crate) struct RunArguments {
    /// TCP connections go through shared memory where the other end can do so too. The only way there is yet.
    #[arg(long, required = true)]
    smc: bool,
    #[command(flatten)]
    launch: LaunchArguments,
}

/// Becomes the program, or says why not.
pub(crate) fn run(arguments: &RunArguments) -> ExitCode {
    launch::run("softrdma", &arguments.launch)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: RunArguments,
    }

    #[test]
    fn what_stands_behind_the_dashes_is_the_programs() {
        let line = Line::try_parse_from(["run", "--smc", "--", "redis-server", "--port", "1", "-v"]).unwrap();
        assert_eq!(line.arguments.launch.program, ["redis-server", "--port", "1", "-v"]);
        assert!(line.arguments.smc && !line.arguments.launch.verbose);
    }

    #[test]
    fn without_a_way_or_a_program_there_is_nothing_to_run() {
        let error = Line::try_parse_from(["run", "--", "true"]).unwrap_err().to_string();
        assert!(error.contains("--smc"), "{error}");
        assert!(Line::try_parse_from(["run", "--smc"]).is_err());
    }
}
