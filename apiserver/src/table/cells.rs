//! The cells of every kind's table, as upstream prints them: the short ones here, the others by the sort of kind.

mod cluster;
mod core;
mod network;
mod pod;
mod workloads;

use api::selector::LabelSelector;
use api::{Map, Value, object};
use jiff::Timestamp;

use self::core::{claim, endpoints, event, node, quota, service, volume};
use crate::resources::Resource;
use cluster::{binding, certificate_request, claim_state, driver, level};
use network::{ingress, slice};
use pod::pod;
use workloads::{autoscaler, cron_job, daemon_set, deployment, job, replicas};

const NONE: &str = "<none>";
const UNSET: &str = "<unset>";
const UNKNOWN: &str = "<unknown>";

/// The cells of one object.
pub(super) fn of(row: &Resource, o: &Value, now: Timestamp) -> Vec<Value> {
    let name = || Value::from(o.name());
    let age = || Value::from(age(o, now));
    let text = |path: &[&str]| Value::from(o.str_at(path));
    let count = |path: &[&str]| Value::from(o.array_at(path).len());
    let number = |path: &[&str]| Value::from(o.at(path).as_i64().unwrap_or(0));
    match row.plural {
        "configmaps" => vec![name(), (size(o.get("data")) + size(o.get("binaryData"))).into(), age()],
        "secrets" => vec![name(), text(&["type"]), size(o.get("data")).into(), age()],
        "serviceaccounts" => vec![name(), age()],
        "namespaces" => vec![name(), text(&["status", "phase"]), age()],
        "endpoints" => vec![name(), endpoints(o).into(), age()],
        "events" => event(o, now),
        "limitranges" | "roles" | "clusterroles" | "csistoragecapacities" | "customresourcedefinitions" => {
            vec![name(), text(&["metadata", "creationTimestamp"])]
        }
        "nodes" => node(o, now),
        "persistentvolumeclaims" => claim(o, now),
        "persistentvolumes" => volume(o, now),
        "pods" => pod(o, now),
        "podtemplates" => {
            let (names, images) = containers(o.at(&["template", "spec"]));
            vec![name(), names, images, labels(o.at(&["template", "metadata", "labels"])).into()]
        }
        "replicationcontrollers" => {
            let selector = labels(o.at(&["spec", "selector"]));
            replicas(o, now, selector)
        }
        "replicasets" => replicas(o, now, selector(o.at(&["spec", "selector"]))),
        "resourcequotas" => quota(o, now),
        "services" => service(o, now),
        "deployments" => deployment(o, now),
        "statefulsets" => {
            let (names, images) = containers(o.at(&["spec", "template", "spec"]));
            let ready = format!("{}/{}", number(&["status", "readyReplicas"]), number(&["spec", "replicas"]));
            vec![name(), ready.into(), age(), names, images]
        }
        "daemonsets" => daemon_set(o, now),
        "controllerrevisions" => {
            let owner = o
                .array_at(&["metadata", "ownerReferences"])
                .iter()
                .find(|r| r.get("controller").as_bool() == Some(true));
            let owner = owner.map_or(NONE.to_owned(), |r| {
                format!(
                    "{}.{}/{}",
                    r.kind().to_ascii_lowercase(),
                    r.api_version().split('/').next().unwrap_or_default(),
                    r.str_at(&["name"])
                )
            });
            vec![name(), owner.into(), number(&["revision"]), age()]
        }
        "horizontalpodautoscalers" => autoscaler(o, now),
        "cronjobs" => cron_job(o, now),
        "jobs" => job(o, now),
        "certificatesigningrequests" => certificate_request(o, now),
        "ingressclasses" => {
            let parameters = o.at(&["spec", "parameters"]);
            let shown = if parameters.is_null() {
                NONE.to_owned()
            } else {
                let group = parameters.str_at(&["apiGroup"]);
                let group = if group.is_empty() { String::new() } else { format!(".{group}") };
                format!("{}{group}/{}", parameters.kind(), parameters.str_at(&["name"]))
            };
            vec![name(), text(&["spec", "controller"]), shown.into(), age()]
        }
        "ingresses" => ingress(o, now),
        "ipaddresses" => {
            let p = |f: &str| o.str_at(&["spec", "parentRef", f]).to_owned();
            let parent = format!("{}/{}/{}", p("resource"), p("namespace"), p("name"));
            vec![name(), parent.into(), age()]
        }
        "networkpolicies" => vec![name(), selector(o.at(&["spec", "podSelector"])).into(), age()],
        "servicecidrs" => vec![name(), join(o.array_at(&["spec", "cidrs"])).into(), age()],
        "storageversionmigrations" => {
            let resource =
                [&["spec", "resource", "resource"], &["spec", "resource", "group"]].map(|p| o.str_at(p));
            let shown = resource.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
            let conditions = o.array_at(&["status", "conditions"]).iter();
            let mut holds =
                conditions.filter(|c| c.str_at(&["status"]) == "True").map(|c| c.str_at(&["type"]));
            let known = |kind: &&str| matches!(*kind, "Running" | "Failed" | "Succeeded");
            vec![name(), shown.into(), holds.rfind(known).unwrap_or("Unknown").into()]
        }
        "poddisruptionbudgets" => {
            let or_na = |path: &[&str]| match o.at(path) {
                Value::Null => Value::from("N/A"),
                Value::Int(n) => n.to_string().into(),
                other => other.clone(),
            };
            let allowed = number(&["status", "disruptionsAllowed"]);
            vec![name(), or_na(&["spec", "minAvailable"]), or_na(&["spec", "maxUnavailable"]), allowed, age()]
        }
        "clusterrolebindings" | "rolebindings" => binding(o, now),
        "csidrivers" => driver(o, now),
        "csinodes" => vec![name(), count(&["spec", "drivers"]), age()],
        "storageclasses" => {
            let default = o.annotation("storageclass.kubernetes.io/is-default-class") == Some("true");
            let shown = if default { format!("{} (default)", o.name()) } else { o.name().to_owned() };
            let expands = o.get("allowVolumeExpansion").as_bool().unwrap_or(false);
            vec![
                shown.into(),
                text(&["provisioner"]),
                text(&["reclaimPolicy"]),
                text(&["volumeBindingMode"]),
                expands.into(),
                age(),
            ]
        }
        "volumeattachments" => {
            let attached = o.at(&["status", "attached"]).as_bool().unwrap_or(false);
            vec![
                name(),
                text(&["spec", "attacher"]),
                text(&["spec", "source", "persistentVolumeName"]),
                text(&["spec", "nodeName"]),
                attached.into(),
                age(),
            ]
        }
        "volumeattributesclasses" => vec![name(), text(&["driverName"]), age()],
        "mutatingadmissionpolicies" => vec![name(), count(&["spec", "mutations"]), param_kind(o), age()],
        "validatingadmissionpolicies" => vec![name(), count(&["spec", "validations"]), param_kind(o), age()],
        "mutatingadmissionpolicybindings" | "validatingadmissionpolicybindings" => {
            let reference = o.at(&["spec", "paramRef"]);
            vec![name(), text(&["spec", "policyName"]), param_reference(reference).into(), age()]
        }
        "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => {
            vec![name(), count(&["webhooks"]), age()]
        }
        "priorityclasses" => {
            let default = o.get("globalDefault").as_bool().unwrap_or(false);
            vec![name(), number(&["value"]), default.into(), age(), text(&["preemptionPolicy"])]
        }
        "leases" => vec![name(), text(&["spec", "holderIdentity"]), age()],
        "runtimeclasses" => vec![name(), text(&["handler"]), age()],
        "endpointslices" => slice(o, now),
        "deviceclasses" | "resourceclaimtemplates" => vec![name(), age()],
        "resourceclaims" => vec![name(), claim_state(o).into(), age()],
        "resourceslices" => vec![
            name(),
            text(&["spec", "nodeName"]),
            text(&["spec", "driver"]),
            text(&["spec", "pool", "name"]),
            age(),
        ],
        "flowschemas" => {
            let method = o.str_at(&["spec", "distinguisherMethod", "type"]);
            let dangling = condition(o, "Dangling").map_or("?", |c| c.str_at(&["status"])).to_owned();
            vec![
                name(),
                text(&["spec", "priorityLevelConfiguration", "name"]),
                number(&["spec", "matchingPrecedence"]),
                or(method, NONE).into(),
                age(),
                dangling.into(),
            ]
        }
        "prioritylevelconfigurations" => level(o, now),
        "apiservices" => {
            let service = o.at(&["spec", "service"]);
            let shown = if service.is_null() {
                "Local".to_owned()
            } else {
                format!("{}/{}", service.str_at(&["namespace"]), service.str_at(&["name"]))
            };
            let available =
                condition(o, "Available").map_or("Unknown".to_owned(), |c| match c.str_at(&["status"]) {
                    "True" => "True".to_owned(),
                    status => format!("{status} ({})", c.str_at(&["reason"])),
                });
            vec![name(), shown.into(), available.into(), age()]
        }
        "componentstatuses" => {
            let healthy = o.array_at(&["conditions"]).iter().find(|c| c.str_at(&["type"]) == "Healthy");
            let status = match healthy.map(|c| c.str_at(&["status"])) {
                Some("True") => "Healthy",
                Some(_) => "Unhealthy",
                None => "Unknown",
            };
            let part = |f: &str| Value::from(healthy.map_or("", |c| c.str_at(&[f])));
            vec![name(), status.into(), part("message"), part("error")]
        }
        _ => vec![name(), text(&["metadata", "creationTimestamp"])],
    }
}

