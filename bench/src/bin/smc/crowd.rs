//! What connections cost while nothing happens on them.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::report::{Against, Bar, Line, median};
use crate::rig::{Rig, Side, Trouble};
use crate::turns::{self, Ends};

/// Connections that stay busy beside the idle ones.
const BUSY: usize = 16;
/// Round trips after which a connection has proven to last.
const ROUND_TRIPS: u32 = 100;
/// Turns of the busy ones, beside the idle ones and alone.
const TURNS: u64 = 40;
/// How long memory is given to be handed back before it is measured.
const SETTLE: Duration = Duration::from_secs(3);
/// How long an idle process is watched.
const WATCH: Duration = Duration::from_secs(10);

/// A server that waits by epoll, and a client with so many busy and idle connections.
fn visit(rig: &Rig, side: Side, busy: usize, idle: u64) -> Result<Ends, Trouble> {
    let numbers = [busy.to_string(), idle.to_string(), ROUND_TRIPS.to_string()];
    let options = ["--busy", "--idle", "--round-trips"];
    let mut client = vec!["visit"];
    client.extend(options.into_iter().zip(&numbers).flat_map(|(option, number)| [option, number.as_str()]));
    Ends::begin(rig, side, "crowd", &client, busy as u64 + idle)
}

/// Memory of many idle connections, and what they cost the busy ones.
pub(crate) fn memory(rig: &Rig, idle: u64) -> Result<Vec<Line>, Trouble> {
    let plain = measure_memory(rig, Side::Plain, idle)?;
    let accelerated = measure_memory(rig, Side::Accelerated, idle)?;
    let each = |pss_kib: u64| pss_kib as f64 / idle as f64;
    let line = |end: &str, at: usize| {
        let what = format!("{idle} idle connections, memory of each, {end}");
        let halves = [(each(accelerated.sizes[at]), each(plain.sizes[at]))];
        Line::of_rounds(&what, "KiB", Bar::AtMost(40.0), Against::Difference, &halves)
    };
    let what = format!("{BUSY} busy connections beside {idle} idle / alone");
    let bar = Bar::AtLeast(0.95);
    let mut kept = Line::of_rounds(&what, "round trips a second", bar, Against::Ratio, &accelerated.rates);
    let ratios: Vec<_> = plain.rates.iter().map(|(beside, alone)| beside / alone).collect();
    kept.remark = format!("plain: {:.3}", median(&ratios));
    Ok(vec![line("client", 0), line("server", 1), kept])
}

/// What idle connections cost.
struct Cost {
    /// Proportional set sizes in KiB, of the client and the server.
    sizes: [u64; 2],
    /// Round trips a second of the busy connections, beside the idle ones and alone, in turns.
    rates: Vec<(f64, f64)>,
}

fn measure_memory(rig: &Rig, side: Side, idle: u64) -> Result<Cost, Trouble> {
    eprint!("\ridle connections: {side:?}   ");
    let mut beside = visit(rig, side, BUSY, idle)?;
    thread::sleep(SETTLE);
    let [client, server] = beside.ids();
    let sizes = [proportional_set_size(client)?, proportional_set_size(server)?];
    let mut alone = visit(rig, side, BUSY, 0)?;
    let rates = turns::alternate(rig, &mut beside, &mut alone, TURNS, rig.seconds / 4.0)?;
    beside.end(rig)?;
    alone.end(rig)?;
    eprintln!();
    Ok(Cost { sizes, rates })
}

fn proportional_set_size(id: u32) -> Result<u64, Trouble> {
    let text = read(&format!("/proc/{id}/smaps_rollup"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| format!("no Pss of process {id}"))
}

fn read(path: &str) -> Result<String, Trouble> {
    fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

/// What two processes with some accelerated connections do while nothing happens.
pub(crate) fn idle_process(rig: &Rig) -> Result<Vec<Line>, Trouble> {
    const CONNECTIONS: u64 = 10;
    let visit = visit(rig, Side::Accelerated, 0, CONNECTIONS)?;
    thread::sleep(SETTLE);
    let before = visit.ids().map(Activity::of);
    thread::sleep(WATCH);
    let after = visit.ids().map(Activity::of);
    visit.end(rig)?;
    let mut lines = Vec::new();
    for (name, (before, after)) in ["client", "server"].into_iter().zip(before.into_iter().zip(after)) {
        let (before, after) = (before?, after?);
        let mut line = |what: &str, bar, more: u64| {
            let what = format!("idle for {} s, {what}, {name}", WATCH.as_secs());
            lines.push(Line::of_rounds(&what, "", Bar::AtMost(bar), Against::Nothing, &[(more as f64, 0.0)]));
        };
        line("ticks", 1.0, after.ticks - before.ticks);
        line("wake-ups", 10.0, after.wake_ups - before.wake_ups);
    }
    Ok(lines)
}

/// What a process has done so far.
struct Activity {
    /// Of CPU time, in the application and in the kernel.
    ticks: u64,
    /// Times that one of its threads went to sleep by itself.
    wake_ups: u64,
}

impl Activity {
    fn of(id: u32) -> Result<Self, Trouble> {
        let stat = read(&format!("/proc/{id}/stat"))?;
        // proc(5): utime and stime are the 14th and 15th fields; the second is a name in parentheses that may hold anything.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        let ticks = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        let tasks = fs::read_dir(format!("/proc/{id}/task")).map_err(|error| error.to_string())?;
        let wake_ups = tasks
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join("status")).ok())
            .filter_map(|status| {
                status
                    .lines()
                    .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok())
            })
            .sum();
        Ok(Activity { ticks, wake_ups })
    }
}
