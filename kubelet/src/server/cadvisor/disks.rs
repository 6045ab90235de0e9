//! The disks: what groups read from them and write to them, and for the machine as a whole how full they are and how busy.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use linux::cgroup::{DiskUse, DiskUses};
use linux::mount::MountPoint;

/// A disk as a group sees it.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Disk {
    /// `/dev/sda`, or the numbers of a device without a name.
    pub(super) device: String,
    pub(super) numbers: (u32, u32),
    /// What the group has done with it.
    pub(super) used: Option<DiskUse>,
    /// The file system on it.
    pub(super) room: Option<Room>,
    /// What the machine does with it: the fields of `/proc/diskstats`.
    pub(super) counts: Option<[u64; 11]>,
}

/// How full a file system is.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Room {
    pub(super) bytes: u64,
    pub(super) used: u64,
    pub(super) inodes: u64,
    pub(super) inodes_free: u64,
}

/// File systems on disks.
const TYPES: [&str; 7] = ["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs"];

/// The disks that a group has used.
pub(super) fn of_group(sys: &Path, uses: &DiskUses) -> Vec<Disk> {
    let disk = |(numbers, used): (&(u32, u32), &DiskUse)| Disk {
        device: device(sys, *numbers),
        numbers: *numbers,
        used: Some(*used),
        ..Disk::default()
    };
    uses.iter().map(disk).collect()
}

/// The name of a device, as `/sys/dev/block` has it.
fn device(sys: &Path, (major, minor): (u32, u32)) -> String {
    let file = sys.join(format!("dev/block/{major}:{minor}/uevent"));
    let text = fs::read_to_string(file).unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map_or_else(|| format!("{major}:{minor}"), |name| format!("/dev/{name}"))
}

/// The file systems on this machine's disks, each once, and what the kernel counts of the disks.
pub(super) fn of_machine(mounts: &[MountPoint], diskstats: &str) -> Vec<Disk> {
    let mut seen = BTreeSet::new();
    let on_disk = mounts.iter().filter(|mount| TYPES.contains(&mount.fs_type.as_str()));
    let first = on_disk.filter(|mount| seen.insert(mount.source.clone()));
    first
        .map(|mount| Disk {
            device: mount.source.clone(),
            room: room(&mount.path),
            counts: counts(diskstats, &mount.source),
            ..Disk::default()
        })
        .collect()
}

fn room(path: &Path) -> Option<Room> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    let unit = stat.fragment_size();
    Some(Room {
        bytes: stat.blocks() * unit,
        used: stat.blocks().saturating_sub(stat.blocks_free()) * unit,
        inodes: stat.files(),
        inodes_free: stat.files_free(),
    })
}

/// The first eleven counts of a device in the text of `/proc/diskstats`.
fn counts(diskstats: &str, device: &str) -> Option<[u64; 11]> {
    let name = device.strip_prefix("/dev/")?;
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let line = diskstats.lines().map(words).find(|words| words.get(2).is_some_and(|known| known == name))?;
    let counts: Vec<u64> = line.iter().skip(3).take(11).filter_map(|word| word.parse().ok()).collect();
    counts.try_into().ok()
}

/// A metric of disks.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) help: &'static str,
    pub(super) value: fn(&Disk) -> Option<f64>,
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&Disk) -> Option<f64>) -> Family {
    Family { name, kind: "gauge", help, value }
}

const fn counter(name: &'static str, help: &'static str, value: fn(&Disk) -> Option<f64>) -> Family {
    Family { name, kind: "counter", help, value }
}

fn count(disk: &Disk, field: usize) -> Option<f64> {
    disk.counts.map(|counts| counts[field] as f64)
}

/// The kernel counts milliseconds.
fn seconds(disk: &Disk, field: usize) -> Option<f64> {
    count(disk, field).map(|milliseconds| milliseconds / 1000.0)
}

fn used(disk: &Disk, value: fn(DiskUse) -> u64) -> Option<f64> {
    disk.used.map(|used| value(used) as f64)
}

