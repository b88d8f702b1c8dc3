//! What carries frames from one TCP to the other.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use smoltcp::wire::{EthernetFrame, PrettyPrinter};
use softrdma_stack::memory_port::{MemoryPacket, MemoryPort, MemoryReceiveQueue, MemoryTransmitQueue};
use softrdma_stack::port::{Frame, Packet, Port, ReceiveQueue, TransmitOffload, TransmitQueue};

use crate::wire::tap::Tap;

/// Frames moved in one direction before the other has its turn.
const BATCH: usize = 64;
/// The largest frame: Ethernet's header and its largest packet, with room to spare.
const LARGEST_FRAME: usize = 2048;
/// Frames that are remembered for the account of a failure.
const REMEMBERED_FRAMES: usize = 40;

/// Where an end of the cable is put in.
pub(super) enum Plug<'a> {
    /// A kernel's interface.
    Tap(&'a Tap),
    /// The far end of our engine's port.
    Port(Queues),
}

/// A port's queues, and what was received and not looked at yet.
pub(super) struct Queues {
    receive: MemoryReceiveQueue,
    transmit: MemoryTransmitQueue,
    received: VecDeque<MemoryPacket>,
    burst: Vec<MemoryPacket>,
}

/// A cable between two plugs.
pub(super) struct Cable<'a> {
    plugs: [Plug<'a>; 2],
    /// What comes from that end waits there.
    pub(super) is_held: [bool; 2],
    moved_at: Instant,
    start: Instant,
    /// The last frames: when, from which end, their bytes.
    last: VecDeque<(Duration, usize, Vec<u8>)>,
}

impl Plug<'_> {
    pub(super) fn port(mut port: MemoryPort) -> Self {
        let queues = (port.take_receive_queue(0), port.take_transmit_queue(0));
        let (Some(receive), Some(transmit)) = queues else { unreachable!("a port that nobody had") };
        Self::Port(Queues { receive, transmit, received: VecDeque::new(), burst: Vec::new() })
    }

    /// The length of the next frame, written into `frame`.
    fn receive(&mut self, frame: &mut [u8]) -> Result<Option<usize>, String> {
        match self {
            Self::Tap(tap) => tap.receive(frame).map_err(|error| format!("an interface is gone: {error}")),
            Self::Port(queues) => {
                if queues.received.is_empty() {
                    queues.receive.receive(&mut queues.burst);
                    queues.received.extend(queues.burst.drain(..));
                }
                let Some(packet) = queues.received.pop_front() else { return Ok(None) };
                let mut length = 0;
                for part in packet.parts() {
                    frame[length..length + part.len()].copy_from_slice(part);
                    length += part.len();
                }
                Ok(Some(length))
            }
        }
    }

    /// A frame that the other side has no room for is lost, as on any cable.
    fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Tap(tap) => {
                tap.send(bytes);
            }
            Self::Port(queues) => {
                if let Some(mut frame) = queues.transmit.frame(bytes.len()) {
                    frame.bytes_mut().copy_from_slice(bytes);
                    let _ = queues.transmit.send(frame, TransmitOffload::default());
                    queues.transmit.flush();
                }
            }
        }
    }
}

impl<'a> Cable<'a> {
    /// What waits at the plugs is of an earlier cable, and lost.
    pub(super) fn new(mut plugs: [Plug<'a>; 2]) -> Result<Self, String> {
        let now = Instant::now();
        for plug in &mut plugs {
            while plug.receive(&mut [0; LARGEST_FRAME])?.is_some() {}
        }
        Ok(Self { plugs, is_held: [false; 2], moved_at: now, start: now, last: VecDeque::new() })
    }

    /// Moves what is there to be moved; whether there was anything.
    pub(super) fn carry(&mut self) -> Result<bool, String> {
        let mut moved = false;
        let mut frame = [0; LARGEST_FRAME];
        for from in 0..2 {
            for _ in 0..BATCH {
                if self.is_held[from] {
                    break;
                }
                let Some(length) = self.plugs[from].receive(&mut frame)? else { break };
                self.remember(from, &frame[..length]);
                self.plugs[1 - from].send(&frame[..length]);
                moved = true;
            }
        }
        if moved {
            self.moved_at = Instant::now();
        }
        Ok(moved)
    }

    /// How long nothing has moved.
    pub(super) fn silence(&self) -> Duration {
        self.moved_at.elapsed()
    }

    fn remember(&mut self, from: usize, frame: &[u8]) {
        // The oldest gives its memory.
        let oldest = if self.last.len() == REMEMBERED_FRAMES { self.last.pop_front() } else { None };
        let mut memory = oldest.map(|(.., bytes)| bytes).unwrap_or_default();
        memory.clear();
        memory.extend_from_slice(frame);
        self.last.push_back((self.start.elapsed(), from, memory));
    }

    /// The last frames in words.
    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        for (at, from, bytes) in &self.last {
            let from = if *from == 0 { "active " } else { "passive" };
            let printed = PrettyPrinter::<EthernetFrame<&[u8]>>::new("", &bytes).to_string().replace('\n', " ");
            text.push_str(&format!("    {at:>12?} {from} {printed}\n"));
        }
        text
    }
}
