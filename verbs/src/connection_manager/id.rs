//! An id: a listener, or one end of a connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::event_channel::{EventChannel, QueuedEvent};
use super::{CmError, CmEventKind, Ends};
use crate::core::{AcceptParameters, Command};
use crate::device::Device;
use crate::events::EventQueue;
use crate::queue_pair::{QueuePair, QueuePairShared};

/// Numbers ids over all devices of the process.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

/// The part of an id that the host knows.
#[derive(Debug)]
pub(crate) struct CmIdShared {
    number: u64,
    /// `None`: nobody listens to its events.
    channel: Option<Arc<EventQueue<QueuedEvent>>>,
    listener: Option<Arc<CmIdShared>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    bound: Option<IpAddr>,
    handle: Weak<Handle>,
    queue_pair: Option<QueuePair>,
}

impl CmIdShared {
    fn new(channel: Option<Arc<EventQueue<QueuedEvent>>>, listener: Option<Arc<CmIdShared>>, state: State) -> Self {
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        Self { number, channel, listener, state: Mutex::new(state) }
    }

    /// The id of a stream that is refused before anybody hears of it.
    pub(crate) fn nobody() -> Arc<Self> {
        Arc::new(Self::new(None, None, State::default()))
    }

    /// The id of a connection that a listener accepted.
    pub(crate) fn child(self: &Arc<Self>, ends: Ends) -> Arc<Self> {
        let state = State { local: Some(ends.local), remote: Some(ends.remote), ..State::default() };
        Arc::new(Self::new(self.channel.clone(), Some(self.clone()), state))
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn listener_number(&self) -> Option<u64> {
        self.listener.as_ref().map(|listener| listener.number)
    }

    pub(super) fn listener(&self) -> Option<&Arc<CmIdShared>> {
        self.listener.as_ref()
    }

    pub(crate) fn set_local(&self, local: SocketAddr) {
        self.lock().local = Some(local);
    }

    pub(crate) fn set_remote(&self, remote: SocketAddr) {
        self.lock().remote = Some(remote);
    }

    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        self.lock().remote
    }

    /// Queues an event. One of an id that the application has never heard of, or has dropped, goes nowhere.
    pub(crate) fn emit(self: &Arc<Self>, kind: CmEventKind) {
        let Some(channel) = &self.channel else { return };
        let is_request = matches!(kind, CmEventKind::ConnectRequest { .. });
        if is_request || self.is_known() {
            channel.push(QueuedEvent { id: self.clone(), kind });
        }
    }

    /// Takes back the connect request of a peer that has gone, unless the application has it: what peers can have queued stays
    /// bounded by the backlog.
    pub(crate) fn withdraw_request(&self) {
        let Some(channel) = &self.channel else { return };
        let is_ours = |event: &QueuedEvent| {
            event.id.number == self.number && matches!(event.kind, CmEventKind::ConnectRequest { .. })
        };
        // Outside of the queue's lock.
        drop(channel.withdraw(is_ours));
    }

    /// Whether the application has the id.
    pub(crate) fn is_known(&self) -> bool {
        self.lock().handle.strong_count() > 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the clones of a [`CmId`] share: when the last one is dropped, the id is destroyed.
#[derive(Debug)]
struct Handle {
    shared: Arc<CmIdShared>,
    channel: EventChannel,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Taken out first: dropping a queue pair commands too.
        let queue_pair = self.shared.lock().queue_pair.take();
        self.channel.device.command(Command::Destroy { cm: self.shared.clone(), reply: None });
        drop(queue_pair);
    }
}

/// A listener or one end of a connection. Clones name the same id; dropping the last one destroys it: a listener stops, a
/// connection is reset unless it was disconnected.
#[derive(Clone, Debug)]
pub struct CmId(Arc<Handle>);

/// What a side asks for or grants.
#[derive(Clone, Debug, Default)]
pub struct ConnectParameters {
    /// At most 512 bytes, less 4 with revision 2.
    pub private_data: Vec<u8>,
    /// Reads and atomics of the peer to answer at a time (`responder_resources`); `None`: the device's default.
    pub ird: Option<u16>,
    /// Reads and atomics of ours to have outstanding at a time (`initiator_depth`); `None`: the device's default.
    pub ord: Option<u16>,
}

impl CmId {
    /// A new id whose events arrive at `channel`.
    pub fn new(channel: &EventChannel) -> Self {
        Self::adopt(channel, Arc::new(CmIdShared::new(Some(channel.queue.clone()), None, State::default())))
    }

    pub(super) fn adopt(channel: &EventChannel, shared: Arc<CmIdShared>) -> Self {
        let handle = Arc::new(Handle { shared, channel: channel.clone() });
        handle.shared.lock().handle = Arc::downgrade(&handle);
        Self(handle)
    }

    pub(super) fn existing(shared: &Arc<CmIdShared>) -> Option<Self> {
        shared.lock().handle.upgrade().map(Self)
    }

