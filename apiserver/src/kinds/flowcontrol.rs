//! Flow schemas and the levels of priority that they lead to.

use api::{Value, names, object};

use super::check::At;
use super::{Entry, Errors, Part, StatusMetadata, Strategy, default_if_empty, default_to};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

pub(super) const STRATEGIES: &[Entry] =
    &[(GROUP, "flowschemas", &FLOW), (GROUP, "prioritylevelconfigurations", &LEVEL)];

const LOWEST_PRECEDENCE: i64 = 10_000;
const QUEUES: i64 = 10_000_000;
const HASH_BITS: f64 = 60.0;

const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

/// The conditions of both kinds.
const STATUS: Part = Part {
    name: "status",
    fixed: &[&["metadata"], &["spec"]],
    prepare: |_, _| {},
    validate: |new, _, errors| validate_status(new, errors),
};

static FLOW: Strategy = Strategy {
    status_metadata: StatusMetadata::Managers,
    default: |f| default_if_empty(f.make_object().entry("spec"), "matchingPrecedence", 1000),
    validate: validate_flow,
    generation: true,
    parts: &[STATUS],
    ..Strategy::NEUTRAL
};

fn validate_status(object: &Value, errors: &mut Errors) {
    let mut seen: Vec<String> = Vec::new();
    for condition in At::of(object, "status.conditions").items() {
        let kind = condition.get("type");
        if seen.iter().any(|k| k == kind.text()) {
            kind.duplicate(errors);
        }
        seen.push(kind.text().to_owned());
        kind.not_empty(errors);
    }
}

