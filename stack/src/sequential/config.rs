//! What a sequential engine is told, and what can be wrong with it.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use smoltcp::wire::{IpAddress, IpCidr};

use crate::pcap::FrameSink;

/// Most addresses of one engine: smoltcp's table, sized when it is built.
pub const MAX_ADDRESSES: usize = 8;

/// Smallest `mtu` over IPv4. RFC 791 §3.2: what every host takes.
pub const MIN_MTU_IPV4: usize = 576;
/// Smallest `mtu` over IPv6. RFC 8200 §5.
pub const MIN_MTU_IPV6: usize = 1280;
/// Largest `mtu`: what the length field of IPv4 can say.
pub const MAX_MTU: usize = 65_535;

/// Smallest `socket_buffer_bytes`.
pub const MIN_SOCKET_BUFFER: usize = 16 * 1024;
/// Largest `socket_buffer_bytes`: what TCP's window scaling can say (RFC 7323 §2.3), and smoltcp's limit.
pub const MAX_SOCKET_BUFFER: usize = 1 << 29;

/// How a socket finds out how much the network takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CongestionControl {
    /// Not at all: only the peer's window counts. For links between two hosts.
    Off,
    /// Reno (RFC 5681).
    Reno,
    /// CUBIC (RFC 9438).
    #[default]
    Cubic,
}

/// What a [`SequentialEngine`](super::SequentialEngine) is told.
pub struct SequentialConfig {
    /// Addresses of this host, each with the length of its network's prefix. One to [`MAX_ADDRESSES`].
    pub addresses: Vec<(IpAddr, u8)>,
    /// Routers to everything that is on none of the networks of `addresses`: at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Largest IP packet in bytes; the port's MTU if that is smaller, or if `None`.
    pub mtu: Option<usize>,
    /// Connections at a time, half-open ones included.
    pub max_connections: usize,
    /// Listeners at a time.
    pub max_listeners: usize,
    /// Half-open connections of one listener at a time, however large a backlog is asked for.
    pub max_backlog: usize,
    /// Ended connections that are remembered at a time, for TIME-WAIT (RFC 9293 §3.6.1); the oldest is forgotten for the
    /// next. Each keeps its buffers and slows every packet a little.
    pub max_time_wait: usize,
    /// Bytes of each connection's receive buffer, and as many of its transmit buffer. Rounded to one less than a power of two.
    pub socket_buffer_bytes: usize,
    /// Seed of initial sequence numbers and ephemeral ports. Should differ at every start.
    pub random_seed: u64,
    /// Verify and compute IPv4, TCP and ICMP checksums, here or in the port. Without it both ends have to do without: a
    /// peer that verifies drops every packet.
    pub checksum: bool,
    /// How sockets find out how much the network takes.
    pub congestion_control: CongestionControl,
    /// A connection that the peer has not accepted by then has failed.
    pub connect_timeout: Duration,
    /// A half-open connection that the peer has not confirmed by then is forgotten.
    pub half_open_timeout: Duration,
    /// A peer that has sent nothing for so long is dead: its connection is reset (RFC 5482's user timeout). smoltcp probes
    /// a closed window at intervals of up to a minute, so with less than that a reader may sleep only a quarter as long.
    pub user_timeout: Duration,
    /// A connection that has been idle for so long is probed. Much shorter than `user_timeout`: probes may be lost, and an
    /// idle peer counts as dead when it answers none of them.
    pub keep_alive_interval: Duration,
    /// Is shown every frame that is received or sent.
    pub capture: Option<Box<dyn FrameSink>>,
}

impl Default for SequentialConfig {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            gateways: Vec::new(),
            mtu: None,
            max_connections: 1024,
            max_listeners: 64,
            max_backlog: 128,
            max_time_wait: 64,
            socket_buffer_bytes: 256 * 1024,
            random_seed: 0,
            checksum: true,
            congestion_control: CongestionControl::default(),
            connect_timeout: Duration::from_secs(10),
            half_open_timeout: Duration::from_secs(10),
            user_timeout: Duration::from_secs(75),
            keep_alive_interval: Duration::from_secs(5),
            capture: None,
        }
    }
}

impl fmt::Debug for SequentialConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SequentialConfig")
            .field("addresses", &self.addresses)
            .field("gateways", &self.gateways)
            .field("mtu", &self.mtu)
            .field("max_connections", &self.max_connections)
            .field("socket_buffer_bytes", &self.socket_buffer_bytes)
            .field("checksum", &self.checksum)
            .field("congestion_control", &self.congestion_control)
            .finish_non_exhaustive()
    }
}

