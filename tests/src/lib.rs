//! What the end-to-end tests of softrdma share. Nothing depends on this package.
//!
//! - [`differential`]: the same applications over our TCP and over the kernel's.
//! - [`program`]: the built programs, run as a user would run them.
//! - [`network`]: network namespaces.
//! - [`simulation`]: two hosts on a virtual clock, over a bad wire, by seed.
//! - [`tidy`]: the rules that the tree itself keeps, as functions from text to findings.
//! - [`wire`]: a wire between two TAP interfaces, with a rate, a delay and troubles by seed.
//! - [`skip`]: how a test says that it cannot run on this machine.

#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::Write;

pub mod differential;
pub mod network;
pub mod program;
pub mod simulation;
pub mod tidy;
pub mod wire;

/// Says that `what` cannot run here and `why`, past the test harness's capture of output, so that a reader of a passing
/// run sees it. Under `make test` the line is also added to the file that `SOFTRDMA_SKIPPED` names, which the end of the
/// run prints.
pub fn skip(what: &str, why: &str) {
    let line = format!("{what}: {why}\n");
    // Neither a closed standard error nor an unwritable list makes the skipped test fail.
    let _ = std::io::stderr().write_all(format!("skipped: {line}").as_bytes());
    if let Some(list) = std::env::var_os("SOFTRDMA_SKIPPED")
        && let Ok(mut list) = OpenOptions::new().append(true).open(list)
    {
        let _ = list.write_all(line.as_bytes());
    }
}
