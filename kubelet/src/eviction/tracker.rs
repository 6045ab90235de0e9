//! Which thresholds are missed, for how long, and what that makes of the node: no clock, no kernel, no pods.

use std::collections::HashMap;

use super::thresholds::{Pressure, Signal, Threshold};

/// What is left of something, and what there is in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Observation {
    pub available: i64,
    pub capacity: i64,
}

/// All that was observed.
pub(super) type Observations = HashMap<Signal, Observation>;

/// What an observation comes to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Step {
    /// The node's conditions.
    pub pressures: Vec<Pressure>,
    /// Thresholds that were missed longer than they may be, the most urgent first.
    pub met: Vec<Threshold>,
}

/// What was observed so far.
pub(super) struct Tracker {
    thresholds: Vec<Threshold>,
    /// Nanoseconds for which a condition stays after it was last seen.
    transition: i64,
    first: Vec<(Threshold, i64)>,
    seen: HashMap<Pressure, i64>,
    met: Vec<Threshold>,
}

/// Which thresholds are missed. `reclaim`: by less than what must be won back.
pub(super) fn missed(thresholds: &[Threshold], observations: &Observations, reclaim: bool) -> Vec<Threshold> {
    let is_missed = |threshold: &&Threshold| {
        observations.get(&threshold.signal).is_some_and(|observed| {
            let more =
                threshold.reclaim.filter(|_| reclaim).map_or(0, |more| more.of(observed.capacity).units());
            threshold.value.of(observed.capacity).units().saturating_add(more) > observed.available
        })
    };
    thresholds.iter().filter(is_missed).copied().collect()
}

impl Tracker {
    /// Nothing observed yet.
    pub(super) fn new(thresholds: Vec<Threshold>, transition: i64) -> Self {
        Self { thresholds, transition, first: Vec::new(), seen: HashMap::new(), met: Vec::new() }
    }

    /// Whether there is anything to observe.
    pub(super) fn is_idle(&self) -> bool {
        self.thresholds.is_empty()
    }

    /// Whether everything is well again, with what must be won back.
    pub(super) fn is_resolved(&self, observations: &Observations) -> bool {
        missed(&self.thresholds, observations, true).is_empty()
    }

    /// Takes in an observation at `now`, in nanoseconds.
    pub(super) fn step(&mut self, observations: &Observations, now: i64) -> Step {
        let mut missing = missed(&self.thresholds, observations, false);
        let unresolved = missed(&self.met, observations, true);
        missing.extend(unresolved.into_iter().filter(|t| !missing.contains(t)).collect::<Vec<_>>());
        let before = std::mem::take(&mut self.first);
        let since =
            |t: &Threshold| before.iter().find(|(other, _)| other == t).map_or(now, |(_, since)| *since);
        self.first = missing.iter().map(|t| (*t, since(t))).collect();
        for threshold in &missing {
            self.seen.insert(threshold.signal.pressure(), now);
        }
        let recent = self.seen.iter().filter(|(_, seen)| now - **seen < self.transition);
        let mut pressures: Vec<_> = recent.map(|(pressure, _)| *pressure).collect();
        pressures.sort_unstable();
        let over = self.first.iter().filter(|(t, since)| now - since >= t.grace.as_nanos() as i64);
        self.met = over.map(|(threshold, _)| *threshold).collect();
        let mut met = self.met.clone();
        met.sort_by_key(|t| !matches!(t.signal, Signal::Memory | Signal::PodsMemory));
        Step { pressures, met }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::thresholds::Amount;
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn threshold(signal: Signal, value: &str, grace: u64, reclaim: Option<&str>) -> Threshold {
        let amount = |text: &str| Amount::Fixed(text.parse().unwrap());
        Threshold {
            signal,
            value: amount(value),
            grace: Duration::from_secs(grace),
            reclaim: reclaim.map(amount),
        }
    }

    fn observed(signal: Signal, available: i64) -> Observations {
        [(signal, Observation { available, capacity: 1000 })].into()
    }

    #[test]
    fn a_soft_threshold_is_met_after_its_grace_period() {
        let soft = threshold(Signal::Memory, "100", 30, None);
        let mut tracker = Tracker::new(vec![soft], 300 * SECOND);
        let pressed = vec![Pressure::Memory];
        assert_eq!(tracker.step(&observed(Signal::Memory, 100), 0), Step::default());
        assert_eq!(
            tracker.step(&observed(Signal::Memory, 99), SECOND),
            Step { pressures: pressed.clone(), met: vec![] }
        );
        assert!(tracker.step(&observed(Signal::Memory, 99), 30 * SECOND).met.is_empty());
        assert_eq!(tracker.step(&observed(Signal::Memory, 99), 31 * SECOND).met, [soft]);
        assert_eq!(
            tracker.step(&observed(Signal::Memory, 200), 40 * SECOND),
            Step { pressures: pressed, met: vec![] }
        );
        assert_eq!(tracker.step(&observed(Signal::Memory, 99), 50 * SECOND).met, []);
    }

    #[test]
    fn a_condition_stays_for_its_transition_period() {
        let mut tracker = Tracker::new(vec![threshold(Signal::Pids, "10", 0, None)], 300 * SECOND);
        assert_eq!(tracker.step(&observed(Signal::Pids, 5), 0).pressures, [Pressure::Pid]);
        assert_eq!(tracker.step(&observed(Signal::Pids, 50), 299 * SECOND).pressures, [Pressure::Pid]);
        assert_eq!(tracker.step(&observed(Signal::Pids, 50), 300 * SECOND).pressures, []);
    }

    #[test]
    fn what_must_be_won_back_counts_until_it_is() {
        let hard = threshold(Signal::NodeDisk, "100", 0, Some("50"));
        let mut tracker = Tracker::new(vec![hard], 300 * SECOND);
        assert!(tracker.step(&observed(Signal::NodeDisk, 120), 0).met.is_empty());
        assert_eq!(tracker.step(&observed(Signal::NodeDisk, 90), SECOND).met, [hard]);
        assert_eq!(tracker.step(&observed(Signal::NodeDisk, 120), 2 * SECOND).met, [hard]);
        assert!(!tracker.is_resolved(&observed(Signal::NodeDisk, 149)));
        assert!(tracker.step(&observed(Signal::NodeDisk, 150), 3 * SECOND).met.is_empty());
    }

    #[test]
    fn memory_is_the_most_urgent() {
        let disk = threshold(Signal::NodeDisk, "100", 0, None);
        let memory = threshold(Signal::PodsMemory, "100", 0, None);
        let mut both = observed(Signal::NodeDisk, 1);
        both.extend(observed(Signal::PodsMemory, 1));
        assert_eq!(Tracker::new(vec![disk, memory], 1).step(&both, 0).met, [memory, disk]);
    }
}
