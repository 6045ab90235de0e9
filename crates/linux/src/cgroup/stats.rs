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
    /// Processor time outside of the kernel, in nanoseconds.
    pub user_nanoseconds: u64,
    /// Processor time inside of the kernel, in nanoseconds.
    pub system_nanoseconds: u64,
    /// Periods in which the group had work, with a limit of processor time.
    pub periods: u64,
    /// Periods in which the limit was reached.
    pub throttled_periods: u64,
    /// The time that was spent waiting for the next period, in nanoseconds.
    pub throttled_nanoseconds: u64,
    /// Page cache.
    pub cache: u64,
    /// Files that are mapped into memory.
    pub mapped_files: u64,
    /// Swap.
    pub swap: u64,
    /// The most memory that was in use; zero on version 2, where the kernel does not say everywhere.
    pub most_memory: u64,
    /// How often the memory's limit was reached.
    pub memory_failures: u64,
    /// File pages that were used lately.
    pub active_file: u64,
    /// File pages that were not.
    pub inactive_file: u64,
    /// Memory of the kernel for the group; none where the kernel does not say.
    pub kernel: Option<u64>,
    /// How often a process was killed for want of memory; none where the kernel does not say.
    pub oom_kills: Option<u64>,
}

/// Version 1 counts a group's times in these.
const TICK_NANOSECONDS: u64 = 10_000_000;

pub(super) fn read(groups: &Cgroups, group: &str) -> Usage {
    let text = |controller: &str, file: &str| {
        let path = groups.directory(controller, group).map(|directory| directory.join(file));
        path.and_then(|path| read_file(&path)).unwrap_or_default()
    };
    let stat = text("memory", "memory.stat");
    let cpu_stat = text("cpu", "cpu.stat");
    let common = Usage {
        pids: number(&text("pids", "pids.current")),
        periods: field(&cpu_stat, "nr_periods"),
        throttled_periods: field(&cpu_stat, "nr_throttled"),
        ..Usage::default()
    };
    let of_memory = |memory: u64, names: [&str; 8]| {
        let [inactive, rss, faults, major, cache, mapped, swap, active] =
            names.map(|name| field(&stat, name));
        Usage {
            memory,
            working_set: memory.saturating_sub(inactive),
            rss,
            page_faults: faults,
            major_page_faults: major,
            cache,
            mapped_files: mapped,
            swap,
            active_file: active,
            inactive_file: inactive,
            ..common
        }
    };
    if groups.is_v2() {
        let micro = |name| field(&cpu_stat, name) * 1000;
        let names =
            ["inactive_file", "anon", "pgfault", "pgmajfault", "file", "file_mapped", "", "active_file"];
        let events = text("memory", "memory.events");
        return Usage {
            cpu_nanoseconds: micro("usage_usec"),
            user_nanoseconds: micro("user_usec"),
            system_nanoseconds: micro("system_usec"),
            throttled_nanoseconds: micro("throttled_usec"),
            swap: swap(groups, group),
            most_memory: number(&text("memory", "memory.peak")),
            memory_failures: field(&events, "max"),
            kernel: known(&stat, "kernel"),
            oom_kills: known(&events, "oom_kill"),
            ..of_memory(number(&text("memory", "memory.current")), names)
        };
    }
    let times = text("cpuacct", "cpuacct.stat");
    let names = [
        "total_inactive_file",
        "total_rss",
        "total_pgfault",
        "total_pgmajfault",
        "total_cache",
        "total_mapped_file",
        "total_swap",
        "total_active_file",
    ];
    let kernel = text("memory", "memory.kmem.usage_in_bytes");
    Usage {
        cpu_nanoseconds: number(&text("cpuacct", "cpuacct.usage")),
        user_nanoseconds: field(&times, "user") * TICK_NANOSECONDS,
        system_nanoseconds: field(&times, "system") * TICK_NANOSECONDS,
        throttled_nanoseconds: field(&cpu_stat, "throttled_time"),
        most_memory: number(&text("memory", "memory.max_usage_in_bytes")),
        memory_failures: number(&text("memory", "memory.failcnt")),
        kernel: kernel.trim().parse().ok(),
        oom_kills: known(&text("memory", "memory.oom_control"), "oom_kill"),
        ..of_memory(number(&text("memory", "memory.usage_in_bytes")), names)
    }
}

/// The swap alone.
pub(super) fn swap(groups: &Cgroups, group: &str) -> u64 {
    let file = if groups.is_v2() { "memory.swap.current" } else { "memory.stat" };
    let text = groups.directory("memory", group).and_then(|directory| read_file(&directory.join(file)));
    let text = text.unwrap_or_default();
    if groups.is_v2() { number(&text) } else { field(&text, "total_swap") }
}

fn read_file(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_default()
}

fn field(text: &str, name: &str) -> u64 {
    known(text, name).unwrap_or_default()
}

/// A field that may not be there.
fn known(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(field, _)| *field == name).map(|(_, value)| number(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_of_version_two_is_read_from_its_files() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("kubepods");
        fs::create_dir(&group).unwrap();
        fs::write(group.join("cpu.stat"), "usage_usec 7\nuser_usec 3\nnr_throttled 2\n").unwrap();
        fs::write(group.join("memory.current"), "1000\n").unwrap();
        fs::write(
            group.join("memory.stat"),
            "anon 600\ninactive_file 300\nactive_file 20\npgfault 5\nkernel 9\n",
        )
        .unwrap();
        fs::write(group.join("memory.events"), "low 0\nmax 1\noom 4\noom_kill 3\n").unwrap();
        fs::write(group.join("memory.swap.current"), "40\n").unwrap();
        let usage = read(&Cgroups::V2 { root: root.path().to_owned() }, "/kubepods");
        let expected = Usage {
            cpu_nanoseconds: 7000,
            user_nanoseconds: 3000,
            throttled_periods: 2,
            memory: 1000,
            working_set: 700,
            rss: 600,
            swap: 40,
            page_faults: 5,
            active_file: 20,
            inactive_file: 300,
            kernel: Some(9),
            oom_kills: Some(3),
            memory_failures: 1,
            ..Usage::default()
        };
        assert_eq!(usage, expected);
    }
}
