//! The validated configuration: flags travel no further than here.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use serve::Tls;
use serve::tls::Policy;

use crate::args::Args;
use crate::audit::Auditor;
use crate::authn::pem::{PublicKey, SigningKey};
use crate::authn::service_account::Tokens;
use crate::authn::verified::Verified;
use crate::authn::{Anonymous, Authenticator, Authorities, FrontProxy, Jwts, Reviewer, StaticTokens};
use crate::authz::{self, Authorizer};
use crate::kubeconfig::Remote;
use crate::resources::Table;
use crate::runtime_config::RuntimeConfig;
use crate::server::Settings;
use crate::storage::{Encryption, EtcdConfig};

/// The largest body of a request, in bytes.
const MAX_BODY: usize = 3 << 20;
/// Feature gates that can be on as well as off.
const SWITCHABLE: [&str; 2] = ["APIResponseCompression", "StorageVersionMigrator"];

/// Everything a server needs to start.
pub struct Config {
    /// Where to listen.
    pub listen: (IpAddr, u16),
    /// Requests at a time on one HTTP/2 connection; none for the usual number.
    pub max_streams: Option<u32>,
    /// The certificate to serve.
    pub tls: Arc<Tls>,
    /// etcd.
    pub etcd: EtcdConfig,
    /// How what is stored is encrypted.
    pub encryption: Arc<Encryption>,
    /// Interval of compactions; none for never.
    pub compaction: Option<Duration>,
    /// Who sends requests.
    pub authenticator: Authenticator,
    /// What they may do.
    pub authorizer: Authorizer,
    /// Records requests; none when that is not asked for.
    pub auditor: Option<Arc<Auditor>>,
    /// Ranges of Service addresses, at most one of each family.
    pub service_ranges: Vec<IpNet>,
    /// Ports of Services.
    pub node_ports: (u16, u16),
    /// How likely a request tells its client to connect anew.
    pub goaway: f64,
    /// How long `/livez` waits for the start.
    pub livez_grace: Duration,
    /// How long the server goes on after it has been asked to end.
    pub shutdown_delay: Duration,
    /// How many requests run at a time.
    pub limits: crate::fairness::Limits,
    /// How the servers of other groups are reached.
    pub aggregation: crate::aggregation::Options,
    /// How kubelets are reached.
    pub kubelets: serve::outbound::Options,
    /// Which addresses of nodes are used.
    pub address_types: Vec<String>,
    /// Address that others reach this server at.
    pub advertise: IpAddr,
    /// Keep the endpoints of the Service `kubernetes`.
    pub own_endpoints: bool,
    /// The built-in resources that are served.
    pub served: Table,
    /// What requests look at.
    pub settings: Settings,
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

impl Args {
    /// Checks the flags and reads the files they name.
    pub fn validate(self) -> Result<Config> {
        self.check()?;
        if let Some(file) = path(&self.egress_selector_config_file) {
            // First, since everything that makes a connection asks for its way.
            crate::egress::install(&file)?;
        }
        let advertise = self.advertise()?;
        let tls = if self.tls_cert_file.is_empty() {
            let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
                .map(str::to_owned);
            let mut hosts = names.to_vec();
            hosts.extend([advertise.to_string(), "127.0.0.1".to_owned()]);
            Tls::self_signed("apiserver", &hosts, Some(Path::new(&self.cert_dir)))?
        } else {
            let sni = self.sni()?;
            Tls::with_sni(Path::new(&self.tls_cert_file), Path::new(&self.tls_private_key_file), &sni)?
        };
        let policy = Policy::parse(&self.tls_min_version, &self.tls_cipher_suites);
        let tls = tls.with_policy(&policy.map_err(anyhow::Error::msg)?)?;
        let host = if self.external_hostname.is_empty() {
            advertise.to_string()
        } else {
            self.external_hostname.clone()
        };
        Ok(Config {
            listen: (self.bind_address, self.secure_port),
            max_streams: Some(self.http2_max_streams_per_connection).filter(|n| *n > 0),
            tls: Arc::new(tls),
            etcd: self.etcd(),
            encryption: Arc::new(self.encryption()?),
            compaction: Some(self.etcd_compaction_interval.0).filter(|d| !d.is_zero()),
            authenticator: self.authenticator()?,
            authorizer: self.authorizer()?,
            auditor: self.audit.validate()?,
            service_ranges: service_ranges(&self.service_cluster_ip_range)?,
            node_ports: ports(&self.service_node_port_range)?,
            goaway: self.goaway_chance,
            livez_grace: self.livez_grace_period.0,
            shutdown_delay: self.shutdown_delay_duration.0,
            limits: self.limits()?,
            aggregation: self.aggregation(),
            kubelets: self.kubelets()?,
            address_types: self.kubelet_preferred_address_types.clone(),
            advertise,
            own_endpoints: self.endpoint_reconciler_type != "none",
            served: RuntimeConfig::new(&self.runtime_config)
                .served(&self.feature_gates, self.enable_priority_and_fairness)?,
            settings: Settings {
                max_body: MAX_BODY,
                min_request_timeout: Duration::from_secs(self.min_request_timeout),
                request_timeout: self.request_timeout.0,
                event_ttl: self.event_ttl.0,
                admission: Arc::new(self.admission()?),
                extend_tokens: self.service_account_extend_token_expiration,
                etcd_check_timeout: self.etcd_healthcheck_timeout.0.min(self.etcd_readycheck_timeout.0),
                jwks_uri: self.jwks_uri()?,
                transport_security: self.transport_security()?,
                gates: self.feature_gates.clone(),
                external_address: format!("{host}:{}", self.secure_port),
            },
        })
    }

