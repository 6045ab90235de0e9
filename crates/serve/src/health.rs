//! Health endpoints with upstream's answers: `/livez`, `/readyz`, `/healthz`, each check under its own path, `?verbose` and
//! `?exclude=`, which names a check or a group of checks.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::X_CONTENT_TYPE_OPTIONS;
use http::{Response, StatusCode, Uri};
use parking_lot::RwLock;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::body::{Body, text};

type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Where a check counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoints {
    /// Everywhere.
    All,
    /// Everywhere but at `/livez`: starting again would not help.
    NotLive,
    /// At `/readyz` alone.
    Ready,
}

impl Endpoints {
    fn have(self, group: &str) -> bool {
        match self {
            Endpoints::All => true,
            Endpoints::NotLive => group != "livez",
            Endpoints::Ready => group == "readyz",
        }
    }
}

#[derive(Clone)]
struct Named {
    name: &'static str,
    /// By which it can be left out with others.
    group: Option<&'static str>,
    endpoints: Endpoints,
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
pub struct Health(Arc<Shared>);

#[derive(Default)]
struct Shared {
    checks: RwLock<Vec<Named>>,
    counts: OnceLock<Counts>,
}

/// What came of checks.
struct Counts {
    now: IntGaugeVec,
    all: IntCounterVec,
}

impl Counts {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let now = Opts::new(
            "kubernetes_healthcheck",
            "[STABLE] This metric records the result of a single healthcheck.",
        );
        let all = Opts::new(
            "kubernetes_healthchecks_total",
            "[STABLE] This metric records the results of all healthcheck.",
        );
        let counts = Self {
            now: IntGaugeVec::new(now, &["name", "type"])?,
            all: IntCounterVec::new(all, &["name", "type", "status"])?,
        };
        crate::metrics::register(registry, counts.now.clone());
        crate::metrics::register(registry, counts.all.clone());
        Ok(counts)
    }

