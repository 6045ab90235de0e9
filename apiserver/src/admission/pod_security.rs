//! PodSecurity: pods of a namespace keep to the Pod Security Standard that its labels name.
//!
//! Pods that do not are refused, or told of in warnings; what makes pods is only warned of.
//!
//! Source: <https://kubernetes.io/docs/concepts/security/pod-security-admission/>.

mod checks;
mod existing;
mod level;

use api::error::Result;
use api::{ApiError, Value};

pub(super) use level::PodSecurity;

use super::forbid;
use crate::registry::Call;
use crate::resources::TABLE;
use checks::{Pod, evaluate};
use level::{Level, PREFIX, Policy, Standard};

/// What has pods or templates of them, and where.
const TEMPLATES: [(&str, &str, &[&str]); 9] = [
    ("", "pods", &[]),
    ("", "replicationcontrollers", &["spec", "template"]),
    ("", "podtemplates", &["template"]),
    ("apps", "replicasets", &["spec", "template"]),
    ("apps", "deployments", &["spec", "template"]),
    ("apps", "statefulsets", &["spec", "template"]),
    ("apps", "daemonsets", &["spec", "template"]),
    ("batch", "jobs", &["spec", "template"]),
    ("batch", "cronjobs", &["spec", "jobTemplate", "spec", "template"]),
];

/// Parts of pods whose bodies have no containers, or change none.
const IGNORED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

pub(super) fn validate(call: &Call, object: &Value, old: Option<&Value>) -> Result<()> {
    let (group, plural) = (call.row.group, call.row.built_in());
    if (group, plural) == ("", "namespaces") {
        return if call.subresource.is_empty() { check_namespace(call, object, old) } else { Ok(()) };
    }
    let Some((_, _, path)) = TEMPLATES.iter().find(|(g, p, _)| (*g, *p) == (group, plural)) else {
        return Ok(());
    };
    let is_pod = path.is_empty();
    let part = call.subresource.as_str();
    if (is_pod && IGNORED.contains(&part)) || (!is_pod && !part.is_empty()) {
        return Ok(());
    }
    let configured = &call.server.config.admission.pod_security;
    let metrics = &call.server.metrics.pod_security;
    let asked =
        [if old.is_some() { "update" } else { "create" }, if is_pod { "pod" } else { "controller" }, part];
    let decided = |allowed: bool, standard: &Standard, mode: &str| {
        let (level, version) = standard.shown();
        metrics.evaluated(allowed, (&level, &version), mode, asked);
    };
    let note = |key: &str, value: String| call.trail.annotate(format!("{PREFIX}{key}"), value);
    if let Some(why) = configured.exemptions.covers(&call.namespace, &call.user.name) {
        note("exempt", why.to_owned());
        metrics.exempted(asked);
        return Ok(());
    }
    let cache = call.server.storage.cache(TABLE.store("", "namespaces"));
    let (policy, errors) = match cache.get(&call.namespace) {
        Some(home) => Policy::of(&configured.defaults, |key| home.label(key)),
        None if is_pod => {
            metrics.failed(true, asked);
            let quoted = api::field::go_quote(&call.namespace);
            return Err(ApiError::internal(format!("failed to lookup namespace {quoted}")));
        }
        None => return Ok(()),
    };
    if errors.is_empty() && policy.is_privileged(is_pod) {
        if is_pod {
            note("enforce-policy", Standard::OPEN.to_string());
            decided(true, &Standard::OPEN, "enforce");
        }
        return Ok(());
    }
    let template = object.at(path);
    if template.is_null() || (is_pod && old.is_some_and(|old| !changes_images(object, old))) {
        return Ok(());
    }
    let pod = Pod::new(template);
    if configured.exemptions.covers_class(pod.spec.str_at(&["runtimeClassName"])) {
        note("exempt", "runtimeClass".to_owned());
        metrics.exempted(asked);
        return Ok(());
    }
    if !errors.is_empty() {
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let told = if let [one] = told.as_slice() { one.clone() } else { format!("[{}]", told.join(", ")) };
        note("error", format!("Failed to parse policy: {told}"));
        metrics.failed(false, asked);
    }
    let told = |standard: &Standard| {
        let violations = evaluate(standard, &pod);
        let details = checks::details(&violations);
        (!violations.is_empty()).then(|| format!("violate PodSecurity \"{standard}\": {details}"))
    };
    let refused = if is_pod { told(&policy.enforce) } else { None };
    if is_pod {
        note("enforce-policy", policy.enforce.to_string());
        decided(refused.is_none(), &policy.enforce, "enforce");
    }
    if let Some(what) = told(&policy.audit) {
        decided(false, &policy.audit, "audit");
        note("audit-violations", format!("would {what}"));
    }
    if let Some(what) = refused {
        return Err(forbid(call, object.name(), what.replacen("violate", "violates", 1)));
    }
    if let Some(what) = told(&policy.warn) {
        decided(false, &policy.warn, "warn");
        call.warn(format!("would {what}"));
    }
    Ok(())
}

/// Labels of a namespace make sense, and its pods are looked at when it becomes stricter.
fn check_namespace(call: &Call, new: &Value, old: Option<&Value>) -> Result<()> {
    let configured = &call.server.config.admission.pod_security;
    let read = |namespace: &Value| Policy::of(&configured.defaults, |key| namespace.label(key));
    let (policy, errors) = read(new);
    let before = old.map(read);
    let known = before.as_ref().is_some_and(|(_, known)| *known == errors);
    if !errors.is_empty() && !known {
        return Err(ApiError::invalid("", "Namespace", new.name(), &errors));
    }
    let name = new.name();
    if let Some((before, _)) = before {
        let (is, was) = (policy.enforce, before.enforce);
        if is == was || is.level == Level::Privileged || (is.version == was.version && is.level <= was.level)
        {
            return Ok(());
        }
        if configured.exemptions.covers(name, "").is_none() {
            existing::check(call, name, &is).into_iter().for_each(|warning| call.warn(warning));
            return Ok(());
        }
    }
    if configured.exemptions.covers(name, "").is_some()
        && let Some(shown) = policy.shown_if_set(&configured.defaults, |key| new.label(key).is_some())
    {
        let quoted = api::field::go_quote(name);
        call.warn(format!(
            "namespace {quoted} is exempt from Pod Security, and the policy ({shown}) will be ignored"
        ));
    }
    Ok(())
}

/// True when a change of a pod brings other images or other containers.
fn changes_images(new: &Value, old: &Value) -> bool {
    let list = |pod: &Value, name: &str| -> Vec<Value> { pod.array_at(&["spec", name]).to_vec() };
    let image = |c: &Value| c.str_at(&["image"]).to_owned();
    for name in ["containers", "initContainers"] {
        let (is, was) = (list(new, name), list(old, name));
        if is.len() != was.len() || is.iter().zip(&was).any(|(a, b)| image(a) != image(b)) {
            return true;
        }
    }
    let was = list(old, "ephemeralContainers");
    list(new, "ephemeralContainers").iter().any(|container| {
        let before = was.iter().find(|c| c.str_at(&["name"]) == container.str_at(&["name"]));
        before.is_none_or(|before| image(before) != image(container))
    })
}
