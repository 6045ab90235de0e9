//! `memory_manager_state`: who has which memory, in upstream's format.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Block, NodeState, Nodes, State, Table};
use crate::checkpoint::{self, Dump};

/// The name of the file in the kubelet's folder.
pub(crate) const FILE: &str = "memory_manager_state";

type Entries = BTreeMap<String, BTreeMap<String, Vec<Block>>>;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    policy_name: String,
    machine_state: Nodes,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    entries: Entries,
    checksum: u64,
}

/// The names of the type that is hashed: what upstream writes, and what its v1.36 may have written.
const TYPES: [&str; 2] = ["*state.MemoryManagerCheckpoint", "*state.MemoryManagerCheckpointV1"];

fn text(text: &str) -> Dump {
    Dump::Text(text.to_owned())
}

fn numbers(numbers: &[usize]) -> Dump {
    let numbers = numbers.iter().map(|number| Dump::Number("int", *number as i128));
    Dump::List("[]int", Some(numbers.collect()))
}

fn of_table(table: &Table) -> Dump {
    let number = |number: u64| Dump::Number("uint64", number.into());
    let fields = vec![
        ("TotalMemSize", number(table.total)),
        ("SystemReserved", number(table.system_reserved)),
        ("Allocatable", number(table.allocatable)),
        ("Reserved", number(table.reserved)),
        ("Free", number(table.free)),
    ];
    Dump::Pointer("*state.MemoryTable", Box::new(Dump::Struct("state.MemoryTable", fields)))
}

fn of_node(node: &NodeState) -> Dump {
    let tables = node.memory_map.iter().map(|(kind, table)| (text(kind), of_table(table)));
    let fields = vec![
        ("NumberOfAssignments", Dump::Number("int", node.number_of_assignments.into())),
        ("MemoryMap", Dump::Map("map[v1.ResourceName]*state.MemoryTable", Some(tables.collect()))),
        ("Cells", numbers(&node.cells)),
    ];
    Dump::Pointer("*state.NUMANodeState", Box::new(Dump::Struct("state.NUMANodeState", fields)))
}

fn of_block(block: &Block) -> Dump {
    let fields = vec![
        ("NUMAAffinity", numbers(&block.numa_affinity)),
        ("Type", Dump::Named("v1.ResourceName", block.kind.clone())),
        ("Size", Dump::Number("uint64", block.size.into())),
    ];
    Dump::Struct("state.Block", fields)
}

impl File {
    fn checksum(&self, kind: &'static str) -> u64 {
        let nodes =
            self.machine_state.iter().map(|(id, node)| (Dump::Number("int", *id as i128), of_node(node)));
        let blocks =
            |blocks: &Vec<Block>| Dump::List("[]state.Block", Some(blocks.iter().map(of_block).collect()));
        let containers = |containers: &BTreeMap<String, Vec<Block>>| {
            let all = containers.iter().map(|(name, all)| (text(name), blocks(all)));
            Dump::Map("map[string][]state.Block", Some(all.collect()))
        };
        let pods = self.entries.iter().map(|(pod, inner)| (text(pod), containers(inner)));
        let fields = vec![
            ("PolicyName", text(&self.policy_name)),
            ("MachineState", Dump::Map("state.NUMANodeMap", Some(nodes.collect()))),
            ("Entries", Dump::Map("state.ContainerMemoryAssignments", Some(pods.collect()))),
            ("Checksum", Dump::Number("checksum.Checksum", 0)),
        ];
        checkpoint::checksum(&Dump::Struct(kind, fields).print())
    }
}

/// The text of the file.
pub(crate) fn encode(policy: &str, state: &State) -> Result<String, String> {
    let mut file = File {
        policy_name: policy.to_owned(),
        machine_state: state.nodes.clone(),
        entries: state.pods.clone(),
        checksum: 0,
    };
    file.checksum = file.checksum(TYPES[0]);
    serde_json::to_string(&file).map_err(|error| error.to_string())
}

/// What a file holds, if it is one of this policy.
pub(crate) fn decode(text: &str, policy: &str) -> Result<State, String> {
    let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if file.checksum != 0 && !TYPES.into_iter().any(|kind| file.checksum(kind) == file.checksum) {
        return Err("checkpoint is corrupted".to_owned());
    }
    if file.policy_name != policy {
        return Err(format!(
            "[memorymanager] configured policy {policy:?} differs from state checkpoint policy {:?}",
            file.policy_name
        ));
    }
    Ok(State { nodes: file.machine_state, pods: file.entries })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What upstream has written.
    const UPSTREAM: &str = r#"{"policyName":"static","machineState":{"0":{"numberOfAssignments":0,"memoryMap":{"memory":{"total":2048,"systemReserved":512,"allocatable":1536,"reserved":512,"free":1024}},"cells":[]}},"entries":{"pod":{"container1":[{"numaAffinity":[0],"type":"memory","size":512}]}},"checksum":4215593881}"#;

    #[test]
    fn files_of_upstream_are_read_and_written_alike() {
        let state = decode(UPSTREAM, "static").unwrap();
        assert_eq!(state.of("pod", "container1").unwrap()[0].size, 512);
        assert_eq!(encode("static", &state).unwrap(), UPSTREAM);
    }

    #[test]
    fn files_that_cannot_be_used_are_refused_in_upstreams_words() {
        let broken = UPSTREAM.replace("1536", "1537");
        assert_eq!(decode(&broken, "static").unwrap_err(), "checkpoint is corrupted");
        let message =
            "[memorymanager] configured policy \"None\" differs from state checkpoint policy \"static\"";
        assert_eq!(decode(UPSTREAM, "None").unwrap_err(), message);
        assert!(decode("{", "None").is_err());
    }
}
