//! From a configuration to a DPDK port and the engine on it.

use std::fs::File;
use std::io::BufWriter;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use softrdma_dpdk_glue as glue;
use softrdma_stack::pcap::{FrameDirection, FrameSink, PcapWriter};
use softrdma_stack::sequential::{self, SequentialConfig, SequentialEngine};
use softrdma_stack::softrdma::{self, SoftrdmaConfig, SoftrdmaEngine};
use softrdma_stack::stream::Engine;
use softrdma_stack::time::Instant;

use super::open::OpenError;
use crate::configuration::{
    Capture, CongestionControl, DeviceConfig, HugePages, MemifRole, PortConfigText, PortDevice,
};

/// Slices of the stack's thread, in nanoseconds: the shortest that Linux takes.
const SLICE_NS: u64 = 100_000;

/// Ethernet and VLAN headers in front of an IP packet, and the headroom that DPDK keeps in a buffer.
const BUFFER_OVERHEAD: usize = 18 + 128;

/// The engine of scheme `sequential`.
pub(super) fn sequential(config: &DeviceConfig, now: Instant) -> Result<Box<dyn Engine>, OpenError> {
    let port_config = config.port.as_ref().ok_or(OpenError::NoPort { scheme: config.scheme.name() })?;
    let port = open(config, port_config)?;
    let engine = SequentialEngine::new(port, sequential_config(config, capture(config, now)?), now);
    Ok(Box::new(engine.map_err(|error| OpenError::Engine(error.to_string()))?))
}

/// The engine of scheme `softrdma`.
pub(super) fn softrdma(config: &DeviceConfig, now: Instant) -> Result<Box<dyn Engine>, OpenError> {
    let port_config = config.port.as_ref().ok_or(OpenError::NoPort { scheme: config.scheme.name() })?;
    let port = open(config, port_config)?;
    let engine = SoftrdmaEngine::new(port, softrdma_config(config, port_config, capture(config, now)?), now);
    Ok(Box::new(engine.map_err(|error| OpenError::Engine(error.to_string()))?))
}

fn sequential_config(config: &DeviceConfig, capture: Option<Box<dyn FrameSink>>) -> SequentialConfig {
    let (limits, timing, default) = (&config.limits, &config.timing, SequentialConfig::default());
    SequentialConfig {
        addresses: config.addresses.iter().map(|address| (address.address, address.prefix)).collect(),
        gateways: config.gateways.clone(),
        mtu: Some(config.mtu as usize),
        max_connections: limits.max_connections as usize,
        max_listeners: limits.max_listeners as usize,
        max_backlog: limits.backlog as usize,
        max_time_wait: limits.max_time_wait.map_or(default.max_time_wait, |count| count as usize),
        socket_buffer_bytes: limits.socket_buffer_bytes as usize,
        random_seed: config.random_seed.unwrap_or_else(rand::random),
        checksum: config.checksum,
        connect_timeout: milliseconds(timing.connect_timeout_ms),
        half_open_timeout: milliseconds(timing.handshake_timeout_ms),
        congestion_control: match config.congestion_control {
            CongestionControl::Off => sequential::CongestionControl::Off,
            CongestionControl::Reno => sequential::CongestionControl::Reno,
            CongestionControl::Cubic => sequential::CongestionControl::Cubic,
        },
        user_timeout: milliseconds(timing.user_timeout_ms),
        keep_alive_interval: milliseconds(timing.keep_alive_interval_ms),
        capture,
    }
}

fn softrdma_config(
    config: &DeviceConfig,
    port: &PortConfigText,
    capture: Option<Box<dyn FrameSink>>,
) -> SoftrdmaConfig {
    let (limits, timing, default) = (&config.limits, &config.timing, SoftrdmaConfig::default());
    SoftrdmaConfig {
        addresses: config.addresses.iter().map(|address| (address.address, address.prefix)).collect(),
        gateways: config.gateways.clone(),
        mtu: Some(config.mtu as usize),
        max_connections: limits.max_connections as usize,
        max_listeners: limits.max_listeners as usize,
        max_backlog: limits.backlog as usize,
        max_time_wait: limits.max_time_wait.map_or(default.max_time_wait, |count| count as usize),
        receive_window_bytes: limits.socket_buffer_bytes as usize,
        // The rest of the pool is for what is on its way in and out.
        max_held_packets: (port.pool_packets / 4).max(1) as usize,
        random_seed: config.random_seed.unwrap_or_else(rand::random),
        checksum: config.checksum,
        connect_timeout: milliseconds(timing.connect_timeout_ms),
        half_open_timeout: milliseconds(timing.handshake_timeout_ms),
        congestion_control: match config.congestion_control {
            CongestionControl::Reno => softrdma::CongestionControl::Reno,
            // Off is refused with this scheme.
            CongestionControl::Cubic | CongestionControl::Off => softrdma::CongestionControl::Cubic,
        },
        user_timeout: milliseconds(timing.user_timeout_ms),
        keep_alive_interval: milliseconds(timing.keep_alive_interval_ms),
        time_wait: milliseconds(timing.time_wait_ms),
        acknowledgement_delay: Duration::from_micros(timing.acknowledgement_delay_us.into()),
        min_retransmission_timeout: Duration::from_micros(timing.min_retransmission_us.into()),
        capture,
        ..default
    }
}

