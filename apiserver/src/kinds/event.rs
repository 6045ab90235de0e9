//! Events: one object in two views. What is checked is its stored form; what is asked of a new one depends on the view.

use api::field::{FieldError, Path};
use api::{Value, names};

use super::check::At;
use super::{Entry, Errors, Field, Strategy};

pub(super) const STRATEGIES: &[Entry] = &[("", "events", &CORE), ("events.k8s.io", "events", &EVENTS)];

/// The fields by which events are selected, and below them those of the other view: its places are those of the first.
const FIELDS: &[Field] = &[
    Field::text("involvedObject.kind", &["involvedObject", "kind"]),
    Field::text("involvedObject.namespace", &["involvedObject", "namespace"]),
    Field::text("involvedObject.name", &["involvedObject", "name"]),
    Field::text("involvedObject.uid", &["involvedObject", "uid"]),
    Field::text("involvedObject.apiVersion", &["involvedObject", "apiVersion"]),
    Field::text("involvedObject.resourceVersion", &["involvedObject", "resourceVersion"]),
    Field::text("involvedObject.fieldPath", &["involvedObject", "fieldPath"]),
    Field::text("reason", &["reason"]),
    Field::text("reportingComponent", &["reportingComponent"]),
    Field::text("type", &["type"]),
    Field { or: &["reportingComponent"], ..Field::text("source", &["source", "component"]) },
];

const SEEN_AS: &[Field] = &[
    Field::text("regarding.kind", &["regarding", "kind"]),
    Field::text("regarding.namespace", &["regarding", "namespace"]),
    Field::text("regarding.name", &["regarding", "name"]),
    Field::text("regarding.uid", &["regarding", "uid"]),
    Field::text("regarding.apiVersion", &["regarding", "apiVersion"]),
    Field::text("regarding.resourceVersion", &["regarding", "resourceVersion"]),
    Field::text("regarding.fieldPath", &["regarding", "fieldPath"]),
    Field::text("reason", &["reason"]),
    Field::text("reportingController", &["reportingController"]),
    Field::text("type", &["type"]),
];

static CORE: Strategy = Strategy {
    fields: FIELDS,
    name: api::names::path_segment,
    create_on_update: true,
    ttl: Some(std::time::Duration::from_secs(3600)),
    validate: |event, errors| validate(event, "reportingComponent", errors),
    checks_stored: true,
    ..Strategy::NEUTRAL
};

static EVENTS: Strategy = Strategy {
    fields: SEEN_AS,
    create_on_update: true,
    ttl: Some(std::time::Duration::from_secs(3600)),
    validate: |event, errors| {
        validate(event, "reportingController", errors);
        validate_new(event, errors);
    },
    validate_update: |new, old, errors| {
        validate(new, "reportingController", errors);
        validate_change(new, old, errors);
    },
    revalidates: false,
    checks_stored: true,
    ..Strategy::NEUTRAL
};

/// What an object is about lives where the event does; what belongs to no namespace has its events in a known one.
fn validate(event: &Value, reporter: &str, errors: &mut Errors) {
    let (about, namespace) = (At::of(event, "involvedObject.namespace"), event.namespace());
    let dated = !event.get("eventTime").is_null();
    let fits = match (about.text(), dated) {
        ("", false) => matches!(namespace, "" | "default"),
        ("", true) => matches!(namespace, "default" | "kube-system"),
        (about, false) => about == namespace,
        (_, true) => true,
    };
    if !fits {
        about.invalid_as(errors, about.text(), "does not match event.namespace");
    }
    if dated {
        let controller = At { value: event.get("reportingComponent"), path: Path::new(reporter) };
        controller.not_empty(errors);
        controller.qualified(errors);
        for (field, limit, needed) in [
            ("reportingInstance", 128, true),
            ("action", 128, true),
            ("reason", 128, true),
            ("message", 1024, false),
        ] {
            let at = At::of(event, field);
            if needed {
                at.not_empty(errors);
            }
            if at.text().len() > limit {
                at.invalid_as(errors, "", format!("can have at most {limit} characters"));
            }
        }
    }
    for why in names::dns_subdomain(namespace) {
        errors.push(FieldError::invalid(&Path::new("namespace"), namespace, why));
    }
}

