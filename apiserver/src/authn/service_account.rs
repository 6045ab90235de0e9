//! ServiceAccount tokens: JSON Web Tokens that are bound to an account and, optionally, to a pod, secret or node.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens>,
//! RFC 7519.

mod legacy;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, Map, Value, object};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;

use super::UserInfo;
use super::pem::{PublicKey, SigningKey};
use super::verified::Verified;
use crate::resources::TABLE;
use crate::storage::Storage;

pub use usage::{Examined, Origin, Use};

/// A token may be off by this much.
const LEEWAY: i64 = 10;
/// Longest token that is looked at.
const MAX_TOKEN: usize = 16 << 10;

/// Why a token was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no token of this cluster.
    #[error("invalid bearer token")]
    Malformed,
    /// No key of ours made its signature.
    #[error("the token's signature is not valid")]
    Signature,
    /// It came too late or too early.
    #[error("service account token has expired")]
    Expired,
    /// It is for somebody else.
    #[error("token audiences {token} is invalid for the target audiences {wanted}")]
    Audience {
        /// For whom it is.
        token: String,
        /// For whom it should be.
        wanted: String,
    },
    /// What it is bound to is gone.
    #[error("service account token has been invalidated")]
    Invalidated,
    /// What it says is not so.
    #[error("{0}")]
    Refused(String),
}

/// A list of texts as Go prints it.
fn listed(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|t| api::field::go_quote(t)).collect();
    format!("[{}]", quoted.join(" "))
}

/// Signs and verifies ServiceAccount tokens.
pub struct Tokens {
    /// Issuers accepted; the first is the one that signs.
    pub issuers: Vec<String>,
    /// Audiences of the API server.
    pub audiences: Vec<String>,
    /// Signs; without it tokens cannot be requested.
    pub signing: Option<SigningKey>,
    /// Verify.
    pub keys: Vec<PublicKey>,
    /// Longest life that is granted.
    pub max_expiration: Option<Duration>,
    /// Claims of tokens that were verified before.
    pub(crate) verified: Verified<Value>,
}

/// What a token is bound to.
#[derive(Clone, Debug, Default)]
pub struct Binding {
    /// `Pod`, `Secret` or `Node`, with name and UID.
    pub object: Option<(String, String, String)>,
    /// Name and UID of the node the pod runs on.
    pub node: Option<(String, String)>,
    /// Seconds after which a client should have read a newer token: of those that live longer than was asked for.
    pub warn_after: Option<i64>,
}

impl Binding {
    /// True when the token is bound to an object of this kind.
    pub fn is_of(&self, kind: &str) -> bool {
        self.object.as_ref().is_some_and(|(bound, ..)| bound == kind)
    }
}

/// The account a token is for.
pub struct Account<'a> {
    /// Namespace.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// UID.
    pub uid: &'a str,
}

impl Tokens {
    /// Signs a token that is valid from now for `seconds`; returns it with its expiry.
    pub fn sign(
        &self,
        account: &Account<'_>,
        binding: &Binding,
        audiences: &[String],
        seconds: i64,
    ) -> Result<(String, Timestamp), ApiError> {
        let key = self.signing.as_ref().ok_or_else(|| {
            ApiError::internal("tokens cannot be signed: --service-account-signing-key-file is not set")
        })?;
        let now = Timestamp::now();
        let expiry = now + jiff::SignedDuration::from_secs(seconds);
        let claims = self.claims(account, binding, audiences, now, expiry);
        let header = object!({"alg": (key.public.algorithm), "kid": (&key.public.id)});
        let signed = format!("{}.{}", encode(&header.to_json()), encode(&claims.to_json()));
        let signature =
            key.sign(signed.as_bytes()).map_err(|_| ApiError::internal("signing the token failed"))?;
        Ok((format!("{signed}.{}", encode(&signature)), expiry))
    }

