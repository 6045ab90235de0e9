//! The configuration that requests pass: FlowSchemas in the order in which they match, and their priority levels.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use api::Value;
use http::HeaderValue;
use tokio_util::task::TaskTracker;

use super::demand::{Class, Stats, allocate};
use super::level::{Level, MOST, Settings, Shared};
use super::metrics::{Counted, Metrics};
use super::queues::Queuing;
use super::rules::Rules;

/// A FlowSchema whose priority level is there.
pub(super) struct Schema {
    pub(super) name: String,
    pub(super) uid: HeaderValue,
    pub(super) rules: Rules,
    pub(super) level: Arc<Level>,
    pub(super) counted: Counted,
}

/// What is in force.
#[derive(Default)]
pub(super) struct Config {
    /// In the order in which they match; the last one matches everything.
    pub(super) schemas: Vec<Schema>,
    /// By name, those that go with them until nobody is left in them.
    pub(super) levels: BTreeMap<String, State>,
}

/// A level and its part of the server.
#[derive(Clone)]
pub(super) struct State {
    pub(super) level: Arc<Level>,
    /// Its object is gone.
    pub(super) quiescing: bool,
    nominal: u32,
    least: u32,
    most: u32,
}

impl State {
    fn stats(&self) -> Stats {
        *self.level.shared.stats.lock()
    }
}

fn uid(object: &Value) -> HeaderValue {
    HeaderValue::from_str(object.uid()).unwrap_or(HeaderValue::from_static(""))
}

impl Config {
    /// Reads all objects. What is mandatory is there even when its object is not: `fallback` has those objects.
    pub(super) fn digest(
        before: &Config,
        levels: &[Value],
        schemas: &[Value],
        fallback: (&[Value], &[Value]),
        (total, metrics, tasks): (u32, &Metrics, &TaskTracker),
    ) -> Self {
        let mut states: BTreeMap<String, State> = BTreeMap::new();
        for object in levels.iter().chain(fallback.0) {
            if states.contains_key(object.name()) {
                continue;
            }
            let Some(settings) = Settings::new(object.name(), object.get("spec")) else {
                tracing::warn!(
                    name = object.name(),
                    "a PriorityLevelConfiguration contradicts itself, and is ignored"
                );
                continue;
            };
            let known = before.levels.get(object.name());
            let shared = match known {
                Some(known) => known.level.shared.clone(),
                None => Arc::new(Shared::new(settings.queuing, tasks.clone())),
            };
            let level = Level { name: object.name().to_owned(), uid: uid(object), settings, shared };
            let state = State { level: Arc::new(level), quiescing: false, nominal: 0, least: 0, most: 0 };
            states.insert(object.name().to_owned(), state);
        }
        let schemas = order(schemas, fallback.1, |name| states.contains_key(name));
        let schemas = schemas.into_iter().map(|object| {
            let spec = object.get("spec");
            let level = states[spec.str_at(&["priorityLevelConfiguration", "name"])].level.clone();
            let counted = metrics.of(&level.name, object.name());
            Schema {
                name: object.name().to_owned(),
                uid: uid(object),
                rules: Rules::new(spec),
                level,
                counted,
            }
        });
        let schemas = schemas.collect();
        for (name, state) in &before.levels {
            // Who is in a level that goes stays until they are done.
            if !states.contains_key(name) && !state.level.shared.set.lock().is_idle() {
                states.insert(name.clone(), State { quiescing: true, ..state.clone() });
            }
        }
        let mut config = Config { schemas, levels: states };
        config.divide(total, metrics);
        config.adjust(metrics, false);
        config
    }

    /// Gives each level its nominal part.
    fn divide(&mut self, total: u32, metrics: &Metrics) {
        let sum: f64 = self.levels.values().map(|s| f64::from(s.level.settings.shares)).sum();
        for (name, state) in &mut self.levels {
            let settings = &state.level.settings;
            let part = f64::from(total) * f64::from(settings.shares) / sum.max(1.0);
            // A part is no more than the total, which is a u32.
            let nominal = part.ceil() as u32;
            let percent = |p: u32| (f64::from(nominal) * f64::from(p) / 100.0).round() as u32;
            state.nominal = nominal;
            state.least = nominal.saturating_sub(percent(settings.lendable));
            state.most = nominal.saturating_add(settings.borrowing.map_or(total, percent));
            metrics.limits(name, nominal, state.least, state.most);
            let most = match settings.queuing {
                Queuing::Queue { hand, .. } => {
                    let by_part = (f64::from(nominal) * 0.15).ceil() as u32;
                    by_part.min(nominal / u32::try_from(hand).unwrap_or(u32::MAX)).clamp(1, MOST)
                }
                _ => MOST,
            };
            state.level.shared.most.store(most, Ordering::Relaxed);
        }
    }

