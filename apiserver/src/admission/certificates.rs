//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who may say what about a request.

use api::Value;
use api::error::Result;

use super::plugins::Plugin;
use super::{Operation, forbid};
use crate::authz::{Attributes, Decision};
use crate::registry::Call;

pub(super) fn validate(
    call: &Call,
    operation: Operation,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<()> {
    if call.row.built_in() != "certificatesigningrequests" {
        return Ok(());
    }
    let (Some(new), Operation::Create | Operation::Update) = (object, operation) else { return Ok(()) };
    let signer = new.str_at(&["spec", "signerName"]);
    let runs = |plugin| call.server.config.admission.runs(plugin);
    match (call.subresource.as_str(), old) {
        ("", None) if runs(Plugin::CertificateSubjectRestriction) => check_subject(call, new, signer),
        ("approval", _) if runs(Plugin::CertificateApproval) => check_signer(call, "approve", signer),
        ("status", Some(old))
            if runs(Plugin::CertificateSigning)
                && new.at(&["status", "certificate"]) != old.at(&["status", "certificate"]) =>
        {
            check_signer(call, "sign", signer)
        }
        _ => Ok(()),
    }
}

/// Nobody gets a certificate for the group of administrators from the general signer.
fn check_subject(call: &Call, request: &Value, signer: &str) -> Result<()> {
    use base64::Engine;
    use x509_parser::prelude::{FromDer, X509CertificationRequest};
    if signer != "kubernetes.io/kube-apiserver-client" {
        return Ok(());
    }
    let pem = base64::engine::general_purpose::STANDARD
        .decode(request.str_at(&["spec", "request"]))
        .unwrap_or_default();
    let parsed = x509_parser::pem::parse_x509_pem(&pem).ok().map(|(_, p)| p.contents);
    let der = parsed.ok_or_else(|| {
        forbid(call, request.name(), "failed to parse CSR: PEM block type must be CERTIFICATE REQUEST")
    })?;
    let (_, csr) = X509CertificationRequest::from_der(&der)
        .map_err(|_| forbid(call, request.name(), "failed to parse CSR"))?;
    let masters = csr
        .certification_request_info
        .subject
        .iter_organization()
        .any(|o| o.as_str() == Ok("system:masters"));
    if masters {
        let why = format!("use of {signer} signer with system:masters group is not allowed");
        return Err(forbid(call, request.name(), why));
    }
    Ok(())
}

/// The caller must be allowed the verb on the signer, or on all signers of its domain.
fn check_signer(call: &Call, verb: &str, signer: &str) -> Result<()> {
    let domain = signer.split('/').next().unwrap_or_default();
    let names = [signer.to_owned(), format!("{domain}/*")];
    let allowed = names.iter().any(|name| {
        let what = Attributes {
            verb,
            group: "certificates.k8s.io",
            resource: "signers",
            name,
            ..Attributes::default()
        };
        let decision = call.server.authorizer.authorize_now(&call.server.storage, &call.user, &what);
        matches!(decision, Decision::Allow(_))
    });
    if allowed {
        return Ok(());
    }
    let why =
        format!("user not permitted to {verb} requests with signerName {}", api::field::go_quote(signer));
    Err(forbid(call, &call.name, why))
}
