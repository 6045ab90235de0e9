//! The kubelet's serving certificate, when the cluster's signer is to make it (`serverTLSBootstrap`).
//!
//! Until there is one nobody can speak to the kubelet: a certificate that nobody vouches for is never shown in its place.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::request::{self, Ask, Naming};
use super::store::Store;
use super::{due, wait_until};
use crate::Kubelet;
use crate::metrics::Rotation;

/// Where the certificate in use lies with its key; nothing before there is one.
pub(crate) type Current = watch::Receiver<Option<PathBuf>>;

/// Has a certificate made, and renewed between 70 and 90 percent of its life, for as long as the kubelet runs.
pub(crate) fn start(kubelet: &Arc<Kubelet>) -> anyhow::Result<Current> {
    let store = Store::open(&kubelet.config.cert_dir, "kubelet-server")?;
    let usable = is_usable(&fs::read(store.link()).unwrap_or_default());
    let (tell, told) = watch::channel(usable.then(|| store.link()));
    let metrics = Rotation::server(&kubelet.metrics.registry, store.link());
    let (this, stop) = (kubelet.clone(), kubelet.tasks.token());
    kubelet.tasks.critical("serving-certificate", async move {
        tokio::select! {
            () = keep(&this, &store, &metrics, &tell) => {}
            () = stop.cancelled() => {}
        }
        Ok(())
    });
    Ok(told)
}

fn is_usable(pem: &[u8]) -> bool {
    serve::x509::validity(pem).is_ok_and(|(_, ends)| ends > Timestamp::now().as_second())
}

async fn keep(kubelet: &Kubelet, store: &Store, metrics: &Rotation, tell: &watch::Sender<Option<PathBuf>>) {
    loop {
        let pause = match renew(kubelet, store, metrics).await {
            Ok(wait) => {
                tell.send_if_modified(|current| current.replace(store.link()).is_none());
                wait
            }
            Err(error) => {
                metrics.failed();
                tracing::error!(err = format!("{error:#}"), "Cannot get a serving certificate");
                Duration::from_secs(60)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Gets a certificate if there is none, or it is time for another; how long to wait before the next look.
async fn renew(kubelet: &Kubelet, store: &Store, metrics: &Rotation) -> anyhow::Result<Duration> {
    let current = fs::read(store.link()).unwrap_or_default();
    if is_usable(&current)
        && let Some(wait) = wait_until(due(&current, rand::random_range(0.7..0.9))?)
    {
        return Ok(wait);
    }
    let key = store.pending_key()?;
    let name = &kubelet.config.node_name;
    let ask = Ask::Serving { ips: &kubelet.config.node_ips };
    let certificate = request::certificate(&kubelet.client, name, &key, Naming::Generated, ask).await?;
    store.keep(&certificate, &key)?;
    metrics.renewed(&current);
    tracing::info!("Got a serving certificate");
    Ok(Duration::from_secs(60))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn a_certificate_counts_until_it_ends() {
        let key = KeyPair::generate().unwrap();
        for (ends, counts) in [(2001, false), (2400, true)] {
            let mut params = CertificateParams::default();
            (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(ends, 1, 1));
            assert_eq!(is_usable(params.self_signed(&key).unwrap().pem().as_bytes()), counts, "{ends}");
        }
        assert!(!is_usable(b""));
    }
}
