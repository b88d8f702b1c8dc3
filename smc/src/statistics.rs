//! What the tools show: a page of memory by which each process with the library says what it does.
//!
//! The page is a sealed memfd named [`NAME`]. The process that has it writes words into it and never looks at them
//! again to decide anything; whoever may look at the process's descriptors (the same user, or root) finds it through
//! `/proc/PID/fd` and maps it read-only. There is no file, no socket, no thread, and nothing to configure; with the
//! process the page is gone.
//!
//! # Writing
//!
//! [`Page::create`] allocates; afterwards nothing does, and nothing waits for anybody:
//!
//! - What one connection does ([`Entry::sent`], [`Entry::received`], ...) is a load and a store in its own two cache
//!   lines. Whoever may send on a connection is the only one who counts what it sends, and the same of receiving.
//! - When an entry is closed its counts are added to those of the page, so that totals outlive connections.
//! - What is rare ([`Counters`]) is an atomic addition.
//!
//! What belongs together (who a socket is, what it was joined to) is written inside a sequence lock, which readers
//! watch and writers never wait for. What stands in a word of its own is just stored.
//!
//! A child of `fork` has its parent's page mapped. It calls [`Page::renew_in_child`] before anything else: from then
//! on it writes a page of its own, in which the entries it has inherited stand under the same handles, with counts
//! from zero. What it inherits was copied before the fork ([`Page::inheritance`]): a server that has a process for each
//! connection closes its own end of it while the child begins. A child that ends leaves its counts to its parent
//! ([`Page::end`]); one that is killed, or executes another program, takes them with it.
//!
//! # Reading
//!
//! [`processes()`] maps what it finds. A page is another process's: nothing in it is believed but its magic, version
//! and size, which must be ours; there are no offsets or lengths to follow, counts are clamped, text is cleaned of
//! control characters.

mod ends;
mod entry;
mod inheritance;
mod layout;
mod lookup;
mod page;
mod processes;
mod sequence;
mod slots;
mod snapshot;
mod vocabulary;

pub use ends::join_ends;
pub use entry::{ArenaDescription, ArenaEntry, Entry, Link, SocketDescription};
pub use inheritance::Inheritance;
pub use layout::{ARENAS, ENTRIES, FALLBACKS, SIZE_CLASSES};
pub use page::{Counters, Page};
pub use processes::{Process, ProcessError, process, processes};
pub use snapshot::{Arena, CounterValues, Cursors, Fallback, ReadError, Snapshot, Socket, Traffic};
pub use vocabulary::{Counter, Flags, Mode, Reasons, Role, Shutdown, State};

/// The page's name: what the link of its descriptor in /proc/PID/fd shows behind `/memfd:`.
pub const NAME: &str = "softrdma-smc";

#[cfg(test)]
mod tests;
