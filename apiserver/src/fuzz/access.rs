//! Tokens, certificates, and the files that say who is let in.

use api::object;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::CertificateDer;
use serve::x509::{self, ClientCa};

use super::{document, parts};
use crate::audit::policy::{Policy, PolicyFile};
use crate::authn::StaticTokens;
use crate::authn::jwt::keys::{ALGORITHMS, KeySet};
use crate::authn::jwt::{self, issuer_of};
use crate::authn::service_account::Tokens;
use crate::authn::verified::Verified;
use crate::resources::TABLE;
use crate::storage::encryption;
use crate::{authz, config_file};

/// A token and the keys of its issuer, in which no key makes every signature valid.
pub fn tokens(data: &[u8]) {
    let Some([token, keys]) = parts(data) else { return };
    let _ = issuer_of(token);
    let own = Tokens {
        issuers: vec!["https://issuer.example.com".to_owned()],
        audiences: Vec::new(),
        signing: None,
        keys: Vec::new(),
        max_expiration: None,
        verified: Verified::default(),
    };
    assert!(own.verify(token).is_err(), "nobody can sign");
    let Some(keys) = document(keys) else { return };
    let keys = KeySet::parse(&keys);
    let (signed, signature) = token.rsplit_once('.').unwrap_or_default();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
    for algorithm in ALGORITHMS {
        let valid = keys.verify(algorithm, "", signed.as_bytes(), &signature);
        let other = keys.verify(algorithm, "", format!("{signed}.").as_bytes(), &signature);
        assert!(!(valid && other), "one signature for two messages");
    }
}

/// A certificate or a request for one, in PEM or as it is.
pub fn certificates(data: &[u8]) {
    let encoded = STANDARD.encode(data);
    let row =
        TABLE.find("certificates.k8s.io", "v1", "certificatesigningrequests").expect("there are requests");
    let request = object!({
        "metadata": {"name": "n"},
        "spec": {"request": (encoded.clone()), "signerName": "example.com/s", "usages": ["client auth"]},
        "status": {"certificate": encoded},
    });
    let mut errors = Vec::new();
    (row.strategy.validate)(&request, &mut errors);
    for part in row.strategy.parts {
        (part.validate)(&request, &object!({}), &mut errors);
    }
    let _ = x509::validity(data);
    let certificate = CertificateDer::from(data);
    let _ = (x509::subject(&certificate), x509::dns_names(&certificate));
    if let Ok(authority) = ClientCa::from_pem(data) {
        let _ = authority.verify(&[certificate.into_owned()]);
    }
}

/// A file of configuration, as each that there is.
pub fn configurations(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok((file, _)) = config_file::parse::<PolicyFile>(text, &["audit.k8s.io/v1"], "Policy") {
        let _ = Policy::new(file);
    }
    // Clients of webhooks and plug-ins are made inside of a runtime.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    let _inside = runtime.enter();
    let _ = (jwt::is_configuration(text), authz::is_configuration(text));
    let _ = encryption::config::parse(text, true);
    let _ = StaticTokens::parse(text);
}
