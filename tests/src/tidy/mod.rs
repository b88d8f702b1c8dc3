//! The rules that the tree keeps about itself.
//!
//! Every rule is a function from text to [`Finding`]s, so that each is tested on text that breaks it; `tests/tidy.rs`
//! runs them all over the tree.
//!
//! - [`code`]: Rust source with comments and literals blanked out, and the functions in it.
//! - [`text`]: rules on any file: left-over markers, paths of one machine, package hosts, names at the top level.
//! - [`safety`]: where `unsafe` may stand.
//! - [`length`]: files and functions that may only shrink.
//! - [`manifest`]: which of our packages may depend on which.
//! - [`tree`]: the files of the repository.

pub mod code;
pub mod length;
pub mod manifest;
pub mod safety;
pub mod text;
pub mod tree;

use std::fmt;

/// One broken rule: where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Path from the top of the repository.
    pub path: String,
    /// Line, counted from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong and the way out.
    pub message: String,
}

impl Finding {
    /// A finding at `line` (from 1; 0: the file as a whole) of `path`.
    pub fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Finding { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

#[cfg(test)]
mod tests;
