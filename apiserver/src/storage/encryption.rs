//! Encryption of what is stored: per resource a list of providers, the first of which writes and all of which read.
//!
//! Formats and authenticated data are upstream's, so that an etcd can be handed over: what is encrypted begins with
//! `k8s:enc:<provider>:v1:<key>:`, and the full key in etcd is authenticated with it.
//! Source: <https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/>.

pub(crate) mod config;
mod keys;
mod kms;
mod plugin;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use arc_swap::ArcSwapOption;
use tokio_util::sync::CancellationToken;

use keys::Key;
use kms::Kms;

/// What every encrypted value begins with.
const ENCRYPTED: &[u8] = b"k8s:enc:";
/// How often the file and the plug-ins are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What is encrypted, and how; by the file that says so.
#[derive(Default)]
pub struct Encryption {
    file: Option<PathBuf>,
    reloads: bool,
    current: ArcSwapOption<Providers>,
}

/// The providers of all resources.
pub(crate) struct Providers {
    text: String,
    /// By group and resource, either of which may be `*`.
    chains: HashMap<(String, String), Arc<Chain>>,
    kms: Vec<Arc<Kms>>,
}

/// The providers of a resource.
#[derive(Default)]
struct Chain(Vec<Provider>);

struct Provider {
    prefix: String,
    cipher: Cipher,
}

#[derive(Clone)]
enum Cipher {
    /// Nothing is encrypted.
    Identity,
    /// By one of these keys; with the name of the provider.
    Keys(&'static str, Arc<Vec<(String, Key)>>),
    /// By a plug-in.
    Kms(Arc<Kms>),
}

/// A value that was read, and whether it would be written differently now.
pub(super) type Opened<'a> = (Cow<'a, [u8]>, bool);

/// Errors of several attempts as one, in upstream's form.
fn reduced(mut errors: Vec<String>) -> Option<String> {
    match errors.len() {
        0 | 1 => errors.pop(),
        _ => Some(format!("[{}]", errors.join(", "))),
    }
}

impl Chain {
    async fn open<'a>(&self, bytes: &'a [u8], key: &str) -> Result<Opened<'a>, String> {
        let mut errors = Vec::new();
        for (place, provider) in self.0.iter().enumerate() {
            let Some(rest) = bytes.strip_prefix(provider.prefix.as_bytes()) else { continue };
            let opened = match &provider.cipher {
                Cipher::Identity if rest.starts_with(ENCRYPTED) => continue,
                Cipher::Identity => Ok((Cow::Borrowed(rest), false)),
                Cipher::Keys(name, keys) => open_by_key(name, keys, rest, key.as_bytes()),
                Cipher::Kms(kms) => kms.open(rest, key.as_bytes()).await,
            };
            match opened {
                Ok((value, stale)) => return Ok((value, stale || place > 0)),
                Err(why) => errors.push(why),
            }
        }
        Err(reduced(errors).unwrap_or_else(|| "no matching prefix found".to_owned()))
    }

    fn seal(&self, value: Vec<u8>, key: &str) -> Result<Vec<u8>, String> {
        let Some(provider) = self.0.first() else { return Ok(value) };
        let (name, sealed) = match &provider.cipher {
            Cipher::Identity => return Ok(value),
            Cipher::Keys(_, keys) => match keys.first() {
                Some((name, with)) => (name.as_str(), with.seal(&value, key.as_bytes())?),
                None => return Err("there is no key".to_owned()),
            },
            Cipher::Kms(kms) => ("", kms.seal(&value, key.as_bytes())?),
        };
        Ok([provider.prefix.as_bytes(), name.as_bytes(), &sealed].concat())
    }
}

fn open_by_key<'a>(
    provider: &str,
    keys: &[(String, Key)],
    bytes: &[u8],
    authenticated: &[u8],
) -> Result<Opened<'a>, String> {
    let mut errors = Vec::new();
    for (place, (name, key)) in keys.iter().enumerate() {
        let Some(rest) = bytes.strip_prefix(name.as_bytes()) else { continue };
        match key.open(rest, authenticated) {
            Ok(value) => return Ok((Cow::Owned(value), place > 0)),
            Err(why) => errors.push(why),
        }
    }
    let none = || format!("no matching key was found for the provided {provider} transformer");
    Err(reduced(errors).unwrap_or_else(none))
}

