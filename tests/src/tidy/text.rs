//! Rules on the text of any file, and on the names at the top level.

use super::Finding;

/// What unfinished work leaves behind. Written in two halves so that this file does not hold them.
const MARKERS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("HA", "CK"),
    concat!("to", "do!("),
    concat!("unimpl", "emented!("),
    concat!("db", "g!("),
    concat!("#[ig", "nore"),
];

/// Beginnings of paths that exist on one machine only.
const MACHINE_PATHS: &[&str] =
    &[concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];

/// Hosts that packages come from: whichever the machine is set up with is the right one.
const PACKAGE_HOSTS: &[&str] = &[
    concat!("index.crates", ".io"),
    concat!("static.crates", ".io"),
    concat!("deb.debian", ".org"),
    concat!("pypi", ".org"),
    concat!("artifact", "ory"),
];

/// The one source that a locked package may have.
const LOCKED_SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What may stand at the top of the repository beside dotfiles, licences and the lock file.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "README.md",
    "Makefile",
    "stack",
    "verbs",
    "mpa-ddp-rdmap",
    "dpdk-glue",
    "smc",
    "bins",
    "tests",
    "bench",
    "configs",
];

/// Left-over markers, machine paths and package hosts in a file.
pub fn left_overs(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut look_for = |needles: &[&str], what: &str| {
            for needle in needles.iter().filter(|needle| stands_alone(line, needle)) {
                findings.push(Finding::new(path, index + 1, format!("{what} {needle}")));
            }
        };
        look_for(MARKERS, "left-over marker");
        look_for(MACHINE_PATHS, "path of one machine");
        look_for(PACKAGE_HOSTS, "package host");
    }
    findings
}

/// Whether `needle` occurs in `line` other than inside a longer word (`MAXXX`, `mktemp /tmp/x.XXXXXX`).
fn stands_alone(line: &str, needle: &str) -> bool {
    let is_word = |character: Option<char>| character.is_some_and(|character| character.is_alphanumeric());
    line.match_indices(needle).any(|(at, _)| {
        let (first, last) = (needle.chars().next(), needle.chars().next_back());
        let before = line[..at].chars().next_back();
        let after = line[at + needle.len()..].chars().next();
        let in_a_word = is_word(before) && is_word(first) || is_word(after) && is_word(last);
        !in_a_word
    })
}

/// Locked packages that do not come from the public registry or the workspace.
pub fn foreign_sources(path: &str, lock: &str) -> Vec<Finding> {
    lock.lines()
        .enumerate()
        .filter_map(|(index, line)| Some((index, line.strip_prefix("source = ")?.trim_matches('"'))))
        .filter(|(_, source)| *source != LOCKED_SOURCE)
        .map(|(index, source)| {
            Finding::new(path, index + 1, format!("package from {source}, not from the public registry"))
        })
        .collect()
}

/// An entry at the top of the repository that does not belong there.
pub fn stray_entry(path: &str) -> Option<Finding> {
    let name = path.split('/').next().unwrap_or(path);
    let belongs =
        name.starts_with('.') || name.starts_with("LICENSE-") || name == "Cargo.lock" || TOP_LEVEL.contains(&name);
    (!belongs)
        .then(|| Finding::new(path, 0, format!("{name} is not one of the top-level entries: {}", TOP_LEVEL.join(" "))))
}
