use super::*;

/// The FPDU of RFC 5044 figure 5 without its marker.
fn example(message: u8) -> Vec<u8> {
    let mut fpdu = vec![0x00, 0x2a, 0x41, 0x43];
    fpdu.extend([0; 8]);
    fpdu.extend([0, 0, 0, message, 0, 0, 0, 0]);
    fpdu.extend([0; 24 + CRC_FIELD]);
    fpdu
}

#[test]
fn first_example_of_the_standard_has_its_crc() {
    let markers = Markers { origin: 1000 };
    let plain = example(1);
    let mut out = vec![0xee; markers.length(1000, plain.len())];
    markers.insert(1000, &plain, &mut out, true);
    assert_eq!(out.len(), 0x34);
    assert_eq!(&out[..6], &[0, 0, 0, 0, 0x00, 0x2a]);
    assert_eq!(&out[0x30..], &[0x52, 0x23, 0x99, 0x83], "RFC 5044 figure 5");
}

#[test]
fn second_example_of_the_standard_has_its_marker_and_crc() {
    let markers = Markers { origin: 1000 };
    let start = 1000 + 0x1ec;
    let plain = example(2);
    let mut out = vec![0xee; markers.length(start, plain.len())];
    markers.insert(start, &plain, &mut out, true);
    assert_eq!(out.len(), 0x34);
    assert_eq!(&out[0x14..0x18], &[0, 0, 0, 0x14]);
    assert_eq!(&out[0x30..], &[0x84, 0x92, 0x58, 0x98], "RFC 5044 figure 6");
}

#[test]
fn marked_length_agrees_with_walking_the_stream() {
    let markers = Markers { origin: 24 };
    for start in (24..24 + 1100).step_by(4) {
        for plain in (8..3000).step_by(4) {
            let mut position = start;
            let mut left = plain;
            while left > 0 {
                position += if (position - 24) % 512 == 0 { 8 } else { 4 };
                left -= 4;
            }
            assert_eq!(markers.length(start, plain) as u64, position - start, "start {start}, plain {plain}");
        }
    }
}

#[test]
fn maximum_ulpdu_fits_the_segment_and_never_shrinks_below_128() {
    for size in 0..70_000 {
        for marked in [false, true] {
            let most = mulpdu(size, marked);
            assert!(most >= MIN_MULPDU);
            if most > MIN_MULPDU {
                let markers = Markers { origin: 0 };
                let plain = fpdu_length(most);
                assert!(if marked { markers.length(0, plain) } else { plain } <= size, "segment size {size}");
            }
        }
    }
    assert_eq!(mulpdu(1460, false), 1454);
    assert_eq!(mulpdu(1460, true), 1442);
}

#[test]
fn crc_over_slices_equals_crc_over_the_whole() {
    let bytes: Vec<u8> = (0..999u32).map(|i| (i * 7) as u8).collect();
    for cut in [0, 1, 7, 500, 998, 999] {
        let (a, b) = bytes.split_at(cut);
        assert_eq!(crc32c_of([a, b].into_iter()), crc32c(&bytes));
    }
    assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value of CRC-32C");
}

#[test]
fn the_largest_fpdu_of_a_peer_is_taken() {
    use crate::testing::frames::tagged;
    use crate::testing::{Endpoint, agreed};
    use crate::{Role, wire::RdmapOpcode};

    let mut endpoint = Endpoint::new(&agreed(Role::Initiator));
    let stag = endpoint.memory.register(0, 1 << 16);
    let payload = vec![0x3c; usize::from(u16::MAX) - 14];
    let mut bytes = tagged(RdmapOpcode::WRITE, true, stag, 0, &payload).fpdu();
    assert_eq!(bytes.len(), MAX_RECEIVED_FPDU);
    assert_eq!(endpoint.receive(&mut bytes), Ok(MAX_RECEIVED_FPDU));
    assert_eq!(endpoint.memory.read(stag, 0, payload.len()), payload);
}
