//! One direction of one connection: what is in flight, what is lost, what may be sent, when a timer fires.
//!
//! Pure arithmetic on offsets of the stream: no packets and no bytes. Loss is found by time (RFC 8985) from selective
//! acknowledgements (RFC 2018), by duplicate acknowledgements where the peer sends none (RFC 5681, RFC 6582), by a tail loss
//! probe, and at last by a timeout (RFC 6298).

mod congestion;
mod rack;
mod rtt;
mod scoreboard;

use std::ops::Range;
use std::time::Duration;

use super::config::CongestionControl;
use crate::time::Instant;
use congestion::Window;
use rack::Rack;
use rtt::RoundTrip;
use scoreboard::{Delivered, InFlight, Scoreboard};

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
    segments: Scoreboard,
    /// Everything before was acknowledged.
    acknowledged: u64,
    next: u64,
    window_end: u64,
    segment_size: usize,
    has_sack: bool,
    window: Window,
    round_trip: RoundTrip,
    duplicates: u32,
    /// While a loss is being repaired: up to here it had been sent when the loss was found.
    recovery: Option<Recovery>,
    rack: Rack,
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

impl Sender {
    pub(crate) fn new(config: &SenderConfig, now: Instant, established: Established) -> Self {
        let mut round_trip = RoundTrip::new(config.min_retransmission_timeout);
        if let Some(sample) = established.first_round_trip {
            round_trip.measure(sample);
        }
        Self {
            segments: Scoreboard::default(),
            acknowledged: 0,
            next: 0,
            window_end: established.window_bytes,
            segment_size: established.segment_size,
            has_sack: established.sack,
            window: Window::new(config.congestion_control, established.segment_size),
            round_trip,
            duplicates: 0,
            recovery: None,
            rack: Rack::default(),
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
        let news = self.take_delivered(now, ack);
        let newly = news.advanced;
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
        if newly > 0 || news.is_selective {
            self.detect_losses(now);
        }
        // RFC 6582 §3.2: without selective acknowledgements a partial one shows the next loss.
        if newly > 0 && self.recovery.is_some() && !self.has_sack {
            self.segments.mark_front_lost();
        }
        if newly > 0 && self.recovery.is_none_or(|recovery| recovery.is_timeout) {
            self.window.handle_acknowledged(now, newly, self.round_trip.smoothed());
        }
        if newly > 0 || self.segments.is_empty() {
            self.arm(now);
        }
    }

    /// Marks what has arrived, and measures how long it took.
    #[inline]
    fn take_delivered(&mut self, now: Instant, ack: &Acknowledged<'_>) -> Delivered {
        let mut news = Delivered { advanced: ack.through - self.acknowledged, ..Delivered::default() };
        if news.advanced > 0 {
            self.segments.take_cumulative(now, ack.through, &mut self.rack, &mut news);
            self.acknowledged = ack.through;
            // RFC 6298 §3 (Karn): not from what was sent twice; nor where the gap in front of it was filled by what was.
            if let Some(sample) = news.sample
                && !news.has_copy
            {
                self.round_trip.measure(sample);
                self.rack.set_shortest(self.round_trip.shortest());
            }
        }
        for range in ack.sack {
            self.segments.take_selective(now, range, &mut self.rack, &mut news);
        }
        news
    }

    /// RFC 8985 §6.2 step 5.
    fn detect_losses(&mut self, now: Instant) {
        self.reordering_deadline = None;
        if !self.segments.has_suspects() {
            return;
        }
        let patience = self.round_trip.latest() + self.round_trip.smoothed() / 4;
        let (is_loss, next) = self.segments.detect_losses(now, &self.rack, patience);
        self.reordering_deadline = next;
        if is_loss {
            self.enter_recovery(now);
        }
    }

    fn handle_duplicate(&mut self, now: Instant) {
        self.duplicates += 1;
        if self.duplicates == DUPLICATES && self.recovery.is_none() && !self.has_sack {
            self.segments.mark_front_lost();
            self.enter_recovery(now);
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
        if self.segments.lost_bytes() > 0 || self.probe_due {
            TimeoutOutcome::RetransmitDue
        } else {
            TimeoutOutcome::Nothing
        }
    }

    /// RFC 6298 §5.4 to §5.7.
    fn handle_retransmission_timeout(&mut self, now: Instant) -> TimeoutOutcome {
        if now.saturating_since(self.silent_since.max(self.first_sent())) >= self.user_timeout {
            return TimeoutOutcome::GiveUp;
        }
        // RFC 2018 §8: a peer may have dropped what it had reported.
        self.segments.mark_all_lost();
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
        let pipe = self.segments.pipe();
        let congestion_room = self.window.bytes().saturating_sub(pipe);
        if self.segments.lost_bytes() > 0 {
            if congestion_room < self.segment_size as u64 && pipe > 0 {
                self.window.note_full();
                return None;
            }
            let lost = *self.segments.first_lost()?;
            return Some(Transmission::Retransmit { start: lost.start, length: self.piece(&lost) });
        }
        if self.segments.is_empty() && now.saturating_since(self.last_sent) > self.round_trip.timeout() {
            self.window.restart_after_idle();
        }
        // RFC 3042: the first duplicates let a new segment each out.
        let limited =
            if self.recovery.is_none() { u64::from(self.duplicates.min(2)) * self.segment_size as u64 } else { 0 };
        let room = (self.window.bytes() + limited).saturating_sub(pipe).min(self.window_room());
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
        self.segments.push(start, length, now);
        self.next = start + u64::from(length);
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
        self.segments.resend(start, length, now);
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
