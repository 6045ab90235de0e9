//! Control groups, version 1 and 2, by plain files (the "cgroupfs driver").
//!
//! On version 1 and on hybrid machines every controller is a hierarchy of its own; on version 2 there is one. A group is
//! named by its path from the root of the hierarchy, as in `kubepods/burstable/pod1234`.

mod disks;
mod limits;
mod pressure;
mod stats;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::mount::{self, MountPoint};

pub use disks::{DiskUse, DiskUses};
pub use pressure::{Pressure, Waited};
pub use stats::Usage;

/// The controllers whose limits are set here. Others are the container runtime's business.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// How the machine's control groups are laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroups {
    /// A hierarchy for each controller (also where version 2 is mounted beside them without controllers).
    V1 {
        /// Where each controller is mounted.
        controllers: BTreeMap<String, PathBuf>,
        /// Hierarchies without controllers (systemd's own, version 2 beside version 1): runtimes make groups there too.
        others: Vec<PathBuf>,
    },
    /// One hierarchy.
    V2 {
        /// Where it is mounted.
        root: PathBuf,
    },
}

/// The limits of a group; what is `None` is left as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Relative weight in version 1's terms, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// Microseconds of processor time in each period; -1 lifts the limit.
    pub cpu_quota_us: Option<i64>,
    /// The period in microseconds.
    pub cpu_period_us: Option<u64>,
    /// Bytes; -1 lifts the limit.
    pub memory: Option<i64>,
    /// The number of processes; -1 lifts the limit.
    pub pids: Option<i64>,
}

/// The controllers whose hierarchies a group must be in to be one, where the machine has them.
const NEEDED: [&str; 6] = ["cpu", "cpuacct", "cpuset", "hugetlb", "memory", "pids"];

/// Why limits cannot be kept in a group.
#[derive(Debug)]
pub enum Missing {
    /// It is not in every hierarchy of version 1.
    Paths(Vec<PathBuf>),
    /// Controllers do not work in it.
    Controllers(Vec<String>),
    /// Its controllers cannot be read, most often because there is no such group.
    Unreadable(io::Error),
}

