//! The TCP option with which both ends of a connection say that they have SMC (RFC 7609 §A.1).

#[cfg(test)]
mod tests;

/// The option as it stands in a SYN and in the SYN-ACK that answers it: experimental kind 254, and "SMCR" in EBCDIC.
pub const OPTION: [u8; 6] = [KIND, 6, 0xe2, 0xd4, 0xc3, 0xd9];

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
/// RFC 6994: shared by experiments, told apart by what follows the length. TCP Fast Open is another one.
const KIND: u8 = 254;

/// Whether SMC's option is among `options`, the bytes between a TCP header and its data. Where they make no sense, nothing
/// further is read.
pub fn is_among(mut options: &[u8]) -> bool {
    loop {
        let skipped = match *options {
            [] | [END, ..] => return false,
            [NO_OPERATION, ..] => 1,
            [_, length, ..] if length >= 2 => usize::from(length),
            _ => return false,
        };
        let Some((option, rest)) = options.split_at_checked(skipped) else { return false };
        // All 32 bits, and the length: other experiments use this kind too.
        if option == OPTION {
            return true;
        }
        options = rest;
    }
}
