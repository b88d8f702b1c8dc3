//! One end of a ping: a connection with two buffers, each step of it bounded in time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use softrdma_verbs::{
    AccessFlags, CmError, CmEvent, CmEventKind, CmId, CompletionChannel, CompletionQueue, ConnectParameters, Device,
    EventChannel, MemoryRegion, OpenError, Operation, PostError, QueuePairAttributes, SegmentList, SendRequest, Status,
    WorkCompletion,
};

use super::announcement::{ANNOUNCEMENT_BYTES, Announcement};

/// Receives that are posted: neither side sends twice without an answer.
const RECEIVES: u64 = 2;

/// Reads outstanding, each way: the protocol has one at a time, and some peers offer no more.
const READS: u16 = 1;

/// Longest wait for a descriptor before the queue is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why a ping failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PingError {
    #[error("cannot open the device: {0}")]
    Open(#[source] OpenError),
    #[error("cannot {what}: {reason}")]
    Make { what: &'static str, reason: String },
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: CmError },
    #[error("no connection to {peer}: {reason}")]
    Connect { peer: SocketAddr, reason: String },
    #[error("the peer was silent for {} s: no {what}", limit.as_secs())]
    Timeout { what: &'static str, limit: Duration },
    #[error("{what} failed: {status:?}")]
    Completion { what: &'static str, status: Status },
    #[error("{what} was not taken: {source}")]
    Post { what: &'static str, source: PostError },
    #[error("the peer closed the connection {0}")]
    Closed(&'static str),
    #[error("the peer announced {length} bytes; a ping has at most {limit}")]
    TooLong { length: u32, limit: u64 },
    #[error("the peer sent {0} bytes where 16 announce memory: is it rping?")]
    NoAnnouncement(u32),
    #[error("round {round}: byte {offset} came back as {found:#04x} instead of {expected:#04x}")]
    Wrong { round: u64, offset: usize, found: u8, expected: u8 },
    #[error("{done} rounds instead of {expected}")]
    Rounds { done: u64, expected: u64 },
}

/// Memory, queues and a connection.
pub(super) struct End {
    pub(super) id: CmId,
    /// Where the peer reads, or what was read from it.
    pub(super) source: MemoryRegion,
    /// Where the peer writes.
    pub(super) sink: MemoryRegion,
    messages: MemoryRegion,
    completions: CompletionQueue,
    wakeups: CompletionChannel,
    timeout: Duration,
    /// Announcements that arrived before they were waited for.
    arrived: Option<Announcement>,
    sent: bool,
}

impl End {
    /// Gives `id` a queue pair and memory; it is not connected yet.
    pub(super) fn new(device: &Device, id: CmId, buffer_bytes: u64, timeout: Duration) -> Result<Self, PingError> {
        let domain = device.allocate_protection_domain().map_err(|error| make("make a protection domain", error))?;
        let wakeups = device.create_completion_channel().map_err(|error| make("make a completion channel", error))?;
        let completions = device
            .create_completion_queue(16, Some(&wakeups))
            .map_err(|error| make("make a completion queue", error))?;
        let attributes = QueuePairAttributes {
            send_completion_queue: completions.clone(),
            receive_completion_queue: completions.clone(),
            shared_receive_queue: None,
            max_send: 4,
            max_receive: RECEIVES as u32,
            signal_all: true,
        };
        let queue_pair =
            device.create_queue_pair(&domain, &attributes).map_err(|error| make("make a queue pair", error))?;
        id.set_queue_pair(queue_pair);
        let allocate =
            |length: usize, access| domain.allocate(length, access).map_err(|error| make("make memory", error));
        let end = Self {
            source: allocate(buffer_bytes as usize, AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_READ)?,
            sink: allocate(buffer_bytes as usize, AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_WRITE)?,
            messages: allocate((RECEIVES as usize + 1) * ANNOUNCEMENT_BYTES, AccessFlags::LOCAL_WRITE)?,
            id,
            completions,
            wakeups,
            timeout,
            arrived: None,
            sent: false,
        };
        (0..RECEIVES).try_for_each(|place| end.post_receive(place))?;
        Ok(end)
    }

    /// How a connection is asked for and granted.
    pub(super) fn parameters() -> ConnectParameters {
        ConnectParameters { ird: Some(READS), ord: Some(READS), ..ConnectParameters::default() }
    }

    /// Announces memory, or with all zeros says go on.
    pub(super) fn announce(&mut self, announcement: Announcement) -> Result<(), PingError> {
        let place = RECEIVES as usize * ANNOUNCEMENT_BYTES;
        self.messages.write(place, &announcement.to_bytes()).map_err(|error| make("write memory", error))?;
        let segment = self.messages.segment(place, ANNOUNCEMENT_BYTES as u32);
        let payload = softrdma_verbs::Payload::Segments(SegmentList::new(&[segment]).unwrap_or_default());
        self.request("a Send", Operation::Send { payload, invalidate: None })
    }

    /// Posts a request and waits until it is complete.
    pub(super) fn request(&mut self, what: &'static str, operation: Operation) -> Result<(), PingError> {
        let request = SendRequest { id: u64::MAX, operation, signaled: true, solicited: false, fence: false };
        self.sent = false;
        let queue_pair = self.id.queue_pair().ok_or(PingError::Closed("before it was there"))?;
        queue_pair.post_send(request).map_err(|source| PingError::Post { what, source })?;
        self.wait(what, |end| end.sent.then_some(()))
    }

    /// Waits for the peer's next announcement.
    pub(super) fn announcement(&mut self, what: &'static str) -> Result<Announcement, PingError> {
        self.wait(what, |end| end.arrived.take())
    }

    fn wait<T>(&mut self, what: &'static str, mut done: impl FnMut(&mut Self) -> Option<T>) -> Result<T, PingError> {
        let begun = Instant::now();
        loop {
            if let Some(result) = done(self) {
                return Ok(result);
            }
            // Armed before looking: a completion in between gives an event.
            self.completions.arm(false);
            if self.reap(what)? {
                continue;
            }
            if begun.elapsed() >= self.timeout {
                return Err(PingError::Timeout { what, limit: self.timeout });
            }
            if self.wakeups.get_event(Some(LOOK_AGAIN)).is_some() {
                self.completions.acknowledge_events(1);
            }
        }
    }

    /// `true`: something had completed.
    fn reap(&mut self, what: &'static str) -> Result<bool, PingError> {
        let Some(completion) = self.completions.poll_one() else { return Ok(false) };
        let WorkCompletion { id, status, length, .. } = completion;
        match status {
            Status::Success => {}
            Status::Flushed => return Err(PingError::Closed("in the middle of a round")),
            status => return Err(PingError::Completion { what, status }),
        }
        if id == u64::MAX {
            self.sent = true;
            return Ok(true);
        }
        if length as usize != ANNOUNCEMENT_BYTES {
            return Err(PingError::NoAnnouncement(length));
        }
        let mut bytes = [0; ANNOUNCEMENT_BYTES];
        let place = id as usize * ANNOUNCEMENT_BYTES;
        self.messages.read(place, &mut bytes).map_err(|error| make("read memory", error))?;
        self.arrived = Some(Announcement::from_bytes(&bytes));
        self.post_receive(id)?;
        Ok(true)
    }

    fn post_receive(&self, place: u64) -> Result<(), PingError> {
        let segment = self.messages.segment(place as usize * ANNOUNCEMENT_BYTES, ANNOUNCEMENT_BYTES as u32);
        let queue_pair = self.id.queue_pair().ok_or(PingError::Closed("before it was there"))?;
        queue_pair.post_receive(place, &[segment]).map_err(|source| PingError::Post { what: "a receive", source })
    }
}

/// The next event of `id` that is not a stage on the way.
pub(super) fn outcome(events: &EventChannel, id: &CmId, timeout: Duration) -> Option<CmEvent> {
    let begun = Instant::now();
    while let Some(left) = timeout.checked_sub(begun.elapsed()) {
        let event = events.get(left)?;
        let is_stage = matches!(event.kind, CmEventKind::AddressResolved | CmEventKind::RouteResolved);
        if event.id == *id && !is_stage {
            return Some(event);
        }
    }
    None
}

pub(super) fn make(what: &'static str, reason: impl std::fmt::Display) -> PingError {
    PingError::Make { what, reason: reason.to_string() }
}