/// Rows of pods and jobs that are done carry a condition, so that clients can leave them out.
pub(super) fn row_conditions(row: &Resource, o: &Value) -> Vec<Value> {
    let completed = |reason: &str, message: &str| {
        vec![object!({"type": "Completed", "status": "True", "reason": reason, "message": message})]
    };
    match (row.plural, o.str_at(&["status", "phase"])) {
        ("pods", "Succeeded") => completed("Succeeded", "The pod has completed successfully."),
        ("pods", "Failed") => completed("Failed", "The pod failed."),
        _ => Vec::new(),
    }
}

fn or<'t>(text: &'t str, otherwise: &'t str) -> &'t str {
    if text.is_empty() { otherwise } else { text }
}

fn size(map: &Value) -> usize {
    map.as_object().map_or(0, Map::len)
}

fn join(items: &[Value]) -> String {
    items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
}

fn since(time: &str, now: Timestamp) -> String {
    match api::time::parse(time) {
        Some(t) => api::time::human_duration(now.as_second() - t.as_second()),
        None => UNKNOWN.to_owned(),
    }
}

pub(super) fn age(o: &Value, now: Timestamp) -> String {
    since(o.str_at(&["metadata", "creationTimestamp"]), now)
}

fn labels(map: &Value) -> String {
    let members: Vec<String> = map
        .as_object()
        .into_iter()
        .flat_map(Map::iter)
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    if members.is_empty() { NONE.to_owned() } else { members.join(",") }
}

