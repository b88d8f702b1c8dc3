//! A port that fails when it is told to, with an Ethernet address of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::memory_port::{MemoryFrame, MemoryPacket, MemoryPort, MemoryReceiveQueue, MemoryTransmitQueue};
use crate::port::{LinkState, Port, PortCapabilities, PortStatistics, ReceiveQueue, TransmitOffload, TransmitQueue};

/// What is wrong with a port now.
#[derive(Debug, Default)]
pub(in crate::softrdma::tests) struct Faults {
    /// It has no memory for frames.
    pub(in crate::softrdma::tests) is_dry: AtomicBool,
    /// Its transmit ring is full and stays so.
    pub(in crate::softrdma::tests) is_full: AtomicBool,
    /// It gives nothing that was received.
    pub(in crate::softrdma::tests) is_deaf: AtomicBool,
}

impl Faults {
    fn has(fault: &AtomicBool) -> bool {
        fault.load(Ordering::Relaxed)
    }
}

/// See the [module](self).
pub(in crate::softrdma::tests) struct FaultyPort {
    pub(in crate::softrdma::tests) inner: MemoryPort,
    pub(in crate::softrdma::tests) hardware: [u8; 6],
    pub(in crate::softrdma::tests) faults: Arc<Faults>,
}

pub(in crate::softrdma::tests) struct FaultyReceiveQueue {
    inner: MemoryReceiveQueue,
    faults: Arc<Faults>,
}

pub(in crate::softrdma::tests) struct FaultyTransmitQueue {
    inner: MemoryTransmitQueue,
    /// Frames that the port was given and has not taken.
    queued: usize,
    faults: Arc<Faults>,
}

impl Port for FaultyPort {
    type Receive = FaultyReceiveQueue;
    type Transmit = FaultyTransmitQueue;

    fn hardware_address(&self) -> [u8; 6] {
        self.hardware
    }

    fn capabilities(&self) -> PortCapabilities {
        self.inner.capabilities()
    }

    fn link_state(&self) -> LinkState {
        self.inner.link_state()
    }

    fn statistics(&self) -> PortStatistics {
        self.inner.statistics()
    }

    fn take_receive_queue(&mut self, index: u16) -> Option<FaultyReceiveQueue> {
        let inner = self.inner.take_receive_queue(index)?;
        Some(FaultyReceiveQueue { inner, faults: Arc::clone(&self.faults) })
    }

    fn take_transmit_queue(&mut self, index: u16) -> Option<FaultyTransmitQueue> {
        let inner = self.inner.take_transmit_queue(index)?;
        Some(FaultyTransmitQueue { inner, queued: 0, faults: Arc::clone(&self.faults) })
    }
}

impl ReceiveQueue for FaultyReceiveQueue {
    type Packet = MemoryPacket;

    fn receive(&mut self, packets: &mut Vec<MemoryPacket>) -> usize {
        if Faults::has(&self.faults.is_deaf) { 0 } else { self.inner.receive(packets) }
    }
}

impl TransmitQueue for FaultyTransmitQueue {
    type Attachment = std::convert::Infallible;
    type Frame = MemoryFrame;

    fn frame(&mut self, length: usize) -> Option<MemoryFrame> {
        if Faults::has(&self.faults.is_dry) { None } else { self.inner.frame(length) }
    }

    fn send(&mut self, frame: MemoryFrame, offload: TransmitOffload) -> Result<(), MemoryFrame> {
        if Faults::has(&self.faults.is_full) {
            return Err(frame);
        }
        self.queued += 1;
        self.inner.send(frame, offload)
    }

    fn flush(&mut self) -> usize {
        if !Faults::has(&self.faults.is_full) {
            self.queued = self.inner.flush();
        }
        self.queued
    }
}
