//! How connections get their rings: which may, when they have proven to last, and what the exchange says to them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use softrdma_smc::arena::{Connection, Geometry};
use softrdma_smc::exchange::{Direction, Fork, Host, OfferError, Service, Settings};
use softrdma_smc::names::{Announcement, Rendezvous, Tuple};
use softrdma_smc::policy::{Action, Policy, Query};
use softrdma_smc::wire::Gid;
use softrdma_smc::wire::clc::DeclineReason;

use crate::abi::kernel;
use crate::back;
use crate::capture;
use crate::descriptor;
use crate::readiness;
use crate::show;
use crate::socket::{Mode, Role, Socket, flag};

/// Connections that an arena has room for: memory for them is taken as they come.
const CAPACITY: u32 = 16_384;
/// How often an end that accepted looks for the other, each time after twice as many transfers.
const ATTEMPTS: u32 = 12;
/// How long a connection that must have rings is waited for: as long as an exchange may take.
const REQUIRED_WITHIN: Duration = Duration::from_secs(6);

static UPGRADES: OnceLock<Option<Upgrades>> = OnceLock::new();

/// What a process has to move connections with.
struct Upgrades {
    policy: Policy,
    program: String,
    service: Service,
    host: Arc<Sockets>,
}

/// The connections that are on their way, by their keys; and those that have arrived, by the tokens of this end, with those that
/// have something to send that the program need not know of.
#[derive(Default)]
struct Sockets {
    on_the_way: Mutex<HashMap<u64, Weak<Socket>>>,
    moved: Mutex<Moved>,
}

#[derive(Default)]
struct Moved {
    known: HashMap<u64, Weak<Socket>>,
    held: HashMap<u64, Arc<Socket>>,
    /// When those that are gone are looked for.
    next_sweep: usize,
}

impl Sockets {
    fn all(&self) -> MutexGuard<'_, HashMap<u64, Weak<Socket>>> {
        self.on_the_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moved(&self) -> MutexGuard<'_, Moved> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: u64) -> Option<Arc<Socket>> {
        self.all().get(&key).and_then(Weak::upgrade)
    }
}

impl Host for Sockets {
    fn prepare(&self, key: u64, connection: Connection, peer: Gid) -> bool {
        let Some(socket) = self.find(key) else {
            return false;
        };
        descriptor::look_up_nonblocking(&socket);
        readiness::register(&connection, &socket);
        let link = show::link(&connection, peer);
        let gid = upgrades().and_then(|upgrades| upgrades.service.gid());
        show::list_arena(connection.arena(), gid.unwrap_or(Gid(0)), peer);
        if capture::is_on()
            && let Some((local, peer)) = socket.descriptor().and_then(kernel::ends)
        {
            capture::attach(&socket, Tuple { local, peer });
        }
        let is_prepared = socket.prepare(connection);
        if let Some(gid) = gid {
            show::set_gid(gid);
        }
        if is_prepared {
            show::accelerate(&socket, &link);
        }
        is_prepared
    }

    fn look_at(&self, token: u64) -> Option<OwnedFd> {
        let socket = self.moved().known.get(&token).and_then(Weak::upgrade)?;
        back::look_at(&socket)
    }

    fn establish(&self, key: u64) {
        let socket = self.all().remove(&key);
        if let Some(socket) = socket.as_ref().and_then(Weak::upgrade) {
            socket.establish();
        }
    }

    fn tidy(&self) -> Option<Duration> {
        readiness::tidy()
    }

    fn decline(&self, key: u64, reason: DeclineReason, by_peer: bool) {
        let socket = self.all().remove(&key);
        if let Some(socket) = socket.as_ref().and_then(Weak::upgrade) {
            fall_back(&socket, reason, by_peer);
        }
    }

    fn part(&self) {
        readiness::forget_gone_arenas();
        show::forget_gone_arenas();
    }

    fn observe(&self, tuple: Tuple, direction: Direction, message: &[u8]) {
        if capture::is_on() {
            capture::observe(tuple, direction, message);
        }
    }
}

fn upgrades() -> Option<&'static Upgrades> {
    UPGRADES.get()?.as_ref()
}

/// At the beginning of the process: what is to be done in it. A policy that cannot be read is said once, and then nothing is.
pub(crate) fn begin() {
    UPGRADES.get_or_init(|| {
        let program = kernel::program_name();
        let policy = Policy::of_process(|name| std::env::var(name).ok());
        let policy = policy.map_err(|error| kernel::complain(&format!("{program}: stays with TCP: {error}"))).ok()?;
        let rendezvous = match (&policy.rendezvous_directory, &policy.isolation_domain) {
            (Some(path), Some(domain)) => Rendezvous::with_directory(path, domain.as_str())
                .map_err(|error| kernel::complain(&format!("{program}: stays with TCP: {error}")))
                .ok()?,
            _ => Rendezvous::new(),
        };
        let geometry = Geometry { capacity: CAPACITY, ring_bytes: policy.ring_bytes.get() };
        let host = Arc::new(Sockets::default());
        let service = Service::start(Settings { rendezvous, geometry, ..Settings::default() }, host.clone());
        show::begin(&program, policy.max_ring_memory, policy.verbose);
        if let Some(path) = &policy.capture {
            capture::begin(path.to_string_lossy().into_owned());
        }
        Some(Upgrades { policy, program, service, host })
    });
}

