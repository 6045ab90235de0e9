//! How long a pod takes to start, from its creation until the API server shows that all of its containers run.

use std::time::Duration;

use api::Value;
use jiff::Timestamp;

use crate::pods::spec;

/// The kinds of volumes that make no pod one with a state of its own.
const STATELESS: [&str; 5] = ["secret", "configMap", "downwardAPI", "emptyDir", "projected"];

/// What is known of the start of a pod.
#[derive(Debug)]
pub(crate) struct Startup {
    /// The pod came before it was started, could be placed at once, and has not started yet.
    waited_for: bool,
}

/// A pod has started.
#[derive(Debug, PartialEq)]
pub(crate) struct Started {
    /// How long that took.
    pub(crate) total: Duration,
    /// How long it took besides pulling images and running init containers; none of a pod with a state of its own.
    pub(crate) own: Option<Duration>,
    /// It has a network of its own.
    pub(crate) network: bool,
}

impl Startup {
    /// Nothing is known yet but the pod as it came first. Of static pods the API server hears late.
    pub(crate) fn of(pod: &Value) -> Self {
        let fresh = pod.str_at(&["status", "startTime"]).is_empty();
        Self {
            waited_for: fresh && !spec::is_static(pod) && !spec::is_terminal(pod) && !is_unschedulable(pod),
        }
    }

    /// Takes notice of the pod as the API server shows it `now`, after images were pulled for so long; tells once that it has
    /// started.
    pub(crate) fn look(&mut self, pod: &Value, now: Timestamp, pulling: Duration) -> Option<Started> {
        if !self.waited_for {
            return None;
        }
        self.waited_for = !spec::is_terminal(pod) && !is_unschedulable(pod);
        if !self.waited_for || !runs(pod) {
            return None;
        }
        self.waited_for = false;
        let created = api::time::parse(pod.str_at(&["metadata", "creationTimestamp"]))?;
        let total = Duration::try_from(now.duration_since(created)).unwrap_or_default();
        let own = total.saturating_sub(pulling).saturating_sub(initializing(pod));
        let network = !spec::host_network(pod);
        Some(Started { total, own: (!has_state(pod)).then_some(own), network })
    }
}

fn is_unschedulable(pod: &Value) -> bool {
    pod.array_at(&["status", "conditions"]).iter().any(|condition| {
        condition.str_at(&["type"]) == "PodScheduled" && condition.str_at(&["status"]) == "False"
    })
}

fn runs(pod: &Value) -> bool {
    let statuses = pod.array_at(&["status", "containerStatuses"]);
    let runs = |status: &Value| !status.str_at(&["state", "running", "startedAt"]).is_empty();
    !statuses.is_empty() && statuses.iter().all(runs)
}

fn initializing(pod: &Value) -> Duration {
    let took = |status: &Value| {
        let ended = status.at(&["state", "terminated"]);
        let time = |field: &str| api::time::parse(ended.str_at(&[field]));
        Duration::try_from(time("finishedAt")?.duration_since(time("startedAt")?)).ok()
    };
    pod.array_at(&["status", "initContainerStatuses"]).iter().filter_map(took).sum()
}

fn has_state(pod: &Value) -> bool {
    spec::volumes(pod).iter().any(|volume| STATELESS.iter().all(|kind| volume.get(kind).is_null()))
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    const CREATED: &str = "2026-01-01T00:00:00Z";

    fn pod(volume: &str, status: Value) -> Value {
        let mut of_kind = object!({"name": "v"});
        of_kind.set(&[volume], Value::object());
        object!({
            "metadata": {"name": "p", "creationTimestamp": CREATED},
            "spec": {"volumes": [of_kind]},
            "status": (status),
        })
    }

    fn running() -> Value {
        object!({
            "phase": "Running",
            "startTime": CREATED,
            "containerStatuses": [{"state": {"running": {"startedAt": "2026-01-01T00:00:08Z"}}}],
            "initContainerStatuses": [
                {"state": {"terminated": {"startedAt": "2026-01-01T00:00:04Z", "finishedAt": "2026-01-01T00:00:07Z"}}},
                {"state": {"running": {"startedAt": "2026-01-01T00:00:07Z"}}},
            ],
        })
    }

    fn look(startup: &mut Startup, pod: &Value) -> Option<(u64, Option<u64>)> {
        let now = "2026-01-01T00:00:10Z".parse().unwrap();
        let started = startup.look(pod, now, Duration::from_secs(2))?;
        Some((started.total.as_secs(), started.own.map(|own| own.as_secs())))
    }

    #[test]
    fn a_pod_starts_once_when_all_of_its_containers_run() {
        let pending = pod("emptyDir", object!({"phase": "Pending"}));
        let mut startup = Startup::of(&pending);
        assert_eq!(look(&mut startup, &pending), None);
        let waiting = pod(
            "emptyDir",
            object!({"containerStatuses": [
                {"state": {"running": {"startedAt": CREATED}}}, {"state": {"waiting": {}}},
            ]}),
        );
        assert_eq!(look(&mut startup, &waiting), None);
        let running = pod("emptyDir", running());
        // Ten seconds, of which two went by with pulling and three with an init container.
        assert_eq!(look(&mut startup, &running), Some((10, Some(5))));
        assert_eq!(look(&mut startup, &running), None);
    }

    #[test]
    fn pods_with_a_state_of_their_own_have_no_goal() {
        let mut startup = Startup::of(&pod("csi", object!({})));
        assert_eq!(look(&mut startup, &pod("csi", running())), Some((10, None)));
    }

    #[test]
    fn pods_that_had_to_wait_or_came_later_do_not_count() {
        let unschedulable = object!({"conditions": [{"type": "PodScheduled", "status": "False"}]});
        let running = pod("secret", running());
        for first in [object!({"startTime": CREATED}), unschedulable.clone(), object!({"phase": "Failed"})] {
            assert_eq!(look(&mut Startup::of(&pod("secret", first.clone())), &running), None, "{first:?}");
        }
        let mut startup = Startup::of(&pod("secret", object!({})));
        assert_eq!(look(&mut startup, &pod("secret", unschedulable)), None);
        assert_eq!(look(&mut startup, &running), None);
    }
}
