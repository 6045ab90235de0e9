//! ImagePolicyWebhook: another server says which images pods may have, by reviews of `imagepolicy.k8s.io/v1alpha1`.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#imagepolicywebhook>.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use api::error::Result;
use api::{Map, Value, object};

use super::configuration::only;
use super::{Operation, forbid, name_of};
use crate::kubeconfig::{Answers, Remote};
use crate::registry::Call;

const TIMEOUT: Duration = Duration::from_secs(30);
const ANSWERS: usize = 1024;
const HALF_HOUR: Duration = Duration::from_secs(30 * 60);
/// What begins the keys of annotations of audit events.
const AUDIT: &str = "imagepolicywebhook.image-policy.k8s.io/";

/// The server that is asked, and what its answers are worth.
pub(super) struct ImagePolicy {
    remote: Remote,
    answers: Answers<Value>,
    /// How long answers hold that allow, and others.
    holds: (Duration, Duration),
    pause: Duration,
    /// Allow what the server cannot be asked about.
    allows: bool,
}

/// A span of time of the configuration: -1 for none, 0 for the usual one.
struct Span {
    field: &'static str,
    unit: Duration,
    usual: Duration,
    range: (Duration, Duration),
}

const ALLOWED: Span = Span {
    field: "allowTTL",
    unit: Duration::from_secs(1),
    usual: Duration::from_secs(300),
    range: (Duration::from_secs(1), HALF_HOUR),
};
const DENIED: Span = Span { field: "denyTTL", usual: Duration::from_secs(30), ..ALLOWED };
const PAUSE: Span = Span {
    field: "retryBackoff",
    unit: Duration::from_millis(1),
    usual: Duration::from_millis(500),
    range: (Duration::from_nanos(1), Duration::from_secs(300)),
};

impl Span {
    fn read(&self, configuration: &Value) -> anyhow::Result<Duration> {
        let given = configuration.get(self.field);
        let number = if given.is_null() { Some(0) } else { given.as_i64() };
        let number = number.with_context(|| format!("{} is no number", self.field))?;
        let span = match number {
            -1 => return Ok(Duration::ZERO),
            0 => return Ok(self.usual),
            n => u32::try_from(n).ok().and_then(|n| self.unit.checked_mul(n)),
        };
        match span.filter(|span| (self.range.0..=self.range.1).contains(span)) {
            Some(span) => Ok(span),
            None => bail!(
                "{}: valid value is between {:?} and {:?}, got {number}",
                self.field,
                self.range.0,
                self.range.1
            ),
        }
    }
}

impl ImagePolicy {
    /// Reads a configuration; files that it names are looked for in `folder`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(document: &Value, folder: &Path) -> anyhow::Result<Arc<Self>> {
        only(document, &["imagePolicy"])?;
        let own = document.get("imagePolicy");
        only(own, &["kubeConfigFile", "allowTTL", "denyTTL", "retryBackoff", "defaultAllow"])?;
        let pause = PAUSE.read(own)?;
        let holds = (ALLOWED.read(own)?, DENIED.read(own)?);
        let remote = Remote::read(&folder.join(own.str_at(&["kubeConfigFile"])))?;
        let allows = own.get("defaultAllow").as_bool().unwrap_or(false);
        Ok(Arc::new(Self { remote, answers: Answers::new(ANSWERS), holds, pause, allows }))
    }

    /// Asks about the images of a pod.
    pub(super) async fn validate(&self, call: &Call, operation: Operation, pod: &Value) -> Result<()> {
        let lists: &[&str] = match (call.row.group, call.row.plural, call.subresource.as_str()) {
            ("", "pods", "") => &["containers", "initContainers"],
            ("", "pods", "ephemeralcontainers") => &["ephemeralContainers"],
            _ => return Ok(()),
        };
        if !matches!(operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let spec = spec(call, pod, lists);
        let key = spec.to_json();
        let status = match self.answers.get(&key) {
            Some(status) => status,
            None => match self.ask(&spec).await {
                Ok(status) => {
                    let holds = if is_allowed(&status) { self.holds.0 } else { self.holds.1 };
                    self.answers.keep(key, status.clone(), holds);
                    status
                }
                Err(why) if !self.allows => return Err(forbid(call, name_of(pod), why)),
                Err(why) => {
                    tracing::warn!(
                        url = self.remote.url(),
                        why,
                        "images are allowed that could not be reviewed"
                    );
                    call.trail.annotate(format!("{AUDIT}failed-open"), "true");
                    return Ok(());
                }
            },
        };
        let notes = status.get("auditAnnotations").as_object();
        for (name, value) in notes.into_iter().flat_map(Map::iter) {
            call.trail.annotate(format!("{AUDIT}{name}"), value.as_str().unwrap_or_default());
        }
        let why = match (is_allowed(&status), status.str_at(&["reason"])) {
            (true, _) => return Ok(()),
            (false, "") => "one or more images rejected by webhook backend".to_owned(),
            (false, reason) => format!("image policy webhook backend denied one or more images: {reason}"),
        };
        Err(forbid(call, name_of(pod), why))
    }

    async fn ask(&self, spec: &Value) -> std::result::Result<Value, String> {
        let review = object!({
            "kind": "ImageReview",
            "apiVersion": "imagepolicy.k8s.io/v1alpha1",
            "metadata": {},
            "spec": (spec.clone()),
            "status": {"allowed": false},
        });
        self.remote.review(&review, TIMEOUT, self.pause).await
    }
}

impl std::fmt::Debug for ImagePolicy {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ImagePolicy").field("url", &self.remote.url()).finish_non_exhaustive()
    }
}

fn is_allowed(status: &Value) -> bool {
    status.get("allowed").as_bool() == Some(true)
}

/// What is asked about: the images, and the annotations that are meant for the server.
fn spec(call: &Call, pod: &Value, lists: &[&str]) -> Value {
    let containers = lists.iter().flat_map(|list| pod.array_at(&["spec", list]));
    let images = containers.map(|container| object!({"image": (container.str_at(&["image"]))}));
    let mut spec = object!({});
    spec.set(&["containers"], images.collect::<Vec<_>>());
    let annotations = pod.at(&["metadata", "annotations"]).as_object();
    let meant =
        annotations.into_iter().flat_map(Map::iter).filter(|(key, _)| key.contains(".image-policy.k8s.io/"));
    let meant: Map = meant.map(|(key, value)| (key, value.clone())).collect();
    if !meant.is_empty() {
        spec.set(&["annotations"], Value::Object(meant));
    }
    spec.set(&["namespace"], call.namespace.as_str());
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_usual_none_or_in_range() {
        let check = |n: i64, want: Option<u64>| {
            let read = DENIED.read(&object!({"denyTTL": n}));
            assert_eq!(read.ok(), want.map(Duration::from_secs), "{n}");
        };
        check(0, Some(30));
        check(-1, Some(0));
        check(1, Some(1));
        check(1800, Some(1800));
        check(1801, None);
        check(-2, None);
        check(i64::MAX, None);
        assert_eq!(PAUSE.read(&object!({})).unwrap(), Duration::from_millis(500));
        assert!(PAUSE.read(&object!({"retryBackoff": "x"})).is_err());
    }
}
