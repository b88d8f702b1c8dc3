//! `smcr`: the same of SMC-R, of which there is none yet.

use std::process::ExitCode;

use clap::{ArgAction, Args, ValueEnum};
use serde_json::json;
use softrdma_bins_common::output;
use softrdma_smc::statistics::Mode;

use crate::observe::{self, Selection};

pub(crate) const EXAMPLES: &str = "\
Examples:
  Are there connections over RDMA?
    smcr linkgroup
    smcr -d stats show";

/// Shows link groups, links, devices and statistics of SMC-R.
#[derive(Args, Debug)]
#[command(disable_version_flag = true)]
pub(crate) struct SmcrArguments {
    /// More fields.
    #[arg(short, long, action = ArgAction::Count)]
    details: u8,
    /// Since the processes were started, whatever was reset.
    #[arg(short, long)]
    absolute: bool,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    selection: Selection,
    /// Prints the version.
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
    /// What is to be shown.
    object: Object,
    /// What of it.
    words: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Object {
    Info,
    #[value(alias = "lin")]
    Linkgroup,
    Link,
    #[value(alias = "dev")]
    Device,
    Stats,
}

/// Says what there is: processes are looked at, so that the day there is something it is not denied.
pub(crate) fn run(arguments: &SmcrArguments) -> ExitCode {
    let observation = observe::look("smcr", &arguments.selection);
    let sockets = observation.processes.iter().flat_map(|process| &process.snapshot.sockets);
    let connections = sockets.filter(|socket| socket.mode == Mode::SmcR).count();
    let object = match arguments.object {
        Object::Info => "features",
        Object::Linkgroup => "link groups",
        Object::Link => "links",
        Object::Device => "devices",
        Object::Stats => "statistics",
    };
    match arguments.json {
        true => output::line(json!({ "mode": "SMC-R", "connections": connections, "linkgroups": [], "devices": [] })),
        false if connections == 0 => output::line(format_args!(
            "no SMC-R {object}: this version moves connections into shared memory (smcd) or leaves them to TCP"
        )),
        false => output::line(format_args!(
            "no SMC-R {object} known to this version, although {connections} connections say so: see smcss -R"
        )),
    }
    observation.exit_code()
}
