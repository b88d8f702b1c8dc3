//! What the wire does.

/// A wire of one gigabit a second, with one kind of trouble.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    trouble: &'static str,
    /// What `wire` is told about it.
    options: &'static [&'static str],
    round_trip_us: u32,
}

/// Round trips: within a rack and across a region.
const ROUND_TRIPS_US: [u32; 2] = [200, 10_000];

const TROUBLES: [(&str, &[&str]); 4] = [
    ("0.1 % loss", &["--loss", "0.001"]),
    ("1 % loss", &["--loss", "0.01"]),
    ("bursts of 8 in 10^4", &["--burst", "0.0001", "--burst-frames", "8"]),
    ("1 % reordering", &["--reorder", "0.01", "--reorder-us", "100"]),
];

/// Every trouble at every round trip.
pub(crate) fn all() -> Vec<Scenario> {
    let at =
        |round_trip_us| TROUBLES.map(|(trouble, options)| Scenario { trouble, options, round_trip_us }).into_iter();
    ROUND_TRIPS_US.into_iter().flat_map(at).collect()
}

/// No trouble but a full queue.
pub(crate) fn clean() -> Vec<Scenario> {
    ROUND_TRIPS_US.map(|round_trip_us| Scenario { trouble: "clean", options: &[], round_trip_us }).to_vec()
}

impl Scenario {
    pub(crate) fn name(&self) -> String {
        format!("{}, RTT {} ms", self.trouble, f64::from(self.round_trip_us) / 1000.0)
    }

    /// Arguments of `wire`. The queue holds 1 MiB: eight milliseconds at this rate, about what a switch gives a port.
    pub(crate) fn wire(&self) -> Vec<String> {
        let delay = (self.round_trip_us / 2).to_string();
        let fixed = ["--rate", "1G", "--queue-kb", "1024", "--delay-us", &delay];
        fixed.iter().chain(self.options).map(|word| (*word).to_owned()).collect()
    }

    /// Seconds in which a flow finds its speed: CUBIC's periods grow with the round trip.
    pub(crate) fn settle_seconds(&self) -> f64 {
        if self.round_trip_us > 1000 { 2.0 } else { 0.5 }
    }
}
