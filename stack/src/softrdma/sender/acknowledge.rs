//! What an acknowledgement comes to.

use std::ops::Range;

use super::congestion::{Arrival, Window};
use super::recovery::{Forward, Kind, Recovery, Reduction, Verdict};
use super::scoreboard::Delivered;
use super::undo::Proof;
use super::{Acknowledged, DUPLICATES, FORWARD_SEGMENTS, Sender};
use crate::time::Instant;

impl Sender {
    pub(crate) fn handle_acknowledgement(&mut self, now: Instant, ack: &Acknowledged<'_>) {
        // RFC 9293 §3.10.7.4: what was never sent cannot be acknowledged.
        if ack.through > self.next || ack.through < self.acknowledged {
            return;
        }
        let window_moved = ack.window_end != self.window_end;
        let is_shrinking = ack.window_end < self.window_end;
        // What was acknowledged was welcome.
        self.window_end = ack.window_end.max(ack.through);
        let is_calm = self.recovery.is_none()
            && !self.segments.has_suspects()
            && !self.probe.is_out()
            && self.reordering_deadline.is_none();
        let mut news = self.take_delivered(now, ack);
        // RFC 5681 §2: a duplicate acknowledgement.
        let is_duplicate = news.advanced == 0
            && ack.sack.is_empty()
            && !ack.carries_data
            && !window_moved
            && !self.segments.is_empty();
        if news.advanced > 0 {
            self.is_front_due = false;
            self.silent_since = now;
            self.duplicates = 0;
            self.probe.set_due(None);
            // RFC 9937: what duplicates stood for is part of it.
            let covered = self.presumed.min(news.advanced);
            self.presumed -= covered;
            news.bytes = news.bytes.saturating_sub(covered);
        }
        if is_shrinking || self.is_shrunk {
            self.note_window();
        }
        let is_trouble = !is_calm || is_duplicate || news.is_selective || ack.duplicate.is_some();
        if is_trouble {
            self.handle_trouble(now, ack, &mut news, is_duplicate);
        } else if news.advanced > 0 {
            self.grow(now, &news);
        }
        self.arm_acknowledged(now, &news);
    }

    /// The peer has said something, and takes less than it said before, or did.
    #[cold]
    fn note_window(&mut self) {
        let is_shrunk = self.is_front_unwelcome();
        let was_shrunk = std::mem::replace(&mut self.is_shrunk, is_shrunk);
        if was_shrunk
            && !is_shrunk
            && let Some(front) = self.segments.front()
        {
            // It was probed ever more seldom, and not for the network's sake.
            self.round_trip.forget_backoff();
            self.timeout_at = Some(self.round_trip.timeout_at(front.sent));
        }
    }

    /// Marks what has arrived, and measures how long it took.
    #[inline]
    fn take_delivered(&mut self, now: Instant, ack: &Acknowledged<'_>) -> Delivered {
        let mut news = Delivered { advanced: ack.through - self.acknowledged, ..Delivered::default() };
        self.rack.begin();
        if news.advanced > 0 {
            self.segments.take_cumulative(now, ack.through, &mut self.rack, &mut news);
            self.acknowledged = ack.through;
            // RFC 6298 §3 (Karn): not from what was sent twice; nor where the gap in front of it was filled by what was.
            if news.has_copy {
                news.sample = None;
            }
        }
        for range in ack.sack {
            self.segments.take_selective(now, range, &mut self.rack, &mut news);
        }
        if let Some(sample) = news.sample {
            self.round_trip.measure(sample, now);
            self.rack.set_shortest(self.round_trip.shortest());
            self.probe.note_measured();
        }
        news
    }

    /// The network took something: it may take more.
    #[inline]
    fn grow(&mut self, now: Instant, news: &Delivered) {
        self.window.handle_arrival(&Arrival {
            now,
            delivered: news.bytes,
            acknowledged: self.acknowledged,
            next: self.next,
            sample: news.sample,
            round_trip: self.round_trip.smoothed(),
        });
    }

    /// An acknowledgement while something is or may be missing.
    fn handle_trouble(&mut self, now: Instant, ack: &Acknowledged<'_>, news: &mut Delivered, is_duplicate: bool) {
        if is_duplicate && !self.has_sack {
            self.handle_duplicate(news);
        }
        let is_bare = is_duplicate && ack.duplicate.is_none();
        if self.probe.has_repaired(self.acknowledged, ack.duplicate.as_ref(), is_bare) && self.recovery.is_none() {
            // RFC 8985 §7.4.2: the loss counts, though it is repaired.
            self.window.handle_loss(false);
            self.window.arrive();
        }
        if let Some(duplicate) = &ack.duplicate {
            self.rack.note_duplicate(self.acknowledged, self.next);
            self.take_proof(duplicate);
        }
        self.judge_timeout(news, is_duplicate);
        let has_left = self.leave_recovery(ack.duplicate.is_some());
        let is_loss = self.find_losses(now, news, is_duplicate);
        match &mut self.recovery {
            Some(Recovery { kind: Kind::Fast(_), .. }) => self.reduce(news, !is_loss),
            // RFC 9937 §6: the window is what it was to be; it grows from the next acknowledgement on.
            None if has_left => {}
            _ if news.bytes > 0 => self.grow(now, news),
            _ => {}
        }
    }

    /// Without selective acknowledgements a duplicate stands for a segment that has arrived (RFC 9937).
    fn handle_duplicate(&mut self, news: &mut Delivered) {
        self.duplicates += 1;
        let arrived = (self.segment_size as u64).min(self.pipe());
        self.presumed += arrived;
        news.bytes += arrived;
    }

