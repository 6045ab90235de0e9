//! Authentication: who sends a request. Client certificates, ServiceAccount tokens, the front proxy's headers and, when
//! nothing was presented, the anonymous user.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/authentication/>.

mod authorities;
pub(crate) mod jwt;
mod p521;
pub mod pem;
pub mod service_account;
mod static_tokens;
pub(crate) mod verified;
mod webhook;

pub use authorities::Authorities;
pub use jwt::{Anonymous, AnonymousPath, Jwts, Oidc};
pub use static_tokens::StaticTokens;
pub use webhook::{Reviewed, Reviewer};

use std::sync::Arc;

use http::HeaderMap;
use rustls::DistinguishedName;
use rustls_pki_types::CertificateDer;

use crate::authn::service_account::{Examined, TokenError};
use crate::metrics::Access;
use crate::storage::Storage;

/// Who sends a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserInfo {
    /// Name, such as `system:node:n1`.
    pub name: String,
    /// Identifier that outlives the name; may be empty.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// What else the authenticator knows.
    pub extra: Vec<(String, Vec<String>)>,
}

impl UserInfo {
    /// The user nobody authenticated.
    pub fn anonymous() -> Self {
        Self {
            name: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
            ..Self::default()
        }
    }

    /// The server itself.
    pub fn server() -> Self {
        Self {
            name: "system:apiserver".to_owned(),
            groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
            ..Self::default()
        }
    }

    /// True for a member of `group`.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node's name, for a kubelet.
    pub fn node_name(&self) -> Option<&str> {
        self.name.strip_prefix("system:node:").filter(|n| !n.is_empty() && self.is_in("system:nodes"))
    }

    fn authenticated(mut self) -> Self {
        if !self.is_in("system:authenticated") {
            self.groups.push("system:authenticated".to_owned());
        }
        self
    }
}

/// The names of the headers in which a trusted front proxy tells the user.
#[derive(Clone, Debug, Default)]
pub struct FrontProxy {
    /// Common names the proxy's certificate may have; empty accepts all.
    pub allowed_names: Vec<String>,
    /// Headers with the user's name.
    pub username_headers: Vec<String>,
    /// Headers with the user's groups.
    pub group_headers: Vec<String>,
    /// Headers with the user's UID.
    pub uid_headers: Vec<String>,
    /// Prefixes of headers with more.
    pub extra_prefixes: Vec<String>,
}

/// What a server needs to authenticate.
pub struct Authenticator {
    /// Verifies and signs ServiceAccount tokens.
    pub tokens: Arc<service_account::Tokens>,
    /// Verifies client certificates of users; none accepts no certificate.
    pub client_ca: Option<Authorities>,
    /// Verifies client certificates of the front proxy.
    pub front_proxy_ca: Option<Authorities>,
    /// The front proxy's headers.
    pub front_proxy: FrontProxy,
    /// Tokens of a file.
    pub static_tokens: StaticTokens,
    /// Accept bootstrap tokens.
    pub bootstrap_tokens: bool,
    /// Tokens of other issuers.
    pub jwts: Arc<Jwts>,
    /// Another server that knows tokens.
    pub reviewer: Option<Reviewer>,
    /// Who may come without credentials.
    pub anonymous: Anonymous,
}

