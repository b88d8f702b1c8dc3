//! Ports that fail for a while: what was said stays said, nobody spins meanwhile (the hosts of [`network`] check that), and
//! behind it everything goes on within a timeout.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::network::app::{ECHO, SINK, WELL};
use super::network::{Network, Nobody};
use crate::memory_port::Impairments;
use crate::port::LinkState;
use crate::softrdma::SoftrdmaConfig;
use crate::stream::StreamId;
use crate::time::Instant;

const SEEDS: u64 = 5;
/// How long a fault lasts at most.
const LONGEST: Duration = Duration::from_millis(20);
/// RFC 6298 §2.1: a SYN that was lost leaves again after so long.
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);
/// The shortest timeout, twice, and a few round trips.
const SLACK: Duration = Duration::from_millis(3);

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The pool of frames is empty.
    Dry,
    /// The transmit ring takes nothing.
    Full,
    /// Nothing is received.
    Deaf,
    /// Nothing is received or sent.
    Dead,
    /// What is sent vanishes, both ways.
    Cut,
}

const FAULTS: [Fault; 5] = [Fault::Dry, Fault::Full, Fault::Deaf, Fault::Dead, Fault::Cut];

/// One run: which port fails how, and for how long.
#[derive(Clone, Copy, Debug)]
struct Case {
    seed: u64,
    fault: Fault,
    host: usize,
    time: Duration,
    is_split: bool,
}

impl Case {
    fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for seed in 1..=SEEDS {
            let mut random = SmallRng::seed_from_u64(seed);
            for fault in FAULTS {
                for is_split in [false, true] {
                    let host = random.random_range(0..2);
                    let time = random.random_range(Duration::from_micros(50)..LONGEST);
                    cases.push(Self { seed, fault, host, time, is_split });
                }
            }
        }
        cases
    }

    fn network(&self) -> Network {
        let impairments = Impairments {
            delay: Duration::from_micros(5),
            rate_bits_per_second: Some(2_500_000_000),
            ..Impairments::default()
        };
        let mut network = Network::new();
        for host in 1..=2 {
            let config = SoftrdmaConfig {
                addresses: vec![([10, 0, 0, host].into(), 24)],
                random_seed: self.seed << 8 | u64::from(host),
                receive_window_bytes: 128 << 10,
                ..SoftrdmaConfig::default()
            };
            network.add_host(config, impairments, self.is_split);
        }
        network
    }

    /// Somewhere in the midst of a few round trips.
    fn moment(&self) -> Duration {
        let mut random = SmallRng::seed_from_u64(self.seed ^ 0x5eed);
        random.random_range(Duration::ZERO..Duration::from_micros(60))
    }

    fn set(&self, network: &Network, fails: bool) {
        let faults = &network.hosts[self.host].faults;
        let is = |of: &[Fault]| fails && of.contains(&self.fault);
        faults.is_dry.store(is(&[Fault::Dry]), Ordering::Relaxed);
        faults.is_full.store(is(&[Fault::Full, Fault::Dead]), Ordering::Relaxed);
        faults.is_deaf.store(is(&[Fault::Deaf, Fault::Dead]), Ordering::Relaxed);
        let state = if is(&[Fault::Cut]) { LinkState::Down } else { LinkState::Up };
        network.wire(self.host).set_link(state);
    }

    /// How long after the fault everything has gone on. Without losses that is a matter of round trips. Where everything was lost,
    /// RFC 6298 §5.5 has doubled the timeout: the one that is running then is no longer than the fault was, and a first one.
    fn bound(&self) -> Duration {
        if self.fault == Fault::Cut { self.time + SLACK } else { SLACK }
    }

    /// The port fails for its time.
    fn happen(&self, network: &mut Network) {
        self.set(network, true);
        let end = network.now + self.time;
        self.run_until(network, end, |_| true);
        self.set(network, false);
    }

    fn run_until(&self, network: &mut Network, end: Instant, goes_on: impl Fn(&Network) -> bool) {
        network.run_while(end, &mut Nobody, |network| {
            self.check(network);
            goes_on(network)
        });
    }

    /// Nothing is acknowledged that did not reach the application.
    fn check(&self, network: &Network) {
        for (host, other) in [(0, 1), (1, 0)] {
            for flow in network.hosts[host].app.flows.values() {
                let received = network.hosts[other].app.of_port(flow.port).map_or(0, |peer| peer.received);
                assert!(flow.out.acknowledged <= received, "{self:?}: {flow:?}, {received} received");
                assert!(flow.failed.is_none(), "{self:?}: {flow:?}");
            }
        }
    }
}

