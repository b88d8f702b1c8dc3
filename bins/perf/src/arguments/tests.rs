use clap::CommandFactory;

use super::*;
use crate::operation::Operation;

fn pair(line: &str) -> PairArguments {
    let words = ["softrdma-perf", "pair"].into_iter().chain(line.split_whitespace());
    match Arguments::try_parse_from(words).unwrap().command {
        Command::Pair(arguments) => arguments,
        other => panic!("{other:?}"),
    }
}

fn refusal(line: &str) -> String {
    Arguments::try_parse_from(line.split_whitespace()).unwrap_err().to_string()
}

#[test]
fn the_command_line_is_well_formed() {
    Arguments::command().debug_assert();
}

#[test]
fn the_tests_options_are_read() {
    let arguments =
        pair("--op read,write --size 8..64,1M --qps 64 --active-qps 4 --depth 16 --verify --json --crc off");
    assert_eq!(arguments.test.op.as_slice(), [Operation::Read, Operation::Write]);
    assert_eq!(arguments.test.size.as_slice(), [8, 16, 32, 64, 1 << 20]);
    assert_eq!((arguments.test.qps, arguments.test.active_qps, arguments.test.depth), (64, Some(4), 16));
    assert!(arguments.test.verify && arguments.test.json);
}

#[test]
fn wrong_values_are_answered_with_what_is_accepted() {
    assert!(refusal("softrdma-perf pair --size 8X").contains("as in 64, 8K or 1M"));
    assert!(refusal("softrdma-perf pair --op push").contains("fetch-add"));
    assert!(refusal("softrdma-perf pair --fabric wire").contains("memif, tap, ring, af_packet, kernel"));
    assert!(refusal("softrdma-perf pair --depth 0").contains("1..=8192"));
    assert!(refusal("softrdma-perf client nowhere").contains("10.0.0.1:18515"));
    assert!(refusal("softrdma-perf pair --duration=-1").contains("--duration"));
    assert!(refusal("softrdma-perf pair --iterations 0").contains("--iterations"));
}

#[test]
fn times_have_units() {
    let test = pair("--server-computes 10ms --pause 250us --idle 2 --connects 100").test;
    assert_eq!(test.server_computes, Some(Duration::from_millis(10)));
    assert_eq!((test.pause, test.idle), (Duration::from_micros(250), Some(Duration::from_secs(2))));
    assert_eq!(test.connects.map(NonZeroU32::get), Some(100));
    let test = pair("--server-computes 0 --idle 500ms --duration 1.5s").test;
    assert_eq!(test.server_computes, Some(Duration::ZERO));
    assert_eq!((test.pause, test.idle), (Duration::ZERO, Some(Duration::from_millis(500))));
    assert_eq!(test.duration, Some(Duration::from_millis(1500)));
    for wrong in ["--server-computes 2", "--pause=-1", "--pause ms", "--idle 0", "--idle 1m", "--connects 0"] {
        let option = wrong.split(['=', ' ']).next().unwrap();
        assert!(refusal(&format!("softrdma-perf pair {wrong}")).contains(option), "{wrong}");
    }
}

#[test]
fn iterations_and_duration_exclude_each_other() {
    assert!(refusal("softrdma-perf pair --iterations 5 --duration 1").contains("cannot be used with"));
}

#[test]
fn an_address_may_come_without_its_port() {
    assert_eq!(parse_peer("10.0.0.1"), Ok(Peer("10.0.0.1:18515".parse().unwrap())));
    assert_eq!(parse_peer("10.0.0.1:7"), Ok(Peer("10.0.0.1:7".parse().unwrap())));
    assert_eq!(parse_peer("fd00::1"), Ok(Peer("[fd00::1]:18515".parse().unwrap())));
    assert_eq!(parse_peer("[fd00::1]"), Ok(Peer("[fd00::1]:18515".parse().unwrap())));
    assert_eq!(parse_peer("[fd00::1]:7"), Ok(Peer("[fd00::1]:7".parse().unwrap())));
}

#[test]
fn every_example_of_the_help_is_a_command_line() {
    let examples: Vec<_> = EXAMPLES.lines().filter(|line| line.trim_start().starts_with("softrdma-perf")).collect();
    assert!(examples.len() >= 4);
    for example in examples {
        Arguments::try_parse_from(example.split_whitespace()).unwrap_or_else(|error| panic!("{example}: {error}"));
    }
}
