//! Who ends when: from the configuration and the pods alone.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use api::Value;
use serde::{Deserialize, Serialize};

use crate::config::KubeletConfiguration;

/// The priority from which on pods are critical.
const CRITICAL: i32 = 2_000_000_000;

/// The time that pods from a priority on get.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Period {
    /// The lowest priority of these pods.
    pub priority: i32,
    /// The time that they have together.
    pub shutdown_grace_period_seconds: i64,
}

/// Pods that end together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub priority: i32,
    /// How long is waited for them.
    pub seconds: i64,
    /// Their uids, each with the seconds that it has.
    pub pods: Vec<(String, i64)>,
}

/// Refuses times that make no sense.
pub(crate) fn check(file: &KubeletConfiguration) -> anyhow::Result<()> {
    let (all, critical) = (file.shutdown_grace_period, file.shutdown_grace_period_critical_pods);
    if critical.0 > all.0 {
        bail!(
            "invalid configuration: shutdownGracePeriodCriticalPods {critical} must be <= shutdownGracePeriod {all}"
        );
    }
    for (name, period) in [("shutdownGracePeriod", all), ("shutdownGracePeriodCriticalPods", critical)] {
        if !period.is_zero() && period.0 < Duration::from_secs(1) {
            bail!("invalid configuration: {name} {period} must be either zero or otherwise >= 1 sec");
        }
    }
    if !file.shutdown_grace_period_by_pod_priority.is_empty() && !all.is_zero() {
        bail!(
            "invalid configuration: Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time"
        );
    }
    if file
        .shutdown_grace_period_by_pod_priority
        .iter()
        .any(|period| period.shutdown_grace_period_seconds < 0)
    {
        bail!("invalid configuration: shutdownGracePeriodSeconds must not be negative");
    }
    Ok(())
}

/// The times of the configuration, the lowest priority first; none when there is no graceful shutdown.
pub(super) fn periods(file: &KubeletConfiguration) -> Vec<Period> {
    let mut periods = file.shutdown_grace_period_by_pod_priority.clone();
    let (all, critical) = (file.shutdown_grace_period.0, file.shutdown_grace_period_critical_pods.0);
    if periods.is_empty() && !all.is_zero() {
        let period = |priority, time: Duration| Period {
            priority,
            shutdown_grace_period_seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        };
        periods = vec![period(0, all.saturating_sub(critical)), period(CRITICAL, critical)];
    }
    periods.sort_by_key(|period| period.priority);
    periods
}

/// How long a shutdown has to wait.
pub(super) fn requested(periods: &[Period]) -> Duration {
    let seconds = periods.iter().map(|period| period.shutdown_grace_period_seconds.unsigned_abs());
    Duration::from_secs(seconds.sum())
}

/// The pods in groups, in the order in which they end. Whoever is below the lowest priority belongs to it.
pub(super) fn groups(periods: &[Period], pods: &[Arc<Value>]) -> Vec<Group> {
    let group = |period: &Period| Group {
        priority: period.priority,
        seconds: period.shutdown_grace_period_seconds,
        pods: Vec::new(),
    };
    let mut groups: Vec<Group> = periods.iter().map(group).collect();
    for pod in pods {
        let priority = pod.at(&["spec", "priority"]).as_i64().unwrap_or_default();
        let above = groups.iter().take_while(|group| i64::from(group.priority) <= priority).count();
        if let Some(group) = groups.get_mut(above.saturating_sub(1)) {
            let own = pod.at(&["spec", "terminationGracePeriodSeconds"]).as_i64();
            let grace = own.map_or(group.seconds, |own| own.min(group.seconds));
            group.pods.push((pod.uid().to_owned(), grace));
        }
    }
    // Nobody is waited for where there is nobody.
    groups.retain(|group| !group.pods.is_empty());
    groups
}

#[cfg(test)]
mod tests {
    use api::object;
    use daemon::GoDuration;

    use super::*;

    fn period(priority: i32, seconds: i64) -> Period {
        Period { priority, shutdown_grace_period_seconds: seconds }
    }

    fn file(all: u64, critical: u64, by_priority: &[Period]) -> KubeletConfiguration {
        KubeletConfiguration {
            shutdown_grace_period: GoDuration::from_secs(all),
            shutdown_grace_period_critical_pods: GoDuration::from_secs(critical),
            shutdown_grace_period_by_pod_priority: by_priority.to_vec(),
            ..KubeletConfiguration::default()
        }
    }

    #[test]
    fn times_come_from_either_setting() {
        for (file, expected, seconds) in [
            (file(0, 0, &[]), vec![], 0),
            (file(30, 10, &[]), vec![period(0, 20), period(CRITICAL, 10)], 30),
            (file(30, 30, &[]), vec![period(0, 0), period(CRITICAL, 30)], 30),
            (file(0, 0, &[period(100, 5), period(-5, 7)]), vec![period(-5, 7), period(100, 5)], 12),
        ] {
            check(&file).unwrap();
            assert_eq!(periods(&file), expected);
            assert_eq!(requested(&expected), Duration::from_secs(seconds));
        }
    }

    #[test]
    fn times_that_make_no_sense_are_refused() {
        let mut short = file(0, 0, &[]);
        short.shutdown_grace_period = GoDuration(Duration::from_millis(500));
        for (file, message) in [
            (
                file(10, 20, &[]),
                "invalid configuration: shutdownGracePeriodCriticalPods 20s must be <= shutdownGracePeriod 10s",
            ),
            (
                short,
                "invalid configuration: shutdownGracePeriod 500ms must be either zero or otherwise >= 1 sec",
            ),
            (
                file(10, 0, &[period(0, 1)]),
                "invalid configuration: Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time",
            ),
            (
                file(0, 0, &[period(0, -1)]),
                "invalid configuration: shutdownGracePeriodSeconds must not be negative",
            ),
        ] {
            assert_eq!(check(&file).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn pods_end_in_the_order_of_their_priority_with_the_time_of_their_group() {
        let pod = |uid: &str, priority: Option<i64>, grace: i64| {
            let mut pod =
                object!({"metadata": {"uid": uid}, "spec": {"terminationGracePeriodSeconds": grace}});
            if let Some(priority) = priority {
                pod.set(&["spec", "priority"], priority);
            }
            Arc::new(pod)
        };
        let periods = [period(0, 20), period(100, 15), period(1000, 5)];
        let pods = [
            pod("high", Some(2000), 30),
            pod("just", Some(1000), 2),
            pod("below", Some(999), 30),
            pod("none", None, 30),
            pod("lower", Some(-7), 1),
        ];
        let expected = |priority, seconds, pods: &[(&str, i64)]| Group {
            priority,
            seconds,
            pods: pods.iter().map(|(uid, grace)| ((*uid).to_owned(), *grace)).collect(),
        };
        assert_eq!(
            groups(&periods, &pods),
            [
                expected(0, 20, &[("none", 20), ("lower", 1)]),
                expected(100, 15, &[("below", 15)]),
                expected(1000, 5, &[("high", 5), ("just", 2)]),
            ]
        );
        assert_eq!(groups(&periods, &pods[..1]), [expected(1000, 5, &[("high", 5)])]);
        assert_eq!(groups(&[], &pods), []);
    }
}
