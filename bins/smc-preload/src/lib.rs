//! The library that `smc_run` loads into programs: it stands between them and the socket calls of libc, and moves the bytes of
//! connections that last into memory shared with the peer (`softrdma-smc` says how). The program's descriptor stays the kernel's
//! TCP socket.
//!
//! - `abi`: the calls themselves, and the ones behind them; the only unsafe code.
//! - `table`: which descriptor is which; `descriptor`: making, copying and closing them.
//! - `socket`: a connection and its states; `transfer`: sending and receiving; `wait`: what a call does that must wait.
//! - `readiness`, `epoll`, `poll`: which of many can be read or written.
//! - `upgrade`: how a connection gets its rings.
//! - `show`: what the tools see of all that; `course`: the state of a connection as they name it; `capture`: its bytes in
//!   a file.
//!
//! # What is seen of it
//!
//! A page of memory shows sockets, link groups and counters to the tools (`softrdma_smc::statistics`): nothing is written
//! there while bytes move but a connection's own counts and cursors. Each connection that is seen is, in the end, counted
//! once: as moved, or with the reason for which it stays TCP. A child of `fork` has a page of its own and leaves its counts
//! to its parent when it ends.
//!
//! # Where a call is forbidden
//!
//! A program may have locked itself in (seccomp). What it may not do, the library cannot: it then leaves connections to TCP,
//! where it makes the calls that the program makes. A filter that ends the process for a call which is not on its list can
//! end it for one of ours, once a connection is being moved: such a program gets a rule with `action = "tcp"`.
//!
//! Calls on descriptors that are no TCP sockets cost one look at a byte. Nothing here logs, and nothing on that way
//! allocates or locks.

#![deny(unsafe_code)]

mod abi;
mod capture;
mod course;
mod descriptor;
mod ending;
mod epoll;
mod fork;
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
