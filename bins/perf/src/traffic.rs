//! The data connections of one side: posting messages, reaping completions, keeping receives posted.

use softrdma_verbs::{AtomicOperation, Operation as Work, Payload, SegmentList, SendRequest, Status};
use softrdma_verbs::{CompletionQueue, ProtectionDomain, QueuePair, WorkCompletion};

use crate::buffers::{Buffers, Layout, remote};
use crate::endpoint::{Endpoint, Link, NO_COMPLETION, Queues};
use crate::failure::{Context, Failure};
use crate::message::{Findings, Remote};
use crate::operation::{Mode, Operation};
use crate::plan::{Plan, Session, receives_per_queue_pair};
use crate::wait::Patience;

/// Send requests beyond the depth: those that wait unsignaled, and a flush.
const SPARE_SENDS: u32 = 34;

/// Messages of a ping-pong from one that reports its completion to the next.
const LATENCY_SIGNAL_INTERVAL: u64 = 16;

/// Completions reaped at once.
const BATCH: usize = 64;

/// Marks the name of a receive; a send request's name is its link and its number on that link.
const RECEIVE: u64 = 1 << 63;
const LINK_SHIFT: u32 = 44;

/// Which side this is: data differs by direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// Where the data connections of one side come from.
pub(crate) struct TrafficQueues {
    session: Session,
    queues: Queues,
    buffers: Buffers,
}

impl TrafficQueues {
    pub(crate) fn new(endpoint: &Endpoint, session: &Session) -> Result<Self, Failure> {
        let domain: ProtectionDomain =
            endpoint.device.allocate_protection_domain().context(|| "cannot make a protection domain")?;
        let (max_send, max_receive) = (session.depth + SPARE_SENDS, receives_per_queue_pair(session.depth));
        let capacity = session.active as usize * (max_send + max_receive) as usize;
        let completions = endpoint
            .device
            .create_completion_queue(capacity, None)
            .context(|| "cannot make a completion queue; lower --active-qps or --depth")?;
        let buffers = Buffers::new(&domain, session)?;
        Ok(Self { session: *session, queues: Queues { domain, completions, max_send, max_receive }, buffers })
    }

    pub(crate) fn memory(&self) -> Remote {
        self.buffers.remote()
    }

    /// For queue pair `index`: those without traffic need nothing.
    pub(crate) fn queues(&self, index: u32) -> Queues {
        match index < self.session.active {
            true => self.queues.clone(),
            false => Queues { max_send: 1, max_receive: 1, ..self.queues.clone() },
        }
    }

    /// Posts the receives that stay posted for the whole run. With verification they are posted message by message instead.
    pub(crate) fn prepare(&self, index: u32, queue_pair: &QueuePair) -> Result<(), Failure> {
        if self.session.verify || index >= self.session.active {
            return Ok(());
        }
        let places = receives_per_queue_pair(self.session.depth);
        (0..places).try_for_each(|place| {
            let name = RECEIVE | u64::from(index) << 32 | u64::from(place);
            post_standing_receive(&self.buffers, &self.session, queue_pair, name)
        })
    }
}

/// A receive for a message of any size of the run. Messages of different receives may share memory: nobody looks at them.
fn post_standing_receive(
    buffers: &Buffers,
    session: &Session,
    queue_pair: &QueuePair,
    name: u64,
) -> Result<(), Failure> {
    let stride = session.max_size.next_multiple_of(8);
    let place = (name & !RECEIVE) % (session.area / stride) * stride;
    queue_pair.post_receive(name, &[buffers.segment(place, session.max_size)]).context(|| "cannot post a receive")
}

/// The data connections, and the measurement that goes over them.
pub(crate) struct Traffic {
    pub(crate) plan: Plan,
    pub(crate) buffers: Buffers,
    /// What was wrong with what arrived, since the last [`Self::take_findings`].
    pub(crate) findings: Findings,
    pub(crate) patience: Patience,
    side: Side,
    session: Session,
    links: Vec<LinkState>,
    completions: CompletionQueue,
    /// Where completions are reaped to; kept, for clearing it would cost more than an empty poll.
    reaped: Vec<WorkCompletion>,
    peer: Remote,
    layout: Layout,
    received: u64,
}