impl Cgroups {
    /// Finds out what is mounted.
    pub fn detect() -> io::Result<Self> {
        Self::from_mounts(&mount::mounts()?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no control groups are mounted"))
    }

    fn from_mounts(mounts: &[MountPoint]) -> Option<Self> {
        let known = |name: &&String| !matches!(name.as_str(), "rw" | "ro") && !name.contains('=');
        let controllers: BTreeMap<String, PathBuf> = mounts
            .iter()
            .filter(|mount| mount.fs_type == "cgroup")
            .flat_map(|mount| {
                mount.options.iter().filter(known).map(|name| (name.clone(), mount.path.clone()))
            })
            .collect();
        if controllers.contains_key("memory") || controllers.contains_key("cpu") {
            let named = |mount: &&MountPoint| {
                mount.fs_type == "cgroup2"
                    || mount.fs_type == "cgroup"
                        && mount.options.iter().any(|option| option.starts_with("name="))
            };
            let others = mounts.iter().filter(named).map(|mount| mount.path.clone()).collect();
            return Some(Self::V1 { controllers, others });
        }
        let unified = mounts.iter().find(|mount| mount.fs_type == "cgroup2")?;
        Some(Self::V2 { root: unified.path.clone() })
    }

    /// Whether there is one hierarchy only.
    pub fn is_v2(&self) -> bool {
        matches!(self, Self::V2 { .. })
    }

    /// Whether the kernel keeps the swap of groups within limits.
    pub fn limits_swap(&self) -> bool {
        let file = match self {
            Self::V1 { .. } => {
                self.directory("memory", "").map(|root| root.join("memory.memsw.limit_in_bytes"))
            }
            // The root of the hierarchy has no limits: the group that this process is in has.
            Self::V2 { root } => {
                let own = self.own();
                own.map(|own| root.join(own.trim_start_matches('/')).join("memory.swap.max"))
            }
        };
        file.is_some_and(|file| file.exists())
    }

    /// The directories of a group, one for each hierarchy.
    fn directories(&self, group: &str) -> Vec<PathBuf> {
        let group = group.trim_start_matches('/');
        match self {
            Self::V1 { controllers, others } => {
                let mut roots: Vec<_> = controllers.values().chain(others).collect();
                roots.sort();
                roots.dedup();
                roots.into_iter().map(|root| root.join(group)).collect()
            }
            Self::V2 { root } => vec![root.join(group)],
        }
    }

    fn directory(&self, controller: &str, group: &str) -> Option<PathBuf> {
        let group = group.trim_start_matches('/');
        match self {
            Self::V1 { controllers, .. } => controllers.get(controller).map(|root| root.join(group)),
            Self::V2 { root } => Some(root.join(group)),
        }
    }

    /// Whether the group exists in every hierarchy that [`Cgroups::create`] makes it in.
    pub fn exists(&self, group: &str) -> bool {
        CONTROLLERS
            .iter()
            .filter_map(|controller| self.directory(controller, group))
            .all(|path| path.is_dir())
    }

    /// Whether limits can be kept in a group.
    pub fn check(&self, group: &str) -> Result<(), Missing> {
        let needed = NEEDED.iter().copied();
        match self {
            Self::V1 { .. } => {
                let paths = needed.filter_map(|controller| self.directory(controller, group));
                let missing: Vec<_> = paths.filter(|path| !path.is_dir()).collect();
                if missing.is_empty() { Ok(()) } else { Err(Missing::Paths(missing)) }
            }
            Self::V2 { root } => {
                let read = |group: &str| {
                    let file = root.join(group.trim_start_matches('/')).join("cgroup.controllers");
                    named(fs::read_to_string(&file), &file).map_err(Missing::Unreadable)
                };
                let (own, all) = (read(group)?, read("")?);
                let has = |controllers: &str, name: &str| controllers.split_whitespace().any(|c| c == name);
                let missing = needed.filter(|name| has(&all, name) && !has(&own, name));
                let missing: Vec<_> = missing.map(str::to_owned).collect();
                if missing.is_empty() { Ok(()) } else { Err(Missing::Controllers(missing)) }
            }
        }
    }

    /// The group that this process is in; none where its hierarchies disagree.
    pub fn own(&self) -> Option<String> {
        own(&fs::read_to_string("/proc/self/cgroup").ok()?, self.is_v2())
    }

    /// Moves a process into a group, which is made where it is missing.
    pub fn move_process(&self, group: &str, pid: i32) -> io::Result<()> {
        let directories = match self {
            Self::V1 { controllers, others } => {
                // Groups of version 2 beside those of version 1 are systemd's alone.
                let of_version_1 = others.iter().filter(|root| root.join("tasks").exists());
                let mut roots: Vec<_> = controllers.values().chain(of_version_1).collect();
                roots.sort();
                roots.dedup();
                let group = group.trim_start_matches('/');
                roots.iter().try_for_each(|root| create_v1(root, group))?;
                roots.into_iter().map(|root| root.join(group)).collect()
            }
            Self::V2 { root } => {
                create_v2(root, group)?;
                self.directories(group)
            }
        };
        directories.iter().map(|directory| directory.join("cgroup.procs")).try_for_each(|file| {
            // A process that has ended meanwhile is nowhere.
            match fs::write(&file, pid.to_string()) {
                Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(()),
                written => named(written, &file),
            }
        })
    }

    /// Makes a group with its missing parents and sets its limits; what exists already is only updated.
    pub fn create(&self, group: &str, limits: &Limits) -> io::Result<()> {
        match self {
            Self::V1 { .. } => {
                for directory in CONTROLLERS.iter().filter_map(|controller| self.directory(controller, group))
                {
                    named(fs::create_dir_all(&directory), &directory)?;
                }
            }
            Self::V2 { root } => create_v2(root, group)?,
        }
        self.update(group, limits)
    }

    /// Sets the limits of a group that exists.
    pub fn update(&self, group: &str, limits: &Limits) -> io::Result<()> {
        for (controller, file, value) in writes(self.is_v2(), limits) {
            let Some(directory) = self.directory(controller, group) else { continue };
            let file = directory.join(file);
            // On version 2 a controller that the parent does not have makes no file.
            if file.exists() {
                named(fs::write(&file, value), &file)?;
            }
        }
        Ok(())
    }

    /// The limits of a group as they are; what is unlimited is -1, what cannot be read `None`.
    pub fn limits(&self, group: &str) -> Limits {
        limits::read(self, group)
    }

    /// Removes a group and the groups inside of it, in every hierarchy. Fails with `ResourceBusy` while processes are left.
    pub fn delete(&self, group: &str) -> io::Result<()> {
        self.directories(group).iter().try_for_each(|directory| remove_tree(directory))
    }

    /// Kills all processes of a group and of the groups inside of it. They may take a moment to end.
    pub fn kill(&self, group: &str) -> io::Result<()> {
        let mut processes = Vec::new();
        for directory in self.directories(group) {
            processes_below(&directory, &mut processes)?;
        }
        processes.sort_unstable();
        processes.dedup();
        processes.into_iter().try_for_each(|process| {
            match nix::sys::signal::kill(Pid::from_raw(process), Signal::SIGKILL) {
                Err(Errno::ESRCH) => Ok(()),
                killed => Ok(killed?),
            }
        })
    }

    /// The groups directly inside of a group.
    pub fn children(&self, group: &str) -> Vec<String> {
        let Some(directory) = self.directory("memory", group) else { return Vec::new() };
        let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
        let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()));
        directories.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// The processes of a group itself, not of the groups inside of it.
    pub fn processes(&self, group: &str) -> Vec<i32> {
        let Some(directory) = self.directory("memory", group) else { return Vec::new() };
        let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// When a group was made.
    pub fn since(&self, group: &str) -> Option<std::time::SystemTime> {
        let directory = self.directory("memory", group)?;
        fs::metadata(directory).and_then(|about| about.modified()).ok()
    }

    /// How much swap a group may use, together with its memory on version 1; none when it may use all there is.
    pub fn swap_limit(&self, group: &str) -> Option<u64> {
        limits::swap(self, group)
    }

    /// How much swap the group uses.
    pub fn swap(&self, group: &str) -> u64 {
        stats::swap(self, group)
    }

    /// The memory in bytes that is left to a group when others need some; zero for none, nothing where the kernel does not say.
    pub fn memory_reservation(&self, group: &str) -> Option<u64> {
        limits::reservation(self, group)
    }

    /// How long a group has waited for `cpu`, `memory` or `io`; version 2 alone knows.
    pub fn pressure(&self, group: &str, resource: &str) -> Option<Pressure> {
        pressure::read(self, group, resource)
    }

    /// What a group has read from disks and written to them.
    pub fn disks(&self, group: &str) -> DiskUses {
        disks::read(self, group)
    }

    /// What the group uses now.
    pub fn usage(&self, group: &str) -> Usage {
        stats::read(self, group)
    }
}

/// The group that a process is in, by the text of its `cgroup` file.
fn own(text: &str, v2: bool) -> Option<String> {
    let of = |controller: &str| {
        text.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|name| name == controller).then_some(path)
        })
    };
    let found = match v2 {
        true => of(""),
        // systemd's hierarchy knows of all groups, the others of those that need them.
        false => {
            of("cpu").filter(|cpu| of("memory") == Some(cpu)).map(|cpu| of("name=systemd").unwrap_or(cpu))
        }
    };
    found.map(str::to_owned)
}

