//! The configuration of a device: a struct with defaults, and its TOML form.
//!
//! Every limit is named here, with its unit and default. An error in a file names the file, the line, the key and what is
//! accepted there. `configs/` at the top of the tree holds commented samples.

mod accepted;
mod error;
mod port;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use error::{ConfigError, Place};
pub use port::{Capture, EalConfigText, HugePages, InterfaceAddress, MemifRole, PortConfigText, PortDevice};

/// What [`crate`]'s device is made from. `DeviceConfig::default()` is a kernel-socket device that listens on loopback.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceConfig {
    /// Name of the device, as lists of devices show it. 1 to 63 bytes. Default `softrdma0`.
    pub name: String,
    /// What carries the bytes. Default kernel-socket.
    pub scheme: Scheme,
    /// Who runs the stack. In files the default is c3 for softrdma and c1 for the others.
    pub threads: Threads,
    /// The CPU that the stack's thread is pinned to; unset: the scheduler decides.
    pub stack_cpu: Option<usize>,
    /// Keeps polling instead of sleeping when idle. Default false.
    pub busy_poll: bool,
    /// Asks for the MPA CRC (RFC 5044 §7.1: off only if both sides agree). Default true.
    pub crc: bool,
    /// Computes and verifies IP and TCP checksums where the port does not (sequential and softrdma). Default true.
    pub checksum: bool,
    /// Own addresses with their prefix lengths (sequential and softrdma; the kernel knows its own).
    pub addresses: Vec<InterfaceAddress>,
    /// Default routers, at most one per address family (sequential and softrdma).
    pub gateways: Vec<IpAddr>,
    /// The addresses that a listener is bound to when its own is left unspecified (`0.0.0.0` or `::`), those of its family
    /// (kernel-socket only; a port has just the addresses it was given). Default loopback; empty means all of the machine.
    pub listen_addresses: Vec<IpAddr>,
    /// Largest IP packet in bytes (sequential and softrdma). Default 1500.
    pub mtu: u32,
    /// How TCP finds out how much the network takes (sequential and softrdma; the kernel has its own). Default cubic.
    pub congestion_control: CongestionControl,
    /// Seed of sequence numbers and ports, to reproduce a run; unset: from the system's randomness.
    pub random_seed: Option<u64>,
    /// Writes what the port sends and receives into a pcap file (sequential and softrdma).
    pub capture: Option<Capture>,
    /// Connection setup.
    pub handshake: HandshakeConfigText,
    /// How much of everything there can be.
    pub limits: DeviceLimits,
    /// How long things may take.
    pub timing: Timing,
    /// How an idle poll loop behaves.
    pub polling: Polling,
    /// The packet port (sequential and softrdma).
    pub port: Option<PortConfigText>,
    /// DPDK's environment (sequential and softrdma).
    pub eal: EalConfigText,
}

/// What carries the bytes of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// Kernel TCP sockets; needs neither DPDK nor root.
    #[default]
    KernelSocket,
    /// smoltcp's TCP sockets over a DPDK port.
    Sequential,
    /// Own one-copy TCP over a DPDK port.
    Softrdma,
    /// A real device. Not in this version.
    Rnic,
}

impl Scheme {
    /// Who runs the stack unless told otherwise: both halves at once where the engine has two.
    pub const fn default_threads(self) -> Threads {
        match self {
            Self::Softrdma => Threads::C3,
            Self::KernelSocket | Self::Sequential | Self::Rnic => Threads::C1,
        }
    }

    /// What [`DeviceLimits::max_connections`] may be at most with its engine.
    pub const fn max_connections(self) -> u32 {
        match self {
            Self::Sequential => softrdma_stack::sequential::MAX_CONNECTIONS as u32,
            Self::KernelSocket | Self::Softrdma | Self::Rnic => softrdma_stack::softrdma::MAX_CONNECTIONS as u32,
        }
    }