fn selector(s: &Value) -> String {
    match LabelSelector::from_object(s) {
        Ok(Some(selector)) if !selector.is_everything() => selector.to_string(),
        Ok(_) => NONE.to_owned(),
        Err(_) => "<error>".to_owned(),
    }
}

fn condition<'o>(o: &'o Value, kind: &str) -> Option<&'o Value> {
    o.array_at(&["status", "conditions"]).iter().find(|c| c.str_at(&["type"]) == kind)
}

fn containers(spec: &Value) -> (Value, Value) {
    let list = spec.array_at(&["containers"]);
    let each = |field: &str| list.iter().map(|c| c.str_at(&[field])).collect::<Vec<_>>().join(",");
    (each("name").into(), each("image").into())
}

/// The parameters of a binding: by their name, or by labels as upstream prints them.
fn param_reference(reference: &Value) -> String {
    match (reference.str_at(&["namespace"]), reference.str_at(&["name"]), reference.get("selector")) {
        (_, "", Value::Null) => UNSET.to_owned(),
        (_, "", selector) => go_selector(selector),
        ("", name, _) => format!("*/{name}"),
        (namespace, name, _) => format!("{namespace}/{name}"),
    }
}

/// A label selector as Go's generated code prints it.
fn go_selector(selector: &Value) -> String {
    let mut labels: Vec<_> =
        selector.get("matchLabels").as_object().into_iter().flat_map(|m| m.iter()).collect();
    labels.sort_by_key(|(key, _)| *key);
    let labels: String =
        labels.iter().map(|(key, value)| format!("{key}: {},", value.as_str().unwrap_or_default())).collect();
    let requirements = selector.array_at(&["matchExpressions"]).iter().map(|r| {
        let values: Vec<&str> = r.array_at(&["values"]).iter().filter_map(Value::as_str).collect();
        let (key, operator, values) = (r.str_at(&["key"]), r.str_at(&["operator"]), values.join(" "));
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},")
    });
    let requirements: String = requirements.collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{requirements}}},}}"
    )
}

fn param_kind(o: &Value) -> Value {
    let kind = o.at(&["spec", "paramKind"]);
    if kind.is_null() { UNSET.into() } else { format!("{}/{}", kind.api_version(), kind.kind()).into() }
}
