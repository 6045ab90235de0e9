//! What is stored, counted when somebody asks.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};

use crate::storage::Storage;

/// Counts the objects that the caches hold.
pub(super) struct Objects {
    storage: Arc<Storage>,
    families: Families,
}

/// By the resource's full name, as it used to be, and by group and resource.
struct Families {
    named: IntGaugeVec,
    counts: IntGaugeVec,
    sizes: IntGaugeVec,
    revisions: IntGaugeVec,
}

impl Families {
    fn new() -> prometheus::Result<Self> {
        let family = |name, help, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        const KIND: [&str; 2] = ["group", "resource"];
        Ok(Self {
            named: family(
                "apiserver_storage_objects",
                "[STABLE] (Deprecated since 1.34.0) [DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
                &["resource"],
            )?,
            counts: family(
                "apiserver_resource_objects",
                "[ALPHA] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
                &KIND,
            )?,
            sizes: family(
                "apiserver_resource_size_estimate_bytes",
                "[ALPHA] Estimated size of stored objects in database. Estimate is based on sum of last observed sizes of serialized objects. In case of a fetching error, the value will be -1.",
                &KIND,
            )?,
            revisions: family(
                "apiserver_watch_cache_resource_version",
                "[ALPHA] Current resource version of watch cache broken by resource type. This is truncated to the 15 least significant digits.",
                &KIND,
            )?,
        })
    }

    fn all(&self) -> [&IntGaugeVec; 4] {
        [&self.named, &self.counts, &self.sizes, &self.revisions]
    }
}

impl Objects {
    pub(super) fn of(storage: &Arc<Storage>) -> prometheus::Result<Self> {
        Ok(Self { storage: storage.clone(), families: Families::new()? })
    }
}

impl Collector for Objects {
    fn desc(&self) -> Vec<&Desc> {
        self.families.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Custom resources come and go: what is gone must not be shown any more.
        self.families.all().into_iter().for_each(IntGaugeVec::reset);
        for cache in self.storage.caches() {
            let (group, resource) = cache.resource();
            let snapshot = cache.snapshot();
            let amount = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
            let count = amount(snapshot.objects.len());
            let size = amount(snapshot.objects.values().map(|stored| stored.json.len()).sum());
            let f = &self.families;
            f.named.with_label_values(&[api::error::qualified(group, resource).as_str()]).set(count);
            f.counts.with_label_values(&[group, resource]).set(count);
            f.sizes.with_label_values(&[group, resource]).set(size);
            f.revisions.with_label_values(&[group, resource]).set(snapshot.revision % 1_000_000_000_000_000);
        }
        self.families.all().into_iter().flat_map(Collector::collect).collect()
    }
}
