//! What the library costs a connection that it cannot help, as the other end has none.

use crate::own::pair;
use crate::report::{Against, Bar, Line};
use crate::rig::{Rig, Side, Trouble};

/// Of the seconds of other measurements.
const SHARE: f64 = 0.25;
/// Per cent; the whole interval has to be below.
const MOST: f64 = 5.0;

/// The slowdown of a socket that fell back, in interleaved pairs of runs, with its interval of 95 %.
pub(crate) fn slowdown(rig: &Rig, pairs: u64) -> Result<Vec<Line>, Trouble> {
    let mut lines = Vec::new();
    for (name, server, client) in [("ping-pong", "echo", "ping"), ("one way", "sink", "stream")] {
        for (end, side) in [("client", Side::OnlyClient), ("server", Side::OnlyServer)] {
            let what = format!("fallback, only {end} preloaded, {name}");
            let mut halves = Vec::new();
            for index in 0..pairs {
                eprint!("\r{what}: pair {} of {pairs} ", index + 1);
                let run = |side| pair(rig, side, server, client, rig.seconds * SHARE, 0);
                // Who is first changes, as whatever follows finds the machine warmer.
                halves.push(if index % 2 == 0 {
                    let plain = run(Side::Plain)?;
                    (run(side)?, plain)
                } else {
                    (run(side)?, run(Side::Plain)?)
                });
            }
            eprintln!();
            lines.push(line(&what, &halves));
        }
    }
    Ok(lines)
}

fn line(what: &str, halves: &[(f64, f64)]) -> Line {
    let slowdowns: Vec<f64> = halves.iter().map(|(ours, theirs)| 100.0 * (1.0 - ours / theirs)).collect();
    let (mean, half_width) = interval(&slowdowns);
    let ratio = Line::of_rounds(what, "a second", Bar::AtMost(MOST), Against::Ratio, halves);
    let remark = format!("% slower: {mean:.2}, 95 % of {:.2} to {:.2}", mean - half_width, mean + half_width);
    Line { figure: mean + half_width, rounds: slowdowns, remark, ..ratio }
}

/// Mean, and how far the interval of 95 % reaches to either side of it (Student's t).
fn interval(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, student(count - 1.0) * (variance / count).sqrt())
}

/// The 0.975 quantile of Student's distribution, right to a hundredth from five degrees of freedom on: the first terms of its
/// expansion around the normal distribution's.
fn student(degrees: f64) -> f64 {
    const NORMAL: f64 = 1.959_964;
    let (third, fifth) = (NORMAL.powi(3), NORMAL.powi(5));
    let first = (third + NORMAL) / 4.0;
    let second = (5.0 * fifth + 16.0 * third + 3.0 * NORMAL) / 96.0;
    NORMAL + first / degrees + second / degrees.powi(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (degrees, quantile) in [(5.0, 2.571), (9.0, 2.262), (19.0, 2.093), (39.0, 2.023)] {
            let ours = student(degrees);
            assert!((ours - quantile).abs() < 0.03, "{degrees} degrees: {ours} instead of {quantile}");
        }
    }

    #[test]
    fn the_interval_of_even_values_has_no_width() {
        assert_eq!(interval(&[2.5; 10]), (2.5, 0.0));
    }
}
