//! Requests and replies over the first connection of a run: JSON in Sends.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use softrdma_verbs::{AccessFlags, CompletionQueue, MemoryRegion, QueuePair};
use softrdma_verbs::{Operation, Payload, SegmentList, SendRequest, Status};

use crate::endpoint::{Endpoint, Link, NO_COMPLETION, Queues};
use crate::failure::{Context, Failure};
use crate::message::MAX_MESSAGE;
use crate::wait::Patience;

/// Receives that are posted: one side has at most one request or reply under way.
const RECEIVES: u64 = 4;

/// Name of the send request; receives are named by their place.
const SEND: u64 = u64::MAX;

/// How long the peer may take to leave after it has said goodbye.
const LEAVE: Duration = Duration::from_secs(5);

/// After so long a sleeper looks by itself.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

/// What a control connection is made from.
pub(crate) struct ControlQueues {
    pub(crate) queues: Queues,
    region: MemoryRegion,
}

impl ControlQueues {
    pub(crate) fn new(endpoint: &Endpoint) -> Result<Self, Failure> {
        let domain = endpoint.device.allocate_protection_domain().context(|| "cannot make a protection domain")?;
        let capacity = RECEIVES as usize + 4;
        let channel = endpoint.device.create_completion_channel().context(|| "cannot make a completion channel")?;
        let completions = endpoint
            .device
            .create_completion_queue(capacity, Some(&channel))
            .context(|| "cannot make a completion queue")?;
        let length = (RECEIVES as usize + 1) * MAX_MESSAGE;
        let region = domain.allocate(length, AccessFlags::LOCAL_WRITE).context(|| "cannot make memory for messages")?;
        let queues = Queues { domain, completions, max_send: 2, max_receive: RECEIVES as u32 };
        Ok(Self { queues, region })
    }

    /// Posts the receives of a queue pair that is not connected yet.
    pub(crate) fn prepare(&self, queue_pair: &QueuePair) -> Result<(), Failure> {
        (0..RECEIVES).try_for_each(|place| post_receive(queue_pair, &self.region, place))
    }
}

/// The control connection.
pub(crate) struct Control {
    link: Link,
    completions: CompletionQueue,
    region: MemoryRegion,
    patience: Patience,
    sending: bool,
    arrived: Option<Vec<u8>>,
    /// Why there will be no more. What arrived before is delivered all the same: a peer may say goodbye and go.
    ended: Option<String>,
    peer: &'static str,
}

impl Control {
    /// Takes a connection over `queues` into use. `peer`: what the other side is called in errors.
    pub(crate) fn new(link: Link, queues: ControlQueues, patience: Patience, peer: &'static str) -> Self {
        let ControlQueues { queues, region } = queues;
        Self {
            link,
            completions: queues.completions,
            region,
            patience,
            sending: false,
            arrived: None,
            ended: None,
            peer,
        }
    }

    pub(crate) fn send(&mut self, message: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_vec(message).context(|| "cannot write a message")?;
        if text.len() > MAX_MESSAGE {
            return Err(Failure::Refused(format!("a message of {} bytes exceeds {MAX_MESSAGE}", text.len())));
        }
        self.flush()?;
        let offset = RECEIVES as usize * MAX_MESSAGE;
        self.region.write(offset, &text).context(|| "cannot write a message")?;
        let segment = self.region.segment(offset, text.len() as u32);
        let payload = Payload::Segments(SegmentList::new(&[segment]).unwrap_or_default());
        let operation = Operation::Send { payload, invalidate: None };
        let request = SendRequest { id: SEND, operation, signaled: true, solicited: false, fence: false };
        self.sending = true;
        self.link.queue_pair.post_send(request).map_err(|error| self.lost(&error.to_string()))
    }

    /// Waits until what was sent has arrived.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        let (patience, peer) = (self.patience, self.peer);
        patience.until(
            || format!("acknowledgement of a control message by the {peer}"),
            || {
                self.poll()?;
                match &self.ended {
                    Some(why) if self.sending => Err(self.lost(why)),
                    _ => Ok((!self.sending).then_some(())),
                }
            },
        )
    }

    /// Waits until the peer has gone, for a few seconds at most: a message that completed may still be on its way, and leaving
    /// now would take it along.
    pub(crate) fn wait_for_end(&mut self) {
        let deadline = Instant::now() + LEAVE;
        while self.ended.is_none() && Instant::now() < deadline && self.poll().is_ok() {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// The next message, if it is there.
    pub(crate) fn try_receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Failure> {
        if self.arrived.is_none() {
            self.poll()?;
        }
        let Some(text) = self.arrived.take() else {
            return self.ended.as_ref().map_or(Ok(None), |why| Err(self.lost(why)));
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| Failure::Protocol(error.to_string()))
    }

    /// The next message; `what` names it if it does not come.
    pub(crate) fn receive<T: DeserializeOwned>(&mut self, what: &str) -> Result<T, Failure> {
        let (patience, peer) = (self.patience, self.peer);
        patience.until(|| format!("{what} from the {peer}"), || self.try_receive())
    }

    /// Sleeps until there is a message, or something else to look at: whoever drives the stack, it is not this thread.
    pub(crate) fn sleep(&mut self) -> Result<(), Failure> {
        self.completions.arm(false);
        self.poll()?;
        if self.arrived.is_none()
            && self.ended.is_none()
            && let Some(channel) = self.completions.channel()
            && channel.get_event(Some(LONGEST_SLEEP)).is_some()
        {
            self.completions.acknowledge_events(1);
        }
        Ok(())
    }

    pub(crate) fn disconnect(&self) {
        self.link.id.disconnect();
    }

    fn poll(&mut self) -> Result<(), Failure> {
        let mut completions = [NO_COMPLETION; 4];
        let count = self.completions.poll(&mut completions);
        for completion in &completions[..count] {
            if completion.status != Status::Success {
                self.ended.get_or_insert_with(|| format!("{:?}", completion.status));
                continue;
            }
            if completion.id == SEND {
                self.sending = false;
                continue;
            }
            if self.arrived.is_some() {
                return Err(Failure::Protocol("two messages where one was due".to_owned()));
            }
            let mut text = vec![0; completion.length as usize];
            let offset = completion.id as usize * MAX_MESSAGE;
            self.region.read(offset, &mut text).context(|| "cannot read a message")?;
            self.arrived = Some(text);
            post_receive(&self.link.queue_pair, &self.region, completion.id)?;
        }
        Ok(())
    }

    fn lost(&self, why: &str) -> Failure {
        Failure::Connection(format!("the connection to the {} ended in the middle of the run ({why})", self.peer))
    }
}

fn post_receive(queue_pair: &QueuePair, region: &MemoryRegion, place: u64) -> Result<(), Failure> {
    let segment = region.segment(place as usize * MAX_MESSAGE, MAX_MESSAGE as u32);
    queue_pair.post_receive(place, &[segment]).context(|| "cannot post a receive")
}
