//! Whether a certificate and a key belong together, in the words of Go's `tls.X509KeyPair`.

use rustls_pki_types::PrivateKeyDer;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

const CERTIFICATE: &str = "CERTIFICATE";
const PRIVATE_KEY: &str = "PRIVATE KEY";

/// What is wrong with the two, if something is.
pub(super) fn check(certificate: &[u8], key: &[u8]) -> Result<(), String> {
    let (certificate, skipped) = find(certificate, |label| label == CERTIFICATE);
    let certificate = certificate.ok_or_else(|| match skipped.as_slice() {
        [] => "tls: failed to find any PEM data in certificate input".to_owned(),
        [key] if key.ends_with(PRIVATE_KEY) => "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched".to_owned(),
        others => format!(
            "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [{}]",
            others.join(" ")
        ),
    })?;
    let (key, skipped) = find(key, |label| label == PRIVATE_KEY || label.ends_with(" PRIVATE KEY"));
    let key = key.ok_or_else(|| match skipped.as_slice() {
        [] => "tls: failed to find any PEM data in key input".to_owned(),
        [only] if only == CERTIFICATE => {
            "tls: found a certificate rather than a key in the PEM for the private key".to_owned()
        }
        others => format!(
            "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [{}]",
            others.join(" ")
        ),
    })?;
    let (_, certificate) = X509Certificate::from_der(&certificate.contents)
        .map_err(|_| "x509: malformed certificate".to_owned())?;
    let unread = || "tls: failed to parse private key".to_owned();
    let key = PrivateKeyDer::try_from(key.contents).map_err(|_| unread())?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|_| unread())?;
    match key.public_key() {
        Some(public) if public.as_ref() != certificate.public_key().raw => {
            Err("tls: private key does not match public key".to_owned())
        }
        _ => Ok(()),
    }
}

/// The first block with such a label, or the labels of all there are.
fn find(bytes: &[u8], fits: impl Fn(&str) -> bool) -> (Option<Pem>, Vec<String>) {
    let mut skipped = Vec::new();
    for block in Pem::iter_from_buffer(bytes).map_while(Result::ok) {
        if fits(&block.label) {
            return (Some(block), skipped);
        }
        skipped.push(block.label);
    }
    (None, skipped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_goes_with_its_own_key_alone() {
        let make = || rcgen::generate_simple_self_signed(["example.com".to_owned()]).unwrap();
        let (one, other) = (make(), make());
        let certificate = one.cert.pem();
        let (own, foreign) = (one.signing_key.serialize_pem(), other.signing_key.serialize_pem());
        let checked = |certificate: &str, key: &str| check(certificate.as_bytes(), key.as_bytes());
        assert_eq!(checked(&certificate, &own), Ok(()));
        for (certificate, key, why) in [
            ("", own.as_str(), "tls: failed to find any PEM data in certificate input"),
            (
                &own,
                &certificate,
                "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched",
            ),
            (&certificate, "x", "tls: failed to find any PEM data in key input"),
            (
                &certificate,
                &certificate,
                "tls: found a certificate rather than a key in the PEM for the private key",
            ),
            (&certificate, &foreign, "tls: private key does not match public key"),
        ] {
            assert_eq!(checked(certificate, key).unwrap_err(), why);
        }
    }
}
