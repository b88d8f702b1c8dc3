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
        if let Some(last) = bytes.chunks_exact(2).remainder().first() {
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

/// The sum of the whole 16-bit words of `bytes`: 32 bits at a time into lanes that cannot overflow below 2^32 words.
#[inline]
fn words(bytes: &[u8]) -> u64 {
    if bytes.len() < 32 {
        return words_of_rest(bytes);
    }
    let mut lanes = [0_u64; 8];
    let mut blocks = bytes.chunks_exact(32);
    for block in &mut blocks {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
            *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    lanes.iter().sum::<u64>() + words_of_rest(blocks.remainder())
}

/// As [`words`], of less than 32 bytes.
#[inline]
fn words_of_rest(bytes: &[u8]) -> u64 {
    let mut total = 0;
    let mut blocks = bytes.chunks_exact(4);
    for word in &mut blocks {
        total += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    }
    if let [a, b] | [a, b, _] = *blocks.remainder() {
        total += u64::from(u16::from_ne_bytes([a, b]));
    }
    total
}