/// On version 1 a group has no processors and no memory nodes until it is given some.
fn create_v1(root: &Path, group: &str) -> io::Result<()> {
    let mut directory = root.to_owned();
    for name in group.split('/').filter(|name| !name.is_empty()) {
        let parent = directory.clone();
        directory.push(name);
        named(fs::create_dir_all(&directory), &directory)?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (above, own) = (parent.join(file), directory.join(file));
            if fs::read_to_string(&own).is_ok_and(|text| text.trim().is_empty()) {
                named(fs::read_to_string(&above).and_then(|text| fs::write(&own, text)), &own)?;
            }
        }
    }
    Ok(())
}

/// On version 2 a controller works in a group only when every parent passes it on.
fn create_v2(root: &Path, group: &str) -> io::Result<()> {
    let mut directory = root.to_owned();
    for name in group.split('/').filter(|name| !name.is_empty()) {
        let available = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
        for controller in
            available.split_whitespace().filter(|c| ["cpu", "memory", "pids", "cpuset", "io"].contains(c))
        {
            let file = directory.join("cgroup.subtree_control");
            // One that cannot be passed on (a group with processes of its own) leaves the group without its limits only.
            if let Err(error) = fs::write(&file, format!("+{controller}")) {
                tracing::debug!(%error, file = %file.display(), controller, "controller is not passed on");
            }
        }
        directory.push(name);
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return named(Err(error), &directory);
            }
            _ => {}
        }
    }
    Ok(())
}

