//! Workloads and what scales them.

use api::Value;
use jiff::Timestamp;

use super::{NONE, UNKNOWN, UNSET, age, condition, containers, labels, selector, since};

pub(super) fn replicas(o: &Value, now: Timestamp, selector: String) -> Vec<Value> {
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

pub(super) fn deployment(o: &Value, now: Timestamp) -> Vec<Value> {
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

pub(super) fn daemon_set(o: &Value, now: Timestamp) -> Vec<Value> {
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

/// What an autoscaler aims at and where it stands, of the first two of its metrics.
fn metrics(o: &Value) -> String {
    const SHOWN: usize = 2;
    let metrics = o.array_at(&["spec", "metrics"]);
    let now = o.array_at(&["status", "currentMetrics"]);
    let shown: Vec<String> = metrics
        .iter()
        .enumerate()
        .take(SHOWN)
        .map(|(i, m)| metric(m, now.get(i).unwrap_or(&Value::Null)))
        .collect();
    match metrics.len() {
        0 => NONE.to_owned(),
        all if all > SHOWN => format!("{} + {} more...", shown.join(", "), all - SHOWN),
        _ => shown.join(", "),
    }
}

fn metric(metric: &Value, now: &Value) -> String {
    let (member, named, averages) = match metric.str_at(&["type"]) {
        "Resource" => ("resource", true, ""),
        "ContainerResource" => ("containerResource", true, ""),
        "Object" => ("object", false, " (avg)"),
        "External" => ("external", false, " (avg)"),
        "Pods" => ("pods", false, ""),
        _ => return "<unknown type>".to_owned(),
    };
    let (wanted, found) = (metric.at(&[member, "target"]), now.at(&[member, "current"]));
    let value = |v: &Value, field: &str| v.get(field).as_str().map(str::to_owned);
    let percent = |v: &Value| v.get("averageUtilization").as_i64().map(|p| format!("{p}%"));
    let unknown = |found: Option<String>| found.unwrap_or_else(|| UNKNOWN.to_owned());
    let text = match value(wanted, "averageValue") {
        Some(wanted) => format!("{}/{wanted}{averages}", unknown(value(found, "averageValue"))),
        None if named => {
            let wanted = percent(wanted).unwrap_or_else(|| "<auto>".to_owned());
            format!("{}/{wanted}", unknown(percent(found)))
        }
        None => {
            let wanted = value(wanted, "value").unwrap_or_default();
            format!("{}/{wanted}", unknown(value(found, "value")))
        }
    };
    if named { format!("{}: {text}", metric.str_at(&[member, "name"])) } else { text }
}

pub(super) fn autoscaler(o: &Value, now: Timestamp) -> Vec<Value> {
    let target = format!(
        "{}/{}",
        o.str_at(&["spec", "scaleTargetRef", "kind"]),
        o.str_at(&["spec", "scaleTargetRef", "name"])
    );
    let metrics = metrics(o);
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

pub(super) fn cron_job(o: &Value, now: Timestamp) -> Vec<Value> {
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

pub(super) fn job(o: &Value, now: Timestamp) -> Vec<Value> {
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
