//! Health endpoints with upstream's answers: `/livez`, `/readyz`, `/healthz`, each check under its own path, `?verbose` and
//! `?exclude=`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Response, StatusCode, Uri};
use parking_lot::RwLock;

use crate::body::{Body, text};

type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

#[derive(Clone)]
struct Named {
    name: &'static str,
    live: bool,
    /// Until then `/livez` takes the check for passed.
    patience: Option<Instant>,
    check: Check,
}

impl Named {
    /// The check as a group of checks has it.
    fn of(&self, group: &str) -> Self {
        let mut named = self.clone();
        if group == "livez" && self.patience.is_some_and(|until| Instant::now() < until) {
            named.check = Arc::new(|| std::future::ready(Ok(())).boxed());
        }
        named
    }
}

/// The checks of a daemon; clones share them.
#[derive(Clone)]
pub struct Health(Arc<RwLock<Vec<Named>>>);

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Only `ping`, which always holds.
    pub fn new() -> Self {
        let health = Self(Arc::default());
        health.add("ping", || Ok(()));
        health
    }

    /// Adds a check to `/livez`, `/readyz` and `/healthz`.
    pub fn add(&self, name: &'static str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.add_async(name, true, move || std::future::ready(check()).boxed());
    }

    /// Adds a check to `/readyz` only.
    pub fn add_ready(
        &self,
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.add_async(name, false, move || std::future::ready(check()).boxed());
    }

    /// Adds a check that takes time; `live` says whether it counts for `/livez` and `/healthz` too.
    pub fn add_async(
        &self,
        name: &'static str,
        live: bool,
        check: impl Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync + 'static,
    ) {
        self.0.write().push(Named { name, live, patience: None, check: Arc::new(check) });
    }

    /// Adds a check of the start to all, which `/livez` takes for passed for this long.
    pub fn add_startup(
        &self,
        name: &'static str,
        patience: Duration,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        let check: Check = Arc::new(move || std::future::ready(check()).boxed());
        let patience = Instant::now().checked_add(patience);
        self.0.write().push(Named { name, live: true, patience, check });
    }

    /// The answer, when the path is one of ours.
    pub async fn respond(&self, uri: &Uri) -> Option<Response<Body>> {
        let mut steps = uri.path().trim_start_matches('/').splitn(2, '/');
        let group = steps.next().filter(|g| matches!(*g, "livez" | "readyz" | "healthz"))?;
        let checks: Vec<Named> =
            self.0.read().iter().filter(|c| c.live || group == "readyz").map(|c| c.of(group)).collect();
        match steps.next() {
            None => Some(all(group, &checks, uri.query().unwrap_or_default()).await),
            Some(name) => {
                let named = checks.iter().find(|c| c.name == name)?;
                Some(match (named.check)().await {
                    Ok(()) => text(StatusCode::OK, "ok"),
                    Err(why) => {
                        text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n"))
                    }
                })
            }
        }
    }
}

async fn all(group: &str, checks: &[Named], query: &str) -> Response<Body> {
    let pairs = || query.split('&').filter(|p| !p.is_empty()).map(|p| p.split_once('=').unwrap_or((p, "")));
    let verbose = pairs().any(|(k, _)| k == "verbose");
    let mut excluded: Vec<&str> =
        pairs().filter(|(k, _)| *k == "exclude").flat_map(|(_, v)| v.split(',')).collect();
    let (mut lines, mut failed) = (String::new(), Vec::new());
    for Named { name, check, .. } in checks {
        if let Some(at) = excluded.iter().position(|e| e == name) {
            excluded.remove(at);
            let _ = writeln!(lines, "[+]{name} excluded: ok");
            continue;
        }
        match check().await {
            Ok(()) => {
                let _ = writeln!(lines, "[+]{name} ok");
            }
            Err(why) => {
                tracing::info!(check = group, name, err = why, "Health check failed");
                failed.push(*name);
                let _ = writeln!(lines, "[-]{name} failed: reason withheld");
            }
        }
    }
    if !excluded.is_empty() {
        let names: Vec<String> = excluded.iter().map(|e| format!("{e:?}")).collect();
        let _ = writeln!(
            lines,
            "warn: some health checks cannot be excluded: no matches for {}",
            names.join(", ")
        );
    }
    if !failed.is_empty() {
        let _ = writeln!(lines, "{group} check failed");
        return text(StatusCode::INTERNAL_SERVER_ERROR, lines);
    }
    if verbose {
        let _ = writeln!(lines, "{group} check passed");
        return text(StatusCode::OK, lines);
    }
    text(StatusCode::OK, "ok")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn check(health: &Health, path: &str, code: u16, body: &str) {
        let response = health.respond(&path.parse().unwrap()).await.unwrap();
        assert_eq!(response.status(), code, "{path}");
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(String::from_utf8_lossy(&bytes), body, "{path}");
    }

    #[tokio::test]
    async fn checks_of_the_start_are_waited_for() {
        for (patience, code) in [(0, 500), (60, 200)] {
            let health = Health::new();
            health.add_startup("start", Duration::from_secs(patience), || Err("not yet".to_owned()));
            for (path, code) in
                [("/livez", code), ("/livez/start", code), ("/readyz", 500), ("/healthz", 500)]
            {
                let response = health.respond(&path.parse().unwrap()).await.unwrap();
                assert_eq!(response.status(), code, "{path} {patience}");
            }
        }
    }

    #[tokio::test]
    async fn answers_read_as_upstream() {
        let health = Health::new();
        health.add("log", || Ok(()));
        check(&health, "/healthz", 200, "ok").await;
        check(&health, "/livez/ping", 200, "ok").await;
        check(&health, "/livez?verbose", 200, "[+]ping ok\n[+]log ok\nlivez check passed\n").await;
        health.add_ready("sync", || Err("not yet".to_owned()));
        check(&health, "/livez", 200, "ok").await;
        let lines = "[+]ping ok\n[+]log ok\n[-]sync failed: reason withheld\nreadyz check failed\n";
        check(&health, "/readyz", 500, lines).await;
        check(&health, "/readyz/sync", 500, "internal server error: not yet\n").await;
        check(&health, "/readyz?exclude=sync", 200, "ok").await;
        let lines = "[+]ping ok\n[+]log ok\n[+]sync excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"x\"\nreadyz check passed\n";
        check(&health, "/readyz?verbose&exclude=sync&exclude=x", 200, lines).await;
        assert!(health.respond(&"/livez/none".parse().unwrap()).await.is_none());
        assert!(health.respond(&"/metrics".parse().unwrap()).await.is_none());
    }
}
