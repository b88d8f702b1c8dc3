//! The processes with which there are arenas.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::arena::Arena;
use crate::wire::Gid;

/// A process: what it calls itself, and what the kernel calls it. So no process can take the name of another, and one that
/// follows another under its number has another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Process {
    pub(super) gid: Gid,
    pub(super) number: i32,
}

/// An arena with a process, and the id of the channel that hangs up when it is over.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) arena: Arc<Arena>,
    pub(super) channel: u64,
}

/// How far it is with a process whose connections are accepted.
#[derive(Debug)]
enum Contact {
    /// One exchange brings it the arena; these wait for what comes of it.
    First { waiting: VecDeque<u64> },
    /// It has the arena.
    Made(Pair),
}

/// What to do about a connection of a process.
#[derive(Debug)]
pub(super) enum Admission {
    /// It has this arena.
    Arena(Arc<Arena>),
    /// It has none: this exchange brings it.
    FirstContact,
    /// Another exchange does.
    Wait,
    /// There are too many processes.
    Full,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Peers {
    limit: usize,
    /// Whose connections this process accepts, in arenas that it has made.
    accepted: HashMap<Process, Contact>,
    /// Which accept this process's connections, in arenas of theirs.
    attached: HashMap<Process, Pair>,
}

impl Peers {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, accepted: HashMap::new(), attached: HashMap::new() }
    }

    /// How exchange `id` of `process` is to go on.
    pub(super) fn admit(&mut self, process: Process, id: u64) -> Admission {
        let is_full = self.is_full();
        match self.accepted.get_mut(&process) {
            Some(Contact::Made(pair)) => Admission::Arena(Arc::clone(&pair.arena)),
            Some(Contact::First { waiting }) => {
                waiting.push_back(id);
                Admission::Wait
            }
            None if is_full => Admission::Full,
            None => {
                self.accepted.insert(process, Contact::First { waiting: VecDeque::new() });
                Admission::FirstContact
            }
        }
    }

    /// The first contact with `process` has led to `pair`, or to nothing. The exchanges that have waited for that.
    pub(super) fn settle(&mut self, process: Process, pair: Option<Pair>) -> VecDeque<u64> {
        let before = match pair {
            Some(pair) => self.accepted.insert(process, Contact::Made(pair)),
            None => self.accepted.remove(&process),
        };
        match before {
            Some(Contact::First { waiting }) => waiting,
            Some(Contact::Made(_)) | None => VecDeque::new(),
        }
    }

    /// The arena that `process` has given this one.
    pub(super) fn attached(&self, process: Process) -> Option<&Pair> {
        self.attached.get(&process)
    }

    /// Whether there may be an arena of another process.
    pub(super) fn is_full(&self) -> bool {
        self.accepted.len() + self.attached.len() >= self.limit
    }

    /// `process` has given this one an arena.
    pub(super) fn attach(&mut self, process: Process, pair: Pair) {
        self.attached.insert(process, pair);
    }

    /// The channel with this id has hung up.
    pub(super) fn forget(&mut self, process: Process, channel: u64) {
        if matches!(self.accepted.get(&process), Some(Contact::Made(pair)) if pair.channel == channel) {
            self.accepted.remove(&process);
        }
        if self.attached.get(&process).is_some_and(|pair| pair.channel == channel) {
            self.attached.remove(&process);
        }
    }
}
