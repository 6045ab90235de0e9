//! The limits of a control group, read back.

use std::fs;

use super::{Cgroups, Limits};

/// Version 1 shows a limit of memory that is none as the largest number of whole pages.
const NO_MEMORY_LIMIT: i64 = i64::MAX - 0xFFFF;

pub(super) fn read(groups: &Cgroups, group: &str) -> Limits {
    let text = |controller: &str, file: &str| {
        let directory = groups.directory(controller, group)?;
        fs::read_to_string(directory.join(file)).ok().map(|text| text.trim().to_owned())
    };
    let pids = text("pids", "pids.max").and_then(|text| number(&text));
    if groups.is_v2() {
        let max = text("cpu", "cpu.max");
        let (quota, period) = max.as_deref().and_then(|max| max.split_once(' ')).unzip();
        return Limits {
            cpu_shares: text("cpu", "cpu.weight").and_then(|weight| Some(shares(weight.parse().ok()?))),
            cpu_quota_us: quota.and_then(number),
            cpu_period_us: period.and_then(|period| period.parse().ok()),
            memory: text("memory", "memory.max").and_then(|text| number(&text)),
            pids,
        };
    }
    let memory = text("memory", "memory.limit_in_bytes").and_then(|text| number(&text));
    Limits {
        cpu_shares: text("cpu", "cpu.shares").and_then(|text| text.parse().ok()),
        cpu_quota_us: text("cpu", "cpu.cfs_quota_us").and_then(|text| number(&text)),
        cpu_period_us: text("cpu", "cpu.cfs_period_us").and_then(|text| text.parse().ok()),
        memory: memory.map(|bytes| if bytes >= NO_MEMORY_LIMIT { -1 } else { bytes }),
        pids,
    }
}

pub(super) fn swap(groups: &Cgroups, group: &str) -> Option<u64> {
    let file = if groups.is_v2() { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" };
    let text = groups.directory("memory", group).and_then(|dir| fs::read_to_string(dir.join(file)).ok());
    // Where the kernel does not account for swap there is none to use.
    let Some(text) = text else { return Some(0) };
    text.trim().parse().ok().filter(|bytes| *bytes < NO_MEMORY_LIMIT as u64)
}

pub(super) fn reservation(groups: &Cgroups, group: &str) -> Option<u64> {
    let file = if groups.is_v2() { "memory.low" } else { "memory.soft_limit_in_bytes" };
    let text = fs::read_to_string(groups.directory("memory", group)?.join(file)).ok()?;
    let bytes = number(text.trim())?;
    // Where there is none, version 1 shows the largest number.
    Some(if bytes >= NO_MEMORY_LIMIT { 0 } else { bytes.max(0).unsigned_abs() })
}

fn number(text: &str) -> Option<i64> {
    if text == "max" { Some(-1) } else { text.parse().ok() }
}

/// Version 1's shares for version 2's weight, as upstream maps them back.
fn shares(weight: u64) -> u64 {
    (weight.clamp(1, 10_000) - 1) * 262_142 / 9999 + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_back_in_one_language() {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(root.path().join(file), text).unwrap();
        write("cpu.max", "max 100000\n");
        write("cpu.weight", "39\n");
        write("memory.max", "1048576\n");
        write("pids.max", "max\n");
        write("memory.swap.max", "4096\n");
        let v2 = Cgroups::V2 { root: root.path().to_owned() };
        let expected = Limits {
            cpu_shares: Some(998),
            cpu_quota_us: Some(-1),
            cpu_period_us: Some(100_000),
            memory: Some(1 << 20),
            pids: Some(-1),
        };
        assert_eq!(v2.limits(""), expected);
        assert_eq!(v2.swap_limit(""), Some(4096));
        write("memory.swap.max", "max\n");
        assert_eq!(v2.swap_limit(""), None);
        assert_eq!(v2.memory_reservation(""), None);
        write("memory.low", "8192\n");
        assert_eq!(v2.memory_reservation(""), Some(8192));
        write("memory.soft_limit_in_bytes", "9223372036854771712\n");
        write("memory.limit_in_bytes", "9223372036854771712\n");
        write("cpu.cfs_quota_us", "-1\n");
        write("cpu.shares", "1024\n");
        let controllers = ["cpu", "memory"].map(|name| (name.to_owned(), root.path().to_owned())).into();
        let v1 = Cgroups::V1 { controllers, others: Vec::new() };
        let limits = v1.limits("");
        assert_eq!((limits.memory, limits.cpu_quota_us, limits.cpu_shares), (Some(-1), Some(-1), Some(1024)));
        assert_eq!((limits.pids, v1.memory_reservation("")), (None, Some(0)));
        assert_eq!((v1.swap_limit(""), v1.limits_swap()), (Some(0), false));
        write("memory.memsw.limit_in_bytes", "9223372036854771712\n");
        assert_eq!((v1.swap_limit(""), v1.limits_swap()), (None, true));
    }
}
