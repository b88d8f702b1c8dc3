//! While a loss is being repaired: how much may be sent, and whether a timeout was one.

use super::scoreboard::Delivered;

/// A loss that is being repaired.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recovery {
    /// RFC 6675's RecoveryPoint: everything that had been sent ends here.
    pub(super) until: u64,
    pub(super) kind: Kind,
}

/// How it was found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// From acknowledgements: RFC 6675 §5, RFC 6582.
    Fast(Reduction),
    /// By a timeout: RFC 5681 §3.1.
    Timeout(Forward),
}

impl Recovery {
    /// `length` new bytes have left.
    pub(super) const fn note_new(&mut self, length: u64) {
        match &mut self.kind {
            Kind::Fast(reduction) => reduction.note_sent(length),
            Kind::Timeout(forward) => {
                if let Forward::Sending { left } = *forward {
                    *forward = if left > 1 { Forward::Sending { left: left - 1 } } else { Forward::Watching };
                }
            }
        }
    }
}

/// Proportional rate reduction (RFC 9937, before it RFC 6937): what may be sent while a loss is being repaired.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reduction {
    /// RFC 9937 §6: the window to arrive at.
    threshold: u64,
    /// RecoverFS: bytes in flight when the loss was found, without those that had arrived already.
    flight: u64,
    delivered: u64,
    sent: u64,
    /// What may be sent until the next acknowledgement.
    allowance: u64,
    /// RFC 6675 §4: RescueRxt; `None` once the rescue was sent.
    rescue: Option<u64>,
    pub(super) is_rescue_due: bool,
    /// RFC 6582 §3.2: a partial acknowledgement has come.
    pub(super) has_partial: bool,
}

impl Reduction {
    /// `first_end`: where the first lost segment ends.
    pub(super) const fn new(threshold: u64, flight: u64, first_end: u64) -> Self {
        let flight = if flight == 0 { 1 } else { flight };
        Self {
            threshold,
            flight,
            delivered: 0,
            sent: 0,
            allowance: 0,
            rescue: Some(first_end),
            is_rescue_due: false,
            has_partial: false,
        }
    }

    /// The window to arrive at is another: an earlier loss was none.
    pub(super) const fn set_threshold(&mut self, threshold: u64) {
        self.threshold = threshold;
    }

    pub(super) const fn allowance(&self) -> u64 {
        self.allowance
    }

    pub(super) const fn note_sent(&mut self, length: u64) {
        self.sent += length;
        self.allowance = self.allowance.saturating_sub(length);
    }

    /// RFC 9937 §6: `delivered` bytes have arrived, `pipe` are on their way; `is_safe`: the cumulative acknowledgement moved on
    /// and no further loss was found.
    pub(super) fn handle_delivered(&mut self, delivered: u64, pipe: u64, is_safe: bool, segment: u64) {
        self.delivered += delivered;
        let banked = self.delivered.saturating_sub(self.sent);
        self.allowance = if pipe > self.threshold {
            // As much leaves as arrives, in the proportion of the window to come to the flight there was.
            (self.delivered * self.threshold).div_ceil(self.flight).saturating_sub(self.sent)
        } else {
            // RFC 9937 §6: what was lost made room by itself. As much leaves as arrives, and while all goes well a segment
            // more: the slow-start reduction bound of RFC 6937 §3.
            let bound = banked.max(delivered) + if is_safe { segment } else { 0 };
            bound.min(self.threshold - pipe)
        };
        // RFC 9937 §6: the fast retransmission leaves in any case.
        if self.sent == 0 {
            self.allowance = self.allowance.max(segment);
        }
    }

    /// RFC 6675 §4, NextSeg() (4): once in each recovery, when nothing else is left to send and the first retransmission has
    /// arrived, the end of what is in flight is sent again: its acknowledgement shows what is missing before it. `is_late`: its
    /// acknowledgement could be here.
    pub(super) fn take_rescue(&mut self, acknowledged: u64, is_late: bool) -> bool {
        if is_late && self.rescue.is_some_and(|mark| acknowledged > mark) {
            self.rescue = None;
            self.is_rescue_due = true;
        }
        self.is_rescue_due
    }
}

/// F-RTO (RFC 5682): after a timeout new data is sent instead of old, to see whether the old arrives by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forward {
    /// The conventional way.
    Off,
    /// Step 2: the first segment has left again, up to `end`.
    Repeated {
        /// Where it ends.
        end: u64,
    },
    /// Step 2b: so many new segments may leave.
    Sending {
        /// How many.
        left: u8,
    },
    /// Step 3: they are on their way.
    Watching,
}

/// What F-RTO makes of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet.
    Open,
    /// Step 2b: new data is to be tried; what was sent so far ends at the recovery's end from now on.
    TryNew,
    /// The conventional way; the window is so many segments at most.
    Real {
        /// How many.
        segments: u64,
    },
    /// There was no loss.
    Spurious,
}

impl Forward {
    /// RFC 5682 §3.1 with selective acknowledgements, §2.1 without. `until`: the end of the recovery.
    pub(super) fn judge(
        self,
        news: &Delivered,
        acknowledged: u64,
        until: u64,
        is_duplicate: bool,
        has_sack: bool,
    ) -> Verdict {
        match self {
            Self::Off => Verdict::Open,
            Self::Repeated { end } if news.advanced > 0 => {
                // Step 2a: all of it has arrived, or not even what was repeated: that proves nothing.
                let is_proof = acknowledged < until && acknowledged >= end;
                if is_proof { Verdict::TryNew } else { Verdict::Real { segments: 2 } }
            }
            // RFC 5682 §2.1 step 2a: without selective acknowledgements a duplicate may mean a loss.
            Self::Repeated { .. } if is_duplicate && !has_sack => Verdict::Real { segments: 2 },
            Self::Repeated { .. } => Verdict::Open,
            Self::Sending { .. } | Self::Watching => {
                if news.highest > until {
                    // Step 3a: the new data has overtaken the old.
                    Verdict::Real { segments: 3 }
                } else if news.has_original && (news.advanced > 0 || has_sack) {
                    // Step 3b: something arrived that left before the timeout and not since.
                    Verdict::Spurious
                } else if is_duplicate || news.advanced > 0 || news.is_selective {
                    Verdict::Real { segments: 3 }
                } else {
                    Verdict::Open
                }
            }
        }
    }
}
