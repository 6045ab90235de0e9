//! What is asked for: the PKCS#10 request, its usages and its signer.

use api::field::{FieldError, Path};
use api::{Value, names};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate, X509CertificationRequest};

use crate::kinds::Errors;

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const SHORTEST: i64 = 600;
const DOMAIN_MAX: usize = 253;
/// Room for a domain, a slash, a label, a dot and a subdomain.
const SIGNER_MAX: usize = DOMAIN_MAX + 1 + 63 + 1 + 253;

pub(super) fn validate_spec(spec: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    if let Err(why) = check_request(spec.str_at(&["request"])) {
        errors.push(FieldError::invalid(&path.child("request"), spec.get("request").clone(), why));
    }
    let usages = path.child("usages");
    let given: Vec<&str> = spec.array_at(&["usages"]).iter().filter_map(Value::as_str).collect();
    if given.is_empty() {
        errors.push(FieldError::required(&usages, ""));
    }
    for (i, usage) in given.iter().enumerate().filter(|(_, u)| !USAGES.contains(u)) {
        errors.push(FieldError::not_supported(&usages.index(i), *usage, &USAGES));
    }
    for (i, usage) in given.iter().enumerate().filter(|(i, u)| given[..*i].contains(u)) {
        errors.push(FieldError::duplicate(&usages.index(i), *usage));
    }
    let signer = spec.str_at(&["signerName"]);
    if signer == LEGACY_SIGNER {
        let why = "the legacy signerName is not allowed via this API version";
        errors.push(FieldError::invalid(&path.child("signerName"), signer, why));
    } else {
        validate_signer(&path.child("signerName"), signer, errors);
    }
    if let Some(seconds) = spec.get("expirationSeconds").as_i64().filter(|s| *s < SHORTEST) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid(&path.child("expirationSeconds"), seconds, why));
    }
}

/// A signer is a domain and a name, `example.com/signer`.
pub(in crate::kinds) fn validate_signer(path: &Path<'_>, signer: &str, errors: &mut Errors) {
    if signer.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let Some((domain, name)) = signer.split_once('/').filter(|(_, name)| !name.contains('/')) else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(FieldError::invalid(path, signer, why));
        return;
    };
    if domain.len() > DOMAIN_MAX {
        errors.push(FieldError::too_long(path, DOMAIN_MAX));
    }
    check_labels(path, domain, names::dns_label, errors);
    if !domain.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(path, domain, why));
    }
    check_labels(path, name, names::dns_subdomain, errors);
    if signer.len() > SIGNER_MAX {
        errors.push(FieldError::too_long(path, SIGNER_MAX));
    }
}

/// Reports the first of the parts between dots that breaks the rule.
fn check_labels(path: &Path<'_>, text: &str, rule: fn(&str) -> Vec<String>, errors: &mut Errors) {
    let bad = text.split('.').map(|label| (label, rule(label))).find(|(_, found)| !found.is_empty());
    let Some((label, found)) = bad else { return };
    errors.extend(found.into_iter().map(|e| {
        let why = format!("validating label {}: {e}", api::field::go_quote(label));
        FieldError::invalid(path, text, why)
    }));
}

/// The request is PEM, can be read, and is signed by the key that it is for.
fn check_request(encoded: &str) -> Result<(), String> {
    let der = der_of(encoded)?;
    let request = read_request(&der)?;
    request.verify_signature().map_err(|_| "x509: signature verification failed".to_owned())
}

/// The common name that a request for a certificate asks for.
pub(crate) fn requested_name(encoded: &str) -> Result<String, String> {
    let der = der_of(encoded)?;
    let request = read_request(&der)?;
    let mut names = request.certification_request_info.subject.iter_common_name();
    Ok(names.next().and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned())
}

fn der_of(encoded: &str) -> Result<Vec<u8>, String> {
    let pem = STANDARD.decode(encoded).unwrap_or_default();
    let block = x509_parser::pem::parse_x509_pem(&pem).ok().map(|(_, block)| block);
    let request = block.filter(|b| b.label == "CERTIFICATE REQUEST");
    Ok(request.ok_or("PEM block type must be CERTIFICATE REQUEST")?.contents)
}

fn read_request(der: &[u8]) -> Result<X509CertificationRequest<'_>, String> {
    X509CertificationRequest::from_der(der).map(|(_, request)| request).map_err(|e| format!("asn1: {e}"))
}

/// What a signer wrote is a chain of certificates and nothing else.
pub(super) fn check_certificates(encoded: &str) -> Result<(), String> {
    if encoded.is_empty() {
        return Ok(());
    }
    let pem = STANDARD.decode(encoded).unwrap_or_default();
    let mut blocks = 0;
    for block in Pem::iter_from_buffer(&pem).map_while(Result::ok) {
        if block.label != "CERTIFICATE" {
            let found = api::field::go_quote(&block.label);
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {found}"));
        }
        X509Certificate::from_der(&block.contents)
            .map_err(|e| format!("x509: malformed certificate: {e}"))?;
        blocks += 1;
    }
    if blocks == 0 {
        return Err("must contain at least one CERTIFICATE PEM block".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn what_is_asked_for_is_checked() {
        let check = |spec: Value, want: &str| {
            let mut errors = Vec::new();
            validate_spec(&spec, &mut errors);
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert!(texts.iter().any(|t| t == want), "{texts:?} has no {want}");
        };
        check(
            object!({"request": "aGVsbG8="}),
            "spec.request: Invalid value: \"aGVsbG8=\": PEM block type must be CERTIFICATE REQUEST",
        );
        check(object!({}), "spec.usages: Required value");
        check(object!({"usages": ["any", "any"]}), "spec.usages[1]: Duplicate value: \"any\"");
        check(
            object!({"signerName": "a.b/c/d"}),
            "spec.signerName: Invalid value: \"a.b/c/d\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
        check(
            object!({"signerName": "b/c"}),
            "spec.signerName: Invalid value: \"b\": should be a domain with at least two segments separated by dots",
        );
        check(
            object!({"expirationSeconds": 599}),
            "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
}