/// Makes the calling thread one that gets the CPU when it wakes, though an application computes there: a stack's.
pub(super) fn prefer_latency() {
    if let Err(error) = glue::shorten_slices(SLICE_NS) {
        tracing::debug!(%error, "the scheduler gives the stack's thread no short slices");
    }
}

fn open(config: &DeviceConfig, port: &PortConfigText) -> Result<glue::EthPort, OpenError> {
    let mut port_config = describe(&port.device)?;
    port_config.receive_queues = port.queues;
    port_config.transmit_queues = port.queues;
    port_config.receive_descriptors = port.descriptors;
    port_config.transmit_descriptors = port.descriptors;
    port_config.pool_packets = port.pool_packets;
    port_config.mtu = config.mtu as usize;
    // A frame is built in one buffer, so buffers hold at least a whole one.
    let data_room = port.data_room_bytes as usize;
    port_config.data_room = (data_room >= config.mtu as usize + BUFFER_OVERHEAD).then_some(data_room);
    port_config.offloads = port.offload;
    port_config.peer_wait = milliseconds(config.timing.peer_wait_ms);
    let eal = glue::Eal::init(&eal_config(config, &port.device)).map_err(|error| OpenError::Port(error.to_string()))?;
    glue::EthPort::open(&eal, &port_config).map_err(|error| OpenError::Port(error.to_string()))
}

fn describe(device: &PortDevice) -> Result<glue::PortConfig, OpenError> {
    let text = |path: &std::path::Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| OpenError::Port(format!("{} is no UTF-8 path", path.display())))
    };
    Ok(match device {
        PortDevice::Memif { role, id, socket } => {
            let role = match role {
                MemifRole::Server => glue::MemifRole::Server,
                MemifRole::Client => glue::MemifRole::Client,
            };
            glue::PortConfig::memif(role, *id, socket)
        }
        PortDevice::Tap { interface } => glue::PortConfig::tap(interface),
        PortDevice::AfPacket { interface } => glue::PortConfig::af_packet(interface),
        PortDevice::AfXdp { interface } => glue::PortConfig::af_xdp(interface),
        PortDevice::Ring {} => glue::PortConfig::ring(),
        PortDevice::Null {} => glue::PortConfig::null(64),
        PortDevice::Pci { address } => glue::PortConfig::pci(address),
        PortDevice::Vhost { socket } => glue::PortConfig::vhost(&text(socket)?),
        PortDevice::VirtioUser { socket } => glue::PortConfig::virtio_user(&text(socket)?),
        PortDevice::Dpdk { arguments } => glue::PortConfig::new(arguments.clone()),
    })
}

fn eal_config(config: &DeviceConfig, device: &PortDevice) -> glue::EalConfig {
    let mut extra_arguments = config.eal.arguments.clone();
    // vhost-user passes memory by descriptors, one a segment: one file keeps them few (the DPDK guide of virtio_user).
    if matches!(device, PortDevice::Vhost { .. } | PortDevice::VirtioUser { .. }) {
        extra_arguments.push("--single-file-segments".to_owned());
    }
    glue::EalConfig {
        huge_pages: match config.eal.huge_pages {
            HugePages::Off => glue::HugePages::Off,
            HugePages::On => glue::HugePages::On,
            HugePages::Auto => glue::HugePages::Auto,
        },
        memory_mib: config.eal.memory_mib,
        file_prefix: config.eal.file_prefix.clone(),
        pci: match device {
            PortDevice::Pci { address } => vec![address.clone()],
            _ => Vec::new(),
        },
        extra_arguments,
    }
}

fn milliseconds(count: u32) -> Duration {
    Duration::from_millis(count.into())
}

/// A pcap file that ends at a size.
struct BoundedCapture {
    writer: PcapWriter<BufWriter<File>>,
    room: u64,
    frame_bytes: u64,
}

impl FrameSink for BoundedCapture {
    fn handle_frame(&mut self, now: Instant, direction: FrameDirection, parts: &[&[u8]]) {
        let bytes = parts.iter().map(|part| part.len() as u64).sum::<u64>().min(self.frame_bytes) + 16;
        if let Some(left) = self.room.checked_sub(bytes) {
            self.room = left;
            self.writer.handle_frame(now, direction, parts);
        } else {
            self.room = 0;
        }
    }
}

fn capture(config: &DeviceConfig, now: Instant) -> Result<Option<Box<dyn FrameSink>>, OpenError> {
    config.capture.as_ref().map(|capture| open_capture(capture, now)).transpose()
}

fn open_capture(capture: &Capture, now: Instant) -> Result<Box<dyn FrameSink>, OpenError> {
    let failed = |error: std::io::Error| OpenError::Port(format!("capture file {}: {error}", capture.file.display()));
    let file = File::create(&capture.file).map_err(failed)?;
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let origin = since_epoch.saturating_sub(now.saturating_since(Instant::ZERO));
    let writer = PcapWriter::new(BufWriter::new(file), origin, capture.frame_bytes).map_err(failed)?;
    let room = u64::from(capture.max_file_mib) << 20;
    Ok(Box::new(BoundedCapture { writer, room, frame_bytes: capture.frame_bytes.into() }))
}

#[cfg(test)]
mod tests;
