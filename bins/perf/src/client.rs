//! The active side: measures every operation at every size, one row each.

use std::net::SocketAddr;
use std::time::Duration;

use softrdma_bins_common::device::DevicePlan;

use crate::arguments::{LimitArguments, TestArguments};
use crate::control::{Control, ControlQueues};
use crate::endpoint::{Endpoint, Queues};
use crate::failure::Failure;
use crate::measurement::{Measured, Measurement};
use crate::message::{Findings, Greeting, Reply, Request, Usage, VERSION};
use crate::operation::{Mode, Operation};
use crate::pattern::mix;
use crate::plan::{Budget, Plan, Session};
use crate::progress::Progress;
use crate::report::{Connects, Ends, Idle, Row};
use crate::traffic::{Side, Traffic, TrafficQueues};
use crate::upkeep::{self, Visitors};
use crate::usage::{self, Growth};

/// A run against one server.
pub(crate) struct Client {
    endpoint: Endpoint,
    control: Control,
    traffic: Traffic,
    session: Session,
    server: SocketAddr,
    test: TestArguments,
    names: Names,
    /// What connections are made with that come and go.
    visitor_queues: Queues,
    upkeep: Upkeep,
    plans: u64,
}

/// What the connections cost beside their traffic; every row has it.
#[derive(Clone, Copy, Default)]
struct Upkeep {
    idle_connection_bytes: Option<Ends>,
    connects: Option<Connects>,
    idle: Option<Idle>,
}

/// What rows call the device.
struct Names {
    scheme: &'static str,
    threads: &'static str,
    fabric: &'static str,
    mtu: u32,
    crc: bool,
}

