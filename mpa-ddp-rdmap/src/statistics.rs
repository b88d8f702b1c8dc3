//! Counters of the two halves.

/// What [`crate::Inbound`] has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboundStatistics {
    /// FPDUs consumed.
    pub fpdus: u64,
    /// FPDUs whose CRC was wrong (at most one: it ends the connection).
    pub crc_errors: u64,
    /// Payload bytes copied into registered memory, each once.
    pub placed_bytes: u64,
    /// Messages delivered.
    pub messages: MessageCounts,
    /// Times that a message had to wait because no receive was posted.
    pub receive_waits: u64,
}

/// What [`crate::Outbound`] has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboundStatistics {
    /// FPDUs committed to the stream.
    pub fpdus: u64,
    /// Payload bytes in them.
    pub payload_bytes: u64,
    /// Messages whose last FPDU was committed.
    pub messages: MessageCounts,
    /// FPDUs that were written a second time, or in pieces.
    pub rewritten_fpdus: u64,
    /// Bytes of Read responses kept for retransmission now.
    pub retained_bytes: u64,
}

/// Messages by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCounts {
    /// Sends of all four forms.
    pub sends: u64,
    /// RDMA Writes.
    pub writes: u64,
    /// RDMA Read Requests.
    pub read_requests: u64,
    /// RDMA Read Responses.
    pub read_responses: u64,
    /// Immediate Data of both forms.
    pub immediates: u64,
    /// Atomic Requests.
    pub atomic_requests: u64,
    /// Atomic Responses.
    pub atomic_responses: u64,
    /// Terminate.
    pub terminates: u64,
}
