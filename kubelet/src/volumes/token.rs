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
    /// The time, in seconds since the epoch.
    clock: fn() -> i64,
    known: Mutex<HashMap<String, HashMap<String, Token>>>,
}

impl Tokens {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, clock: || Timestamp::now().as_second(), known: Mutex::default() }
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
        let now = (self.clock)();
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
        let requested = (self.clock)();
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
    use std::cell::Cell;
    use std::convert::Infallible;
    use std::sync::Arc;

    use http_body_util::{BodyExt, Full};
    use hyper::body::{Bytes, Incoming};
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_token_is_renewed_before_it_expires() {
        let token =
            |life| Token { text: String::new(), expiration: String::new(), requested: 0, expires: life };
        assert!(token(3600).is_fresh(2879));
        assert!(!token(3600).is_fresh(2881));
        assert!(!token(30 * DAY).is_fresh(DAY));
    }

    thread_local! {
        static NOW: Cell<i64> = const { Cell::new(0) };
    }

    /// An API server that issues the tokens `0`, `1` and so on, each good for as long as was asked, until it fails.
    #[derive(Default)]
    struct Issuer {
        asked: Mutex<Vec<Value>>,
        fails: Mutex<bool>,
    }

    impl Issuer {
        async fn answer(
            &self,
            request: hyper::Request<Incoming>,
        ) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut object: Value = serde_json::from_slice(&body).unwrap();
            let mut asked = self.asked.lock();
            let seconds = object.at(&["spec", "expirationSeconds"]).as_i64().unwrap();
            let expires = Timestamp::from_second(NOW.get() + seconds).unwrap();
            object.set(&["status", "token"], asked.len().to_string());
            object.set(&["status", "expirationTimestamp"], api::time::format(expires));
            assert_eq!(path, "/api/v1/namespaces/ns/serviceaccounts/robot/token");
            asked.push(object.clone());
            let code = if *self.fails.lock() { 503 } else { 201 };
            let answer = hyper::Response::builder().status(code).header("content-type", "application/json");
            Ok(answer.body(Full::from(object.to_string())).unwrap())
        }
    }

    async fn issuer() -> (Arc<Issuer>, Tokens) {
        let issuer = Arc::new(Issuer::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let serving = issuer.clone();
        // Ends with the runtime of the test.
        tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let serving = serving.clone();
                let answer = service_fn(move |request| {
                    let serving = serving.clone();
                    async move { serving.answer(request).await }
                });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let kubeconfig = dir.path().join("kubeconfig");
        let text = object!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "c", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        });
        std::fs::write(&kubeconfig, text.to_string()).unwrap();
        let connection = client::Connection::from_path(&kubeconfig.to_string_lossy(), "test");
        let client = client::connect(&connection).await.unwrap();
        (issuer, Tokens { client, clock: || NOW.get(), known: Mutex::default() })
    }

    async fn at(tokens: &Tokens, now: i64) -> Result<String, String> {
        NOW.set(now);
        let pod = object!({
            "metadata": {"namespace": "ns", "name": "p", "uid": "1"},
            "spec": {"serviceAccountName": "robot"},
        });
        let source = object!({"path": "token", "audience": "others", "expirationSeconds": 1000});
        tokens.token(&pod, "projected", &source).await
    }

    #[tokio::test]
    async fn a_volume_gets_another_token_in_time() {
        let test = async {
            let (issuer, tokens) = issuer().await;
            assert_eq!(at(&tokens, 0).await.as_deref(), Ok("0"));
            assert_eq!(at(&tokens, 799).await.as_deref(), Ok("0"));
            assert_eq!(at(&tokens, 801).await.as_deref(), Ok("1"));
            {
                let asked = issuer.asked.lock();
                assert_eq!(asked.len(), 2);
                assert_eq!(asked[1].at(&["spec", "audiences"]), &object!(["others"]));
                assert_eq!(asked[1].str_at(&["spec", "boundObjectRef", "uid"]), "1");
            }
            // Without an API server the old one serves for as long as it lasts.
            *issuer.fails.lock() = true;
            assert_eq!(at(&tokens, 801 + 999).await.as_deref(), Ok("1"));
            assert!(at(&tokens, 801 + 1000).await.is_err());
            *issuer.fails.lock() = false;
            assert_eq!(at(&tokens, 801 + 1001).await.as_deref(), Ok("4"));
        };
        tokio::task::LocalSet::new().run_until(test).await;
    }
}
