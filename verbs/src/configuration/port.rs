//! The parts of a configuration that concern packets: addresses, the port, DPDK's environment, captures.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An address of ours with the length of its network's prefix, written `10.0.0.1/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InterfaceAddress {
    /// The address.
    pub address: IpAddr,
    /// Bits of the prefix: at most 32 for IPv4, 128 for IPv6.
    pub prefix: u8,
}

/// What was written is no address with a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no address with a prefix; accepted: an address and a prefix length such as \"10.0.0.1/24\" or \"fd00::1/64\""
)]
pub struct InvalidInterfaceAddress(String);

impl FromStr for InterfaceAddress {
    type Err = InvalidInterfaceAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidInterfaceAddress(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let prefix: u8 = prefix.parse().map_err(|_| invalid())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if prefix > longest {
            return Err(invalid());
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

impl Serialize for InterfaceAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for InterfaceAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A packet port: the device and how it is set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortConfigText {
    /// Which device.
    pub device: PortDevice,
    /// Receive and transmit queues. Default 1.
    #[serde(default = "default_queues")]
    pub queues: u16,
    /// Descriptors of one queue. Default 1024.
    #[serde(default = "default_descriptors")]
    pub descriptors: u16,
    /// Packets in the port's pool. Default 8192.
    #[serde(default = "default_pool_packets")]
    pub pool_packets: u32,
    /// Bytes of one packet buffer; longer frames are chained. Default 2176 (a 2048-byte frame and DPDK's headroom).
    #[serde(default = "default_data_room_bytes")]
    pub data_room_bytes: u32,
    /// Uses the checksum offloads that the port has. Default true.
    #[serde(default = "default_offload")]
    pub offload: bool,
}

impl PortConfigText {
    /// `device` with the defaults for everything else.
    pub fn new(device: PortDevice) -> Self {
        Self {
            device,
            queues: default_queues(),
            descriptors: default_descriptors(),
            pool_packets: default_pool_packets(),
            data_room_bytes: default_data_room_bytes(),
            offload: default_offload(),
        }
    }
}

fn default_queues() -> u16 {
    1
}

fn default_descriptors() -> u16 {
    1024
}

fn default_pool_packets() -> u32 {
    8192
}

fn default_data_room_bytes() -> u32 {
    2176
}

fn default_offload() -> bool {
    true
}

/// Kinds of packet devices. In TOML one table below `[port.device]`, such as `[port.device.memif]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PortDevice {
    /// Shared memory between two processes (libmemif).
    Memif {
        /// Server creates the socket, client connects to it.
        role: MemifRole,
        /// Interface number below the socket; the same on both sides.
        #[serde(default)]
        id: u32,
        /// Name of the (abstract) socket; the same on both sides.
        socket: String,
    },
    /// A kernel TAP interface that the port creates. Needs root.
    Tap {
        /// Name of the kernel's interface.
        interface: String,
    },
    /// An existing kernel interface, through AF_PACKET. Needs root.
    AfPacket {
        /// Name of the kernel's interface.
        interface: String,
    },
    /// An existing kernel interface, through AF_XDP. Needs root.
    AfXdp {
        /// Name of the kernel's interface.
        interface: String,
    },
    /// Packets sent to itself: for tests.
    Ring {},
    /// Packets sent to nowhere: for measurements.
    Null {},
    /// A network card bound to a userspace driver. Needs root.
    Pci {
        /// Its address, such as `0000:3b:00.0`.
        address: String,
    },
    /// The device end of a virtual machine's queue (vhost-user).
    Vhost {
        /// Path of the socket.
        socket: PathBuf,
    },
    /// The driver end of a vhost-user queue.
    VirtioUser {
        /// Path of the socket.
        socket: PathBuf,
    },
    /// Anything else DPDK has, in its own words.
    Dpdk {
        /// A device argument, such as `net_pcap0,iface=lo`.
        arguments: String,
    },
}

/// The two ends of a memif.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemifRole {
    /// Creates the socket.
    Server,
    /// Connects to it.
    Client,
}

/// DPDK's environment. It is set up once per process: the first device decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EalConfigText {
    /// Whether packet memory is in huge pages. Default auto: if there are any.
    pub huge_pages: HugePages,
    /// Memory for packets, in MiB. Default 256.
    pub memory_mib: u32,
    /// Keeps DPDK processes apart; unset: unique for the process.
    pub file_prefix: Option<String>,
    /// Further arguments, as DPDK takes them.
    pub arguments: Vec<String>,
}

impl Default for EalConfigText {
    fn default() -> Self {
        Self { huge_pages: HugePages::default(), memory_mib: 256, file_prefix: None, arguments: Vec::new() }
    }
}

/// Whether to use huge pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HugePages {
    /// Never.
    Off,
    /// Fail without.
    On,
    /// If there are any.
    #[default]
    Auto,
}

/// A capture of what a port sends and receives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capture {
    /// The pcap file; it is overwritten.
    pub file: PathBuf,
    /// Bytes of a frame that are kept. Default 65535: all.
    pub frame_bytes: u32,
    /// The capture ends at that size of the file, in MiB. Default 1024.
    pub max_file_mib: u32,
}

impl Default for Capture {
    fn default() -> Self {
        Self { file: super::default_capture_path(), frame_bytes: 65535, max_file_mib: 1024 }
    }
}
