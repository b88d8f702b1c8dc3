//! Ports and their queues.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dpdk_sys::bindings::{self, rte_eth_conf, rte_eth_dev_info, rte_mbuf};
use dpdk_sys::gate::{self, Visitor};
use dpdk_sys::thread;
use softrdma_stack::port::{
    BURST, LinkState, Port, PortCapabilities, PortStatistics, ReceiveQueue, TransmitOffload, TransmitQueue,
};

use crate::configuration::PortConfig;
use crate::eal::{Eal, Exclusive};
use crate::mbuf::{Mbuf, Stock, TransmitFrame};
use crate::memif::{self, ServerSocket};
use crate::mempool::Mempool;

mod driver;
mod error;
mod plan;

use driver::Driver;
pub use error::PortError;
use plan::{Plan, STANDARD_MTU};

/// How often a client looks whether somebody listens.
const PEER_POLL: Duration = Duration::from_millis(10);
/// How long a client that is connected waits for the link before it hangs up and tries again.
const CONNECT_WAIT: Duration = Duration::from_millis(250);

/// An open port. It closes when it and all its queues are dropped. A queue that was dropped can be taken again.
#[derive(Debug)]
pub struct EthPort {
    device: Arc<Device>,
    capabilities: PortCapabilities,
    transmit_backlog: usize,
}

impl EthPort {
    /// Brings `config.device` up, with its queues, and starts it.
    pub fn open(eal: &Eal, config: &PortConfig) -> Result<Self, PortError> {
        let driver = Driver::of(config.device_name());
        if driver.is_signalled_by_pipes() {
            dpdk_sys::environment::ignore_broken_pipes();
        }
        if driver == Driver::Memif {
            gate::install().map_err(|error| PortError::Gate { reason: format!("{error:?}") })?;
        }
        let mut device = Device::probe(driver, config)?;
        let information = device.information();
        let plan = Plan::new(&device, &information, config)?;
        let operations = driver.pool_operations();
        device.pool = Some(Mempool::new(eal, "softrdma", plan.buffers, plan.cache, plan.data_room, operations)?);
        device.set_up(&plan, config.mtu, &information)?;
        device.start(config.peer_wait)?;
        device.readiness = device.receive_descriptor(config.receive_queues).map(Arc::new);
        let transmit_backlog = config.transmit_backlog.max(BURST);
        Ok(Self { device: Arc::new(device), capabilities: plan.capabilities, transmit_backlog })
    }

    /// The driver's name as DPDK has it, for example `net_memif`.
    pub fn driver_name(&self) -> String {
        let name = self.device.information().driver_name;
        // SAFETY: DPDK's drivers name themselves with constant texts; null is looked for.
        if name.is_null() { String::new() } else { unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned() }
    }

    /// Buffers in the port's pool, and how many of them are free now.
    pub fn pool_buffers(&self) -> (u32, u32) {
        self.device.pool.as_ref().map_or((0, 0), |pool| (pool.capacity(), pool.available()))
    }

    /// Waits until the link is up, at most for `timeout`; whether it is.
    pub fn wait_for_link(&self, timeout: Duration) -> bool {
        self.device.wait_for_link(timeout)
    }
}

impl Port for EthPort {
    type Receive = EthReceiveQueue;
    type Transmit = EthTransmitQueue;

    fn hardware_address(&self) -> [u8; 6] {
        let mut address = bindings::rte_ether_addr { addr_bytes: [0; 6] };
        // SAFETY: the port is open as long as the device lives; the address is written to `address`.
        unsafe { bindings::rte_eth_macaddr_get(self.device.id, &mut address) };
        address.addr_bytes
    }

    fn capabilities(&self) -> PortCapabilities {
        self.capabilities
    }

    fn link_state(&self) -> LinkState {
        self.device.link_state()
    }

