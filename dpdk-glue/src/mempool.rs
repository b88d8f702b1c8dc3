//! Pools of packet buffers.

use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use dpdk_sys::bindings;
use dpdk_sys::pool::Pool;

use crate::eal::{Eal, Exclusive};

/// How a pool keeps its free buffers. In none of them can a preempted thread make others wait for a scheduler's slice, as it can
/// in DPDK's default ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Operations {
    /// A lock-free stack: the buffer freed last, whose memory is in the cache, is taken first.
    #[default]
    Stack,
    /// A ring that threads pass in any order. For net_af_xdp, which receives nothing into a stack's buffers (22.11).
    Ring,
}

impl Operations {
    fn name(self) -> &'static CStr {
        match self {
            Self::Stack => c"lf_stack",
            Self::Ring => c"ring_mt_rts",
        }
    }
}

/// Buffers that a registered thread may keep for itself, at most: DPDK's largest. It keeps half as many again before it gives
/// some back.
pub const MAX_CACHE_BUFFERS: u32 = 512;
/// Most bytes in a buffer, headroom included: DPDK counts them in 16 bits.
pub const MAX_DATA_ROOM: usize = u16::MAX as usize;
/// Bytes in front of the data of each buffer, which DPDK keeps for headers.
pub const HEADROOM: usize = bindings::RTE_PKTMBUF_HEADROOM as usize;

/// Why there is no pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MempoolError {
    /// A frame does not fit a DPDK buffer.
    #[error("buffers of {bytes} bytes are wanted and DPDK's hold at most {limit}: lower `mtu`", limit = MAX_DATA_ROOM - HEADROOM)]
    DataRoom {
        /// Bytes wanted.
        bytes: usize,
    },
    /// DPDK refused.
    #[error("no pool of {buffers} buffers of {bytes} bytes: {reason}; raise `memory_mib` or lower `pool_packets`{log}")]
    Refused {
        /// Buffers wanted.
        buffers: u32,
        /// Bytes in each.
        bytes: usize,
        /// DPDK's error.
        reason: String,
        /// What DPDK logged.
        log: String,
    },
}

/// A pool of packet buffers, borrowed from the process: pools live as long as it does, and one that was given back is
/// lent out again, though some of its packets may still be held somewhere.
#[derive(Debug)]
pub struct Mempool {
    lent: Lent,
}

#[derive(Clone, Copy, Debug)]
struct Lent {
    pool: Pool,
    buffers: u32,
    cache: u32,
    data_room: usize,
    operations: Operations,
}

static GIVEN_BACK: Mutex<Vec<Lent>> = Mutex::new(Vec::new());

impl Mempool {
    /// A pool of at least `buffers` buffers for `data_room` bytes of packet each, of which a registered thread may keep up to
    /// `cache` for itself ([`MAX_CACHE_BUFFERS`] says what that means). `name` is for DPDK's own listings.
    pub fn new(
        _eal: &Eal,
        name: &str,
        buffers: u32,
        cache: u32,
        data_room: usize,
        operations: Operations,
    ) -> Result<Self, MempoolError> {
        let bytes = u16::try_from(data_room + HEADROOM).map_err(|_| MempoolError::DataRoom { bytes: data_room })?;
        let fits = |lent: &Lent| {
            (lent.data_room, lent.operations) == (data_room, operations)
                && lent.buffers >= buffers
                && lent.cache <= cache
        };
        let mut given_back = GIVEN_BACK.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = given_back.iter().position(fits) {
            return Ok(Self { lent: given_back.swap_remove(index) });
        }
        drop(given_back);
        let exclusive = Exclusive::wait();
        let refused = |reason| MempoolError::Refused { buffers, bytes: data_room, reason, log: exclusive.logged() };
        let name = CString::new(unique(name)).map_err(|_| refused("the name holds a NUL byte".to_owned()))?;
        match Pool::create(&name, buffers, cache, bytes, operations.name()) {
            Ok(pool) => Ok(Self { lent: Lent { pool, buffers, cache, data_room, operations } }),
            Err(number) => Err(refused(dpdk_sys::error_text(number))),
        }
    }

    /// Bytes of packet that one buffer holds.
    pub fn data_room(&self) -> usize {
        self.lent.data_room
    }

    /// Buffers in the pool.
    pub fn capacity(&self) -> u32 {
        self.lent.buffers
    }

    /// Buffers that are free now. A snapshot, and slow: it looks at every thread's cache.
    pub fn available(&self) -> u32 {
        self.lent.pool.available()
    }

    /// The pool itself, for the modules that talk to DPDK.
    pub(crate) fn pool(&self) -> Pool {
        self.lent.pool
    }
}

impl Drop for Mempool {
    fn drop(&mut self) {
        GIVEN_BACK.lock().unwrap_or_else(PoisonError::into_inner).push(self.lent);
    }
}

/// DPDK's names of pools must differ, and a pool keeps its name for ever.
fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
