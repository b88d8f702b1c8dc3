//! What is accepted beyond types: ranges, and what keys demand of each other.

use std::ops::RangeInclusive;

use super::{CongestionControl, DeviceConfig, PortDevice, Scheme, Threads};

/// Something that types do not catch.
pub(super) struct Problem {
    /// The key, dotted, as TOML writes it.
    pub(super) key: &'static str,
    /// What is there.
    pub(super) value: String,
    /// What could be there.
    pub(super) accepted: String,
}

/// A number's key, its range, its unit and where it is. A `u64` holds them all.
pub(super) struct Number {
    pub(super) key: &'static str,
    pub(super) range: RangeInclusive<u64>,
    pub(super) unit: &'static str,
    read: fn(&DeviceConfig) -> Option<u64>,
}

macro_rules! numbers {
    ($($key:literal $($field:ident).+ $range:expr, $unit:literal;)*) => {
        &[$(Number { key: $key, range: $range, unit: $unit, read: |config| Some(u64::from(config.$($field).+)) },)*]
    };
}

/// Every number with a range that is narrower than its type.
pub(super) const NUMBERS: &[Number] = numbers! {
    "mtu" mtu 576..=65_535, "bytes";
    "handshake.revision" handshake.revision 1..=2, "MPA revision";
    "handshake.ird" handshake.ird 0..=16_383, "outstanding reads";
    "handshake.ord" handshake.ord 0..=16_383, "outstanding reads";
    "limits.max_connections" limits.max_connections 1..=1_048_576, "connections";
    "limits.max_half_open" limits.max_half_open 1..=1_048_576, "connections";
    "limits.max_listeners" limits.max_listeners 1..=65_535, "listeners";
    "limits.backlog" limits.backlog 1..=65_535, "connections";
    "limits.max_queue_pairs" limits.max_queue_pairs 1..=1_048_576, "queue pairs";
    "limits.max_protection_domains" limits.max_protection_domains 1..=16_777_215, "protection domains";
    "limits.max_regions" limits.max_regions 1..=16_777_215, "regions";
    "limits.max_completion_queues" limits.max_completion_queues 1..=1_048_576, "completion queues";
    "limits.max_completion_queue_entries" limits.max_completion_queue_entries 1..=16_777_216, "completions";
    "limits.max_shared_receive_queues" limits.max_shared_receive_queues 1..=1_048_576, "shared receive queues";
    "limits.max_send_requests" limits.max_send_requests 1..=1_048_576, "requests";
    "limits.max_receive_requests" limits.max_receive_requests 1..=1_048_576, "requests";
    "limits.max_async_events" limits.max_async_events 1..=1_048_576, "events";
    "limits.max_outstanding_reads" limits.max_outstanding_reads 0..=16_383, "outstanding reads";
    "limits.max_message_bytes" limits.max_message_bytes 4096..=4_294_967_295, "bytes";
    "limits.socket_buffer_bytes" limits.socket_buffer_bytes 36_000..=536_870_912, "bytes";
    "limits.receive_buffer_bytes" limits.receive_buffer_bytes 131_072..=1_073_741_824, "bytes";
    "limits.transmit_stage_bytes" limits.transmit_stage_bytes 131_072..=1_073_741_824, "bytes";
    "limits.receive_buffers" limits.receive_buffers 1..=65_536, "buffers";
    "limits.transmit_stages" limits.transmit_stages 1..=65_536, "stages";
    "timing.handshake_timeout_ms" timing.handshake_timeout_ms 1..=600_000, "milliseconds";
    "timing.connect_timeout_ms" timing.connect_timeout_ms 1..=600_000, "milliseconds";
    "timing.receive_wait_ms" timing.receive_wait_ms 0..=600_000, "milliseconds";
    "timing.terminate_timeout_ms" timing.terminate_timeout_ms 1..=600_000, "milliseconds";
    "timing.close_timeout_ms" timing.close_timeout_ms 1..=600_000, "milliseconds";
    "timing.first_fpdu_delay_ms" timing.first_fpdu_delay_ms 0..=10_000, "milliseconds";
    "timing.accept_timeout_ms" timing.accept_timeout_ms 1..=3_600_000, "milliseconds";
    "timing.stall_timeout_ms" timing.stall_timeout_ms 10..=3_600_000, "milliseconds";
    "timing.peer_wait_ms" timing.peer_wait_ms 0..=600_000, "milliseconds";
    "timing.user_timeout_ms" timing.user_timeout_ms 100..=3_600_000, "milliseconds";
    "timing.keep_alive_interval_ms" timing.keep_alive_interval_ms 0..=3_599_999, "milliseconds";
    "timing.time_wait_ms" timing.time_wait_ms 1..=600_000, "milliseconds";
    "timing.acknowledgement_delay_us" timing.acknowledgement_delay_us 0..=499_999, "microseconds";
    "timing.min_retransmission_us" timing.min_retransmission_us 100..=1_000_000, "microseconds";
    "polling.spin_us" polling.spin_us 0..=1_000_000, "microseconds";
    "polling.yield_us" polling.yield_us 0..=1_000_000, "microseconds";
    "polling.idle_sleep_us" polling.idle_sleep_us 1..=1_000_000, "microseconds";
    "eal.memory_mib" eal.memory_mib 16..=1_048_576, "MiB";
};

