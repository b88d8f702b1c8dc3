//! Why a run ended early. What is merely wrong with the data is counted instead, and shown in the row.

use std::fmt::Display;
use std::time::Duration;

use softrdma_bins_common::device::DeviceArgumentsError;
use softrdma_verbs::Status;

/// What ended a run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Something that had to happen did not.
    #[error("no {what} within {} s (--timeout)", limit.as_secs_f64())]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// A request failed.
    #[error("{what} on queue pair {queue_pair} completed with {status:?}")]
    Completion {
        /// Which request.
        what: &'static str,
        /// The queue pair, counted from 0.
        queue_pair: u32,
        /// How it ended.
        status: Status,
    },
    /// The peer went away, or never was there.
    #[error("{0}")]
    Connection(String),
    /// The peer says that it cannot go on.
    #[error("the server says: {0}")]
    Peer(String),
    /// The peer does not speak our protocol.
    #[error("the peer is no softrdma-perf of this version: {0}")]
    Protocol(String),
    /// A call of the device, the system or the fabric failed.
    #[error("{what}: {source}")]
    Call {
        /// What was attempted.
        what: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The command line asks for what there is not.
    #[error("{0}")]
    CommandLine(String),
    /// What was asked for cannot be done here.
    #[error("{0}")]
    Refused(String),
}

impl Failure {
    /// 2 for a wrong command line, as the parser of command lines has it; else 1.
    pub(crate) fn exit_code(&self) -> u8 {
        if matches!(self, Self::CommandLine(_)) { 2 } else { 1 }
    }
}

impl From<DeviceArgumentsError> for Failure {
    fn from(error: DeviceArgumentsError) -> Self {
        Self::CommandLine(error.to_string())
    }
}

/// Says what was attempted when a call fails.
pub(crate) trait Context<T> {
    /// `what` in a few words, as "cannot listen on ...".
    fn context<D: Display>(self, what: impl FnOnce() -> D) -> Result<T, Failure>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Context<T> for Result<T, E> {
    fn context<D: Display>(self, what: impl FnOnce() -> D) -> Result<T, Failure> {
        self.map_err(|source| Failure::Call { what: what().to_string(), source: source.into() })
    }
}