    /// Lets levels use the seats that others do not need, by what was asked for since the last time.
    pub(super) fn adjust(&self, metrics: &Metrics, observe: bool) {
        let now = Instant::now();
        if observe {
            for state in self.levels.values() {
                let shared = &state.level.shared;
                shared.set.lock().demand.reset(now, &mut shared.stats.lock());
            }
        }
        let sum: u32 = self.levels.values().map(|s| s.nominal).sum();
        let is_exempt = |s: &State| s.level.settings.queuing == Queuing::Exempt;
        let floor = |s: &State| match is_exempt(s) {
            true => s.least.max(s.stats().most),
            false => s.least.max(s.nominal.min(s.stats().most)),
        };
        let exempt: u32 = self.levels.values().filter(|s| is_exempt(s)).map(floor).sum();
        let left = sum.saturating_sub(exempt);
        let limited: Vec<&State> = self.levels.values().filter(|s| !is_exempt(s)).collect();
        let least: u32 = limited.iter().map(|s| s.least).sum();
        let wanted: u32 = limited.iter().map(|s| floor(s)).sum();
        let mut fraction = 0.0;
        let parts: Vec<f64> = if left <= least {
            limited.iter().map(|s| f64::from(s.least)).collect()
        } else if left <= wanted {
            let share = f64::from(left - least) / f64::from(wanted - least);
            limited.iter().map(|s| f64::from(s.least) + f64::from(floor(s) - s.least) * share).collect()
        } else {
            let classes: Vec<Class> = limited
                .iter()
                .map(|s| {
                    let least = f64::from(floor(s));
                    Class { least, most: f64::from(s.most), target: least.max(s.stats().smoothed) }
                })
                .collect();
            match allocate(f64::from(sum), &classes) {
                Some((parts, fair)) => {
                    fraction = fair;
                    parts
                }
                None => limited.iter().map(|s| f64::from(s.nominal)).collect(),
            }
        };
        metrics.fair_fraction(fraction);
        let mut parts = parts.into_iter();
        for (name, state) in &self.levels {
            let stats = state.stats();
            let target = f64::from(floor(state)).max(stats.smoothed);
            let current = match is_exempt(state) {
                true => floor(state),
                // No part is more than what there is.
                false => parts.next().unwrap_or_default().round() as u32,
            };
            state.level.shared.set.lock().configure(state.level.settings.queuing, current, now);
            metrics.adjusted(name, &stats, target, current);
        }
    }

    /// True when a level waits for its last requests.
    pub(super) fn has_leftovers(&self) -> bool {
        self.levels.values().any(|s| s.quiescing)
    }
}

/// The schemas in the order in which they match, with those that must be there at their ends.
fn order<'v>(
    schemas: &'v [Value],
    mandatory: &'v [Value],
    is_level: impl Fn(&str) -> bool,
) -> Vec<&'v Value> {
    let level = |o: &Value| o.str_at(&["spec", "priorityLevelConfiguration", "name"]).to_owned();
    let mut found: Vec<&Value> = schemas.iter().filter(|o| is_level(&level(o))).collect();
    let precedence = |o: &Value| o.at(&["spec", "matchingPrecedence"]).as_i64().unwrap_or(0);
    found.sort_by(|a, b| precedence(a).cmp(&precedence(b)).then_with(|| a.name().cmp(b.name())));
    let missing: Vec<&Value> =
        mandatory.iter().filter(|m| !found.iter().any(|f| f.name() == m.name())).collect();
    for object in missing {
        if object.name() == "exempt" {
            found.insert(0, object);
        } else {
            found.push(object);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;
    use crate::fairness::objects;

    fn config(before: &Config, levels: &[Value], schemas: &[Value]) -> Config {
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let mandatory = objects::mandatory();
        let fallback = (&mandatory.0[..], &mandatory.1[..]);
        Config::digest(before, levels, schemas, fallback, (600, &metrics, &TaskTracker::new()))
    }

    fn limit(config: &Config, name: &str) -> u32 {
        config.levels[name].level.shared.set.lock().limit
    }

    #[test]
    fn seats_are_divided_by_shares_and_lent() {
        let (levels, schemas) = objects::all();
        let config = config(&Config::default(), &levels, &schemas);
        let nominal: Vec<(&str, u32, u32)> =
            config.levels.iter().map(|(n, s)| (n.as_str(), s.nominal, s.least)).collect();
        // 600 seats by 245 shares.
        let want = [
            ("catch-all", 13, 13),
            ("exempt", 0, 0),
            ("global-default", 49, 24),
            ("leader-election", 25, 25),
            ("node-high", 98, 73),
            ("system", 74, 50),
            ("workload-high", 98, 49),
            ("workload-low", 245, 24),
        ];
        assert_eq!(nominal, want);
        assert_eq!(config.levels["workload-low"].level.shared.most(), 37);
        // One level is busy and the others are not: it gets what they can spare.
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        *config.levels["workload-high"].level.shared.stats.lock() =
            Stats { most: 400, average: 400.0, deviation: 0.0, smoothed: 400.0 };
        config.adjust(&metrics, false);
        assert!(limit(&config, "workload-high") > 300, "{}", limit(&config, "workload-high"));
        assert!(limit(&config, "catch-all") >= 13);
    }

    #[test]
    fn what_is_mandatory_is_there_without_its_objects() {
        let config = config(&Config::default(), &[], &[]);
        let names: Vec<&str> = config.schemas.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["exempt", "catch-all"]);
        assert_eq!(limit(&config, "catch-all"), 600);
    }

    #[test]
    fn schemas_without_a_level_do_not_match() {
        let schema = |name: &str, level: &str, precedence: i64| {
            let spec =
                object!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence});
            object!({"metadata": {"name": name}, "spec": spec})
        };
        let schemas = [
            schema("b", "exempt", 5),
            schema("c", "none", 4),
            schema("a", "catch-all", 5),
            schema("z", "exempt", 1),
        ];
        let config = config(&Config::default(), &[], &schemas);
        let names: Vec<&str> = config.schemas.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["exempt", "z", "a", "b", "catch-all"]);
    }

    #[test]
    fn levels_that_contradict_themselves_are_ignored() {
        let check = |name: &str, spec: Value, ok: bool| {
            assert_eq!(Settings::new(name, &spec).is_some(), ok, "{spec}")
        };
        check("exempt", object!({"type": "Exempt"}), true);
        check("other", object!({"type": "Exempt"}), false);
        check(
            "exempt",
            object!({"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}),
            false,
        );
        let queuing = |hand: i64| object!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {"queues": 8, "handSize": hand, "queueLengthLimit": 5}}}});
        check("a", queuing(4), true);
        check("a", queuing(9), false);
        check("a", queuing(0), false);
    }
}
