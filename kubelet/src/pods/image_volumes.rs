//! Images that are volumes of pods: they are pulled for the pod as a whole, before its containers start.

use std::collections::HashMap;
use std::sync::Arc;

use api::Value;
use k8s_cri::v1 as cri;

use super::actor::{Actor, now};
use super::spec;
use super::start::runtime_handler;
use crate::images;

/// The images that are volumes of a pod, by their names, or why they are not there.
pub(super) type ImageVolumes = HashMap<String, Result<cri::ImageSpec, images::Waiting>>;

impl Actor {
    /// Makes sure that the images are there that the pod has as volumes. Containers that mount one of them learn what went wrong
    /// with it, others start.
    pub(super) async fn image_volumes(&mut self, pod: &Arc<Value>) -> ImageVolumes {
        let is_image = |volume: &&Value| !volume.get("image").is_null();
        let mut found = ImageVolumes::new();
        if !spec::volumes(pod).iter().any(|volume| is_image(&volume)) {
            return found;
        }
        let kubelet = self.kubelet.clone();
        let Some(attempt) = self.observed.sandbox(pod).map(|sandbox| sandbox.attempt) else { return found };
        let of_sandbox = async {
            let handler = runtime_handler(&kubelet, pod).await?;
            Ok::<_, String>((self.sandbox_config(pod, attempt, self.users(pod, &handler)?)?, handler))
        };
        // Every container that starts is told the same.
        let Ok((sandbox, handler)) = of_sandbox.await else { return found };
        for volume in spec::volumes(pod).iter().filter(is_image) {
            let source = volume.get("image");
            let reference = source.str_at(&["reference"]);
            let request = images::Request {
                pod,
                image: reference,
                policy: source.str_at(&["pullPolicy"]),
                container: None,
                sandbox: sandbox.clone(),
                now: now(),
            };
            let image = kubelet.images.ensure(request, &kubelet.objects, &mut self.image_backoffs).await;
            let image = image.map(|image| cri::ImageSpec {
                image: image.id,
                user_specified_image: reference.to_owned(),
                runtime_handler: handler.clone(),
                annotations: sandbox.annotations.clone(),
            });
            found.insert(volume.str_at(&["name"]).to_owned(), image);
        }
        found
    }
}

/// The images that a container mounts; or why the last of those is missing that are.
pub(super) fn of_mounts(
    definition: &Value,
    volumes: &ImageVolumes,
) -> Result<HashMap<String, cri::ImageSpec>, images::Waiting> {
    let mut found = HashMap::new();
    let mut missing = None;
    for mount in definition.array_at(&["volumeMounts"]) {
        let name = mount.str_at(&["name"]);
        match volumes.get(name) {
            Some(Ok(image)) => drop(found.insert(name.to_owned(), image.clone())),
            Some(Err(waiting)) => missing = Some(waiting.clone()),
            None => {}
        }
    }
    missing.map_or(Ok(found), Err)
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    #[test]
    fn a_container_waits_for_the_images_that_it_mounts_and_no_others() {
        let there = cri::ImageSpec { image: "sha256:1".to_owned(), ..cri::ImageSpec::default() };
        let waiting = images::Waiting { reason: "ErrImagePull", message: "no".to_owned() };
        let volumes: ImageVolumes =
            [("a".to_owned(), Ok(there.clone())), ("b".to_owned(), Err(waiting.clone()))].into();
        let mounts = |names: &[&str]| {
            let mounts = names.iter().map(|name| object!({"name": (*name)})).collect();
            of_mounts(&object!({"volumeMounts": (Value::Array(mounts))}), &volumes)
        };
        assert_eq!(mounts(&["a", "other"]), Ok([("a".to_owned(), there)].into()));
        assert_eq!(mounts(&["b", "a"]), Err(waiting));
        assert_eq!(mounts(&[]), Ok(HashMap::new()));
    }
}
