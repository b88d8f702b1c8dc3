//! What a process has of the exchange: a handle, and behind it, once it was needed, a thread.

use std::io;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::io::Errno;

use super::connector::BACKLOG;
use super::fork::Fork;
use super::link::Link;
use super::poller::{Bed, Poller, Ready, Waker};
use super::worker::{Command, Next, Slot, Worker, random};
use super::{Host, Settings};
use crate::names::{Announcement, Tuple};
use crate::wire::Gid;

/// Bytes of the thread's stack.
const STACK: usize = 256 * 1024;
const NAME: &str = "softrdma-smc";

/// Why a connection could not be offered.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// [`Settings::max_exchanges`] are under way; there may be room later.
    #[error("as many connections are being agreed on as may be at a time")]
    Busy,
    /// Somebody waits at its name.
    #[error("somebody waits at the connection's name already")]
    Taken,
    /// The system said no.
    #[error("waiting at the connection's name: {0}")]
    System(#[from] io::Error),
}

/// Agrees with other processes on connections. Dropped, it gives up what is under way, and says so to nobody but the peers.
pub struct Service {
    pub(super) shared: Arc<Shared>,
}

/// What the service's thread and all others have. The locks are taken in the order in which they stand here.
pub(super) struct Shared {
    settings: Arc<Settings>,
    host: Arc<dyn Host>,
    used: Arc<AtomicUsize>,
    /// Held by the thread while it works, never while it sleeps. `None`: there is no thread.
    pub(super) worker: Mutex<Option<Worker>>,
    /// Held while a socket is made, so that no child of fork gets one that nobody there knows of.
    pub(super) desk: Mutex<Desk>,
}

/// Where others leave what the thread is to do.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) commands: Vec<Command>,
    pub(super) running: Option<Running>,
}

pub(super) struct Running {
    waker: Waker,
    gid: Gid,
    pub(super) thread: JoinHandle<()>,
}

impl Service {
    /// A service for the process that `host` is. It costs nothing before something is offered or found.
    pub fn start(settings: Settings, host: Arc<dyn Host>) -> Self {
        let (settings, used) = (Arc::new(settings), Arc::default());
        let (worker, desk) = (Mutex::default(), Mutex::default());
        Self { shared: Arc::new(Shared { settings, host, used, worker, desk }) }
    }

    /// The end of `tuple` that has connected, and is called `key`, from now on waits to be found.
    pub fn offer(&self, key: u64, tuple: Tuple) -> Result<(), OfferError> {
        let shared = &self.shared;
        let slot = Slot::take(&shared.used, shared.settings.max_exchanges).ok_or(OfferError::Busy)?;
        let mut desk = shared.desk_with_thread()?;
        let bound = match shared.settings.rendezvous.wait_at(tuple, BACKLOG) {
            Ok(bound) => bound,
            Err(error) if Errno::from_io_error(&error) == Some(Errno::ADDRINUSE) => return Err(OfferError::Taken),
            Err(error) => return Err(error.into()),
        };
        desk.leave(Command::Offer { key, tuple, bound, slot });
        Ok(())
    }

    /// Whether the other end of `tuple` waits. If so, the end that has accepted, and is called `key`, agrees with it from now
    /// on. Costs a few system calls when not.
    pub fn seek(&self, key: u64, tuple: Tuple) -> bool {
        let shared = &self.shared;
        let Some(slot) = Slot::take(&shared.used, shared.settings.max_exchanges) else { return false };
        let mut desk = shared.desk();
        let Ok(socket) = shared.settings.rendezvous.go_to(tuple) else { return false };
        let Some(link) = Link::new(socket, shared.settings.rendezvous.uid()) else { return false };
        desk.leave(Command::Seek { key, tuple, link, slot });
        if desk.running.is_some() {
            return true;
        }
        // Only now that somebody was found a thread is needed.
        drop(desk);
        let has_thread = shared.desk_with_thread().is_ok();
        if !has_thread {
            shared
                .desk()
                .commands
                .retain(|command| !matches!(command, Command::Seek { key: left, .. } if *left == key));
        }
        has_thread
    }

    /// The connection called `key` is gone.
    pub fn withdraw(&self, key: u64) {
        let mut desk = self.shared.desk();
        if desk.running.is_some() {
            desk.leave(Command::Withdraw { key });
        }
    }

