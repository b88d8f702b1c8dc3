//! What is printed.

use serde_json::json;

/// What a figure is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bar {
    AtMost(f64),
    AtLeast(f64),
    /// As much is hoped for, but nothing depends on it.
    Hoped(f64),
}

impl Bar {
    fn is_reached(self, figure: f64) -> bool {
        match self {
            Bar::AtMost(most) => figure <= most,
            Bar::AtLeast(least) | Bar::Hoped(least) => figure >= least,
        }
    }

    fn text(self) -> String {
        match self {
            Bar::AtMost(most) => format!("at most {most}"),
            Bar::AtLeast(least) => format!("at least {least}"),
            Bar::Hoped(least) => format!("({least})"),
        }
    }
}

/// How the halves make the figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Against {
    /// Ours over theirs.
    Ratio,
    /// Ours less theirs.
    Difference,
    /// There is no other half.
    Nothing,
}

/// A line of the table.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) what: String,
    /// Of the halves, not of the figure.
    pub(crate) unit: &'static str,
    pub(crate) bar: Bar,
    pub(crate) against: Against,
    pub(crate) figure: f64,
    pub(crate) ours: f64,
    pub(crate) theirs: f64,
    /// Figures of the single rounds.
    pub(crate) rounds: Vec<f64>,
    /// What else there is to say.
    pub(crate) remark: String,
}

impl Line {
    /// From what rounds measured, two halves each: the figure is the median of theirs, as the machine's pace changes between
    /// them.
    pub(crate) fn of_rounds(what: &str, unit: &'static str, bar: Bar, against: Against, halves: &[(f64, f64)]) -> Self {
        let rounds: Vec<f64> = halves
            .iter()
            .map(|(ours, theirs)| match against {
                Against::Ratio => ours / theirs,
                Against::Difference => ours - theirs,
                Against::Nothing => *ours,
            })
            .collect();
        let (ours, theirs): (Vec<f64>, Vec<f64>) = halves.iter().copied().unzip();
        Line {
            what: what.to_owned(),
            unit,
            bar,
            against,
            figure: median(&rounds),
            ours: median(&ours),
            theirs: median(&theirs),
            rounds,
            remark: String::new(),
        }
    }

    /// Whether a bar of it can be missed.
    pub(crate) fn decides(&self) -> bool {
        !matches!(self.bar, Bar::Hoped(_))
    }

    /// Whether its bar is reached, if it has one.
    pub(crate) fn holds(&self) -> bool {
        !self.decides() || self.bar.is_reached(self.figure)
    }

    pub(crate) fn print(&self, as_json: bool) {
        let reached = self.bar.is_reached(self.figure);
        if as_json {
            let theirs = (self.against != Against::Nothing).then_some(self.theirs);
            let line = json!({
                "what": self.what, "bar": self.bar.text(), "figure": self.figure, "ours": self.ours, "theirs": theirs,
                "unit": self.unit, "holds": self.holds(), "reached": reached, "rounds": self.rounds,
                "remark": self.remark,
            });
            println!("{line}");
            return;
        }
        let (ours, theirs) = (number(self.ours), number(self.theirs));
        let halves = match self.against {
            Against::Ratio => format!("{ours} / {theirs} {}", self.unit),
            Against::Difference => format!("{ours} - {theirs} {}", self.unit),
            Against::Nothing => format!("{ours} {}", self.unit),
        };
        let verdict = match (reached, self.decides()) {
            (true, _) => "",
            (false, true) => "MISSED",
            (false, false) => "(less)",
        };
        let line = format!(
            "{:<52} {:>13} {:>8}   {halves:<34} {verdict:<6} {}",
            self.what,
            self.bar.text(),
            number(self.figure),
            self.remark
        );
        println!("{}", line.trim_end());
    }
}

/// Says that a contest was not held, and why.
pub(crate) fn print_unheld(name: &str, trouble: &str, as_json: bool) {
    if as_json {
        println!("{}", json!({ "what": name, "not_run": trouble }));
    } else {
        println!("{name:<52} not run: {}", trouble.trim_end());
    }
}

/// With as many digits as say something.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The middle of `values`; not a number if there is none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}
