//! What has to change of containers that run with other resources than their pod was given: a pure function.

mod actuate;

use api::Value;

use super::amounts::{self, Amounts};
use super::observed::{Container, Observed, State};
use super::spec;
use crate::allocation::Info;

/// A running container that is to get other resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Update {
    /// The runtime's id.
    pub id: String,
    /// The container's name.
    pub name: String,
    /// What it runs with.
    pub current: Amounts,
    /// What it was given.
    pub desired: Amounts,
}

/// Everything that has to change of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Containers whose memory changes: those that get less first.
    pub memory: Vec<Update>,
    /// Containers whose processors change: those that get less first.
    pub cpu: Vec<Update>,
    /// A container starts over with other resources, the pod's control group has to follow.
    pub restarts: bool,
    /// The resources of the pod as a whole change.
    pub whole: bool,
}

impl Changes {
    /// Whether nothing has to change.
    pub(crate) fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.cpu.is_empty() && !self.restarts && !self.whole
    }

    /// Looks at a container that runs; false when it must be started over to get its resources.
    pub(super) fn consider(
        &mut self,
        pod: &Value,
        container: &Value,
        running: &Container,
        actuated: &Info,
    ) -> bool {
        let name = container.str_at(&["name"]);
        let nothing = Value::Null;
        let actual = actuated.container_resources.get(name).unwrap_or(&nothing);
        let current = Amounts::of(&amounts::effective(&actuated.pod_level_resources, actual));
        let desired =
            Amounts::of(&amounts::effective(pod.at(&["spec", "resources"]), container.get("resources")));
        let changes = |limit: (i64, i64), request: (i64, i64)| {
            // The limit decides which way it goes, when it changes.
            [limit, request].into_iter().find(|(current, desired)| current != desired)
        };
        let memory = changes(
            (current.memory_limit, desired.memory_limit),
            (current.memory_request, desired.memory_request),
        );
        let cpu = changes((current.cpu_limit, desired.cpu_limit), (current.cpu_request, desired.cpu_request));
        if memory.is_some() && starts_over(container, "memory")
            || cpu.is_some() && starts_over(container, "cpu")
        {
            self.restarts = true;
            return false;
        }
        let update = Update { id: running.id.clone(), name: name.to_owned(), current, desired };
        for (list, change) in [(&mut self.memory, memory), (&mut self.cpu, cpu)] {
            match change {
                Some((current, desired)) if desired > current => list.push(update.clone()),
                Some(_) => list.insert(0, update.clone()),
                None => {}
            }
        }
        true
    }

    /// Looks at the pod as a whole.
    pub(super) fn consider_pod(&mut self, pod: &Value, actuated: &Info) {
        self.whole =
            Amounts::of(pod.at(&["spec", "resources"])) != Amounts::of(&actuated.pod_level_resources);
    }
}

/// Whether the container asks to be started over when this resource of it changes.
fn starts_over(container: &Value, resource: &str) -> bool {
    let mut policies = container.array_at(&["resizePolicy"]).iter();
    let policy = policies.find(|policy| policy.str_at(&["resourceName"]) == resource);
    policy.is_some_and(|policy| policy.str_at(&["restartPolicy"]) == "RestartContainer")
}

/// Whether containers that run do not have yet what the pod was given.
pub(super) fn in_progress(pod: &Value, observed: &Observed, actuated: &Info) -> bool {
    let whole = pod.at(&["spec", "resources"]);
    let pending = |container: &&Value| {
        let name = container.str_at(&["name"]);
        let runs = observed.newest(name).is_some_and(|newest| newest.state == State::Running);
        let nothing = Value::Null;
        let actual = actuated.container_resources.get(name).unwrap_or(&nothing);
        runs && Amounts::of(&amounts::effective(whole, container.get("resources"))) != Amounts::of(actual)
    };
    spec::init_containers(pod).iter().chain(spec::containers(pod)).any(|container| pending(&container))
        || !whole.is_null()
            && !actuated.pod_level_resources.is_null()
            && Amounts::of(whole) != Amounts::of(&actuated.pod_level_resources)
}

#[cfg(test)]
mod tests;
