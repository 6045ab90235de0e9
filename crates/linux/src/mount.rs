//! Mounts: the table of them, bind mounts that no symbolic link can lead astray, tmpfs, and unmounting.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, mkdirat};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    /// The directory of the file system that is mounted.
    pub root: String,
    /// Where it is mounted.
    pub path: PathBuf,
    /// The file system type.
    pub fs_type: String,
    /// The device or whatever the file system calls its source.
    pub source: String,
    /// The options of the file system.
    pub options: Vec<String>,
}

/// The mounts of this process' namespace.
pub fn mounts() -> io::Result<Vec<MountPoint>> {
    Ok(parse(&std::fs::read_to_string("/proc/self/mountinfo")?))
}

/// Parses the text of a mountinfo file; lines that make no sense are left out.
pub fn parse(mountinfo: &str) -> Vec<MountPoint> {
    mountinfo.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<MountPoint> {
    let (mount, fs) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, path) = (mount.next()?, mount.next()?);
    let mut fs = fs.split(' ');
    Some(MountPoint {
        root: unescape(root),
        path: unescape(path).into(),
        fs_type: fs.next()?.to_owned(),
        source: unescape(fs.next()?),
        options: fs.next().unwrap_or_default().split(',').map(str::to_owned).collect(),
    })
}

/// The kernel writes blanks, newlines and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let [first, rest @ ..] = bytes {
        let code = match (first, rest) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'))
            }
            _ => None,
        };
        out.push(code.unwrap_or(*first));
        bytes = if code.is_some() { &rest[3..] } else { rest };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Has mounts below a directory be seen by whoever shares its mount, and theirs here. Where the directory's mount is private
/// the directory becomes a mount of its own.
pub fn make_shared(directory: &Path) -> io::Result<()> {
    let directory = directory.canonicalize()?;
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    if is_shared(&table, &directory) {
        return Ok(());
    }
    if !is_mount_point(&directory)? {
        bind(&directory, &directory)?;
    }
    mount(None::<&str>, &directory, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>)?;
    Ok(())
}

/// Whether the mount that a path is on belongs to a group of peers.
fn is_shared(mountinfo: &str, path: &Path) -> bool {
    let on = mountinfo.lines().filter_map(|line| {
        let point = parse_line(line)?.path;
        let (mount, _) = line.split_once(" - ")?;
        let shared = mount.split(' ').skip(6).any(|field| field.starts_with("shared:"));
        path.starts_with(&point).then(|| (point.components().count(), shared))
    });
    // Of two mounts on one path the later is on top.
    on.max_by_key(|(depth, _)| *depth).is_some_and(|(_, shared)| shared)
}

/// Whether something is mounted exactly here. The table of all mounts is read only where the kernel does not say it of a path.
pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    match is_root_of_mount(path) {
        Some(is) => Ok(is),
        None => Ok(mounts()?.iter().any(|mount| mount.path == path)),
    }
}

/// What the kernel says of a path itself: kernels before 5.8 say nothing, nor does a path whose file system has gone away.
fn is_root_of_mount(path: &Path) -> Option<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let about = match statx(CWD, path, flags, StatxFlags::empty()) {
        Ok(about) => about,
        Err(Errno::NOENT | Errno::NOTDIR) => return Some(false),
        Err(_) => return None,
    };
    let root = StatxAttributes::MOUNT_ROOT;
    about.stx_attributes_mask.contains(root).then(|| about.stx_attributes.contains(root))
}

/// Mounts a tmpfs, of at most `size` bytes when given. It is never swapped out where the kernel can promise that.
pub fn tmpfs(path: &Path, size: Option<u64>) -> io::Result<()> {
    let size = size.map(|size| format!("size={size}"));
    let mut options: Vec<&str> = size.as_deref().into_iter().collect();
    options.push(NO_SWAP);
    match mount_tmpfs(path, &options) {
        Err(nix::Error::EINVAL) => {
            options.pop();
            Ok(mount_tmpfs(path, &options)?)
        }
        mounted => Ok(mounted?),
    }
}

/// The option of a tmpfs that keeps it off the swap; kernels before 6.4 do not know it, nor do users' own namespaces.
const NO_SWAP: &str = "noswap";