    fn statistics(&self) -> PortStatistics {
        let mut from_driver = bindings::rte_eth_stats::default();
        // SAFETY: the port is open as long as the device lives; the counters are written to `from_driver`.
        unsafe { bindings::rte_eth_stats_get(self.device.id, &mut from_driver) };
        let ours = &self.device.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // Packets are counted by the queues: some drivers forget theirs when the link goes down.
        let sum = |which: fn(&Counters) -> &AtomicU64| ours.iter().map(|counters| read(which(counters))).sum();
        PortStatistics {
            received_packets: sum(|counters| &counters.received_packets),
            received_bytes: sum(|counters| &counters.received_bytes),
            transmitted_packets: sum(|counters| &counters.transmitted_packets),
            transmitted_bytes: sum(|counters| &counters.transmitted_bytes),
            transmit_errors: from_driver.oerrors + sum(|counters: &Counters| &counters.transmit_errors),
            receive_missed: from_driver.imissed,
            receive_errors: from_driver.ierrors,
            receive_no_memory: from_driver.rx_nombuf,
        }
    }

    fn readiness(&self) -> Option<Arc<OwnedFd>> {
        self.device.readiness.clone()
    }

    fn take_receive_queue(&mut self, index: u16) -> Option<EthReceiveQueue> {
        let queue = self.device.queues.receive.get(usize::from(index))?;
        take(queue).then(|| EthReceiveQueue::new(&self.device, index))
    }

    fn take_transmit_queue(&mut self, index: u16) -> Option<EthTransmitQueue> {
        let queue = self.device.queues.transmit.get(usize::from(index))?;
        take(queue).then(|| EthTransmitQueue::new(&self.device, index, &self.capabilities, self.transmit_backlog))
    }
}

/// One receive queue.
#[derive(Debug)]
pub struct EthReceiveQueue {
    device: Arc<Device>,
    index: u16,
    /// Present where the interrupt thread takes memory away.
    visitor: Option<Visitor>,
}

impl EthReceiveQueue {
    fn new(device: &Arc<Device>, index: u16) -> Self {
        Self { device: Arc::clone(device), index, visitor: device.visitor() }
    }
}

impl ReceiveQueue for EthReceiveQueue {
    type Packet = Mbuf;

    fn receive(&mut self, packets: &mut Vec<Mbuf>) -> usize {
        thread::register();
        let mut burst = [MaybeUninit::<*mut rte_mbuf>::uninit(); BURST];
        let count = {
            let _visit = match &mut self.visitor {
                Some(visitor) => match visitor.enter() {
                    Some(visit) => Some(visit),
                    None => return 0,
                },
                None => None,
            };
            // SAFETY: the port is started while the device lives and the queue was set up; `&mut self` makes this its only
            // user; `burst` has room for BURST pointers. The visit, where needed, keeps the queue's memory mapped.
            unsafe {
                bindings::softrdma_receive_burst(self.device.id, self.index, burst.as_mut_ptr().cast(), BURST as u16)
            }
        };
        if count == 0 {
            return 0;
        }
        let mut bytes = 0;
        packets.extend(burst[..usize::from(count)].iter().map(|slot| {
            // SAFETY: the driver wrote `count` pointers, each the head of a chain that is now ours.
            let packet = unsafe { Mbuf::from_raw(NonNull::new_unchecked(slot.assume_init())) };
            bytes += packet.total_length() as u64;
            packet
        }));
        let counters = &self.device.counters[usize::from(self.index)];
        add(&counters.received_packets, u64::from(count));
        add(&counters.received_bytes, bytes);
        usize::from(count)
    }

    fn release(&mut self, packets: &mut Vec<Mbuf>) {
        Mbuf::free_all(packets);
    }
}

impl Drop for EthReceiveQueue {
    fn drop(&mut self) {
        self.device.queues.receive[usize::from(self.index)].store(false, Ordering::Release);
    }
}

/// One transmit queue.
#[derive(Debug)]
pub struct EthTransmitQueue {
    device: Arc<Device>,
    index: u16,
    visitor: Option<Visitor>,
    stock: Stock,
    /// Frames not yet taken by the driver: `queue[first..]`.
    queue: Vec<*mut rte_mbuf>,
    first: usize,
    backlog: usize,
    /// Whether a frame in the queue leaves work to the port.
    has_offloads: bool,
    data_room: usize,
    chains: bool,
    /// Whether the link has been seen up.
    was_up: bool,
}

// SAFETY: the raw pointers are frames that the queue owns, as an Mbuf does.
unsafe impl Send for EthTransmitQueue {}

