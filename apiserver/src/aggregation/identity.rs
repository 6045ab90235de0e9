//! The certificate by which other servers know this one, read again when its files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use arc_swap::ArcSwap;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;

const RELOAD_EVERY: Duration = Duration::from_secs(60);

/// The certificate and its key, both PEM, with a number that grows with each change.
#[derive(Default)]
pub struct Pair {
    /// Which reading of the files this is.
    pub generation: u64,
    /// Certificate chain and key; none when there are no files.
    pub pem: Option<(Vec<u8>, Vec<u8>)>,
}

/// The files and what they held last.
pub struct Identity {
    files: Option<(PathBuf, PathBuf)>,
    pair: ArcSwap<Pair>,
}

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// They cannot be read, or hold no certificate and key.
    pub fn read(files: Option<(PathBuf, PathBuf)>) -> anyhow::Result<Self> {
        let pem = files.as_ref().map(|(cert, key)| load(cert, key)).transpose()?;
        Ok(Self { files, pair: ArcSwap::from_pointee(Pair { generation: 0, pem }) })
    }

    /// What the files held last.
    pub fn load(&self) -> Arc<Pair> {
        self.pair.load_full()
    }

    /// Reads the files again whenever they change, until `stop`. What cannot be used is logged, and the last good pair stays.
    pub async fn watch(&self, stop: CancellationToken) {
        let Some((cert, key)) = &self.files else { return };
        let mut seen = (modified(cert), modified(key));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RELOAD_EVERY) => {}
            }
            let now = (modified(cert), modified(key));
            if now == seen {
                continue;
            }
            seen = now;
            match load(cert, key) {
                Ok(pem) => {
                    let generation = self.pair.load().generation + 1;
                    self.pair.store(Arc::new(Pair { generation, pem: Some(pem) }));
                    tracing::info!(file = %cert.display(), "read the client certificate for other servers again");
                }
                Err(e) => tracing::error!(
                    error = format!("{e:#}"),
                    "the client certificate for other servers stays"
                ),
            }
        }
    }
}

fn modified(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|m| m.modified()).ok()
}

fn load(cert: &Path, key: &Path) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let read = |file: &Path| std::fs::read(file).with_context(|| format!("reading {}", file.display()));
    let (chain, private) = (read(cert)?, read(key)?);
    CertificateDer::from_pem_slice(&chain)
        .with_context(|| format!("no certificate in {}", cert.display()))?;
    PrivateKeyDer::from_pem_slice(&private).with_context(|| format!("no key in {}", key.display()))?;
    Ok((chain, private))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_without_a_certificate_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("front.crt");
        std::fs::write(&file, "nothing").unwrap();
        let error = Identity::read(Some((file.clone(), file))).err().unwrap();
        assert!(format!("{error:#}").contains("front.crt"), "{error:#}");
        assert!(Identity::read(None).unwrap().load().pem.is_none());
    }
}
