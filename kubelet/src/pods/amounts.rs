//! Processor and memory of a container or a pod, in numbers.

use api::quantity::{Format, Quantity};
use api::{Map, Value, object};

use super::resources::amount;

/// Thousandths of a core and bytes; zero is what nobody asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub cpu_request: i64,
    pub cpu_limit: i64,
    pub memory_request: i64,
    pub memory_limit: i64,
}

impl Amounts {
    /// The numbers of a `ResourceRequirements`.
    pub(crate) fn of(requirements: &Value) -> Self {
        let of = |kind, resource| amount(requirements, kind, resource).unwrap_or_default();
        Self {
            cpu_request: of("requests", "cpu"),
            cpu_limit: of("limits", "cpu"),
            memory_request: of("requests", "memory"),
            memory_limit: of("limits", "memory"),
        }
    }

    /// The numbers as a `ResourceRequirements`; what is zero is in it.
    pub(crate) fn to_requirements(self) -> Value {
        let cpu = |n: i64| Quantity::from_millis(n).to_string();
        let memory = |n: i64| Quantity::from_units(n, Format::BinarySi).to_string();
        object!({
            "limits": {"cpu": (cpu(self.cpu_limit)), "memory": (memory(self.memory_limit))},
            "requests": {"cpu": (cpu(self.cpu_request)), "memory": (memory(self.memory_request))},
        })
    }
}

/// A container's resources as they are set up: limits that it does not have itself are those of the pod.
pub(crate) fn effective(pod_resources: &Value, resources: &Value) -> Value {
    let mut out = resources.clone();
    for resource in ["cpu", "memory"] {
        let own = amount(resources, "limits", resource).unwrap_or_default();
        if own == 0 && amount(pod_resources, "limits", resource).unwrap_or_default() > 0 {
            out.set(&["limits", resource], pod_resources.at(&["limits", resource]).clone());
        }
    }
    out
}

/// Whether two `ResourceRequirements` mean the same.
pub(crate) fn same(one: &Value, other: &Value) -> bool {
    ["requests", "limits"]
        .iter()
        .all(|kind| same_list(one.get(kind).as_object(), other.get(kind).as_object()))
}

fn same_list(one: Option<&Map>, other: Option<&Map>) -> bool {
    let quantity = |value: &Value| value.as_str().and_then(|text| text.parse::<Quantity>().ok());
    let length = |map: Option<&Map>| map.map_or(0, Map::len);
    let mut pairs = one.into_iter().flat_map(Map::iter);
    length(one) == length(other)
        && pairs.all(|(name, value)| {
            other
                .and_then(|other| other.get(name))
                .is_some_and(|same| same == value || quantity(same) == quantity(value))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_compared_by_what_they_mean() {
        let of = |cpu: &str| object!({"requests": {"cpu": cpu}});
        assert!(same(&of("1"), &of("1000m")));
        assert!(!same(&of("1"), &of("1001m")));
        assert!(same(&Value::Null, &object!({"limits": {}})));
        assert!(!same(&of("1"), &object!({"limits": {"cpu": "1"}})));
    }

    #[test]
    fn limits_of_the_pod_stand_for_those_a_container_lacks() {
        let pod = object!({"limits": {"cpu": "2", "memory": "1Gi"}});
        let own = object!({"requests": {"cpu": "1"}, "limits": {"memory": "64Mi"}});
        let amounts = Amounts::of(&effective(&pod, &own));
        let expected =
            Amounts { cpu_request: 1000, cpu_limit: 2000, memory_request: 0, memory_limit: 64 << 20 };
        assert_eq!(amounts, expected);
        assert_eq!(Amounts::of(&amounts.to_requirements()), expected);
    }
}
