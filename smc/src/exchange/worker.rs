//! The thread's work: what waits to be found, what is being agreed on, and who hangs up.
//!
//! What is called an exchange here is one end's part of it. The steps of the two roles stand in [`super::connector`] and
//! [`super::acceptor`]; here stands what they have in common, and how an exchange ends:
//!
//! - *agreed*, by Confirm, sent or received;
//! - *refused*, by this end, which says why, or by the other;
//! - *late*: what the peer had sent before it was told is heard first;
//! - *withdrawn*, because the connection is gone.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::home;
use super::link::{Link, LinkError};
use super::message::Envelope;
use super::peers::{Pair, Peers, Process};
use super::poller::{HOME, Interest, Poller, WAKE};
use super::{Host, Settings};
use crate::arena::{Arena, ArenaError};
use crate::descriptors::Private;
use crate::names::{Bound, Tuple};
use crate::shared_memory::AttachError;
use crate::wire::clc::{Decline, DeclineReason, Message};
use crate::wire::{DmbToken, Gid, PeerId};

/// What a peer is told that hears nothing else: the connection is gone on this side.
const GONE: DeclineReason = DeclineReason::PEER_DECLINED;

/// Messages that may have been sent before the peer could know that this end does not wait any longer.
const LAST_MESSAGES: usize = 4;

/// What other threads ask of this one.
#[derive(Debug)]
pub(super) enum Command {
    Offer { key: u64, tuple: Tuple, bound: Bound, slot: Slot },
    Seek { key: u64, tuple: Tuple, link: Link, slot: Slot },
    Withdraw { key: u64 },
    Stop,
}

/// One of the exchanges that there may be at a time.
#[derive(Debug)]
pub(super) struct Slot(Arc<AtomicUsize>);

impl Slot {
    /// `None` if all are taken.
    pub(super) fn take(used: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let take = |count| (count < limit).then_some(count + 1);
        used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(Self(Arc::clone(used)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is watched under an id.
#[derive(Debug)]
enum Entry {
    Offer(Offer),
    Exchange(Exchange),
    Channel {
        link: Link,
        process: Process,
    },
    /// A connection that has more to send than TCP had room for, by its token.
    Sending {
        descriptor: Private,
        token: u64,
    },
}

/// A connection that waits to be found.
#[derive(Debug)]
struct Offer {
    key: u64,
    tuple: Tuple,
    bound: Bound,
    slot: Slot,
    deadline: Instant,
}

/// A connection whose two ends have met.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) key: u64,
    pub(super) tuple: Tuple,
    pub(super) link: Link,
    pub(super) turn: Turn,
    /// Taken as long as this lives.
    _slot: Slot,
    deadline: Instant,
    /// The deadline has passed: what comes now was sent before.
    is_late: bool,
}

/// What an end waits for.
#[derive(Debug)]
pub(super) enum Turn {
    /// The connector, for the answer to its proposal.
    Accept,
    /// The acceptor, for the beginning.
    Proposal,
    /// The acceptor, for what comes of the first contact with this process.
    FirstContact(Process),
    /// The acceptor, for the last word, from this process and for this buffer of its. At the first contact, with this arena.
    Confirm { process: Process, token: DmbToken, first: Option<Arc<Arena>> },
}

/// What a step has led to.
#[derive(Debug)]
pub(super) enum Progress {
    /// Nothing new: the deadline stays.
    Waits,
    /// The next message is waited for.
    Moved,
    /// Both ends agree. At the first contact, with this arena between this process and that.
    Agreed(Option<(Process, Arc<Arena>)>),
}

/// Why an exchange ends without an agreement.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// This end says so, and to the peer too.
    Ours(DeclineReason),
    /// The peer says so.
    Theirs(DeclineReason),
    /// The connection is gone on this side: the peer is told, its own process knows.
    Gone,
}

impl From<LinkError> for Refusal {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::HungUp => Self::Theirs(DeclineReason::PEER_DECLINED),
            LinkError::Message(error) => Self::Ours(error.decline_reason()),
        }
    }
}

