//! Private keys in the forms they come in.

use anyhow::bail;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::KeyPair;

/// Reads a key in any of the forms OpenSSL and kubeadm write; ring itself reads only PKCS#8.
pub(crate) fn key_pair(pem: &str) -> anyhow::Result<KeyPair> {
    let blocks = x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes()).filter_map(Result::ok);
    for block in blocks {
        let der = match block.label.as_str() {
            "PRIVATE KEY" => block.contents,
            "RSA PRIVATE KEY" => wrap(RSA, &block.contents),
            "EC PRIVATE KEY" => wrap(curve(&block.contents)?, &block.contents),
            _ => continue,
        };
        let pem =
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der));
        return Ok(KeyPair::from_pem(&pem)?);
    }
    bail!("no private key")
}

/// `AlgorithmIdentifier`s: RSA, and elliptic curves P-256 and P-384.
const RSA: &[u8] = &[0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 1, 5, 0];
const P256: &[u8] =
    &[0x30, 19, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[0x30, 16, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x22];

fn curve(key: &[u8]) -> anyhow::Result<&'static [u8]> {
    let names = |algorithm: &[u8]| key.windows(algorithm.len()).any(|w| w == algorithm);
    match () {
        () if names(&P256[11..]) => Ok(P256),
        () if names(&P384[11..]) => Ok(P384),
        () => bail!("the elliptic curve is not supported"),
    }
}

/// A PKCS#8 document around a key of an older form.
fn wrap(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let body = [&[2, 1, 0], algorithm, &tagged(4, key)].concat();
    tagged(0x30, &body)
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let size = content.len().to_be_bytes();
    let significant = &size[size.iter().position(|b| *b != 0).unwrap_or(size.len() - 1)..];
    match content.len() {
        n @ 0..0x80 => out.push(u8::try_from(n).unwrap_or(0)),
        _ => {
            out.push(0x80 | u8::try_from(significant.len()).unwrap_or(0));
            out.extend(significant);
        }
    }
    out.extend(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_encoded_as_der_wants() {
        for (size, head) in [(5, vec![4, 5]), (200, vec![4, 0x81, 200]), (300, vec![4, 0x82, 1, 44])] {
            assert_eq!(tagged(4, &vec![0; size])[..head.len()], head[..], "{size}");
        }
    }

    #[test]
    fn a_key_is_read_from_pkcs8() {
        let pair = KeyPair::generate().unwrap();
        assert_eq!(key_pair(&pair.serialize_pem()).unwrap().public_key_pem(), pair.public_key_pem());
        assert!(key_pair("nothing").is_err());
    }
}