    /// Whether a loss was found.
    fn find_losses(&mut self, now: Instant, news: &Delivered, is_duplicate: bool) -> bool {
        if self.has_sack {
            return (news.bytes > 0 || news.advanced > 0) && self.detect_losses(now, news.bytes);
        }
        match &mut self.recovery {
            // RFC 6582 §3.2 step 2: three duplicates, unless the last recovery left them behind.
            None if is_duplicate
                && self.duplicates == DUPLICATES
                && self.recovered.is_none_or(|end| self.acknowledged > end) =>
            {
                self.segments.mark_front_lost();
                self.enter_recovery(news.bytes);
                true
            }
            // RFC 6582 §3.2 step 3: a partial acknowledgement shows the next loss.
            Some(Recovery { kind: Kind::Fast(_), .. }) if news.advanced > 0 => {
                self.segments.mark_front_lost();
                false
            }
            _ => false,
        }
    }

    /// RFC 8985 §6.2 steps 4 and 5; `delivered`: bytes that the acknowledgement at hand brought. Whether something is lost.
    pub(super) fn detect_losses(&mut self, now: Instant, delivered: u64) -> bool {
        self.reordering_deadline = None;
        if !self.has_sack {
            return false;
        }
        let smoothed = self.round_trip.smoothed();
        let patience = self.rack.patience(self.recovery.is_some(), self.segments.sacked_segments(), smoothed);
        let (is_loss, next) = self.segments.detect_losses(now, &self.rack, patience);
        self.reordering_deadline = next;
        if is_loss && self.recovery.is_none() {
            self.enter_recovery(delivered);
        }
        is_loss
    }

    /// RFC 6675 §5 (4), RFC 6582 §3.2 step 2: a loss was found by acknowledgements; `delivered`: what the last one brought.
    fn enter_recovery(&mut self, delivered: u64) {
        self.undo.begin(self.window);
        self.probe.reset();
        self.probe_at = None;
        let first_end = self.segments.first_lost().map_or(self.acknowledged, |lost| lost.end());
        let flight = self.pipe() + self.segments.lost_bytes() + delivered;
        let threshold = self.window.handle_loss(false);
        let mut reduction = Reduction::new(threshold, flight, first_end);
        reduction.handle_delivered(0, self.pipe(), false, self.segment_size as u64);
        self.recovery = Some(Recovery { until: self.next, kind: Kind::Fast(reduction) });
    }

    /// RFC 9937 §6: how much may leave for what has arrived.
    fn reduce(&mut self, news: &Delivered, is_no_loss: bool) {
        let pipe = self.pipe();
        let segment = self.segment_size as u64;
        let is_safe = news.advanced > 0 && is_no_loss;
        if let Some(Recovery { kind: Kind::Fast(reduction), .. }) = &mut self.recovery
            && news.bytes > 0
        {
            reduction.handle_delivered(news.bytes, pipe, is_safe, segment);
        }
    }

    /// RFC 5682: was there a loss, when the timeout came?
    fn judge_timeout(&mut self, news: &Delivered, is_duplicate: bool) {
        let Some(Recovery { until, kind: Kind::Timeout(forward) }) = &mut self.recovery else { return };
        match forward.judge(news, self.acknowledged, *until, is_duplicate, self.has_sack) {
            Verdict::Open => {}
            Verdict::TryNew => {
                *until = self.next;
                *forward = Forward::Sending { left: FORWARD_SEGMENTS };
            }
            Verdict::Real { segments } => {
                *forward = Forward::Off;
                self.window.limit_to(segments);
            }
            Verdict::Spurious => {
                if let Some(prior) = self.undo.take_last() {
                    self.take_back(prior);
                }
            }
        }
    }

    /// RFC 3708: `duplicate` has arrived twice: perhaps nothing was lost at all.
    fn take_proof(&mut self, duplicate: &Range<u64>) {
        let proof = self.undo.note_duplicate(duplicate);
        if !matches!(proof, Proof::None) {
            // RFC 8985 §6.2 steps 3 and 4: what left again for nothing was not lost but overtaken.
            self.rack.note_reordering();
        }
        match proof {
            Proof::None | Proof::Copy => {}
            Proof::Last(prior) => self.take_back(prior),
            Proof::Earlier(window) => {
                if let Some(Recovery { kind: Kind::Fast(reduction), .. }) = &mut self.recovery {
                    self.window = window;
                    reduction.set_threshold(window.threshold());
                } else if self.recovery.is_none() {
                    self.window.restore(window, self.segments.pipe());
                }
            }
        }
    }

    /// Nothing was lost: the window is as before (RFC 4015, RFC 5682 §4), and so is the scoreboard.
    fn take_back(&mut self, prior: Window) {
        if let Some(recovery) = self.recovery.take() {
            if matches!(recovery.kind, Kind::Fast(_)) {
                self.window.arrive();
            }
            self.segments.unmark_lost();
            self.presumed = 0;
        }
        let pipe = self.pipe();
        self.window.restore(prior, pipe);
    }

    /// RFC 6675 §5 (A): everything has arrived that was in flight when the loss was found. `has_duplicate`: the
    /// acknowledgement reports something that has arrived twice. Whether that is now.
    fn leave_recovery(&mut self, has_duplicate: bool) -> bool {
        let Some(recovery) = self.recovery.filter(|recovery| self.acknowledged >= recovery.until) else { return false };
        if matches!(recovery.kind, Kind::Fast(_)) {
            self.window.arrive();
        }
        if !has_duplicate {
            self.rack.note_recovered();
        }
        self.recovery = None;
        self.recovered = Some(recovery.until);
        self.presumed = 0;
        true
    }
}
