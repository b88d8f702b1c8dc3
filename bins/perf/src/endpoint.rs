//! A device and connections on it, the same for both ends.

use std::net::SocketAddr;

use softrdma_bins_common::device::DevicePlan;
use softrdma_verbs::{
    CmEvent, CmEventKind, CmId, CompletionQueue, ConnectParameters, Device, EventChannel, ProtectionDomain, QueuePair,
    QueuePairAttributes, Threads, WorkCompletion,
};
use softrdma_verbs::{Opcode, Status};

use crate::failure::{Context, Failure};
use crate::message::{Greeting, VERSION};
use crate::wait::Patience;

/// An open device with what connections on it need.
pub(crate) struct Endpoint {
    pub(crate) device: Device,
    pub(crate) events: EventChannel,
    pub(crate) patience: Patience,
}

/// One connection.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) id: CmId,
    pub(crate) queue_pair: QueuePair,
}

/// Where the requests of connections complete, and how many there may be.
#[derive(Clone)]
pub(crate) struct Queues {
    pub(crate) domain: ProtectionDomain,
    pub(crate) completions: CompletionQueue,
    pub(crate) max_send: u32,
    pub(crate) max_receive: u32,
}

impl Endpoint {
    /// Opens the device of `plan` and pins the calling thread where the plan says.
    pub(crate) fn open(plan: &DevicePlan, limit: std::time::Duration) -> Result<Self, Failure> {
        if let Some(cpu) = plan.application_cpu
            && !core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
        {
            return Err(Failure::Refused(format!(
                "cannot pin a thread to CPU {cpu}: there is none, or this process may not use it"
            )));
        }
        let device = Device::open(plan.config.clone()).context(|| "cannot open the device")?;
        Self::over(device, limit)
    }

    /// The same over a device that is open already.
    pub(crate) fn over(device: Device, limit: std::time::Duration) -> Result<Self, Failure> {
        let events = EventChannel::new(&device).context(|| "cannot make an event channel")?;
        let config = device.config();
        let patience = Patience { limit, busy_poll: config.busy_poll, drives: config.threads == Threads::C2 };
        Ok(Self { device, events, patience })
    }

    /// Connects to `server` and waits until it has accepted. `prepare` posts what must be there before data flows.
    pub(crate) fn connect(
        &self,
        server: SocketAddr,
        greeting: &Greeting,
        queues: &Queues,
        prepare: impl FnOnce(&QueuePair) -> Result<(), Failure>,
    ) -> Result<Link, Failure> {
        let id = CmId::new(&self.events);
        id.resolve_address(server);
        self.expect(&id, server, "address", |kind| matches!(kind, CmEventKind::AddressResolved))?;
        id.resolve_route();
        self.expect(&id, server, "route", |kind| matches!(kind, CmEventKind::RouteResolved))?;
        let link = Link::new(id, queues)?;
        prepare(&link.queue_pair)?;
        let private_data = serde_json::to_vec(greeting).context(|| "cannot write a greeting")?;
        let parameters = ConnectParameters { private_data, ..ConnectParameters::default() };
        link.id.connect(&parameters).context(|| format!("cannot connect to {server}"))?;
        self.expect(&link.id, server, "answer", |kind| matches!(kind, CmEventKind::Established { .. }))?;
        Ok(link)
    }

    /// Connects to `server`, ends the connection and waits until it is over.
    pub(crate) fn visit(&self, server: SocketAddr, greeting: &Greeting, queues: &Queues) -> Result<(), Failure> {
        let link = self.connect(server, greeting, queues, |_| Ok(()))?;
        link.id.disconnect();
        self.expect(&link.id, server, "end of the connection", |kind| matches!(kind, CmEventKind::Disconnected))
    }

    /// Accepts a connect request and waits until data may flow. `prepare` posts what must be there before that.
    pub(crate) fn accept(
        &self,
        id: CmId,
        queues: &Queues,
        prepare: impl FnOnce(&QueuePair) -> Result<(), Failure>,
    ) -> Result<Link, Failure> {
        let (link, peer) = self.begin_to_accept(id, queues, prepare)?;
        self.expect(&link.id, &peer, "connection", |kind| matches!(kind, CmEventKind::Established { .. }))?;
        Ok(link)
    }

    /// Accepts a connect request, of which events tell the rest; gives the peer's name as well.
    fn begin_to_accept(
        &self,
        id: CmId,
        queues: &Queues,
        prepare: impl FnOnce(&QueuePair) -> Result<(), Failure>,
    ) -> Result<(Link, String), Failure> {
        let peer = id.remote_address().map_or_else(|| "a client".to_owned(), |address| address.to_string());
        let link = Link::new(id, queues)?;
        prepare(&link.queue_pair)?;
        link.id.accept(&ConnectParameters::default()).context(|| format!("cannot accept {peer}"))?;
        Ok((link, peer))
    }

