//! Where `unsafe` may stand.

use super::Finding;
use super::code::{without_comments_and_literals, words};

/// The places that may say `unsafe`: a directory (with its slash), a file, or a path with one `*` for one component.
/// Everything that is unsafe about this project is read here.
pub const UNSAFE_PLACES: &[&str] = &[
    "dpdk-glue/sys/",
    "dpdk-glue/src/mbuf.rs",
    "dpdk-glue/src/port.rs",
    "verbs/src/memory.rs",
    "verbs/src/turn.rs",
    "smc/src/shared_memory.rs",
    "bins/*/src/abi.rs",
    "bins/smc-preload/src/abi/",
];

/// Every `unsafe` of a Rust file outside `places`.
pub fn unsafe_outside(places: &[&str], path: &str, source: &str) -> Vec<Finding> {
    if places.iter().any(|place| is_at(place, path)) {
        return Vec::new();
    }
    let code = without_comments_and_literals(source);
    words(&code)
        .filter(|(_, word)| *word == "unsafe")
        .map(|(at, _)| {
            let line = 1 + code[..at].matches('\n').count();
            Finding::new(path, line, format!("unsafe outside {}: move it there or do without", places.join(", ")))
        })
        .collect()
}

/// A crate root (`lib.rs`, `main.rs`) of a package without unsafe places that does not forbid unsafe code, or one of a
/// package with such places that does not at least deny it elsewhere. Generated bindings are exempt.
pub fn root_without_ban(places: &[&str], path: &str, source: &str) -> Option<Finding> {
    let package = path.strip_suffix("src/lib.rs").or_else(|| path.strip_suffix("src/main.rs"))?;
    if places.contains(&package) {
        return None;
    }
    let code = without_comments_and_literals(source);
    let has = |ban: &str| code.contains(&format!("#![{ban}(unsafe_code)]"));
    let has_places = places.iter().any(|place| shares_package(place, package));
    match (has("forbid"), has("deny"), has_places) {
        (true, _, _) | (_, true, true) => None,
        (_, _, true) => {
            Some(Finding::new(path, 1, "add #![deny(unsafe_code)] and allow it on the listed modules only"))
        }
        (_, _, false) => Some(Finding::new(path, 1, "add #![forbid(unsafe_code)]")),
    }
}

/// Whether `path` is the file, lies in the directory, or matches the pattern `place`. The tests beside a file
/// (`memory/tests.rs` of `memory.rs`) belong to it.
fn is_at(place: &str, path: &str) -> bool {
    if place.ends_with('/') {
        return path.starts_with(place);
    }
    let file = place.strip_suffix(".rs").and_then(|stem| {
        let beside = path.strip_suffix("/tests.rs")?;
        matches_pattern(stem, beside).then_some(())
    });
    file.is_some() || matches_pattern(place, path)
}

fn matches_pattern(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
    pattern.len() == path.len() && pattern.iter().zip(&path).all(|(one, other)| *one == "*" || one == other)
}

/// Whether the package in directory `package` (with its slash) has the unsafe place `place`.
fn shares_package(place: &str, package: &str) -> bool {
    let (place, _) = place.split_once("src/").unwrap_or((place, ""));
    !place.is_empty() && matches_pattern(place, package)
}