impl Encryption {
    /// Reads the file at `path`. With `reloads` it is read again when it changes.
    ///
    /// # Errors
    /// It cannot be read, or is no valid configuration.
    pub fn read(path: PathBuf, reloads: bool) -> Result<Self> {
        let text = crate::config_file::text(&path)?;
        let providers = config::parse(&text, reloads)
            .with_context(|| format!("--encryption-provider-config {}", path.display()))?;
        Ok(Self { file: Some(path), reloads, current: ArcSwapOption::from_pointee(providers) })
    }

    /// True when there is nothing to look after.
    pub fn is_empty(&self) -> bool {
        self.file.is_none()
    }

    /// True when there is something to tell of plug-ins.
    pub fn has_checks(&self) -> bool {
        self.reloads || self.current.load().as_ref().is_some_and(|p| !p.kms.is_empty())
    }

    /// Whether the plug-ins work.
    ///
    /// # Errors
    /// Those that do not, and why.
    pub async fn health(&self) -> Result<(), String> {
        let Some(providers) = self.current.load_full() else { return Ok(()) };
        providers.health().await
    }

    /// Asks the plug-ins for the keys that are needed to write. One that does not answer is asked again later.
    pub(super) async fn prime(&self) {
        if let Some(providers) = self.current.load_full()
            && let Err(why) = providers.health().await
        {
            tracing::warn!(why, "a plug-in for encryption does not work yet");
        }
    }

    fn with_chain<T>(&self, group: &str, resource: &str, then: impl FnOnce(Option<&Arc<Chain>>) -> T) -> T {
        let current = self.current.load();
        let Some(providers) = current.as_ref() else { return then(None) };
        // Events of both groups are stored as those of the core group.
        let group = if group == "events.k8s.io" { "" } else { group };
        let chain =
            |group: &str, resource: &str| providers.chains.get(&(group.to_owned(), resource.to_owned()));
        then(chain(group, resource).or_else(|| chain(group, "*")).or_else(|| chain("*", "*")))
    }

    /// What was stored at `key`.
    ///
    /// # Errors
    /// It cannot be decrypted.
    pub(super) async fn open<'a>(
        &self,
        (group, resource): (&str, &str),
        key: &str,
        bytes: &'a [u8],
    ) -> Result<Opened<'a>, String> {
        match self.with_chain(group, resource, |chain| chain.cloned()) {
            Some(chain) => chain.open(bytes, key).await,
            None if bytes.starts_with(ENCRYPTED) => {
                Err("identity transformer tried to read encrypted data".to_owned())
            }
            None => Ok((Cow::Borrowed(bytes), false)),
        }
    }

    /// What is to be stored at `key`.
    ///
    /// # Errors
    /// It cannot be encrypted.
    pub(super) fn seal(
        &self,
        (group, resource): (&str, &str),
        key: &str,
        value: Vec<u8>,
    ) -> Result<Vec<u8>, String> {
        self.with_chain(group, resource, |chain| match chain {
            Some(chain) => chain.seal(value, key),
            None => Ok(value),
        })
    }

    /// Asks the plug-ins how they are, and reads the file again when it changes, until `stop`.
    pub async fn watch(&self, stop: CancellationToken) {
        let mut refused = String::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if let (Some(path), true) = (&self.file, self.reloads) {
                self.reload(path, &mut refused).await;
            }
            if let Some(providers) = self.current.load_full() {
                futures::future::join_all(providers.kms.iter().map(|kms| kms.probe())).await;
            }
        }
    }

    /// Reads the file again. What cannot be used is told of, once, and the last good one stays.
    async fn reload(&self, path: &Path, refused: &mut String) {
        let text = match crate::config_file::text(path) {
            Ok(text) => text,
            Err(e) => {
                tracing::error!(
                    error = format!("{e:#}"),
                    "the encryption configuration cannot be read again"
                );
                return;
            }
        };
        if *refused == text || self.current.load().as_ref().is_some_and(|p| p.text == text) {
            return;
        }
        match config::parse(&text, true) {
            Err(e) => {
                tracing::error!(error = format!("{e:#}"), "a changed encryption configuration is not used");
                *refused = text;
            }
            // A plug-in that does not answer may do so when the file is looked at again.
            Ok(providers) => match providers.health().await {
                Err(why) => tracing::error!(why, "a changed encryption configuration is not used yet"),
                Ok(()) => {
                    self.current.store(Some(Arc::new(providers)));
                    tracing::info!(path = %path.display(), "Loaded a changed encryption configuration");
                }
            },
        }
    }
}

