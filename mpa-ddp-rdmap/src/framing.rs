//! MPA framing: lengths, padding, CRC and markers of FPDUs (RFC 5044 §4).

use crc_fast::{CrcAlgorithm, Digest};

/// Bytes of the ULPDU length field.
pub(crate) const LENGTH_FIELD: usize = 2;

/// Bytes of the CRC field.
pub(crate) const CRC_FIELD: usize = 4;

/// Bytes of a marker (RFC 5044 §4.2).
pub(crate) const MARKER: usize = 4;

/// Distance from one marker to the next, in bytes of the stream, markers included (RFC 5044 §4.3).
pub(crate) const MARKER_INTERVAL: usize = 512;

/// The maximum ULPDU never shrinks below this (RFC 5044 §4.5).
pub const MIN_MULPDU: usize = 128;

/// Largest FPDU we make: its length, and the distance from its start to a marker in it, fit 16 bits.
pub const MAX_FPDU: usize = 65_532;

/// Largest FPDU that a peer can send us: an engine must be able to offer this many bytes at once, or such an FPDU never gets
/// whole.
pub const MAX_RECEIVED_FPDU: usize = fpdu_length(u16::MAX as usize);

/// Bytes of an FPDU whose ULPDU has `ulpdu` bytes, without markers.
pub(crate) const fn fpdu_length(ulpdu: usize) -> usize {
    (LENGTH_FIELD + ulpdu).next_multiple_of(4) + CRC_FIELD
}

/// Maximum ULPDU for a segment size (RFC 5044 §4.5).
pub(crate) fn mulpdu(segment_size: usize, markers: bool) -> usize {
    let size = segment_size.min(MAX_FPDU);
    let for_markers = if markers { MARKER * size.div_ceil(MARKER_INTERVAL) } else { 0 };
    size.saturating_sub(LENGTH_FIELD + CRC_FIELD + for_markers + size % 4).max(MIN_MULPDU)
}

/// CRC32c of one slice.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// CRC32c of several slices, one behind the other.
pub(crate) fn crc32c_of<'b>(slices: impl Iterator<Item = &'b [u8]>) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    slices.for_each(|slice| digest.update(slice));
    digest.finalize() as u32
}

/// Where markers fall in an outgoing stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Markers {
    /// Offset of the first FPDU in the stream: a marker stands right there (RFC 5044 §4.3).
    pub(crate) origin: u64,
}

impl Markers {
    /// Bytes from `start` to the next marker; 0 if one stands at `start`.
    fn distance(self, start: u64) -> usize {
        let interval = MARKER_INTERVAL as u64;
        ((interval - (start - self.origin) % interval) % interval) as usize
    }

    /// Bytes in the stream of an FPDU that begins at `start` and has `plain` bytes without markers. A marker right behind it
    /// belongs to the next FPDU.
    pub(crate) fn length(self, start: u64, plain: usize) -> usize {
        let before_first = self.distance(start);
        if plain <= before_first && before_first > 0 {
            return plain;
        }
        plain + MARKER * (plain - before_first).div_ceil(MARKER_INTERVAL - MARKER)
    }

    /// Spreads the FPDU `plain`, which begins at `start`, into `out`, inserts the markers and, if `crc`, the CRC.
    pub(crate) fn insert(self, start: u64, plain: &[u8], out: &mut [u8], crc: bool) {
        let (mut from, mut to) = (0, 0);
        let mut next = self.distance(start);
        // RFC 5044 §4.3: a marker in front of the FPDU is part of it, and says 0; others say how far back its length field is.
        let header = if next == 0 { MARKER } else { 0 };
        while from < plain.len() {
            if to == next {
                let back = to.saturating_sub(header) as u16;
                out[to..to + 2].fill(0);
                out[to + 2..to + MARKER].copy_from_slice(&back.to_be_bytes());
                to += MARKER;
                next += MARKER_INTERVAL;
            }
            let count = (next - to).min(plain.len() - from);
            out[to..to + count].copy_from_slice(&plain[from..from + count]);
            from += count;
            to += count;
        }
        let (covered, field) = out[..to].split_at_mut(to - CRC_FIELD);
        field.copy_from_slice(&if crc { crc32c(covered).to_le_bytes() } else { [0; CRC_FIELD] });
    }
}

#[cfg(test)]
mod tests;
