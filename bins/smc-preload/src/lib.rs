//! The library that `smc_run` loads into programs: it stands between them and the socket calls of libc, and moves the bytes of
//! connections that last into memory shared with the peer (`softrdma-smc` says how). The program's descriptor stays the kernel's
//! TCP socket.
//!
//! - `abi`: the calls themselves, and the ones behind them; the only unsafe code.
//! - `table`: which descriptor is which; `descriptor`: making, copying and closing them.
//! - `socket`: a connection and its states; `transfer`: sending and receiving; `wait`: what a call does that must wait,
//!   `spin`: what it does first.
//! - `readiness`, `epoll`, `poll`: which of many can be read or written.
//! - `upgrade`: how a connection gets its rings; `back`: how it becomes TCP again; `heritage`: what other programs get.
//! - `show`: what the tools see of all that; `course`: the state of a connection as they name it; `capture`: its bytes in
//!   a file.
//!
//! # What is seen of it
//!
//! A page of memory shows sockets, link groups and counters to the tools (`softrdma_smc::statistics`): nothing is written
//! there while bytes move but a connection's own counts and cursors. Each connection that is seen is, in the end, counted
//! once: as moved, or with the reason for which it stays TCP. One that was moved and has become TCP again is shown as TCP, with the
//! reason for that, and stays counted as moved. A child of `fork` has a page of its own and leaves its counts
//! to its parent when it ends.
//!
//! # Where a call is forbidden
//!
//! A program may have locked itself in (seccomp). What it may not do, the library cannot: it then leaves connections to TCP,
//! where it makes the calls that the program makes. A filter that ends the process for a call which is not on its list can
//! end it for one of ours, once a connection is being moved: such a program gets a rule with `action = "tcp"`.
//!
//! # Who is told of what
//!
//! What a peer has to say comes as a doorbell, one byte over TCP, or as the end of TCP. Each is heard once, by whoever looks first,
//! so three rules hold:
//!
//! - A doorbell stays in the stream until all threads have woken that slept because of the connection; the last one takes it. An
//!   epoll instance sees an edge only: those who sleep in another instance than the one that took the doorbell are woken.
//! - Whoever hears of the end of TCP tells all who watch. If bytes that the program has not read lie before it, what the kernel
//!   said of it (POLLRDHUP, POLLHUP, POLLERR) is remembered, and TCP is looked at again behind the last of them.
//! - The end of TCP is the peer's death only if the peer no longer sends there. If it still did, a doorbell finds out: who is gone
//!   answers with a reset.
//!
//! All doorbells are counted, by who rings and by who takes, so that what follows the last of them is never taken for one
//! (`softrdma_smc::back`). A peer that wants TCP again rings, too, and calls the process itself, whose threads may all be elsewhere.
//!
//! A peer that has died is found by these rules alone: nothing is asked of anybody now and then, but by a thread that waits for room
//! behind bytes that nobody reads, 50 times a second.
//!
//! # What ends the program
//!
//! A panic, and with it the program: a library that does not know any more what a stream carries must not go on, and programs
//! in C cannot be unwound. No peer can bring one about: what it writes is checked where it is read, and what cannot be ends that
//! connection alone. Cancelled threads do unwind through here (so the calls are of the C-unwind kind), and leave nothing locked.
//!
//! # What must be moved
//!
//! A connection whose policy is `require` fails with ECONNABORTED, instead of going over TCP: at once if the end that connects finds
//! no listener with the library there, or the other end is on another host; and after six seconds if this end has
//! accepted, as nobody can know whether the other one is still coming. It works where both ends require it. Once such a connection
//! has become TCP again, its calls fail likewise.
//!
//! Calls on descriptors that are no TCP sockets cost one look at a byte. Nothing here logs, and nothing on that way
//! allocates or locks.

#![deny(unsafe_code)]

mod abi;
mod back;
mod capture;
mod course;
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
mod spin;
mod table;
mod transfer;
mod upgrade;
mod wait;
