//! A claim that a token leaves to another place: `_claim_names` says under which name, `_claim_sources` where that is.
//!
//! Source: OpenID Connect Core 1.0, section 5.6.2, of which endpoints are followed; aggregated claims are left alone.

use std::collections::HashMap;
use std::sync::Arc;

use api::Value;
use parking_lot::Mutex;

use super::issuer_of;
use super::provider::{Provider, Terms};

/// Others that sign claims, at most.
const MAX_PROVIDERS: usize = 64;

/// The claim, and those who have signed it so far.
pub(super) struct Distributed {
    claim: String,
    providers: Mutex<HashMap<String, Arc<Provider>>>,
}

/// A place that has claims.
#[derive(Debug, PartialEq)]
struct Endpoint {
    url: String,
    token: String,
}

impl Distributed {
    pub(super) fn new(claim: &str) -> Self {
        Self { claim: claim.to_owned(), providers: Mutex::default() }
    }

    /// Puts the claim beside the others, when the token says only where it is.
    ///
    /// # Errors
    /// The place gives no account of it, or none that can be trusted.
    pub(super) async fn expand(&self, claims: &mut Value, terms: &Terms) -> Result<(), String> {
        let Some(endpoint) = endpoint(claims, &self.claim)? else { return Ok(()) };
        let claim = &self.claim;
        let asked = terms.get(&endpoint.url, &endpoint.token).await;
        let token = asked
            .and_then(|body| String::from_utf8(body.to_vec()).map_err(|_| "it is no text".to_owned()))
            .map_err(|e| format!("while getting distributed claim {claim:?}: {e}"))?;
        let token = token.trim();
        let issuer = issuer_of(token).ok_or_else(|| {
            let url = &endpoint.url;
            format!(
                "getting untrusted issuer from endpoint {url} failed for claim {claim:?}: malformed token"
            )
        })?;
        let provider = self.provider(&issuer, terms)?;
        provider.prepare().await;
        if !provider.is_known() {
            return Err(format!(
                "verifying untrusted issuer {issuer} failed: verifier not initialized for issuer: {issuer:?}"
            ));
        }
        let told =
            provider.verify(token).await.map_err(|e| format!("verify distributed claim token: {e}"))?;
        match told.as_object().and_then(|told| told.get(claim.as_str())) {
            Some(value) => claims.set(&[claim.as_str()], value.clone()),
            None => {
                return Err(format!(
                    "jwt returned by distributed claim endpoint {:?} did not contain claim: {claim}",
                    endpoint.url
                ));
            }
        }
        Ok(())
    }

    fn provider(&self, issuer: &str, terms: &Terms) -> Result<Arc<Provider>, String> {
        let mut known = self.providers.lock();
        if let Some(provider) = known.get(issuer) {
            return Ok(provider.clone());
        }
        if known.len() == MAX_PROVIDERS {
            return Err(format!("{MAX_PROVIDERS} others have signed claims already"));
        }
        let provider = Arc::new(Provider::new(issuer.to_owned(), "", terms.clone()));
        known.insert(issuer.to_owned(), provider.clone());
        Ok(provider)
    }
}

/// Where the claim is; none when the token has it, or says nothing of it.
fn endpoint(claims: &Value, claim: &str) -> Result<Option<Endpoint>, String> {
    let member = |name: &str| claims.as_object().and_then(|claims| claims.get(name));
    let (None, Some(names)) = (member(claim), member("_claim_names")) else { return Ok(None) };
    let texts = |names: &Value| names.as_object().is_some_and(|n| n.values().all(|v| v.as_str().is_some()));
    if !texts(names) {
        return Err("oidc: error parsing distributed claim names: it is no map of texts".to_owned());
    }
    let sources = member("_claim_sources").ok_or("oidc: no claim sources")?;
    let places =
        sources.as_object().filter(|places| places.values().all(|place| place.as_object().is_some()));
    let places = places.ok_or("oidc: could not parse claim sources: it is no map of objects")?;
    let source = names.str_at(&[claim]);
    if source.is_empty() {
        return Ok(None);
    }
    let place = places.get(source).ok_or_else(|| {
        format!("id token _claim_names contained a source {source} missing in _claims_sources")
    })?;
    let text = |name: &str| place.str_at(&[name]).to_owned();
    Ok(Some(Endpoint { url: text("endpoint"), token: text("access_token") }).filter(|e| !e.url.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_those_of_the_claim() {
        let check = |claims: &str, want: Result<Option<(&str, &str)>, &str>| {
            let claims = api::json::decode(claims.as_bytes()).unwrap().value;
            let got = endpoint(&claims, "groups");
            let got = got.as_ref().map(|e| e.as_ref().map(|e| (e.url.as_str(), e.token.as_str())));
            assert_eq!(got.map_err(String::as_str), want, "{claims}");
        };
        let place = r#"{"s": {"endpoint": "https://a", "access_token": "t"}}"#;
        let both = |names: &str, sources: &str| {
            format!(r#"{{"_claim_names": {names}, "_claim_sources": {sources}}}"#)
        };
        check("{}", Ok(None));
        check(&both(r#"{"groups": "s"}"#, place), Ok(Some(("https://a", "t"))));
        check(
            &format!(r#"{{"groups": ["g"], "_claim_names": {{"groups": "s"}}, "_claim_sources": {place}}}"#),
            Ok(None),
        );
        check(&both(r#"{"other": "s"}"#, place), Ok(None));
        check(&both(r#"{"groups": "s"}"#, r#"{"s": {"JWT": "a.b.c"}}"#), Ok(None));
        check(
            &both(r#"{"groups": 1}"#, place),
            Err("oidc: error parsing distributed claim names: it is no map of texts"),
        );
        check(r#"{"_claim_names": {"groups": "s"}}"#, Err("oidc: no claim sources"));
        check(
            &both(r#"{"groups": "s"}"#, "[]"),
            Err("oidc: could not parse claim sources: it is no map of objects"),
        );
        check(
            &both(r#"{"groups": "s"}"#, r#"{"t": {}}"#),
            Err("id token _claim_names contained a source s missing in _claims_sources"),
        );
    }
}
