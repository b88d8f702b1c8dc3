//! What a deadline comes to, and when there is one.

use super::probe::Due;
use super::recovery::{Forward, Kind, Recovery};
use super::scoreboard::Delivered;
use super::{Sender, TimeoutOutcome};
use crate::time::Instant;

impl Sender {
    /// When [`Self::handle_timeout`] is to be called.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        [self.timeout_at, self.probe_at, self.reordering_deadline].into_iter().flatten().min()
    }

    /// The peer said something last at `heard`, perhaps nothing new. To be told before [`Self::handle_timeout`].
    pub(crate) fn note_heard(&mut self, heard: Instant) {
        if self.is_shrunk {
            // RFC 9293 §3.8.6 and §3.8.6.1: who answers what leaves again, though its window is closed, is not dead.
            self.silent_since = self.silent_since.max(heard);
        }
    }

    /// A deadline has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> TimeoutOutcome {
        if self.reordering_deadline.is_some_and(|at| at <= now) {
            self.detect_losses(now, 0);
        }
        if self.probe_at.is_some_and(|at| at <= now) {
            // RFC 8985 §7.3: a probe in place of the timeout, which runs anew.
            self.probe_at = None;
            self.timeout_at = Some(self.round_trip.timeout_at(now));
            if self.may_probe() {
                self.probe.set_due(Some(Due::New));
            }
        } else if self.timeout_at.is_some_and(|at| at <= now) {
            return self.handle_retransmission_timeout(now);
        }
        let is_due = self.segments.lost_bytes() > 0 || self.probe.due().is_some();
        if is_due { TimeoutOutcome::RetransmitDue } else { TimeoutOutcome::Nothing }
    }

    /// RFC 6298 §5.4 to §5.6.
    fn handle_retransmission_timeout(&mut self, now: Instant) -> TimeoutOutcome {
        let Some(front) = self.segments.front().copied() else {
            self.timeout_at = None;
            return TimeoutOutcome::Nothing;
        };
        // RFC 6298 §5: no segment again less than a timeout after it left, by what is known of round trips now.
        let at = self.repeat_at(front.sent);
        if at > now {
            self.timeout_at = Some(at);
            return TimeoutOutcome::Nothing;
        }
        // A long silence before the oldest segment left does not count against the peer.
        let since = if front.is_repeated { self.silent_since } else { self.silent_since.max(front.sent) };
        if now.saturating_since(since) >= self.user_timeout {
            return TimeoutOutcome::GiveUp;
        }
        self.timeouts += 1;
        if front.is_sacked {
            // RFC 2018 §8: it had arrived and is missing now. RFC 6675 §5.1: else what was reported counts after a timeout.
            self.segments.forget_selective();
        }
        let smoothed = self.round_trip.smoothed();
        let patience = self.rack.patience(true, self.segments.sacked_segments(), smoothed).max(smoothed);
        self.segments.mark_overdue(now, patience);
        // RFC 6298 §5.4: the oldest segment leaves, whatever else is on its way.
        self.is_front_due = true;
        self.presumed = 0;
        self.duplicates = 0;
        self.reordering_deadline = None;
        self.begin_timeout_recovery(front.end());
        self.round_trip.back_off();
        self.timeout_at = Some(self.repeat_at(now));
        self.probe_at = None;
        TimeoutOutcome::RetransmitDue
    }

    /// When the oldest segment, which left at `sent`, leaves again. RFC 9293 §3.8.6.1: where the peer shrank its window, that is
    /// what probes it; so often that silence means something.
    pub(super) fn repeat_at(&self, sent: Instant) -> Instant {
        let at = self.round_trip.timeout_at(sent);
        if !self.is_shrunk {
            return at;
        }
        at.min(sent + (self.user_timeout / 4).max(self.round_trip.first_timeout()))
    }

    /// The peer has shrunk its window to less than the oldest segment in flight.
    pub(super) fn is_front_unwelcome(&self) -> bool {
        self.segments.front().is_some_and(|front| front.end() > self.window_end)
    }

    /// `first_end`: where the first segment ends.
    fn begin_timeout_recovery(&mut self, first_end: u64) {
        self.probe.reset();
        // RFC 5681 §3.1 and §4.3: a loss after the one that is being repaired reduces again, the same segment's does not.
        let is_again = matches!(self.recovery, Some(Recovery { kind: Kind::Timeout(_), .. }));
        // RFC 5682 §3.1: nothing can be found out in the midst of a recovery; only if nothing has moved since its timeout.
        let is_forward = match &self.recovery {
            None => true,
            Some(Recovery { kind: Kind::Fast(_), .. }) => false,
            Some(Recovery { kind: Kind::Timeout(forward), .. }) => matches!(forward, Forward::Repeated { .. }),
        };
        if matches!(self.recovery, Some(Recovery { kind: Kind::Fast(_), .. })) {
            self.window.arrive();
        }
        if self.recovery.is_none() {
            self.undo.begin(self.window);
            self.undo.note_timeout();
        } else if !is_forward {
            self.undo.forget();
        }
        self.window.handle_timeout(!is_again);
        let forward = if is_forward { Forward::Repeated { end: first_end } } else { Forward::Off };
        self.recovery = Some(Recovery { until: self.next, kind: Kind::Timeout(forward) });
    }

    fn may_probe(&self) -> bool {
        // RFC 8985 §7.2: not while a loss is being repaired or something has arrived behind a gap.
        self.has_sack
            && self.recovery.is_none()
            && self.segments.sacked_segments() == 0
            && !self.segments.is_empty()
            && self.probe.may_probe()
    }

    /// After an acknowledgement.
    #[inline]
    pub(super) fn arm_acknowledged(&mut self, now: Instant, news: &Delivered) {
        if news.is_selective {
            self.probe_at = None;
        }
        if self.segments.is_empty() {
            // RFC 6298 §5.2.
            self.timeout_at = None;
            self.probe_at = None;
            self.reordering_deadline = None;
        } else if news.advanced > 0 && !self.is_impatient() {
            // RFC 6298 §5.3.
            self.arm(now);
        }
    }

    /// RFC 6582 §3.2 step 3: without selective acknowledgements only the first partial one of a recovery restarts the timer: repairing
    /// many losses by one each round trip is slower than a timeout.
    fn is_impatient(&mut self) -> bool {
        match &mut self.recovery {
            Some(Recovery { kind: Kind::Fast(reduction), .. }) if !self.has_sack => {
                std::mem::replace(&mut reduction.has_partial, true)
            }
            _ => false,
        }
    }

    #[inline]
    pub(super) fn arm(&mut self, now: Instant) {
        self.timeout_at = Some(self.round_trip.timeout_at(now));
        self.arm_probe(now);
    }

    /// RFC 8985 §7.2.
    #[inline]
    pub(super) fn arm_probe(&mut self, now: Instant) {
        self.probe_at = None;
        if self.may_probe() {
            let at = self.round_trip.probe_at(now, self.segments.is_alone());
            // RFC 8985 §7.2: no later than the timeout.
            self.probe_at = Some(self.timeout_at.map_or(at, |timeout| timeout.min(at)));
        }
    }
}