/// How long it may be worth spinning.
pub(crate) fn spin_limit() -> Duration {
    upgrades().map_or(Duration::ZERO, |upgrades| Duration::from_micros(upgrades.policy.spin_us.into()))
}

/// Whether connections are moved at all.
pub(crate) fn is_enabled() -> bool {
    upgrades().is_some()
}

/// What the policy says to a connection with the service at `address`.
pub(crate) fn action(address: SocketAddr, role: Role) -> Action {
    upgrades().map_or(Action::Tcp, |upgrades| {
        upgrades.policy.decide(&Query { program: &upgrades.program, role: role.shown(), address })
    })
}

/// Says that this process listens at `address`, if it may accept connections that are moved.
pub(crate) fn announce(address: SocketAddr) -> Option<Announcement> {
    let upgrades = upgrades()?;
    if !upgrades.policy.may_accept(&upgrades.program, address) {
        return None;
    }
    upgrades.service.announce(address.port()).ok()?
}

fn own_token(socket: &Socket) -> Option<u64> {
    socket.rings().map(|(connection, _)| connection.own_token())
}

/// The peer may ask for what it has not read of `socket`.
pub(crate) fn know(socket: &Arc<Socket>) {
    if let (Some(upgrades), Some(token)) = (upgrades(), own_token(socket)) {
        let mut moved = upgrades.host.moved();
        moved.known.insert(token, Arc::downgrade(socket));
        if moved.known.len() > moved.next_sweep {
            moved.known.retain(|_, socket| socket.strong_count() > 0);
            moved.next_sweep = 2 * moved.known.len() + 64;
        }
    }
}

/// `socket` is needed until [`let_go`], whatever the program does.
pub(crate) fn hold(socket: &Arc<Socket>) {
    if let (Some(upgrades), Some(token)) = (upgrades(), own_token(socket)) {
        upgrades.host.moved().held.insert(token, socket.clone());
    }
}

/// See [`hold`].
pub(crate) fn let_go(socket: &Socket) {
    if let (Some(upgrades), Some(token)) = (upgrades(), own_token(socket)) {
        let held = upgrades.host.moved().held.remove(&token);
        // Not with the lock held: it may be the last.
        drop(held);
    }
}

/// Tells the process that calls itself `gid` to look at its connection `token`.
pub(crate) fn call(gid: u64, token: u64) {
    if let Some(upgrades) = upgrades() {
        upgrades.service.call(Gid(gid), token);
    }
}

/// This process has inherited `socket` and uses it: from now on it may be asked, too.
#[cold]
pub(crate) fn adopt(socket: &Arc<Socket>) {
    if let Some(upgrades) = upgrades()
        && let Some((connection, _)) = socket.rings()
    {
        socket.set_flag(flag::SHARED);
        if let Ok(home) = upgrades.service.be_at_home() {
            know(socket);
            connection.add_home(home.0);
        }
    }
}

/// The connection's end is closed, or decided.
pub(crate) fn withdraw(socket: &Socket) {
    if let Some(upgrades) = upgrades()
        && upgrades.host.all().remove(&socket.key()).is_some()
    {
        upgrades.service.withdraw(socket.key());
    }
}

/// A connection has begun.
pub(crate) fn begin_connection(socket: &Arc<Socket>, fd: RawFd) {
    if socket.is_required() || upgrades().is_some_and(|upgrades| upgrades.policy.upgrade_after == 0) {
        attempt(socket, fd, 0);
    }
}

/// Another transfer over TCP is done. From some number on the ends look for each other.
#[inline]
pub(crate) fn count_transfer(socket: &Arc<Socket>, fd: RawFd) {
    let count = socket.count_transfer();
    let after = upgrades().map_or(u64::MAX, |upgrades| upgrades.policy.upgrade_after.into());
    if let Some(over) = count.checked_sub(after)
        && (over + 1).is_power_of_two()
    {
        attempt(socket, fd, (over + 1).trailing_zeros());
    }
}

/// Whether a program that asks for a send buffer of so many bytes, as the kernel counts them (socket(7): twice what was asked for),
/// wants less under way than a ring takes: it waits for the peer to read, and hears soon that it has closed. Linux's SMC has no
/// buffer below this either.
pub(crate) const fn is_small_buffer(bytes: i32) -> bool {
    bytes < 16_384
}

