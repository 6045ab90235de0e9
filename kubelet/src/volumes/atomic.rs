//! Files that change all at once: they live in a folder of their own time, and the link `..data` that leads to it is
//! exchanged in one step. Readers see the old files or the new ones, never some of each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path};

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) data: Vec<u8>,
    pub(super) mode: u32,
    pub(super) owner: Option<u32>,
}

/// Files by their path below the volume.
pub(super) type Files = BTreeMap<String, File>;

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// Brings the folder up to date; true when anything changed.
pub(super) fn write(dir: &Path, files: &Files) -> io::Result<bool> {
    for path in files.keys() {
        check(path)?;
    }
    let old = fs::read_link(dir.join(DATA)).ok();
    if let Some(old) = &old
        && is_same(&dir.join(old), files)
    {
        return Ok(false);
    }
    let stamp = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S").to_string();
    let fresh = format!("{stamp}.{}", rand::random::<u32>());
    if let Err(error) = fill(&dir.join(&fresh), files) {
        // What cannot be written is tried again and again; nothing of it may stay.
        fs::remove_dir_all(dir.join(&fresh))?;
        return Err(error);
    }
    let next = dir.join(NEXT);
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(&fresh, &next)?;
    fs::rename(&next, dir.join(DATA))?;
    link(dir, files)?;
    if let Some(old) = old {
        fs::remove_dir_all(dir.join(old))?;
    }
    Ok(true)
}

fn fill(fresh: &Path, files: &Files) -> io::Result<()> {
    fs::create_dir(fresh)?;
    fs::set_permissions(fresh, fs::Permissions::from_mode(0o755))?;
    files.iter().try_for_each(|(path, file)| write_file(&fresh.join(path), file))
}

/// A path must stay inside, and its first part must not look like one of ours.
fn check(path: &str) -> io::Result<()> {
    let mut parts = Path::new(path).components();
    let normal = parts.clone().all(|part| matches!(part, Component::Normal(_)));
    // No detours either: the files of a folder are compared by their paths.
    let plain = parts.by_ref().collect::<std::path::PathBuf>().as_os_str() == path;
    if path.is_empty() || path.starts_with("..") || !normal || !plain {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path {path:?}")));
    }
    Ok(())
}

fn write_file(path: &Path, file: &File) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, &file.data)?;
    fs::set_permissions(path, fs::Permissions::from_mode(file.mode))?;
    if let Some(owner) = file.owner {
        chown(path, Some(owner), None)?;
    }
    Ok(())
}

fn is_same(dir: &Path, files: &Files) -> bool {
    let mut present = BTreeSet::new();
    if collect(dir, Path::new(""), &mut present).is_err() {
        return false;
    }
    present.len() == files.len()
        && files.iter().all(|(path, file)| {
            present.contains(path) && fs::read(dir.join(path)).is_ok_and(|data| data == file.data)
        })
}

fn collect(root: &Path, below: &Path, out: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(root, &path, out)?;
        } else {
            out.insert(path.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// The names that users see are links through `..data`.
fn link(dir: &Path, files: &Files) -> io::Result<()> {
    let wanted: BTreeSet<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        let path = dir.join(name);
        if fs::symlink_metadata(&path).is_err() {
            symlink(Path::new(DATA).join(name), &path)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(name.as_ref()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(entries: &[(&str, &str)]) -> Files {
        let file = |data: &str| File { data: data.as_bytes().to_vec(), mode: 0o640, owner: None };
        entries.iter().map(|(path, data)| ((*path).to_owned(), file(data))).collect()
    }

    #[test]
    fn files_appear_change_and_disappear_together() {
        let dir = tempfile::tempdir().unwrap();
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).ok();
        assert!(write(dir.path(), &files(&[("a", "1"), ("sub/b", "2")])).unwrap());
        assert_eq!((read("a").as_deref(), read("sub/b").as_deref()), (Some("1"), Some("2")));
        assert!(!write(dir.path(), &files(&[("a", "1"), ("sub/b", "2")])).unwrap());
        let before = fs::read_link(dir.path().join(DATA)).unwrap();
        assert!(write(dir.path(), &files(&[("a", "3"), ("c", "4")])).unwrap());
        assert_eq!((read("a").as_deref(), read("sub/b"), read("c").as_deref()), (Some("3"), None, Some("4")));
        assert!(!dir.path().join(before).exists());
        assert!(fs::symlink_metadata(dir.path().join("sub")).is_err());
        assert_eq!(fs::metadata(dir.path().join("a")).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for path in
            ["../x", "/etc/x", "..", "..data", "..data/x", "a/..", "a/../../x", "a/./b", "a//b", "a/", "."]
        {
            assert!(write(dir.path(), &files(&[(path, "")])).is_err(), "{path}");
        }
        assert!(write(dir.path(), &files(&[("", "")])).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn files_that_cannot_be_together_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let long = "x".repeat(300);
        for bad in [[("a", "1"), ("a/b", "2")], [("a", "1"), (long.as_str(), "2")]] {
            assert!(write(dir.path(), &files(&bad)).is_err());
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }
}
