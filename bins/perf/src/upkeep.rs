//! What connections cost beside their traffic, seen from the client: a pair that does nothing, and connections that come and go.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::client::{ask, unexpected};
use crate::control::Control;
use crate::endpoint::{Endpoint, Queues};
use crate::failure::Failure;
use crate::message::{Greeting, Holdings, Reply, Request, VERSION};
use crate::report::{Connects, Ends, Idle};
use crate::statistics::Latencies;
use crate::usage;

/// Messages after a pause each, whose latency counts.
const FIRST_MESSAGES: u32 = 50;

/// The pause before such a message: long after a stack has fallen asleep. Each is a little longer than the one before it, so that
/// they meet different moments of a sleep.
const PAUSE: Duration = Duration::from_millis(20);
const LONGER: Duration = Duration::from_micros(37);

/// After so much is lost the rest is not tried.
const MOST_LOST: u32 = 5;

/// How long what ended may take to be forgotten at both sides.
const FORGET: Duration = Duration::from_secs(5);

/// Does nothing for `time`, then sends a few messages far apart.
pub(crate) fn idle(endpoint: &Endpoint, control: &mut Control, time: Duration) -> Result<Idle, Failure> {
    expect_ready(control, &Request::Sleep)?;
    // What it took to get here is not measured.
    std::thread::sleep(PAUSE);
    let before = [usage::holdings(&endpoint.device, None)?, holdings(control)?];
    let begun = Instant::now();
    std::thread::sleep(time);
    let after = [usage::holdings(&endpoint.device, None)?, holdings(control)?];
    let seconds = begun.elapsed().as_secs_f64();
    let percent = |end: usize| 100.0 * (after[end].cpu_seconds - before[end].cpu_seconds) / seconds;
    let (mut one_way, mut round_trips) = (Some(Latencies::new()), Latencies::new());
    for number in 0..FIRST_MESSAGES {
        std::thread::sleep(PAUSE + number * LONGER);
        let begun = usage::monotonic();
        let came = wake(control)?;
        let now = usage::monotonic();
        round_trips.record(Duration::from_nanos(now - begun));
        match &mut one_way {
            Some(one_way) if (begun..=now).contains(&came) => one_way.record(Duration::from_nanos(came - begun)),
            // The server is on another machine, with a clock of its own.
            _ => one_way = None,
        }
    }
    let cpu_percent = Ends { client: percent(0), server: percent(1) };
    let first_message_us = one_way.map(|one_way| one_way.summary());
    Ok(Idle { seconds, cpu_percent, first_message_us, first_round_trip_us: round_trips.summary() })
}

/// When the server's application woke.
pub(crate) fn wake(control: &mut Control) -> Result<u64, Failure> {
    match ask(control, &Request::Wake, "sign of life")? {
        Reply::Awake { at } => Ok(at),
        reply => Err(unexpected(&reply)),
    }
}

/// Connections that come and go.
pub(crate) struct Visitors<'a> {
    pub(crate) server: SocketAddr,
    /// The run's number, and how many other queue pairs it has.
    pub(crate) run: (u64, u32),
    pub(crate) queues: &'a Queues,
}

/// Makes and ends `count` connections.
pub(crate) fn connects(
    endpoint: &Endpoint,
    control: &mut Control,
    visitors: &Visitors<'_>,
    count: u32,
) -> Result<Connects, Failure> {
    let &Visitors { server, run: (session, queue_pairs), queues } = visitors;
    let before = both(endpoint, control)?;
    expect_ready(control, &Request::Connects)?;
    let (mut complete, mut lost) = (0, 0);
    let begun = Instant::now();
    while complete + lost < count && lost < MOST_LOST {
        let queue_pair = Some(queue_pairs.saturating_add(complete + lost));
        match endpoint.visit(server, &Greeting { softrdma_perf: VERSION, session, queue_pair }, queues) {
            Ok(()) => complete += 1,
            Err(failure) => {
                eprintln!("softrdma-perf: connection {} is lost: {failure}", complete + lost);
                lost += 1;
            }
        }
    }
    let per_second = f64::from(complete) / begun.elapsed().as_secs_f64();
    let left = left(endpoint, control, &before)?;
    Ok(Connects { complete, lost: count - complete, per_second, left })
}

/// What each side has more of than `before`, as soon as that is nothing, or after a while.
fn left(endpoint: &Endpoint, control: &mut Control, before: &[Holdings; 2]) -> Result<Ends, Failure> {
    let begun = Instant::now();
    loop {
        let now = both(endpoint, control)?;
        let more = |end: usize| {
            let pairs = [
                (now[end].connections, before[end].connections),
                (now[end].streams, before[end].streams),
                (now[end].queue_pairs, before[end].queue_pairs),
            ];
            pairs.into_iter().map(|(now, before)| now.saturating_sub(before)).sum::<u64>() as f64
        };
        let left = Ends { client: more(0), server: more(1) };
        if left == Ends::default() || begun.elapsed() > FORGET {
            return Ok(left);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn both(endpoint: &Endpoint, control: &mut Control) -> Result<[Holdings; 2], Failure> {
    Ok([usage::holdings(&endpoint.device, None)?, holdings(control)?])
}

/// The server's.
pub(crate) fn holdings(control: &mut Control) -> Result<Holdings, Failure> {
    match ask(control, &Request::Holdings, "count")? {
        Reply::Holds(holdings) => Ok(holdings),
        reply => Err(unexpected(&reply)),
    }
}

/// Makes a request whose only reply is readiness.
pub(crate) fn expect_ready(control: &mut Control, request: &Request) -> Result<(), Failure> {
    match ask(control, request, "readiness")? {
        Reply::Ready => Ok(()),
        reply => Err(unexpected(&reply)),
    }
}
