//! Verbs over user-level iWARP: devices, memory regions, completion queues, queue pairs, connections.

#![deny(unsafe_code)]

mod arming;
pub mod completion_channel;
pub mod completion_queue;
pub mod configuration;
mod memory;
pub mod protection_domain;
pub mod receive_queue;
pub mod region;
mod resources;

pub use completion_channel::CompletionChannel;
pub use completion_queue::{CompletionQueue, CompletionQueueId, WorkCompletion};
pub use configuration::{ConfigError, DeviceConfig, Scheme, Threads};
pub use protection_domain::ProtectionDomain;
pub use receive_queue::SharedReceiveQueue;
pub use region::{AccessFlags, MemoryRegion};
pub use resources::LimitReached;
