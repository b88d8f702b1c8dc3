//! Pieces of the outgoing stream, and why a request cannot be posted.

/// One FPDU in the outgoing stream. Travels whole if the engine can do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Offset of its first byte in the stream.
    pub start: u64,
    /// Bytes in it.
    pub length: u32,
}

impl Record {
    /// Offset of the byte behind it.
    pub const fn end(&self) -> u64 {
        self.start + self.length as u64
    }
}

/// Who keeps what may have to be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// The engine asks for a range again until the peer acknowledges it: Read responses are copied when they are
    /// committed and kept until then, as their source may be gone.
    UntilAcknowledged,
    /// The engine copies every record at once and acknowledges it right away.
    None,
}

/// Why a request cannot be posted. Nothing was queued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// The send queue is full.
    #[error("the send queue holds {depth} requests already; poll completions, or raise the depth")]
    QueueFull {
        /// Its depth.
        depth: u32,
    },
    /// The message is longer than allowed.
    #[error("a message of {length} bytes is longer than the limit of {limit}")]
    TooLong {
        /// Its length.
        length: u64,
        /// The limit.
        limit: u32,
    },
    /// More bytes inline than fit.
    #[error("{length} bytes inline are more than the limit of {limit}")]
    InlineTooLong {
        /// Bytes given.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// The result of an atomic has eight bytes.
    #[error("the local buffer of an atomic has {length} bytes, it needs exactly 8")]
    AtomicSink {
        /// Its length.
        length: u32,
    },
    /// The connection allows no Reads or atomics: an ORD of 0 was negotiated.
    #[error("RDMA Reads and atomics are not possible: the negotiated ORD is 0")]
    NoReads,
    /// The connection is ending.
    #[error("the connection is ending and takes no more requests")]
    Ended,
}
