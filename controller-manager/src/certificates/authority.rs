//! The cluster's authority: its certificate and key, and what it signs.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Clocks differ: certificates are good from a little before now.
const BACKDATE: Duration = Duration::from_secs(300);

pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Nothing it signs outlives it.
    not_after: SystemTime,
}

impl Authority {
    pub(super) fn load(cert: &Path, key: &Path) -> anyhow::Result<Self> {
        let read = |p: &Path| fs::read_to_string(p).with_context(|| format!("cannot read {}", p.display()));
        let (cert_pem, key_pem) = (read(cert)?, read(key)?);
        let key = key_pair(&key_pem).with_context(|| format!("unusable key in {}", key.display()))?;
        let (_, der) = x509_parser::pem::parse_x509_pem(cert_pem.as_bytes())
            .map_err(|_| anyhow!("no certificate in {}", cert.display()))?;
        let (_, parsed) = X509Certificate::from_der(&der.contents)
            .map_err(|_| anyhow!("unreadable certificate in {}", cert.display()))?;
        let end = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(&der.contents.clone().into(), key)
                .with_context(|| format!("unusable certificate in {}", cert.display()))?,
            not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(end),
        })
    }

    /// Signs a request: its names and its key, with the usages of the object around it. The error is for the status.
    pub(super) fn sign(&self, csr: &[u8], lifetime: Duration, usages: Vec<String>) -> Result<String, String> {
        let request = CertificateSigningRequestParams::from_der(&csr.to_vec().into())
            .map_err(|e| format!("unable to use the request: {e}"))?;
        let now = SystemTime::now();
        let mut params = CertificateParams::default();
        params.distinguished_name = request.params.distinguished_name;
        params.subject_alt_names = request.params.subject_alt_names;
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + lifetime).min(self.not_after).into();
        params.serial_number = Some(SerialNumber::from(rand::random::<[u8; 16]>().to_vec()));
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        for usage in usages {
            match usage.as_str() {
                "digital signature" => params.key_usages.push(KeyUsagePurpose::DigitalSignature),
                "key encipherment" => params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
                "client auth" => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth),
                "server auth" => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth),
                other => return Err(format!("usage {other:?} is not supported")),
            }
        }
        let cert = params.signed_by(&request.public_key, &self.issuer).map_err(|e| e.to_string())?;
        Ok(cert.pem())
    }
}

/// Reads a key in any of the forms OpenSSL and kubeadm write; ring itself reads only PKCS#8.
fn key_pair(pem: &str) -> anyhow::Result<KeyPair> {
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
    use crate::certificates::plan::{self, Csr};

    #[test]
    fn what_is_signed_leads_to_the_authority() {
        let dir = std::env::temp_dir().join(format!("authority-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (cert, key) = (dir.join("ca.crt"), dir.join("ca.key"));
        let pair = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = params.self_signed(&pair).unwrap();
        fs::write(&cert, ca.pem()).unwrap();
        fs::write(&key, pair.serialize_pem()).unwrap();
        let authority = Authority::load(&cert, &key).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        let signer = "kubernetes.io/kube-apiserver-client-kubelet";
        let request = plan::tests::request("system:node:n1", "system:nodes", signer, "client auth");
        let csr = Csr::of(&request).unwrap();
        let pem = authority.sign(&csr.der, Duration::from_secs(3600), plan::usages(&request)).unwrap();
        let (_, leaf) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let trusted = serve::x509::ClientCa::from_pem(ca.pem().as_bytes()).unwrap();
        let subject = trusted.verify(&[leaf.contents.into()]).unwrap();
        assert_eq!(subject.common_name, "system:node:n1");
        assert_eq!(subject.organizations, ["system:nodes"]);
    }
}
