//! Both ends on this machine: two processes over a fabric that is set up for them (over a ring, two threads of one).

use std::net::SocketAddr;

use softrdma_bins_common::device::{DeviceArguments, DevicePlan, End, Fabric};
use softrdma_bins_common::statistics_page::StatisticsPage;

use crate::arguments::PairArguments;
use crate::child::{Child, Task};
use crate::client::{self, Client};
use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::network;
use crate::raw::RawLimitsCache;
use crate::report::Row;
use crate::server::Server;

/// Measures; `take` gets each row.
pub(crate) fn run(arguments: &PairArguments, mut take: impl FnMut(Row) -> Result<(), Failure>) -> Result<(), Failure> {
    let fabric = fabric(&arguments.device)?;
    let test = &arguments.test;
    if fabric == Fabric::Ring && (test.server_computes.is_some() || test.idle.is_some()) {
        let what = "over a ring both ends share a process: --server-computes and --idle need another fabric, as memif";
        return Err(Failure::CommandLine(what.to_owned()));
    }
    network::enter_namespace(fabric)?;
    network::prepare(fabric)?;
    let mut raw = arguments.with_raw.then(|| RawLimitsCache::new(&arguments.device, fabric, arguments.limits.memory));
    if let Some(raw) = &mut raw {
        // Before the ports of the test are there: afterwards the two would share the CPUs.
        for operation in arguments.test.op.as_slice() {
            let sizes = if operation.is_atomic() { &[8] } else { arguments.test.size.as_slice() };
            sizes.iter().try_for_each(|size| raw.limits(*size).map(|_| ()))?;
        }
    }
    let [server, client] = plans(&arguments.device, fabric, test.qps)?;
    let with_raw = |mut row: Row| {
        if let Some(raw) = &mut raw {
            row.raw = Some(raw.limits(row.size)?);
        }
        take(row)
    };
    match fabric {
        Fabric::Ring => one_process(arguments, client, with_raw),
        _ => two_processes(arguments, fabric, server, client, with_raw),
    }
}

/// The fabric of a pair: always one of ours.
pub(crate) fn fabric(device: &DeviceArguments) -> Result<Fabric, Failure> {
    if device.port.is_some() || device.config.is_some() {
        let what = "pair and raw make their ports themselves: leave --port and --config to `server` and `client`";
        return Err(Failure::CommandLine(what.to_owned()));
    }
    let (_, fabric) = device.scheme_and_fabric()?;
    fabric.ok_or_else(|| Failure::CommandLine("--fabric is needed".to_owned()))
}

/// The devices of both ends, for so many queue pairs: of the server, of the client.
pub(crate) fn plans(device: &DeviceArguments, fabric: Fabric, queue_pairs: u32) -> Result<[DevicePlan; 2], Failure> {
    let (scheme, _) = device.scheme_and_fabric()?;
    let plan = |end: End| {
        let mut device = device.clone();
        // CPUs are the client's two, then the server's two; a capture is the client's.
        if end == End::Server {
            device.pin.drain(..device.pin.len().min(2));
            device.pcap = None;
        }
        let mut plan = device.plan_over(scheme, Some(fabric), network::port(fabric, end), end)?;
        make_room(&mut plan, queue_pairs);
        Ok::<_, Failure>(plan)
    };
    Ok([plan(End::Server)?, plan(End::Client)?])
}

/// Makes the limits of a device such that runs with up to so many queue pairs do not meet them, as far as its engine goes.
pub(crate) fn make_room(plan: &mut DevicePlan, queue_pairs: u32) {
    // Beside them: the control connection, those that come and go, others that are turned away. Twice, for over a ring both ends
    // are one device.
    let wanted = (2 * (queue_pairs + 256)).min(plan.config.scheme.max_connections());
    let limits = &mut plan.config.limits;
    limits.max_connections = limits.max_connections.max(wanted);
    limits.max_queue_pairs = limits.max_queue_pairs.max(wanted);
}