/// Numbers that need not be there, or whose tables need not.
pub(super) const OPTIONAL_NUMBERS: &[Number] = &[
    Number {
        key: "limits.max_time_wait",
        range: 1..=1_048_576,
        unit: "connections",
        read: |c| c.limits.max_time_wait.map(u64::from),
    },
    Number { key: "port.queues", range: 1..=64, unit: "queues", read: |c| Some(u64::from(c.port.as_ref()?.queues)) },
    Number {
        key: "port.descriptors",
        range: 64..=32_768,
        unit: "descriptors",
        read: |c| Some(u64::from(c.port.as_ref()?.descriptors)),
    },
    Number {
        key: "port.pool_packets",
        range: 512..=16_777_216,
        unit: "packets",
        read: |c| Some(u64::from(c.port.as_ref()?.pool_packets)),
    },
    Number {
        key: "port.data_room_bytes",
        range: 256..=65_535,
        unit: "bytes",
        read: |c| Some(u64::from(c.port.as_ref()?.data_room_bytes)),
    },
    Number {
        key: "capture.frame_bytes",
        range: 64..=65_535,
        unit: "bytes",
        read: |c| Some(u64::from(c.capture.as_ref()?.frame_bytes)),
    },
    Number {
        key: "capture.max_file_mib",
        range: 1..=1_048_576,
        unit: "MiB",
        read: |c| Some(u64::from(c.capture.as_ref()?.max_file_mib)),
    },
];

/// What is accepted at `key`, if it is a number with a range.
pub(super) fn range_of(key: &str) -> Option<String> {
    NUMBERS.iter().chain(OPTIONAL_NUMBERS).find(|number| number.key == key).map(Number::accepted)
}

impl Number {
    fn accepted(&self) -> String {
        format!("{} to {} ({})", self.range.start(), self.range.end(), self.unit)
    }
}

/// The first problem of `config`.
pub(super) fn problem(config: &DeviceConfig) -> Option<Problem> {
    number_problem(config)
        .or_else(|| name_problem(config))
        .or_else(|| version_problem(config))
        .or_else(|| relation_problem(config))
        .or_else(|| device_problem(config))
}

fn number_problem(config: &DeviceConfig) -> Option<Problem> {
    NUMBERS.iter().chain(OPTIONAL_NUMBERS).find_map(|number| {
        let value = (number.read)(config)?;
        (!number.range.contains(&value)).then(|| Problem {
            key: number.key,
            value: value.to_string(),
            accepted: number.accepted(),
        })
    })
}

fn name_problem(config: &DeviceConfig) -> Option<Problem> {
    // 63 bytes and a NUL are what `ibv_device.name` holds.
    let fits = (1..=63).contains(&config.name.len());
    let printable = config.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    (!fits || !printable).then(|| Problem {
        key: "name",
        value: format!("{:?}", config.name),
        accepted: "1 to 63 letters, digits, `_`, `-` and `.`".to_owned(),
    })
}

fn version_problem(config: &DeviceConfig) -> Option<Problem> {
    match (config.scheme, config.threads) {
        (Scheme::Rnic, _) => Some(Problem {
            key: "scheme",
            value: "\"rnic\" (not in this version)".to_owned(),
            accepted: "\"kernel-socket\", \"sequential\", \"softrdma\"".to_owned(),
        }),
        (Scheme::KernelSocket | Scheme::Sequential, Threads::C3) => Some(Problem {
            key: "threads",
            value: format!("\"c3\" for scheme {:?}", config.scheme.name()),
            accepted: "\"c1\", \"c2\", or scheme = \"softrdma\", whose engine is two halves".to_owned(),
        }),
        (Scheme::Softrdma, _) | (_, Threads::C1 | Threads::C2) => None,
    }
}

