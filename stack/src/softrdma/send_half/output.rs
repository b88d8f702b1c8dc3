//! Frames into the port's queue.

use crate::port::{Frame, TransmitOffload, TransmitQueue};
use crate::softrdma::capture::Capture;
use crate::time::Instant;

/// A port's transmit queue, and the one frame that it did not take.
pub(in crate::softrdma) struct Output<T: TransmitQueue> {
    queue: T,
    held: Option<(T::Frame, TransmitOffload)>,
    /// Frames are in the port's queue that it may not have taken.
    is_queued: bool,
    /// The port had no memory for the last frame.
    is_dry: bool,
    capture: Option<Capture>,
}

impl<T: TransmitQueue> Output<T> {
    pub(super) const fn new(queue: T, capture: Option<Capture>) -> Self {
        Self { queue, held: None, is_queued: false, is_dry: false, capture }
    }

    /// Whether another frame would be taken.
    #[inline]
    pub(in crate::softrdma) fn has_room(&mut self) -> bool {
        let Some((frame, offload)) = self.held.take() else { return true };
        match self.queue.send(frame, offload) {
            Ok(()) => true,
            Err(frame) => {
                self.held = Some((frame, offload));
                false
            }
        }
    }

    /// Has `fill` build a frame of `length` bytes, and sends it. `false`, and nothing was built: the port has no frame.
    #[inline]
    pub(super) fn build(
        &mut self,
        now: Instant,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> TransmitOffload,
    ) -> bool {
        if self.held.is_some() {
            return false;
        }
        let frame = self.queue.frame(length);
        self.is_dry = frame.is_none();
        let Some(mut frame) = frame else { return false };
        let offload = fill(frame.bytes_mut());
        if let Some(capture) = &self.capture {
            capture.handle_transmitted(now, frame.bytes_mut());
        }
        if let Err(frame) = self.queue.send(frame, offload) {
            self.held = Some((frame, offload));
        }
        self.is_queued = true;
        true
    }

    /// Sends a frame that is ready. Lost if the port has no memory for it.
    pub(in crate::softrdma) fn send_bytes(&mut self, now: Instant, bytes: &[u8]) {
        self.has_room();
        self.build(now, bytes.len(), |frame| {
            frame.copy_from_slice(bytes);
            TransmitOffload::default()
        });
    }

    /// Hands everything to the port.
    #[inline]
    pub(in crate::softrdma) fn flush(&mut self) {
        if self.is_queued || self.held.is_some() {
            self.is_queued = self.queue.flush() > 0;
            if self.has_room() && self.is_queued {
                return;
            }
            self.is_queued |= self.held.is_some();
        }
    }

    /// The port did not take the last frame, or had none: nothing leaves before it is asked again.
    pub(in crate::softrdma) const fn is_stuck(&self) -> bool {
        self.is_dry || self.held.is_some()
    }

    /// The port has not taken everything yet.
    pub(in crate::softrdma) const fn is_waiting(&self) -> bool {
        self.is_queued
    }
}