impl From<ArenaError> for Refusal {
    fn from(error: ArenaError) -> Self {
        Self::Ours(match error {
            ArenaError::Create(_) | ArenaError::Full(_) | ArenaError::Attach(AttachError::Kernel(_)) => {
                DeclineReason::INSUFFICIENT_MEMORY
            }
            ArenaError::Geometry(_) | ArenaError::Attach(_) | ArenaError::Foreign | ArenaError::Token(_) => {
                DeclineReason::SYNCHRONIZATION
            }
        })
    }
}

/// A step's outcome.
pub(super) type Outcome = Result<Progress, Refusal>;

/// Whether the thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// After a sleep of at most this.
    Sleep(Option<Duration>),
    Stop,
}

/// See the module.
pub(super) struct Worker {
    pub(super) settings: Arc<Settings>,
    pub(super) host: Arc<dyn Host>,
    pub(super) gid: Gid,
    pub(super) peers: Peers,
    /// The names by which others call this process.
    home: Vec<Bound>,
    poller: Poller,
    entries: HashMap<u64, Entry>,
    /// Offers and exchanges by what their process calls them.
    keys: HashMap<u64, u64>,
    deadlines: BTreeSet<(Instant, u64)>,
    /// When the host looks next for what it could clear away.
    tidy_at: Option<Instant>,
    /// Ids are never used again: what comes too late for one finds nothing.
    last_id: u64,
}

impl Worker {
    pub(super) fn new(settings: Arc<Settings>, host: Arc<dyn Host>, poller: Poller, gid: Gid) -> Self {
        let peers = Peers::new(settings.max_peers);
        let home = settings.rendezvous.be_at_home(gid);
        for bound in &home {
            // Without it nobody is heard, and what others ask for is answered when the program next calls.
            let _ = poller.add(&bound.socket, HOME, Interest::Readable);
        }
        let (entries, keys, deadlines) = (HashMap::new(), HashMap::new(), BTreeSet::new());
        Self { settings, host, gid, peers, home, poller, entries, keys, deadlines, tidy_at: None, last_id: HOME }
    }

    /// One round: what others ask, what is ready, what is late.
    pub(super) fn turn(&mut self, ready: &[u64], take_commands: impl FnOnce() -> Vec<Command>) -> Next {
        if ready.contains(&WAKE) {
            self.poller.clear_wake();
            for command in take_commands() {
                match command {
                    Command::Offer { key, tuple, bound, slot } => self.offer(key, tuple, bound, slot),
                    Command::Seek { key, tuple, link, slot } => self.meet(key, tuple, link, slot, Turn::Proposal),
                    Command::Withdraw { key } => self.withdraw(key),
                    Command::Stop => return Next::Stop,
                }
            }
        }
        for &id in ready.iter().filter(|&&id| id != WAKE) {
            if id == HOME { self.listen_at_home() } else { self.handle_ready(id) }
        }
        let now = Instant::now();
        let times = [self.expire(now), self.tidy(now)];
        Next::Sleep(times.into_iter().flatten().min())
    }

    /// Lets the host clear away what it can, when it is time to, and tells how long there is until the next time.
    fn tidy(&mut self, now: Instant) -> Option<Duration> {
        if self.tidy_at? <= now {
            self.tidy_at = self.host.tidy().map(|pause| now + pause);
        }
        Some(self.tidy_at?.saturating_duration_since(now))
    }

    /// In a child of fork: closes everything here, and nothing of the parent's.
    pub(super) fn close_in_child(self) {
        // The epoll instance is the parent's too: nothing is removed from it.
        let Self { poller, entries, home, .. } = self;
        drop((entries, home));
        poller.close_in_child();
    }

    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn offer(&mut self, key: u64, tuple: Tuple, bound: Bound, slot: Slot) {
        let id = self.new_id();
        if self.poller.add(&bound.socket, id, Interest::Readable).is_err() {
            drop((bound, slot));
            return self.host.decline(key, DeclineReason::INSUFFICIENT_MEMORY, false);
        }
        let deadline = Instant::now() + self.settings.offer_limit;
        self.deadlines.insert((deadline, id));
        self.keys.insert(key, id);
        self.entries.insert(id, Entry::Offer(Offer { key, tuple, bound, slot, deadline }));
    }

