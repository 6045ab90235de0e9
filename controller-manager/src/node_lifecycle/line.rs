//! Nodes that are to be evicted stand in line, a line for each zone, and one may go whenever the zone's rate allows.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// The longest time between two nodes: rates below that of one in it are taken for it.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// At most one token, which comes back some time after it was taken.
#[derive(Clone, Copy, Debug)]
struct Token {
    /// A second; no token ever comes with 0 or less.
    rate: f32,
    back: Instant,
}

impl Token {
    fn due(self) -> Option<Instant> {
        (self.rate > 0.0).then_some(self.back)
    }

    fn is_here(self, now: Instant) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    fn interval(self) -> Duration {
        Duration::try_from_secs_f32(self.rate.recip()).unwrap_or(LONGEST).min(LONGEST)
    }

    fn take(&mut self, now: Instant) -> bool {
        let here = self.is_here(now);
        if here {
            self.back = now + self.interval();
        }
        here
    }

    /// Who has to wait at the old rate waits the whole time of the new one.
    fn set_rate(&mut self, rate: f32, now: Instant) {
        if rate == self.rate {
            return;
        }
        let waits = !self.is_here(now);
        self.rate = rate;
        self.back = if waits { now + self.interval() } else { now };
    }
}

/// The line of one zone, of names of nodes.
#[derive(Debug)]
struct Line {
    token: Token,
    nodes: VecDeque<String>,
}

/// The lines of all zones.
#[derive(Debug, Default)]
pub(super) struct Lines(BTreeMap<String, Line>);

impl Lines {
    /// Brings the lines to the zones there are and to those of their nodes that wait: who stands in line keeps the place. `rate`
    /// tells the nodes a second of a zone.
    pub(super) fn update(
        &mut self,
        waiting: &BTreeMap<String, Vec<String>>,
        rate: impl Fn(&str) -> f32,
        now: Instant,
    ) {
        self.0.retain(|zone, _| waiting.contains_key(zone));
        for (zone, names) in waiting {
            let rate = rate(zone);
            let line = self
                .0
                .entry(zone.clone())
                .or_insert_with(|| Line { token: Token { rate, back: now }, nodes: VecDeque::new() });
            line.token.set_rate(rate, now);
            line.nodes.retain(|name| names.contains(name));
            let newcomers: Vec<_> = names.iter().filter(|name| !line.nodes.contains(name)).cloned().collect();
            line.nodes.extend(newcomers);
        }
    }

    /// Takes the node out of line that may go now.
    pub(super) fn next(&mut self, now: Instant) -> Option<String> {
        let line = self.0.values_mut().find(|line| !line.nodes.is_empty() && line.token.is_here(now))?;
        line.token.take(now);
        line.nodes.pop_front()
    }

    /// When the next node may go.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.values().filter(|line| !line.nodes.is_empty()).filter_map(|line| line.token.due()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(zones: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        zones.iter().map(|(zone, names)| ((*zone).to_owned(), owned(names))).collect()
    }

    /// Takes whoever may go in each second of a time; names and seconds.
    fn run(lines: &mut Lines, start: Instant, seconds: std::ops::Range<u64>) -> Vec<(String, u64)> {
        let mut gone = Vec::new();
        for second in seconds {
            while let Some(name) = lines.next(start + Duration::from_secs(second)) {
                gone.push((name, second));
            }
        }
        gone
    }

    fn told(list: &[(&str, u64)]) -> Vec<(String, u64)> {
        list.iter().map(|(name, second)| ((*name).to_owned(), *second)).collect()
    }

    #[test]
    fn nodes_of_each_zone_go_at_its_rate() {
        let (start, mut lines) = (Instant::now(), Lines::default());
        let zones = waiting(&[("fast", &["a", "b", "c"]), ("slow", &["x", "y"]), ("stopped", &["z"])]);
        let rate = |zone: &str| match zone {
            "fast" => 0.1,
            "slow" => 0.05,
            _ => 0.0,
        };
        lines.update(&zones, rate, start);
        assert_eq!(lines.due(), Some(start));
        let want = told(&[("a", 0), ("x", 0), ("b", 10), ("c", 20), ("y", 20)]);
        assert_eq!(run(&mut lines, start, 0..100), want);
        assert_eq!(lines.due(), None, "nobody waits who may ever go");
    }

    #[test]
    fn who_stands_in_line_keeps_the_place_and_who_need_not_go_leaves() {
        let (start, mut lines) = (Instant::now(), Lines::default());
        lines.update(&waiting(&[("z", &["b", "c"])]), |_| 1.0, start);
        lines.update(&waiting(&[("z", &["a", "c", "b"])]), |_| 1.0, start);
        assert_eq!(run(&mut lines, start, 0..2), told(&[("b", 0), ("c", 1)]));
        lines.update(&waiting(&[("z", &[])]), |_| 1.0, start);
        assert_eq!(run(&mut lines, start, 2..5), []);
    }

    #[test]
    fn another_rate_keeps_the_token_or_the_lack_of_one() {
        let check = |rates: &[(u64, f32)], taken: Option<u64>, want: Option<u64>| {
            let start = Instant::now();
            let second = |s| start + Duration::from_secs(s);
            let mut token = Token { rate: 0.1, back: start };
            if let Some(s) = taken {
                assert!(token.take(second(s)));
            }
            for (s, rate) in rates {
                token.set_rate(*rate, second(*s));
            }
            assert_eq!(token.due(), want.map(second), "{rates:?} {taken:?}");
        };
        check(&[(5, 0.5)], None, Some(5));
        check(&[(5, 0.5)], Some(0), Some(7));
        check(&[(5, 0.1)], Some(0), Some(10));
        check(&[(5, 0.0)], None, None);
        // Whoever comes back from a halt waits first.
        check(&[(5, 0.0), (9, 0.1)], None, Some(19));
    }

    #[test]
    fn odd_rates_are_harmless() {
        for rate in [f32::MIN_POSITIVE, 1e-30, -1.0, f32::NAN] {
            let (start, mut lines) = (Instant::now(), Lines::default());
            lines.update(&waiting(&[("z", &["a", "b"])]), |_| rate, start);
            run(&mut lines, start, 0..100);
            lines.update(&waiting(&[("z", &["a", "b"])]), |_| rate, start);
            assert!(lines.next(start + Duration::from_secs(100)).is_none(), "{rate}");
        }
        let (start, mut lines) = (Instant::now(), Lines::default());
        lines.update(&waiting(&[("z", &["a", "b"])]), |_| f32::INFINITY, start);
        assert_eq!(run(&mut lines, start, 0..1), told(&[("a", 0), ("b", 0)]));
    }
}
