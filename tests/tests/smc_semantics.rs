//! What a socket program sees does not depend on what carries its bytes: the scenarios of `tests/smc/semantics`, each
//! with two processes, write the same transcript over plain TCP and with the library preloaded.
//!
//! Where the library knowingly differs, `tests/smc/semantics/deviations/SCENARIO.txt` has the reason, in lines that
//! begin with `#`, and the transcript that is right for a connection that has been moved.

#![forbid(unsafe_code)]

use softrdma_smc::statistics::{self, Counter};
use softrdma_smc::wire::clc::DeclineReason;
use softrdma_tests::program::{Scratch, smc_library};
use softrdma_tests::skip;
use softrdma_tests::tidy::tree;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

const DIRECTORY: &str = "tests/smc/semantics";

/// Scenarios spend most of their time asleep.
const AT_ONCE: usize = 8;

/// Seeds of each kind of stress, always and where SOFTRDMA_SMC_SEMANTICS is `all`, and how many peers are killed for each.
const STRESS_SEEDS: [u64; 2] = [16, 200];
const KILL_SEEDS: [u64; 2] = [2, 20];
const KILL_ROUNDS: u64 = 50;

/// Scenarios that make their connections themselves and keep them long enough: these must have been moved, too.
const ALSO_MOVED: &[&str] =
    &["connect-nonblocking", "connect-bound", "stress", "idle-memory", "second-listener", "hostile-peer"];

/// What a run is like.
#[derive(Clone, Copy, Debug)]
struct Setting {
    /// Variables of the environment.
    variables: &'static [(&'static str, &'static str)],
    /// Which ends have the library.
    near: bool,
    far: bool,
    /// What else the runner is told.
    options: &'static [&'static str],
    /// Whether every connection has been moved when its scenario begins.
    moved: bool,
    /// What cannot be served in it.
    except: &'static [&'static str],
}

const PLAIN: Setting = Setting { variables: &[], near: false, far: false, options: &[], moved: false, except: &[] };
const BOTH: Setting = Setting { near: true, far: true, moved: true, ..PLAIN };

/// A scenario as the program lists it.
#[derive(Clone, Debug)]
struct Scenario {
    name: String,
    /// Whether it begins with a connection over which the warm-up has gone.
    connected: bool,
}

/// What came of a run.
#[derive(Debug)]
struct Run {
    /// What is compared.
    transcript: String,
    /// Which ends share memory with another process for their connections.
    moved: BTreeSet<&'static str>,
    errors: String,
}

/// The compiled scenarios; the directory goes away with the process that made it.
struct Scenarios {
    program: PathBuf,
    list: Vec<Scenario>,
    /// The transcripts over plain TCP.
    plain: BTreeMap<String, String>,
    _scratch: Scratch,
}

static SCENARIOS: LazyLock<Scenarios> = LazyLock::new(|| {
    let scratch = Scratch::new("semantics");
    let program = scratch.file("semantics");
    let build = tree::root().join(DIRECTORY).join("build.sh");
    let output = Command::new(build).arg(&program).output().expect("run build.sh");
    assert!(output.status.success(), "the scenarios do not compile: {}", String::from_utf8_lossy(&output.stderr));
    let output = Command::new(&program).arg("list").output().expect("list the scenarios");
    let list: Vec<_> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, start)| Scenario { name: name.to_owned(), connected: start == "connected" })
        .collect();
    assert!(list.len() > 100, "only {} scenarios", list.len());
    let transcripts = over_all(&list, |scenario| run(&program, &scenario.name, &PLAIN, None, &[]).transcript);
    let plain = list.iter().map(|scenario| scenario.name.clone()).zip(transcripts).collect();
    Scenarios { program, list, plain, _scratch: scratch }
});

/// One after the other: each uses all there is of this machine.
fn take_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `function` of each of `items`, several at once.
fn over_all<T: Sync, R: Send>(items: &[T], function: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { return };
                    let result = function(item);
                    results.lock().unwrap_or_else(PoisonError::into_inner).insert(index, result);
                }
            });
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

