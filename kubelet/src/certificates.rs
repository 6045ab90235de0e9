//! The kubelet's certificates.
//!
//! The one for its server is in `serving`. The client certificate is asked for with a bootstrap kubeconfig when there is
//! none that counts, and renewed before it ends.
//!
//! The certificate lies with its key in one file, to which `kubelet-client-current.pem` points; the kubeconfig names that
//! link, and clients follow what they were given as files. The certificate is asked for by a
//! `CertificateSigningRequest`, which somebody else approves and signs.

mod request;
pub(crate) mod serving;
mod store;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use client::Connection;
use jiff::Timestamp;
use rcgen::KeyPair;
use serde_json::{Value as Json, json};

use crate::config::Config;
use crate::metrics::Rotation;
use crate::{Kubelet, user_agent};
use request::{Ask, Naming};
use store::Store;

/// What the names of the client certificate's files begin with.
const CLIENT: &str = "kubelet-client";

/// Makes `kubeconfig` with a certificate of the node's own, unless it has one already.
///
/// # Errors
/// Says what is wrong with the bootstrap kubeconfig, or that the request was denied.
pub(crate) async fn bootstrap(config: &Config, kubeconfig: &Path) -> anyhow::Result<()> {
    let Some(bootstrap) = &config.bootstrap_kubeconfig else { return Ok(()) };
    if is_usable(kubeconfig) {
        return Ok(());
    }
    if !bootstrap.exists() {
        bail!(
            "{} has no client certificate that counts, and the bootstrap kubeconfig {} does not exist",
            kubeconfig.display(),
            bootstrap.display()
        );
    }
    tracing::info!(bootstrap = %bootstrap.display(), "Asking for a client certificate");
    let store = Store::open(&config.cert_dir, CLIENT)?;
    let connection =
        Connection { kubeconfig: Some(bootstrap.clone()), user_agent: user_agent(), ..Connection::default() };
    let client = client::connect(&connection).await?;
    let key = store.pending_key()?;
    let certificate =
        request::certificate(&client, &config.node_name, &key, Naming::ByKey, Ask::Client).await?;
    let link = store.keep(&certificate, &key)?;
    let made = kubeconfig_of(&read(bootstrap)?, bootstrap, &link)
        .with_context(|| format!("the bootstrap kubeconfig {}", bootstrap.display()))?;
    store::write_private(kubeconfig, serde_json::to_string_pretty(&made)?.as_bytes())?;
    tracing::info!(kubeconfig = %kubeconfig.display(), "Got a client certificate");
    Ok(())
}

/// Renews the certificate between 70 and 90 percent of its life, for ever.
pub(crate) async fn rotate(kubelet: Arc<Kubelet>) {
    let config = &kubelet.config;
    let opened = Store::open(&config.cert_dir, CLIENT);
    let named = config.kubeconfig.as_deref().and_then(certificate_of);
    let store = match opened {
        Ok(store) if named == Some(store.link()) => store,
        Ok(store) => {
            tracing::warn!(
                file = %store.link().display(),
                "rotateCertificates is without effect: the kubeconfig does not name this file as its client certificate"
            );
            return std::future::pending().await;
        }
        Err(error) => {
            tracing::error!(err = %error, "Cannot rotate the client certificate");
            return std::future::pending().await;
        }
    };
    let metrics = Rotation::client(&kubelet.metrics.registry, store.link());
    let mut pause = Duration::ZERO;
    loop {
        tokio::time::sleep(pause).await;
        pause = match renew(&kubelet, &store).await {
            Ok(wait) => wait,
            Err(error) => {
                metrics.failed();
                tracing::error!(err = format!("{error:#}"), "Cannot renew the client certificate");
                Duration::from_secs(60)
            }
        };
    }
}

/// Renews the certificate if it is time; how long to wait before the next look.
async fn renew(kubelet: &Kubelet, store: &Store) -> anyhow::Result<Duration> {
    let due = due(&fs::read(store.link())?, rand::random_range(0.7..0.9))?;
    if let Some(wait) = wait_until(due) {
        return Ok(wait);
    }
    let key = KeyPair::generate()?;
    let name = &kubelet.config.node_name;
    let certificate =
        request::certificate(&kubelet.client, name, &key, Naming::Generated, Ask::Client).await?;
    store.keep(&certificate, &key)?;
    tracing::info!("Renewed the client certificate");
    Ok(Duration::from_secs(60))
}

/// How long to wait before the next look at something that is due then; nothing when it is due.
fn wait_until(due: Timestamp) -> Option<Duration> {
    let left = Duration::try_from(due.duration_since(Timestamp::now())).ok()?;
    // Clocks jump; a timer of a year does not notice.
    (!left.is_zero()).then(|| left.min(Duration::from_secs(3600)))
}

