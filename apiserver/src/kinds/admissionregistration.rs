//! Webhook configurations and admission policies.

use api::Value;

use super::{Entry, Strategy, default_to};

const GROUP: &str = "admissionregistration.k8s.io";

pub(super) const STRATEGIES: &[Entry] = &[
    (GROUP, "mutatingwebhookconfigurations", &MUTATING),
    (GROUP, "validatingwebhookconfigurations", &VALIDATING),
    (GROUP, "validatingadmissionpolicies", &POLICY),
    (GROUP, "validatingadmissionpolicybindings", &BINDING),
    (GROUP, "mutatingadmissionpolicies", &POLICY),
    (GROUP, "mutatingadmissionpolicybindings", &BINDING),
];

static MUTATING: Strategy = Strategy {
    default: |c| each_webhook(c, &|hook| default_to(hook, "reinvocationPolicy", "Never")),
    generation: true,
    ..Strategy::NEUTRAL
};

static VALIDATING: Strategy =
    Strategy { default: |c| each_webhook(c, &|_| {}), generation: true, ..Strategy::NEUTRAL };

fn each_webhook(configuration: &mut Value, more: &dyn Fn(&mut Value)) {
    for hook in
        configuration.make_object().get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten()
    {
        default_to(hook, "failurePolicy", "Fail");
        default_to(hook, "matchPolicy", "Equivalent");
        default_to(hook, "namespaceSelector", Value::object());
        default_to(hook, "objectSelector", Value::object());
        default_to(hook, "timeoutSeconds", 10);
        default_rules(hook, "rules");
        if let Some(service) = hook.at_mut(&["clientConfig", "service"]).filter(|s| !s.is_null()) {
            default_to(service, "port", 443);
        }
        more(hook);
    }
}

fn default_rules(object: &mut Value, list: &str) {
    for rule in object.make_object().get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
        default_to(rule, "scope", "*");
    }
}

static POLICY: Strategy = Strategy {
    default: |p| {
        let spec = p.make_object().entry("spec");
        default_to(spec, "failurePolicy", "Fail");
        default_constraints(spec, "matchConstraints");
    },
    generation: true,
    ..Strategy::NEUTRAL
};

static BINDING: Strategy = Strategy {
    default: |b| default_constraints(b.make_object().entry("spec"), "matchResources"),
    generation: true,
    ..Strategy::NEUTRAL
};

fn default_constraints(spec: &mut Value, field: &str) {
    let Some(constraints) = spec.make_object().get_mut(field).filter(|c| !c.is_null()) else { return };
    default_to(constraints, "matchPolicy", "Equivalent");
    default_to(constraints, "namespaceSelector", Value::object());
    default_to(constraints, "objectSelector", Value::object());
    default_rules(constraints, "resourceRules");
    default_rules(constraints, "excludeResourceRules");
}
