//! Byte streams for softrdma, from kernel sockets or from a TCP of our own over packet ports.
//!
//! From the top down:
//!
//! - [`stream`]: the face of a stream and of an engine that carries streams.
//! - [`port`]: the face of a packet port, which an engine may stand on.
//! - [`time`]: time as an argument.
//! - [`kernel`]: an engine over the kernel's TCP sockets.
//! - [`testing`]: an engine for tests, over a wire in memory, that does all that an engine may do.
//!
//! Everything here is sans-IO except the kernel-socket engine: no clock is read, no thread started.

#![forbid(unsafe_code)]

pub mod kernel;
pub mod port;
pub mod stream;
mod table;
pub mod testing;
pub mod time;
