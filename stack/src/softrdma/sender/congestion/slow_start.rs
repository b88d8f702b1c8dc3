//! The first slow start, and its end before the queue overflows: HyStart++ (RFC 9406).

use std::time::Duration;

use super::Arrival;

/// RFC 9406 §4.3: the constants, and what one acknowledgement adds at most where segments leave in bursts.
const SHORTEST_RISE: Duration = Duration::from_millis(4);
const LONGEST_RISE: Duration = Duration::from_millis(16);
const RISE_DIVISOR: u32 = 8;
const SAMPLES: u32 = 8;
const CAREFUL_DIVISOR: u64 = 4;
const CAREFUL_ROUNDS: u8 = 5;
const MOST_SEGMENTS: u64 = 8;

/// The state of RFC 9406 §4.2.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlowStart {
    /// The round is over when everything before has arrived.
    round_end: u64,
    /// The shortest round trip of the round, and of the one before.
    shortest: Duration,
    shortest_before: Duration,
    samples: u32,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Standard,
    /// Conservative slow start: round trips became longer.
    Careful {
        baseline: Duration,
        rounds: u8,
    },
    Over,
}

impl SlowStart {
    pub(super) const fn new() -> Self {
        Self {
            round_end: 0,
            shortest: Duration::MAX,
            shortest_before: Duration::MAX,
            samples: 0,
            phase: Phase::Standard,
        }
    }

    /// Congestion avoidance is next.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Bytes that the window grows by.
    pub(super) fn growth(&mut self, arrival: &Arrival, segment: u64) -> u64 {
        if arrival.acknowledged > self.round_end {
            self.begin_round(arrival.next);
        }
        if let Some(sample) = arrival.sample {
            self.shortest = self.shortest.min(sample);
            self.samples += 1;
            self.judge();
        }
        let most = arrival.delivered.min(MOST_SEGMENTS * segment);
        match self.phase {
            Phase::Careful { .. } => most / CAREFUL_DIVISOR,
            Phase::Standard | Phase::Over => most,
        }
    }

    fn begin_round(&mut self, next: u64) {
        self.round_end = next;
        self.shortest_before = self.shortest;
        self.shortest = Duration::MAX;
        self.samples = 0;
        if let Phase::Careful { baseline, rounds } = self.phase {
            // RFC 9406 §4.2: long enough to be sure.
            let rounds = rounds + 1;
            self.phase = if rounds < CAREFUL_ROUNDS { Phase::Careful { baseline, rounds } } else { Phase::Over };
        }
    }

    fn judge(&mut self) {
        if self.samples < SAMPLES || self.shortest_before == Duration::MAX {
            return;
        }
        match self.phase {
            Phase::Standard => {
                let rise = (self.shortest_before / RISE_DIVISOR).clamp(SHORTEST_RISE, LONGEST_RISE);
                if self.shortest >= self.shortest_before + rise {
                    self.phase = Phase::Careful { baseline: self.shortest, rounds: 0 };
                }
            }
            // RFC 9406 §4.2: it was a mistake.
            Phase::Careful { baseline, .. } if self.shortest < baseline => self.phase = Phase::Standard,
            Phase::Careful { .. } | Phase::Over => {}
        }
    }
}
