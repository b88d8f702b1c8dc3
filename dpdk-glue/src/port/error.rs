//! Why a port did not open.

use crate::mempool::MempoolError;

/// Why a port did not open. The text names the device as it was given to DPDK, and ends in what DPDK logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// The device's text holds a NUL byte.
    #[error("device `{device}` holds a NUL byte")]
    Device {
        /// As given.
        device: String,
    },
    /// DPDK has a device of this name.
    #[error("device `{name}` is open in this process already: give one of them another number")]
    InUse {
        /// Its name.
        name: String,
    },
    /// Another process serves the socket.
    #[error("somebody serves `{path}` already: end that process or choose another socket")]
    SocketInUse {
        /// The socket's path.
        path: String,
    },
    /// The driver did not come up.
    #[error("device `{device}` did not come up: {reason}. {advice}{log}")]
    Probe {
        /// As given to DPDK.
        device: String,
        /// DPDK's error.
        reason: String,
        /// What to do about it.
        advice: &'static str,
        /// What DPDK logged.
        log: String,
    },
    /// The driver came up without a port.
    #[error("device `{device}` came up without a port: DPDK has no driver for it, or it is no network device{log}")]
    NoPort {
        /// As given to DPDK.
        device: String,
        /// What DPDK logged.
        log: String,
    },
    /// The device has too few queues.
    #[error("device `{device}` has at most {receive} receive and {transmit} transmit queues: ask for no more")]
    Queues {
        /// As given.
        device: String,
        /// Its receive queues.
        receive: u16,
        /// Its transmit queues.
        transmit: u16,
    },
    /// The device does not take the MTU.
    #[error("device `{device}` does not take an MTU of {mtu} ({reason}): lower `mtu` to {limit} or less")]
    Mtu {
        /// As given.
        device: String,
        /// What was asked for.
        mtu: usize,
        /// What it takes.
        limit: usize,
        /// DPDK's error.
        reason: String,
    },
    /// A step of the set-up failed.
    #[error("device `{device}` failed to {step}: {reason}{log}")]
    Setup {
        /// As given.
        device: String,
        /// Which step.
        step: &'static str,
        /// DPDK's error.
        reason: String,
        /// What DPDK logged.
        log: String,
    },
    /// Nobody listens at the other end.
    #[error(
        "device `{device}` found nobody to connect to within {waited_ms} ms: start the serving process first, or raise `peer_wait` (`timing.peer_wait_ms`){log}"
    )]
    NoPeer {
        /// As given.
        device: String,
        /// How long it tried.
        waited_ms: u128,
        /// What DPDK logged.
        log: String,
    },
    /// The interrupt thread cannot be kept away from pollers.
    #[error("DPDK's interrupt thread cannot be synchronised with: {reason}")]
    Gate {
        /// What failed.
        reason: String,
    },
    /// There is no pool of buffers.
    #[error(transparent)]
    Pool(#[from] MempoolError),
}
