//! Keys in PEM that sign tokens and verify them.

use std::path::Path;

use anyhow::{Context, bail};
use ring::signature::{self, EcdsaKeyPair, KeyPair, RsaKeyPair};

use super::p521;

/// A key that verifies tokens.
#[derive(Clone)]
pub struct PublicKey {
    /// `RS256`, `ES256`, `ES384` or `ES512`.
    pub algorithm: &'static str,
    /// The subject public key info, DER.
    pub spki: Vec<u8>,
    /// The key itself, as ring and JSON Web Keys want it.
    pub key: Vec<u8>,
    /// Identifier by which tokens name the key: a digest of the SPKI.
    pub id: String,
}

const RSA: [u64; 7] = [1, 2, 840, 113_549, 1, 1, 1];

/// A curve of keys.
struct Curve {
    /// The algorithm of signatures with its keys.
    algorithm: &'static str,
    /// Its object identifier, DER.
    oid: &'static [u8],
    /// Bytes of an uncompressed point on it.
    point: usize,
}

const CURVES: [Curve; 3] = [
    Curve {
        algorithm: "ES256",
        oid: &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
        point: 65,
    },
    Curve { algorithm: "ES384", oid: &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22], point: 97 },
    Curve { algorithm: "ES512", oid: &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23], point: 133 },
];

impl Curve {
    /// SEQUENCE { ecPublicKey, curve }.
    fn identifier(&self) -> Vec<u8> {
        const EC: [u8; 9] = [0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
        der(0x30, &[&EC, self.oid].concat())
    }
}

impl PublicKey {
    fn from_spki(der: &[u8]) -> anyhow::Result<Self> {
        use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};
        let (_, spki) = SubjectPublicKeyInfo::from_der(der).context("the public key is malformed")?;
        let key = spki.subject_public_key.data.to_vec();
        let is_rsa = spki.algorithm.algorithm.iter().is_some_and(|oid| oid.eq(RSA));
        let curve = CURVES.iter().find(|curve| curve.point == key.len());
        let algorithm = match (is_rsa, curve) {
            (true, _) => "RS256",
            (false, Some(curve)) => curve.algorithm,
            _ => bail!("the public key is neither RSA nor ECDSA on P-256, P-384 or P-521"),
        };
        Ok(Self { algorithm, key, id: key_id(der), spki: der.to_vec() })
    }

    /// Reads all keys of a PEM file: public keys, certificates, or private keys (whose public half is taken).
    pub fn read(path: &Path) -> anyhow::Result<Vec<Self>> {
        let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let mut keys = Vec::new();
        for block in blocks(&text)? {
            match block.label.as_str() {
                "PUBLIC KEY" => keys.push(Self::from_spki(&block.der)?),
                "CERTIFICATE" => {
                    use x509_parser::prelude::{FromDer, X509Certificate};
                    let (_, c) =
                        X509Certificate::from_der(&block.der).context("the certificate is malformed")?;
                    keys.push(Self::from_spki(c.public_key().raw)?);
                }
                label if label.ends_with("PRIVATE KEY") => {
                    keys.push(SigningKey::from_der(label, &block.der)?.public)
                }
                _ => {}
            }
        }
        if keys.is_empty() {
            bail!("{} holds no key", path.display());
        }
        Ok(keys)
    }

    /// True when `signature` over `message` was made with this key.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn signature::VerificationAlgorithm = match self.algorithm {
            "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
            "ES256" => &signature::ECDSA_P256_SHA256_FIXED,
            "ES384" => &signature::ECDSA_P384_SHA384_FIXED,
            _ => return p521::verify(&self.key, message, signature),
        };
        signature::UnparsedPublicKey::new(algorithm, &self.key).verify(message, signature).is_ok()
    }
}

fn key_id(spki: &[u8]) -> String {
    use base64::Engine;
    let digest = ring::digest::digest(&ring::digest::SHA256, spki);
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest)
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ecdsa(Box<EcdsaKeyPair>),
    P521(p521::Pair),
}

/// A key that signs tokens.
pub struct SigningKey {
    pair: Pair,
    /// The half that verifies.
    pub public: PublicKey,
}

