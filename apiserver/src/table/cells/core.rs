//! Nodes, events, volumes, quotas and Services.

use api::{Map, Value};
use jiff::Timestamp;

use super::{NONE, UNKNOWN, UNSET, age, condition, labels, or, since};

pub(super) fn endpoints(o: &Value) -> String {
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

pub(super) fn event(o: &Value, now: Timestamp) -> Vec<Value> {
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

pub(super) fn node(o: &Value, now: Timestamp) -> Vec<Value> {
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

/// A quantity; one that is not there is none.
fn amount(quantity: &Value) -> &str {
    quantity.as_str().unwrap_or("0")
}

pub(super) fn claim(o: &Value, now: Timestamp) -> Vec<Value> {
    let phase = if o.is_terminating() { "Terminating" } else { o.str_at(&["status", "phase"]) };
    let bound = !o.str_at(&["spec", "volumeName"]).is_empty();
    let (capacity, modes) = if bound {
        (
            amount(o.at(&["status", "capacity", "storage"])),
            access_modes(o.array_at(&["status", "accessModes"])),
        )
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

pub(super) fn volume(o: &Value, now: Timestamp) -> Vec<Value> {
    let phase = if o.is_terminating() { "Terminating" } else { o.str_at(&["status", "phase"]) };
    let claim = o.at(&["spec", "claimRef"]);
    let claim = if claim.is_null() {
        String::new()
    } else {
        format!("{}/{}", claim.str_at(&["namespace"]), claim.str_at(&["name"]))
    };
    vec![
        o.name().into(),
        amount(o.at(&["spec", "capacity", "storage"])).into(),
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

pub(super) fn quota(o: &Value, now: Timestamp) -> Vec<Value> {
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

pub(super) fn service(o: &Value, now: Timestamp) -> Vec<Value> {
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