impl Client {
    /// Connects all queue pairs.
    pub(crate) fn connect(
        endpoint: Endpoint,
        device: &DevicePlan,
        server: SocketAddr,
        test: &TestArguments,
        limits: &LimitArguments,
    ) -> Result<Self, Failure> {
        let session = session(test, limits)?;
        usage::claim(session.number);
        // First, because it may take a while: the server waits from the first connection on.
        let traffic_queues = TrafficQueues::new(&endpoint, &session)?;
        let queues = ControlQueues::new(&endpoint)?;
        let greeting = |queue_pair| Greeting { softrdma_perf: VERSION, session: session.number, queue_pair };
        let prepare = |queue_pair: &_| queues.prepare(queue_pair);
        let link = endpoint.connect(server, &greeting(None), &queues.queues, prepare)?;
        let mut control = Control::new(link, queues, endpoint.patience, "server");
        let queues = traffic_queues;
        let reply = ask(&mut control, &Request::Open { session, memory: queues.memory() }, "memory")?;
        let Reply::Opened { memory } = reply else { return Err(unexpected(&reply)) };
        let mut growth = Growth::new(&session)?;
        let links = (0..session.queue_pairs)
            .map(|index| {
                growth.look(index)?;
                let prepare = |queue_pair: &_| queues.prepare(index, queue_pair);
                endpoint.connect(server, &greeting(Some(index)), &queues.queues(index), prepare)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let client = growth.bytes_each()?;
        let theirs = upkeep::holdings(&mut control)?.idle_connection_bytes;
        let idle_connection_bytes = client.zip(theirs).map(|(client, server)| Ends { client, server });
        let visitor_queues = queues.queues(session.queue_pairs);
        let traffic = Traffic::new(Side::Client, queues, links, memory, endpoint.patience);
        let names = Names::new(device);
        let upkeep = Upkeep { idle_connection_bytes, ..Upkeep::default() };
        Ok(Self {
            endpoint,
            control,
            traffic,
            session,
            server,
            test: test.clone(),
            names,
            visitor_queues,
            upkeep,
            plans: 0,
        })
    }

    /// Measures everything that was asked for; `take` gets each row as soon as it is there.
    pub(crate) fn run(&mut self, mut take: impl FnMut(Row) -> Result<(), Failure>) -> Result<(), Failure> {
        if let Some(count) = self.test.connects {
            let run = (self.session.number, self.session.queue_pairs);
            let visitors = Visitors { server: self.server, run, queues: &self.visitor_queues };
            self.upkeep.connects = Some(upkeep::connects(&self.endpoint, &mut self.control, &visitors, count.get())?);
        }
        if let Some(time) = self.test.idle {
            self.upkeep.idle = Some(upkeep::idle(&self.endpoint, &mut self.control, time)?);
        }
        let operations = self.test.op.as_slice().to_vec();
        let sizes = self.test.size.as_slice().to_vec();
        for operation in operations {
            let sizes = if operation.is_atomic() { vec![8] } else { sizes.clone() };
            for size in sizes {
                let row = self.measure(operation, size)?;
                take(row)?;
            }
        }
        Ok(())
    }

    /// Says goodbye in band, so that the server stops polling before this side's port goes away.
    pub(crate) fn close(mut self) -> Result<(), Failure> {
        let reply = ask(&mut self.control, &Request::Goodbye, "goodbye")?;
        if reply != Reply::Goodbye {
            return Err(unexpected(&reply));
        }
        self.traffic.disconnect();
        self.control.disconnect();
        Ok(())
    }

    fn measure(&mut self, operation: Operation, size: u64) -> Result<Row, Failure> {
        let (mut usage, mut findings) = (Usage::default(), Findings::default());
        let skips_latency = self.test.skip_latency;
        let mut run = |mode| {
            let (measured, used, found) = self.measure_mode(operation, mode, size)?;
            usage = usage.plus(&used);
            findings.merge(found);
            Ok::<Measured, Failure>(measured)
        };
        let latency = if skips_latency { None } else { Some(run(Mode::Latency)?) };
        let throughput = run(Mode::Throughput)?;
        if let Some(first) = &findings.first {
            eprintln!("softrdma-perf: {} wrong; {first}", findings.errors);
        }
        Ok(Row {
            scheme: self.names.scheme.to_owned(),
            threads: self.names.threads.to_owned(),
            fabric: self.names.fabric.to_owned(),
            op: operation,
            size,
            iterations: throughput.throughput.messages,
            qps: self.session.queue_pairs,
            depth: self.session.depth,
            mtu: self.names.mtu,
            crc: self.names.crc,
            latency_us: latency.map(|latency| latency.latencies.summary()),
            throughput_gbps: throughput.throughput.gigabits_per_second(),
            rate_mops: throughput.throughput.million_messages_per_second(),
            receive_copies_per_byte: usage.copies_per_byte(),
            retransmitted_segments: usage.retransmitted_segments,
            cpu_seconds: usage.cpu_seconds,
            errors: findings.errors,
            server_computes_us: self.session.server_computes_us,
            idle: self.upkeep.idle,
            connects: self.upkeep.connects,
            idle_connection_bytes: self.upkeep.idle_connection_bytes,
            raw: None,
        })
    }

    fn measure_mode(
        &mut self,
        operation: Operation,
        mode: Mode,
        size: u64,
    ) -> Result<(Measured, Usage, Findings), Failure> {
        let plan = Plan::new(&self.session, self.plans, operation, mode, size);
        self.plans += 1;
        let before = usage::of(&self.endpoint.device)?;
        upkeep::expect_ready(&mut self.control, &Request::Start(plan))?;
        self.traffic.begin(plan)?;
        let budget = Budget::new(mode, plan.size, self.test.iterations.map(|count| count.get()), self.test.duration);
        let progress = Progress::new(self.test.quiet, &plan, &budget);
        let mut measurement = Measurement::new(&mut self.traffic, &mut self.control, progress, self.test.pause);
        measurement.run(&budget.warm_up(plan.size, self.test.warm_up))?;
        measurement.forget();
        measurement.run(&budget)?;
        let (measured, mut findings) = measurement.end();
        let reply = ask(&mut self.control, &Request::Finish, "end of the measurement")?;
        let Reply::Finished { usage, findings: theirs } = reply else { return Err(unexpected(&reply)) };
        findings.merge(theirs);
        let usage = usage::of(&self.endpoint.device)?.since(&before).plus(&usage);
        Ok((measured, usage, findings))
    }
}

impl Names {
    fn new(device: &DevicePlan) -> Self {
        Self {
            scheme: device.config.scheme.name(),
            threads: device.config.threads.name(),
            fabric: device.fabric_name(),
            mtu: device.config.mtu,
            crc: device.config.crc,
        }
    }
}

/// Sends a request and waits for its reply, `what`.
pub(crate) fn ask(control: &mut Control, request: &Request, what: &str) -> Result<Reply, Failure> {
    control.send(request)?;
    match control.receive(what)? {
        Reply::Failed { reason } => Err(Failure::Peer(reason)),
        reply => Ok(reply),
    }
}

pub(crate) fn unexpected(reply: &Reply) -> Failure {
    Failure::Protocol(format!("{reply:?} came unexpected"))
}

/// The run that was asked for, under a number of its own.
pub(crate) fn session(test: &TestArguments, limits: &LimitArguments) -> Result<Session, Failure> {
    let active = test.active_qps.unwrap_or(test.qps);
    if active > test.qps {
        return Err(Failure::CommandLine(format!(
            "--active-qps {active} is more than the {} queue pairs there are; raise --qps",
            test.qps
        )));
    }
    if test.server_computes.is_some()
        && let Some(operation) = test.op.as_slice().iter().find(|operation| operation.takes_receive())
    {
        return Err(Failure::CommandLine(format!(
            "--server-computes is for operations in which the server's application has no part, and it posts the receives of \
             {operation}; --op read,write"
        )));
    }
    let sizes = test.size.as_slice();
    let max_size = sizes.iter().copied().max().unwrap_or(8).max(8);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Ok(Session {
        number: mix(now.as_nanos() as u64 ^ u64::from(std::process::id()) << 32),
        queue_pairs: test.qps,
        active,
        depth: test.depth,
        verify: test.verify,
        max_size,
        area: Session::area(max_size, active, test.depth, limits.memory),
        seed: test.seed,
        server_computes_us: test.server_computes.map(|time| time.as_nanos().div_ceil(1000) as u32),
    })
}