    /// The certificates for some names.
    fn sni(&self) -> Result<Vec<(PathBuf, PathBuf, Vec<String>)>> {
        let pairs = self.tls_sni_cert_key.iter().filter(|text| !matches!(text.as_str(), "" | "[]"));
        pairs
            .map(|text| {
                let (files, names) = text.split_once(':').unwrap_or((text, ""));
                let Some((cert, key)) = files.split_once(',') else {
                    bail!(
                        "--tls-sni-cert-key {text:?}: expected comma separated certificate and key file paths"
                    )
                };
                let names = names.split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect();
                Ok((PathBuf::from(cert), PathBuf::from(key), names))
            })
            .collect()
    }

    fn jwks_uri(&self) -> Result<Option<String>> {
        let uri = &self.service_account_jwks_uri;
        if uri.is_empty() {
            return Ok(None);
        }
        let parsed = uri.parse::<http::Uri>().ok();
        if !parsed.is_some_and(|u| u.scheme_str() == Some("https") && u.host().is_some()) {
            bail!("--service-account-jwks-uri {uri:?} is no URL with the scheme https");
        }
        Ok(Some(uri.clone()))
    }

    /// The header Strict-Transport-Security.
    fn transport_security(&self) -> Result<Option<http::HeaderValue>> {
        let given: Vec<&str> = self.strict_transport_security_directives.iter().map(|d| d.trim()).collect();
        let given: Vec<&str> = given.into_iter().filter(|d| !d.is_empty()).collect();
        for directive in &given {
            let lower = directive.to_ascii_lowercase();
            let known =
                matches!(lower.as_str(), "includesubdomains" | "preload") || lower.starts_with("max-age=");
            if !known {
                bail!(
                    "--strict-transport-security-directives invalid, allowed values: max-age=expireTime, includeSubDomains, preload. see https://www.ietf.org/rfc/rfc6797.txt for more information"
                );
            }
        }
        let value = http::HeaderValue::from_str(&given.join("; "));
        Ok((!given.is_empty()).then_some(value?))
    }

