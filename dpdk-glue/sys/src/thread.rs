//! Making an application's threads known to DPDK.

use crate::bindings;

/// Makes the calling thread known to DPDK, so that it has a cache of its own in every pool. Cheap when it was done
/// before; undone when the thread ends. DPDK knows a limited number of threads (128): those beyond it work without a cache.
pub fn register() {
    // A thread that is about to end has lost its thread-locals; it works without a cache.
    let _ = REGISTRATION.try_with(|_| ());
}

thread_local! {
    static REGISTRATION: Registration = Registration::new();
}

struct Registration {
    /// False for threads that DPDK knew before, or refused.
    ours: bool,
}

impl Registration {
    fn new() -> Self {
        // SAFETY: both calls look at and change only the calling thread's state, under DPDK's own lock; they answer with
        // an error before the EAL runs.
        let ours = unsafe { bindings::softrdma_thread_has_lcore() == 0 && bindings::rte_thread_register() == 0 };
        Self { ours }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.ours {
            // SAFETY: this thread registered itself and, thread-locals being dropped, uses DPDK's per-thread state no more.
            unsafe { bindings::rte_thread_unregister() }
        }
    }
}
