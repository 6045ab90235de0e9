//! Addresses of a Service and their families: two fields say the same, and what was given once is kept.

use api::Value;
use api::field::FieldError;

use super::validate::validate_addresses;
use super::{kind, uses_node_ports};
use crate::kinds::Errors;
use crate::kinds::check::At;

fn is_external_name(service: &Value) -> bool {
    service.str_at(&["spec", "type"]) == "ExternalName"
}

/// What was handed out stays when the client leaves it out.
pub fn carry_over(new: &mut Value, old: &Value) {
    if !is_external_name(new) && !is_external_name(old) {
        for field in ["clusterIP", "clusterIPs"] {
            if new.at(&["spec", field]).is_empty() && !old.at(&["spec", field]).is_empty() {
                new.set(&["spec", field], old.at(&["spec", field]));
            }
        }
    }
    if is_given_node_ports(new) && is_given_node_ports(old) {
        carry_over_ports(new, old);
    }
    const HEALTH: [&str; 2] = ["spec", "healthCheckNodePort"];
    if super::needs_health_check(new) && super::needs_health_check(old) && new.at(&HEALTH).is_empty() {
        new.set(&HEALTH, old.at(&HEALTH));
    }
}

fn carry_over_ports(new: &mut Value, old: &Value) {
    let numbers = |service: &Value| -> Vec<i64> {
        let ports = service.array_at(&["spec", "ports"]).iter();
        ports.filter_map(|p| p.get("nodePort").as_i64()).filter(|n| *n != 0).collect()
    };
    let (before, after) = (numbers(old), numbers(new));
    let used = |n: i64| before.contains(&n) && after.contains(&n);
    let ports = new.at_mut(&["spec", "ports"]).and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter(|p| p.get("nodePort").is_empty()) {
        let name = port.str_at(&["name"]);
        let same = old.array_at(&["spec", "ports"]).iter().rfind(|p| p.str_at(&["name"]) == name);
        if let Some(number) = same.and_then(|p| p.get("nodePort").as_i64()).filter(|n| *n != 0 && !used(*n)) {
            port.set(&["nodePort"], number);
        }
    }
}

/// Brings the old field for one address and the new one for several together, as far as the client's wish is clear.
pub fn normalize(new: &mut Value, old: Option<&Value>) {
    const ONE: [&str; 2] = ["spec", "clusterIP"];
    const ALL: [&str; 2] = ["spec", "clusterIPs"];
    let address = new.str_at(&ONE).to_owned();
    let Some(old) = old else {
        if !address.is_empty() && new.at(&ALL).is_empty() {
            new.set(&ALL, vec![address]);
        }
        return;
    };
    let before = old.str_at(&ONE);
    if new.at(&ALL).is_empty() && !old.at(&ALL).is_empty() && address == before {
        new.set(&ALL, old.at(&ALL));
    }
    if address != before && new.at(&ALL) == old.at(&ALL) {
        if address.is_empty() {
            new.remove_at(&ALL);
        } else {
            new.set(&ALL, vec![address]);
        }
    }
}

/// True when neither the addresses nor the families of a Service that prefers two of each change: it stays as it is when
/// the cluster has come to have more families, or fewer.
pub fn same_dual_stack(new: &Value, old: &Value) -> bool {
    let prefers = |s: &Value| s.str_at(&["spec", "ipFamilyPolicy"]) == "PreferDualStack";
    let same = |field: &str| new.at(&["spec", field]) == old.at(&["spec", field]);
    !is_external_name(old)
        && prefers(new)
        && prefers(old)
        && same("type")
        && same("clusterIPs")
        && same("ipFamilies")
}

