//! Collecting what nobody uses: images, and what is left of pods that have ended.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use api::Value;
use jiff::Timestamp;
use k8s_cri::v1 as cri;
use parking_lot::Mutex;

use crate::Kubelet;
use crate::cri::labels;
use crate::logs;
use crate::pods::spec;

/// Images are looked at this often.
const PERIOD: Duration = Duration::from_secs(300);

/// What is known of an image, by times in nanoseconds since the epoch; zero is before anything was known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Record {
    first: i64,
    used: i64,
    size: u64,
    /// In use now, or kept by the runtime.
    kept: bool,
}

/// What is known of all images.
#[derive(Default)]
pub(crate) struct Collector {
    records: Mutex<HashMap<String, Record>>,
    began: Mutex<Option<i64>>,
}

/// The rules by which images go.
#[derive(Debug, Clone, Copy)]
struct Rules {
    now: i64,
    /// Younger ones stay.
    least_age: i64,
}

/// Who goes to free so many bytes: those longest unused first.
fn victims(records: &HashMap<String, Record>, rules: Rules, mut to_free: u64) -> Vec<String> {
    let mut unused: Vec<_> = records
        .iter()
        .filter(|(_, record)| !record.kept && rules.now - record.first >= rules.least_age)
        .collect();
    unused.sort_by_key(|(id, record)| (record.used, record.first, *id));
    let mut out = Vec::new();
    for (id, record) in unused {
        if to_free == 0 {
            break;
        }
        to_free = to_free.saturating_sub(record.size);
        out.push(id.clone());
    }
    out
}

/// Who has not been used for too long.
fn outdated(records: &HashMap<String, Record>, rules: Rules, most_age: i64) -> Vec<String> {
    let unused = records.iter().filter(|(_, record)| {
        !record.kept
            && rules.now - record.used > most_age
            && rules.now - record.first >= rules.least_age.max(most_age)
    });
    unused.map(|(id, _)| id.clone()).collect()
}

/// The sandboxes' image, which runtimes before containerd 1.7 do not mark as theirs.
fn is_pause(image: &cri::Image) -> bool {
    let repository = |tag: &String| tag.rsplit_once(':').map_or(tag.as_str(), |(name, _)| name).to_owned();
    image.repo_tags.iter().any(|tag| repository(tag).ends_with("/pause"))
}

/// The images that a container has mounted.
fn mounted(status: &cri::ContainerStatus) -> impl Iterator<Item = String> + '_ {
    let images = status.mounts.iter().filter_map(|mount| mount.image.as_ref());
    images.map(|image| image.image.clone())
}

impl Collector {
    fn note(&self, images: Vec<cri::Image>, in_use: &HashSet<String>, now: i64) {
        let mut records = self.records.lock();
        let known = std::mem::take(&mut *records);
        let first = if self.began.lock().replace(now).is_some() { now } else { 0 };
        for image in images {
            let names = [&image.repo_tags, &image.repo_digests];
            let used =
                in_use.contains(&image.id) || names.into_iter().flatten().any(|name| in_use.contains(name));
            let mut record = known.get(&image.id).copied().unwrap_or(Record { first, ..Record::default() });
            record.size = image.size;
            record.kept = used || image.pinned || is_pause(&image);
            if used {
                record.used = now;
            }
            records.insert(image.id, record);
        }
    }
}

impl Kubelet {
    async fn survey(&self) -> crate::cri::Result<Rules> {
        let containers = self.runtime.containers(None).await?;
        let mut in_use: HashSet<String> = self.images_of_volumes(&containers).await?;
        let of = |container: cri::Container| {
            let asked = container.image.map(|image| image.image);
            asked.into_iter().chain([container.image_ref])
        };
        in_use.extend(containers.into_iter().flat_map(of));
        let now = Timestamp::now();
        let images = self.runtime.images().await?;
        self.images.prune(&images, now);
        let now = now.as_nanosecond() as i64;
        self.collector.note(images, &in_use, now);
        Ok(Rules { now, least_age: self.config.file.image_minimum_gc_age.0.as_nanos() as i64 })
    }

