//! One connection, as the send half knows it.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::HANDSHAKE_TIMEOUT;
use crate::softrdma::segment::{HeaderTemplate, Options, SequenceSpace, Stamp, SynOptions, clock_at};
use crate::softrdma::sender::{Acknowledged, Sender};
use crate::softrdma::shared::{Acknowledgement, Announcement, Owed, Report, SackBlocks, SharedFlow};
use crate::softrdma::tuple::Tuple;
use crate::time::Instant;

/// Longest pause between handshake segments, and between probes of a closed window.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long an acknowledgement waits for data where the last one got none.
const WAIT_IN_VAIN: Duration = Duration::from_nanos(500);

/// How far the handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::softrdma) enum SendPhase {
    /// A SYN is sent until it is answered.
    SynSent,
    /// A SYN with ACK is sent until it is acknowledged.
    SynReceived,
    /// Established.
    Open,
}

/// How far the end of our direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::softrdma) enum Fin {
    /// Nobody asked for it.
    None,
    /// It follows what was taken.
    Due,
    /// It was sent: it takes the place behind the last byte.
    Sent,
}

/// What a flow cannot send without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Memory for a frame, or room in the port's queue.
    Frame,
    /// The Ethernet address of the next hop.
    Neighbour,
}

/// One connection.
pub(in crate::softrdma) struct SendFlow {
    pub(in crate::softrdma) tuple: Tuple,
    pub(in crate::softrdma) shared: Arc<SharedFlow>,
    /// The sequence number of our SYN.
    pub(in crate::softrdma) initial: u32,
    space: SequenceSpace,
    pub(in crate::softrdma) phase: SendPhase,
    /// What our SYN offers.
    pub(in crate::softrdma) offer: SynOptions,
    /// Both sides send timestamps.
    pub(in crate::softrdma) has_timestamps: bool,
    /// Both sides scale their windows.
    pub(in crate::softrdma) is_scaled: bool,
    pub(in crate::softrdma) peer_shift: u8,
    /// RFC 7323 §7.1: our clock starts anywhere.
    pub(in crate::softrdma) clock_offset: u32,
    pub(super) header: HeaderTemplate,
    pub(in crate::softrdma) next_hop: IpAddr,
    pub(super) is_resolved: bool,
    pub(super) neighbour_version: u32,
    /// Bytes of payload in the largest segment.
    pub(in crate::softrdma) segment_size: usize,
    /// Once established.
    pub(super) sender: Option<Sender>,
    /// Behind the last byte that the source has committed to.
    pub(super) committed: u64,
    /// The source was told that everything before was acknowledged.
    released: u64,
    pub(in crate::softrdma) fin: Fin,
    /// The peer ended its direction before we ended ours: then TIME-WAIT is the peer's.
    pub(in crate::softrdma) is_passive_close: bool,
    pub(super) owed: Owed,
    /// What the next acknowledgement reports beside it.
    pub(super) report: Report,
    pub(super) owed_since: Instant,
    pub(super) owed_polls: u8,
    /// The last acknowledgement that waited for data left with some.
    is_answering: bool,
    pub(super) is_owing: bool,
    /// The layer above was refused: it is told when there is room.
    pub(in crate::softrdma) is_blocked: bool,
    /// In the list of flows whose deadline is to be looked at.
    pub(super) is_unarmed: bool,
    /// What it waits for, in a list of those that do.
    pub(super) wants: Option<Want>,
    /// Handshake segments sent.
    pub(super) attempts: u32,
    pub(super) handshake_sent: Instant,
    /// When an unfinished handshake has failed.
    pub(in crate::softrdma) give_up: Instant,
    /// Timeouts since the last acknowledgement.
    pub(super) timeouts: u32,
    /// RFC 9293 §3.3.1: SND.WL1 and SND.WL2, the segment that said the peer's window last: where it began, and what it
    /// acknowledged.
    window_said: Option<(u32, u64)>,
    /// Probes since the peer was heard last.
    pub(super) probes: u32,
    pub(super) probed: Instant,
    /// The window has been small for long enough: what fits is sent.
    pub(super) may_crumble: bool,
}

impl SendFlow {
    pub(super) fn new(
        (tuple, shared): (Tuple, Arc<SharedFlow>),
        initial: u32,
        phase: SendPhase,
        offer: SynOptions,
        header: HeaderTemplate,
        next_hop: IpAddr,
    ) -> Self {
        Self {
            tuple,
            shared,
            initial,
            space: SequenceSpace::new(initial),
            phase,
            offer,
            has_timestamps: offer.timestamps,
            is_scaled: false,
            peer_shift: 0,
            clock_offset: 0,
            header,
            next_hop,
            is_resolved: false,
            neighbour_version: 0,
            segment_size: 536,
            sender: None,
            committed: 0,
            released: 0,
            fin: Fin::None,
            is_passive_close: false,
            owed: Owed::Nothing,
            report: Report::default(),
            owed_since: Instant::ZERO,
            owed_polls: 0,
            is_answering: true,
            is_owing: false,
            is_blocked: false,
            is_unarmed: false,
            wants: None,
            attempts: 0,
            handshake_sent: Instant::ZERO,
            give_up: Instant::ZERO,
            timeouts: 0,
            probes: 0,
            probed: Instant::ZERO,
            may_crumble: false,
            window_said: None,
        }
    }

