//! Verbs over user-level iWARP: devices, memory regions, completion queues, queue pairs, connections.

#![deny(unsafe_code)]

mod arming;
mod asynchronous;
pub mod completion_channel;
pub mod completion_queue;
pub mod configuration;
pub mod connection_manager;
mod core;
pub mod device;
mod events;
mod memory;
pub mod protection_domain;
pub mod queue_pair;
pub mod receive_queue;
pub mod region;
mod resources;
mod turn;

pub use asynchronous::AsyncEvent;
pub use completion_channel::CompletionChannel;
pub use completion_queue::{CompletionQueue, CompletionQueueId, WorkCompletion};
pub use configuration::{ConfigError, DeviceConfig, Scheme, Threads};
pub use connection_manager::{
    CmError, CmEvent, CmEventKind, CmId, ConnectParameters, ConnectionOffer, Ends, EventChannel,
};
pub use device::{Device, DeviceAttributes, DeviceStatistics, OpenError};
pub use protection_domain::ProtectionDomain;
pub use queue_pair::{PostError, QueuePair, QueuePairAttributes, QueuePairState, StateError};
pub use receive_queue::SharedReceiveQueue;
pub use region::{AccessFlags, MemoryRegion};
pub use resources::LimitReached;
pub use softrdma_mpa_ddp_rdmap::{
    AtomicOperation, MAX_INLINE, MAX_SEGMENTS, Opcode, Operation, Payload, RemoteAddress, Segment, SegmentList,
    SendRequest, Stag, Status, TaggedOffset,
};
