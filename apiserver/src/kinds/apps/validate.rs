//! What workloads may be.

use api::selector::LabelSelector;
use api::{Value, names, object};

use crate::kinds::Errors;
use crate::kinds::check::{At, view};
use crate::kinds::{claim, pod};

const MISMATCH: &str = "`selector` does not match template `labels`";

/// Checks the selector, which must be there and select something.
fn validate_selector(spec: &At<'_>, what: &str, errors: &mut Errors) {
    let selector = spec.get("selector");
    if !selector.is_set() {
        return selector.required(errors, "");
    }
    selector.label_selector(errors);
    if selector.get("matchLabels").len() + selector.get("matchExpressions").len() == 0 {
        selector.invalid(errors, format!("empty selector is invalid for {what}"));
    }
}

/// Checks that the selector selects the template; an empty one is told about elsewhere. None when it cannot be read.
fn validate_match(spec: &At<'_>, errors: &mut Errors) -> Option<()> {
    let selector = spec.get("selector");
    if !selector.is_readable_selector() {
        return None;
    }
    let parsed = LabelSelector::from_object(selector.value).ok()?;
    if parsed.as_ref().is_some_and(LabelSelector::is_everything) {
        return Some(());
    }
    let labels = spec.get("template.metadata.labels");
    if !parsed.is_some_and(|s| s.matches_labels(labels.value)) {
        labels.invalid(errors, MISMATCH);
    }
    Some(())
}

/// Checks a template whose pods always run.
pub(in crate::kinds) fn validate_template(template: &At<'_>, kind: &str, errors: &mut Errors) {
    pod::validate_template(template, errors);
    always_runs(template, kind, errors);
}

fn always_runs(template: &At<'_>, kind: &str, errors: &mut Errors) {
    let policy = template.get("spec.restartPolicy");
    if policy.text() != "Always" {
        policy.unsupported(errors, &["Always"]);
    }
    let deadline = template.get("spec.activeDeadlineSeconds");
    if deadline.is_set() {
        deadline.forbidden(errors, format!("activeDeadlineSeconds in {kind} is not Supported"));
    }
}

pub(super) fn replica_set(set: &Value, errors: &mut Errors) {
    let spec = At::of(set, "spec");
    spec.get("replicas").not_negative(errors);
    spec.get("minReadySeconds").not_negative(errors);
    validate_selector(&spec, "deployment", errors);
    match validate_match(&spec, errors) {
        Some(()) => validate_template(&spec.get("template"), "ReplicaSet", errors),
        None => spec.get("selector").invalid(errors, "invalid label selector"),
    }
}

pub(super) fn deployment(deployment: &Value, errors: &mut Errors) {
    let spec = At::of(deployment, "spec");
    spec.get("replicas").not_negative(errors);
    validate_selector(&spec, "deployment", errors);
    match validate_match(&spec, errors) {
        Some(()) => validate_template(&spec.get("template"), "ReplicaSet", errors),
        None => spec.get("selector").invalid(errors, "invalid label selector"),
    }
    validate_strategy(&spec.get("strategy"), errors);
    let ready = spec.get("minReadySeconds");
    ready.not_negative(errors);
    spec.get("revisionHistoryLimit").not_negative(errors);
    let deadline = spec.get("progressDeadlineSeconds");
    deadline.not_negative(errors);
    if deadline.is_set() && deadline.int() <= ready.int() {
        deadline.invalid(errors, "must be greater than minReadySeconds");
    }
}

fn validate_strategy(strategy: &At<'_>, errors: &mut Errors) {
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "Recreate" if rolling.is_set() => {
            rolling.forbidden(errors, "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            unavailable.count_or_percent(errors);
            surge.count_or_percent(errors);
            if unavailable.count_or_percent_value() == 0 && surge.count_or_percent_value() == 0 {
                unavailable.invalid(errors, "may not be 0 when `maxSurge` is 0");
            }
            unavailable.not_above_all(errors);
        }
        _ => {
            let shown = view(strategy.value, "apps/v1.DeploymentStrategy");
            strategy.with(&shown).unsupported(errors, &["Recreate", "RollingUpdate"]);
        }
    }
}

