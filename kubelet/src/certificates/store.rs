//! Certificates with their keys on disk, as upstream lays them out.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context;
use jiff::Timestamp;
use rcgen::KeyPair;

/// The folder of certificates.
pub(super) struct Store {
    dir: PathBuf,
    /// What the names of the files begin with.
    prefix: &'static str,
}

impl Store {
    /// The folder, made if need be.
    pub(super) fn open(dir: &Path, prefix: &'static str) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self { dir: dir.to_owned(), prefix })
    }

    /// The link to the certificate in use.
    pub(super) fn link(&self) -> PathBuf {
        self.dir.join(format!("{}-current.pem", self.prefix))
    }

    fn pending(&self) -> PathBuf {
        self.dir.join(format!("{}.key.tmp", self.prefix))
    }

    /// The key of a request that is under way, even since before a restart: its request is found again by it.
    pub(super) fn pending_key(&self) -> anyhow::Result<KeyPair> {
        let kept = fs::read_to_string(self.pending()).ok();
        if let Some(key) = kept.and_then(|pem| KeyPair::from_pem(&pem).ok()) {
            return Ok(key);
        }
        let key = KeyPair::generate()?;
        write_private(&self.pending(), key.serialize_pem().as_bytes())?;
        Ok(key)
    }

    /// Keeps a certificate with its key and makes it the one in use. Returns the link.
    pub(super) fn keep(&self, certificate: &str, key: &KeyPair) -> anyhow::Result<PathBuf> {
        let now = Timestamp::now().strftime("%Y-%m-%d-%H-%M-%S-%6f");
        let file = self.dir.join(format!("{}-{now}.pem", self.prefix));
        write_private(&file, format!("{}\n{}", certificate.trim_end(), key.serialize_pem()).as_bytes())?;
        let (link, fresh) = (self.link(), self.dir.join(format!("{}-current.pem.tmp", self.prefix)));
        if fresh.symlink_metadata().is_ok() {
            fs::remove_file(&fresh)?;
        }
        symlink(&file, &fresh)?;
        fs::rename(&fresh, &link)?;
        // The key has its certificate now.
        let _ = fs::remove_file(self.pending());
        Ok(link)
    }
}

/// Writes a file that only its owner may read, whole or not at all.
pub(super) fn write_private(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let fresh = path.with_extension("new");
    let write = || {
        let mut file =
            fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_link_leads_to_the_last_certificate_and_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "kubelet-client").unwrap();
        let key = store.pending_key().unwrap();
        assert_eq!(store.pending_key().unwrap().serialize_pem(), key.serialize_pem(), "a restart finds it");
        for certificate in ["first", "second"] {
            let link = store.keep(certificate, &key).unwrap();
            let content = fs::read_to_string(&link).unwrap();
            assert!(content.starts_with(certificate) && content.contains("PRIVATE KEY"), "{content}");
            assert_eq!(fs::metadata(&link).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_ne!(store.pending_key().unwrap().serialize_pem(), key.serialize_pem());
    }
}
