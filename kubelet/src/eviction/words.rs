//! What is said to those who have to go, in upstream's words.

use api::Value;
use api::quantity::{Format, Quantity};

use super::thresholds::{Signal, Threshold};
use super::tracker::Observations;
use super::usage::PodUsage;
use crate::pods::spec;

fn bytes(n: i64) -> String {
    Quantity::from_units(n, Format::BinarySi).to_string()
}

/// Why a pod has to go: what is short, by how much, and which of its containers use more than they asked for.
pub(super) fn message(
    signal: Signal,
    pod: &Value,
    usage: Option<&PodUsage>,
    thresholds: &[Threshold],
    observations: &Observations,
) -> String {
    let resource = signal.resource();
    let mut out = format!("The node was low on resource: {resource}. ");
    let found = thresholds.iter().filter(|threshold| threshold.signal.resource() == resource);
    let mut found = found.filter_map(|threshold| Some((threshold, observations.get(&threshold.signal)?)));
    if let Some((threshold, observed)) = found.next() {
        let format = if matches!(resource, "inodes" | "pids") { Format::DecimalSi } else { Format::BinarySi };
        let available = Quantity::from_units(observed.available, format);
        let quantity = threshold.value.of(observed.capacity);
        out += &format!("Threshold quantity: {quantity}, available: {available}. ");
    }
    let Some(usage) = usage else { return out };
    let whole = pod.at(&["spec", "resources", "requests", resource]);
    if resource == "memory"
        && let Some(request) = whole.as_str()
    {
        let (name, used) = (pod.name(), bytes(usage.memory));
        out +=
            &format!("Pod {name} was using {used}, request is {request}, has larger consumption of memory. ");
    }
    for container in &usage.containers {
        let used = match resource {
            "memory" => container.memory,
            "ephemeral-storage" => Some(container.layer.bytes + container.logs.bytes),
            _ => None,
        };
        let Some(definition) = spec::container(pod, &container.name) else { continue };
        let request = definition.at(&["resources", "requests", resource]).as_str().unwrap_or("0");
        let asked = request.parse::<Quantity>().map_or(0, |request| request.units());
        if let Some(used) = used.filter(|used| *used > asked) {
            out += &format!(
                "Container {} was using {}, request is {request}, has larger consumption of {resource}. ",
                container.name,
                bytes(used)
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use api::object;

    use super::super::thresholds::Amount;
    use super::super::tracker::Observation;
    use super::super::usage::ContainerUsage;
    use super::*;

    #[test]
    fn a_victim_is_told_why() {
        let value = Amount::Fixed("100Mi".parse().unwrap());
        let threshold = Threshold { signal: Signal::Memory, value, grace: Duration::ZERO, reclaim: None };
        let observed = Observation { available: 50 << 20, capacity: 1 << 30 };
        let pod =
            object!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"memory": "10Mi"}}}]}});
        let container = ContainerUsage { name: "c".to_owned(), memory: Some(20 << 20), ..Default::default() };
        let usage = PodUsage { containers: vec![container], ..Default::default() };
        let said =
            message(Signal::Memory, &pod, Some(&usage), &[threshold], &[(Signal::Memory, observed)].into());
        assert_eq!(
            said,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. \
             Container c was using 20Mi, request is 10Mi, has larger consumption of memory. "
        );
    }
}
