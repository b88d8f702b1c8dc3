//! Where the option is seen, and where not.

use proptest::prelude::*;

use super::{OPTION, is_among};

/// Maximum segment size, SACK permitted, time stamps, window scale: what Linux sends.
const USUAL: [u8; 20] = [2, 4, 0xff, 0xd7, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];

fn after(before: &[u8], option: &[u8]) -> Vec<u8> {
    [before, option].concat()
}

#[test]
fn the_option_is_found_wherever_it_stands() {
    assert_eq!(OPTION, [254, 6, 0xe2, 0xd4, 0xc3, 0xd9]);
    assert!(is_among(&OPTION));
    assert!(is_among(&after(&USUAL, &OPTION)));
    assert!(is_among(&after(&after(&[1, 1], &OPTION), &USUAL)));
}

#[test]
fn what_only_resembles_it_is_not_taken_for_it() {
    let fast_open = [254, 4, 0xf9, 0x89];
    let other_experiment = [254, 6, 0xe2, 0xd4, 0xc3, 0xc4];
    let with_more = [254, 7, 0xe2, 0xd4, 0xc3, 0xd9, 0];
    let other_kind = [253, 6, 0xe2, 0xd4, 0xc3, 0xd9];
    for options in [&USUAL[..], &fast_open, &other_experiment, &with_more, &other_kind, &OPTION[..5], &[]] {
        assert!(!is_among(options), "{options:02x?}");
    }
    // Inside of another option's data it is no option.
    assert!(!is_among(&after(&[30, 8], &OPTION)));
}

#[test]
fn nothing_is_read_behind_the_end_or_nonsense() {
    assert!(!is_among(&after(&[0], &OPTION)));
    assert!(!is_among(&after(&[2, 0], &OPTION)));
    assert!(!is_among(&after(&[2, 1], &OPTION)));
    assert!(!is_among(&after(&[2, 40], &OPTION)));
    assert!(!is_among(&[254]));
}

proptest! {
    #[test]
    fn any_bytes_are_read_safely(options in proptest::collection::vec(any::<u8>(), 0..41)) {
        let is_there = options.windows(6).any(|six| six == OPTION);
        prop_assert!(is_there || !is_among(&options));
    }
}
