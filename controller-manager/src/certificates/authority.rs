//! The cluster's authority: its certificate and key, and what it signs.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::keys::key_pair;

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
