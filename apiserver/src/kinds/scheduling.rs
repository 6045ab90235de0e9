//! Priorities and runtime classes.

use api::{Value, names};

use super::check::At;
use super::pod::{validate_limits, validate_tolerations};
use super::{Entry, Errors, Strategy, default_to};

pub(super) const STRATEGIES: &[Entry] =
    &[("scheduling.k8s.io", "priorityclasses", &PRIORITY), ("node.k8s.io", "runtimeclasses", &RUNTIME)];

const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;

/// What the system's own classes are.
const SYSTEM: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

/// True for a class that every cluster has.
pub(crate) fn is_system_class(name: &str) -> bool {
    SYSTEM.iter().any(|(system, _)| *system == name)
}

static PRIORITY: Strategy = Strategy {
    default: |p| default_to(p, "preemptionPolicy", "PreemptLowerPriority"),
    validate: validate_priority,
    validate_update: |new, old, errors| {
        let number = |p: &Value| p.get("value").as_i64().unwrap_or(0);
        if number(new) != number(old) {
            At::of(new, "value").forbidden(errors, "may not be changed in an update.");
        }
        At::of(new, "preemptionPolicy").immutable(errors, old.get("preemptionPolicy"));
    },
    revalidates: false,
    // A class has a generation, which never changes.
    prepare_create: |class| class.set(&["metadata", "generation"], 1),
    ..Strategy::NEUTRAL
};

fn validate_priority(class: &Value, errors: &mut Errors) {
    let (name, value) = (At::of(class, "metadata.name"), At::of(class, "value"));
    if name.text().starts_with("system-") {
        if let Err(why) = check_system(class) {
            let intro =
                "priority class names with 'system-' prefix are reserved for system use only. error: ";
            name.forbidden(errors, format!("{intro}{why}"));
        }
    } else if value.int() > HIGHEST_USER_PRIORITY {
        let why = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
        value.forbidden(errors, why);
    }
    let preemption = At::of(class, "preemptionPolicy");
    if preemption.is_set() {
        preemption.required_one_of(errors, &["PreemptLowerPriority", "Never"]);
    }
}

fn check_system(class: &Value) -> Result<(), String> {
    let name = class.name();
    let Some((_, want)) = SYSTEM.iter().find(|(n, _)| *n == name) else {
        return Err(format!("{name} is not a known system priority class"));
    };
    if class.get("value").as_i64().unwrap_or(0) != *want {
        return Err(format!("value of {name} PriorityClass must be {want}"));
    }
    if class.get("globalDefault").as_bool() == Some(true) {
        return Err(format!("globalDefault of {name} PriorityClass must be false"));
    }
    Ok(())
}

static RUNTIME: Strategy = Strategy {
    validate: validate_runtime,
    validate_update: |new, old, errors| At::of(new, "handler").immutable(errors, old.get("handler")),
    create_on_update: true,
    unconditional_update: false,
    ..Strategy::NEUTRAL
};

fn validate_runtime(class: &Value, errors: &mut Errors) {
    At::of(class, "handler").required_name(errors, names::dns_label);
    let overhead = At::of(class, "overhead");
    if overhead.is_set() {
        let fixed = overhead.value.get("podFixed");
        validate_limits(&overhead.with(fixed), errors);
    }
    let scheduling = At::of(class, "scheduling");
    scheduling.get("nodeSelector").labels(errors);
    let tolerations = scheduling.get("tolerations");
    validate_tolerations(&tolerations, errors);
    let mut seen: Vec<[String; 4]> = Vec::new();
    for toleration in tolerations.items() {
        let key = ["key", "operator", "value", "effect"].map(|f| toleration.get(f).text().to_owned());
        if seen.contains(&key) {
            let shown = super::check::view(toleration.value, "core/v1.Toleration");
            toleration.with(&shown).duplicate(errors);
        } else {
            seen.push(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn names_of_the_system_are_its_own() {
        let check = |name: &str, value: i64, want: &[&str]| {
            let mut errors = Vec::new();
            let class = object!({"metadata": {"name": name}, "value": value, "preemptionPolicy": "Never"});
            validate_priority(&class, &mut errors);
            assert_eq!(errors.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(), want, "{name}");
        };
        check("a", 5, &[]);
        check("a", 2_000_000_000, &["value"]);
        check("system-node-critical", 2_000_001_000, &[]);
        check("system-x", 1, &["metadata.name"]);
    }
}
