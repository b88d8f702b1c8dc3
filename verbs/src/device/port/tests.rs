use super::*;

fn parsed(text: &str) -> DeviceConfig {
    DeviceConfig::from_toml(text, "device.toml").expect("it parses")
}

/// What both engines are told when `text` stands in front of the tables that a port needs.
fn engines(text: &str) -> (SequentialConfig, SoftrdmaConfig) {
    let config = |scheme| {
        let head = format!("scheme = \"{scheme}\"\naddresses = [\"10.0.0.1/24\"]\n");
        parsed(&format!("{head}{text}\n[port.device.null]\n"))
    };
    let softrdma = config("softrdma");
    let port = softrdma.port.as_ref().expect("there is a port");
    (sequential_config(&config("sequential"), None), softrdma_config(&softrdma, port, None))
}

#[test]
fn a_large_backlog_reaches_the_engines_whole() {
    let (sequential, softrdma) = engines("[limits]\nbacklog = 12000");
    assert_eq!((sequential.max_backlog, softrdma.max_backlog), (12_000, 12_000));
}
