//! What the two halves share: everything that one of them knows and the other needs, and nothing else.
//!
//! - For each flow a small [`Announcement`], written by the receive half and stamped into every segment that leaves, and a
//!   small [`Progress`], written by the send half and read where received segments are judged. Both are plain copies: a
//!   reader that is a little late sees an older state of the connection, as if the packets had crossed on the wire.
//! - [`Message`]s from the receive half to the send half, in order: what was acknowledged, what is owed.
//!
//! Flows are named by their slots, the same in both halves; a name that is old finds nothing.

use crate::table::Name;
use crate::time::Instant;

/// The blocks of a SACK option (RFC 2018 §3), as sequence numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SackBlocks {
    blocks: [(u32, u32); Self::MOST],
    count: u8,
}

impl SackBlocks {
    /// RFC 2018 §3: 40 bytes of options hold four blocks.
    pub(super) const MOST: usize = 4;

    /// Adds a block if there is room.
    pub(super) fn push(&mut self, left: u32, right: u32) {
        if let Some(place) = self.blocks.get_mut(usize::from(self.count)) {
            *place = (left, right);
            self.count += 1;
        }
    }

    pub(super) fn as_slice(&self) -> &[(u32, u32)] {
        &self.blocks[..usize::from(self.count)]
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Those that fit beside timestamps, or without.
    pub(super) fn fitting(&self, timestamps: bool) -> &[(u32, u32)] {
        let most = if timestamps { Self::MOST - 1 } else { Self::MOST };
        &self.blocks[..usize::from(self.count).min(most)]
    }
}

/// What every segment that leaves says about the other direction. Written by the receive half.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Announcement {
    /// The sequence number that is expected next.
    pub(super) next: u32,
    /// Behind the last sequence number that is welcome.
    pub(super) edge: u32,
    /// RFC 7323 §4.3: the timestamp to echo.
    pub(super) recent_timestamp: u32,
    /// What arrived behind a gap, the latest first; in front of them what arrived twice (RFC 2883).
    pub(super) sack: SackBlocks,
}

/// How far the send half is. Written by the send half.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// The oldest unacknowledged sequence number.
    pub(super) oldest: u32,
    /// The next sequence number to be sent.
    pub(super) next: u32,
    /// The largest window that the peer ever announced, in bytes.
    pub(super) largest_window: u32,
    /// The peer was told to expect this sequence number next.
    pub(super) acknowledged: u32,
    /// The peer was told that everything in front of this sequence number is welcome.
    pub(super) announced_edge: u32,
}

/// What both halves know of a flow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SharedFlow {
    pub(super) announcement: Announcement,
    pub(super) progress: Progress,
    /// When the last good segment arrived. Written by the receive half.
    pub(super) heard: Instant,
}

/// How much of a hurry an acknowledgement is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owed {
    /// None is owed.
    #[default]
    Nothing,
    /// It may wait a moment for data that carries it.
    Soon,
    /// It leaves with the next flush, if nothing carries it before.
    Now,
    /// A packet of its own has to leave: duplicate acknowledgements and selective ones count by the packet.
    Pure,
}

/// What a received segment said about our direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acknowledgement {
    pub(super) sequence: u32,
    /// As on the wire, not scaled.
    pub(super) window: u16,
    pub(super) sack: SackBlocks,
    pub(super) carries_data: bool,
}

/// From the receive half to the send half.
#[derive(Clone, Copy, Debug)]
pub(super) enum Message {
    /// A segment acknowledged something, or moved the window.
    Acknowledged(Name, Acknowledgement),
    /// An acknowledgement is owed.
    Owed(Name, Owed),
}
