//! Tail loss probes (RFC 8985 §7).

use std::ops::Range;

/// What a probe is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// RFC 8985 §7.3: new data, if there is any.
    New,
    /// The last segment once more, so that its acknowledgement shows what is missing before it.
    Last,
}

/// The state of RFC 8985 §7.1.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Probe {
    due: Option<Due>,
    /// TLP.end_seq.
    end: Option<u64>,
    /// TLP.is_retrans.
    is_copy: bool,
    /// No round trip was measured since the last probe.
    is_unmeasured: bool,
}

impl Probe {
    #[inline]
    pub(super) const fn due(&self) -> Option<Due> {
        self.due
    }

    pub(super) const fn set_due(&mut self, due: Option<Due>) {
        self.due = due;
    }

    /// RFC 8985 §7.3: one probe at a time, and a measured round trip between two, so that probes do not keep the estimate
    /// from following a path that became longer.
    #[inline]
    pub(super) const fn may_probe(&self) -> bool {
        self.end.is_none() && !self.is_unmeasured
    }

    #[inline]
    pub(super) const fn is_out(&self) -> bool {
        self.end.is_some()
    }

    #[inline]
    pub(super) const fn note_measured(&mut self) {
        self.is_unmeasured = false;
    }

    /// The probe has left; everything sent ends at `end`.
    pub(super) const fn note_sent(&mut self, end: u64, is_copy: bool) {
        *self = Self { due: None, end: Some(end), is_copy, is_unmeasured: true };
    }

    /// RFC 8985 §7.1: a recovery has begun.
    pub(super) const fn reset(&mut self) {
        self.due = None;
        self.end = None;
        self.is_copy = false;
    }

    /// RFC 8985 §7.4.2: whether an acknowledgement shows that the probe repaired a loss nobody else noticed.
    /// `is_bare_duplicate`: it is a duplicate without any block.
    pub(super) fn has_repaired(
        &mut self,
        acknowledged: u64,
        duplicate: Option<&Range<u64>>,
        is_bare_duplicate: bool,
    ) -> bool {
        let Some(end) = self.end.filter(|end| acknowledged >= *end) else { return false };
        let both_arrived = duplicate.is_some_and(|range| range.start < end && range.end >= end) || is_bare_duplicate;
        if !self.is_copy || both_arrived {
            self.end = None;
            return false;
        }
        let is_repaired = acknowledged > end;
        if is_repaired {
            self.end = None;
        }
        is_repaired
    }
}
