//! What a device can do, as verbs programs ask for it.

use serde::Serialize;
use softrdma_mpa_ddp_rdmap::{MAX_INLINE, MAX_SEGMENTS};

use crate::configuration::DeviceConfig;

/// Limits of a device. All but the fixed ones come from its configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceAttributes {
    /// Its name.
    pub name: String,
    /// Queue pairs.
    pub max_queue_pairs: u32,
    /// Send requests of one queue pair.
    pub max_send_requests: u32,
    /// Receive requests of one queue pair or shared receive queue.
    pub max_receive_requests: u32,
    /// Pieces of memory in one request (fixed).
    pub max_segments: u32,
    /// Bytes that travel inline in a request (fixed).
    pub max_inline_bytes: u32,
    /// Completion queues.
    pub max_completion_queues: u32,
    /// Entries of one completion queue.
    pub max_completion_queue_entries: u32,
    /// Memory regions.
    pub max_regions: u32,
    /// Bytes of one memory region: as far as addresses go.
    pub max_region_bytes: u64,
    /// Protection domains.
    pub max_protection_domains: u32,
    /// Shared receive queues.
    pub max_shared_receive_queues: u32,
    /// Reads and atomics of a peer that a queue pair answers at a time, and of its own that it has outstanding.
    pub max_outstanding_reads: u16,
    /// Bytes of one message.
    pub max_message_bytes: u32,
}

impl DeviceAttributes {
    pub(super) fn of(config: &DeviceConfig) -> Self {
        let limits = &config.limits;
        Self {
            name: config.name.clone(),
            max_queue_pairs: limits.max_queue_pairs,
            max_send_requests: limits.max_send_requests,
            max_receive_requests: limits.max_receive_requests,
            max_segments: MAX_SEGMENTS as u32,
            max_inline_bytes: MAX_INLINE as u32,
            max_completion_queues: limits.max_completion_queues,
            max_completion_queue_entries: limits.max_completion_queue_entries,
            max_regions: limits.max_regions,
            max_region_bytes: isize::MAX as u64,
            max_protection_domains: limits.max_protection_domains,
            max_shared_receive_queues: limits.max_shared_receive_queues,
            max_outstanding_reads: limits.max_outstanding_reads,
            max_message_bytes: limits.max_message_bytes,
        }
    }
}