impl EthTransmitQueue {
    fn new(device: &Arc<Device>, index: u16, capabilities: &PortCapabilities, backlog: usize) -> Self {
        let pool = device.pool.as_ref().expect("an opened device has a pool");
        Self {
            device: Arc::clone(device),
            index,
            visitor: device.visitor(),
            stock: Stock::new(pool.pool()),
            queue: Vec::with_capacity(backlog),
            first: 0,
            backlog,
            has_offloads: false,
            data_room: pool.data_room(),
            chains: capabilities.attachments,
            was_up: false,
        }
    }

    fn waiting(&self) -> usize {
        self.queue.len() - self.first
    }

    /// Offers everything queued to the driver, in bursts, until it takes no more.
    fn push(&mut self) {
        let (mut packets, mut bytes) = (0, 0);
        while self.first < self.queue.len() {
            let frames = &mut self.queue[self.first..];
            let count = frames.len().min(BURST) as u16;
            let frames = &mut frames[..usize::from(count)];
            // While they are ours. Only of one burst: a look at all that waits would cost more than the burst itself.
            let offered = bytes_in(frames);
            let _visit = match &mut self.visitor {
                Some(visitor) => match visitor.enter() {
                    Some(visit) => Some(visit),
                    None => break,
                },
                None => None,
            };
            // SAFETY: as in `receive`; `frames` holds at least `count` frames, of which the driver takes over the first
            // ones, as many as it answers. What prepare refuses stays ours.
            let taken = unsafe {
                let ready = match self.has_offloads {
                    true => bindings::softrdma_transmit_prepare(self.device.id, self.index, frames.as_mut_ptr(), count),
                    false => count,
                };
                bindings::softrdma_transmit_burst(self.device.id, self.index, frames.as_mut_ptr(), ready)
            };
            self.first += usize::from(taken);
            packets += u64::from(taken);
            bytes += offered;
            if taken < count {
                bytes -= bytes_in(&self.queue[self.first..][..usize::from(count - taken)]);
                break;
            }
        }
        self.account(packets, bytes);
    }

    /// The driver has taken `packets` more frames, with `bytes` in them.
    fn account(&mut self, packets: u64, bytes: u64) {
        if packets == 0 {
            return;
        }
        let counters = &self.device.counters[usize::from(self.index)];
        add(&counters.transmitted_packets, packets);
        add(&counters.transmitted_bytes, bytes);
        if self.first == self.queue.len() {
            self.queue.clear();
            self.first = 0;
            self.has_offloads = false;
        }
    }

    /// The driver takes nothing. Without a link, what was meant for a peer that has left is lost, as on any wire.
    #[cold]
    fn drop_what_is_undeliverable(&mut self) {
        let is_up = self.device.link_state() == LinkState::Up;
        if !is_up && self.was_up {
            add(&self.device.counters[usize::from(self.index)].transmit_errors, self.waiting() as u64);
            self.free_queue();
        }
        self.was_up = is_up;
    }

    fn free_queue(&mut self) {
        let frames = &mut self.queue[self.first..];
        // SAFETY: the frames are owned here; the queue forgets them below.
        unsafe { bindings::softrdma_mbuf_free_bulk(frames.as_mut_ptr(), frames.len() as u32) };
        self.queue.clear();
        self.first = 0;
        self.has_offloads = false;
    }
}

impl TransmitQueue for EthTransmitQueue {
    type Attachment = Mbuf;
    type Frame = TransmitFrame;

    #[inline]
    fn frame(&mut self, length: usize) -> Option<TransmitFrame> {
        assert!(
            length <= self.data_room,
            "a frame of {length} bytes in buffers of {}: larger than the MTU",
            self.data_room
        );
        let mbuf = self.stock.take()?;
        // SAFETY: the stock gives fresh single buffers with `data_room` bytes of room, checked above.
        Some(unsafe { TransmitFrame::new(mbuf, length as u16, self.chains) })
    }

