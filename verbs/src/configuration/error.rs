//! Errors of configurations, and finding their line and key.

use std::fmt;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::accepted::{self, Problem};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{file}: cannot be read: {source}")]
    Unreadable {
        /// The file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is not TOML.
    #[error("{place}: not TOML: {message}")]
    Syntax {
        /// Where.
        place: Place,
        /// What the parser said.
        message: String,
    },
    /// A key is unknown, or its value has the wrong type.
    #[error("{place}: {key}: {message}")]
    Type {
        /// Where.
        place: Place,
        /// The key, dotted.
        key: String,
        /// What is wrong and what is accepted.
        message: String,
    },
    /// A value has the right type but is not accepted.
    #[error("{place}: {key}: {value} is not accepted; accepted: {accepted}")]
    Value {
        /// Where.
        place: Place,
        /// The key, dotted.
        key: String,
        /// What is there.
        value: String,
        /// What could be there.
        accepted: String,
    },
}

/// A line of a file; or of no file, for a configuration made in a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's name; empty if there is none.
    pub file: String,
    /// Line, counted from 1; 0 if the key is not in the file.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.as_str(), self.line) {
            ("", _) => write!(formatter, "configuration"),
            (file, 0) => write!(formatter, "{file}"),
            (file, line) => write!(formatter, "{file}:{line}"),
        }
    }
}

/// An error of the parser, with its line, its key and what is accepted.
pub(super) fn from_toml(error: &toml::de::Error, text: &str, file: &str) -> ConfigError {
    let span = error.span().unwrap_or(0..0);
    let place = Place { file: file.to_owned(), line: line_at(text, span.start) };
    let message = error.message().trim().replace('\n', "; ");
    let Ok(table) = DeTable::parse(text) else {
        return ConfigError::Syntax { place, message };
    };
    let key = key_at(table.get_ref(), &span).unwrap_or_else(|| "(top level)".to_owned());
    let message = match accepted::range_of(&key) {
        Some(range) => format!("{message}; accepted: {range}"),
        // The parser's own two ways of listing what it knows.
        None => message.replacen(", expected", "; accepted:", 1).replacen("accepted: one of", "accepted:", 1).replacen(
            ", available keys:",
            "; accepted:",
            1,
        ),
    };
    ConfigError::Type { place, key, message }
}

/// `problem`, with the line of its key or of the table that it is missing from.
pub(super) fn locate(problem: Problem, text: &str, file: &str) -> ConfigError {
    let line = DeTable::parse(text)
        .ok()
        .and_then(|table| span_of(table.get_ref(), problem.key))
        .map_or(0, |span| line_at(text, span.start));
    value_error(problem, Place { file: file.to_owned(), line })
}

/// `problem` of a configuration that came from no file.
pub(super) fn unplaced(problem: Problem) -> ConfigError {
    value_error(problem, Place { file: String::new(), line: 0 })
}

fn value_error(problem: Problem, place: Place) -> ConfigError {
    ConfigError::Value { place, key: problem.key.to_owned(), value: problem.value, accepted: problem.accepted }
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}

/// The dotted name of the innermost key whose name or value covers `span`.
fn key_at(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let covers = |outer: &Range<usize>| outer.start <= span.start && span.end <= outer.end;
        let inner = match value.get_ref() {
            DeValue::Table(inner) => key_at(inner, span),
            _ => None,
        };
        let name: &str = key.get_ref();
        match inner {
            Some(inner) => Some(format!("{name}.{inner}")),
            None => (covers(&key.span()) || covers(&value.span())).then(|| name.to_owned()),
        }
    })
}

/// Where the dotted `key` is, or the innermost table of it that is there.
fn span_of(table: &DeTable<'_>, key: &str) -> Option<Range<usize>> {
    let (first, rest) = key.split_once('.').unwrap_or((key, ""));
    let (name, value) = table.iter().find(|(name, _)| name.get_ref().as_ref() == first)?;
    match value.get_ref() {
        DeValue::Table(inner) if !rest.is_empty() => span_of(inner, rest).or(Some(name.span())),
        _ => Some(name.span()),
    }
}
