//! Keeping DPDK's interrupt thread and the pollers of a port apart.
//!
//! Some drivers tear a port's shared memory down in the EAL's interrupt thread, when the peer leaves, without regard to a
//! thread that is inside a burst at that moment: net_memif unmaps the rings (seen in 22.11), and the poller faults.
//! Nothing in DPDK's interface lets one wait for the other, so this module does.
//!
//! The interrupt thread serves its descriptors one after the other. One of them is ours, and its handler parks the thread:
//! it returns only when some other descriptor has work, and only after the gate is closed and every visitor has left. So no
//! other handler runs while a visitor is inside. The way back leads through our handler again, which opens the gate.
//!
//! A visitor pays a store and a load for it; the fence between the two is paid by whoever closes the gate (membarrier).

use std::ffi::c_void;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering, compiler_fence, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::bindings;

/// How long [`install`] waits for the interrupt thread to come to the gate.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the interrupt thread looks for work where it cannot be woken by it.
const BLIND_PERIOD_MS: i32 = 1;

/// Why the gate could not be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallError {
    /// The system gave no descriptor; its error number.
    Descriptor(i32),
    /// DPDK refused the descriptor; its error number.
    Registration(i32),
    /// The interrupt thread did not come.
    NoInterruptThread,
}

/// Installs the gate, once per process; later calls do nothing. The EAL must run.
pub fn install() -> Result<(), InstallError> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*installed {
        GATE.get_or_init(Gate::new).as_ref().map_err(|error| *error)?.attach()?;
        *installed = true;
    }
    Ok(())
}

/// Runs `work`, which touches a port that the interrupt thread also touches, while the interrupt thread is parked.
pub fn with_interrupts_parked<T>(work: impl FnOnce() -> T) -> T {
    let mut visitor = Visitor::new();
    loop {
        if let Some(_visit) = visitor.enter() {
            return work();
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// One party that goes through the gate, for example a queue.
#[derive(Debug)]
pub struct Visitor {
    slot: Arc<Slot>,
}

impl Visitor {
    /// A visitor who is outside.
    pub fn new() -> Self {
        let slot = Arc::new(Slot { inside: AtomicBool::new(false) });
        if let Some(Ok(gate)) = GATE.get() {
            gate.slots.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&slot));
        }
        Self { slot }
    }

    /// Goes in; `None` while the gate is closed. The gate stays open until the visit is dropped.
    #[inline]
    pub fn enter(&mut self) -> Option<Visit<'_>> {
        self.slot.inside.store(true, Ordering::Relaxed);
        if LIGHT_FENCE.load(Ordering::Relaxed) {
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
        let visit = Visit { slot: &self.slot };
        (!CLOSED.load(Ordering::Acquire)).then_some(visit)
    }
}

impl Default for Visitor {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        if let Some(Ok(gate)) = GATE.get() {
            gate.slots.lock().unwrap_or_else(PoisonError::into_inner).retain(|slot| !Arc::ptr_eq(slot, &self.slot));
        }
    }
}

/// Presence inside the gate.
#[derive(Debug)]
pub struct Visit<'a> {
    slot: &'a Slot,
}

impl Drop for Visit<'_> {
    #[inline]
    fn drop(&mut self) {
        self.slot.inside.store(false, Ordering::Release);
    }
}

/// A cache line of its own: written twice a burst.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    inside: AtomicBool,
}

static GATE: OnceLock<Result<Gate, InstallError>> = OnceLock::new();
static CLOSED: AtomicBool = AtomicBool::new(false);
/// Whether the closing side can make every running thread's store visible, so that visitors need no fence.
static LIGHT_FENCE: AtomicBool = AtomicBool::new(false);

#[derive(Debug)]
struct Gate {
    /// An eventfd that is readable whenever the interrupt thread is to come to the gate.
    descriptor: i32,
    /// The interrupt thread's epoll descriptor; -1 while unknown.
    epoll: AtomicI32,
    /// Descriptors that take the place of ones closed too early, until it is known which of them are needed.
    placeholders: Mutex<Vec<i32>>,
    /// Times that the interrupt thread came.
    turns: AtomicU64,
    slots: Mutex<Vec<Arc<Slot>>>,
}