fn validate_series(event: &Value, errors: &mut Errors) {
    let series = At::of(event, "series");
    if !series.is_set() {
        return;
    }
    if series.get("count").int() < 2 {
        series.get("count").invalid_as(errors, "", "should be at least 2");
    }
    let last = series.get("lastObservedTime");
    if !last.is_set() {
        last.required(errors, "");
    }
}

/// A new event of the new view says when it happened, and nothing in the old words.
fn validate_new(event: &Value, errors: &mut Errors) {
    validate_series(event, errors);
    let time = At::of(event, "eventTime");
    if !time.is_set() {
        time.required(errors, "");
    }
    let kind = At::of(event, "type");
    if !matches!(kind.text(), "Normal" | "Warning") {
        kind.invalid_as(errors, "", format!("has invalid value: {}", kind.text()));
    }
    for field in ["firstTimestamp", "lastTimestamp", "count"] {
        if !event.get(field).is_empty() {
            At::of(event, field).invalid_as(errors, "", "needs to be unset");
        }
    }
    let source = At::of(event, "source");
    if ["component", "host"].iter().any(|f| !source.get(f).text().is_empty()) {
        source.invalid_as(errors, "", "needs to be unset");
    }
}

/// Only the series of an event goes on.
fn validate_change(new: &Value, old: &Value, errors: &mut Errors) {
    if new.get("series") != old.get("series") {
        validate_series(new, errors);
    }
    for field in [
        "involvedObject",
        "reason",
        "message",
        "source",
        "firstTimestamp",
        "lastTimestamp",
        "count",
        "reason",
        "type",
        "eventTime",
        "action",
        "related",
        "reportingComponent",
        "reportingInstance",
    ] {
        let at = At::of(new, field);
        let shown = match field {
            "involvedObject" | "related" => super::check::view(at.value, "core/v1.ObjectReference"),
            "source" => super::check::view(at.value, "core/v1.EventSource"),
            "count" => at.int().into(),
            "firstTimestamp" | "lastTimestamp" | "eventTime" => at.value.clone(),
            _ => at.text().into(),
        };
        let same = match field {
            "related" => at.value == old.get(field),
            _ => at.value.is_empty() && old.get(field).is_empty(),
        };
        if at.value != old.get(field) && !same {
            let name = if field == "reportingComponent" { "reportingController" } else { field };
            let at = At { value: at.value, path: Path::new(name) };
            at.invalid_as(errors, shown, "field is immutable");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_views_have_their_selectable_fields_in_one_order() {
        let core = FIELDS.iter().map(|f| f.label.replace("involvedObject", "regarding"));
        let core = core.map(|label| label.replace("reportingComponent", "reportingController"));
        let seen: Vec<&str> = SEEN_AS.iter().map(|f| f.label).collect();
        assert_eq!(core.take(seen.len()).collect::<Vec<_>>(), seen);
    }
    use api::object;

    #[test]
    fn events_live_with_what_they_are_about() {
        let check = |event: Value, want: &[&str]| {
            let mut errors = Vec::new();
            validate(&event, "reportingComponent", &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), want);
        };
        check(object!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "a"}}), &[]);
        check(object!({"metadata": {"namespace": "default"}}), &[]);
        check(
            object!({"metadata": {"namespace": "a"}}),
            &["involvedObject.namespace: Invalid value: \"\": does not match event.namespace"],
        );
        check(
            object!({"metadata": {"namespace": "default"}, "eventTime": "t", "reportingComponent": "a.b/c", "reportingInstance": "i", "reason": "r"}),
            &["action: Required value"],
        );
    }
}
