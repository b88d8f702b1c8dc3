//! What the binaries share: sizes on the command line, the options that make a device, logging, directories of a running
//! process, and the socket on which it shows its counters.

#![forbid(unsafe_code)]

pub mod device;
pub mod directory;
pub mod logging;
pub mod output;
pub mod size;
pub mod statistics_page;
pub mod statistics_socket;
