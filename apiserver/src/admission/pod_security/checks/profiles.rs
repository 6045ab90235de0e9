//! Rules about what pods and their containers can set alike: profiles, labels, users.

use std::collections::BTreeSet;

use api::Value;
use api::field::go_quote;

use super::{Pod, Violation, containers_named, plural, quoted, setters, violation};

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const PROFILES: [&str; 2] = ["Localhost", "RuntimeDefault"];

/// The values of a field in the security contexts of the pod and of its containers that are not as they should be.
struct Set<'p> {
    pod: bool,
    containers: Vec<&'p str>,
    values: BTreeSet<&'p str>,
}

impl<'p> Set<'p> {
    /// What is set to something bad. The value that `of` finds in a security context is that.
    fn bad(pod: &Pod<'p>, of: impl Fn(&'p Value) -> Option<&'p str>) -> Self {
        let own = of(pod.context());
        let mut set = Self { pod: own.is_some(), containers: Vec::new(), values: own.into_iter().collect() };
        for container in pod.containers() {
            if let Some(value) = of(container.get("securityContext")) {
                set.containers.push(container.str_at(&["name"]));
                set.values.insert(value);
            }
        }
        set
    }

    fn setters(&self) -> Option<String> {
        setters(self.pod, &self.containers)
    }
}

/// The type of a profile that is set but none of those that are known to protect.
fn bad_profile<'c>(context: &'c Value, field: &str) -> Option<&'c str> {
    let profile = context.get(field);
    let kind = profile.str_at(&["type"]);
    (!profile.is_null() && !PROFILES.contains(&kind)).then_some(kind)
}

pub(super) fn app_armor(pod: &Pod<'_>) -> Option<Violation> {
    let set = Set::bad(pod, |context| bad_profile(context, "appArmorProfile"));
    let allowed = |v: &str| v.is_empty() || v == "runtime/default" || v.starts_with("localhost/");
    let annotations: BTreeSet<String> = pod
        .annotations()
        .filter(|(key, value)| key.starts_with(APP_ARMOR) && !allowed(value))
        .map(|(key, value)| format!("{key}={}", go_quote(value)))
        .collect();
    let mut who: Vec<String> = set.setters().into_iter().collect();
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).to_owned());
    }
    if who.is_empty() {
        return None;
    }
    let values: Vec<&str> =
        set.values.iter().copied().chain(annotations.iter().map(String::as_str)).collect();
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    let detail = format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(values));
    Some(Violation { reason: reason.to_owned().into(), detail })
}

pub(super) fn seccomp_annotations(pod: &Pod<'_>) -> Option<Violation> {
    let allowed = |v: &str| matches!(v, "runtime/default" | "docker/default") || v.starts_with("localhost/");
    let known = |key: &str| {
        let of = |c: &Value| key.strip_prefix(SECCOMP_CONTAINER) == Some(c.str_at(&["name"]));
        key == SECCOMP_POD || pod.containers().any(of)
    };
    let bad: BTreeSet<String> = pod
        .annotations()
        .filter(|(key, value)| known(key) && !allowed(value))
        .map(|(key, value)| format!("{key}={}", go_quote(value)))
        .collect();
    if bad.is_empty() {
        return None;
    }
    let what = plural("annotation", "annotations", bad.len());
    let bad: Vec<String> = bad.into_iter().collect();
    violation("seccompProfile", format!("forbidden {what} {}", bad.join(", ")))
}

pub(super) fn seccomp(pod: &Pod<'_>) -> Option<Violation> {
    let set = Set::bad(pod, |context| bad_profile(context, "seccompProfile"));
    let (who, values) = (set.setters()?, quoted(set.values.iter().copied()));
    violation("seccompProfile", format!("{who} must not set securityContext.seccompProfile.type to {values}"))
}

pub(super) fn some_seccomp(pod: &Pod<'_>) -> Option<Violation> {
    if let Some(bad) = seccomp(pod) {
        return Some(bad);
    }
    if !pod.context().get("seccompProfile").is_null() {
        return None;
    }
    let without = pod.named(|c| c.at(&["securityContext", "seccompProfile"]).is_null());
    if without.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        containers_named(&without)
    );
    violation("seccompProfile", detail)
}

fn se_linux_with(pod: &Pod<'_>, types: &[&str]) -> Option<Violation> {
    let bad_type = |o: &Value| !types.contains(&o.str_at(&["type"]));
    let sets = |o: &Value, field: &str| !o.str_at(&[field]).is_empty();
    let bad = |context: &Value| {
        let options = context.get("seLinuxOptions");
        !options.is_null() && (bad_type(options) || sets(options, "user") || sets(options, "role"))
    };
    let containers = pod.named(|c| bad(c.get("securityContext")));
    let who = setters(bad(pod.context()), &containers)?;
    let contexts = pod.containers().map(|c| c.get("securityContext"));
    let all: Vec<&Value> = std::iter::once(pod.context())
        .chain(contexts)
        .map(|context| context.get("seLinuxOptions"))
        .filter(|options| !options.is_null())
        .collect();
    let kinds: BTreeSet<&str> = all.iter().filter(|o| bad_type(o)).map(|o| o.str_at(&["type"])).collect();
    let mut told = Vec::new();
    if !kinds.is_empty() {
        told.push(format!("{} {}", plural("type", "types", kinds.len()), quoted(kinds)));
    }
    for field in ["user", "role"] {
        if all.iter().any(|o| sets(o, field)) {
            told.push(format!("{field} may not be set"));
        }
    }
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", told.join("; "));
    violation("seLinuxOptions", detail)
}

pub(super) fn se_linux(pod: &Pod<'_>) -> Option<Violation> {
    se_linux_with(pod, &["", "container_t", "container_init_t", "container_kvm_t"])
}

pub(super) fn se_linux_31(pod: &Pod<'_>) -> Option<Violation> {
    se_linux_with(pod, &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"])
}

pub(super) fn host_process(pod: &Pod<'_>) -> Option<Violation> {
    let of = |context: &Value| context.at(&["windowsOptions", "hostProcess"]).as_bool() == Some(true);
    let set = Set::bad(pod, |context| of(context).then_some(""));
    let detail = format!("{} must not set securityContext.windowsOptions.hostProcess=true", set.setters()?);
    violation("hostProcess", detail)
}

pub(super) fn not_root(pod: &Pod<'_>) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    let of = |context: &Value| context.get("runAsNonRoot").as_bool();
    let set = Set::bad(pod, |context| (of(context) == Some(false)).then_some(""));
    if let Some(who) = set.setters() {
        return violation(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    if of(pod.context()) == Some(true) {
        return None;
    }
    let without = pod.named(|c| of(c.get("securityContext")).is_none());
    if without.is_empty() {
        return None;
    }
    let who = containers_named(&without);
    violation(REASON, format!("pod or {who} must set securityContext.runAsNonRoot=true"))
}

pub(super) fn not_user_zero(pod: &Pod<'_>) -> Option<Violation> {
    let set = Set::bad(pod, |context| (context.get("runAsUser").as_i64() == Some(0)).then_some(""));
    violation("runAsUser=0", format!("{} must not set runAsUser=0", set.setters()?))
}
