//! Memory and huge pages of NUMA nodes that containers of guaranteed pods have for themselves. Decisions alone; files are
//! `checkpoint`'s.

mod allocate;
pub(crate) mod checkpoint;
mod hints;
mod reserved;

use std::collections::BTreeMap;

use api::Value;
use api::quantity::Quantity;
use linux::hugepages::HugePages;
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use crate::pods::spec;

pub(crate) use allocate::Reusable;
pub(crate) use reserved::{Reserved, reserved};

/// The resource that every node has.
const MEMORY: &str = "memory";

/// Bytes by resource: memory, and huge pages of each size.
pub(crate) type Amounts = BTreeMap<String, u64>;

/// A part of the memory of some nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Block {
    pub(crate) numa_affinity: Vec<usize>,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) size: u64,
}

/// What a node has of one kind of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    total: u64,
    system_reserved: u64,
    allocatable: u64,
    reserved: u64,
    free: u64,
}

impl Table {
    fn of(total: u64, system_reserved: u64, otherwise: u64) -> Self {
        let allocatable = total.saturating_sub(system_reserved).saturating_sub(otherwise);
        Self { total, system_reserved, allocatable, reserved: 0, free: allocatable }
    }

    /// Takes what there is of an amount; what is missing.
    fn take(&mut self, amount: u64) -> u64 {
        let taken = amount.min(self.free);
        self.free -= taken;
        self.reserved += taken;
        amount - taken
    }

    /// Gives back what was taken of an amount; what was not.
    fn give_back(&mut self, amount: u64) -> u64 {
        let given = amount.min(self.reserved);
        self.free += given;
        self.reserved -= given;
        amount - given
    }
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeState {
    number_of_assignments: i64,
    memory_map: BTreeMap<String, Table>,
    /// The nodes whose memory is given away together.
    cells: Vec<usize>,
}

type Nodes = BTreeMap<usize, NodeState>;

/// Who has which memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    nodes: Nodes,
    pods: BTreeMap<String, BTreeMap<String, Vec<Block>>>,
}

impl State {
    /// What a container has.
    pub(crate) fn of(&self, uid: &str, container: &str) -> Option<&[Block]> {
        self.pods.get(uid)?.get(container).map(Vec::as_slice)
    }

    /// Whether a container of the pod has something.
    pub(crate) fn knows(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// The pods whose containers have something.
    pub(crate) fn uids(&self) -> impl Iterator<Item = &String> {
        self.pods.keys()
    }

    /// Takes back what the containers of a pod have; false when they had nothing.
    pub(crate) fn forget(&mut self, uid: &str) -> bool {
        let Some(containers) = self.pods.remove(uid) else { return false };
        containers.values().for_each(|blocks| release(&mut self.nodes, blocks));
        true
    }

    /// Takes back what a container has.
    fn forget_container(&mut self, uid: &str, container: &str) -> bool {
        let Some(containers) = self.pods.get_mut(uid) else { return false };
        let Some(blocks) = containers.remove(container) else { return false };
        if containers.is_empty() {
            self.pods.remove(uid);
        }
        release(&mut self.nodes, &blocks);
        true
    }

    /// Init containers have ended when one that comes after them starts: what they have is taken back. False when they had
    /// nothing.
    pub(crate) fn started(&mut self, pod: &Value, container: &str) -> bool {
        let before = spec::init_containers(pod).iter().take_while(|init| init.str_at(&["name"]) != container);
        let mut ended = before.filter(|init| !spec::is_sidecar(init));
        ended.by_ref().fold(false, |any, init| self.forget_container(pod.uid(), init.str_at(&["name"])) | any)
    }

    /// What can be given away in all.
    pub(crate) fn allocatable(&self) -> Vec<Block> {
        let of = |(id, node): (&usize, &NodeState)| -> Vec<Block> {
            let some = node.memory_map.iter().filter(|(_, table)| table.allocatable > 0);
            let block = |(kind, table): (&String, &Table)| Block {
                numa_affinity: vec![*id],
                kind: kind.clone(),
                size: table.allocatable,
            };
            some.map(block).collect()
        };
        self.nodes.iter().flat_map(of).collect()
    }
}

/// Takes a block of the nodes, one after the other.
fn occupy(nodes: &mut Nodes, affinity: &[usize], kind: &str, amount: u64) {
    let mut missing = amount;
    for id in affinity {
        let Some(node) = nodes.get_mut(id) else { continue };
        node.number_of_assignments += 1;
        node.cells = affinity.to_vec();
        if let Some(table) = node.memory_map.get_mut(kind) {
            missing = table.take(missing);
        }
    }
}

fn release(nodes: &mut Nodes, blocks: &[Block]) {
    for block in blocks {
        let mut left = block.size;
        for id in &block.numa_affinity {
            let Some(node) = nodes.get_mut(id) else { continue };
            node.number_of_assignments -= 1;
            if node.number_of_assignments == 0 {
                node.cells = vec![*id];
            }
            if let Some(table) = node.memory_map.get_mut(&block.kind) {
                left = table.give_back(left);
            }
        }
    }
}

fn is_managed(resource: &str) -> bool {
    resource == MEMORY || resource.starts_with("hugepages-")
}

/// Whether containers of the pod get memory of their own.
fn concerns(pod: &Value) -> bool {
    spec::qos(pod) == "Guaranteed" && !super::has_own_resources(pod)
}

/// What a container asks for. The error is a sentence.
fn wanted(container: &Value) -> Result<Amounts, String> {
    let requests = container.at(&["resources", "requests"]).as_object();
    let limits = container.at(&["resources", "limits"]).as_object();
    let mut all = Amounts::new();
    // A request that is not made is that of the limit.
    for (name, amount) in limits.into_iter().chain(requests).flat_map(|list| list.iter()) {
        if is_managed(name) {
            let quantity = amount.as_str().and_then(|text| text.parse::<Quantity>().ok());
            let bytes = quantity.and_then(|quantity| u64::try_from(quantity.units()).ok());
            let bytes = bytes.ok_or("[memorymanager] failed to represent quantity as int64")?;
            all.insert(name.to_owned(), bytes);
        }
    }
    Ok(all)
}

/// What a pod has at any one time.
fn wanted_by_pod(pod: &Value) -> Result<Amounts, String> {
    let (mut init, mut sidecars, mut mains) = (Amounts::new(), Amounts::new(), Amounts::new());
    for container in spec::init_containers(pod) {
        for (kind, amount) in wanted(container)? {
            let running = sidecars.entry(kind.clone()).or_default();
            match spec::is_sidecar(container) {
                true => *running += amount,
                false => {
                    let most = init.entry(kind).or_default();
                    *most = (*most).max(*running + amount);
                }
            }
        }
    }
    for container in spec::containers(pod) {
        for (kind, amount) in wanted(container)? {
            *mains.entry(kind).or_default() += amount;
        }
    }
    let of = |list: &Amounts, kind: &str| list.get(kind).copied().unwrap_or_default();
    let most = |(kind, amount): (String, u64)| {
        let amount = (amount + of(&sidecars, &kind)).max(of(&init, &kind));
        (kind, amount)
    };
    Ok(mains.into_iter().map(most).collect())
}

/// The static policy: containers of guaranteed pods get memory of as few nodes as can be.
#[derive(Debug, Clone)]
pub(crate) struct Static {
    /// The nodes when nobody has anything.
    empty: Nodes,
}

impl Static {
    /// The policy for a machine of whose nodes so much is reserved. The error is a sentence.
    pub(crate) fn new(machine: &Machine, reserved: &Reserved) -> Result<Self, String> {
        let total: u64 = reserved.values().filter_map(|amounts| amounts.get(MEMORY)).sum();
        if total == 0 {
            return Err("[memorymanager] you should specify the system reserved memory".to_owned());
        }
        let mut empty = Nodes::new();
        for node in &machine.nodes {
            let kept = |kind: &str| {
                reserved.get(&node.id).and_then(|amounts| amounts.get(kind)).copied().unwrap_or_default()
            };
            let mut tables = BTreeMap::new();
            for pages in &node.huge_pages {
                let kind = format!("hugepages-{}", pages.resource_size());
                let table = Table::of(pages.bytes(), kept(&kind), 0);
                tables.insert(kind, table);
            }
            let huge = node.huge_pages.iter().map(HugePages::bytes).sum();
            tables.insert(MEMORY.to_owned(), Table::of(node.memory, kept(MEMORY), huge));
            let state = NodeState { number_of_assignments: 0, memory_map: tables, cells: vec![node.id] };
            empty.insert(node.id, state);
        }
        Ok(Self { empty })
    }

