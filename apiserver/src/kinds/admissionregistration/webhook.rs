//! Webhooks that are asked about requests.

use api::{Value, names};
use cel::admission::Scope;

use super::expressions::Expressions;
use super::rules::{validate_conditions, validate_rule};
use super::{FAILURES, REINVOCATIONS, default_rules};
use crate::kinds::check::At;
use crate::kinds::{Errors, Strategy, default_to};

const REVIEWS: [&str; 2] = ["v1", "v1beta1"];
const SIDE_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];
const NO_SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];

pub(super) static MUTATING: Strategy = Strategy {
    default: |c| each_webhook(c, &|hook| default_to(hook, "reinvocationPolicy", "Never")),
    ..VALIDATING_BASE
};

pub(super) static VALIDATING: Strategy = VALIDATING_BASE;

const VALIDATING_BASE: Strategy = Strategy {
    default: |c| each_webhook(c, &|_| {}),
    validate: |c, errors| validate(c, None, errors),
    validate_update: |new, old, errors| validate(new, Some(old), errors),
    revalidates: false,
    unconditional_update: false,
    generation: true,
    ..Strategy::NEUTRAL
};

fn each_webhook(configuration: &mut Value, more: &dyn Fn(&mut Value)) {
    let hooks = configuration.make_object().get_mut("webhooks").and_then(Value::as_array_mut);
    for hook in hooks.into_iter().flatten() {
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

/// What is asked of the new webhooks; what the old ones did not fulfil is not.
struct Demands {
    no_side_effects: bool,
    known_review: bool,
    unique_names: bool,
    conditions: bool,
}

impl Demands {
    fn of(new: &Value, old: Option<&Value>) -> Self {
        let Some(old) = old else {
            return Self { no_side_effects: true, known_review: true, unique_names: true, conditions: true };
        };
        let (is, was) = (new.array_at(&["webhooks"]), old.array_at(&["webhooks"]));
        let mut names: Vec<&str> = was.iter().map(|h| h.str_at(&["name"])).collect();
        names.sort_unstable();
        let reviews = |hook: &Value| {
            let versions = hook.array_at(&["admissionReviewVersions"]);
            versions.is_empty() || versions.iter().any(|v| v.as_str().is_some_and(|v| REVIEWS.contains(&v)))
        };
        let conditions = |hooks: &[Value]| -> Vec<Value> {
            hooks.iter().map(|h| h.get("matchConditions").clone()).collect()
        };
        Self {
            no_side_effects: was.iter().all(|h| NO_SIDE_EFFECTS.contains(&h.str_at(&["sideEffects"]))),
            known_review: was.iter().all(reviews),
            unique_names: !names.windows(2).any(|pair| pair[0] == pair[1]),
            conditions: conditions(is) != conditions(was),
        }
    }
}

fn validate(configuration: &Value, old: Option<&Value>, errors: &mut Errors) {
    let demands = Demands::of(configuration, old);
    let mut expressions = Expressions::new(Scope { authorizer: true, ..Scope::default() }, old);
    let mut seen: Vec<String> = Vec::new();
    for hook in At::of(configuration, "webhooks").items() {
        validate_hook(&hook, &demands, &mut expressions, errors);
        validate_reviews(&hook.get("admissionReviewVersions"), demands.known_review, errors);
        let name = hook.get("name");
        if !demands.unique_names || name.text().is_empty() {
            continue;
        }
        if seen.iter().any(|n| n == name.text()) {
            name.duplicate(errors);
        } else {
            seen.push(name.text().to_owned());
        }
    }
}

fn validate_hook(hook: &At<'_>, demands: &Demands, expressions: &mut Expressions<'_>, errors: &mut Errors) {
    hook.get("name").full_name(errors);
    for rule in hook.get("rules").items() {
        validate_rule(&rule, errors);
    }
    hook.get("failurePolicy").one_of(errors, &FAILURES);
    hook.get("matchPolicy").one_of(errors, &["Equivalent", "Exact"]);
    let effects = hook.get("sideEffects");
    let allowed: &[&str] = if demands.no_side_effects { &NO_SIDE_EFFECTS } else { &SIDE_EFFECTS };
    if !effects.is_set() {
        effects.required(errors, format!("must specify one of {}", allowed.join(", ")));
    }
    effects.one_of(errors, allowed);
    let timeout = hook.get("timeoutSeconds");
    if timeout.is_set() && !(1..=30).contains(&timeout.int()) {
        timeout.invalid(errors, "the timeout value must be between 1 and 30 seconds");
    }
    hook.get("namespaceSelector").label_selector(errors);
    hook.get("objectSelector").label_selector(errors);
    hook.get("reinvocationPolicy").one_of(errors, &REINVOCATIONS);
    let client = hook.get("clientConfig");
    match (client.get("url").is_set(), client.get("service").is_set()) {
        (true, false) => validate_url(&client.get("url"), errors),
        (false, true) => validate_service(&client.get("service"), errors),
        _ => client.required(errors, "exactly one of url or service is required"),
    }
    if demands.conditions {
        validate_conditions(&hook.get("matchConditions"), expressions, errors);
    }
}

fn validate_reviews(versions: &At<'_>, known: bool, errors: &mut Errors) {
    let accepted = REVIEWS.join(", ");
    if versions.len() == 0 {
        return versions.required(errors, format!("must specify one of {accepted}"));
    }
    let mut seen: Vec<String> = Vec::new();
    for version in versions.items() {
        if seen.iter().any(|v| v == version.text()) {
            version.invalid(errors, "duplicate version");
            continue;
        }
        seen.push(version.text().to_owned());
        version.named(errors, names::dns1035_label);
    }
    if known && !seen.iter().any(|v| REVIEWS.contains(&v.as_str())) {
        versions.invalid(errors, format!("must include at least one of {accepted}"));
    }
}

fn validate_url(url: &At<'_>, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let text = url.text();
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once("://").unwrap_or(("", rest));
    let authority = if scheme.is_empty() { "" } else { rest.split('/').next().unwrap_or_default() };
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(u, h)| (Some(u), h));
    if scheme != "https" {
        url.invalid_as(errors, scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if host.is_empty() {
        url.invalid_as(errors, host, format!("host must be specified{FORM}"));
    }
    if let Some(user) = user {
        url.invalid_as(errors, user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        url.invalid_as(errors, fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        url.invalid_as(errors, query, "query parameters are not permitted in the URL");
    }
}

fn validate_service(service: &At<'_>, errors: &mut Errors) {
    // Upstream mistakes the one for the other.
    for (told, looked) in [("name", "namespace"), ("namespace", "name")] {
        if service.get(looked).text().is_empty() {
            service.get(told).required(errors, "");
        }
    }
    let port = service.get("port");
    if !(1..=65_535).contains(&port.int()) {
        let why = "port is not valid: must be between 1 and 65535, inclusive";
        port.invalid_as(errors, port.int(), why);
    }
    let path = service.get("path");
    let text = path.text();
    match text {
        "" | "/" => return,
        "//" => return path.invalid(errors, "segment[0] may not be empty"),
        _ => {}
    }
    if !text.starts_with('/') {
        path.invalid(errors, "must start with a '/'");
    }
    let mut rest = text.chars();
    rest.next();
    let rest = rest.as_str();
    for (i, segment) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if segment.is_empty() {
            path.invalid(errors, format!("segment[{i}] may not be empty"));
            continue;
        }
        for why in names::dns_subdomain(segment) {
            path.invalid(errors, format!("segment[{i}]: {why}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn hook(effects: &str) -> Value {
        object!({"webhooks": [{"name": "a.b.c", "sideEffects": effects, "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"name": "s", "namespace": "n", "port": 443, "path": "/a"}}}]})
    }

    #[test]
    fn webhooks_have_no_side_effects() {
        let mut errors = Vec::new();
        validate(&hook("None"), None, &mut errors);
        assert_eq!(errors, []);
        validate(&hook("Some"), Some(&hook("Some")), &mut errors);
        assert_eq!(errors, []);
        validate(&hook("Some"), None, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\""
            ]
        );
    }

    #[test]
    fn urls_are_plain() {
        for (url, want) in
            [("https://a/b", 0), ("http://a/b", 1), ("https:///b", 1), ("https://u@a/b?q=1#f", 3), ("x", 2)]
        {
            let object = object!({"u": url});
            let mut errors = Vec::new();
            validate_url(&At::of(&object, "u"), &mut errors);
            assert_eq!(errors.len(), want, "{url}");
        }
    }
}