/// Why a [`SequentialEngine`](super::SequentialEngine) could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequentialError {
    /// The list of addresses is empty or too long.
    #[error("`addresses` has {count} entries; give 1 to {MAX_ADDRESSES}")]
    AddressCount {
        /// How many were given.
        count: usize,
    },
    /// An address that no host can have.
    #[error(
        "address {address}/{prefix} cannot be a host's: give a unicast address and the prefix length of its network"
    )]
    Address {
        /// The address.
        address: IpAddr,
        /// The length of its prefix.
        prefix: u8,
    },
    /// A gateway that cannot be used.
    #[error("gateway {gateway} cannot be used: {reason}")]
    Gateway {
        /// The gateway.
        gateway: IpAddr,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Packets of that size cannot carry TCP over these addresses.
    #[error("an MTU of {mtu} bytes cannot be used; give {smallest} to {MAX_MTU}")]
    Mtu {
        /// The MTU that would be in force.
        mtu: usize,
        /// The smallest possible.
        smallest: usize,
    },
    /// A number is outside its range.
    #[error("`{key}` is {value}; give {smallest} to {largest}")]
    Range {
        /// Which number.
        key: &'static str,
        /// Its value.
        value: u64,
        /// The smallest accepted.
        smallest: u64,
        /// The largest accepted.
        largest: u64,
    },
    /// The keep-alive interval does not fit in the user timeout.
    #[error(
        "`keep_alive_interval` is {keep_alive:?}; give less than `user_timeout`, {user_timeout:?}, and more than zero"
    )]
    KeepAlive {
        /// The interval.
        keep_alive: Duration,
        /// The user timeout.
        user_timeout: Duration,
    },
    /// The port's Ethernet address is a multicast address.
    #[error("the port's Ethernet address {address:02x?} is not a host's")]
    HardwareAddress {
        /// The address.
        address: [u8; 6],
    },
    /// The port's first queues are in use.
    #[error("queue 0 of the port is taken already")]
    QueueTaken,
}

impl SequentialConfig {
    /// Checks everything but the port, and tells the MTU in force on a port that carries packets of `port_mtu` bytes.
    pub(super) fn validate(&self, port_mtu: usize) -> Result<usize, SequentialError> {
        if !(1..=MAX_ADDRESSES).contains(&self.addresses.len()) {
            return Err(SequentialError::AddressCount { count: self.addresses.len() });
        }
        for &(address, prefix) in &self.addresses {
            let widest = if address.is_ipv4() { 32 } else { 128 };
            if prefix > widest || !is_host_address(address) {
                return Err(SequentialError::Address { address, prefix });
            }
        }
        self.validate_gateways()?;
        let range = |key, value: usize, smallest: usize, largest: usize| {
            let [value, smallest, largest] = [value, smallest, largest].map(|number| number as u64);
            let fits = (smallest..=largest).contains(&value);
            if fits { Ok(()) } else { Err(SequentialError::Range { key, value, smallest, largest }) }
        };
        range("max_connections", self.max_connections, 1, super::MAX_CONNECTIONS)?;
        range("max_listeners", self.max_listeners, 0, 65_535)?;
        range("max_backlog", self.max_backlog, 1, 65_535)?;
        range("max_time_wait", self.max_time_wait, 1, 65_535)?;
        range("socket_buffer_bytes", self.socket_buffer_bytes, MIN_SOCKET_BUFFER, MAX_SOCKET_BUFFER)?;
        if self.keep_alive_interval.is_zero() || self.keep_alive_interval >= self.user_timeout {
            return Err(SequentialError::KeepAlive {
                keep_alive: self.keep_alive_interval,
                user_timeout: self.user_timeout,
            });
        }
        let mtu = self.mtu.unwrap_or(port_mtu).min(port_mtu);
        let has_ipv6 = self.addresses.iter().any(|(address, _)| address.is_ipv6());
        let smallest = if has_ipv6 { MIN_MTU_IPV6 } else { MIN_MTU_IPV4 };
        // A transmit buffer that does not hold a few segments cannot keep the wire busy.
        range("socket_buffer_bytes", self.socket_buffer_bytes, 4 * mtu.min(MAX_MTU), MAX_SOCKET_BUFFER)?;
        if (smallest..=MAX_MTU).contains(&mtu) { Ok(mtu) } else { Err(SequentialError::Mtu { mtu, smallest }) }
    }

    fn validate_gateways(&self) -> Result<(), SequentialError> {
        for (index, &gateway) in self.gateways.iter().enumerate() {
            let wrong = |reason| Err(SequentialError::Gateway { gateway, reason });
            if self.gateways[..index].iter().any(|other| other.is_ipv4() == gateway.is_ipv4()) {
                return wrong("there is one of its family already");
            }
            if !is_host_address(gateway) {
                return wrong("it is not a unicast address");
            }
            if !self.addresses.iter().any(|&(address, prefix)| contains(address, prefix, gateway)) {
                return wrong("it is on none of the networks of `addresses`");
            }
        }
        Ok(())
    }
}

/// Whether `other` is on the network of `address` with a prefix of `prefix` bits.
pub(crate) fn contains(address: IpAddr, prefix: u8, other: IpAddr) -> bool {
    let address = IpAddress::from(address);
    let other = IpAddress::from(other);
    address.version() == other.version() && IpCidr::new(address, prefix).contains_addr(&other)
}

pub(crate) fn is_host_address(address: IpAddr) -> bool {
    IpAddress::from(address).is_unicast() && !address.is_loopback()
}
