//! What the objects of a device need from it, and how many of each there may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::asynchronous::AsyncEvent;
use crate::configuration::DeviceLimits;
use crate::memory::RegionTable;

/// A device, as the objects made on it see it. They keep it open.
pub(crate) trait DeviceSide: Send + Sync {
    /// Drives the device where the application may (c2, c3), so that requests complete; with c1 it does nothing.
    fn progress(&self);

    /// A receive was posted to a shared receive queue: whoever waits for one goes on.
    fn receive_posted(&self);

    /// The application is to be told.
    fn announce(&self, event: AsyncEvent);

    /// How much there can be.
    fn limits(&self) -> &DeviceLimits;

    /// What there is.
    fn resources(&self) -> &Resources;
}

/// The objects of a device, counted, and its table of memory.
#[derive(Debug)]
pub(crate) struct Resources {
    pub(crate) regions: Arc<RegionTable>,
    pub(crate) protection_domains: Count,
    pub(crate) completion_queues: Count,
    pub(crate) shared_receive_queues: Count,
}

impl Resources {
    pub(crate) fn new(limits: &DeviceLimits) -> Self {
        Self {
            regions: Arc::new(RegionTable::new(limits.max_regions as usize)),
            protection_domains: Count::new(
                "protection domains",
                "limits.max_protection_domains",
                limits.max_protection_domains,
            ),
            completion_queues: Count::new(
                "completion queues",
                "limits.max_completion_queues",
                limits.max_completion_queues,
            ),
            shared_receive_queues: Count::new(
                "shared receive queues",
                "limits.max_shared_receive_queues",
                limits.max_shared_receive_queues,
            ),
        }
    }
}

/// A limit of the device is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device's limit of {limit} {what} is reached; drop some or raise `{key}`")]
pub struct LimitReached {
    /// Kind of object, in the plural.
    pub what: &'static str,
    /// The limit.
    pub limit: u32,
    /// Its key in the configuration.
    pub key: &'static str,
}

/// Counts the live objects of one kind and gives each a number.
#[derive(Debug)]
pub(crate) struct Count {
    what: &'static str,
    key: &'static str,
    limit: u32,
    live: Arc<AtomicU32>,
    last_number: AtomicU32,
}

/// A place within a limit, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    number: u32,
    live: Arc<AtomicU32>,
}

impl Count {
    fn new(what: &'static str, key: &'static str, limit: u32) -> Self {
        Self { what, key, limit, live: Arc::default(), last_number: AtomicU32::new(0) }
    }

    /// Takes a place.
    pub(crate) fn take(&self) -> Result<Place, LimitReached> {
        let taken =
            self.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |live| (live < self.limit).then(|| live + 1));
        if taken.is_err() {
            return Err(LimitReached { what: self.what, limit: self.limit, key: self.key });
        }
        let number = self.last_number.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        Ok(Place { number, live: self.live.clone() })
    }
}

impl Place {
    /// Tells the object apart from the others of its kind.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A device of nothing but memory and queues.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct BareDevice {
    limits: DeviceLimits,
    resources: Resources,
    pub(crate) receives_posted: AtomicU32,
}

#[cfg(test)]
impl BareDevice {
    pub(crate) fn new(limits: DeviceLimits) -> Arc<Self> {
        let resources = Resources::new(&limits);
        Arc::new(Self { limits, resources, receives_posted: AtomicU32::new(0) })
    }
}

#[cfg(test)]
impl DeviceSide for BareDevice {
    fn progress(&self) {}

    fn receive_posted(&self) {
        self.receives_posted.fetch_add(1, Ordering::Relaxed);
    }

    fn announce(&self, _event: AsyncEvent) {}

    fn limits(&self) -> &DeviceLimits {
        &self.limits
    }

    fn resources(&self) -> &Resources {
        &self.resources
    }
}
