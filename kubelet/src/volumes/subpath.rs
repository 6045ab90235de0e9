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
