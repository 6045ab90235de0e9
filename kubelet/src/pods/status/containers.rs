//! The statuses of single containers.

use api::{Map, Value, object};
use jiff::Timestamp;

use super::{Context, resources};
use crate::pods::observed::{Container, State};
use crate::pods::spec;

/// The kinds of containers, each with a list of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Init,
    Main,
    Ephemeral,
}

impl Kind {
    /// The field of the status.
    pub(super) fn field(self) -> &'static str {
        match self {
            Self::Init => "initContainerStatuses",
            Self::Main => "containerStatuses",
            Self::Ephemeral => "ephemeralContainerStatuses",
        }
    }
}

/// The statuses of all containers of a kind, in the order of the spec.
pub(super) fn statuses(context: &Context<'_>, kind: Kind) -> Vec<Value> {
    let containers = match kind {
        Kind::Init => spec::init_containers(context.pod),
        Kind::Main => spec::containers(context.pod),
        Kind::Ephemeral => spec::ephemeral_containers(context.pod),
    };
    containers.iter().map(|container| status(context, container, kind)).collect()
}

fn status(context: &Context<'_>, container: &Value, kind: Kind) -> Value {
    let name = container.str_at(&["name"]);
    let statuses = context.pod.array_at(&["status", kind.field()]);
    let old = statuses.iter().find(|status| status.str_at(&["name"]) == name);
    let mut seen = context.observed.containers.iter().filter(|c| c.name == name);
    let newest = seen.next();
    let previous = seen.next();
    let mut shown = match newest {
        Some(newest) => Shown::of(newest, previous, old),
        None => Shown::missing(context, container, old, kind),
    };
    shown.hold(context, container, newest);
    shown.into_value(context, container, newest, kind)
}

/// A status in the making.
struct Shown {
    state: Value,
    last_state: Value,
    restarts: i64,
    image: String,
    image_id: String,
    id: String,
}

impl Shown {
    fn of(newest: &Container, previous: Option<&Container>, old: Option<&Value>) -> Self {
        let last_state = match previous {
            Some(previous) => state(previous),
            // The runtime may have forgotten the container before this one.
            None => {
                old.map(|old| old.get("lastState").clone()).filter(is_object).unwrap_or_else(Value::object)
            }
        };
        Self {
            state: state(newest),
            last_state,
            restarts: i64::from(newest.restarts),
            image: newest.image.clone(),
            image_id: newest.image_ref.clone(),
            id: container_id(&newest.id),
        }
    }

    /// The runtime has no such container.
    fn missing(context: &Context<'_>, container: &Value, old: Option<&Value>, kind: Kind) -> Self {
        let has_init = !spec::init_containers(context.pod).is_empty();
        let initializing = kind == Kind::Init || kind == Kind::Main && has_init;
        let reason = if initializing { "PodInitializing" } else { "ContainerCreating" };
        let mut shown = Self {
            state: object!({"waiting": {"reason": reason}}),
            last_state: Value::object(),
            restarts: 0,
            image: container.str_at(&["image"]).to_owned(),
            image_id: String::new(),
            id: String::new(),
        };
        let Some(old) = old else { return shown };
        let restarting = super::restart::is_going_on(context) && !context.ending;
        let waits = old.str_at(&["state", "waiting", "reason"]) == super::RESTARTING_ALL;
        if kind != Kind::Ephemeral && (waits || restarting && old.at(&["state", "waiting"]).is_null()) {
            let count = old.get("restartCount").as_i64().unwrap_or_default();
            (shown.state, shown.last_state) = super::restart::states();
            shown.restarts = if waits { count } else { count + 1 };
            return shown;
        }
        shown.restarts = old.get("restartCount").as_i64().unwrap_or_default();
        if is_object(old.get("lastState")) {
            shown.last_state = old.get("lastState").clone();
        }
        if !old.at(&["state", "terminated"]).is_null() {
            shown.state = old.get("state").clone();
            shown.image = old.str_at(&["image"]).to_owned();
            shown.image_id = old.str_at(&["imageID"]).to_owned();
            shown.id = old.str_at(&["containerID"]).to_owned();
        } else if !old.at(&["state", "running"]).is_null() && shown.last_state.get("terminated").is_null() {
            shown.last_state = object!({"terminated": {
                "exitCode": 137,
                "reason": "ContainerStatusUnknown",
                "message": "The container could not be located when the pod was deleted.  The container used to be Running",
                "startedAt": null,
                "finishedAt": null,
            }});
            if !context.pod.is_terminating() {
                shown.restarts += 1;
            }
        }
        shown
    }

