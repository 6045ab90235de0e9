//! How many seats a level could use, and how the seats of the server are divided among levels.
//!
//! Mirrors upstream's seat demand statistics and its allocation of concurrency.

use std::time::Instant;

/// With one adjustment every ten seconds, a peak counts half after five minutes.
const SMOOTHING: f64 = 0.977;
/// The least that a class is said to want, so that proportions exist.
const LEAST_TARGET: f64 = 0.001;

/// The number of seats that a level could use, over the time since it was last asked.
pub(super) struct Demand {
    now: u32,
    since: Instant,
    seconds: f64,
    sum: f64,
    squares: f64,
    most: u32,
}

impl Demand {
    pub(super) fn new(now: Instant) -> Self {
        Self { now: 0, since: now, seconds: 0.0, sum: 0.0, squares: 0.0, most: 0 }
    }

    pub(super) fn set(&mut self, now: Instant, seats: u32) {
        self.integrate(now);
        self.now = seats;
        self.most = self.most.max(seats);
    }

    fn integrate(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        let seats = f64::from(self.now);
        self.seconds += passed;
        self.sum += passed * seats;
        self.squares += passed * seats * seats;
        self.since = now;
    }

    /// What was observed, as a new time begins.
    pub(super) fn reset(&mut self, now: Instant, stats: &mut Stats) {
        self.integrate(now);
        stats.most = self.most;
        if self.seconds > 0.0 {
            stats.average = self.sum / self.seconds;
            let variance = self.squares / self.seconds - stats.average * stats.average;
            stats.deviation = variance.max(0.0).sqrt();
            let envelope = stats.average + stats.deviation;
            stats.smoothed = envelope.max(SMOOTHING * stats.smoothed + (1.0 - SMOOTHING) * envelope);
        }
        (self.seconds, self.sum, self.squares, self.most) = (0.0, 0.0, 0.0, self.now);
    }
}

/// What is known of the demand of a level.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stats {
    /// The most seats at a time.
    pub(super) most: u32,
    /// The average.
    pub(super) average: f64,
    /// The standard deviation.
    pub(super) deviation: f64,
    /// The demand with its peaks remembered for a while.
    pub(super) smoothed: f64,
}

/// What a class may get, and what it wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    pub(super) least: f64,
    pub(super) most: f64,
    pub(super) target: f64,
}

/// Divides `sum` so that each class gets the same fraction of what it wants, within its bounds. Returns the parts and
/// the fraction; none when the bounds leave no solution.
pub(super) fn allocate(sum: f64, classes: &[Class]) -> Option<(Vec<f64>, f64)> {
    const TOLERANCE: f64 = 1e-7;
    let target = |c: &Class| c.target.max(c.least).max(LEAST_TARGET);
    let (low, high): (f64, f64) =
        (classes.iter().map(|c| c.least).sum(), classes.iter().map(|c| c.most).sum());
    if classes.iter().any(|c| c.most < c.least) || low - sum > TOLERANCE || sum - high > TOLERANCE {
        return None;
    }
    let part = |c: &Class, fraction: f64| (fraction * target(c)).clamp(c.least, c.most);
    let total = |fraction: f64| classes.iter().map(|c| part(c, fraction)).sum::<f64>();
    // What is given grows with the fraction, and is linear between the fractions at which a class meets a bound.
    let mut bounds: Vec<f64> =
        classes.iter().flat_map(|c| [c.least / target(c), c.most / target(c)]).collect();
    bounds.push(0.0);
    bounds.sort_by(f64::total_cmp);
    let at = bounds.partition_point(|bound| total(*bound) < sum - TOLERANCE);
    let fraction = match (at.checked_sub(1).map(|i| bounds[i]), bounds.get(at)) {
        (Some(below), Some(above)) => {
            let (from, to) = (total(below), total(*above));
            if to > from { below + (above - below) * (sum - from) / (to - from) } else { *above }
        }
        (None, Some(first)) => *first,
        (below, None) => below.unwrap_or(0.0),
    };
    Some((classes.iter().map(|c| part(c, fraction)).collect(), fraction))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn seats_are_divided_by_what_is_wanted_within_bounds() {
        let check = |sum: f64, classes: &[(f64, f64, f64)], want: Option<&[f64]>| {
            let classes: Vec<Class> = classes
                .iter()
                .map(|(least, most, target)| Class { least: *least, most: *most, target: *target })
                .collect();
            let got = allocate(sum, &classes).map(|(parts, _)| parts);
            match (&got, want) {
                (None, None) => {}
                (Some(got), Some(want)) if got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-6) => {}
                _ => panic!("{sum} of {classes:?}: {got:?}, not {want:?}"),
            }
        };
        // Nobody is bounded: the same fraction for all.
        check(30.0, &[(0.0, 100.0, 10.0), (0.0, 100.0, 20.0)], Some(&[10.0, 20.0]));
        check(15.0, &[(0.0, 100.0, 10.0), (0.0, 100.0, 20.0)], Some(&[5.0, 10.0]));
        // One may not lend so much, another not borrow so much.
        check(15.0, &[(8.0, 100.0, 10.0), (0.0, 100.0, 20.0)], Some(&[8.0, 7.0]));
        check(60.0, &[(0.0, 12.0, 10.0), (0.0, 100.0, 20.0)], Some(&[12.0, 48.0]));
        // Nobody wants anything: what there is goes by equal parts.
        check(10.0, &[(0.0, 100.0, 0.0), (0.0, 100.0, 0.0)], Some(&[5.0, 5.0]));
        check(8.0, &[(4.0, 10.0, 5.0), (4.0, 10.0, 5.0)], Some(&[4.0, 4.0]));
        check(20.0, &[(4.0, 10.0, 5.0), (4.0, 10.0, 5.0)], Some(&[10.0, 10.0]));
        check(7.0, &[(4.0, 10.0, 5.0), (4.0, 10.0, 5.0)], None);
        check(21.0, &[(4.0, 10.0, 5.0), (4.0, 10.0, 5.0)], None);
    }

    #[test]
    fn demand_is_averaged_over_time() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut demand = Demand::new(start);
        demand.set(at(0), 4);
        demand.set(at(5), 0);
        let mut stats = Stats::default();
        demand.reset(at(10), &mut stats);
        assert_eq!((stats.most, stats.average, stats.deviation), (4, 2.0, 2.0));
        assert_eq!(stats.smoothed, 4.0);
        // A quiet time lets the smoothed demand go down slowly.
        demand.reset(at(20), &mut stats);
        assert_eq!((stats.most, stats.average), (0, 0.0));
        assert!((stats.smoothed - 4.0 * SMOOTHING).abs() < 1e-9);
    }
}