pub(super) fn daemon_set(set: &Value, errors: &mut Errors) {
    let spec = At::of(set, "spec");
    let selector = spec.get("selector");
    selector.label_selector(errors);
    let labels = spec.get("template.metadata.labels");
    // A selector that is not there selects nothing.
    let parsed = LabelSelector::from_object(selector.value);
    let readable = selector.is_readable_selector();
    if readable && parsed.is_ok_and(|s| !s.is_some_and(|s| s.matches_labels(labels.value))) {
        labels.invalid(errors, MISMATCH);
    }
    if selector.is_set() && selector.get("matchLabels").len() + selector.get("matchExpressions").len() == 0 {
        selector.invalid(errors, "empty selector is invalid for daemonset");
    }
    validate_template(&spec.get("template"), "DaemonSet", errors);
    spec.get("minReadySeconds").not_negative(errors);
    let strategy = spec.get("updateStrategy");
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "OnDelete" => {}
        "RollingUpdate" if !rolling.is_set() => rolling.required(errors, ""),
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            unavailable.count_or_percent(errors);
            surge.count_or_percent(errors);
            unavailable.not_above_all(errors);
            surge.not_above_all(errors);
            match (unavailable.count_or_percent_value() != 0, surge.count_or_percent_value() != 0) {
                (true, true) => {
                    surge.invalid(errors, "may not be set when maxUnavailable is non-zero");
                }
                (false, false) => unavailable.required(errors, "cannot be 0 when maxSurge is 0"),
                _ => {}
            }
        }
        _ => {
            let shown = view(strategy.value, "apps/v1.DaemonSetUpdateStrategy");
            strategy.with(&shown).unsupported(errors, &["RollingUpdate", "OnDelete"]);
        }
    }
    spec.get("revisionHistoryLimit").not_negative(errors);
}

/// Checks a StatefulSet; `old` is what it was.
pub(super) fn stateful_set(set: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = At::of(set, "spec");
    let policy = spec.get("podManagementPolicy");
    match policy.text() {
        "" => policy.required(errors, ""),
        "OrderedReady" | "Parallel" => {}
        _ => policy.invalid(errors, "must be 'OrderedReady' or 'Parallel'"),
    }
    validate_set_strategy(&spec.get("updateStrategy"), errors);
    let retention = spec.get("persistentVolumeClaimRetentionPolicy");
    if retention.is_set() {
        for field in ["whenDeleted", "whenScaled"] {
            let at = retention.get(field);
            if !["Retain", "Delete"].contains(&at.text()) {
                at.unsupported(errors, &["Retain", "Delete"]);
            }
        }
    }
    if old.is_none() {
        for template in spec.get("volumeClaimTemplates").items() {
            claim::validate_spec(&template.get("spec"), errors);
        }
    }
    spec.get("replicas").not_negative(errors);
    spec.get("minReadySeconds").not_negative(errors);
    spec.get("ordinals.start").not_negative(errors);
    if old.is_none() {
        spec.get("serviceName").named_if_any(errors, names::dns_label);
    }
    validate_selector(&spec, "statefulset", errors);
    if validate_match(&spec, errors).is_none() {
        spec.get("selector").invalid(errors, "");
    } else {
        let effective = with_claims(set);
        let path = spec.path;
        let template = At { value: &effective, path: path.child("template") };
        pod::validate_template(&template, errors);
        // Upstream looks at these twice.
        pod::validate_template_labels(&template, errors);
    }
    always_runs(&spec.get("template"), "StatefulSet", errors);
}

