//! The steps of the end that has accepted.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::connector::endpoint;
use super::message::{Envelope, Named};
use super::peers::{Admission, Process};
use super::worker::{Exchange, Outcome, Progress, Refusal, Turn, Worker, random};
use crate::arena::Arena;
use crate::wire::DmbToken;
use crate::wire::clc::{Accept, Confirm, DeclineReason, Endpoint, Message, Proposal};

/// What this end declines with when it cannot get what it needs from the system.
const NO_RANDOMNESS: Refusal = Refusal::Ours(DeclineReason::INTERNAL);

impl Worker {
    /// The other end says who it is.
    pub(super) fn handle_proposal(&mut self, id: u64, exchange: &mut Exchange, proposal: &Proposal) -> Outcome {
        let gid = proposal.offer.shared().ok_or(Refusal::Ours(DeclineReason::MODE_UNSUPPORTED))?;
        self.contact(id, exchange, Process { gid, number: exchange.link.process() })
    }

    /// Takes the arena that there is with `process`, makes one at the first contact, or waits for what comes of that.
    pub(super) fn contact(&mut self, id: u64, exchange: &mut Exchange, process: Process) -> Outcome {
        match self.peers.admit(process, id) {
            Admission::Arena(arena) => self.accept(exchange, process, &arena, None),
            Admission::Wait => {
                exchange.turn = Turn::FirstContact(process);
                Ok(Progress::Waits)
            }
            Admission::Full => Err(Refusal::Ours(DeclineReason::INSUFFICIENT_MEMORY)),
            Admission::FirstContact => {
                let outcome = self.first_contact(exchange, process);
                if outcome.is_err() {
                    let waiting = self.peers.settle(process, None);
                    debug_assert!(waiting.is_empty(), "nobody else was looked at meanwhile");
                }
                outcome
            }
        }
    }

    fn first_contact(&mut self, exchange: &mut Exchange, process: Process) -> Outcome {
        let id = random().map_err(|_| NO_RANDOMNESS)?;
        let (arena, memory) = Arena::create(self.settings.geometry, id)?;
        self.accept(exchange, process, &Arc::new(arena), Some(memory.as_fd()))
    }

    /// Gives the other end a connection of `arena`, whose `memory` it needs at the first contact.
    fn accept(
        &mut self,
        exchange: &mut Exchange,
        process: Process,
        arena: &Arc<Arena>,
        memory: Option<BorrowedFd<'_>>,
    ) -> Outcome {
        let connection = arena.claim(random().map_err(|_| NO_RANDOMNESS)?)?;
        let token = DmbToken(connection.peer_token());
        let ours = endpoint(self.gid, connection.own_token(), arena);
        connection.add_home(self.gid.0);
        if !self.host.prepare(exchange.key, connection, process.gid) {
            return Err(Refusal::Gone);
        }
        let is_first_contact = memory.is_some();
        let named = Named { id: arena.id(), geometry: arena.geometry(), has_memory: is_first_contact };
        let message = Message::Accept(Accept { is_first_contact, endpoint: Endpoint::Shared(ours) });
        exchange
            .link
            .send(&Envelope { message, arena: Some(named) }, memory, &*self.host, exchange.tuple)
            .map_err(|_| Refusal::Theirs(DeclineReason::PEER_DECLINED))?;
        exchange.turn = Turn::Confirm { process, token, first: is_first_contact.then(|| Arc::clone(arena)) };
        Ok(Progress::Moved)
    }

    /// The other end can read its ring, and may be sending already.
    pub(super) fn handle_confirm(&mut self, exchange: &Exchange, confirm: &Confirm) -> Outcome {
        let Turn::Confirm { process, token, first } = &exchange.turn else {
            return Err(Refusal::Ours(DeclineReason::SYNCHRONIZATION));
        };
        match confirm.endpoint {
            Endpoint::Shared(theirs) if theirs.gid == process.gid && theirs.token == *token => {}
            Endpoint::Shared(_) | Endpoint::Rdma(_) => {
                return Err(Refusal::Ours(DeclineReason::SYNCHRONIZATION));
            }
        }
        Ok(Progress::Agreed(first.as_ref().map(|arena| (*process, Arc::clone(arena)))))
    }
}
