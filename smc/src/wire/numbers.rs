//! The numbers that travel: each has a type of its own.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::Ipv6Addr;

/// Names one instance of a TCP/IP stack, restarts told apart: an instance number and a MAC address of it (RFC 7609 §A.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

impl PeerId {
    /// Composes an id.
    pub const fn new(instance: u16, mac: Mac) -> Self {
        let [a, b, c, d, e, f] = mac.0;
        let [high, low] = instance.to_be_bytes();
        Self(u64::from_be_bytes([high, low, a, b, c, d, e, f]))
    }
}

/// Names an SMC-D device, and with that whoever can share memory through it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gid(pub u64);

/// Names an RDMA device: an IPv6 address, or an IPv4 address mapped to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoceGid(pub Ipv6Addr);

/// Names a buffer of directly mapped memory (DMB) at its owner's device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DmbToken(pub u64);

/// A MAC address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// Key with which a peer reaches a remote memory buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rkey(pub u32);

/// Names a connection in its link group to the peer that was given it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlertToken(pub u32);

/// Names a link to its user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

/// Which element of a buffer serves a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElementIndex(pub u8);

/// Where a remote memory buffer begins, as its owner's RDMA device counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RmbAddress(pub u64);

const MAX_24_BITS: u32 = 0xff_ffff;

/// Number of a queue pair, 24 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Qpn(u32);

/// Packet sequence number, 24 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Psn(u32);

macro_rules! of_24_bits {
    ($name:ident) => {
        impl $name {
            /// `None` if `number` has more than 24 bits.
            pub const fn new(number: u32) -> Option<Self> {
                if number <= MAX_24_BITS { Some(Self(number)) } else { None }
            }

            /// The number.
            pub const fn number(self) -> u32 {
                self.0
            }

            pub(super) const fn from_bytes([a, b, c]: [u8; 3]) -> Self {
                Self(u32::from_be_bytes([0, a, b, c]))
            }

            pub(super) const fn to_bytes(self) -> [u8; 3] {
                let [_, a, b, c] = self.0.to_be_bytes();
                [a, b, c]
            }
        }
    };
}

of_24_bits!(Qpn);
of_24_bits!(Psn);

/// Largest payload of a packet as RDMA enumerates it, four bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtu(u8);

impl Mtu {
    /// `None` if `code` has more than four bits.
    pub const fn new(code: u8) -> Option<Self> {
        if code <= 0x0f { Some(Self(code)) } else { None }
    }

    /// The code as it travels.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// Bytes; `None` for a reserved value. RFC 7609 §A.2.3: it only matters at the first contact.
    pub const fn bytes(self) -> Option<u32> {
        match self.0 {
            code @ 1..=5 => Some(128 << code),
            _ => None,
        }
    }

    pub(super) const fn from_low_bits(byte: u8) -> Self {
        Self(byte & 0x0f)
    }
}

/// How large a connection's buffer is: a power of two from 16 KiB to 512 KiB (RFC 7609 §A.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferSize(u8);

impl BufferSize {
    /// 16 KiB.
    pub const SMALLEST: Self = Self(0);
    /// 512 KiB.
    pub const LARGEST: Self = Self(5);

    const SHIFT: u32 = 14;

    /// From the code that travels; `None` past 512 KiB.
    pub const fn new(code: u8) -> Option<Self> {
        if code <= Self::LARGEST.0 { Some(Self(code)) } else { None }
    }

    /// From the size; `None` if it is not one of the six.
    pub const fn of_bytes(bytes: u32) -> Option<Self> {
        if !bytes.is_power_of_two() || bytes < Self::SMALLEST.bytes() {
            return None;
        }
        Self::new((bytes.trailing_zeros() - Self::SHIFT) as u8)
    }

    /// The code as it travels.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// The size.
    pub const fn bytes(self) -> u32 {
        1 << (self.0 as u32 + Self::SHIFT)
    }
}

macro_rules! shown_in_hex {
    ($($name:ident $digits:literal)*) => {
        $(impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!("{:#0", $digits, "x}"), self.0)
            }
        })*
    };
}

shown_in_hex!(PeerId 18 Gid 18 DmbToken 18 RmbAddress 18 Rkey 10 AlertToken 10 LinkId 10 Qpn 8 Psn 8);

impl fmt::Display for RoceGid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}