/// The template as the controller uses it: with a volume for each claim, and names of its own.
fn with_claims(set: &Value) -> Value {
    let mut template = set.at(&["spec", "template"]).clone();
    let spec = template.make_object().entry("spec").make_object();
    spec.remove("subdomain");
    spec.remove("hostname");
    let claims = set.array_at(&["spec", "volumeClaimTemplates"]);
    if claims.is_empty() {
        return template;
    }
    let first = |(i, claim): &(usize, &Value)| claims[..*i].iter().all(|c| c.name() != claim.name());
    let mut volumes: Vec<Value> = claims
        .iter()
        .enumerate()
        .filter(first)
        .map(|(_, claim)| claim)
        .map(|c| object!({"name": (c.name()), "persistentVolumeClaim": {"claimName": (c.name())}}))
        .collect();
    let own = set.array_at(&["spec", "template", "spec", "volumes"]).iter();
    volumes.extend(own.filter(|v| claims.iter().all(|c| c.name() != v.str_at(&["name"]))).cloned());
    template.set(&["spec", "volumes"], volumes);
    template
}

fn validate_set_strategy(strategy: &At<'_>, errors: &mut Errors) {
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "" => strategy.required(errors, ""),
        "OnDelete" if rolling.is_set() => {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            rolling.invalid_struct(errors, "apps/v1.RollingUpdateStatefulSetStrategy", why);
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            rolling.get("partition").not_negative(errors);
            let unavailable = rolling.get("maxUnavailable");
            if unavailable.is_set() {
                unavailable.count_or_percent(errors);
                if unavailable.count_or_percent_value() == 0 {
                    unavailable.invalid(errors, "cannot be 0");
                }
                unavailable.not_above_all(errors);
            }
        }
        _ => {
            let why = "must be 'RollingUpdate' or 'OnDelete'";
            strategy.invalid_struct(errors, "apps/v1.StatefulSetUpdateStrategy", why);
        }
    }
}

const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub(super) fn stateful_set_update(new: &Value, old: &Value, errors: &mut Errors) {
    stateful_set(new, Some(old), errors);
    let fixed = |set: &Value| {
        let mut spec = set.get("spec").clone();
        for field in MUTABLE {
            spec.make_object().remove(field);
        }
        spec
    };
    if fixed(new) != fixed(old) {
        let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        At::of(new, "spec").forbidden(errors, why);
    }
}

pub(super) fn selector_is_immutable(new: &Value, old: &Value, errors: &mut Errors) {
    At::of(new, "spec.selector").immutable(errors, old.at(&["spec", "selector"]));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&Value, &mut Errors), spec: Value, want: &[&str]) {
        let mut template = object!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        pod::default_pod_spec(template.make_object().entry("spec"));
        let mut object = object!({"metadata": {"name": "x"}, "spec": spec});
        object.set(&["spec", "template"], template);
        let mut errors = Vec::new();
        rule(&object, &mut errors);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), want);
    }

    #[test]
    fn selectors_select_the_template() {
        let selector = |value: &str| object!({"selector": {"matchLabels": {"a": value}}});
        check(replica_set, selector("b"), &[]);
        let mismatch = "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`";
        check(replica_set, selector("c"), &[mismatch]);
        check(replica_set, object!({}), &["spec.selector: Required value", mismatch]);
        check(
            replica_set,
            object!({"selector": {}}),
            &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
        );
    }

    #[test]
    fn rolling_updates_make_progress() {
        let spec = |rolling: Value| object!({"selector": {"matchLabels": {"a": "b"}}, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}});
        check(daemon_set, spec(object!({"maxUnavailable": 1, "maxSurge": 0})), &[]);
        check(
            daemon_set,
            spec(object!({"maxUnavailable": 0, "maxSurge": "0%"})),
            &[
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
            ],
        );
        check(
            daemon_set,
            spec(object!({"maxUnavailable": "10%", "maxSurge": 1})),
            &[
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
            ],
        );
    }
}
