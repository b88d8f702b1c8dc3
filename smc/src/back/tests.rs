//! Two ends that switch, ring, send, receive, and leave, in any order, against a stream of bytes each way.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::arena::{Arena, Geometry};
use crate::ring::{PROGRESS, Progress};
use crate::shared_memory::Source as Bytes;

const GEOMETRY: Geometry = Geometry { capacity: 4, ring_bytes: 16_384 };

/// One direction of TCP.
#[derive(Debug, Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    room: usize,
}

/// An end's TCP.
#[derive(Clone, Debug)]
struct Tcp {
    out: Rc<RefCell<Pipe>>,
    into: Rc<RefCell<Pipe>>,
}

impl Stream for Tcp {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let mut pipe = self.out.borrow_mut();
        let sent = bytes.len().min(pipe.room - pipe.bytes.len());
        pipe.bytes.extend(&bytes[..sent]);
        Ok(sent)
    }

    fn receive(&mut self, bytes: &mut [u8], is_peek: bool) -> Result<Option<usize>, Errno> {
        let mut pipe = self.into.borrow_mut();
        let length = bytes.len().min(pipe.bytes.len());
        for (to, from) in bytes.iter_mut().zip(&pipe.bytes) {
            *to = *from;
        }
        if !is_peek {
            pipe.bytes.drain(..length);
        }
        Ok((length > 0).then_some(length))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Tcp,
    Ring,
    Answering,
    TcpAgain,
}

#[derive(Debug, Default)]
enum Leaving {
    #[default]
    No,
    Recalls(Recall),
    /// Its own direction is left; it receives over TCP already.
    GoesBack,
    Gone,
}

struct End {
    connection: Connection,
    progress: [AtomicU64; PROGRESS],
    answer: [AtomicU64; 3],
    tcp: Tcp,
    sending: Sending,
    sent_over_tcp: u64,
    received_over_tcp: u64,
    bells_taken: u64,
    is_marked: bool,
    leaving: Leaving,
    sent: VecDeque<u8>,
    next: u8,
}

impl fmt::Debug for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sending, leaving, is_marked, received_over_tcp, .. } = self;
        let (there, back) = (self.tcp.out.borrow().bytes.len(), self.connection.has_peer_gone_back());
        let source = source(&self.rings(), *received_over_tcp, *is_marked);
        let stage = if let Leaving::Recalls(recall) = leaving { recall.stage } else { Stage::New };
        let is_gone = self.is_plain();
        write!(formatter, "{sending:?} {there} in TCP, {source:?}, {stage:?}, peer back {back}, gone {is_gone}")
    }
}

impl End {
    fn new(connection: Connection, tcp: Tcp) -> Self {
        Self {
            connection,
            progress: Default::default(),
            answer: Default::default(),
            tcp,
            sending: Sending::Tcp,
            sent_over_tcp: 0,
            received_over_tcp: 0,
            bells_taken: 0,
            is_marked: false,
            leaving: Leaving::No,
            sent: VecDeque::new(),
            next: 0,
        }
    }

