//! What the fuzz targets share: settings in front of a stream, and the stream cut by them.

#![forbid(unsafe_code)]

pub mod arena;
pub mod stream;

/// Longest stream of FPDUs in a run.
pub const MAX_STREAM: usize = 16 << 10;

/// Lengths of pieces in front of a stream.
pub const CUTS: usize = 8;

/// The bytes that a fuzzer gives, taken from the front. Where there are none left, zeros follow.
#[derive(Clone, Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&byte, rest)) => {
                self.0 = rest;
                byte
            }
            None => 0,
        }
    }

    /// The next two bytes as a number, most significant first.
    pub fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// Whether the next byte is odd.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// The next [`CUTS`] bytes.
    pub fn cuts(&mut self) -> [u8; CUTS] {
        std::array::from_fn(|_| self.byte())
    }
}

/// Ends of the pieces into which a stream of `length` bytes is cut: the lengths of `cuts` over and over; the last is always
/// `length`. Zeros are no cut.
pub fn ends(length: usize, cuts: &[u8; CUTS]) -> Vec<usize> {
    let mut ends = Vec::new();
    if cuts.iter().any(|&cut| cut > 0) {
        let mut end = 0;
        for &cut in cuts.iter().filter(|&&cut| cut > 0).cycle() {
            end += usize::from(cut);
            if end >= length {
                break;
            }
            ends.push(end);
        }
    }
    ends.push(length);
    ends
}

/// `bytes` as they lie in two packets.
pub fn halves(bytes: &[u8]) -> [&[u8]; 2] {
    let (left, right) = bytes.split_at(bytes.len() / 2);
    [left, right]
}
