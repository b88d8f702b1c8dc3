//! One direction of one connection: what is in flight, what is lost, what may be sent, when a timer fires.
//!
//! Pure arithmetic on offsets of the stream: no packets and no bytes. Loss is found by time (RFC 8985) from selective
//! acknowledgements (RFC 2018), by duplicate acknowledgements where the peer sends none (RFC 5681, RFC 6582), by a tail loss
//! probe, and at last by a timeout (RFC 6298).

mod congestion;
mod rtt;

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::config::CongestionControl;
use crate::time::Instant;
use congestion::Window;
use rtt::RoundTrip;

/// RFC 5681 §3.2: so many duplicate acknowledgements mean a loss.
const DUPLICATES: u32 = 3;

/// What a sender is told once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SenderConfig {
    pub(crate) congestion_control: CongestionControl,
    pub(crate) min_retransmission_timeout: Duration,
    pub(crate) user_timeout: Duration,
}

/// What the handshake came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Established {
    /// Bytes of payload in the largest segment.
    pub(crate) segment_size: usize,
    /// The window of the peer's last handshake segment.
    pub(crate) window_bytes: u64,
    /// The peer sends selective acknowledgements.
    pub(crate) sack: bool,
    /// How long the handshake took, if nothing of it was sent twice.
    pub(crate) first_round_trip: Option<Duration>,
}

/// What the peer said. Nothing of it need be true.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acknowledged<'a> {
    /// Everything before has arrived.
    pub(crate) through: u64,
    /// Everything before is welcome.
    pub(crate) window_end: u64,
    /// What has arrived behind gaps.
    pub(crate) sack: &'a [Range<u64>],
    /// The segment carried data: then it is no duplicate acknowledgement.
    pub(crate) carries_data: bool,
}

/// What to send next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transmission {
    /// These bytes once more; [`Sender::sent_again`] follows.
    Retransmit { start: u64, length: u32 },
    /// New bytes, at most so many; [`Sender::sent_new`] follows.
    New { room: usize },
}

/// What a timer came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeoutOutcome {
    /// It was early.
    Nothing,
    /// [`Sender::poll_segment`] has something.
    RetransmitDue,
    /// The peer has acknowledged nothing for the user timeout.
    GiveUp,
}

/// One direction of one connection. See the [module](self).
pub(crate) struct Sender {
    segments: VecDeque<InFlight>,
    /// Everything before was acknowledged.
    acknowledged: u64,
    next: u64,
    window_end: u64,
    segment_size: usize,
    has_sack: bool,
    /// Bytes that are believed to be on their way (RFC 6675's pipe).
    pipe: u64,
    lost_bytes: u64,
    sacked_segments: usize,
    /// Copies on their way: loss can then be in front of what was sent earlier.
    repeated_segments: usize,
    window: Window,
    round_trip: RoundTrip,
    duplicates: u32,
    /// While a loss is being repaired: up to here it had been sent when the loss was found.
    recovery: Option<Recovery>,
    /// RFC 8985 §5.2: when the latest-sent segment left that has arrived, and where it ended.
    latest_delivered: Option<(Instant, u64)>,
    /// RFC 8985 §6.2 step 5: when the next one counts as lost.
    reordering_deadline: Option<Instant>,
    /// RFC 8985 §7: the tail was probed since the last acknowledgement.
    is_probed: bool,
    probe_due: bool,
    timeout_at: Option<Instant>,
    probe_at: Option<Instant>,
    /// Since when nothing was acknowledged.
    silent_since: Instant,
    last_sent: Instant,
    user_timeout: Duration,
    retransmitted: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Recovery {
    until: u64,
    is_timeout: bool,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    start: u64,
    length: u32,
    sent: Instant,
    is_sacked: bool,
    is_lost: bool,
    is_repeated: bool,
}

impl InFlight {
    const fn end(&self) -> u64 {
        self.start + self.length as u64
    }
}

impl Sender {
    pub(crate) fn new(config: &SenderConfig, now: Instant, established: Established) -> Self {
        let mut round_trip = RoundTrip::new(config.min_retransmission_timeout);
        if let Some(sample) = established.first_round_trip {
            round_trip.measure(sample);
        }
        Self {
            segments: VecDeque::new(),
            acknowledged: 0,
            next: 0,
            window_end: established.window_bytes,
            segment_size: established.segment_size,
            has_sack: established.sack,
            pipe: 0,
            lost_bytes: 0,
            sacked_segments: 0,
            repeated_segments: 0,
            window: Window::new(config.congestion_control, established.segment_size),
            round_trip,
            duplicates: 0,
            recovery: None,
            latest_delivered: None,
            reordering_deadline: None,
            is_probed: false,
            probe_due: false,
            timeout_at: None,
            probe_at: None,
            silent_since: now,
            last_sent: now,
            user_timeout: config.user_timeout,
            retransmitted: 0,
        }
    }