    pub(super) fn set_hardware(&mut self, hardware: [u8; 6], version: u32) {
        self.header.set_destination(hardware);
        self.is_resolved = true;
        self.neighbour_version = version;
    }

    pub(super) fn retransmitted_segments(&self) -> u64 {
        self.sender.as_ref().map_or(0, Sender::retransmitted_segments)
    }

    /// RFC 7323 §5.4: our clock, in milliseconds.
    pub(super) const fn clock(&self, now: Instant) -> u32 {
        clock_at(now).wrapping_add(self.clock_offset)
    }

    /// Our clock and the echo of the peer's, if both sides agreed to that.
    pub(super) fn timestamps(&self, now: Instant) -> Option<(u32, u32)> {
        self.has_timestamps.then(|| (self.clock(now), self.shared.recent_timestamp()))
    }

    /// The options of a segment with data.
    pub(super) fn data_options(&self, now: Instant) -> Options<'static> {
        match self.timestamps(now) {
            Some((value, echo)) => Options::Timestamps(value, echo),
            None => Options::None,
        }
    }

    /// The place of the stream that is sent next.
    pub(super) fn next_place(&self) -> u64 {
        self.sender.as_ref().map_or(0, Sender::next_offset)
    }

    pub(super) fn oldest_sequence(&self) -> u32 {
        self.space.sequence(self.sender.as_ref().map_or(0, Sender::acknowledged))
    }

    /// What stands in the header of a segment that begins at `place`.
    #[inline]
    pub(super) fn stamp<'a>(
        &self,
        place: u64,
        flags: u8,
        options: Options<'a>,
        announcement: Announcement,
        shift: u8,
    ) -> Stamp<'a> {
        let window = announcement.edge.wrapping_sub(announcement.next);
        let shift = if self.is_scaled { shift } else { 0 };
        Stamp {
            sequence: self.space.sequence(place),
            acknowledgement: announcement.next,
            flags,
            window: (window >> shift).min(0xffff) as u16,
            options,
        }
    }

    /// A segment that ends at `place` is about to leave.
    #[inline]
    pub(super) fn note_leaving(&self, place: u64) {
        self.shared.set_next(self.space.sequence(place));
    }

    /// Until when an acknowledgement that is owed may wait for data. Where the last one waited in vain, that is not long: the peer
    /// may be waiting for it. But not a peer that sends full segments: it has more to send.
    pub(super) fn acknowledgement_deadline(&self, longest: Duration) -> Instant {
        let news = self.shared.announcement().next.wrapping_sub(self.shared.told().next);
        let may_wait = self.is_answering || news as usize >= self.segment_size;
        self.owed_since + if may_wait { longest } else { longest.min(WAIT_IN_VAIN) }
    }

    /// A segment has left that said `announcement`.
    #[inline]
    pub(super) fn note_sent(&mut self, announcement: Announcement, with_data: bool) {
        self.shared.set_told(announcement);
        if self.owed == Owed::Soon {
            self.is_answering = with_data;
        }
        if !(with_data && self.owed == Owed::Pure) {
            self.owed = Owed::Nothing;
        }
        if !with_data {
            // RFC 2883 §4: each duplicate is reported once.
            self.report = self.report.without_duplicate();
        }
    }

    /// Takes in what a received segment said: up to where the source can let go now, and could before. `None`: nothing.
    pub(super) fn handle_acknowledgement(&mut self, now: Instant, said: &Acknowledgement) -> Option<(u64, u64)> {
        let sender = self.sender.as_mut()?;
        let near = sender.acknowledged();
        let through = u64::try_from(self.space.offset(said.sequence, near)).ok()?;
        let window = u64::from(said.window) << if self.is_scaled { self.peer_shift } else { 0 };
        let mut ranges: [Range<u64>; SackBlocks::MOST] = [const { 0..0 }; SackBlocks::MOST];
        let mut duplicate = None;
        let mut count = 0;
        if !said.sack.is_empty() {
            (count, duplicate) =
                read_blocks(self.space, &said.sack, near, (through, sender.next_offset()), &mut ranges);
        }
        // RFC 9293 §3.10.7.4: an old window does not take the place of a newer one. Of two that are as new, one that is open is
        // taken for the newer, unless it is closed now.
        let is_newer = self.window_said.is_none_or(|(said_at, acknowledged)| {
            let later = said.said_at.wrapping_sub(said_at) as i32;
            let grows = window == 0 || through + window > sender.window_end();
            later > 0 || (later == 0 && (through > acknowledged || (through == acknowledged && grows)))
        });
        let window_end = if is_newer { through + window } else { sender.window_end() };
        if is_newer {
            self.window_said = Some((said.said_at, through));
        }
        sender.handle_acknowledgement(
            now,
            &Acknowledged { through, window_end, sack: &ranges[..count], duplicate, carries_data: said.carries_data },
        );
        if sender.acknowledged() > near {
            self.timeouts = 0;
        }
        self.probes = 0;
        self.shared.set_oldest(self.space.sequence(sender.acknowledged()));
        self.shared.note_window(window.min(u64::from(u32::MAX)) as u32);
        let before = self.released;
        self.released = sender.acknowledged().min(self.committed);
        Some((self.released, before))
    }

    /// There is nothing new to send; whether something old is due in its place.
    #[inline]
    pub(super) fn handle_drained(&mut self, now: Instant) -> bool {
        self.sender.as_mut().is_some_and(|sender| sender.handle_drained(now))
    }

    /// All that was committed has left, and [`Self::handle_drained`] has nothing in its place.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.sender.as_ref().is_some_and(|sender| sender.next_offset() == self.committed && sender.is_plain())
    }

    /// Whether the peer has acknowledged our FIN.
    pub(in crate::softrdma) fn is_fin_acknowledged(&self) -> bool {
        self.fin == Fin::Sent && self.sender.as_ref().is_some_and(|sender| sender.acknowledged() > self.committed)
    }

    /// The sequence number behind everything that was sent.
    pub(in crate::softrdma) fn next_sequence(&self) -> u32 {
        self.space.sequence(self.next_place())
    }

    /// The peer's window has no room for a full segment, and nothing is on its way that would tell of more.
    pub(super) fn is_window_small(&self) -> bool {
        self.sender.as_ref().is_some_and(|sender| sender.is_idle() && sender.window_room() < self.segment_size as u64)
    }

    /// RFC 9293 §3.8.6.2.1: whether less than a full segment is worth sending into a small window of `room` bytes: if it is
    /// all that waits, if it is half of what the peer ever offered, or if the peer has offered no more for long enough.
    pub(super) fn takes_crumbs(&self, room: usize) -> bool {
        let next = self.sender.as_ref().map_or(0, Sender::next_offset);
        let waiting = self.committed - next;
        let is_all = waiting > 0 && waiting <= room as u64;
        let is_half = room as u64 >= u64::from(self.shared.largest_window()).div_ceil(2);
        self.is_window_small() && (is_all || is_half || self.may_crumble)
    }

    /// When the handshake segment is sent again.
    pub(super) fn handshake_deadline(&self) -> Instant {
        let pause = match self.attempts {
            // Nobody knows where to yet.
            0 => HANDSHAKE_TIMEOUT / 2,
            attempts => (HANDSHAKE_TIMEOUT * (1 << (attempts - 1).min(6))).min(LONGEST_PAUSE),
        };
        if self.attempts == 0 { self.probed + pause } else { self.handshake_sent + pause }
    }

    /// Something waits for the peer's window to grow.
    pub(super) fn wants_window(&self) -> bool {
        let next = self.sender.as_ref().map_or(0, Sender::next_offset);
        let is_waiting = self.is_blocked || self.fin == Fin::Due || self.committed > next;
        is_waiting && self.is_window_small()
    }

    /// When the peer is to be probed: because it has been silent for `interval`, or because its window is closed. A peer
    /// that is not heard for `user_timeout` is dead.
    pub(super) fn probe_deadline(&self, interval: Duration, user_timeout: Duration) -> Option<Instant> {
        let sender = self.sender.as_ref()?;
        if !sender.is_idle() {
            return None;
        }
        if self.wants_window() {
            // RFC 9293 §3.8.6.1: after a timeout at first, then ever more seldom; but so often that silence means something.
            let longest = LONGEST_PAUSE.min(user_timeout / 4);
            let pause = (sender.retransmission_timeout() * (1 << self.probes.min(16))).min(longest);
            return Some(self.probed.max(self.shared.heard()) + pause);
        }
        if interval.is_zero() {
            return None;
        }
        Some(self.probed.max(self.shared.heard()) + interval)
    }
}

