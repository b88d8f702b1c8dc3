use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use softrdma_verbs::{Device, DeviceConfig};

use super::*;
use crate::client::ask;
use crate::message::VERSION;
use crate::operation::Mode;
use crate::report::Ends;
use crate::upkeep::{self, Visitors};

/// No test takes that long.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the server of a test gives a client.
const MEMORY: u64 = 1 << 20;

fn endpoint(name: &str) -> Endpoint {
    Endpoint::over(Device::open(DeviceConfig::kernel_socket(name)).unwrap(), PATIENCE).unwrap()
}

/// Serves that many clients, one after the other; how each run ended.
fn serve(clients: usize) -> (SocketAddr, JoinHandle<Vec<Result<(), Failure>>>) {
    let server = Server::listen(endpoint("server"), "127.0.0.1:0".parse().unwrap(), MEMORY).unwrap();
    let address = server.address();
    (address, std::thread::spawn(move || (0..clients).map(|_| server.serve_one()).collect()))
}

fn session() -> Session {
    let (queue_pairs, max_size, seed) = (1, 4096, 1);
    let server_computes_us = None;
    Session {
        number: 5,
        queue_pairs,
        active: 1,
        depth: 1,
        verify: false,
        max_size,
        area: max_size,
        seed,
        server_computes_us,
    }
}

fn greeting(session: &Session, queue_pair: Option<u32>) -> Greeting {
    Greeting { softrdma_perf: VERSION, session: session.number, queue_pair }
}

/// A control connection over which nothing was said yet.
fn control(client: &Endpoint, server: SocketAddr, session: &Session) -> Control {
    let queues = ControlQueues::new(client).unwrap();
    let prepare = |queue_pair: &_| queues.prepare(queue_pair);
    let link = client.connect(server, &greeting(session, None), &queues.queues, prepare).unwrap();
    Control::new(link, queues, client.patience, "server")
}

/// Opens a run and connects its data connections.
fn open(client: &Endpoint, server: SocketAddr, session: &Session) -> (Control, Vec<Link>) {
    let mut control = control(client, server, session);
    let queues = TrafficQueues::new(client, session).unwrap();
    ask(&mut control, &Request::Open { session: *session, memory: queues.memory() }, "memory").unwrap();
    let connect = |index| {
        client.connect(server, &greeting(session, Some(index)), &queues.queues(index), |queue_pair| {
            queues.prepare(index, queue_pair)
        })
    };
    let links = (0..session.queue_pairs).map(|index| connect(index).unwrap()).collect();
    (control, links)
}

#[test]
fn a_client_that_asks_for_the_impossible_is_told_so_and_the_next_one_is_served() {
    let good = session();
    let anywhere = Remote { key: 1, address: 4096 };
    let hostile = [
        (Session { area: 8, ..good }, anywhere, "contradicts itself"),
        (Session { max_size: 0, ..good }, anywhere, "contradicts itself"),
        (Session { queue_pairs: u32::MAX, ..good }, anywhere, "--qps"),
        (Session { depth: u32::MAX, ..good }, anywhere, "--depth"),
        (Session { area: u64::MAX, ..good }, anywhere, "--memory"),
        (Session { area: 2 * MEMORY, ..good }, anywhere, "--memory"),
        (good, Remote { address: u64::MAX, ..anywhere }, "past the last address"),
    ];
    let (address, server) = serve(hostile.len() + 1);
    let client = endpoint("client");
    for (session, memory, reason) in &hostile {
        let mut control = control(&client, address, session);
        let outcome = ask(&mut control, &Request::Open { session: *session, memory: *memory }, "memory");
        let told = matches!(&outcome, Err(Failure::Peer(said)) if said.contains(reason));
        assert!(told, "{session:?}: {outcome:?} instead of a reason with '{reason}'");
        control.disconnect();
    }
    let (mut control, _links) = open(&client, address, &good);
    assert_eq!(ask(&mut control, &Request::Goodbye, "goodbye").unwrap(), Reply::Goodbye);
    control.disconnect();
    let outcomes = server.join().expect("the server panics for no client");
    assert!(outcomes[..hostile.len()].iter().all(Result::is_err), "{outcomes:?}");
    assert!(outcomes[hostile.len()].is_ok(), "{outcomes:?}");
}

