//! From values to what the table says: medians, ratios, marks. Pure.

use std::collections::BTreeMap;

use super::work::{Mark, Subject, Unit, Work};

/// What became of one subject in one row.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A value per counted round, in the unit that is measured in.
    Values(Vec<f64>),
    /// It takes part, and did not do the work: why.
    Failed(String),
}

/// A row that was measured.
#[derive(Debug)]
pub struct Row {
    pub work: &'static Work,
    pub outcomes: BTreeMap<Subject, Outcome>,
}

impl Row {
    /// The median of a subject that did the work.
    pub fn median(&self, subject: Subject) -> Option<f64> {
        match self.outcomes.get(&subject)? {
            Outcome::Values(values) => median(values),
            Outcome::Failed(_) => None,
        }
    }

    /// How many times better dozen is than the other; `None` where one of them has no figure.
    pub fn ratio(&self, other: Subject) -> Option<f64> {
        let (ours, theirs) = (self.median(Subject::Dozen)?, self.median(other)?);
        let (over, under) = if self.work.unit.more_is_better() { (ours, theirs) } else { (theirs, ours) };
        (under > 0.0).then(|| over / under)
    }
}

/// The value in the middle; of an even number, the mean of the two there.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The smallest and the largest.
pub fn extremes(values: &[f64]) -> Option<(f64, f64)> {
    Some((values.iter().copied().min_by(f64::total_cmp)?, values.iter().copied().max_by(f64::total_cmp)?))
}

/// A value as the table shows it: three figures, more only before the point.
pub fn shown(value: f64, unit: Unit) -> String {
    let value = value / unit.scale();
    match value.abs() {
        _ if unit == Unit::Count => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// `12.3x`.
pub fn shown_ratio(ratio: f64) -> String {
    if ratio >= 100.0 { format!("{ratio:.0}x") } else { format!("{ratio:.1}x") }
}

/// What a mark asks for and whether dozen's median reaches it. `None` for the verdict where a figure is missing.
pub fn judge(row: &Row, rows: &[Row]) -> (String, Option<bool>) {
    let unit = row.work.unit;
    let ours = row.median(Subject::Dozen);
    let at_most = |limit: Option<f64>| Some(ours? <= limit?);
    match row.work.mark {
        Mark::None => (String::new(), None),
        Mark::Part(other, divisor) => {
            let limit = row.median(other).map(|theirs| theirs / divisor);
            let value = limit.map(|limit| format!(" = {}", shown(limit, unit))).unwrap_or_default();
            (format!("{}/{divisor}{value}", other.name()), at_most(limit))
        }
        Mark::Level(other) => {
            let ratio = row.ratio(other);
            (format!("as {}", other.name()), ratio.map(|ratio| ratio >= 0.95))
        }
        Mark::Below(limit) => (format!("under {limit}"), ours.map(|ours| ours / unit.scale() < limit)),
        Mark::AsFastAs(name) => {
            let other = rows.iter().find(|other| other.work.name == name);
            let theirs = other.and_then(|other| other.median(Subject::Dozen));
            ("as the bridge address".to_owned(), Option::zip(ours, theirs).map(|(a, b)| a >= b * 0.95))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::work::ALL;
    use super::*;

    fn row(name: &str, values: &[(Subject, f64)]) -> Row {
        let work = ALL.iter().find(|work| work.name == name).unwrap();
        Row { work, outcomes: values.iter().map(|(who, value)| (*who, Outcome::Values(vec![*value]))).collect() }
    }

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        for (values, expected) in
            [(&[][..], None), (&[3.0], Some(3.0)), (&[9.0, 1.0, 2.0], Some(2.0)), (&[4.0, 1.0, 2.0, 9.0], Some(3.0))]
        {
            assert_eq!(median(values), expected, "{values:?}");
        }
        assert_eq!(extremes(&[2.0, 1.0, 3.0]), Some((1.0, 3.0)));
    }

    #[test]
    fn three_figures_are_shown() {
        for (value, unit, expected) in [
            (0.2434, Unit::Milliseconds, "243"),
            (0.01234, Unit::Milliseconds, "12.3"),
            (0.0076991, Unit::Milliseconds, "7.70"),
            (131072.0, Unit::Mebibytes, "0.12"),
            (12.34e9, Unit::GigabitsPerSecond, "12.3"),
            (1234.0, Unit::Count, "1234"),
            (12.0, Unit::Count, "12"),
        ] {
            assert_eq!(shown(value, unit), expected);
        }
        assert_eq!((shown_ratio(12.34).as_str(), shown_ratio(240.4).as_str()), ("12.3x", "240x"));
    }

    #[test]
    fn a_ratio_says_how_many_times_better_dozen_is() {
        assert_eq!(row("run", &[(Subject::Dozen, 0.01), (Subject::Docker, 0.2)]).ratio(Subject::Docker), Some(20.0));
        let port = row("port-stream", &[(Subject::Dozen, 40e9), (Subject::Podman, 20e9)]);
        assert_eq!(port.ratio(Subject::Podman), Some(2.0));
        assert_eq!(port.ratio(Subject::Docker), None);
    }

    #[test]
    fn marks_are_judged_by_the_medians_of_the_same_run() {
        use Subject::{Crun, Docker, Dozen};
        let check = |rows: &[Row], words: &str, reached| assert_eq!(judge(&rows[0], rows), (words.to_owned(), reached));
        check(&[row("run", &[(Dozen, 0.020), (Docker, 0.200)])], "docker/10 = 20.0", Some(true));
        check(&[row("api", &[(Dozen, 0.020), (Docker, 0.225)])], "docker/15 = 15.0", Some(false));
        check(&[row("run", &[(Dozen, 0.020)])], "docker/10", None);
        check(&[row("runtime", &[(Dozen, 0.007), (Crun, 0.013)])], "crun/2 = 6.50", Some(false));
        check(&[row("log-write", &[(Dozen, 1.0), (Subject::Podman, 0.96)])], "as podman", Some(true));
        check(&[row("log-write", &[(Dozen, 1.0), (Subject::Podman, 0.9)])], "as podman", Some(false));
        check(&[row("neighbour-stream", &[(Dozen, 9.0), (Docker, 10.0)])], "as docker", Some(false));
        check(&[row("fifty", &[(Dozen, 0.9)])], "under 700", Some(false));
        check(&[row("rest", &[(Dozen, 11.0 * 1048576.0)])], "under 12", Some(true));
        let pair = |port: f64| [row("port-stream", &[(Dozen, port)]), row("bridge-stream", &[(Dozen, 100e9)])];
        check(&pair(96e9), "as the bridge address", Some(true));
        check(&pair(90e9), "as the bridge address", Some(false));
        check(&[row("bridge-stream", &[(Dozen, 1.0)])], "", None);
    }
}
