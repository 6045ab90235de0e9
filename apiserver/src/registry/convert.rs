//! Resources whose served version differs from the stored one: two views of events, two versions of autoscalers, and older
//! versions that look as today's do.

mod autoscaler;

use api::{Map, Value};

use super::set_type;
use crate::resources::{Resource, TABLE};

/// True when the row's objects are stored in another version.
pub(super) fn differs(row: &Resource) -> bool {
    row.store.is_some_and(|s| {
        let stored = TABLE.storage_row(s);
        stored.group != row.group || stored.version != row.version
    })
}

/// The object as the row's version shows it; unchanged for most.
pub fn from_storage(row: &Resource, object: Value) -> Value {
    if !differs(row) {
        return object;
    }
    let mut out = match row.plural {
        "events" => rename(object, &EVENT_FIELDS),
        "horizontalpodautoscalers" => autoscaler::to_v1(object),
        _ => object,
    };
    set_type(&mut out, row);
    // What one version leaves out when it is empty another writes.
    let read = schema::decode::normalize(out.clone(), super::schema_of(row), super::FieldValidation::Ignore);
    read.map_or(out, |(read, _)| read)
}

/// The object in the version that is stored; unchanged for most.
pub fn to_storage(row: &Resource, object: Value) -> Value {
    let Some(store) = row.store.filter(|_| differs(row)) else { return object };
    let mut out = match row.plural {
        "events" => rename(object, &EVENT_FIELDS.map(|(core, events)| (events, core))),
        "horizontalpodautoscalers" => autoscaler::to_v2(object),
        _ => object,
    };
    set_type(&mut out, TABLE.storage_row(store));
    out
}

/// Fields of core events and their names in events.k8s.io.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn rename(object: Value, names: &[(&'static str, &'static str)]) -> Value {
    let Value::Object(map) = object else { return object };
    let new_name = |key: &str| names.iter().find(|(from, _)| *from == key).map(|(_, to)| *to);
    let members = map.into_iter().map(|(key, value)| (new_name(&key).map_or(key, Into::into), value));
    Value::Object(members.collect::<Map>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn the_two_views_of_an_event_have_the_same_content() {
        let row = TABLE.find("events.k8s.io", "v1", "events").unwrap();
        let core = object!({"kind": "Event", "apiVersion": "v1", "metadata": {"name": "e"}, "involvedObject": {"name": "x"}, "message": "m"});
        let view = from_storage(row, core);
        assert_eq!(view.str_at(&["note"]), "m");
        assert_eq!(view.str_at(&["regarding", "name"]), "x");
        let back = to_storage(row, view);
        assert_eq!((back.str_at(&["message"]), back.str_at(&["involvedObject", "name"])), ("m", "x"));
    }

    #[test]
    fn autoscalers_keep_their_metrics_through_version_one() {
        let row = TABLE.find("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
        let v1 = object!({"spec": {"targetCPUUtilizationPercentage": 50, "maxReplicas": 3}});
        let v2 = to_storage(row, v1);
        assert_eq!(v2.array_at(&["spec", "metrics"]).len(), 1);
        assert_eq!(from_storage(row, v2).at(&["spec", "targetCPUUtilizationPercentage"]), &Value::Int(50));
    }
}