impl SigningKey {
    /// Reads the private key of a PEM file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        for block in blocks(&text)? {
            if block.label.ends_with("PRIVATE KEY") {
                return Self::from_der(&block.label, &block.der)
                    .with_context(|| format!("{} holds an unusable key", path.display()));
            }
        }
        bail!("{} holds no private key", path.display())
    }

    fn from_der(label: &str, key: &[u8]) -> anyhow::Result<Self> {
        let rsa = match label {
            "RSA PRIVATE KEY" => RsaKeyPair::from_der(key).ok(),
            "PRIVATE KEY" => RsaKeyPair::from_pkcs8(key).ok(),
            _ => None,
        };
        if let Some(pair) = rsa {
            let public = PublicKey::from_spki(&rsa_spki(pair.public_key().as_ref()))?;
            return Ok(Self { pair: Pair::Rsa(Box::new(pair)), public });
        }
        // Keys of the older form say their curve or leave it to be guessed; one that does not fit is refused.
        let candidates = match label {
            "EC PRIVATE KEY" => CURVES.iter().map(|curve| pkcs8(curve, key)).collect(),
            _ => vec![key.to_vec()],
        };
        let pairs = candidates.iter().find_map(|document| ecdsa(document));
        let Some((pair, point)) = pairs else {
            bail!("the key is neither RSA nor ECDSA on P-256, P-384 or P-521")
        };
        Ok(Self { pair, public: PublicKey::from_spki(&ecdsa_spki(&point)?)? })
    }

    /// Signs `message` by the key's algorithm.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, ring::error::Unspecified> {
        let random = ring::rand::SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut out = vec![0; pair.public().modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut out)?;
                Ok(out)
            }
            Pair::Ecdsa(pair) => Ok(pair.sign(&random, message)?.as_ref().to_vec()),
            Pair::P521(pair) => pair.sign(message),
        }
    }
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        n @ 0..128 => out.push(n as u8),
        n @ 128..256 => out.extend([0x81, n as u8]),
        n => out.extend([0x82, (n >> 8) as u8, n as u8]),
    }
    out.extend_from_slice(content);
    out
}

fn bit_string(content: &[u8]) -> Vec<u8> {
    der(0x03, &[&[0], content].concat())
}

