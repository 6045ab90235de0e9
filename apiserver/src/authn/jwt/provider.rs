//! A provider of tokens: where its keys are, and whether a token is one that it has signed.
//!
//! Source: OpenID Connect Core 1.0 and Discovery 1.0.

use std::time::{Duration, Instant};

use api::Value;
use arc_swap::ArcSwapOption;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use serve::outbound::HttpsClient;

use super::keys::KeySet;
use crate::webhook::chain;

const TIMEOUT: Duration = Duration::from_secs(30);
/// Longer documents are refused.
const DOCUMENT_LIMIT: usize = 1 << 20;
/// Keys are asked for no more often than this, whatever tokens come.
const FETCH_PAUSE: Duration = Duration::from_secs(2);
/// Clocks may differ by this much before a token holds.
const LEEWAY: i64 = 300;
/// The same failure is told of this often.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What a token has to fit besides its issuer, and how documents are asked for.
#[derive(Clone)]
pub(super) struct Terms {
    pub audiences: Vec<String>,
    /// Algorithms of signatures that are accepted.
    pub algorithms: Vec<String>,
    pub client: HttpsClient,
}

/// One that signs tokens.
pub(super) struct Provider {
    /// What its tokens say of where they come from.
    pub url: String,
    pub terms: Terms,
    /// Where its discovery document is.
    discovery: String,
    /// Where its keys are; none before it was asked.
    keys_url: ArcSwapOption<String>,
    keys: ArcSwapOption<KeySet>,
    fetched: tokio::sync::Mutex<Option<Instant>>,
    told: parking_lot::Mutex<Option<Instant>>,
}

impl Provider {
    /// Nothing is asked of it yet. Without a place for its discovery document it is where the standard has it.
    pub(super) fn new(url: String, discovery: &str, terms: Terms) -> Self {
        let discovery = match discovery {
            "" => format!("{}/.well-known/openid-configuration", url.trim_end_matches('/')),
            named => named.to_owned(),
        };
        Self {
            url,
            terms,
            discovery,
            keys_url: ArcSwapOption::empty(),
            keys: ArcSwapOption::empty(),
            fetched: tokio::sync::Mutex::default(),
            told: parking_lot::Mutex::default(),
        }
    }

    /// True when it is known where its keys are.
    pub(super) fn is_known(&self) -> bool {
        self.keys_url.load().is_some()
    }

    /// Asks it where its keys are, unless that is known.
    pub(super) async fn prepare(&self) {
        if self.is_known() {
            return;
        }
        match self.discover().await {
            Ok(url) => {
                self.keys_url.store(Some(url.into()));
                tracing::info!(issuer = self.url, "An issuer of tokens is known");
            }
            Err(why) => {
                let mut told = self.told.lock();
                if told.is_none_or(|at| at.elapsed() > TELL_EVERY) {
                    let issuer = self.url.as_str();
                    tracing::error!(issuer, why, "an issuer of tokens gives no account of itself yet");
                    *told = Some(Instant::now());
                }
            }
        }
    }

    async fn discover(&self) -> Result<String, String> {
        let document = self.document(&self.discovery).await?;
        let issuer = document.str_at(&["issuer"]);
        if issuer != self.url {
            return Err(format!(
                "oidc: issuer URL provided to client ({:?}) did not match the issuer URL returned by provider ({issuer:?})",
                self.url
            ));
        }
        match document.str_at(&["jwks_uri"]) {
            "" => Err("provider did not return JWKS URL".to_owned()),
            url => Ok(url.to_owned()),
        }
    }

    async fn document(&self, url: &str) -> Result<Value, String> {
        let body = self.terms.get(url, "").await?;
        api::json::decode(&body).map(|d| d.value).map_err(|e| format!("{url} is no JSON: {e}"))
    }

