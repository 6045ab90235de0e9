//! `fsGroup`: the files of a volume belong to the pod's group and can be used by it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use api::Value;
use nix::fcntl::AtFlags;
use nix::unistd::{Gid, fchownat};

const SETGID: u32 = 0o2000;

/// Gives everything at and below `path` to the pod's group, if it has one.
pub(crate) fn apply(pod: &Value, path: &Path, read_only: bool) -> io::Result<()> {
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

/// Children first, so that the root tells whether all of it is done. Containers may use the volume meanwhile, hence nothing
/// is done by its name: what was opened is what is changed.
fn walk(root: &Path, group: u32, read_only: bool) -> io::Result<()> {
    let directory = File::open(root)?;
    below(&directory, Path::new(""), group, read_only)
}

fn below(root: &File, relative: &Path, group: u32, read_only: bool) -> io::Result<()> {
    for child in children(&linux::mount::open_entry_beneath(root, relative)?)? {
        match below(root, &relative.join(child), group, read_only) {
            // It was taken away while we looked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    // Opened again: however deep a volume is, it takes no more than one descriptor.
    let entry = File::from(linux::mount::open_entry_beneath(root, relative)?);
    let metadata = entry.metadata()?;
    fchownat(&entry, "", None, Some(Gid::from_raw(group)), AtFlags::AT_EMPTY_PATH)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mut mode = metadata.permissions().mode() | if read_only { 0o440 } else { 0o660 };
    if metadata.is_dir() {
        mode |= SETGID | 0o110;
    }
    fs::set_permissions(opened(&entry), fs::Permissions::from_mode(mode))
}

/// The path of what is open, for calls that take none but a path.
fn opened(entry: &impl AsRawFd) -> PathBuf {
    format!("/proc/self/fd/{}", entry.as_raw_fd()).into()
}

/// The names in a folder; there are none in anything else.
fn children(entry: &OwnedFd) -> io::Result<Vec<OsString>> {
    match fs::read_dir(opened(entry)) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.file_name())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use api::object;

    use super::*;

    #[test]
    fn links_lead_nobody_out_of_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, outside) = (dir.path().join("volume"), dir.path().join("outside"));
        fs::create_dir_all(volume.join("sub")).unwrap();
        fs::create_dir(&outside).unwrap();
        for file in [outside.join("secret"), volume.join("sub/own")] {
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        symlink(&outside, volume.join("folder")).unwrap();
        symlink(outside.join("secret"), volume.join("sub/file")).unwrap();
        symlink("/nowhere", volume.join("dangling")).unwrap();
        let own = fs::metadata(&volume).unwrap().gid();
        let pod = object!({"spec": {"securityContext": {"fsGroup": (i64::from(own))}}});
        apply(&pod, &volume, false).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&volume.join("sub/own")), 0o660);
        assert_eq!(mode(&volume.join("sub")) & 0o2070, 0o2070);
        assert_eq!(mode(&outside.join("secret")), 0o600);
        assert_eq!(mode(&outside) & 0o2000, 0);
    }

    #[test]
    fn what_is_exchanged_meanwhile_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, outside) = (dir.path().join("volume"), dir.path().join("outside"));
        fs::create_dir(&volume).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("x"), "").unwrap();
        fs::set_permissions(outside.join("x"), fs::Permissions::from_mode(0o600)).unwrap();
        let own = fs::metadata(&volume).unwrap().gid();
        let pod = object!({"spec": {"securityContext": {"fsGroup": (i64::from(own))}}});
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (part, aside) = (volume.join("part"), volume.join("aside"));
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    fs::create_dir(&part).unwrap();
                    fs::write(part.join("x"), "").unwrap();
                    fs::rename(&part, &aside).unwrap();
                    symlink(&outside, &part).unwrap();
                    fs::remove_file(&part).unwrap();
                    fs::remove_dir_all(&aside).unwrap();
                }
            });
            for _ in 0..300 {
                // A folder that turns into a link while it is entered is an error; the next look is another chance.
                let _ = apply(&pod, &volume, false);
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(fs::metadata(outside.join("x")).unwrap().mode() & 0o777, 0o600);
    }
}
