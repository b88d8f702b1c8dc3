//! softrdma-smc: the tools of SMC under one name.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    softrdma_smc_tools::main()
}
