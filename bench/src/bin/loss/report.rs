//! What is printed.

use serde_json::{Value, json};

use crate::flow::Outcome;
use crate::scenario::Scenario;

/// Least goodput of ours over that of the kernel.
const LEAST_RATIO: f64 = 0.95;
/// Least and greatest share of either of two flows, in per cent.
const SHARES: std::ops::RangeInclusive<f64> = 35.0..=65.0;

/// One seed.
pub(crate) struct Pair {
    pub(crate) kernel: Outcome,
    pub(crate) ours: Outcome,
}

/// One after the other over the same wire, all seeds.
pub(crate) struct Contest {
    pub(crate) scenario: Scenario,
    pub(crate) pairs: Vec<Pair>,
}

/// Both at once, all seeds.
pub(crate) struct Fairness {
    pub(crate) scenario: Scenario,
    pub(crate) pairs: Vec<Pair>,
}

impl Contest {
    fn medians(&self) -> (f64, f64) {
        (median(self.pairs.iter().map(|pair| pair.kernel.gbps)), median(self.pairs.iter().map(|pair| pair.ours.gbps)))
    }

    fn ratio(&self) -> f64 {
        let (kernel, ours) = self.medians();
        if kernel > 0.0 { ours / kernel } else { 0.0 }
    }

    /// Whether the bar is reached.
    pub(crate) fn holds(&self) -> bool {
        self.ratio() >= LEAST_RATIO
    }

    pub(crate) fn print(&self) {
        let (kernel, ours) = self.medians();
        println!(
            "{:<34} kernel {kernel:>6.3}  ours {ours:>6.3} Gbit/s  ratio {:>5.2}  (at least {LEAST_RATIO}: {})",
            self.scenario.name(),
            self.ratio(),
            verdict(self.holds())
        );
    }
}

impl Fairness {
    /// Our share in per cent: the median over the seeds.
    fn share(&self) -> f64 {
        let share = |pair: &Pair| 100.0 * pair.ours.gbps / (pair.ours.gbps + pair.kernel.gbps);
        median(self.pairs.iter().map(share))
    }

    /// Whether the bar is reached.
    pub(crate) fn holds(&self) -> bool {
        SHARES.contains(&self.share())
    }

    pub(crate) fn print(&self) {
        let share = self.share();
        println!(
            "{:<34} kernel {:>5.1} %  ours {share:>5.1} %  (each {} to {} %: {})",
            format!("both at once, {}", self.scenario.name()),
            100.0 - share,
            SHARES.start(),
            SHARES.end(),
            verdict(self.holds())
        );
    }
}

/// Every single result.
pub(crate) fn json(contests: &[Contest], fairness: &[Fairness]) -> Value {
    let pairs = |pairs: &[Pair]| -> Vec<Value> {
        let pair = |pair: &Pair| json!({ "kernel": pair.kernel.to_json(), "ours": pair.ours.to_json() });
        pairs.iter().map(pair).collect()
    };
    let contest = |contest: &Contest| {
        let (kernel, ours) = contest.medians();
        json!({
            "scenario": contest.scenario.name(),
            "kernel_gbps": kernel,
            "ours_gbps": ours,
            "ratio": contest.ratio(),
            "bar": LEAST_RATIO,
            "holds": contest.holds(),
            "seeds": pairs(&contest.pairs),
        })
    };
    let fair = |fairness: &Fairness| {
        json!({
            "scenario": fairness.scenario.name(),
            "our_share_percent": fairness.share(),
            "bar_percent": [SHARES.start(), SHARES.end()],
            "holds": fairness.holds(),
            "seeds": pairs(&fairness.pairs),
        })
    };
    json!({
        "goodput": contests.iter().map(contest).collect::<Vec<_>>(),
        "fairness": fairness.iter().map(fair).collect::<Vec<_>>(),
    })
}

fn verdict(holds: bool) -> &'static str {
    if holds { "reached" } else { "MISSED" }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        length if length % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}