    fn rings(&self) -> Rings<'_> {
        Rings::new(&self.connection, Progress::new(&self.progress))
    }

    /// Whether nothing but TCP is left: what a program would see that knows of nothing else.
    fn is_plain(&self) -> bool {
        matches!(self.leaving, Leaving::Gone)
    }

    fn switch(&mut self) {
        // Who was asked while it sent over TCP has sending go on there.
        if self.sending == Sending::Tcp {
            self.connection.switch_sending(self.sent_over_tcp);
            self.sending = Sending::Ring;
        }
    }

    fn send(&mut self, length: usize) {
        let bytes: Vec<u8> = (0..length).map(|at| self.next.wrapping_add(at as u8)).collect();
        let sent = match self.sending {
            Sending::Tcp | Sending::TcpAgain => self.tcp.send(&bytes).unwrap(),
            Sending::Ring => self.rings().send(&[Bytes::new(&bytes)], 0).unwrap(),
            Sending::Answering => 0,
        };
        if self.sending == Sending::Tcp {
            self.sent_over_tcp += sent as u64;
        }
        self.next = self.next.wrapping_add(sent as u8);
        self.sent.extend(&bytes[..sent]);
    }

    fn ring_bell(&mut self) {
        if self.sending == Sending::Ring && self.tcp.send(&[BELL]).unwrap() == 1 {
            self.connection.count_bell();
        }
    }

    fn take_bells(&mut self) {
        let is_behind = self.connection.peer_switch().is_some_and(|switch| self.received_over_tcp >= switch);
        if !is_behind || self.is_marked || !matches!(self.leaving, Leaving::No) {
            return;
        }
        let mut bytes = vec![0; doorbells(&self.connection, self.bells_taken)];
        if let Some(taken) = self.tcp.receive(&mut bytes, false).unwrap() {
            self.bells_taken += taken as u64;
            let (last, before) = bytes[..taken].split_last().unwrap();
            assert!(before.iter().all(|byte| *byte == BELL) && *last <= MARK, "took more than doorbells");
            self.is_marked = *last == MARK;
        }
    }

    fn receive(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut got = 0;
        if matches!(self.leaving, Leaving::GoesBack | Leaving::Gone) {
            got = self.tcp.receive(&mut bytes, false).unwrap().unwrap_or(0);
        } else if matches!(self.leaving, Leaving::Recalls(_)) {
            // Nobody receives meanwhile.
        } else {
            match source(&self.rings(), self.received_over_tcp, self.is_marked) {
                Source::Tcp(limit) => {
                    let limit = limit.min(length as u64) as usize;
                    got = self.tcp.receive(&mut bytes[..limit], false).unwrap().unwrap_or(0);
                    self.received_over_tcp += got as u64;
                }
                Source::Ring => got = self.rings().receive(&[Target::new(&mut bytes)], 0).unwrap().0,
                Source::Mark => self.take_bells(),
                Source::TcpAgain => got = self.tcp.receive(&mut bytes, false).unwrap().unwrap_or(0),
            }
        }
        bytes.truncate(got);
        bytes
    }

    /// What the service does.
    fn serve(&mut self) {
        if self.is_plain() {
            return;
        }
        if !matches!(self.sending, Sending::Answering | Sending::TcpAgain)
            && is_asked(&self.connection)
            && accept(&self.connection)
        {
            self.sending = if self.sending == Sending::Tcp { Sending::TcpAgain } else { Sending::Answering };
        }
        if self.sending == Sending::Answering {
            let step = Answer::new(&self.answer).step(&self.rings(), &mut self.tcp.clone()).unwrap();
            if step == Step::Done {
                self.sending = Sending::TcpAgain;
            }
        }
    }

    fn leave(&mut self) {
        let mut tcp = self.tcp.clone();
        match std::mem::take(&mut self.leaving) {
            Leaving::No if self.connection.has_peer_gone_back() => {
                // What it has put into the ring must be read first, by whoever has the ring.
                self.take_bells();
                if source(&self.rings(), self.received_over_tcp, self.is_marked) == Source::TcpAgain {
                    self.leaving = Leaving::GoesBack;
                }
            }
            Leaving::No => self.leaving = Leaving::Recalls(Recall::default()),
            Leaving::Recalls(mut recall) => {
                if self.connection.has_peer_gone_back() && recall.cancel(&self.connection) {
                    return;
                }
                let step = recall.step(&self.rings(), &mut tcp, self.received_over_tcp).unwrap();
                self.leaving = if step == Step::Done { Leaving::GoesBack } else { Leaving::Recalls(recall) };
            }
            Leaving::GoesBack => self.leaving = self.leave_sending(),
            Leaving::Gone => self.leaving = Leaving::Gone,
        }
    }

    fn leave_sending(&mut self) -> Leaving {
        self.serve();
        match self.sending {
            Sending::TcpAgain => return Leaving::Gone,
            Sending::Answering => return Leaving::GoesBack,
            Sending::Tcp => self.sending = Sending::TcpAgain,
            Sending::Ring => self.sending = Sending::Answering,
        }
        go_back(&self.rings(), Answer::new(&self.answer));
        Leaving::GoesBack
    }
}

fn world(random: &mut SmallRng) -> [End; 2] {
    let (acceptor, memory) = Arena::create(GEOMETRY, 7).unwrap();
    let connector = Arc::new(Arena::attach(memory, GEOMETRY, 7).unwrap());
    let one = Arc::new(acceptor).claim(3).unwrap();
    let other = connector.join(one.own_token()).unwrap();
    let pipe = |random: &mut SmallRng| {
        Rc::new(RefCell::new(Pipe { bytes: VecDeque::new(), room: [50, 3000, 60_000][random.random_range(0..3)] }))
    };
    let (there, back) = (pipe(random), pipe(random));
    let tcp = Tcp { out: there.clone(), into: back.clone() };
    let peers = Tcp { out: back, into: there };
    [End::new(one, tcp), End::new(other, peers)]
}

/// What `ends[at]` receives is what the other has sent, as far as it goes.
fn receive(ends: &mut [End; 2], at: usize, length: usize) -> usize {
    let bytes = ends[at].receive(length);
    for byte in &bytes {
        assert_eq!(Some(*byte), ends[1 - at].sent.pop_front(), "end {at} received what was not sent");
    }
    bytes.len()
}

fn is_stuck_by_the_law(end: &End) -> bool {
    // The peer has left, and what it has put into the ring is for whoever has the ring.
    matches!(end.leaving, Leaving::No) && end.connection.has_peer_gone_back()
}

