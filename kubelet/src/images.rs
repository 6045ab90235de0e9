//! Images: whether to pull them, with which credentials, and what to say when that fails.

pub(crate) mod collect;
mod keyring;
mod name;
mod providers;
mod records;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::Value;
use client::events::Kind;
use client::{Bucket, Recorder};
use k8s_cri::v1 as cri;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tonic::Code;

use crate::cri::Runtime;
use crate::events;
use crate::metrics::Metrics;
use crate::objects::Objects;
use crate::pods::backoff::Backoffs;
use keyring::{Credential, Keyring};
pub(crate) use providers::Providers;
pub(crate) use records::{Records, Verification};

/// Why a container waits for an image: the reason and message of its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// `ErrImagePull`, `ImagePullBackOff`, `ErrImageNeverPull`, `InvalidImageName`, `ImageInspectError`, or what a runtime named.
    pub reason: &'static str,
    /// What the runtime said.
    pub message: String,
}

/// What one pull needs to know.
pub(crate) struct Request<'a> {
    /// The pod.
    pub pod: &'a Value,
    /// The image as the pod names it.
    pub image: &'a str,
    /// When it is pulled.
    pub policy: &'a str,
    /// The container that is made of it; none for a volume, of which the whole pod is told.
    pub container: Option<&'a str>,
    /// The sandbox it is for.
    pub sandbox: cri::PodSandboxConfig,
    /// The time in nanoseconds since the epoch.
    pub now: i64,
}

/// What was found out about an image that a pod needs.
#[derive(Debug, Default)]
struct Found {
    present: Option<bool>,
    must_pull: Option<bool>,
}

/// The node's images.
pub(crate) struct Images {
    runtime: Runtime,
    recorder: Recorder,
    /// As many at a time as there are.
    pulls: Semaphore,
    /// How often it may be begun to pull one.
    rate: Option<Mutex<Bucket>>,
    /// What went wrong last, by pod uid and image.
    failures: Mutex<HashMap<(String, String), String>>,
    pub(crate) providers: Providers,
    records: Records,
    /// Where the node's own credentials may be.
    folders: Vec<PathBuf>,
    metrics: Arc<Metrics>,
    /// How long pods have had images pulled, by uid.
    spent: Mutex<HashMap<String, Duration>>,
}

impl Images {
    /// `parallel`: how many images are pulled at a time, all when it is none, and `rate` how often. `root` is the kubelet's
    /// folder.
    pub(crate) fn new(
        (runtime, recorder): (Runtime, Recorder),
        (parallel, rate): (Option<usize>, Option<Bucket>),
        (providers, records): (Providers, Records),
        root: &Path,
        metrics: Arc<Metrics>,
    ) -> Self {
        let pulls = Semaphore::new(parallel.unwrap_or(Semaphore::MAX_PERMITS));
        let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker"));
        let folders = [root.to_owned()].into_iter().chain(home).chain(["/.docker".into(), "/".into()]);
        let folders = folders.collect();
        let (failures, spent) = (Mutex::default(), Mutex::default());
        let rate = rate.map(Mutex::new);
        Self { runtime, recorder, pulls, rate, failures, providers, records, folders, metrics, spent }
    }

    /// Goes on with the records of an earlier process, from what the runtime has.
    pub(crate) async fn recover(&self) -> crate::cri::Result<()> {
        let images = self.runtime.images().await?.into_iter();
        let images: Vec<_> =
            images.map(|image| (image.id, [image.repo_tags, image.repo_digests].concat())).collect();
        self.records.recover(&images);
        Ok(())
    }

    /// Has the figures show how many records there are.
    pub(crate) fn count_records(&self) {
        let (intents, records) = self.records.count();
        self.metrics.images.intents.set(intents);
        self.metrics.images.records.set(records);
    }

    /// Forgets who may use images that are gone since before `since`.
    fn prune(&self, images: &[cri::Image], since: jiff::Timestamp) {
        let ids: Vec<String> = images.iter().map(|image| image.id.clone()).collect();
        self.records.prune(&ids, since);
    }