    /// A number that no other id of the process has.
    pub fn number(&self) -> u64 {
        self.0.shared.number
    }

    /// The device it lives on.
    pub fn device(&self) -> &Device {
        &self.0.channel.device
    }

    /// Our end, once known.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.0.shared.lock().local
    }

    /// The peer's end, once known.
    pub fn remote_address(&self) -> Option<SocketAddr> {
        self.0.shared.lock().remote
    }

    /// Its queue pair, once created or given.
    pub fn queue_pair(&self) -> Option<QueuePair> {
        self.0.shared.lock().queue_pair.clone()
    }

    /// Gives the id a queue pair, which [`Self::connect`] or [`Self::accept`] connects. It goes to INIT, so receives can be
    /// posted at once.
    pub fn set_queue_pair(&self, queue_pair: QueuePair) {
        let _ = queue_pair.modify_to_init();
        let before = self.0.shared.lock().queue_pair.replace(queue_pair);
        // Not under the lock: its connection ends, and the event of that asks for the lock.
        drop(before);
    }

    /// Binds to a local address, for a connect that must come from there.
    pub fn bind(&self, local: IpAddr) {
        self.0.shared.lock().bound = Some(local);
    }

    /// Names the peer. `AddressResolved` follows.
    pub fn resolve_address(&self, remote: SocketAddr) {
        self.0.shared.lock().remote = Some(remote);
        self.0.shared.emit(CmEventKind::AddressResolved);
    }

    /// `RouteResolved` follows: routes are found when connecting.
    pub fn resolve_route(&self) {
        self.0.shared.emit(CmEventKind::RouteResolved);
    }

    /// Listens at `address`; port 0 chooses one. At most `backlog` requests wait undecided (`None`: the device's default).
    /// Gives the address with the port in use.
    pub fn listen(&self, address: SocketAddr, backlog: Option<usize>) -> Result<SocketAddr, CmError> {
        let device = self.device();
        let backlog = backlog.unwrap_or(device.config().limits.backlog as usize);
        let cm = self.0.shared.clone();
        device.ask(|reply| Command::Listen { cm, address, backlog, reply })?
    }

    /// Connects to the address named before. `Established`, `Rejected`, `Unreachable` or `ConnectError` follows.
    pub fn connect(&self, parameters: &ConnectParameters) -> Result<(), CmError> {
        let state = self.0.shared.lock();
        let wrong = |state| CmError::WrongState { operation: "connect", state };
        let remote = state.remote.ok_or(wrong("no peer is named; call resolve_address first"))?;
        let queue_pair = state.queue_pair.clone().ok_or(wrong("the id has no queue pair; create one first"))?;
        let local = state.bound;
        drop(state);
        let (cm, parameters) = (self.0.shared.clone(), self.parameters(parameters)?);
        let queue_pair = self.own(&queue_pair)?;
        self.device().ask(|reply| Command::Connect { cm, queue_pair, remote, local, parameters, reply })?
    }

    /// Accepts a connect request. `Established` follows.
    pub fn accept(&self, parameters: &ConnectParameters) -> Result<(), CmError> {
        let state = "the id has no queue pair; create one first";
        let queue_pair = self.queue_pair().ok_or(CmError::WrongState { operation: "accept", state })?;
        let (cm, parameters) = (self.0.shared.clone(), self.parameters(parameters)?);
        let queue_pair = self.own(&queue_pair)?;
        self.device().ask(|reply| Command::Accept { cm, queue_pair, parameters, reply })?
    }

    /// Rejects a connect request; the peer gets `private_data`.
    pub fn reject(&self, private_data: &[u8]) -> Result<(), CmError> {
        let (cm, private_data) = (self.0.shared.clone(), private_data.to_vec());
        self.device().ask(|reply| Command::Reject { cm, private_data, reply })?
    }

    /// Ends the connection in order: what was posted still leaves, then `Disconnected` follows. Of one that is over, nothing.
    pub fn disconnect(&self) {
        self.device().command(Command::Disconnect { cm: self.0.shared.clone() });
    }

    /// What the host knows of `queue_pair`, if that is the same host.
    fn own(&self, queue_pair: &QueuePair) -> Result<Arc<QueuePairShared>, CmError> {
        if !queue_pair.is_on(self.device()) {
            return Err(CmError::OtherDevice { number: queue_pair.number() });
        }
        Ok(queue_pair.shared().clone())
    }

    fn parameters(&self, parameters: &ConnectParameters) -> Result<AcceptParameters, CmError> {
        let config = self.device().config();
        let limit = config.limits.max_outstanding_reads;
        let ird = parameters.ird.unwrap_or(config.handshake.ird);
        let ord = parameters.ord.unwrap_or(config.handshake.ord);
        for (what, value) in [("IRD", ird), ("ORD", ord)] {
            if value > limit {
                return Err(CmError::Depth { what, value, limit });
            }
        }
        Ok(AcceptParameters { private_data: parameters.private_data.clone(), ird, ord })
    }
}

impl PartialEq for CmId {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for CmId {}
