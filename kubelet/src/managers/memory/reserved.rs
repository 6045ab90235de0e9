//! How much of each node's memory nobody gets: it is configured, and has to be what the node keeps for itself.

use std::collections::{BTreeMap, BTreeSet};

use api::quantity::{Format, Quantity};

use super::{Amounts, MEMORY, is_managed};
use crate::config::MemoryReservation;
use crate::managers::machine::Machine;

/// Bytes by node and resource.
pub(crate) type Reserved = BTreeMap<usize, Amounts>;

/// The reservations, if they add up to what the node keeps of its memory. The error is a sentence.
pub(crate) fn reserved(
    machine: &Machine,
    reservations: &[MemoryReservation],
    kept_memory: i64,
) -> Result<Reserved, String> {
    let nodes: BTreeSet<_> = machine.nodes.iter().map(|node| node.id).collect();
    let mut all: Reserved = nodes.iter().map(|id| (*id, Amounts::new())).collect();
    let mut totals = BTreeMap::from([(MEMORY, 0_i64)]);
    for reservation in reservations {
        let id = reservation.numa_node;
        let node = usize::try_from(id).ok().and_then(|id| all.get_mut(&id)).ok_or_else(|| {
            format!("the reserved memory configuration references a NUMA node {id} that does not exist on this machine")
        })?;
        for (kind, amount) in reservation.limits.iter().filter(|(kind, _)| is_managed(kind)) {
            let quantity = amount.parse::<Quantity>().map_err(|_| format!("invalid quantity {amount:?}"))?;
            *totals.entry(kind).or_default() += quantity.units();
            let bytes = u64::try_from(quantity.units());
            node.insert(
                kind.clone(),
                bytes.map_err(|_| "could not covert a variable of type Quantity to int64".to_owned())?,
            );
        }
    }
    for (kind, total) in totals {
        let kept = if kind == MEMORY { kept_memory } else { 0 };
        if total != kept {
            let shown = |bytes: i64| match bytes {
                0 => "0".to_owned(),
                bytes => Quantity::from_units(bytes, Format::BinarySi).to_string(),
            };
            return Err(format!(
                "the total amount {:?} of type {kind:?} is not equal to the value {:?} determined by Node Allocatable feature",
                shown(total),
                shown(kept)
            ));
        }
    }
    Ok(all)
}