impl Providers {
    async fn health(&self) -> Result<(), String> {
        let mut errors = Vec::new();
        for (place, kms) in self.kms.iter().enumerate() {
            if let Err(why) = kms.check().await {
                errors.push(format!("kms-provider-{place}: {why}"));
            }
        }
        reduced(errors).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encryption(providers: &str) -> Encryption {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n\
             resources: [{{resources: [secrets], providers: [{providers}]}}]"
        );
        let providers = config::parse(&text, false).unwrap();
        Encryption { current: ArcSwapOption::from_pointee(providers), ..Encryption::default() }
    }

    fn key(provider: &str, name: &str, byte: u8) -> String {
        use base64::Engine;
        let secret = base64::engine::general_purpose::STANDARD.encode([byte; 32]);
        format!("{{{provider}: {{keys: [{{name: {name}, secret: '{secret}'}}]}}}}")
    }

    const SECRETS: (&str, &str) = ("", "secrets");

    async fn opened(encryption: &Encryption, bytes: &[u8]) -> Result<(String, bool), String> {
        let (value, stale) = encryption.open(SECRETS, "/registry/secrets/a/b", bytes).await?;
        Ok((String::from_utf8(value.into_owned()).unwrap(), stale))
    }

    #[tokio::test]
    async fn the_first_provider_writes_and_all_read() {
        let write = |e: &Encryption| e.seal(SECRETS, "/registry/secrets/a/b", b"{}".to_vec()).unwrap();
        for provider in ["aescbc", "aesgcm", "secretbox"] {
            let old = encryption(&format!("{}, {{identity: {{}}}}", key(provider, "one", 1)));
            let bytes = write(&old);
            assert!(bytes.starts_with(format!("k8s:enc:{provider}:v1:one:").as_bytes()));
            assert_eq!(opened(&old, &bytes).await, Ok(("{}".to_owned(), false)));
            assert_eq!(opened(&old, b"{}").await, Ok(("{}".to_owned(), true)));
            let rotated = encryption(&format!("{}, {}", key(provider, "two", 2), key(provider, "one", 1)));
            assert_eq!(opened(&rotated, &bytes).await, Ok(("{}".to_owned(), true)), "{provider}");
            assert!(write(&rotated).starts_with(format!("k8s:enc:{provider}:v1:two:").as_bytes()));
            let away = encryption(&format!("{{identity: {{}}}}, {}", key(provider, "one", 1)));
            assert_eq!(write(&away), b"{}");
            assert_eq!(opened(&away, &bytes).await, Ok(("{}".to_owned(), true)));
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_told_as_upstream_tells_it() {
        let bytes =
            encryption(&key("aesgcm", "one", 1)).seal(SECRETS, "/registry/secrets/a/b", vec![1]).unwrap();
        let check = async |encryption: Encryption, want: &str| {
            assert_eq!(opened(&encryption, &bytes).await.unwrap_err(), want);
        };
        check(Encryption::default(), "identity transformer tried to read encrypted data").await;
        check(encryption("{identity: {}}"), "no matching prefix found").await;
        check(encryption(&key("aescbc", "one", 1)), "no matching prefix found").await;
        let none = "no matching key was found for the provided AES transformer";
        check(encryption(&key("aesgcm", "two", 1)), none).await;
        check(encryption(&key("aesgcm", "one", 2)), "cipher: message authentication failed").await;
        // Values cannot be moved to other keys.
        let own = encryption(&key("aesgcm", "one", 1));
        let moved = own.open(SECRETS, "/registry/secrets/a/c", &bytes).await;
        assert_eq!(moved.unwrap_err(), "cipher: message authentication failed");
    }
}