fn due(pem: &[u8], share: f64) -> anyhow::Result<Timestamp> {
    let (begins, ends) = serve::x509::validity(pem)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "seconds within a lifetime"
    )]
    let lived = ((ends - begins) as f64 * share) as i64;
    Ok(Timestamp::from_second(begins + lived)?)
}

fn read(kubeconfig: &Path) -> anyhow::Result<Json> {
    let text =
        fs::read_to_string(kubeconfig).with_context(|| format!("cannot read {}", kubeconfig.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("cannot read {}", kubeconfig.display()))
}

/// The part of a kubeconfig that its current context means by `cluster` or `user`.
fn current<'k>(kubeconfig: &'k Json, part: &str) -> Option<&'k Json> {
    let named = |list: &str, name: &Json| {
        kubeconfig[list].as_array().into_iter().flatten().find(|entry| entry["name"] == *name)
    };
    let context = named("contexts", &kubeconfig["current-context"])?;
    Some(&named(&format!("{part}s"), &context["context"][part])?[part])
}

/// The file that a kubeconfig names as its client certificate.
fn certificate_of(kubeconfig: &Path) -> Option<PathBuf> {
    let file = current(&read(kubeconfig).ok()?, "user")?["client-certificate"].as_str()?.to_owned();
    Some(kubeconfig.parent()?.join(file))
}

/// Whether a kubeconfig has credentials that count: a certificate that has not ended, or something else.
fn is_usable(kubeconfig: &Path) -> bool {
    let Ok(content) = read(kubeconfig) else { return false };
    if current(&content, "user").is_none_or(|user| user["client-certificate"].is_null()) {
        return current(&content, "user").is_some();
    }
    let pem = certificate_of(kubeconfig).and_then(|file| fs::read(file).ok()).unwrap_or_default();
    serve::x509::validity(&pem).is_ok_and(|(_, ends)| ends > Timestamp::now().as_second())
}

/// A kubeconfig for the cluster of another, with the certificate behind `link`.
fn kubeconfig_of(bootstrap: &Json, path: &Path, link: &Path) -> anyhow::Result<Json> {
    let mut cluster = current(bootstrap, "cluster").context("the current context names no cluster")?.clone();
    if let Some(file) = cluster["certificate-authority"].as_str() {
        let folder = path.parent().unwrap_or(Path::new("/"));
        cluster["certificate-authority"] = json!(folder.join(file));
    }
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "default-cluster", "cluster": cluster}],
        "users": [{"name": "default-auth", "user": {"client-certificate": link, "client-key": link}}],
        "contexts": [{
            "name": "default-context",
            "context": {"cluster": "default-cluster", "user": "default-auth", "namespace": "default"},
        }],
        "current-context": "default-context",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(ends: i64) -> (String, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        let years = |seconds: i64| rcgen::date_time_ymd(1970 + i32::try_from(seconds).unwrap(), 1, 1);
        (params.not_before, params.not_after) = (years(30), years(ends));
        (params.self_signed(&key).unwrap().pem(), key)
    }

    #[test]
    fn a_certificate_is_renewed_before_it_ends() {
        let (pem, _) = certificate(31);
        let at = due(pem.as_bytes(), 0.5).unwrap();
        assert_eq!(at.to_string(), "2000-07-02T00:00:00Z");
    }

    #[test]
    fn the_kubeconfig_made_names_the_certificate_of_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("pki"), CLIENT).unwrap();
        let bootstrap = json!({
            "clusters": [
                {"name": "other", "cluster": {"server": "https://other"}},
                {"name": "c", "cluster": {"server": "https://here", "certificate-authority": "ca.crt"}},
            ],
            "users": [{"name": "u", "user": {"token": "abcdef.0123456789abcdef"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        });
        let made = kubeconfig_of(&bootstrap, Path::new("/etc/kubernetes/b.conf"), &store.link()).unwrap();
        assert_eq!(made["clusters"][0]["cluster"]["server"], "https://here");
        assert_eq!(made["clusters"][0]["cluster"]["certificate-authority"], "/etc/kubernetes/ca.crt");
        let path = dir.path().join("kubelet.conf");
        fs::write(&path, made.to_string()).unwrap();
        assert_eq!(certificate_of(&path), Some(store.link()));
        assert!(!is_usable(&path), "there is no certificate yet");
        let (pem, key) = certificate(31);
        store.keep(&pem, &key).unwrap();
        assert!(!is_usable(&path), "it ended long ago");
        let (pem, key) = certificate(500);
        store.keep(&pem, &key).unwrap();
        assert!(is_usable(&path));
        assert!(kubeconfig_of(&json!({}), &path, &store.link()).is_err());
    }
}
