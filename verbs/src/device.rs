//! A device: an engine, the host above it, and the threading model that drives both.

mod attributes;
mod driver;
mod objects;
mod open;
#[cfg(feature = "dpdk")]
mod port;
mod statistics;

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender};
use softrdma_stack::stream::{Activity, Engine};
use softrdma_stack::time::Instant;

pub use attributes::DeviceAttributes;
use driver::{Driver, Driving};
pub use objects::CreateQueuePairError;
pub use open::OpenError;
pub use statistics::{DeviceStatistics, EngineCounters, HostCounters, PortCounters, QueuePairCounters};

use crate::asynchronous::AsyncEvent;
use crate::configuration::DeviceConfig;
use crate::connection_manager::CmError;
use crate::core::Command;
use crate::queue_pair::{Posted, QueuePairShared};
use crate::resources::Resources;

/// How long a command may take to be carried out before the device is taken for dead.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a device that is closed waits for its connections to end in order.
const LINGER: Duration = Duration::from_secs(1);

/// An RDMA device. Clones name the same one; it is closed when the last handle to it or to anything on it is dropped.
#[derive(Clone)]
pub struct Device(Arc<DeviceShared>);

/// See [`Device`].
pub(crate) struct DeviceShared {
    config: DeviceConfig,
    driver: Arc<Driver>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    commands: Sender<Command>,
    resources: Resources,
    queue_pairs: Mutex<QueuePairNumbers>,
    /// Bytes placed by queue pairs that are gone.
    retired_placed_bytes: AtomicU64,
}

#[derive(Default)]
struct QueuePairNumbers {
    next: u32,
    live: HashMap<u32, Weak<QueuePairShared>>,
}

impl Drop for DeviceShared {
    fn drop(&mut self) {
        self.driver.stop();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
        self.driver.linger(LINGER);
    }
}

impl Device {
    /// Opens the device that `config` describes and starts its thread.
    pub fn open(config: DeviceConfig) -> Result<Self, OpenError> {
        let clock = driver::Clock::system();
        let engine = open::engine(&config, clock.now())?;
        Self::start(config, engine, clock)
    }

    /// A device over an engine of the caller's, which nothing drives but [`Self::drive`]: time is what the caller says it is.
    /// For simulations.
    pub fn simulated(config: DeviceConfig, engine: Box<dyn Engine>) -> Result<Self, OpenError> {
        Self::start(config, engine, driver::Clock::manual())
    }

    /// A device over an engine of the caller's, driven as the configuration says.
    pub fn with_engine(config: DeviceConfig, engine: Box<dyn Engine>) -> Result<Self, OpenError> {
        Self::start(config, engine, driver::Clock::system())
    }

    fn start(config: DeviceConfig, engine: Box<dyn Engine>, clock: driver::Clock) -> Result<Self, OpenError> {
        let (driver, commands) = Driver::new(&config, engine, clock)?;
        let driver = Arc::new(driver);
        let thread = match driver.driving() {
            Driving::Manual => None,
            Driving::StackThread | Driving::RunToCompletion | Driving::Halves => Some(driver::spawn(&driver, &config)?),
        };
        let resources = Resources::new(&config.limits);
        Ok(Self(Arc::new(DeviceShared {
            config,
            driver,
            thread: Mutex::new(thread),
            commands,
            resources,
            queue_pairs: Mutex::default(),
            retired_placed_bytes: AtomicU64::new(0),
        })))
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What it was opened with.
    pub fn config(&self) -> &DeviceConfig {
        &self.0.config
    }

    /// What it can do.
    pub fn attributes(&self) -> DeviceAttributes {
        DeviceAttributes::of(&self.0.config)
    }

    /// Addresses that peers can connect to; empty if the operating system knows better.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.0.driver.local_addresses().to_vec()
    }

    /// Drives a [`Self::simulated`] device: one pass at `now`. Any other device drives itself, and this does nothing.
    pub fn drive(&self, now: Instant) -> Activity {
        self.0.driver.drive(now)
    }

