//! Volumes that have grown: the file system on them follows.

use std::path::Path;

use api::quantity::Quantity;
use api::{Value, object};
use client::Patch;
use client::events::Kind;
use client::resource::PERSISTENT_VOLUME_CLAIMS;
use tonic::Code;

use super::Csi;
use super::api::{Capability, CapacityRange, EXPAND, ExpandRequest, ExpandResponse};
use super::mount::{Source, Wanted, text};
use crate::events;

impl Csi {
    /// Grows a volume that a pod sees at `path` if its claim does not show the size of the volume yet.
    pub(crate) async fn grow(&self, wanted: &Wanted<'_>, claim: &Value, path: &Path) {
        let Source::Persistent { volume, read_only } = wanted.source else { return };
        let Some(size) = due(volume, claim) else { return };
        let Ok(driver) = self.local.driver(wanted.driver()) else { return };
        if read_only || !driver.can(Capability::Expand).await.unwrap_or_default() {
            return;
        }
        match self.expand(wanted, &driver, (size.units(), path)).await {
            Ok(()) => self.note_size(wanted, claim, volume.at(&["spec", "capacity", "storage"])).await,
            Err(why) => {
                let message =
                    format!("NodeExpandVolume.NodeExpandVolume failed for volume {:?} : {why}", wanted.name);
                events::of_pod(&self.recorder, wanted.pod, Kind::Warning, "VolumeResizeFailed", &message);
            }
        }
    }

    async fn expand(
        &self,
        wanted: &Wanted<'_>,
        driver: &super::driver::Driver,
        (bytes, path): (i64, &Path),
    ) -> Result<(), String> {
        let Source::Persistent { volume, .. } = wanted.source else { return Ok(()) };
        let reference = volume.at(&["spec", "csi", "nodeExpandSecretRef"]);
        let secrets = match reference.is_null() {
            true => Default::default(),
            false => self
                .secret(reference.str_at(&["namespace"]), reference.str_at(&["name"]))
                .await
                .map_err(|why| format!("expander.NodeExpand failed to get NodeExpandSecretRef {why}"))?,
        };
        let stages = driver.can(Capability::Stage).await.map_err(|error| error.to_string())?;
        let request = ExpandRequest {
            volume_id: wanted.handle(),
            volume_path: text(path),
            range: Some(CapacityRange { required: bytes, limit: 0 }),
            staging_path: if stages { text(&self.local.staging(wanted)) } else { String::new() },
            capability: Some(wanted.capability(driver, None).await.map_err(|error| error.to_string())?),
            secrets,
        };
        match driver.call::<_, ExpandResponse>(EXPAND, request).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.code, Code::InvalidArgument | Code::OutOfRange | Code::NotFound) => {
                Err(format!("Expander.NodeExpand failed to expand the volume {error}"))
            }
            Err(error) => Err(format!("Expander.NodeExpand failed to expand the volume : {error}")),
        }
    }

    /// Tells the claim what it has now.
    async fn note_size(&self, wanted: &Wanted<'_>, claim: &Value, size: &Value) {
        let path = (claim.namespace(), claim.name(), "status");
        match self.client.patch(&PERSISTENT_VOLUME_CLAIMS, path, Patch::Merge, &finished(claim, size)).await {
            Ok(_) => {
                let message = format!("MountVolume.NodeExpandVolume succeeded for volume {:?}", wanted.name);
                let reason = "FileSystemResizeSuccessful";
                events::of_pod(&self.recorder, wanted.pod, Kind::Normal, reason, &message);
                self.recorder.normal(claim, reason, &message);
            }
            Err(error) => {
                tracing::warn!(claim = claim.name(), err = %error, "Cannot note the size of a volume");
            }
        }
    }
}

/// The size of a volume, when its claim shows less.
fn due(volume: &Value, claim: &Value) -> Option<Quantity> {
    let size = |value: &Value| value.as_str().and_then(|text| text.parse::<Quantity>().ok());
    let has = size(claim.at(&["status", "capacity", "storage"]))?;
    size(volume.at(&["spec", "capacity", "storage"])).filter(|size| size.units() > has.units())
}

/// The patch that says that nothing is left to be done.
fn finished(claim: &Value, size: &Value) -> Value {
    let over = ["Resizing", "FileSystemResizePending", "NodeResizeError", "ControllerResizeError"];
    let left = claim.array_at(&["status", "conditions"]).iter();
    let left = left.filter(|condition| !over.contains(&condition.str_at(&["type"]))).cloned().collect();
    let mut status = object!({"capacity": {"storage": (size.clone())}});
    status.set(&["conditions"], Value::Array(left));
    status.set(&["allocatedResourceStatuses"], object!({"storage": null}));
    object!({"status": (status)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_that_show_less_than_their_volume_are_due() {
        let volume = object!({"spec": {"capacity": {"storage": "2Gi"}}});
        let claim = |size: &str| {
            object!({"status": {"capacity": {"storage": size}, "conditions": [
                {"type": "FileSystemResizePending"}, {"type": "ModifyingVolume"},
            ]}})
        };
        assert_eq!(due(&volume, &claim("1Gi")).map(|size| size.units()), Some(2 << 30));
        assert_eq!(due(&volume, &claim("2048Mi")), None);
        let patch = finished(&claim("1Gi"), volume.at(&["spec", "capacity", "storage"]));
        assert_eq!(patch.str_at(&["status", "capacity", "storage"]), "2Gi");
        assert_eq!(patch.array_at(&["status", "conditions"]).len(), 1);
    }
}