    fn admission(&self) -> Result<crate::admission::Configuration> {
        crate::admission::Configuration::new(
            &self.enable_admission_plugins,
            &self.disable_admission_plugins,
            [self.default_not_ready_toleration_seconds, self.default_unreachable_toleration_seconds],
            path(&self.admission_control_config_file).as_deref(),
        )
    }

    /// Refuses flags that ask for what is not supported.
    ///
    /// # Errors
    /// The first such flag, and why.
    pub fn check(&self) -> Result<()> {
        if !matches!(self.storage_backend.as_str(), "" | "etcd3") {
            bail!("--storage-backend {} is not supported: etcd3 is", self.storage_backend);
        }
        if !self.service_account_lookup {
            bail!("--service-account-lookup=false is not supported");
        }
        self.fixed.check().map_err(anyhow::Error::msg)?;
        self.feature_gates.check(&SWITCHABLE).map_err(anyhow::Error::msg)?;
        for server in &self.etcd_servers {
            let url = server.parse::<http::Uri>().ok();
            if !url.is_some_and(|u| matches!(u.scheme_str(), Some("http" | "https")) && u.host().is_some()) {
                bail!("--etcd-servers: {server:?} is no URL such as https://127.0.0.1:2379");
            }
        }
        if !matches!(self.endpoint_reconciler_type.as_str(), "lease" | "master-count" | "none") {
            bail!(
                "--endpoint-reconciler-type {} is not known: lease, master-count or none is",
                self.endpoint_reconciler_type
            );
        }
        if self.tls_cert_file.is_empty() != self.tls_private_key_file.is_empty() {
            bail!("--tls-cert-file and --tls-private-key-file go together");
        }
        if !(0.0..=0.02).contains(&self.goaway_chance) {
            bail!("--goaway-chance can not be less than 0 or greater than 0.02");
        }
        if self.proxy_client_cert_file.is_empty() != self.proxy_client_key_file.is_empty() {
            bail!("--proxy-client-cert-file and --proxy-client-key-file go together");
        }
        Ok(())
    }

    /// The address to advertise: the one given, the one listened on where others may reach it, or that of the default route.
    fn advertise(&self) -> Result<IpAddr> {
        if let Some(address) = self.advertise_address {
            return Ok(address);
        }
        if !self.bind_address.is_unspecified() && !self.bind_address.is_loopback() {
            return Ok(self.bind_address);
        }
        // Connecting a datagram socket sends nothing; it only asks which address a packet would leave from.
        let probe = std::net::UdpSocket::bind("0.0.0.0:0")
            .and_then(|s| s.connect("192.0.2.1:9").and_then(|()| s.local_addr()));
        match probe {
            Ok(address) => Ok(address.ip()),
            Err(_) => bail!("unable to find a suitable address to advertise: set --advertise-address"),
        }
    }

    fn etcd(&self) -> EtcdConfig {
        EtcdConfig {
            endpoints: self.etcd_servers.clone(),
            prefix: self.etcd_prefix.clone(),
            ca_file: path(&self.etcd_cafile),
            cert_file: path(&self.etcd_certfile),
            key_file: path(&self.etcd_keyfile),
            lease_reuse: Duration::from_secs(self.lease_reuse_duration_seconds.try_into().unwrap_or(0)),
        }
    }

    fn encryption(&self) -> Result<Encryption> {
        let reloads = self.encryption_provider_config_automatic_reload;
        match path(&self.encryption_provider_config) {
            Some(file) => Encryption::read(file, reloads),
            None if reloads => bail!(
                "--encryption-provider-config-automatic-reload must be set with --encryption-provider-config"
            ),
            None => Ok(Encryption::default()),
        }
    }

