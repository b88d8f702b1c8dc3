//! softrdma: the operator's command line.

#![forbid(unsafe_code)]

fn main() {}
