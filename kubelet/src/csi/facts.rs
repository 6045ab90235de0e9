//! What the API server says about a volume and its driver.

use std::collections::BTreeMap;

use api::Value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::resource::{CSI_DRIVERS, SECRETS, VOLUME_ATTACHMENTS};

use super::Csi;
use super::api::{Capability, Strings};
use super::driver::Driver;
use super::files::attachment;
use super::mount::{Failure, Source, Wanted};

/// What has to be known before a driver can be asked for a volume: secrets too, so that nothing prints it.
#[derive(Clone, Default)]
pub(super) struct Facts {
    /// The driver's object; null when there is none.
    pub(super) object: Value,
    /// What attaching the volume has brought to light.
    pub(super) publish_context: Strings,
    pub(super) stage_secrets: Strings,
    pub(super) publish_secrets: Strings,
    /// What the driver wants to know of the pod, and tokens of its account.
    pub(super) attributes: Strings,
}

/// Whether volumes of a driver are attached before they are mounted.
pub(super) fn attaches(object: &Value) -> bool {
    object.at(&["spec", "attachRequired"]).as_bool() != Some(false)
}

impl Csi {
    /// The driver's object; null when there is none.
    pub(super) async fn object(&self, driver: &str) -> Result<Value, Failure> {
        let object = self.client.get_opt(&CSI_DRIVERS, "", driver).await;
        Ok(object.map_err(|error| Failure::set_up(error.message()))?.unwrap_or_default())
    }

    /// Gathers everything, waiting for nobody: what is not there yet is an error.
    pub(super) async fn facts(&self, wanted: &Wanted<'_>, driver: &Driver) -> Result<Facts, Failure> {
        let mut facts = Facts { object: self.object(wanted.driver()).await?, ..Facts::default() };
        let (namespace, publish) = match wanted.source {
            Source::Persistent { volume, .. } => {
                let source = volume.at(&["spec", "csi"]);
                let handle = source.str_at(&["volumeHandle"]);
                if attaches(&facts.object) {
                    self.local.hold(wanted.driver(), handle).await.map_err(Failure::attach)?;
                    facts.publish_context =
                        self.attached(wanted.driver(), handle).await.map_err(Failure::attach)?;
                }
                let reference = source.get("nodeStageSecretRef");
                let stages = driver.can(Capability::Stage).await.map_err(Failure::device)?;
                if !reference.is_null() && stages {
                    let secrets =
                        self.secret(reference.str_at(&["namespace"]), reference.str_at(&["name"])).await;
                    facts.stage_secrets = secrets
                        .map_err(|why| Failure::device(format!("fetching NodeStageSecretRef {}", why)))?;
                }
                let reference = source.get("nodePublishSecretRef");
                (reference.str_at(&["namespace"]), reference)
            }
            Source::Inline(source) => (wanted.pod.namespace(), source.get("nodePublishSecretRef")),
        };
        if !publish.is_null() {
            let secrets = self.secret(namespace, publish.str_at(&["name"])).await;
            facts.publish_secrets =
                secrets.map_err(|why| Failure::set_up(format!("fetching NodePublishSecretRef {why}")))?;
        }
        if facts.object.at(&["spec", "podInfoOnMount"]).as_bool() == Some(true) {
            facts.attributes.extend(pod_info(wanted));
        }
        if let Some(tokens) = self.account_tokens(wanted, &facts.object).await? {
            let hidden = facts.object.at(&["spec", "serviceAccountTokenInSecrets"]).as_bool() == Some(true);
            let place = if hidden { &mut facts.publish_secrets } else { &mut facts.attributes };
            place.insert("csi.storage.k8s.io/serviceAccount.tokens".to_owned(), tokens);
        }
        Ok(facts)
    }

    /// What the VolumeAttachment says, once the volume is attached. The error is a sentence.
    async fn attached(&self, driver: &str, handle: &str) -> Result<Strings, String> {
        let name = attachment(handle, driver, &self.node_name);
        let found = self.client.get(&VOLUME_ATTACHMENTS, "", &name).await.map_err(|error| {
            format!("volume {handle} has GET error for volume attachment {name}: {}", error.message())
        })?;
        if found.is_terminating() {
            return Err("volume attachment is being deleted".to_owned());
        }
        let status = found.get("status");
        if status.get("attached").as_bool() == Some(true) {
            return Ok(crate::cri::labels::strings(status.get("attachmentMetadata")));
        }
        match status.str_at(&["attachError", "message"]) {
            "" => Err(format!("volume {handle} is not attached for volume attachment {name}")),
            why => Err(why.to_owned()),
        }
    }

    /// The data of a secret as texts. The error is a sentence.
    pub(super) async fn secret(&self, namespace: &str, name: &str) -> Result<Strings, String> {
        let failed = |why: String| format!("{namespace}/{name} failed: {why}");
        let secret =
            self.client.get(&SECRETS, namespace, name).await.map_err(|error| failed(error.message()))?;
        let pairs = secret.get("data").as_object().into_iter().flat_map(|map| map.iter());
        let decode = |(key, value): (&str, &Value)| {
            let bytes = STANDARD
                .decode(value.as_str().unwrap_or_default())
                .map_err(|error| failed(error.to_string()))?;
            Ok((key.to_owned(), String::from_utf8_lossy(&bytes).into_owned()))
        };
        pairs.map(decode).collect()
    }

    /// The tokens that the driver's object asks for, by audience, as JSON.
    async fn account_tokens(&self, wanted: &Wanted<'_>, object: &Value) -> Result<Option<String>, Failure> {
        let requests = object.array_at(&["spec", "tokenRequests"]);
        if requests.is_empty() {
            return Ok(None);
        }
        let mut tokens = BTreeMap::new();
        for request in requests {
            let audience = request.str_at(&["audience"]);
            let key = format!("csi/{audience}");
            let token = self.tokens.issued(wanted.pod, &key, request).await.map_err(|why| {
                Failure::set_up(format!(
                    "kubernetes.io/csi: mounter.SetUpAt failed to get service accoount token attributes: {why}"
                ))
            })?;
            let shown = [("expirationTimestamp", token.expiration), ("token", token.text)];
            tokens.insert(audience.to_owned(), BTreeMap::from(shown));
        }
        serde_json::to_string(&tokens).map(Some).map_err(|error| Failure::set_up(error.to_string()))
    }
}

/// What drivers may be told of a pod.
fn pod_info(wanted: &Wanted<'_>) -> [(String, String); 5] {
    let pod = wanted.pod;
    let inline = matches!(wanted.source, Source::Inline(_));
    [
        ("csi.storage.k8s.io/pod.name", pod.name()),
        ("csi.storage.k8s.io/pod.namespace", pod.namespace()),
        ("csi.storage.k8s.io/pod.uid", pod.uid()),
        ("csi.storage.k8s.io/serviceAccount.name", pod.str_at(&["spec", "serviceAccountName"])),
        ("csi.storage.k8s.io/ephemeral", if inline { "true" } else { "false" }),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
}