/// Reads the blocks of a selective acknowledgement up to `through`, near `near`, into `ranges`, the lowest first: how many, and
/// what has arrived twice. What was not sent, from `next` on, is not believed.
fn read_blocks(
    space: SequenceSpace,
    blocks: &SackBlocks,
    near: u64,
    (through, next): (u64, u64),
    ranges: &mut [Range<u64>; SackBlocks::MOST],
) -> (usize, Option<Range<u64>>) {
    let mut duplicate: Option<Range<u64>> = None;
    let mut count = 0;
    for (place, &(left, right)) in blocks.as_slice().iter().enumerate() {
        let (left, right) = (space.offset(left, near), space.offset(right, near));
        if left < 0 || right <= left || right as u64 > next {
            continue;
        }
        let range = left as u64..right as u64;
        if range.start < through {
            // RFC 2883 §4: what lies before the acknowledgement has arrived twice.
            if place == 0 && range.end <= through {
                duplicate = Some(range);
            }
            continue;
        }
        ranges[count] = range;
        count += 1;
    }
    // RFC 2883 §4.2: so has a first block that lies in the second.
    if let [first, second, ..] = &ranges[..count]
        && duplicate.is_none()
        && first.start >= second.start
        && first.end <= second.end
    {
        duplicate = Some(first.clone());
    }
    ranges[..count].sort_unstable_by_key(|range| range.start);
    (count, duplicate)
}