    /// Makes sure that an image is there and that the pod may use it, by its pull policy.
    pub(crate) async fn ensure(
        &self,
        request: Request<'_>,
        objects: &Objects,
        backoffs: &mut Backoffs,
    ) -> Result<cri::Image, Waiting> {
        let (policy, mut found) = (request.policy, Found::default());
        let ensured = self.ensure_noting(request, objects, backoffs, &mut found).await;
        self.metrics.images.requested(policy, found.present, found.must_pull);
        ensured
    }

    async fn ensure_noting(
        &self,
        request: Request<'_>,
        objects: &Objects,
        backoffs: &mut Backoffs,
        found: &mut Found,
    ) -> Result<cri::Image, Waiting> {
        let Request { pod, image, policy, .. } = request;
        if let Err(why) = name::check(image) {
            let why = format!("couldn't parse image name {image:?}: {why}");
            let message = format!("Failed to apply default image tag {image:?}: {why}");
            self.event(&request, Kind::Warning, "InspectFailed", &message);
            return Err(Waiting { reason: "InvalidImageName", message });
        }
        if policy == "Always" {
            found.must_pull = Some(true);
            return self.pull(request, objects, backoffs).await;
        }
        let present = match self.runtime.image(image).await {
            Ok(present) => present,
            Err(error) => {
                let message = format!("Failed to inspect image {image:?}: {error}");
                self.event(&request, Kind::Warning, "InspectFailed", &message);
                return Err(Waiting { reason: "ImageInspectError", message });
            }
        };
        found.present = Some(present.is_some());
        found.must_pull = (policy != "Never").then_some(true);
        if let Some(present) = present {
            let credentials = self.credentials(pod, image, objects);
            let check = self.records.check(image, &present.id, credentials).await;
            self.metrics.images.checked(check);
            found.must_pull = Some(check.must_pull());
            if !check.must_pull() {
                let message = format!(
                    "Container image {image:?} already present on machine and can be accessed by the pod"
                );
                self.event(&request, Kind::Normal, "Pulled", &message);
                return Ok(present);
            }
        }
        if policy == "Never" {
            // Whether the image is here is told only to those who may use it.
            let message = format!("Container image {image:?} is not present with pull policy of Never");
            self.event(&request, Kind::Warning, "ErrImageNeverPull", &message);
            return Err(Waiting { reason: "ErrImageNeverPull", message });
        }
        self.pull(request, objects, backoffs).await
    }

    async fn pull(
        &self,
        request: Request<'_>,
        objects: &Objects,
        backoffs: &mut Backoffs,
    ) -> Result<cri::Image, Waiting> {
        let Request { pod, image, now, .. } = request;
        let key = (pod.uid().to_owned(), image.to_owned());
        if backoffs
            .last(image)
            .and_then(|last| backoffs.pause(image, last))
            .is_some_and(|(_, until)| until > now)
        {
            let message = format!("Back-off pulling image {image:?}");
            self.event(&request, Kind::Normal, "BackOff", &message);
            let cause = self.failures.lock().get(&key).cloned().unwrap_or_default();
            return Err(Waiting { reason: "ImagePullBackOff", message: format!("{message}: {cause}") });
        }
        self.event(&request, Kind::Normal, "Pulling", &format!("Pulling image {image:?}"));
        let waiting_since = Instant::now();
        let _permit = self.pulls.acquire().await.expect("the semaphore is never closed");
        let pulling_since = Instant::now();
        match self.pull_and_look(pod, image, request.sandbox.clone(), objects).await {
            Ok(found) => {
                backoffs.succeeded(image);
                self.failures.lock().remove(&key);
                let spent = waiting_since.elapsed();
                *self.spent.lock().entry(pod.uid().to_owned()).or_default() += spent;
                self.metrics.images.pulled(found.size, spent.as_secs_f64());
                let took = |since: Instant| {
                    let milliseconds = since.elapsed().as_millis() as u64;
                    daemon::GoDuration(std::time::Duration::from_millis(milliseconds))
                };
                let message = format!(
                    "Successfully pulled image {image:?} in {} ({} including waiting). Image size: {} bytes.",
                    took(pulling_since),
                    took(waiting_since),
                    found.size
                );
                self.event(&request, Kind::Normal, "Pulled", &message);
                Ok(found)
            }
            Err(cause) => {
                backoffs.crashed(image, now);
                let message = format!("Failed to pull image {image:?}: {cause}");
                self.event(&request, Kind::Warning, "Failed", &message);
                let waiting = failed(image, cause);
                self.failures.lock().insert(key, format!("{}: {}", waiting.reason, waiting.message));
                Err(waiting)
            }
        }
    }

