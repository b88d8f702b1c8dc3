//! The two ends of a connection, quick to read from a packet and to look up.

use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Both addresses and ports of a connection, as this host sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuple {
    /// IPv4 addresses as IPv6 has them mapped: no packet carries those, so they meet no others.
    local: u128,
    remote: u128,
    /// Ours in the upper half, the peer's in the lower.
    ports: u32,
}

impl Tuple {
    pub(super) fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            local: address_bits(local.ip()),
            remote: address_bits(remote.ip()),
            ports: u32::from(local.port()) << 16 | u32::from(remote.port()),
        }
    }

    /// The tuple of a received IPv4 packet.
    #[inline]
    pub(super) const fn received_ipv4(source: u32, destination: u32, ports: [u8; 4]) -> Self {
        const MAPPED: u128 = 0xffff << 32;
        Self { local: MAPPED | destination as u128, remote: MAPPED | source as u128, ports: swapped(ports) }
    }

    /// The tuple of a received IPv6 packet.
    pub(super) const fn received_ipv6(source: u128, destination: u128, ports: [u8; 4]) -> Self {
        Self { local: destination, remote: source, ports: swapped(ports) }
    }

    pub(super) fn local(&self) -> SocketAddr {
        SocketAddr::new(address(self.local), (self.ports >> 16) as u16)
    }

    pub(super) fn remote(&self) -> SocketAddr {
        SocketAddr::new(address(self.remote), self.ports as u16)
    }
}

const fn swapped(ports: [u8; 4]) -> u32 {
    u32::from_be_bytes(ports).rotate_left(16)
}

impl Hash for Tuple {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.local);
        state.write_u128(self.remote);
        state.write_u32(self.ports);
    }
}

fn address_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(bits: u128) -> IpAddr {
    let address = Ipv6Addr::from_bits(bits);
    address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
}

/// Makes numbers of tuples that nobody else can compute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Secret(pub(super) [u64; 2]);

impl Secret {
    /// A number for `tuple` and a [`Purpose`], perhaps with something besides: of two purposes one says nothing about the other.
    pub(super) fn number(self, tuple: &Tuple, purpose: impl Hash) -> u32 {
        let mut hasher = DefaultHasher::new();
        (self.0, purpose).hash(&mut hasher);
        tuple.hash(&mut hasher);
        hasher.finish() as u32
    }
}

/// What a number of a [`Secret`] is for.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) enum Purpose {
    /// RFC 6528 §3: where the sequence numbers of a connection begin.
    InitialSequence,
    /// RFC 7323 §7.1: where its clock begins.
    Clock,
    /// Where its cookies begin.
    CookieOrigin,
    /// What makes a cookie ours.
    Proof,
}

/// Makes hashers of tuples. The key keeps peers from guessing which tuples collide.
#[derive(Clone, Copy, Debug)]
pub(super) struct TupleHash {
    pub(super) key: [u64; 2],
}

impl BuildHasher for TupleHash {
    type Hasher = TupleHasher;

    fn build_hasher(&self) -> TupleHasher {
        TupleHasher { state: self.key[0], multiplier: self.key[1] | 1 }
    }
}

/// Folded multiplication by a secret: a few cycles for each word, where the standard library's hash takes tens.
pub(super) struct TupleHasher {
    state: u64,
    multiplier: u64,
}

impl TupleHasher {
    #[inline]
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.multiplier);
        self.state = (product as u64) ^ (product >> 64) as u64 ^ self.state.rotate_left(23);
    }
}

impl Hasher for TupleHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.mix(u64::from(*byte)));
    }

    fn write_u32(&mut self, word: u32) {
        self.mix(u64::from(word));
    }

    fn write_u128(&mut self, word: u128) {
        self.mix(word as u64);
        self.mix((word >> 64) as u64);
    }

    fn finish(&self) -> u64 {
        self.state
    }
}
