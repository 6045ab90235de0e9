//! Service account tokens by TokenRequest, bound to the pod and renewed in time.

use std::collections::HashMap;

use api::{Value, object};
use client::Client;
use client::resource::SERVICE_ACCOUNTS;
use jiff::Timestamp;
use parking_lot::Mutex;

/// A token is renewed when this part of its life is over, and after a day in any case.
const RENEW_AT: f64 = 0.8;
const DAY: i64 = 24 * 3600;

/// A token that has been issued.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    /// The token itself.
    pub(crate) text: String,
    /// When it expires, as the API server writes it.
    pub(crate) expiration: String,
    requested: i64,
    expires: i64,
}

impl Token {
    fn is_fresh(&self, now: i64) -> bool {
        let life = (self.expires - self.requested) as f64;
        now < self.requested + (life * RENEW_AT) as i64 && now < self.requested + DAY
    }
}

/// The tokens of this node's pods, by pod uid and then by volume and path.
pub(crate) struct Tokens {
    client: Client,
    known: Mutex<HashMap<String, HashMap<String, Token>>>,
}

impl Tokens {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, known: Mutex::default() }
    }

    pub(super) fn forget(&self, uid: &str) {
        self.known.lock().remove(uid);
    }

    /// A token for this projection that is good for a while yet.
    pub(super) async fn token(&self, pod: &Value, volume: &str, source: &Value) -> Result<String, String> {
        let key = format!("{volume}/{}", source.str_at(&["path"]));
        self.issued(pod, &key, source).await.map(|token| token.text)
    }

    /// A token for `audience` and `expirationSeconds` of `source`, kept under `key` for the pod.
    pub(crate) async fn issued(&self, pod: &Value, key: &str, source: &Value) -> Result<Token, String> {
        let now = Timestamp::now().as_second();
        let known = self
            .known
            .lock()
            .get(pod.uid())
            .and_then(|tokens| tokens.get(key))
            .map(|token| (token.clone(), token.is_fresh(now), token.expires > now));
        if let Some((token, true, _)) = &known {
            return Ok(token.clone());
        }
        match self.request(pod, source).await {
            Ok(token) => {
                let mut known = self.known.lock();
                known.entry(pod.uid().to_owned()).or_default().insert(key.to_owned(), token.clone());
                Ok(token)
            }
            // An old token is better than none while it lasts.
            Err(error) => match known {
                Some((token, _, true)) => {
                    tracing::warn!(%error, pod = pod.name(), "Cannot renew a service account token");
                    Ok(token)
                }
                _ => Err(format!("failed to fetch token: {error}")),
            },
        }
    }

    async fn request(&self, pod: &Value, source: &Value) -> client::Result<Token> {
        let account = match pod.str_at(&["spec", "serviceAccountName"]) {
            "" => "default",
            account => account,
        };
        let audiences = match source.str_at(&["audience"]) {
            "" => Vec::new(),
            audience => vec![Value::from(audience)],
        };
        let seconds = source.get("expirationSeconds").as_i64().unwrap_or(3600);
        let body = object!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": (Value::Array(audiences)),
                "expirationSeconds": seconds,
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": (pod.name()),
                    "uid": (pod.uid()),
                },
            },
        });
        let requested = Timestamp::now().as_second();
        let target = (pod.namespace(), account, "token");
        let answer = self.client.create_part(&SERVICE_ACCOUNTS, target, &body).await?;
        let expires = api::time::parse(answer.str_at(&["status", "expirationTimestamp"]));
        Ok(Token {
            text: answer.str_at(&["status", "token"]).to_owned(),
            expiration: answer.str_at(&["status", "expirationTimestamp"]).to_owned(),
            requested,
            expires: expires.map_or(requested + seconds, Timestamp::as_second),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_before_it_expires() {
        let token =
            |life| Token { text: String::new(), expiration: String::new(), requested: 0, expires: life };
        assert!(token(3600).is_fresh(2879));
        assert!(!token(3600).is_fresh(2881));
        assert!(!token(30 * DAY).is_fresh(DAY));
    }
}
