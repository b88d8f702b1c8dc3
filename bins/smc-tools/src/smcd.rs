//! `smcd`: link groups, devices and counters of SMC-D.

use std::process::ExitCode;

use clap::{ArgAction, Args, Subcommand};
use serde_json::{Value, json};
use softrdma_bins_common::output;
use softrdma_smc::statistics::{Arena, Process, Role};

use crate::baseline::Baseline;
use crate::observe::{self, Observation, Selection};
use crate::{library, statistics};

pub(crate) const EXAMPLES: &str = "\
Examples:
  Which processes share memory, and how many connections are in it?
    smcd linkgroup
  How many connections were accelerated, how many stay TCP and why, since the last reset?
    smcd -d stats
  The same since the processes were started, for programs:
    smcd -a stats json
  Begin counting anew (for this user; processes notice nothing):
    smcd stats reset

Objects and commands may be shortened: `smcd l`, `smcd sta r`. A link group is the arena of two processes for the \
connections that one of them accepts from the other; both are listed. What is shown is what \
running processes show now.";

/// Shows link groups, devices and statistics of SMC-D.
#[derive(Args, Debug)]
#[command(disable_version_flag = true, infer_subcommands = true)]
pub(crate) struct SmcdArguments {
    /// More fields (of stats).
    #[arg(short, long, global = true)]
    details: bool,
    /// Since the processes were started, whatever was reset (of stats).
    #[arg(short, long, global = true)]
    absolute: bool,
    /// JSON instead of text: one object a line.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    selection: Selection,
    /// Prints the version.
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    object: Object,
}

