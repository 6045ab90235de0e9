//! Advice about Services.

use api::Value;
use api::field::go_quote;

use super::kind;

/// Advice about a Service: fields that are old, or have no effect on its type.
pub(super) fn of(service: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let text = |field: &str| service.str_at(&["spec", field]);
    let external = !service.array_at(&["spec", "externalIPs"]).is_empty();
    let headless = kind(service) == "ClusterIP" && text("clusterIP") == "None";
    if service.annotation("service.kubernetes.io/topology-aware-hints").is_some() {
        out.push("annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead".to_owned());
    }
    if headless {
        if !text("loadBalancerIP").is_empty() {
            out.push("spec.loadBalancerIP is ignored for headless services".to_owned());
        }
        if external {
            out.push("spec.externalIPs is ignored for headless services".to_owned());
        }
        if text("sessionAffinity") != "None" {
            out.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    }
    let named = kind(service) == "ExternalName";
    if external && !headless && !named {
        out.push(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned(),
        );
    }
    if external && named {
        out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !named && !text("externalName").is_empty() {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if text("trafficDistribution") == "PreferClose" {
        let (old, new) = (go_quote("PreferClose"), go_quote("PreferSameZone"));
        out.push(format!("spec.trafficDistribution: {old} is deprecated; use {new}"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn fields_without_effect_are_named() {
        let service =
            object!({"spec": {"type": "ClusterIP", "externalName": "a.b", "sessionAffinity": "None"}});
        assert_eq!(of(&service), ["spec.externalName is ignored when spec.type is not \"ExternalName\""]);
    }
}