    #[inline]
    fn send(&mut self, frame: TransmitFrame, offload: TransmitOffload) -> Result<(), TransmitFrame> {
        if self.waiting() >= self.backlog {
            self.flush();
            if self.waiting() >= self.backlog {
                return Err(frame);
            }
        }
        if self.queue.len() == self.queue.capacity() {
            self.queue.drain(..self.first);
            self.first = 0;
        }
        let (mbuf, has_work) = frame.finish(offload);
        self.has_offloads |= has_work;
        self.queue.push(mbuf);
        if self.waiting().is_multiple_of(BURST) {
            self.push();
        }
        Ok(())
    }

    fn flush(&mut self) -> usize {
        if self.waiting() > 0 {
            let before = self.waiting();
            self.push();
            match self.waiting() == before {
                true => self.drop_what_is_undeliverable(),
                false => self.was_up = true,
            }
        }
        self.waiting()
    }
}

impl Drop for EthTransmitQueue {
    fn drop(&mut self) {
        self.push();
        self.free_queue();
        self.device.queues.transmit[usize::from(self.index)].store(false, Ordering::Release);
    }
}

/// Bytes in `frames`, which the caller owns.
fn bytes_in(frames: &[*mut rte_mbuf]) -> u64 {
    // SAFETY: the caller, a transmit queue, owns the frames as long as they are in its list.
    frames.iter().map(|frame| u64::from(unsafe { (**frame).pkt_len })).sum()
}

/// Which queues are taken: a queue has one user at a time.
#[derive(Debug)]
struct Queues {
    receive: Box<[AtomicBool]>,
    transmit: Box<[AtomicBool]>,
}

/// Takes what is marked as free.
fn take(is_taken: &AtomicBool) -> bool {
    !is_taken.swap(true, Ordering::Acquire)
}

/// Counters of the queues with one index. Each is written by one thread.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Counters {
    received_packets: AtomicU64,
    received_bytes: AtomicU64,
    transmitted_packets: AtomicU64,
    transmitted_bytes: AtomicU64,
    transmit_errors: AtomicU64,
}

/// Adds to a counter that no other thread writes.
fn add(counter: &AtomicU64, value: u64) {
    counter.store(counter.load(Ordering::Relaxed) + value, Ordering::Relaxed);
}

/// A device of DPDK's that this process brought up. Dropping it takes it down.
#[derive(Debug)]
struct Device {
    id: u16,
    driver: Driver,
    /// As given to DPDK, for messages.
    text: String,
    counters: Box<[Counters]>,
    queues: Queues,
    /// Where it listens, if it serves memif clients.
    listener: Option<ServerSocket>,
    /// Readable while frames wait, where the driver has such a thing.
    readiness: Option<Arc<OwnedFd>>,
    /// `None` only while the port is being opened. Outlives the device's last burst.
    pool: Option<Mempool>,
}

impl Device {
    fn probe(driver: Driver, config: &PortConfig) -> Result<Self, PortError> {
        let text = driver::complete_arguments(driver, config);
        let device = || text.clone();
        let arguments = CString::new(text.clone()).map_err(|_| PortError::Device { device: device() })?;
        let name = CString::new(config.device_name()).map_err(|_| PortError::Device { device: device() })?;
        let exclusive = Exclusive::wait();
        if driver == Driver::Memif {
            memif::remove_stale_socket(&config.device)?;
        }
        let mut id = 0;
        // SAFETY: the name is NUL-terminated, `id` is written on success.
        let mut find = || unsafe { bindings::rte_eth_dev_get_port_by_name(name.as_ptr(), &mut id) == 0 };
        if find() {
            return Err(PortError::InUse { name: config.device_name().to_owned() });
        }
        // SAFETY: the arguments are NUL-terminated and copied by DPDK; no other thread of ours changes its lists of devices
        // meanwhile, nor does the interrupt thread use what the driver adds to.
        let outcome = undisturbed(driver, || unsafe { bindings::rte_dev_probe(arguments.as_ptr()) });
        if outcome < 0 {
            let reason = dpdk_sys::error_text(outcome);
            return Err(PortError::Probe {
                device: device(),
                reason,
                advice: driver::advice(driver),
                log: exclusive.logged(),
            });
        }
        // A driver may fail and its bus still report success: what counts is the port.
        if !find() {
            return Err(PortError::NoPort { device: device(), log: exclusive.logged() });
        }
        let indices = config.receive_queues.max(config.transmit_queues);
        let counters = (0..indices).map(|_| Counters::default()).collect();
        let listener = (driver == Driver::Memif).then(|| ServerSocket::of(&text)).flatten();
        let free = |count| (0..count).map(|_| AtomicBool::new(false)).collect();
        let queues = Queues { receive: free(config.receive_queues), transmit: free(config.transmit_queues) };
        Ok(Self { id, driver, text, counters, queues, listener, readiness: None, pool: None })
    }

