//! Shared memory communications (RFC 7609, and SMC-D as Linux has it): TCP connections of unmodified programs whose bytes
//! go through memory that both processes have mapped.
//!
//! # How a connection gets fast
//!
//! A connection begins as what it is, a TCP connection of the kernel, and works from its first byte. Nothing is negotiated in its
//! stream, ever: a peer without SMC never sees a byte of ours, and a short connection costs what TCP costs. Once a
//! connection has proven to last (some tens of transfers, a setting), its two ends look for each other beside it:
//!
//! 1. A process that listens says so with a datagram socket of an abstract name made of its user and the port
//!    ([`names::listener`]). The end that connected looks whether there is one; without, it stays TCP.
//! 2. It then binds a name made of the connection's four-tuple ([`names::connection`]) and waits. The end that accepted
//!    connects to that name, seldom enough (after 2, 4, 8, ... times the transfers) that trying in vain costs nothing. The kernel's
//!    namespace is the directory: one network namespace, gone with the process, no file, nothing to clean up. Both check the
//!    other's user id.
//! 3. Over that unix socket go the CLC messages as they are on the wire ([`wire::clc`]): proposal, accept, confirm, or a
//!    decline with its reason; and, at the first contact of two processes, the arena ([`arena`]): one sealed memfd for all
//!    connections that one of them accepts from the other. The decision is made once.
//! 4. Each end may now move its sending into the ring: it writes down how many bytes it has sent over TCP (the switch), and
//!    from that byte on uses the ring. The reader takes from TCP up to the switch, then from the ring. What TCP carries
//!    behind the switch are doorbells, single bytes that wake a sleeping reader and are thrown away.
//!
//! 5. What only TCP can do, it does: before another program or another process gets a connection, and for urgent data and a few
//!    options, it becomes TCP again ([`back`]). A byte of TCP that is no doorbell, the mark, says where the program's bytes go
//!    on; those in the ring that nobody has read are sent once more by the peer, who is told of it at a name of its own.
//!
//! Rings are sparse: memory of one that was filled, and has been empty and unused for a while, goes back to the system. Its sender does
//! that, to whom everything in an empty ring belongs, with its own lock held ([`ring::Rings::give_back`]); unless the connection is
//! on its way back to TCP, when the reader may write there.
//!
//! So there is no moment at which a connection waits for a decision, no state that must be undone when there is none, and
//! nothing that a process without this library could get to see.
//!
//! # What is where
//!
//! - [`wire`]: TCP option, CLC and CDC messages; pure.
//! - [`connection`]: the states of a connection (RFC 7609 §4.8), one table; [`capture`]: a connection as tshark can read it.
//! - [`shared_memory`]: mapping and copying, the only unsafe file.
//! - [`ring`]: how far a ring is filled and emptied, whatever the peer writes into it.
//! - [`arena`]: the rings of all connections between two processes, and who waits for which.
//! - [`back`]: how a connection becomes TCP again, for what only TCP can do.
//! - [`exchange`]: how two processes agree on a connection; [`names`]: where they meet; [`descriptors`]: which are the
//!   library's own.
//! - [`policy`]: which connections may; [`statistics`]: what the tools show.

#![deny(unsafe_code)]

pub mod arena;
pub mod back;
pub mod capture;
pub mod connection;
pub mod descriptors;
pub mod exchange;
pub mod names;
pub mod policy;
pub mod ring;
pub mod shared_memory;
pub mod statistics;
pub mod wire;
