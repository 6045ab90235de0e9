//! What the processes of a container hold open.

use std::fs;
use std::path::Path;

/// The sums over all processes, and the limit of the first.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Open {
    pub(super) files: u64,
    pub(super) sockets: u64,
    /// How many files the first process may open; -1 for any number.
    pub(super) limit: Option<f64>,
}

/// Looks at these processes. Those that end meanwhile hold nothing.
pub(super) fn look(proc: &Path, processes: &[i32]) -> Open {
    let mut open = Open::default();
    for process in processes {
        for entry in fs::read_dir(proc.join(process.to_string()).join("fd")).into_iter().flatten().flatten() {
            open.files += 1;
            let target = fs::read_link(entry.path()).unwrap_or_default();
            open.sockets += u64::from(target.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
        }
    }
    let limits = processes.first().map(|first| proc.join(first.to_string()).join("limits"));
    let limits = limits.and_then(|path| fs::read_to_string(path).ok());
    open.limit = limits.as_deref().and_then(soft_limit);
    open
}

fn soft_limit(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(-1.0),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_and_sockets_are_counted_over_all_processes() {
        let proc = tempfile::tempdir().unwrap();
        for (process, targets) in [("7", ["/dev/null", "socket:[1]"]), ("8", ["pipe:[2]", "socket:[3]"])] {
            let fd = proc.path().join(process).join("fd");
            fs::create_dir_all(&fd).unwrap();
            for (number, target) in targets.iter().enumerate() {
                symlink(target, fd.join(number.to_string())).unwrap();
            }
        }
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  4096  files\n";
        fs::write(proc.path().join("7/limits"), limits).unwrap();
        let expected = Open { files: 4, sockets: 2, limit: Some(1024.0) };
        assert_eq!(look(proc.path(), &[7, 8, 9]), expected);
        assert_eq!(look(proc.path(), &[]), Open::default());
        assert_eq!(soft_limit(&limits.replace("1024", "unlimited")), Some(-1.0));
    }
}
