//! `fsGroup`: the files of a volume belong to the pod's group and can be used by it.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use api::Value;

const SETGID: u32 = 0o2000;

/// Gives everything at and below `path` to the pod's group, if it has one.
pub(super) fn apply(pod: &Value, path: &Path, read_only: bool) -> io::Result<()> {
    let context = pod.at(&["spec", "securityContext"]);
    let Some(group) = context.get("fsGroup").as_i64().and_then(|group| u32::try_from(group).ok()) else {
        return Ok(());
    };
    if context.str_at(&["fsGroupChangePolicy"]) == "OnRootMismatch" && !read_only && is_right(path, group)? {
        return Ok(());
    }
    walk(path, group, read_only)
}

fn is_right(path: &Path, group: u32) -> io::Result<bool> {
    let metadata = fs::metadata(path)?;
    Ok(metadata.gid() == group && metadata.mode() & (SETGID | 0o060) == SETGID | 0o060)
}

/// Children first, so that the root tells whether all of it is done.
fn walk(path: &Path, group: u32, read_only: bool) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            walk(&entry?.path(), group, read_only)?;
        }
    }
    lchown(path, None, Some(group))?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mut mode = metadata.permissions().mode() | if read_only { 0o440 } else { 0o660 };
    if metadata.is_dir() {
        mode |= SETGID | 0o110;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}
