//! Sizes as people write them: `64`, `8K`, `1,64,1M`, `8..1G`.

use std::fmt;
use std::str::FromStr;

/// The largest message that a size may ask for, in bytes (2 GiB less one would still fit a DDP length; a power of two sweeps better).
pub const MAX_SIZE: u64 = 1 << 30;

/// Most sizes in one list.
pub const MAX_SIZES: usize = 256;

/// Why a text is no size or no list of sizes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not a number with an optional suffix.
    #[error(
        "'{0}' is no size: write a number of bytes with an optional K, M or G (powers of 1024), as in 64, 8K or 1M"
    )]
    NotASize(String),
    /// Zero, or more than [`MAX_SIZE`].
    #[error("size '{0}' is out of range: 1 byte to 1G is accepted")]
    OutOfRange(String),
    /// A sweep that runs backwards.
    #[error(
        "the sweep '{0}' is empty: its first size is larger than its last, write the smaller one first, as in 8..1G"
    )]
    EmptySweep(String),
    /// More than [`MAX_SIZES`] sizes.
    #[error("{0} sizes are too many: at most {MAX_SIZES} are measured in one run")]
    TooMany(usize),
}

/// Bytes from `64`, `8K`, `1M`, `1G` (powers of 1024, either case, `KiB` and `KB` mean the same). Zero and more than
/// [`MAX_SIZE`] are refused.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let bytes = parse_bytes(text)?;
    if bytes == 0 || bytes > MAX_SIZE {
        return Err(SizeError::OutOfRange(text.to_owned()));
    }
    Ok(bytes)
}

/// Bytes as [`parse_size`] reads them, without its upper limit: for amounts of memory.
pub fn parse_bytes(text: &str) -> Result<u64, SizeError> {
    let error = || SizeError::NotASize(text.to_owned());
    let trimmed = text.trim();
    let digits = trimmed.find(|character: char| !character.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, suffix) = trimmed.split_at(digits);
    let number: u64 = number.parse().map_err(|_| error())?;
    let shift = match suffix.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(error()),
    };
    number.checked_mul(1 << shift).ok_or_else(|| SizeError::OutOfRange(text.to_owned()))
}

/// Sizes in the order they were asked for: one, a list, a sweep of powers of two (`8..1G`, both ends included), or a
/// list of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizeList(Vec<u64>);

impl SizeList {
    /// The sizes in bytes, at least one.
    pub fn as_slice(&self) -> &[u64] {
        &self.0
    }
}

impl FromStr for SizeList {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let mut sizes = Vec::new();
        for part in text.split(',') {
            match part.split_once("..") {
                None => sizes.push(parse_size(part)?),
                Some((first, last)) => sweep(part, parse_size(first)?, parse_size(last)?, &mut sizes)?,
            }
        }
        if sizes.len() > MAX_SIZES {
            return Err(SizeError::TooMany(sizes.len()));
        }
        Ok(Self(sizes))
    }
}

/// `first`, the powers of two between the two, and `last`.
fn sweep(text: &str, first: u64, last: u64, sizes: &mut Vec<u64>) -> Result<(), SizeError> {
    if first > last {
        return Err(SizeError::EmptySweep(text.to_owned()));
    }
    sizes.push(first);
    let mut size = (first + 1).next_power_of_two();
    while size < last {
        sizes.push(size);
        size *= 2;
    }
    if last > first {
        sizes.push(last);
    }
    Ok(())
}

/// Shows a number of bytes as [`parse_size`] reads it: `64`, `8K`, `1M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shift, suffix) = match self.0 {
            0 => (0, ""),
            bytes if bytes % (1 << 30) == 0 => (30, "G"),
            bytes if bytes % (1 << 20) == 0 => (20, "M"),
            bytes if bytes % (1 << 10) == 0 => (10, "K"),
            _ => (0, ""),
        };
        formatter.pad(&format!("{}{suffix}", self.0 >> shift))
    }
}

#[cfg(test)]
#[path = "size/tests.rs"]
mod tests;
