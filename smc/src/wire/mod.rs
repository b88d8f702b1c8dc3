//! What travels: the TCP option, CLC and CDC messages (RFC 7609 Appendix A), and their forms for SMC-D, which are Linux's.
//!
//! No input or output of its own: bytes come in as slices and go out into the caller's memory. What is read is another
//! process's word: every length, offset and count is checked before it is used, and what has been parsed needs no second
//! check. Reserved fields are zero on transmit and not looked at on receive (RFC 7609 §A.2).

#![forbid(unsafe_code)]

pub mod cdc;
pub mod clc;
mod numbers;
pub mod tcp_option;

pub use numbers::{
    AlertToken, BufferSize, DmbToken, ElementIndex, Gid, LinkId, Mac, Mtu, PeerId, Psn, Qpn, Rkey, RmbAddress, RoceGid,
};