/// Wraps a PKCS#1 public key: SEQUENCE { SEQUENCE { rsaEncryption, NULL }, BIT STRING }.
fn rsa_spki(key: &[u8]) -> Vec<u8> {
    const ALGORITHM: [u8; 13] =
        [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    der(0x30, &[der(0x30, &ALGORITHM), bit_string(key)].concat())
}

/// Wraps an uncompressed point: SEQUENCE { SEQUENCE { ecPublicKey, curve }, BIT STRING }.
fn ecdsa_spki(point: &[u8]) -> anyhow::Result<Vec<u8>> {
    let curve = CURVES.iter().find(|curve| curve.point == point.len()).context("the curve is not known")?;
    Ok(der(0x30, &[curve.identifier(), bit_string(point)].concat()))
}

/// Wraps a key of the older form (RFC 5915): SEQUENCE { 0, SEQUENCE { ecPublicKey, curve }, OCTET STRING }.
fn pkcs8(curve: &Curve, key: &[u8]) -> Vec<u8> {
    der(0x30, &[vec![2, 1, 0], curve.identifier(), der(4, key)].concat())
}

/// The key of a PKCS#8 document, and its point.
fn ecdsa(document: &[u8]) -> Option<(Pair, Vec<u8>)> {
    let random = ring::rand::SystemRandom::new();
    let algorithms =
        [&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &signature::ECDSA_P384_SHA384_FIXED_SIGNING];
    for algorithm in algorithms {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(algorithm, document, &random) {
            let point = pair.public_key().as_ref().to_vec();
            return Some((Pair::Ecdsa(Box::new(pair)), point));
        }
    }
    let pair = p521::Pair::from_pkcs8(document)?;
    let point = pair.point();
    Some((Pair::P521(pair), point))
}

struct Block {
    label: String,
    der: Vec<u8>,
}

fn blocks(text: &[u8]) -> anyhow::Result<Vec<Block>> {
    let mut out = Vec::new();
    for block in x509_parser::pem::Pem::iter_from_buffer(text) {
        let block = block.context("the PEM encoding is malformed")?;
        out.push(Block { label: block.label, der: block.contents });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// Keys as `openssl ecparam -genkey` writes them, with their public halves.
    const KEYS: [(&str, &str, &str); 3] = [
        (
            "ES256",
            "MHcCAQEEIL43m71+cifRgrI7x7jQjJDwsDRcuVXy4qu3p6WkXenyoAoGCCqGSM49AwEHoUQDQgAEptp5Ypg7QMag4yYm/cb4NB/pK3DSxM9r4XdcbafoK2Hti7GkEVDrzDEOuvKolCx5QxLumvrLQqn4xhE9gSD+Pw==",
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEptp5Ypg7QMag4yYm/cb4NB/pK3DSxM9r4XdcbafoK2Hti7GkEVDrzDEOuvKolCx5QxLumvrLQqn4xhE9gSD+Pw==",
        ),
        (
            "ES384",
            "MIGkAgEBBDAi1apM9tYRhEKTaKdx8xoPe7uhnQEIbf47jPE4A/KohpmxmTGfLLI2kt0ALfqvfMKgBwYFK4EEACKhZANiAATOSE0idVEVpzXLlvC1g2b9K02xb9KIWM5uKP5+isjIvVOy2ptrnZ48CmMaUNrD2nz/ktboeQtP10LAXo0M8KXYonk+nNi8MZ/UuyZxn62KJEjcn4iUSICWc2zkZjCSSNo=",
            "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEzkhNInVRFac1y5bwtYNm/StNsW/SiFjObij+forIyL1Tstqba52ePApjGlDaw9p8/5LW6HkLT9dCwF6NDPCl2KJ5PpzYvDGf1LsmcZ+tiiRI3J+IlEiAlnNs5GYwkkja",
        ),
        (
            "ES512",
            "MIHcAgEBBEIAQvQAfrI1nSZQri3QCKb/vW8/jfXF1VWdhQ89SO+USoqH3EjY7O+wq+i4KdtNLGiQDUgfhvTPD/X6G7k+/Qx8obegBwYFK4EEACOhgYkDgYYABAC4LHMaWzZJOKeF7J9EmDvQY/9FfHWq7U4VePXzf/jrMJQR/g5BLd4gXt1EUfkeWEzz+5ZY7bF7Mbtu60BHYA+ArgDfdZhNnPBKZDhd9XnBKxUTKYiY2RIoC9cSdMq1idpN3r6Y0VLAlgoJEx4OEqi+c4p87ai8wiMaCWjJgF3tziIMig==",
            "MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQAuCxzGls2STinheyfRJg70GP/RXx1qu1OFXj183/46zCUEf4OQS3eIF7dRFH5HlhM8/uWWO2xezG7butAR2APgK4A33WYTZzwSmQ4XfV5wSsVEymImNkSKAvXEnTKtYnaTd6+mNFSwJYKCRMeDhKovnOKfO2ovMIjGgloyYBd7c4iDIo=",
        ),
    ];

    #[test]
    fn keys_of_every_curve_are_read_in_either_form() {
        for ((algorithm, private, public), curve) in KEYS.into_iter().zip(&CURVES) {
            let sec1 = STANDARD.decode(private).unwrap();
            for (label, key) in [("EC PRIVATE KEY", sec1.clone()), ("PRIVATE KEY", pkcs8(curve, &sec1))] {
                let key = SigningKey::from_der(label, &key).unwrap();
                assert_eq!(key.public.algorithm, algorithm, "{label}");
                assert_eq!(STANDARD.encode(&key.public.spki), public, "{label} of {algorithm}");
                let mut signature = key.sign(b"message").unwrap();
                assert!(key.public.verify(b"message", &signature), "{label} of {algorithm}");
                signature[9] ^= 1;
                assert!(!key.public.verify(b"message", &signature), "{label} of {algorithm}");
            }
        }
    }

    #[test]
    fn keys_of_other_kinds_are_refused() {
        for (label, key) in
            [("EC PRIVATE KEY", &b"nothing"[..]), ("PRIVATE KEY", b""), ("DSA PRIVATE KEY", b"x")]
        {
            assert!(SigningKey::from_der(label, key).is_err(), "{label}");
        }
    }
}
