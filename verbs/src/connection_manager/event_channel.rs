//! Where the events of ids arrive.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use super::id::{CmId, CmIdShared};
use super::{CmEventKind, ConnectionOffer};
use crate::device::Device;
use crate::events::{Deadline, EventQueue};

/// An event of an id.
#[derive(Clone, Debug)]
pub struct CmEvent {
    /// The id; for a connect request, the new one.
    pub id: CmId,
    /// For a connect request: the id that listens.
    pub listener: Option<CmId>,
    /// What happened.
    pub kind: CmEventKind,
}

impl CmEvent {
    /// What the peer sent along, empty if nothing.
    pub fn private_data(&self) -> &[u8] {
        match &self.kind {
            CmEventKind::ConnectRequest { private_data, .. }
            | CmEventKind::Established { private_data, .. }
            | CmEventKind::Rejected { private_data } => private_data,
            _ => &[],
        }
    }

    /// The depths that the event tells of, zero if it tells of none.
    pub fn offer(&self) -> ConnectionOffer {
        match &self.kind {
            CmEventKind::ConnectRequest { offer, .. } | CmEventKind::Established { offer, .. } => *offer,
            _ => ConnectionOffer::default(),
        }
    }
}

/// What stands in the queue: no handle, so that a queued event keeps nothing alive.
#[derive(Debug)]
pub(super) struct QueuedEvent {
    pub(super) id: Arc<CmIdShared>,
    pub(super) kind: CmEventKind,
}

/// A queue of [`CmEvent`]s of one device, with a descriptor to poll.
#[derive(Clone, Debug)]
pub struct EventChannel {
    pub(super) queue: Arc<EventQueue<QueuedEvent>>,
    pub(super) device: Device,
}

impl EventChannel {
    /// A channel for ids on `device`. Fails when the process has no descriptor left.
    pub fn new(device: &Device) -> std::io::Result<Self> {
        Ok(Self { queue: Arc::new(EventQueue::new()?), device: device.clone() })
    }

    /// The device of the channel's ids.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Readable while there are events. A hint, no promise: a connect request whose peer goes before anybody took it is withdrawn,
    /// and events of ids that the application dropped are passed over. So a loop that polls the descriptor takes events with
    /// [`Self::try_get`], or with a [`Self::get`] that has a timeout, until there are none.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.descriptor()
    }

    /// The next event, if there is one.
    pub fn try_get(&self) -> Option<CmEvent> {
        self.device.progress_from_application();
        loop {
            let queued = self.queue.try_get()?;
            if let Some(event) = self.event(queued) {
                return Some(event);
            }
        }
    }

    /// The next event, waiting at most `timeout` for it; [`Duration::MAX`] waits for ever, even where
    /// [`Self::as_fd`] was readable a moment ago.
    pub fn get(&self, timeout: Duration) -> Option<CmEvent> {
        let deadline = Deadline::after(timeout);
        loop {
            if let Some(event) = self.try_get() {
                return Some(event);
            }
            let queued = self.queue.get(deadline)?;
            if let Some(event) = self.event(queued) {
                return Some(event);
            }
        }
    }

    /// Events of ids that the application has dropped are dropped too.
    fn event(&self, queued: QueuedEvent) -> Option<CmEvent> {
        let (id, listener) = match queued.kind {
            CmEventKind::ConnectRequest { .. } => {
                let listener = CmId::existing(queued.id.listener()?)?;
                (CmId::adopt(self, queued.id), Some(listener))
            }
            _ => (CmId::existing(&queued.id)?, None),
        };
        Some(CmEvent { id, listener, kind: queued.kind })
    }
}
