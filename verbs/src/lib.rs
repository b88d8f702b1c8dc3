//! Verbs over user-level iWARP: devices, memory regions, completion queues, queue pairs, connections.

pub mod configuration;

pub use configuration::{ConfigError, DeviceConfig, Scheme, Threads};
