//! Autoscalers between autoscaling/v2, in which they are stored, and autoscaling/v1, which knows one metric. What v1 has no
//! fields for travels in annotations: metrics in forms of its own, and the behavior as upstream's internal type is printed.

use api::{Map, Value, object};

use crate::kinds::default_metrics;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";

/// Whether a metric is one to aim at or one that was measured.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Target,
    Current,
}

impl Side {
    /// The member of a metric of v2 with the values.
    fn values(self) -> &'static str {
        if self == Side::Target { "target" } else { "current" }
    }

    /// The name of a value in v1: `targetValue`, `currentAverageUtilization`.
    fn named(self, value: &str) -> String {
        format!("{}{value}", self.values())
    }
}

fn is_cpu_utilization(metric: &Value, side: Side) -> bool {
    metric.str_at(&["type"]) == "Resource"
        && metric.str_at(&["resource", "name"]) == "cpu"
        && !metric.at(&["resource", side.values(), "averageUtilization"]).is_null()
}

/// An autoscaler in version one.
pub(super) fn to_v1(mut hpa: Value) -> Value {
    let metrics = hpa.remove_at(&["spec", "metrics"]).unwrap_or_default();
    let current = hpa.remove_at(&["status", "currentMetrics"]).unwrap_or_default();
    for (metrics, side, field) in [
        (&metrics, Side::Target, ["spec", "targetCPUUtilizationPercentage"]),
        (&current, Side::Current, ["status", "currentCPUUtilizationPercentage"]),
    ] {
        let utilization = metrics.as_array().into_iter().flatten().find(|m| is_cpu_utilization(m, side));
        if let Some(metric) = utilization {
            hpa.set(&field, metric.at(&["resource", side.values(), "averageUtilization"]).clone());
        }
    }
    let others = |metrics: &Value, side| -> Option<Value> {
        let metrics = metrics.as_array().into_iter().flatten().filter(|m| !is_cpu_utilization(m, side));
        Some(Value::Array(metrics.map(|m| metric_v1(m, side)).collect()))
    };
    let behavior = hpa.remove_at(&["spec", "behavior"]).filter(|b| !b.is_empty());
    let behavior =
        behavior.map(|b| crate::kinds::check::view(&b, "autoscaling/v2.HorizontalPodAutoscalerBehavior"));
    let conditions = hpa.remove_at(&["status", "conditions"]);
    for (key, value) in [
        (METRICS, others(&metrics, Side::Target)),
        (BEHAVIOR, behavior),
        (CONDITIONS, conditions),
        (CURRENT, others(&current, Side::Current)),
    ] {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            hpa.set(&["metadata", "annotations", key], value.to_string());
        }
    }
    hpa
}

/// The member of a metric that describes it, by its type.
fn member(metric: &Value) -> &'static str {
    match metric.str_at(&["type"]) {
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => "external",
    }
}

fn metric_v1(metric: &Value, side: Side) -> Value {
    let member = member(metric);
    let of = metric.get(member);
    let values = of.get(side.values());
    let (value, average) = (values.get("value"), values.get("averageValue"));
    let utilization = values.get("averageUtilization");
    // A value that must be there is zero when it is not.
    let must = |v: &Value| if v.is_null() { Value::from("0") } else { v.clone() };
    let (value_name, average_name) = (side.named("Value"), side.named("AverageValue"));
    let utilization_name = side.named("AverageUtilization");
    let name = || ("metricName", of.at(&["metric", "name"]).clone());
    let selector = of.at(&["metric", "selector"]).clone();
    let members: Vec<(&str, Value)> = match member {
        "object" => vec![
            ("target", of.get("describedObject").clone()),
            name(),
            (value_name.as_str(), must(value)),
            ("selector", selector),
            ("averageValue", average.clone()),
        ],
        "pods" => vec![name(), (average_name.as_str(), must(average)), ("selector", selector)],
        "external" => {
            let value = if side == Side::Current { must(value) } else { value.clone() };
            vec![
                name(),
                ("metricSelector", selector),
                (value_name.as_str(), value),
                (average_name.as_str(), average.clone()),
            ]
        }
        _ => {
            let average = if side == Side::Current { must(average) } else { average.clone() };
            vec![
                ("name", of.get("name").clone()),
                (utilization_name.as_str(), utilization.clone()),
                (average_name.as_str(), average),
                ("container", of.get("container").clone()),
            ]
        }
    };
    let members: Map = members.into_iter().filter(|(_, v)| !v.is_null()).collect();
    let mut out = object!({"type": (metric.get("type").clone())});
    out.set(&[member], Value::Object(members));
    out
}

