//! Making an application's threads known to DPDK.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::bindings;

/// Threads that [`register`] has registered at a time, at most. What lies in the cache of one thread is out of reach for all
/// others, also while it sleeps: pools are sized for the caches of so many, and of the thread that started the EAL.
pub const MOST_REGISTERED: u32 = 3;

static REGISTERED: AtomicU32 = AtomicU32::new(0);

/// Makes the calling thread known to DPDK, so that it has a cache of its own in every pool. Cheap when it was done
/// before; undone when the thread ends. Threads beyond [`MOST_REGISTERED`] work without a cache, as long as they live.
pub fn register() {
    // A thread that is about to end has lost its thread-locals; it works without a cache.
    let _ = REGISTRATION.try_with(|_| ());
}

/// Asks the scheduler for slices of `nanoseconds` for the calling thread (Linux takes 100,000 and more): it gets less at a time,
/// and from a thread with longer slices it gets the CPU when it wakes, instead of after the other's slice (Linux 6.12 on; older
/// ones ignore it, or refuse). Policy and nice value stay what they are.
pub fn shorten_slices(nanoseconds: u64) -> std::io::Result<()> {
    let mut attributes = SchedulingAttributes::default();
    let size = size_of::<SchedulingAttributes>() as u32;
    // SAFETY: the kernel writes at most `size` bytes, which the structure has, any bytes make one, and 0 is the calling thread.
    if unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // Elsewhere it means something else: a real-time thread preempts anyway.
    if attributes.policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attributes.runtime = nanoseconds;
    // SAFETY: the kernel reads as many bytes as the structure's first field says, which is what it has.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// `struct sched_attr` in its first version (sched_setattr(2)), which every kernel knows.
#[repr(C)]
#[derive(Default)]
struct SchedulingAttributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

const _: () = assert!(size_of::<SchedulingAttributes>() == 48);

thread_local! {
    static REGISTRATION: Registration = Registration::new();
}

struct Registration {
    /// False for threads that DPDK knew before, or refused.
    ours: bool,
}

impl Registration {
    fn new() -> Self {
        // SAFETY: it looks at the calling thread's state only.
        if unsafe { bindings::softrdma_thread_has_lcore() } != 0 {
            return Self { ours: false };
        }
        let one_more = |count| (count < MOST_REGISTERED).then_some(count + 1);
        let has_room = REGISTERED.fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more).is_ok();
        // SAFETY: it changes only the calling thread's state, under DPDK's own lock; it answers with an error before the EAL
        // runs.
        let ours = has_room && unsafe { bindings::rte_thread_register() } == 0;
        if has_room && !ours {
            REGISTERED.fetch_sub(1, Ordering::Release);
        }
        Self { ours }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.ours {
            // SAFETY: this thread registered itself and, thread-locals being dropped, uses DPDK's per-thread state no more.
            unsafe { bindings::rte_thread_unregister() }
            // Not before: the next one is to find the cache that this one leaves behind, not one more.
            REGISTERED.fetch_sub(1, Ordering::Release);
        }
    }
}
