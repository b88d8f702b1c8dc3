//! What client and server say to each other: in the private data of a connection, and in Sends over the first one.

use serde::{Deserialize, Serialize};

use crate::plan::{Plan, Session};

/// Changes when the two ends would misunderstand each other otherwise.
pub(crate) const VERSION: u32 = 3;

/// Longest message of the control connection, in bytes.
pub(crate) const MAX_MESSAGE: usize = 4096;

/// Private data of a connect request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Greeting {
    /// [`VERSION`]; the name tells what kind of peer this is.
    pub(crate) softrdma_perf: u32,
    /// The run.
    pub(crate) session: u64,
    /// `None`: the control connection, else which queue pair.
    pub(crate) queue_pair: Option<u32>,
}

/// Memory of one side that the other may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remote {
    pub(crate) key: u32,
    pub(crate) address: u64,
}

/// From client to server. Every request has one reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Make memory, and wait for the other connections.
    Open { session: Session, memory: Remote },
    /// Begin a measurement.
    Start(Plan),
    /// With verification: messages `first` to `first + count` come next. Fill what will be read, post what will be received.
    Prepare { first: u64, count: u64 },
    /// With verification: these messages are through. Check what arrived.
    Check { first: u64, count: u64 },
    /// The measurement is over.
    Finish,
    /// Sleep until a message comes, and again after its reply, until a measurement begins.
    Sleep,
    /// Answer at once.
    Wake,
    /// Accept connections that carry nothing and come and go, until [`Self::Holdings`] asks what is left of them.
    Connects,
    /// Tell what the process holds.
    Holdings,
    /// The run is over.
    Goodbye,
}

/// From server to client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// To [`Request::Open`]: memory is there; the other connections may come.
    Opened { memory: Remote },
    /// To [`Request::Start`], [`Request::Prepare`], [`Request::Sleep`] and [`Request::Connects`].
    Ready,
    /// To [`Request::Check`].
    Checked(Findings),
    /// To [`Request::Finish`].
    Finished { usage: Usage, findings: Findings },
    /// To [`Request::Wake`]: when that came, by the machine's monotonic clock, in nanoseconds.
    Awake { at: u64 },
    /// To [`Request::Holdings`].
    Holds(Holdings),
    /// To [`Request::Goodbye`].
    Goodbye,
    /// To anything: the run cannot go on.
    Failed { reason: String },
}

/// What was wrong with the data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Findings {
    /// Messages, immediate values and atomics that were wrong.
    pub(crate) errors: u64,
    /// The first of them, in words.
    pub(crate) first: Option<String>,
}

impl Findings {
    /// Counts one and keeps the words if it is the first.
    pub(crate) fn add(&mut self, describe: impl FnOnce() -> String) {
        self.errors += 1;
        self.first.get_or_insert_with(describe);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.errors += other.errors;
        self.first = self.first.take().or(other.first);
    }
}

/// What a process used since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    /// Bytes that arrived in registered memory.
    pub(crate) delivered_bytes: u64,
    /// Bytes that were copied on the way there.
    pub(crate) copied_bytes: u64,
    /// Segments that were sent again; the kernel's are not seen.
    pub(crate) retransmitted_segments: u64,
}

impl Usage {
    /// What was used since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - earlier.cpu_seconds,
            delivered_bytes: self.delivered_bytes - earlier.delivered_bytes,
            copied_bytes: self.copied_bytes - earlier.copied_bytes,
            retransmitted_segments: self.retransmitted_segments - earlier.retransmitted_segments,
        }
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds + other.cpu_seconds,
            delivered_bytes: self.delivered_bytes + other.delivered_bytes,
            copied_bytes: self.copied_bytes + other.copied_bytes,
            retransmitted_segments: self.retransmitted_segments + other.retransmitted_segments,
        }
    }

    /// Copies of each byte.
    pub(crate) fn copies_per_byte(&self) -> f64 {
        if self.delivered_bytes == 0 { 0.0 } else { self.copied_bytes as f64 / self.delivered_bytes as f64 }
    }
}

/// What a process holds, and has used since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Holdings {
    pub(crate) cpu_seconds: f64,
    /// Connections that the device knows, in any phase.
    pub(crate) connections: u64,
    /// Connections that the engine below knows.
    pub(crate) streams: u64,
    pub(crate) queue_pairs: u64,
    /// By how much the resident memory grew for each of this run's connections without traffic, in bytes; nothing without
    /// any, or if the client grew in the same process.
    pub(crate) idle_connection_bytes: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{Mode, Operation};

    #[test]
    fn a_greeting_fits_the_private_data_of_any_peer() {
        let greeting = Greeting { softrdma_perf: VERSION, session: u64::MAX, queue_pair: Some(u32::MAX) };
        assert!(serde_json::to_vec(&greeting).unwrap().len() <= 256);
    }

    #[test]
    fn requests_and_replies_fit_a_message_and_read_back() {
        let session = Session {
            number: u64::MAX,
            queue_pairs: u32::MAX,
            active: u32::MAX,
            depth: u32::MAX,
            verify: false,
            max_size: u64::MAX,
            area: u64::MAX,
            seed: u64::MAX,
            server_computes_us: Some(u32::MAX),
        };
        let plan = Plan::new(&Session { area: 1 << 20, ..session }, 0, Operation::WriteImm, Mode::Throughput, 64);
        let memory = Remote { key: u32::MAX, address: u64::MAX };
        for request in [Request::Open { session, memory }, Request::Start(plan), Request::Check { first: 1, count: 2 }]
        {
            let text = serde_json::to_vec(&request).unwrap();
            assert!(text.len() <= MAX_MESSAGE);
            assert_eq!(serde_json::from_slice::<Request>(&text).unwrap(), request);
        }
    }

    #[test]
    fn findings_keep_the_first_in_words_and_count_all() {
        let mut findings = Findings::default();
        findings.add(|| "one".into());
        findings.add(|| "two".into());
        findings.merge(Findings { errors: 5, first: Some("three".into()) });
        assert_eq!(findings, Findings { errors: 7, first: Some("one".into()) });
    }
}
