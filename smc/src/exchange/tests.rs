//! The exchange between two services, between a service and a peer that does what it likes, and between processes.

mod agreeing;
mod hostile;
mod late;
mod limits;
mod message;
mod processes;
mod refusing;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SocketFlags, accept_with};
use rustix::pipe::{PipeFlags, pipe_with};

use super::link::{Link, LinkError};
use super::message::{Envelope, Named};
use super::*;
use crate::descriptors::Private;
use crate::wire::clc::{Accept, Confirm, Decline, Endpoint, Message, Offer, Proposal, SharedEndpoint, Subnet};
use crate::wire::{BufferSize, DmbToken, ElementIndex, LinkId, PeerId};

/// How long something may take that must happen: nothing here waits for that long unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);

const GEOMETRY: Geometry = Geometry { capacity: 64, ring_bytes: 16_384 };

/// What a host hears, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Prepare(u64),
    Establish(u64),
    Decline(u64, DeclineReason, bool),
    Saw(Direction, u8),
}

type OnPrepare = Box<dyn Fn(u64) -> bool + Send + Sync>;

/// A host that remembers.
#[derive(Default)]
struct Recorder {
    state: Mutex<Recorded>,
    changed: Condvar,
    on_prepare: Option<OnPrepare>,
}

#[derive(Default)]
struct Recorded {
    heard: Vec<Heard>,
    connections: HashMap<u64, (Connection, Gid)>,
    /// CLC messages.
    messages: Vec<(Tuple, Direction, Vec<u8>)>,
}

impl Recorder {
    fn hear(&self, heard: Heard) {
        self.state.lock().unwrap().heard.push(heard);
        self.changed.notify_all();
    }

    /// Waits until something was heard that `is_it`; all that was heard by then.
    fn wait(&self, is_it: impl Fn(&Heard) -> bool) -> Vec<Heard> {
        let state = self.state.lock().unwrap();
        let has_heard = |state: &mut Recorded| !state.heard.iter().any(&is_it);
        let (state, timeout) = self.changed.wait_timeout_while(state, PATIENCE, has_heard).unwrap();
        assert!(!timeout.timed_out(), "heard only {:?}", state.heard);
        state.heard.clone()
    }

    fn wait_established(&self, key: u64) -> Vec<Heard> {
        self.wait(|heard| {
            assert!(!matches!(heard, Heard::Decline(declined, ..) if *declined == key), "{heard:?}");
            *heard == Heard::Establish(key)
        })
    }

    /// The reason why `key` was declined, and whether by the peer.
    fn wait_declined(&self, key: u64) -> (DeclineReason, bool) {
        let is_it = |heard: &Heard| matches!(heard, Heard::Decline(declined, ..) if *declined == key);
        let heard = self.wait(is_it);
        assert!(!heard.contains(&Heard::Establish(key)), "{heard:?}");
        match heard.into_iter().find(is_it) {
            Some(Heard::Decline(_, reason, by_peer)) => (reason, by_peer),
            other => panic!("{other:?}"),
        }
    }

    fn heard(&self) -> Vec<Heard> {
        self.state.lock().unwrap().heard.clone()
    }

    /// What was heard of one end.
    fn heard_of(&self, key: u64) -> Vec<Heard> {
        let is_of = |heard: &Heard| match heard {
            Heard::Prepare(of) | Heard::Establish(of) | Heard::Decline(of, ..) => *of == key,
            Heard::Saw(..) => false,
        };
        self.heard().into_iter().filter(is_of).collect()
    }

    fn with_connection<T>(&self, key: u64, look: impl FnOnce(&Connection) -> T) -> T {
        look(&self.state.lock().unwrap().connections.get(&key).expect("prepared").0)
    }

    fn take_connection(&self, key: u64) -> Connection {
        self.state.lock().unwrap().connections.remove(&key).expect("prepared").0
    }
}

impl Host for Recorder {
    fn prepare(&self, key: u64, connection: Connection, peer: Gid) -> bool {
        self.state.lock().unwrap().connections.insert(key, (connection, peer));
        self.hear(Heard::Prepare(key));
        self.on_prepare.as_ref().is_none_or(|answer| answer(key))
    }

    fn establish(&self, key: u64) {
        self.hear(Heard::Establish(key));
    }

    fn decline(&self, key: u64, reason: DeclineReason, by_peer: bool) {
        self.state.lock().unwrap().connections.remove(&key);
        self.hear(Heard::Decline(key, reason, by_peer));
    }

    fn observe(&self, tuple: Tuple, direction: Direction, message: &[u8]) {
        self.state.lock().unwrap().messages.push((tuple, direction, message.to_vec()));
        self.hear(Heard::Saw(direction, message[4]));
    }
}

/// A process, as far as this module is concerned.
struct End {
    service: Service,
    host: Arc<Recorder>,
}

impl End {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: Settings) -> Self {
        Self::with_host(settings, Recorder::default())
    }

    fn with_host(settings: Settings, host: Recorder) -> Self {
        let host = Arc::new(host);
        Self { service: Service::start(settings, host.clone()), host }
    }

    fn answering(on_prepare: impl Fn(u64) -> bool + Send + Sync + 'static) -> Self {
        Self::with_host(settings(), Recorder { on_prepare: Some(Box::new(on_prepare)), ..Recorder::default() })
    }

    /// This end has connected; both agree.
    fn agree_with(&self, acceptor: &End, key: u64) -> Tuple {
        let tuple = new_tuple();
        self.service.offer(key, tuple).unwrap();
        assert!(acceptor.service.seek(key, tuple.reversed()));
        self.host.wait_established(key);
        acceptor.host.wait_established(key);
        tuple
    }
}

