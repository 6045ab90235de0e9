//! Limits of local storage that pods set themselves.

use api::Value;
use api::quantity::Quantity;

use super::usage::{Parts, PodUsage};
use crate::pods::spec;

const STORAGE: &str = "ephemeral-storage";

/// Whether the pod has any limit of local storage.
pub(super) fn any(pod: &Value) -> bool {
    let volumes = pod.array_at(&["spec", "volumes"]);
    volumes.iter().any(|volume| !volume.at(&["emptyDir", "sizeLimit"]).is_null())
        || spec::all_containers(pod).any(|container| limit(container).is_some())
}

fn quantity(value: &Value) -> Option<Quantity> {
    value.as_str()?.parse().ok()
}

fn limit(container: &Value) -> Option<Quantity> {
    quantity(container.at(&["resources", "limits", STORAGE])).filter(|limit| !limit.is_zero())
}

/// What the pod exceeds, as metrics name it and in upstream's words. `dedicated`: layers of containers are on a disk of their
/// own.
pub(super) fn exceeded(pod: &Value, usage: &PodUsage, dedicated: bool) -> Option<(&'static str, String)> {
    let of_volume = || Some(("emptydirfs.limit", empty_dirs(pod, usage)?));
    let of_pod = || Some(("ephemeralpodfs.limit", whole(pod, usage)?));
    let of_container = || Some(("ephemeralcontainerfs.limit", containers(pod, usage, dedicated)?));
    of_volume().or_else(of_pod).or_else(of_container)
}

fn empty_dirs(pod: &Value, usage: &PodUsage) -> Option<String> {
    pod.array_at(&["spec", "volumes"]).iter().find_map(|volume| {
        let limit = quantity(volume.at(&["emptyDir", "sizeLimit"]))?;
        let name = volume.str_at(&["name"]);
        let (_, used) = usage.volumes.iter().find(|(other, _)| other == name)?;
        let over = limit.units() > 0 && used.bytes > limit.units();
        let text = limit.to_string();
        over.then(|| format!("Usage of EmptyDir volume {name:?} exceeds the limit {text:?}. "))
    })
}

fn whole(pod: &Value, usage: &PodUsage) -> Option<String> {
    let sum = |containers: &mut dyn Iterator<Item = &Value>| {
        containers.filter_map(limit).fold(Quantity::ZERO, Quantity::plus)
    };
    let sidecars = || spec::init_containers(pod).iter().filter(|container| spec::is_sidecar(container));
    let main = sum(&mut spec::containers(pod).iter().chain(sidecars()));
    let init = spec::init_containers(pod).iter().filter_map(limit).max().unwrap_or(Quantity::ZERO);
    let limit = main.max(init);
    let used = usage.disk(pod, Parts { layers: true, rest: true }).bytes;
    (!limit.is_zero() && used > limit.units())
        .then(|| format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "))
}

fn containers(pod: &Value, usage: &PodUsage, dedicated: bool) -> Option<String> {
    usage.containers.iter().find_map(|used| {
        let name = used.name.as_str();
        let container = spec::containers(pod).iter().find(|container| container.str_at(&["name"]) == name)?;
        let limit = limit(container)?;
        let layer = if dedicated { 0 } else { used.layer.bytes };
        let text = limit.to_string();
        (used.logs.bytes + layer > limit.units())
            .then(|| format!("Container {name} exceeded its local ephemeral storage limit {text:?}. "))
    })
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::super::usage::ContainerUsage;
    use super::*;
    use crate::usage::Used;

    #[test]
    fn whoever_exceeds_a_limit_is_told_which() {
        let pod = |limit: Value, size: Value| {
            object!({"spec": {
                "volumes": [{"name": "v", "emptyDir": {"sizeLimit": size}}],
                "containers": [{"name": "c", "resources": {"limits": {"ephemeral-storage": limit}}}, {"name": "d"}],
            }})
        };
        let bytes = |bytes| Used { bytes, inodes: 1 };
        let container = ContainerUsage {
            name: "c".to_owned(),
            layer: bytes(600),
            logs: bytes(500),
            ..Default::default()
        };
        let usage = PodUsage {
            containers: vec![container],
            volumes: vec![("v".to_owned(), bytes(100))],
            ..Default::default()
        };
        for (limit, size, dedicated, expected) in [
            (Value::Null, Value::Null, false, None),
            (Value::Null, "100".into(), false, None),
            (
                Value::Null,
                "99".into(),
                false,
                Some(("emptydirfs.limit", "Usage of EmptyDir volume \"v\" exceeds the limit \"99\". ")),
            ),
            ("2Ki".into(), Value::Null, false, None),
            (
                "1150".into(),
                Value::Null,
                false,
                Some((
                    "ephemeralpodfs.limit",
                    "Pod ephemeral local storage usage exceeds the total limit of containers 1150. ",
                )),
            ),
        ] {
            let pod = pod(limit, size);
            let exceeded = exceeded(&pod, &usage, dedicated);
            let exceeded = exceeded.as_ref().map(|(signal, message)| (*signal, message.as_str()));
            assert_eq!(exceeded, expected, "{pod}");
        }
        let only = containers(&pod("1Ki".into(), Value::Null), &usage, false);
        assert_eq!(only.as_deref(), Some("Container c exceeded its local ephemeral storage limit \"1Ki\". "));
        assert_eq!(containers(&pod("1Ki".into(), Value::Null), &usage, true), None);
    }
}