fn two_processes(
    arguments: &PairArguments,
    fabric: Fabric,
    server: DevicePlan,
    client: DevicePlan,
    take: impl FnMut(Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let timeout = arguments.limits.timeout;
    let listen = match fabric {
        Fabric::Kernel => SocketAddr::from(([127, 0, 0, 1], 0)),
        _ => (End::Server.address(), crate::arguments::DEFAULT_PORT).into(),
    };
    let memory = client::session(&arguments.test, &arguments.limits)?.area;
    let verbose = arguments.device.verbose;
    let child = Child::start(&Task::Serve { device: server, listen, memory, timeout, verbose })?;
    let address = child.address(timeout)?;
    network::attach(fabric, End::Server, timeout)?;
    let endpoint = Endpoint::open(&client, timeout)?;
    network::attach(fabric, End::Client, timeout)?;
    // The server's process ends first: its port must not poll when the other one goes away (a memif server cannot bear it).
    let device = endpoint.device.clone();
    let _page = StatisticsPage::show(&device, "softrdma-perf pair (client)");
    let outcome = measure(arguments, endpoint, &client, address, take);
    match outcome {
        Ok(()) => child.join(),
        Err(failure) => Err(failure),
    }
}

/// Both ends on one device, whose port receives what it sends.
fn one_process(
    arguments: &PairArguments,
    plan: DevicePlan,
    take: impl FnMut(Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let timeout = arguments.limits.timeout;
    let endpoint = Endpoint::open(&plan, timeout)?;
    let listen = (End::Client.address(), crate::arguments::DEFAULT_PORT).into();
    let memory = client::session(&arguments.test, &arguments.limits)?.area;
    let server = Server::listen(Endpoint::over(endpoint.device.clone(), timeout)?, listen, memory)?;
    let address = server.address();
    std::thread::scope(|scope| {
        let serving = scope.spawn(move || server.serve_one());
        let outcome = measure(arguments, endpoint, &plan, address, take);
        if outcome.is_err() {
            // A server that never saw its client waits for ever, and a scope waits for its threads.
            eprintln!("softrdma-perf: {}", outcome.as_ref().err().map(ToString::to_string).unwrap_or_default());
            std::process::exit(1);
        }
        serving.join().unwrap_or_else(|_| Err(Failure::Connection("the server's thread panicked".to_owned())))
    })
}

fn measure(
    arguments: &PairArguments,
    endpoint: Endpoint,
    plan: &DevicePlan,
    address: SocketAddr,
    take: impl FnMut(Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut client = Client::connect(endpoint, plan, address, &arguments.test, &arguments.limits)?;
    client.run(take)?;
    client.close()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::MAX_QUEUE_PAIRS;
    use softrdma_verbs::configuration::{DeviceConfig, Scheme};

    fn limits(scheme: Scheme, queue_pairs: u32) -> (u32, u32) {
        let config = DeviceConfig { scheme, ..DeviceConfig::default() };
        let mut plan = DevicePlan { config, fabric: None, application_cpu: None };
        make_room(&mut plan, queue_pairs);
        (plan.config.limits.max_connections, plan.config.limits.max_queue_pairs)
    }

    #[test]
    fn few_queue_pairs_leave_a_device_as_it_is_and_many_get_room() {
        for scheme in [Scheme::KernelSocket, Scheme::Sequential, Scheme::Softrdma] {
            assert_eq!(limits(scheme, 1), (4096, 4096), "{scheme:?}");
            let (connections, queue_pairs) = limits(scheme, 6000);
            assert!(connections > 2 * 6000 && queue_pairs > 2 * 6000, "{scheme:?}");
        }
        assert!(limits(Scheme::Softrdma, MAX_QUEUE_PAIRS).0 > 2 * MAX_QUEUE_PAIRS);
        let (most, limit) = (Scheme::Sequential.max_connections(), limits(Scheme::Sequential, MAX_QUEUE_PAIRS).0);
        assert!(most < 2 * MAX_QUEUE_PAIRS && limit == most, "{limit}");
    }
}
