//! The bytes that verified runs move. Each depends on the seed of the run, the number of the message and the offset within it,
//! so that data of another message, of another place, or none at all is found out.

/// Bytes of one call to fill or compare, at a time.
const CHUNK: usize = 16 << 10;

/// The bytes of one message.
///
/// A message is a row of little-endian 64-bit words. All bytes of a word have the parity of the message's number in their
/// lowest bit, so every byte differs from the one of the message before: that is what makes the arrival of a Write visible in
/// its last byte. The other bits come from a mixing function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    key: u64,
    parity: u64,
}

const LOWEST_BITS: u64 = 0x0101_0101_0101_0101;

impl Pattern {
    /// The bytes of message `number` of the stream that `seed` names.
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        Self { key: mix(seed ^ mix(number)), parity: (number & 1) * LOWEST_BITS }
    }

    /// The eight bytes at offset `index * 8`.
    pub(crate) fn word(&self, index: u64) -> u64 {
        (mix(self.key.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15))) & !LOWEST_BITS) | self.parity
    }

    /// The byte at `offset`.
    pub(crate) fn byte(&self, offset: u64) -> u8 {
        self.word(offset / 8).to_le_bytes()[(offset % 8) as usize]
    }

    /// Writes the message's `length` bytes through `write(offset, bytes)`, in pieces of bounded size.
    pub(crate) fn fill<E>(&self, length: u64, mut write: impl FnMut(u64, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut chunk = [0; CHUNK];
        let mut offset = 0;
        while offset < length {
            let piece = &mut chunk[..CHUNK.min((length - offset) as usize)];
            self.bytes(offset, piece);
            write(offset, piece)?;
            offset += piece.len() as u64;
        }
        Ok(())
    }

    /// Reads `length` bytes through `read(offset, bytes)` and gives the first that is wrong, and how many are.
    pub(crate) fn compare<E>(
        &self,
        length: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Option<Mismatch>, E> {
        let (mut expected, mut found) = ([0; CHUNK], [0; CHUNK]);
        let mut mismatch: Option<Mismatch> = None;
        let mut offset = 0;
        while offset < length {
            let piece = CHUNK.min((length - offset) as usize);
            self.bytes(offset, &mut expected[..piece]);
            read(offset, &mut found[..piece])?;
            if expected[..piece] != found[..piece] {
                for index in (0..piece).filter(|index| expected[*index] != found[*index]) {
                    let first = Mismatch {
                        offset: offset + index as u64,
                        expected: expected[index],
                        found: found[index],
                        wrong_bytes: 0,
                    };
                    mismatch.get_or_insert(first).wrong_bytes += 1;
                }
            }
            offset += piece as u64;
        }
        Ok(mismatch)
    }

    /// The bytes from `offset`, a multiple of eight.
    fn bytes(&self, offset: u64, out: &mut [u8]) {
        for (index, bytes) in (offset / 8..).zip(out.chunks_mut(8)) {
            bytes.copy_from_slice(&self.word(index).to_le_bytes()[..bytes.len()]);
        }
    }
}

/// Where a message is not what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// Offset of the first wrong byte.
    pub(crate) offset: u64,
    /// What should be there.
    pub(crate) expected: u8,
    /// What is there.
    pub(crate) found: u8,
    /// Wrong bytes in all.
    pub(crate) wrong_bytes: u64,
}

/// A bijection of 64-bit numbers in which every bit of the input reaches every bit of the output (an xor-shift-multiply
/// finaliser).
pub(crate) fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
#[path = "pattern/tests.rs"]
mod tests;