    async fn pull_and_look(
        &self,
        pod: &Value,
        image: &str,
        sandbox: cri::PodSandboxConfig,
        objects: &Objects,
    ) -> Result<cri::Image, String> {
        let credentials = self.credentials(pod, image, objects).await;
        self.records.begin(image).map_err(|error| {
            format!("Failed to record image pull intent for container image {image:?}: {error}")
        })?;
        let pulled = self.pull_with(image, &sandbox, &credentials).await;
        let outcome = pulled.as_ref().ok().map(|(found, credential)| (found.id.as_str(), *credential));
        self.records.end(image, outcome);
        pulled.map(|(found, _)| found)
    }

    /// Without credentials when there are none, else with each in turn. Returns the one that was good.
    async fn pull_with<'c>(
        &self,
        image: &str,
        sandbox: &cri::PodSandboxConfig,
        credentials: &'c [Credential],
    ) -> Result<(cri::Image, Option<&'c Credential>), String> {
        if self.rate.as_ref().is_some_and(|rate| !rate.lock().take()) {
            return Err("pull QPS exceeded".to_owned());
        }
        let mut last = None;
        let tries = if credentials.is_empty() { vec![None] } else { credentials.iter().map(Some).collect() };
        for credential in tries {
            match self.runtime.pull(image, credential.map(Credential::auth), sandbox.clone()).await {
                Ok(_) => {
                    let found = self.runtime.image(image).await.map_err(|error| error.to_string())?;
                    let found = found.ok_or("the image is not there after it was pulled")?;
                    return Ok((found, credential));
                }
                // That a code is unknown tells nobody anything.
                Err(error) if error.code == Code::Unknown => last = Some(error.message),
                Err(error) => last = Some(error.to_string()),
            }
        }
        Err(last.unwrap_or_default())
    }

    /// The credentials that fit an image: of the pod's pull secrets, of the node's files, of credential providers.
    async fn credentials(&self, pod: &Value, image: &str, objects: &Objects) -> Vec<Credential> {
        let repository = keyring::repository(image);
        let mut secrets = Keyring::default();
        for reference in pod.array_at(&["spec", "imagePullSecrets"]) {
            match objects.secret(pod, reference.str_at(&["name"])).await {
                Ok(Some(secret)) => secrets.add_secret(&secret),
                Ok(None) => {}
                Err(error) => tracing::warn!(pod = pod.name(), err = %error, "Cannot read a pull secret"),
            }
        }
        let mut node = Keyring::default();
        node.add_node(&self.folders.iter().map(PathBuf::as_path).collect::<Vec<_>>());
        let mut provided = Keyring::default();
        self.providers.add(&mut provided, pod, &repository).await;
        [secrets, node, provided].into_iter().flat_map(|keyring| keyring.lookup(&repository)).collect()
    }

    /// Forgets a pod.
    pub(crate) fn forget(&self, uid: &str) {
        self.failures.lock().retain(|(pod, _), _| pod != uid);
        self.spent.lock().remove(uid);
    }

    /// How long a pod has had images pulled.
    pub(crate) fn spent(&self, uid: &str) -> Duration {
        self.spent.lock().get(uid).copied().unwrap_or_default()
    }

    fn event(&self, request: &Request<'_>, kind: Kind, reason: &str, message: &str) {
        match request.container {
            Some(name) => events::of_container(&self.recorder, request.pod, name, kind, reason, message),
            None => events::of_pod(&self.recorder, request.pod, kind, reason, message),
        }
    }
}

