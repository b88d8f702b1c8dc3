//! Results on standard output, for people and for pipes.

use std::fmt::Display;
use std::io::{ErrorKind, Write, stdout};
use std::process::exit;

/// Prints a line. A reader who has had enough ends the program quietly, as it ends every tool of a pipe; any other failure to
/// print ends it with a message.
pub fn line(text: impl Display) {
    let mut out = stdout().lock();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
        if error.kind() != ErrorKind::BrokenPipe {
            eprintln!("cannot print: {error}");
        }
        exit(1);
    }
}
