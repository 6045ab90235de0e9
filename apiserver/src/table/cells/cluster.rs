//! Certificate requests, bindings, drivers, claims of devices and levels of priority.

use api::Value;
use jiff::Timestamp;

use super::{NONE, UNSET, age, condition, join, or};

pub(super) fn certificate_request(o: &Value, now: Timestamp) -> Vec<Value> {
    let duration =
        o.at(&["spec", "expirationSeconds"]).as_i64().map_or(NONE.to_owned(), api::time::human_duration);
    let has = |kind: &str| condition(o, kind).is_some();
    let mut status = if has("Denied") {
        "Denied".to_owned()
    } else if has("Approved") {
        "Approved".to_owned()
    } else {
        "Pending".to_owned()
    };
    if has("Failed") {
        status.push_str(",Failed");
    }
    if !o.str_at(&["status", "certificate"]).is_empty() {
        status.push_str(",Issued");
    }
    vec![
        o.name().into(),
        age(o, now).into(),
        or(o.str_at(&["spec", "signerName"]), NONE).into(),
        o.str_at(&["spec", "username"]).into(),
        duration.into(),
        status.into(),
    ]
}

pub(super) fn binding(o: &Value, now: Timestamp) -> Vec<Value> {
    let role = format!("{}/{}", o.str_at(&["roleRef", "kind"]), o.str_at(&["roleRef", "name"]));
    let of = |kind: &str| {
        let names: Vec<String> = o
            .array_at(&["subjects"])
            .iter()
            .filter(|s| s.kind() == kind)
            .map(|s| match kind {
                "ServiceAccount" => format!("{}/{}", s.str_at(&["namespace"]), s.str_at(&["name"])),
                _ => s.str_at(&["name"]).to_owned(),
            })
            .collect();
        Value::from(names.join(", "))
    };
    vec![o.name().into(), role.into(), age(o, now).into(), of("User"), of("Group"), of("ServiceAccount")]
}

pub(super) fn driver(o: &Value, now: Timestamp) -> Vec<Value> {
    let flag = |field: &str, absent: bool| Value::from(o.at(&["spec", field]).as_bool().unwrap_or(absent));
    let audiences: Vec<&str> =
        o.array_at(&["spec", "tokenRequests"]).iter().map(|t| t.str_at(&["audience"])).collect();
    let audiences = if audiences.is_empty() { UNSET.to_owned() } else { audiences.join(",") };
    let modes = join(o.array_at(&["spec", "volumeLifecycleModes"]));
    vec![
        o.name().into(),
        flag("attachRequired", true),
        flag("podInfoOnMount", false),
        flag("storageCapacity", false),
        audiences.into(),
        flag("requiresRepublish", false),
        or(&modes, NONE).into(),
        age(o, now).into(),
    ]
}

pub(super) fn claim_state(o: &Value) -> String {
    let mut states = Vec::new();
    if o.is_terminating() {
        states.push("deleted");
    }
    match (o.at(&["status", "allocation"]).is_null(), o.array_at(&["status", "reservedFor"]).is_empty()) {
        (true, _) => states.push("pending"),
        (false, true) => states.push("allocated"),
        (false, false) => states.extend(["allocated", "reserved"]),
    }
    states.join(",")
}

pub(super) fn level(o: &Value, now: Timestamp) -> Vec<Value> {
    let limited = o.at(&["spec", "limited"]);
    let shown = |v: &Value| v.as_i64().map_or(Value::from(NONE), Value::from);
    let queuing = limited.at(&["limitResponse", "queuing"]);
    vec![
        o.name().into(),
        o.str_at(&["spec", "type"]).into(),
        shown(limited.get("nominalConcurrencyShares")),
        shown(queuing.get("queues")),
        shown(queuing.get("handSize")),
        shown(queuing.get("queueLengthLimit")),
        age(o, now).into(),
    ]
}