/// What a failed pull is called: there are causes that runtimes name.
fn failed(image: &str, cause: String) -> Waiting {
    let named = [
        ("RegistryUnavailable", "the registry is unavailable"),
        ("SignatureValidationFailed", "the signature validation failed"),
    ];
    for (reason, why) in named {
        if let Some(more) = cause.strip_prefix(reason) {
            return Waiting { reason, message: format!("image pull failed for {image} because {why}{more}") };
        }
    }
    Waiting { reason: "ErrImagePull", message: cause }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use api::object;
    use async_trait::async_trait;
    use daemon::Tasks;
    use hyper::body::Incoming;

    use super::*;
    use crate::grpc::{self, Answer, Service};

    /// A registry with every image, and what was pulled of it.
    #[derive(Default)]
    struct Registry {
        pulls: AtomicUsize,
        pulled: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Service for Registry {
        async fn answer(&self, method: &str, request: http::Request<Incoming>) -> Answer {
            let name = |spec: Option<cri::ImageSpec>| spec.unwrap_or_default().image;
            match method {
                "/runtime.v1.ImageService/PullImage" => {
                    self.pulls.fetch_add(1, Ordering::Relaxed);
                    grpc::unary(request, |question: cri::PullImageRequest| async move {
                        self.pulled.lock().push(name(question.image));
                        Ok(cri::PullImageResponse::default())
                    })
                    .await
                }
                "/runtime.v1.ImageService/ImageStatus" => {
                    grpc::unary(request, |question: cri::ImageStatusRequest| async move {
                        let id = name(question.image);
                        let image =
                            self.pulled.lock().contains(&id).then(|| cri::Image { id, ..Default::default() });
                        Ok(cri::ImageStatusResponse { image, ..Default::default() })
                    })
                    .await
                }
                other => grpc::unimplemented(other),
            }
        }
    }

    #[tokio::test]
    async fn pulls_beyond_the_rate_fail_at_once_and_are_tried_again_later() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, tasks, registry) =
            (dir.path().join("cri.sock"), Tasks::new(), Arc::new(Registry::default()));
        let (listener, serving, stop) = (grpc::listen(&socket).unwrap(), registry.clone(), tasks.token());
        tasks.plain("runtime", async move {
            grpc::serve(listener, serving, stop).await;
            Ok(())
        });
        let client = client::nowhere();
        let tokens = Arc::new(crate::volumes::Tokens::new(client.clone()));
        let providers = Providers::load(Path::new(""), Path::new(""), client.clone(), tokens).unwrap();
        let verification = Verification::new("NeverVerifyPreloadedImages", &[]).unwrap();
        let records = Records::open(dir.path(), verification).unwrap();
        let runtime = Runtime::new(&socket, &socket, Duration::from_secs(10));
        // Nothing is filled in for as long as a test takes.
        let rate = Bucket::new(1e-6, 2).unwrap();
        let images = Images::new(
            (runtime, Recorder::new(client.clone(), "kubelet", "n").0),
            (None, Some(rate)),
            (providers, records),
            dir.path(),
            Arc::new(Metrics::new("n", true, daemon::features::FeatureGates::default())),
        );
        let objects = Objects::new(client, tasks.clone());
        let pod = object!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}});
        let mut backoffs = Backoffs::default();
        let mut ensure = async |image: &str, now| {
            let request = Request {
                pod: &pod,
                image,
                policy: "IfNotPresent",
                container: None,
                sandbox: cri::PodSandboxConfig::default(),
                now,
            };
            images.ensure(request, &objects, &mut backoffs).await.map(|image| image.id)
        };
        for image in ["r.io/a", "r.io/b"] {
            assert_eq!(ensure(image, 1).await.as_deref(), Ok(image));
        }
        let exceeded = Waiting { reason: "ErrImagePull", message: "pull QPS exceeded".to_owned() };
        assert_eq!(ensure("r.io/c", 1).await, Err(exceeded));
        assert_eq!(ensure("r.io/c", 2).await.unwrap_err().reason, "ImagePullBackOff");
        // What is here is not pulled.
        assert_eq!(ensure("r.io/a", 3).await.as_deref(), Ok("r.io/a"));
        assert_eq!(registry.pulls.load(Ordering::Relaxed), 2);
        tasks.token().cancel();
    }

    #[test]
    fn causes_that_runtimes_name_are_told_apart() {
        for (cause, reason, message) in [
            ("not found", "ErrImagePull", "not found"),
            (
                "RegistryUnavailable: try later",
                "RegistryUnavailable",
                "image pull failed for x because the registry is unavailable: try later",
            ),
            (
                "SignatureValidationFailed",
                "SignatureValidationFailed",
                "image pull failed for x because the signature validation failed",
            ),
        ] {
            assert_eq!(failed("x", cause.to_owned()), Waiting { reason, message: message.to_owned() });
        }
    }
}
