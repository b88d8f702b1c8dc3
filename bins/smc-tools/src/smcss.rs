//! `smcss`: the sockets.

use std::fmt::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{ArgAction, Args};
use serde_json::{Value, json};
use softrdma_bins_common::output;
use softrdma_smc::statistics::{Cursors, Flags, Mode, Process, Reasons, Shutdown, Socket, State};
use softrdma_smc::wire::clc::DeclineReason;

use crate::observe::{self, Selection};

pub(crate) const EXAMPLES: &str = "\
Examples:
  Connections of all processes that can be seen (root sees everybody's), and listeners too:
    smcss -a
  How full are their rings, in whole addresses?
    smcss -dW
  What shared memory do they use?
    smcss -D
  Why did connections stay TCP?
    smcss --json | grep fallback

Mode: SMCD and SMCR are in shared and remote memory. TCP alone is not decided yet; the numbers behind it say why \
it stays TCP, first what this end found, then what the other end said. Intf is 0000 unless SO_BINDTODEVICE is set.";

/// Columns that an address has unless `-W` is given.
const ADDRESS_COLUMNS: usize = 23;

/// Lists the sockets of processes that run with SMC.
#[derive(Args, Debug)]
#[command(disable_version_flag = true)]
pub(crate) struct SmcssArguments {
    /// Sockets of all kinds, listening ones too.
    #[arg(short, long)]
    all: bool,
    /// Listening sockets only.
    #[arg(short, long, conflicts_with = "all")]
    listening: bool,
    /// Shutdown state, buffers, cursors and flags.
    #[arg(short, long)]
    debug: bool,
    /// SMC-D sockets only, with what is special about them.
    #[arg(short = 'D', long, conflicts_with_all = ["smcr", "listening"])]
    smcd: bool,
    /// SMC-R sockets only, with what is special about them.
    #[arg(short = 'R', long, conflicts_with = "listening")]
    smcr: bool,
    /// Addresses are not cut.
    #[arg(short = 'W', long)]
    wide: bool,
    /// Adds the process that a socket belongs to.
    #[arg(short, long)]
    processes: bool,
    /// One JSON object a socket, one a line, with all that is known about it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    selection: Selection,
    /// Prints the version.
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
}

pub(crate) fn run(arguments: &SmcssArguments) -> ExitCode {
    let mut observation = observe::look("smcss", &arguments.selection);
    if arguments.debug || arguments.json {
        observation.join_ends();
    }
    if !arguments.json {
        output::line(header(arguments));
    }
    for process in &observation.processes {
        for socket in process.snapshot.sockets.iter().filter(|socket| arguments.shows(socket)) {
            match arguments.json {
                true => output::line(line_of_json(process, socket)),
                false => output::line(line(arguments, process, socket)),
            }
        }
    }
    observation.exit_code()
}

impl SmcssArguments {
    fn shows(&self, socket: &Socket) -> bool {
        let has_mode = match (self.smcd, self.smcr) {
            (true, _) => socket.mode == Mode::SmcD,
            (_, true) => socket.mode == Mode::SmcR,
            _ => true,
        };
        has_mode && (self.all || self.listening == (socket.state == State::Listen))
    }
}

fn header(arguments: &SmcssArguments) -> String {
    let width = ADDRESS_COLUMNS;
    let mut text = format!("{:<14} {:<5} {:<7} ", "State", "UID", "Inode");
    let _ = write!(text, "{:<width$} {:<width$} {:<4} {:<5}", "Local Address", "Peer Address", "Intf", "Mode");
    if arguments.debug {
        text += " ShutD Token    Sndbuf   Rcvbuf   Peerbuf  rxprod-Cursor rxcons-Cursor rxFlags \
                 txprod-Cursor txcons-Cursor txFlags txprep-Cursor txsent-Cursor txfin-Cursor ";
    }
    if arguments.smcd {
        text += " GID              Token            Peer-GID         Peer-Token       Linkid          ";
    }
    if arguments.smcr {
        text += " Role Linkid           Peer-GID        ";
    }
    if arguments.processes {
        text += " Process";
    }
    text.trim_end().to_owned()
}

fn line(arguments: &SmcssArguments, process: &Process, socket: &Socket) -> String {
    let address = |address| shown_address(address, arguments.wide);
    let (width, mode) = (ADDRESS_COLUMNS, mode(socket));
    let mut text = format!("{:<14} {:05} {:07} ", socket.state.name(), socket.user, socket.inode);
    let _ = write!(text, "{:<width$} {:<width$} ", address(socket.local), address(socket.peer));
    if socket.state == State::Listen {
        // What is not connected has nothing of all that.
        return with_process(text, arguments, process);
    }
    let _ = write!(text, "{:04x} {mode:<5}", socket.interface);
    if arguments.debug {
        text += &debug(socket);
    }
    if arguments.smcd {
        let _ = write!(text, " {:016x} {:016x}", process.snapshot.gid, socket.own_token);
        let _ = write!(text, " {:016x} {:016x} {:016x}", socket.peer_gid, socket.peer_token, socket.arena);
    }
    if arguments.smcr {
        let _ = write!(text, " {} {:016x} {:016x}", role(socket), socket.arena, socket.peer_gid);
    }
    with_process(text, arguments, process)
}

fn with_process(mut text: String, arguments: &SmcssArguments, process: &Process) -> String {
    if arguments.processes {
        let _ = write!(text, " {}/{}", process.id, process.snapshot.program);
    }
    text.trim_end().to_owned()
}

/// Our ring is the peer's sending buffer and the other way round, so that what is sent is with the peer already.
fn debug(socket: &Socket) -> String {
    let (sends, receives) = (socket.send_ring, socket.receive_ring);
    let shut = match socket.shutdown {
        Shutdown { read: false, write: false } => "<->",
        Shutdown { read: true, write: false } => "R->",
        Shutdown { read: false, write: true } => "<-W",
        Shutdown { read: true, write: true } => "R-W",
    };
    let mut text = format!(" {shut:<5} {:08x} {sends:08x} {receives:08x} {sends:08x}", socket.own_token as u32);
    let Cursors { produced: received, consumed } = socket.receiving;
    let Cursors { produced: sent, consumed: confirmed } = socket.sending;
    let _ = write!(text, " {:<13} {:<13}", cursor(received, receives), cursor(confirmed, sends));
    let _ = write!(text, " {:<7}", flags(socket.peer_flags));
    let _ = write!(text, " {:<13} {:<13}", cursor(sent, sends), cursor(consumed, receives));
    let _ = write!(text, " {:<7}", flags(socket.own_flags));
    let sent = cursor(sent, sends);
    let _ = write!(text, " {sent:<13} {sent:<13} {sent:<13}");
    text
}

/// Times that a ring of `size` bytes was gone through, and where it stands.
fn cursor(position: u64, size: u32) -> String {
    let size = u64::from(size);
    let (wraps, count) = (position.checked_div(size), position.checked_rem(size));
    format!("{:04x}:{:08x}", wraps.unwrap_or(0) as u16, count.unwrap_or(0))
}

fn flags(flags: Flags) -> String {
    format!("{:02x}:{:02x}", flags.producer, flags.state)
}

fn role(socket: &Socket) -> &'static str {
    match socket.role {
        softrdma_smc::statistics::Role::Client => "CLNT",
        softrdma_smc::statistics::Role::Server => "SERV",
    }
}

