//! What applications see of our TCP and of the kernel's is the same.

#![forbid(unsafe_code)]
// `make test` runs this package with DPDK as well, which plays no part here.
#![cfg(not(feature = "dpdk"))]

use std::time::{Duration, Instant};

use softrdma_tests::differential::script::Scenario;
use softrdma_tests::differential::script::Seen::{Closed, End as PeerEnd, Refused, Reset as PeerReset};
use softrdma_tests::differential::script::Step::{
    self, AtOnce, Await, AwaitBytes, End, Flood, Hold, Leave, Meet, Pause, ReadOn, Release, Reset, Send,
    SendUntilStuck, SendUrgent, Settle, StopReading,
};
use softrdma_tests::differential::{Conditions, Family, Rig};
use softrdma_tests::program::is_root;
use softrdma_tests::skip;
use softrdma_tests::wire::Trouble;

/// Many times what is on the way at once.
const BULK: u64 = 4 << 20;
/// More than is on the way at once.
const MUCH: u64 = 1 << 20;
const SOME: u64 = 100_000;
const FEW: u64 = 1_000;
/// What a peer takes that does not read.
const UNREAD: u64 = 20_000;
/// More than it takes, but not more than it and the kernel that sends.
const BEYOND: u64 = 180_000;
/// What is found by then is told: on a machine that is busy with other things, or where much hangs.
const PATIENCE: Duration = Duration::from_secs(120);

const fn scenario(name: &'static str, one: &'static [Step], other: &'static [Step]) -> Scenario {
    Scenario { name, listens: true, scripts: [one, other] }
}

const TRANSFERS: &[Scenario] = &[
    scenario("nothing at all", &[End, Await(Closed)], &[End, Await(Closed)]),
    scenario("bulk one way", &[Send(BULK), End, Await(Closed)], &[Await(PeerEnd), End, Await(Closed)]),
    scenario("bulk both ways at once", &[Send(BULK), End, Await(Closed)], &[Send(BULK), End, Await(Closed)]),
    scenario(
        "questions and answers",
        &[Send(1), AwaitBytes(FEW), Send(FEW), AwaitBytes(2 * FEW), End, Await(Closed)],
        &[AwaitBytes(1), Send(FEW), AwaitBytes(1 + FEW), Send(FEW), Await(PeerEnd), End, Await(Closed)],
    ),
];

const HALF_CLOSES: &[Scenario] = &[
    scenario(
        "one ends, the other goes on",
        &[Send(SOME), End, Await(PeerEnd), Await(Closed)],
        &[Await(PeerEnd), Settle, Send(MUCH), End, Await(Closed)],
    ),
    scenario(
        "one ends without a byte, the other goes on",
        &[End, Await(Closed)],
        &[Await(PeerEnd), Settle, Send(SOME), Settle, Send(FEW), End, Await(Closed)],
    ),
    scenario(
        "one ends while the other sends",
        &[AwaitBytes(SOME), Send(FEW), End, Await(Closed)],
        &[Send(MUCH), Await(PeerEnd), End, Await(Closed)],
    ),
    scenario(
        "one ends while the other does not read",
        &[Meet, Send(UNREAD), End, Meet, Await(Closed)],
        &[StopReading, Meet, Meet, Settle, Send(FEW), ReadOn, Await(PeerEnd), End, Await(Closed)],
    ),
    scenario(
        "both end at once",
        &[Settle, Hold, Meet, Send(FEW), End, Meet, Release, Await(Closed)],
        &[Settle, Hold, Meet, Send(FEW), End, Meet, Release, Await(Closed)],
    ),
];

const ZERO_WINDOWS: &[Scenario] = &[
    scenario(
        "the window closes and opens again",
        &[Meet, SendUntilStuck, Meet, Send(SOME), End, Await(Closed)],
        &[StopReading, Meet, Meet, Settle, ReadOn, Await(PeerEnd), End, Await(Closed)],
    ),
    scenario(
        "both windows close and open again",
        &[StopReading, Meet, SendUntilStuck, Meet, ReadOn, Send(SOME), End, Await(Closed)],
        &[StopReading, Meet, SendUntilStuck, Meet, ReadOn, Send(SOME), End, Await(Closed)],
    ),
    scenario(
        "both windows close and both end",
        &[StopReading, Meet, SendUntilStuck, End, Meet, ReadOn, Await(Closed)],
        &[StopReading, Meet, SendUntilStuck, End, Meet, ReadOn, Await(Closed)],
    ),
    scenario(
        "the sender ends before a closed window",
        &[Meet, SendUntilStuck, End, Meet, Await(Closed)],
        &[StopReading, Meet, Meet, Settle, ReadOn, Await(PeerEnd), End, Await(Closed)],
    ),
    scenario(
        "the receiver ends behind a closed window",
        &[Meet, SendUntilStuck, Meet, Await(PeerEnd), Meet, Send(SOME), End, Await(Closed)],
        &[StopReading, Meet, Meet, Send(FEW), End, Meet, ReadOn, Await(Closed)],
    ),
];

