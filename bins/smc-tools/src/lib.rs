//! The tools that users of SMC know, for connections that the preload library has moved into shared memory: one
//! program with many names.
//!
//! - `smcss` lists sockets, `smcd` and `smcr` link groups, devices and counters: read from the pages that running
//!   processes show ([`softrdma_smc::statistics`]), never made up.
//! - `smc_run` starts a program with the library ([`launch`], which `softrdma run --smc` shares); `executable` knows
//!   the programs that cannot have it.
//! - `smc_chk` says what works here, and whether a listener has SMC.

#![forbid(unsafe_code)]

mod baseline;
mod check;
mod executable;
mod install;
pub mod launch;
mod library;
mod observe;
mod smcd;
mod smcr;
mod smcss;
mod statistics;
mod tool;
mod totals;

use std::process::ExitCode;

/// Acts as the tool by whose name the program was called, or that its first argument names.
pub fn main() -> ExitCode {
    tool::main(std::env::args_os())
}
