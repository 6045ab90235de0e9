//! The file of a checkpoint, in upstream's format: a document as text with its checksum.
//!
//! Many pods change at the same time and each has to wait until the disk has its change. So what is kept changes in memory,
//! and whoever comes to write the file writes all that has changed until then: the others find theirs written.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail};
use api::Value;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{self, Dump};

/// The resources that a pod has: of each of its containers, and of the pod as a whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Info {
    /// `ResourceRequirements` by the container's name.
    #[serde(deserialize_with = "or_default")]
    pub container_resources: BTreeMap<String, Value>,
    /// `ResourceRequirements`, or null.
    pub pod_level_resources: Value,
}

fn or_default<'de, D: serde::Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Value>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[derive(Default, Serialize, Deserialize)]
struct Data {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    entries: BTreeMap<String, Info>,
}

#[derive(Serialize, Deserialize)]
struct File {
    data: String,
    checksum: u64,
}

/// What is kept in one file, by the uid of pods.
pub(crate) struct Checkpoint {
    data: Data,
    /// How often it has changed.
    changes: u64,
}

/// The file, of which one at a time is written.
pub(crate) struct Keeper {
    path: PathBuf,
    /// The changes that it holds.
    written: AtomicU64,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Keeper {
    /// Nothing has changed since the file was read.
    pub(crate) fn new(path: PathBuf) -> Arc<Self> {
        Arc::new(Self { path, written: AtomicU64::new(0), turn: Arc::default() })
    }

    /// Waits until the file holds so many changes; `newest` says what there is to write. True when it had to be written for
    /// this. A writing that has begun is finished, whether or not anybody still waits for it.
    pub(crate) async fn keep(
        self: &Arc<Self>,
        changes: u64,
        newest: impl FnOnce() -> Newest,
    ) -> io::Result<bool> {
        let has = |this: &Self| this.written.load(Ordering::Acquire) >= changes;
        if has(self) {
            return Ok(false);
        }
        let turn = self.turn.clone().lock_owned().await;
        if has(self) {
            return Ok(false);
        }
        let (changes, data) = newest();
        let data = data?;
        let this = self.clone();
        let write = move || {
            let _turn = turn;
            let checksum = checksum(&data);
            checkpoint::write(&this.path, &serde_json::to_string(&File { data, checksum })?)?;
            this.written.store(changes, Ordering::Release);
            Ok(true)
        };
        tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
    }
}

/// What is to be written, with the changes that it holds.
pub(crate) type Newest = (u64, serde_json::Result<String>);

impl Checkpoint {
    /// Reads the file; one that is not there holds nothing.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let read = || -> anyhow::Result<Data> {
            let Some(text) = checkpoint::read(path)? else { return Ok(Data::default()) };
            let file: File = serde_json::from_str(&text)?;
            if checksum(&file.data) != file.checksum {
                bail!("checkpoint is corrupted");
            }
            serde_json::from_str(&file.data).context("failed to get pod resource information")
        };
        let data = read().with_context(|| {
            format!(
                "could not restore state from checkpoint: please drain this node and delete pod resource information \
                 checkpoint file {path:?} before restarting Kubelet"
            )
        })?;
        Ok(Self { data, changes: 0 })
    }

    /// What a pod has.
    pub(crate) fn get(&self, uid: &str) -> Option<&Info> {
        self.data.entries.get(uid)
    }

    /// Changes what a pod has.
    pub(crate) fn change(&mut self, uid: &str, change: impl FnOnce(&mut Info)) {
        let before = self.data.entries.get(uid).cloned();
        let entry = self.data.entries.entry(uid.to_owned()).or_default();
        change(entry);
        if before.as_ref() != Some(entry) {
            self.changes += 1;
        }
    }

    /// How often something has changed that has to be in the file.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// All of it, as the file has it.
    pub(crate) fn newest(&self) -> Newest {
        (self.changes, serde_json::to_string(&self.data))
    }

    /// Forgets a pod. The file follows with the next change: knowing too much does no harm.
    pub(crate) fn forget(&mut self, uid: &str) {
        self.data.entries.remove(uid);
    }

    /// Forgets all pods but some.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.data.entries.retain(|uid, _| keep(uid));
    }
}

/// The checksum of a text.
fn checksum(data: &str) -> u64 {
    checkpoint::checksum(&Dump::Text(data.to_owned()).print())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use api::object;
    use parking_lot::Mutex;

    use super::*;

    /// What a kubelet of upstream has written.
    const UPSTREAM: &str = r#"{"data":"{\"entries\":{\"pod1\":{\"ContainerResources\":{\"container1\":{\"requests\":{\"cpu\":\"1Ki\",\"memory\":\"1Ki\"}}}}}}","checksum":1178570812}"#;

    #[test]
    fn a_file_of_upstream_is_read_and_a_broken_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::write(&path, UPSTREAM).unwrap();
        let checkpoint = Checkpoint::load(&path).unwrap();
        let expected = object!({"requests": {"cpu": "1Ki", "memory": "1Ki"}});
        assert_eq!(checkpoint.get("pod1").unwrap().container_resources["container1"], expected);
        fs::write(&path, UPSTREAM.replace("1Ki", "2Ki")).unwrap();
        let error = Checkpoint::load(&path).err().unwrap();
        assert_eq!(error.root_cause().to_string(), "checkpoint is corrupted");
    }

    #[tokio::test]
    async fn who_changes_something_waits_until_the_file_has_it_and_many_share_one_writing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let checkpoint = Mutex::new(Checkpoint::load(&path).unwrap());
        let keeper = Keeper::new(path.clone());
        let resources = object!({"limits": {"cpu": "1"}});
        let one = async |uid: String| {
            let changes = {
                let mut checkpoint = checkpoint.lock();
                let put = |info: &mut Info| {
                    info.container_resources.insert("c".to_owned(), resources.clone());
                };
                checkpoint.change(&uid, put);
                checkpoint.changes()
            };
            let wrote = keeper.keep(changes, || checkpoint.lock().newest()).await.unwrap();
            let mut again = Checkpoint::load(&path).unwrap();
            assert_eq!(again.get(&uid).unwrap().container_resources["c"], resources);
            again.forget(&uid);
            assert!(again.get(&uid).is_none());
            wrote
        };
        let wrote = futures::future::join_all((0..50).map(|n| one(format!("pod-{n}")))).await;
        assert_eq!(wrote.into_iter().filter(|wrote| *wrote).count(), 2);
        // What is as it was is not written again.
        assert!(!one("pod-0".to_owned()).await);
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_written_with_the_next_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("folder/state");
        let mut checkpoint = Checkpoint::load(&path).unwrap();
        let keeper = Keeper::new(path.clone());
        checkpoint.change("a", |_| {});
        assert!(keeper.keep(checkpoint.changes(), || checkpoint.newest()).await.is_err());
        fs::create_dir(path.parent().unwrap()).unwrap();
        assert!(keeper.keep(checkpoint.changes(), || checkpoint.newest()).await.unwrap());
        assert!(Checkpoint::load(&path).unwrap().get("a").is_some());
    }
}
