use super::*;

fn row() -> Row {
    Row {
        scheme: "sequential".into(),
        threads: "c1".into(),
        fabric: "memif".into(),
        op: Operation::WriteImm,
        size: 65536,
        iterations: 1000,
        qps: 4,
        depth: 64,
        mtu: 1500,
        crc: true,
        latency_us: Some(LatencySummary { min: 1.0, p50: 2.0, p99: 3.0, p999: 4.0, max: 5.0 }),
        throughput_gbps: 10.5,
        rate_mops: 0.02,
        receive_copies_per_byte: 2.0,
        retransmitted_segments: 3,
        cpu_seconds: 0.5,
        errors: 0,
        server_computes_us: None,
        idle: None,
        connects: None,
        idle_connection_bytes: None,
        raw: None,
    }
}

fn printed(reporter: &mut Reporter, row: &Row) -> String {
    let mut out = Vec::new();
    reporter.print(row, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn json_is_one_object_a_line_with_the_documented_keys_in_order() {
    let text = printed(&mut Reporter::new(true, false), &row());
    assert_eq!(text.matches('\n').count(), 1);
    let keys = [
        "scheme",
        "threads",
        "fabric",
        "op",
        "size",
        "iterations",
        "qps",
        "depth",
        "mtu",
        "crc",
        "latency_us",
        "min",
        "p50",
        "p99",
        "p999",
        "max",
        "throughput_gbps",
        "rate_mops",
        "receive_copies_per_byte",
        "retransmitted_segments",
        "cpu_seconds",
        "errors",
    ];
    let mut rest = text.as_str();
    for key in keys {
        let (before, after) = rest.split_once(&format!("\"{key}\":")).unwrap_or_else(|| panic!("{key} not in {rest}"));
        assert!(!before.contains("\":\"") || before.len() < 40, "something between keys before {key}: {before}");
        rest = after;
    }
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value.as_object().unwrap().len(), 17);
    assert_eq!(value["op"], "write-imm");
    assert_eq!(value["crc"], true);
}

#[test]
fn raw_limits_appear_when_there_are_any() {
    let mut row = row();
    row.raw = Some(RawLimits { latency_us_p50: 0.9, throughput_gbps: 60.0, touched_gbps: 24.0 });
    let text = printed(&mut Reporter::new(true, true), &row);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["raw"]["latency_us_p50"], 0.9);
    assert_eq!(value["raw"]["throughput_gbps"], 60.0);
    assert_eq!(value["raw"]["touched_gbps"], 24.0);
}

#[test]
fn a_table_has_one_header_and_columns_that_line_up() {
    let mut reporter = Reporter::new(false, true);
    let mut row = row();
    row.raw = Some(RawLimits { latency_us_p50: 0.9, throughput_gbps: 60.0, touched_gbps: 24.0 });
    let text = printed(&mut reporter, &row) + &printed(&mut reporter, &row);
    let lengths: Vec<usize> = text.lines().map(str::len).collect();
    assert_eq!(lengths.len(), 3);
    assert!(lengths.iter().all(|length| *length == lengths[0]), "{lengths:?}\n{text}");
}

#[test]
fn a_latency_that_was_not_measured_is_no_number() {
    let row = Row { latency_us: None, ..row() };
    let value: serde_json::Value = serde_json::from_str(&printed(&mut Reporter::new(true, false), &row)).unwrap();
    assert!(value["latency_us"].is_null());
    let text = printed(&mut Reporter::new(false, false), &row);
    let lengths: Vec<usize> = text.lines().map(str::len).collect();
    assert!(text.contains(" - ") && lengths[0] == lengths[1], "{text}");
}

#[test]
fn a_row_reads_back_what_was_printed() {
    let text = printed(&mut Reporter::new(true, false), &row());
    assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row());
}