/// Looks for the other end, for the `number`th time.
#[cold]
fn attempt(socket: &Arc<Socket>, fd: RawFd, number: u32) {
    let Some(upgrades) = upgrades() else {
        return;
    };
    if !socket.may_upgrade() || upgrades.host.all().contains_key(&socket.key()) {
        return;
    }
    let Some((local, peer)) = kernel::ends(fd) else {
        return;
    };
    if !show::has_room() {
        return fall_back(socket, DeclineReason::INSUFFICIENT_MEMORY, false);
    }
    if number == 0 && kernel::send_buffer_asked_for(fd).is_some_and(is_small_buffer) {
        return fall_back(socket, DeclineReason::OPTION_UNSUPPORTED, false);
    }
    let tuple = Tuple { local, peer };
    if number == 0 && upgrades.policy.rendezvous_directory.is_none() && !kernel::is_of_this_host(tuple) {
        return fall_back(socket, DeclineReason::PEER_WITHOUT_SMC, false);
    }
    match socket.role() {
        Role::Connector => offer(upgrades, socket, tuple, number),
        Role::Acceptor => {
            upgrades.host.all().insert(socket.key(), Arc::downgrade(socket));
            if !upgrades.service.seek(socket.key(), tuple) {
                upgrades.host.all().remove(&socket.key());
                if number >= ATTEMPTS {
                    fall_back(socket, DeclineReason::PEER_WITHOUT_SMC, false);
                }
            }
        }
    }
}

fn offer(upgrades: &Upgrades, socket: &Arc<Socket>, tuple: Tuple, number: u32) {
    if !upgrades.service.is_announced(tuple.peer.port()) {
        return fall_back(socket, DeclineReason::PEER_WITHOUT_SMC, false);
    }
    upgrades.host.all().insert(socket.key(), Arc::downgrade(socket));
    let Err(error) = upgrades.service.offer(socket.key(), tuple) else {
        return;
    };
    upgrades.host.all().remove(&socket.key());
    if !matches!(error, OfferError::Busy) || number >= ATTEMPTS {
        fall_back(socket, DeclineReason::INSUFFICIENT_MEMORY, false);
    }
}

/// The connection stays TCP, and why.
fn fall_back(socket: &Arc<Socket>, reason: DeclineReason, by_peer: bool) {
    if socket.give_up_rings() {
        show::fall_back(socket, reason, by_peer);
    }
}

/// It stays TCP because of something that the program does, if nothing else is decided yet: whether it does.
pub(crate) fn leave_to_tcp(socket: &Socket, reason: DeclineReason) -> bool {
    let is_plain = socket.stay_plain();
    if is_plain {
        let _ = socket.plain_because.compare_exchange(0, reason.0, Ordering::AcqRel, Ordering::Relaxed);
        show::fall_back(socket, reason, false);
    }
    is_plain
}

/// Waits until a connection that must have rings has them.
#[cold]
pub(crate) fn wait_for_rings(socket: &Arc<Socket>, fd: RawFd) -> Result<(), Errno> {
    if socket.mode() == Mode::Ring {
        return Ok(());
    }
    let started = Instant::now();
    let mut number = 0;
    while matches!(socket.mode(), Mode::Undecided | Mode::Prepared) {
        if started.elapsed() > REQUIRED_WITHIN {
            return Err(Errno::CONNABORTED);
        }
        attempt(socket, fd, number.min(ATTEMPTS - 1));
        number += 1;
        kernel::pause(Duration::from_millis(1));
    }
    if socket.mode() == Mode::Ring { Ok(()) } else { Err(Errno::CONNABORTED) }
}

thread_local! {
    /// Between the two sides of a fork.
    static FORK: RefCell<Option<Forking>> = const { RefCell::new(None) };
}

/// What no other thread may have while the process forks: the child would never get it back.
struct Forking {
    service: Fork<'static>,
    sockets: MutexGuard<'static, HashMap<u64, Weak<Socket>>>,
    moved: MutexGuard<'static, Moved>,
}

pub(crate) fn before_fork() {
    if let Some(upgrades) = upgrades() {
        let service = upgrades.service.before_fork();
        let (sockets, moved) = (upgrades.host.all(), upgrades.host.moved());
        let forking = Forking { service, sockets, moved };
        FORK.with(|fork| *fork.borrow_mut() = Some(forking));
    }
}

pub(crate) fn after_fork_in_parent() {
    if let Some(fork) = FORK.with(|fork| fork.borrow_mut().take()) {
        fork.service.after_fork_in_parent();
    }
}

/// What comes of it: the sockets whose rest is sent by the parent.
pub(crate) fn after_fork_in_child() -> Vec<Arc<Socket>> {
    let mut returning = Vec::new();
    if let Some(mut fork) = FORK.with(|fork| fork.borrow_mut().take()) {
        fork.service.after_fork_in_child();
        // What was under way is under way in the parent.
        fork.sockets.clear();
        fork.moved.known.clear();
        returning.extend(std::mem::take(&mut fork.moved.held).into_values());
    }
    capture::begin_anew();
    returning
}
