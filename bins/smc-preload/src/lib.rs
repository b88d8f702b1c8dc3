//! The library that `smc_run` loads into programs: it stands between them and the socket calls of libc, and moves the bytes of
//! connections that last into memory shared with the peer (`softrdma-smc` says how). The program's descriptor stays the kernel's
//! TCP socket.
//!
//! - `abi`: the calls themselves, and the ones behind them; the only unsafe code.
//! - `table`: which descriptor is which; `descriptor`: making, copying and closing them.
//! - `socket`: a connection and its states; `transfer`: sending and receiving; `wait`: what a call does that must wait.
//! - `readiness`, `epoll`, `poll`: which of many can be read or written.
//! - `upgrade`: how a connection gets its rings; `back`: how it becomes TCP again; `heritage`: what other programs
//!   get.
//!
//! Calls on descriptors that are no TCP sockets cost one look at a byte. Nothing here logs, and nothing on that way
//! allocates or locks.

#![deny(unsafe_code)]

mod abi;
mod back;
mod descriptor;
mod ending;
mod epoll;
mod fork;
mod heritage;
mod lock;
mod poll;
mod readiness;
mod shared_words;
mod show;
mod socket;
mod table;
mod transfer;
mod upgrade;
mod wait;