    fn authenticator(&self) -> Result<Authenticator> {
        let authorities = |file: &str| path(file).map(|p| Authorities::read(&p)).transpose();
        let signing =
            path(&self.service_account_signing_key_file).map(|p| SigningKey::read(&p)).transpose()?;
        let mut keys = Vec::new();
        for file in &self.service_account_key_file {
            keys.extend(PublicKey::read(Path::new(file))?);
        }
        if keys.is_empty()
            && let Some(signing) = &signing
        {
            keys.push(signing.public.clone());
        }
        if self.service_account_issuer.is_empty() {
            bail!("--service-account-issuer is required");
        }
        if signing.is_none() {
            bail!("--service-account-signing-key-file is required");
        }
        let audiences = if self.api_audiences.is_empty() {
            self.service_account_issuer.clone()
        } else {
            self.api_audiences.clone()
        };
        let (jwts, anonymous) = self.jwts()?;
        Ok(Authenticator {
            jwts: Arc::new(jwts),
            reviewer: self.reviewer()?,
            anonymous,
            tokens: Arc::new(Tokens {
                issuers: self.service_account_issuer.clone(),
                audiences,
                signing,
                keys,
                max_expiration: Some(self.service_account_max_token_expiration.0).filter(|d| !d.is_zero()),
                verified: Verified::default(),
            }),
            client_ca: authorities(&self.client_ca_file)?,
            front_proxy_ca: authorities(&self.requestheader_client_ca_file)?,
            front_proxy: FrontProxy {
                allowed_names: self.requestheader_allowed_names.clone(),
                username_headers: self.requestheader_username_headers.clone(),
                group_headers: self.requestheader_group_headers.clone(),
                uid_headers: self.requestheader_uid_headers.clone(),
                extra_prefixes: self.requestheader_extra_headers_prefix.clone(),
            },
            static_tokens: path(&self.token_auth_file)
                .map(|p| StaticTokens::read(&p))
                .transpose()?
                .unwrap_or_default(),
            bootstrap_tokens: self.enable_bootstrap_token_auth,
        })
    }

    /// Issuers of tokens, and who may come without.
    fn jwts(&self) -> Result<(Jwts, Anonymous)> {
        let own = &self.service_account_issuer;
        let by_flag = || Anonymous { enabled: self.anonymous_auth.unwrap_or(true), conditions: Vec::new() };
        let Some(file) = path(&self.authentication_config) else {
            return Ok((Jwts::of_flags(&self.oidc.settings(), own)?, by_flag()));
        };
        if self.oidc.is_given() {
            bail!("authentication-config file and oidc-* flags are mutually exclusive");
        }
        let (jwts, anonymous) = Jwts::read(&file, own)?;
        if anonymous.is_some() && self.anonymous_auth.is_some() {
            bail!(
                "--anonymous-auth flag cannot be set when anonymous field is configured in authentication configuration file"
            );
        }
        Ok((jwts, anonymous.unwrap_or_else(by_flag)))
    }

    /// The server that is asked about tokens.
    fn reviewer(&self) -> Result<Option<Reviewer>> {
        let Some(file) = path(&self.authentication_token_webhook_config_file) else { return Ok(None) };
        let version = if self.authentication_token_webhook_version == "v1" { "v1" } else { "v1beta1" };
        let ttl = self.authentication_token_webhook_cache_ttl.0;
        Ok(Some(Reviewer::new(Remote::read(&file)?, version, ttl)))
    }

    fn authorizer(&self) -> Result<Authorizer> {
        let seconds = |d: daemon::GoDuration| d.0.as_secs();
        if let Some(file) = path(&self.authorization_config) {
            let by_flags = !self.authorization_mode.is_empty()
                || !self.authorization_webhook_config_file.is_empty()
                || self.authorization_webhook_version != "v1beta1"
                || seconds(self.authorization_webhook_cache_authorized_ttl) != 300
                || seconds(self.authorization_webhook_cache_unauthorized_ttl) != 30;
            if by_flags {
                bail!(
                    "--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags are defined"
                );
            }
            return Authorizer::read(&file, &self.authorization_policy_file);
        }
        let settings = authz::Settings {
            modes: match self.authorization_mode.as_slice() {
                [] => vec!["AlwaysAllow".to_owned()],
                modes => modes.to_vec(),
            },
            policy_file: self.authorization_policy_file.clone(),
            webhook_file: self.authorization_webhook_config_file.clone(),
            webhook_version: self.authorization_webhook_version.clone(),
            webhook_ttl: (
                self.authorization_webhook_cache_authorized_ttl.0,
                self.authorization_webhook_cache_unauthorized_ttl.0,
            ),
        };
        Authorizer::of_flags(&settings)
    }

