//! The checksum of IP and TCP (RFC 1071): a sum in ones' complement, taken many bytes at a time.

/// A sum of bytes, as 16-bit words.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    /// In the machine's own byte order, which the sum does not mind (RFC 1071 §2 (B)).
    total: u64,
    /// An odd number of bytes was added.
    is_odd: bool,
}

impl Sum {
    /// Adds what follows.
    #[inline]
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        if self.is_odd
            && let [first, rest @ ..] = bytes
        {
            self.total += u64::from(u16::from_ne_bytes([0, *first]));
            self.is_odd = false;
            bytes = rest;
        }
        self.total += words(bytes);
        if bytes.len() % 2 == 1
            && let Some(last) = bytes.last()
        {
            self.total += u64::from(u16::from_ne_bytes([*last, 0]));
            self.is_odd = true;
        }
        // Room for the next: a frame adds at most some 2^30.
        self.total = (self.total & 0xffff_ffff) + (self.total >> 32);
    }

    /// The sum so far, in 16 bits.
    #[inline]
    pub(super) fn fold(self) -> u16 {
        let mut sum = self.total;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::from_be(sum as u16)
    }
}

/// From this length on the sum is taken in many lanes.
const LONG: usize = 256;

/// The sum of the whole 16-bit words of `bytes`, below 2^35.
#[inline]
fn words(bytes: &[u8]) -> u64 {
    if bytes.len() >= LONG { words_of_many(bytes) } else { words_of_few(bytes) }
}

/// Eight bytes at a time, with the carry.
#[inline]
fn words_of_few(bytes: &[u8]) -> u64 {
    let mut total = 0_u64;
    let (blocks, rest) = bytes.as_chunks::<8>();
    for block in blocks {
        let (sum, carry) = total.overflowing_add(u64::from_ne_bytes(*block));
        total = sum + u64::from(carry);
    }
    // 32 bits and 33: room for what is left.
    let mut total = (total & 0xffff_ffff) + (total >> 32);
    let mut rest = rest;
    if let Some((word, behind)) = rest.split_first_chunk::<4>() {
        total += u64::from(u32::from_ne_bytes(*word));
        rest = behind;
    }
    if let Some(word) = rest.first_chunk::<2>() {
        total += u64::from(u16::from_ne_bytes(*word));
    }
    total
}

/// 32 bits at a time into lanes that cannot overflow below 2^32 words.
fn words_of_many(bytes: &[u8]) -> u64 {
    let mut lanes = [0_u64; 8];
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<4>().0) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let total: u64 = lanes.iter().sum();
    (total & 0xffff_ffff) + (total >> 32) + words_of_few(rest)
}
