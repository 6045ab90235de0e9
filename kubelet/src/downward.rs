//! What a pod may know of itself: the fields and resources of the downward API.

use std::fmt::Write as _;

use api::Value;
use api::quantity::Quantity;

/// Facts that are not in the pod object.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// The node's addresses.
    pub host_ips: &'a [String],
    /// The pod's addresses.
    pub pod_ips: &'a [String],
    /// What the node has for pods: cores in thousandths, and memory in bytes.
    pub allocatable: (i64, i64),
}

/// The value of a field such as `metadata.labels['app']`; an error is a sentence.
pub(crate) fn field(pod: &Value, path: &str, facts: &Facts<'_>) -> Result<String, String> {
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let values = match map {
            "metadata.labels" => pod.at(&["metadata", "labels"]),
            "metadata.annotations" => pod.at(&["metadata", "annotations"]),
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(values.get(key).as_str().unwrap_or_default().to_owned());
    }
    let first = |ips: &[String]| ips.first().cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => pod.name().to_owned(),
        "metadata.namespace" => pod.namespace().to_owned(),
        "metadata.uid" => pod.uid().to_owned(),
        "metadata.labels" => map(pod.at(&["metadata", "labels"])),
        "metadata.annotations" => map(pod.at(&["metadata", "annotations"])),
        "spec.nodeName" => pod.str_at(&["spec", "nodeName"]).to_owned(),
        "spec.serviceAccountName" => pod.str_at(&["spec", "serviceAccountName"]).to_owned(),
        "status.hostIP" => first(facts.host_ips),
        "status.hostIPs" => facts.host_ips.join(","),
        "status.podIP" => first(facts.pod_ips),
        "status.podIPs" => facts.pod_ips.join(","),
        other => return Err(format!("unsupported fieldPath: {other}")),
    })
}

/// A map as files have it: sorted lines of `key="value"`.
fn map(values: &Value) -> String {
    let mut pairs: Vec<_> = values.as_object().into_iter().flat_map(|map| map.iter()).collect();
    pairs.sort_by_key(|(key, _)| *key);
    let mut out = String::new();
    for (key, value) in pairs {
        let _ = write!(out, "{key}={}", api::field::go_quote(value.as_str().unwrap_or_default()));
        out.push('\n');
    }
    out.truncate(out.trim_end_matches('\n').len());
    out
}

/// The value of a `resourceFieldRef`, for a variable of `container` (or of the container that it names).
pub(crate) fn resource(
    pod: &Value,
    container: &Value,
    reference: &Value,
    facts: &Facts<'_>,
) -> Result<String, String> {
    let container = match reference.str_at(&["containerName"]) {
        "" => container,
        name => {
            crate::pods::spec::container(pod, name).ok_or_else(|| format!("container {name} not found"))?
        }
    };
    let name = reference.str_at(&["resource"]);
    let (kind, resource) = name.split_once('.').ok_or_else(|| format!("unsupported resource {name:?}"))?;
    if !matches!(kind, "limits" | "requests") {
        return Err(format!("unsupported resource {name:?}"));
    }
    let divisor = match reference.get("divisor").as_str() {
        None | Some("" | "0") => "1",
        Some(divisor) => divisor,
    };
    let millis = |text: &str| -> Result<i128, String> {
        let quantity: Quantity = text.parse().map_err(|_| format!("invalid quantity {text:?}"))?;
        // Memory in thousandths does not fit into 64 bits everywhere.
        Ok(if resource == "cpu" {
            i128::from(quantity.millis())
        } else {
            i128::from(quantity.units()) * 1000
        })
    };
    let given = container.at(&["resources", kind, resource]).as_str();
    let value = match given {
        Some(text) => millis(text)?,
        None if kind == "limits" && resource == "cpu" => i128::from(facts.allocatable.0),
        None if kind == "limits" && resource == "memory" => i128::from(facts.allocatable.1) * 1000,
        None => 0,
    };
    let divisor = match resource {
        "cpu" => i128::from(
            divisor.parse::<Quantity>().map_err(|_| format!("invalid divisor {divisor:?}"))?.millis(),
        ),
        _ => millis(divisor)?,
    };
    if divisor == 0 {
        return Err("the divisor is zero".to_owned());
    }
    // Rounded up, as upstream does.
    Ok(value.div_euclid(divisor).saturating_add(i128::from(value.rem_euclid(divisor) != 0)).to_string())
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    fn pod() -> Value {
        object!({
            "metadata": {"name": "p", "labels": {"b": "2", "a": "one \"two\""}},
            "spec": {"containers": [{"name": "c", "resources": {
                "limits": {"memory": "64Mi"},
                "requests": {"cpu": "250m"},
            }}]},
        })
    }

    const FACTS: Facts<'static> = Facts { host_ips: &[], pod_ips: &[], allocatable: (2000, 1 << 30) };

    #[test]
    fn fields_are_found_by_their_path() {
        for (path, expected) in [
            ("metadata.name", Ok("p")),
            ("metadata.labels['b']", Ok("2")),
            ("metadata.labels['none']", Ok("")),
            ("metadata.labels", Ok("a=\"one \\\"two\\\"\"\nb=\"2\"")),
            ("spec.containers", Err("unsupported fieldPath: spec.containers")),
        ] {
            let found = field(&pod(), path, &FACTS);
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{path}");
        }
    }

    #[test]
    fn resources_are_divided_and_default_to_the_nodes() {
        let container = pod().array_at(&["spec", "containers"])[0].clone();
        for (name, divisor, expected) in [
            ("limits.memory", "1Mi", "64"),
            ("limits.memory", "0", "67108864"),
            ("requests.cpu", "1m", "250"),
            ("requests.cpu", "1", "1"),
            ("limits.cpu", "1", "2"),
            ("requests.memory", "1", "0"),
        ] {
            let reference = object!({"resource": name, "divisor": divisor});
            assert_eq!(
                resource(&pod(), &container, &reference, &FACTS).unwrap(),
                expected,
                "{name}/{divisor}"
            );
        }
    }
}
