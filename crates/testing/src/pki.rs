//! Certificates and keys for one test.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair,
};

/// A directory with an authority, a server certificate for 127.0.0.1 and for the Service `hook` of the namespace
/// `default`, one for the Service `extension` there, client certificates of an administrator, of a user and of a front proxy, and a
/// key that signs tokens.
#[derive(Debug)]
pub struct Pki {
    dir: PathBuf,
}

fn named(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name
}

impl Pki {
    /// Writes the files into `dir`.
    ///
    /// # Errors
    /// They cannot be made or written.
    pub fn make(dir: &Path) -> Result<Self> {
        let pki = Self::at(dir);
        let key = KeyPair::generate()?;
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.distinguished_name = named("kubernetes", None);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(pki.file("ca.crt"), authority.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(authority, key);
        let local = ["127.0.0.1", "localhost", "hook.default.svc"].map(str::to_owned).to_vec();
        pki.sign(&issuer, "server", named("kube-apiserver", None), local)?;
        let service = vec!["extension.default.svc".to_owned()];
        pki.sign(&issuer, "extension", named("extension", None), service)?;
        pki.sign(&issuer, "front", named("front-proxy-client", None), Vec::new())?;
        pki.sign(&issuer, "admin", named("admin", Some("system:masters")), Vec::new())?;
        pki.sign(&issuer, "user", named("user", None), Vec::new())?;
        std::fs::write(pki.file("tokens.key"), KeyPair::generate()?.serialize_pem())?;
        Ok(pki)
    }

    /// The infrastructure whose files are in `dir` already.
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn sign(
        &self,
        issuer: &Issuer<'_, KeyPair>,
        file: &str,
        subject: DistinguishedName,
        names: Vec<String>,
    ) -> Result<()> {
        let key = KeyPair::generate()?;
        let server = !names.is_empty();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = subject;
        params.extended_key_usages = vec![match server {
            true => ExtendedKeyUsagePurpose::ServerAuth,
            false => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        std::fs::write(self.file(&format!("{file}.crt")), params.signed_by(&key, issuer)?.pem())?;
        std::fs::write(self.file(&format!("{file}.key")), key.serialize_pem())?;
        Ok(())
    }

    /// Where a file is: `ca.crt`, `server.crt`, `server.key`, `extension.crt`, `extension.key`, `admin.crt`,
    /// `admin.key`, `user.crt`, `user.key`, `front.crt`, `front.key` or `tokens.key`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::make(dir.path()).unwrap();
        for name in ["ca.crt", "server.crt", "server.key", "admin.crt", "admin.key", "tokens.key"] {
            assert!(std::fs::read_to_string(pki.file(name)).unwrap().starts_with("-----BEGIN"), "{name}");
        }
    }
}
