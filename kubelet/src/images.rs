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
use client::Recorder;
use client::events::Kind;
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

/// The node's images.
pub(crate) struct Images {
    runtime: Runtime,
    recorder: Recorder,
    /// As many at a time as there are.
    pulls: Semaphore,
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
    /// `parallel`: how many images are pulled at a time, all when it is none. `root` is the kubelet's folder.
    pub(crate) fn new(
        (runtime, recorder): (Runtime, Recorder),
        parallel: Option<usize>,
        (providers, records): (Providers, Records),
        root: &Path,
        metrics: Arc<Metrics>,
    ) -> Self {
        let pulls = Semaphore::new(parallel.unwrap_or(Semaphore::MAX_PERMITS));
        let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker"));
        let folders = [root.to_owned()].into_iter().chain(home).chain(["/.docker".into(), "/".into()]);
        let folders = folders.collect();
        let (failures, spent) = (Mutex::default(), Mutex::default());
        Self { runtime, recorder, pulls, failures, providers, records, folders, metrics, spent }
    }

    /// Goes on with the records of an earlier process, from what the runtime has.
    pub(crate) async fn recover(&self) -> crate::cri::Result<()> {
        let images = self.runtime.images().await?.into_iter();
        let images: Vec<_> =
            images.map(|image| (image.id, [image.repo_tags, image.repo_digests].concat())).collect();
        self.records.recover(&images);
        Ok(())
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
        let Request { pod, image, policy, .. } = request;
        if let Err(why) = name::check(image) {
            let why = format!("couldn't parse image name {image:?}: {why}");
            let message = format!("Failed to apply default image tag {image:?}: {why}");
            self.event(&request, Kind::Warning, "InspectFailed", &message);
            return Err(Waiting { reason: "InvalidImageName", message });
        }
        if policy == "Always" {
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
        if let Some(present) = present {
            let credentials = self.credentials(pod, image, objects);
            if !self.records.must_pull(image, &present.id, credentials).await {
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
                self.metrics.pulled(found.size, spent.as_secs_f64());
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
    use super::*;

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
