//! The capture, shown frames by both halves.

use std::sync::{Arc, Mutex, PoisonError};

use crate::pcap::{FrameDirection, FrameSink};
use crate::port::Packet;
use crate::time::Instant;

/// A sink of frames that both halves have. Its lock is taken for one frame at a time, and only if there is a capture at all.
#[derive(Clone)]
pub(super) struct Capture(Arc<Mutex<Box<dyn FrameSink>>>);

impl Capture {
    pub(super) fn new(sink: Box<dyn FrameSink>) -> Self {
        Self(Arc::new(Mutex::new(sink)))
    }

    #[cold]
    pub(super) fn handle_received(&self, now: Instant, packet: &impl Packet) {
        let parts: Vec<&[u8]> = packet.parts().collect();
        self.handle_frame(now, FrameDirection::Received, &parts);
    }

    #[cold]
    pub(super) fn handle_transmitted(&self, now: Instant, frame: &[u8]) {
        self.handle_frame(now, FrameDirection::Transmitted, &[frame]);
    }

    fn handle_frame(&self, now: Instant, direction: FrameDirection, parts: &[&[u8]]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).handle_frame(now, direction, parts);
    }
}
