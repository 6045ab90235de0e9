//! What objects count for against a ResourceQuota.
//!
//! Admission charges with it before an object is written and the quota controller counts with it afterwards, so that the two
//! agree. No I/O. Not here: the devices that resource claims ask for, which no quota counts yet.
//!
//! Source: <https://kubernetes.io/docs/concepts/policy/resource-quotas/>.

mod pods;
mod scope;
mod source;

use std::collections::BTreeMap;

use api::quantity::{Format, Quantity};
use api::{Map, Value};
use jiff::Timestamp;

pub use scope::in_scope;
pub use source::Source;

/// Amounts by the names quotas have for them.
pub type Usage = BTreeMap<String, Quantity>;

/// One of something.
pub(crate) fn count(n: usize) -> Quantity {
    Quantity::from_units(i64::try_from(n).unwrap_or(i64::MAX), Format::DecimalSi)
}

/// What an object of this source uses at this time.
pub fn usage(source: &Source, object: &Value, now: Timestamp) -> Usage {
    let mut usage = Usage::new();
    usage.insert(source.count_name(), count(1));
    if let Some(alias) = source.alias() {
        usage.insert(alias.to_owned(), count(1));
    }
    match source {
        Source::Pods if pods::is_counted(object, now) => pods::charge(object, &mut usage),
        Source::Services => charge_service(object, &mut usage),
        Source::Claims => charge_claim(object, &mut usage),
        Source::Pods | Source::Objects { .. } => {}
    }
    usage
}

fn charge_service(service: &Value, usage: &mut Usage) {
    let kind = service.str_at(&["spec", "type"]);
    let ports = service.array_at(&["spec", "ports"]);
    let without = service.at(&["spec", "allocateLoadBalancerNodePorts"]).as_bool() == Some(false);
    // Ports of the nodes that it has, or will get.
    let node_ports = match kind {
        "LoadBalancer" if without => ports.iter().filter(|p| !p.get("nodePort").is_empty()).count(),
        "NodePort" | "LoadBalancer" => ports.len(),
        _ => 0,
    };
    usage.insert("services.nodeports".to_owned(), count(node_ports));
    usage.insert("services.loadbalancers".to_owned(), count(usize::from(kind == "LoadBalancer")));
}

fn charge_claim(claim: &Value, usage: &mut Usage) {
    let annotated = claim.annotation("volume.beta.kubernetes.io/storage-class");
    let class = annotated.unwrap_or_else(|| claim.str_at(&["spec", "storageClassName"]));
    let asked = quantity(claim.at(&["spec", "resources", "requests", "storage"]));
    let given = quantity(claim.at(&["status", "allocatedResources", "storage"]));
    // A volume that could not be shrunk back after a failed expansion still takes what it got.
    let storage = asked.map(|asked| given.map_or(asked, |given| given.max(asked)));
    // Fractions of a byte would make a quota invalid.
    let whole =
        |q: Quantity| if q.is_integer() { q } else { Quantity::from_units(q.units(), Format::DecimalSi) };
    let mut charge = |name: &str, amount: Quantity| {
        if !class.is_empty() {
            usage.insert(format!("{class}{}{name}", source::STORAGE_CLASS), amount);
        }
        usage.insert(name.to_owned(), amount);
    };
    charge("persistentvolumeclaims", count(1));
    if let Some(storage) = storage {
        charge("requests.storage", whole(storage));
    }
}

/// The amounts of a list of resources; what is no quantity is left out.
pub fn quantities(list: &Value) -> impl Iterator<Item = (String, Quantity)> {
    let members = list.as_object().into_iter().flat_map(Map::iter);
    members.filter_map(|(name, v)| Some((name.to_owned(), quantity(v)?)))
}

/// The quantity a value is.
pub fn quantity(v: &Value) -> Option<Quantity> {
    match v.as_i64() {
        Some(n) => Some(Quantity::from_units(n, Format::DecimalSi)),
        None => v.as_str()?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn check(source: &Source, object: Value, want: &[(&str, &str)]) {
        let used = usage(source, &object, Timestamp::UNIX_EPOCH);
        let used: Vec<(&str, String)> = used.iter().map(|(k, q)| (k.as_str(), q.to_string())).collect();
        let used: Vec<(&str, &str)> = used.iter().map(|(k, q)| (*k, q.as_str())).collect();
        assert_eq!(used, want, "{object}");
    }

    #[test]
    fn services_count_the_ports_they_take_of_nodes() {
        let service = |kind: &str, allocate: bool| {
            object!({"spec": {
                "type": kind, "allocateLoadBalancerNodePorts": allocate,
                "ports": [{"port": 1}, {"port": 2, "nodePort": 30000}],
            }})
        };
        let want = |balancers, ports| {
            [
                ("count/services", "1"),
                ("services", "1"),
                ("services.loadbalancers", balancers),
                ("services.nodeports", ports),
            ]
        };
        check(&Source::Services, service("ClusterIP", true), &want("0", "0"));
        check(&Source::Services, service("NodePort", true), &want("0", "2"));
        check(&Source::Services, service("LoadBalancer", true), &want("1", "2"));
        check(&Source::Services, service("LoadBalancer", false), &want("1", "1"));
    }

    #[test]
    fn claims_count_by_class_too() {
        let claim = object!({
            "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"allocatedResources": {"storage": "2Gi"}},
        });
        check(
            &Source::Claims,
            claim,
            &[
                ("count/persistentvolumeclaims", "1"),
                ("fast.storageclass.storage.k8s.io/persistentvolumeclaims", "1"),
                ("fast.storageclass.storage.k8s.io/requests.storage", "2Gi"),
                ("persistentvolumeclaims", "1"),
                ("requests.storage", "2Gi"),
            ],
        );
    }

    #[test]
    fn other_objects_count_by_number() {
        check(&Source::of("", "secrets"), object!({}), &[("count/secrets", "1"), ("secrets", "1")]);
        check(&Source::of("apps", "deployments"), object!({}), &[("count/deployments.apps", "1")]);
    }
}
