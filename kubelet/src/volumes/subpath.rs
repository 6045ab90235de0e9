//! Parts of volumes. A container may change its volume while another is started, so a part is opened without following
//! links out of the volume, and what was opened is mounted, not its name.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use linux::mount;

/// Makes a part of a volume available at a path that only the kubelet controls, and returns that path. A missing part is
/// made as a folder.
pub(crate) fn prepare(volume: &Path, part: &str, target: &Path) -> io::Result<PathBuf> {
    let part = Path::new(part);
    let opened = match mount::open_beneath(volume, part) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // As open to others as the volume itself.
            let mode = fs::metadata(volume)?.permissions().mode() & 0o777;
            mount::create_dirs_beneath(volume, part, mode)?;
            mount::open_beneath(volume, part)?
        }
        other => other?,
    };
    // A container that is started again gets the part as it is now.
    mount::unmount(target)?;
    let kind = fs::metadata(format!("/proc/self/fd/{}", opened.as_raw_fd()))?;
    if kind.is_dir() {
        if target.is_file() {
            fs::remove_file(target)?;
        }
        fs::create_dir_all(target)?;
    } else {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        if target.is_dir() {
            fs::remove_dir(target)?;
        }
        fs::File::create(target)?;
    }
    mount::bind_open(&opened, target)?;
    Ok(target.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn parts_that_lead_out_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        fs::create_dir_all(volume.join("in")).unwrap();
        symlink("/etc", volume.join("absolute")).unwrap();
        symlink("../..", volume.join("in/up")).unwrap();
        symlink("loop", volume.join("loop")).unwrap();
        symlink("/proc/self/root", volume.join("magic")).unwrap();
        let target = dir.path().join("target");
        let deep = ["d"; 3000].join("/");
        for part in
            ["absolute", "absolute/passwd", "absolute/new", "in/up/x", "loop", "magic/etc", "..", &deep]
        {
            assert!(prepare(&volume, part, &target).is_err(), "{}", &part[..part.len().min(20)]);
            assert!(!target.exists());
        }
    }

    #[test]
    fn a_part_that_is_exchanged_meanwhile_never_shows_what_is_outside() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: only root can mount");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (volume, outside) = (dir.path().join("volume"), dir.path().join("outside"));
        fs::create_dir_all(volume.join("part")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "").unwrap();
        let (target, done) = (dir.path().join("target"), AtomicBool::new(false));
        let (part, aside) = (volume.join("part"), volume.join("aside"));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // Each step may find that the name was taken meanwhile; the next round starts over.
                    let _ = fs::rename(&part, &aside);
                    let _ = symlink(&outside, &part);
                    let _ = fs::remove_file(&part);
                    let _ = fs::rename(&aside, &part);
                }
            });
            for _ in 0..300 {
                if prepare(&volume, "part", &target).is_ok() {
                    assert!(!target.join("secret").exists());
                }
                mount::unmount(&target).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        // Nothing was made outside, and left alone the part can be used.
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        let _ = fs::remove_file(&part);
        prepare(&volume, "part", &target).unwrap();
        mount::unmount(&target).unwrap();
    }
}
