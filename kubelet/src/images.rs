//! Images: whether to pull them, with which credentials, and what to say when that fails.

pub(crate) mod collect;

use std::collections::HashMap;
use std::time::Instant;

use api::Value;
use base64::Engine as _;
use client::Recorder;
use client::events::Kind;
use k8s_cri::v1 as cri;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::cri::Runtime;
use crate::events;
use crate::objects::Objects;
use crate::pods::backoff::Backoffs;

/// Why a container waits for its image: the reason and message of its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// `ErrImagePull`, `ImagePullBackOff`, `ErrImageNeverPull`, `InvalidImageName`, `ImageInspectError`.
    pub reason: &'static str,
    /// What the runtime said.
    pub message: String,
}

/// What one pull needs to know.
pub(crate) struct Request<'a> {
    /// The pod.
    pub pod: &'a Value,
    /// The container.
    pub container: &'a Value,
    /// The sandbox it is for.
    pub sandbox: cri::PodSandboxConfig,
    /// The time in nanoseconds since the epoch.
    pub now: i64,
}

/// The node's images.
pub(crate) struct Images {
    runtime: Runtime,
    recorder: Recorder,
    /// One at a time, or as many as there are.
    pulls: Semaphore,
    /// What went wrong last, by pod uid and image.
    failures: Mutex<HashMap<(String, String), String>>,
}

impl Images {
    /// `serialize`: pull one image at a time.
    pub(crate) fn new(runtime: Runtime, recorder: Recorder, serialize: bool) -> Self {
        let pulls = Semaphore::new(if serialize { 1 } else { Semaphore::MAX_PERMITS });
        Self { runtime, recorder, pulls, failures: Mutex::default() }
    }

    /// Makes sure that a container's image is there, by its pull policy.
    pub(crate) async fn ensure(
        &self,
        request: Request<'_>,
        objects: &Objects,
        backoffs: &mut Backoffs,
    ) -> Result<cri::Image, Waiting> {
        let Request { pod, container, .. } = &request;
        let image = container.str_at(&["image"]);
        let policy = container.str_at(&["imagePullPolicy"]);
        let present = match self.runtime.image(image).await {
            Ok(present) => present,
            Err(error) => {
                let message = format!("Failed to inspect image {image:?}: {error}");
                self.event(pod, container, Kind::Warning, "InspectFailed", &message);
                return Err(Waiting { reason: "ImageInspectError", message });
            }
        };
        match (policy, present) {
            ("Never", None) => {
                let message = format!("Container image {image:?} is not present with pull policy of Never");
                self.event(pod, container, Kind::Warning, "ErrImageNeverPull", &message);
                Err(Waiting { reason: "ErrImageNeverPull", message })
            }
            ("Never" | "IfNotPresent" | "", Some(present)) => {
                let message = format!(
                    "Container image {image:?} already present on machine and can be accessed by the pod"
                );
                self.event(pod, container, Kind::Normal, "Pulled", &message);
                Ok(present)
            }
            _ => self.pull(request, objects, backoffs).await,
        }
    }