/// Runs `scenario`; `more` are further variables of its environment.
fn run(program: &Path, scenario: &str, setting: &Setting, library: Option<&Path>, more: &[(&str, u64)]) -> Run {
    let mut command = Command::new(program);
    command.args(["run", scenario]).args(setting.options);
    for (variable, _) in std::env::vars_os() {
        if variable == "LD_PRELOAD" || variable.to_string_lossy().starts_with("SOFTRDMA_SMC_") {
            command.env_remove(variable);
        }
    }
    command.envs(setting.variables.iter().copied());
    command.envs(more.iter().map(|(name, value)| (name, value.to_string())));
    if let Some(library) = library {
        for (option, has_it) in [("--near-library", setting.near), ("--far-library", setting.far)] {
            if has_it {
                command.arg(option).arg(library);
            }
        }
    }
    let output = command.output().expect("run a scenario");
    let text = String::from_utf8_lossy(&output.stdout);
    let (remarks, transcript): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('#'));
    let has_arena = |end: &str| {
        let start = format!("# {end}: arenas: ");
        remarks.iter().filter_map(|remark| remark.strip_prefix(&start)).any(|count| count != "0")
    };
    Run {
        transcript: transcript.iter().map(|line| format!("{line}\n")).collect(),
        moved: ["near", "far"].into_iter().filter(|end| has_arena(end)).collect(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The transcript that is right for `scenario` once its connection has been moved, where it differs from plain TCP's.
fn deviation(scenario: &Scenario) -> Option<String> {
    let path = tree::root().join(DIRECTORY).join("deviations").join(format!("{}.txt", scenario.name));
    let text = fs::read_to_string(path).ok()?;
    let (reason, transcript): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('#'));
    assert!(!reason.is_empty(), "{}: a deviation needs a reason", scenario.name);
    Some(transcript.iter().map(|line| format!("{line}\n")).collect())
}

/// Scenarios that a moved connection does not serve yet, and why: lines of `NAME: REASON`.
fn not_served() -> BTreeMap<String, String> {
    let text = fs::read_to_string(tree::root().join(DIRECTORY).join("not_served.txt")).expect("read not_served.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once(": "));
    pairs.map(|(name, reason)| (name.to_owned(), reason.to_owned())).collect()
}

/// Where two transcripts part, with some lines before.
fn difference(expected: &str, actual: &str) -> String {
    let (expected, actual): (Vec<_>, Vec<_>) = (expected.lines().collect(), actual.lines().collect());
    let same = expected.iter().zip(&actual).take_while(|(one, other)| one == other).count();
    let mut text = String::new();
    for line in &expected[same.saturating_sub(3)..same] {
        let _ = writeln!(text, "      {line}");
    }
    for (mark, lines) in [('-', &expected), ('+', &actual)] {
        for line in lines[same..].iter().take(6) {
            let _ = writeln!(text, "    {mark} {line}");
        }
    }
    text
}

/// What is wrong with `run`, if anything is.
fn complaint(scenario: &Scenario, setting: &Setting, run: &Run, plain: &str) -> Option<String> {
    let accepted: Vec<String> = match deviation(scenario) {
        Some(deviation) if setting.moved => vec![deviation],
        // The move comes when it comes, or never.
        Some(deviation) if setting.near && setting.far => vec![plain.to_owned(), deviation],
        _ => vec![plain.to_owned()],
    };
    if !accepted.contains(&run.transcript) {
        let (difference, errors) = (difference(&accepted[0], &run.transcript), run.errors.trim_end());
        return Some(format!("{}:\n{difference}{errors}", scenario.name));
    }
    was_left_behind(scenario, setting, run)
        .then(|| format!("{}: its connection was not moved (only {:?})", scenario.name, run.moved))
}

/// Whether the connection was to be moved and was not.
fn was_left_behind(scenario: &Scenario, setting: &Setting, run: &Run) -> bool {
    let must_move = setting.moved && (scenario.connected || ALSO_MOVED.contains(&scenario.name.as_str()));
    must_move && run.moved.len() < 2
}

/// Some settings take minutes: they run where SOFTRDMA_SMC_SEMANTICS is `all`.
fn are_long_runs_asked_for() -> bool {
    let is_asked_for = are_all_asked_for();
    if !is_asked_for {
        skip(
            "socket programs moved in other ways than after four transfers",
            "minutes long (SOFTRDMA_SMC_SEMANTICS=all)",
        );
    }
    is_asked_for
}

fn are_all_asked_for() -> bool {
    std::env::var("SOFTRDMA_SMC_SEMANTICS").is_ok_and(|runs| runs == "all")
}

fn skip_library() {
    skip("socket programs with the library preloaded", "this tree has none (SOFTRDMA_SMC_LIBRARY)");
}

/// How often a scenario is run for its connection to be moved.
const TRIES: u32 = 4;

/// Runs every scenario in `setting` and fails with all that differ.
fn check(setting: &Setting) {
    let _turn = take_turn();
    let library = match (setting.near || setting.far, smc_library()) {
        (true, None) => return skip_library(),
        (true, library) => library,
        (false, _) => None,
    };
    let scenarios = &*SCENARIOS;
    let mut not_served = not_served();
    // What the library looks at itself it looks at wherever it is.
    not_served.retain(|name, _| setting.near && setting.far || library.is_some() && name == "bad-memory");
    let is_served = |name: &str| !not_served.contains_key(name) && !setting.except.contains(&name);
    let served: Vec<_> = scenarios.list.iter().filter(|scenario| is_served(&scenario.name)).collect();
    let complain = |scenario: &Scenario| {
        let again = || run(&scenarios.program, &scenario.name, setting, library.as_deref(), &[]);
        // Where others keep the processors busy, a scenario may be over before the two ends have met: then it says nothing.
        let tries = (0..TRIES).map(|_| again());
        let mut tries = tries.skip_while(|run| was_left_behind(scenario, setting, run));
        let run = tries.next().unwrap_or_else(again);
        complaint(scenario, setting, &run, &scenarios.plain[&scenario.name])
    };
    let different = over_all(&served, |scenario| complain(scenario).map(|_| *scenario));
    // With many at once some come too late; by itself each must do.
    let complaints: Vec<_> = different.into_iter().flatten().filter_map(complain).collect();
    assert!(
        complaints.is_empty(),
        "{} of {} scenarios with {setting:?}:\n{}",
        complaints.len(),
        served.len(),
        complaints.join("\n")
    );
}

#[test]
fn plain_transcripts_are_steady() {
    for (name, transcript) in &SCENARIOS.plain {
        assert!(!transcript.contains("TOOK TOO LONG"), "{name}:\n{transcript}");
        assert!(!transcript.contains("CANNOT GO ON"), "{name}:\n{transcript}");
    }
    check(&PLAIN);
}

#[test]
fn plain_transcripts_depend_neither_on_the_address_nor_on_who_connects() {
    check(&Setting { options: &["--family", "6", "--swap", "--warm", "3"], ..PLAIN });
}

#[test]
fn moved_at_once() {
    if !are_long_runs_asked_for() {
        return;
    }
    // What is moved at once may be moved already when the program is executed that it was accepted for.
    let except = &["inetd"];
    check(&Setting { variables: &[("SOFTRDMA_SMC_UPGRADE_AFTER", "0")], except, ..BOTH });
}

#[test]
fn moved_after_four_transfers() {
    check(&Setting { variables: &[("SOFTRDMA_SMC_UPGRADE_AFTER", "4")], ..BOTH });
}

#[test]
fn moved_over_ipv6_with_the_ends_changed() {
    if !are_long_runs_asked_for() {
        return;
    }
    let options = &["--family", "6", "--swap"];
    check(&Setting { variables: &[("SOFTRDMA_SMC_UPGRADE_AFTER", "4")], options, ..BOTH });
}

#[test]
fn moved_after_sixty_four_transfers() {
    if !are_long_runs_asked_for() {
        return;
    }
    // Where a scenario is short, the move comes in the middle of it.
    check(&Setting { variables: &[("SOFTRDMA_SMC_UPGRADE_AFTER", "64")], ..BOTH });
}

#[test]
fn moved_in_the_middle() {
    if !are_long_runs_asked_for() {
        return;
    }
    let options = &["--warm", "0"];
    check(&Setting { variables: &[("SOFTRDMA_SMC_UPGRADE_AFTER", "4")], options, moved: false, ..BOTH });
}

#[test]
fn preloaded_where_it_connects_only() {
    if !are_long_runs_asked_for() {
        return;
    }
    let variables = &[("SOFTRDMA_SMC_UPGRADE_AFTER", "4")];
    check(&Setting { variables, near: true, ..PLAIN });
}

#[test]
fn preloaded_where_it_accepts_only() {
    if !are_long_runs_asked_for() {
        return;
    }
    let variables = &[("SOFTRDMA_SMC_UPGRADE_AFTER", "4")];
    check(&Setting { variables, far: true, ..PLAIN });
}

/// Runs `scenario` with each seed from 1 to `few`, or to `many` in long runs, both ends moved, and fails with all that went
/// wrong.
fn check_seeds(scenario: &str, [few, many]: [u64; 2], more: &[(&str, u64)]) {
    let _turn = take_turn();
    let Some(library) = smc_library() else { return skip_library() };
    let setting = Setting { variables: &[("SOFTRDMA_SMC_UPGRADE_AFTER", "4")], options: &["--limit", "60"], ..BOTH };
    let seeds: Vec<_> = (1..=if are_all_asked_for() { many } else { few }).collect();
    let moved = AtomicUsize::new(0);
    let complaints = over_all(&seeds, |&seed| {
        let variables = [&[("SEMANTICS_SEED", seed)], more].concat();
        let run = run(&SCENARIOS.program, scenario, &setting, Some(&library), &variables);
        let ends = run.transcript.lines().filter(|line| line.ends_with(" ended with 0")).count();
        let good = ends == SCENARIOS.plain[scenario].matches(" ended with 0").count();
        moved.fetch_add(usize::from(!run.moved.is_empty()), Ordering::Relaxed);
        (!good).then(|| format!("seed {seed}, moved in {:?}:\n{}{}", run.moved, run.transcript, run.errors))
    });
    let complaints: Vec<_> = complaints.into_iter().flatten().collect();
    assert!(complaints.is_empty(), "{} of {} seeds:\n{}", complaints.len(), seeds.len(), complaints.join("\n"));
    // A peer may be killed before its connection has been moved, but not all of them.
    let moved = moved.into_inner();
    assert!(moved > seeds.len() / 4, "connections were moved with {moved} of {} seeds only", seeds.len());
}

#[test]
fn any_mixture_of_operations_by_seed() {
    check_seeds("stress", STRESS_SEEDS, &[]);
}

#[test]
fn peers_killed_at_any_moment_by_seed() {
    check_seeds("kill-rounds", KILL_SEEDS, &[("SEMANTICS_ROUNDS", KILL_ROUNDS)]);
}

/// How many connections of processes that go by `limit` of ring memory have stayed TCP for want of it.
fn short_of_memory(limit: u64) -> u64 {
    let processes = statistics::processes().expect("look into /proc");
    let snapshots = processes.into_iter().flatten().map(|process| process.snapshot);
    let ours = snapshots.filter(|snapshot| snapshot.counters.get(Counter::RingMemoryLimit) == limit);
    let fallbacks = ours.flat_map(|snapshot| snapshot.fallbacks);
    fallbacks
        .filter(|fallback| fallback.code == DeclineReason::INSUFFICIENT_MEMORY.0)
        .map(|fallback| fallback.count)
        .sum()
}

#[test]
fn without_ring_memory_connections_stay_tcp_which_is_counted() {
    const LIMIT: u64 = 16_411;
    let _turn = take_turn();
    let Some(library) = smc_library() else { return skip_library() };
    let setting = Setting { variables: &[("SOFTRDMA_SMC_UPGRADE_AFTER", "4")], ..BOTH };
    let (run, most) = thread::scope(|scope| {
        let more = [("SOFTRDMA_SMC_MAX_RING_MEMORY", LIMIT)];
        let running = scope.spawn(move || run(&SCENARIOS.program, "many-connections", &setting, Some(&library), &more));
        let mut most = 0;
        while !running.is_finished() {
            most = most.max(short_of_memory(LIMIT));
            thread::sleep(Duration::from_millis(5));
        }
        (running.join().expect("a run does not panic"), most)
    });
    assert_eq!(run.transcript, SCENARIOS.plain["many-connections"], "{}", run.errors);
    // Counts are gone with their process, so the last ones may not be seen.
    assert!(most > 20, "only {most} connections have stayed TCP");
}

#[test]
fn a_connection_that_must_be_moved_fails_at_once_where_nobody_can() {
    let _turn = take_turn();
    let Some(library) = smc_library() else { return skip_library() };
    let setting = Setting { variables: &[("SOFTRDMA_SMC_ACTION", "require")], near: true, ..PLAIN };
    let program = &SCENARIOS.program;
    let started = Instant::now();
    let run = run(program, "epoll-level", &setting, Some(&library), &[]);
    let took = started.elapsed();
    assert!(run.transcript.contains("byte 0 of 1: ECONNABORTED"), "{}", run.transcript);
    assert!(run.transcript.contains("far| CANNOT GO ON: end of stream at byte 0"), "{}", run.transcript);
    assert!(took < Duration::from_secs(3), "it took {took:?}");
}

#[test]
fn what_is_not_served_is_a_scenario_with_a_reason() {
    for (name, reason) in not_served() {
        assert!(SCENARIOS.list.iter().any(|scenario| scenario.name == name), "{name}: no such scenario");
        assert!(reason.len() > 10, "{name}: a reason is needed");
    }
}

#[test]
fn deviations_are_of_scenarios_and_differ() {
    let scenarios = &*SCENARIOS;
    let Ok(entries) = fs::read_dir(tree::root().join(DIRECTORY).join("deviations")) else { return };
    for entry in entries {
        let path = entry.expect("an entry of a directory").path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let scenario = scenarios.list.iter().find(|scenario| scenario.name == name);
        let scenario = scenario.unwrap_or_else(|| panic!("{}: no such scenario", path.display()));
        assert_ne!(deviation(scenario).as_ref(), scenarios.plain.get(&name), "{name} does not differ: remove it");
    }
}