    /// The images that containers have as volumes. Only those are asked that may have some.
    async fn images_of_volumes(&self, containers: &[cri::Container]) -> crate::cri::Result<HashSet<String>> {
        let without: HashSet<String> = {
            let pods = self.pods.lock();
            let none = |pod: &Value| spec::volumes(pod).iter().all(|volume| volume.get("image").is_null());
            pods.iter().filter(|(_, known)| none(&known.pod)).map(|(uid, _)| uid.clone()).collect()
        };
        let mut found = HashSet::new();
        for container in containers {
            if container.labels.get(labels::POD_UID).is_some_and(|uid| without.contains(uid)) {
                continue;
            }
            let status = self.runtime.container_status(&container.id).await?;
            found.extend(status.iter().flat_map(mounted));
        }
        Ok(found)
    }

    async fn delete_images(&self, ids: Vec<String>, reason: &str) -> u64 {
        let mut freed = 0;
        for id in ids {
            match self.runtime.remove_image(&id).await {
                Ok(()) => {
                    self.metrics.images.collected(reason);
                    let gone = self.collector.records.lock().remove(&id);
                    freed += gone.map_or(0, |record| record.size);
                    tracing::info!(image = id, "Removed an image that nobody uses");
                }
                Err(error) => tracing::warn!(image = id, err = %error, "Cannot remove an image"),
            }
        }
        freed
    }

    async fn remove(&self, container: &cri::Container) -> anyhow::Result<()> {
        let names = logs::Names::of_labels(&container.labels, &container.id);
        if let (Some(names), Some(log)) = (names, logs::log_of(self, container)) {
            logs::remove(&names, &log)?;
        }
        Ok(self.runtime.remove_container(&container.id).await?)
    }

    /// Deletes what is left of pods that have ended, and all images that nobody uses.
    pub(crate) async fn delete_unused(&self) {
        let ended: HashSet<String> = {
            let pods = self.pods.lock();
            let over = |phase: &str| matches!(phase, "Succeeded" | "Failed");
            let ended = pods.iter().filter(|(_, known)| over(known.status.str_at(&["phase"])));
            ended.map(|(uid, _)| uid.clone()).collect()
        };
        for container in self.runtime.containers(None).await.unwrap_or_default() {
            let exited = container.state == cri::ContainerState::ContainerExited as i32;
            if exited
                && container.labels.get(labels::POD_UID).is_some_and(|uid| ended.contains(uid))
                && let Err(error) = self.remove(&container).await
            {
                tracing::warn!(container = container.id, err = %error, "Cannot remove a container");
            }
        }
        match self.survey().await {
            Ok(rules) => {
                let ids = victims(&self.collector.records.lock(), rules, u64::MAX);
                self.delete_images(ids, "space").await;
            }
            Err(error) => tracing::warn!(err = %error, "Cannot list images"),
        }
    }