    async fn pull(
        &self,
        request: Request<'_>,
        objects: &Objects,
        backoffs: &mut Backoffs,
    ) -> Result<cri::Image, Waiting> {
        let Request { pod, container, sandbox, now } = request;
        let image = container.str_at(&["image"]);
        let key = (pod.uid().to_owned(), image.to_owned());
        if backoffs
            .last(image)
            .and_then(|last| backoffs.pause(image, last))
            .is_some_and(|(_, until)| until > now)
        {
            let message = format!("Back-off pulling image {image:?}");
            self.event(pod, container, Kind::Normal, "BackOff", &message);
            let cause = self.failures.lock().get(&key).cloned().unwrap_or_default();
            return Err(Waiting { reason: "ImagePullBackOff", message: format!("{message}: {cause}") });
        }
        self.event(pod, container, Kind::Normal, "Pulling", &format!("Pulling image {image:?}"));
        let waiting_since = Instant::now();
        let _permit = self.pulls.acquire().await.expect("the semaphore is never closed");
        let pulling_since = Instant::now();
        match self.pull_and_look(pod, image, sandbox, objects).await {
            Ok(found) => {
                backoffs.succeeded(image);
                self.failures.lock().remove(&key);
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
                self.event(pod, container, Kind::Normal, "Pulled", &message);
                Ok(found)
            }
            Err(cause) => {
                backoffs.crashed(image, now);
                let message = format!("Failed to pull image {image:?}: {cause}");
                self.event(pod, container, Kind::Warning, "Failed", &message);
                self.event(pod, container, Kind::Warning, "Failed", "Error: ErrImagePull");
                self.failures.lock().insert(key, format!("ErrImagePull: {cause}"));
                Err(Waiting { reason: "ErrImagePull", message: cause })
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
        let auths = credentials(pod, image, objects).await;
        let mut last = None;
        // Without credentials when there are none, else with each in turn.
        let tries = if auths.is_empty() { vec![None] } else { auths.into_iter().map(Some).collect() };
        for auth in tries {
            match self.runtime.pull(image, auth, sandbox.clone()).await {
                Ok(_) => {
                    let found = self.runtime.image(image).await.map_err(|error| error.to_string())?;
                    return found.ok_or_else(|| "the image is not there after it was pulled".to_owned());
                }
                Err(error) => last = Some(error.to_string()),
            }
        }
        Err(last.unwrap_or_default())
    }

    /// Forgets a pod.
    pub(crate) fn forget(&self, uid: &str) {
        self.failures.lock().retain(|(pod, _), _| pod != uid);
    }

    fn event(&self, pod: &Value, container: &Value, kind: Kind, reason: &str, message: &str) {
        events::of_container(&self.recorder, pod, container.str_at(&["name"]), kind, reason, message);
    }
}

/// The credentials that the pod's pull secrets have for an image's registry.
async fn credentials(pod: &Value, image: &str, objects: &Objects) -> Vec<cri::AuthConfig> {
    let mut found = Vec::new();
    for reference in pod.array_at(&["spec", "imagePullSecrets"]) {
        let Ok(Some(secret)) = objects.secret(pod.namespace(), reference.str_at(&["name"])).await else {
            continue;
        };
        for (key, data) in crate::env::data(&secret, "secret") {
            let Ok(document) = serde_json::from_slice::<Value>(&data) else { continue };
            let auths = match key.as_str() {
                ".dockerconfigjson" => document.get("auths"),
                ".dockercfg" => &document,
                _ => continue,
            };
            found.extend(matching(auths, image));
        }
    }
    found
}

fn matching(auths: &Value, image: &str) -> Vec<cri::AuthConfig> {
    let pairs = auths.as_object().into_iter().flat_map(|map| map.iter());
    let fits = |server: &str| {
        let server = server.trim_start_matches("https://").trim_start_matches("http://");
        let server = server.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
        let hub = matches!(server, "index.docker.io" | "docker.io") && is_of_hub(image);
        hub || image.strip_prefix(server).is_some_and(|rest| rest.starts_with(['/', ':']))
    };
    pairs.filter(|(server, _)| fits(server)).map(|(server, entry)| auth(server, entry)).collect()
}

/// Images without a registry's name come from Docker's.
fn is_of_hub(image: &str) -> bool {
    let first = image.split('/').next().unwrap_or_default();
    !image.contains('/') || first == "docker.io" || !(first.contains(['.', ':']) || first == "localhost")
}

fn auth(server: &str, entry: &Value) -> cri::AuthConfig {
    let encoded = entry.str_at(&["auth"]);
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap_or_default();
    let decoded = String::from_utf8_lossy(&decoded).into_owned();
    let (user, password) = match decoded.split_once(':') {
        Some((user, password)) => (user, password.trim_end_matches('\0')),
        None => (entry.str_at(&["username"]), entry.str_at(&["password"])),
    };
    cri::AuthConfig {
        username: user.to_owned(),
        password: password.to_owned(),
        server_address: server.to_owned(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    #[test]
    fn credentials_are_found_by_registry() {
        let auths = object!({
            "registry.example.org": {"auth": "dTpw"},
            "https://index.docker.io/v1/": {"username": "hub", "password": "x"},
        });
        for (image, user) in [
            ("registry.example.org/a/b:1", Some("u")),
            ("busybox", Some("hub")),
            ("library/busybox:1", Some("hub")),
            ("other.example.org/a", None),
        ] {
            let found = matching(&auths, image);
            assert_eq!(found.first().map(|auth| auth.username.as_str()), user, "{image}");
        }
    }
}
