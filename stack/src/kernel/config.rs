//! What a [`super::KernelEngine`] is made with.

use std::io;
use std::time::Duration;

/// The largest record the engine takes, in bytes: the length of an FPDU has 16 bits (RFC 5044 §4.1).
pub(super) const LARGEST_RECORD: usize = 65_535;

/// Limits and settings of a [`super::KernelEngine`]. Every limit is reached with an error or with back pressure, never
/// with growth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelConfig {
    /// Connections, half-open ones included. Further ones that peers open are reset and counted.
    pub max_connections: usize,
    /// Listeners.
    pub max_listeners: usize,
    /// Bytes of a stream that are held for a sink that does not take them, at most; one read brings no more. Beyond it
    /// the socket is not read and TCP's window closes. At least 64 KiB, so that the largest FPDU becomes whole.
    pub receive_buffer_bytes: usize,
    /// Receive buffers of full size, shared by all connections. A connection has one only while it holds bytes that the
    /// sink left. When more are needed, one is taken from the connection that has had its own the longest, whose bytes
    /// move to memory of just their size; that copy is counted.
    pub receive_buffers: usize,
    /// Bytes that are gathered for one write. At least 64 KiB, so that the largest record fits.
    pub transmit_stage_bytes: usize,
    /// Transmit stages of full size, shared by all connections as the receive buffers are.
    pub transmit_stages: usize,
    /// Bytes that one `poll` receives, at most (plus one read).
    pub receive_budget_bytes: usize,
    /// Bytes that one `transmit` takes, at most (plus one stage); then `Blocked`, and `Writable` with the next `poll`.
    pub transmit_budget_bytes: usize,
    /// How long a connection may take to become established.
    pub connect_timeout: Duration,
    /// How long a stream may live after `close` was called; then it is reset.
    pub linger_timeout: Duration,
    /// How long bytes may lie unconsumed after the peer ended its direction (a record that was never finished); then the
    /// stream is reset. Must be longer than any grace of the layer above.
    pub truncation_timeout: Duration,
    /// How long sent bytes may stay unacknowledged; `None`: the system's default (RFC 5482).
    pub unacknowledged_timeout: Option<Duration>,
    /// Probes on idle connections; `None`: none.
    pub keep_alive: Option<KeepAlive>,
    /// Bytes of the socket's send buffer; `None`: the system tunes it.
    pub socket_send_bytes: Option<usize>,
    /// Bytes of the socket's receive buffer; `None`: the system tunes it.
    pub socket_receive_bytes: Option<usize>,
}

/// Keep-alive probes (RFC 9293 §3.8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Idle time before the first probe; whole seconds.
    pub idle: Duration,
    /// Time between probes; whole seconds.
    pub interval: Duration,
    /// Unanswered probes after which the connection is dead.
    pub probes: u32,
}

impl Default for KernelConfig {
    fn default() -> Self {
        Self {
            max_connections: 16_384,
            max_listeners: 256,
            receive_buffer_bytes: 256 << 10,
            receive_buffers: 64,
            transmit_stage_bytes: 256 << 10,
            transmit_stages: 64,
            receive_budget_bytes: 1 << 20,
            transmit_budget_bytes: 1 << 20,
            connect_timeout: Duration::from_secs(20),
            linger_timeout: Duration::from_secs(10),
            truncation_timeout: Duration::from_secs(30),
            unacknowledged_timeout: None,
            keep_alive: Some(KeepAlive { idle: Duration::from_secs(60), interval: Duration::from_secs(10), probes: 6 }),
            socket_send_bytes: None,
            socket_receive_bytes: None,
        }
    }
}

impl KernelConfig {
    /// Checks every value; the error names the first bad one and what is accepted.
    pub(super) fn validate(&self) -> io::Result<()> {
        const MOST_CONNECTIONS: usize = 1 << 24;
        between("max_connections", self.max_connections, 1, MOST_CONNECTIONS)?;
        between("max_listeners", self.max_listeners, 1, MOST_CONNECTIONS)?;
        between("receive_buffer_bytes", self.receive_buffer_bytes, LARGEST_RECORD + 1, 1 << 30)?;
        between("receive_buffers", self.receive_buffers, 1, MOST_CONNECTIONS)?;
        between("transmit_stage_bytes", self.transmit_stage_bytes, LARGEST_RECORD + 1, 1 << 30)?;
        between("transmit_stages", self.transmit_stages, 1, MOST_CONNECTIONS)?;
        between("receive_budget_bytes", self.receive_budget_bytes, 1, usize::MAX)?;
        between("transmit_budget_bytes", self.transmit_budget_bytes, 1, usize::MAX)
    }
}

fn between(name: &str, value: usize, least: usize, most: usize) -> io::Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is {value}; accepted are {least} to {most}")))
}
