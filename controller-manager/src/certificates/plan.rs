//! What may be approved and signed.

use std::time::Duration;

use api::Value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serve::x509::{Subject, subject_of_name};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::objects::{Condition, condition_true, created, set_condition};

const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING: &str = "kubernetes.io/kubelet-serving";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const LEGACY: &str = "kubernetes.io/legacy-unknown";

/// The request inside the request.
pub(super) struct Csr {
    pub(super) der: Vec<u8>,
    pub(super) subject: Subject,
    names: Vec<Kind>,
}

/// Kinds of alternative names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Dns,
    Ip,
    Email,
    Uri,
    Other,
}

impl Csr {
    pub(super) fn of(request: &Value) -> Option<Self> {
        let pem = STANDARD.decode(request.str_at(&["spec", "request"])).ok()?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
        let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).ok()?;
        let mut names = Vec::new();
        for extension in parsed.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(san) = extension {
                names.extend(san.general_names.iter().map(|n| match n {
                    GeneralName::DNSName(_) => Kind::Dns,
                    GeneralName::IPAddress(_) => Kind::Ip,
                    GeneralName::RFC822Name(_) => Kind::Email,
                    GeneralName::URI(_) => Kind::Uri,
                    _ => Kind::Other,
                }));
            }
        }
        let subject = subject_of_name(&parsed.certification_request_info.subject);
        Some(Self { der: pem.contents.clone(), subject, names })
    }

    fn is_node(&self) -> bool {
        self.subject.organizations == ["system:nodes"] && self.subject.common_name.starts_with("system:node:")
    }

    /// Whether this is a kubelet's request for its client certificate.
    pub(super) fn is_node_client(&self, request: &Value) -> bool {
        request.str_at(&["spec", "signerName"]) == NODE_CLIENT
            && self.is_node()
            && self.names.is_empty()
            && has_usages(request, "client auth")
    }

    /// Why the signer does not sign this, if so.
    pub(super) fn refusal(&self, request: &Value) -> Option<String> {
        let no = |why: &str| Some(why.to_owned());
        // rcgen keeps one value of each kind of name.
        if self.subject.organizations.len() > 1 {
            return no("subjects with several organizations are not supported");
        }
        match request.str_at(&["spec", "signerName"]) {
            NODE_CLIENT if !self.is_node() => no(
                "subject is not that of a node: organization must be system:nodes and common name must start with system:node:",
            ),
            NODE_CLIENT if !self.names.is_empty() => no("subjectAltNames are not allowed"),
            NODE_CLIENT if !has_usages(request, "client auth") => {
                no("usages did not match [key encipherment digital signature client auth]")
            }
            SERVING if !self.is_node() => no(
                "subject is not that of a node: organization must be system:nodes and common name must start with system:node:",
            ),
            SERVING if self.names.iter().any(|n| !matches!(n, Kind::Dns | Kind::Ip)) => {
                no("only DNS and IP subjectAltNames are allowed")
            }
            SERVING if self.names.is_empty() => no("DNS or IP subjectAltName is required"),
            SERVING if !has_usages(request, "server auth") => {
                no("usages did not match [key encipherment digital signature server auth]")
            }
            CLIENT if !has_usages(request, "client auth") => {
                no("usages did not match [key encipherment digital signature client auth]")
            }
            _ => None,
        }
    }
}

/// The usages asked for.
pub(super) fn usages(request: &Value) -> Vec<String> {
    let list = request.array_at(&["spec", "usages"]).iter();
    list.filter_map(|u| u.as_str().map(str::to_owned)).collect()
}

/// `needed` is there, and besides it only what every key is used for.
fn has_usages(request: &Value, needed: &str) -> bool {
    let usages = usages(request);
    let known = [needed, "digital signature", "key encipherment"];
    usages.iter().any(|u| u == needed) && usages.iter().all(|u| known.contains(&u.as_str()))
}

/// Whether somebody has approved, denied or given up the request.
pub(super) fn is_decided(request: &Value) -> bool {
    ["Approved", "Denied", "Failed"].iter().any(|kind| condition_true(request, kind))
}

pub(super) fn certificate(request: &Value) -> &str {
    request.str_at(&["status", "certificate"])
}

/// Approved, not signed yet, and one of our signers'.
pub(super) fn awaits_signature(request: &Value) -> bool {
    condition_true(request, "Approved")
        && !condition_true(request, "Denied")
        && !condition_true(request, "Failed")
        && certificate(request).is_empty()
        && [NODE_CLIENT, SERVING, CLIENT, LEGACY].contains(&request.str_at(&["spec", "signerName"]))
}

/// How long the certificate will be good.
pub(super) fn lifetime(request: &Value, longest: Duration) -> Duration {
    let asked = request.at(&["spec", "expirationSeconds"]).as_i64().and_then(|s| u64::try_from(s).ok());
    let asked = asked.map(|s| Duration::from_secs(s.max(600)));
    asked.map_or(longest, |a| a.min(longest))
}

pub(super) fn with_condition(request: &Value, wanted: &Condition<'_>, now: Timestamp) -> Value {
    let mut conditions = request.array_at(&["status", "conditions"]).to_vec();
    set_condition(&mut conditions, now, wanted);
    if let Some(c) = conditions.iter_mut().find(|c| c.str_at(&["type"]) == wanted.kind) {
        c.set(&["lastUpdateTime"], api::time::format(now));
    }
    let mut updated = request.clone();
    updated.set(&["status", "conditions"], conditions);
    updated
}

pub(super) fn with_certificate(request: &Value, pem: &str) -> Value {
    let mut updated = request.clone();
    updated.set(&["status", "certificate"], STANDARD.encode(pem));
    updated
}

/// Whether nobody needs the request any more: signed or decided an hour ago, or undecided for a day.
pub(super) fn is_old(request: &Value, now: Timestamp) -> bool {
    let age = now.as_second() - created(request).as_second();
    let limit = if is_decided(request) { 3600 } else { 24 * 3600 };
    age > limit
}

#[cfg(test)]
pub(in crate::certificates) mod tests {
    use super::*;
    use api::object;

    /// The request of a kubelet with this name.
    pub(in crate::certificates) fn request(name: &str, group: &str, signer: &str, usage: &str) -> Value {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        object!({
            "metadata": {"name": "csr-1"},
            "spec": {
                "request": (STANDARD.encode(pem)), "signerName": signer,
                "usages": ["digital signature", usage],
            },
        })
    }

    #[test]
    fn only_nodes_get_node_certificates() {
        let check = |name: &str, group: &str, usage: &str, want: bool| {
            let request = request(name, group, NODE_CLIENT, usage);
            let csr = Csr::of(&request).unwrap();
            assert_eq!(csr.is_node_client(&request), want, "{name} {group} {usage}");
            assert_eq!(csr.refusal(&request).is_none(), want, "{name} {group} {usage}");
        };
        check("system:node:n1", "system:nodes", "client auth", true);
        check("system:node:n1", "system:masters", "client auth", false);
        check("admin", "system:nodes", "client auth", false);
        check("system:node:n1", "system:nodes", "server auth", false);
    }

    #[test]
    fn lifetimes_are_bounded_on_both_sides() {
        let at_most = Duration::from_secs(3600);
        for (asked, want) in [(None, 3600), (Some(60), 600), (Some(1800), 1800), (Some(7200), 3600)] {
            let request = object!({"spec": {"expirationSeconds": (asked)}});
            assert_eq!(lifetime(&request, at_most).as_secs(), want, "{asked:?}");
        }
    }
}