#[test]
fn a_check_of_messages_that_nobody_announced_is_refused_at_once() {
    let unverified = session();
    let verified = Session { verify: true, ..unverified };
    let (address, server) = serve(3);
    let client = endpoint("client");
    // Without verification every message may come: a check of all of them would never end.
    for (session, first, count) in [(unverified, 0, u64::MAX), (verified, 1, u64::MAX), (verified, u64::MAX, u64::MAX)]
    {
        let (mut control, _links) = open(&client, address, &session);
        let plan = Plan::new(&session, 0, Operation::Write, Mode::Latency, 8);
        assert_eq!(ask(&mut control, &Request::Start(plan), "readiness").unwrap(), Reply::Ready);
        let outcome = ask(&mut control, &Request::Check { first, count }, "findings");
        let told = matches!(&outcome, Err(Failure::Peer(said)) if said.contains("not announced"));
        assert!(told, "{first}, {count}: {outcome:?}");
        control.disconnect();
    }
    let outcomes = server.join().expect("the server panics for no client");
    assert!(outcomes.iter().all(Result::is_err), "{outcomes:?}");
}

/// Ends a run that went well, at both sides.
fn part(mut control: Control, server: JoinHandle<Vec<Result<(), Failure>>>) {
    assert_eq!(ask(&mut control, &Request::Goodbye, "goodbye").unwrap(), Reply::Goodbye);
    control.disconnect();
    let outcomes = server.join().expect("the server panics for no client");
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

#[test]
fn a_computing_server_comes_to_the_library_between_computations_only() {
    const COMPUTES: Duration = Duration::from_millis(3);
    let session = Session { server_computes_us: Some(COMPUTES.as_micros() as u32), ..session() };
    let (address, server) = serve(1);
    let client = endpoint("client");
    let (mut control, _links) = open(&client, address, &session);
    let begun = Instant::now();
    (0..5).for_each(|_| assert!(upkeep::wake(&mut control).unwrap() > 0));
    // The first may come just in time.
    assert!(begun.elapsed() >= 4 * COMPUTES, "{:?}", begun.elapsed());
    part(control, server);
}

#[test]
fn the_server_of_an_idle_pair_wakes_for_each_message() {
    const IDLE: Duration = Duration::from_millis(100);
    let (address, server) = serve(1);
    let client = endpoint("client");
    let (mut control, _links) = open(&client, address, &session());
    let idle = upkeep::idle(&client, &mut control, IDLE).unwrap();
    assert!(idle.seconds >= IDLE.as_secs_f64());
    // Both ends are in this process, and other tests.
    assert!(idle.cpu_percent.client > 0.0 && idle.cpu_percent.server > 0.0, "{idle:?}");
    let (first, back) = (idle.first_message_us.expect("both ends have one clock"), idle.first_round_trip_us);
    assert!(0.0 < first.min && first.min <= first.p50 && first.p50 <= first.max, "{first:?}");
    assert!(first.min < back.min && first.max <= back.max, "{first:?} {back:?}");
    part(control, server);
}

#[test]
fn connections_that_come_and_go_are_counted_and_leave_nothing() {
    const COUNT: u32 = 30;
    let session = session();
    let (address, server) = serve(1);
    let client = endpoint("client");
    let (mut control, _links) = open(&client, address, &session);
    let queues = TrafficQueues::new(&client, &session).unwrap().queues(session.queue_pairs);
    let visitors = Visitors { server: address, run: (session.number, session.queue_pairs), queues: &queues };
    let established = |device: &Device| device.statistics().host.map(|host| host.established);
    let before = established(&client.device).unwrap();
    let connects = upkeep::connects(&client, &mut control, &visitors, COUNT).unwrap();
    assert_eq!((connects.complete, connects.lost, connects.left), (COUNT, 0, Ends::default()));
    assert!(connects.per_second > 0.0);
    assert_eq!(established(&client.device).unwrap() - before, u64::from(COUNT));
    part(control, server);
}

#[test]
fn connections_that_stay_are_seen_to_stay() {
    let session = session();
    let (address, server) = serve(1);
    let client = endpoint("client");
    let (mut control, _links) = open(&client, address, &session);
    let queues = TrafficQueues::new(&client, &session).unwrap().queues(session.queue_pairs);
    let before = upkeep::holdings(&mut control).unwrap();
    upkeep::expect_ready(&mut control, &Request::Connects).unwrap();
    let guest = client.connect(address, &greeting(&session, Some(7)), &queues, |_| Ok(())).unwrap();
    let after = upkeep::holdings(&mut control).unwrap();
    let more = (after.connections - before.connections, after.streams - before.streams);
    assert_eq!((more, after.queue_pairs - before.queue_pairs), ((1, 1), 1));
    guest.id.disconnect();
    part(control, server);
}
