//! Lengths that may only shrink.
//!
//! Files have at most [`FILE_LINES`] and functions at most [`FUNCTION_LINES`] lines. What is longer stands, with its
//! length, in a list that is checked in: a new entry is a decision that a reviewer sees, and an entry whose subject
//! shrank must follow it down.

use super::Finding;
use super::code::{functions, without_comments_and_literals};
use std::collections::BTreeMap;

/// Lines that a source file may have without an entry in the list.
pub const FILE_LINES: usize = 800;
/// Lines that a function may have, from its `fn` to its closing brace, without an entry in the list.
pub const FUNCTION_LINES: usize = 70;

/// Lengths by subject: `PATH` for a file, `PATH::NAME` for a function. Functions of one name in one file share an
/// entry: the longest counts.
pub type Lengths = BTreeMap<String, usize>;

/// Adds what is too long in `source` to `lengths`.
pub fn measure(path: &str, source: &str, lengths: &mut Lengths) {
    let lines = source.lines().count();
    if lines > FILE_LINES {
        lengths.insert(path.to_owned(), lines);
    }
    if !path.ends_with(".rs") {
        return;
    }
    for function in functions(&without_comments_and_literals(source)) {
        if function.lines > FUNCTION_LINES {
            let longest = lengths.entry(format!("{path}::{}", function.name)).or_default();
            *longest = function.lines.max(*longest);
        }
    }
}

/// Reads a list: one `LINES SUBJECT` a line; `#` starts a comment.
pub fn parse(path: &str, list: &str) -> Result<Lengths, Finding> {
    let mut lengths = Lengths::new();
    for (index, line) in list.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let entry = line.split_once(' ').and_then(|(lines, subject)| Some((subject.trim(), lines.parse().ok()?)));
        let Some((subject, lines)) = entry else {
            return Err(Finding::new(path, index + 1, format!("'{line}' is not 'LINES SUBJECT'")));
        };
        if lengths.insert(subject.to_owned(), lines).is_some() {
            return Err(Finding::new(path, index + 1, format!("{subject} stands here twice")));
        }
    }
    Ok(lengths)
}

/// Where `measured` is not what the list at `path` says.
pub fn compare(path: &str, listed: &Lengths, measured: &Lengths) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (subject, &lines) in measured {
        let limit = if subject.contains("::") { FUNCTION_LINES } else { FILE_LINES };
        match listed.get(subject) {
            None => findings.push(Finding::new(subject, 0, format!("{lines} lines, at most {limit}: split it"))),
            Some(&allowed) if lines > allowed => {
                findings.push(Finding::new(subject, 0, format!("grew from {allowed} to {lines} lines: split it")));
            }
            Some(&allowed) if lines < allowed => {
                findings.push(Finding::new(path, 0, format!("{subject} shrank: lower {allowed} to {lines}")));
            }
            Some(_) => {}
        }
    }
    for subject in listed.keys().filter(|subject| !measured.contains_key(*subject)) {
        findings.push(Finding::new(path, 0, format!("{subject} is short enough or gone: remove its entry")));
    }
    findings
}
