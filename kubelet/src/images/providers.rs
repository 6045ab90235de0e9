//! Credential providers: programs that are asked for the credentials of an image, and whose answers are kept for a while
//! (KEP-2133, KEP-4412).

mod config;
mod exec;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use api::{Map, Value, object};
use client::Client;
use client::resource::SERVICE_ACCOUNTS;
use parking_lot::Mutex;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use tokio::sync::OnceCell;

use super::keyring::{Coordinates, Keyring, Source, matches};
use crate::volumes::Tokens;
use config::{Provider, TokenAttributes};

/// What providers did.
#[derive(Clone)]
pub(crate) struct Metrics {
    errors: IntCounterVec,
    durations: HistogramVec,
    config: GaugeVec,
}

impl Metrics {
    fn new() -> Self {
        let valid = "the names are valid";
        let errors = Opts::new(
            "kubelet_credential_provider_plugin_errors_total",
            "[ALPHA] Number of errors from credential provider plugin",
        );
        let durations = HistogramOpts::new(
            "kubelet_credential_provider_plugin_duration",
            "[ALPHA] Duration of execution in seconds for credential provider plugin",
        );
        let config = Opts::new(
            "kubelet_credential_provider_config_info",
            "[ALPHA] Information about the last applied credential provider configuration with hash as label",
        );
        Self {
            errors: IntCounterVec::new(errors, &["plugin_name"]).expect(valid),
            durations: HistogramVec::new(durations, &["plugin_name"]).expect(valid),
            config: GaugeVec::new(config, &["hash"]).expect(valid),
        }
    }

    /// Shows them at an endpoint.
    pub(crate) fn register(&self, registry: &Registry) {
        serve::metrics::register(registry, self.errors.clone());
        serve::metrics::register(registry, self.durations.clone());
        serve::metrics::register(registry, self.config.clone());
    }
}

/// The answer of a provider, until it is too old.
struct Answer {
    auths: Map,
    until: Instant,
}

/// What an answer is for, and with whose token it was asked for.
type Key = (String, String);

/// A program that runs, and what it will come to for all who ask for the same meanwhile.
type Flight = Arc<OnceCell<Result<Map, String>>>;

/// One provider.
struct Plugin {
    program: exec::Program,
    settings: Provider,
    answers: Mutex<HashMap<Key, Answer>>,
    flights: Mutex<HashMap<Key, Flight>>,
}

/// All providers.
pub(crate) struct Providers {
    plugins: Vec<Plugin>,
    client: Client,
    tokens: Arc<Tokens>,
    pub(crate) metrics: Metrics,
}

/// A service account, as a provider is told of it.
struct Account {
    source: Coordinates,
    token: String,
    annotations: Map,
    /// Whose answers are whose.
    key: String,
}

impl Providers {
    /// Reads the configuration and looks for the programs; there are none where no configuration is named.
    ///
    /// # Errors
    /// What is wrong with the configuration, or which program is not there.
    pub(crate) fn load(
        config: &Path,
        bin_dir: &Path,
        client: Client,
        tokens: Arc<Tokens>,
    ) -> anyhow::Result<Self> {
        let metrics = Metrics::new();
        let mut plugins = Vec::new();
        if !config.as_os_str().is_empty() {
            let (providers, hash) = config::read(config)?;
            metrics.config.with_label_values(&[&hash]).set(1.0);
            for settings in providers {
                let path = bin_dir.join(&settings.name);
                let found = std::fs::metadata(&path)
                    .with_context(|| format!("error inspecting binary executable {}", path.display()))?;
                if !exec::is_executable(&found) {
                    bail!("error inspecting binary executable {}: permission denied", path.display());
                }
                let program = exec::Program::new(path, &settings);
                plugins.push(Plugin::new(program, settings));
            }
        }
        Ok(Self { plugins, client, tokens, metrics })
    }

    /// Adds what the providers say of a repository for a pod. One that fails is passed over.
    pub(super) async fn add(&self, keyring: &mut Keyring, pod: &Value, repository: &str) {
        for plugin in &self.plugins {
            if !plugin.settings.match_images.iter().any(|pattern| matches(pattern, repository)) {
                continue;
            }
            match self.ask(plugin, pod, repository).await {
                Ok(Some((auths, source))) => keyring.add(&Value::Object(auths), &source),
                Ok(None) => {}
                Err(error) => tracing::error!(
                    provider = plugin.settings.name, image = repository, pod = pod.name(), %error,
                    "Failed to provide credentials for image"
                ),
            }
        }
    }

    async fn ask(
        &self,
        plugin: &Plugin,
        pod: &Value,
        repository: &str,
    ) -> Result<Option<(Map, Source)>, String> {
        let account = match &plugin.settings.token_attributes {
            Some(attributes) => match self.account(attributes, &plugin.settings.name, pod).await? {
                Asking::As(account) => Some(account),
                Asking::AsNobody => None,
                Asking::Not => return Ok(None),
            },
            None => None,
        };
        let source = account.as_ref().map_or(Source::Node, |a| Source::ServiceAccount(a.source.clone()));
        plugin.answer(repository, account, &self.metrics).await.map(|auths| Some((auths, source)))
    }