/// Fills in the families of the addresses. The cluster has addresses of `configured`, the first by default.
pub fn init_families(
    new: &mut Value,
    old: Option<&Value>,
    configured: &[&str],
) -> Result<(), Vec<FieldError>> {
    const POLICY: [&str; 2] = ["spec", "ipFamilyPolicy"];
    const FAMILIES: [&str; 2] = ["spec", "ipFamilies"];
    if is_external_name(new) {
        return Ok(());
    }
    let selects_nothing = new.at(&["spec", "selector"]).is_empty();
    let bare = new.str_at(&["spec", "clusterIP"]) == "None" && selects_nothing;
    if new.at(&POLICY).is_null() {
        let before = old.map(|o| o.at(&POLICY).clone()).filter(|p| !p.is_null());
        let fresh = if bare { "RequireDualStack" } else { "SingleStack" };
        new.set(&POLICY, before.unwrap_or_else(|| fresh.into()));
    }
    let mut errors = Vec::new();
    validate_addresses(new, old, &mut errors);
    refuse(&mut errors)?;
    let single = new.str_at(&POLICY) == "SingleStack";
    let lists = [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")];
    for (field, what) in lists {
        let (is, was) = (new.array_at(&["spec", field]).to_vec(), old.map(|o| o.array_at(&["spec", field])));
        let Some(was) = was else { continue };
        if single && is == was && is.len() > 1 {
            new.set(&["spec", field], is[..1].to_vec());
        } else if !single && !is.is_empty() && is.len() < was.len() {
            let why = format!("must be 'SingleStack' to release the secondary {what}");
            At::of(new, "spec.ipFamilyPolicy").invalid(&mut errors, why);
        }
    }
    for (field, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
        if single && new.array_at(&["spec", field]).len() == 2 {
            let why =
                format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            At::of(new, "spec.ipFamilyPolicy").invalid(&mut errors, why);
        }
    }
    let families = families_of_addresses(new, configured, &mut errors);
    refuse(&mut errors)?;
    if !families.is_empty() {
        new.set(&FAMILIES, families);
    }
    if bare {
        let mut families = new.array_at(&FAMILIES).to_vec();
        if families.is_empty() {
            families.extend(configured.first().map(|f| Value::from(*f)));
        }
        add_other_family(&mut families, single);
        new.set(&FAMILIES, families);
        return Ok(());
    }
    if new.str_at(&POLICY) == "RequireDualStack" && configured.len() < 2 {
        let why = "this cluster is not configured for dual-stack services";
        At::of(new, "spec.ipFamilyPolicy").invalid(&mut errors, why);
    }
    for item in At::of(new, "spec.ipFamilies").items().filter(|f| !configured.contains(&f.text())) {
        item.invalid(&mut errors, "not configured on this cluster");
    }
    refuse(&mut errors)?;
    let mut families = new.array_at(&FAMILIES).to_vec();
    if families.is_empty() {
        families.extend(configured.first().map(|f| Value::from(*f)));
    }
    add_other_family(&mut families, single || configured.len() < 2);
    new.set(&FAMILIES, families);
    Ok(())
}

/// Adds the family that is not there yet, unless there is to be one alone.
fn add_other_family(families: &mut Vec<Value>, single: bool) {
    if let ([only], false) = (&families[..], single) {
        let other = if only.as_str() == Some("IPv4") { "IPv6" } else { "IPv4" };
        families.push(other.into());
    }
}

fn refuse(errors: &mut Errors) -> Result<(), Vec<FieldError>> {
    if errors.is_empty() { Ok(()) } else { Err(std::mem::take(errors)) }
}

/// The families that the client named, followed by those of the addresses it gave.
fn families_of_addresses(service: &Value, configured: &[&str], errors: &mut Errors) -> Vec<Value> {
    let mut families = service.array_at(&["spec", "ipFamilies"]).to_vec();
    let list = At::of(service, "spec.clusterIPs");
    for (i, address) in list.items().enumerate() {
        if address.text() == "None" {
            break;
        }
        let own = if address.ip().is_some_and(|a| a.is_ipv6()) { "IPv6" } else { "IPv4" };
        if i < families.len() {
            continue;
        }
        if configured.contains(&own) {
            families.push(own.into());
        } else {
            address.invalid_as(errors, list.value, format!("{own} is not configured on this cluster"));
        }
    }
    families
}

/// True when ports of nodes are found for a Service that names none.
fn is_given_node_ports(service: &Value) -> bool {
    let declined = service.at(&["spec", "allocateLoadBalancerNodePorts"]).as_bool() == Some(false);
    uses_node_ports(service) && !(kind(service) == "LoadBalancer" && declined)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn the_two_address_fields_follow_each_other() {
        let mut new = object!({"spec": {"clusterIP": "10.0.0.1"}});
        normalize(&mut new, None);
        assert_eq!(new.at(&["spec", "clusterIPs"]), &object!(["10.0.0.1"]));
        let old = new.clone();
        new.set(&["spec", "clusterIP"], "10.0.0.2");
        normalize(&mut new, Some(&old));
        assert_eq!(new.at(&["spec", "clusterIPs"]), &object!(["10.0.0.2"]));
    }

    #[test]
    fn families_are_those_of_the_cluster() {
        let mut service = object!({"spec": {"type": "ClusterIP"}});
        init_families(&mut service, None, &["IPv4"]).unwrap();
        assert_eq!(service.at(&["spec", "ipFamilies"]), &object!(["IPv4"]));
        assert_eq!(service.str_at(&["spec", "ipFamilyPolicy"]), "SingleStack");
        let mut service = object!({"spec": {"type": "ClusterIP", "ipFamilies": ["IPv6"]}});
        let errors = init_families(&mut service, None, &["IPv4"]).unwrap_err();
        assert_eq!(
            errors[0].to_string(),
            "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"
        );
        let mut bare = object!({"spec": {"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]}});
        init_families(&mut bare, None, &["IPv4"]).unwrap();
        assert_eq!(bare.at(&["spec", "ipFamilies"]), &object!(["IPv4", "IPv6"]));
    }

    #[test]
    fn two_families_are_had_where_both_are_wanted_and_there() {
        let both = ["IPv6", "IPv4"];
        let families = |policy: &str, configured: &[&str]| {
            let mut service = object!({"spec": {"type": "ClusterIP", "ipFamilyPolicy": policy}});
            init_families(&mut service, None, configured)
                .map(|()| service.at(&["spec", "ipFamilies"]).clone())
                .map_err(|e| e[0].to_string())
        };
        assert_eq!(families("SingleStack", &both), Ok(object!(["IPv6"])));
        assert_eq!(families("PreferDualStack", &both), Ok(object!(["IPv6", "IPv4"])));
        assert_eq!(families("RequireDualStack", &both), Ok(object!(["IPv6", "IPv4"])));
        assert_eq!(families("PreferDualStack", &["IPv4"]), Ok(object!(["IPv4"])));
        assert_eq!(
            families("RequireDualStack", &["IPv4"]).unwrap_err(),
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services"
        );
    }

    #[test]
    fn ports_of_nodes_stay_with_their_name() {
        let old = object!({"spec": {"type": "NodePort", "ports": [{"name": "a", "nodePort": 30001}, {"name": "b", "nodePort": 30002}]}});
        let mut new = object!({"spec": {"type": "NodePort", "ports": [{"name": "b"}, {"name": "c", "nodePort": 30001}]}});
        carry_over(&mut new, &old);
        assert_eq!(new.array_at(&["spec", "ports"])[0].get("nodePort"), &Value::Int(30002));
    }
}
