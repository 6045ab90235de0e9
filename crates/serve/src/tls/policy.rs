//! Which protocol versions and cipher suites a server offers: the values of `--tls-min-version` and `--tls-cipher-suites`.

use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion, version};

use super::provider;

/// The suites of TLS 1.2 that upstream knows and this server never offers, since they are weak.
const WEAK: [&str; 18] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_FALLBACK_SCSV",
    "TLS_EMPTY_RENEGOTIATION_INFO_SCSV",
];

/// What a server offers; the default is everything that is good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    newest_only: bool,
    /// None: all.
    suites: Option<Vec<CipherSuite>>,
}

impl Policy {
    /// Reads the two settings; empty ones stand for the default. Suites of TLS 1.3 cannot be switched off, as in Go.
    ///
    /// # Errors
    /// A version or a suite that is not known, versions before TLS 1.2, and suites of which none could be offered.
    pub fn parse(min_version: &str, suites: &[String]) -> Result<Self, String> {
        let newest_only = match min_version {
            "" | "VersionTLS12" => false,
            "VersionTLS13" => true,
            "VersionTLS10" | "VersionTLS11" => {
                return Err(format!("TLS 1.2 is the oldest version that is spoken, not {min_version}"));
            }
            other => return Err(format!("unknown tls version {other:?}")),
        };
        let names = suites.iter().map(|name| name.trim()).filter(|name| !name.is_empty());
        let names: Vec<&str> = names.collect();
        if names.is_empty() {
            return Ok(Self { newest_only, suites: None });
        }
        let mut chosen = Vec::new();
        for name in names {
            match named(name) {
                Some(suite) => chosen.push(suite),
                None if WEAK.contains(&name) => {
                    tracing::warn!(suite = name, "The cipher suite is weak and is not offered");
                }
                None => return Err(format!("Cipher suite {name} not supported or doesn't exist")),
            }
        }
        let offers = chosen.iter().any(|suite| is_older(*suite));
        if !newest_only && !offers {
            return Err("none of the cipher suites can be offered with TLS 1.2: set the minimum version to \
                        VersionTLS13, or name one that can"
                .to_owned());
        }
        Ok(Self { newest_only, suites: Some(chosen) })
    }

    pub(super) fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        if self.newest_only { vec![&version::TLS13] } else { vec![&version::TLS13, &version::TLS12] }
    }

    pub(super) fn provider(&self) -> std::sync::Arc<CryptoProvider> {
        let Some(chosen) = &self.suites else { return provider() };
        let mut limited = provider().as_ref().clone();
        limited.cipher_suites.retain(|suite| !is_older(suite.suite()) || chosen.contains(&suite.suite()));
        std::sync::Arc::new(limited)
    }
}

/// The suite of a name as Go has it, if it can be offered.
fn named(name: &str) -> Option<CipherSuite> {
    // Two have an older name as well, and rustls calls those of TLS 1.3 by their version.
    let name = match name {
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" => {
            format!("{name}_SHA256")
        }
        "TLS_AES_128_GCM_SHA256" | "TLS_AES_256_GCM_SHA384" | "TLS_CHACHA20_POLY1305_SHA256" => {
            name.replacen("TLS_", "TLS13_", 1)
        }
        name => name.to_owned(),
    };
    let known = provider().cipher_suites.clone();
    let mut suites = known.iter().map(SupportedCipherSuite::suite);
    suites.find(|suite| suite.as_str() == Some(name.as_str()))
}

fn is_older(suite: CipherSuite) -> bool {
    suite.as_str().is_some_and(|name| !name.starts_with("TLS13_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";

    fn parse(version: &str, suites: &[&str]) -> Result<Policy, String> {
        Policy::parse(version, &suites.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn settings_are_read_or_refused() {
        assert_eq!(parse("", &[]), Ok(Policy::default()));
        assert_eq!(parse("VersionTLS12", &[""]), Ok(Policy::default()));
        for (version, suites, why) in [
            ("VersionTLS11", &[][..], "TLS 1.2 is the oldest version"),
            ("TLS13", &[][..], "unknown tls version"),
            ("", &["TLS_NO_SUCH"][..], "Cipher suite TLS_NO_SUCH not supported or doesn't exist"),
            ("", &["TLS_RSA_WITH_AES_128_CBC_SHA"][..], "none of the cipher suites"),
            ("", &["TLS_AES_128_GCM_SHA256"][..], "none of the cipher suites"),
        ] {
            let error = parse(version, suites).unwrap_err();
            assert!(error.contains(why), "{version} {suites:?}: {error}");
        }
        assert!(parse("VersionTLS13", &["TLS_AES_128_GCM_SHA256"]).is_ok());
    }

    #[test]
    fn only_what_was_named_is_offered_with_the_older_version() {
        let policy =
            parse("", &[GOOD, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "TLS_RSA_WITH_RC4_128_SHA"]).unwrap();
        let offered = policy.provider().cipher_suites.clone();
        let names: Vec<_> = offered.iter().filter_map(|suite| suite.suite().as_str()).collect();
        let older: Vec<_> = names.iter().filter(|name| !name.starts_with("TLS13")).collect();
        assert_eq!(older, [&"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", &GOOD]);
        assert_eq!(names.len() - older.len(), 3, "{names:?}");
        assert_eq!(policy.versions().len(), 2);
        assert_eq!(parse("VersionTLS13", &[]).unwrap().versions().len(), 1);
    }
}
