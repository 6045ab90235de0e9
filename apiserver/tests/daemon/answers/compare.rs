//! What of answers is the same on every server, and how two of them differ.

use std::sync::LazyLock;

use api::{Map, Value};
use regex::Regex;

/// Members whose values nobody can foresee.
const VOLATILE: [&str; 19] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "time",
    "clusterIP",
    "clusterIPs",
    "nodePort",
    "healthCheckNodePort",
    "lastTransitionTime",
    "lastUpdateTime",
    "lastProbeTime",
    "renewTime",
    "acquireTime",
    "continue",
    "timestamp",
    "startTime",
    "token",
    "expirationTimestamp",
];

/// The same within texts.
static VOLATILE_TEXT: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    [
        r"\b\d{4}-\d\d-\d\dT[\d:.]+Z\b",
        r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b",
        r"(kube-api-access-)[a-z0-9]{5}\b",
        r"(current: )\d+",
        r"^(?:\d+[smhd])+$",
        r"\b10\.(?:43|96)\.\d+\.\d+\b",
        r"(X509SHA256=)[0-9a-f]{64}",
        r"(uid: )\S+",
        r"(resourceVersion: )\S+",
        r#"(resourceVersion\\*":\\*")\d+"#,
    ]
    .iter()
    .map(|pattern| Regex::new(pattern).expect("a valid expression"))
    .collect()
});

/// The value with everything volatile replaced by `*`.
pub(super) fn neutral(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let generated = map.get("generateName").and_then(Value::as_str).is_some_and(|g| !g.is_empty());
            let known = |key: &str| VOLATILE.contains(&key) || generated && key == "name";
            let members = map.into_iter().map(|(key, value)| {
                let keep = value.is_null() || value.as_str() == Some("None") || value.is_empty();
                let hidden = !keep && known(&key) && value != Value::from(vec!["None"]);
                let value = match &*key {
                    _ if hidden => "*".into(),
                    "managedFields" => in_order(neutral(value)),
                    _ => neutral(value),
                };
                (key, value)
            });
            Value::Object(members.collect::<Map>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(neutral).collect()),
        Value::String(text) => {
            let hidden = VOLATILE_TEXT
                .iter()
                .fold(text.to_string(), |text, pattern| pattern.replace_all(&text, "$1*").into_owned());
            hidden.into()
        }
        other => other,
    }
}

/// Managers stand in order of the seconds in which they wrote, which are nobody's to foresee.
fn in_order(mut managers: Value) -> Value {
    const NAMED_BY: [&str; 4] = ["manager", "operation", "apiVersion", "subresource"];
    if let Some(entries) = managers.as_array_mut() {
        entries.sort_by_key(|entry| NAMED_BY.map(|field| entry.str_at(&[field]).to_owned()));
    }
    managers
}

/// Where and how what came differs from what was recorded.
pub(super) fn differences(want: &Value, got: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare(&neutral(want.clone()), got, String::new(), &mut found);
    found
}

fn compare(want: &Value, got: &Value, path: String, found: &mut Vec<String>) {
    match (want, got) {
        (Value::Object(wanted), Value::Object(came)) => {
            for (key, value) in wanted.iter() {
                match came.get(key) {
                    Some(other) => compare(value, other, format!("{path}/{key}"), found),
                    None => found.push(format!("{path}/{key}: is missing, should be {value}")),
                }
            }
            for (key, value) in came.iter().filter(|(key, _)| !wanted.contains_key(key)) {
                found.push(format!("{path}/{key}: is {value}, should not be there"));
            }
        }
        (Value::Array(wanted), Value::Array(came)) if wanted.len() == came.len() => {
            for (index, (value, other)) in wanted.iter().zip(came).enumerate() {
                compare(value, other, format!("{path}/{index}"), found);
            }
        }
        _ if want != got => found.push(format!("{path}: is {got}, should be {want}")),
        _ => {}
    }
}

#[test]
fn volatile_values_are_hidden_and_others_compared() {
    let answer = |uid: &str, data: &str| {
        neutral(api::object!({"metadata": {"uid": uid, "name": "a"}, "data": data, "at": "x current: 12"}))
    };
    let one = answer("1", "a");
    assert_eq!(differences(&one, &answer("2", "a")), [""; 0]);
    assert_eq!(differences(&one, &answer("2", "b")), ["/data: is \"b\", should be \"a\""]);
    assert_eq!(one.str_at(&["at"]), "x current: *");
    assert_eq!(differences(&api::object!({"a": 1}), &api::object!({"b": 1})).len(), 2);
}
