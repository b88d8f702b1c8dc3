use std::thread::JoinHandle;
use std::time::Duration;

use softrdma_verbs::{Device, DeviceConfig};

use super::*;
use crate::client::ask;
use crate::message::VERSION;

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
    Session { number: 5, queue_pairs, active: 1, depth: 1, verify: false, max_size, area: max_size, seed }
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