struct LinkState {
    queue_pair: QueuePair,
    /// Keeps the connection.
    link: Link,
    /// Send requests so far, and those of them that are known to be complete.
    posted: u64,
    completed: u64,
    last_signaled: bool,
}

impl Traffic {
    pub(crate) fn new(side: Side, queues: TrafficQueues, links: Vec<Link>, peer: Remote, patience: Patience) -> Self {
        let TrafficQueues { session, queues, buffers } = queues;
        let state = |link: Link| LinkState {
            queue_pair: link.queue_pair.clone(),
            link,
            posted: 0,
            completed: 0,
            last_signaled: true,
        };
        Self {
            plan: Plan::new(&session, 0, Operation::Write, Mode::Latency, 1),
            layout: buffers.layout(),
            buffers,
            findings: Findings::default(),
            patience,
            side,
            session,
            links: links.into_iter().map(state).collect(),
            completions: queues.completions,
            reaped: vec![NO_COMPLETION; BATCH],
            peer,
            received: 0,
        }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// Messages that arrived since [`Self::begin`], as far as receives tell.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    pub(crate) fn take_findings(&mut self) -> Findings {
        std::mem::take(&mut self.findings)
    }

    pub(crate) fn disconnect(&self) {
        for link in &self.links {
            link.link.id.disconnect();
        }
    }

    /// Takes up another measurement. What the last one sent has arrived; what of it was not reaped yet is reaped now.
    pub(crate) fn begin(&mut self, plan: Plan) -> Result<(), Failure> {
        while self.poll()? > 0 {}
        self.plan = plan;
        self.received = 0;
        self.unmark(0, plan.slots)
    }

    /// Makes the places of these messages such that an arrival is seen.
    pub(crate) fn unmark(&self, first: u64, count: u64) -> Result<(), Failure> {
        let plan = &self.plan;
        if plan.operation != Operation::Write || plan.mode != Mode::Latency {
            return Ok(());
        }
        (first..first + count).try_for_each(|number| self.buffers.unmark_incoming(plan, number, self.incoming(number)))
    }

    /// The bytes of message `number` of this side.
    pub(crate) fn outgoing(&self, number: u64) -> crate::pattern::Pattern {
        match self.side {
            Side::Client => self.plan.client_pattern(number),
            Side::Server => self.plan.server_pattern(number),
        }
    }

    /// The bytes of message `number` of the other side.
    pub(crate) fn incoming(&self, number: u64) -> crate::pattern::Pattern {
        match self.side {
            Side::Client => self.plan.server_pattern(number),
            Side::Server => self.plan.client_pattern(number),
        }
    }

    /// With verification: posts the receives of these messages, each where its bytes are looked for.
    pub(crate) fn post_receives(&self, first: u64, count: u64) -> Result<(), Failure> {
        (first..first + count).try_for_each(|number| {
            let place = self.buffers.segment(self.layout.incoming(&self.plan, number), self.plan.size);
            let queue_pair = &self.links[self.plan.link(number)].queue_pair;
            queue_pair.post_receive(RECEIVE | number, &[place]).context(|| "cannot post a receive")
        })
    }

    /// Compares these messages, which all have arrived, with what they must be.
    pub(crate) fn check(&mut self, first: u64, count: u64) -> Result<(), Failure> {
        (first..first + count).try_for_each(|number| {
            let pattern = self.incoming(number);
            self.buffers.check_incoming(&self.plan, number, pattern, &mut self.findings)
        })
    }

    /// Posts one message of a ping-pong, or one operation that answers itself; gives its link.
    pub(crate) fn post(&mut self, number: u64) -> Result<usize, Failure> {
        let plan = self.plan;
        let link = plan.link(number);
        if plan.operation.is_ping_pong() && !plan.verify {
            self.buffers.mark_outgoing(&plan, number, self.outgoing(number))?;
        }
        while self.outstanding(link) > u64::from(self.session.depth) + 16 {
            self.wait_for_completion("room in the send queue")?;
        }
        let signaled = !plan.is_answered() || self.links[link].posted.is_multiple_of(LATENCY_SIGNAL_INTERVAL);
        let request = self.request(number, link, self.links[link].posted, signaled);
        self.count_posted(link, 1, signaled);
        self.links[link].queue_pair.post_send(request).map_err(|error| self.refused(link, &error))?;
        Ok(link)
    }