/// The files to write for some limits: controller, file, value.
fn writes(v2: bool, limits: &Limits) -> Vec<(&'static str, &'static str, String)> {
    let mut out = Vec::new();
    let period = limits.cpu_period_us.unwrap_or(100_000);
    if v2 {
        let max = |n: i64| if n < 0 { "max".to_owned() } else { n.to_string() };
        out.extend(limits.cpu_shares.map(|shares| ("cpu", "cpu.weight", weight(shares).to_string())));
        out.extend(limits.cpu_quota_us.map(|quota| ("cpu", "cpu.max", format!("{} {period}", max(quota)))));
        out.extend(limits.memory.map(|bytes| ("memory", "memory.max", max(bytes))));
        out.extend(limits.pids.map(|n| ("pids", "pids.max", max(n))));
        return out;
    }
    out.extend(limits.cpu_shares.map(|shares| ("cpu", "cpu.shares", shares.to_string())));
    out.extend(limits.cpu_period_us.map(|period| ("cpu", "cpu.cfs_period_us", period.to_string())));
    out.extend(limits.cpu_quota_us.map(|quota| ("cpu", "cpu.cfs_quota_us", quota.to_string())));
    out.extend(limits.memory.map(|bytes| ("memory", "memory.limit_in_bytes", bytes.to_string())));
    let pids = |n: i64| if n < 0 { "max".to_owned() } else { n.to_string() };
    out.extend(limits.pids.map(|n| ("pids", "pids.max", pids(n))));
    out
}

/// Version 2's weight for version 1's shares, as container runtimes map them: 2..262144 to 1..10000.
pub fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// Collects the processes of a group and of the groups inside of it, by its folder; a folder that is not there has none.
fn processes_below(directory: &Path, found: &mut Vec<i32>) -> io::Result<()> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    // Zero is a process of another namespace, which cannot be named here.
    found.extend(text.lines().filter_map(|line| line.parse().ok()).filter(|process: &i32| *process > 0));
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => named(other, directory)?,
    };
    let inside = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()));
    inside.map(|entry| entry.path()).try_for_each(|directory| processes_below(&directory, found))
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => named(other, directory)?,
    };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())) {
        remove_tree(&entry.path())?;
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => named(other, directory),
    }
}

