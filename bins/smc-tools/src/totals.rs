//! What processes have counted, added up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use softrdma_smc::statistics::{Counter, Role, SIZE_CLASSES, Snapshot, Traffic};

/// Counts of one process or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    counters: BTreeMap<String, u64>,
    /// Connections that stay TCP, by reason.
    fallbacks: BTreeMap<Reason, u64>,
    /// Those for whose reason a process had no room.
    other_fallbacks: u64,
    pub(crate) sent: Histograms,
    pub(crate) received: Histograms,
}

/// Why a connection stays TCP. Written as one word: it is a key of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Reason {
    pub(crate) role: Role,
    pub(crate) code: u32,
    pub(crate) by_peer: bool,
}

impl From<Reason> for String {
    fn from(Reason { role, code, by_peer }: Reason) -> Self {
        let role = if role == Role::Client { "client" } else { "server" };
        format!("{role} {code:08x} {}", if by_peer { "peer" } else { "own" })
    }
}

impl TryFrom<String> for Reason {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let reason = || {
            let [role, code, by] = text.split(' ').collect::<Vec<_>>().try_into().ok()?;
            Some(Self {
                role: match role {
                    "client" => Role::Client,
                    "server" => Role::Server,
                    _ => return None,
                },
                code: u32::from_str_radix(code, 16).ok()?,
                by_peer: by == "peer",
            })
        };
        reason().ok_or_else(|| format!("'{text}' is no reason"))
    }
}

/// Counts of one direction by class of sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Histograms {
    pub(crate) messages: [u64; SIZE_CLASSES],
    pub(crate) rings: [u64; SIZE_CLASSES],
}

impl Totals {
    /// What one process shows.
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let histograms = |traffic: &Traffic| Histograms { messages: traffic.messages, rings: traffic.rings };
        let mut totals = Self {
            counters: Counter::ALL.iter().map(|one| (one.name().to_owned(), snapshot.counters.get(*one))).collect(),
            other_fallbacks: snapshot.other_fallbacks,
            sent: histograms(&snapshot.sent),
            received: histograms(&snapshot.received),
            ..Self::default()
        };
        for fallback in &snapshot.fallbacks {
            let reason = Reason { role: fallback.role, code: fallback.code, by_peer: fallback.by_peer };
            *totals.fallbacks.entry(reason).or_default() += fallback.count;
        }
        totals
    }

    /// Adds what others have counted.
    pub(crate) fn add(&mut self, other: &Self) {
        self.combine(other, u64::saturating_add);
    }

    /// Takes away what was counted before. Amounts of now stay as they are.
    pub(crate) fn subtract(&mut self, before: &Self) {
        let gauges: Vec<_> =
            Counter::ALL.iter().filter(|one| one.is_gauge()).map(|one| (*one, self.get(*one))).collect();
        self.combine(before, u64::saturating_sub);
        for (counter, amount) in gauges {
            self.counters.insert(counter.name().to_owned(), amount);
        }
    }

    fn combine(&mut self, other: &Self, combined: fn(u64, u64) -> u64) {
        for (name, amount) in &other.counters {
            let counter = self.counters.entry(name.clone()).or_default();
            *counter = combined(*counter, *amount);
        }
        for (reason, amount) in &other.fallbacks {
            let count = self.fallbacks.entry(*reason).or_default();
            *count = combined(*count, *amount);
        }
        self.other_fallbacks = combined(self.other_fallbacks, other.other_fallbacks);
        for (own, other) in [(&mut self.sent, &other.sent), (&mut self.received, &other.received)] {
            own.messages.iter_mut().zip(other.messages).for_each(|(own, other)| *own = combined(*own, other));
            own.rings.iter_mut().zip(other.rings).for_each(|(own, other)| *own = combined(*own, other));
        }
    }

    /// How much it is.
    pub(crate) fn get(&self, counter: Counter) -> u64 {
        self.counters.get(counter.name()).copied().unwrap_or(0)
    }

    /// Reasons and how often, most frequent first; what is left of those without room has none.
    pub(crate) fn fallbacks(&self) -> Vec<(Option<Reason>, u64)> {
        let known = self.fallbacks.iter().map(|(reason, count)| (Some(*reason), *count));
        let mut all: Vec<_> = known.chain([(None, self.other_fallbacks)]).filter(|(_, count)| *count != 0).collect();
        all.sort_by_key(|(_, count)| u64::MAX - count);
        all
    }

    /// By name.
    pub(crate) const fn counters(&self) -> &BTreeMap<String, u64> {
        &self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(bytes: u64, memory: u64, fallbacks: u64) -> Totals {
        let reason = Reason { role: Role::Client, code: 0x0301_0000, by_peer: false };
        Totals {
            counters: [("sent_bytes".to_owned(), bytes), ("ring_memory".to_owned(), memory)].into(),
            fallbacks: [(reason, fallbacks)].into(),
            other_fallbacks: 1,
            sent: Histograms { messages: [bytes, 0, 0, 0, 0, 0, 0, 1], rings: [0; 8] },
            received: Histograms::default(),
        }
    }

    #[test]
    fn what_was_before_is_taken_away_but_not_from_amounts_of_now() {
        let mut now = totals(10, 64, 3);
        now.subtract(&totals(4, 100, 3));
        assert_eq!((now.get(Counter::SentBytes), now.get(Counter::RingMemory)), (6, 64));
        assert_eq!(now.sent.messages, [6, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(now.fallbacks(), []);
        now.add(&totals(1, 1, 2));
        assert_eq!((now.get(Counter::SentBytes), now.get(Counter::RingMemory)), (7, 65));
        assert_eq!(now.fallbacks().iter().map(|(_, count)| *count).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn totals_survive_being_written_down() {
        let all = totals(10, 64, 3);
        assert_eq!(serde_json::from_str::<Totals>(&serde_json::to_string(&all).unwrap()).unwrap(), all);
        for text in ["client", "client xyz own", "peer 00000000 own", "client 00000000 own more"] {
            assert!(Reason::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