    /// One look at the images: outdated ones go, and others when the disk is too full. The error is a sentence.
    async fn collect_images(&self) -> Result<(), String> {
        let rules = self.survey().await.map_err(|error| error.to_string())?;
        let file = &self.config.file;
        let most_age = file.image_maximum_gc_age.0.as_nanos() as i64;
        if most_age > 0 {
            let ids = outdated(&self.collector.records.lock(), rules, most_age);
            self.delete_images(ids, "age").await;
        }
        let mount = self.runtime.image_fs().await.map_err(|error| error.to_string())?;
        let path = mount.map_or_else(|| self.config.root.clone(), |images| images.mount.into());
        let stat = nix::sys::statvfs::statvfs(&path).map_err(|error| error.to_string())?;
        let (capacity, available) =
            (stat.blocks() * stat.fragment_size(), stat.blocks_available() * stat.fragment_size());
        if capacity == 0 {
            let message = "invalid capacity 0 on image filesystem";
            self.recorder.warning(&self.node_reference(), "InvalidDiskCapacity", message);
            return Err(message.to_owned());
        }
        let used = 100 - (u128::from(available) * 100 / u128::from(capacity)) as i32;
        if used < file.image_gc_high_threshold_percent {
            return Ok(());
        }
        let wanted = u128::from(capacity)
            * (100 - file.image_gc_low_threshold_percent).max(0).unsigned_abs() as u128
            / 100;
        let to_free = u64::try_from(wanted).unwrap_or(u64::MAX).saturating_sub(available);
        tracing::info!(used, to_free, "The disk with the images is too full");
        let ids = victims(&self.collector.records.lock(), rules, to_free);
        let freed = self.delete_images(ids, "space").await;
        if freed >= to_free {
            return Ok(());
        }
        let message = format!(
            "Failed to garbage collect required amount of images. Attempted to free {to_free} bytes, but only found \
             {freed} bytes eligible to free."
        );
        self.recorder.warning(&self.node_reference(), "FreeDiskSpaceFailed", message.as_str());
        Err(message)
    }
}

/// Looks after images until the process ends.
pub(crate) async fn run(kubelet: Arc<Kubelet>) {
    if let Err(error) = kubelet.images.recover().await {
        tracing::warn!(err = %error, "Cannot look for images that were being pulled when the kubelet ended");
    }
    loop {
        if let Err(error) = kubelet.collect_images().await {
            tracing::error!(err = error, "Image garbage collection failed");
        }
        tokio::time::sleep(PERIOD).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(first: i64, used: i64, kept: bool) -> Record {
        Record { first, used, size: 10, kept }
    }

    fn records() -> HashMap<String, Record> {
        [
            ("kept", record(0, 90, true)),
            ("old", record(0, 10, false)),
            ("older", record(0, 5, false)),
            ("never", record(20, 0, false)),
            ("young", record(95, 0, false)),
        ]
        .map(|(name, record)| (name.to_owned(), record))
        .into()
    }

    #[test]
    fn the_longest_unused_go_first_and_only_as_many_as_needed() {
        let rules = Rules { now: 100, least_age: 10 };
        assert_eq!(victims(&records(), rules, 15), ["never", "older"]);
        assert_eq!(victims(&records(), rules, u64::MAX), ["never", "older", "old"]);
        assert!(victims(&records(), rules, 0).is_empty());
    }

    #[test]
    fn what_nobody_used_for_long_goes() {
        let mut gone = outdated(&records(), Rules { now: 100, least_age: 0 }, 92);
        gone.sort();
        assert_eq!(gone, ["older"]);
    }

    #[test]
    fn images_that_were_there_at_the_start_are_not_young() {
        let collector = Collector::default();
        let image = |id: &str, tag: &str| cri::Image {
            id: id.to_owned(),
            repo_tags: vec![tag.to_owned()],
            size: 1,
            ..Default::default()
        };
        let first = vec![image("a", "x/a:1"), image("p", "registry.k8s.io/pause:3.10")];
        collector.note(first.clone(), &["x/a:1".to_owned()].into(), 50);
        let later = [first, vec![image("b", "x/b:1")]].concat();
        collector.note(later, &HashSet::new(), 60);
        let records = collector.records.lock();
        assert_eq!(records["a"], Record { first: 0, used: 50, size: 1, kept: false });
        assert_eq!(records["b"].first, 60);
        assert!(records["p"].kept);
    }

    #[test]
    fn images_that_containers_have_mounted_are_in_use() {
        let image = |id: &str| Some(cri::ImageSpec { image: id.to_owned(), ..Default::default() });
        let mount = |image| cri::Mount { image, ..Default::default() };
        let mounts = vec![mount(None), mount(image("sha256:1"))];
        let status = cri::ContainerStatus { mounts, ..Default::default() };
        assert_eq!(mounted(&status).collect::<Vec<_>>(), ["sha256:1"]);
    }
}
