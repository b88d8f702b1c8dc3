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

#[test]
fn what_is_not_configured_is_as_the_engines_have_it() {
    let (sequential, softrdma) = engines("");
    let default = SequentialConfig::default();
    assert_eq!(sequential.max_backlog, default.max_backlog);
    assert_eq!(sequential.max_time_wait, default.max_time_wait);
    assert_eq!(sequential.congestion_control, default.congestion_control);
    assert_eq!(sequential.user_timeout, default.user_timeout);
    assert_eq!(sequential.keep_alive_interval, default.keep_alive_interval);
    let default = SoftrdmaConfig::default();
    assert_eq!(softrdma.max_backlog, default.max_backlog);
    assert_eq!(softrdma.max_time_wait, default.max_time_wait);
    assert_eq!(softrdma.congestion_control, default.congestion_control);
    assert_eq!(softrdma.user_timeout, default.user_timeout);
    assert_eq!(softrdma.keep_alive_interval, default.keep_alive_interval);
    assert_eq!(softrdma.time_wait, default.time_wait);
    assert_eq!(softrdma.acknowledgement_delay, default.acknowledgement_delay);
    assert_eq!(softrdma.min_retransmission_timeout, default.min_retransmission_timeout);
}

#[test]
fn the_timers_of_tcp_reach_the_engines() {
    let timing = "user_timeout_ms = 30000\nkeep_alive_interval_ms = 2000\ntime_wait_ms = 20000\n\
                  acknowledgement_delay_us = 40\nmin_retransmission_us = 200000";
    let (sequential, softrdma) = engines(&format!("[timing]\n{timing}"));
    assert_eq!(sequential.user_timeout, Duration::from_secs(30));
    assert_eq!(sequential.keep_alive_interval, Duration::from_secs(2));
    assert_eq!(softrdma.user_timeout, Duration::from_secs(30));
    assert_eq!(softrdma.keep_alive_interval, Duration::from_secs(2));
    assert_eq!(softrdma.time_wait, Duration::from_secs(20));
    assert_eq!(softrdma.acknowledgement_delay, Duration::from_micros(40));
    assert_eq!(softrdma.min_retransmission_timeout, Duration::from_millis(200));
}

#[test]
fn the_number_of_ended_connections_and_congestion_control_reach_the_engines() {
    let (sequential, softrdma) = engines("congestion_control = \"reno\"\n[limits]\nmax_time_wait = 77");
    assert_eq!((sequential.max_time_wait, softrdma.max_time_wait), (77, 77));
    assert_eq!(sequential.congestion_control, sequential::CongestionControl::Reno);
    assert_eq!(softrdma.congestion_control, softrdma::CongestionControl::Reno);
    let off =
        "scheme = \"sequential\"\ncongestion_control = \"off\"\naddresses = [\"10.0.0.1/24\"]\n[port.device.null]";
    assert_eq!(sequential_config(&parsed(off), None).congestion_control, sequential::CongestionControl::Off);
}

#[test]
fn the_limits_and_timeouts_that_the_schemes_share_reach_the_engines() {
    let (sequential, softrdma) = engines(
        "mtu = 4000\nchecksum = false\nrandom_seed = 9\n[limits]\nmax_connections = 33\nmax_listeners = 3\n\
         socket_buffer_bytes = 65536\n[timing]\nconnect_timeout_ms = 1234\nhandshake_timeout_ms = 4321",
    );
    assert_eq!((sequential.mtu, softrdma.mtu), (Some(4000), Some(4000)));
    assert!(!sequential.checksum && !softrdma.checksum);
    assert_eq!((sequential.random_seed, softrdma.random_seed), (9, 9));
    assert_eq!((sequential.max_connections, softrdma.max_connections), (33, 33));
    assert_eq!((sequential.max_listeners, softrdma.max_listeners), (3, 3));
    assert_eq!((sequential.socket_buffer_bytes, softrdma.receive_window_bytes), (65_536, 65_536));
    let times = |milliseconds| (Duration::from_millis(milliseconds), Duration::from_millis(milliseconds));
    assert_eq!((sequential.connect_timeout, softrdma.connect_timeout), times(1234));
    assert_eq!((sequential.half_open_timeout, softrdma.half_open_timeout), times(4321));
}
