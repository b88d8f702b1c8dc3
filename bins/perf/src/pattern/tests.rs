use std::convert::Infallible;

use super::*;

fn message(pattern: Pattern, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; length as usize];
    let fill = pattern.fill(length, |offset, piece| {
        bytes[offset as usize..][..piece.len()].copy_from_slice(piece);
        Ok::<_, Infallible>(())
    });
    fill.unwrap();
    bytes
}

fn compare(pattern: Pattern, bytes: &[u8]) -> Option<Mismatch> {
    let compared = pattern.compare(bytes.len() as u64, |offset, piece| {
        piece.copy_from_slice(&bytes[offset as usize..][..piece.len()]);
        Ok::<_, Infallible>(())
    });
    compared.unwrap()
}

#[test]
fn what_was_filled_compares_equal_at_every_length() {
    for length in (1..200).chain([CHUNK as u64 - 1, CHUNK as u64, CHUNK as u64 + 9, 3 * CHUNK as u64]) {
        let pattern = Pattern::new(7, length);
        assert_eq!(compare(pattern, &message(pattern, length)), None, "length {length}");
    }
}

#[test]
fn a_single_wrong_byte_is_found_where_it_is() {
    let pattern = Pattern::new(7, 1);
    for offset in [0, 7, 8, CHUNK - 1, CHUNK, 2 * CHUNK + 4] {
        let mut bytes = message(pattern, 2 * CHUNK as u64 + 5);
        let expected = bytes[offset];
        bytes[offset] ^= 0x40;
        let mismatch = Mismatch { offset: offset as u64, expected, found: expected ^ 0x40, wrong_bytes: 1 };
        assert_eq!(compare(pattern, &bytes), Some(mismatch));
    }
}

#[test]
fn data_of_another_message_another_seed_or_another_place_is_found_out() {
    let bytes = message(Pattern::new(7, 5), 4096);
    assert!(compare(Pattern::new(7, 3), &bytes).is_some());
    assert!(compare(Pattern::new(8, 5), &bytes).is_some());
    let mut moved = bytes.clone();
    moved.rotate_left(8);
    assert!(compare(Pattern::new(7, 5), &moved).unwrap().wrong_bytes > 3000);
}

#[test]
fn every_byte_differs_from_that_of_the_message_before() {
    for number in 0..1000 {
        let (before, after) = (Pattern::new(7, number), Pattern::new(7, number + 1));
        for offset in 0..16 {
            assert_ne!(before.byte(offset), after.byte(offset), "message {number} offset {offset}");
        }
    }
}

#[test]
fn a_byte_alone_is_the_byte_of_the_whole_message() {
    let pattern = Pattern::new(1, 2);
    let bytes = message(pattern, 100);
    for offset in 0..100 {
        assert_eq!(pattern.byte(offset), bytes[offset as usize]);
    }
}
