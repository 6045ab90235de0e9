//! How the machine's processors and memory lie: packages, cores, caches, NUMA nodes, as `/sys` tells.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use linux::hugepages::HugePages;

use super::cpuset::CpuSet;

/// Where the kernel tells of its devices.
pub(crate) const SYS: &str = "/sys/devices/system";

/// Something that processors share, from the widest to the narrowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// A NUMA node.
    Node,
    /// A package.
    Socket,
    /// The last cache that not the whole node shares; the package where there is none.
    Uncore,
    /// A core, with its threads.
    Core,
}

/// Where a processor is: a number for each level. A core is called by the first of its threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) node: usize,
    pub(crate) socket: usize,
    pub(crate) uncore: usize,
    pub(crate) core: usize,
}

impl Place {
    pub(crate) fn at(self, level: Level) -> usize {
        match level {
            Level::Node => self.node,
            Level::Socket => self.socket,
            Level::Uncore => self.uncore,
            Level::Core => self.core,
        }
    }
}

/// A NUMA node.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Node {
    pub(crate) id: usize,
    /// Bytes.
    pub(crate) memory: u64,
    pub(crate) huge_pages: Vec<HugePages>,
    /// How far the other nodes are, in the order of their numbers; empty when the kernel does not say.
    pub(crate) distances: Vec<u64>,
}

/// The machine.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Machine {
    /// The nodes, by their numbers.
    pub(crate) nodes: Vec<Node>,
    /// The processors that are on.
    pub(crate) cpus: BTreeMap<usize, Place>,
}

impl Machine {
    /// Reads what the kernel tells. A machine whose kernel knows nothing of NUMA has a node for each package, and all memory
    /// in the first.
    pub(crate) fn read(root: &Path, memory: u64) -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        let mut of_cpu = BTreeMap::new();
        for (id, dir) in numbered(&root.join("node"), "node") {
            let cpus = online_in(root, &dir);
            of_cpu.extend(cpus.iter().map(|cpu| (cpu, id)));
            nodes.push(node(id, &dir)?);
        }
        let mut places = BTreeMap::new();
        for (cpu, dir) in numbered(&root.join("cpu"), "cpu") {
            if is_online(&dir) {
                places.insert(cpu, place(cpu, &dir, of_cpu.get(&cpu).copied())?);
            }
        }
        if places.is_empty() {
            bail!("could not detect number of cpus");
        }
        let mut machine = Self { nodes, cpus: places };
        machine.find_caches(root);
        if machine.nodes.is_empty() {
            let ids = machine.ids(Level::Node);
            machine.nodes = ids.into_iter().map(|id| Node { id, ..Node::default() }).collect();
            if let Some(first) = machine.nodes.first_mut() {
                first.memory = memory;
                first.huge_pages = linux::hugepages::read(Path::new(HugePages::ROOT));
            }
        }
        Ok(machine)
    }

    /// Looks for the caches that several cores share, but not all of a node.
    fn find_caches(&mut self, root: &Path) {
        let sizes: BTreeMap<usize, usize> =
            self.ids(Level::Node).into_iter().map(|id| (id, self.of(Level::Node, id).len())).collect();
        for (cpu, place) in &mut self.cpus {
            let dir = root.join("cpu").join(format!("cpu{cpu}")).join("cache");
            let shared = numbered(&dir, "index").into_iter().find_map(|(_, dir)| {
                let level: usize = read_number(&dir.join("level"))?;
                let sharers: CpuSet = read_text(&dir.join("shared_cpu_list"))?.parse().ok()?;
                let whole = sizes.get(&place.node) == Some(&sharers.len());
                (level > 2 && !whole).then(|| read_number(&dir.join("id"))).flatten()
            });
            place.uncore = shared.unwrap_or(place.socket);
        }
    }

    /// All processors.
    pub(crate) fn all(&self) -> CpuSet {
        self.cpus.keys().copied().collect()
    }

    /// The numbers of all that there are of a level.
    pub(crate) fn ids(&self, level: Level) -> BTreeSet<usize> {
        self.cpus.values().map(|place| place.at(level)).collect()
    }

    /// All processors of one of a level.
    pub(crate) fn of(&self, level: Level, id: usize) -> CpuSet {
        self.cpus.iter().filter(|(_, place)| place.at(level) == id).map(|(cpu, _)| *cpu).collect()
    }

    /// How many processors one of a level has, were they spread evenly; zero when there is none of it.
    pub(crate) fn per(&self, level: Level) -> usize {
        self.cpus.len().checked_div(self.ids(level).len()).unwrap_or_default()
    }
}