    /// Sets up a state that is new, and refuses one that does not fit the machine. The error is a sentence.
    pub(crate) fn check(&self, state: &mut State) -> Result<(), String> {
        if state.nodes.is_empty() {
            if !state.pods.is_empty() {
                return Err("[memorymanager] machine state can not be empty when it has memory assignments"
                    .to_owned());
            }
            state.nodes = self.empty.clone();
            return Ok(());
        }
        let mut expected = self.empty.clone();
        for (pod, containers) in &state.pods {
            for (container, blocks) in containers {
                for block in blocks {
                    let place = format!(
                        "[memorymanager] (pod: {pod}, container: {container}) the memory assignment uses"
                    );
                    for id in &block.numa_affinity {
                        let node = expected
                            .get(id)
                            .ok_or_else(|| format!("{place} the NUMA that does not exist"))?;
                        if !node.memory_map.contains_key(&block.kind) {
                            return Err(format!("{place} memory resource that does not exist"));
                        }
                    }
                    occupy(&mut expected, &block.numa_affinity, &block.kind, block.size);
                }
            }
        }
        match same(&state.nodes, &expected) {
            true => Ok(()),
            false => {
                Err("[memorymanager] the expected machine state is different from the real one".to_owned())
            }
        }
    }
}

/// Whether nodes are in the same state. In which of the nodes of a group something is does not matter.
fn same(one: &Nodes, other: &Nodes) -> bool {
    let sum = |nodes: &Nodes, cells: &[usize], kind: &str| {
        let tables = cells.iter().filter_map(|id| nodes.get(id)?.memory_map.get(kind));
        tables.fold((0, 0), |(free, reserved), table| (free + table.free, reserved + table.reserved))
    };
    let sorted = |cells: &[usize]| {
        let mut cells = cells.to_vec();
        cells.sort_unstable();
        cells
    };
    one.keys().eq(other.keys())
        && one.values().zip(other.values()).all(|(left, right)| {
            let cells = sorted(&left.cells);
            let tables = left.memory_map.iter().zip(&right.memory_map);
            left.number_of_assignments == right.number_of_assignments
                && cells == sorted(&right.cells)
                && left.memory_map.len() == right.memory_map.len()
                && tables.into_iter().all(|((kind, a), (same, b))| {
                    kind == same
                        && (a.total, a.system_reserved, a.allocatable)
                            == (b.total, b.system_reserved, b.allocatable)
                        && sum(one, &cells, kind) == sum(other, &cells, kind)
                })
        })
}

#[cfg(test)]
mod tests;
