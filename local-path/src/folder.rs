//! The folders of volumes: directly below the base folder, and nowhere else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Pods of any user write to their volume.
const MODE: u32 = 0o777;

/// The path of a folder by its name, which must be one plain segment.
fn path(base: &Path, name: &str) -> Result<PathBuf> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        bail!("{name:?} is not the name of a volume's folder");
    }
    Ok(base.join(name))
}

/// Makes the folder of a volume; one that is there is kept as it is.
pub(crate) fn make(base: &Path, name: &str) -> Result<()> {
    let folder = path(base, name)?;
    match fs::create_dir(&folder) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && folder.symlink_metadata()?.is_dir() => {
            return Ok(());
        }
        Err(e) => return Err(e).with_context(|| format!("making {}", folder.display())),
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(MODE))
        .with_context(|| format!("opening up {}", folder.display()))
}

/// Removes the folder of a volume with all it holds; links are removed, not followed.
pub(crate) fn remove(base: &Path, name: &str) -> Result<()> {
    let folder = path(base, name)?;
    match fs::remove_dir_all(&folder) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).with_context(|| format!("removing {}", folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_folders() {
        for bad in ["", ".", "..", "../x", "a/b", "/etc"] {
            assert!(path(Path::new("/base"), bad).is_err(), "{bad}");
        }
        assert_eq!(path(Path::new("/base"), "pvc-1_ns_name").unwrap(), Path::new("/base/pvc-1_ns_name"));
    }
}
