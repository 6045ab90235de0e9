//! Figures, and the table of them.

use std::fmt::Write as _;
use std::time::Duration;

/// What was measured of a server, in the order of measuring.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Figure>);

#[derive(Debug)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
}

impl Report {
    /// Notes a figure.
    pub(crate) fn note(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.0.push(Figure { name: name.into(), value, unit });
    }

    /// Notes a span of time in milliseconds.
    pub(crate) fn time(&mut self, name: impl Into<String>, span: Duration) {
        self.note(name, span.as_secs_f64() * 1e3, "ms");
    }

    /// Notes the median and the 99th percentile of latencies, in milliseconds.
    pub(crate) fn latencies(&mut self, name: &str, mut all: Vec<Duration>) {
        all.sort_unstable();
        for (percent, label) in [(50, "p50"), (99, "p99")] {
            if let Some(span) = all.get((all.len() * percent / 100).min(all.len().saturating_sub(1))) {
                self.time(format!("{name}, {label}"), *span);
            }
        }
    }
}

/// The figures as lines: of one server, or of two with the first's ratio to the second's.
pub(crate) fn table(reports: &[Report]) -> String {
    let mut text = String::new();
    let Some((first, rest)) = reports.split_first() else { return text };
    for figure in &first.0 {
        let _ = write!(text, "{:<44}{:>12.3} {:<4}", figure.name, figure.value, figure.unit);
        for other in rest {
            if let Some(theirs) = other.0.iter().find(|f| f.name == figure.name) {
                let ratio = figure.value / theirs.value;
                let _ = write!(text, "{:>12.3} {:<4}{:>8.3}x", theirs.value, theirs.unit, ratio);
            }
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_servers_are_compared_figure_by_figure() {
        let (mut ours, mut theirs) = (Report::default(), Report::default());
        ours.latencies("get", (1..=100).map(Duration::from_millis).collect());
        ours.note("only here", 1.0, "MB");
        theirs.latencies("get", vec![Duration::from_millis(102)]);
        let text = table(&[ours, theirs]);
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["get,", "p50", "51.000", "ms", "102.000", "ms", "0.500x"]);
        assert_eq!(lines[1], ["get,", "p99", "100.000", "ms", "102.000", "ms", "0.980x"]);
        assert_eq!(lines[2], ["only", "here", "1.000", "MB"]);
    }

    #[test]
    fn nothing_measured_prints_nothing() {
        assert_eq!(table(&[]), "");
        let mut empty = Report::default();
        empty.latencies("none", Vec::new());
        assert_eq!(table(&[empty]), "");
    }
}
