//! The cells of every kind's table, as upstream prints them.

use api::selector::LabelSelector;
use api::{Map, Value, object};
use jiff::Timestamp;

use crate::resources::Resource;

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
            vec![name(), format!("{}/{}/{}", p("resource"), p("namespace"), p("name")).into()]
        }
        "networkpolicies" => vec![name(), selector(o.at(&["spec", "podSelector"])).into(), age()],
        "servicecidrs" => vec![name(), join(o.array_at(&["spec", "cidrs"])).into(), age()],
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
            let shown = match (reference.is_null(), reference.str_at(&["namespace"])) {
                (true, _) => UNSET.to_owned(),
                (_, "") => format!("*/{}", reference.str_at(&["name"])),
                (_, ns) => format!("{ns}/{}", reference.str_at(&["name"])),
            };
            vec![name(), text(&["spec", "policyName"]), shown.into(), age()]
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
            let status = if healthy.is_some_and(|c| c.str_at(&["status"]) == "True") {
                "Healthy"
            } else {
                "Unhealthy"
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

fn age(o: &Value, now: Timestamp) -> String {
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

fn param_kind(o: &Value) -> Value {
    let kind = o.at(&["spec", "paramKind"]);
    if kind.is_null() { UNSET.into() } else { format!("{}/{}", kind.api_version(), kind.kind()).into() }
}

fn endpoints(o: &Value) -> String {
    const SHOWN: usize = 3;
    let mut all = Vec::new();
    for subset in o.array_at(&["subsets"]) {
        let ports = subset.array_at(&["ports"]);
        for address in subset.array_at(&["addresses"]) {
            let ip = address.str_at(&["ip"]);
            if ports.is_empty() {
                all.push(ip.to_owned());
            }
            for port in ports {
                let n = port.get("port").as_i64().unwrap_or(0);
                all.push(if ip.contains(':') { format!("[{ip}]:{n}") } else { format!("{ip}:{n}") });
            }
        }
    }
    match all.len() {
        0 => NONE.to_owned(),
        n if n > SHOWN => format!("{} + {} more...", all[..SHOWN].join(","), n - SHOWN),
        _ => all.join(","),
    }
}

fn event(o: &Value, now: Timestamp) -> Vec<Value> {
    let core = !o.get("involvedObject").is_null();
    let pick = |core_name: &'static str, other: &'static str| if core { core_name } else { other };
    let about = o.get(pick("involvedObject", "regarding"));
    let first = [o.str_at(&[pick("firstTimestamp", "deprecatedFirstTimestamp")]), o.str_at(&["eventTime"])];
    let first = first.into_iter().find(|t| !t.is_empty()).unwrap_or_default();
    let last = o.str_at(&[pick("lastTimestamp", "deprecatedLastTimestamp")]);
    let observed = o.str_at(&["series", "lastObservedTime"]);
    let last = [observed, last].into_iter().find(|t| !t.is_empty()).unwrap_or(first);
    let count = o
        .at(&["series", "count"])
        .as_i64()
        .or(o.get(pick("count", "deprecatedCount")).as_i64())
        .filter(|n| *n > 0)
        .unwrap_or(1);
    let source = o.get(pick("source", "deprecatedSource"));
    let (component, host) = (source.str_at(&["component"]), source.str_at(&["host"]));
    let component = or(component, o.str_at(&[pick("reportingComponent", "reportingController")]));
    let host = or(host, o.str_at(&["reportingInstance"]));
    let source = if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") };
    let object = if about.str_at(&["name"]).is_empty() {
        about.kind().to_ascii_lowercase()
    } else {
        format!("{}/{}", about.kind().to_ascii_lowercase(), about.str_at(&["name"]))
    };
    vec![
        since(last, now).into(),
        o.str_at(&["type"]).into(),
        o.str_at(&["reason"]).into(),
        object.into(),
        about.str_at(&["fieldPath"]).into(),
        source.into(),
        o.str_at(&[pick("message", "note")]).trim().into(),
        since(first, now).into(),
        count.into(),
        o.name().into(),
    ]
}

fn node(o: &Value, now: Timestamp) -> Vec<Value> {
    let mut status = match condition(o, "Ready") {
        Some(c) if c.str_at(&["status"]) == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if o.at(&["spec", "unschedulable"]).as_bool() == Some(true) {
        status.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<&str> = o
        .at(&["metadata", "labels"])
        .as_object()
        .into_iter()
        .flat_map(Map::iter)
        .filter_map(|(k, v)| match k.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role).filter(|r| !r.is_empty()),
            None => (k == "kubernetes.io/role").then(|| v.as_str()).flatten(),
        })
        .collect();
    roles.sort_unstable();
    let roles = if roles.is_empty() { NONE.to_owned() } else { roles.join(",") };
    let address = |kind: &str| {
        let found = o.array_at(&["status", "addresses"]).iter().find(|a| a.str_at(&["type"]) == kind);
        Value::from(found.map_or(NONE, |a| a.str_at(&["address"])))
    };
    let info = |field: &str| Value::from(or(o.str_at(&["status", "nodeInfo", field]), UNKNOWN));
    vec![
        o.name().into(),
        status.into(),
        roles.into(),
        age(o, now).into(),
        o.str_at(&["status", "nodeInfo", "kubeletVersion"]).into(),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn access_modes(modes: &[Value]) -> String {
    let short = |m: &str| match m {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        _ => "RWOP",
    };
    let mut seen: Vec<&str> = Vec::new();
    for mode in ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"] {
        if modes.iter().any(|m| m.as_str() == Some(mode)) {
            seen.push(short(mode));
        }
    }
    seen.join(",")
}

fn claim(o: &Value, now: Timestamp) -> Vec<Value> {
    let phase = if o.is_terminating() { "Terminating" } else { o.str_at(&["status", "phase"]) };
    let bound = !o.str_at(&["spec", "volumeName"]).is_empty();
    let (capacity, modes) = if bound {
        (o.str_at(&["status", "capacity", "storage"]), access_modes(o.array_at(&["status", "accessModes"])))
    } else {
        ("", String::new())
    };
    vec![
        o.name().into(),
        phase.into(),
        o.str_at(&["spec", "volumeName"]).into(),
        capacity.into(),
        modes.into(),
        o.str_at(&["spec", "storageClassName"]).into(),
        o.at(&["spec", "volumeAttributesClassName"]).as_str().unwrap_or(UNSET).into(),
        age(o, now).into(),
        o.at(&["spec", "volumeMode"]).as_str().unwrap_or(UNSET).into(),
    ]
}

fn volume(o: &Value, now: Timestamp) -> Vec<Value> {
    let phase = if o.is_terminating() { "Terminating" } else { o.str_at(&["status", "phase"]) };
    let claim = o.at(&["spec", "claimRef"]);
    let claim = if claim.is_null() {
        String::new()
    } else {
        format!("{}/{}", claim.str_at(&["namespace"]), claim.str_at(&["name"]))
    };
    vec![
        o.name().into(),
        o.str_at(&["spec", "capacity", "storage"]).into(),
        access_modes(o.array_at(&["spec", "accessModes"])).into(),
        o.str_at(&["spec", "persistentVolumeReclaimPolicy"]).into(),
        phase.into(),
        claim.into(),
        o.str_at(&["spec", "storageClassName"]).into(),
        o.at(&["spec", "volumeAttributesClassName"]).as_str().unwrap_or(UNSET).into(),
        o.str_at(&["status", "reason"]).into(),
        age(o, now).into(),
        o.at(&["spec", "volumeMode"]).as_str().unwrap_or(UNSET).into(),
    ]
}

fn pod(o: &Value, now: Timestamp) -> Vec<Value> {
    let spec_containers = o.array_at(&["spec", "containers"]);
    let restartable = |name: &str| {
        o.array_at(&["spec", "initContainers"])
            .iter()
            .any(|c| c.str_at(&["name"]) == name && c.str_at(&["restartPolicy"]) == "Always")
    };
    let mut total = spec_containers.len();
    total += o
        .array_at(&["spec", "initContainers"])
        .iter()
        .filter(|c| c.str_at(&["restartPolicy"]) == "Always")
        .count();
    let mut reason = or(o.str_at(&["status", "reason"]), o.str_at(&["status", "phase"])).to_owned();
    if condition(o, "PodScheduled").is_some_and(|c| c.str_at(&["reason"]) == "SchedulingGated") {
        reason = "SchedulingGated".to_owned();
    }
    let (mut ready, mut restarts, mut sidecar_restarts) = (0, 0, 0);
    let mut last_restart: Option<Timestamp> = None;
    let mut note_restart = |s: &Value| {
        if let Some(t) = api::time::parse(s.str_at(&["lastState", "terminated", "finishedAt"])) {
            last_restart = Some(last_restart.map_or(t, |l| l.max(t)));
        }
    };
    let mut initializing = false;
    let init_total = o.array_at(&["spec", "initContainers"]).len();
    for (i, s) in o.array_at(&["status", "initContainerStatuses"]).iter().enumerate() {
        let count = s.get("restartCount").as_i64().unwrap_or(0);
        restarts += count;
        note_restart(s);
        let sidecar = restartable(s.str_at(&["name"]));
        if sidecar {
            sidecar_restarts += count;
        }
        let (terminated, waiting) = (s.at(&["state", "terminated"]), s.at(&["state", "waiting"]));
        if !terminated.is_null() && terminated.get("exitCode").as_i64() == Some(0) {
            continue;
        }
        if sidecar && s.get("started").as_bool() == Some(true) {
            if s.get("ready").as_bool() == Some(true) {
                ready += 1;
            }
            continue;
        }
        initializing = true;
        reason = if !terminated.is_null() {
            format!("Init:{}", ended(terminated))
        } else if !matches!(waiting.str_at(&["reason"]), "" | "PodInitializing") {
            format!("Init:{}", waiting.str_at(&["reason"]))
        } else {
            format!("Init:{i}/{init_total}")
        };
        break;
    }
    let initialized = condition(o, "Initialized").is_some_and(|c| c.str_at(&["status"]) == "True");
    if !initializing || initialized {
        restarts = sidecar_restarts;
        let mut running = false;
        for s in o.array_at(&["status", "containerStatuses"]).iter().rev() {
            restarts += s.get("restartCount").as_i64().unwrap_or(0);
            note_restart(s);
            let (waiting, terminated) = (s.at(&["state", "waiting"]), s.at(&["state", "terminated"]));
            if !waiting.str_at(&["reason"]).is_empty() {
                reason = waiting.str_at(&["reason"]).to_owned();
            } else if !terminated.is_null() {
                reason = ended(terminated);
            } else if s.get("ready").as_bool() == Some(true) && !s.at(&["state", "running"]).is_null() {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" && running {
            let is_ready = condition(o, "Ready").is_some_and(|c| c.str_at(&["status"]) == "True");
            reason = if is_ready { "Running" } else { "NotReady" }.to_owned();
        }
    }
    if o.is_terminating() {
        if o.str_at(&["status", "reason"]) == "NodeLost" {
            reason = "Unknown".to_owned();
        } else if !matches!(o.str_at(&["status", "phase"]), "Failed" | "Succeeded") {
            reason = "Terminating".to_owned();
        }
    }
    let restarts = match last_restart {
        Some(t) if restarts > 0 => {
            format!("{restarts} ({} ago)", api::time::human_duration(now.as_second() - t.as_second()))
        }
        _ => restarts.to_string(),
    };
    let gates = o.array_at(&["spec", "readinessGates"]);
    let gates = if gates.is_empty() {
        NONE.to_owned()
    } else {
        let met = gates.iter().filter(|g| {
            condition(o, g.str_at(&["conditionType"])).is_some_and(|c| c.str_at(&["status"]) == "True")
        });
        format!("{}/{}", met.count(), gates.len())
    };
    vec![
        o.name().into(),
        format!("{ready}/{total}").into(),
        reason.into(),
        restarts.into(),
        age(o, now).into(),
        or(o.str_at(&["status", "podIP"]), NONE).into(),
        or(o.str_at(&["spec", "nodeName"]), NONE).into(),
        or(o.str_at(&["status", "nominatedNodeName"]), NONE).into(),
        gates.into(),
    ]
}

fn ended(terminated: &Value) -> String {
    let reason = terminated.str_at(&["reason"]);
    if !reason.is_empty() {
        return reason.to_owned();
    }
    match terminated.get("signal").as_i64().unwrap_or(0) {
        0 => format!("ExitCode:{}", terminated.get("exitCode").as_i64().unwrap_or(0)),
        signal => format!("Signal:{signal}"),
    }
}

fn replicas(o: &Value, now: Timestamp, selector: String) -> Vec<Value> {
    let number = |path: &[&str]| Value::from(o.at(path).as_i64().unwrap_or(0));
    let (names, images) = containers(o.at(&["spec", "template", "spec"]));
    vec![
        o.name().into(),
        number(&["spec", "replicas"]),
        number(&["status", "replicas"]),
        number(&["status", "readyReplicas"]),
        age(o, now).into(),
        names,
        images,
        selector.into(),
    ]
}

fn quota(o: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let mut hard: Vec<(&str, &Value)> =
        o.at(&["status", "hard"]).as_object().into_iter().flat_map(Map::iter).collect();
    hard.sort_by_key(|(k, _)| *k);
    for (name, limit) in hard {
        let used = o.at(&["status", "used", name]).as_str().unwrap_or("0");
        let entry = format!("{name}: {used}/{}", limit.as_str().unwrap_or_default());
        if name.starts_with("limits.") { limits.push(entry) } else { requests.push(entry) }
    }
    vec![o.name().into(), requests.join(", ").into(), limits.join(", ").into(), age(o, now).into()]
}

fn service(o: &Value, now: Timestamp) -> Vec<Value> {
    let spec = o.get("spec");
    let kind = spec.str_at(&["type"]);
    let mut addresses: Vec<&str> = spec.array_at(&["externalIPs"]).iter().filter_map(Value::as_str).collect();
    let external = match kind {
        "LoadBalancer" => {
            let ingress = o.array_at(&["status", "loadBalancer", "ingress"]);
            let assigned: Vec<&str> =
                ingress.iter().map(|i| or(i.str_at(&["ip"]), i.str_at(&["hostname"]))).collect();
            addresses.splice(0..0, assigned);
            if addresses.is_empty() { "<pending>".to_owned() } else { addresses.join(",") }
        }
        "ExternalName" => spec.str_at(&["externalName"]).to_owned(),
        _ if addresses.is_empty() => NONE.to_owned(),
        _ => addresses.join(","),
    };
    let ports: Vec<String> = spec
        .array_at(&["ports"])
        .iter()
        .map(|p| {
            let (port, node) = (p.get("port").as_i64().unwrap_or(0), p.get("nodePort").as_i64().unwrap_or(0));
            let protocol = p.str_at(&["protocol"]);
            if node > 0 { format!("{port}:{node}/{protocol}") } else { format!("{port}/{protocol}") }
        })
        .collect();
    let ports = if ports.is_empty() { NONE.to_owned() } else { ports.join(",") };
    vec![
        o.name().into(),
        kind.into(),
        or(spec.str_at(&["clusterIP"]), NONE).into(),
        external.into(),
        ports.into(),
        age(o, now).into(),
        labels(spec.get("selector")).into(),
    ]
}

fn deployment(o: &Value, now: Timestamp) -> Vec<Value> {
    let n = |path: &[&str]| o.at(path).as_i64().unwrap_or(0);
    let (names, images) = containers(o.at(&["spec", "template", "spec"]));
    vec![
        o.name().into(),
        format!("{}/{}", n(&["status", "readyReplicas"]), n(&["spec", "replicas"])).into(),
        n(&["status", "updatedReplicas"]).into(),
        n(&["status", "availableReplicas"]).into(),
        age(o, now).into(),
        names,
        images,
        selector(o.at(&["spec", "selector"])).into(),
    ]
}

fn daemon_set(o: &Value, now: Timestamp) -> Vec<Value> {
    let n = |field: &str| Value::from(o.at(&["status", field]).as_i64().unwrap_or(0));
    let (names, images) = containers(o.at(&["spec", "template", "spec"]));
    vec![
        o.name().into(),
        n("desiredNumberScheduled"),
        n("currentNumberScheduled"),
        n("numberReady"),
        n("updatedNumberScheduled"),
        n("numberAvailable"),
        labels(o.at(&["spec", "template", "spec", "nodeSelector"])).into(),
        age(o, now).into(),
        names,
        images,
        selector(o.at(&["spec", "selector"])).into(),
    ]
}

fn autoscaler(o: &Value, now: Timestamp) -> Vec<Value> {
    let target = format!(
        "{}/{}",
        o.str_at(&["spec", "scaleTargetRef", "kind"]),
        o.str_at(&["spec", "scaleTargetRef", "name"])
    );
    let metrics: Vec<String> = o
        .array_at(&["spec", "metrics"])
        .iter()
        .map(|m| {
            let wanted = m.at(&["resource", "target", "averageUtilization"]).as_i64();
            let name = m.str_at(&["resource", "name"]);
            let wanted = wanted.map_or_else(
                || m.str_at(&["resource", "target", "averageValue"]).to_owned(),
                |p| format!("{p}%"),
            );
            let current = o
                .array_at(&["status", "currentMetrics"])
                .iter()
                .find(|c| c.str_at(&["resource", "name"]) == name);
            let current = current.and_then(|c| c.at(&["resource", "current", "averageUtilization"]).as_i64());
            let current = current.map_or(UNKNOWN.to_owned(), |p| format!("{p}%"));
            format!("{name}: {current}/{wanted}")
        })
        .collect();
    let metrics = if metrics.is_empty() { NONE.to_owned() } else { metrics.join(", ") };
    vec![
        o.name().into(),
        target.into(),
        metrics.into(),
        o.at(&["spec", "minReplicas"]).as_i64().map_or(UNSET.into(), |n| Value::from(n.to_string())),
        o.at(&["spec", "maxReplicas"]).as_i64().unwrap_or(0).into(),
        o.at(&["status", "currentReplicas"]).as_i64().unwrap_or(0).into(),
        age(o, now).into(),
    ]
}

fn cron_job(o: &Value, now: Timestamp) -> Vec<Value> {
    let last = o.str_at(&["status", "lastScheduleTime"]);
    let (names, images) = containers(o.at(&["spec", "jobTemplate", "spec", "template", "spec"]));
    let suspended = if o.at(&["spec", "suspend"]).as_bool() == Some(true) { "True" } else { "False" };
    vec![
        o.name().into(),
        o.str_at(&["spec", "schedule"]).into(),
        o.at(&["spec", "timeZone"]).as_str().unwrap_or(NONE).into(),
        suspended.into(),
        o.array_at(&["status", "active"]).len().into(),
        if last.is_empty() { NONE.to_owned() } else { since(last, now) }.into(),
        age(o, now).into(),
        names,
        images,
        selector(o.at(&["spec", "jobTemplate", "spec", "selector"])).into(),
    ]
}

fn job(o: &Value, now: Timestamp) -> Vec<Value> {
    let n = |path: &[&str]| o.at(path).as_i64();
    let succeeded = n(&["status", "succeeded"]).unwrap_or(0);
    let completions = match (n(&["spec", "completions"]), n(&["spec", "parallelism"]).unwrap_or(0)) {
        (Some(c), _) => format!("{succeeded}/{c}"),
        (None, p) if p > 1 => format!("{succeeded}/1 of {p}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let (start, end) = (o.str_at(&["status", "startTime"]), o.str_at(&["status", "completionTime"]));
    let duration = match (api::time::parse(start), api::time::parse(end)) {
        (None, _) => String::new(),
        (Some(s), e) => api::time::human_duration(e.unwrap_or(now).as_second() - s.as_second()),
    };
    let holds = |kind: &str| condition(o, kind).is_some_and(|c| c.str_at(&["status"]) == "True");
    let status = if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if o.is_terminating() {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else if holds("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    };
    let (names, images) = containers(o.at(&["spec", "template", "spec"]));
    vec![
        o.name().into(),
        status.into(),
        completions.into(),
        duration.into(),
        age(o, now).into(),
        names,
        images,
        selector(o.at(&["spec", "selector"])).into(),
    ]
}

fn certificate_request(o: &Value, now: Timestamp) -> Vec<Value> {
    let duration =
        o.at(&["spec", "expirationSeconds"]).as_i64().map_or(NONE.to_owned(), api::time::human_duration);
    let has = |kind: &str| condition(o, kind).is_some();
    let mut status = if has("Denied") {
        "Denied".to_owned()
    } else if has("Approved") {
        "Approved".to_owned()
    } else {
        "Pending".to_owned()
    };
    if has("Failed") {
        status.push_str(",Failed");
    }
    if !o.str_at(&["status", "certificate"]).is_empty() {
        status.push_str(",Issued");
    }
    vec![
        o.name().into(),
        age(o, now).into(),
        or(o.str_at(&["spec", "signerName"]), NONE).into(),
        o.str_at(&["spec", "username"]).into(),
        duration.into(),
        status.into(),
    ]
}

fn ingress(o: &Value, now: Timestamp) -> Vec<Value> {
    let class = o
        .at(&["spec", "ingressClassName"])
        .as_str()
        .or(o.annotation("kubernetes.io/ingress.class"))
        .unwrap_or(NONE);
    let rules = o.array_at(&["spec", "rules"]);
    let hosts: Vec<&str> = rules.iter().map(|r| r.str_at(&["host"])).filter(|h| !h.is_empty()).collect();
    let hosts = match hosts.len() {
        0 => "*".to_owned(),
        n if n > 3 => format!("{} + {} more...", hosts[..3].join(","), n - 3),
        _ => hosts.join(","),
    };
    let addresses: Vec<&str> = o
        .array_at(&["status", "loadBalancer", "ingress"])
        .iter()
        .map(|i| or(i.str_at(&["ip"]), i.str_at(&["hostname"])))
        .collect();
    let ports = if o.array_at(&["spec", "tls"]).is_empty() { "80" } else { "80, 443" };
    vec![
        o.name().into(),
        class.into(),
        hosts.into(),
        addresses.join(",").into(),
        ports.into(),
        age(o, now).into(),
    ]
}

fn binding(o: &Value, now: Timestamp) -> Vec<Value> {
    let role = format!("{}/{}", o.str_at(&["roleRef", "kind"]), o.str_at(&["roleRef", "name"]));
    let of = |kind: &str| {
        let names: Vec<String> = o
            .array_at(&["subjects"])
            .iter()
            .filter(|s| s.kind() == kind)
            .map(|s| match kind {
                "ServiceAccount" => format!("{}/{}", s.str_at(&["namespace"]), s.str_at(&["name"])),
                _ => s.str_at(&["name"]).to_owned(),
            })
            .collect();
        Value::from(names.join(", "))
    };
    vec![o.name().into(), role.into(), age(o, now).into(), of("User"), of("Group"), of("ServiceAccount")]
}

fn driver(o: &Value, now: Timestamp) -> Vec<Value> {
    let flag = |field: &str, absent: bool| Value::from(o.at(&["spec", field]).as_bool().unwrap_or(absent));
    let audiences: Vec<&str> =
        o.array_at(&["spec", "tokenRequests"]).iter().map(|t| t.str_at(&["audience"])).collect();
    let audiences = if audiences.is_empty() { UNSET.to_owned() } else { audiences.join(",") };
    let modes = join(o.array_at(&["spec", "volumeLifecycleModes"]));
    vec![
        o.name().into(),
        flag("attachRequired", true),
        flag("podInfoOnMount", false),
        flag("storageCapacity", false),
        audiences.into(),
        flag("requiresRepublish", false),
        or(&modes, NONE).into(),
        age(o, now).into(),
    ]
}

fn slice(o: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = o
        .array_at(&["ports"])
        .iter()
        .map(|p| p.get("port").as_i64().map_or("*".to_owned(), |n| n.to_string()))
        .collect();
    let addresses: Vec<&str> = o
        .array_at(&["endpoints"])
        .iter()
        .flat_map(|e| e.array_at(&["addresses"]))
        .filter_map(Value::as_str)
        .collect();
    let few = |items: Vec<&str>| match items.len() {
        0 => UNSET.to_owned(),
        n if n > 3 => format!("{} + {} more...", items[..3].join(","), n - 3),
        _ => items.join(","),
    };
    vec![
        o.name().into(),
        o.str_at(&["addressType"]).into(),
        few(ports.iter().map(String::as_str).collect()).into(),
        few(addresses).into(),
        age(o, now).into(),
    ]
}

fn claim_state(o: &Value) -> String {
    let mut states = Vec::new();
    if o.is_terminating() {
        states.push("deleted");
    }
    match (o.at(&["status", "allocation"]).is_null(), o.array_at(&["status", "reservedFor"]).is_empty()) {
        (true, _) => states.push("pending"),
        (false, true) => states.push("allocated"),
        (false, false) => states.extend(["allocated", "reserved"]),
    }
    states.join(",")
}

fn level(o: &Value, now: Timestamp) -> Vec<Value> {
    let limited = o.at(&["spec", "limited"]);
    let shares = if limited.is_null() {
        o.at(&["spec", "exempt", "nominalConcurrencyShares"])
    } else {
        limited.get("nominalConcurrencyShares")
    };
    let shown = |v: &Value| v.as_i64().map_or(Value::from(NONE), |n| Value::from(n.to_string()));
    let queuing = limited.at(&["limitResponse", "queuing"]);
    vec![
        o.name().into(),
        o.str_at(&["spec", "type"]).into(),
        shown(shares),
        shown(queuing.get("queues")),
        shown(queuing.get("handSize")),
        shown(queuing.get("queueLengthLimit")),
        age(o, now).into(),
    ]
}
