//! Tokens of others: JSON Web Tokens of issuers that the configuration trusts, such as OpenID Connect providers.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#using-authentication-configuration>.

mod claims;
mod config;
mod distributed;
mod issuer;
pub(crate) mod keys;
mod provider;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio_util::sync::CancellationToken;

pub use config::{Anonymous, AnonymousPath, Oidc};
use issuer::Issuer;

use super::UserInfo;

/// How often the file is looked at, and issuers that did not answer are asked again.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The issuers that are trusted.
#[derive(Default)]
pub struct Jwts {
    file: Option<PathBuf>,
    /// Issuers of the server's own tokens, which no other may have.
    own: Vec<String>,
    current: ArcSwap<Issuers>,
}

#[derive(Default)]
struct Issuers {
    text: String,
    list: Vec<Arc<Issuer>>,
}

impl Jwts {
    /// Reads the configuration at `path`; with what it says of anonymous requests.
    ///
    /// # Errors
    /// It cannot be read, or is no valid configuration.
    pub fn read(path: &Path, own: &[String]) -> Result<(Self, Option<Anonymous>)> {
        let text = crate::config_file::text(path)?;
        let (list, anonymous) = config::parse(&text, own)
            .with_context(|| format!("--authentication-config {}", path.display()))?;
        let current = ArcSwap::from_pointee(Issuers { text, list });
        Ok((Self { file: Some(path.to_owned()), own: own.to_vec(), current }, anonymous))
    }

    /// Trusts the issuer that flags name, if they name one.
    ///
    /// # Errors
    /// The flags do not fit.
    pub fn of_flags(flags: &Oidc, own: &[String]) -> Result<Self> {
        let list = config::of_flags(flags, own)?.into_iter().collect();
        Ok(Self { current: ArcSwap::from_pointee(Issuers { text: String::new(), list }), ..Self::default() })
    }

    /// The user of a token; none when no trusted issuer is named in it.
    ///
    /// # Errors
    /// The token is not valid, or its user is refused.
    pub async fn authenticate(&self, token: &str) -> Result<Option<UserInfo>, String> {
        let current = self.current.load_full();
        if current.list.is_empty() {
            return Ok(None);
        }
        let Some(named) = issuer_of(token) else { return Ok(None) };
        match current.list.iter().find(|issuer| issuer.is(&named)) {
            Some(issuer) => issuer.authenticate(token).await.map(Some),
            None => Ok(None),
        }
    }

    /// Reads the file again when it changes, and makes the acquaintance of issuers, until `stop`.
    pub async fn watch(&self, stop: CancellationToken) {
        let mut refused = String::new();
        loop {
            let current = self.current.load_full();
            futures::future::join_all(current.list.iter().map(|issuer| issuer.provider.prepare())).await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if let Some(path) = &self.file {
                self.reload(path, &mut refused);
            }
        }
    }

    /// Reads the file again. What cannot be used is told of, once, and the last good one stays.
    fn reload(&self, path: &Path, refused: &mut String) {
        let text = match crate::config_file::text(path) {
            Ok(text) => text,
            Err(e) => {
                tracing::error!(
                    error = format!("{e:#}"),
                    "the authentication configuration cannot be read again"
                );
                return;
            }
        };
        if *refused == text || self.current.load().text == text {
            return;
        }
        match config::parse(&text, &self.own) {
            Ok((list, _)) => {
                self.current.store(Arc::new(Issuers { text, list }));
                tracing::info!(path = %path.display(), "Loaded a changed authentication configuration");
            }
            Err(e) => {
                tracing::error!(
                    error = format!("{e:#}"),
                    "a changed authentication configuration is not used"
                );
                *refused = text;
            }
        }
    }

    /// True when there is nothing to look after.
    pub fn is_empty(&self) -> bool {
        self.file.is_none() && self.current.load().list.is_empty()
    }
}

/// True for a file that is a valid configuration.
#[cfg(any(test, fuzzing))]
pub(crate) fn is_configuration(text: &str) -> bool {
    config::parse(text, &[]).is_ok()
}

/// Who a token says has issued it.
pub(crate) fn issuer_of(token: &str) -> Option<String> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let claims = api::json::decode(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?.value;
    match claims.str_at(&["iss"]) {
        "" => None,
        // Google says one thing in its tokens and another in its discovery document.
        "accounts.google.com" => Some("https://accounts.google.com".to_owned()),
        issuer => Some(issuer.to_owned()),
    }
}
