//! What a group has read from disks and written to them.

use std::collections::BTreeMap;
use std::fs;

use super::Cgroups;

/// Reading and writing on one disk since the group was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUse {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Requests to read.
    pub reads: u64,
    /// Requests to write.
    pub writes: u64,
}

/// By the major and minor number of the device.
pub type DiskUses = BTreeMap<(u32, u32), DiskUse>;

pub(super) fn read(groups: &Cgroups, group: &str) -> DiskUses {
    let text = |controller: &str, file: &str| {
        let path = groups.directory(controller, group)?.join(file);
        fs::read_to_string(path).ok().filter(|text| !text.is_empty())
    };
    let mut uses = DiskUses::new();
    if groups.is_v2() {
        v2(&text("io", "io.stat").unwrap_or_default(), &mut uses);
        return uses;
    }
    let of_v1 = |what: &str| {
        let recursive = text("blkio", &format!("blkio.throttle.{what}_recursive"));
        recursive.or_else(|| text("blkio", &format!("blkio.throttle.{what}"))).unwrap_or_default()
    };
    v1(&of_v1("io_service_bytes"), &mut uses, |disk| (&mut disk.read_bytes, &mut disk.written_bytes));
    v1(&of_v1("io_serviced"), &mut uses, |disk| (&mut disk.reads, &mut disk.writes));
    uses
}

fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Lines as in `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`.
fn v2(text: &str, uses: &mut DiskUses) {
    for line in text.lines() {
        let mut words = line.split(' ');
        let Some(device) = words.next().and_then(device) else { continue };
        let disk = uses.entry(device).or_default();
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            let slot = match name {
                "rbytes" => &mut disk.read_bytes,
                "wbytes" => &mut disk.written_bytes,
                "rios" => &mut disk.reads,
                "wios" => &mut disk.writes,
                _ => continue,
            };
            *slot = value.parse().unwrap_or_default();
        }
    }
}

/// Lines as in `8:0 Read 1`.
fn v1(text: &str, uses: &mut DiskUses, slots: impl Fn(&mut DiskUse) -> (&mut u64, &mut u64)) {
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [numbers, what @ ("Read" | "Write"), value] = words.as_slice() else { continue };
        let Some(device) = device(numbers) else { continue };
        let (read, written) = slots(uses.entry(device).or_default());
        *(if *what == "Read" { read } else { written }) = value.parse().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_tell_the_same() {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(root.path().join(file), text).unwrap();
        write("io.stat", "8:0 rbytes=4096 wbytes=512 rios=2 wios=1 dbytes=0 dios=0\n253:1 \n");
        let disk = DiskUse { read_bytes: 4096, written_bytes: 512, reads: 2, writes: 1 };
        let v2 = Cgroups::V2 { root: root.path().to_owned() };
        assert_eq!(v2.disks(""), [((8, 0), disk), ((253, 1), DiskUse::default())].into());
        write(
            "blkio.throttle.io_service_bytes_recursive",
            "8:0 Read 4096\n8:0 Write 512\n8:0 Total 4608\nTotal 4608\n",
        );
        write("blkio.throttle.io_serviced", "8:0 Read 2\n8:0 Write 1\n8:0 Sync 0\nTotal 3\n");
        let controllers = [("blkio".to_owned(), root.path().to_owned())].into();
        let v1 = Cgroups::V1 { controllers, others: Vec::new() };
        assert_eq!(v1.disks(""), [((8, 0), disk)].into());
    }
}
