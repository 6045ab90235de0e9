//! Requests, limits and claims of devices.

use std::collections::{BTreeSet, HashSet};

use api::pod::effective;
use api::quantity::Quantity;
use api::{Value, names};

use super::spec::{Pod, Subject};
use crate::kinds::Errors;
use crate::kinds::check::At;
use crate::kinds::resource_names::{
    can_overcommit, is_huge_page, is_integer, validate_container_resource, validate_resource,
};

/// Checks the requests and limits of a container.
pub(in crate::kinds) fn validate(resources: &At<'_>, claims: &HashSet<&str>, errors: &mut Errors) {
    validate_with(resources, validate_container_resource, errors);
    validate_claim_names(&resources.get("claims"), claims, errors);
}

/// Checks a map of limits that stands where the struct of limits and requests would.
pub(in crate::kinds) fn validate_limits(limits: &At<'_>, errors: &mut Errors) {
    let resources = api::object!({"limits": (limits.value)});
    validate_with(&limits.with(&resources), validate_container_resource, errors);
}

fn validate_with(resources: &At<'_>, name_rule: fn(&At<'_>, &str, &mut Errors), errors: &mut Errors) {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    let (mut huge, mut compute) = (false, false);
    let mut each = |name: &str, at: &At<'_>, errors: &mut Errors| {
        name_rule(at, name, errors);
        validate_quantity(name, at, errors);
        if is_huge_page(name) {
            huge = true;
        }
        compute |= matches!(name, "cpu" | "memory");
    };
    for (name, limit) in limits.entries() {
        each(name, &limit, errors);
        validate_huge_page(name, &limit, errors);
    }
    for (name, request) in requests.entries() {
        each(name, &request, errors);
        validate_request(name, &request, &requests, &limits, errors);
        validate_huge_page(name, &request, errors);
    }
    if huge && !compute {
        resources.forbidden(errors, "HugePages require cpu or memory");
    }
}

fn validate_request(name: &str, request: &At<'_>, requests: &At<'_>, limits: &At<'_>, errors: &mut Errors) {
    let limit = limits.value.get(name).as_str().and_then(|q| q.parse::<Quantity>().ok());
    let asked = request.quantity();
    match limit {
        Some(limit) if asked != Some(limit) && !can_overcommit(name) => {
            let why = format!("must be equal to {name} limit of {limit}");
            requests.invalid_as(errors, request.value, why);
        }
        Some(limit) if asked.is_some_and(|q| q > limit) => {
            let why = format!("must be less than or equal to {name} limit of {limit}");
            requests.invalid_as(errors, request.value, why);
        }
        None if !can_overcommit(name) => {
            limits.required(errors, "Limit must be set for non overcommitable resources");
        }
        _ => {}
    }
}

fn validate_huge_page(name: &str, at: &At<'_>, errors: &mut Errors) {
    let Some(size) = name.strip_prefix("hugepages-").and_then(|s| s.parse::<Quantity>().ok()) else {
        return;
    };
    let divides = |q: Quantity| {
        let (pages, size) = (q.units(), size.units());
        size > 0 && pages % size == 0
    };
    if at.quantity().is_some_and(|q| !divides(q)) {
        at.invalid(errors, format!("{} is not positive integer multiple of {name}", at.text()));
    }
}

/// Checks an amount of a resource.
pub(in crate::kinds) fn validate_quantity(name: &str, at: &At<'_>, errors: &mut Errors) {
    at.quantity_not_negative(errors);
    if is_integer(name) && at.quantity().is_some_and(|q| q.millis() % 1000 != 0) {
        at.invalid(errors, "must be an integer");
    }
}

fn validate_claim_names(claims: &At<'_>, known: &HashSet<&str>, errors: &mut Errors) {
    let mut seen: HashSet<String> = HashSet::new();
    for claim in claims.items() {
        let (name, request) = (claim.get("name").text(), claim.get("request"));
        if name.is_empty() {
            claim.required(errors, "");
            continue;
        }
        let name_at = |text: &str, errors: &mut Errors| claim.with(&Value::from(text)).duplicate(errors);
        if seen.contains(name) {
            name_at(name, errors);
        } else {
            let mut key = name.to_owned();
            if !request.text().is_empty() {
                request.named(errors, names::dns_label);
                key = format!("{name}/{}", request.text());
            }
            if seen.contains(&key) {
                name_at(&key, errors);
            } else if request.text().is_empty()
                && seen.iter().any(|k| k.split_once('/').is_some_and(|(n, _)| n == name))
            {
                name_at(name, errors);
            }
            seen.insert(key);
        }
        if !known.contains(name) {
            let mut error = api::field::FieldError::not_found(&claim.path, name);
            let sorted: BTreeSet<&str> = known.iter().copied().collect();
            error.detail = "must be one of the names in pod.spec.resourceClaims".to_owned();
            error.detail += &match sorted.is_empty() {
                true => " which is empty".to_owned(),
                false => format!(": {}", sorted.into_iter().collect::<Vec<_>>().join(", ")),
            };
            errors.push(error);
        }
    }
}

