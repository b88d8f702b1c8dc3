//! `softrdma doctor`: what this machine can run, and how to get what is missing.

mod checks;

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use softrdma_bins_common::output;

#[derive(Args, Debug)]
pub(crate) struct DoctorArguments {
    /// One JSON object a finding, one a line, instead of text.
    #[arg(long)]
    json: bool,
}

/// What was found out about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// The thing.
    name: &'static str,
    /// Whether it can be used, now and by this user.
    available: bool,
    /// What was seen.
    detail: String,
    /// How to get it, if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Finding {
    fn available(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, available: true, detail: detail.into(), remedy: None }
    }

    fn missing(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, available: false, detail: detail.into(), remedy: Some(remedy.into()) }
    }
}

/// Fails if not even kernel sockets work; everything else is a choice.
pub(crate) fn run(arguments: &DoctorArguments) -> ExitCode {
    let findings = checks::all();
    for finding in &findings {
        match arguments.json {
            true => output::line(serde_json::json!(finding)),
            false => print(finding),
        }
    }
    let usable = findings.iter().any(|finding| finding.name == checks::KERNEL_SOCKET && finding.available);
    if usable { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(finding: &Finding) {
    let mark = if finding.available { "yes" } else { "no " };
    output::line(format_args!("{mark}  {:<16} {}", finding.name, finding.detail));
    if let Some(remedy) = &finding.remedy {
        output::line(format_args!("     {:<16} -> {remedy}", ""));
    }
}