    /// The two ends have met; this one begins by waiting for its `turn`, the connector after it has proposed.
    fn meet(&mut self, key: u64, tuple: Tuple, link: Link, slot: Slot, turn: Turn) {
        let id = self.new_id();
        let deadline = Instant::now() + self.settings.answer_limit;
        let exchange = Exchange { key, tuple, link, turn, _slot: slot, deadline, is_late: false };
        self.keys.insert(key, id);
        if self.poller.add(&exchange.link, id, Interest::Readable).is_err() {
            return self.conclude(id, exchange, Err(Refusal::Ours(DeclineReason::INSUFFICIENT_MEMORY)));
        }
        let outcome = match exchange.turn {
            Turn::Accept => self.propose(&exchange),
            Turn::Proposal | Turn::FirstContact(_) | Turn::Confirm { .. } => Ok(Progress::Waits),
        };
        self.deadlines.insert((deadline, id));
        self.conclude(id, exchange, outcome);
    }

    fn handle_ready(&mut self, id: u64) {
        match self.entries.remove(&id) {
            Some(Entry::Offer(offer)) => self.look_at_offer(id, offer),
            Some(Entry::Exchange(exchange)) => self.listen_to(id, exchange),
            Some(Entry::Channel { link, process }) => {
                self.poller.remove(&link);
                self.peers.forget(process, id);
                drop(link);
                self.host.part();
            }
            Some(Entry::Sending { descriptor, token }) => {
                self.poller.remove(&descriptor);
                drop(descriptor);
                self.look_at(token);
            }
            None => {}
        }
    }

    /// Others have called: which connections they mean.
    fn listen_at_home(&mut self) {
        let words: Vec<_> = self.home.iter().flat_map(|bound| home::heard(&bound.socket)).collect();
        for token in words {
            self.look_at(token);
        }
    }

    fn look_at(&mut self, token: u64) {
        let Some(descriptor) = self.host.look_at(token) else { return };
        // However often the peer calls, it is waited for once.
        if self.entries.values().any(|entry| matches!(entry, Entry::Sending { token: known, .. } if *known == token)) {
            return;
        }
        let id = self.new_id();
        if let Ok(descriptor) = Private::keep(descriptor)
            && self.poller.add(&descriptor, id, Interest::Room).is_ok()
        {
            self.entries.insert(id, Entry::Sending { descriptor, token });
        }
    }

    fn look_at_offer(&mut self, id: u64, offer: Offer) {
        match super::connector::found(&offer.bound, self.settings.rendezvous.uid()) {
            Ok(None) => {
                self.entries.insert(id, Entry::Offer(offer));
            }
            Ok(Some(link)) => {
                let Offer { key, tuple, slot, .. } = self.end_offer(id, offer);
                self.meet(key, tuple, link, slot, Turn::Accept);
            }
            Err(_) => self.decline_offer(id, offer, DeclineReason::INSUFFICIENT_MEMORY),
        }
    }

    fn decline_offer(&mut self, id: u64, offer: Offer, reason: DeclineReason) {
        let key = offer.key;
        // The name is free before the host hears of it.
        drop(self.end_offer(id, offer));
        self.host.decline(key, reason, false);
    }

    /// The offer is over; its name goes with what is returned.
    fn end_offer(&mut self, id: u64, offer: Offer) -> Offer {
        self.poller.remove(&offer.bound.socket);
        self.deadlines.remove(&(offer.deadline, id));
        self.forget_key(offer.key, id);
        offer
    }

    /// Forgets the arena that `process` has given this one if the channel says so, though that was not its turn yet.
    pub(super) fn forget_if_hung_up(&mut self, process: Process) {
        let Some(channel) = self.peers.attached(process).map(|pair| pair.channel) else { return };
        if matches!(self.entries.get(&channel), Some(Entry::Channel { link, .. }) if link.has_hung_up()) {
            self.handle_ready(channel);
        }
    }

    fn forget_key(&mut self, key: u64, id: u64) {
        if self.keys.get(&key) == Some(&id) {
            self.keys.remove(&key);
        }
    }