    /// Accepts connections of run `session` as they come, into `guests`, and takes out those that have ended.
    pub(crate) fn receive_guests(
        &self,
        session: u64,
        queues: &Queues,
        guests: &mut Vec<Link>,
    ) -> Result<bool, Failure> {
        let Some(event) = self.events.try_get() else { return Ok(false) };
        match greeting(&event) {
            Some(Ok(greeting)) if greeting.session == session => {
                guests.push(self.begin_to_accept(event.id, queues, |_| Ok(()))?.0);
            }
            Some(_) => reject(&event.id, BUSY),
            None if matches!(event.kind, CmEventKind::Established { .. }) => {}
            None => guests.retain(|guest| guest.id != event.id),
        }
        Ok(true)
    }

    /// Waits for the event that `wanted` describes. Requests of other clients are rejected meanwhile.
    fn expect(
        &self,
        id: &CmId,
        peer: impl std::fmt::Display,
        what: &'static str,
        wanted: impl Fn(&CmEventKind) -> bool,
    ) -> Result<(), Failure> {
        self.patience.until(
            || format!("{what} from {peer}"),
            || {
                let Some(event) = self.events.try_get() else { return Ok(None) };
                match event.kind {
                    _ if event.id == *id && wanted(&event.kind) => Ok(Some(())),
                    CmEventKind::ConnectRequest { .. } => {
                        reject(&event.id, BUSY);
                        Ok(None)
                    }
                    // An earlier connection that ends is noticed where its requests fail.
                    _ if event.id != *id => Ok(None),
                    kind => Err(Failure::Connection(explain(&peer.to_string(), &kind))),
                }
            },
        )
    }

    /// The next connect request of ours, if one waits: with what it says of itself. Others are rejected.
    pub(crate) fn connect_request(&self) -> Option<(CmId, Greeting)> {
        let event = self.events.try_get()?;
        let greeting = greeting(&event)?;
        match greeting {
            Ok(greeting) => Some((event.id, greeting)),
            Err(reason) => {
                tracing::info!(peer = ?event.id.remote_address(), reason, "rejected a connection");
                reject(&event.id, &reason);
                None
            }
        }
    }
}

/// What completions are reaped into.
pub(crate) const NO_COMPLETION: WorkCompletion = WorkCompletion {
    id: 0,
    status: Status::Success,
    opcode: Opcode::Send,
    length: 0,
    queue_pair: 0,
    immediate: None,
    invalidated: None,
    solicited: false,
};

/// What a client is told that comes while another is served.
pub(crate) const BUSY: &str = "this softrdma-perf server is busy with another client; try again later";

/// Rejects a connect request; that its sender has gone already is all right.
pub(crate) fn reject(id: &CmId, reason: &str) {
    let _ = id.reject(reason.as_bytes());
}

/// `None`: no connect request.
fn greeting(event: &CmEvent) -> Option<Result<Greeting, String>> {
    let CmEventKind::ConnectRequest { private_data, .. } = &event.kind else { return None };
    Some(match serde_json::from_slice::<Greeting>(private_data) {
        Ok(greeting) if greeting.softrdma_perf == VERSION => Ok(greeting),
        Ok(greeting) => {
            Err(format!("this softrdma-perf server speaks version {VERSION}, not {}", greeting.softrdma_perf))
        }
        Err(_) => Err("this is a softrdma-perf server, and the client is no softrdma-perf".to_owned()),
    })
}

fn explain(peer: &str, kind: &CmEventKind) -> String {
    match kind {
        CmEventKind::Rejected { private_data } if private_data.is_empty() => format!("{peer} rejected the connection"),
        CmEventKind::Rejected { private_data } => {
            format!("{peer} rejected the connection: {}", String::from_utf8_lossy(private_data))
        }
        CmEventKind::Unreachable { reason } => {
            format!(
                "{peer} cannot be reached ({reason:?}): is `softrdma-perf server` running there, with the same --fabric?"
            )
        }
        CmEventKind::Disconnected => format!("{peer} closed the connection"),
        kind => format!("no connection to {peer}: {kind:?}"),
    }
}

impl Link {
    fn new(id: CmId, queues: &Queues) -> Result<Self, Failure> {
        let attributes = QueuePairAttributes {
            send_completion_queue: queues.completions.clone(),
            receive_completion_queue: queues.completions.clone(),
            shared_receive_queue: None,
            max_send: queues.max_send,
            max_receive: queues.max_receive,
            signal_all: false,
        };
        let queue_pair =
            id.device().create_queue_pair(&queues.domain, &attributes).context(|| "cannot make a queue pair")?;
        id.set_queue_pair(queue_pair.clone());
        Ok(Self { id, queue_pair })
    }
}