    fn note(&self, name: &str, group: &str, passed: bool) {
        self.now.with_label_values(&[name, group]).set(i64::from(passed));
        let status = if passed { "success" } else { "error" };
        self.all.with_label_values(&[name, group, status]).inc();
    }
}

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

    /// Shows what comes of the checks as metrics.
    ///
    /// # Errors
    /// The metrics cannot be made.
    pub fn measure(&self, registry: &Registry) -> prometheus::Result<()> {
        let counts = Counts::new(registry)?;
        self.0.counts.get_or_init(|| counts);
        Ok(())
    }

    /// Adds a check to `/livez`, `/readyz` and `/healthz`.
    pub fn add(&self, name: &'static str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.add_async(name, Endpoints::All, move || std::future::ready(check()).boxed());
    }

    /// Adds a check to `/readyz` only.
    pub fn add_ready(
        &self,
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.add_async(name, Endpoints::Ready, move || std::future::ready(check()).boxed());
    }

    /// Adds a check that takes time.
    pub fn add_async(
        &self,
        name: &'static str,
        endpoints: Endpoints,
        check: impl Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync + 'static,
    ) {
        self.push(Named { name, group: None, endpoints, patience: None, check: Arc::new(check) });
    }

    /// Adds a check of a group to all, which `exclude` may name.
    pub fn add_grouped(
        &self,
        (name, group): (&'static str, &'static str),
        check: impl Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync + 'static,
    ) {
        self.push(Named {
            name,
            group: Some(group),
            endpoints: Endpoints::All,
            patience: None,
            check: Arc::new(check),
        });
    }

    fn push(&self, named: Named) {
        self.0.checks.write().push(named);
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
        self.push(Named { name, group: None, endpoints: Endpoints::All, patience, check });
    }

    /// The paths that are ours.
    pub fn paths(&self) -> Vec<String> {
        let checks = self.0.checks.read();
        let of = |group: &'static str| {
            let own = checks.iter().filter(move |c| c.endpoints.have(group));
            let each = own.map(move |c| format!("/{group}/{}", c.name));
            std::iter::once(format!("/{group}")).chain(each)
        };
        ["healthz", "livez", "readyz"].into_iter().flat_map(of).collect()
    }

    /// The answer, when the path is one of ours.
    pub async fn respond(&self, uri: &Uri) -> Option<Response<Body>> {
        let mut steps = uri.path().trim_start_matches('/').splitn(2, '/');
        let group = steps.next().filter(|g| matches!(*g, "livez" | "readyz" | "healthz"))?;
        let checks: Vec<Named> =
            self.0.checks.read().iter().filter(|c| c.endpoints.have(group)).map(|c| c.of(group)).collect();
        match steps.next() {
            None => Some(self.all(group, &checks, uri.query().unwrap_or_default()).await),
            Some(name) => {
                let named = checks.iter().find(|c| c.name == name)?;
                Some(match (named.check)().await {
                    Ok(()) => {
                        let mut passed = text(StatusCode::OK, "ok");
                        passed.headers_mut().remove(X_CONTENT_TYPE_OPTIONS);
                        passed
                    }
                    Err(why) => {
                        text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n"))
                    }
                })
            }
        }
    }

    async fn all(&self, group: &str, checks: &[Named], query: &str) -> Response<Body> {
        let pairs: Vec<(String, String)> = pairs(query).collect();
        let verbose = pairs.iter().any(|(k, _)| k == "verbose");
        let excluded: BTreeSet<&str> =
            pairs.iter().filter(|(k, _)| k == "exclude").map(|(_, v)| v.as_str()).collect();
        let mut unknown = excluded.clone();
        let (mut lines, mut failed) = (String::new(), false);
        for Named { name, group: set, check, .. } in checks {
            if excluded.contains(name) {
                unknown.remove(name);
                let _ = writeln!(lines, "[+]{name} excluded: ok");
                continue;
            }
            if let Some(set) = set.filter(|set| excluded.contains(set)) {
                unknown.remove(set);
                let _ = writeln!(lines, "[+]{name} excluded with {set}: ok");
                continue;
            }
            let result = check().await;
            if let Some(counts) = self.0.counts.get() {
                counts.note(name, group, result.is_ok());
            }
            match result {
                Ok(()) => {
                    let _ = writeln!(lines, "[+]{name} ok");
                }
                Err(why) => {
                    tracing::info!(check = group, name, err = why, "Health check failed");
                    failed = true;
                    let _ = writeln!(lines, "[-]{name} failed: reason withheld");
                }
            }
        }
        if !unknown.is_empty() {
            let names: Vec<String> = unknown.iter().map(|e| format!("{e:?}")).collect();
            let names = names.join(",");
            let _ = writeln!(lines, "warn: some health checks cannot be excluded: no matches for {names}");
        }
        match (failed, verbose) {
            (true, _) => {
                let _ = writeln!(lines, "{group} check failed");
                text(StatusCode::INTERNAL_SERVER_ERROR, lines)
            }
            (false, true) => {
                let _ = writeln!(lines, "{group} check passed");
                text(StatusCode::OK, lines)
            }
            (false, false) => text(StatusCode::OK, "ok"),
        }
    }
}

/// The parameters of a query.
fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    let plain = |text: &str| {
        percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
    };
    let pairs = query.split('&').filter(|p| !p.is_empty()).map(|p| p.split_once('=').unwrap_or((p, "")));
    pairs.map(move |(key, value)| (plain(key), plain(value)))
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
        let lines = "[+]ping ok\n[+]log ok\n[+]sync excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"a,b\",\"x\"\nreadyz check passed\n";
        check(&health, "/readyz?verbose&exclude=sync&exclude=x&exclude=a%2Cb", 200, lines).await;
        health.add_grouped(("keys-0", "keys"), || std::future::ready(Err("lost".to_owned())).boxed());
        check(
            &health,
            "/livez",
            500,
            "[+]ping ok\n[+]log ok\n[-]keys-0 failed: reason withheld\nlivez check failed\n",
        )
        .await;
        let lines = "[+]ping ok\n[+]log ok\n[+]keys-0 excluded with keys: ok\nlivez check passed\n";
        check(&health, "/livez?verbose&exclude=keys", 200, lines).await;
        assert!(health.respond(&"/livez/none".parse().unwrap()).await.is_none());
        assert!(health.respond(&"/metrics".parse().unwrap()).await.is_none());
    }
}