impl Authenticator {
    /// The sender of a request, or none when what it presented is not valid.
    pub async fn authenticate(
        &self,
        storage: &Storage,
        certificates: &[CertificateDer<'_>],
        (headers, path): (&HeaderMap, &str),
        access: &Access,
    ) -> Examined<Option<UserInfo>> {
        if let Some(user) = self.proxied(certificates, headers) {
            return Examined::plain(Some(user.authenticated()));
        }
        let certified = self.client_ca.as_ref().and_then(|ca| ca.vouch(certificates));
        if let Some(certified) = &certified {
            access.certificate(certified.until);
        }
        if let Some(user) = certified.as_ref().and_then(|c| c.user()) {
            return Examined::plain(Some(user.authenticated()));
        }
        if let Some(token) = bearer(headers) {
            return Box::pin(self.review(storage, token, &[])).await.map(|reviewed| match reviewed {
                Ok(reviewed) => Some(reviewed.user.authenticated()),
                Err(failures) => {
                    let failures: Vec<String> = failures.iter().map(ToString::to_string).collect();
                    tracing::debug!(why = failures.join(", "), "a token is not valid");
                    None
                }
            });
        }
        // A certificate that no CA vouches for is an attempt, not an absence; one that names nobody is none.
        let anonymous = (certificates.is_empty() || certified.is_some()) && self.admits_anonymous(path);
        Examined::plain(anonymous.then(UserInfo::anonymous))
    }

    /// Reads the bundles of authorities again; true when one has changed.
    pub fn reload(&self) -> bool {
        let all = [&self.client_ca, &self.front_proxy_ca];
        all.into_iter().flatten().map(Authorities::reload).fold(false, |any, changed| any | changed)
    }

    /// The subjects of the authorities that vouch for clients and for the front proxy, for clients to choose by.
    pub fn authorities(&self) -> Vec<DistinguishedName> {
        let mut all: Vec<(CertificateDer<'static>, DistinguishedName)> = Vec::new();
        for authorities in [&self.client_ca, &self.front_proxy_ca].into_iter().flatten() {
            for certificate in authorities.certificates() {
                if all.iter().all(|(known, _)| *known != certificate.0) {
                    all.push(certificate);
                }
            }
        }
        all.into_iter().map(|(_, subject)| subject).collect()
    }

    fn admits_anonymous(&self, path: &str) -> bool {
        let Anonymous { enabled, conditions } = &self.anonymous;
        *enabled && (conditions.is_empty() || conditions.iter().any(|c| c.path == path))
    }

    /// Who a token stands for, and those of `audiences` that it is good for; without any, those of the server count. Else
    /// what each authenticator that knows such tokens has against it.
    pub async fn review(
        &self,
        storage: &Storage,
        token: &str,
        audiences: &[String],
    ) -> Examined<Result<Reviewed, Vec<TokenError>>> {
        // Most authenticators know nothing of audiences: their tokens are good for those of the server.
        let own: Vec<String> = match audiences {
            [] => self.tokens.audiences.clone(),
            asked => asked.iter().filter(|a| self.tokens.audiences.contains(a)).cloned().collect(),
        };
        if !own.is_empty()
            && let Some(user) = self.static_tokens.user(token)
        {
            return Examined::plain(Ok(Reviewed { user, audiences: own }));
        }
        let wanted = if audiences.is_empty() { &self.tokens.audiences } else { audiences };
        let Examined { found, used } = self.tokens.authenticate(storage, token, audiences).await;
        let found = match found {
            Ok(user) => {
                let named =
                    self.tokens.verify(token).map(|c| self.tokens.audiences_of(&c)).unwrap_or_default();
                Ok(Reviewed { user, audiences: named.into_iter().filter(|a| wanted.contains(a)).collect() })
            }
            Err(e) => self.review_otherwise(storage, token, (wanted, own), vec![e]).await,
        };
        Examined { found, used }
    }

    /// As [`Authenticator::review`], of a token that is none of an account here: for those that are `wanted`, among which
    /// `own` are the server's.
    async fn review_otherwise(
        &self,
        storage: &Storage,
        token: &str,
        (wanted, own): (&[String], Vec<String>),
        mut failures: Vec<TokenError>,
    ) -> Result<Reviewed, Vec<TokenError>> {
        if self.bootstrap_tokens
            && !own.is_empty()
            && let Some((id, secret)) = bootstrap_token(token)
            && let Some(user) = bootstrap_user(storage, id, secret)
        {
            return Ok(Reviewed { user, audiences: own });
        }
        match self.jwts.authenticate(token).await {
            Ok(Some(user)) if !own.is_empty() => return Ok(Reviewed { user, audiences: own }),
            Ok(_) => {}
            Err(why) => failures.push(TokenError::Refused(why)),
        }
        if let Some(reviewer) = &self.reviewer {
            match reviewer.authenticate(token, wanted).await {
                Ok(Some(reviewed)) => return Ok(reviewed),
                Ok(None) => {}
                Err(why) => failures.push(TokenError::Refused(why)),
            }
        }
        Err(failures)
    }

    fn proxied(&self, chain: &[CertificateDer<'_>], headers: &HeaderMap) -> Option<UserInfo> {
        let proxy = &self.front_proxy;
        let name = proxy.username_headers.iter().find_map(|h| headers.get(h.as_str())?.to_str().ok())?;
        let certified = self.front_proxy_ca.as_ref()?.vouch(chain)?;
        if !proxy.allowed_names.is_empty() && !proxy.allowed_names.contains(&certified.common_name) {
            return None;
        }
        let values = |h: &String| {
            headers.get_all(h.as_str()).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned)
        };
        let mut user = UserInfo { name: name.to_owned(), ..UserInfo::default() };
        user.uid = proxy.uid_headers.iter().find_map(|h| values(h).next()).unwrap_or_default();
        user.groups = proxy.group_headers.iter().flat_map(values).collect();
        for prefix in &proxy.extra_prefixes {
            let prefix = prefix.to_ascii_lowercase();
            for key in headers.keys().filter(|k| k.as_str().starts_with(&prefix)) {
                let extra =
                    percent_encoding::percent_decode_str(&key.as_str()[prefix.len()..]).decode_utf8_lossy();
                user.extra.push((extra.into_owned(), values(&key.as_str().to_owned()).collect()));
            }
        }
        Some(user)
    }
}

/// The bearer token of a request, from its header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|t| !t.is_empty())
}

/// The two parts of a bootstrap token: `abcdef.0123456789abcdef`.
fn bootstrap_token(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |t: &str| t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

/// The user that a bootstrap token stands for, from its Secret in kube-system.
fn bootstrap_user(storage: &Storage, id: &str, secret: &str) -> Option<UserInfo> {
    use base64::Engine;
    let cache = storage.cache(crate::resources::TABLE.store("", "secrets"));
    let object = cache.get(&format!("kube-system/bootstrap-token-{id}"))?.object();
    let field = |key: &str| -> String {
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(object.str_at(&["data", key]))
            .unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    };
    let stored = field("token-secret");
    let same = ring::digest::digest(&ring::digest::SHA256, stored.as_bytes()).as_ref()
        == ring::digest::digest(&ring::digest::SHA256, secret.as_bytes()).as_ref();
    let expired = api::time::parse(&field("expiration")).is_some_and(|t| t < jiff::Timestamp::now());
    let fits = object.str_at(&["type"]) == "bootstrap.kubernetes.io/token"
        && !object.is_terminating()
        && field("token-id") == id
        && field("usage-bootstrap-authentication") == "true";
    if !same || expired || !fits {
        return None;
    }
    let mut groups = vec!["system:bootstrappers".to_owned()];
    let more = field("auth-extra-groups");
    groups.extend(more.split(',').filter(|g| g.starts_with("system:bootstrappers:")).map(str::to_owned));
    Some(UserInfo { name: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() })
}
