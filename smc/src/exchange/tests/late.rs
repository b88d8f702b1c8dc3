//! Answers that do not come, or come late. An acceptor that gives up must know that the connector has not gone ahead.

use super::*;

use std::sync::atomic::AtomicUsize;

use rustix::io::Errno;

use crate::exchange::poller::Poller;
use crate::exchange::worker::{Command, Next, Slot, Worker};
use crate::wire::clc::Kind;

#[test]
fn a_connector_waits_so_long_for_an_accept() {
    let connector = End::with(impatient());
    let tuple = new_tuple();
    connector.service.offer(1, tuple).unwrap();
    let stranger = Stranger::seeking(tuple);
    stranger.receive().expect("a proposal");
    assert_eq!(stranger.receive_decline(), DeclineReason::CONFIRM_LINK_TIMEOUT);
    assert_eq!(connector.host.wait_declined(1), (DeclineReason::CONFIRM_LINK_TIMEOUT, false));
}

#[test]
fn an_acceptor_waits_so_long_for_a_proposal() {
    let acceptor = End::with(impatient());
    let stranger = Stranger::found_by(&acceptor, 1);
    assert_eq!(stranger.receive_decline(), DeclineReason::CONFIRM_LINK_TIMEOUT);
    assert_eq!(acceptor.host.wait_declined(1), (DeclineReason::CONFIRM_LINK_TIMEOUT, false));
}

#[test]
fn an_acceptor_waits_so_long_for_a_confirm_and_others_wait_with_it() {
    let acceptor = End::with(impatient());
    let gid = Gid(0xabc);
    let first = Stranger::found_by(&acceptor, 1);
    first.propose(gid);
    first.receive_accept();
    let second = Stranger::found_by(&acceptor, 2);
    second.propose(gid);
    assert_eq!(first.receive_decline(), DeclineReason::CONFIRM_LINK_TIMEOUT);
    assert_eq!(acceptor.host.wait_declined(1), (DeclineReason::CONFIRM_LINK_TIMEOUT, false));
    assert_eq!(acceptor.host.wait_declined(2), (DeclineReason::CONFIRM_LINK_TIMEOUT, false));
    let mut last = second.receive();
    if let Some((Envelope { message: Message::Accept(_), .. }, _)) = last {
        // Its own time was not over when the first one's was.
        last = second.receive();
    }
    assert!(matches!(last, Some((Envelope { message: Message::Decline(_), .. }, None))), "{last:?}");
}

/// A worker without a thread: it sees only what it is shown.
struct Still {
    worker: Worker,
    host: Arc<Recorder>,
    /// What the worker sleeps in, to see what it would see.
    bed: crate::exchange::poller::Bed,
}

impl Still {
    fn new(settings: Settings) -> Self {
        let host = Arc::new(Recorder::default());
        let poller = Poller::new().unwrap();
        let bed = poller.bed();
        let worker = Worker::new(Arc::new(settings), host.clone(), poller, Gid(1));
        Self { worker, host, bed }
    }

    fn command(&mut self, command: Command) -> Next {
        self.worker.turn(&[crate::exchange::poller::WAKE], || vec![command])
    }

    /// As if nothing had happened but that time has passed.
    fn look_at_the_clock(&mut self) -> Next {
        self.worker.turn(&[], Vec::new)
    }

    fn work(&mut self) -> Next {
        let mut ready = Vec::new();
        self.bed.sleep(Some(PATIENCE), &mut ready).unwrap();
        assert_ne!(ready, [0_u64; 0], "nothing happens");
        self.worker.turn(&ready, Vec::new)
    }

    /// An acceptor that has found a stranger.
    fn acceptor(settings: Settings) -> (Self, Stranger) {
        let mut still = Self::new(settings);
        let tuple = new_tuple();
        let bound = Rendezvous::new().wait_at(tuple, 1).unwrap();
        let link = Link::new(Rendezvous::new().go_to(tuple).unwrap(), own_uid()).unwrap();
        let socket = accept_with(&bound.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).unwrap();
        let slot = Slot::take(&Arc::new(AtomicUsize::new(0)), 1).unwrap();
        still.command(Command::Seek { key: 1, tuple: tuple.reversed(), link, slot });
        (still, Stranger::new(Private::keep(socket).unwrap(), tuple))
    }
}

/// Joins the connection that was accepted.
fn join(accept: &Accept, named: Named, memory: OwnedFd) -> Connection {
    let Endpoint::Shared(theirs) = accept.endpoint else { panic!("{accept:?}") };
    Arc::new(crate::arena::Arena::attach(memory, named.geometry, named.id).unwrap()).join(theirs.token.0).unwrap()
}

#[test]
fn a_confirm_that_was_sent_in_time_counts_though_it_is_read_late() {
    let (mut acceptor, stranger) = Still::acceptor(Settings { answer_limit: Duration::from_millis(100), ..settings() });
    stranger.propose(Gid(5));
    acceptor.work();
    let (accept, named, memory) = stranger.receive_accept();
    let connection = join(&accept, named, memory.unwrap());
    stranger.send(confirm(Gid(5), connection.own_token()), None, None);
    // Nobody has told the acceptor when its time is over.
    eventually(|| acceptor_is_through(&mut acceptor));
    let heard = acceptor.host.heard_of(1);
    assert_eq!(heard, [Heard::Prepare(1), Heard::Establish(1)]);
    // And the channel stands.
    assert!(!stranger.link.has_hung_up());
    assert_eq!(acceptor.look_at_the_clock(), Next::Sleep(None));
}

