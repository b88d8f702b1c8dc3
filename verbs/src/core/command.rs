//! The control plane: what the application's threads ask of the host. Each command is carried out whole, in order.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crossbeam_channel::Sender;
use softrdma_mpa_ddp_rdmap::HandshakeMisuse;
use softrdma_stack::stream::{ConnectError, Engine, ListenError};
use softrdma_stack::time::Instant;

use super::adapter::take_posted;
use super::endpoint::{Ending, Endpoint, Phase};
use super::host::{Host, Listener};
use crate::connection_manager::{CmError, CmEventKind, CmIdShared};
use crate::queue_pair::{QueuePairShared, StateError};

/// What a side asks for or grants when a connection is made.
#[derive(Clone, Debug)]
pub(crate) struct AcceptParameters {
    pub(crate) private_data: Vec<u8>,
    /// Reads and atomics of the peer that are served at a time.
    pub(crate) ird: u16,
    /// Reads and atomics of ours that are outstanding at a time.
    pub(crate) ord: u16,
}

/// An order to the host. Those with a `reply` are answered in the same pass.
pub(crate) enum Command {
    Listen {
        cm: Arc<CmIdShared>,
        address: SocketAddr,
        backlog: usize,
        reply: Sender<Result<SocketAddr, CmError>>,
    },
    Connect {
        cm: Arc<CmIdShared>,
        queue_pair: Arc<QueuePairShared>,
        remote: SocketAddr,
        local: Option<IpAddr>,
        parameters: AcceptParameters,
        reply: Sender<Result<(), CmError>>,
    },
    Accept {
        cm: Arc<CmIdShared>,
        queue_pair: Arc<QueuePairShared>,
        parameters: AcceptParameters,
        reply: Sender<Result<(), CmError>>,
    },
    Reject {
        cm: Arc<CmIdShared>,
        private_data: Vec<u8>,
        reply: Sender<Result<(), CmError>>,
    },
    /// Ends a connection in order. One that is over is left alone.
    Disconnect {
        cm: Arc<CmIdShared>,
    },
    /// Ends whatever the id still has. Its events stop.
    Destroy {
        cm: Arc<CmIdShared>,
        reply: Option<Sender<()>>,
    },
    /// The queue pair goes to the error state: its connection is reset, its requests are flushed. A connection that has ended
    /// is left to close; without a `reply`, so is one that is being ended.
    Fail {
        queue_pair: Arc<QueuePairShared>,
        reply: Option<Sender<()>>,
    },
    /// A queue pair in error that has no connection any more goes back to its beginning.
    Reset {
        queue_pair: Arc<QueuePairShared>,
        reply: Sender<Result<(), StateError>>,
    },
}

/// Most commands of one pass.
const COMMAND_BUDGET: usize = 64;

/// Carries out what waits, at most [`COMMAND_BUDGET`]; tells how many there were.
pub(super) fn execute_all(engine: &mut dyn Engine, host: &mut Host, now: Instant) -> usize {
    for count in 0..COMMAND_BUDGET {
        // A look is two loads; an empty channel is told for certain only behind a fence.
        if host.commands.is_empty() {
            return count;
        }
        let Ok(command) = host.commands.try_recv() else { return count };
        execute(engine, host, now, command);
    }
    COMMAND_BUDGET
}

// A caller that no longer waits for its reply is no error: `send` results are ignored on purpose.
fn execute(engine: &mut dyn Engine, host: &mut Host, now: Instant, command: Command) {
    match command {
        Command::Listen { cm, address, backlog, reply } => {
            let _ = reply.send(listen(engine, host, now, &cm, address, backlog));
        }
        Command::Connect { cm, queue_pair, remote, local, parameters, reply } => {
            let _ = reply.send(connect(engine, host, now, Connect { cm, queue_pair, remote, local, parameters }));
        }
        Command::Accept { cm, queue_pair, parameters, reply } => {
            let _ = reply.send(accept(host, &cm, queue_pair, &parameters));
        }
        Command::Reject { cm, private_data, reply } => {
            let _ = reply.send(reject(host, &cm, &private_data));
        }
        Command::Disconnect { cm } => disconnect(host, &cm),
        Command::Destroy { cm, reply } => {
            destroy(engine, host, now, &cm, reply);
        }
        Command::Fail { queue_pair, reply } => {
            fail(engine, host, now, &queue_pair, reply);
        }
        Command::Reset { queue_pair, reply } => {
            let _ = reply.send(queue_pair.enter_reset());
        }
    }
}