/// The folders `nameN` of a folder, by their numbers.
fn numbered(dir: &Path, name: &str) -> Vec<(usize, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let parse = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.strip_prefix(name)?.parse().ok()?;
        Some((number, entry.path()))
    };
    let mut found: Vec<_> = entries.filter_map(parse).collect();
    found.sort_unstable();
    found
}

fn read_text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn read_number<T: std::str::FromStr>(path: &Path) -> Option<T> {
    read_text(path)?.parse().ok()
}

/// The first processor has no file for that: it cannot be turned off.
fn is_online(dir: &Path) -> bool {
    read_text(&dir.join("online")).is_none_or(|text| text == "1")
}

fn online_in(root: &Path, node: &Path) -> CpuSet {
    let cpus = numbered(node, "cpu").into_iter().map(|(cpu, _)| cpu);
    cpus.filter(|cpu| is_online(&root.join("cpu").join(format!("cpu{cpu}")))).collect()
}

fn place(cpu: usize, dir: &Path, node: Option<usize>) -> anyhow::Result<Place> {
    let topology = dir.join("topology");
    // Machines without packages, virtual ones among them, say -1.
    let socket = read_number::<i64>(&topology.join("physical_package_id"));
    let socket = socket.and_then(|id| usize::try_from(id).ok()).unwrap_or_default();
    let siblings = read_text(&topology.join("thread_siblings_list")).unwrap_or_else(|| cpu.to_string());
    let siblings: CpuSet = siblings
        .parse()
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("cannot read the threads of processor {cpu}"))?;
    let core = siblings.iter().next().unwrap_or(cpu);
    Ok(Place { node: node.unwrap_or(socket), socket, uncore: socket, core })
}