    /// Takes a message of an exchange and does what it asks for.
    fn listen_to(&mut self, id: u64, mut exchange: Exchange) {
        let outcome = match exchange.link.receive(&*self.host, exchange.tuple) {
            Ok(None) => Ok(Progress::Waits),
            Ok(Some((envelope, memory))) => self.handle_message(id, &mut exchange, envelope, memory),
            Err(error) => Err(error.into()),
        };
        self.conclude(id, exchange, outcome);
    }

    /// What is said in whose turn: the whole of the protocol.
    fn handle_message(
        &mut self,
        id: u64,
        exchange: &mut Exchange,
        Envelope { message, arena }: Envelope,
        memory: Option<OwnedFd>,
    ) -> Outcome {
        match (&exchange.turn, message, arena) {
            (_, Message::Decline(decline), _) => Err(Refusal::Theirs(decline.reason)),
            (Turn::Proposal, Message::Proposal(proposal), _) => self.handle_proposal(id, exchange, &proposal),
            (Turn::Accept, Message::Accept(accept), Some(named)) => {
                self.handle_accept(exchange, &accept, named, memory)
            }
            (Turn::Confirm { .. }, Message::Confirm(confirm), _) => self.handle_confirm(exchange, &confirm),
            (_, Message::Proposal(_) | Message::Accept(_) | Message::Confirm(_), _) => {
                Err(Refusal::Ours(DeclineReason::SYNCHRONIZATION))
            }
        }
    }

    /// Goes on with an exchange that waited for the first contact.
    fn resume(&mut self, id: u64) {
        if let Some(Entry::Exchange(mut exchange)) = self.entries.remove(&id) {
            let outcome = match exchange.turn {
                Turn::FirstContact(process) => self.contact(id, &mut exchange, process),
                Turn::Accept | Turn::Proposal | Turn::Confirm { .. } => Ok(Progress::Waits),
            };
            self.conclude(id, exchange, outcome);
        }
    }

    /// Does with an exchange what its last step has led to.
    fn conclude(&mut self, id: u64, mut exchange: Exchange, outcome: Outcome) {
        match outcome {
            Ok(Progress::Waits) => {
                self.entries.insert(id, Entry::Exchange(exchange));
            }
            Ok(Progress::Moved) => {
                self.deadlines.remove(&(exchange.deadline, id));
                exchange.deadline = Instant::now() + self.settings.answer_limit;
                self.deadlines.insert((exchange.deadline, id));
                self.entries.insert(id, Entry::Exchange(exchange));
            }
            Ok(Progress::Agreed(first)) => self.agreed(id, exchange, first),
            Err(refusal) => self.refused(id, exchange, refusal),
        }
    }

    fn agreed(&mut self, id: u64, exchange: Exchange, first: Option<(Process, Arc<Arena>)>) {
        if self.tidy_at.is_none() {
            self.tidy_at = self.host.tidy().map(|pause| Instant::now() + pause);
        }
        let key = exchange.key;
        let (link, turn) = self.end_exchange(id, exchange);
        let Some((process, arena)) = first else {
            self.poller.remove(&link);
            drop(link);
            return self.host.establish(key);
        };
        let channel = self.keep_channel(id, link, process);
        let mut pair = channel.map(|channel| Pair { arena, channel });
        if let Turn::Accept = turn
            && let Some(pair) = pair.take()
        {
            self.peers.attach(process, pair);
        }
        self.host.establish(key);
        self.settle_first_contact(&turn, pair);
    }

    /// Watches the socket of a first contact from now on. If that cannot be it hangs up, and the arena is for one connection.
    fn keep_channel(&mut self, id: u64, link: Link, process: Process) -> Option<u64> {
        if self.poller.modify(&link, id, Interest::HangUp).is_err() {
            self.poller.remove(&link);
            return None;
        }
        self.entries.insert(id, Entry::Channel { link, process });
        Some(id)
    }

    fn refused(&mut self, id: u64, exchange: Exchange, refusal: Refusal) {
        let key = exchange.key;
        let refusal = match refusal {
            // Nothing came after all.
            Refusal::Theirs(DeclineReason::PEER_DECLINED) if exchange.is_late => {
                Refusal::Ours(DeclineReason::CONFIRM_LINK_TIMEOUT)
            }
            refusal => refusal,
        };
        match refusal {
            Refusal::Ours(reason) => self.send_decline(&exchange, reason),
            Refusal::Gone => self.send_decline(&exchange, GONE),
            Refusal::Theirs(_) => {}
        }
        let (link, turn) = self.end_exchange(id, exchange);
        self.poller.remove(&link);
        drop(link);
        match refusal {
            Refusal::Ours(reason) => self.host.decline(key, reason, false),
            Refusal::Theirs(reason) => self.host.decline(key, reason, true),
            Refusal::Gone => {}
        }
        self.settle_first_contact(&turn, None);
    }