fn mount_tmpfs(path: &Path, options: &[&str]) -> nix::Result<()> {
    let options = options.join(",");
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
}

/// Whether what is in a tmpfs is never swapped out; found out in a folder that is made for that below another.
pub fn tmpfs_stays_in_memory(below: &Path) -> bool {
    let path = below.join(format!("tmpfs-noswap-test-{}", std::process::id()));
    if std::fs::create_dir_all(&path).is_err() {
        return false;
    }
    let mounted = mount_tmpfs(&path, &[NO_SWAP]).is_ok();
    let removed = if mounted { unmount(&path) } else { Ok(()) }.and_then(|()| std::fs::remove_dir(&path));
    if let Err(error) = removed {
        tracing::warn!(path = %path.display(), %error, "cannot remove the folder of a test");
    }
    mounted
}

/// Mounts a file system whose files consist of huge pages of this size.
pub fn hugetlbfs(path: &Path, page_size: u64) -> io::Result<()> {
    let options = format!("pagesize={page_size}");
    mount(Some("nodev"), path, Some("hugetlbfs"), MsFlags::empty(), Some(options.as_str()))?;
    Ok(())
}

/// Makes `source` appear at `target` too, with what is mounted below it.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(())
}

/// Makes an open file or directory appear at `target`: whatever happens to its path meanwhile, this one is mounted.
pub fn bind_open(source: &impl AsFd, target: &Path) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", source.as_fd().as_raw_fd());
    bind(Path::new(&path), target)
}

/// Unmounts; not being mounted is no error. A busy mount disappears from the tree and ends when its last user is gone.
pub fn unmount(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Everything that is mounted at and below a directory, the innermost first. The directory may be named by way of links.
pub fn mounted_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let directory = match directory.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        directory => directory?,
    };
    let mut below: Vec<_> =
        mounts()?.into_iter().map(|mount| mount.path).filter(|path| path.starts_with(&directory)).collect();
    // Of two mounts on one path the later is on top.
    below.reverse();
    below.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    Ok(below)
}

/// Unmounts everything at and below a directory, the innermost first.
pub fn unmount_below(directory: &Path) -> io::Result<()> {
    mounted_below(directory)?.iter().try_for_each(|path| unmount(path))
}

/// Opens a path below `base` without leaving `base`: a symbolic link that points outside is an error.
pub fn open_beneath(base: &Path, relative: &Path) -> io::Result<OwnedFd> {
    let directory = File::open(base)?;
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(&directory, relative, how)?)
}

/// Opens exactly what a path below `base` names, itself a symbolic link or not; none of the folders on the way may be one.
/// What is opened can be looked at and given away, not read.
pub fn open_entry_beneath(base: &impl AsFd, relative: &Path) -> io::Result<OwnedFd> {
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).resolve(
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_SYMLINKS,
    );
    match openat2(base.as_fd(), relative, how) {
        // The last part is a link: its parent is opened without following any, then the link itself.
        Err(nix::Error::ELOOP) => {
            let (parent, name) = (relative.parent().unwrap_or(Path::new("")), relative.file_name());
            let name = name.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            let parent = openat2(base.as_fd(), parent, how)?;
            Ok(openat(&parent, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?)
        }
        other => Ok(other?),
    }
}