    /// Posts as many messages as `room` allows on `link`, from `next` on in steps of the active links, before `end`. Gives how
    /// many.
    pub(crate) fn post_many(&mut self, link: usize, next: u64, end: u64, room: u64) -> Result<u64, Failure> {
        let step = u64::from(self.plan.active);
        let count = room.min((end.saturating_sub(next)).div_ceil(step));
        if count == 0 {
            return Ok(0);
        }
        // A signal each quarter of the depth: room is seen before the queue runs dry. And behind the last, to see the end.
        let interval = u64::from(self.plan.depth / 4).max(1);
        let posted = self.links[link].posted;
        let is_signaled =
            |index: u64| (posted + index + 1).is_multiple_of(interval) || next + (index + 1) * step >= end;
        let requests = (0..count).map(|index| {
            let number = next + index * step;
            self.request(number, link, posted + index, is_signaled(index))
        });
        let taken = self.links[link].queue_pair.post_send_many(requests);
        taken.map_err(|(_, error)| self.refused(link, &error))?;
        self.count_posted(link, count, is_signaled(count - 1));
        Ok(count)
    }

    fn count_posted(&mut self, link: usize, count: u64, last_signaled: bool) {
        let state = &mut self.links[link];
        state.posted += count;
        state.last_signaled = last_signaled;
    }

    /// Send requests of `link` that are not known to be complete.
    pub(crate) fn outstanding(&self, link: usize) -> u64 {
        self.links[link].posted - self.links[link].completed
    }

