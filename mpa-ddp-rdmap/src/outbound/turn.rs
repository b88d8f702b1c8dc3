//! Whose turn it is: the send queue and the responses to the peer share one stream.

use crate::limits::MAX_SEGMENTS_IN_A_ROW;

/// One of the two that share the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Side {
    #[default]
    Queue,
    Responses,
}

/// Who sent last, and how much in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn {
    side: Side,
    segments: u32,
    bytes: u64,
    /// Bytes of the last run of responses.
    response_bytes: u64,
}

impl Turn {
    /// Who is next, given who could.
    pub(super) fn choose(&self, queue: bool, responses: bool) -> Option<Side> {
        match (queue, responses) {
            (false, false) => None,
            (true, false) => Some(Side::Queue),
            (false, true) => Some(Side::Responses),
            (true, true) => Some(match (self.side, self.segments >= MAX_SEGMENTS_IN_A_ROW) {
                (Side::Queue, false) | (Side::Responses, true) => Side::Queue,
                (Side::Queue, true) | (Side::Responses, false) => Side::Responses,
            }),
        }
    }

    /// `side` sent a segment of `bytes`.
    pub(super) fn note(&mut self, side: Side, bytes: u32) {
        if side != self.side {
            if self.side == Side::Responses {
                self.response_bytes = self.bytes;
            }
            (self.side, self.segments, self.bytes) = (side, 0, 0);
        }
        self.segments = self.segments.saturating_add(1);
        self.bytes = self.bytes.saturating_add(u64::from(bytes));
    }

    /// Whether a Write that would send `bytes` more should let waiting responses pass behind that: it has had its share, and
    /// at least as much as they had.
    pub(super) fn write_had_its_share(&self, bytes: u32) -> bool {
        let (segments, sent) = if self.side == Side::Queue { (self.segments, self.bytes) } else { (0, 0) };
        segments + 1 >= MAX_SEGMENTS_IN_A_ROW && sent + u64::from(bytes) >= self.response_bytes
    }
}

#[cfg(test)]
mod tests;
