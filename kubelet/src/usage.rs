//! How much room files take.

use std::collections::HashSet;
use std::fs;
use std::ops::AddAssign;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Room on a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// Bytes in whole blocks.
    pub bytes: i64,
    /// Files and folders.
    pub inodes: i64,
}

impl AddAssign for Used {
    fn add_assign(&mut self, more: Self) {
        self.bytes += more.bytes;
        self.inodes += more.inodes;
    }
}

/// What a file or a folder with all that is in it takes; other disks that are mounted below are left out. What cannot be
/// read, or goes away meanwhile, counts for nothing.
pub(crate) fn measure(path: &Path) -> Used {
    let mut used = Used::default();
    let Ok(top) = fs::symlink_metadata(path) else { return used };
    // A file with several names takes its room once.
    let mut linked = HashSet::new();
    let mut waiting = vec![(path.to_owned(), top.clone())];
    while let Some((path, metadata)) = waiting.pop() {
        if metadata.dev() != top.dev()
            || metadata.nlink() > 1 && !metadata.is_dir() && !linked.insert(metadata.ino())
        {
            continue;
        }
        used += Used { bytes: (metadata.blocks() * 512) as i64, inodes: 1 };
        if !metadata.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            if let Ok(metadata) = entry.metadata() {
                waiting.push((entry.path(), metadata));
            }
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_once_by_their_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let empty = measure(dir.path());
        assert_eq!(empty.inodes, 1);
        fs::create_dir(dir.path().join("sub")).unwrap();
        let file = dir.path().join("sub/file");
        fs::write(&file, vec![1; 1 << 20]).unwrap();
        fs::hard_link(&file, dir.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("away")).unwrap();
        let full = measure(dir.path());
        assert_eq!(full.inodes, 4);
        assert!((1 << 20..2 << 20).contains(&(full.bytes - empty.bytes)), "{full:?}");
        assert_eq!(measure(&dir.path().join("none")), Used::default());
    }
}