    /// Waits until everything posted is complete and, for what is sent, placed at the peer: a Read that follows on the same
    /// connection is answered behind it.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        let flushes = self.plan.operation.is_ping_pong();
        for link in 0..self.plan.active as usize {
            if flushes || !self.links[link].last_signaled {
                self.post_flush(link)?;
            }
        }
        for link in 0..self.plan.active as usize {
            while self.outstanding(link) > 0 {
                self.wait_for_completion("completion of the last messages")?;
            }
        }
        Ok(())
    }

    fn post_flush(&mut self, link: usize) -> Result<(), Failure> {
        let sinks = self.buffers.list(self.layout.flush_sink(), 1);
        let source = remote(self.peer, self.layout.flush_source());
        let id = name(link, self.links[link].posted);
        let operation = Work::Read { sinks, source, invalidate: None };
        let request = SendRequest { id, operation, signaled: true, solicited: false, fence: false };
        self.links[link].queue_pair.post_send(request).map_err(|error| self.refused(link, &error))?;
        self.count_posted(link, 1, true);
        Ok(())
    }

    fn request(&self, number: u64, link: usize, sequence: u64, signaled: bool) -> SendRequest {
        let operation = self.work(number, link);
        SendRequest { id: name(link, sequence), operation, signaled, solicited: false, fence: false }
    }

    fn work(&self, number: u64, link: usize) -> Work {
        let plan = &self.plan;
        let payload = || Payload::Segments(self.outgoing_list(number));
        let target = || remote(self.peer, self.layout.incoming(plan, number));
        let sink = || self.buffers.segment(self.layout.incoming(plan, number), plan.size);
        match plan.operation {
            Operation::Send => Work::Send { payload: payload(), invalidate: None },
            Operation::Write => Work::Write { payload: payload(), target: target(), immediate: None },
            Operation::WriteImm => {
                Work::Write { payload: payload(), target: target(), immediate: Some(number.to_be_bytes()) }
            }
            Operation::Read => Work::Read {
                sinks: self.buffers.list(self.layout.incoming(plan, number), plan.size),
                source: remote(self.peer, self.layout.outgoing(plan, number)),
                invalidate: None,
            },
            Operation::FetchAdd => Work::Atomic {
                sink: sink(),
                target: remote(self.peer, self.layout.word(0)),
                operation: AtomicOperation::FetchAdd { add: 1, mask: 0 },
            },
            Operation::CmpSwap => Work::Atomic {
                sink: sink(),
                target: remote(self.peer, self.layout.word(link)),
                operation: self.compare_swap(number, link),
            },
        }
    }

    /// Each swap expects what the one before it on the same connection left: they are executed in order.
    fn compare_swap(&self, number: u64, link: usize) -> AtomicOperation {
        let count = self.plan.carried(link, number);
        AtomicOperation::CompareSwap {
            compare: self.plan.swapped(link, count),
            compare_mask: u64::MAX,
            swap: self.plan.swapped(link, count + 1),
            swap_mask: u64::MAX,
        }
    }

    fn outgoing_list(&self, number: u64) -> SegmentList {
        self.buffers.list(self.layout.outgoing(&self.plan, number), self.plan.size)
    }

    /// Reaps what has completed; gives how many.
    pub(crate) fn poll(&mut self) -> Result<usize, Failure> {
        let mut reaped = std::mem::take(&mut self.reaped);
        let count = self.completions.poll(&mut reaped);
        let outcome = reaped[..count].iter().try_for_each(|completion| self.handle_completion(completion));
        self.reaped = reaped;
        outcome.map(|()| count)
    }

    fn handle_completion(&mut self, completion: &WorkCompletion) -> Result<(), Failure> {
        let is_receive = completion.id & RECEIVE != 0;
        if completion.status != Status::Success {
            let what = if is_receive { "a receive" } else { self.plan.operation.name() };
            return Err(Failure::Completion { what, queue_pair: self.link_of(completion), status: completion.status });
        }
        if is_receive {
            return self.handle_receive(completion);
        }
        let link = (completion.id >> LINK_SHIFT) as usize;
        let sequence = completion.id & ((1 << LINK_SHIFT) - 1);
        let state = &mut self.links[link];
        if sequence < state.completed || sequence >= state.posted {
            return Err(Failure::Protocol(format!(
                "completion {sequence} of queue pair {link} came twice or out of order"
            )));
        }
        state.completed = sequence + 1;
        Ok(())
    }

    fn handle_receive(&mut self, completion: &WorkCompletion) -> Result<(), Failure> {
        self.received += 1;
        let name = completion.id & !RECEIVE;
        if !self.session.verify {
            let queue_pair = &self.links[(name >> 32) as usize].queue_pair;
            return post_standing_receive(&self.buffers, &self.session, queue_pair, completion.id);
        }
        let number = name;
        match self.plan.operation {
            Operation::WriteImm if completion.immediate != Some(number.to_be_bytes()) => {
                let found = completion.immediate;
                self.findings.add(|| format!("write-imm message {number} carried the immediate value {found:02x?}"));
            }
            Operation::Send if u64::from(completion.length) != self.plan.size => {
                let (size, length) = (self.plan.size, completion.length);
                self.findings.add(|| format!("send message {number} of {size} bytes arrived with {length}"));
            }
            _ => {}
        }
        Ok(())
    }

    /// Waits until something completes; `what` names it if nothing does.
    pub(crate) fn wait_for_completion(&mut self, what: &'static str) -> Result<(), Failure> {
        let (patience, operation) = (self.patience, self.plan.operation);
        patience.until(|| format!("{what} ({operation})"), || Ok(if self.poll()? > 0 { Some(()) } else { None }))
    }

    fn link_of(&self, completion: &WorkCompletion) -> u32 {
        let number = completion.queue_pair;
        self.links.iter().position(|link| link.queue_pair.number() == number).map_or(u32::MAX, |index| index as u32)
    }

    fn refused(&self, link: usize, error: &dyn std::fmt::Display) -> Failure {
        Failure::Connection(format!("{} on queue pair {link} was not taken: {error}", self.plan.operation))
    }
}

fn name(link: usize, sequence: u64) -> u64 {
    (link as u64) << LINK_SHIFT | sequence
}