fn relation_problem(config: &DeviceConfig) -> Option<Problem> {
    let problem = |key, value: String, accepted: &str| Some(Problem { key, value, accepted: accepted.to_owned() });
    let most_reads = config.limits.max_outstanding_reads;
    for (key, value) in [("handshake.ird", config.handshake.ird), ("handshake.ord", config.handshake.ord)] {
        if value > most_reads {
            let accepted = format!("at most limits.max_outstanding_reads, which is {most_reads}");
            return problem(key, value.to_string(), &accepted);
        }
    }
    match config.scheme {
        Scheme::KernelSocket => {
            if config.port.is_some() {
                let value = "a port for scheme \"kernel-socket\"".to_owned();
                return problem("port", value, "no [port] table, or scheme = \"softrdma\" or \"sequential\"");
            }
            if config.capture.is_some() {
                let value = "a capture for scheme \"kernel-socket\"".to_owned();
                return problem(
                    "capture",
                    value,
                    "no [capture] table (use tcpdump), or scheme = \"softrdma\" or \"sequential\"",
                );
            }
            if !config.addresses.is_empty() {
                let value = "addresses for scheme \"kernel-socket\"".to_owned();
                return problem("addresses", value, "no addresses: the kernel knows its own; see listen_addresses");
            }
        }
        Scheme::Sequential | Scheme::Softrdma => {
            if config.port.is_none() {
                let accepted = "a [port.device.KIND] table, KIND one of memif, tap, af_packet, af_xdp, ring, null, pci, \
                                vhost, virtio_user, dpdk";
                return problem("port", "nothing".to_owned(), accepted);
            }
            if config.addresses.is_empty() {
                let accepted = "at least one address with a prefix, such as [\"10.0.0.1/24\"]";
                return problem("addresses", "nothing".to_owned(), accepted);
            }
            return transport_problem(config);
        }
        Scheme::Rnic => {}
    }
    None
}

/// What the TCP of each scheme over a port does not do.
fn transport_problem(config: &DeviceConfig) -> Option<Problem> {
    /// The sequential engine's own limit: each of them is a socket with its buffers.
    const MOST_SOCKETS_IN_TIME_WAIT: u32 = 65_535;
    let problem = |key, value: String, accepted: String| Some(Problem { key, value, accepted });
    let is_sequential = config.scheme == Scheme::Sequential;
    let (keep_alive, user_timeout) = (config.timing.keep_alive_interval_ms, config.timing.user_timeout_ms);
    if keep_alive >= user_timeout || (is_sequential && keep_alive == 0) {
        let never = if is_sequential { "1 to" } else { "0 (never) to" };
        let accepted = format!("{never} {}, below timing.user_timeout_ms (milliseconds)", user_timeout - 1);
        return problem("timing.keep_alive_interval_ms", keep_alive.to_string(), accepted);
    }
    match config.limits.max_time_wait {
        Some(count) if is_sequential && count > MOST_SOCKETS_IN_TIME_WAIT => {
            let accepted = format!("1 to {MOST_SOCKETS_IN_TIME_WAIT} with scheme = \"sequential\" (connections)");
            return problem("limits.max_time_wait", count.to_string(), accepted);
        }
        _ => {}
    }
    if !is_sequential && config.congestion_control == CongestionControl::Off {
        let value = format!("\"off\" for scheme {:?}", config.scheme.name());
        return problem("congestion_control", value, "\"reno\", \"cubic\"".to_owned());
    }
    None
}

fn device_problem(config: &DeviceConfig) -> Option<Problem> {
    let problem = |key, value: &str, accepted: &str| {
        Some(Problem { key, value: format!("{value:?}"), accepted: accepted.to_owned() })
    };
    // A comma would begin another device argument, and the kernel's names end at 15 bytes.
    let plain = |text: &str| !text.is_empty() && !text.contains([',', '\0']);
    let interface = |text: &str| plain(text) && text.len() <= 15;
    const INTERFACE: &str = "a name of 1 to 15 bytes without a comma";
    match &config.port.as_ref()?.device {
        PortDevice::Memif { socket, .. } if !plain(socket) || socket.len() > 100 => {
            problem("port.device.memif.socket", socket, "a name of 1 to 100 bytes without a comma")
        }
        PortDevice::Tap { interface: name } if !interface(name) => {
            problem("port.device.tap.interface", name, INTERFACE)
        }
        PortDevice::AfPacket { interface: name } if !interface(name) => {
            problem("port.device.af_packet.interface", name, INTERFACE)
        }
        PortDevice::AfXdp { interface: name } if !interface(name) => {
            problem("port.device.af_xdp.interface", name, INTERFACE)
        }
        PortDevice::Pci { address } if !is_pci_address(address) => problem(
            "port.device.pci.address",
            address,
            "domain:bus:device.function in hexadecimal, such as \"0000:3b:00.0\"",
        ),
        _ => None,
    }
}

fn is_pci_address(text: &str) -> bool {
    let mut parts = text.split([':', '.']);
    let mut digits = |lengths: RangeInclusive<usize>| {
        parts.next().is_some_and(|part| lengths.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    digits(4..=8) && digits(2..=2) && digits(2..=2) && digits(1..=1) && parts.next().is_none()
}
