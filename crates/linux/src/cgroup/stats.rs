//! What a control group uses.

use std::fs;
use std::path::Path;

use super::Cgroups;

/// The use of a group's resources; zero where the kernel does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since the group was made, in nanoseconds.
    pub cpu_nanoseconds: u64,
    /// Memory in use, page cache included.
    pub memory: u64,
    /// Memory in use that cannot simply be dropped: `memory` without the inactive file pages.
    pub working_set: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// The number of processes and threads.
    pub pids: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Page faults that had to read.
    pub major_page_faults: u64,
}

pub(super) fn read(groups: &Cgroups, group: &str) -> Usage {
    let text = |controller: &str, file: &str| {
        let path = groups.directory(controller, group).map(|directory| directory.join(file));
        path.and_then(|path| read_file(&path)).unwrap_or_default()
    };
    let stat = text("memory", "memory.stat");
    let (memory, cpu, names) = if groups.is_v2() {
        let cpu = field(&text("cpu", "cpu.stat"), "usage_usec") * 1000;
        (number(&text("memory", "memory.current")), cpu, ["inactive_file", "anon", "pgfault", "pgmajfault"])
    } else {
        let cpu = number(&text("cpuacct", "cpuacct.usage"));
        let names = ["total_inactive_file", "total_rss", "total_pgfault", "total_pgmajfault"];
        (number(&text("memory", "memory.usage_in_bytes")), cpu, names)
    };
    let [inactive, rss, faults, major] = names.map(|name| field(&stat, name));
    Usage {
        cpu_nanoseconds: cpu,
        memory,
        working_set: memory.saturating_sub(inactive),
        rss,
        pids: number(&text("pids", "pids.current")),
        page_faults: faults,
        major_page_faults: major,
    }
}

fn read_file(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_default()
}

fn field(text: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(field, _)| *field == name).map_or(0, |(_, value)| number(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_of_version_two_is_read_from_its_files() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("kubepods");
        fs::create_dir(&group).unwrap();
        fs::write(group.join("cpu.stat"), "usage_usec 7\nuser_usec 3\n").unwrap();
        fs::write(group.join("memory.current"), "1000\n").unwrap();
        fs::write(group.join("memory.stat"), "anon 600\ninactive_file 300\npgfault 5\n").unwrap();
        let usage = read(&Cgroups::V2 { root: root.path().to_owned() }, "/kubepods");
        let expected = Usage {
            cpu_nanoseconds: 7000,
            memory: 1000,
            working_set: 700,
            rss: 600,
            page_faults: 5,
            ..Usage::default()
        };
        assert_eq!(usage, expected);
    }
}
