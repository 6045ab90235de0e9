//! The form in which etcd holds objects, which is upstream's: most in protobuf, in an envelope that names their type;
//! definitions of custom resources, APIServices and custom resources in JSON. Whichever form and version is found is read.
//!
//! Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/#kubernetes-protobuf-encoding>.

use api::Value;
use api::meta::GroupVersion;
use schema::{decode, proto};

use crate::kinds::definition::from_v1beta1;
use crate::registry::{schema_of, set_type, to_storage};
use crate::resources::{Resource, TABLE};

/// Groups whose objects upstream keeps in JSON.
const IN_JSON: [&str; 2] = ["apiextensions.k8s.io", "apiregistration.k8s.io"];

/// What is stored of an object of a built-in kind.
pub(crate) fn write(row: &Resource, object: &Value) -> Vec<u8> {
    match IN_JSON.contains(&row.group) {
        true => object.to_json(),
        false => proto::encode_object(object, schema_of(row)),
    }
}

/// An object of a built-in kind, in the version of `row`; none when the bytes are no such object.
pub(crate) fn read(row: &Resource, bytes: &[u8]) -> Option<Value> {
    let object = if bytes.starts_with(&proto::MAGIC) {
        // Versions that are served no longer look like today's.
        let of = |gv: &str, kind: &str| {
            let known = GroupVersion::parse(gv).and_then(|gv| schema::kind(&gv.group, &gv.version, kind));
            known.or_else(|| (kind == row.kind).then(|| schema_of(row)))
        };
        proto::decode_object(bytes, of).ok()??
    } else {
        json(bytes)?
    };
    if object.api_version() != row.api_version() {
        return Some(at_version(row, object));
    }
    // Protobuf has no room for some defaults, and those of younger fields are not there.
    let mut whole = object.clone();
    (row.strategy.default)(&mut whole);
    Some(if whole == object { object } else { canonical(row, whole) })
}

/// True when the object would be stored in another version or format now.
pub(crate) fn is_outdated(row: &Resource, bytes: &[u8]) -> bool {
    if IN_JSON.contains(&row.group) {
        return json(bytes).is_none_or(|object| object.api_version() != row.api_version());
    }
    proto::open(bytes).map_or(true, |envelope| envelope.api_version != row.api_version())
}

/// A document in JSON.
pub(crate) fn json(bytes: &[u8]) -> Option<Value> {
    api::json::decode(bytes).ok().map(|d| d.value)
}

fn at_version(row: &Resource, object: Value) -> Value {
    let served =
        TABLE.rows.iter().find(|r| r.plural == row.plural && r.api_version() == object.api_version());
    let mut object = match served {
        Some(other) => to_storage(other, object),
        None if row.plural == "customresourcedefinitions" => from_v1beta1(object),
        None => object,
    };
    set_type(&mut object, row);
    (row.strategy.default)(&mut object);
    canonical(row, object)
}

/// An object with its members in order.
fn canonical(row: &Resource, object: Value) -> Value {
    let read = decode::normalize(object.clone(), schema_of(row), decode::Mode::Ignore);
    let mut object = read.map_or(object, |(read, _)| read);
    decode::forget_empty(&mut object, schema_of(row));
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn objects_are_read_from_both_forms() {
        let row = TABLE.find("", "v1", "configmaps").unwrap();
        let map = object!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "n", "uid": "u"}, "data": {"k": "v"}});
        let stored = write(row, &map);
        assert!(stored.starts_with(&proto::MAGIC));
        let read_back = read(row, &stored).unwrap();
        assert_eq!(read_back.str_at(&["data", "k"]), "v");
        assert_eq!(read_back.kind(), "ConfigMap");
        assert_eq!(read(row, &map.to_json()).unwrap(), map);
        for bytes in [&b"k8s\0\xff"[..], b"", b"{", b"k8s\0"] {
            assert!(read(row, bytes).is_none(), "{bytes:?}");
        }
    }

    #[test]
    fn older_versions_are_brought_up() {
        let row = TABLE.find("autoscaling", "v2", "horizontalpodautoscalers").unwrap();
        let v1 = br#"{"kind":"HorizontalPodAutoscaler","apiVersion":"autoscaling/v1","metadata":{"name":"h"},"spec":{"maxReplicas":3,"targetCPUUtilizationPercentage":50,"scaleTargetRef":{"kind":"Deployment","name":"d"}}}"#;
        let v2 = read(row, v1).unwrap();
        assert_eq!(v2.api_version(), "autoscaling/v2");
        assert_eq!(v2.array_at(&["spec", "metrics"]).len(), 1);
        assert!(is_outdated(row, v1) && !is_outdated(row, &write(row, &v2)));
        let row = TABLE.find("policy", "v1", "poddisruptionbudgets").unwrap();
        let gone = br#"{"kind":"PodDisruptionBudget","apiVersion":"policy/v1beta1","metadata":{"name":"b"},"spec":{"minAvailable":1}}"#;
        assert_eq!(read(row, gone).unwrap().api_version(), "policy/v1");
    }

    #[test]
    fn what_protobuf_leaves_out_is_filled_in() {
        let row = TABLE.find("apps", "v1", "statefulsets").unwrap();
        let set = object!({"kind": "StatefulSet", "apiVersion": "apps/v1", "metadata": {"name": "s"},
            "spec": {"serviceName": "", "volumeClaimTemplates": [{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "v"}}]}});
        let back = read(row, &write(row, &set)).unwrap();
        assert_eq!(back.array_at(&["spec", "volumeClaimTemplates"])[0].kind(), "PersistentVolumeClaim");
    }
}
