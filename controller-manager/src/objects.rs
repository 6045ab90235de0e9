//! Questions that several controllers ask of objects.

use api::{Value, object, time};
use jiff::Timestamp;

/// The owner reference of the controller.
pub(crate) fn controller_of(object: &Value) -> Option<&Value> {
    let owners = object.array_at(&["metadata", "ownerReferences"]);
    owners.iter().find(|o| o.get("controller").as_bool() == Some(true))
}

/// Whether the object's controller has this uid.
pub(crate) fn controlled_by(object: &Value, uid: &str) -> bool {
    controller_of(object).is_some_and(|o| o.str_at(&["uid"]) == uid)
}

/// A reference to `owner` as the controller.
pub(crate) fn owner_reference(owner: &Value) -> Value {
    object!({
        "apiVersion": (owner.api_version()),
        "kind": (owner.kind()),
        "name": (owner.name()),
        "uid": (owner.uid()),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// The condition of this type; null without.
pub(crate) fn condition<'v>(object: &'v Value, kind: &str) -> &'v Value {
    static NULL: Value = Value::Null;
    let conditions = object.array_at(&["status", "conditions"]);
    conditions.iter().find(|c| c.str_at(&["type"]) == kind).unwrap_or(&NULL)
}

/// Whether the condition of this type is `True`.
pub(crate) fn condition_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).str_at(&["status"]) == "True"
}

/// A condition as it shall be.
pub(crate) struct Condition<'c> {
    pub(crate) kind: &'c str,
    pub(crate) status: &'c str,
    pub(crate) reason: &'c str,
    pub(crate) message: &'c str,
}

/// Puts a condition into a list; `lastTransitionTime` is kept while the status stays. Returns whether anything changed.
pub(crate) fn set_condition(conditions: &mut Vec<Value>, now: Timestamp, wanted: &Condition<'_>) -> bool {
    let mut fresh = object!({"type": (wanted.kind), "status": (wanted.status)});
    for (key, text) in [("reason", wanted.reason), ("message", wanted.message)] {
        if !text.is_empty() {
            fresh.set(&[key], text);
        }
    }
    let old = conditions.iter_mut().find(|c| c.str_at(&["type"]) == wanted.kind);
    let Some(old) = old else {
        fresh.set(&["lastTransitionTime"], time::format(now));
        conditions.push(fresh);
        return true;
    };
    let same_status = old.str_at(&["status"]) == wanted.status;
    if same_status && old.str_at(&["reason"]) == wanted.reason && old.str_at(&["message"]) == wanted.message {
        return false;
    }
    let since =
        if same_status { old.get("lastTransitionTime").clone() } else { Value::from(time::format(now)) };
    fresh.set(&["lastTransitionTime"], since);
    *old = fresh;
    true
}

/// The time under nested members.
pub(crate) fn time_at(object: &Value, path: &[&str]) -> Option<Timestamp> {
    time::parse(object.str_at(path))
}

/// When the object was created.
pub(crate) fn created(object: &Value) -> Timestamp {
    time_at(object, &["metadata", "creationTimestamp"]).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The integer under nested members, or `default`.
pub(crate) fn int(object: &Value, path: &[&str], default: i64) -> i64 {
    object.at(path).as_i64().unwrap_or(default)
}

/// The pod's phase.
pub(crate) fn phase(pod: &Value) -> &str {
    pod.str_at(&["status", "phase"])
}

/// Whether the pod has ended, well or badly.
pub(crate) fn is_finished(pod: &Value) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod counts as a replica: neither ended nor going away.
pub(crate) fn is_active(pod: &Value) -> bool {
    !is_finished(pod) && !pod.is_terminating()
}

/// Whether the pod's `Ready` condition holds.
pub(crate) fn is_ready(pod: &Value) -> bool {
    condition_true(pod, "Ready")
}

/// How long until the pod counts as available: `Some(0)` when it does, none when it is not even ready.
pub(crate) fn until_available(pod: &Value, min_ready_seconds: i64, now: Timestamp) -> Option<i64> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready_seconds == 0 {
        return Some(0);
    }
    let since = time_at(condition(pod, "Ready"), &["lastTransitionTime"])?;
    Some((since.as_second() + min_ready_seconds - now.as_second()).max(0))
}

