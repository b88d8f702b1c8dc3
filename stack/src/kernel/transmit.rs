//! From sources to sockets.

use rustix::io::Errno;

use super::buffer::Stage;
use super::config::LARGEST_RECORD;
use super::connection::{Connection, Phase, Sending};
use super::{KernelEngine, Turn, socket};
use crate::stream::{Source, StreamEvent, Transmitted};
use crate::table::Name;

/// What writing a stage came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    All,
    Partly,
    Failed,
}

impl KernelEngine {
    /// Gathers records of `source`; writes when the stage is full.
    pub(super) fn take_records(&mut self, name: Name, source: &mut dyn Source) -> Transmitted {
        let Some(connection) = self.connections.get_mut(name) else { return Transmitted::Gone };
        if connection.sending != Sending::Open || connection.failure.is_some() {
            return Transmitted::Gone;
        }
        if connection.is_blocked || connection.phase != Phase::Open {
            connection.is_writable_owed = true;
            return Transmitted::Blocked;
        }
        let stage = match connection.stage.take() {
            Some(stage) => stage,
            None => self.new_stage(),
        };
        let Some(connection) = self.connections.get_mut(name) else { return Transmitted::Gone };
        connection.stage = Some(stage);
        let (transmitted, bytes) = gather(connection, source, self.config.transmit_budget_bytes);
        self.statistics.transmitted_bytes += bytes;
        let has_failed = connection.failure.is_some();
        let is_dirty = !connection.is_blocked && connection.stage.as_ref().is_some_and(|stage| !stage.is_empty());
        if is_dirty && !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(name);
        }
        if transmitted == Transmitted::Blocked && !connection.is_blocked {
            // The budget is used up, not the room: the next poll says so.
            self.enqueue(name);
        }
        if has_failed {
            self.enqueue(name);
        }
        self.after_writing(name);
        transmitted
    }

    /// Writes what the transmissions of a burst have gathered.
    pub(super) fn write_dirty(&mut self) {
        while let Some(name) = self.dirty.pop() {
            let Some(connection) = self.connections.get_mut(name) else { continue };
            connection.is_dirty = false;
            let written = write(connection);
            if written == Written::Failed {
                self.enqueue(name);
            }
            self.after_writing(name);
        }
    }

    /// The socket takes more, or is broken.
    pub(super) fn handle_room(&mut self, turn: &mut Turn<'_>, name: Name) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        match write(connection) {
            Written::Partly => {}
            Written::All => {
                // The path may have changed since the stream began, and the first estimate is low.
                connection.segment_size = socket::segment_size(&connection.socket);
                if std::mem::take(&mut connection.is_writable_owed) && connection.sending == Sending::Open {
                    turn.report(StreamEvent::Writable { stream: name.into() });
                }
            }
            Written::Failed => self.enqueue(name),
        }
        self.after_writing(name);
        self.settle(turn, name);
    }

    /// Gives an empty stage back, ends our direction when that was waited for, watches for room when there is none.
    pub(super) fn after_writing(&mut self, name: Name) {
        let ring_bytes = self.rings.size();
        let Some(connection) = self.connections.get_mut(name) else { return };
        if let Some(stage) = connection.stage.take_if(|stage| stage.is_empty()) {
            self.stages.give(stage.into_bytes());
        }
        match &connection.stage {
            None if connection.sending == Sending::Draining => self.shut(name),
            Some(stage) if stage.is_lent() && connection.is_blocked && !connection.is_stage_holder => {
                connection.is_stage_holder = true;
                let connections = &mut self.connections;
                let holds = |holder: &Name| connections.get_mut(*holder).is_some_and(Connection::renew_stage_hold);
                self.stages.handle_kept(name, holds);
            }
            _ => {}
        }
        let Some(connection) = self.connections.get(name) else { return };
        let wanted = connection.wanted_interest(ring_bytes);
        if connection.interest != Some(wanted) {
            self.watch(name, wanted);
        }
    }

    fn new_stage(&mut self) -> Stage {
        while self.stages.is_exhausted() {
            // Stages that wait for their flush are in nobody's list; after the flush they are free again.
            let Some(holder) = self.stages.oldest_holder() else { break };
            let Some(connection) = self.connections.get_mut(holder) else { continue };
            connection.is_stage_holder = false;
            if let Some(stage) = connection.stage.take_if(|stage| stage.is_lent()) {
                connection.stage = Some(stage.shrunk());
                self.stages.give(stage.into_bytes());
            }
        }
        Stage::new(self.stages.take())
    }
}

/// Moves records into the stage of `connection`, at most `budget` bytes and one stage; also tells how many bytes.
fn gather(connection: &mut Connection, source: &mut dyn Source, budget: usize) -> (Transmitted, u64) {
    let mut taken = 0;
    loop {
        let Some(stage) = &mut connection.stage else { return (Transmitted::Gone, taken) };
        if stage.room() < LARGEST_RECORD {
            match write(connection) {
                Written::All => {}
                Written::Partly => {
                    connection.is_writable_owed = true;
                    return (Transmitted::Blocked, taken);
                }
                Written::Failed => return (Transmitted::Gone, taken),
            }
            if taken >= budget as u64 {
                connection.is_writable_owed = true;
                return (Transmitted::Blocked, taken);
            }
            continue;
        }
        let Some(record) = source.next(stage.room().min(LARGEST_RECORD)) else {
            return (Transmitted::Drained, taken);
        };
        source.write(record.start, stage.append(record.length as usize));
        // The engine has copied the bytes and answers for them from here on.
        source.handle_acknowledged(record.end());
        taken += u64::from(record.length);
    }
}

/// Writes the stage of `connection`, as far as the socket takes it.
fn write(connection: &mut Connection) -> Written {
    let Some(stage) = &mut connection.stage else { return Written::All };
    while !stage.is_empty() {
        match socket::write(&connection.socket, stage.waiting()) {
            // A write that takes a part means that there is no more room: asking again would only say so.
            Ok(count) => {
                let is_all = count == stage.waiting().len();
                stage.advance(count);
                connection.is_blocked = !is_all;
                return if is_all { Written::All } else { Written::Partly };
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                connection.is_blocked = true;
                return Written::Partly;
            }
            Err(errno) => {
                connection.failure = Some(socket::reset_reason(errno));
                connection.is_blocked = false;
                stage.advance(stage.waiting().len());
                return Written::Failed;
            }
        }
    }
    connection.is_blocked = false;
    Written::All
}
