//! Autoscalers. What is checked is the newest version, which is the one stored.

use api::{Value, names, object};

use super::check::At;
use super::resource_names::validate_container_resource;
use super::{Entry, Errors, Part, Strategy, default_to};

pub(super) const STRATEGIES: &[Entry] = &[("autoscaling", "horizontalpodautoscalers", &AUTOSCALER)];

static AUTOSCALER: Strategy = Strategy {
    default,
    validate: |autoscaler, errors| validate(autoscaler, None, errors),
    validate_update: |new, old, errors| validate(new, Some(old), errors),
    revalidates: false,
    checks_stored: true,
    parts: &[Part {
        name: "status",
        fixed: &[&["spec"]],
        prepare: |_, _| {},
        validate: |new, _, errors| {
            let status = At::of(new, "status");
            status.get("currentReplicas").not_negative(errors);
            status.get("desiredReplicas").not_negative(errors);
        },
    }],
    ..Strategy::NEUTRAL
};

fn default(autoscaler: &mut Value) {
    let first = autoscaler.api_version() == "autoscaling/v1";
    let metrics_elsewhere = autoscaler.annotation("autoscaling.alpha.kubernetes.io/metrics").is_some();
    let spec = autoscaler.make_object().entry("spec");
    default_to(spec, "minReplicas", 1);
    if first {
        // The old version has room for one metric, and annotations for the others.
        if !metrics_elsewhere {
            default_to(spec, "targetCPUUtilizationPercentage", 80);
        }
        return;
    }
    if spec.array_at(&["metrics"]).is_empty() {
        spec.set(&["metrics"], default_metrics());
    }
    if spec.get("behavior").is_null() {
        return;
    }
    let behavior = spec.make_object().entry("behavior");
    let (four, all) = (
        object!({"type": "Pods", "value": 4, "periodSeconds": 15}),
        object!({"type": "Percent", "value": 100, "periodSeconds": 15}),
    );
    let up = behavior.make_object().entry("scaleUp");
    default_to(up, "stabilizationWindowSeconds", 0);
    default_to(up, "selectPolicy", "Max");
    default_to(up, "policies", vec![four, all.clone()]);
    let down = behavior.make_object().entry("scaleDown");
    default_to(down, "selectPolicy", "Max");
    default_to(down, "policies", vec![all]);
}

/// What an autoscaler without metrics aims at.
pub fn default_metrics() -> Value {
    object!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}])
}

/// Which apiVersions a reference may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Versions {
    Any,
    WellFormed,
    WithGroup,
}

fn validate(autoscaler: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = At::of(autoscaler, "spec");
    let was_zero = old.is_some_and(|o| o.at(&["spec", "minReplicas"]).as_i64() == Some(0));
    let lowest = i64::from(!was_zero);
    let (min, max) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    if min.is_set() && min.int() < lowest {
        min.invalid(errors, format!("must be greater than or equal to {lowest}"));
    }
    match max.int() {
        0 => max.required(errors, "must be set and greater than 0"),
        n if n < 0 => max.invalid(errors, "must be greater than or equal to 1"),
        _ => {}
    }
    if min.is_set() && max.int() < min.int() {
        max.invalid_as(errors, max.int(), "must be greater than or equal to `minReplicas`");
    }
    let target = spec.get("scaleTargetRef");
    let same = |field: &str| {
        old.is_some_and(|o| o.str_at(&["spec", "scaleTargetRef", field]) == target.get(field).text())
    };
    let versions = if same("apiVersion") && same("kind") {
        Versions::Any
    } else if target.get("kind").text() == "ReplicationController" {
        Versions::WellFormed
    } else {
        Versions::WithGroup
    };
    validate_reference(&target, versions, errors);
    let metrics = spec.get("metrics");
    let was_bad = |metric: &Value| {
        let version = metric.str_at(&["object", "describedObject", "apiVersion"]);
        metric.str_at(&["type"]) == "Object" && check_version(version, Versions::WellFormed).is_some()
    };
    let bad = old.is_some_and(|o| o.array_at(&["spec", "metrics"]).iter().any(was_bad));
    for metric in metrics.items() {
        validate_metric(&metric, if bad { Versions::Any } else { Versions::WellFormed }, errors);
    }
    let outside = |m: &At<'_>| matches!(m.get("type").text(), "Object" | "External");
    if min.is_set() && min.int() == 0 && !metrics.items().any(|m| outside(&m)) {
        let why = "must specify at least one Object or External metric to support scaling to zero replicas";
        metrics.forbidden(errors, why);
    }
    for rules in ["behavior.scaleUp", "behavior.scaleDown"] {
        validate_rules(&spec.get(rules), errors);
    }
}

fn check_version(version: &str, versions: Versions) -> Option<String> {
    let slashes = version.matches('/').count();
    match versions {
        Versions::Any => None,
        _ if slashes > 1 => Some(format!("unexpected GroupVersion string: {version}")),
        Versions::WithGroup if slashes == 0 || version.starts_with('/') => {
            Some("apiVersion must specify API group".to_owned())
        }
        _ => None,
    }
}

fn validate_reference(reference: &At<'_>, versions: Versions, errors: &mut Errors) {
    reference.get("kind").required_name(errors, names::path_segment);
    reference.get("name").required_name(errors, names::path_segment);
    let version = reference.get("apiVersion");
    if let Some(why) = check_version(version.text(), versions) {
        version.invalid_as(errors, version.text(), why);
    }
}

