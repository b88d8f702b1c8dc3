//! The traits of a port: what moves Ethernet frames in and out of a host.
//!
//! `dpdk-glue` implements them over DPDK; [`crate::memory_port`] implements them in memory with loss, duplication,
//! reordering, corruption and delay by seed. Frames are whole Ethernet frames without the trailing checksum.

use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Most packets that one call of [`ReceiveQueue::receive`] takes: DPDK's customary burst.
pub const BURST: usize = 32;

/// A received frame, owned by whoever holds it. Its memory goes back to the port's pool when it is dropped.
pub trait Packet: Send + 'static {
    /// The frame's bytes in order. One part unless the port chained buffers.
    fn parts(&self) -> impl Iterator<Item = &[u8]>;

    /// Bytes in all parts.
    fn length(&self) -> usize {
        self.parts().map(<[u8]>::len).sum()
    }

    /// What the port found out about the checksums of this packet.
    fn checksum(&self) -> ReceivedChecksum {
        ReceivedChecksum::Unknown
    }
}

/// The port's verdict on a received packet's IP and TCP checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceivedChecksum {
    /// Nobody looked: the stack must.
    Unknown,
    /// The port verified them.
    Good,
    /// The port found one wrong: the packet is to be dropped and counted.
    Bad,
}

/// Takes packets from one receive queue of a port.
pub trait ReceiveQueue: Send {
    /// What is received.
    type Packet: Packet;

    /// Appends at most [`BURST`] packets to `packets` and tells how many. Never blocks.
    fn receive(&mut self, packets: &mut Vec<Self::Packet>) -> usize;

    /// Gives the memory of `packets` back, which are of this queue: as dropping them does, but all at once.
    fn release(&mut self, packets: &mut Vec<Self::Packet>) {
        packets.clear();
    }
}

/// A frame under construction, from the memory that the port transmits from.
pub trait Frame: Send {
    /// Memory outside the frame that can be sent as part of it without a copy.
    type Attachment: Send;

    /// The bytes of the frame that were asked for with [`TransmitQueue::frame`], contiguous.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Appends `attachment` behind the frame's own bytes; gives it back if the port cannot.
    fn attach(&mut self, attachment: Self::Attachment) -> Result<(), Self::Attachment>;
}

/// Work on a frame that is left to the port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransmitOffload {
    /// The port computes the IPv4 header checksum.
    pub ipv4_checksum: bool,
    /// The port computes the TCP checksum (the pseudo-header sum is in place).
    pub tcp_checksum: bool,
    /// The port cuts the TCP payload into segments of this many bytes; 0: it sends the frame as it is.
    pub segment_size: u16,
}

/// Puts frames onto one transmit queue of a port.
pub trait TransmitQueue: Send {
    /// See [`Frame::Attachment`].
    type Attachment: Send;
    /// What is transmitted.
    type Frame: Frame<Attachment = Self::Attachment>;

    /// A frame of `length` bytes, contents undefined; `None` while the pool is dry.
    fn frame(&mut self, length: usize) -> Option<Self::Frame>;

    /// Queues `frame`. It leaves at the latest with [`Self::flush`]. Gives it back while the queue is full.
    fn send(&mut self, frame: Self::Frame, offload: TransmitOffload) -> Result<(), Self::Frame>;

    /// Hands everything queued to the port and tells how many frames it did not take yet (they stay queued).
    fn flush(&mut self) -> usize;
}

/// Whether a port can carry frames now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Frames go through.
    Up,
    /// The peer or the cable is gone; it may come back.
    Down,
}

/// What a port offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortCapabilities {
    /// Largest IP packet it carries, in bytes (Ethernet header not counted).
    pub mtu: usize,
    /// It verifies IPv4 and TCP checksums on receive and says so in [`Packet::checksum`].
    pub receive_checksum: bool,
    /// It takes [`TransmitOffload::ipv4_checksum`] and [`TransmitOffload::tcp_checksum`].
    pub transmit_checksum: bool,
    /// It takes [`TransmitOffload::segment_size`].
    pub segmentation: bool,
    /// It takes [`Frame::attach`].
    pub attachments: bool,
}

/// Counters of a port since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStatistics {
    /// Frames received.
    pub received_packets: u64,
    /// Bytes in them.
    pub received_bytes: u64,
    /// Frames sent.
    pub transmitted_packets: u64,
    /// Bytes in them.
    pub transmitted_bytes: u64,
    /// Frames that arrived and found no room.
    pub receive_missed: u64,
    /// Frames that arrived broken.
    pub receive_errors: u64,
    /// Frames that could not be sent.
    pub transmit_errors: u64,
    /// Times that the receive pool was dry.
    pub receive_no_memory: u64,
}

/// A port: an address, capabilities, and queues that are taken out once each.
pub trait Port: Send + 'static {
    /// Its receive queues.
    type Receive: ReceiveQueue;
    /// Its transmit queues.
    type Transmit: TransmitQueue;

    /// Ethernet address.
    fn hardware_address(&self) -> [u8; 6];

    /// What it offers.
    fn capabilities(&self) -> PortCapabilities;

    /// Whether frames go through now.
    fn link_state(&self) -> LinkState;

    /// Counters since it was opened.
    fn statistics(&self) -> PortStatistics;

    /// A descriptor that is readable (level-triggered) while received frames wait, for sleeping; `None` where the port has
    /// none and must be polled.
    fn readiness(&self) -> Option<Arc<OwnedFd>> {
        None
    }

    /// Takes receive queue `index`; `None` if there is none or it was taken.
    fn take_receive_queue(&mut self, index: u16) -> Option<Self::Receive>;

    /// Takes transmit queue `index`; `None` if there is none or it was taken.
    fn take_transmit_queue(&mut self, index: u16) -> Option<Self::Transmit>;
}