    /// The first contact that an exchange was about is made or not: those that have waited for it go on.
    fn settle_first_contact(&mut self, turn: &Turn, pair: Option<Pair>) {
        if let Turn::Confirm { process, first: Some(_), .. } = turn {
            for id in self.peers.settle(*process, pair) {
                self.resume(id);
            }
        }
    }

    fn end_exchange(&mut self, id: u64, exchange: Exchange) -> (Link, Turn) {
        self.deadlines.remove(&(exchange.deadline, id));
        self.forget_key(exchange.key, id);
        (exchange.link, exchange.turn)
    }

    fn send_decline(&self, exchange: &Exchange, reason: DeclineReason) {
        let decline = Decline { peer: self.peer_id(), reason, is_out_of_sync: false };
        // Who does not hear it sees the socket hang up.
        let _ = self.send(exchange, Message::Decline(decline));
    }

    /// Sends a message that names no arena.
    pub(super) fn send(&self, exchange: &Exchange, message: Message) -> Result<(), Errno> {
        let envelope = Envelope { message, arena: None };
        exchange.link.send(&envelope, None, &*self.host, exchange.tuple)
    }

    /// This process, in a message of both kinds of SMC.
    pub(super) fn peer_id(&self) -> PeerId {
        PeerId(self.gid.0)
    }

    /// The connection with this key is gone.
    fn withdraw(&mut self, key: u64) {
        let Some(id) = self.keys.get(&key).copied() else { return };
        match self.entries.remove(&id) {
            Some(Entry::Offer(offer)) => drop(self.end_offer(id, offer)),
            Some(Entry::Exchange(exchange)) => self.refused(id, exchange, Refusal::Gone),
            Some(other @ (Entry::Channel { .. } | Entry::Sending { .. })) => {
                self.entries.insert(id, other);
            }
            None => {}
        }
    }

    /// Ends what is late, and tells how long there is until the next is.
    fn expire(&mut self, now: Instant) -> Option<Duration> {
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now {
                return Some(deadline - now);
            }
            self.deadlines.remove(&(deadline, id));
            match self.entries.remove(&id) {
                Some(Entry::Offer(offer)) => self.decline_offer(id, offer, DeclineReason::PEER_WITHOUT_SMC),
                Some(Entry::Exchange(exchange)) => self.listen_for_the_last_time(id, exchange),
                Some(other @ (Entry::Channel { .. } | Entry::Sending { .. })) => {
                    self.entries.insert(id, other);
                }
                None => {}
            }
        }
        None
    }

    /// The peer has had its time. From now on it cannot send; what it has sent counts: a Confirm, after which it may be
    /// sending into the ring.
    fn listen_for_the_last_time(&mut self, id: u64, mut exchange: Exchange) {
        exchange.is_late = true;
        exchange.link.stop_receiving();
        self.entries.insert(id, Entry::Exchange(exchange));
        for _ in 0..LAST_MESSAGES {
            match self.entries.remove(&id) {
                Some(Entry::Exchange(exchange)) => self.listen_to(id, exchange),
                Some(channel) => {
                    self.entries.insert(id, channel);
                    return;
                }
                None => return,
            }
        }
        if let Some(Entry::Exchange(exchange)) = self.entries.remove(&id) {
            self.refused(id, exchange, Refusal::Ours(DeclineReason::CONFIRM_LINK_TIMEOUT));
        }
    }
}

/// A number that nobody can guess.
pub(super) fn random() -> Result<u64, Errno> {
    let mut bytes = [0; 8];
    let filled = getrandom(&mut bytes[..], GetRandomFlags::empty())?;
    if filled == bytes.len() { Ok(u64::from_ne_bytes(bytes)) } else { Err(Errno::IO) }
}
