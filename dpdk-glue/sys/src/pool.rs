//! Pools of packet buffers.

use std::ffi::CStr;
use std::ptr::NonNull;

use crate::bindings;

/// A pool of packet buffers. It lives as long as the process: whoever frees a packet last, on whatever thread, must find its
/// pool there, and DPDK cannot tell when the last put has left the pool's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool(NonNull<bindings::rte_mempool>);

// SAFETY: a pool made by `create` allows any number of threads to get and put, and is never freed.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Pool {
    /// Makes a pool of `buffers` buffers with `data_room` bytes each (headroom included), handled by the pool operations
    /// called `operations`, with a cache of `cache` buffers a thread. The error is DPDK's error number.
    pub fn create(name: &CStr, buffers: u32, cache: u32, data_room: u16, operations: &CStr) -> Result<Self, i32> {
        const ANY_SOCKET: i32 = -1;
        // SAFETY: the texts are NUL-terminated and copied by DPDK; sizes are checked by DPDK, which answers null.
        let pool = unsafe {
            bindings::rte_pktmbuf_pool_create_by_ops(
                name.as_ptr(),
                buffers,
                cache,
                0,
                data_room,
                ANY_SOCKET,
                operations.as_ptr(),
            )
        };
        NonNull::new(pool).map(Self).ok_or_else(crate::last_error)
    }

    /// Buffers that are free now, those in caches included. A snapshot.
    pub fn available(self) -> u32 {
        // SAFETY: the pool lives for ever; the count reads atomics and the lengths of caches.
        unsafe { bindings::softrdma_mempool_available(self.0.as_ptr()) }
    }

    /// The pool, for DPDK's functions.
    pub fn as_ptr(self) -> *mut bindings::rte_mempool {
        self.0.as_ptr()
    }
}