/// The names of the claims a pod mounts; for ephemeral volumes the claim made for them.
pub(crate) fn claims(pod: &Value) -> impl Iterator<Item = String> + '_ {
    pod.array_at(&["spec", "volumes"]).iter().filter_map(|v| {
        if !v.get("ephemeral").is_null() {
            return Some(format!("{}-{}", pod.name(), v.str_at(&["name"])));
        }
        let claim = v.str_at(&["persistentVolumeClaim", "claimName"]);
        (!claim.is_empty()).then(|| claim.to_owned())
    })
}

/// A pod of this template, controlled by `owner`; its name is the server's to make from `{prefix}-`.
pub(crate) fn pod_from_template(template: &Value, owner: &Value, prefix: &str) -> Value {
    let mut meta = object!({
        "generateName": (format!("{prefix}-")),
        "namespace": (owner.namespace()),
        "ownerReferences": [(owner_reference(owner))],
    });
    for key in ["labels", "annotations", "finalizers"] {
        let value = template.at(&["metadata", key]);
        if !value.is_empty() {
            meta.set(&[key], value);
        }
    }
    object!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": (template.get("spec"))})
}

/// A value with sorted keys and without nulls, as Go writes its maps.
pub(crate) fn sorted(value: &Value) -> Value {
    fn sort(value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(sort),
            Value::Object(map) => {
                map.retain(|_, v| !v.is_null());
                map.sort_keys();
                map.iter_mut().for_each(|(_, v)| sort(v));
            }
            _ => {}
        }
    }
    let mut value = value.clone();
    sort(&mut value);
    value
}

/// The JSON of a value with sorted keys: equal values have equal text.
pub(crate) fn canonical(value: &Value) -> Vec<u8> {
    sorted(value).to_json()
}

/// A hash of a value and a collision count, in the alphabet of generated names. Any stable hash will do: children are matched
/// to their parent's template by content.
pub(crate) fn hash(value: &Value, collisions: i64) -> String {
    let mut hash: u32 = 0x811c_9dc5;
    let text = canonical(value);
    let extra = if collisions > 0 { collisions.to_string() } else { String::new() };
    for byte in text.iter().chain(extra.as_bytes()) {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    api::names::safe_encode(&hash.to_string())
}

/// A count or a percentage of `total`.
pub(crate) fn int_or_percent(value: &Value, total: i64, round_up: bool) -> i64 {
    if let Some(n) = value.as_i64() {
        return n;
    }
    let percent = value.as_str().and_then(|s| s.strip_suffix('%')).and_then(|p| p.parse::<i64>().ok());
    let scaled = percent.unwrap_or(0) * total;
    if round_up { (scaled + 99).div_euclid(100) } else { scaled.div_euclid(100) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_asked() {
        for (value, up, want) in [
            (Value::from("25%"), true, 1),
            (Value::from("25%"), false, 0),
            (Value::from("50%"), true, 2),
            (Value::from(2), true, 2),
        ] {
            assert_eq!(int_or_percent(&value, 3, up), want, "{value}");
        }
    }

    #[test]
    fn hashes_ignore_order_but_not_content() {
        let (a, b) = (object!({"x": 1, "y": 2}), object!({"y": 2, "x": 1}));
        assert_eq!(hash(&a, 0), hash(&b, 0));
        assert_ne!(hash(&a, 0), hash(&a, 1));
    }

    #[test]
    fn a_transition_time_stays_while_the_status_does() {
        let (t1, t2) = (Timestamp::from_second(100).unwrap(), Timestamp::from_second(200).unwrap());
        let mut list = Vec::new();
        let mut set = |t, status, reason| {
            set_condition(&mut list, t, &Condition { kind: "A", status, reason, message: "" })
        };
        assert!(set(t1, "True", "x"));
        assert!(!set(t2, "True", "x"));
        assert!(set(t2, "True", "y"));
        assert_eq!(list[0].str_at(&["lastTransitionTime"]), "1970-01-01T00:01:40Z");
        assert!(set_condition(
            &mut list,
            t2,
            &Condition { kind: "A", status: "False", reason: "", message: "" }
        ));
        assert_eq!(list[0].str_at(&["lastTransitionTime"]), "1970-01-01T00:03:20Z");
    }
}