    /// A container that is to be started (again) but cannot be yet is shown as waiting.
    fn hold(&mut self, context: &Context<'_>, container: &Value, newest: Option<&Container>) {
        let name = container.str_at(&["name"]);
        let again = match newest {
            Some(c) if c.state == State::Running => false,
            Some(c) if c.state == State::Exited => spec::should_restart(context.pod, container, c.exit_code),
            _ => self.state.get("terminated").is_null(),
        };
        if !again || context.ending {
            return;
        }
        let Some((reason, message)) = (context.waiting)(name) else { return };
        if !self.state.get("terminated").is_null() {
            self.last_state = self.state.take();
        }
        let mut waiting = object!({"reason": (reason.as_str())});
        if !message.is_empty() {
            waiting.set(&["message"], message);
        }
        self.state = object!({"waiting": (waiting)});
    }

    fn into_value(
        self,
        context: &Context<'_>,
        container: &Value,
        newest: Option<&Container>,
        kind: Kind,
    ) -> Value {
        let running = !self.state.get("running").is_null();
        let id = newest.map_or("", |newest| newest.id.as_str());
        let started = running && context.verdicts.started.get(id).copied().unwrap_or_default();
        let ready = match kind {
            Kind::Init if !spec::is_sidecar(container) => {
                self.state.at(&["terminated", "exitCode"]).as_i64() == Some(0)
            }
            Kind::Init | Kind::Main => {
                running && started && context.verdicts.ready.get(id).copied().unwrap_or_default()
            }
            Kind::Ephemeral => false,
        };
        let mut out = Map::new();
        out.push("name", container.get("name").clone());
        out.push("state", self.state);
        out.push("lastState", self.last_state);
        out.push("ready", ready.into());
        out.push("restartCount", self.restarts.into());
        out.push("image", self.image.into());
        out.push("imageID", self.image_id.into());
        if !self.id.is_empty() {
            out.push("containerID", self.id.into());
        }
        if kind != Kind::Ephemeral {
            out.push("started", started.into());
        }
        if let Some(newest) = newest {
            let mut old = context.pod.array_at(&["status", kind.field()]).iter();
            let old = old.find(|old| old.str_at(&["name"]) == newest.name);
            resources::of_container(container, newest, old, &mut out);
        }
        let devices =
            if kind == Kind::Main { (context.devices)(container.str_at(&["name"])) } else { Vec::new() };
        if !devices.is_empty() {
            out.push("allocatedResourcesStatus", Value::Array(devices));
        }
        mounts(container, context.recursive_read_only, &mut out);
        if let Some(user) =
            newest.filter(|c| c.state != State::Created).and_then(|newest| newest.user.as_ref())
        {
            let groups = user.supplemental_groups.iter().map(|group| Value::from(*group)).collect();
            let mut linux = object!({"uid": (user.uid), "gid": (user.gid)});
            linux.set(&["supplementalGroups"], Value::Array(groups));
            out.push("user", object!({"linux": (linux)}));
        }
        Value::Object(out)
    }
}

fn mounts(container: &Value, able: bool, out: &mut Map) {
    let mounts = container.array_at(&["volumeMounts"]);
    if mounts.is_empty() {
        return;
    }
    let shown = mounts.iter().map(|mount| {
        let mut shown = object!({
            "name": (mount.str_at(&["name"])),
            "mountPath": (mount.str_at(&["mountPath"])),
        });
        if mount.get("readOnly").as_bool().unwrap_or_default() {
            shown.set(&["readOnly"], true);
            let recursive = crate::pods::mounts::recursive_read_only(mount, able) == Ok(true);
            shown.set(&["recursiveReadOnly"], if recursive { "Enabled" } else { "Disabled" });
        }
        shown
    });
    out.push("volumeMounts", Value::Array(shown.collect()));
}

fn is_object(value: &Value) -> bool {
    value.as_object().is_some()
}

/// `containerd://…`, as the API names containers.
pub(super) fn container_id(id: &str) -> String {
    format!("containerd://{id}")
}

/// Seconds are all that the API keeps of a time.
pub(super) fn time(nanoseconds: i64) -> Value {
    if nanoseconds <= 0 {
        return Value::Null;
    }
    Timestamp::from_nanosecond(i128::from(nanoseconds))
        .map_or(Value::Null, |time| api::time::format(time).into())
}

fn state(container: &Container) -> Value {
    match container.state {
        State::Running => object!({"running": {"startedAt": (time(container.started))}}),
        State::Exited => {
            let mut terminated = object!({"exitCode": (container.exit_code)});
            for (field, text) in [("reason", &container.reason), ("message", &container.message)] {
                if !text.is_empty() {
                    terminated.set(&[field], text.as_str());
                }
            }
            terminated.set(&["startedAt"], time(container.started));
            terminated.set(&["finishedAt"], time(container.finished));
            terminated.set(&["containerID"], container_id(&container.id));
            object!({"terminated": (terminated)})
        }
        State::Created | State::Unknown => object!({"waiting": {}}),
    }
}