    /// The pod's service account with a token for a provider.
    async fn account(
        &self,
        attributes: &TokenAttributes,
        provider: &str,
        pod: &Value,
    ) -> Result<Asking, String> {
        let name = pod.str_at(&["spec", "serviceAccountName"]);
        if name.is_empty() {
            let required = attributes.require_service_account == Some(true);
            return Ok(if required { Asking::Not } else { Asking::AsNobody });
        }
        let object = self.client.get(&SERVICE_ACCOUNTS, pod.namespace(), name).await;
        let object = object.map_err(|error| format!("failed to get service account: {error}"))?;
        let mut annotations = Map::new();
        let known = object.at(&["metadata", "annotations"]);
        for key in &attributes.required_service_account_annotation_keys {
            let Some(value) = known.get(key).as_str() else { return Ok(Asking::Not) };
            annotations.insert(key.as_str(), value);
        }
        for key in &attributes.optional_service_account_annotation_keys {
            if let Some(value) = known.get(key).as_str() {
                annotations.insert(key.as_str(), value);
            }
        }
        let audience = attributes.service_account_token_audience.as_str();
        let (key, wanted) = (format!("credential provider {provider}"), object!({"audience": audience}));
        let token = self.tokens.issued(pod, &key, &wanted).await;
        let token = token.map_err(|error| format!("failed to get service account token: {error}"))?.text;
        let mut key =
            object!([(pod.namespace()), name, (object.uid()), (Value::Object(annotations.clone()))])
                .to_string();
        if attributes.cache_type == "Token" {
            key.push_str(&token);
        }
        let mut source = Coordinates::of(&object);
        source.namespace = pod.namespace().to_owned();
        Ok(Asking::As(Account { source, token, annotations, key }))
    }
}

/// For whom a provider is asked.
enum Asking {
    As(Account),
    AsNobody,
    /// It is not asked at all: it wants an account that the pod does not have.
    Not,
}

impl Plugin {
    fn new(program: exec::Program, settings: Provider) -> Self {
        Self { program, settings, answers: Mutex::default(), flights: Mutex::default() }
    }

    /// What is known already of a repository, of its registry, or of all.
    fn known(&self, repository: &str, whose: &str) -> Option<Map> {
        let now = Instant::now();
        let mut answers = self.answers.lock();
        answers.retain(|_, answer| answer.until > now);
        let of = |name: &str| answers.get(&(name.to_owned(), whose.to_owned()));
        [repository, registry(repository), ""].into_iter().find_map(of).map(|known| known.auths.clone())
    }

    /// What the provider says. The program is not asked twice for the same at a time, and for different things side by side.
    async fn answer(
        &self,
        repository: &str,
        account: Option<Account>,
        metrics: &Metrics,
    ) -> Result<Map, String> {
        let whose = account.as_ref().map_or("", |account| account.key.as_str()).to_owned();
        if let Some(known) = self.known(repository, &whose) {
            return Ok(known);
        }
        let key = (repository.to_owned(), whose);
        let flight = self.flights.lock().entry(key.clone()).or_default().clone();
        let asked = flight.get_or_init(|| self.ask(repository, account, metrics)).await.clone();
        let mut flights = self.flights.lock();
        if flights.get(&key).is_some_and(|other| Arc::ptr_eq(other, &flight)) {
            flights.remove(&key);
        }
        asked
    }

    /// Asks the program, and keeps the answer for as long as it says.
    async fn ask(
        &self,
        repository: &str,
        account: Option<Account>,
        metrics: &Metrics,
    ) -> Result<Map, String> {
        let whose = account.as_ref().map_or("", |account| account.key.as_str());
        let (token, annotations) =
            account.as_ref().map_or(("", Map::new()), |a| (a.token.as_str(), a.annotations.clone()));
        let response = self.program.run(repository, token, annotations, metrics).await?;
        let cached_by_token =
            self.settings.token_attributes.as_ref().is_some_and(|a| a.cache_type == "Token");
        let echoed = |auth: &Value| !token.is_empty() && auth.str_at(&["password"]) == token;
        if !cached_by_token && response.auths.iter().any(|(_, auth)| echoed(auth)) {
            return Err(
                "credential provider plugin returned the service account token as the password which is not \
                        allowed when service account cache type is not set to 'Token'"
                    .to_owned(),
            );
        }
        let name = match response.cache_key_type.as_str() {
            "Image" => repository,
            "Registry" => registry(repository),
            "Global" => "",
            other => {
                return Err(format!(
                    "credential provider plugin did not return a valid cacheKeyType: {other}"
                ));
            }
        };
        let default = self.settings.default_cache_duration.map_or(Duration::ZERO, |d| d.0);
        let time = response.cache_duration.unwrap_or(default);
        if !time.is_zero() {
            let answer = Answer { auths: response.auths.clone(), until: Instant::now() + time };
            self.answers.lock().insert((name.to_owned(), whose.to_owned()), answer);
        }
        Ok(response.auths)
    }
}

