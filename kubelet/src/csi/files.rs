//! Where volumes of drivers are on the host, and the files that say what they are: as upstream has them, so that either
//! kubelet can take the other's volumes down.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const FILE: &str = "vol_data.json";

/// SHA-256 as hexadecimal digits.
fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name of the VolumeAttachment of a volume on a node.
pub(crate) fn attachment(handle: &str, driver: &str, node: &str) -> String {
    format!("csi-{}", sha256(&format!("{handle}{driver}{node}")))
}

/// The handle of a volume that lives and dies with its pod.
pub(super) fn inline_handle(uid: &str, volume: &str) -> String {
    format!("csi-{}", sha256(&format!("{uid}{volume}")))
}

/// What a volume is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Data {
    #[serde(rename = "specVolID", skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    #[serde(rename = "volumeHandle")]
    pub(super) handle: String,
    #[serde(rename = "driverName")]
    pub(super) driver: String,
    #[serde(rename = "nodeName", skip_serializing_if = "String::is_empty")]
    pub(super) node: String,
    #[serde(rename = "attachmentID", skip_serializing_if = "String::is_empty")]
    pub(super) attachment: String,
    #[serde(rename = "volumeLifecycleMode", skip_serializing_if = "String::is_empty")]
    pub(super) lifecycle: String,
    /// Fields of upstream that mean nothing here.
    #[serde(flatten)]
    pub(super) other: BTreeMap<String, String>,
}

impl Data {
    /// Writes the file of a folder.
    pub(super) fn save(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        crate::checkpoint::write(&dir.join(FILE), &format!("{}\n", serde_json::to_string(self)?))
    }

    /// Reads the file of a folder; none when there is none.
    pub(super) fn load(dir: &Path) -> io::Result<Option<Self>> {
        let text = crate::checkpoint::read(&dir.join(FILE))?;
        Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
    }

    /// Removes a folder that held the mount point `mount`. What is still mounted stays.
    pub(super) fn remove(mount: &Path) -> io::Result<()> {
        if linux::mount::is_mount_point(mount)? {
            return Ok(());
        }
        let Some(dir) = mount.parent() else { return Ok(()) };
        gone(fs::remove_dir(mount))?;
        gone(fs::remove_file(dir.join(FILE)))?;
        gone(fs::remove_dir(dir))
    }
}

/// What is gone already need not be removed.
pub(super) fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The folders of all volumes of drivers.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// The kubelet's folder.
    pub(super) root: PathBuf,
}

/// A name as part of a path: a slash cannot be.
fn escaped(name: &str) -> String {
    name.replace('/', "~")
}

impl Layout {
    fn plugin(&self) -> PathBuf {
        self.root.join("plugins/kubernetes.io/csi")
    }

    /// Where a volume is made ready.
    pub(super) fn staging(&self, driver: &str, handle: &str) -> PathBuf {
        self.plugin().join(driver).join(sha256(handle)).join("globalmount")
    }

    /// Where a pod gets to see a volume.
    pub(super) fn target(&self, uid: &str, name: &str) -> PathBuf {
        self.volumes(uid).join(escaped(name)).join("mount")
    }

    /// The volumes of a pod.
    pub(super) fn volumes(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid).join("volumes/kubernetes.io~csi")
    }

    /// The links to the devices of a pod.
    pub(super) fn devices(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid).join("volumeDevices/kubernetes.io~csi")
    }

    /// Where a device is made ready.
    pub(super) fn block_staging(&self, name: &str) -> PathBuf {
        self.plugin().join("volumeDevices/staging").join(name)
    }

    /// Where a pod gets to see a device.
    pub(super) fn block_target(&self, uid: &str, name: &str) -> PathBuf {
        self.plugin().join("volumeDevices/publish").join(name).join(uid)
    }

    /// What is noted of a device.
    pub(super) fn block_data(&self, name: &str) -> PathBuf {
        self.plugin().join("volumeDevices").join(escaped(name)).join("data")
    }

    /// What pods have of volumes: each volume folder with what it is.
    pub(super) fn published(&self) -> io::Result<Vec<(String, Data)>> {
        let mut found = Vec::new();
        for pod in entries(&self.root.join("pods"))? {
            let uid = pod.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            for volume in entries(&self.volumes(&uid))? {
                found.extend(Data::load(&volume)?.map(|data| (uid.clone(), data)));
            }
        }
        Ok(found)
    }

    /// The volumes that are ready, as noted.
    pub(super) fn staged(&self) -> io::Result<Vec<Data>> {
        let mut found = Vec::new();
        for driver in entries(&self.plugin())? {
            for volume in entries(&driver)? {
                found.extend(Data::load(&volume)?);
                // Devices have their notes one folder below.
                found.extend(Data::load(&volume.join("data"))?);
            }
            found.extend(Data::load(&driver.join("data"))?);
        }
        Ok(found)
    }
}

/// The folders in a folder that may not be there.
pub(super) fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries
        .map(|entry| Ok(entry?.path()))
        .filter(|path| path.as_ref().is_ok_and(|path| path.is_dir()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_upstream_wrote_is_read_and_names_are_upstreams() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"attachmentID":"csi-1","driverName":"x.io","nodeName":"n","specVolID":"pv","volumeHandle":"h","volumeLifecycleMode":"Persistent","seLinuxMountContext":"l"}"#;
        fs::write(dir.path().join(FILE), text).unwrap();
        let data = Data::load(dir.path()).unwrap().unwrap();
        assert_eq!(
            (data.name.as_str(), data.handle.as_str(), data.lifecycle.as_str()),
            ("pv", "h", "Persistent")
        );
        assert_eq!(data.other["seLinuxMountContext"], "l");
        data.save(dir.path()).unwrap();
        assert_eq!(Data::load(dir.path()).unwrap().unwrap(), data);
        assert_eq!(
            attachment("h", "d", "n"),
            "csi-9072ed11cc1acb5fa433a877ff339b6311d013f33bddd1d0092711a8ace5b16d"
        );
        let layout = Layout { root: "/var/lib/kubelet".into() };
        assert_eq!(
            layout.staging("x.io", "abc"),
            Path::new(
                "/var/lib/kubelet/plugins/kubernetes.io/csi/x.io/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad/globalmount"
            )
        );
        assert_eq!(
            layout.target("u", "a/b"),
            Path::new("/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/a~b/mount")
        );
    }
}
