//! EventRateLimit: events of the whole server, or those of a namespace, a user, or about an object, come at a rate at most.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#eventratelimit>.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use anyhow::bail;
use api::Value;
use api::error::Result;
use parking_lot::Mutex;

use super::configuration::only;
use super::is;
use crate::registry::Call;

/// As many rates are kept unless it is said otherwise.
const CACHE: usize = 4096;
const TYPES: [&str; 4] = ["Server", "Namespace", "User", "SourceAndObject"];

/// A limit of one sort.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    kind: &'static str,
    per_second: f64,
    burst: f64,
    most: usize,
    buckets: Arc<Mutex<Buckets>>,
}

/// What is left for each key; the key that was used longest ago goes first.
#[derive(Debug, Default)]
struct Buckets {
    left: HashMap<Arc<str>, Bucket>,
    order: BTreeMap<u64, Arc<str>>,
    clock: u64,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
    used: u64,
}

impl Limit {
    /// Reads the limits of a configuration.
    ///
    /// # Errors
    /// What is wrong with one.
    pub(super) fn read(document: &Value) -> anyhow::Result<Vec<Self>> {
        only(document, &["kind", "apiVersion", "limits"])?;
        let limits = document.array_at(&["limits"]);
        if limits.is_empty() {
            bail!("limits: Invalid value: null: must not be empty");
        }
        limits.iter().enumerate().map(|(i, limit)| Self::one(i, limit)).collect()
    }

    fn one(i: usize, limit: &Value) -> anyhow::Result<Self> {
        only(limit, &["type", "qps", "burst", "cacheSize"])?;
        let given = limit.str_at(&["type"]);
        let Some(kind) = TYPES.into_iter().find(|known| *known == given) else {
            bail!("limits[{i}].type: Unsupported value: {given:?}: supported values: {}", TYPES.join(", "));
        };
        let number = |field: &str| limit.get(field).as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(0);
        for field in ["burst", "qps"] {
            if number(field) <= 0 {
                bail!("limits[{i}].{field}: Invalid value: {}: must be positive", number(field));
            }
        }
        let most = match usize::try_from(number("cacheSize")) {
            Err(_) => {
                bail!("limits[{i}].cacheSize: Invalid value: {}: must not be negative", number("cacheSize"))
            }
            Ok(0) => CACHE,
            Ok(most) => most,
        };
        let (per_second, burst) = (f64::from(number("qps")), f64::from(number("burst")));
        Ok(Self { kind, per_second, burst, most, buckets: Arc::default() })
    }

    fn key(&self, call: &Call, event: &Value) -> String {
        match self.kind {
            "Namespace" => call.namespace.clone(),
            "User" => call.user.name.clone(),
            "SourceAndObject" => [
                event.str_at(&["source", "component"]),
                event.str_at(&["source", "host"]),
                event.str_at(&["involvedObject", "kind"]),
                event.str_at(&["involvedObject", "namespace"]),
                event.str_at(&["involvedObject", "name"]),
                event.str_at(&["involvedObject", "uid"]),
                event.str_at(&["involvedObject", "apiVersion"]),
            ]
            .concat(),
            _ => String::new(),
        }
    }

    /// Takes one from what is left for a key at a time; false when nothing is.
    fn accepts(&self, key: &str, now: Instant) -> bool {
        let mut buckets = self.buckets.lock();
        buckets.clock += 1;
        let used = buckets.clock;
        let name = match buckets.left.get_key_value(key) {
            Some((name, _)) => name.clone(),
            None => Arc::from(key),
        };
        let fresh = Bucket { tokens: self.burst, at: now, used };
        let bucket = buckets.left.entry(name.clone()).or_insert(fresh);
        let before = std::mem::replace(&mut bucket.used, used);
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * self.per_second;
        bucket.tokens = (bucket.tokens + gained).min(self.burst);
        bucket.at = now;
        let accepted = bucket.tokens >= 1.0;
        if accepted {
            bucket.tokens -= 1.0;
        }
        buckets.order.remove(&before);
        buckets.order.insert(used, name);
        while buckets.left.len() > self.most {
            let Some((_, oldest)) = buckets.order.pop_first() else { break };
            buckets.left.remove(&oldest);
        }
        accepted
    }
}

pub(super) fn validate(call: &Call, event: &Value) -> Result<()> {
    if !is(call, "", "events") || call.write.dry_run {
        return Ok(());
    }
    let now = Instant::now();
    let mut reached = Vec::new();
    for limit in &call.server.config.admission.event_limits {
        let key = limit.key(call, event);
        if !limit.accepts(&key, now) {
            reached.push(format!("limit reached on type {} for key {key}", limit.kind));
        }
    }
    let why = match reached.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    };
    Err(api::ApiError::too_many_requests(format!("Too many requests: {why}"), 0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use api::object;

    #[test]
    fn rates_are_kept_for_the_last_keys() {
        let configured = object!({"limits": [{"type": "User", "qps": 1, "burst": 2, "cacheSize": 2}]});
        let limit = Limit::read(&configured).unwrap().remove(0);
        let start = Instant::now();
        let at = |key: &str, seconds: u64| limit.accepts(key, start + Duration::from_secs(seconds));
        assert_eq!([at("a", 0), at("a", 0), at("a", 0)], [true, true, false]);
        assert_eq!([at("a", 1), at("a", 1)], [true, false]);
        assert_eq!([at("b", 1), at("b", 1), at("b", 1)], [true, true, false]);
        // A third key makes the server forget the first.
        assert!(at("c", 1));
        assert_eq!([at("b", 1), at("a", 1)], [false, true]);
    }

    #[test]
    fn limits_make_sense() {
        for wrong in [
            object!({}),
            object!({"limits": [{"type": "Other", "qps": 1, "burst": 1}]}),
            object!({"limits": [{"type": "Server", "qps": 0, "burst": 1}]}),
            object!({"limits": [{"type": "Server", "qps": 1, "burst": 1, "cacheSize": (-1)}]}),
        ] {
            assert!(Limit::read(&wrong).is_err(), "{wrong}");
        }
    }
}