/// The host that a repository is on.
fn registry(repository: &str) -> &str {
    repository.split('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A provider that is a shell script, which notes each request in the file `asked`.
    fn plugin(dir: &Path, answer: &str) -> Plugin {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.join("provider");
        let script = format!("#!/bin/sh\ncat >>{0}/asked\necho >>{0}/asked\n{answer}\n", dir.display());
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let settings = Provider {
            name: "provider".to_owned(),
            api_version: "credentialprovider.kubelet.k8s.io/v1".to_owned(),
            ..Provider::default()
        };
        Plugin::new(exec::Program::new(path, &settings), settings)
    }

    fn answer(cache_key_type: &str, duration: &str) -> String {
        let response = object!({
            "kind": "CredentialProviderResponse",
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "cacheKeyType": cache_key_type,
            "cacheDuration": duration,
            "auth": {"r.io": {"username": "u", "password": "secret"}},
        });
        format!("echo '{response}'")
    }

    fn account(key: &str, token: &str) -> Option<Account> {
        let source = Coordinates { namespace: "ns".into(), name: "sa".into(), uid: "1".into() };
        Some(Account { source, token: token.into(), annotations: Map::new(), key: key.into() })
    }

    #[tokio::test]
    async fn answers_are_kept_for_what_they_are_for() {
        let metrics = Metrics::new();
        for (cache_key_type, duration, times) in
            [("Image", "1h", 4), ("Registry", "1h", 3), ("Global", "1h", 2), ("Global", "0s", 5)]
        {
            let dir = tempfile::tempdir().unwrap();
            let plugin = plugin(dir.path(), &answer(cache_key_type, duration));
            for (image, account) in [
                ("r.io/a", None),
                ("r.io/a", None),
                ("r.io/b", None),
                ("q.io/a", None),
                ("r.io/a", account("x", "t")),
            ] {
                let auths = plugin.answer(image, account, &metrics).await.unwrap();
                assert_eq!(auths.get("r.io").map(|auth| auth.str_at(&["username"])), Some("u"));
            }
            let asked = std::fs::read_to_string(dir.path().join("asked")).unwrap();
            assert_eq!(asked.lines().count(), times, "{cache_key_type} {duration}: {asked}");
            let first: Value = serde_json::from_str(asked.lines().next().unwrap()).unwrap();
            assert_eq!(
                (first.str_at(&["kind"]), first.str_at(&["image"])),
                ("CredentialProviderRequest", "r.io/a")
            );
            assert!(asked.lines().last().unwrap().contains(r#""serviceAccountToken":"t""#) || times < 5);
        }
    }

    #[tokio::test]
    async fn images_wait_only_for_those_who_ask_for_the_same() {
        let (dir, metrics) = (tempfile::tempdir().unwrap(), Metrics::new());
        let at = dir.path().display();
        // No program ends before there has been a question for r.io/quick.
        let script =
            format!("until grep -q quick {at}/asked; do sleep 0.01; done\n{}", answer("Image", "0s"));
        let plugin = plugin(dir.path(), &script);
        let slow = || plugin.answer("r.io/slow", None, &metrics);
        let quick = plugin.answer("r.io/quick", None, &metrics);
        let (first, second, other) = tokio::join!(slow(), slow(), quick);
        assert!(first.is_ok() && second.is_ok() && other.is_ok());
        let asked = std::fs::read_to_string(dir.path().join("asked")).unwrap();
        assert_eq!(asked.lines().count(), 2, "{asked}");
    }

    #[tokio::test]
    async fn what_a_provider_does_wrong_is_told_without_its_secrets() {
        let metrics = Metrics::new();
        let broken = r#"echo '{"kind": "CredentialProviderResponse", "auth": secret'"#.to_owned();
        for (script, account, why) in [
            ("echo no luck >&2; exit 3".to_owned(), None, "exit status 3: no luck"),
            (broken, None, "error decoding credential provider plugin response from stdout"),
            (answer("Never", "1h"), None, "did not return a valid cacheKeyType: Never"),
            (
                answer("Image", "1h").replace("k8s.io/v1", "k8s.io/v2"),
                None,
                "did not match expected apiVersion",
            ),
            (
                answer("Image", "1h"),
                account("x", "secret"),
                "returned the service account token as the password",
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let told = plugin(dir.path(), &script).answer("r.io/a", account, &metrics).await.unwrap_err();
            assert!(told.contains(why) && !told.contains("secret\""), "{told}");
        }
        assert_eq!(metrics.errors.with_label_values(&["provider"]).get(), 1);
    }
}
