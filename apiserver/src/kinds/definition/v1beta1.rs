//! Definitions as upstream stores them: in the version before the present one, which says once what holds of all versions.
//!
//! Source: <https://kubernetes.io/docs/reference/using-api/deprecation-guide/#customresourcedefinition-v122>.

use api::{Value, object};

/// A stored definition as the present version has it.
pub fn from_v1beta1(mut definition: Value) -> Value {
    let Some(spec) = definition.make_object().get_mut("spec") else { return definition };
    let common = |field: &str, spec: &mut Value| spec.remove_at(&[field]).filter(|v| !v.is_null());
    let schema = common("validation", spec);
    let subresources = common("subresources", spec);
    let columns = common("additionalPrinterColumns", spec);
    let fields = common("selectableFields", spec);
    let version = common("version", spec);
    if spec.array_at(&["versions"]).is_empty()
        && let Some(name) = version
    {
        spec.set(&["versions"], vec![object!({"name": name, "served": true, "storage": true})]);
    }
    if let Some(versions) = spec.make_object().get_mut("versions").and_then(Value::as_array_mut) {
        for version in versions {
            for (field, common) in [
                ("schema", &schema),
                ("subresources", &subresources),
                ("additionalPrinterColumns", &columns),
                ("selectableFields", &fields),
            ] {
                if let Some(common) = common
                    && version.get(field).is_null()
                {
                    version.set(&[field], common.clone());
                }
            }
            rename_paths(version);
        }
    }
    let webhook =
        [("webhookClientConfig", "clientConfig"), ("conversionReviewVersions", "conversionReviewVersions")];
    for (old, new) in webhook {
        if let Some(value) = spec.remove_at(&["conversion", old]).filter(|v| !v.is_null())
            && spec.str_at(&["conversion", "strategy"]) == "Webhook"
        {
            spec.set(&["conversion", "webhook", new], value);
        }
    }
    if spec.at(&["conversion"]).is_null() {
        spec.set(&["conversion"], object!({"strategy": "None"}));
    }
    definition
}

/// Columns used to write their path in capitals.
fn rename_paths(version: &mut Value) {
    let columns = version.make_object().get_mut("additionalPrinterColumns").and_then(Value::as_array_mut);
    for column in columns.into_iter().flatten() {
        if let Some(path) = column.remove_at(&["JSONPath"]) {
            column.set(&["jsonPath"], path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_held_of_all_versions_is_said_of_each() {
        let old = object!({"apiVersion": "apiextensions.k8s.io/v1beta1", "spec": {
            "group": "g", "version": "v1", "validation": {"openAPIV3Schema": {"type": "object"}},
            "subresources": {"status": {}},
            "versions": [{"name": "v1", "served": true, "storage": true}, {"name": "v2", "served": true, "storage": false}],
            "additionalPrinterColumns": [{"name": "Size", "type": "integer", "JSONPath": ".spec.size"}],
            "conversion": {"strategy": "Webhook", "webhookClientConfig": {"url": "u"}, "conversionReviewVersions": ["v1"]},
            "preserveUnknownFields": false,
        }});
        let new = from_v1beta1(old);
        for version in new.array_at(&["spec", "versions"]) {
            assert_eq!(version.str_at(&["schema", "openAPIV3Schema", "type"]), "object");
            assert!(version.at(&["subresources", "status"]).as_object().is_some());
            assert_eq!(
                version.array_at(&["additionalPrinterColumns"])[0].str_at(&["jsonPath"]),
                ".spec.size"
            );
        }
        assert_eq!(new.str_at(&["spec", "conversion", "webhook", "clientConfig", "url"]), "u");
        assert!(new.at(&["spec", "version"]).is_null() && new.at(&["spec", "validation"]).is_null());
        let bare = from_v1beta1(object!({"spec": {"version": "v1"}}));
        assert_eq!(bare.array_at(&["spec", "versions"])[0].str_at(&["name"]), "v1");
    }
}