/// The kernel asks for the first time after 200 ms.
const LONG_ZERO_WINDOWS: &[Scenario] = &[scenario(
    "the window stays closed until the sender has asked, and opens again",
    &[Meet, SendUntilStuck, Meet, Send(SOME), End, Await(Closed)],
    &[StopReading, Meet, Meet, Pause(250), ReadOn, Await(PeerEnd), End, Await(Closed)],
)];

const BROKEN_ZERO_WINDOWS: &[Scenario] = &[
    scenario(
        "the sender resets before a closed window",
        &[Meet, SendUntilStuck, Reset],
        &[StopReading, Meet, Await(PeerReset)],
    ),
    scenario(
        "the receiver resets behind a closed window",
        &[Meet, SendUntilStuck, Meet, Await(PeerReset)],
        &[StopReading, Meet, Meet, Reset],
    ),
    scenario(
        "the receiver leaves behind a closed window",
        &[Meet, SendUntilStuck, Meet, Await(PeerReset)],
        &[StopReading, Meet, Meet, Leave],
    ),
];

/// RFC 9293 §3.5.2. What came before a reset and was not read is lost with us, as §3.10.7.4 has it; the kernel keeps it for who
/// reads on. Here an application that does not read is told of the reset, and reads no more.
const RESETS: &[Scenario] = &[
    Scenario { name: "nobody listens", listens: false, scripts: [&[Await(Refused)], &[]] },
    scenario("a reset in SYN-SENT", &[AtOnce, Reset], &[AtOnce, Settle]),
    scenario("a reset right behind the handshake", &[Reset], &[Await(PeerReset)]),
    scenario("a reset right behind the first bytes", &[Send(FEW), Reset], &[AwaitBytes(FEW), Await(PeerReset)]),
    scenario("a reset before a byte", &[Meet, Settle, Reset], &[Meet, Await(PeerReset)]),
    scenario(
        "a reset when all is said",
        &[Send(SOME), AwaitBytes(SOME), Meet, Settle, Reset],
        &[Send(SOME), AwaitBytes(SOME), Meet, Await(PeerReset)],
    ),
    scenario("a reset right behind bytes", &[Meet, Send(FEW), Reset], &[Meet, AwaitBytes(FEW), Await(PeerReset)]),
    scenario(
        "a reset behind bytes that were not read",
        &[Meet, Send(FEW), Settle, Reset],
        &[StopReading, Meet, Await(PeerReset)],
    ),
    scenario(
        "a reset by one who has not read",
        &[StopReading, Meet, Meet, Settle, Reset],
        &[Meet, Send(FEW), Meet, Await(PeerReset)],
    ),
    scenario("a reset while the peer sends", &[AwaitBytes(SOME), Reset], &[Flood, Await(PeerReset)]),
    scenario("a reset while sending", &[Send(MUCH), Reset], &[AwaitBytes(SOME), Await(PeerReset)]),
    scenario(
        "a reset while both send",
        &[Flood, AwaitBytes(SOME), Meet, Reset],
        &[Flood, AwaitBytes(SOME), Meet, Await(PeerReset)],
    ),
    scenario("a reset in FIN-WAIT-1", &[Settle, Hold, End, Reset, Release], &[Await(PeerEnd), Await(PeerReset)]),
    scenario(
        "a reset in FIN-WAIT-2, to CLOSE-WAIT",
        &[Send(FEW), End, Meet, Settle, Reset],
        &[Await(PeerEnd), Meet, Await(PeerReset)],
    ),
    scenario(
        "a reset in CLOSE-WAIT, to FIN-WAIT-2",
        &[End, Meet, Await(PeerReset)],
        &[Await(PeerEnd), Meet, Settle, Reset],
    ),
    scenario(
        "a reset in CLOSE-WAIT while sending, to FIN-WAIT-2",
        &[End, AwaitBytes(SOME), Await(PeerReset)],
        &[Await(PeerEnd), Send(MUCH), Reset],
    ),
    scenario(
        "a reset to one who has ended and is sent bytes",
        &[End, AwaitBytes(SOME), Reset],
        &[Await(PeerEnd), Flood, Await(PeerReset)],
    ),
    scenario(
        "a reset in FIN-WAIT-1, to CLOSING",
        &[Settle, Hold, Meet, End, Meet, Reset, Release],
        &[Settle, Hold, Meet, End, Meet, Await(PeerEnd), Await(PeerReset), Release],
    ),
    scenario(
        "a reset in FIN-WAIT-2, to LAST-ACK",
        &[End, Meet, Settle, Meet, Meet, Reset],
        &[Await(PeerEnd), Meet, Meet, Hold, End, Meet, Await(PeerReset), Release],
    ),
    scenario(
        "a reset in LAST-ACK, to FIN-WAIT-2",
        &[End, Meet, Await(Closed)],
        &[Await(PeerEnd), Meet, Settle, Hold, End, Reset, Release],
    ),
    scenario(
        "a reset in CLOSING, to FIN-WAIT-1",
        &[Meet, End, Await(Closed)],
        &[Settle, Hold, Meet, End, Await(PeerEnd), Reset, Release],
    ),
    scenario("a reset in TIME-WAIT", &[End, Await(Closed), Settle, Reset], &[Await(PeerEnd), End, Await(Closed)]),
];

