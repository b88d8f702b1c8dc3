//! What a seed decides before the run.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use softrdma_stack::memory_port::Impairments;

/// The parameters of one run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the wire does.
    pub impairments: Impairments,
    /// Connections between the two hosts.
    pub connections: usize,
    /// Requests that each end posts.
    pub requests: u32,
    /// Longest message.
    pub longest: usize,
    /// CRC asked for.
    pub crc: bool,
    /// IRD and ORD of both ends.
    pub reads: u16,
    /// Depth of the send and receive queues.
    pub depth: u32,
    /// Buffers of the TCP sockets.
    pub socket_buffer_bytes: usize,
    /// Sent along when connecting.
    pub private_data: Vec<u8>,
    /// How eagerly receives are posted, as a probability a step.
    pub receive_eagerness: f64,
}

impl Plan {
    pub(super) fn new(rng: &mut StdRng) -> Self {
        let bad = rng.random_bool(0.7);
        let mut some = |most: f64| if bad && rng.random_bool(0.6) { rng.random_range(0.0..most) } else { 0.0 };
        let (loss, duplicate, reorder, corrupt) = (some(0.04), some(0.05), some(0.08), some(0.02));
        let corrupts = corrupt > 0.0;
        let impairments = Impairments {
            loss,
            duplicate,
            reorder,
            corrupt,
            delay: Duration::from_micros(rng.random_range(1..3000)),
            jitter: Duration::from_micros(if bad { rng.random_range(0..200) } else { 0 }),
            mtu: *[576, 1500, 1500, 9000].get(rng.random_range(0..4)).unwrap_or(&1500),
            cut: if rng.random_bool(0.3) { 0.3 } else { 0.0 },
            ..Impairments::default()
        };
        Self {
            impairments,
            connections: rng.random_range(1..=3),
            requests: rng.random_range(4..40),
            longest: *[64, 1000, 5000, 40_000].get(rng.random_range(0..4)).unwrap_or(&1000),
            // TCP's checksum misses some corruption; without CRC it would reach memory, rightly.
            crc: corrupts || rng.random_bool(0.8),
            reads: rng.random_range(1..8),
            depth: rng.random_range(2..20),
            socket_buffer_bytes: *[48 << 10, 64 << 10, 256 << 10].get(rng.random_range(0..3)).unwrap_or(&65536),
            private_data: (0..rng.random_range(0..100)).map(|_| rng.random()).collect(),
            receive_eagerness: rng.random_range(0.05..1.0),
        }
    }
}
