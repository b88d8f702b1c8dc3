//! The steps of the end that has connected.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::link::Link;
use super::message::Named;
use super::peers::Process;
use super::worker::{Exchange, Outcome, Progress, Refusal, Worker};
use crate::arena::Arena;
use crate::descriptors::Private;
use crate::names::{Bound, Tuple};
use crate::wire::clc::{
    Accept, Confirm, DeclineReason, Endpoint, Ipv6Prefix, Message, Offer, Prefixes, Proposal, SharedEndpoint, Subnet,
};
use crate::wire::{BufferSize, DmbToken, ElementIndex, LinkId};

/// Those who may stand in line at a name: the one who is waited for, and strangers.
pub(super) const BACKLOG: i32 = 8;

/// Who of those that stand in line at `bound` is a process of user `uid`. Others are sent away, and waiting goes on.
pub(super) fn found(bound: &Bound, uid: u32) -> Result<Option<Link>, Errno> {
    for _ in 0..BACKLOG {
        let socket = match accept_with(&bound.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => socket,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return Ok(None),
            Err(error) => return Err(error),
        };
        let socket = Private::keep(socket).map_err(|_| Errno::MFILE)?;
        if let Some(link) = Link::new(socket, uid) {
            return Ok(Some(link));
        }
    }
    Ok(None)
}

impl Worker {
    /// The other end was found: says who this process is.
    pub(super) fn propose(&self, exchange: &Exchange) -> Outcome {
        let proposal =
            Proposal { peer: self.peer_id(), offer: Offer::Shared(self.gid), subnet: subnet(exchange.tuple) };
        self.send(exchange, Message::Proposal(proposal)).map_err(|_| Refusal::Theirs(DeclineReason::PEER_DECLINED))?;
        Ok(Progress::Waits)
    }

    /// The other end has a connection of an arena for this one, and can read its ring.
    pub(super) fn handle_accept(
        &mut self,
        exchange: &Exchange,
        accept: &Accept,
        named: Named,
        memory: Option<OwnedFd>,
    ) -> Outcome {
        let out_of_step = Refusal::Ours(DeclineReason::SYNCHRONIZATION);
        let Endpoint::Shared(theirs) = accept.endpoint else { return Err(out_of_step) };
        if accept.is_first_contact != named.has_memory || theirs.buffer_size.bytes() != named.geometry.ring_bytes {
            return Err(out_of_step);
        }
        let process = Process { gid: theirs.gid, number: exchange.link.process() };
        let arena = match &memory {
            Some(memory) => self.attach(process, memory, named)?,
            None => {
                let known = self.peers.attached(process).map(|pair| &pair.arena);
                let arena = known.filter(|arena| arena.id() == named.id && arena.geometry() == named.geometry);
                Arc::clone(arena.ok_or(out_of_step)?)
            }
        };
        let connection = arena.join(theirs.token.0)?;
        let ours = endpoint(self.gid, connection.own_token(), &arena);
        connection.add_home(self.gid.0);
        if !self.host.prepare(exchange.key, connection, theirs.gid) {
            return Err(Refusal::Gone);
        }
        // From here on this end is bound to what the acceptor makes of it; if it cannot be sent, the acceptor goes without.
        let confirm = Confirm { endpoint: Endpoint::Shared(ours) };
        self.send(exchange, Message::Confirm(confirm)).map_err(|_| Refusal::Theirs(DeclineReason::PEER_DECLINED))?;
        Ok(Progress::Agreed(memory.map(|_| (process, arena))))
    }

    /// The arena that `process` has brought. It brings one, unless it has forgotten the first.
    fn attach(&mut self, process: Process, memory: &OwnedFd, named: Named) -> Result<Arc<Arena>, Refusal> {
        self.forget_if_hung_up(process);
        if self.peers.attached(process).is_some() {
            return Err(Refusal::Ours(DeclineReason::SYNCHRONIZATION));
        }
        if self.peers.is_full() {
            return Err(Refusal::Ours(DeclineReason::INSUFFICIENT_MEMORY));
        }
        Ok(Arc::new(Arena::attach(memory, named.geometry, named.id)?))
    }
}

/// An end as CLC describes it: one buffer, one element, in the link group that the arena is.
pub(super) fn endpoint(gid: crate::wire::Gid, token: u64, arena: &Arena) -> SharedEndpoint {
    let buffer_size = BufferSize::of_bytes(arena.geometry().ring_bytes).expect("rings have the sizes that CLC has");
    let (token, link) = (DmbToken(token), LinkId(arena.id() as u32));
    SharedEndpoint { gid, token, element: ElementIndex(1), buffer_size, link }
}

/// RFC 7609 §A.2.2 wants the interface's network. Here the two are known to be on one host: this end's address says enough.
fn subnet(tuple: Tuple) -> Subnet {
    match tuple.local.ip().to_canonical() {
        std::net::IpAddr::V4(subnet) => Subnet::Ipv4 { subnet, bits: 32 },
        std::net::IpAddr::V6(prefix) => {
            let prefixes = Prefixes::new(&[Ipv6Prefix { prefix, bits: 128 }]);
            Subnet::Ipv6(prefixes.expect("one prefix of 128 bits"))
        }
    }
}
