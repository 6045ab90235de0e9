//! Keys of issuers: JSON Web Key Sets, and the signatures that they verify.
//!
//! Source: RFC 7517, RFC 7518.

use api::Value;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};

use crate::authn::p521;

/// Algorithms that are known.
pub(crate) const ALGORITHMS: [&str; 9] =
    ["ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"];

/// The keys of an issuer.
#[derive(Debug, Default)]
pub(crate) struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: String,
    algorithm: String,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point, uncompressed, on a curve.
    Ec {
        curve: String,
        point: Vec<u8>,
    },
}

impl KeySet {
    /// Reads a key set. Keys of kinds that verify nothing here are left out.
    pub(crate) fn parse(document: &Value) -> Self {
        Self(document.array_at(&["keys"]).iter().filter_map(Key::parse).collect())
    }

    /// True when one of the keys made the signature. Without an `id` every key is tried.
    pub(crate) fn verify(&self, algorithm: &str, id: &str, message: &[u8], signature: &[u8]) -> bool {
        let fits = |key: &&Key| {
            (id.is_empty() || key.id == id) && (key.algorithm.is_empty() || key.algorithm == algorithm)
        };
        self.0.iter().filter(fits).any(|key| key.material.verify(algorithm, message, signature))
    }
}

impl Key {
    fn parse(key: &Value) -> Option<Self> {
        if !matches!(key.str_at(&["use"]), "" | "sig") {
            return None;
        }
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(key.str_at(&[name]).trim_end_matches('=')).ok();
        let material = match key.str_at(&["kty"]) {
            "RSA" => Material::Rsa { n: bytes("n")?, e: bytes("e")? },
            "EC" => {
                let curve = key.str_at(&["crv"]).to_owned();
                Material::Ec { curve, point: [vec![4], bytes("x")?, bytes("y")?].concat() }
            }
            _ => return None,
        };
        Some(Self {
            id: key.str_at(&["kid"]).to_owned(),
            algorithm: key.str_at(&["alg"]).to_owned(),
            material,
        })
    }
}

impl Material {
    fn verify(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Material::Rsa { n, e } => {
                let parameters: &RsaParameters = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                    "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                // Leading zeros are allowed in the set, but not here.
                let trim =
                    |bytes: &[u8]| -> Vec<u8> { bytes.iter().copied().skip_while(|b| *b == 0).collect() };
                RsaPublicKeyComponents { n: trim(n), e: trim(e) }
                    .verify(parameters, message, signature)
                    .is_ok()
            }
            Material::Ec { curve, point } => {
                let algorithm: &dyn signature::VerificationAlgorithm = match (algorithm, curve.as_str()) {
                    ("ES256", "P-256") => &signature::ECDSA_P256_SHA256_FIXED,
                    ("ES384", "P-384") => &signature::ECDSA_P384_SHA384_FIXED,
                    ("ES512", "P-521") => return p521::verify(point, message, signature),
                    _ => return false,
                };
                UnparsedPublicKey::new(algorithm, point).verify(message, signature).is_ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_of_the_standard_is_verified() {
        // RFC 7515, appendix A.3.
        let set = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"a",
            "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
            {"kty":"oct","k":"AAAA"}]}"#;
        let keys = KeySet::parse(&api::json::decode(set.as_bytes()).unwrap().value);
        assert_eq!(keys.0.len(), 1);
        let message = b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature =
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(keys.verify("ES256", "a", message, &signature));
        assert!(keys.verify("ES256", "", message, &signature));
        assert!(!keys.verify("ES256", "b", message, &signature));
        assert!(!keys.verify("RS256", "a", message, &signature));
        assert!(!keys.verify("ES256", "a", b"other", &signature));
    }

    #[test]
    fn a_signature_on_the_largest_curve_is_verified() {
        // RFC 7515, appendix A.4.
        let set = r#"{"keys":[{"kty":"EC","crv":"P-521",
            "x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
            "y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"}]}"#;
        let keys = KeySet::parse(&api::json::decode(set.as_bytes()).unwrap().value);
        let signature = "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn";
        let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(keys.verify("ES512", "", b"eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA", &signature));
        assert!(!keys.verify("ES512", "", b"eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZB", &signature));
        signature.push(0);
        assert!(!keys.verify("ES512", "", b"eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA", &signature));
    }
}
