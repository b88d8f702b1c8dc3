//! Counters of a device, in a form that serialises.

use std::sync::Arc;

use serde::Serialize;
use softrdma_stack::stream::EngineStatistics;

use super::Device;
use super::driver::Driver;
use crate::queue_pair::QueuePairShared;

/// Everything that a device counts. Counters start at zero when it is opened.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DeviceStatistics {
    /// The device's name.
    pub device: String,
    /// Its scheme.
    pub scheme: &'static str,
    /// Its threading model.
    pub threads: &'static str,
    /// The engine below; absent if the device is too busy to be asked.
    pub engine: Option<EngineCounters>,
    /// Connections.
    pub host: Option<HostCounters>,
    /// Payload bytes that were copied into registered memory.
    pub placed_bytes: u64,
    /// Asynchronous events that nobody took in time, and that are lost (`limits.max_async_events`).
    pub async_events_lost: u64,
    /// Live queue pairs, by number.
    pub queue_pairs: Vec<QueuePairCounters>,
}

/// Counters of the engine.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EngineCounters {
    /// Stream bytes that arrived.
    pub received_bytes: u64,
    /// Stream bytes that the engine copied on their way up (the placement itself is counted in `placed_bytes`).
    pub receive_copied_bytes: u64,
    /// Stream bytes that left.
    pub transmitted_bytes: u64,
    /// Connections open now.
    pub connections: u64,
    /// Connections refused at a limit.
    pub refused_connections: u64,
    /// Connection requests answered without keeping anything (SYN cookies), because a backlog was full.
    pub stateless_answers: u64,
    /// TCP segments sent again (0 where the engine cannot know).
    pub retransmitted_segments: u64,
    /// Packets dropped as malformed.
    pub malformed_packets: u64,
    /// The port, where there is one.
    pub port: Option<PortCounters>,
}

/// Counters of a port.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PortCounters {
    /// Frames received.
    pub received_packets: u64,
    /// Bytes in them.
    pub received_bytes: u64,
    /// Frames sent.
    pub transmitted_packets: u64,
    /// Bytes in them.
    pub transmitted_bytes: u64,
    /// Frames that found no room on arrival.
    pub receive_missed: u64,
    /// Frames that arrived broken.
    pub receive_errors: u64,
    /// Frames that could not be sent.
    pub transmit_errors: u64,
    /// Times that the receive pool was dry.
    pub receive_no_memory: u64,
}

/// Counters of the connections.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HostCounters {
    /// Connections in any phase, now.
    pub connections: u64,
    /// Connections that were established.
    pub established: u64,
    /// Handshakes that failed or took too long.
    pub handshakes_failed: u64,
    /// Streams refused because too many were half-open or undecided.
    pub half_open_refused: u64,
    /// Connections ended with a TERMINATE of ours.
    pub terminates_sent: u64,
    /// Connections ended with a TERMINATE of the peer.
    pub terminates_received: u64,
    /// Times that a message waited for a receive to be posted.
    pub receive_waits: u64,
}

/// Counters of a queue pair.
#[derive(Clone, Debug, Serialize)]
pub struct QueuePairCounters {
    /// Its number.
    pub number: u32,
    /// Its state.
    pub state: String,
    /// Send requests posted and not completed.
    pub outstanding: u32,
    /// Send requests completed.
    pub sends_completed: u64,
    /// Receives completed.
    pub receives_completed: u64,
}

pub(super) fn collect(device: &Device, driver: &Driver, queue_pairs: &[Arc<QueuePairShared>]) -> DeviceStatistics {
    let host = driver.inspect(|_, host| (host.statistics(), host.endpoint_count()));
    DeviceStatistics {
        device: device.config().name.clone(),
        scheme: device.config().scheme.name(),
        threads: device.config().threads.name(),
        engine: driver.engine_statistics().map(engine),
        host: host.map(|(host, connections)| HostCounters {
            connections: connections as u64,
            established: host.connections_established,
            handshakes_failed: host.handshakes_failed,
            half_open_refused: host.half_open_refused,
            terminates_sent: host.terminates_sent,
            terminates_received: host.terminates_received,
            receive_waits: host.receive_waits,
        }),
        placed_bytes: device.retired_placed_bytes()
            + queue_pairs.iter().map(|queue_pair| queue_pair.memory().placed_bytes()).sum::<u64>(),
        async_events_lost: driver.asynchronous().lost(),
        queue_pairs: queue_pairs.iter().map(|queue_pair| counters(queue_pair)).collect(),
    }
}

fn counters(queue_pair: &QueuePairShared) -> QueuePairCounters {
    let (outstanding, sends_completed, receives_completed) = queue_pair.counters();
    QueuePairCounters {
        number: queue_pair.number(),
        state: format!("{:?}", queue_pair.state()),
        outstanding,
        sends_completed,
        receives_completed,
    }
}

fn engine(statistics: EngineStatistics) -> EngineCounters {
    EngineCounters {
        received_bytes: statistics.received_bytes,
        receive_copied_bytes: statistics.receive_copied_bytes,
        transmitted_bytes: statistics.transmitted_bytes,
        connections: statistics.connections,
        refused_connections: statistics.refused_connections,
        stateless_answers: statistics.stateless_answers,
        retransmitted_segments: statistics.retransmitted_segments,
        malformed_packets: statistics.malformed_packets,
        port: statistics.port.map(|port| PortCounters {
            received_packets: port.received_packets,
            received_bytes: port.received_bytes,
            transmitted_packets: port.transmitted_packets,
            transmitted_bytes: port.transmitted_bytes,
            receive_missed: port.receive_missed,
            receive_errors: port.receive_errors,
            transmit_errors: port.transmit_errors,
            receive_no_memory: port.receive_no_memory,
        }),
    }
}