    fn limits(&self) -> Result<crate::fairness::Limits> {
        let read = |flag: &str, value: i64| {
            u32::try_from(value).ok().with_context(|| format!("--{flag} can not be negative value"))
        };
        let limits = crate::fairness::Limits {
            reading: read("max-requests-inflight", self.max_requests_inflight)?,
            writing: read("max-mutating-requests-inflight", self.max_mutating_requests_inflight)?,
            fair: self.enable_priority_and_fairness,
            time: self.request_timeout.0,
        };
        if limits.fair && limits.reading.saturating_add(limits.writing) == 0 {
            bail!(
                "--max-requests-inflight and --max-mutating-requests-inflight are both 0: there is nothing to share among priority levels"
            );
        }
        Ok(limits)
    }

    fn aggregation(&self) -> crate::aggregation::Options {
        crate::aggregation::Options {
            identity: path(&self.proxy_client_cert_file).zip(path(&self.proxy_client_key_file)),
            endpoints: self.enable_aggregator_routing,
            reject_redirects: self.aggregator_reject_forwarding_redirect,
        }
    }

    fn kubelets(&self) -> Result<serve::outbound::Options> {
        let read = |file: &str| std::fs::read(file).with_context(|| format!("reading {file}"));
        let ca = path(&self.kubelet_certificate_authority).map(|p| read(&p.to_string_lossy())).transpose()?;
        let identity = match (self.kubelet_client_certificate.as_str(), self.kubelet_client_key.as_str()) {
            ("", "") => None,
            (cert, key) => Some((read(cert)?, read(key)?)),
        };
        Ok(serve::outbound::Options { insecure: ca.is_none(), ca, identity, ..Default::default() })
    }
}

/// The ranges of Service addresses: one, or one of each family.
fn service_ranges(text: &str) -> Result<Vec<IpNet>> {
    let mut ranges = Vec::new();
    for part in text.split(',') {
        let range: IpNet = part.trim().parse().with_context(|| {
            format!("--service-cluster-ip-range {text} is neither one CIDR nor two with a comma between them")
        })?;
        if range.addr().is_ipv6() && range.prefix_len() < 64 {
            let length = range.prefix_len();
            bail!("shortest allowed prefix length for service CIDR is 64, got {length}");
        }
        ranges.push(range.trunc());
    }
    match ranges[..] {
        [_] => Ok(ranges),
        [a, b] if a.addr().is_ipv4() != b.addr().is_ipv4() => Ok(ranges),
        [_, _] => bail!(
            "--service-cluster-ip-range and --secondary-service-cluster-ip-range must be of different IP family"
        ),
        _ => bail!("--service-cluster-ip-range must not contain more than two entries"),
    }
}

fn ports(text: &str) -> Result<(u16, u16)> {
    let parsed = text.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    match parsed {
        Some((first, last)) if first <= last && first > 0 => Ok((first, last)),
        _ => bail!("--service-node-port-range {text} is not a range of ports, such as 30000-32767"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn no_loopback_address_is_advertised_to_others() {
        let advertised = |flags: &[&str]| {
            Args::parse_from(["kube-apiserver", "--etcd-servers=http://127.0.0.1:2379"].iter().chain(flags))
                .advertise()
        };
        // Without any other address there is nothing to advertise.
        assert!(!advertised(&["--bind-address=127.0.0.1"]).is_ok_and(|a| a.is_loopback()));
        assert_eq!(
            advertised(&["--bind-address=192.0.2.7"]).unwrap(),
            "192.0.2.7".parse::<IpAddr>().unwrap()
        );
    }
}
