//! Contests of two sides that take turns.

use crate::Table;
use crate::report::{Against, Bar, Line};
use crate::rig::{Rig, Side, Trouble};

/// What one run of one side measures, and what is promised of it.
pub(crate) struct Measurement {
    pub(crate) figures: &'static [Figure],
    /// A number for each figure.
    pub(crate) run: fn(&Rig, Side) -> Result<Vec<f64>, Trouble>,
}

/// A number that a run measures.
pub(crate) struct Figure {
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    /// Of accelerated over plain.
    pub(crate) bar: Bar,
}

/// Runs both sides in every round; who begins changes, since the second finds the machine warmer.
pub(crate) fn hold(rig: &Rig, table: &Table, measurement: &Measurement) -> Result<Vec<Line>, Trouble> {
    let mut halves = vec![Vec::new(); measurement.figures.len()];
    for round in 0..table.rounds {
        eprint!("\r{}: round {} of {} ", measurement.figures[0].what, round + 1, table.rounds);
        let (ours, theirs) = if round % 2 == 0 {
            let theirs = (measurement.run)(rig, Side::Plain)?;
            ((measurement.run)(rig, Side::Accelerated)?, theirs)
        } else {
            let ours = (measurement.run)(rig, Side::Accelerated)?;
            (ours, (measurement.run)(rig, Side::Plain)?)
        };
        for (halves, pair) in halves.iter_mut().zip(ours.into_iter().zip(theirs)) {
            halves.push(pair);
        }
    }
    eprintln!();
    let line = |(figure, halves): (&Figure, &Vec<(f64, f64)>)| {
        Line::of_rounds(figure.what, figure.unit, figure.bar, Against::Ratio, halves)
    };
    Ok(measurement.figures.iter().zip(&halves).map(line).collect())
}