/// An autoscaler of version one as it is stored.
pub(super) fn to_v2(mut hpa: Value) -> Value {
    let read = |annotation: Value, side| -> Vec<Value> {
        annotation.as_array().into_iter().flatten().map(|m| metric_v2(m, side)).collect()
    };
    let mut metrics = read(take_annotation(&mut hpa, METRICS), Side::Target);
    if let Some(target) = hpa.remove_at(&["spec", "targetCPUUtilizationPercentage"]).filter(|t| !t.is_null())
    {
        let target = object!({"type": "Utilization", "averageUtilization": target});
        metrics.insert(0, object!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    let metrics = if metrics.is_empty() { default_metrics() } else { metrics.into() };
    hpa.set(&["spec", "metrics"], metrics);
    let mut current = read(take_annotation(&mut hpa, CURRENT), Side::Current);
    let measured = hpa.remove_at(&["status", "currentCPUUtilizationPercentage"]).filter(|t| !t.is_null());
    if let Some(utilization) = measured {
        let now = object!({"averageUtilization": utilization, "averageValue": "0"});
        current.insert(0, object!({"type": "Resource", "resource": {"name": "cpu", "current": now}}));
    }
    if !current.is_empty() {
        hpa.set(&["status", "currentMetrics"], Value::Array(current));
    }
    for (key, path) in [(BEHAVIOR, ["spec", "behavior"]), (CONDITIONS, ["status", "conditions"])] {
        let value = take_annotation(&mut hpa, key);
        if !value.is_null() {
            hpa.set(&path, lower(value));
        }
    }
    hpa
}

fn metric_v2(metric: &Value, side: Side) -> Value {
    let member = member(metric);
    let of = metric.get(member);
    if !of.at(&["metric", "name"]).is_null() || !of.get(side.values()).at(&["type"]).is_null() {
        // It has the form of version two already.
        return metric.clone();
    }
    let (value, average) = (of.get(&side.named("Value")), of.get(&side.named("AverageValue")));
    let average = if member == "object" { of.get("averageValue") } else { average };
    let utilization = of.get(&side.named("AverageUtilization"));
    let kind = match (utilization.is_null(), average.is_null()) {
        (false, _) => "Utilization",
        (true, false) => "AverageValue",
        (true, true) => "Value",
    };
    let mut values = Map::new();
    if side == Side::Target {
        values.push("type", kind.into());
    }
    let value = if kind == "Value" || side == Side::Current { value } else { &Value::Null };
    for (name, given) in [("value", value), ("averageValue", average), ("averageUtilization", utilization)] {
        if !given.is_null() {
            values.push(name, given.clone());
        }
    }
    let mut out = Value::object();
    let selector = if member == "external" { "metricSelector" } else { "selector" };
    for (from, to) in [("metricName", "name"), (selector, "selector")] {
        if !of.get(from).is_null() {
            out.set(&["metric", to], of.get(from).clone());
        }
    }
    for (from, to) in [("target", "describedObject"), ("name", "name"), ("container", "container")] {
        if !of.get(from).is_null() {
            out.set(&[to], of.get(from).clone());
        }
    }
    out.set(&[side.values()], Value::Object(values));
    let mut whole = object!({"type": (metric.get("type").clone())});
    whole.set(&[member], out);
    whole
}

/// Members named as in Go's types, with names as the API has them. Nulls are left out.
fn lower(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut out = Map::new();
            for (key, value) in map.iter().filter(|(_, v)| !v.is_null()) {
                let mut rest = key.chars();
                let first = rest.next().map(|c| c.to_ascii_lowercase());
                let name: String = first.into_iter().chain(rest).collect();
                out.push(name, lower(value.clone()));
            }
            Value::Object(out)
        }
        Value::Array(items) => Value::Array(items.into_iter().map(lower).collect()),
        other => other,
    }
}

fn take_annotation(hpa: &mut Value, key: &str) -> Value {
    let text = hpa.remove_at(&["metadata", "annotations", key]);
    if hpa.at(&["metadata", "annotations"]).as_object().is_some_and(Map::is_empty) {
        hpa.remove_at(&["metadata", "annotations"]);
    }
    let decoded = text.as_ref().and_then(Value::as_str).and_then(|t| api::json::decode(t.as_bytes()).ok());
    decoded.map(|d| d.value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_survive_version_one() {
        let metrics = object!([
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
            {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1"}}},
            {"type": "Object", "object": {
                "metric": {"name": "o"}, "describedObject": {"kind": "Service", "name": "s"},
                "target": {"type": "Value", "value": "2"},
            }},
            {"type": "External", "external": {
                "metric": {"name": "e", "selector": {"matchLabels": {"a": "b"}}},
                "target": {"type": "AverageValue", "averageValue": "3"},
            }},
        ]);
        let v2 = object!({"spec": {"metrics": (metrics.clone())}});
        let v1 = to_v1(v2.clone());
        assert_eq!(v1.at(&["spec", "targetCPUUtilizationPercentage"]), &Value::Int(50));
        let told = v1.str_at(&["metadata", "annotations", METRICS]);
        assert!(
            told.starts_with(r#"[{"type":"Pods","pods":{"metricName":"m","targetAverageValue":"1"}}"#),
            "{told}"
        );
        assert_eq!(to_v2(v1).at(&["spec", "metrics"]), v2.at(&["spec", "metrics"]));
    }

    #[test]
    fn the_behavior_is_printed_as_upstream_prints_it() {
        let behavior = object!({"scaleUp": {"selectPolicy": "Max", "stabilizationWindowSeconds": 1}});
        let v1 = to_v1(object!({"spec": {"behavior": (behavior.clone())}}));
        let told = v1.str_at(&["metadata", "annotations", BEHAVIOR]);
        assert!(
            told.starts_with(r#"{"ScaleUp":{"StabilizationWindowSeconds":1,"SelectPolicy":"Max""#),
            "{told}"
        );
        let back = to_v2(v1);
        assert_eq!(back.at(&["spec", "behavior", "scaleUp", "selectPolicy"]).as_str(), Some("Max"));
    }
}