    fn information(&self) -> rte_eth_dev_info {
        let mut information = rte_eth_dev_info::default();
        // SAFETY: the port exists while the device lives; the structure is written.
        unsafe { bindings::rte_eth_dev_info_get(self.id, &mut information) };
        information
    }

    /// Gives the device its configuration and its queues.
    fn set_up(&self, plan: &Plan, mtu: usize, information: &rte_eth_dev_info) -> Result<(), PortError> {
        let exclusive = Exclusive::wait();
        let check = |step, outcome| self.check(step, outcome, &exclusive);
        check("take its configuration", self.configure(plan))?;
        self.set_mtu(mtu, information)?;
        for queue in 0..plan.receive_queues {
            check("set up a receive queue", self.set_up_receive_queue(queue, plan.receive_descriptors))?;
        }
        for queue in 0..plan.transmit_queues {
            check("set up a transmit queue", self.set_up_transmit_queue(queue, plan.transmit_descriptors))?;
        }
        Ok(())
    }

    fn configure(&self, plan: &Plan) -> i32 {
        let mut configuration = rte_eth_conf::default();
        configuration.rxmode.mtu = plan.configured_mtu;
        configuration.rxmode.offloads = plan.receive_offloads;
        configuration.txmode.offloads = plan.transmit_offloads;
        configuration.rxmode.mq_mode = match plan.rss {
            0 => bindings::SOFTRDMA_MQ_RX_NONE,
            _ => bindings::SOFTRDMA_MQ_RX_RSS,
        };
        configuration.rx_adv_conf.rss_conf.rss_hf = plan.rss;
        configuration.intr_conf.set_rxq(u32::from(self.driver.has_descriptors()));
        // SAFETY: the structure is read and copied.
        unsafe { bindings::rte_eth_dev_configure(self.id, plan.receive_queues, plan.transmit_queues, &configuration) }
    }

    /// Tells the device its MTU where it wants to know; the drivers that carry any length do not.
    fn set_mtu(&self, mtu: usize, information: &rte_eth_dev_info) -> Result<(), PortError> {
        let wanted = u16::try_from(mtu).unwrap_or(u16::MAX);
        let mut current = 0;
        // SAFETY: the port exists; `current` is written.
        unsafe { bindings::rte_eth_dev_get_mtu(self.id, &mut current) };
        if usize::from(current) == mtu || (mtu > STANDARD_MTU && self.driver.carries_any_length()) {
            return Ok(());
        }
        // SAFETY: the port exists and is configured.
        let outcome = unsafe { bindings::rte_eth_dev_set_mtu(self.id, wanted) };
        // A smaller MTU than the device's own needs no consent.
        if outcome == 0 || mtu <= usize::from(current) {
            return Ok(());
        }
        let limit = usize::from(information.max_mtu).min(plan::largest_mtu(information)).min(mtu - 1);
        Err(PortError::Mtu { device: self.text.clone(), mtu, limit, reason: dpdk_sys::error_text(outcome) })
    }

    fn set_up_receive_queue(&self, queue: u16, descriptors: u16) -> i32 {
        let pool = self.pool.as_ref().map_or(null_mut(), |pool| pool.pool().as_ptr());
        // SAFETY: the port is configured with this queue; the pool outlives the device; null asks for the defaults.
        unsafe {
            let socket = bindings::rte_eth_dev_socket_id(self.id).max(0) as u32;
            bindings::rte_eth_rx_queue_setup(self.id, queue, descriptors, socket, std::ptr::null(), pool)
        }
    }

    fn set_up_transmit_queue(&self, queue: u16, descriptors: u16) -> i32 {
        // SAFETY: the port is configured with this queue; null asks for the defaults.
        unsafe {
            let socket = bindings::rte_eth_dev_socket_id(self.id).max(0) as u32;
            bindings::rte_eth_tx_queue_setup(self.id, queue, descriptors, socket, std::ptr::null())
        }
    }

