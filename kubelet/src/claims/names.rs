//! Which claims a pod has, and which of them its containers use: from the pod alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Value;
use api::quantity::Quantity;

/// A claim that a pod has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub name: String,
    /// It was made for the pod from a template, and has to belong to it.
    pub owned: bool,
}

/// The request itself, of one that may name an alternative of it.
pub(super) fn base(request: &str) -> &str {
    request.split('/').next().unwrap_or_default()
}

/// The claim behind an entry of the pod's spec; none when the template asks for none. An error is a sentence.
fn resolve(pod: &Value, entry: &Value) -> Result<Option<Reference>, String> {
    let (name, place) = (entry.str_at(&["name"]), format!("pod \"{}/{}\"", pod.namespace(), pod.name()));
    if let Some(name) = entry.get("resourceClaimName").as_str() {
        return Ok(Some(Reference { name: name.to_owned(), owned: false }));
    }
    if entry.get("resourceClaimTemplateName").is_null() {
        return Err(format!("{place}, spec.resourceClaim {name:?}: none of the supported fields are set"));
    }
    let mut statuses = pod.array_at(&["status", "resourceClaimStatuses"]).iter();
    let Some(status) = statuses.find(|status| status.str_at(&["name"]) == name) else {
        return Err(format!("{place}: ResourceClaim not created yet"));
    };
    let made = status.get("resourceClaimName").as_str();
    Ok(made.map(|name| Reference { name: name.to_owned(), owned: true }))
}

/// The claim that the scheduler made for the pod's extended resources.
fn extended(pod: &Value) -> Option<&Value> {
    Some(pod.at(&["status", "extendedResourceClaimStatus"])).filter(|status| !status.is_null())
}

/// Whether a pod has any claims.
pub(super) fn any(pod: &Value) -> bool {
    !pod.array_at(&["spec", "resourceClaims"]).is_empty() || extended(pod).is_some()
}

/// All claims of a pod. An error is a sentence.
pub(super) fn of_pod(pod: &Value) -> Result<Vec<Reference>, String> {
    let mut all = Vec::new();
    for entry in pod.array_at(&["spec", "resourceClaims"]) {
        all.extend(resolve(pod, entry)?);
    }
    let name = |status: &Value| status.str_at(&["resourceClaimName"]).to_owned();
    all.extend(extended(pod).map(|status| Reference { name: name(status), owned: false }));
    Ok(all)
}

/// The claim behind a name that the pod gave it.
pub(super) fn named(pod: &Value, name: &str) -> Result<Option<String>, String> {
    let mut entries = pod.array_at(&["spec", "resourceClaims"]).iter();
    let Some(entry) = entries.find(|entry| entry.str_at(&["name"]) == name) else { return Ok(None) };
    Ok(resolve(pod, entry)?.map(|reference| reference.name))
}

/// The claims that a container uses, with the requests that it wants of each; an empty one stands for all of the claim.
pub(super) fn of_container(pod: &Value, container: &Value) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut used = BTreeMap::<String, Vec<String>>::new();
    for claim in container.array_at(&["resources", "claims"]) {
        if let Some(name) = named(pod, claim.str_at(&["name"]))? {
            used.entry(name).or_default().push(claim.str_at(&["request"]).to_owned());
        }
    }
    let name = container.str_at(&["name"]);
    for (claim, mapping) in mappings(pod, name) {
        if asks_for(container, mapping.str_at(&["resourceName"])) {
            used.entry(claim.to_owned()).or_default().push(mapping.str_at(&["requestName"]).to_owned());
        }
    }
    Ok(used)
}

/// The claim that stands for a container's extended resources, with what in it stands for which.
fn mappings<'p>(pod: &'p Value, container: &'p str) -> impl Iterator<Item = (&'p str, &'p Value)> {
    extended(pod).into_iter().flat_map(move |status| {
        let mappings = status.array_at(&["requestMappings"]).iter();
        mappings
            .filter(move |mapping| mapping.str_at(&["containerName"]) == container)
            .map(|mapping| (status.str_at(&["resourceClaimName"]), mapping))
    })
}

/// Whether a container requests some of a resource.
fn asks_for(container: &Value, resource: &str) -> bool {
    let amount = container.str_at(&["resources", "requests", resource]).parse::<Quantity>();
    amount.is_ok_and(|amount| amount.units() > 0)
}

/// The pod without the extended resources that it has by a claim: nobody else has to give it those.
pub(crate) fn without_claimed(pod: &Arc<Value>) -> Arc<Value> {
    if extended(pod).is_none() {
        return pod.clone();
    }
    let mut stripped = (**pod).clone();
    for field in ["initContainers", "containers"] {
        for container in stripped.at_mut(&["spec", field]).and_then(Value::as_array_mut).into_iter().flatten()
        {
            let name = container.str_at(&["name"]).to_owned();
            for (_, mapping) in mappings(pod, &name) {
                for amounts in ["requests", "limits"] {
                    container.remove_at(&["resources", amounts, mapping.str_at(&["resourceName"])]);
                }
            }
        }
    }
    Arc::new(stripped)
}