    /// Everything before has been acknowledged.
    pub(crate) const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The offset of the next new byte.
    pub(crate) const fn next_offset(&self) -> u64 {
        self.next
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.segments.is_empty()
    }

    /// Segments that were sent again.
    pub(crate) const fn retransmitted_segments(&self) -> u64 {
        self.retransmitted
    }

    /// Bytes that the peer still welcomes behind what was sent.
    pub(crate) const fn window_room(&self) -> u64 {
        self.window_end.saturating_sub(self.next)
    }

    pub(crate) const fn retransmission_timeout(&self) -> Duration {
        self.round_trip.timeout()
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        [self.timeout_at, self.probe_at, self.reordering_deadline].into_iter().flatten().min()
    }

    pub(crate) fn handle_acknowledgement(&mut self, now: Instant, ack: &Acknowledged<'_>) {
        // RFC 9293 §3.10.7.4: what was never sent cannot be acknowledged.
        if ack.through > self.next || ack.through < self.acknowledged {
            return;
        }
        let window_moved = ack.window_end != self.window_end;
        // RFC 9293 §3.10.7.4: an old window does not take the place of a newer one.
        self.window_end = ack.window_end.max(ack.through);
        let newly = self.take_cumulative(now, ack.through);
        let sacked = self.take_selective(now, ack.sack);
        if newly > 0 {
            self.silent_since = now;
            self.duplicates = 0;
            self.is_probed = false;
            self.round_trip.reset_backoff();
        } else if ack.sack.is_empty() && !ack.carries_data && !window_moved && !self.segments.is_empty() {
            self.handle_duplicate(now);
        }
        if let Some(recovery) = self.recovery
            && self.acknowledged >= recovery.until
        {
            self.recovery = None;
        }
        if newly > 0 || sacked {
            self.detect_losses(now);
        }
        // RFC 6582 §3.2: without selective acknowledgements a partial one shows the next loss.
        if newly > 0 && self.recovery.is_some() && !self.has_sack {
            self.mark_first_lost();
        }
        if newly > 0 && self.recovery.is_none_or(|recovery| recovery.is_timeout) {
            self.window.handle_acknowledged(now, newly, self.round_trip.smoothed());
        }
        if newly > 0 || self.segments.is_empty() {
            self.arm(now);
        }
    }

    /// Forgets segments before `through`; how many bytes were acknowledged.
    fn take_cumulative(&mut self, now: Instant, through: u64) -> u64 {
        let newly = through - self.acknowledged;
        if newly == 0 {
            return 0;
        }
        let mut sample = None;
        while let Some(segment) = self.segments.front_mut() {
            if segment.start >= through {
                break;
            }
            let whole = segment.end() <= through;
            let counted = segment.end().min(through) - segment.start;
            if segment.is_sacked {
                self.sacked_segments -= usize::from(whole);
            } else if segment.is_lost {
                self.lost_bytes -= counted;
            } else {
                self.pipe -= counted;
            }
            if !whole {
                segment.start += counted;
                segment.length -= counted as u32;
                break;
            }
            let segment = *segment;
            self.segments.pop_front();
            self.repeated_segments -= usize::from(segment.is_repeated);
            if !segment.is_sacked {
                self.note_delivered(&segment, now);
                // RFC 6298 §3 (Karn): not from what was sent twice.
                if !segment.is_repeated {
                    sample = Some(now.saturating_since(segment.sent));
                }
            }
        }
        self.acknowledged = through;
        if let Some(sample) = sample {
            self.round_trip.measure(sample);
        }
        newly
    }