fn validate_rules(rules: &At<'_>, errors: &mut Errors) {
    const WINDOW: i64 = 3600;
    if !rules.is_set() {
        return;
    }
    let window = rules.get("stabilizationWindowSeconds");
    if window.int() < 0 {
        window.invalid(errors, "must be greater than or equal to zero");
    }
    if window.int() > WINDOW {
        window.invalid(errors, format!("must be less than or equal to {WINDOW}"));
    }
    rules.get("selectPolicy").one_of(errors, &["Disabled", "Max", "Min"]);
    let policies = rules.get("policies");
    if policies.len() == 0 {
        policies.required(errors, "must specify at least one Policy");
    }
    for policy in policies.items() {
        validate_policy(&policy, errors);
    }
    rules.get("tolerance").quantity_not_negative(errors);
}

fn validate_policy(policy: &At<'_>, errors: &mut Errors) {
    const PERIOD: i64 = 1800;
    let kind = policy.get("type");
    if !matches!(kind.text(), "Pods" | "Percent") {
        kind.unsupported(errors, &["Percent", "Pods"]);
    }
    policy.get("value").positive(errors);
    let period = policy.get("periodSeconds");
    period.positive(errors);
    if period.int() > PERIOD {
        period.invalid(errors, format!("must be less than or equal to {PERIOD}"));
    }
}

/// Sources of metrics: their type, and the field that describes them, in the order in which they are looked at.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

const SOURCE_TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];

fn validate_metric(metric: &At<'_>, versions: Versions, errors: &mut Errors) {
    let kind = metric.get("type");
    if kind.text().is_empty() {
        kind.required(errors, "must specify a metric source type");
    }
    let known = SOURCES.iter().find(|(t, _)| *t == kind.text());
    if known.is_none() {
        kind.unsupported(errors, &SOURCE_TYPES);
    }
    let present: Vec<&str> =
        SOURCES.iter().map(|(_, field)| *field).filter(|f| metric.get(f).is_set()).collect();
    if let Some(first) = present.first() {
        validate_source(&metric.get(first), first, versions, errors);
    }
    match known {
        Some((_, field)) if !metric.get(field).is_set() => {
            metric.get(field).required(errors, "must populate information for the given metric source");
        }
        Some(_) => {}
        None => kind.unsupported(errors, &SOURCE_TYPES),
    }
    if present.len() != 1 {
        let expected = known.map_or("", |(_, field)| *field);
        for other in present.into_iter().filter(|f| *f != expected) {
            metric.get(other).forbidden(errors, "must populate the given metric source only");
        }
    }
}

fn validate_source(source: &At<'_>, kind: &str, versions: Versions, errors: &mut Errors) {
    if kind == "object" {
        validate_reference(&source.get("describedObject"), versions, errors);
    }
    let (name, container) = (source.get("name"), source.get("container"));
    match kind {
        "resource" | "containerResource" if name.text().is_empty() => {
            name.required(errors, "must specify a resource name");
        }
        "resource" => {}
        "containerResource" => validate_container_resource(&name, name.text(), errors),
        _ => {
            let name = source.get("metric.name");
            if name.text().is_empty() {
                name.required(errors, "must specify a metric name");
            }
            name.named_if_any(errors, names::path_segment);
        }
    }
    if kind == "containerResource" {
        if container.text().is_empty() {
            container.required(errors, "must specify a container");
        }
        container.named_if_any(errors, names::dns_label);
    }
    let target = source.get("target");
    validate_target(&target, errors);
    let (value, average, utilization) =
        (target.get("value"), target.get("averageValue"), target.get("averageUtilization"));
    match kind {
        "object" if !value.is_set() && !average.is_set() => {
            average.required(errors, "must set either a target value or averageValue");
        }
        "external" if !value.is_set() && !average.is_set() => {
            let why = "must set either a target value for metric or a per-pod target";
            average.required(errors, why);
        }
        "external" if value.is_set() && average.is_set() => {
            let why = "may not set both a target value for metric and a per-pod target";
            value.forbidden(errors, why);
        }
        "pods" if !average.is_set() => {
            average.required(errors, "must specify a positive target averageValue");
        }
        "resource" | "containerResource" if !utilization.is_set() && !average.is_set() => {
            utilization.required(errors, "must set either a target raw value or a target utilization");
        }
        "resource" | "containerResource" if utilization.is_set() && average.is_set() => {
            average.forbidden(errors, "may not set both a target raw value and a target utilization");
        }
        _ => {}
    }
}

fn validate_target(target: &At<'_>, errors: &mut Errors) {
    let kind = target.get("type");
    if kind.text().is_empty() {
        kind.required(errors, "must specify a metric target type");
    }
    if !matches!(kind.text(), "Utilization" | "Value" | "AverageValue") {
        kind.invalid_as(errors, kind.text(), "must be either Utilization, Value, or AverageValue");
    }
    for field in ["value", "averageValue"] {
        let amount = target.get(field);
        if amount.quantity().is_some_and(|q| q.is_zero() || q.is_negative()) {
            amount.invalid(errors, "must be positive");
        }
    }
    let utilization = target.get("averageUtilization");
    if utilization.is_set() && utilization.int() < 1 {
        utilization.invalid(errors, "must be greater than 0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_one_source() {
        let check = |metric: Value, want: &[&str]| {
            let object = object!({"m": metric});
            let mut errors = Vec::new();
            validate_metric(&At::of(&object, "m"), Versions::WellFormed, &mut errors);
            assert_eq!(errors.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(), want);
        };
        check(default_metrics().as_array().unwrap()[0].clone(), &[]);
        check(object!({"type": "Pods"}), &["m.pods"]);
        check(object!({}), &["m.type", "m.type", "m.type"]);
    }

    #[test]
    fn references_name_their_group() {
        assert_eq!(check_version("apps/v1", Versions::WithGroup), None);
        assert!(check_version("v1", Versions::WithGroup).is_some());
        assert!(check_version("a/b/c", Versions::WellFormed).is_some());
        assert_eq!(check_version("a/b/c", Versions::Any), None);
    }
}
