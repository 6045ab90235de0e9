//! Certificates and kubeconfigs, in kubeadm's layout. What is there and still lasts a month is kept.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use base64::Engine;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use crate::cluster::{API_PORT, API_SERVICE, Cluster, DOMAIN, KUBERNETES};
use crate::files::write;

const CA_LIFE: Duration = Duration::days(3650);
const LIFE: Duration = Duration::days(365);
/// A certificate with less than this left is made anew.
const RENEW: u64 = 30 * 24 * 3600;

struct Authority {
    name: &'static str,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate says.
struct Subject<'a> {
    common_name: &'a str,
    organization: Option<&'a str>,
    names: Vec<String>,
    server: bool,
    client: bool,
}

fn pki(file: &str) -> PathBuf {
    Path::new(KUBERNETES).join("pki").join(file)
}

/// Makes everything that is missing.
pub fn ensure(cluster: &Cluster) -> Result<()> {
    let ca = Authority::ensure("ca", "kubernetes")?;
    let etcd = Authority::ensure("etcd/ca", "etcd-ca")?;
    let proxy = Authority::ensure("front-proxy-ca", "front-proxy-ca")?;
    service_account_key()?;
    let node_ip = cluster.node_ip.to_string();
    let local =
        vec!["localhost".to_owned(), "127.0.0.1".to_owned(), cluster.node_name.clone(), node_ip.clone()];
    let mut api = local.clone();
    api.extend(["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned));
    api.extend([format!("kubernetes.default.svc.{DOMAIN}"), API_SERVICE.to_string()]);
    let server = |names: Vec<String>, common_name| Subject {
        common_name,
        organization: None,
        names,
        server: true,
        client: true,
    };
    let client = |common_name, organization| Subject {
        common_name,
        organization,
        names: Vec::new(),
        server: false,
        client: true,
    };
    etcd.issue("etcd/server", &server(local, &cluster.node_name))?;
    etcd.issue("apiserver-etcd-client", &client("kube-apiserver-etcd-client", None))?;
    ca.issue("apiserver", &Subject { client: false, ..server(api, "kube-apiserver") })?;
    ca.issue(
        "apiserver-kubelet-client",
        &client("kube-apiserver-kubelet-client", Some("kubeadm:cluster-admins")),
    )?;
    proxy.issue("front-proxy-client", &client("front-proxy-client", None))?;
    let node_user = format!("system:node:{}", cluster.node_name);
    for (file, user, group) in [
        ("admin.conf", "kubernetes-admin", Some("system:masters")),
        ("controller-manager.conf", "system:kube-controller-manager", None),
        ("scheduler.conf", "system:kube-scheduler", None),
        ("kube-proxy.conf", "system:kube-proxy", None),
        ("flannel.conf", "flannel", None),
        ("kubelet.conf", node_user.as_str(), Some("system:nodes")),
    ] {
        kubeconfig(&ca, cluster, file, &client(user, group))?;
    }
    Ok(())
}

impl Authority {
    fn ensure(name: &'static str, common_name: &str) -> Result<Self> {
        let (certificate_file, key_file) = (pki(&format!("{name}.crt")), pki(&format!("{name}.key")));
        if let (Ok(certificate), Ok(key)) =
            (fs::read_to_string(&certificate_file), fs::read_to_string(&key_file))
        {
            let key =
                KeyPair::from_pem(&key).with_context(|| format!("{} is damaged", key_file.display()))?;
            let issuer = Issuer::from_ca_cert_pem(&certificate, key)
                .with_context(|| format!("{} is damaged", certificate_file.display()))?;
            return Ok(Self { name, certificate, issuer });
        }
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = distinguished(common_name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid_for(&mut params, CA_LIFE);
        let certificate = params.self_signed(&key)?.pem();
        write(&key_file, key.serialize_pem().as_bytes(), 0o600)?;
        write(&certificate_file, certificate.as_bytes(), 0o644)?;
        Ok(Self { name, certificate, issuer: Issuer::new(params, key) })
    }

    fn sign(&self, subject: &Subject<'_>) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(subject.names.clone())?;
        params.distinguished_name = distinguished(subject.common_name, subject.organization);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        let uses = [
            (subject.server, ExtendedKeyUsagePurpose::ServerAuth),
            (subject.client, ExtendedKeyUsagePurpose::ClientAuth),
        ];
        params.extended_key_usages = uses.into_iter().filter(|(on, _)| *on).map(|(_, u)| u).collect();
        valid_for(&mut params, LIFE);
        let certificate =
            params.signed_by(&key, &self.issuer).with_context(|| format!("signing with {}", self.name))?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    fn issue(&self, name: &str, subject: &Subject<'_>) -> Result<()> {
        let (certificate_file, key_file) = (pki(&format!("{name}.crt")), pki(&format!("{name}.key")));
        let covers = subject.names.join(",");
        let note = pki(&format!("{name}.names"));
        let same_names = fs::read_to_string(&note).is_ok_and(|n| n == covers);
        if key_file.exists() && lasts(&certificate_file) && same_names {
            return Ok(());
        }
        let (certificate, key) = self.sign(subject)?;
        write(&key_file, key.as_bytes(), 0o600)?;
        write(&certificate_file, certificate.as_bytes(), 0o644)?;
        write(&note, covers.as_bytes(), 0o644)?;
        Ok(())
    }
}

/// True for a file that was written less than a year, less a month, ago.
fn lasts(file: &Path) -> bool {
    let age = fs::metadata(file).and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
    age.is_some_and(|a| a.as_secs() + RENEW < LIFE.whole_seconds().unsigned_abs())
}

fn distinguished(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn valid_for(params: &mut CertificateParams, life: Duration) {
    let now = OffsetDateTime::now_utc();
    // Clocks of other machines may be a little behind.
    params.not_before = now - Duration::minutes(5);
    params.not_after = now + life;
}

/// The key that signs the tokens of ServiceAccounts.
fn service_account_key() -> Result<()> {
    let (private, public) = (pki("sa.key"), pki("sa.pub"));
    if private.exists() && public.exists() {
        return Ok(());
    }
    // An RSA key, as kubeadm makes: some that read it know no other. The key library here makes none.
    let pem = openssl(&["genrsa", "2048"], &[])?;
    let public_pem = openssl(&["rsa", "-pubout"], &pem)?;
    write(&private, &pem, 0o600)?;
    write(&public, &public_pem, 0o644)?;
    Ok(())
}

/// What openssl prints, given `input`.
fn openssl(words: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    use std::io::Write;
    let mut child = Command::new("openssl")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("running openssl: is it installed?")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input)?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("openssl {} failed: {}", words.join(" "), output.status);
    }
    Ok(output.stdout)
}

fn kubeconfig(ca: &Authority, cluster: &Cluster, file: &str, subject: &Subject<'_>) -> Result<()> {
    let path = Path::new(KUBERNETES).join(file);
    let server = format!("https://{}:{API_PORT}", IpAddr::V4(cluster.node_ip));
    if lasts(&path) && fs::read_to_string(&path).is_ok_and(|t| t.contains(&server)) {
        return Ok(());
    }
    let (certificate, key) = ca.sign(subject)?;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let user = subject.common_name;
    let text = format!(
        "apiVersion: v1
kind: Config
clusters:
- name: ferrite
  cluster:
    certificate-authority-data: {ca}
    server: {server}
users:
- name: {user}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
contexts:
- name: {user}@ferrite
  context:
    cluster: ferrite
    user: {user}
current-context: {user}@ferrite
",
        ca = encode(&ca.certificate),
        certificate = encode(&certificate),
        key = encode(&key),
    );
    write(&path, text.as_bytes(), 0o600)?;
    Ok(())
}
