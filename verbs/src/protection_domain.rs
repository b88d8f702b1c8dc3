//! Protection domains: what belongs together. A queue pair reaches only regions of its own domain.

use std::sync::Arc;

use crate::memory::{DomainMemory, RegionTable};
use crate::resources::{DeviceSide, LimitReached, Place};

/// A protection domain. Clones name the same one; memory regions, queue pairs and shared receive queues keep it.
#[derive(Clone)]
pub struct ProtectionDomain(Arc<DomainShared>);

struct DomainShared {
    table: Arc<RegionTable>,
    place: Place,
    device: Arc<dyn DeviceSide>,
}

impl ProtectionDomain {
    /// A new domain of `device`.
    pub(crate) fn new(device: Arc<dyn DeviceSide>) -> Result<Self, LimitReached> {
        let place = device.resources().protection_domains.take()?;
        let table = device.resources().regions.clone();
        Ok(Self(Arc::new(DomainShared { table, place, device })))
    }

    /// Tells it apart from the other domains of its device.
    pub fn number(&self) -> u32 {
        self.0.place.number()
    }

    /// Handles to this domain, those in regions and queues included: more than one means that it is in use.
    pub fn users(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Memory as one queue pair of this domain sees it.
    pub(crate) fn memory(&self) -> DomainMemory {
        DomainMemory::new(&self.0.table, self.number())
    }

    pub(crate) fn table(&self) -> &Arc<RegionTable> {
        &self.0.table
    }

    pub(crate) fn device(&self) -> &Arc<dyn DeviceSide> {
        &self.0.device
    }
}

impl PartialEq for ProtectionDomain {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ProtectionDomain {}

impl std::fmt::Debug for ProtectionDomain {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ProtectionDomain").field("number", &self.number()).finish()
    }
}