    /// When a [`Self::simulated`] device has to be driven next even if nothing arrives.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.0.driver.next_deadline()
    }

    /// Drives the device from the application's thread where the threading model has it so (c2, c3); with c1 it does nothing.
    /// For applications that wait by looking at memory instead of polling a completion queue.
    pub fn progress(&self) {
        self.progress_from_application();
    }

    pub(crate) fn progress_from_application(&self) {
        self.0.driver.progress_from_application();
    }

    /// A descriptor that is readable while there are asynchronous events.
    pub fn async_event_fd(&self) -> BorrowedFd<'_> {
        self.0.driver.asynchronous().descriptor()
    }

    /// The next asynchronous event, if there is one.
    pub fn try_get_async_event(&self) -> Option<AsyncEvent> {
        self.0.driver.asynchronous().try_get()
    }

    // --- the control plane ---

    /// Hands over a command whose outcome nobody waits for.
    pub(crate) fn command(&self, command: Command) {
        if self.0.commands.send(command).is_ok() {
            self.0.driver.ring();
        }
    }

    /// Hands over a command and waits until it has been carried out.
    pub(crate) fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<T, CmError> {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        self.command(command(sender));
        let mut waited = Duration::ZERO;
        let step = Duration::from_millis(1);
        loop {
            match receiver.recv_timeout(if waited.is_zero() { Duration::ZERO } else { step }) {
                Ok(reply) => return Ok(reply),
                Err(RecvTimeoutError::Disconnected) => return Err(CmError::DeviceGone),
                Err(RecvTimeoutError::Timeout) if waited >= COMMAND_TIMEOUT => return Err(CmError::DeviceGone),
                Err(RecvTimeoutError::Timeout) => {
                    waited += step;
                    self.0.driver.ring();
                }
            }
        }
    }

    // --- the data plane ---

    /// Requests that were admitted.
    #[inline]
    pub(crate) fn post(&self, queue_pair: &Arc<QueuePairShared>, requests: Posted<'_>) {
        self.0.driver.post(queue_pair, requests);
    }

    /// A receive was posted to `queue_pair`, which is in error: it is flushed. `rings`: it is not in the queue of doorbells yet.
    pub(crate) fn ring_doorbell(&self, queue_pair: &Arc<QueuePairShared>, rings: bool) {
        if rings {
            self.0.driver.push_doorbell(queue_pair.clone());
        }
        self.0.driver.ring();
    }

    /// A receive was posted: whoever waits for one goes on.
    pub(crate) fn ring_for_receive(&self) {
        self.0.driver.ring_for_receive();
    }

    // --- queue pairs ---

    /// A number for a new queue pair; `None` when the device has as many as it may.
    pub(crate) fn register_queue_pair(
        &self,
        make: impl FnOnce(u32) -> QueuePairShared,
    ) -> Option<Arc<QueuePairShared>> {
        let mut numbers = self.0.queue_pairs.lock().unwrap_or_else(PoisonError::into_inner);
        if numbers.live.len() >= self.0.config.limits.max_queue_pairs as usize {
            return None;
        }
        // 24 bits; 0 and 1 are special to InfiniBand programs.
        let number = loop {
            numbers.next = (numbers.next + 1) & 0xff_ffff;
            if numbers.next > 1 && !numbers.live.contains_key(&numbers.next) {
                break numbers.next;
            }
        };
        let shared = Arc::new(make(number));
        numbers.live.insert(number, Arc::downgrade(&shared));
        Some(shared)
    }

    pub(crate) fn forget_queue_pair(&self, queue_pair: &QueuePairShared) {
        let mut numbers = self.0.queue_pairs.lock().unwrap_or_else(PoisonError::into_inner);
        if numbers.live.remove(&queue_pair.number()).is_some() {
            self.0.retired_placed_bytes.fetch_add(queue_pair.memory().placed_bytes(), Ordering::Relaxed);
        }
    }

    fn retired_placed_bytes(&self) -> u64 {
        self.0.retired_placed_bytes.load(Ordering::Relaxed)
    }

    /// Counters of the device, its port and its queue pairs, now.
    pub fn statistics(&self) -> DeviceStatistics {
        let queue_pairs = self.0.queue_pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut live: Vec<_> = queue_pairs.live.values().filter_map(Weak::upgrade).collect();
        drop(queue_pairs);
        live.sort_by_key(|queue_pair| queue_pair.number());
        statistics::collect(self, &self.0.driver, &live)
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Device").field("name", &self.0.config.name).finish_non_exhaustive()
    }
}