fn listen(
    engine: &mut dyn Engine,
    host: &mut Host,
    now: Instant,
    cm: &Arc<CmIdShared>,
    address: SocketAddr,
    backlog: usize,
) -> Result<SocketAddr, CmError> {
    let mut bound = address;
    let ips = listening_addresses(host, address)?;
    for &ip in &ips {
        // They share a port: the one that the first of them chose.
        let listened = engine.listen(now, SocketAddr::new(ip, bound.port()), backlog);
        let listener = listened.inspect_err(|_| {
            stop_listening(engine, host, now, cm);
        })?;
        let local = engine.listener_address(listener).unwrap_or(bound);
        host.listeners.insert(listener, Listener { cm: cm.clone(), backlog, undecided: 0 });
        bound = match ips.len() {
            1 => local,
            _ => SocketAddr::new(address.ip(), local.port()),
        };
    }
    cm.set_local(bound);
    Ok(bound)
}

/// What `address` stands for: itself, or the configured addresses of its family if it is unspecified.
fn listening_addresses(host: &Host, address: SocketAddr) -> Result<Vec<IpAddr>, CmError> {
    let configured = &host.settings.listen_addresses;
    if !address.ip().is_unspecified() || configured.is_empty() {
        return Ok(vec![address.ip()]);
    }
    let of_family: Vec<IpAddr> = configured.iter().copied().filter(|ip| ip.is_ipv4() == address.is_ipv4()).collect();
    if of_family.is_empty() {
        return Err(CmError::ListenAddresses { address, configured: configured.clone() });
    }
    Ok(of_family)
}

/// Tells whether the id listened.
fn stop_listening(engine: &mut dyn Engine, host: &mut Host, now: Instant, cm: &CmIdShared) -> bool {
    let before = host.listeners.len();
    host.listeners.retain(|&listener, entry| {
        let is_other = entry.cm.number() != cm.number();
        if !is_other {
            engine.close_listener(now, listener);
        }
        is_other
    });
    host.listeners.len() < before
}

struct Connect {
    cm: Arc<CmIdShared>,
    queue_pair: Arc<QueuePairShared>,
    remote: SocketAddr,
    local: Option<IpAddr>,
    parameters: AcceptParameters,
}

fn connect(engine: &mut dyn Engine, host: &mut Host, now: Instant, connect: Connect) -> Result<(), CmError> {
    let Connect { cm, queue_pair, remote, local, parameters } = connect;
    // A stream whose end was reported, and that only closes, is no longer the id's.
    let slot = host.by_cm.get(&cm.number()).copied();
    let is_over = |endpoint: &mut Endpoint| matches!(endpoint.phase, Phase::Closing) && endpoint.end_reported;
    if slot.and_then(|slot| host.endpoint_mut(slot)).is_some_and(|endpoint| !is_over(endpoint)) {
        return Err(CmError::WrongState { operation: "connect", state: "connecting or connected already" });
    }
    claim(&queue_pair)?;
    let initiator = host.initiator(parameters.ird, parameters.ord, &parameters.private_data)?;
    let stream = engine.connect(now, remote, local)?;
    cm.set_remote(remote);
    queue_pair.enter_ready_to_receive();
    let mut endpoint = Endpoint::new(Phase::Connecting(Box::new(initiator)), stream, cm);
    endpoint.queue_pair = Some(queue_pair);
    endpoint.deadline = Some(now + host.settings.handshake_timeout);
    host.insert(endpoint);
    Ok(())
}

/// A queue pair serves one connection.
fn claim(queue_pair: &QueuePairShared) -> Result<(), CmError> {
    if queue_pair.endpoint().is_some() || !queue_pair.is_connectable() {
        return Err(CmError::QueuePairState { number: queue_pair.number(), state: queue_pair.state() });
    }
    Ok(())
}

fn accept(
    host: &mut Host,
    cm: &Arc<CmIdShared>,
    queue_pair: Arc<QueuePairShared>,
    parameters: &AcceptParameters,
) -> Result<(), CmError> {
    let slot = pending(host, cm, "accept")?;
    claim(&queue_pair)?;
    let Some(responder) = host.deciding(slot) else { return Err(gone("accept")) };
    let (reply, negotiated) = responder.accept(parameters.ird, parameters.ord, &parameters.private_data)?;
    if let Some(endpoint) = host.endpoint_mut(slot) {
        endpoint.greeting = reply;
        queue_pair.set_endpoint(Some(slot));
        endpoint.queue_pair = Some(queue_pair);
    }
    host.decided(cm.listener_number());
    host.establish(slot, &negotiated, Vec::new());
    Ok(())
}

