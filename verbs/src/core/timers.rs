//! Deadlines of endpoints, soonest first.

use std::collections::BTreeSet;

use softrdma_stack::time::Instant;

/// Which endpoints have to be looked at, and when. An endpoint may be looked at in vain: what is due is decided by the
/// endpoint itself, so a deadline that moved away is simply found not due.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    entries: BTreeSet<(Instant, u32)>,
}

impl Timers {
    /// Looks at `slot` at `deadline`.
    pub(crate) fn add(&mut self, deadline: Instant, slot: u32) {
        self.entries.insert((deadline, slot));
    }

    /// The next endpoint to look at, if its time has come.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let &(deadline, slot) = self.entries.first()?;
        if deadline > now {
            return None;
        }
        self.entries.pop_first();
        Some(slot)
    }

    /// When the next look is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.entries.first().map(|&(deadline, _)| deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_slots_come_soonest_first_and_others_stay() {
        let mut timers = Timers::default();
        let at = Instant::from_nanoseconds;
        timers.add(at(30), 3);
        timers.add(at(10), 1);
        timers.add(at(20), 2);
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.pop_due(at(20)), Some(1));
        assert_eq!(timers.pop_due(at(20)), Some(2));
        assert_eq!(timers.pop_due(at(20)), None);
        assert_eq!(timers.next(), Some(at(30)));
    }
}
