//! ECDSA on the curve P-521, which ring does not have.
//!
//! Source: FIPS 186-5; signatures have the form of RFC 7518, section 3.4.

use p521::SecretKey;
use p521::ecdsa::signature::{Signer, Verifier};
use p521::ecdsa::{Signature, SigningKey, VerifyingKey};
use p521::elliptic_curve::sec1::ToEncodedPoint;
use p521::pkcs8::DecodePrivateKey;

/// True when the key, an uncompressed point, made the signature.
pub(super) fn verify(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let key = VerifyingKey::from_sec1_bytes(point);
    let signature = Signature::from_slice(signature);
    matches!((key, signature), (Ok(key), Ok(signature)) if key.verify(message, &signature).is_ok())
}

/// A private key.
pub(super) struct Pair(SecretKey);

impl Pair {
    /// Reads a PKCS#8 document; none when it holds no key on this curve.
    pub(super) fn from_pkcs8(der: &[u8]) -> Option<Self> {
        SecretKey::from_pkcs8_der(der).ok().map(Self)
    }

    /// The public half, an uncompressed point.
    pub(super) fn point(&self) -> Vec<u8> {
        self.0.public_key().to_encoded_point(false).as_bytes().to_vec()
    }

    /// Signs.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, ring::error::Unspecified> {
        let key = SigningKey::from_bytes(&self.0.to_bytes()).map_err(|_| ring::error::Unspecified)?;
        let signature: Signature = key.try_sign(message).map_err(|_| ring::error::Unspecified)?;
        Ok(signature.to_bytes().to_vec())
    }
}
