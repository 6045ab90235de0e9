//! Bootstrap tokens: Secrets `bootstrap-token-ID` in kube-system by which nodes join.
//!
//! The signer vouches for the kubeconfig in ConfigMap `kube-public/cluster-info` with every token meant for it, as a
//! detached JSON Web Signature (RFC 7515, appendix F), so that who joins can tell that it comes from who gave out the
//! token. The cleaner deletes tokens that have expired.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{Map, Value, time};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use client::resource::{CONFIG_MAPS, SECRETS};
use client::{Informer, Key, Next, Queue};
use jiff::Timestamp;
use ring::hmac;

use crate::act::Action;
use crate::context::Context;

const TYPE: &str = "bootstrap.kubernetes.io/token";
const PREFIX: &str = "bootstrap-token-";
const CLUSTER_INFO: (&str, &str) = ("kube-public", "cluster-info");
const SIGNATURE: &str = "jws-kubeconfig-";

fn tokens() -> Informer<Value> {
    Informer::of_values(SECRETS, |_| {}).namespace("kube-system").fields(&format!("type={TYPE}")).build()
}

pub(crate) fn start_signer(cx: &Context) {
    let queue = Queue::new();
    let secrets = tokens();
    let (namespace, name) = CLUSTER_INFO;
    let maps = Informer::of_values(CONFIG_MAPS, |_| {})
        .namespace(namespace)
        .fields(&format!("metadata.name={name}"))
        .build();
    for informer in [&secrets, &maps] {
        let changed = queue.clone();
        informer.on_change(move |_| changed.add(Key::new(namespace, name)));
        cx.feed(informer);
    }
    let stores = (secrets.clone(), maps.clone());
    cx.work(queue, 1, &[&secrets, &maps], move |cx, key| {
        let (secrets, maps) = stores.clone();
        async move {
            let Some(map) = maps.store().get(&key) else { return Ok(Next::Done) };
            let secrets = secrets.store().list();
            let tokens = secrets.iter().filter_map(|s| signing_token(s, cx.now())).collect();
            cx.apply(sign(&map, &tokens).into_iter().collect()).await
        }
    });
}

pub(crate) fn start_cleaner(cx: &Context) {
    let queue = Queue::new();
    let secrets = tokens();
    Context::follow(&secrets, &queue);
    cx.feed(&secrets);
    let store = secrets.clone();
    cx.work(queue, 1, &[&secrets], move |cx, key| {
        let secrets = store.clone();
        async move {
            let Some(secret) = secrets.store().get(&key) else { return Ok(Next::Done) };
            let action = match expiry(&secret, cx.now()) {
                Expiry::Never => None,
                Expiry::In(left) => Some(Action::Later(left)),
                Expiry::Over => Some(Action::delete(SECRETS, &secret)),
            };
            cx.apply(action.into_iter().collect()).await
        }
    });
}

/// When a token ceases to count.
#[derive(Debug, PartialEq)]
enum Expiry {
    Never,
    In(Duration),
    Over,
}

/// A value of a Secret; empty without, or when it is no text.
fn data(secret: &Value, key: &str) -> String {
    let bytes = STANDARD.decode(secret.str_at(&["data", key])).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

fn expiry(secret: &Value, now: Timestamp) -> Expiry {
    let text = data(secret, "expiration");
    if text.is_empty() {
        return Expiry::Never;
    }
    // A time that cannot be read is one that is over: the safe side.
    let left = time::parse(&text).and_then(|end| Duration::try_from(end.duration_since(now)).ok());
    left.filter(|left| !left.is_zero()).map_or(Expiry::Over, Expiry::In)
}

/// The id and the secret of a token that may sign.
fn signing_token(secret: &Value, now: Timestamp) -> Option<(String, String)> {
    let id = secret.name().strip_prefix(PREFIX)?;
    let plain = id.len() == 6 && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let key = data(secret, "token-secret");
    let usable = plain
        && data(secret, "token-id") == id
        && !key.is_empty()
        && expiry(secret, now) != Expiry::Over
        && data(secret, "usage-bootstrap-signing") == "true";
    usable.then(|| (id.to_owned(), key))
}

/// `HEADER..SIGNATURE` over `content`, which stands between the dots when it is verified.
fn signature(content: &str, id: &str, secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"HS256\",\"kid\":\"{id}\"}}"));
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(tag))
}

