//! Pods whose containers are all started over, because one of them ended in a way that has a rule for that.

use api::{Value, object};

use super::Context;
use crate::pods::spec;

/// Why containers wait that were removed for that.
pub(crate) const RESTARTING_ALL: &str = "RestartingAllContainers";
const MESSAGE: &str = "The container is removed because RestartAllContainers in place";

/// Whether that is going on: as the runtime has it, or as it was reported last.
pub(super) fn is_going_on(context: &Context<'_>) -> bool {
    let fields = ["initContainerStatuses", "containerStatuses"];
    let reported = |container: &Value| {
        let mut statuses = fields.iter().flat_map(|field| context.pod.array_at(&["status", field]));
        let status = statuses.find(|status| status.str_at(&["name"]) == container.str_at(&["name"]));
        let code = status.and_then(|status| status.at(&["state", "terminated", "exitCode"]).as_i64());
        code.and_then(|code| i32::try_from(code).ok()).is_some_and(|code| spec::restarts_all(container, code))
    };
    spec::may_restart_all(context.pod)
        && (context.observed.restarts_all(context.pod)
            || context.observed.containers.is_empty() && spec::all_containers(context.pod).any(reported))
}

/// Whether containers are left that have to be removed.
pub(super) fn has_rest(context: &Context<'_>) -> bool {
    let known = |container: &Value| context.observed.newest(container.str_at(&["name"])).is_some();
    spec::all_containers(context.pod).any(known)
}

/// The states of a container that has been removed: that now, and that before.
pub(super) fn states() -> (Value, Value) {
    (
        object!({"waiting": {"reason": RESTARTING_ALL, "message": MESSAGE}}),
        object!({"terminated": {
            "exitCode": 137,
            "reason": RESTARTING_ALL,
            "message": MESSAGE,
            "startedAt": null,
            "finishedAt": null,
        }}),
    )
}