    fn claims(
        &self,
        account: &Account<'_>,
        binding: &Binding,
        audiences: &[String],
        now: Timestamp,
        expiry: Timestamp,
    ) -> Value {
        let mut private = Map::new();
        private.push("namespace", account.namespace.into());
        if let Some((name, uid)) = &binding.node {
            private.push("node", object!({"name": name, "uid": uid}));
        }
        if let Some((kind, name, uid)) = &binding.object {
            private.insert(kind.to_ascii_lowercase(), object!({"name": name, "uid": uid}));
        }
        private.push("serviceaccount", object!({"name": (account.name), "uid": (account.uid)}));
        if let Some(seconds) = binding.warn_after {
            private.push("warnafter", (now.as_second() + seconds).into());
        }
        object!({
            "aud": (audiences.to_vec()),
            "exp": (expiry.as_second()),
            "iat": (now.as_second()),
            "iss": (self.issuers.first().map(String::as_str).unwrap_or_default()),
            "jti": (api::names::new_uid()),
            "kubernetes.io": (private),
            "nbf": (now.as_second()),
            "sub": (format!("system:serviceaccount:{}:{}", account.namespace, account.name)),
        })
    }

    /// The account a token stands for. Without `audiences` those of the API server are asked for.
    pub async fn authenticate(
        &self,
        storage: &Storage,
        token: &str,
        audiences: &[String],
    ) -> Examined<Result<UserInfo, TokenError>> {
        let claims = match self.claims_for(token, audiences) {
            Ok(claims) => claims,
            Err(e) => return Examined::plain(Err(e)),
        };
        if claims.str_at(&["iss"]) == legacy::ISSUER {
            return legacy::user(storage, token, &claims).await;
        }
        let now = Timestamp::now().as_second();
        let time = |claim: &str| claims.get(claim).as_i64();
        if time("exp").is_none_or(|t| now > t + LEEWAY) || time("nbf").is_some_and(|t| now + LEEWAY < t) {
            return Examined::plain(Err(TokenError::Expired));
        }
        let found = self.user(storage, &claims).await;
        Examined { used: if found.is_ok() { Use::of(&claims, now) } else { None }, found }
    }

    /// The claims of a token that is meant for one of `audiences`.
    fn claims_for(&self, token: &str, audiences: &[String]) -> Result<Arc<Value>, TokenError> {
        let claims = self.verify(token)?;
        let wanted = if audiences.is_empty() { &self.audiences } else { audiences };
        let audiences = self.audiences_of(&claims);
        match audiences.iter().any(|a| wanted.contains(a)) {
            true => Ok(claims),
            false => Err(TokenError::Audience { token: listed(&audiences), wanted: listed(wanted) }),
        }
    }

    /// The audiences of a token's claims; those of the API server when it names none.
    pub fn audiences_of(&self, claims: &Value) -> Vec<String> {
        let audience = claims.get("aud");
        let many = audience.as_array().into_iter().flatten().filter_map(Value::as_str);
        let named: Vec<String> = audience.as_str().into_iter().chain(many).map(str::to_owned).collect();
        if named.is_empty() { self.audiences.clone() } else { named }
    }

    /// The claims of a token with a valid signature of an accepted issuer.
    pub fn verify(&self, token: &str) -> Result<Arc<Value>, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Malformed);
        }
        // Times and what the token is bound to are looked at each time.
        self.verified.or([token.as_bytes()], |_| true, || self.claims_of(token))
    }

    fn claims_of(&self, token: &str) -> Result<Value, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = (decode_json(header)?, decode_json(claims)?);
        let issuer = claims.str_at(&["iss"]);
        if issuer != legacy::ISSUER && !self.issuers.iter().any(|i| i == issuer) {
            return Err(TokenError::Malformed);
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?;
        let (algorithm, id) = (header.str_at(&["alg"]), header.str_at(&["kid"]));
        let fits = |k: &&PublicKey| k.algorithm == algorithm && (id.is_empty() || k.id == id);
        match self.keys.iter().filter(fits).any(|k| k.verify(signed.as_bytes(), &signature)) {
            true => Ok(claims),
            false => Err(TokenError::Signature),
        }
    }

    async fn user(&self, storage: &Storage, claims: &Value) -> Result<UserInfo, TokenError> {
        let private = claims.get("kubernetes.io");
        let namespace = private.str_at(&["namespace"]);
        let (name, uid) =
            (private.str_at(&["serviceaccount", "name"]), private.str_at(&["serviceaccount", "uid"]));
        let key = format!("{namespace}/{name}");
        let account = find(storage, "serviceaccounts", &key, |o| o.uid() == uid).await;
        let refuse = |why: String| Err(TokenError::Refused(why));
        match &account {
            None => return refuse(format!("serviceaccounts {name:?} not found")),
            Some(other) if other.uid() != uid => {
                let is = other.uid();
                return refuse(format!("service account UID ({is}) does not match claim ({uid})"));
            }
            Some(_) => {}
        }
        let mut extra = vec![(
            "authentication.kubernetes.io/credential-id".to_owned(),
            vec![format!("JTI={}", claims.str_at(&["jti"]))],
        )];
        let mut known = |key: &str, value: &str| {
            extra.push((format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]));
        };
        for (kind, plural) in [("pod", "pods"), ("secret", "secrets"), ("node", "nodes")] {
            let (bound, bound_uid) = (private.str_at(&[kind, "name"]), private.str_at(&[kind, "uid"]));
            if bound.is_empty() {
                continue;
            }
            let with_pod = kind == "node" && !private.get("pod").is_null();
            if !with_pod {
                let key = if kind == "node" { bound.to_owned() } else { format!("{namespace}/{bound}") };
                exists(storage, plural, &key, bound_uid).await?;
            }
            if kind != "secret" {
                known(&format!("{kind}-name"), bound);
                known(&format!("{kind}-uid"), bound_uid);
            }
        }
        Ok(user_of(namespace, name, uid, extra))
    }

    /// The JSON Web Key Set of the keys that verify.
    pub fn jwks(&self) -> Value {
        object!({"keys": (self.keys.iter().filter_map(jwk).collect::<Vec<_>>())})
    }
}