/// Writes the signatures of `tokens`, and no others, into the ConfigMap; nothing when they stand there already.
fn sign(map: &Value, tokens: &BTreeMap<String, String>) -> Option<Action> {
    let data = map.get("data").as_object()?;
    let content = data.get("kubeconfig")?.as_str()?;
    let mut wanted: Map =
        data.iter().filter(|(k, _)| !k.starts_with(SIGNATURE)).map(|(k, v)| (k, v.clone())).collect();
    for (id, secret) in tokens {
        wanted.insert(format!("{SIGNATURE}{id}"), signature(content, id, secret));
    }
    let same = wanted.len() == data.len() && wanted.iter().all(|(k, v)| data.get(k) == Some(v));
    if same {
        return None;
    }
    let mut map = map.clone();
    map.set(&["data"], wanted);
    Some(Action::Update(CONFIG_MAPS, map))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn token(id: &str, expiration: &str) -> Value {
        let encoded = |text: &str| STANDARD.encode(text);
        object!({
            "metadata": {"namespace": "kube-system", "name": (format!("{PREFIX}{id}"))},
            "data": {
                "token-id": (encoded(id)), "token-secret": (encoded("0123456789abcdef")),
                "usage-bootstrap-signing": (encoded("true")), "expiration": (encoded(expiration)),
            },
        })
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn tokens_expire() {
        let secret = token("abcdef", "1970-01-01T00:01:40Z");
        assert_eq!(expiry(&secret, at(90)), Expiry::In(Duration::from_secs(10)));
        assert_eq!(expiry(&secret, at(100)), Expiry::Over);
        assert_eq!(expiry(&token("abcdef", ""), at(100)), Expiry::Never);
        assert_eq!(expiry(&token("abcdef", "soon"), at(0)), Expiry::Over);
    }

    #[test]
    fn only_valid_tokens_sign() {
        assert!(signing_token(&token("abcdef", ""), at(0)).is_some());
        assert!(signing_token(&token("abcdef", "1970-01-01T00:01:40Z"), at(100)).is_none());
        assert!(signing_token(&token("ABCDEF", ""), at(0)).is_none());
        let mut other = token("abcdef", "");
        other.set(&["data", "usage-bootstrap-signing"], "");
        assert!(signing_token(&other, at(0)).is_none());
    }

    /// The signature is what `openssl dgst -sha256 -hmac` makes of the same text.
    #[test]
    fn signatures_are_detached() {
        let signed = signature("payload", "abcdef", "0123456789abcdef");
        assert_eq!(
            signed,
            "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..pQpAf41KnbpDpf53Otu_ufAeAbWD9CSytTS_WpoG4Mc"
        );
    }

    #[test]
    fn the_map_carries_the_signatures_of_the_present_tokens() {
        let map = object!({"data": {"kubeconfig": "k", "jws-kubeconfig-gone00": "x"}});
        let tokens = BTreeMap::from([("abcdef".to_owned(), "s".to_owned())]);
        let Some(Action::Update(_, signed)) = sign(&map, &tokens) else { panic!() };
        let keys: Vec<&str> = signed.get("data").as_object().unwrap().iter().map(|(k, _)| k).collect();
        assert_eq!(keys, ["kubeconfig", "jws-kubeconfig-abcdef"]);
        assert!(sign(&signed, &tokens).is_none());
        assert!(sign(&object!({"data": {"other": "k"}}), &tokens).is_none());
    }
}
