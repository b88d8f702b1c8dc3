//! Which tool is meant: by the name the program was called by, or by its first argument.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{check, install, launch, smcd, smcr, smcss};

/// What the program is called itself.
pub(crate) const PROGRAM: &str = "softrdma-smc";

/// The names that it also goes by.
pub(crate) const NAMES: [&str; 5] = ["smcss", "smcd", "smcr", "smc_run", "smc_chk"];

const EXAMPLES: &str = "\
Examples:
  Make the usual names, next to the program that they are links to:
    softrdma-smc install /usr/local/bin
  Start a server and a client whose connections go through shared memory:
    softrdma-smc smc_run redis-server --port 6379
    softrdma-smc smc_run redis-benchmark -p 6379
  See their sockets, and what was counted:
    softrdma-smc smcss -a
    softrdma-smc smcd stats -d
  Does that listener have SMC?
    softrdma-smc smc_chk -C 127.0.0.1:6379";

#[derive(Debug, Parser)]
#[command(multicall = true, max_term_width = 120)]
enum Invocation {
    /// SMC for unmodified programs: starts them, lists their sockets, counts, and says what works.
    #[command(name = PROGRAM, version, after_help = EXAMPLES)]
    Itself {
        #[command(subcommand)]
        command: Command,
    },
    #[command(flatten)]
    Tool(Tool),
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Tool(Tool),
    /// Makes links by which the tools have their usual names.
    Install(install::InstallArguments),
}

#[derive(Debug, Subcommand)]
enum Tool {
    #[command(name = "smcss", after_help = smcss::EXAMPLES, version)]
    Smcss(smcss::SmcssArguments),
    #[command(name = "smcd", after_help = smcd::EXAMPLES, version)]
    Smcd(smcd::SmcdArguments),
    #[command(name = "smcr", after_help = smcr::EXAMPLES, version)]
    Smcr(smcr::SmcrArguments),
    #[command(name = "smc_run", after_help = launch::EXAMPLES, version)]
    SmcRun(launch::LaunchArguments),
    #[command(name = "smc_chk", after_help = check::EXAMPLES, version)]
    SmcChk(check::CheckArguments),
}

/// Runs what `arguments` ask for, the first of which is the program's name.
pub(crate) fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let invocation = Invocation::parse_from(by_name(arguments));
    let tool = match invocation {
        Invocation::Tool(tool) | Invocation::Itself { command: Command::Tool(tool) } => tool,
        Invocation::Itself { command: Command::Install(arguments) } => return install::run(&arguments),
    };
    match tool {
        Tool::Smcss(arguments) => smcss::run(&arguments),
        Tool::Smcd(arguments) => smcd::run(&arguments),
        Tool::Smcr(arguments) => smcr::run(&arguments),
        Tool::SmcRun(arguments) => launch::run("smc_run", &arguments),
        Tool::SmcChk(arguments) => check::run(&arguments),
    }
}

/// The same arguments; the first is one of [`NAMES`] without directories, or [`PROGRAM`], whatever the file is called.
fn by_name(arguments: impl IntoIterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let mut arguments = arguments.into_iter();
    let called = arguments.next().unwrap_or_default();
    let file = Path::new(&called).file_name().and_then(|name| name.to_str());
    let name = NAMES.into_iter().find(|name| Some(*name) == file).unwrap_or(PROGRAM);
    std::iter::once(name.into()).chain(arguments)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Invocation, clap::Error> {
        Invocation::try_parse_from(by_name(line.split_whitespace().map(OsString::from)))
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Invocation::command().debug_assert();
    }

    #[test]
    fn the_name_it_is_called_by_says_which_tool_is_meant() {
        for line in ["/usr/bin/smcss -a", "softrdma-smc smcss -a", "/tmp/renamed smcss --all"] {
            match parse(line).unwrap() {
                Invocation::Tool(Tool::Smcss(_)) | Invocation::Itself { command: Command::Tool(Tool::Smcss(_)) } => {}
                other => panic!("{line}: {other:?}"),
            }
        }
        assert!(parse("smcss install /tmp").is_err());
        assert!(parse("smc").is_err(), "without a tool there is nothing to do");
    }

    #[test]
    fn command_lines_that_users_have_in_their_fingers_are_understood() {
        for line in [
            "smcss",
            "smcss -a",
            "smcss -ad",
            "smcss -D -W",
            "smcss -R",
            "smcss -l",
            "smcss --debug --json",
            "smcd linkgroup",
            "smcd linkgroup show all",
            "smcd l s 50",
            "smcd lin show 0000a0",
            "smcd device show all",
            "smcd d",
            "smcd info",
            "smcd -d stats",
            "smcd -da stats json",
            "smcd stats reset",
            "smcd stats show -a",
            "smcr -d stats show",
            "smcr linkgroup link-show all",
            "smcr device",
            "smcr link",
            "smcr info",
            "smc_run -d redis-server --port 6379 -d",
            "smc_run -v -- ls -l",
            "smc_chk",
            "smc_chk -C 127.0.0.1 -p 80",
            "smc_chk --connect ::1 -6 -p 80",
            "smc_chk -C localhost:80 --json",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        assert!(parse("smcss -a -l -x").is_err());
        assert!(parse("smc_run").is_err());
    }

    #[test]
    fn what_stands_behind_a_program_is_the_programs() {
        let Ok(Invocation::Tool(Tool::SmcRun(arguments))) = parse("smc_run sort -v --policy -d") else { panic!() };
        assert_eq!(arguments.program, ["sort", "-v", "--policy", "-d"]);
    }

    #[test]
    fn every_example_of_the_help_is_a_command_line() {
        let texts = [EXAMPLES, smcss::EXAMPLES, smcd::EXAMPLES, smcr::EXAMPLES, launch::EXAMPLES, check::EXAMPLES];
        for text in texts {
            let lines: Vec<_> = text.lines().filter(|line| line.starts_with("    ")).collect();
            assert!(!lines.is_empty(), "{text}");
            for line in lines {
                // What a shell takes away first.
                let words = line.split_whitespace().skip_while(|word| word.contains('='));
                let words: Vec<_> = words.take_while(|word| *word != "|").collect();
                parse(&words.join(" ")).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
    }
}