    /// Marks what arrived behind gaps; whether that is news.
    fn take_selective(&mut self, now: Instant, sack: &[Range<u64>]) -> bool {
        let mut is_news = false;
        for range in sack {
            let first = self.segments.partition_point(|segment| segment.start < range.start);
            for index in first..self.segments.len() {
                let segment = &mut self.segments[index];
                if segment.end() > range.end {
                    break;
                }
                if segment.is_sacked {
                    continue;
                }
                segment.is_sacked = true;
                if segment.is_lost {
                    self.lost_bytes -= u64::from(segment.length);
                } else {
                    self.pipe -= u64::from(segment.length);
                }
                segment.is_lost = false;
                self.sacked_segments += 1;
                is_news = true;
                let segment = *segment;
                self.note_delivered(&segment, now);
            }
        }
        is_news
    }

    /// RFC 8985 §6.2 step 2.
    fn note_delivered(&mut self, segment: &InFlight, now: Instant) {
        // A copy that is acknowledged sooner than a round trip can take was not what arrived.
        if segment.is_repeated && now.saturating_since(segment.sent) < self.round_trip.shortest() {
            return;
        }
        let this = (segment.sent, segment.end());
        if self.latest_delivered.is_none_or(|latest| latest < this) {
            self.latest_delivered = Some(this);
        }
    }

    /// RFC 8985 §6.2 step 5: a segment is lost when one that left later has arrived, and some time has passed.
    fn detect_losses(&mut self, now: Instant) {
        self.reordering_deadline = None;
        let Some(latest) = self.latest_delivered else { return };
        if self.sacked_segments == 0 && self.repeated_segments == 0 {
            return;
        }
        let patience = self.round_trip.latest() + self.round_trip.smoothed() / 4;
        let mut found = false;
        for segment in &mut self.segments {
            if segment.is_sacked || segment.is_lost || (segment.sent, segment.end()) >= latest {
                continue;
            }
            let at = segment.sent + patience;
            if at <= now {
                segment.is_lost = true;
                self.pipe -= u64::from(segment.length);
                self.lost_bytes += u64::from(segment.length);
                found = true;
            } else {
                self.reordering_deadline = Some(self.reordering_deadline.map_or(at, |other| other.min(at)));
            }
        }
        if found {
            self.enter_recovery(now);
        }
    }

    fn handle_duplicate(&mut self, now: Instant) {
        self.duplicates += 1;
        if self.duplicates == DUPLICATES && self.recovery.is_none() && !self.has_sack {
            self.mark_first_lost();
            self.enter_recovery(now);
        }
    }

    fn mark_first_lost(&mut self) {
        if let Some(segment) = self.segments.front_mut()
            && !segment.is_lost
            && !segment.is_sacked
        {
            segment.is_lost = true;
            self.pipe -= u64::from(segment.length);
            self.lost_bytes += u64::from(segment.length);
        }
    }

    fn enter_recovery(&mut self, now: Instant) {
        if self.recovery.is_none() {
            self.recovery = Some(Recovery { until: self.next, is_timeout: false });
            self.window.handle_loss(now);
        }
    }

    /// A deadline has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> TimeoutOutcome {
        if self.reordering_deadline.is_some_and(|at| at <= now) {
            self.detect_losses(now);
        }
        if self.timeout_at.is_some_and(|at| at <= now) {
            return self.handle_retransmission_timeout(now);
        }
        if self.probe_at.is_some_and(|at| at <= now) {
            self.probe_at = None;
            self.is_probed = true;
            self.probe_due = !self.segments.is_empty();
        }
        if self.lost_bytes > 0 || self.probe_due { TimeoutOutcome::RetransmitDue } else { TimeoutOutcome::Nothing }
    }

    /// RFC 6298 §5.4 to §5.7.
    fn handle_retransmission_timeout(&mut self, now: Instant) -> TimeoutOutcome {
        if now.saturating_since(self.silent_since.max(self.first_sent())) >= self.user_timeout {
            return TimeoutOutcome::GiveUp;
        }
        // RFC 2018 §8: a peer may have dropped what it had reported.
        for segment in &mut self.segments {
            if !segment.is_lost {
                self.lost_bytes += u64::from(segment.length);
                segment.is_lost = true;
            }
            segment.is_sacked = false;
        }
        self.sacked_segments = 0;
        self.pipe = 0;
        self.reordering_deadline = None;
        if self.recovery.is_none_or(|recovery| !recovery.is_timeout) {
            self.window.handle_timeout(now);
            self.recovery = Some(Recovery { until: self.next, is_timeout: true });
        }
        self.round_trip.back_off();
        self.timeout_at = Some(now + self.round_trip.timeout());
        self.probe_at = None;
        TimeoutOutcome::RetransmitDue
    }

