//! What the library costs a connection that it cannot help, as the other end has none.

use crate::report::{Against, Bar, Line, median};
use crate::rig::{Rig, Side, Trouble};
use crate::turns::{self, Ends};

/// Of each pair.
const TURNS: u64 = 20;
/// Per cent; the whole interval has to be below.
const MOST: f64 = 5.0;

/// The slowdown of a socket that fell back, in interleaved pairs of runs, with its interval of 95 %.
pub(crate) fn slowdown(rig: &Rig, pairs: u64) -> Result<Vec<Line>, Trouble> {
    let mut lines = Vec::new();
    for (name, server, client, share) in [("ping-pong", "echo", "ping", 0.1), ("one way", "sink", "stream", 0.2)] {
        for (end, side) in [("client", Side::OnlyClient), ("server", Side::OnlyServer)] {
            let what = format!("fallback, only {end} preloaded, {name}");
            let mut halves = Vec::new();
            for index in 0..pairs {
                eprint!("\r{what}: pair {} of {pairs} ", index + 1);
                halves.push(in_turns(rig, side, [server, client], rig.seconds * share)?);
            }
            eprintln!();
            lines.push(line(&what, &halves));
        }
    }
    Ok(lines)
}

/// A pair of processes with the library and one without, both new, in turns: the rate with it that goes with the median of
/// their ratios, and the median of that without. How fast a connection is depends on how its ends have fallen into step, so each
/// turn has a new one.
fn in_turns(rig: &Rig, side: Side, [server, client]: [&str; 2], seconds: f64) -> Result<(f64, f64), Trouble> {
    let mut ours = Ends::begin(rig, side, server, &[client], 0)?;
    let mut theirs = Ends::begin(rig, Side::Plain, server, &[client], 0)?;
    let rates = turns::alternate(rig, &mut ours, &mut theirs, TURNS, seconds)?;
    ours.end(rig)?;
    theirs.end(rig)?;
    let ratios: Vec<_> = rates.iter().map(|(ours, theirs)| ours / theirs).collect();
    let plain: Vec<_> = rates.iter().map(|(_, theirs)| *theirs).collect();
    let plain = median(&plain);
    Ok((median(&ratios) * plain, plain))
}

fn line(what: &str, halves: &[(f64, f64)]) -> Line {
    let slowdowns: Vec<f64> = halves.iter().map(|(ours, theirs)| 100.0 * (1.0 - ours / theirs)).collect();
    let Interval { low, median, high } = interval(&slowdowns);
    let ratio = Line::of_rounds(what, "a second", Bar::AtMost(MOST), Against::Ratio, halves);
    let remark = format!("% slower: {median:.2}, 95 % of {low:.2} to {high:.2}");
    Line { figure: high, rounds: slowdowns, remark, ..ratio }
}

#[derive(Debug, PartialEq)]
struct Interval {
    low: f64,
    median: f64,
    high: f64,
}

/// The median, and the interval that holds the true one with 95 %, whatever the distribution: between two of the values in
/// their order, as each is as likely below the median as above it. One run that something else has slowed down weighs no
/// more than any other.
fn interval(values: &[f64]) -> Interval {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len() - 1;
    let low = below(values.len());
    Interval {
        low: values[low],
        median: f64::midpoint(values[last / 2], values[values.len() / 2]),
        high: values[last - low],
    }
}

/// How many of `count` values may be left out at either end: most so that fewer than so many, or as many, lie on one side of
/// the median with a probability of 2.5 % at most.
fn below(count: usize) -> usize {
    let mut probability = 0.5_f64.powi(count as i32);
    let mut all = probability;
    let mut left_out = 0;
    while all <= 0.025 && left_out < count {
        left_out += 1;
        probability *= (count + 1 - left_out) as f64 / left_out as f64;
        all += probability;
    }
    left_out.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_the_tables() {
        // Ranks from 1 on of the lower limit, for intervals of 95 %, as tables of the sign test have them.
        for (count, rank) in [(6, 1), (10, 2), (20, 6), (40, 14), (100, 40)] {
            assert_eq!(below(count) + 1, rank, "of {count} values");
        }
    }

    #[test]
    fn the_interval_of_even_values_has_no_width() {
        assert_eq!(interval(&[2.5; 10]), Interval { low: 2.5, median: 2.5, high: 2.5 });
    }

    #[test]
    fn a_run_that_was_held_up_moves_nothing() {
        let mut values: Vec<f64> = (0..41).map(f64::from).collect();
        values[40] = 1e6;
        let Interval { low, median, high } = interval(&values);
        assert_eq!((low, median, high), (13.0, 20.0, 27.0));
    }
}