impl Gate {
    fn new() -> Result<Self, InstallError> {
        // SAFETY: plain system call.
        let descriptor = unsafe { libc::eventfd(1, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(InstallError::Descriptor(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)));
        }
        LIGHT_FENCE.store(membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED), Ordering::SeqCst);
        Ok(Self {
            descriptor,
            epoll: AtomicI32::new(-1),
            placeholders: Mutex::new(Vec::new()),
            turns: AtomicU64::new(0),
            slots: Mutex::new(Vec::new()),
        })
    }

    fn attach(&'static self) -> Result<(), InstallError> {
        // SAFETY: the handle is fresh, given a descriptor that is never closed and a callback that lives as long as the
        // process; it belongs to the EAL from then on.
        let registered = unsafe {
            let handle = bindings::rte_intr_instance_alloc(0);
            if handle.is_null() {
                return Err(InstallError::Registration(crate::last_error()));
            }
            bindings::rte_intr_fd_set(handle, self.descriptor);
            bindings::rte_intr_type_set(handle, bindings::rte_intr_handle_type::RTE_INTR_HANDLE_EXT);
            bindings::rte_intr_callback_register(handle, Some(interrupt_thread_at_gate), std::ptr::null_mut())
        };
        if registered < 0 {
            return Err(InstallError::Registration(registered));
        }
        let begin = Instant::now();
        while self.turns.load(Ordering::Acquire) == 0 {
            if begin.elapsed() > INSTALL_TIMEOUT {
                return Err(InstallError::NoInterruptThread);
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }

    /// The interrupt thread's stay at the gate.
    fn turn(&self) {
        self.drain();
        self.find_epoll();
        self.hold_place();
        CLOSED.store(false, Ordering::Release);
        self.turns.fetch_add(1, Ordering::Release);
        self.wait_for_work();
        self.close();
        self.signal();
    }

    fn close(&self) {
        CLOSED.store(true, Ordering::SeqCst);
        if LIGHT_FENCE.load(Ordering::Relaxed) {
            // Every thread of the process passes a full fence now: either a visitor's store is visible below, or the
            // visitor sees the gate closed.
            membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED);
        } else {
            fence(Ordering::SeqCst);
        }
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        for slot in slots.iter() {
            let mut rounds = 0u32;
            while slot.inside.load(Ordering::Acquire) {
                rounds += 1;
                if rounds < 100 { std::hint::spin_loop() } else { std::thread::sleep(Duration::from_micros(20)) }
            }
        }
    }

    /// Looks up the interrupt thread's epoll descriptor, which changes when it watches something new.
    fn find_epoll(&self) {
        let known = self.epoll.load(Ordering::Relaxed);
        let epoll = if watches(known, self.descriptor) { known } else { find_epoll(self.descriptor).unwrap_or(-1) };
        self.epoll.store(epoll, Ordering::Relaxed);
    }

    /// Keeps the interrupt thread from ending the process.
    ///
    /// When a client dies between connecting and being greeted, net_memif (22.11) closes the descriptor and leaves it
    /// registered; the EAL panics as soon as it builds its set of descriptors anew, which it does after this turn if something
    /// was registered. The number that was closed last is the lowest that is free: an idle descriptor is put there. If the EAL
    /// then watches it, it stays for good.
    fn hold_place(&self) {
        let mut placeholders = self.placeholders.lock().unwrap_or_else(PoisonError::into_inner);
        let epoll = self.epoll.load(Ordering::Relaxed);
        if !self.has_work(epoll, 0) {
            // Nothing was registered since the set was built: what it does not hold is not needed.
            for place in placeholders.drain(..).filter(|place| !watches(epoll, *place)) {
                // SAFETY: it was opened here, and nobody else knows of it.
                unsafe { libc::close(place) };
            }
            return;
        }
        // SAFETY: plain system call.
        let idle = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if idle >= 0 {
            placeholders.push(idle);
        }
    }

    /// Returns when a descriptor of the interrupt thread has work.
    fn wait_for_work(&self) {
        let epoll = self.epoll.load(Ordering::Relaxed);
        self.has_work(epoll, if epoll >= 0 { -1 } else { BLIND_PERIOD_MS });
    }

    /// Waits for at most `timeout_ms` (-1: for ever) until a descriptor that `epoll` watches has work; whether one has.
    fn has_work(&self, epoll: i32, timeout_ms: i32) -> bool {
        let mut poll = libc::pollfd { fd: epoll, events: libc::POLLIN, revents: 0 };
        // An epoll descriptor is readable while one of its descriptors has work: ours has none, having been drained. A
        // negative descriptor is passed over.
        // SAFETY: `poll` is one valid entry.
        unsafe { libc::poll(&mut poll, 1, timeout_ms) == 1 }
    }

    fn drain(&self) {
        let mut count = 0u64;
        // SAFETY: eight writable bytes; the descriptor does not block.
        unsafe { libc::read(self.descriptor, (&raw mut count).cast::<c_void>(), 8) };
    }

    fn signal(&self) {
        let one = 1u64;
        // SAFETY: eight readable bytes.
        unsafe { libc::write(self.descriptor, (&raw const one).cast::<c_void>(), 8) };
    }
}

unsafe extern "C" fn interrupt_thread_at_gate(_: *mut c_void) {
    if let Some(Ok(gate)) = GATE.get() {
        gate.turn();
    }
}

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: the call takes no memory.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

/// The epoll descriptor of this process that watches `descriptor`.
fn find_epoll(descriptor: i32) -> Option<i32> {
    let open = fs::read_dir("/proc/self/fd").ok()?;
    open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(|candidate| watches(*candidate, descriptor))
}

fn watches(epoll: i32, descriptor: i32) -> bool {
    epoll >= 0
        && fs::read_to_string(format!("/proc/self/fdinfo/{epoll}")).is_ok_and(|information| {
            information
                .lines()
                .filter_map(|line| line.strip_prefix("tfd:")?.split_whitespace().next()?.parse::<i32>().ok())
                .any(|watched| watched == descriptor)
        })
}
