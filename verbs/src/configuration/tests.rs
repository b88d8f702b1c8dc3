use std::path::PathBuf;

use super::accepted::{NUMBERS, OPTIONAL_NUMBERS};
use super::*;

const PARSED: &[&str] = &["kernel-socket", "memif-server", "memif-client", "tap", "af_packet", "pci"];

/// Samples of other crates' configurations: the tests there parse them.
const OF_OTHERS: &[&str] = &["smc-policy"];

fn samples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

fn message(text: &str) -> String {
    DeviceConfig::from_toml(text, "device.toml").expect_err("this configuration must be refused").to_string()
}

/// A sequential configuration that is good as it stands; what is appended is below `[port.device.memif]`.
const SEQUENTIAL: &str =
    "scheme = \"sequential\"\naddresses = [\"10.0.0.1/24\"]\n[port.device.memif]\nrole = \"server\"\nsocket = \"s\"\n";

#[test]
fn every_sample_parses_and_no_sample_is_untested() {
    let mut found: Vec<_> = std::fs::read_dir(samples())
        .expect("configs/ is at the top of the tree")
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    found.sort();
    let mut expected: Vec<_> = PARSED.iter().chain(OF_OTHERS).map(ToString::to_string).collect();
    expected.sort();
    assert_eq!(found, expected);
    for name in PARSED {
        DeviceConfig::load(samples().join(format!("{name}.toml"))).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn the_kernel_socket_sample_shows_the_defaults() {
    let sample = DeviceConfig::load(samples().join("kernel-socket.toml")).expect("it parses");
    assert_eq!(sample, DeviceConfig::default());
}

#[test]
fn an_empty_file_is_the_default_and_the_default_is_valid() {
    assert_eq!(DeviceConfig::from_toml("", "empty").expect("it parses"), DeviceConfig::default());
    DeviceConfig::default().validate().expect("valid");
}

#[test]
fn a_written_configuration_reads_back_the_same() {
    for name in PARSED {
        let config = DeviceConfig::load(samples().join(format!("{name}.toml"))).expect("it parses");
        let text = toml::to_string(&config).expect("it can be written");
        assert_eq!(DeviceConfig::from_toml(&text, "again").expect("it reads back"), config, "{text}");
    }
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_known_ones() {
    let text = message("name = \"a\"\n\nmtuu = 1500\n");
    assert!(text.starts_with("device.toml:3: mtuu: unknown field `mtuu`"), "{text}");
    assert!(text.contains("accepted: ") && text.contains("`mtu`") && text.contains("`scheme`"), "{text}");
    let text = message("[limits]\nmax_connections = 5\nmax_connection = 5\n");
    assert!(text.starts_with("device.toml:3: limits.max_connection: unknown field"), "{text}");
    assert!(text.contains("`max_connections`"), "{text}");
}

#[test]
fn an_unknown_key_in_a_nested_table_is_named_with_its_line() {
    let text = message(&format!("{SEQUENTIAL}rolle = 1\n"));
    assert!(text.starts_with("device.toml:6: port.device.memif.rolle: "), "{text}");
    assert!(text.contains("accepted: role, id, socket"), "{text}");
}

#[test]
fn a_wrong_word_is_named_with_its_line_and_the_accepted_ones() {
    let text = message("crc = true\nscheme = \"infiniband\"\n");
    assert!(text.starts_with("device.toml:2: scheme: unknown variant `infiniband`; accepted: "), "{text}");
    assert!(text.contains("`kernel-socket`, `sequential`"), "{text}");
    let text = message("[port.device.token_ring]\n");
    assert!(text.starts_with("device.toml:1: port.device"), "{text}");
    assert!(text.contains("`memif`") && text.contains("`pci`"), "{text}");
}

#[test]
fn a_wrong_type_is_named_with_its_line_and_the_accepted_range() {
    let text = message("[limits]\n\nmax_regions = \"many\"\n");
    assert!(text.starts_with("device.toml:3: limits.max_regions: invalid type: string \"many\""), "{text}");
    assert!(text.contains("accepted: 1 to 16777215 (regions)"), "{text}");
    let text = message("[limits]\nmax_regions = -1\n");
    assert!(text.contains("device.toml:2: limits.max_regions") && text.contains("1 to 16777215"), "{text}");
}

#[test]
fn a_number_out_of_range_is_named_with_its_line_and_range() {
    let text = message("\n\n[timing]\nhandshake_timeout_ms = 0\n");
    assert_eq!(
        text,
        "device.toml:4: timing.handshake_timeout_ms: 0 is not accepted; accepted: 1 to 600000 (milliseconds)"
    );
}

#[test]
fn every_number_is_refused_below_and_above_its_range_by_name() {
    for number in NUMBERS.iter().chain(OPTIONAL_NUMBERS) {
        let outside = [number.range.start().checked_sub(1), number.range.end().checked_add(1)];
        for value in outside.into_iter().flatten() {
            let (table, key) = number.key.rsplit_once('.').unwrap_or(("", number.key));
            let line =
                if table.is_empty() { format!("{key} = {value}") } else { format!("[{table}]\n{key} = {value}") };
            let port = "[port.device.null]\n";
            let text = if table == "port" { format!("{line}\n{port}") } else { format!("{line}\n") };
            let error = message(&text);
            assert!(error.contains(&format!(" {}: ", number.key)) && error.contains("accepted: "), "{text}{error}");
            assert!(error.contains(&number.range.end().to_string()), "{text}{error}");
        }
    }
}

#[test]
fn every_number_of_the_file_format_has_a_range() {
    let mut config = DeviceConfig::from_toml(SEQUENTIAL, "s").expect("it parses");
    config.capture = Some(Capture::default());
    config.limits.max_time_wait = Some(1);
    let text = toml::to_string(&config).expect("it can be written");
    let table: toml::Table = text.parse().expect("TOML");
    let mut missing = Vec::new();
    collect_numbers(&table, "", &mut |key| {
        if accepted::range_of(key).is_none() {
            missing.push(key.to_owned());
        }
    });
    // The interface number of a memif is any 32 bits.
    assert_eq!(missing, ["port.device.memif.id"]);
}

fn collect_numbers(table: &toml::Table, prefix: &str, each: &mut dyn FnMut(&str)) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(inner) => collect_numbers(inner, &key, each),
            toml::Value::Integer(_) => each(&key),
            _ => {}
        }
    }
}