fn node(id: usize, dir: &Path) -> anyhow::Result<Node> {
    let path = dir.join("meminfo");
    let meminfo = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    // Every line begins with the name of the node.
    let prefix = format!("Node {id} ");
    let lines: Vec<_> = meminfo.lines().map(|line| line.strip_prefix(&prefix).unwrap_or(line)).collect();
    let memory = linux::facts::meminfo_bytes(&lines.join("\n"), "MemTotal").unwrap_or_default();
    let distances = read_text(&dir.join("distance")).unwrap_or_default();
    Ok(Node {
        id,
        memory,
        huge_pages: linux::hugepages::read(&dir.join("hugepages")),
        distances: distances.split_whitespace().filter_map(|distance| distance.parse().ok()).collect(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Lays out a machine as `/sys` would: packages, nodes in each, cores in each, all with two threads whose numbers are
    /// half of all processors apart, and so many cores to a cache.
    pub(crate) fn lay(dir: &Path, sockets: usize, nodes: usize, cores: usize, per_cache: usize) {
        let total = sockets * nodes * cores;
        let write = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for cpu in 0..2 * total {
            let (core, thread) = (cpu % total, cpu / total);
            let node = core / cores;
            let cpu_dir = dir.join(format!("cpu/cpu{cpu}"));
            write(cpu_dir.join("topology/physical_package_id"), &format!("{}\n", node / nodes));
            let siblings = format!("{core},{}\n", core + total);
            write(cpu_dir.join("topology/thread_siblings_list"), &siblings);
            let cache = core / per_cache;
            let first = cache * per_cache;
            let last = first + per_cache - 1;
            let sharers = format!("{first}-{last},{}-{}\n", first + total, last + total);
            for (index, level, sharers) in [(0, 1, &siblings), (3, 3, &sharers)] {
                let cache_dir = cpu_dir.join(format!("cache/index{index}"));
                write(cache_dir.join("level"), &format!("{level}\n"));
                write(cache_dir.join("shared_cpu_list"), sharers);
                write(cache_dir.join("id"), &format!("{cache}\n"));
            }
            let node_dir = dir.join(format!("node/node{node}"));
            fs::create_dir_all(node_dir.join(format!("cpu{cpu}"))).unwrap();
            if thread == 0 {
                write(node_dir.join("meminfo"), &format!("Node {node} MemTotal:  1048576 kB\n"));
                write(node_dir.join("hugepages/hugepages-2048kB/nr_hugepages"), "64\n");
                let distance = |other: usize| if other == node { "10" } else { "21" };
                let distances: Vec<_> = (0..sockets * nodes).map(distance).collect();
                write(node_dir.join("distance"), &distances.join(" "));
            }
        }
    }

    /// What is read of such a machine.
    pub(crate) fn machine(sockets: usize, nodes: usize, cores: usize, per_cache: usize) -> Machine {
        let total = sockets * nodes * cores;
        let place = |cpu: usize| {
            let core = cpu % total;
            let (node, socket) = (core / cores, core / cores / nodes);
            let uncore = if per_cache == cores { socket } else { core / per_cache };
            (cpu, Place { node, socket, uncore, core })
        };
        let node = |id: usize| Node {
            id,
            memory: 1 << 30,
            huge_pages: vec![HugePages { size: 2 << 20, count: 64 }],
            distances: (0..sockets * nodes).map(|other| if other == id { 10 } else { 21 }).collect(),
        };
        Machine { nodes: (0..sockets * nodes).map(node).collect(), cpus: (0..2 * total).map(place).collect() }
    }

    #[test]
    fn machines_of_many_shapes_are_read() {
        for [sockets, nodes, cores, per_cache] in [[1, 1, 1, 1], [2, 1, 4, 2], [2, 2, 2, 1], [2, 2, 3, 3]] {
            let dir = tempfile::tempdir().unwrap();
            lay(dir.path(), sockets, nodes, cores, per_cache);
            let read = Machine::read(dir.path(), 0).unwrap();
            assert_eq!(read, machine(sockets, nodes, cores, per_cache));
        }
    }

    #[test]
    fn a_machine_with_two_packages_is_read() {
        let machine = machine(2, 1, 4, 2);
        assert_eq!(machine.all().to_string(), "0-15");
        assert_eq!(machine.of(Level::Socket, 1).to_string(), "4-7,12-15");
        assert_eq!(machine.of(Level::Node, 1), machine.of(Level::Socket, 1));
        assert_eq!(machine.of(Level::Core, 5).to_string(), "5,13");
        assert_eq!(machine.of(Level::Uncore, 1).to_string(), "2-3,10-11");
        assert_eq!([Level::Socket, Level::Core, Level::Uncore].map(|level| machine.per(level)), [8, 2, 4]);
        let node = &machine.nodes[1];
        assert_eq!((node.id, node.memory, node.distances.as_slice()), (1, 1 << 30, [21, 10].as_slice()));
        assert_eq!(node.huge_pages, [HugePages { size: 2 << 20, count: 64 }]);
    }

    #[test]
    fn a_cache_that_the_whole_node_shares_is_none_and_processors_that_are_off_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        lay(dir.path(), 2, 1, 4, 4);
        let whole = Machine::read(dir.path(), 0).unwrap();
        assert_eq!(whole.of(Level::Uncore, 1), whole.of(Level::Socket, 1));
        fs::write(dir.path().join("cpu/cpu15/online"), "0\n").unwrap();
        let machine = Machine::read(dir.path(), 0).unwrap();
        assert_eq!(machine.all().to_string(), "0-14");
        assert_eq!(machine.of(Level::Node, 1).to_string(), "4-7,12-14");
    }

    #[test]
    fn a_kernel_without_nodes_has_one_for_each_package() {
        let dir = tempfile::tempdir().unwrap();
        lay(dir.path(), 2, 1, 2, 2);
        fs::remove_dir_all(dir.path().join("node")).unwrap();
        let machine = Machine::read(dir.path(), 7).unwrap();
        assert_eq!(machine.of(Level::Node, 1).to_string(), "2-3,6-7");
        assert_eq!(machine.nodes.iter().map(|node| node.memory).collect::<Vec<_>>(), [7, 0]);
        assert!(Machine::read(&dir.path().join("nothing"), 7).is_err());
    }

    #[test]
    fn this_machine_is_read() {
        let machine = Machine::read(Path::new(SYS), 1).unwrap();
        assert!(!machine.cpus.is_empty() && machine.nodes.iter().any(|node| node.memory > 0));
        assert!(machine.per(Level::Core) > 0);
    }
}
