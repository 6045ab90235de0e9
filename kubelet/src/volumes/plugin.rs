//! What upstream calls those that make volumes.

use api::Value;

/// Who makes a volume that a pod names, by the volume's kind; none where a claim says.
pub(super) fn of_kind(volume: &Value) -> Option<String> {
    let name = match volume.as_object()?.keys().find(|key| *key != "name") {
        None | Some("emptyDir") => "empty-dir",
        Some("hostPath") => "host-path",
        Some("configMap") => "configmap",
        Some("secret") => "secret",
        Some("projected") => "projected",
        Some("downwardAPI") => "downward-api",
        Some("csi") => return Some(of_driver(volume.get("csi"))),
        Some(_) => return None,
    };
    Some(format!("kubernetes.io/{name}"))
}

/// Who makes a persistent volume.
pub(super) fn of_persistent(volume: &Value) -> String {
    let source = |kind: &str| volume.at(&["spec", kind]);
    match (source("csi"), source("local")) {
        (Value::Null, Value::Null) => "kubernetes.io/host-path".to_owned(),
        (Value::Null, _) => "kubernetes.io/local-volume".to_owned(),
        (csi, _) => of_driver(csi),
    }
}

fn of_driver(csi: &Value) -> String {
    format!("kubernetes.io/csi:{}", csi.str_at(&["driver"]))
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    #[test]
    fn volumes_are_told_apart_by_who_makes_them() {
        for (volume, expected) in [
            (object!({"name": "v"}), Some("kubernetes.io/empty-dir")),
            (object!({"name": "v", "configMap": {"name": "c"}}), Some("kubernetes.io/configmap")),
            (object!({"name": "v", "csi": {"driver": "d.io"}}), Some("kubernetes.io/csi:d.io")),
            (object!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}}), None),
        ] {
            assert_eq!(of_kind(&volume).as_deref(), expected, "{volume:?}");
        }
        for (spec, expected) in [
            (object!({"csi": {"driver": "d.io"}}), "kubernetes.io/csi:d.io"),
            (object!({"local": {"path": "/x"}}), "kubernetes.io/local-volume"),
            (object!({"hostPath": {"path": "/x"}}), "kubernetes.io/host-path"),
        ] {
            assert_eq!(of_persistent(&object!({"spec": (spec)})), expected);
        }
    }
}