#[test]
fn a_scheme_of_a_later_version_says_so() {
    let text = message("scheme = \"rnic\"\n");
    assert!(text.starts_with("device.toml:1: scheme: \"rnic\" (not in this version)"), "{text}");
    assert!(text.contains("accepted: \"kernel-socket\", \"sequential\""), "{text}");
}

#[test]
fn threads_that_are_not_named_suit_the_scheme() {
    let threads = |text: &str| DeviceConfig::from_toml(text, "device.toml").expect("it parses").threads;
    let own = SEQUENTIAL.replace("\"sequential\"", "\"softrdma\"");
    assert_eq!(threads(&own), Threads::C3);
    assert_eq!(threads(&own.replace("\"softrdma\"", "\"softrdma\"\nthreads = \"c2\"")), Threads::C2);
    assert_eq!(threads(SEQUENTIAL), Threads::C1);
    assert_eq!(threads(""), Threads::C1);
}

#[test]
fn an_engine_of_one_piece_is_not_driven_by_two_threads() {
    let text = message("threads = \"c3\"\n");
    assert!(text.starts_with("device.toml:1: threads: \"c3\" for scheme \"kernel-socket\""), "{text}");
    assert!(text.contains("accepted: \"c1\", \"c2\", or scheme = \"softrdma\""), "{text}");
    let two_halves = SEQUENTIAL.replace("\"sequential\"", "\"softrdma\"\nthreads = \"c3\"");
    assert_eq!(DeviceConfig::from_toml(&two_halves, "device.toml").expect("it parses").threads, Threads::C3);
}