    /// The name on command lines and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KernelSocket => "kernel-socket",
            Self::Sequential => "sequential",
            Self::Softrdma => "softrdma",
            Self::Rnic => "rnic",
        }
    }
}

/// Who runs the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Threads {
    /// One thread of the device runs packets, TCP and protocol; applications hand it their requests.
    #[default]
    C1,
    /// Run to completion: the application's polls drive everything.
    C2,
    /// Receive on the device's thread, transmit on the application's. Comes with the one-copy engine.
    C3,
}

impl Threads {
    /// The name on command lines and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::C1 => "c1",
            Self::C2 => "c2",
            Self::C3 => "c3",
        }
    }
}

/// How TCP finds out how much the network takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CongestionControl {
    /// Not at all: only the peer's window counts. For links between two hosts, with scheme sequential.
    Off,
    /// Reno (RFC 5681).
    Reno,
    /// CUBIC (RFC 9438).
    #[default]
    Cubic,
}

/// What is offered when a connection is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HandshakeConfigText {
    /// MPA revision offered: 1 (RFC 5044) or 2 (RFC 6581). Default 2.
    pub revision: u8,
    /// Ready-to-receive messages we can do, for peer-to-peer setup (RFC 6581 §4); empty: client-server setup. Default
    /// `["send", "write", "read"]`.
    pub ready_to_receive: Vec<ReadyToReceive>,
    /// Default for outstanding Reads and atomics of the peer that we answer, per queue pair (IRD). Default 16.
    pub ird: u16,
    /// Default for outstanding Reads and atomics of ours, per queue pair (ORD). Default 16.
    pub ord: u16,
}

/// The zero-length message with which a peer-to-peer initiator starts (RFC 6581 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadyToReceive {
    /// A Send.
    Send,
    /// An RDMA Write.
    Write,
    /// An RDMA Read.
    Read,
}

/// How much of everything there can be. Reaching a limit is an error that names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceLimits {
    /// Connections, in whatever state. Default 4096.
    pub max_connections: u32,
    /// Accepted connections whose handshake is not over. Default 1024.
    pub max_half_open: u32,
    /// Listeners. Default 64.
    pub max_listeners: u32,
    /// Connections that wait for a listener, where the application names no number. Over a port it is also the most that may be
    /// half-open at one listener, whatever number the application names (sequential and softrdma). Default 128.
    pub backlog: u32,
    /// Ended connections that are remembered at a time, for TCP's TIME-WAIT (RFC 9293 §3.6.1); the oldest is forgotten for the
    /// next. Unset: 64 with sequential, where each keeps its buffers, and 4096 with softrdma.
    pub max_time_wait: Option<u32>,
    /// Queue pairs. Default 4096.
    pub max_queue_pairs: u32,
    /// Protection domains. Default 1024.
    pub max_protection_domains: u32,
    /// Memory regions. Default 65536.
    pub max_regions: u32,
    /// Completion queues. Default 4096.
    pub max_completion_queues: u32,
    /// Entries of one completion queue. Default 262144.
    pub max_completion_queue_entries: u32,
    /// Shared receive queues. Default 1024.
    pub max_shared_receive_queues: u32,
    /// Send requests of one queue pair. Default 16384.
    pub max_send_requests: u32,
    /// Receive requests of one queue pair or shared receive queue. Default 16384.
    pub max_receive_requests: u32,
    /// Asynchronous events that wait for the application; what happens beyond is lost, and that is an event. Default 8192.
    pub max_async_events: u32,
    /// Largest IRD and ORD that a connection can ask for. Default 128.
    pub max_outstanding_reads: u16,
    /// Bytes of one message. Default 1 GiB.
    pub max_message_bytes: u32,
    /// Buffer of each direction of a smoltcp socket (sequential), or what a peer may send ahead (softrdma), in bytes. Default
    /// 1 MiB.
    pub socket_buffer_bytes: u32,
    /// Receive buffer of a connection, in bytes (kernel-socket). Default 256 KiB.
    pub receive_buffer_bytes: u32,
    /// Stage where records wait for the kernel, per connection, in bytes (kernel-socket). Default 256 KiB.
    pub transmit_stage_bytes: u32,
    /// Receive buffers of that size that all connections share; one has a buffer only while bytes wait in it (kernel-socket).
    /// Default 64.
    pub receive_buffers: u32,
    /// Stages of that size that all connections share; one has a stage only while records wait in it (kernel-socket).
    /// Default 64.
    pub transmit_stages: u32,
}