const CLAIM: &str = "core/v1.PodResourceClaim";

/// Checks the claims of a pod and returns their names.
pub(super) fn validate_claims<'a>(
    claims: &At<'a>,
    subject: &Subject<'_>,
    errors: &mut Errors,
) -> HashSet<&'a str> {
    let items = claims.value.as_array().map_or(&[][..], Vec::as_slice);
    let known = items.iter().map(|c| c.str_at(&["name"])).filter(|n| !n.is_empty()).collect();
    let mirror = subject.metadata.is_some_and(|m| !m.at(&["annotations", super::MIRROR]).is_null());
    let mut seen: HashSet<String> = HashSet::new();
    for claim in claims.items() {
        if mirror {
            let root = At { value: claim.value, path: api::field::Path::new("") };
            root.forbidden(errors, "static pods do not support resource claims");
            continue;
        }
        let name = claim.get("name");
        if name.text().is_empty() {
            name.required(errors, "");
        } else if seen.contains(name.text()) {
            name.duplicate(errors);
        } else {
            name.named(errors, names::dns_label);
            seen.insert(name.text().to_owned());
        }
        let (direct, template) = (claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName"));
        if direct.is_set() && template.is_set() {
            let why = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
            claim.invalid_struct(errors, CLAIM, why);
        }
        if !direct.is_set() && !template.is_set() {
            let why = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
            claim.invalid_struct(errors, CLAIM, why);
        }
        for given in [direct, template].iter().filter(|c| c.is_set()) {
            given.named(errors, names::dns_subdomain);
        }
    }
    known
}

/// Checks what a running container may be given without being restarted.
pub(super) fn validate_resize_policy(container: &At<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    let list = container.get("resizePolicy");
    let mut seen = HashSet::new();
    for policy in list.items() {
        let (resource, restart) = (policy.get("resourceName"), policy.get("restartPolicy"));
        if !seen.insert(resource.text().to_owned()) {
            policy.with(resource.value).duplicate(errors);
        }
        list.with(resource.value).required_one_of(errors, &["cpu", "memory"]);
        list.with(restart.value).required_one_of(errors, &["NotRequired", "RestartContainer"]);
        if pod.spec.get("restartPolicy").text() == "Never" && restart.text() != "NotRequired" {
            let why = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            list.invalid_as(errors, restart.value, why);
        }
    }
}

fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_page(name)
}

fn validate_pod_resource(at: &At<'_>, name: &str, errors: &mut Errors) {
    let found = errors.len();
    validate_resource(at, name, errors);
    if errors.len() == found && !is_pod_level(name) {
        at.with(&Value::from(name)).unsupported(errors, &["cpu", "hugepages-", "memory"]);
    }
}

/// Checks the requests and limits of a pod as a whole.
pub(super) fn validate_pod(pod: &Pod<'_>, errors: &mut Errors) {
    let resources = pod.spec.get("resources");
    if !resources.is_set() {
        return;
    }
    if pod.spec.get("os.name").text() == "windows" {
        return resources.forbidden(errors, "may not be set for a windows pod");
    }
    if resources.get("claims").is_set() {
        let why = "claims may not be set for Resources at pod-level";
        resources.get("claims").forbidden(errors, why);
    }
    validate_with(&resources, validate_pod_resource, errors);
    validate_claim_names(&resources.get("claims"), &pod.claims, errors);
    validate_sums(pod, &resources, errors);
}

fn validate_sums(pod: &Pod<'_>, resources: &At<'_>, errors: &mut Errors) {
    for (name, given) in resources.get("requests").entries() {
        let sum = effective(pod.spec.value, "requests", name);
        if let (Some(sum), Some(asked)) = (sum, given.quantity())
            && sum > asked
        {
            let why = format!("must be greater than or equal to aggregate container requests of {sum}");
            given.invalid(errors, why);
        }
    }
    for (name, given) in resources.get("limits").entries().filter(|(name, _)| is_huge_page(name)) {
        let sum = effective(pod.spec.value, "limits", name);
        if let (Some(sum), Some(limit)) = (sum, given.quantity())
            && sum > limit
        {
            let why = format!("must be greater than or equal to aggregate container limits of {sum}");
            given.invalid(errors, why);
        }
    }
    let (list, shown) = (pod.spec.get("containers"), resources.path.child("containers"));
    for (i, container) in list.items().enumerate() {
        for (name, limit) in container.get("resources.limits").entries() {
            let whole = resources.get("limits");
            let whole = whole.value.get(name).as_str().and_then(|q| q.parse::<Quantity>().ok());
            if let (Some(whole), Some(own)) = (whole, limit.quantity())
                && own > whole
            {
                let item = shown.index(i);
                let key = item.key(name);
                let at = At { value: limit.value, path: key.child("limits") };
                at.invalid(errors, format!("must be less than or equal to pod limits of {whole}"));
            }
        }
    }
}