/// Makes the missing directories of a path below `base`, following no symbolic link out of it.
pub fn create_dirs_beneath(base: &Path, relative: &Path, mode: u32) -> io::Result<()> {
    let mut current: OwnedFd = File::open(base)?.into();
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let mut walked = PathBuf::new();
    let root: OwnedFd = File::open(base)?.into();
    for component in relative.components() {
        let Component::Normal(name) = component else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path must be relative without .."));
        };
        match mkdirat(&current, name, Mode::from_bits_truncate(mode)) {
            Ok(()) => {
                // The umask does not count here.
                let made = openat(
                    &current,
                    name,
                    OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
                    Mode::empty(),
                )?;
                nix::sys::stat::fchmod(&made, Mode::from_bits_truncate(mode))?;
            }
            Err(nix::Error::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        walked.push(name);
        current = openat2(&root, &walked, how)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shared_with_the_mount_that_it_is_on() {
        let table = "1 0 8:1 / / rw shared:1 - ext4 /dev/a rw\n\
                     2 1 8:2 / /var rw - ext4 /dev/b rw\n\
                     3 2 8:3 / /var/lib/x rw master:1 - ext4 /dev/c rw\n\
                     4 3 8:4 / /var/lib/x rw shared:2 master:1 - ext4 /dev/d rw\n";
        for (path, shared) in [("/", true), ("/etc", true), ("/var/lib", false), ("/var/lib/x/y", true)] {
            assert_eq!(is_shared(table, Path::new(path)), shared, "{path}");
        }
    }

    #[test]
    fn the_kernel_and_its_table_agree_on_what_is_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink("/proc", dir.path().join("link")).unwrap();
        assert!(is_mount_point(Path::new("/proc")).unwrap());
        for path in [dir.path(), &file, &dir.path().join("link"), &dir.path().join("none"), &file.join("x")] {
            assert!(!is_mount_point(path).unwrap(), "{}", path.display());
        }
        let mounted: Vec<_> = mounts().unwrap().into_iter().map(|mount| mount.path).collect();
        // What is mounted over, or out of sight, cannot be asked for by its path.
        let seen = mounted.iter().filter(|path| path.exists());
        let covered = |path: &&PathBuf| mounted.iter().filter(|other| path.starts_with(other)).count() == 2;
        for path in seen.filter(covered) {
            assert_eq!(is_root_of_mount(path), Some(true), "{}", path.display());
        }
    }

    #[test]
    fn what_is_mounted_below_a_directory_is_found_through_links() {
        let dir = tempfile::tempdir().unwrap();
        assert!(mounted_below(dir.path()).unwrap().is_empty());
        assert!(mounted_below(&dir.path().join("none")).unwrap().is_empty());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/", &link).unwrap();
        let below = mounted_below(&link).unwrap();
        assert!(below.contains(&"/proc".into()));
        assert!(below.windows(2).all(|two| two[0].components().count() >= two[1].components().count()));
        assert_eq!(below, mounted_below(Path::new("/")).unwrap());
    }

    #[test]
    fn mountinfo_lines_are_parsed_and_unescaped() {
        let text = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n\
                    32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\nnonsense\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].path, Path::new("/mnt 2"));
        assert_eq!(mounts[0].root, "/mnt1");
        assert_eq!(mounts[0].source, "/dev/root");
        assert_eq!(mounts[1].fs_type, "cgroup");
        assert_eq!(mounts[1].options, ["rw", "cpu"]);
    }

    #[test]
    fn escapes_that_are_none_stay_as_they_are() {
        for (text, expected) in [("a\\134b", "a\\b"), ("a\\", "a\\"), ("a\\9", "a\\9"), ("\\011", "\t")] {
            assert_eq!(unescape(text), expected);
        }
    }

    #[test]
    fn a_symbolic_link_cannot_lead_out_of_the_base() {
        let base = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", base.path().join("out")).unwrap();
        std::fs::create_dir(base.path().join("in")).unwrap();
        std::os::unix::fs::symlink("in", base.path().join("inner")).unwrap();
        assert!(open_beneath(base.path(), Path::new("out/passwd")).is_err());
        assert!(open_beneath(base.path(), Path::new("../")).is_err());
        assert!(create_dirs_beneath(base.path(), Path::new("out/made"), 0o755).is_err());
        create_dirs_beneath(base.path(), Path::new("inner/made/deep"), 0o750).unwrap();
        assert!(base.path().join("in/made/deep").is_dir());
        assert!(open_beneath(base.path(), Path::new("inner/made")).is_ok());
        assert!(open_beneath(base.path(), Path::new("")).is_ok());
        let root = File::open(base.path()).unwrap();
        let entry = |path: &str| open_entry_beneath(&root, Path::new(path));
        assert!(entry("inner/made").is_err() && entry("out/passwd").is_err() && entry("in/made").is_ok());
        let link = nix::sys::stat::fstat(entry("out").unwrap()).unwrap();
        assert_eq!(link.st_mode & nix::libc::S_IFMT, nix::libc::S_IFLNK);
    }
}