/// Whether a claim that was made from a template was made for this pod; an error is a sentence.
pub(super) fn check_owner(pod: &Value, claim: &Value) -> Result<(), String> {
    let controls = |owner: &Value| {
        owner.str_at(&["uid"]) == pod.uid() && owner.get("controller").as_bool() == Some(true)
    };
    let owners = claim.array_at(&["metadata", "ownerReferences"]);
    match claim.namespace() == pod.namespace() && owners.iter().any(controls) {
        true => Ok(()),
        false => Err(format!(
            "ResourceClaim {}/{} was not created for pod {}/{} (pod is not owner)",
            claim.namespace(),
            claim.name(),
            pod.namespace(),
            pod.name()
        )),
    }
}

/// Whether the claim is reserved for the pod; an error is a sentence.
pub(super) fn check_reserved(pod: &Value, claim: &Value) -> Result<(), String> {
    let mut reserved = claim.array_at(&["status", "reservedFor"]).iter();
    match reserved.any(|user| user.str_at(&["uid"]) == pod.uid()) {
        true => Ok(()),
        false => Err(format!(
            "pod {} ({}) is not allowed to use ResourceClaim {} ({})",
            pod.name(),
            pod.uid(),
            claim.name(),
            claim.uid()
        )),
    }
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    fn pod() -> Value {
        object!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {
                "resourceClaims": [
                    {"name": "direct", "resourceClaimName": "shared"},
                    {"name": "made", "resourceClaimTemplateName": "t"},
                    {"name": "unneeded", "resourceClaimTemplateName": "t"},
                ],
                "containers": [
                    {"name": "a", "resources": {
                        "claims": [{"name": "direct"}, {"name": "made", "request": "r"}, {"name": "made", "request": "s"}],
                        "requests": {"example.com/x": "1", "cpu": "1"}, "limits": {"example.com/x": "1"},
                    }},
                    {"name": "b", "resources": {"claims": [{"name": "unneeded"}], "requests": {"example.com/x": "1"}}},
                ],
            },
            "status": {
                "resourceClaimStatuses": [{"name": "made", "resourceClaimName": "p-made-1"}, {"name": "unneeded"}],
                "extendedResourceClaimStatus": {"resourceClaimName": "p-ext", "requestMappings": [
                    {"containerName": "a", "resourceName": "example.com/x", "requestName": "container-0-request-0"},
                    {"containerName": "a", "resourceName": "example.com/y", "requestName": "container-0-request-1"},
                ]},
            },
        })
    }

    #[test]
    fn claims_are_found_by_name_by_template_and_for_extended_resources() {
        let reference = |name: &str, owned| Reference { name: name.to_owned(), owned };
        let all = [reference("shared", false), reference("p-made-1", true), reference("p-ext", false)];
        assert_eq!(of_pod(&pod()).unwrap(), all);
        assert!(any(&pod()) && !any(&Value::object()));
        let mut early = pod();
        early.remove_at(&["status"]);
        assert_eq!(of_pod(&early).unwrap_err(), "pod \"n/p\": ResourceClaim not created yet");
        let odd = object!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"resourceClaims": [{"name": "x"}]}});
        let message = "pod \"n/p\", spec.resourceClaim \"x\": none of the supported fields are set";
        assert_eq!(of_pod(&odd).unwrap_err(), message);
    }

    #[test]
    fn containers_use_what_they_name() {
        let pod = pod();
        let used = |i: usize| of_container(&pod, &pod.array_at(&["spec", "containers"])[i]).unwrap();
        let expected =
            [("p-ext", vec!["container-0-request-0"]), ("p-made-1", vec!["r", "s"]), ("shared", vec![""])];
        let shown = used(0);
        let shown: Vec<_> = shown
            .iter()
            .map(|(c, r)| (c.as_str(), r.iter().map(String::as_str).collect::<Vec<_>>()))
            .collect();
        assert_eq!(shown, expected);
        assert!(used(1).is_empty());
    }

    #[test]
    fn extended_resources_by_claim_are_nobody_elses() {
        let stripped = without_claimed(&Arc::new(pod()));
        let resources = |i: usize| stripped.array_at(&["spec", "containers"])[i].get("resources").clone();
        assert_eq!(resources(0).get("requests"), &object!({"cpu": "1"}));
        assert!(resources(0).get("limits").is_empty());
        assert_eq!(resources(1).get("requests"), &object!({"example.com/x": "1"}));
    }

    #[test]
    fn claims_of_others_are_refused() {
        let claim = object!({
            "metadata": {"name": "c", "namespace": "n", "uid": "1", "ownerReferences": [{"uid": "u", "controller": true}]},
            "status": {"reservedFor": [{"resource": "pods", "name": "p", "uid": "u"}]},
        });
        assert!(check_owner(&pod(), &claim).is_ok() && check_reserved(&pod(), &claim).is_ok());
        let mut other = pod();
        other.set(&["metadata", "uid"], "v");
        let message = "ResourceClaim n/c was not created for pod n/p (pod is not owner)";
        assert_eq!(check_owner(&other, &claim).unwrap_err(), message);
        let message = "pod p (v) is not allowed to use ResourceClaim c (1)";
        assert_eq!(check_reserved(&other, &claim).unwrap_err(), message);
    }
}
