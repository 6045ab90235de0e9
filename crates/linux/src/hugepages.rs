//! Huge pages: memory in pieces that the kernel sets aside.

use std::fs;
use std::path::Path;

/// Pages of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HugePages {
    /// The size of a page in bytes.
    pub size: u64,
    /// How many have been set aside.
    pub count: u64,
}

impl HugePages {
    /// Where the kernel tells of them.
    pub const ROOT: &'static str = "/sys/kernel/mm/hugepages";

    /// The size as names of resources have it: `2Mi`, `1Gi`.
    pub fn resource_size(&self) -> String {
        self.shown("i")
    }

    /// The size as control groups name it: `2MB`, `1GB`.
    pub fn group_size(&self) -> String {
        self.shown("B")
    }

    fn shown(&self, end: &str) -> String {
        match self.size {
            size if size % (1 << 30) == 0 => format!("{}G{end}", size >> 30),
            size if size % (1 << 20) == 0 => format!("{}M{end}", size >> 20),
            size => format!("{}K{end}", size >> 10),
        }
    }

    /// All of them in bytes.
    pub fn bytes(&self) -> u64 {
        self.size.saturating_mul(self.count)
    }
}

/// The sizes that the kernel knows, the biggest first; what makes no sense is left out.
pub fn read(root: &Path) -> Vec<HugePages> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let parse = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let kibibytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let count = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?;
        Some(HugePages { size: kibibytes.checked_mul(1024)?, count: count.trim().parse().ok()? })
    };
    let mut pages: Vec<_> = entries.filter_map(parse).collect();
    pages.sort_unstable_by_key(|pages| std::cmp::Reverse(pages.size));
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_named() {
        let dir = tempfile::tempdir().unwrap();
        for (name, count) in [
            ("hugepages-2048kB", "3\n"),
            ("hugepages-1048576kB", "1\n"),
            ("hugepages-64kB", "x"),
            ("other", "1"),
        ] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("nr_hugepages"), count).unwrap();
        }
        let pages = read(dir.path());
        let shown: Vec<_> = pages.iter().map(|p| (p.resource_size(), p.group_size(), p.bytes())).collect();
        let expected = [("1Gi", "1GB", 1 << 30), ("2Mi", "2MB", 6 << 20)];
        assert_eq!(shown, expected.map(|(a, b, bytes)| (a.to_owned(), b.to_owned(), bytes)));
        assert_eq!(HugePages { size: 64 << 10, count: 1 }.resource_size(), "64Ki");
        assert!(read(Path::new("/nonexistent")).is_empty());
    }
}
