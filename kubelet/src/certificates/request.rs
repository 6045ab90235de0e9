//! Asking the cluster's signer for a certificate (`certificates.k8s.io/v1`).

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use api::{Value, object};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::resource::CERTIFICATE_SIGNING_REQUESTS;
use client::{Client, Informer};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// How long an approval may take.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// How a request is called.
#[derive(Clone, Copy)]
pub(super) enum Naming {
    /// By its key, so that a kubelet which was restarted finds what it asked for before.
    ByKey,
    /// By the server.
    Generated,
}

/// Asks for a client certificate of the node and waits until it is signed. Returns it as PEM.
///
/// # Errors
/// Says that it was denied, that signing failed, or that nobody approved it in time.
pub(super) async fn certificate(
    client: &Client,
    node: &str,
    key: &KeyPair,
    naming: Naming,
) -> anyhow::Result<String> {
    let request = request(node, key, naming)?;
    let name = match client.create(&CERTIFICATE_SIGNING_REQUESTS, "", &request).await {
        Ok(made) => made.name().to_owned(),
        Err(error) if error.is_already_exists() => request.name().to_owned(),
        Err(error) => return Err(error).context("cannot ask for a client certificate"),
    };
    tracing::info!(csr = name, "Waiting until the client certificate is signed");
    let fields = format!("metadata.name={name}");
    let informer = Informer::of_values(CERTIFICATE_SIGNING_REQUESTS, |_| {}).fields(&fields).build();
    let (tell, mut told) = watch::channel(None);
    informer.on_change(move |change| drop(tell.send(Some(change.object().clone()))));
    let signed = async {
        loop {
            told.changed().await?;
            let seen = told.borrow_and_update().clone();
            if let Some(outcome) = seen.and_then(|csr| outcome(&csr)) {
                return outcome;
            }
        }
    };
    let stop = CancellationToken::new();
    let _stopped = stop.clone().drop_guard();
    tokio::select! {
        outcome = signed => outcome,
        () = informer.run(client.clone(), stop) => bail!("the watch of request {name} ended"),
        () = tokio::time::sleep(PATIENCE) => bail!("request {name} was not signed within {} s", PATIENCE.as_secs()),
    }
}

fn request(node: &str, key: &KeyPair, naming: Naming) -> anyhow::Result<Value> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
    let pem = params.serialize_request(key)?.pem()?;
    let mut request = object!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {},
        "spec": {
            "request": (STANDARD.encode(pem)),
            "signerName": SIGNER,
            "usages": ["digital signature", "client auth"],
        },
    });
    match naming {
        Naming::Generated => request.set(&["metadata", "generateName"], "csr-"),
        Naming::ByKey => {
            let digest = Sha256::new().chain_update(key.public_key_pem()).chain_update(node).finalize();
            let digest: String = digest.iter().take(20).map(|byte| format!("{byte:02x}")).collect();
            request.set(&["metadata", "name"], format!("node-csr-{digest}"));
        }
    }
    Ok(request)
}

/// The certificate, or why there will be none; nothing as long as it is undecided.
fn outcome(csr: &Value) -> Option<anyhow::Result<String>> {
    for condition in csr.array_at(&["status", "conditions"]) {
        let kind = condition.str_at(&["type"]);
        if matches!(kind, "Denied" | "Failed") {
            let (reason, message) = (condition.str_at(&["reason"]), condition.str_at(&["message"]));
            return Some(Err(anyhow!("request {} is {kind}: {reason}: {message}", csr.name())));
        }
    }
    let certificate = csr.str_at(&["status", "certificate"]);
    if certificate.is_empty() {
        return None;
    }
    let pem = STANDARD.decode(certificate).map_err(anyhow::Error::from);
    Some(pem.and_then(|pem| Ok(String::from_utf8(pem)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_the_node_and_is_found_again_by_its_key() {
        let key = KeyPair::generate().unwrap();
        let one = request("n1", &key, Naming::ByKey).unwrap();
        assert_eq!(one.name(), request("n1", &key, Naming::ByKey).unwrap().name());
        assert_ne!(one.name(), request("n2", &key, Naming::ByKey).unwrap().name());
        assert_eq!(request("n1", &key, Naming::Generated).unwrap().name(), "");
    }

    #[test]
    fn an_outcome_is_a_certificate_or_a_refusal() {
        let csr = |status: Value| object!({"metadata": {"name": "c"}, "status": status});
        let approved = object!({"conditions": [{"type": "Approved", "status": "True"}]});
        assert!(outcome(&csr(approved)).is_none());
        let signed = object!({"certificate": (STANDARD.encode("pem"))});
        assert_eq!(outcome(&csr(signed)).unwrap().unwrap(), "pem");
        let denied = object!({"conditions": [{"type": "Denied", "reason": "No", "message": "not you"}]});
        assert_eq!(
            outcome(&csr(denied)).unwrap().unwrap_err().to_string(),
            "request c is Denied: No: not you"
        );
    }
}