/// How long things may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// From the TCP connection to the end of the MPA handshake, in milliseconds. Default 5000.
    pub handshake_timeout_ms: u32,
    /// How long TCP may try to connect, in milliseconds. Default 10000.
    pub connect_timeout_ms: u32,
    /// How long an untagged message may wait for a posted receive, in milliseconds. Default 5000.
    pub receive_wait_ms: u32,
    /// How long a sent TERMINATE may wait for the peer to close, in milliseconds. Default 1000.
    pub terminate_timeout_ms: u32,
    /// How long an orderly close may wait for the peer, in milliseconds. Default 3000.
    pub close_timeout_ms: u32,
    /// How long the initiator of a client-server connection holds its first FPDU back after the reply, in milliseconds;
    /// some peers need a moment to leave their socket handler. Default 0.
    pub first_fpdu_delay_ms: u32,
    /// How long the application may take to accept or reject a connection, in milliseconds. Default 60000.
    pub accept_timeout_ms: u32,
    /// How long a peer may leave an FPDU or a message that it began without a byte more; then its connection ends with a
    /// TERMINATE (RFC 5042 §6.4.2), at the latest after twice that time, in milliseconds. Default 30000.
    pub stall_timeout_ms: u32,
    /// How long a port that connects to a serving one (memif, virtio_user) may wait for it, in milliseconds. Default 5000.
    pub peer_wait_ms: u32,
    /// A peer that has acknowledged nothing for so long is dead, and its connection is reset: TCP's user timeout (RFC 9293
    /// §3.8.3), in milliseconds (sequential and softrdma; the kernel has its own). Default 75000.
    pub user_timeout_ms: u32,
    /// A connection that has been idle for so long is probed (RFC 9293 §3.8.4), in milliseconds; less than `user_timeout_ms`, as
    /// probes may be lost; 0: never, with softrdma only (sequential and softrdma; the kernel has its own). Default 5000.
    pub keep_alive_interval_ms: u32,
    /// How long TCP remembers a connection that ended, twice the longest life of a segment (RFC 9293 §3.6.1), in milliseconds
    /// (softrdma). Default 60000.
    pub time_wait_ms: u32,
    /// How long a TCP acknowledgement may wait for data that could carry it (RFC 1122 §4.2.3.2: below half a second), in
    /// microseconds (softrdma). Default 5.
    pub acknowledgement_delay_us: u32,
    /// Shortest time after which a TCP segment that nobody acknowledged is sent again, in microseconds: about 1000 inside a data
    /// centre, 200000 across the internet (softrdma). Default 1000.
    pub min_retransmission_us: u32,
}

/// How a poll loop behaves while there is nothing to do: it spins, then yields, then sleeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Polling {
    /// Spins that long after the last work, in microseconds. Default 5.
    pub spin_us: u32,
    /// Then yields the CPU at each round that long, in microseconds; an application that polls (c2) goes on yielding.
    /// Default 50.
    pub yield_us: u32,
    /// Then sleeps that long at a time where no descriptor wakes it, a third of it right after work, in microseconds.
    /// Default 380.
    pub idle_sleep_us: u32,
}

