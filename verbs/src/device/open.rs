//! From a configuration to an engine and the settings of the host above it.

use std::time::Duration;

use softrdma_mpa_ddp_rdmap::{HandshakeConfig, Revision, RtrKinds};
use softrdma_stack::kernel::{KernelConfig, KernelEngine};
use softrdma_stack::stream::Engine;
use softrdma_stack::time::Instant;

use crate::configuration::{ConfigError, DeviceConfig, ReadyToReceive, Scheme};
use crate::core::CoreSettings;

/// Why a device could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Asked for something that comes later.
    #[error(
        "{what}: not in this version; accepted: scheme kernel-socket, sequential or softrdma, threads c1, c2 or c3"
    )]
    NotInThisVersion {
        /// What was asked for.
        what: &'static str,
    },
    /// The engine cannot receive and send on different threads.
    #[error("scheme {scheme} is of one piece: threads = \"c3\" is for scheme softrdma; with {scheme} use c1 or c2")]
    OfOnePiece {
        /// The scheme.
        scheme: &'static str,
    },
    /// The scheme needs a port, and the program was built without DPDK.
    #[error(
        "scheme {scheme} needs a packet port, and this program was built without DPDK; build it with `--features dpdk` \
         (needs Debian's libdpdk-dev), or use scheme kernel-socket"
    )]
    WithoutDpdk {
        /// The scheme.
        scheme: &'static str,
    },
    /// The scheme needs a port, and none is configured.
    #[error("scheme {scheme} needs a packet port; add a [port.device.memif] table (or another) to the configuration")]
    NoPort {
        /// The scheme.
        scheme: &'static str,
    },
    /// The port did not come up.
    #[error("the port could not be opened: {0}")]
    Port(String),
    /// The engine could not be made.
    #[error("the engine could not be made: {0}")]
    Engine(String),
    /// No descriptors left.
    #[error("no event descriptor could be made: {0}; raise the limit of open files")]
    Descriptor(#[source] rustix::io::Errno),
    /// No descriptors left.
    #[error("no event descriptor could be made: {0}; raise the limit of open files")]
    Events(#[source] std::io::Error),
    /// No thread could be started.
    #[error("the stack's thread could not be started: {0}")]
    Thread(#[source] std::io::Error),
}

/// The engine that `config` asks for.
pub(super) fn engine(config: &DeviceConfig, now: Instant) -> Result<Box<dyn Engine>, OpenError> {
    config.validate()?;
    match config.scheme {
        Scheme::KernelSocket => {
            let engine =
                KernelEngine::new(kernel_config(config)).map_err(|error| OpenError::Engine(error.to_string()))?;
            Ok(Box::new(engine))
        }
        Scheme::Sequential | Scheme::Softrdma => on_port(config, now),
        Scheme::Rnic => Err(OpenError::NotInThisVersion { what: "scheme = \"rnic\"" }),
    }
}

fn kernel_config(config: &DeviceConfig) -> KernelConfig {
    KernelConfig {
        max_connections: config.limits.max_connections as usize,
        max_listeners: config.limits.max_listeners as usize,
        receive_buffer_bytes: config.limits.receive_buffer_bytes as usize,
        transmit_stage_bytes: config.limits.transmit_stage_bytes as usize,
        receive_buffers: config.limits.receive_buffers as usize,
        transmit_stages: config.limits.transmit_stages as usize,
        connect_timeout: milliseconds(config.timing.connect_timeout_ms),
        linger_timeout: milliseconds(config.timing.close_timeout_ms),
        // A message that waits for its receive is no stalled one, though the peer has ended its direction.
        truncation_timeout: milliseconds(config.timing.stall_timeout_ms.max(config.timing.receive_wait_ms + 1000)),
        ..KernelConfig::default()
    }
}

#[cfg(not(feature = "dpdk"))]
fn on_port(config: &DeviceConfig, _now: Instant) -> Result<Box<dyn Engine>, OpenError> {
    Err(OpenError::WithoutDpdk { scheme: config.scheme.name() })
}

#[cfg(feature = "dpdk")]
fn on_port(config: &DeviceConfig, now: Instant) -> Result<Box<dyn Engine>, OpenError> {
    match config.scheme {
        Scheme::Softrdma => super::port::softrdma(config, now),
        _ => super::port::sequential(config, now),
    }
}

fn milliseconds(count: u32) -> Duration {
    Duration::from_millis(count.into())
}

/// What the host above the engine is told.
pub(super) fn core_settings(config: &DeviceConfig) -> CoreSettings {
    let offered = &config.handshake.ready_to_receive;
    let handshake = HandshakeConfig {
        crc: config.crc,
        revision: if config.handshake.revision == 1 { Revision::V1 } else { Revision::V2 },
        ird: config.handshake.ird,
        ord: config.handshake.ord,
        rtr: RtrKinds {
            send: offered.contains(&ReadyToReceive::Send),
            write: offered.contains(&ReadyToReceive::Write),
            read: offered.contains(&ReadyToReceive::Read),
        },
    };
    CoreSettings {
        handshake,
        handshake_timeout: milliseconds(config.timing.handshake_timeout_ms),
        accept_timeout: milliseconds(config.timing.accept_timeout_ms),
        receive_wait: milliseconds(config.timing.receive_wait_ms),
        terminate_timeout: milliseconds(config.timing.terminate_timeout_ms),
        close_timeout: milliseconds(config.timing.close_timeout_ms),
        stall_timeout: milliseconds(config.timing.stall_timeout_ms),
        first_fpdu_delay: milliseconds(config.timing.first_fpdu_delay_ms),
        half_open_limit: config.limits.max_half_open as usize,
        max_message_length: config.limits.max_message_bytes,
        listen_addresses: match config.scheme {
            Scheme::KernelSocket => config.listen_addresses.clone(),
            _ => Vec::new(),
        },
        // The one-copy engine fetches bytes again from where they are; the others copy what they take.
        engine_copies: config.scheme != Scheme::Softrdma,
    }
}
