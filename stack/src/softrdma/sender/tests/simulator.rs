//! A sender, a peer and a path between them on a virtual clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::softrdma::config::CongestionControl;
use crate::softrdma::sender::{Acknowledged, Established, Sender, SenderConfig, TimeoutOutcome, Transmission};
use crate::time::Instant;

/// Bytes of payload in a segment.
pub(super) const SEGMENT: usize = 1448;
/// Bytes around it: preamble, Ethernet, IPv4, TCP with timestamps, gap between frames.
const OVERHEAD: usize = 90;
/// What a run may take in virtual time.
const PATIENCE: Duration = Duration::from_secs(600);

/// Which data packets are lost on the way, beside those that find the queue full.
#[derive(Clone, Copy, Debug)]
pub(super) enum Loss {
    Never,
    /// Each with this probability.
    Random(f64),
    /// So many in a row, once in so many packets on average.
    Bursts {
        length: u64,
        once_in: u64,
    },
}

/// The way to the peer and back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    pub(super) bits_per_second: u64,
    pub(super) round_trip: Duration,
    pub(super) queue_packets: u64,
    pub(super) loss: Loss,
    /// How many data packets take how much longer.
    pub(super) late: (f64, Duration),
    pub(super) duplicated: f64,
    pub(super) acknowledgements_lost: f64,
}

impl Path {
    /// 1 Gbit/s without a fault.
    pub(super) const fn good(round_trip: Duration) -> Self {
        Self {
            bits_per_second: 1_000_000_000,
            round_trip,
            queue_packets: 1000,
            loss: Loss::Never,
            late: (0.0, Duration::ZERO),
            duplicated: 0.0,
            acknowledgements_lost: 0.0,
        }
    }

    /// Bytes of payload that it carries in a second.
    pub(super) fn capacity(&self) -> f64 {
        self.bits_per_second as f64 / 8.0 * SEGMENT as f64 / (SEGMENT + OVERHEAD) as f64
    }

    fn serialization(&self, length: u32) -> Duration {
        Duration::from_nanos((u64::from(length) + OVERHEAD as u64) * 8_000_000_000 / self.bits_per_second)
    }
}

/// The receiving end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) sack: bool,
    /// It acknowledges every second segment, and the last after so long.
    pub(super) delay: Option<Duration>,
    pub(super) window_bytes: u64,
}

impl Default for Peer {
    fn default() -> Self {
        Self { sack: true, delay: None, window_bytes: 16 << 20 }
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) bytes_per_second: f64,
    pub(super) segments: u64,
    pub(super) retransmitted: u64,
    pub(super) timeouts: u64,
    /// Packets that the path lost, its queue included.
    pub(super) lost: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Data { start: u64, length: u32 },
    Acknowledgement { through: u64, sack: Vec<(u64, u64)>, duplicate: Option<(u64, u64)> },
    PeerTimer,
}

/// See the [module](self).
pub(super) struct Simulator {
    pub(super) sender: Sender,
    path: Path,
    peer: Peer,
    random: StdRng,
    now: Instant,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    count: u64,
    link_free: Instant,
    burst_left: u64,
    total: u64,
    /// What the peer has: everything before, and stretches behind gaps.
    arrived: u64,
    behind: BTreeMap<u64, u64>,
    unacknowledged: u32,
    lost: u64,
    segments: u64,
}

impl Simulator {
    pub(super) fn new(control: CongestionControl, path: Path, peer: Peer, total: u64, seed: u64) -> Self {
        let now = Instant::from_nanoseconds(1_000_000_000);
        let config = SenderConfig {
            congestion_control: control,
            min_retransmission_timeout: Duration::from_millis(1),
            user_timeout: Duration::from_secs(75),
        };
        let established = Established {
            segment_size: SEGMENT,
            window_bytes: peer.window_bytes,
            sack: peer.sack,
            first_round_trip: Some(path.round_trip),
        };
        Self {
            sender: Sender::new(&config, now, established),
            path,
            peer,
            random: StdRng::seed_from_u64(seed),
            now,
            events: BinaryHeap::new(),
            count: 0,
            link_free: now,
            burst_left: 0,
            total,
            arrived: 0,
            behind: BTreeMap::new(),
            unacknowledged: 0,
            lost: 0,
            segments: 0,
        }
    }

    /// Sends everything; panics if something is wrong on the way.
    pub(super) fn run(mut self) -> Outcome {
        let begin = self.now;
        self.pump();
        while self.sender.acknowledged() < self.total {
            self.step();
            assert!(self.now.saturating_since(begin) < PATIENCE, "stuck at {}", self.sender.acknowledged());
            if self.count.is_multiple_of(512) {
                self.sender.check();
            }
        }
        self.sender.check();
        assert_eq!(self.arrived, self.total, "every byte is delivered");
        Outcome {
            bytes_per_second: self.total as f64 / self.now.saturating_since(begin).as_secs_f64(),
            segments: self.segments,
            retransmitted: self.sender.retransmitted_segments(),
            timeouts: self.sender.timeouts,
            lost: self.lost,
        }
    }

