//! iWARP as a host implements it: MPA (RFC 5044, 6581), DDP (RFC 5041) and RDMAP (RFC 5040, 7306), sans-IO.
//!
//! From the top down:
//!
//! - [`work`]: requests, completions, and what the halves tell each other.
//! - [`memory`]: the one callback through which memory is reached.
//! - [`negotiated`]: what the handshake settled.
//! - [`types`]: the numbers that travel.

#![forbid(unsafe_code)]

pub mod memory;
pub mod negotiated;
pub mod types;
pub mod work;

pub use negotiated::{Negotiated, Revision, Role, RtrKind, RtrKinds};