    /// Starts the port. A memif client connects here, until the link is up: its server may not listen yet, or listen and
    /// not be ready to accept, in which case it hangs up and the driver lets it rest at that.
    fn start(&self, peer_wait: Duration) -> Result<(), PortError> {
        let begin = Instant::now();
        loop {
            let exclusive = Exclusive::wait();
            // SAFETY: the port is configured and its queues are set up.
            let outcome = undisturbed(self.driver, || unsafe { bindings::rte_eth_dev_start(self.id) });
            if !self.is_client() {
                return self.check("start", outcome, &exclusive);
            }
            let log = exclusive.logged();
            drop(exclusive);
            if outcome == 0 && self.wait_for_link(CONNECT_WAIT) {
                return Ok(());
            }
            if begin.elapsed() >= peer_wait {
                let waited_ms = begin.elapsed().as_millis();
                return Err(PortError::NoPeer { device: self.text.clone(), waited_ms, log });
            }
            if outcome == 0 {
                let _exclusive = Exclusive::wait();
                // SAFETY: the port was started and has no user yet.
                undisturbed(self.driver, || unsafe { bindings::rte_eth_dev_stop(self.id) });
            }
            std::thread::sleep(PEER_POLL);
        }
    }

    /// The descriptor of the only receive queue. Several cannot be waited for as one.
    fn receive_descriptor(&self, receive_queues: u16) -> Option<OwnedFd> {
        if !self.driver.has_descriptors() || receive_queues != 1 {
            return None;
        }
        // SAFETY: the port is started and has queue 0.
        let descriptor = unsafe { bindings::rte_eth_dev_rx_intr_ctl_q_get_fd(self.id, 0) };
        if descriptor < 0 {
            return None;
        }
        // SAFETY: the driver keeps the descriptor open while the port is; it is duplicated at once.
        rustix::io::dup(unsafe { BorrowedFd::borrow_raw(descriptor) }).ok()
    }

    fn is_client(&self) -> bool {
        self.driver == Driver::Memif && self.listener.is_none()
    }

    fn wait_for_link(&self, timeout: Duration) -> bool {
        let begin = Instant::now();
        while self.link_state() == LinkState::Down {
            if begin.elapsed() >= timeout {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    fn link_state(&self) -> LinkState {
        let mut link = bindings::rte_eth_link::default();
        // SAFETY: the port exists while the device lives; `link` is written.
        let outcome = unsafe { bindings::rte_eth_link_get_nowait(self.id, &mut link) };
        let is_up = outcome == 0 && link.link_status() != 0;
        if is_up { LinkState::Up } else { LinkState::Down }
    }

    fn visitor(&self) -> Option<Visitor> {
        (self.driver == Driver::Memif).then(Visitor::new)
    }

    fn check(&self, step: &'static str, outcome: i32, exclusive: &Exclusive) -> Result<(), PortError> {
        match outcome {
            0 => Ok(()),
            _ => Err(PortError::Setup {
                device: self.text.clone(),
                step,
                reason: dpdk_sys::error_text(outcome),
                log: exclusive.logged(),
            }),
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let device = self.information().device;
        let listener = self.listener.take();
        let _exclusive = Exclusive::wait();
        undisturbed(self.driver, || {
            // SAFETY: queues hold the device, so no burst is under way or will come; the interrupt thread is parked, and no other
            // thread of ours changes DPDK's lists of devices. Stopping a port that did not start is harmless. Removing closes
            // the port and gives its name free.
            unsafe {
                bindings::rte_eth_dev_stop(self.id);
                if device.is_null() || bindings::rte_dev_remove(device) != 0 {
                    bindings::rte_eth_dev_close(self.id);
                }
            }
            // Before a client finds what the driver forgot to close.
            drop(listener);
        });
    }
}

/// Runs `work` while the interrupt thread leaves devices of that driver alone.
fn undisturbed<T>(driver: Driver, work: impl FnOnce() -> T) -> T {
    match driver {
        Driver::Memif => gate::with_interrupts_parked(work),
        _ => work(),
    }
}