impl DeviceConfig {
    /// Reads the file at `path`.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::from_toml(&text, &file),
            Err(source) => Err(ConfigError::Unreadable { file, source }),
        }
    }

    /// Parses and validates `text`; `file_name` appears in errors.
    pub fn from_toml(text: &str, file_name: &str) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|error| error::from_toml(&error, text, file_name))?;
        if !toml::from_str::<toml::Table>(text).is_ok_and(|table| table.contains_key("threads")) {
            config.threads = config.scheme.default_threads();
        }
        config.problem().map_or(Ok(()), |problem| Err(error::locate(problem, text, file_name)))?;
        Ok(config)
    }

    /// Checks ranges and what keys demand of each other: for a configuration that was put together in a program.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.problem().map_or(Ok(()), |problem| Err(error::unplaced(problem)))
    }

    fn problem(&self) -> Option<accepted::Problem> {
        accepted::problem(self)
    }

    /// A loopback kernel-socket device of that name.
    pub fn kernel_socket(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// A device of that name on smoltcp and `device`, with one address.
    pub fn sequential(name: &str, device: PortDevice, address: InterfaceAddress) -> Self {
        Self {
            name: name.to_owned(),
            scheme: Scheme::Sequential,
            addresses: vec![address],
            port: Some(PortConfigText::new(device)),
            ..Self::default()
        }
    }
}

impl Default for DeviceConfig {
    fn default() -> Self {
        Self {
            name: "softrdma0".to_owned(),
            scheme: Scheme::default(),
            threads: Threads::default(),
            stack_cpu: None,
            busy_poll: false,
            crc: true,
            checksum: true,
            addresses: Vec::new(),
            gateways: Vec::new(),
            listen_addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            mtu: 1500,
            congestion_control: CongestionControl::default(),
            random_seed: None,
            capture: None,
            handshake: HandshakeConfigText::default(),
            limits: DeviceLimits::default(),
            timing: Timing::default(),
            polling: Polling::default(),
            port: None,
            eal: EalConfigText::default(),
        }
    }
}

impl Default for HandshakeConfigText {
    fn default() -> Self {
        Self {
            revision: 2,
            ready_to_receive: vec![ReadyToReceive::Send, ReadyToReceive::Write, ReadyToReceive::Read],
            ird: 16,
            ord: 16,
        }
    }
}

impl Default for DeviceLimits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_half_open: 1024,
            max_listeners: 64,
            backlog: 128,
            max_time_wait: None,
            max_queue_pairs: 4096,
            max_protection_domains: 1024,
            max_regions: 65536,
            max_completion_queues: 4096,
            max_completion_queue_entries: 262_144,
            max_shared_receive_queues: 1024,
            max_send_requests: 16384,
            max_receive_requests: 16384,
            max_async_events: 8192,
            max_outstanding_reads: 128,
            max_message_bytes: 1 << 30,
            socket_buffer_bytes: 1 << 20,
            receive_buffer_bytes: 256 << 10,
            transmit_stage_bytes: 256 << 10,
            receive_buffers: 64,
            transmit_stages: 64,
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake_timeout_ms: 5000,
            connect_timeout_ms: 10_000,
            receive_wait_ms: 5000,
            terminate_timeout_ms: 1000,
            close_timeout_ms: 3000,
            first_fpdu_delay_ms: 0,
            accept_timeout_ms: 60_000,
            stall_timeout_ms: 30_000,
            peer_wait_ms: 5000,
            user_timeout_ms: 75_000,
            keep_alive_interval_ms: 5000,
            time_wait_ms: 60_000,
            acknowledgement_delay_us: 5,
            min_retransmission_us: 1000,
        }
    }
}

impl Default for Polling {
    fn default() -> Self {
        Self { spin_us: 5, yield_us: 50, idle_sleep_us: 380 }
    }
}

/// Where capture files go by default: beside the process.
pub(crate) fn default_capture_path() -> PathBuf {
    PathBuf::from("softrdma.pcap")
}

#[cfg(test)]
mod tests;
