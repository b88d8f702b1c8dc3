//! What a softrdma engine is told, and what can be wrong with it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::pcap::FrameSink;
pub use crate::sequential::{MAX_ADDRESSES, MAX_MTU, MIN_MTU_IPV4, MIN_MTU_IPV6};
use crate::sequential::{contains, is_host_address};

/// Largest `max_connections`.
pub const MAX_CONNECTIONS: usize = 1 << 20;
/// Smallest `receive_window_bytes`.
pub const MIN_RECEIVE_WINDOW: usize = 16 * 1024;
/// Largest `receive_window_bytes`: what TCP's window scaling can say (RFC 7323 §2.3).
pub const MAX_RECEIVE_WINDOW: usize = 1 << 30;

/// How a sender finds out how much the network takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CongestionControl {
    /// Reno (RFC 5681).
    Reno,
    /// CUBIC (RFC 9438).
    #[default]
    Cubic,
}

impl CongestionControl {
    /// Every algorithm.
    pub const ALL: [Self; 2] = [Self::Reno, Self::Cubic];

    /// Its name in a configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reno => "reno",
            Self::Cubic => "cubic",
        }
    }
}

impl fmt::Display for CongestionControl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A congestion control that there is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no congestion control `{name}`; give `cubic` or `reno`")]
pub struct UnknownCongestionControl {
    /// What was asked for.
    pub name: String,
}

impl FromStr for CongestionControl {
    type Err = UnknownCongestionControl;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|control| control.name() == name);
        found.ok_or_else(|| UnknownCongestionControl { name: name.to_owned() })
    }
}

/// What a [`SoftrdmaEngine`](super::SoftrdmaEngine) is told.
pub struct SoftrdmaConfig {
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
    /// Half-open connections of one listener at a time, however large a backlog is asked for. For those beyond nothing is kept:
    /// they are answered with what they bring back (RFC 4987 §3.6).
    pub max_backlog: usize,
    /// Ended connections that are remembered at a time, for TIME-WAIT (RFC 9293 §3.6.1); the oldest is forgotten for the
    /// next. Each takes some hundred bytes and no port.
    pub max_time_wait: usize,
    /// Bytes that a peer may send ahead of what the layer above has consumed, for each connection.
    pub receive_window_bytes: usize,
    /// Received packets that all connections together may keep, because something before them is missing or the layer
    /// above left them. Well below the port's pool: a port without buffers receives nothing.
    pub max_held_packets: usize,
    /// Seed of initial sequence numbers, ephemeral ports and hashes. Should differ at every start.
    pub random_seed: u64,
    /// Verify and compute IPv4 and TCP checksums, here or in the port. Without it both ends have to do without: a peer that
    /// verifies drops every packet.
    pub checksum: bool,
    /// Offer timestamps (RFC 7323 §3): protection against wrapped sequence numbers, for 12 bytes a segment.
    pub timestamps: bool,
    /// How senders find out how much the network takes.
    pub congestion_control: CongestionControl,
    /// Shortest time after which a segment that nobody acknowledged is sent again: about 1 ms inside a data centre,
    /// 200 ms across the internet.
    pub min_retransmission_timeout: Duration,
    /// How long an acknowledgement waits for data that could carry it. RFC 1122 §4.2.3.2: less than 0.5 s.
    pub acknowledgement_delay: Duration,
    /// A connection that the peer has not accepted by then has failed.
    pub connect_timeout: Duration,
    /// A half-open connection that the peer has not confirmed by then is forgotten.
    pub half_open_timeout: Duration,
    /// A peer that has acknowledged nothing for so long is dead: its connection is reset (RFC 5482's user timeout).
    pub user_timeout: Duration,
    /// A connection that has been idle for so long is probed; zero: never.
    pub keep_alive_interval: Duration,
    /// How long an ended connection is remembered: twice the maximum segment lifetime (RFC 9293 §3.6.1).
    pub time_wait: Duration,
    /// Is shown every frame that is received or sent.
    pub capture: Option<Box<dyn FrameSink>>,
}