/// The user that an account is.
pub(crate) fn user_of(namespace: &str, name: &str, uid: &str, extra: Vec<(String, Vec<String>)>) -> UserInfo {
    UserInfo {
        name: format!("system:serviceaccount:{namespace}:{name}"),
        uid: uid.to_owned(),
        groups: vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")],
        extra,
    }
}

/// An object; a cache that has none of the wanted ones gets one more chance, since it may be behind.
async fn find(storage: &Storage, plural: &str, key: &str, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
    let cache = storage.cache(TABLE.store("", plural));
    let found = || cache.get(key).map(|s| s.object());
    if let Some(object) = found().filter(&wanted) {
        return Some(object);
    }
    storage.catch_up().await.ok()?;
    found()
}

/// A bound object must exist, with the same UID.
async fn exists(storage: &Storage, plural: &str, key: &str, uid: &str) -> Result<(), TokenError> {
    let bound = find(storage, plural, key, |o| o.uid() == uid).await;
    if bound.is_some_and(|o| o.uid() == uid) { Ok(()) } else { Err(TokenError::Invalidated) }
}

fn jwk(key: &PublicKey) -> Option<Value> {
    let common = |mut members: Value| {
        members.set(&["use"], "sig");
        members.set(&["alg"], key.algorithm);
        members.set(&["kid"], key.id.as_str());
        members
    };
    if key.algorithm == "RS256" {
        let (n, e) = rsa_numbers(&key.key)?;
        return Some(common(object!({"kty": "RSA", "n": (encode(n)), "e": (encode(e))})));
    }
    let point = key.key.get(1..)?;
    let (x, y) = point.split_at(point.len() / 2);
    let curve = match key.algorithm {
        "ES256" => "P-256",
        "ES384" => "P-384",
        _ => "P-521",
    };
    Some(common(object!({"kty": "EC", "crv": curve, "x": (encode(x)), "y": (encode(y))})))
}

/// Modulus and exponent of a PKCS#1 key: SEQUENCE { INTEGER, INTEGER }.
fn rsa_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, _) = element(der)?;
    let (n, rest) = element(sequence)?;
    let (e, _) = element(rest)?;
    let unsigned = |b: &'_ [u8]| b.iter().take_while(|b| **b == 0).count();
    Some((&n[unsigned(n)..], &e[unsigned(e)..]))
}

fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let first = usize::from(*der.get(1)?);
    let (length, start) = match first {
        0..128 => (first, 2),
        n => {
            let bytes = der.get(2..2 + (n - 128))?;
            (bytes.iter().fold(0_usize, |acc, b| (acc << 8) | usize::from(*b)), 2 + bytes.len())
        }
    };
    let end = start.checked_add(length)?;
    Some((der.get(start..end)?, der.get(end..)?))
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode_json(part: &str) -> Result<Value, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    api::json::decode(&bytes).map(|d| d.value).map_err(|_| TokenError::Malformed)
}