    /// When the oldest segment left; a long silence before it does not count against the peer.
    fn first_sent(&self) -> Instant {
        match self.segments.front() {
            Some(segment) if !segment.is_repeated => segment.sent,
            _ => Instant::ZERO,
        }
    }

    /// What may be sent now.
    pub(crate) fn poll_segment(&mut self, now: Instant) -> Option<Transmission> {
        if self.probe_due {
            // RFC 8985 §7.3: the last segment, so that its acknowledgement shows what is missing before it.
            if let Some(last) = self.segments.back()
                && !last.is_lost
            {
                return Some(Transmission::Retransmit { start: last.start, length: self.piece(last) });
            }
            self.probe_due = false;
        }
        let congestion_room = self.window.bytes().saturating_sub(self.pipe);
        if self.lost_bytes > 0 {
            if congestion_room < self.segment_size as u64 && self.pipe > 0 {
                return None;
            }
            let lost = self.segments.iter().find(|segment| segment.is_lost)?;
            return Some(Transmission::Retransmit { start: lost.start, length: self.piece(lost) });
        }
        if self.segments.is_empty() && now.saturating_since(self.last_sent) > self.round_trip.timeout() {
            self.window.restart_after_idle();
        }
        // RFC 3042: the first duplicates let a new segment each out.
        let limited =
            if self.recovery.is_none() { u64::from(self.duplicates.min(2)) * self.segment_size as u64 } else { 0 };
        let room = (self.window.bytes() + limited).saturating_sub(self.pipe).min(self.window_room());
        let room = room.min(self.segment_size as u64) as usize;
        if room == self.segment_size || (room > 0 && self.segments.is_empty()) {
            return Some(Transmission::New { room });
        }
        if congestion_room < self.segment_size as u64 {
            self.window.note_full();
        }
        None
    }

    fn piece(&self, segment: &InFlight) -> u32 {
        segment.length.min(self.segment_size as u32)
    }

    /// `length` new bytes from `start` on have left.
    pub(crate) fn sent_new(&mut self, start: u64, length: u32, now: Instant) {
        debug_assert_eq!(start, self.next);
        let was_idle = self.segments.is_empty();
        if was_idle {
            self.silent_since = now;
        }
        self.segments.push_back(InFlight {
            start,
            length,
            sent: now,
            is_sacked: false,
            is_lost: false,
            is_repeated: false,
        });
        self.next = start + u64::from(length);
        self.pipe += u64::from(length);
        self.last_sent = now;
        if self.timeout_at.is_none() || was_idle {
            self.arm(now);
        } else {
            self.arm_probe(now);
        }
    }

    /// The front of a lost segment, or the probe, has left.
    pub(crate) fn sent_again(&mut self, start: u64, length: u32, now: Instant) {
        self.retransmitted += 1;
        self.last_sent = now;
        let index = self.segments.partition_point(|segment| segment.start < start);
        let Some(segment) = self.segments.get_mut(index).filter(|segment| segment.start == start) else { return };
        if length < segment.length {
            // The rest of it is a segment of its own from now on.
            let mut rest = *segment;
            rest.start += u64::from(length);
            rest.length -= length;
            segment.length = length;
            self.repeated_segments += usize::from(rest.is_repeated);
            self.sacked_segments += usize::from(rest.is_sacked);
            self.segments.insert(index + 1, rest);
        }
        let segment = &mut self.segments[index];
        self.repeated_segments += usize::from(!segment.is_repeated);
        segment.is_repeated = true;
        segment.sent = now;
        if segment.is_lost {
            segment.is_lost = false;
            self.lost_bytes -= u64::from(length);
            self.pipe += u64::from(length);
        }
        if std::mem::take(&mut self.probe_due) || self.timeout_at.is_none() {
            self.timeout_at = Some(now + self.round_trip.timeout());
        }
    }

    fn arm(&mut self, now: Instant) {
        if self.segments.is_empty() {
            self.timeout_at = None;
            self.probe_at = None;
            self.reordering_deadline = None;
            return;
        }
        self.timeout_at = Some(now + self.round_trip.timeout());
        self.arm_probe(now);
    }

    /// RFC 8985 §7.2.
    fn arm_probe(&mut self, now: Instant) {
        let may_probe = !self.is_probed && self.recovery.is_none() && self.has_sack;
        self.probe_at = may_probe.then(|| now + self.round_trip.probe_timeout());
    }
}
