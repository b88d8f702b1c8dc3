//! What one connection may take at most.

/// Longest message, in bytes, unless configured: 1 GiB.
pub const DEFAULT_MAX_MESSAGE_LENGTH: u32 = 1 << 30;

/// FPDUs of one connection that may wait for their acknowledgement. At the limit the sender pauses.
pub const MAX_UNACKNOWLEDGED_RECORDS: usize = 1024;

/// Bytes of Read responses that one connection keeps for retransmission. At the limit answering pauses.
pub const MAX_RETAINED_BYTES: usize = 4 << 20;

/// Response segments in a row while the send queue has something to send, and segments of the send queue in a row while
/// responses wait: small, so that neither adds much to the other's latency, yet large enough to keep runs together.
pub const MAX_SEGMENTS_IN_A_ROW: u32 = 4;

/// Limits of a connection. The rings of its two halves are allocated to fit, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Read Requests and atomics of the peer that may be unanswered at a time (IRD). The lower of this and the negotiated
    /// value holds.
    pub receive_read_requests: u16,
    /// Read Requests and atomics of ours that may be unanswered at a time (ORD). The lower of this and the negotiated
    /// value holds.
    pub send_read_requests: u16,
    /// Requests that the send queue holds, posted and not completed.
    pub send_queue_depth: u32,
    /// Longest Send, Write or Read, in bytes.
    pub max_message_length: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            receive_read_requests: 16,
            send_read_requests: 16,
            send_queue_depth: 256,
            max_message_length: DEFAULT_MAX_MESSAGE_LENGTH,
        }
    }
}

impl Limits {
    /// Messages from [`crate::Inbound`] to [`crate::Outbound`] that can be under way at a time: requests of the peer,
    /// answers to ours, and the two that come once.
    pub const fn messages_to_outbound(&self) -> usize {
        self.reads_in() + self.reads_out() + 2
    }

    /// Messages from [`crate::Outbound`] to [`crate::Inbound`] that can be under way at a time: requests of ours, and
    /// answers to the peer's.
    pub const fn messages_to_inbound(&self) -> usize {
        self.reads_in() + self.reads_out()
    }

    /// A Read as ready-to-receive message (RFC 6581 §9.2) is allowed even where none are otherwise.
    const fn reads_in(&self) -> usize {
        if self.receive_read_requests == 0 { 1 } else { self.receive_read_requests as usize }
    }

    const fn reads_out(&self) -> usize {
        if self.send_read_requests == 0 { 1 } else { self.send_read_requests as usize }
    }
}
