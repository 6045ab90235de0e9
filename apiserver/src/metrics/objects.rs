//! What is stored, counted when somebody asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};

use crate::storage::{Counts, Storage};

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
    done: Done,
}

/// What has been done with the caches.
struct Done {
    fillings: IntCounterVec,
    received: IntCounterVec,
    dispatched: IntCounterVec,
    stored: IntCounterVec,
    lists: IntCounterVec,
    fetched: IntCounterVec,
    returned: IntCounterVec,
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
            done: Done::new()?,
        })
    }

    fn gauges(&self) -> [&IntGaugeVec; 4] {
        [&self.named, &self.counts, &self.sizes, &self.revisions]
    }

    fn all(&self) -> Vec<&dyn Collector> {
        let gauges = self.gauges().into_iter().map(|g| g as &dyn Collector);
        gauges.chain(self.done.all().into_iter().map(|c| c as &dyn Collector)).collect()
    }

    fn reset(&self) {
        self.gauges().into_iter().for_each(IntGaugeVec::reset);
        self.done.all().into_iter().for_each(IntCounterVec::reset);
    }
}

impl Done {
    fn new() -> prometheus::Result<Self> {
        let family = |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        const KIND: [&str; 2] = ["group", "resource"];
        const INDEXED: [&str; 3] = ["group", "index", "resource"];
        Ok(Self {
            fillings: family(
                "apiserver_watch_cache_initializations_total",
                "[ALPHA] Counter of watch cache initializations broken by resource type.",
                &KIND,
            )?,
            received: family(
                "apiserver_watch_cache_events_received_total",
                "[ALPHA] Counter of events received in watch cache broken by resource type.",
                &KIND,
            )?,
            dispatched: family(
                "apiserver_watch_cache_events_dispatched_total",
                "[ALPHA] Counter of events dispatched in watch cache broken by resource type.",
                &KIND,
            )?,
            stored: family(
                "apiserver_storage_events_received_total",
                "[BETA] Number of etcd events received split by kind.",
                &KIND,
            )?,
            lists: family(
                "apiserver_cache_list_total",
                "[ALPHA] Number of LIST requests served from watch cache",
                &INDEXED,
            )?,
            fetched: family(
                "apiserver_cache_list_fetched_objects_total",
                "[ALPHA] Number of objects read from watch cache in the course of serving a LIST request",
                &INDEXED,
            )?,
            returned: family(
                "apiserver_cache_list_returned_objects_total",
                "[ALPHA] Number of objects returned for a LIST request from watch cache",
                &KIND,
            )?,
        })
    }

    fn all(&self) -> [&IntCounterVec; 7] {
        let lists = [&self.lists, &self.fetched, &self.returned];
        [&self.fillings, &self.received, &self.dispatched, &self.stored, lists[0], lists[1], lists[2]]
    }

    fn show(&self, group: &str, resource: &str, counts: &Counts) {
        let amount = |n: &AtomicU64| n.load(Ordering::Relaxed);
        self.fillings.with_label_values(&[group, resource]).inc_by(amount(&counts.fillings));
        // One change is one event, from etcd to those who watch.
        for family in [&self.received, &self.dispatched, &self.stored] {
            family.with_label_values(&[group, resource]).inc_by(amount(&counts.events));
        }
        self.lists.with_label_values(&[group, "", resource]).inc_by(amount(&counts.lists));
        self.fetched.with_label_values(&[group, "", resource]).inc_by(amount(&counts.fetched));
        self.returned.with_label_values(&[group, resource]).inc_by(amount(&counts.returned));
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
        self.families.reset();
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
            f.done.show(group, resource, &cache.counts);
        }
        self.families.all().into_iter().flat_map(Collector::collect).collect()
    }
}