fn acceptor_is_through(acceptor: &mut Still) -> bool {
    acceptor.look_at_the_clock() == Next::Sleep(None)
}

#[test]
fn once_an_acceptor_has_given_up_a_confirm_cannot_be_sent() {
    let (mut acceptor, stranger) = Still::acceptor(impatient());
    stranger.propose(Gid(5));
    acceptor.work();
    let (accept, named, memory) = stranger.receive_accept();
    let connection = join(&accept, named, memory.unwrap());
    eventually(|| acceptor_is_through(&mut acceptor));
    assert_eq!(acceptor.host.wait_declined(1), (DeclineReason::CONFIRM_LINK_TIMEOUT, false));
    let message = Envelope { message: confirm(Gid(5), connection.own_token()), arena: None };
    let sent = stranger.link.send(&message, None, &stranger.host, stranger.tuple);
    assert_eq!(sent, Err(Errno::PIPE));
}

/// A host at whose acceptor a confirm arrives at the worst moment: when giving up is decided, and the socket not yet closed.
#[derive(Default)]
struct Interrupted {
    recorder: Recorder,
    confirm: Mutex<Option<(Stranger, Message)>>,
    sent: Mutex<Option<Result<(), Errno>>>,
}

impl Host for Interrupted {
    fn prepare(&self, key: u64, connection: Connection, peer: Gid) -> bool {
        self.recorder.prepare(key, connection, peer)
    }

    fn establish(&self, key: u64) {
        self.recorder.establish(key);
    }

    fn decline(&self, key: u64, reason: DeclineReason, by_peer: bool) {
        self.recorder.decline(key, reason, by_peer);
    }

    fn observe(&self, _: Tuple, direction: Direction, message: &[u8]) {
        if (direction, message[4]) == (Direction::Sent, Kind::DECLINE.0) {
            let (stranger, message) = self.confirm.lock().unwrap().take().expect("declined once");
            let envelope = Envelope { message, arena: None };
            let sent = stranger.link.send(&envelope, None, &stranger.host, stranger.tuple);
            *self.sent.lock().unwrap() = Some(sent);
        }
    }
}

#[test]
fn a_confirm_that_comes_while_the_acceptor_gives_up_is_refused_to_its_sender() {
    let host = Arc::new(Interrupted::default());
    let acceptor = Service::start(impatient(), host.clone());
    let tuple = new_tuple();
    let bound = Rendezvous::new().wait_at(tuple, 1).unwrap();
    let mut confirm_at = host.confirm.lock().unwrap();
    assert!(acceptor.seek(1, tuple.reversed()));
    let socket = accept_with(&bound.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).unwrap();
    let stranger = Stranger::new(Private::keep(socket).unwrap(), tuple);
    stranger.propose(Gid(5));
    let (accept, named, memory) = stranger.receive_accept();
    let connection = join(&accept, named, memory.unwrap());
    *confirm_at = Some((stranger, confirm(Gid(5), connection.own_token())));
    drop(confirm_at);
    assert_eq!(host.recorder.wait_declined(1), (DeclineReason::CONFIRM_LINK_TIMEOUT, false));
    assert_eq!(*host.sent.lock().unwrap(), Some(Err(Errno::PIPE)));
}

#[test]
fn who_has_nothing_to_wait_for_sleeps_until_woken() {
    let (mut acceptor, stranger) = Still::acceptor(settings());
    assert!(matches!(acceptor.look_at_the_clock(), Next::Sleep(Some(limit)) if limit <= PATIENCE));
    stranger.propose(Gid(5));
    acceptor.work();
    let (accept, named, memory) = stranger.receive_accept();
    let connection = join(&accept, named, memory.unwrap());
    stranger.send(confirm(Gid(5), connection.own_token()), None, None);
    assert_eq!(acceptor.work(), Next::Sleep(None));
    drop(stranger);
    assert_eq!(acceptor.work(), Next::Sleep(None));
    let mut ready = Vec::new();
    acceptor.bed.sleep(Some(Duration::ZERO), &mut ready).unwrap();
    assert_eq!(ready, [0_u64; 0], "the channel that has hung up is not watched any more");
}

#[test]
fn a_connector_that_cannot_confirm_does_not_go_ahead() {
    let mut connector = Still::new(settings());
    let tuple = new_tuple();
    let bound = Rendezvous::new().wait_at(tuple, 1).unwrap();
    let slot = Slot::take(&Arc::new(AtomicUsize::new(0)), 1).unwrap();
    connector.command(Command::Offer { key: 1, tuple, bound, slot });
    let stranger = Stranger::seeking(tuple);
    connector.work();
    stranger.receive().expect("a proposal");
    let (arena, memory) = crate::arena::Arena::create(GEOMETRY, 9).unwrap();
    let claimed = Arc::new(arena).claim(3).unwrap();
    let named = Named { id: 9, geometry: GEOMETRY, has_memory: true };
    stranger.send(accept(Gid(5), claimed.own_token(), true), Some(named), Some(memory.as_fd()));
    stranger.link.stop_receiving();
    connector.work();
    assert_eq!(connector.host.heard_of(1), [Heard::Prepare(1), Heard::Decline(1, DeclineReason::PEER_DECLINED, true)]);
}
