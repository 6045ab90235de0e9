//! Asking the cluster's signer for a certificate (`certificates.k8s.io/v1`).

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use api::{Value, object};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::resource::CERTIFICATE_SIGNING_REQUESTS;
use client::{Client, Informer};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long an approval may take.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What a certificate is for.
#[derive(Clone, Copy)]
pub(super) enum Ask<'a> {
    /// To be known by the API server.
    Client,
    /// To be known by who calls the node, by its name and at these addresses.
    Serving {
        /// The addresses.
        ips: &'a [IpAddr],
    },
}

/// How a request is called.
#[derive(Clone, Copy)]
pub(super) enum Naming {
    /// By its key, so that a kubelet which was restarted finds what it asked for before.
    ByKey,
    /// By the server.
    Generated,
}

/// Asks for a certificate of the node and waits until it is signed. Returns it as PEM.
///
/// # Errors
/// Says that it was denied, that signing failed, or that nobody approved it in time.
pub(super) async fn certificate(
    client: &Client,
    node: &str,
    key: &KeyPair,
    naming: Naming,
    ask: Ask<'_>,
) -> anyhow::Result<String> {
    let request = request(node, key, naming, ask)?;
    let name = match client.create(&CERTIFICATE_SIGNING_REQUESTS, "", &request).await {
        Ok(made) => made.name().to_owned(),
        Err(error) if error.is_already_exists() => request.name().to_owned(),
        Err(error) => return Err(error).context("cannot ask for a certificate"),
    };
    tracing::info!(csr = name, "Waiting until the certificate is signed");
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

fn request(node: &str, key: &KeyPair, naming: Naming, ask: Ask<'_>) -> anyhow::Result<Value> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
    let (signer, usage) = match ask {
        Ask::Client => ("kubernetes.io/kube-apiserver-client-kubelet", "client auth"),
        Ask::Serving { ips } => {
            let name = match node.parse() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => SanType::DnsName(node.try_into()?),
            };
            params.subject_alt_names = std::iter::once(name)
                .chain(ips.iter().filter(|ip| ip.to_string() != node).map(|ip| SanType::IpAddress(*ip)))
                .collect();
            ("kubernetes.io/kubelet-serving", "server auth")
        }
    };
    let pem = params.serialize_request(key)?.pem()?;
    let mut request = object!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {},
        "spec": {
            "request": (STANDARD.encode(pem)),
            "signerName": signer,
            "usages": ["digital signature", usage],
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
        let one = request("n1", &key, Naming::ByKey, Ask::Client).unwrap();
        assert_eq!(one.name(), request("n1", &key, Naming::ByKey, Ask::Client).unwrap().name());
        assert_ne!(one.name(), request("n2", &key, Naming::ByKey, Ask::Client).unwrap().name());
        assert_eq!(request("n1", &key, Naming::Generated, Ask::Client).unwrap().name(), "");
    }

    #[test]
    fn a_serving_certificate_is_asked_of_its_own_signer_with_the_nodes_addresses() {
        let key = KeyPair::generate().unwrap();
        let ips = ["192.0.2.7".parse().unwrap()];
        let made = request("n1", &key, Naming::Generated, Ask::Serving { ips: &ips }).unwrap();
        assert_eq!(made.str_at(&["spec", "signerName"]), "kubernetes.io/kubelet-serving");
        let usages: Vec<_> = made.array_at(&["spec", "usages"]).iter().filter_map(Value::as_str).collect();
        assert_eq!(usages, ["digital signature", "server auth"]);
        let pem = String::from_utf8(STANDARD.decode(made.str_at(&["spec", "request"])).unwrap()).unwrap();
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = STANDARD.decode(body).unwrap();
        // The name as text and the address as four bytes, each behind its tag and length.
        for wanted in [&b"\x82\x02n1"[..], &[0x87, 4, 192, 0, 2, 7]] {
            assert!(der.windows(wanted.len()).any(|part| part == wanted), "{wanted:?}");
        }
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