fn settings() -> Settings {
    Settings { geometry: GEOMETRY, offer_limit: PATIENCE, answer_limit: PATIENCE, ..Settings::default() }
}

/// Settings with which nobody waits for an answer.
fn impatient() -> Settings {
    Settings { answer_limit: Duration::from_millis(300), ..settings() }
}

/// A connection that nobody else on this machine has: to the exchange it is but a name.
fn new_tuple() -> Tuple {
    static PORT: AtomicU16 = AtomicU16::new(1);
    let address = Ipv4Addr::from(0x0a00_0000 | std::process::id() & 0xff_ffff);
    let local = SocketAddr::from((address, PORT.fetch_add(1, Ordering::Relaxed)));
    Tuple { local, peer: SocketAddr::from((Ipv4Addr::new(10, 255, 255, 255), 80)) }
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A peer that does what it likes.
struct Stranger {
    link: Link,
    tuple: Tuple,
    /// Nobody listens to this one.
    host: Recorder,
}

impl Stranger {
    /// Goes to where a connector waits, as if it had accepted.
    fn seeking(tuple: Tuple) -> Self {
        Self::new(Rendezvous::new().go_to(tuple).unwrap(), tuple)
    }

    /// Is found by an acceptor, as if it had connected.
    fn found_by(acceptor: &End, key: u64) -> Self {
        let tuple = new_tuple();
        let bound = Rendezvous::new().wait_at(tuple, 1).unwrap();
        assert!(acceptor.service.seek(key, tuple.reversed()));
        let socket = accept_with(&bound.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).unwrap();
        Self::new(Private::keep(socket).unwrap(), tuple)
    }

    fn new(socket: Private, tuple: Tuple) -> Self {
        Self { link: Link::new(socket, own_uid()).unwrap(), tuple, host: Recorder::default() }
    }

    fn send(&self, message: Message, arena: Option<Named>, memory: Option<BorrowedFd<'_>>) {
        self.link.send(&Envelope { message, arena }, memory, &self.host, self.tuple).unwrap();
    }

    /// Waits for the next message; `None` if the peer has hung up.
    fn receive(&self) -> Option<(Envelope, Option<OwnedFd>)> {
        wait_for(&self.link, PollFlags::IN | PollFlags::RDHUP);
        match self.link.receive(&self.host, self.tuple) {
            Ok(Some(received)) => Some(received),
            Err(LinkError::HungUp) => None,
            other => panic!("{other:?}, but there was something"),
        }
    }

    /// The reason of a decline, which must be next, and then nothing.
    fn receive_decline(&self) -> DeclineReason {
        match self.receive() {
            Some((Envelope { message: Message::Decline(Decline { reason, .. }), .. }, None)) => {
                assert!(self.receive().is_none(), "and then hangs up");
                reason
            }
            other => panic!("{other:?} is no decline"),
        }
    }

    fn receive_accept(&self) -> (Accept, Named, Option<OwnedFd>) {
        match self.receive() {
            Some((Envelope { message: Message::Accept(accept), arena: Some(named) }, memory)) => {
                (accept, named, memory)
            }
            other => panic!("{other:?} is no accept"),
        }
    }

    fn propose(&self, gid: Gid) {
        self.send(proposal(gid), None, None);
    }
}

fn proposal(gid: Gid) -> Message {
    let subnet = Subnet::Ipv4 { subnet: Ipv4Addr::LOCALHOST, bits: 32 };
    Message::Proposal(Proposal { peer: PeerId(1), offer: Offer::Shared(gid), subnet })
}

fn endpoint(gid: Gid, token: u64) -> Endpoint {
    let (element, link) = (ElementIndex(1), LinkId(0));
    Endpoint::Shared(SharedEndpoint { gid, token: DmbToken(token), element, buffer_size: BufferSize::SMALLEST, link })
}

fn confirm(gid: Gid, token: u64) -> Message {
    Message::Confirm(Confirm { endpoint: endpoint(gid, token) })
}

fn accept(gid: Gid, token: u64, is_first_contact: bool) -> Message {
    Message::Accept(Accept { is_first_contact, endpoint: endpoint(gid, token) })
}

fn decline(reason: DeclineReason) -> Message {
    Message::Decline(Decline { peer: PeerId(1), reason, is_out_of_sync: false })
}

/// Waits for what must happen to a descriptor.
fn wait_for(descriptor: impl AsFd, events: PollFlags) {
    let limit = Timespec::try_from(PATIENCE).unwrap();
    let mut watched = [PollFd::new(&descriptor, events)];
    assert_eq!(poll(&mut watched, Some(&limit)).unwrap(), 1, "nothing happens");
}

/// A descriptor, and another that tells when all copies of it are closed, in whatever process.
struct Tell {
    end: OwnedFd,
    copy: Option<OwnedFd>,
}

impl Tell {
    fn new() -> Self {
        let (end, copy) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        Self { end, copy: Some(copy) }
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.copy.as_ref().unwrap().as_fd()
    }

    /// Waits until nobody has a copy.
    fn wait_closed(mut self) {
        self.copy = None;
        wait_for(&self.end, PollFlags::HUP);
    }
}

/// Waits until `is_so`, for what cannot be waited for otherwise.
fn eventually(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "it does not come");
        std::thread::yield_now();
    }
}
