//! `smc_chk`: what works here, and whether a listener has SMC.

mod listener;
mod machine;
mod process;

use std::process::ExitCode;

use clap::{ArgAction, Args};
use serde::Serialize;
use softrdma_bins_common::output;

pub(crate) const EXAMPLES: &str = "\
Examples:
  What does this machine, this user and this installation allow?
    smc_chk
  Would a connection to that service go through shared memory?
    smc_chk -C 127.0.0.1:6379
    smc_chk -C localhost -p 6379
    smc_chk -C ::1 -p 6379
  Is that process served, and if not, why?
    smc_chk 4711

Exit status: 0 if all that is needed is there, and if the service or process has SMC; 1 if not; 2 for a wrong command line.";

/// Says whether SMC works here, and whether a service or a process has it.
#[derive(Args, Debug)]
#[command(disable_version_flag = true)]
pub(crate) struct CheckArguments {
    /// A process that runs.
    #[arg(value_name = "PID", conflicts_with = "connect")]
    process: Option<u32>,
    /// The service: HOST:PORT, or HOST with -p.
    #[arg(short = 'C', long, value_name = "HOST")]
    connect: Option<String>,
    /// Its port.
    #[arg(short, long, requires = "connect")]
    port: Option<u16>,
    /// HOST is one of IPv6.
    #[arg(short = '6', long, requires = "connect")]
    ipv6: bool,
    /// One JSON object a finding, one a line, instead of text.
    #[arg(long)]
    json: bool,
    /// Prints the version.
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// What was found out about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// The thing.
    name: &'static str,
    /// Whether it is as it must be.
    is_well: bool,
    /// What was seen.
    detail: String,
    /// How to get it, if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Finding {
    fn well(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, is_well: true, detail: detail.into(), remedy: None }
    }

    fn missing(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, is_well: false, detail: detail.into(), remedy: Some(remedy.into()) }
    }
}

pub(crate) fn run(arguments: &CheckArguments) -> ExitCode {
    let looked = match (&arguments.connect, arguments.process) {
        (None, None) => Ok(machine::look()),
        (None, Some(id)) => process::look(id),
        (Some(host), _) => listener::look(host, arguments.port, arguments.ipv6),
    };
    let findings = match looked {
        Ok(findings) => findings,
        Err(problem) => {
            eprintln!("smc_chk: {problem}");
            return ExitCode::from(2);
        }
    };
    for finding in &findings {
        match arguments.json {
            true => output::line(serde_json::json!(finding)),
            false => print(finding),
        }
    }
    if findings.iter().all(|finding| finding.is_well) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(finding: &Finding) {
    let mark = if finding.is_well { "yes" } else { "no " };
    output::line(format_args!("{mark}  {:<16} {}", finding.name, finding.detail));
    if let Some(remedy) = &finding.remedy {
        output::line(format_args!("     {:<16} -> {remedy}", ""));
    }
}