    /// The claims of a token.
    ///
    /// # Errors
    /// It is not one of this provider's, or does not hold now or here.
    pub(super) async fn verify(&self, token: &str) -> Result<Value, String> {
        let malformed = || "oidc: malformed jwt".to_owned();
        let (signed, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, payload) = signed.split_once('.').ok_or_else(malformed)?;
        let decoded = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed());
        let read = |bytes: Vec<u8>| api::json::decode(&bytes).map(|d| d.value).map_err(|_| malformed());
        let (header, claims) = (read(decoded(header)?)?, read(decoded(payload)?)?);
        let signature = decoded(signature)?;
        self.terms.check(&claims)?;
        let (algorithm, id) = (header.str_at(&["alg"]), header.str_at(&["kid"]));
        if !self.terms.algorithms.iter().any(|a| a == algorithm) {
            return Err(format!(
                "oidc: id token signed with unsupported algorithm, expected {:?} got {algorithm:?}",
                self.terms.algorithms
            ));
        }
        let fits = |keys: &KeySet| keys.verify(algorithm, id, signed.as_bytes(), &signature);
        if self.keys.load().as_deref().is_some_and(fits) {
            return Ok(claims);
        }
        // The key may be new.
        self.fetch().await?;
        match self.keys.load().as_deref().is_some_and(fits) {
            true => Ok(claims),
            false => Err("failed to verify signature: failed to verify id token signature".to_owned()),
        }
    }

    /// Fetches the keys, unless that was done a moment ago.
    async fn fetch(&self) -> Result<(), String> {
        let mut fetched = self.fetched.lock().await;
        if fetched.is_some_and(|at| at.elapsed() < FETCH_PAUSE) {
            return Ok(());
        }
        let url = self.keys_url.load_full().ok_or("oidc: authenticator not initialized")?;
        let document = self.document(&url).await;
        *fetched = Some(Instant::now());
        let document = document
            .map_err(|e| format!("failed to verify signature: fetching keys oidc: get keys failed: {e}"))?;
        self.keys.store(Some(KeySet::parse(&document).into()));
        Ok(())
    }
}

impl Terms {
    /// What is at a URL, perhaps with a token to be let in.
    pub(super) async fn get(&self, url: &str, token: &str) -> Result<Bytes, String> {
        let mut request = Request::get(url).header(ACCEPT, "application/json");
        if !token.is_empty() {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| format!("the access token for {url} cannot be sent"))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(serve::empty()).map_err(|e| format!("{url} is no URL: {e}"))?;
        let answer = async {
            let answer =
                self.client.request(request).await.map_err(|e| format!("Get {url:?}: {}", chain(&e)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), DOCUMENT_LIMIT).collect().await;
            let body = body.map_err(|e| format!("unable to read response body: {e}"))?.to_bytes();
            if status.is_success() { Ok(body) } else { Err(status.to_string()) }
        };
        let late = || Err(format!("Get {url:?}: context deadline exceeded"));
        tokio::time::timeout(TIMEOUT, answer).await.unwrap_or_else(|_| late())
    }

    fn check(&self, claims: &Value) -> Result<(), String> {
        let audience = claims.get("aud");
        let many = audience.as_array().into_iter().flatten().filter_map(Value::as_str);
        let named: Vec<&str> = audience.as_str().into_iter().chain(many).collect();
        if !self.audiences.iter().any(|a| named.contains(&a.as_str())) {
            return Err(format!("oidc: expected audience in {:?} got {named:?}", self.audiences));
        }
        let time = |name: &str| match claims.get(name) {
            Value::Float(f) => Some(*f as i64),
            other => other.as_i64(),
        };
        let now = Timestamp::now().as_second();
        let expiry = time("exp").unwrap_or(0);
        if now > expiry {
            return Err(format!("oidc: token is expired (Token Expiry: {expiry})"));
        }
        match time("nbf") {
            Some(begin) if now + LEEWAY < begin => {
                Err(format!("oidc: current time {now} before the nbf (not before) time: {begin}"))
            }
            _ => Ok(()),
        }
    }
}
