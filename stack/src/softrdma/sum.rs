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

    /// Adds one or two words of a header. Not behind an odd number of bytes.
    #[inline]
    pub(super) fn add_words(&mut self, words: [u8; 4]) {
        debug_assert!(!self.is_odd);
        // No header has so many that this could overflow before the next fold.
        self.total += u64::from(u32::from_ne_bytes(words));
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

/// The sum of the whole 16-bit words of `bytes`, below 2^36: eight bytes at a time with the carry, in four lanes that do not
/// wait for each other.
#[inline]
fn words(bytes: &[u8]) -> u64 {
    let mut lanes = [0_u64; 4];
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
            *lane = add_with_carry(*lane, *word);
        }
    }
    let (words, rest) = rest.as_chunks::<8>();
    for (lane, word) in lanes.iter_mut().zip(words) {
        *lane = add_with_carry(*lane, *word);
    }
    let mut total = lanes.iter().map(|lane| (lane & 0xffff_ffff) + (lane >> 32)).sum();
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

#[inline]
fn add_with_carry(total: u64, word: [u8; 8]) -> u64 {
    let (sum, carry) = total.overflowing_add(u64::from_ne_bytes(word));
    sum + u64::from(carry)
}