/// Runs one world; whether both ends left.
fn run(seed: u64) -> [bool; 2] {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut ends = world(&mut random);
    let wants: [bool; 2] = [random.random_bool(0.8), random.random_bool(0.5)];
    let from = [random.random_range(0..400), random.random_range(0..400)];
    let switches = [random.random_range(0..200), random.random_range(0..200)];
    for step in 0..2000 {
        let at = random.random_range(0..2);
        let length = [1, 10, 700, 9000, 40_000][random.random_range(0..5)];
        for (end, when) in switches.iter().enumerate() {
            if step == *when {
                ends[end].switch();
            }
        }
        match random.random_range(0..7) {
            0 | 1 => ends[at].send(length),
            2 => drop(receive(&mut ends, at, length)),
            3 => ends[at].ring_bell(),
            4 => ends[at].take_bells(),
            5 => ends[at].serve(),
            _ if wants[at] && step >= from[at] => ends[at].leave(),
            _ => {}
        }
    }
    // All that was sent arrives, if everybody goes on.
    for _ in 0..20_000 {
        for at in 0..2 {
            ends[at].serve();
            if !matches!(ends[at].leaving, Leaving::No) || wants[at] {
                ends[at].leave();
            }
            receive(&mut ends, at, 5000);
        }
        if ends.iter().all(|end| end.sent.is_empty() && (!matches!(end.leaving, Leaving::Recalls(_)))) {
            break;
        }
    }
    for at in 0..2 {
        let left = ends[1 - at].sent.len();
        assert_eq!(left, 0, "seed {seed}: end {at} did not get the last {left} bytes: {ends:?}");
        let has_left = ends[at].is_plain() || !wants[at] || is_stuck_by_the_law(&ends[at]);
        assert!(has_left || matches!(ends[at].leaving, Leaving::No | Leaving::GoesBack), "seed {seed}: end {at}");
    }
    [ends[0].is_plain(), ends[1].is_plain()]
}

#[test]
fn no_byte_is_lost_repeated_or_out_of_order_whoever_leaves_when() {
    let start: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut left = [0; 4];
    for seed in start..start + 200 {
        let outcome = std::panic::catch_unwind(|| run(seed));
        let both = outcome.unwrap_or_else(|_| panic!("SEED={seed} shows it"));
        left[usize::from(both[0]) + 2 * usize::from(both[1])] += 1;
    }
    assert!(left.iter().all(|count| *count > 3), "nobody, one, the other, both have left: {left:?}");
}

#[test]
fn a_question_that_is_taken_back_changes_nothing() {
    let mut random = SmallRng::seed_from_u64(1);
    let [mut one, mut other] = world(&mut random);
    other.switch();
    other.send(100);
    let mut recall = Recall::default();
    assert_eq!(recall.step(&one.rings(), &mut one.tcp.clone(), 0), Ok(Step::Peer));
    assert!(is_asked(&other.connection));
    assert!(recall.cancel(&one.connection));
    other.serve();
    other.send(100);
    assert_eq!(other.sending, Sending::Ring);
    assert_eq!(one.receive(300).len(), 200);
    // Once it is answered it is too late.
    let mut recall = Recall::default();
    assert_eq!(recall.step(&one.rings(), &mut one.tcp.clone(), 0), Ok(Step::Peer));
    other.serve();
    assert!(!recall.cancel(&one.connection));
    assert_eq!(recall.step(&one.rings(), &mut one.tcp.clone(), 0), Ok(Step::Done));
}

#[test]
fn a_peer_that_asks_for_more_than_there_is_gets_nothing() {
    let mut random = SmallRng::seed_from_u64(1);
    let [one, mut other] = world(&mut random);
    other.switch();
    let _ = Recall::default().step(&one.rings(), &mut one.tcp.clone(), 0);
    other.serve();
    for (from, to) in [(0, 16_385), (5, 4), (u64::MAX, 7)] {
        let range = one.connection.recall_range(true);
        range[0].store(from, Ordering::SeqCst);
        range[1].store(to, Ordering::SeqCst);
        one.connection.recall(true).store(recall::FOR_GOOD, Ordering::SeqCst);
        let step = Answer::new(&other.answer).step(&other.rings(), &mut other.tcp.clone());
        assert_eq!(step, Err(Errno::CONNRESET), "{from} to {to}");
    }
}

#[test]
fn what_an_end_has_left_is_the_others_until_it_leaves_too() {
    let (acceptor, memory) = Arena::create(GEOMETRY, 7).unwrap();
    let (acceptor, connector) = (Arc::new(acceptor), Arc::new(Arena::attach(memory, GEOMETRY, 7).unwrap()));
    let one = acceptor.claim(3).unwrap();
    let other = connector.join(one.own_token()).unwrap();
    let [ours, theirs]: [[AtomicU64; PROGRESS]; 2] = Default::default();
    let answer: [AtomicU64; 3] = Default::default();
    let rings = Rings::new(&other, Progress::new(&theirs));
    assert_eq!(rings.send(&[Bytes::new(&[9; 5000])], 0), Ok(5000));
    go_back(&Rings::new(&one, Progress::new(&ours)), Answer::new(&answer));
    drop(one);
    let mut bytes = [0; 5000];
    rings.read_sent(0, &mut bytes);
    assert_eq!(bytes, [9; 5000], "the other may have to send it once more");
    assert_eq!(acceptor.claim(4).unwrap().index(), 1, "the first is still in use");
    drop(other);
    let indices = [5, 6].map(|random| acceptor.claim(random).unwrap().index());
    assert!(indices.contains(&0), "nobody has the first any more: {indices:?}");
}
