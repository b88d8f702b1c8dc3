//! Latencies in a histogram, and what a row says of them.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest latency that is told apart from longer ones.
const LONGEST: Duration = Duration::from_secs(600);

/// Latencies of one measurement, to three significant digits, in nanoseconds.
pub(crate) struct Latencies {
    histogram: Histogram<u64>,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        // The bounds are constants that the histogram accepts, so this cannot fail.
        let histogram = Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, 3).expect("valid histogram bounds");
        Self { histogram }
    }

    /// Takes the time of a whole operation.
    pub(crate) fn record(&mut self, time: Duration) {
        self.histogram.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Takes a round trip, of which half is one way.
    pub(crate) fn record_round_trip(&mut self, time: Duration) {
        self.record(time / 2);
    }

    /// Takes `count` round trips of the same time.
    #[cfg(feature = "dpdk")]
    pub(crate) fn record_round_trips(&mut self, time: Duration, count: u64) {
        self.histogram.saturating_record_n(u64::try_from((time / 2).as_nanos()).unwrap_or(u64::MAX), count);
    }

    pub(crate) fn summary(&self) -> LatencySummary {
        let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
        let at = |quantile: f64| microseconds(self.histogram.value_at_quantile(quantile));
        LatencySummary {
            min: microseconds(self.histogram.min()),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: microseconds(self.histogram.max()),
        }
    }
}

/// Latencies of a row in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LatencySummary {
    pub(crate) min: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// What moved in how much time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Throughput {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
}

impl Throughput {
    /// Payload in 10^9 bits a second.
    pub(crate) fn gigabits_per_second(&self) -> f64 {
        self.per_second(self.bytes as f64 * 8.0 / 1e9)
    }

    /// 10^6 messages a second.
    pub(crate) fn million_messages_per_second(&self) -> f64 {
        self.per_second(self.messages as f64 / 1e6)
    }

    fn per_second(&self, amount: f64) -> f64 {
        if self.time.is_zero() { 0.0 } else { amount / self.time.as_secs_f64() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_in_microseconds_and_ordered() {
        let mut latencies = Latencies::new();
        for microseconds in 1..=1000 {
            latencies.record(Duration::from_micros(microseconds));
        }
        let summary = latencies.summary();
        assert!((summary.min - 1.0).abs() < 0.01, "{summary:?}");
        assert!((summary.p50 - 500.0).abs() < 1.0, "{summary:?}");
        assert!((summary.p99 - 990.0).abs() < 2.0, "{summary:?}");
        assert!((summary.max - 1000.0).abs() < 2.0, "{summary:?}");
        assert!(summary.p99 <= summary.p999 && summary.p999 <= summary.max, "{summary:?}");
    }

    #[test]
    fn one_way_is_half_the_round_trip() {
        let mut latencies = Latencies::new();
        latencies.record_round_trip(Duration::from_micros(30));
        assert!((latencies.summary().p50 - 15.0).abs() < 0.1);
    }

    #[test]
    fn a_latency_beyond_the_histogram_is_kept_as_the_longest() {
        let mut latencies = Latencies::new();
        latencies.record(LONGEST * 10);
        assert!(latencies.summary().max >= LONGEST.as_secs_f64() * 0.99 * 1e6);
    }

    #[test]
    fn throughput_is_bits_and_messages_over_time() {
        let throughput = Throughput { messages: 1000, bytes: 1_000_000, time: Duration::from_millis(1) };
        assert!((throughput.gigabits_per_second() - 8.0).abs() < 1e-9);
        assert!((throughput.million_messages_per_second() - 1.0).abs() < 1e-9);
        assert_eq!(Throughput::default().gigabits_per_second(), 0.0);
    }
}