    /// The next thing that happens.
    fn step(&mut self) {
        let deadline = self.sender.next_deadline();
        let next = self.events.peek().map(|Reverse((at, ..))| Instant::from_nanoseconds(*at));
        match (deadline, next) {
            (Some(deadline), next) if next.is_none_or(|next| deadline < next) => {
                self.now = self.now.max(deadline);
                assert_ne!(self.sender.handle_timeout(self.now), TimeoutOutcome::GiveUp);
            }
            (_, Some(_)) => {
                let Reverse((at, _, event)) = self.events.pop().expect("peeked");
                self.now = self.now.max(Instant::from_nanoseconds(at));
                self.handle(event);
            }
            (None, None) | (Some(_), None) => panic!("nothing will ever happen"),
        }
        self.pump();
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Data { start, length } => self.handle_data(start, start + u64::from(length)),
            Event::PeerTimer if self.unacknowledged > 0 => self.acknowledge(None, None),
            Event::PeerTimer => {}
            Event::Acknowledgement { through, sack, duplicate } => {
                let ranges: Vec<Range<u64>> = sack.into_iter().map(|(start, end)| start..end).collect();
                let acknowledged = Acknowledged {
                    through,
                    window_end: through + self.peer.window_bytes,
                    sack: &ranges,
                    duplicate: duplicate.map(|(start, end)| start..end),
                    carries_data: false,
                };
                self.sender.handle_acknowledgement(self.now, &acknowledged);
            }
        }
    }

    /// The peer gets a segment.
    fn handle_data(&mut self, start: u64, end: u64) {
        let has_stretch = self.behind.range(..=start).next_back().is_some_and(|(_, until)| *until >= end);
        if end <= self.arrived || has_stretch {
            self.acknowledge(None, Some((start, end)));
            return;
        }
        let had_gap = !self.behind.is_empty();
        let (mut low, mut high) = (start.max(self.arrived), end);
        while let Some((&from, &until)) = self.behind.range(..=high).next_back()
            && until >= low
        {
            low = low.min(from);
            high = high.max(until);
            self.behind.remove(&from);
        }
        if low == self.arrived {
            self.arrived = high;
            self.unacknowledged += 1;
            match self.peer.delay {
                Some(delay) if !had_gap && self.unacknowledged < 2 => self.schedule(delay, Event::PeerTimer),
                _ => self.acknowledge(None, None),
            }
        } else {
            self.behind.insert(low, high);
            self.acknowledge(Some(low), None);
        }
    }

    fn acknowledge(&mut self, latest: Option<u64>, duplicate: Option<(u64, u64)>) {
        self.unacknowledged = 0;
        if self.random.random_bool(self.path.acknowledgements_lost) {
            return;
        }
        let (mut sack, mut reported) = (Vec::new(), None);
        if self.peer.sack {
            // RFC 2018 §4: three beside timestamps, the latest first; then the highest.
            reported = duplicate;
            let most = if reported.is_some() { 2 } else { 3 };
            sack.extend(latest.map(|latest| (latest, self.behind[&latest])));
            let others = self.behind.iter().rev().filter(|(start, _)| Some(**start) != latest);
            sack.extend(others.map(|(start, end)| (*start, *end)).take(most - sack.len()));
            sack.sort_unstable();
        }
        let through = self.arrived;
        let event = Event::Acknowledgement { through, sack, duplicate: reported };
        self.schedule(self.path.round_trip / 2, event);
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.count += 1;
        self.events.push(Reverse(((self.now + after).as_nanoseconds(), self.count, event)));
    }

    /// Everything that the sender may send now.
    fn pump(&mut self) {
        while let Some(transmission) = self.sender.poll_segment(self.now) {
            match transmission {
                Transmission::Retransmit { start, length } => {
                    assert!(start >= self.sender.acknowledged() && length as usize <= SEGMENT);
                    self.transmit(start, length);
                    self.sender.sent_again(start, length, self.now);
                }
                Transmission::New { room } => {
                    let start = self.sender.next_offset();
                    let length = (self.total - start).min(room as u64) as u32;
                    if length == 0 {
                        if self.sender.handle_drained(self.now) {
                            continue;
                        }
                        return;
                    }
                    self.transmit(start, length);
                    self.sender.sent_new(start, length, self.now);
                }
            }
        }
    }

    fn transmit(&mut self, start: u64, length: u32) {
        self.segments += 1;
        let took = self.path.serialization(length);
        let waits = self.link_free.saturating_since(self.now);
        if waits.as_nanos() > took.as_nanos() * u128::from(self.path.queue_packets) {
            self.lost += 1;
            return;
        }
        self.link_free = self.link_free.max(self.now) + took;
        if self.is_lost() {
            self.lost += 1;
            return;
        }
        let after = self.link_free.saturating_since(self.now) + self.path.round_trip / 2;
        let late = if self.random.random_bool(self.path.late.0) { self.path.late.1 } else { Duration::ZERO };
        self.schedule(after + late, Event::Data { start, length });
        if self.random.random_bool(self.path.duplicated) {
            self.schedule(after + took, Event::Data { start, length });
        }
    }

    fn is_lost(&mut self) -> bool {
        match self.path.loss {
            Loss::Never => false,
            Loss::Random(probability) => self.random.random_bool(probability),
            Loss::Bursts { length, once_in } => {
                if self.burst_left == 0 && self.random.random_bool(1.0 / once_in as f64) {
                    self.burst_left = length;
                }
                let is_lost = self.burst_left > 0;
                self.burst_left = self.burst_left.saturating_sub(1);
                is_lost
            }
        }
    }
}
