//! How connections begin and end.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::io::Errno;
use socket2::Socket;

use super::connection::{Connection, Phase, Receiving, Sending};
use super::poller::{EventFlags, Target};
use super::receive::Read;
use super::{KernelEngine, Listener, SERVED_PER_POLL, Turn, socket};
use crate::stream::{ConnectError, ListenError, ListenerId, ResetReason, StreamEvent, StreamId};
use crate::table::Name;
use crate::time::Instant;

/// Connections accepted from one listener per poll, at most.
const ACCEPTED_PER_POLL: usize = 16;
/// How long a listener rests when the system has no descriptors or memory left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl KernelEngine {
    pub(super) fn begin_connecting(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        local: Option<IpAddr>,
    ) -> Result<StreamId, ConnectError> {
        let too_many = ConnectError::TooManyConnections { limit: self.config.max_connections };
        if self.connections.is_full() {
            return Err(too_many);
        }
        let (socket, outcome) = socket::connect(&self.config, remote, local)?;
        let phase = match outcome {
            Ok(false) => Phase::Connecting,
            Ok(true) => Phase::Answered(Ok(())),
            Err(reason) => Phase::Answered(Err(reason)),
        };
        let bound = socket::local_address(&socket).unwrap_or(remote);
        let name = self.connections.insert(Connection::new(socket, bound, remote, phase)).ok_or(too_many)?;
        if phase == Phase::Connecting {
            self.watch(name, EventFlags::OUT);
            self.set_deadline(name, Some(now + self.config.connect_timeout));
        } else {
            self.enqueue(name);
        }
        Ok(name.into())
    }

    pub(super) fn finish_connecting(&mut self, turn: &mut Turn<'_>, name: Name) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        let outcome = match connection.phase {
            Phase::Answered(outcome) => outcome,
            _ => socket::take_error(&connection.socket).map_or(Ok(()), Err),
        };
        let local = socket::local_address(&connection.socket).unwrap_or(connection.local);
        // A port of our own that nobody listens on, but that was drawn for this connection: TCP connects it to itself.
        let outcome = if local == connection.remote { Err(ResetReason::Refused) } else { outcome };
        if let Err(reason) = outcome {
            self.forget(name);
            return turn.report(StreamEvent::ConnectFailed { stream: name.into(), reason });
        }
        connection.local = local;
        connection.phase = Phase::Open;
        connection.segment_size = socket::segment_size(&connection.socket);
        let is_writable_owed = std::mem::take(&mut connection.is_writable_owed);
        turn.report(StreamEvent::Connected { stream: name.into(), local });
        if is_writable_owed {
            turn.report(StreamEvent::Writable { stream: name.into() });
        }
        self.settle(turn, name);
    }

    pub(super) fn begin_listening(&mut self, local: SocketAddr, backlog: usize) -> Result<ListenerId, ListenError> {
        let too_many = ListenError::TooManyListeners { limit: self.config.max_listeners };
        if self.listeners.is_full() {
            return Err(too_many);
        }
        let socket = socket::listen(&self.config, local, backlog)?;
        let bound = socket::local_address(&socket).unwrap_or(local);
        let name = self.listeners.insert(Listener { socket, local: bound }).ok_or(too_many.clone())?;
        let Some(listener) = self.listeners.get(name) else { return Err(too_many) };
        if let Err(error) = self.poller.add(&listener.socket, Target::Listener(name), EventFlags::IN) {
            self.listeners.remove(name);
            return Err(ListenError::System { local, reason: error.to_string() });
        }
        Ok(name.into())
    }

    pub(super) fn accept(&mut self, turn: &mut Turn<'_>, name: Name) {
        for _ in 0..ACCEPTED_PER_POLL {
            let Some(listener) = self.listeners.get(name) else { return };
            match socket::accept(&listener.socket) {
                Ok((socket, remote)) => self.welcome(turn, name, socket, remote),
                Err(Errno::AGAIN) => return,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                    tracing::warn!(local = %listener.local, "no descriptor or memory for a new connection: waiting");
                    let _ = self.poller.modify(&listener.socket, Target::Listener(name), EventFlags::empty());
                    self.deadlines.insert((turn.now + ACCEPT_PAUSE, Target::Listener(name)));
                    return;
                }
                // Errors of the connection, which ended before it was accepted.
                Err(_) => {}
            }
        }
    }

    fn welcome(&mut self, turn: &mut Turn<'_>, listener: Name, socket: Socket, remote: Option<SocketAddr>) {
        let bound = self.listeners.get(listener).map(|listener| listener.local);
        // Asking the socket for our end is needed only where the listener has several addresses.
        let local = bound.filter(|bound| !bound.ip().is_unspecified()).or_else(|| socket::local_address(&socket));
        let (Some(local), Some(remote)) = (local, remote.or_else(|| socket::remote_address(&socket))) else { return };
        if self.connections.is_full() {
            self.statistics.refused_connections += 1;
            return socket::reset(socket);
        }
        let mut connection = Connection::new(socket, local, remote, Phase::Open);
        connection.segment_size = socket::segment_size(&connection.socket);
        let Some(name) = self.connections.insert(connection) else { return };
        turn.report(StreamEvent::Incoming { listener: listener.into(), stream: name.into(), local, remote });
        self.settle(turn, name);
    }

    pub(super) fn begin_closing(&mut self, now: Instant, name: Name) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        if connection.sending != Sending::Open {
            return;
        }
        connection.is_writable_owed = false;
        connection.sending = Sending::Draining;
        if connection.phase == Phase::Open {
            self.set_deadline(name, Some(now + self.config.linger_timeout));
            self.after_writing(name);
        } else {
            // There is nothing to end in order; the next poll says that it is over.
            connection.phase = Phase::Answered(Err(ResetReason::Other));
            self.enqueue(name);
        }
    }

    /// Ends our direction: everything taken is with the kernel.
    pub(super) fn shut(&mut self, name: Name) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        connection.sending = Sending::Shut;
        if connection.failure.is_none() && connection.socket.shutdown(std::net::Shutdown::Write).is_err() {
            connection.failure = Some(socket::take_error(&connection.socket).unwrap_or(ResetReason::ByPeer));
        }
        if connection.receiving == Receiving::Reported || connection.failure.is_some() {
            self.enqueue(name);
        }
    }

    /// Does what was left to this poll.
    pub(super) fn serve(&mut self, turn: &mut Turn<'_>, name: Name) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        connection.is_queued = false;
        if connection.phase != Phase::Open {
            return self.finish_connecting(turn, name);
        }
        if connection.failure.is_some() {
            // A peer that says why before it resets (a TERMINATE) is heard.
            return match self.receive(turn, name) {
                Read::Some => self.enqueue(name),
                Read::Nothing | Read::Over => self.finish_failed(turn, name),
            };
        }
        if std::mem::take(&mut connection.is_resumed) {
            self.offer_again(turn, name);
        }
        let Some(connection) = self.connections.get_mut(name) else { return };
        if !connection.is_blocked && std::mem::take(&mut connection.is_writable_owed) {
            turn.report(StreamEvent::Writable { stream: name.into() });
        }
        self.settle(turn, name);
    }

    pub(super) fn finish_failed(&mut self, turn: &mut Turn<'_>, name: Name) {
        let Some(connection) = self.connections.get(name) else { return };
        let reason = connection.failure.unwrap_or(ResetReason::Other);
        self.fail(turn, name, reason);
    }

    /// The stream broke.
    pub(super) fn fail(&mut self, turn: &mut Turn<'_>, name: Name, reason: ResetReason) {
        if let Some(socket) = self.forget(name) {
            socket::reset(socket);
            turn.report(StreamEvent::Reset { stream: name.into(), reason });
        }
    }

    /// Takes `name` out of every list that is not passed over later; its socket is what remains.
    pub(super) fn forget(&mut self, name: Name) -> Option<Socket> {
        self.set_deadline(name, None);
        let mut connection = self.connections.remove(name)?;
        if let Some(ring) = connection.ring.take() {
            self.rings.give(ring.into_bytes());
        }
        if let Some(stage) = connection.stage.take() {
            self.stages.give(stage.into_bytes());
        }
        Some(connection.socket)
    }

    /// Asks epoll for `interest`.
    pub(super) fn watch(&mut self, name: Name, interest: EventFlags) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        let target = Target::Stream(name);
        let outcome = match connection.interest {
            // Nothing to watch for, and it was taken out because both directions have ended.
            None if interest.is_empty() => return,
            None => self.poller.add(&connection.socket, target, interest),
            Some(_) => self.poller.modify(&connection.socket, target, interest),
        };
        match outcome {
            Ok(()) => connection.interest = Some(interest),
            // Out of memory or watches: a stream that would never be heard of again is broken.
            Err(error) => {
                tracing::warn!(remote = %connection.remote, %error, "epoll refuses a socket");
                connection.failure = Some(ResetReason::Other);
                self.enqueue(name);
            }
        }
    }

    pub(super) fn set_deadline_once(&mut self, name: Name, deadline: Instant) {
        if self.connections.get(name).is_some_and(|connection| connection.deadline.is_none()) {
            self.set_deadline(name, Some(deadline));
        }
    }

    pub(super) fn set_deadline(&mut self, name: Name, deadline: Option<Instant>) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        if connection.deadline == deadline {
            return;
        }
        if let Some(old) = std::mem::replace(&mut connection.deadline, deadline) {
            self.deadlines.remove(&(old, Target::Stream(name)));
        }
        if let Some(new) = deadline {
            self.deadlines.insert((new, Target::Stream(name)));
        }
    }

    pub(super) fn run_deadlines(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..SERVED_PER_POLL {
            let Some((deadline, target)) = self.deadlines.first().copied().filter(|(at, _)| *at <= turn.now) else {
                return;
            };
            self.deadlines.remove(&(deadline, target));
            match target {
                Target::Listener(name) => {
                    if let Some(listener) = self.listeners.get(name) {
                        let _ = self.poller.modify(&listener.socket, target, EventFlags::IN);
                    }
                }
                Target::Stream(name) => self.expire(turn, name),
            }
        }
    }

    fn expire(&mut self, turn: &mut Turn<'_>, name: Name) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        connection.deadline = None;
        if connection.phase == Phase::Open {
            return self.fail(turn, name, ResetReason::TimedOut);
        }
        self.forget(name);
        turn.report(StreamEvent::ConnectFailed { stream: name.into(), reason: ResetReason::TimedOut });
    }
}