impl Default for SoftrdmaConfig {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            gateways: Vec::new(),
            mtu: None,
            max_connections: 1024,
            max_listeners: 64,
            max_backlog: 128,
            max_time_wait: 4096,
            receive_window_bytes: 1 << 20,
            max_held_packets: 2048,
            random_seed: 0,
            checksum: true,
            timestamps: true,
            congestion_control: CongestionControl::default(),
            min_retransmission_timeout: Duration::from_millis(1),
            acknowledgement_delay: Duration::from_micros(5),
            connect_timeout: Duration::from_secs(10),
            half_open_timeout: Duration::from_secs(10),
            user_timeout: Duration::from_secs(75),
            keep_alive_interval: Duration::from_secs(5),
            time_wait: Duration::from_secs(60),
            capture: None,
        }
    }
}

impl fmt::Debug for SoftrdmaConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SoftrdmaConfig")
            .field("addresses", &self.addresses)
            .field("gateways", &self.gateways)
            .field("mtu", &self.mtu)
            .field("max_connections", &self.max_connections)
            .field("receive_window_bytes", &self.receive_window_bytes)
            .field("checksum", &self.checksum)
            .field("congestion_control", &self.congestion_control)
            .finish_non_exhaustive()
    }
}

/// Why a [`SoftrdmaEngine`](super::SoftrdmaEngine) could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SoftrdmaError {
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
        "`keep_alive_interval` is {keep_alive:?}; give less than `user_timeout`, {user_timeout:?}, or zero for none"
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

impl SoftrdmaConfig {
    /// Checks everything but the port, and tells the MTU in force on a port that carries packets of `port_mtu` bytes.
    pub(super) fn validate(&self, port_mtu: usize) -> Result<usize, SoftrdmaError> {
        if !(1..=MAX_ADDRESSES).contains(&self.addresses.len()) {
            return Err(SoftrdmaError::AddressCount { count: self.addresses.len() });
        }
        for &(address, prefix) in &self.addresses {
            let widest = if address.is_ipv4() { 32 } else { 128 };
            if prefix > widest || !is_host_address(address) {
                return Err(SoftrdmaError::Address { address, prefix });
            }
        }
        self.validate_gateways()?;
        let range = |key, value: usize, smallest: usize, largest: usize| {
            let [value, smallest, largest] = [value, smallest, largest].map(|number| number as u64);
            let fits = (smallest..=largest).contains(&value);
            if fits { Ok(()) } else { Err(SoftrdmaError::Range { key, value, smallest, largest }) }
        };
        range("max_connections", self.max_connections, 1, MAX_CONNECTIONS)?;
        range("max_listeners", self.max_listeners, 0, 65_535)?;
        range("max_backlog", self.max_backlog, 1, 65_535)?;
        range("max_time_wait", self.max_time_wait, 1, 1 << 20)?;
        range("receive_window_bytes", self.receive_window_bytes, MIN_RECEIVE_WINDOW, MAX_RECEIVE_WINDOW)?;
        range("max_held_packets", self.max_held_packets, 1, 1 << 24)?;
        if self.keep_alive_interval >= self.user_timeout {
            return Err(SoftrdmaError::KeepAlive {
                keep_alive: self.keep_alive_interval,
                user_timeout: self.user_timeout,
            });
        }
        let mtu = self.mtu.unwrap_or(port_mtu).min(port_mtu);
        let has_ipv6 = self.addresses.iter().any(|(address, _)| address.is_ipv6());
        let smallest = if has_ipv6 { MIN_MTU_IPV6 } else { MIN_MTU_IPV4 };
        if (smallest..=MAX_MTU).contains(&mtu) { Ok(mtu) } else { Err(SoftrdmaError::Mtu { mtu, smallest }) }
    }

    fn validate_gateways(&self) -> Result<(), SoftrdmaError> {
        for (index, &gateway) in self.gateways.iter().enumerate() {
            let wrong = |reason| Err(SoftrdmaError::Gateway { gateway, reason });
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