/// Puts the path into an error's text.
fn named<T>(result: io::Result<T>, path: &Path) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    #[test]
    fn hybrid_machines_count_as_version_one() {
        let Cgroups::V1 { controllers, others } = Cgroups::from_mounts(&mount::parse(HYBRID)).unwrap() else {
            panic!("not version 1")
        };
        assert_eq!(controllers.keys().collect::<Vec<_>>(), ["cpu", "memory"]);
        assert_eq!(others, [Path::new("/sys/fs/cgroup/systemd"), Path::new("/sys/fs/cgroup/unified")]);
        let unified = "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let found = Cgroups::from_mounts(&mount::parse(unified)).unwrap();
        assert_eq!(found, Cgroups::V2 { root: "/sys/fs/cgroup".into() });
        assert!(Cgroups::from_mounts(&[]).is_none());
    }

    #[test]
    fn killing_a_group_ends_the_processes_inside_of_it_and_no_others() {
        let root = tempfile::tempdir().unwrap();
        let sleep = || std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let (mut inside, mut outside) = (sleep(), sleep());
        for (group, text) in
            [("pod/container", format!("{}\n0\n", inside.id())), ("other", outside.id().to_string())]
        {
            fs::create_dir_all(root.path().join(group)).unwrap();
            fs::write(root.path().join(group).join("cgroup.procs"), text).unwrap();
        }
        let groups = Cgroups::V2 { root: root.path().to_owned() };
        groups.kill("pod").unwrap();
        assert!(!inside.wait().unwrap().success());
        assert!(outside.try_wait().unwrap().is_none());
        outside.kill().unwrap();
        outside.wait().unwrap();
        groups.kill("none").unwrap();
    }

    #[test]
    fn limits_are_written_in_each_versions_own_terms() {
        let limits = Limits {
            cpu_shares: Some(1024),
            cpu_quota_us: Some(50_000),
            cpu_period_us: Some(100_000),
            memory: Some(-1),
            pids: Some(100),
        };
        let v2: Vec<_> = writes(true, &limits).into_iter().map(|(_, file, value)| (file, value)).collect();
        let expected =
            [("cpu.weight", "39"), ("cpu.max", "50000 100000"), ("memory.max", "max"), ("pids.max", "100")];
        assert_eq!(v2, expected.map(|(file, value)| (file, value.to_owned())));
        let v1: Vec<_> = writes(false, &limits).into_iter().map(|(_, file, value)| (file, value)).collect();
        assert!(v1.contains(&("memory.limit_in_bytes", "-1".to_owned())));
        assert!(v1.contains(&("cpu.shares", "1024".to_owned())));
        assert!(writes(true, &Limits::default()).is_empty());
    }

    #[test]
    fn a_process_is_in_one_group() {
        assert_eq!(own("0::/user.slice\n", true).as_deref(), Some("/user.slice"));
        let text = "5:memory:/a\n4:cpu,cpuacct:/a\n1:name=systemd:/b\n0::/\n";
        assert_eq!(own(text, false).as_deref(), Some("/b"));
        assert_eq!(own("5:memory:/a\n4:cpu,cpuacct:/a\n", false).as_deref(), Some("/a"));
        assert_eq!(own("5:memory:/a\n4:cpu,cpuacct:/c\n", false), None);
    }

    #[test]
    fn limits_need_a_group_with_their_controllers() {
        let root = tempfile::tempdir().unwrap();
        let v2 = Cgroups::V2 { root: root.path().to_owned() };
        let write = |file: &str, text: &str| fs::write(root.path().join(file), text).unwrap();
        write("cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma\n");
        assert!(matches!(v2.check("/kube"), Err(Missing::Unreadable(_))));
        fs::create_dir(root.path().join("kube")).unwrap();
        write("kube/cgroup.controllers", "cpu memory pids\n");
        let missing = v2.check("/kube");
        assert!(matches!(missing, Err(Missing::Controllers(missing)) if missing == ["cpuset", "hugetlb"]));
        write("kube/cgroup.controllers", "cpuset cpu memory hugetlb pids\n");
        v2.check("kube").unwrap();
        let controllers = ["cpu", "memory"].map(|name| (name.to_owned(), root.path().join(name))).into();
        let v1 = Cgroups::V1 { controllers, others: Vec::new() };
        fs::create_dir_all(root.path().join("cpu/kube")).unwrap();
        let missing = v1.check("/kube");
        assert!(matches!(missing, Err(Missing::Paths(paths)) if paths == [root.path().join("memory/kube")]));
    }

    #[test]
    fn groups_of_version_one_begin_with_the_processors_of_their_parents() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("a/b");
        fs::create_dir_all(&group).unwrap();
        for (file, text) in [("cpuset.cpus", "0-1\n"), ("a/cpuset.cpus", "0\n"), ("a/b/cpuset.cpus", "\n")] {
            fs::write(root.path().join(file), text).unwrap();
        }
        create_v1(root.path(), "a/b").unwrap();
        assert_eq!(fs::read_to_string(group.join("cpuset.cpus")).unwrap(), "0\n");
    }

    #[test]
    fn groups_of_version_two_are_made_updated_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let groups = Cgroups::V2 { root: root.path().to_owned() };
        groups.create("kubepods/burstable/pod1", &Limits::default()).unwrap();
        assert!(groups.exists("kubepods/burstable/pod1"));
        assert_eq!(groups.children("kubepods"), ["burstable"]);
        groups.delete("kubepods").unwrap();
        assert!(!groups.exists("kubepods"));
        groups.delete("kubepods").unwrap();
    }
}
