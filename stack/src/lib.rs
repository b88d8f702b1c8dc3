//! Byte streams for softrdma, from kernel sockets or from a TCP of our own over packet ports.
//!
//! From the top down:
//!
//! - [`stream`]: the face of a stream and of an engine that carries streams.
//! - [`kernel`]: an engine over the kernel's TCP sockets.
//! - [`sequential`]: an engine that is smoltcp over a packet port.
//! - [`softrdma`]: an engine of our own over a packet port: one copy, from the packet into memory.
//! - [`port`]: the face of a packet port, which an engine may stand on.
//! - [`memory_port`]: a port in memory that loses, repeats, reorders, corrupts and delays by seed.
//! - [`mailbox`]: messages from one thread to another, for engines whose halves have a thread each.
//! - [`pcap`]: captures of what an engine receives and sends.
//! - [`testing`]: an engine for tests, over a wire in memory, that does all that an engine may do.
//! - [`time`]: time as an argument.
//!
//! Everything here is sans-IO except the kernel-socket engine: no clock is read, no thread started.

#![forbid(unsafe_code)]

pub mod kernel;
pub mod mailbox;
pub mod memory_port;
pub mod pcap;
pub mod port;
pub mod sequential;
pub mod softrdma;
pub mod stream;
mod table;
pub mod testing;
pub mod time;