const LEAVING: &[Scenario] = &[
    scenario("one leaves", &[Send(FEW), Leave], &[Await(PeerEnd), End, Await(Closed)]),
    scenario(
        "one leaves, and is sent bytes",
        &[Meet, Leave],
        &[Meet, Await(PeerEnd), Settle, Send(FEW), Await(PeerReset)],
    ),
    scenario("one leaves while the other sends", &[AwaitBytes(SOME), Leave], &[Flood, Await(PeerReset)]),
    scenario(
        "one leaves what it has not read",
        &[StopReading, Meet, Meet, Settle, Leave],
        &[Meet, Send(FEW), Meet, Await(PeerReset)],
    ),
    scenario(
        "one leaves what it has not read, of a peer that has ended",
        &[StopReading, Meet, Meet, Settle, Leave],
        &[Meet, Send(FEW), End, Meet, Await(PeerReset)],
    ),
];

/// RFC 6093 §6: urgent bytes are bytes of the stream like others, which is how we take them; the kernel does where SO_OOBINLINE is
/// set, as here, and takes one of them out of the stream where it is not. Nothing above us has a use for where they are.
const URGENT: &[Scenario] = &[
    scenario(
        "an urgent byte among others",
        &[Send(FEW), SendUrgent, Send(FEW), End, Await(Closed)],
        &[Await(PeerEnd), End, Await(Closed)],
    ),
    scenario(
        "urgent bytes first, one after the other, and last",
        &[SendUrgent, SendUrgent, Send(SOME), SendUrgent, End, Await(Closed)],
        &[Await(PeerEnd), End, Await(Closed)],
    ),
    scenario(
        "an urgent byte behind a closed window",
        &[Meet, Send(BEYOND), Settle, SendUrgent, Meet, Send(SOME), End, Await(Closed)],
        &[StopReading, Meet, Meet, ReadOn, Await(PeerEnd), End, Await(Closed)],
    ),
    scenario(
        "urgent bytes while the peer sends",
        &[AwaitBytes(FEW), SendUrgent, Send(SOME), SendUrgent, Await(PeerEnd), SendUrgent, End, Await(Closed)],
        &[Send(MUCH), End, Await(PeerEnd), Await(Closed)],
    ),
];

const ALL: &[&[Scenario]] = &[TRANSFERS, HALF_CLOSES, ZERO_WINDOWS, BROKEN_ZERO_WINDOWS, RESETS, LEAVING, URGENT];

/// Without options a window has 64 kB at most, and what is lost is found by the numbers alone; with congestion notification a
/// handshake has flags that we do not know.
const PLAIN_KERNEL: &[(&str, &str)] =
    &[("tcp_timestamps", "0"), ("tcp_sack", "0"), ("tcp_window_scaling", "0"), ("tcp_ecn", "1")];

/// Often enough to meet every scenario, seldom enough for handshakes, where what is lost costs a second.
const TROUBLE: Trouble = Trouble {
    loss: 0.003,
    burst: 0.0,
    burst_frames: 1,
    reorder: 0.03,
    reorder_delay: Duration::from_micros(300),
    duplicate: 0.02,
    corrupt: 0.003,
};

/// Plays the scenarios; the rig has seen them all then.
fn are_alike(name: &str, family: Family, conditions: Conditions, scenarios: &[&[Scenario]]) -> Option<Rig> {
    if !is_root() {
        skip("softrdma's TCP beside the kernel's", "needs root");
        return None;
    }
    let mut rig = Rig::new(name, family, conditions);
    let mut differences = Vec::new();
    let begun = Instant::now();
    for scenario in scenarios.iter().copied().flatten() {
        let before = begun.elapsed();
        differences.extend(rig.differences(scenario));
        println!("{name}: {}: {:?}", scenario.name, begun.elapsed() - before);
        if begun.elapsed() > PATIENCE {
            differences.push(format!("all of it takes longer than {PATIENCE:?}, so far as '{}'", scenario.name));
            break;
        }
    }
    assert!(differences.is_empty(), "{name}: {} differences\n{}", differences.len(), differences.join("\n"));
    Some(rig)
}

#[test]
fn applications_see_the_same_over_ipv4() {
    are_alike("diff4", Family::V4, Conditions::default(), &[ALL, &[LONG_ZERO_WINDOWS]].concat());
}

#[test]
fn applications_see_the_same_over_ipv6() {
    are_alike("diff6", Family::V6, Conditions::default(), ALL);
}

#[test]
fn applications_see_the_same_with_a_kernel_that_has_no_options() {
    are_alike("diffp", Family::V4, Conditions { kernel: PLAIN_KERNEL, ..Conditions::default() }, ALL);
}

#[test]
fn applications_see_the_same_over_a_bad_cable() {
    let conditions = Conditions { trouble: TROUBLE, ..Conditions::default() };
    let rig = are_alike("diffb", Family::V4, conditions, &[TRANSFERS, HALF_CLOSES, ZERO_WINDOWS]);
    assert!(rig.is_none_or(|rig| rig.harmed() > 0), "the cable did no harm");
}
