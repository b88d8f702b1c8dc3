use super::message::{Kind, Message, Tally};
use super::passes::Passes;
use super::*;

struct Parted(Vec<Vec<u8>>);

impl Packet for Parted {
    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }
}

/// Word by word, as RFC 1071 says it.
fn plain_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |byte| u32::from(*byte));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[test]
fn the_fast_checksum_is_the_plain_one_at_every_length() {
    let bytes: Vec<u8> = (0..10_000u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for length in (0..300).chain([1499, 1500, 8999, 9000, 10_000]) {
        assert_eq!(internet_checksum(&bytes[..length]), plain_checksum(&bytes[..length]), "{length} bytes");
    }
    assert_eq!(internet_checksum(&[0xff; 64]), 0xffff);
    // The example of RFC 1071 §3.
    assert_eq!(internet_checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
}

#[test]
fn what_is_written_into_a_frame_is_read_from_it() {
    let tally = Tally { total: 5, frames: 4, bytes: 1 << 40, nanoseconds: u64::MAX };
    let message = Message { kind: Kind::Result, sequence: 77, tally };
    let mut frame = vec![0; SMALLEST_FRAME];
    message.write([2, 0, 0, 0, 0, 1], &mut frame);
    assert_eq!(Message::read(&Parted(vec![frame.clone()])), Some(message));
    frame[12] ^= 1;
    assert_eq!(Message::read(&Parted(vec![frame.clone()])), None, "another protocol's frame");
    frame[12] ^= 1;
    frame[14] = 0;
    assert_eq!(Message::read(&Parted(vec![frame.clone()])), None, "an unknown kind");
    assert_eq!(Message::read(&Parted(vec![frame[..40].to_vec()])), None, "a short frame");
}

#[test]
fn passes_see_every_byte_of_a_chained_packet() {
    let touch = Touch { memory_bytes: 100, crc: true, checksum: false };
    let whole: Vec<u8> = (0..64u8).collect();
    let cut = Parted(vec![whole[..10].to_vec(), whole[10..40].to_vec(), whole[40..].to_vec()]);
    let uncut = Parted(vec![whole.clone()]);
    assert_eq!(Passes::new(touch).run(&cut), Passes::new(touch).run(&uncut));
    let mut changed = whole;
    changed[50] ^= 0x10;
    let mut passes = Passes::new(touch);
    assert_ne!(passes.run(&Parted(vec![changed])), Passes::new(touch).run(&uncut));
    // Twice 64 bytes go around the end of 100.
    passes.run(&uncut);
}