fn mode(socket: &Socket) -> String {
    match (socket.mode, socket.reasons) {
        (Mode::SmcD, _) => "SMCD".to_owned(),
        (Mode::SmcR, _) => "SMCR".to_owned(),
        (Mode::Undecided, _) | (Mode::Tcp, Reasons { own: 0, peer: 0 }) => "TCP".to_owned(),
        (Mode::Tcp, Reasons { own, peer: 0 }) => format!("TCP {own:#010x}"),
        (Mode::Tcp, Reasons { own, peer }) => format!("TCP {own:#010x}/{peer:#010x}"),
    }
}

fn shown_address(address: Option<SocketAddr>, is_wide: bool) -> String {
    // Nobody has an address of IPv6 in brackets here: a port stands behind the last colon.
    let text = address.map_or(String::new(), |address| format!("{}:{}", address.ip(), address.port()));
    match text.len() > ADDRESS_COLUMNS && !is_wide {
        true => format!("{}..", &text[..ADDRESS_COLUMNS - 2]),
        false => text,
    }
}

fn line_of_json(process: &Process, socket: &Socket) -> Value {
    let mut line = json!(socket);
    let reason = |code: u32| (code != 0).then(|| json!({ "code": format!("{code:#010x}"), "text": text_of(code) }));
    let Value::Object(fields) = &mut line else { return line };
    fields.remove("counts");
    fields.remove("reasons");
    for counter in softrdma_smc::statistics::Counter::ALL.into_iter().filter(|counter| counter.is_of_entry()) {
        fields.insert(counter.name().to_owned(), socket.count(counter).into());
    }
    if socket.mode == Mode::Tcp {
        let fallback = json!({ "own": reason(socket.reasons.own), "peer": reason(socket.reasons.peer) });
        fields.insert("fallback".to_owned(), fallback);
    }
    fields.insert("process".to_owned(), process.id.into());
    fields.insert("program".to_owned(), process.snapshot.program.clone().into());
    fields.insert("gid".to_owned(), process.snapshot.gid.into());
    line
}

/// What a code means; empty if nobody knows.
pub(crate) fn text_of(code: u32) -> &'static str {
    DeclineReason(code).text().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_wraps_and_places_and_an_empty_ring_has_none() {
        assert_eq!(cursor(0, 65536), "0000:00000000");
        assert_eq!(cursor(3 * 65536 + 255, 65536), "0003:000000ff");
        assert_eq!(cursor(u64::MAX, 16384), "ffff:00003fff");
        assert_eq!(cursor(77, 0), "0000:00000000");
    }

    #[test]
    fn long_addresses_are_cut_unless_they_are_wanted_whole() {
        let address = Some("[2001:db8:1234:5678::1]:50000".parse().unwrap());
        assert_eq!(shown_address(address, true), "2001:db8:1234:5678::1:50000");
        assert_eq!(shown_address(address, false), "2001:db8:1234:5678::1..");
        assert_eq!(shown_address(Some("127.0.0.1:80".parse().unwrap()), false), "127.0.0.1:80");
        assert_eq!(shown_address(None, false), "");
    }
}