#[test]
fn a_sequential_device_needs_a_port_and_an_address() {
    let text = message("scheme = \"sequential\"\n");
    assert!(text.starts_with("device.toml: port: nothing is not accepted"), "{text}");
    let text = message("scheme = \"sequential\"\n[port.device.null]\n");
    assert!(text.contains("addresses: nothing") && text.contains("10.0.0.1/24"), "{text}");
}

#[test]
fn what_the_tcp_of_a_scheme_does_not_do_is_refused_by_line() {
    let text = |scheme: &str, lines: &str| {
        format!("scheme = \"{scheme}\"\naddresses = [\"10.0.0.1/24\"]\n{lines}[port.device.null]\n")
    };
    for (scheme, lines, place, accepted) in [
        ("softrdma", "congestion_control = \"off\"\n", "3: congestion_control: ", "\"reno\", \"cubic\""),
        (
            "sequential",
            "[limits]\nmax_time_wait = 65536\n",
            "4: limits.max_time_wait: 65536 ",
            "1 to 65535 with scheme = \"sequential\"",
        ),
        (
            "sequential",
            "[timing]\nkeep_alive_interval_ms = 0\n",
            "4: timing.keep_alive_interval_ms: 0 ",
            "1 to 74999, below timing.user_timeout_ms",
        ),
        (
            "softrdma",
            "[timing]\nuser_timeout_ms = 5000\nkeep_alive_interval_ms = 5000\n",
            "5: timing.keep_alive_interval_ms: 5000 ",
            "0 (never) to 4999, below timing.user_timeout_ms",
        ),
    ] {
        let text = message(&text(scheme, lines));
        assert!(text.starts_with(&format!("device.toml:{place}")) && text.contains(accepted), "{text}");
    }
    for (scheme, lines) in [
        ("sequential", "congestion_control = \"off\"\n"),
        ("softrdma", "[limits]\nmax_time_wait = 65536\n[timing]\nkeep_alive_interval_ms = 0\n"),
    ] {
        DeviceConfig::from_toml(&text(scheme, lines), "device.toml").unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn an_address_without_a_good_prefix_is_refused_by_line() {
    for bad in ["10.0.0.1", "10.0.0.1/33", "fd00::1/129", "host/24", "10.0.0.1/x"] {
        let text = message(&format!("crc = true\naddresses = [\"{bad}\"]\n"));
        assert!(text.starts_with("device.toml:2: addresses: ") && text.contains("10.0.0.1/24"), "{text}");
    }
}

#[test]
fn a_device_argument_cannot_be_smuggled_into_a_name() {
    let text =
        message("scheme = \"sequential\"\naddresses = [\"10.0.0.1/24\"]\n[port.device.tap]\ninterface = \"a,mac=x\"\n");
    assert!(text.starts_with("device.toml:4: port.device.tap.interface: "), "{text}");
    for bad in ["3b:00.0", "0000:3b:00", "0000:3b:00.0,x=1", "zzzz:3b:00.0"] {
        let base = "scheme = \"sequential\"\naddresses = [\"10.0.0.1/24\"]\n[port.device.pci]\n";
        let text = message(&format!("{base}address = \"{bad}\"\n"));
        assert!(text.contains("device.toml:4: port.device.pci.address") && text.contains("0000:3b:00.0"), "{text}");
    }
}

#[test]
fn text_that_is_no_toml_is_refused_by_line() {
    let text = message("name = \"a\"\nmtu = = 3\n");
    assert!(text.starts_with("device.toml:2: not TOML: "), "{text}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let text = DeviceConfig::load("does/not/exist.toml").expect_err("absent").to_string();
    assert!(text.starts_with("does/not/exist.toml: cannot be read: "), "{text}");
}

#[test]
fn a_configuration_made_in_a_program_is_validated_the_same() {
    let config = DeviceConfig { mtu: 100, ..DeviceConfig::default() };
    let text = config.validate().expect_err("too small").to_string();
    assert_eq!(text, "configuration: mtu: 100 is not accepted; accepted: 576 to 65535 (bytes)");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(\\PC|[\\[\\]=\"\n.a-z0-9_ ]){0,200}") {
        let _ = DeviceConfig::from_toml(&text, "random").map_err(|error| error.to_string());
    }
}