/// What has arrived so far: at the sink, from the well, and answers.
fn arrived(network: &mut Network, [sink, well, echo]: [StreamId; 3]) -> [u64; 3] {
    let port = network.hosts[0].app.flow(sink).port;
    let at_sink = network.hosts[1].app.of_port(port).map_or(0, |flow| flow.received);
    let app = &mut network.hosts[0].app;
    [at_sink, app.flow(well).received, app.flow(echo).answers.len() as u64]
}

#[test]
fn in_the_midst_of_traffic_everything_goes_on_within_a_timeout() {
    for case in Case::all() {
        let mut network = case.network();
        let streams = [SINK, WELL, ECHO].map(|service| network.connect(service));
        let begin = network.now + Duration::from_millis(2) + case.moment();
        case.run_until(&mut network, begin, |_| true);
        let before = arrived(&mut network, streams);
        assert!(before.iter().all(|count| *count > 0), "{case:?}: {before:?}");
        case.happen(&mut network);
        let meanwhile = arrived(&mut network, streams);
        let end = network.now + case.bound();
        case.run_until(&mut network, end, |_| true);
        let after = arrived(&mut network, streams);
        let has_moved = meanwhile.iter().zip(after).all(|(meanwhile, after)| *meanwhile < after);
        assert!(has_moved, "{case:?}: {before:?}, {meanwhile:?}, {after:?}");
        // And nearly as fast as before: of 10 ms a few go into slow start.
        let end = network.now + Duration::from_millis(10);
        case.run_until(&mut network, end, |_| true);
        let moved = arrived(&mut network, streams)[0] - after[0];
        assert!(moved > 1_500_000, "{case:?}: {moved} bytes in 10 ms");
    }
}

#[test]
fn connections_begin_within_the_timeout_of_a_syn() {
    const BYTES: u64 = 10_000;
    for case in Case::all() {
        let mut network = case.network();
        let before = if case.seed % 2 == 0 { Duration::ZERO } else { case.moment() };
        for _ in 0..3 {
            let stream = network.connect(SINK);
            network.hosts[0].app.limit(stream, BYTES);
        }
        let begin = network.now + before;
        case.run_until(&mut network, begin, |_| true);
        case.happen(&mut network);
        let end = network.now + FIRST_TIMEOUT + SLACK;
        let has_arrived = |network: &Network| {
            let flows = network.hosts[1].app.flows.values();
            flows.filter(|flow| flow.received == BYTES).count() == 3
        };
        case.run_until(&mut network, end, |network| !has_arrived(network));
        assert!(has_arrived(&network), "{case:?}: {:?}", network.hosts[1].app);
    }
}

#[test]
fn connections_end_in_order_and_whole() {
    for case in Case::all() {
        let mut network = case.network();
        let stream = network.connect(SINK);
        let begin = network.now + Duration::from_millis(2);
        case.run_until(&mut network, begin, |_| true);
        network.close(0, stream);
        let begin = network.now + case.moment();
        case.run_until(&mut network, begin, |_| true);
        case.set(&network, true);
        let (over, mut is_over) = (network.now + case.time, false);
        let end = over + case.bound();
        while network.now < end && !network.hosts[0].app.flow(stream).is_closed {
            let next = network.now + Duration::from_micros(20);
            case.run_until(&mut network, next, |_| true);
            if network.now >= over && !std::mem::replace(&mut is_over, true) {
                case.set(&network, false);
            }
            // The other end ends as well.
            let ended = network.hosts[1].app.flows.values().find(|flow| flow.has_peer_closed).map(|flow| flow.stream);
            if let Some(ended) = ended {
                network.close(1, ended);
            }
        }
        case.set(&network, false);
        let port = network.hosts[0].app.flow(stream).port;
        let ours = network.hosts[0].app.flow(stream);
        assert!(ours.is_closed, "{case:?}: {ours:?}");
        let sent = ours.out.acknowledged;
        network.run(Duration::from_millis(2), &mut Nobody);
        let theirs = network.hosts[1].app.of_port(port).expect("the other end");
        assert!(theirs.is_closed && theirs.received == sent && sent > 0, "{case:?}: {sent} sent, {theirs:?}");
    }
}