#[derive(Debug, Subcommand)]
enum Object {
    /// What the library can do.
    Info {
        #[command(subcommand)]
        command: Option<Show>,
    },
    /// The memory that processes share.
    Linkgroup {
        /// `show` (the default), and of which: `all` (the default) or the beginning of an LG-ID.
        #[arg(value_name = "show] [all|LG-ID", num_args = 0..=2)]
        words: Vec<String>,
    },
    /// The devices: one for each process.
    Device {
        /// `show` (the default) and `all` (the default).
        #[arg(value_name = "show] [all", num_args = 0..=2)]
        words: Vec<String>,
    },
    /// What was counted.
    #[command(infer_subcommands = true)]
    Stats {
        #[command(subcommand)]
        command: Option<StatsCommand>,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Show {
    /// Shows it.
    Show,
}

#[derive(Clone, Copy, Debug, Default, Subcommand)]
enum StatsCommand {
    /// What was counted since the last reset.
    #[default]
    Show,
    /// Shows it, and begins anew.
    Reset,
    /// Shows it as JSON.
    Json,
}

pub(crate) fn run(arguments: &SmcdArguments) -> ExitCode {
    match &arguments.object {
        Object::Info { .. } => {
            info(arguments.json);
            ExitCode::SUCCESS
        }
        Object::Linkgroup { words } => match selection(words) {
            Ok(group) => linkgroups(arguments, group),
            Err(problem) => refuse("linkgroup", &problem),
        },
        Object::Device { words } => match selection(words) {
            Ok(None) => devices(arguments),
            Ok(Some(word)) => refuse("device", &format!("'{word}' is not known: expected [show] [all]")),
            Err(problem) => refuse("device", &problem),
        },
        Object::Stats { command } => stats(arguments, command.unwrap_or_default()),
    }
}

fn refuse(object: &str, problem: &str) -> ExitCode {
    eprintln!("smcd {object}: {problem}");
    ExitCode::from(2)
}

/// What is asked for, `None` for all: `show` may stand in front, shortened like everything else.
pub(crate) fn selection(words: &[String]) -> Result<Option<&str>, String> {
    let is_show = |word: &String| ["show", "link-show"].iter().any(|name| name.starts_with(word.as_str()));
    let rest = match words.split_first() {
        Some((first, rest)) if is_show(first) => rest,
        _ => words,
    };
    match rest {
        [] => Ok(None),
        [one] if one == "all" => Ok(None),
        [one] => Ok(Some(one)),
        [_, second, ..] => Err(format!("'{second}' is one word too many")),
    }
}

fn linkgroups(arguments: &SmcdArguments, selected: Option<&str>) -> ExitCode {
    let mut observation = observe::look("smcd", &arguments.selection);
    observation.look_at_all();
    let wanted = selected.map(|text| text.trim_start_matches("0x").to_ascii_lowercase());
    if !arguments.json {
        output::line(
            "LG-ID            LG-Role VLAN #Conns PNET-ID          Capacity RingBytes GID              \
             Peer-GID         Process",
        );
    }
    for (process, arena) in observation.arenas() {
        let id = format!("{:016x}", arena.id);
        if wanted.as_ref().is_some_and(|wanted| !id.starts_with(wanted.as_str())) {
            continue;
        }
        match arguments.json {
            true => output::line(json_of_arena(process, arena, observation.with_gid(arena.peer_gid))),
            false => output::line(line_of_arena(&id, process, arena, observation.with_gid(arena.peer_gid))),
        }
    }
    observation.exit_code()
}

/// There is neither a VLAN nor a physical network.
fn line_of_arena(id: &str, process: &Process, arena: &Arena, peer: Option<&Process>) -> String {
    let role = if arena.role == Role::Client { "CLNT" } else { "SERV" };
    let peer = match (peer, arena.peer_process) {
        (Some(peer), _) => format!(" with {}/{}", peer.id, peer.snapshot.program),
        (None, 0) => String::new(),
        (None, id) => format!(" with {id}"),
    };
    format!(
        "{id} {role:<7} {:<4} {:<6} {:<16} {:<8} {:<9} {:016x} {:016x} {}/{}{peer}",
        0,
        arena.connections,
        "",
        arena.capacity,
        arena.ring_bytes,
        arena.own_gid,
        arena.peer_gid,
        process.id,
        process.snapshot.program,
    )
}

fn json_of_arena(process: &Process, arena: &Arena, peer: Option<&Process>) -> Value {
    let mut line = json!(arena);
    if let Value::Object(fields) = &mut line {
        fields.insert("process".to_owned(), process.id.into());
        fields.insert("program".to_owned(), process.snapshot.program.clone().into());
        // It cannot be seen, or has said nothing yet: 0, as the page has it.
        if let Some(peer) = peer {
            fields.insert("peer_process".to_owned(), peer.id.into());
            fields.insert("peer_program".to_owned(), peer.snapshot.program.clone().into());
        }
    }
    line
}

fn devices(arguments: &SmcdArguments) -> ExitCode {
    let observation = observe::look("smcd", &arguments.selection);
    if !arguments.json {
        output::line("FID  Type     PCI-ID       PCHID InUse #LGs  PNET-ID          GID              Process");
    }
    for Process { id, snapshot, .. } in &observation.processes {
        let groups = snapshot.arenas.len();
        let is_used = if groups == 0 { "No" } else { "Yes" };
        output::line(match arguments.json {
            true => json!({
                "type": "loopback", "gid": snapshot.gid, "in_use": groups != 0, "linkgroups": groups,
                "process": id, "program": snapshot.program,
            })
            .to_string(),
            // The channel that Linux gives its loopback device.
            false => format!(
                "0000 {:<8} {:<12} {:<5} {is_used:<5} {groups:<5} {:<16} {:016x} {id}/{}",
                "loopback", "softrdma-smc", "ffff", "", snapshot.gid, snapshot.program
            ),
        });
    }
    observation.exit_code()
}

fn stats(arguments: &SmcdArguments, command: StatsCommand) -> ExitCode {
    let observation = observe::look("smcd", &arguments.selection);
    let mut baseline = Baseline::load();
    let totals = match arguments.absolute {
        true => Baseline::default().since(&observation.processes),
        false => baseline.since(&observation.processes),
    };
    match arguments.json || matches!(command, StatsCommand::Json) {
        true => output::line(statistics::json(&totals)),
        false => output::line(statistics::text(&totals, arguments.details).trim_end()),
    }
    if matches!(command, StatsCommand::Reset) {
        baseline.move_to(&observation.processes);
        if let Err(error) = baseline.store() {
            eprintln!("smcd stats: {error}");
            return ExitCode::FAILURE;
        }
    }
    observation.exit_code()
}

fn info(as_json: bool) {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let library = library::find().map(|library| library.display().to_string());
    let found = library.unwrap_or_else(|error| error.to_string());
    if as_json {
        output::line(json!({
            "smc_version": 1, "hostname": host, "smcd_features": ["v1"], "smcr_features": [], "device": "loopback",
            "library": found,
        }));
        return;
    }
    output::line(format_args!("Library Capabilities\nSMC Version:      1.0\nSMC Hostname:     {host}"));
    output::line("SMC-D Features:   v1\nSMC-R Features:   none\n");
    output::line(format_args!(
        "Device Capabilities\nLoopback:         v1\nRoCE:             none\n\nLibrary:          {found}"
    ));
}

impl Observation {
    fn arenas(&self) -> impl Iterator<Item = (&Process, &Arena)> {
        self.processes.iter().flat_map(|process| process.snapshot.arenas.iter().map(move |arena| (process, arena)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_selected_may_stand_behind_show() {
        let select = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            selection(&words).map(|selected| selected.map(str::to_owned))
        };
        for all in [&[][..], &["show"], &["s"], &["all"], &["show", "all"]] {
            assert_eq!(select(all), Ok(None), "{all:?}");
        }
        assert_eq!(select(&["show", "00a0"]), Ok(Some("00a0".to_owned())));
        assert_eq!(select(&["00a0"]), Ok(Some("00a0".to_owned())));
        assert!(select(&["00a0", "all"]).is_err());
    }
}
