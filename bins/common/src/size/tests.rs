use super::*;

fn sizes(text: &str) -> Vec<u64> {
    text.parse::<SizeList>().unwrap().as_slice().to_vec()
}

#[test]
fn a_number_is_bytes_and_a_suffix_multiplies_by_powers_of_1024() {
    assert_eq!(parse_size("64"), Ok(64));
    assert_eq!(parse_size("8K"), Ok(8 << 10));
    assert_eq!(parse_size("3m"), Ok(3 << 20));
    assert_eq!(parse_size("1GiB"), Ok(1 << 30));
}

#[test]
fn what_is_no_size_says_what_is_accepted() {
    for text in ["", "K", "-1", "1.5K", "64 bytes", "0x40", "8T"] {
        let message = parse_size(text).unwrap_err().to_string();
        assert!(message.contains("as in 64, 8K or 1M"), "{text}: {message}");
    }
    assert_eq!(parse_size("0"), Err(SizeError::OutOfRange("0".into())));
    assert_eq!(parse_size("1025M"), Err(SizeError::OutOfRange("1025M".into())));
    assert_eq!(parse_size("99999999999999G"), Err(SizeError::OutOfRange("99999999999999G".into())));
}

#[test]
fn a_sweep_doubles_from_its_first_size_to_its_last() {
    assert_eq!(sizes("8..64"), [8, 16, 32, 64]);
    assert_eq!(sizes("8..1G").len(), 28);
    assert_eq!(sizes("8..1G").last(), Some(&(1 << 30)));
    assert_eq!(sizes("64..64"), [64]);
}

#[test]
fn a_sweep_between_sizes_that_are_no_powers_of_two_includes_both_ends() {
    assert_eq!(sizes("100..1000"), [100, 128, 256, 512, 1000]);
    assert_eq!(sizes("1..3"), [1, 2, 3]);
}

#[test]
fn a_list_keeps_its_order_and_may_hold_sweeps() {
    assert_eq!(sizes("1M,8,64..256"), [1 << 20, 8, 64, 128, 256]);
}

#[test]
fn a_sweep_that_runs_backwards_is_refused() {
    assert_eq!("1M..8".parse::<SizeList>(), Err(SizeError::EmptySweep("1M..8".into())));
    assert!("8..".parse::<SizeList>().is_err());
    assert!("8,,16".parse::<SizeList>().is_err());
}

#[test]
fn too_many_sizes_are_refused() {
    let text = vec!["8"; MAX_SIZES + 1].join(",");
    assert_eq!(text.parse::<SizeList>(), Err(SizeError::TooMany(MAX_SIZES + 1)));
}

#[test]
fn a_size_is_shown_as_it_is_read() {
    for bytes in [1, 8, 1000, 1024, 1536, 1 << 20, 3 << 20, 1 << 30] {
        assert_eq!(parse_size(&Bytes(bytes).to_string()), Ok(bytes));
    }
    assert_eq!(format!("{:>6}", Bytes(8 << 10)), "    8K");
}