fn validate_flow(flow: &Value, errors: &mut Errors) {
    let spec = At::of(flow, "spec");
    let precedence = spec.get("matchingPrecedence");
    if precedence.int() <= 0 {
        precedence.invalid_as(errors, precedence.int(), "must be a positive value");
    }
    if precedence.int() > LOWEST_PRECEDENCE {
        precedence.invalid(errors, format!("must not be greater than {LOWEST_PRECEDENCE}"));
    }
    if precedence.int() == 1 && flow.name() != "exempt" {
        precedence.invalid(errors, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    let method = spec.get("distinguisherMethod");
    if method.is_set() && !["ByNamespace", "ByUser"].contains(&method.get("type").text()) {
        let shown = super::check::view(method.value, "flowcontrol/v1.FlowDistinguisherMethod");
        method.get("type").with(&shown).unsupported(errors, &["ByNamespace", "ByUser"]);
    }
    let level = spec.get("priorityLevelConfiguration.name");
    if level.text().is_empty() {
        level.required(errors, "must reference a priority level");
    }
    level.named_if_any(errors, names::dns_subdomain);
    for rule in spec.get("rules").items() {
        validate_rule(&rule, errors);
    }
    let fixed = fixed_flow(flow.name());
    if fixed.is_some_and(|f| f != *spec.value) {
        let why = format!("spec of '{}' must equal the fixed value", flow.name());
        spec.invalid_struct(errors, "flowcontrol/v1.FlowSchemaSpec", why);
    }
    validate_status(flow, errors);
}

/// The schemas that every cluster has, which nobody may change.
fn fixed_flow(name: &str) -> Option<Value> {
    let group = |name: &str| object!({"kind": "Group", "group": {"name": name}});
    let rules = |subjects: Vec<Value>| {
        object!([{
            "subjects": subjects,
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }])
    };
    match name {
        "exempt" => Some(object!({
            "priorityLevelConfiguration": {"name": "exempt"},
            "matchingPrecedence": 1,
            "rules": (rules(vec![group("system:masters")])),
        })),
        "catch-all" => Some(object!({
            "priorityLevelConfiguration": {"name": "catch-all"},
            "matchingPrecedence": 10_000,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": (rules(vec![group("system:unauthenticated"), group("system:authenticated")])),
        })),
        _ => None,
    }
}

fn validate_rule(rule: &At<'_>, errors: &mut Errors) {
    let subjects = rule.get("subjects");
    if subjects.len() == 0 {
        subjects.required(errors, "subjects must contain at least one value");
    }
    for subject in subjects.items() {
        validate_subject(&subject, errors);
    }
    let (resources, others) = (rule.get("resourceRules"), rule.get("nonResourceRules"));
    if resources.len() == 0 && others.len() == 0 {
        rule.required(errors, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for resource in resources.items() {
        validate_resources(&resource, errors);
    }
    for other in others.items() {
        validate_verbs(&other.get("verbs"), errors);
        validate_urls(&other.get("nonResourceURLs"), errors);
    }
}

/// Kinds of subjects, and the fields that describe them.
const SUBJECTS: [(&str, &str); 3] =
    [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];

fn validate_subject(subject: &At<'_>, errors: &mut Errors) {
    let kind = subject.get("kind");
    let Some((kind, field)) = SUBJECTS.iter().find(|(k, _)| *k == kind.text()) else {
        return kind.unsupported(errors, &["Group", "ServiceAccount", "User"]);
    };
    let described = subject.get(field);
    if described.is_set() {
        let name = described.get("name");
        name.not_empty(errors);
        if *kind == "ServiceAccount" {
            if name.text() != "*" {
                name.named_if_any(errors, names::dns_subdomain);
            }
            let namespace = described.get("namespace");
            if namespace.text().is_empty() {
                namespace.required(errors, "must specify namespace for service account");
            }
            namespace.named_if_any(errors, names::dns_label);
        }
    } else {
        described.required(errors, format!("{field} is required when subject kind is '{kind}'"));
    }
    let order: [usize; 2] = match *kind {
        "ServiceAccount" => [1, 2],
        "User" => [0, 2],
        _ => [0, 1],
    };
    for (other, field) in order.map(|i| SUBJECTS[i]) {
        if subject.get(field).is_set() {
            let why = format!("{field} is forbidden when subject kind is not '{other}'");
            subject.get(field).forbidden(errors, why);
        }
    }
}

fn has_all(list: &At<'_>) -> bool {
    list.texts().contains(&"*")
}

/// The word for everything stands alone.
fn validate_alone(list: &At<'_>, others: &str, errors: &mut Errors) {
    if list.len() > 1 && has_all(list) {
        list.invalid(errors, format!("if '*' is present, must not specify other {others}"));
    }
}

fn validate_verbs(verbs: &At<'_>, errors: &mut Errors) {
    if verbs.len() == 0 {
        verbs.required(errors, "verbs must contain at least one value");
    }
    validate_alone(verbs, "verbs", errors);
    if !has_all(verbs) && !verbs.texts().iter().all(|v| VERBS.contains(v)) {
        verbs.unsupported(errors, &VERBS);
    }
}

fn validate_resources(rule: &At<'_>, errors: &mut Errors) {
    validate_verbs(&rule.get("verbs"), errors);
    for (field, one, others) in
        [("apiGroups", "api group", "api groups"), ("resources", "resource", "resources")]
    {
        let list = rule.get(field);
        if list.len() == 0 {
            list.required(errors, format!("resource rules must supply at least one {one}"));
        }
        validate_alone(&list, others, errors);
    }
    let namespaces = rule.get("namespaces");
    if namespaces.len() == 0 && !rule.get("clusterScope").is_true() {
        let why = "resource rules that are not cluster scoped must supply at least one namespace";
        namespaces.required(errors, why);
    }
    validate_alone(&namespaces, "namespaces", errors);
    if has_all(&namespaces) {
        return;
    }
    for namespace in namespaces.items() {
        for why in names::dns_label(namespace.text()) {
            let intro = "each member of this list must be '*' or a DNS-1123 label; ";
            namespace.invalid(errors, format!("{intro}{why}"));
        }
    }
}

fn validate_urls(urls: &At<'_>, errors: &mut Errors) {
    if urls.len() == 0 {
        urls.required(errors, "nonResourceURLs must contain at least one value");
    }
    validate_alone(urls, "non-resource URLs", errors);
    if has_all(urls) {
        return;
    }
    for url in urls.items() {
        let text = url.text();
        let wildcards = text.matches('*').count();
        let why = match text {
            "" => "must not be empty",
            "/" => continue,
            _ if !text.starts_with('/') => "must start with slash",
            _ if text.contains(' ') => "must not contain white-space",
            _ if text.contains("//") => "must not contain double slash",
            _ if wildcards > 1 || (wildcards == 1 && !text.ends_with("/*")) => {
                "wildcard can only do suffix matching"
            }
            _ => continue,
        };
        url.invalid(errors, why);
    }
}

static LEVEL: Strategy = Strategy {
    status_metadata: StatusMetadata::Managers,
    default: default_level,
    validate: validate_level,
    generation: true,
    parts: &[STATUS],
    ..Strategy::NEUTRAL
};

fn default_level(level: &mut Value) {
    let spec = level.make_object().entry("spec");
    if let Some(limited) = spec.make_object().get_mut("limited").filter(|l| !l.is_null()) {
        default_to(limited, "nominalConcurrencyShares", 30);
        default_to(limited, "lendablePercent", 0);
        if let Some(queuing) = limited.at_mut(&["limitResponse", "queuing"]).filter(|q| !q.is_null()) {
            default_if_empty(queuing, "queues", 64);
            default_if_empty(queuing, "handSize", 8);
            default_if_empty(queuing, "queueLengthLimit", 50);
        }
    }
    if let Some(exempt) = spec.make_object().get_mut("exempt").filter(|e| !e.is_null()) {
        default_to(exempt, "nominalConcurrencyShares", 0);
        default_to(exempt, "lendablePercent", 0);
    }
}

const LEVEL_SPEC: &str = "flowcontrol/v1.PriorityLevelConfigurationSpec";

fn validate_level(level: &Value, errors: &mut Errors) {
    const KEEPS_ZERO: &str = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";
    let annotations = At::of(level, "metadata.annotations");
    if level.annotation(KEEPS_ZERO).is_some() {
        annotations.forbidden(errors, format!("annotation '{KEEPS_ZERO}' is forbidden"));
    }
    let spec = At::of(level, "spec");
    let (kind, exempt, limited) = (spec.get("type"), spec.get("exempt"), spec.get("limited"));
    if (level.name() == "exempt") != (kind.text() == "Exempt") {
        kind.invalid_as(errors, kind.text(), "must be 'Exempt' if and only if `name` is 'exempt'");
    }
    match kind.text() {
        "Exempt" => {
            if limited.is_set() {
                limited.forbidden(errors, "must be nil if the type is not Limited");
            }
            validate_shares(&exempt, errors);
        }
        "Limited" => {
            if exempt.is_set() {
                exempt.forbidden(errors, "must be nil if the type is Limited");
            }
            if limited.is_set() {
                validate_limited(&limited, errors);
            } else {
                limited.required(errors, "must not be empty when type is Limited");
            }
        }
        _ => kind.unsupported(errors, &["Exempt", "Limited"]),
    }
    validate_fixed_level(level, &spec, errors);
    validate_status(level, errors);
}

fn validate_fixed_level(level: &Value, spec: &At<'_>, errors: &mut Errors) {
    match level.name() {
        "exempt" => {
            let mut is = spec.value.clone();
            is.make_object().remove("exempt");
            if is != object!({"type": "Exempt"}) {
                let why = "spec of 'exempt' except the 'spec.exempt' field must equal the fixed value";
                spec.invalid_struct(errors, LEVEL_SPEC, why);
            }
        }
        "catch-all" => {
            let limited = object!({"nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}, "lendablePercent": 0});
            if *spec.value != object!({"type": "Limited", "limited": limited}) {
                spec.invalid_struct(errors, LEVEL_SPEC, "spec of 'catch-all' must equal the fixed value");
            }
        }
        _ => {}
    }
}

fn validate_shares(level: &At<'_>, errors: &mut Errors) {
    let shares = level.get("nominalConcurrencyShares");
    if shares.int() < 0 {
        shares.invalid(errors, "must be a non-negative integer");
    }
    level.get("lendablePercent").within(errors, 0, 100);
}

fn validate_limited(limited: &At<'_>, errors: &mut Errors) {
    let shares = limited.get("nominalConcurrencyShares");
    if shares.int() < 0 {
        shares.invalid(errors, "must be a non-negative integer");
    }
    validate_response(&limited.get("limitResponse"), errors);
    limited.get("lendablePercent").within(errors, 0, 100);
    let borrowing = limited.get("borrowingLimitPercent");
    if borrowing.int() < 0 {
        borrowing.invalid(errors, "if specified, must be a non-negative integer");
    }
}

fn validate_response(response: &At<'_>, errors: &mut Errors) {
    let (kind, queuing) = (response.get("type"), response.get("queuing"));
    match kind.text() {
        "Reject" if queuing.is_set() => {
            queuing.forbidden(errors, "must be nil if limited.limitResponse.type is not Limited");
        }
        "Reject" => {}
        "Queue" if queuing.is_set() => validate_queuing(&queuing, errors),
        "Queue" => {
            queuing.required(errors, "must not be empty if limited.limitResponse.type is Limited");
        }
        _ => kind.unsupported(errors, &["Queue", "Reject"]),
    }
}

fn validate_queuing(queuing: &At<'_>, errors: &mut Errors) {
    let (length, queues, hand) =
        (queuing.get("queueLengthLimit"), queuing.get("queues"), queuing.get("handSize"));
    if length.int() <= 0 {
        length.invalid_as(errors, length.int(), "must be positive");
    }
    let (count, cards) = (queues.int(), hand.int());
    if count <= 0 {
        queues.invalid_as(errors, count, "must be positive");
    } else if count > QUEUES {
        queues.invalid(errors, format!("must not be greater than {QUEUES}"));
    }
    if cards <= 0 {
        hand.invalid_as(errors, cards, "must be positive");
    } else if cards > count {
        hand.invalid(errors, format!("should not be greater than queues ({count})"));
    } else if ((count as f64).log2() * cards as f64).ceil() > HASH_BITS {
        let why = format!(
            "required entropy bits of deckSize {count} and handSize {cards} should not be greater than {HASH_BITS}"
        );
        hand.invalid(errors, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_schemas_stay() {
        for name in ["exempt", "catch-all"] {
            let mut flow = object!({"metadata": {"name": name}, "spec": (fixed_flow(name).unwrap())});
            let mut errors = Vec::new();
            validate_flow(&flow, &mut errors);
            assert_eq!(errors, [], "{name}");
            flow.set(&["spec", "matchingPrecedence"], 7);
            validate_flow(&flow, &mut errors);
            assert_eq!(errors.len(), 1, "{name}");
        }
    }

    #[test]
    fn hands_are_dealt_from_a_deck_that_is_not_too_large() {
        let count = |queues: i64, hand: i64| {
            let object = object!({"q": {"queueLengthLimit": 1, "queues": queues, "handSize": hand}});
            let mut errors = Vec::new();
            validate_queuing(&At::of(&object, "q"), &mut errors);
            errors.len()
        };
        assert_eq!(count(64, 8), 0);
        assert_eq!(count(64, 11), 1);
        assert_eq!(count(4, 8), 1);
    }

    #[test]
    fn a_subject_is_described_once() {
        let check = |subject: Value, want: &[&str]| {
            let object = object!({"s": subject});
            let mut errors = Vec::new();
            validate_subject(&At::of(&object, "s"), &mut errors);
            assert_eq!(errors.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(), want);
        };
        check(object!({"kind": "User", "user": {"name": "u"}}), &[]);
        check(object!({"kind": "User", "group": {"name": "u"}}), &["s.user", "s.group"]);
    }
}