/// The metrics, with upstream's names and words.
pub(super) const FAMILIES: [Family; 17] = [
    gauge("container_fs_inodes_free", "Number of available Inodes", |d| d.room.map(|r| r.inodes_free as f64)),
    gauge("container_fs_inodes_total", "Number of Inodes", |d| d.room.map(|r| r.inodes as f64)),
    gauge(
        "container_fs_limit_bytes",
        "Number of bytes that can be consumed by the container on this filesystem.",
        |d| d.room.map(|r| r.bytes as f64),
    ),
    gauge(
        "container_fs_usage_bytes",
        "Number of bytes that are consumed by the container on this filesystem.",
        |d| d.room.map(|r| r.used as f64),
    ),
    counter("container_fs_reads_bytes_total", "Cumulative count of bytes read", |d| {
        used(d, |u| u.read_bytes)
    }),
    counter("container_fs_reads_total", "Cumulative count of reads completed", |d| {
        used(d, |u| u.reads).or_else(|| count(d, 0))
    }),
    counter("container_fs_reads_merged_total", "Cumulative count of reads merged", |d| count(d, 1)),
    counter("container_fs_sector_reads_total", "Cumulative count of sector reads completed", |d| count(d, 2)),
    counter("container_fs_read_seconds_total", "Cumulative count of seconds spent reading", |d| {
        seconds(d, 3)
    }),
    counter("container_fs_writes_bytes_total", "Cumulative count of bytes written", |d| {
        used(d, |u| u.written_bytes)
    }),
    counter("container_fs_writes_total", "Cumulative count of writes completed", |d| {
        used(d, |u| u.writes).or_else(|| count(d, 4))
    }),
    counter("container_fs_writes_merged_total", "Cumulative count of writes merged", |d| count(d, 5)),
    counter("container_fs_sector_writes_total", "Cumulative count of sector writes completed", |d| {
        count(d, 6)
    }),
    counter("container_fs_write_seconds_total", "Cumulative count of seconds spent writing", |d| {
        seconds(d, 7)
    }),
    gauge("container_fs_io_current", "Number of I/Os currently in progress", |d| count(d, 8)),
    counter("container_fs_io_time_seconds_total", "Cumulative count of seconds spent doing I/Os", |d| {
        seconds(d, 9)
    }),
    counter("container_fs_io_time_weighted_seconds_total", "Cumulative weighted I/O time in seconds", |d| {
        seconds(d, 10)
    }),
];

#[cfg(test)]
mod tests {
    use super::*;

    const STATS: &str = "   8       0 sda 10 1 80 2000 20 2 160 4000 1 5000 6000 0 0 0 0\n   8       1 sda1 3 0 24 7 0 0 0 0 0 7 7\n";

    #[test]
    fn each_disk_of_the_machine_is_shown_once() {
        let mount = |source: &str, fs_type: &str| MountPoint {
            root: "/".to_owned(),
            path: "/".into(),
            fs_type: fs_type.to_owned(),
            source: source.to_owned(),
            options: Vec::new(),
        };
        let mounts = [mount("/dev/sda", "ext4"), mount("proc", "proc"), mount("/dev/sda", "ext4")];
        let disks = of_machine(&mounts, STATS);
        let [disk] = disks.as_slice() else { panic!("{disks:?}") };
        let room = disk.room.unwrap();
        assert!(room.used <= room.bytes && room.inodes_free <= room.inodes, "{room:?}");
        let value = |name: &str| {
            let family = FAMILIES.iter().find(|family| family.name == name).unwrap();
            (family.value)(disk)
        };
        for (name, expected) in [
            ("container_fs_reads_total", Some(10.0)),
            ("container_fs_read_seconds_total", Some(2.0)),
            ("container_fs_writes_merged_total", Some(2.0)),
            ("container_fs_io_current", Some(1.0)),
            ("container_fs_io_time_weighted_seconds_total", Some(6.0)),
            ("container_fs_reads_bytes_total", None),
        ] {
            assert_eq!(value(name), expected, "{name}");
        }
    }

    #[test]
    fn the_disks_of_a_group_are_called_by_their_names() {
        let sys = tempfile::tempdir().unwrap();
        let folder = sys.path().join("dev/block/8:0");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("uevent"), "MAJOR=8\nMINOR=0\nDEVNAME=sda\nDEVTYPE=disk\n").unwrap();
        let used = DiskUse { read_bytes: 5, reads: 1, ..DiskUse::default() };
        let disks = of_group(sys.path(), &[((8, 0), used), ((9, 9), used)].into());
        let names: Vec<_> = disks.iter().map(|disk| disk.device.as_str()).collect();
        assert_eq!(names, ["/dev/sda", "9:9"]);
        assert_eq!(FAMILIES.iter().filter(|family| (family.value)(&disks[0]).is_some()).count(), 4);
    }
}