    /// What this process calls itself; `None` before it was needed, and something else in a child of fork.
    pub fn gid(&self) -> Option<Gid> {
        self.shared.desk().running.as_ref().map(|running| running.gid)
    }

    /// Makes this process one that is heard of by its GID: that.
    pub fn be_at_home(&self) -> io::Result<Gid> {
        let desk = self.shared.desk_with_thread()?;
        desk.running.as_ref().map(|running| running.gid).ok_or_else(|| Errno::SRCH.into())
    }

    /// Tells a process that has the other end, and calls itself `gid`, to look at its connection `token`: whether it may have
    /// heard. No child of fork notices.
    pub fn call(&self, gid: Gid, token: u64) -> bool {
        self.shared.settings.rendezvous.call(gid, &super::home::word(token))
    }

    /// As [`Rendezvous::announce`](crate::names::Rendezvous::announce), and no child of fork gets half of it.
    pub fn announce(&self, port: u16) -> io::Result<Option<Announcement>> {
        let _desk = self.shared.desk();
        self.shared.settings.rendezvous.announce(port)
    }

    /// As [`Rendezvous::is_announced`](crate::names::Rendezvous::is_announced), and no child of fork notices.
    pub fn is_announced(&self, port: u16) -> bool {
        let _desk = self.shared.desk();
        self.shared.settings.rendezvous.is_announced(port)
    }

    /// To be called before the process forks, by the thread that does, which must not have a lock that a [`Host`] method
    /// waits for. Until the result is dropped or used nothing else is done here.
    pub fn before_fork(&self) -> Fork<'_> {
        Fork::new(&self.shared)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let running = {
            let mut desk = self.shared.desk();
            if desk.running.is_some() {
                desk.leave(Command::Stop);
            }
            desk.running.take()
        };
        if let Some(running) = running
            && running.thread.thread().id() != thread::current().id()
        {
            let _ = running.thread.join();
        }
    }
}

impl Desk {
    fn leave(&mut self, command: Command) {
        self.commands.push(command);
        if let Some(running) = &self.running {
            running.waker.wake();
        }
    }
}

impl Shared {
    pub(super) fn worker(&self) -> MutexGuard<'_, Option<Worker>> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The desk, and somebody who works at it.
    fn desk_with_thread(self: &Arc<Self>) -> io::Result<MutexGuard<'_, Desk>> {
        let desk = self.desk();
        if desk.running.is_some() {
            return Ok(desk);
        }
        drop(desk);
        let mut worker = self.worker();
        let mut desk = self.desk();
        if desk.running.is_none() {
            let poller = Poller::new()?;
            let gid = Gid(random()?);
            let (waker, bed) = (poller.waker(), poller.bed());
            // There may be something on the desk already.
            waker.wake();
            let thread = self.spawn(bed)?;
            *worker = Some(Worker::new(Arc::clone(&self.settings), Arc::clone(&self.host), poller, gid));
            desk.running = Some(Running { waker, gid, thread });
        }
        Ok(desk)
    }

    /// The program has closed our descriptors behind our back. Their numbers may be the program's by now, so nothing is closed
    /// here. The host hears nothing of what was under way; what comes next begins with a new thread.
    fn give_up(&self) {
        std::mem::forget(self.worker().take());
        let mut desk = self.desk();
        std::mem::forget(std::mem::take(&mut desk.commands));
        desk.running = None;
    }

    /// A thread that no signal of the program ever runs on.
    fn spawn(self: &Arc<Self>, bed: Bed) -> io::Result<JoinHandle<()>> {
        let shared = Arc::clone(self);
        let builder = thread::Builder::new().name(NAME.to_owned()).stack_size(STACK);
        // Blocked here already, as the new thread begins with what this one has.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let spawned = builder.spawn(move || run(&shared, bed));
        before.thread_set_mask()?;
        spawned
    }
}

/// The thread.
fn run(shared: &Shared, bed: Bed) {
    let mut ready = Ready::new();
    let mut limit = None;
    loop {
        if bed.sleep(limit, &mut ready).is_err() {
            return shared.give_up();
        }
        let mut worker = shared.worker();
        let Some(working) = worker.as_mut() else { return };
        match working.turn(&ready, || std::mem::take(&mut shared.desk().commands)) {
            Next::Sleep(until) => limit = until,
            Next::Stop => {
                *worker = None;
                return;
            }
        }
    }
}
