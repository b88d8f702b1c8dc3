//! The passive side: serves one client after another.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use softrdma_verbs::CmId;

use crate::buffers::Layout;
use crate::control::{Control, ControlQueues};
use crate::endpoint::{BUSY, Endpoint, Link, Queues, reject};
use crate::failure::{Context, Failure};
use crate::message::{Findings, Greeting, Remote, Reply, Request, Usage};
use crate::operation::Operation;
use crate::plan::{Plan, Session};
use crate::traffic::{Side, Traffic, TrafficQueues};
use crate::usage::{self, Growth};
use crate::wait::Wait;

/// Connect requests that wait: the data connections come one after another, other clients are told to come later.
const BACKLOG: usize = 64;

/// A listener on an open device.
pub(crate) struct Server {
    endpoint: Endpoint,
    /// Keeps listening.
    _listener: CmId,
    address: SocketAddr,
    /// Most bytes that a client gets for messages in one direction.
    memory: u64,
}

impl Server {
    /// Clients may ask for up to `memory` bytes for messages in one direction.
    pub(crate) fn listen(endpoint: Endpoint, address: SocketAddr, memory: u64) -> Result<Self, Failure> {
        let listener = CmId::new(&endpoint.events);
        let address = listener.listen(address, Some(BACKLOG)).context(|| format!("cannot listen on {address}"))?;
        Ok(Self { endpoint, _listener: listener, address, memory })
    }

    /// Where clients find it.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves the next client, however long it takes to come. What goes wrong with a client is its failure, not the server's.
    pub(crate) fn serve_one(&self) -> Result<(), Failure> {
        let (id, greeting) = self.next_client();
        let peer = id.remote_address();
        tracing::info!(?peer, "serving a client");
        let outcome = self.serve(id, greeting);
        tracing::info!(?peer, ?outcome, "done with a client");
        outcome
    }

    /// Waits for a control connection. Data connections that come now belong to a run that has failed.
    fn next_client(&self) -> (CmId, Greeting) {
        loop {
            match self.endpoint.connect_request() {
                Some((id, greeting)) if greeting.queue_pair.is_none() => return (id, greeting),
                Some((id, _)) => reject(&id, "the run that this connection belongs to is over"),
                None => self.sleep_until_event(),
            }
        }
    }

    fn sleep_until_event(&self) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        // Bounded: a device that the application drives (c2) makes its events only while it is looked at.
        let timeout = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        let _ = poll(&mut [PollFd::from_borrowed_fd(self.endpoint.events.as_fd(), PollFlags::IN)], Some(&timeout));
    }

    fn serve(&self, id: CmId, greeting: Greeting) -> Result<(), Failure> {
        let queues = ControlQueues::new(&self.endpoint)?;
        let link = self.endpoint.accept(id, &queues.queues, |queue_pair| queues.prepare(queue_pair))?;
        let mut control = Control::new(link, queues, self.endpoint.patience, "client");
        let outcome = self.run(&mut control, greeting);
        if let Err(failure) = &outcome {
            // The client learns why, if it still listens.
            let _ = control.send(&Reply::Failed { reason: failure.to_string() }).and_then(|()| control.flush());
        }
        control.disconnect();
        outcome
    }

    fn run(&self, control: &mut Control, greeting: Greeting) -> Result<(), Failure> {
        let Request::Open { session, memory } = control.receive("opening request")? else {
            return Err(Failure::Protocol("the first request does not open the run".to_owned()));
        };
        if session.number != greeting.session {
            return Err(Failure::Protocol(format!("run {} opens run {}", greeting.session, session.number)));
        }
        session.check(self.memory)?;
        Layout::new(&session).check(memory)?;
        let queues = TrafficQueues::new(&self.endpoint, &session)?;
        control.send(&Reply::Opened { memory: queues.memory() })?;
        let (links, idle_connection_bytes) = self.accept_links(&session, &queues)?;
        let guest_queues = queues.queues(session.queue_pairs);
        let (state, guests) = (State::Polling, Vec::new());
        let usage = Usage::default();
        let run = Run {
            server: self,
            control,
            state,
            guests,
            guest_queues,
            idle_connection_bytes,
            round: 0..0,
            next: 0,
            usage,
        };
        run.serve(queues, links, memory)
    }

    /// Accepts the data connections of a run, in the order in which they come. Gives as well how many bytes of memory each of those
    /// took that came after the first ones, which carry traffic.
    fn accept_links(&self, session: &Session, queues: &TrafficQueues) -> Result<(Vec<Link>, Option<f64>), Failure> {
        let mut links: Vec<Option<Link>> = vec![None; session.queue_pairs as usize];
        let mut growth = Growth::new(session)?;
        for count in 0..session.queue_pairs {
            growth.look(count)?;
            let (id, index) =
                self.endpoint.patience.until(|| "data connection from the client", || Ok(self.next_link(session)))?;
            let place = links.get_mut(index as usize).filter(|place| place.is_none());
            let place =
                place.ok_or_else(|| Failure::Protocol(format!("queue pair {index} came twice, or is too many")))?;
            *place =
                Some(self.endpoint.accept(id, &queues.queues(index), |queue_pair| queues.prepare(index, queue_pair))?);
        }
        // What the client took is among it, if that is in this process.
        let bytes = if usage::is_own(session.number) { None } else { growth.bytes_each()? };
        Ok((links.into_iter().flatten().collect(), bytes))
    }

    fn next_link(&self, session: &Session) -> Option<(CmId, u32)> {
        let (id, greeting) = self.endpoint.connect_request()?;
        match greeting.queue_pair {
            Some(index) if greeting.session == session.number => Some((id, index)),
            _ => {
                reject(&id, BUSY);
                None
            }
        }
    }
}

