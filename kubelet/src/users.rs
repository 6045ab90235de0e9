//! Users of a pod's own (`hostUsers: false`, KEP-127): each such pod gets a range of the node's user and group ids that no
//! other has, noted in the pod's folder in upstream's form.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::{Context, bail};
use k8s_cri::v1 as cri;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::config::Config;

/// The file in a pod's folder.
const FILE: &str = "userns";
/// Ranges are multiples of this.
const UNIT: u32 = 65_536;
/// Who may have ranges of the node's, when there is such a user.
const USER: &str = "kubelet";

/// The users of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Users {
    first: u32,
    length: u32,
}

impl Users {
    /// The runtime's word for them; none stands for the node's.
    pub(crate) fn namespace(users: Option<Self>) -> cri::UserNamespace {
        match users {
            None => cri::UserNamespace { mode: cri::NamespaceMode::Node as i32, ..Default::default() },
            Some(users) => cri::UserNamespace {
                mode: cri::NamespaceMode::Pod as i32,
                uids: vec![users.mapping()],
                gids: vec![users.mapping()],
            },
        }
    }

    /// Which ids on the node stand for those from zero on in the pod.
    pub(crate) fn mapping(self) -> cri::IdMapping {
        cri::IdMapping { host_id: self.first, container_id: 0, length: self.length }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Noted {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

/// Who has which range.
pub(crate) struct Ranges {
    pods: PathBuf,
    /// The ids there are, and how many a pod gets.
    all: std::ops::Range<u32>,
    each: u32,
    /// The first id of each pod, by uid.
    used: Mutex<BTreeMap<String, u32>>,
}

impl Ranges {
    /// Reads what pods have.
    ///
    /// # Errors
    /// The ids set aside for pods are too few, or a pod's file cannot be understood.
    pub(crate) fn load(config: &Config) -> anyhow::Result<Self> {
        let each = config.file.user_namespaces.ids_per_pod;
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let all = set_aside(&read("/etc/passwd"), [&read("/etc/subuid"), &read("/etc/subgid")])?
            .map_or_else(
                || Ok(each..each.saturating_mul(config.file.max_pods.saturating_add(1))),
                |range| check(range, each, config.file.max_pods),
            )?;
        let ranges = Self { pods: config.root.join("pods"), all, each, used: Mutex::default() };
        for entry in fs::read_dir(&ranges.pods).into_iter().flatten() {
            let entry = entry.context("cannot read the folders of pods")?;
            let uid = entry.file_name().to_string_lossy().into_owned();
            if let Some(first) = ranges.noted(&uid)? {
                ranges.take(&uid, first)?;
            }
        }
        Ok(ranges)
    }

    /// The users of a pod, those it has or new ones. Its folder has to be there.
    ///
    /// # Errors
    /// A sentence, when there are none left or they cannot be noted.
    pub(crate) fn of(&self, uid: &str) -> Result<Users, String> {
        let users = |first| Users { first, length: self.each };
        let mut used = self.used.lock();
        if let Some(first) = used.get(uid) {
            return Ok(users(*first));
        }
        let taken: Vec<u32> = used.values().copied().collect();
        let mut free = self.all.clone().step_by(self.each as usize).filter(|first| !taken.contains(first));
        let first = free.next().ok_or("could not find an empty slot to allocate a user namespace")?;
        self.note(uid, first).map_err(|error| format!("create user namespace: {error}"))?;
        used.insert(uid.to_owned(), first);
        Ok(users(first))
    }

    /// Gives the users of a pod to others; its folder goes.
    pub(crate) fn forget(&self, uid: &str) {
        self.used.lock().remove(uid);
    }

    fn take(&self, uid: &str, first: u32) -> anyhow::Result<()> {
        let mut used = self.used.lock();
        if !self.all.contains(&first) || !first.is_multiple_of(self.each) {
            bail!("the users of pod {uid} begin at {first}, which is not the first id of a range");
        }
        if used.values().any(|other| *other == first) {
            bail!("the users of pod {uid} from {first} on are those of another pod too");
        }
        used.insert(uid.to_owned(), first);
        Ok(())
    }

    fn noted(&self, uid: &str) -> anyhow::Result<Option<u32>> {
        let path = self.pods.join(uid).join(FILE);
        let text = match fs::read(&path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let noted: Noted = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no file of user mappings", path.display()))?;
        match (noted.uid_mappings.as_slice(), noted.gid_mappings.as_slice()) {
            ([one], [other]) if one == other && one.container_id == 0 && one.length == self.each => {
                Ok(Some(one.host_id))
            }
            _ => bail!("the user mappings in {} are not one range of {} ids", path.display(), self.each),
        }
    }

    fn note(&self, uid: &str, first: u32) -> io::Result<()> {
        let mapping = vec![Mapping { host_id: first, container_id: 0, length: self.each }];
        let noted = Noted { uid_mappings: mapping.clone(), gid_mappings: mapping };
        let dir = self.pods.join(uid);
        let (path, temporary) = (dir.join(FILE), dir.join(".userns.tmp"));
        fs::write(&temporary, serde_json::to_vec(&noted)?)?;
        fs::File::open(&temporary)?.sync_all()?;
        fs::rename(&temporary, &path)?;
        // The name has to survive as well.
        fs::File::open(&dir)?.sync_all()
    }
}

/// The range that the files `passwd`, `subuid` and `subgid` set aside for pods; none where there is no such user.
fn set_aside(passwd: &str, subordinate: [&str; 2]) -> anyhow::Result<Option<std::ops::Range<u32>>> {
    if !passwd.lines().any(|line| line.split(':').next() == Some(USER)) {
        return Ok(None);
    }
    let range = |file: &str| {
        let mut lines = file.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (user, first, count) = (fields.next()?, fields.next()?, fields.next()?);
            (user == USER)
                .then(|| Some((first.trim().parse::<u32>().ok()?, count.trim().parse::<u32>().ok()?)))
        });
        let (line, more) = (lines.next().flatten(), lines.next());
        let (first, count) =
            line.with_context(|| format!("there are no subordinate ids of the user {USER}"))?;
        if more.is_some() {
            bail!("the user {USER} has more than one range of subordinate ids");
        }
        let end = first.checked_add(count).context("the subordinate ids are out of range")?;
        anyhow::Ok(first..end)
    };
    let [users, groups] = subordinate;
    let (users, groups) = (range(users)?, range(groups)?);
    if users != groups {
        bail!("the subordinate user and group ids of the user {USER} are not the same");
    }
    Ok(Some(users))
}

fn check(all: std::ops::Range<u32>, each: u32, max_pods: u32) -> anyhow::Result<std::ops::Range<u32>> {
    let length = all.end - all.start;
    if !all.start.is_multiple_of(each) || !length.is_multiple_of(each) {
        bail!("the ids {all:?} set aside for pods are not multiples of {each}");
    }
    if all.start < each {
        bail!("kubelet user assigned ID {} must be greater or equal to {each}", all.start);
    }
    if length / each < max_pods {
        bail!("kubelet user assigned IDs are not enough to support {max_pods} pods");
    }
    Ok(all)
}

/// Refuses a number of ids for each pod that is not a multiple of 65536.
///
/// # Errors
/// What is wrong.
pub(crate) fn check_length(ids_per_pod: u32) -> anyhow::Result<()> {
    if ids_per_pod == 0 || !ids_per_pod.is_multiple_of(UNIT) {
        bail!("invalid configuration: userNamespaces.idsPerPod {ids_per_pod} must be a multiple of {UNIT}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn ranges(dir: &Path, pods: u32) -> anyhow::Result<Ranges> {
        let all = UNIT..UNIT * (pods + 1);
        let ranges = Ranges { pods: dir.to_owned(), all, each: UNIT, used: Mutex::default() };
        for entry in fs::read_dir(dir)? {
            let uid = entry?.file_name().to_string_lossy().into_owned();
            if let Some(first) = ranges.noted(&uid)? {
                ranges.take(&uid, first)?;
            }
        }
        Ok(ranges)
    }

    fn pod(dir: &Path, uid: &str) {
        fs::create_dir(dir.join(uid)).unwrap();
    }

    #[test]
    fn no_two_pods_have_the_same_users() {
        let dir = tempfile::tempdir().unwrap();
        let ranges_before = ranges(dir.path(), 2).unwrap();
        for uid in ["a", "b", "c"] {
            pod(dir.path(), uid);
        }
        assert_eq!(ranges_before.of("a").unwrap().first, UNIT);
        assert_eq!(ranges_before.of("b").unwrap().first, 2 * UNIT);
        assert_eq!(ranges_before.of("a").unwrap().first, UNIT);
        assert!(ranges_before.of("c").is_err(), "there are two ranges only");
        // After a restart pods have what they had.
        let after = ranges(dir.path(), 2).unwrap();
        assert_eq!(after.of("b").unwrap().first, 2 * UNIT);
        fs::remove_dir_all(dir.path().join("a")).unwrap();
        after.forget("a");
        assert_eq!(after.of("c").unwrap().first, UNIT);
    }

    #[test]
    fn a_file_of_upstream_is_read_and_a_broken_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        pod(dir.path(), "a");
        let write = |host: u32, length: u32| {
            let mapping = format!(r#"[{{"hostId":{host},"containerId":0,"length":{length}}}]"#);
            let text = format!(r#"{{"uidMappings":{mapping},"gidMappings":{mapping}}}"#);
            fs::write(dir.path().join("a").join(FILE), &text).unwrap();
            text
        };
        let text = write(2 * UNIT, UNIT);
        let read = ranges(dir.path(), 3).unwrap();
        assert_eq!(read.of("a").unwrap().first, 2 * UNIT);
        read.note("a", 2 * UNIT).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("a").join(FILE)).unwrap(), text);
        for (host, length) in [(9 * UNIT, UNIT), (UNIT + 1, UNIT), (UNIT, 7)] {
            write(host, length);
            assert!(ranges(dir.path(), 3).is_err(), "{host} {length}");
        }
    }

    #[test]
    fn ids_are_those_set_aside_for_the_kubelet() {
        let passwd = "root:x:0:0::/root:/bin/sh\nkubelet:x:998:998::/:/bin/false\n";
        let file = "someone:1:2\nkubelet:65536:196608\n";
        assert_eq!(set_aside("root:x:0:0::/root:/bin/sh\n", ["", ""]).unwrap(), None);
        assert_eq!(set_aside(passwd, [file, file]).unwrap(), Some(UNIT..4 * UNIT));
        assert!(set_aside(passwd, ["", ""]).is_err());
        assert!(set_aside(passwd, [file, "kubelet:65536:65536\n"]).is_err());
        for (range, fits) in
            [(UNIT..3 * UNIT, true), (0..2 * UNIT, false), (UNIT..2 * UNIT, false), (7..UNIT, false)]
        {
            assert_eq!(check(range.clone(), UNIT, 2).is_ok(), fits, "{range:?}");
        }
        assert!(check_length(UNIT).is_ok() && check_length(UNIT + 1).is_err() && check_length(0).is_err());
    }
}
