//! What carries frames from one TCP to the other.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use smoltcp::wire::{EthernetFrame, PrettyPrinter};
use softrdma_stack::memory_port::{MemoryPacket, MemoryPort, MemoryReceiveQueue, MemoryTransmitQueue};
use softrdma_stack::port::{Frame, Packet, Port, ReceiveQueue, TransmitOffload, TransmitQueue};

use crate::wire::tap::Tap;
use crate::wire::{Line, Settings, Trouble};

/// Frames moved in one direction before the other has its turn.
const BATCH: usize = 64;
/// The largest frame: Ethernet's header and its largest packet, with room to spare.
const LARGEST_FRAME: usize = 2048;
/// What may be on the cable: more than both windows.
const QUEUE_BYTES: u64 = 1 << 20;
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
    /// What becomes of what comes from each end.
    lines: [Line; 2],
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
    pub(super) fn new(mut plugs: [Plug<'a>; 2], trouble: Trouble, seed: u64) -> Result<Self, String> {
        let now = Instant::now();
        for plug in &mut plugs {
            while plug.receive(&mut [0; LARGEST_FRAME])?.is_some() {}
        }
        let settings = Settings { rate: None, queue_bytes: QUEUE_BYTES, delay: Duration::ZERO, trouble };
        let line = |seed| Line::new(settings, seed).map_err(|error| error.to_string());
        // Neighbouring seeds must not share a direction.
        let lines = [line(2 * seed)?, line(2 * seed + 1)?];
        Ok(Self { plugs, lines, is_held: [false; 2], moved_at: now, start: now, last: VecDeque::new() })
    }

    /// Moves what is there to be moved; whether there was anything.
    pub(super) fn carry(&mut self) -> Result<bool, String> {
        let mut moved = false;
        for from in 0..2 {
            moved |= self.take_in(from)?;
            let now = self.now();
            while let Some(frame) = self.lines[from].poll_frame(now) {
                self.plugs[1 - from].send(frame);
                moved = true;
            }
        }
        if moved {
            self.moved_at = Instant::now();
        }
        Ok(moved)
    }

    /// Puts on the cable what one end has for it.
    fn take_in(&mut self, from: usize) -> Result<bool, String> {
        let mut moved = false;
        let mut frame = [0; LARGEST_FRAME];
        for _ in 0..BATCH {
            if self.is_held[from] {
                break;
            }
            let Some(length) = self.plugs[from].receive(&mut frame)? else { break };
            let now = self.now();
            self.remember(from, &frame[..length]);
            self.lines[from].handle_frame(now, &frame[..length]);
            moved = true;
        }
        Ok(moved)
    }

    fn now(&self) -> softrdma_stack::time::Instant {
        softrdma_stack::time::Instant::from_nanoseconds(self.start.elapsed().as_nanos() as u64)
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

    /// Frames that were lost, doubled, held back or changed.
    pub(super) fn harmed(&self) -> u64 {
        let of = |line: &Line| {
            let counters = line.counters();
            counters.lost + counters.duplicated + counters.held_back + counters.corrupted
        };
        self.lines.iter().map(of).sum()
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