/// Rounds from one look for a request to the next, while there is other work or the server spins.
const CONTROL_INTERVAL: u32 = 64;

/// A client's run, from when its connections are there.
struct Run<'a> {
    server: &'a Server,
    control: &'a mut Control,
    state: State,
    /// Connections that come and go, and what they are made with.
    guests: Vec<Link>,
    guest_queues: Queues,
    idle_connection_bytes: Option<f64>,
    /// With verification: the messages that were announced.
    round: std::ops::Range<u64>,
    /// The next ping to be answered.
    next: u64,
    /// What was used when the measurement began.
    usage: Usage,
}

/// How the application waits for what comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Polling,
    /// On the descriptor of its control connection.
    Sleeping,
    /// And for connections that come and go.
    Receiving,
}

impl Run<'_> {
    fn serve(mut self, queues: TrafficQueues, links: Vec<Link>, memory: Remote) -> Result<(), Failure> {
        let patience = self.server.endpoint.patience;
        let mut traffic = Traffic::new(Side::Server, queues, links, memory, patience);
        let mut wait = patience.begin();
        let computes = traffic.session().server_computes_us.map(|time| Duration::from_micros(time.into()));
        let mut rounds = 0_u32;
        loop {
            if let Some(time) = computes
                && self.state == State::Polling
            {
                compute(time);
            }
            let busy = self.serve_traffic(&mut traffic)?;
            rounds = rounds.wrapping_add(1);
            // Requests are rare, and a ping-pong is in a hurry: the look for a request drives the stack as well, and a ping that it
            // brings is seen a round later.
            let is_patient = computes.is_some() || (!busy && !patience.busy_poll);
            if (is_patient || rounds.is_multiple_of(CONTROL_INTERVAL))
                && let Some(request) = self.control.try_receive::<Request>()?
            {
                wait.reset();
                if !self.handle_request(request, &mut traffic)? {
                    traffic.disconnect();
                    return Ok(());
                }
            } else if busy {
                wait.reset();
            } else if self.state == State::Sleeping {
                self.control.sleep()?;
            } else if self.state == State::Receiving {
                // Nobody else may look for events: what they tell of guests would be lost.
                match self.receive_guests(&traffic)? {
                    true => wait.reset(),
                    false => _ = wait.pause(),
                }
            } else {
                self.idle(&mut wait)?;
            }
        }
    }

    fn receive_guests(&mut self, traffic: &Traffic) -> Result<bool, Failure> {
        self.server.endpoint.receive_guests(traffic.session().number, &self.guest_queues, &mut self.guests)
    }

    /// Nothing to do. A client that is gone is noticed by its control connection; one that is silent may be computing.
    fn idle(&self, wait: &mut Wait) -> Result<(), Failure> {
        if wait.is_idle()
            && let Some((id, _)) = self.server.endpoint.connect_request()
        {
            reject(&id, BUSY);
        }
        wait.pause();
        Ok(())
    }

    /// Reaps completions and answers pings. `true`: there were any.
    fn serve_traffic(&mut self, traffic: &mut Traffic) -> Result<bool, Failure> {
        let mut busy = traffic.poll()? > 0;
        let plan = traffic.plan;
        if !plan.is_answered() {
            return Ok(busy);
        }
        while self.next < self.round.end && self.has_ping(traffic)? {
            traffic.post(self.next)?;
            self.next += 1;
            busy = true;
        }
        Ok(busy)
    }

    fn has_ping(&self, traffic: &Traffic) -> Result<bool, Failure> {
        match traffic.plan.operation {
            Operation::Write => traffic.buffers.has_arrived(&traffic.plan, self.next, traffic.incoming(self.next)),
            _ => Ok(traffic.received() > self.next),
        }
    }

    /// `false`: the run is over.
    fn handle_request(&mut self, request: Request, traffic: &mut Traffic) -> Result<bool, Failure> {
        let reply = match request {
            Request::Start(plan) => self.start(plan, traffic)?,
            Request::Prepare { first, count } => self.prepare(first, count, traffic)?,
            Request::Check { first, count } => Reply::Checked(self.check(first, count, traffic)?),
            Request::Finish => {
                let usage =
                    usage::of_server(&self.server.endpoint.device, traffic.session().number)?.since(&self.usage);
                Reply::Finished { usage, findings: traffic.take_findings() }
            }
            Request::Sleep => self.enter(State::Sleeping),
            Request::Connects => self.enter(State::Receiving),
            Request::Wake => Reply::Awake { at: usage::monotonic() },
            Request::Holdings => {
                Reply::Holds(usage::holdings(&self.server.endpoint.device, self.idle_connection_bytes)?)
            }
            Request::Goodbye => Reply::Goodbye,
            Request::Open { .. } => return Err(Failure::Protocol("a run was opened twice".to_owned())),
        };
        self.control.send(&reply)?;
        if reply == Reply::Goodbye {
            self.control.flush()?;
            self.control.wait_for_end();
            return Ok(false);
        }
        Ok(true)
    }

    fn enter(&mut self, state: State) -> Reply {
        self.state = state;
        self.guests.clear();
        Reply::Ready
    }

    fn start(&mut self, plan: Plan, traffic: &mut Traffic) -> Result<Reply, Failure> {
        plan.check(traffic.session())?;
        self.usage = usage::of_server(&self.server.endpoint.device, traffic.session().number)?;
        self.enter(State::Polling);
        self.next = 0;
        // Without verification nothing is announced: every message may come.
        self.round = if plan.verify { 0..0 } else { 0..u64::MAX };
        traffic.begin(plan)?;
        let layout = traffic.buffers.layout();
        match plan.operation {
            Operation::FetchAdd => traffic.buffers.store_word(layout.word(0), plan.counter_start())?,
            Operation::CmpSwap => {
                for link in 0..plan.active as usize {
                    traffic.buffers.store_word(layout.word(link), plan.swapped(link, 0))?;
                }
            }
            _ => {}
        }
        Ok(Reply::Ready)
    }

    fn prepare(&mut self, first: u64, count: u64, traffic: &mut Traffic) -> Result<Reply, Failure> {
        let plan = traffic.plan;
        if !plan.verify || count > plan.slots || first != self.round.end {
            return Err(Failure::Protocol(format!("{count} messages from {first} on are no round of {plan:?}")));
        }
        self.round = first..first + count;
        if plan.is_answered() || plan.operation == Operation::Read {
            for number in self.round.clone() {
                traffic.buffers.fill_outgoing(&plan, number, traffic.outgoing(number))?;
            }
        }
        if plan.operation.takes_receive() {
            traffic.post_receives(first, count)?;
        }
        traffic.unmark(first, count)?;
        Ok(Reply::Ready)
    }

    fn check(&mut self, first: u64, count: u64, traffic: &mut Traffic) -> Result<Findings, Failure> {
        let plan = traffic.plan;
        let through = self.round.end;
        if !plan.verify || self.round.start != first || through - first != count {
            return Err(Failure::Protocol(format!("{count} messages from {first} on were not announced")));
        }
        if plan.operation.takes_receive() {
            let patience = traffic.patience;
            patience.until(
                || format!("message {first} to {through} in the receive queue"),
                || traffic.poll().map(|_| (traffic.received() >= through).then_some(())),
            )?;
        }
        match plan.operation {
            Operation::Send | Operation::Write | Operation::WriteImm => traffic.check(first, count)?,
            Operation::Read => {}
            Operation::FetchAdd => {
                check_word(traffic, 0, plan.counter_start().wrapping_add(through))?;
            }
            Operation::CmpSwap => {
                for link in 0..plan.active as usize {
                    check_word(traffic, link, plan.swapped(link, plan.carried(link, through)))?;
                }
            }
        }
        Ok(traffic.take_findings())
    }
}

/// What an application does instead of calling the library.
fn compute(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

fn check_word(traffic: &mut Traffic, link: usize, expected: u64) -> Result<(), Failure> {
    let found = traffic.buffers.load_word(traffic.buffers.layout().word(link))?;
    if found != expected {
        let operation = traffic.plan.operation;
        traffic.findings.add(|| format!("{operation} left {found:#x} in word {link} instead of {expected:#x}"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "server/tests.rs"]
mod tests;
