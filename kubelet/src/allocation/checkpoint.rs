//! The file of a checkpoint, in upstream's format: a document as text with its checksum.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

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
    path: PathBuf,
    data: Data,
    written: Option<u64>,
}

impl Checkpoint {
    /// Reads the file; one that is not there holds nothing.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let read = || -> anyhow::Result<(Data, Option<u64>)> {
            let Some(text) = checkpoint::read(path)? else { return Ok((Data::default(), None)) };
            let file: File = serde_json::from_str(&text)?;
            if checksum(&file.data) != file.checksum {
                bail!("checkpoint is corrupted");
            }
            let data = serde_json::from_str(&file.data).context("failed to get pod resource information")?;
            Ok((data, Some(file.checksum)))
        };
        let (data, written) = read().with_context(|| {
            format!(
                "could not restore state from checkpoint: please drain this node and delete pod resource information \
                 checkpoint file {path:?} before restarting Kubelet"
            )
        })?;
        Ok(Self { path: path.to_owned(), data, written })
    }

    /// What a pod has.
    pub(crate) fn get(&self, uid: &str) -> Option<&Info> {
        self.data.entries.get(uid)
    }

    /// Changes what a pod has, and writes the file when it is another then.
    pub(crate) fn change(&mut self, uid: &str, change: impl FnOnce(&mut Info)) -> io::Result<()> {
        change(self.data.entries.entry(uid.to_owned()).or_default());
        self.write()
    }

    /// Forgets a pod. The file follows with the next change: knowing too much does no harm.
    pub(crate) fn forget(&mut self, uid: &str) {
        self.data.entries.remove(uid);
    }

    /// Forgets all pods but some.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.data.entries.retain(|uid, _| keep(uid));
    }

    fn write(&mut self) -> io::Result<()> {
        let data = serde_json::to_string(&self.data)?;
        let checksum = checksum(&data);
        if self.written == Some(checksum) {
            return Ok(());
        }
        checkpoint::write(&self.path, &serde_json::to_string(&File { data, checksum })?)?;
        self.written = Some(checksum);
        Ok(())
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

    #[test]
    fn what_is_changed_survives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut checkpoint = Checkpoint::load(&path).unwrap();
        let resources = object!({"limits": {"cpu": "1"}});
        let put = |info: &mut Info| {
            info.container_resources.insert("c".to_owned(), resources.clone());
        };
        checkpoint.change("u", put).unwrap();
        let mut again = Checkpoint::load(&path).unwrap();
        assert_eq!(again.get("u").unwrap().container_resources["c"], resources);
        again.forget("u");
        assert!(again.get("u").is_none());
    }
}
