//! Making the objects of a device, and what they need from it.

use std::sync::Arc;

use super::{Device, DeviceShared};
use crate::asynchronous::AsyncEvent;
use crate::completion_channel::CompletionChannel;
use crate::completion_queue::{CompletionQueue, CreateCompletionQueueError};
use crate::configuration::DeviceLimits;
use crate::protection_domain::ProtectionDomain;
use crate::queue_pair::{QueuePair, QueuePairAttributes, QueuePairSettings, QueuePairShared};
use crate::receive_queue::ReceiveQueue;
use crate::resources::{DeviceSide, LimitReached, Resources};

/// Why a queue pair could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateQueuePairError {
    /// As many as there may be.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// A queue larger than the device allows.
    #[error("a {what} of {asked} requests exceeds the device's {limit} (`{key}`)")]
    Depth {
        /// Which queue.
        what: &'static str,
        /// What was asked for.
        asked: u32,
        /// The most there may be.
        limit: u32,
        /// The key of the limit in the configuration.
        key: &'static str,
    },
    /// An object of another device.
    #[error("the {what} belongs to another device; make it on the device of the queue pair")]
    OtherDevice {
        /// Which.
        what: &'static str,
    },
    /// Who takes receives from a shared queue places into memory of its domain.
    #[error(
        "the shared receive queue belongs to another protection domain than the queue pair; make it in the same one"
    )]
    OtherDomain,
}

impl DeviceSide for DeviceShared {
    fn progress(&self) {
        self.driver.progress_from_application();
    }

    fn receive_posted(&self) {
        self.driver.ring_for_receive();
    }

    fn announce(&self, event: AsyncEvent) {
        self.driver.asynchronous().push(event);
    }

    fn limits(&self) -> &DeviceLimits {
        &self.config.limits
    }

    fn resources(&self) -> &Resources {
        &self.resources
    }
}

impl Device {
    fn side(&self) -> Arc<dyn DeviceSide> {
        self.0.clone()
    }

    /// A protection domain, in which regions and queue pairs are made.
    pub fn allocate_protection_domain(&self) -> Result<ProtectionDomain, LimitReached> {
        ProtectionDomain::new(self.side())
    }

    /// A completion channel: a descriptor that wakes who waits for completions. Fails when the process has no descriptor left.
    pub fn create_completion_channel(&self) -> std::io::Result<CompletionChannel> {
        CompletionChannel::new()
    }

    /// A completion queue of `capacity` entries, which announces itself at `channel`.
    pub fn create_completion_queue(
        &self,
        capacity: usize,
        channel: Option<&CompletionChannel>,
    ) -> Result<CompletionQueue, CreateCompletionQueueError> {
        CompletionQueue::new(self.side(), capacity, channel)
    }

    /// A reliable connected queue pair in `domain`, in RESET.
    pub fn create_queue_pair(
        &self,
        domain: &ProtectionDomain,
        attributes: &QueuePairAttributes,
    ) -> Result<QueuePair, CreateQueuePairError> {
        self.check_owners(domain, attributes)?;
        let limits = &self.config().limits;
        check_depth("send queue", attributes.max_send, limits.max_send_requests, "limits.max_send_requests")?;
        let shared_queue = attributes.shared_receive_queue.as_ref();
        if shared_queue.is_none() {
            let key = "limits.max_receive_requests";
            check_depth("receive queue", attributes.max_receive, limits.max_receive_requests, key)?;
        }
        let make = |number| {
            QueuePairShared::new(QueuePairSettings {
                number,
                memory: domain.memory(),
                send_completions: attributes.send_completion_queue.shared().clone(),
                receive_completions: attributes.receive_completion_queue.shared().clone(),
                receives: match shared_queue {
                    Some(queue) => queue.queue().clone(),
                    // Zero counts as one: programs ask for queues that they never use.
                    None => Arc::new(ReceiveQueue::new(attributes.max_receive.max(1) as usize)),
                },
                receives_shared: shared_queue.is_some(),
                max_send: attributes.max_send,
                signal_all: attributes.signal_all,
            })
        };
        let (what, limit) = ("queue pairs", limits.max_queue_pairs);
        let reached = LimitReached { what, limit, key: "limits.max_queue_pairs" };
        let shared = self.register_queue_pair(make).ok_or(reached)?;
        Ok(QueuePair::new(self, domain, attributes, shared))
    }

    /// A queue pair reaches what its device drives, and the memory of its domain.
    fn check_owners(
        &self,
        domain: &ProtectionDomain,
        attributes: &QueuePairAttributes,
    ) -> Result<(), CreateQueuePairError> {
        let queues = [&attributes.send_completion_queue, &attributes.receive_completion_queue];
        let owners = [
            ("protection domain", domain.device()),
            ("completion queue", queues[0].device()),
            ("completion queue", queues[1].device()),
        ];
        for (what, owner) in owners {
            if !Arc::ptr_eq(&owner.resources().regions, &self.0.resources.regions) {
                return Err(CreateQueuePairError::OtherDevice { what });
            }
        }
        match &attributes.shared_receive_queue {
            Some(queue) if queue.protection_domain() != domain => Err(CreateQueuePairError::OtherDomain),
            _ => Ok(()),
        }
    }
}

fn check_depth(what: &'static str, asked: u32, limit: u32, key: &'static str) -> Result<(), CreateQueuePairError> {
    if asked > limit {
        return Err(CreateQueuePairError::Depth { what, asked, limit, key });
    }
    Ok(())
}
