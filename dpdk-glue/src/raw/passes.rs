//! The passes over received data that nobody who moves data can save.

use crc_fast::{CrcAlgorithm, Digest};
use softrdma_stack::port::Packet;

/// What is done with each received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Memory that frames are copied into, one behind the other and then from the start again, in bytes: as much as the
    /// application under comparison receives into.
    pub memory_bytes: usize,
    /// Whether CRC32C is computed over the frame (RFC 5044 §4.4).
    pub crc: bool,
    /// Whether the Internet checksum is computed over the frame (RFC 1071).
    pub checksum: bool,
}

/// The passes and the memory they end in.
pub(super) struct Passes {
    touch: Touch,
    memory: Vec<u8>,
    filled: usize,
}

impl Passes {
    pub(super) fn new(touch: Touch) -> Self {
        // Written once, so that no page is touched for the first time while measuring.
        Self { touch, memory: vec![0xa5; touch.memory_bytes.max(1)], filled: 0 }
    }

    /// Reads the frame as a TCP and an MPA receiver would, then places it. The result keeps the work from being left out.
    #[inline]
    pub(super) fn run(&mut self, packet: &impl Packet) -> u64 {
        let mut seen = 0;
        if self.touch.checksum {
            seen += packet.parts().map(|part| u64::from(internet_checksum(part))).sum::<u64>();
        }
        if self.touch.crc {
            seen += crc32c(packet);
        }
        for part in packet.parts() {
            self.place(part);
        }
        seen + u64::from(self.memory[self.filled.saturating_sub(1)])
    }

    fn place(&mut self, mut part: &[u8]) {
        while !part.is_empty() {
            if self.filled == self.memory.len() {
                self.filled = 0;
            }
            let length = part.len().min(self.memory.len() - self.filled);
            let (now, later) = part.split_at(length);
            self.memory[self.filled..self.filled + length].copy_from_slice(now);
            self.filled += length;
            part = later;
        }
    }
}

fn crc32c(packet: &impl Packet) -> u64 {
    let mut parts = packet.parts();
    let (Some(first), second) = (parts.next(), parts.next()) else { return 0 };
    let Some(second) = second else { return crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, first) };
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(first);
    digest.update(second);
    parts.for_each(|part| digest.update(part));
    digest.finalize()
}

/// The Internet checksum of `bytes` (RFC 1071 §1), not complemented.
pub fn internet_checksum(bytes: &[u8]) -> u16 {
    // One's-complement sums may be taken in any word size and folded afterwards (RFC 1071 §2): 32-bit words into 64-bit
    // sums never overflow at any frame's length, and several sums side by side fill the vector unit.
    const LANES: usize = 8;
    let mut lanes = [0u64; LANES];
    let mut chunks = bytes.chunks_exact(4 * LANES);
    for chunk in &mut chunks {
        for (lane, word) in lanes.iter_mut().zip(chunk.chunks_exact(4)) {
            *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    let mut sum: u64 = lanes.iter().sum();
    let mut pairs = chunks.remainder().chunks_exact(2);
    for pair in &mut pairs {
        sum += u64::from(u16::from_ne_bytes([pair[0], pair[1]]));
    }
    // RFC 1071 §4.1: an odd byte at the end counts as if a zero followed.
    if let [last] = pairs.remainder() {
        sum += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Summed as the machine has it; the sum of swapped words is the swapped sum (RFC 1071 §2).
    u16::from_be(sum as u16)
}