fn reject(host: &mut Host, cm: &Arc<CmIdShared>, private_data: &[u8]) -> Result<(), CmError> {
    let slot = pending(host, cm, "reject")?;
    let Some(responder) = host.deciding(slot) else { return Err(gone("reject")) };
    let reply = responder.reject(private_data)?;
    let deadline = host.now + host.settings.close_timeout;
    host.decided(cm.listener_number());
    if let Some(endpoint) = host.endpoint_mut(slot) {
        endpoint.greeting = reply;
        endpoint.phase = Phase::Rejecting;
        endpoint.deadline = Some(deadline);
        // The application that rejects knows; it hears no more.
        endpoint.end_reported = true;
    }
    host.schedule(slot);
    host.mark_ready(slot);
    Ok(())
}

fn pending(host: &Host, cm: &CmIdShared, operation: &'static str) -> Result<u32, CmError> {
    host.by_cm.get(&cm.number()).copied().ok_or_else(|| gone(operation))
}

fn gone(operation: &'static str) -> CmError {
    CmError::WrongState { operation, state: "no connection request waits here (decided already, or the peer has gone)" }
}

fn disconnect(host: &mut Host, cm: &Arc<CmIdShared>) {
    let Some(&slot) = host.by_cm.get(&cm.number()) else { return };
    let deadline = host.now + host.settings.close_timeout;
    let Some(endpoint) = host.endpoint_mut(slot) else { return };
    match std::mem::replace(&mut endpoint.phase, Phase::Closing) {
        Phase::Established(mut outbound) => {
            if let Some(queue_pair) = &endpoint.queue_pair {
                take_posted(&mut outbound, queue_pair);
                queue_pair.enter_error();
            }
            endpoint.phase = Phase::Draining(outbound);
            endpoint.deadline = Some(deadline);
            endpoint.silent_until = None;
            host.schedule(slot);
            host.mark_ready(slot);
        }
        phase @ (Phase::Connecting(_) | Phase::Requesting(_) | Phase::Deciding(_) | Phase::AwaitingRequest(_)) => {
            endpoint.phase = phase;
            host.end(slot, Ending::Abort);
        }
        phase => endpoint.phase = phase,
    }
}

fn destroy(engine: &mut dyn Engine, host: &mut Host, now: Instant, cm: &Arc<CmIdShared>, reply: Option<Sender<()>>) {
    if stop_listening(engine, host, now, cm) {
        host.end_unknown_children(cm.number());
    }
    let slot = host.by_cm.get(&cm.number()).copied();
    match slot.and_then(|slot| Some((slot, &host.endpoint_mut(slot)?.phase))) {
        // What has been said still leaves; the deadline bounds it.
        None | Some((_, Phase::Rejecting | Phase::Closing | Phase::Terminating(_) | Phase::Draining(_))) => {
            reply.map(|reply| reply.send(()));
        }
        Some((slot, _)) => abort_now(engine, host, now, slot, reply),
    }
}

fn fail(
    engine: &mut dyn Engine,
    host: &mut Host,
    now: Instant,
    queue_pair: &Arc<QueuePairShared>,
    reply: Option<Sender<()>>,
) {
    queue_pair.enter_error();
    if let Some(slot) = queue_pair.endpoint()
        && let Some(endpoint) = host.endpoint_mut(slot)
    {
        match endpoint.phase {
            // Its requests are flushed, its end is reported: the stream closes alone, with what the engine still has of it.
            Phase::Closing if endpoint.end_reported => host.detach(slot),
            // Nobody waits for the flush: what was posted before the end still leaves, and the deadline bounds it.
            Phase::Draining(_) | Phase::Terminating(_) if reply.is_none() => return,
            _ => return abort_now(engine, host, now, slot, reply),
        }
    }
    queue_pair.flush();
    reply.map(|reply| reply.send(()));
}

/// Resets the stream and forgets the endpoint. `reply` is answered when it is gone, and its Inbound as well: nothing refers to
/// its memory afterwards.
fn abort_now(engine: &mut dyn Engine, host: &mut Host, now: Instant, slot: u32, reply: Option<Sender<()>>) {
    if let Some(endpoint) = host.endpoint_mut(slot) {
        endpoint.replies.extend(reply);
        engine.abort(now, endpoint.stream);
        host.remove(slot, CmEventKind::Disconnected);
    }
}

impl From<ListenError> for CmError {
    fn from(error: ListenError) -> Self {
        Self::Listen(error)
    }
}

impl From<ConnectError> for CmError {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

impl From<HandshakeMisuse> for CmError {
    fn from(error: HandshakeMisuse) -> Self {
        Self::Handshake(error)
    }
}
